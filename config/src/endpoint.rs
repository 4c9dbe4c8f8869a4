use std::fmt;
use std::net::SocketAddr;

use http::Uri;

use crate::value::Value;

/// How a client reaches an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// gRPC over HTTP/2; whether with TLS says the `tls` block.
    Http,
    /// The same as [`Scheme::Http`]: as in the released nodes the `tls` block decides.
    Https,
    /// The native protocol over QUIC.
    Quic,
}

impl Scheme {
    const ALL: [(&'static str, Self); 3] =
        [("http", Self::Http), ("https", Self::Https), ("quic", Self::Quic)];

    /// As it stands before `://`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Quic => "quic",
        }
    }

    /// The port of an endpoint that names none.
    fn default_port(self) -> Option<u16> {
        match self {
            Self::Http => Some(80),
            Self::Https => Some(443),
            Self::Quic => None,
        }
    }
}

/// Where a client connects to, as `http://host:46357`. Two are equal if they reach the same place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The protocol.
    pub scheme: Scheme,
    /// Host name in lower case or IP address, IPv6 in brackets.
    pub host: String,
    /// Port; of a file's endpoint without one 80 for `http` and 443 for `https`.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme.name(), self.host, self.port)
    }
}

const CLIENT_FORM: &str = "`http://host:port`, `https://host:port` or `quic://host:port`";

/// The endpoint of a client block.
pub(crate) fn read_client(value: Value<'_>) -> Option<Endpoint> {
    let text = value.filled_text()?;
    if text.contains('@') {
        return fail_credentials(&value, "`auth.basic`");
    }
    if !text.contains("://") {
        let hint = "put a scheme before it, as `http://`";
        return value.expected_with_hint(CLIENT_FORM, hint);
    }
    let Ok(uri) = text.parse::<Uri>() else {
        return value.expected(CLIENT_FORM);
    };
    let scheme = Scheme::ALL.into_iter().find(|(name, _)| uri.scheme_str() == Some(name));
    let Some((_, scheme)) = scheme else {
        return value.expected_with_hint(CLIENT_FORM, "other schemes are not supported yet");
    };
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return value.expected_with_hint(CLIENT_FORM, "remove what follows the port");
    }
    let host = uri.host().filter(|host| !host.is_empty());
    // `host:` parses with no port, and so does a port above 65535.
    let named = uri.authority().map_or("", |authority| authority.as_str());
    let port = match uri.port_u16() {
        None if host == Some(named) => scheme.default_port(),
        port => port.filter(|port| *port != 0),
    };
    match (host, port) {
        (Some(host), Some(port)) => {
            Some(Endpoint { scheme, host: host.to_ascii_lowercase(), port })
        }
        _ => value.expected_with_hint(CLIENT_FORM, "name a host and a port from 1 to 65535"),
    }
}

/// A URI that is only checked, as `proxy.url` or `origin`.
pub(crate) fn read_uri(value: Value<'_>, schemes: &[&str]) -> Option<String> {
    let text = value.filled_text()?;
    if text.contains('@') {
        return fail_credentials(&value, "the keys `username` and `password`");
    }
    let uri = text.parse::<Uri>().ok();
    let fits = uri.is_some_and(|uri| {
        uri.host().is_some_and(|host| !host.is_empty())
            && uri.scheme_str().is_some_and(|scheme| schemes.contains(&scheme))
    });
    if !fits {
        let forms: Vec<_> = schemes.iter().map(|s| format!("`{s}://host:port`")).collect();
        return value.expected(forms.join(" or "));
    }
    Some(text.to_owned())
}

fn fail_credentials<T>(value: &Value<'_>, instead: &str) -> Option<T> {
    let hint = format!("use {instead}, whose text is not logged");
    value.fail("expected a URI without user name and password", Some(hint))
}

/// The address of a listener: an IP address and a port.
pub(crate) fn read_listener(value: Value<'_>) -> Option<SocketAddr> {
    const WHAT: &str = "\"IP:port\"";
    let text = value.filled_text()?;
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let bare = text.split_once("://").map_or(text, |(_, rest)| rest).trim_end_matches('/');
    let port = bare.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    let local = bare.starts_with("localhost");
    let suggestion = match (bare.parse::<SocketAddr>(), port) {
        (Ok(address), _) => address.to_string(),
        (_, Some(port)) if local => format!("127.0.0.1:{port}"),
        (_, Some(port)) => format!("0.0.0.0:{port}"),
        (_, None) => "0.0.0.0:46357".into(),
    };
    value.expected_with_hint(WHAT, &format!("write {suggestion}"))
}
