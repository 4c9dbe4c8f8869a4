use std::path::PathBuf;

use crate::secret::Secret;
use crate::section::Section;
use crate::value::{Case, Value};

/// A certificate or certificates in PEM form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Certificates {
    /// A file; a relative path starts at the working directory of the process.
    File(PathBuf),
    /// The PEM text itself.
    Pem(String),
}

/// A certificate with its private key, both in PEM form (`cert_file` and `key_file`, or `cert_pem`
/// and `key_pem`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Files; a relative path starts at the working directory of the process.
    Files {
        /// The certificate, with its chain after it.
        certificate: PathBuf,
        /// The private key.
        key: PathBuf,
    },
    /// The PEM texts themselves.
    Pem {
        /// The certificate, with its chain after it.
        certificate: String,
        /// The private key.
        key: Secret,
    },
}

/// The one version of TLS that is spoken (`tls_version`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// `tls1.2`
    Tls12,
    /// `tls1.3`, the default.
    #[default]
    Tls13,
}

/// TLS of a listener (reference of 0.6, `tls`, server side). Not present with `insecure: true`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// What the server shows to clients; required.
    pub identity: Identity,
    /// `client_ca_file` or `client_ca_pem`: clients must show a certificate that one of these
    /// signed. Default: none is asked for.
    pub client_ca: Option<Certificates>,
    /// `tls_version`, default `tls1.3`.
    pub version: TlsVersion,
}

/// TLS of a client (reference of 0.6, `tls`, client side). Not present with `insecure: true`
/// unless authorities are named, in which case the released nodes use TLS all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTls {
    /// `insecure_skip_verify`: accept any certificate. Default false.
    pub skip_verification: bool,
    /// `ca_file` or `ca_pem`: authorities that may sign the server's certificate. Default none.
    pub authorities: Option<Certificates>,
    /// `include_system_ca_certs_pool`: trust the authorities of the platform too. Default true.
    pub platform_authorities: bool,
    /// What the client shows to the server. Default none.
    pub identity: Option<Identity>,
    /// `tls_version`, default `tls1.3`.
    pub version: TlsVersion,
}

impl Default for ClientTls {
    fn default() -> Self {
        Self {
            skip_verification: false,
            authorities: None,
            platform_authorities: true,
            identity: None,
            version: TlsVersion::default(),
        }
    }
}

const VERSIONS: [(&str, TlsVersion); 2] =
    [("tls1.2", TlsVersion::Tls12), ("tls1.3", TlsVersion::Tls13)];

/// The `tls` block of a server: `Some(None)` without TLS, `None` if it is wrong.
pub(crate) fn read_server(value: Value<'_>) -> Option<Option<ServerTls>> {
    let mut section = value.section()?;
    let insecure = section.optional("insecure", Value::boolean).unwrap_or(false);
    let identity = read_identity(&mut section);
    let client_ca = read_certificates(&mut section, ["client_ca_file", "client_ca_pem"]);
    let version = read_version(&mut section);
    let of_clients = "only clients check with it whom they reach";
    section.ineffective("insecure_skip_verify", of_clients, Value::boolean);
    section.ineffective("include_system_ca_certs_pool", of_clients, Value::boolean);
    section.ineffective("ca_file", of_clients, Value::file_path);
    section.ineffective("ca_pem", of_clients, Value::owned_text);
    let always = "files are read again every second";
    section.ineffective("reload_client_ca_file", always, Value::boolean);
    section.ineffective("reload_interval", always, Some);
    refuse_later_spelling(&mut section, "`client_ca_file` or `client_ca_pem`");
    // A key that is misspelt or of a later release is the better finding.
    let misspelt = section.has_unknown() || section.has_later_spelling();
    section.finish();
    let (identity, client_ca) = (identity.ok()?, client_ca.ok()?);
    if insecure && client_ca.is_some() {
        // The server would be open to all, though only some are to be let in.
        let message = "`insecure: true` leaves nobody to ask clients for certificates";
        return value.fail(message, Some("remove `insecure`, or what names `client_ca`".into()));
    }
    match identity {
        Some(_) if insecure => {
            let message = "`insecure: true` leaves the certificate unused";
            value.warn(message, Some("remove `insecure` to serve TLS"));
            Some(None)
        }
        Some(identity) => Some(Some(ServerTls { identity, client_ca, version })),
        None if insecure => Some(None),
        None if misspelt => None,
        None => fail_no_identity(&value),
    }
}

/// Reports that a server can neither serve TLS nor was told to do without.
pub(crate) fn fail_no_identity<T>(value: &Value<'_>) -> Option<T> {
    let hint = "add `cert_file` and `key_file`, or `insecure: true` to serve without TLS";
    value.fail("expected a certificate and a key, got none", Some(hint.into()))
}

