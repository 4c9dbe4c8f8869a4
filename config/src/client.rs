use std::fmt;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::auth::{self, Auth};
use crate::diagnostics::{Diagnostics, Findings};
use crate::endpoint::{self, Endpoint, Scheme};
use crate::metadata::{self, Metadata};
use crate::secret::Secret;
use crate::section::Section;
use crate::tls::{self, ClientTls};
use crate::tree::{self, Entry, Kind};
use crate::value::{Case, Value};

/// An endpoint to connect to (reference of 0.6, client block): an entry of `dataplane.clients` or
/// `controller.clients`, or `opentelemetry.grpc`.
#[derive(Clone, Debug, PartialEq)]
pub struct Client {
    /// `endpoint`: `http://`, `https://` or `quic://` with host and port; required.
    pub endpoint: Endpoint,
    /// `origin`: what requests name as their authority and scheme. Default: the endpoint.
    pub origin: Option<String>,
    /// `rate_limit`: how often requests, and so streams, may be started. Default: no limit.
    pub rate_limit: Option<RateLimit>,
    /// `tls`; `None` without. Default: TLS that trusts the platform's authorities.
    pub tls: Option<ClientTls>,
    /// `keepalive`; without the block no keepalive at all.
    pub keepalive: Option<ClientKeepalive>,
    /// `proxy`; without the block or its `url` the environment decides.
    pub proxy: Option<Proxy>,
    /// `connect_timeout`, default `0s` = none.
    pub connect_timeout: Option<Duration>,
    /// `request_timeout`, default `0s` = none. Ends long-lived streams too; bounds an export of
    /// telemetry, for which the default is 10 seconds.
    pub request_timeout: Option<Duration>,
    /// `buffer_size`: requests that wait inside the client. Default: the library's.
    pub buffer_size: Option<u32>,
    /// `headers`: sent with each request. Default none.
    pub headers: Headers,
    /// `auth`, default none.
    pub auth: Auth,
    /// `metadata`: a free map, default empty.
    pub metadata: Metadata,
    /// `release` of the node at the other end, if it is reached over gRPC; this node's own key, of
    /// data plane clients only. Default `0.6`.
    pub release: Release,
    /// `announce`: whether the other end is told of the names that clients of this node subscribe
    /// to; this node's own key, of data plane clients over gRPC only. Default false.
    pub announce: bool,
    /// Whether QUIC is tried on the same port before gRPC. Not a key: true of peers of the command
    /// line and of connections that a controller asks for.
    pub native_first: bool,
    /// `exchange`: whether this node and the one at the other end tell each other the names of their
    /// own clients, if the other agrees; this node's own key, of data plane clients over QUIC only.
    /// Default false.
    pub exchange: bool,
}

/// What a published node speaks (`release`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Release {
    /// `0.6`; the default.
    #[default]
    V0_6,
    /// `2`: 2.0 and later, 3.x included.
    V2,
}

const RELEASES: [(&str, Release); 2] = [("0.6", Release::V0_6), ("2", Release::V2)];

impl Client {
    /// A client of `endpoint` without TLS and with all other defaults.
    pub(crate) fn insecure(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            origin: None,
            rate_limit: None,
            tls: None,
            keepalive: None,
            proxy: None,
            connect_timeout: None,
            request_timeout: None,
            buffer_size: None,
            headers: Headers::new(),
            auth: Auth::None,
            metadata: Metadata::new(),
            release: Release::default(),
            announce: false,
            native_first: false,
            exchange: false,
        }
    }

    /// Another node, whose endpoint is all that is given: QUIC is tried first, and with `https://`
    /// its certificate is checked. Both tell each other the names of their clients.
    ///
    /// # Errors
    /// [`Diagnostics`] if `endpoint` is none.
    pub fn peer(endpoint: &str) -> Result<Self, Diagnostics> {
        let text = format!("{{\"endpoint\": {}}}", Quoted(endpoint));
        let client = Self::requested("peer", &text)?;
        Ok(Self { exchange: true, announce: true, ..client })
    }

    /// A connection that a controller asks for, as its JSON. Members that releases put there as an
    /// example, such as timeouts and headers, are left aside; without `tls` the scheme decides.
    /// Placeholders stand for nothing, and `auth` cannot name files: whoever may configure links
    /// is not to be sent what is in them.
    ///
    /// # Errors
    /// [`Diagnostics`] if `endpoint`, `tls` or `auth` is wrong.
    pub fn requested(name: &str, json: &str) -> Result<Self, Diagnostics> {
        let findings = Findings::new(name);
        let client = tree::parse(json, &findings).flatten().and_then(|root| {
            read_requested(Value { node: &root, path: String::new(), findings: &findings })
        });
        let found = findings.finish();
        match client {
            Some(client) if found.errors().next().is_none() => Ok(client),
            _ => Err(found),
        }
    }
}

