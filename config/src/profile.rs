use std::fmt;
use std::net::{IpAddr, SocketAddr};

use http::Uri;

use crate::diagnostics::key_path;
use crate::server::Role;
use crate::tree::Kind;
use crate::value::{Case, Value};

/// Which defaults and checks a file starts from (`profile`, this node's own key).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// `compat`, the default: what the documents show loads and runs as they say.
    #[default]
    Compat,
    /// `hardened`: every server that other machines reach has TLS, and clients that show who they
    /// are; so has every connection to a controller on another machine, and who manages the node
    /// directly shows who it is from this machine too; `policy.mode` is `enforce` unless the file
    /// says `observe`.
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
pub(crate) fn check_server(server: &Value<'_>, role: Role) {
    let Some(tls) = server.field("tls") else { return };
    let Some(address) = address(server) else { return };
    let reached = !address.ip().to_canonical().is_loopback();
    if !matches!(tls.node.kind, Kind::Mapping(_)) {
        return;
    }
    if let Some(insecure) = insecure(&tls).filter(|_| reached) {
        insecure.fail::<()>(
            "not with `profile: hardened` on an address that other machines reach",
            Some("replace it by `cert_file` and `key_file`, or listen on 127.0.0.1".into()),
        );
    }
    if asks_clients(server, &tls) {
        return;
    }
    // Each user of this machine reaches it, and could manage the node.
    if role == Role::Controller {
        server.findings.error(
            server.at(),
            &key_path(&server.path, "auth"),
            "required with `profile: hardened`, on 127.0.0.1 too, where the node is managed, but \
             neither it nor `tls.client_ca_file` is given",
            Some(
                "add `auth`, or name who signs the certificates of those who manage the node"
                    .into(),
            ),
        );
    } else if reached {
        server.findings.error(
            tls.at(),
            &key_path(&tls.path, "client_ca_file"),
            "required with `profile: hardened` on an address that other machines reach, but \
             neither it nor `auth` is given",
            Some("name who signs the certificates of clients, or listen on 127.0.0.1".into()),
        );
    }
}

/// Checks a block of `controller.clients` for the profile `hardened`: whoever is on the way to a
/// controller, or can stand in for it, would manage the node.
pub(crate) fn check_controller(client: &Value<'_>) {
    let (Some(tls), Some(false)) = (client.field("tls"), is_on_this_machine(client)) else {
        return;
    };
    // Authorities make it TLS, whatever else is said.
    let plain =
        insecure(&tls).filter(|_| !["ca_file", "ca_pem"].into_iter().any(|key| has(&tls, key)));
    let unchecked = tls.field("insecure_skip_verify").filter(is_true);
    for key in plain.into_iter().chain(unchecked) {
        key.fail::<()>(
            "not with `profile: hardened` for a controller on another machine",
            Some("remove it, and name in `ca_file` who signs the controller's certificate".into()),
        );
    }
}

/// `insecure: true` of a `tls` block.
fn insecure<'a>(tls: &Value<'a>) -> Option<Value<'a>> {
    tls.field("insecure").filter(is_true)
}

fn is_true(value: &Value<'_>) -> bool {
    matches!(value.node.kind, Kind::Boolean(true))
}

/// Whether a client's endpoint is on this machine; `None` if it is no endpoint.
fn is_on_this_machine(client: &Value<'_>) -> Option<bool> {
    let endpoint = client.field("endpoint")?;
    let Kind::Text(text) = &endpoint.node.kind else { return None };
    let uri = text.text.parse::<Uri>().ok()?;
    let host = uri.host()?.trim_matches(['[', ']']);
    let address = host.parse::<IpAddr>();
    Some(match address {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    })
}

/// The address that a server listens on, if it is one.
fn address(server: &Value<'_>) -> Option<SocketAddr> {
    match &server.field("endpoint")?.node.kind {
        Kind::Text(text) => text.text.parse().ok(),
        _ => None,
    }
}

/// Whether clients have to show who they are.
fn asks_clients(server: &Value<'_>, tls: &Value<'_>) -> bool {
    let keys = [("client_ca_file", tls), ("client_ca_pem", tls), ("auth", server)];
    keys.into_iter().any(|(key, block)| has(block, key))
}

/// Whether a key has a value other than `none`.
fn has(block: &Value<'_>, key: &str) -> bool {
    block.field(key).is_some_and(|value| match &value.node.kind {
        Kind::Null => false,
        Kind::Text(text) => text.text != "none",
        _ => true,
    })
}
