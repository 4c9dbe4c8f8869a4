use std::net::IpAddr;

use crate::auth::{self, Auth};
use crate::diagnostics::key_path;
use crate::section::Section;
use crate::tls::{self, Certificates, Identity, ServerTls, TlsVersion};
use crate::tree::Kind;
use crate::value::Value;

/// One of the two APIs of a controller: `northbound`, which operators use, or `southbound`, which
/// nodes use.
#[derive(Clone, Debug, PartialEq)]
pub struct Api {
    /// `httpHost`: the IP address or host name to listen on, IPv6 without brackets. Default
    /// `localhost`.
    pub host: String,
    /// `httpPort`: a number, or a text with one; 0 for one of the system's choice. Default 50051
    /// north and 50052 south.
    pub port: u16,
    /// `tls`, in one of two forms; `None` without, the default.
    ///
    /// The form of 0.6 has `certFile`, `keyFile` and `caFile`: clients must show a certificate
    /// that `caFile` signed. The form of a node's servers can also do without that.
    pub tls: Option<ServerTls>,
    /// `auth`, as a node's servers have it. Default none. This program's own key.
    pub auth: Auth,
}

impl Api {
    /// `host:port`, as a listener takes it.
    pub fn address(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// Whether only programs of this machine reach it.
    pub fn is_loopback(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(ip) => ip.to_canonical().is_loopback(),
            Err(_) => self.host.eq_ignore_ascii_case("localhost"),
        }
    }
}

/// Which of the two.
#[derive(Clone, Copy)]
pub(super) struct Side {
    pub(super) key: &'static str,
    pub(super) port: u16,
    pub(super) host_variable: &'static str,
    pub(super) port_variable: &'static str,
}

pub(super) const NORTHBOUND: Side = Side {
    key: "northbound",
    port: 50051,
    host_variable: "NB_API_HTTP_HOST",
    port_variable: "NB_API_HTTP_PORT",
};

pub(super) const SOUTHBOUND: Side = Side {
    key: "southbound",
    port: 50052,
    host_variable: "SB_API_HTTP_HOST",
    port_variable: "SB_API_HTTP_PORT",
};

/// An API, and what else stands in its block.
#[derive(Default)]
pub(super) struct Block<'a> {
    /// `None` if it is wrong.
    pub(super) api: Option<Api>,
    pub(super) logging: Option<Value<'a>>,
    pub(super) reconciler: Option<Value<'a>>,
}

/// The block of `side` in `root`, which may be absent; `variables` come before what it says.
pub(super) fn read<'a>(root: &mut Section<'a>, side: Side, variables: &Value<'_>) -> Block<'a> {
    let host = variables.field(side.host_variable).map(read_host);
    let port = variables.field(side.port_variable).map(read_port);
    let default =
        Api { host: "localhost".into(), port: side.port, tls: None, auth: Auth::default() };
    let mut block = match root.child(side.key) {
        Some(value) => read_block(&value, default),
        None => Block { api: Some(default), ..Block::default() },
    };
    block.api = block.api.and_then(|api| {
        Some(Api {
            host: host.unwrap_or(Some(api.host))?,
            port: port.unwrap_or(Some(api.port))?,
            ..api
        })
    });
    block
}

fn read_block<'a>(value: &Value<'a>, default: Api) -> Block<'a> {
    let Some(mut section) = value.section() else { return Block::default() };
    let host = section.child("httpHost").map_or(Some(default.host), read_host);
    let port = section.child("httpPort").map_or(Some(default.port), read_port);
    let tls = section.child("tls").map_or(Some(default.tls), read_tls);
    let auth = section.child("auth").map_or(Some(default.auth), auth::read_server);
    section.ineffective("spire", "certificates are read from files", read_spire);
    let (logging, reconciler) = (section.child("logging"), section.child("reconciler"));
    section.finish();
    let api = || Some(Api { host: host?, port: port?, tls: tls?, auth: auth? });
    let api = api();
    if let (Some(api), Some(auth)) = (&api, value.field("auth"))
        && api.auth != Auth::None
        && api.tls.is_none()
    {
        auth.warn("what clients show can be read on the way: there is no TLS", Some("add `tls`"));
    }
    Block { api, logging, reconciler }
}