/// A text in double quotes, as JSON and YAML read it.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escaped = self.0.chars().flat_map(char::escape_default);
        write!(f, "\"{}\"", escaped.filter(|c| !c.is_control()).collect::<String>())
    }
}

fn read_requested(value: Value<'_>) -> Option<Client> {
    let mut section = value.section()?;
    let endpoint = section.required("endpoint", endpoint::read_client)?;
    let tls = match section.child("tls") {
        Some(value) => tls::read_client(value)?,
        None => (endpoint.scheme != Scheme::Http).then(ClientTls::default),
    };
    let auth = section.optional("auth", auth::read_inline).unwrap_or_default();
    let native_first = endpoint.scheme != Scheme::Quic;
    Some(Client { tls, auth, native_first, ..Client::insecure(endpoint) })
}

/// Names, which are valid for HTTP, and values of headers in the order of the file.
pub type Headers = Vec<(String, Secret)>;

/// So many requests in so much time (`rate_limit: 20/60` = 20 in 60 seconds).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// How many; at least 1.
    pub count: u32,
    /// In how much time; at least a second.
    pub period: Duration,
}

/// How a client notices that the other end is gone (`keepalive`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientKeepalive {
    /// `tcp_keepalive`, above zero, default `60s`.
    pub tcp: Duration,
    /// `http2_keepalive`: time between pings, above zero, default `60s`.
    pub http2: Duration,
    /// `timeout`: how long to wait for the answer to a ping, above zero, default `10s`.
    pub timeout: Duration,
    /// `keep_alive_while_idle`: ping without an open stream too. Default false.
    pub while_idle: bool,
}

/// How a client reaches the outside (`proxy`).
#[derive(Clone, Debug, PartialEq)]
pub struct Proxy {
    /// `url`: `http://` or `https://` with host. Default: `HTTP_PROXY`, `HTTPS_PROXY` and
    /// `NO_PROXY` of the environment.
    pub url: Option<String>,
    /// `tls` towards an `https` proxy; `None` without.
    pub tls: Option<ClientTls>,
    /// `username`, default none.
    pub username: Option<String>,
    /// `password`, default none.
    pub password: Option<Secret>,
    /// `headers` of the request to the proxy. Default none.
    pub headers: Headers,
}

/// A client block.
pub(crate) fn read(value: Value<'_>) -> Option<Client> {
    let mut section = value.section()?;
    let endpoint = section.required("endpoint", endpoint::read_client);
    let tls = match section.child("tls") {
        Some(value) => tls::read_client(value),
        None => Some(Some(ClientTls::default())),
    };
    let origin = section.optional("origin", |v| endpoint::read_uri(v, &["http", "https"]));
    let rate_limit = section.optional("rate_limit", read_rate_limit);
    let keepalive = section.optional("keepalive", read_keepalive);
    let proxy = section.optional("proxy", read_proxy);
    let connect_timeout = section.optional("connect_timeout", Value::duration_or_none);
    let request_timeout = section.optional("request_timeout", Value::duration_or_none);
    let buffer_size = section.optional("buffer_size", |v| v.integer(1..=u32::MAX));
    let headers = section.optional("headers", read_headers);
    let auth = section.optional("auth", auth::read_client);
    let metadata = section.optional("metadata", metadata::read);
    let release = section.optional("release", |v| v.choice(&RELEASES, Case::Sensitive));
    let announce = section.optional("announce", Value::boolean);
    let exchange = section.optional("exchange", Value::boolean);
    read_ineffective(&mut section);
    section.finish();
    Some(Client {
        endpoint: endpoint?,
        origin,
        rate_limit,
        tls: tls?,
        keepalive,
        proxy,
        connect_timeout: connect_timeout.flatten(),
        request_timeout: request_timeout.flatten(),
        buffer_size,
        headers: headers.unwrap_or_default(),
        auth: auth.unwrap_or_default(),
        metadata: metadata.unwrap_or_default(),
        release: release.unwrap_or_default(),
        announce: announce.unwrap_or_default(),
        native_first: false,
        exchange: exchange.unwrap_or_default(),
    })
}