/// The `tls` block of a client: `Some(None)` without TLS, `None` if it is wrong.
pub(crate) fn read_client(value: Value<'_>) -> Option<Option<ClientTls>> {
    let mut section = value.section()?;
    let insecure = section.optional("insecure", Value::boolean).unwrap_or(false);
    let skip = section.optional("insecure_skip_verify", Value::boolean);
    let authorities = read_certificates(&mut section, ["ca_file", "ca_pem"]);
    let platform = section.optional("include_system_ca_certs_pool", Value::boolean);
    let identity = read_identity(&mut section);
    let version = read_version(&mut section);
    let of_servers = "only servers check clients with it";
    section.ineffective("client_ca_file", of_servers, Value::file_path);
    section.ineffective("client_ca_pem", of_servers, Value::owned_text);
    let always = "files are read again every second";
    section.ineffective("reload_client_ca_file", always, Value::boolean);
    section.ineffective("reload_interval", always, Some);
    refuse_later_spelling(&mut section, "`ca_file` or `ca_pem`");
    section.finish();
    let (authorities, identity) = (authorities.ok()?, identity.ok()?);
    if insecure && authorities.is_none() {
        return Some(None);
    }
    if insecure {
        let message = "`insecure: true` has no effect beside certificates of authorities";
        value.warn(message, Some("remove one of the two"));
    }
    Some(Some(ClientTls {
        skip_verification: skip.unwrap_or(false),
        authorities,
        platform_authorities: platform.unwrap_or(true),
        identity,
        version,
    }))
}

fn read_version(section: &mut Section<'_>) -> TlsVersion {
    section
        .optional("tls_version", |value| value.choice(&VERSIONS, Case::Sensitive))
        .unwrap_or_default()
}

fn refuse_later_spelling(section: &mut Section<'_>, authorities: &str) {
    section.later_spelling("source", "`cert_file` and `key_file`, or `cert_pem` and `key_pem`");
    section.later_spelling("ca_source", authorities);
}

/// Something in a block was wrong and has been reported.
struct Reported;

/// One of a file and a text; `Err` once it has been reported that they are wrong.
fn read_certificates(
    section: &mut Section<'_>,
    [file_key, pem_key]: [&'static str; 2],
) -> Result<Option<Certificates>, Reported> {
    let given = [section.has(file_key), section.has(pem_key)];
    let file = section.optional(file_key, Value::file_path);
    let pem = section.optional(pem_key, Value::owned_text);
    match (file, pem) {
        (Some(_), Some(_)) => {
            let message = format!("expected `{file_key}` or `{pem_key}`, got both");
            section.value().fail(message, Some("remove one of the two".into())).ok_or(Reported)
        }
        (Some(file), None) => Ok(Some(Certificates::File(file))),
        (None, Some(pem)) => Ok(Some(Certificates::Pem(pem))),
        (None, None) if given == [false, false] => Ok(None),
        (None, None) => Err(Reported),
    }
}

fn read_identity(section: &mut Section<'_>) -> Result<Option<Identity>, Reported> {
    const KEYS: [&str; 4] = ["cert_file", "key_file", "cert_pem", "key_pem"];
    let given = KEYS.map(|key| section.has(key));
    let cert_file = section.optional(KEYS[0], Value::file_path);
    let key_file = section.optional(KEYS[1], Value::file_path);
    let cert_pem = section.optional(KEYS[2], Value::owned_text);
    let key_pem = section.optional(KEYS[3], Value::secret);
    let partner = match given {
        [false, false, false, false] => return Ok(None),
        [true, true, false, false] | [false, false, true, true] => None,
        [true, false, false, false] => Some("key_file"),
        [false, true, false, false] => Some("cert_file"),
        [false, false, true, false] => Some("key_pem"),
        [false, false, false, true] => Some("cert_pem"),
        _ => {
            let got: Vec<_> = KEYS.iter().zip(given).filter(|(_, given)| *given).collect();
            let got: Vec<_> = got.into_iter().map(|(key, _)| format!("`{key}`")).collect();
            let pairs = "`cert_file` with `key_file`, or `cert_pem` with `key_pem`";
            let message = format!("expected {pairs}, got {}", got.join(", "));
            return section.value().fail(message, None).ok_or(Reported);
        }
    };
    if let Some(partner) = partner {
        let hint = "a certificate and its key are given as two files or as two texts";
        return section.missing(partner, Some(hint.into())).ok_or(Reported);
    }
    match (cert_file, key_file, cert_pem, key_pem) {
        (Some(certificate), Some(key), ..) => Ok(Some(Identity::Files { certificate, key })),
        (_, _, Some(certificate), Some(key)) => Ok(Some(Identity::Pem { certificate, key })),
        _ => Err(Reported),
    }
}