fn read_host(value: Value<'_>) -> Option<String> {
    const WHAT: &str = "an IP address or a host name";
    let text = match value.text()? {
        "" => return value.expected_with_hint(WHAT, "write 0.0.0.0 for every address"),
        text => text,
    };
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if bare.parse::<IpAddr>().is_ok() {
        return Some(bare.to_owned());
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if text.len() <= 253 && text.bytes().all(allowed) {
        return Some(text.to_owned());
    }
    let hint = "without scheme and path; the port belongs to `httpPort`";
    value.expected_with_hint(WHAT, hint)
}

fn read_port(value: Value<'_>) -> Option<u16> {
    let text = match &value.node.kind {
        Kind::Number(number) => number,
        Kind::Text(text) => &text.text,
        _ => return value.expected("a port from 0 to 65535"),
    };
    match text.parse() {
        Ok(port) => Some(port),
        Err(_) => value.expected("a port from 0 to 65535"),
    }
}

/// Keys of the form of 0.6.
const PUBLISHED: [&str; 4] = ["useSpiffe", "certFile", "keyFile", "caFile"];

fn read_tls(value: Value<'_>) -> Option<Option<ServerTls>> {
    if PUBLISHED.iter().any(|key| value.field(key).is_some()) {
        return read_published_tls(value);
    }
    tls::read_server(value)
}

fn read_published_tls(value: Value<'_>) -> Option<Option<ServerTls>> {
    let mut section = value.section()?;
    if let Some(spiffe) = section.child("useSpiffe")
        && spiffe.clone().boolean()?
    {
        let hint = "have `spiffe-helper` write the files that `certFile`, `keyFile` and `caFile` \
                    name";
        return spiffe.fail("certificates of a SPIRE agent are not supported", Some(hint.into()));
    }
    let mut file = |key| match section.has(key) {
        true => section.optional(key, Value::file_path),
        false => {
            let hint = match key {
                "caFile" => Some(
                    "these keys ask clients for certificates; `cert_file` and `key_file` serve \
                     TLS without that"
                        .to_owned(),
                ),
                _ => None,
            };
            section.child(key);
            section.missing(key, hint)
        }
    };
    let (certificate, key, authorities) = (file("certFile"), file("keyFile"), file("caFile"));
    section.finish();
    Some(Some(ServerTls {
        identity: Identity::Files { certificate: certificate?, key: key? },
        client_ca: Some(Certificates::File(authorities?)),
        version: TlsVersion::default(),
    }))
}

fn read_spire(value: Value<'_>) -> Option<()> {
    let mut section = value.section()?;
    let path = section.optional("socketPath", Value::owned_text);
    section.finish();
    path.map(|_| ())
}

/// Checks `api`, whose block is in `root`, for the profile `hardened`.
pub(super) fn check_hardened(root: &Value<'_>, side: Side, api: &Api) {
    const WHERE: &str = "required with `profile: hardened` on an address that other machines reach";
    if api.is_loopback() {
        return;
    }
    let block = root.field(side.key).unwrap_or_else(|| root.clone());
    let at = block.field("tls").unwrap_or(block).at();
    let path = key_path(&root.path, side.key);
    match &api.tls {
        None => {
            let hint = "add `cert_file` and `key_file`, or listen on localhost";
            let message = format!("{WHERE}, but there is none");
            root.findings.error(at, &key_path(&path, "tls"), message, Some(hint.into()));
        }
        Some(tls) if tls.client_ca.is_none() && api.auth == Auth::None => {
            let hint = "name who signs the certificates of clients, or listen on localhost";
            let message = format!("{WHERE}, but neither it nor `auth` is given");
            let key = key_path(&key_path(&path, "tls"), "client_ca_file");
            root.findings.error(at, &key, message, Some(hint.into()));
        }
        Some(_) => {}
    }
}