fn read_ineffective(section: &mut Section<'_>) {
    const COMPRESSIONS: [(&str, ()); 8] = [
        ("Gzip", ()),
        ("Zlib", ()),
        ("Deflate", ()),
        ("Snappy", ()),
        ("Zstd", ()),
        ("Lz4", ()),
        ("None", ()),
        ("Empty", ()),
    ];
    section.ineffective("compression", "no release compresses messages", |value| {
        value.choice(&COMPRESSIONS, Case::Sensitive)
    });
    section.ineffective("connection_timeout", "`connect_timeout` is the key that is read", Some);
    section.ineffective("permit_without_stream", USE_WHILE_IDLE, Some);
}

const USE_WHILE_IDLE: &str = "`keepalive.keep_alive_while_idle` is the key that is read";

fn read_rate_limit(value: Value<'_>) -> Option<RateLimit> {
    let text = match &value.node.kind {
        Kind::Text(text) => text.text.as_str(),
        _ => "",
    };
    let parsed = text.split_once('/').and_then(|(count, seconds)| {
        let count = count.trim().parse::<u32>().ok().filter(|count| *count > 0)?;
        let seconds = seconds.trim().parse::<u32>().ok().filter(|s| *s > 0)?;
        Some(RateLimit { count, period: Duration::from_secs(seconds.into()) })
    });
    parsed.or_else(|| value.expected("`count/seconds`, such as `20/60`, both above zero"))
}

fn read_keepalive(value: Value<'_>) -> Option<ClientKeepalive> {
    const MINUTE: Duration = Duration::from_secs(60);
    let mut section = value.section()?;
    let keepalive = ClientKeepalive {
        tcp: section.optional("tcp_keepalive", Value::positive_duration).unwrap_or(MINUTE),
        http2: section.optional("http2_keepalive", Value::positive_duration).unwrap_or(MINUTE),
        timeout: section
            .optional("timeout", Value::positive_duration)
            .unwrap_or(Duration::from_secs(10)),
        while_idle: section.optional("keep_alive_while_idle", Value::boolean).unwrap_or(false),
    };
    section.ineffective("permit_without_stream", USE_WHILE_IDLE, Some);
    section.finish();
    Some(keepalive)
}

fn read_proxy(value: Value<'_>) -> Option<Proxy> {
    let mut section = value.section()?;
    let url = section.optional("url", |v| endpoint::read_uri(v, &["http", "https"]));
    let tls = match section.child("tls") {
        Some(value) => tls::read_client(value),
        None => Some(Some(ClientTls::default())),
    };
    let username = section.optional("username", Value::owned_text);
    let password = section.optional("password", Value::secret);
    let headers = section.optional("headers", read_headers);
    section.finish();
    Some(Proxy { url, tls: tls?, username, password, headers: headers.unwrap_or_default() })
}

fn read_headers(value: Value<'_>) -> Option<Headers> {
    let read = |(entry, value): (&Entry, Value<'_>)| {
        if HeaderName::from_bytes(entry.key.as_bytes()).is_err() {
            return value.fail("expected a key that is the name of an HTTP header", None);
        }
        let text = value.clone().secret()?;
        if HeaderValue::from_str(text.expose()).is_err() {
            return value.fail("expected printable ASCII as the value of a header", None);
        }
        Some((entry.key.clone(), text))
    };
    Some(value.pairs()?.into_iter().filter_map(read).collect())
}
