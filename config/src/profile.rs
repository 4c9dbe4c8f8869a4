use std::fmt;
use std::net::SocketAddr;

use crate::diagnostics::key_path;
use crate::tree::Kind;
use crate::value::{Case, Value};

/// Which defaults and checks a file starts from (`profile`, this node's own key).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// `compat`, the default: what the documents show loads and runs as they say.
    #[default]
    Compat,
    /// `hardened`: every server that other machines reach has TLS, and clients that show who they
    /// are; `policy.mode` is `enforce` unless the file says `observe`.
    Hardened,
}

/// The word of the file.
impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Compat => "compat",
            Self::Hardened => "hardened",
        })
    }
}

const PROFILES: [(&str, Profile); 2] =
    [("compat", Profile::Compat), ("hardened", Profile::Hardened)];

/// `profile`.
pub(crate) fn read(value: Value<'_>) -> Option<Profile> {
    value.choice(&PROFILES, Case::Sensitive)
}

/// Checks a server block as it stands in the file for the profile `hardened`. What is wrong in
/// any profile has been reported.
pub(crate) fn check_hardened(server: &Value<'_>) {
    let Some(tls) = server.field("tls") else { return };
    if !matches!(tls.node.kind, Kind::Mapping(_)) || !reached_by_others(server) {
        return;
    }
    let insecure = tls.field("insecure");
    if let Some(insecure) = insecure.filter(|value| matches!(value.node.kind, Kind::Boolean(true)))
    {
        insecure.fail::<()>(
            "not with `profile: hardened` on an address that other machines reach",
            Some("replace it by `cert_file` and `key_file`, or listen on 127.0.0.1".into()),
        );
    }
    if !asks_clients(server, &tls) {
        server.findings.error(
            tls.at(),
            &key_path(&tls.path, "client_ca_file"),
            "required with `profile: hardened` on an address that other machines reach, but \
             neither it nor `auth` is given",
            Some("name who signs the certificates of clients, or listen on 127.0.0.1".into()),
        );
    }
}

/// Whether the server's address is one, and not of this machine alone.
fn reached_by_others(server: &Value<'_>) -> bool {
    let endpoint = server.field("endpoint").map(|endpoint| &endpoint.node.kind);
    match endpoint {
        Some(Kind::Text(text)) => text
            .text
            .parse::<SocketAddr>()
            .is_ok_and(|address| !address.ip().to_canonical().is_loopback()),
        _ => false,
    }
}

/// Whether clients have to show who they are.
fn asks_clients(server: &Value<'_>, tls: &Value<'_>) -> bool {
    let given = |value: Value<'_>| match &value.node.kind {
        Kind::Null => false,
        Kind::Text(text) => text.text != "none",
        _ => true,
    };
    let keys = [("client_ca_file", tls), ("client_ca_pem", tls), ("auth", server)];
    keys.into_iter().any(|(key, block)| block.field(key).is_some_and(given))
}
