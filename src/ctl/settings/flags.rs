use std::path::PathBuf;

use clap::{ArgAction, Args};
use slim_config::{CtlOptions, Secret};

use crate::ctl::output::Format;

/// Options of every command that talks to a controller or to the control endpoint of a node.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Connection options")]
pub(in crate::ctl) struct Flags {
    /// Controller, or with `node route`, `node connection` and `node-connect` the control endpoint
    /// of a node: HOST:PORT, or a URL with http:// (plaintext) or https:// [default:
    /// localhost:50051; of a node localhost:46358]
    #[arg(short, long, value_name = "HOST:PORT", global = true)]
    server: Option<String>,
    /// Time for the whole command, such as 5s or 1m30s [default: 15s]
    #[arg(long, value_name = "TIME", global = true)]
    timeout: Option<String>,
    /// User and password
    #[arg(
        short,
        long = "basic_auth_creds",
        alias = "basic-auth-creds",
        value_name = "USER:PASSWORD",
        global = true
    )]
    basic_auth_creds: Option<String>,
    /// Bearer token
    #[arg(long, value_name = "TOKEN", global = true, conflicts_with = "basic_auth_creds")]
    token: Option<String>,
    /// File with a bearer token
    #[arg(
        long,
        alias = "token_file",
        value_name = "FILE",
        global = true,
        conflicts_with_all = ["basic_auth_creds", "token"]
    )]
    token_file: Option<PathBuf>,
    /// Plaintext, without TLS: true or false [default: true, unless a file for TLS is named or the
    /// server's URL says https]
    #[arg(
        long = "tls.insecure",
        aliases = ["tls-insecure", "tls_insecure"],
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        hide_possible_values = true,
        action = ArgAction::Set,
        global = true
    )]
    tls_insecure: Option<bool>,
    /// PEM file with the authority that signed the server's certificate [default: those of the
    /// system]
    #[arg(
        long = "tls.ca_file",
        aliases = ["tls.ca-file", "tls-ca-file", "tls_ca_file"],
        value_name = "FILE",
        global = true
    )]
    tls_ca_file: Option<PathBuf>,
    /// PEM file with the certificate to show to the server
    #[arg(
        long = "tls.cert_file",
        aliases = ["tls.cert-file", "tls-cert-file", "tls_cert_file"],
        value_name = "FILE",
        global = true
    )]
    tls_cert_file: Option<PathBuf>,
    /// PEM file with its key
    #[arg(
        long = "tls.key_file",
        aliases = ["tls.key-file", "tls-key-file", "tls_key_file"],
        value_name = "FILE",
        global = true
    )]
    tls_key_file: Option<PathBuf>,
    /// Settings file [default: the first there is of ~/.slimctl/config.yaml,
    /// ~/.config/slimctl/config.yaml and ./config.yaml]
    #[arg(long, value_name = "FILE", global = true)]
    pub(super) config: Option<PathBuf>,
    /// Named context of the settings file
    #[arg(long, value_name = "NAME", global = true)]
    pub(super) context: Option<String>,
    /// Form of the result: text (the documented lines), table, json or yaml [default: text]
    #[arg(
        short,
        long,
        value_enum,
        global = true,
        value_name = "FORM",
        hide_possible_values = true
    )]
    pub(super) output: Option<Format>,
}

impl Flags {
    /// What is said here, and for what is not said here, what `other` says.
    pub(in crate::ctl) fn or(self, other: Self) -> Self {
        let CtlOptions {
            server,
            timeout,
            basic_auth_creds,
            token,
            token_file,
            tls_insecure,
            tls_ca_file,
            tls_cert_file,
            tls_key_file,
        } = self.options().or(other.options());
        let exposed = |secret: Secret| secret.expose().to_owned();
        Self {
            server,
            timeout,
            basic_auth_creds: basic_auth_creds.map(exposed),
            token: token.map(exposed),
            token_file,
            tls_insecure,
            tls_ca_file,
            tls_cert_file,
            tls_key_file,
            config: self.config.or(other.config),
            context: self.context.or(other.context),
            output: self.output.or(other.output),
        }
    }

    /// The same with this form of results, if it is given.
    pub(in crate::ctl) fn with_output(self, output: Option<Format>) -> Self {
        Self { output: output.or(self.output), ..self }
    }

    /// What they say of the connection.
    pub(super) fn options(&self) -> CtlOptions {
        CtlOptions {
            server: self.server.clone(),
            timeout: self.timeout.clone(),
            basic_auth_creds: self.basic_auth_creds.as_ref().map(Secret::new),
            token: self.token.as_ref().map(Secret::new),
            token_file: self.token_file.clone(),
            tls_insecure: self.tls_insecure,
            tls_ca_file: self.tls_ca_file.clone(),
            tls_cert_file: self.tls_cert_file.clone(),
            tls_key_file: self.tls_key_file.clone(),
        }
    }
}
