use std::net::SocketAddr;
use std::time::Duration;

use crate::auth::{self, Auth};
use crate::endpoint;
use crate::metadata::{self, Metadata};
use crate::profile::Profile;
use crate::section::Section;
use crate::tls::{self, ServerTls};
use crate::value::{Case, Value};

/// A listener (reference of 0.6, server block): an entry of `dataplane.servers` or
/// `controller.servers`.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// `endpoint`: `IP:port`; required.
    pub endpoint: SocketAddr,
    /// `tls`; `None` without, which takes an explicit `insecure: true`.
    pub tls: Option<ServerTls>,
    /// `max_frame_size`: largest HTTP/2 frame in bytes. In the file MiB from 1 to 15; default
    /// none, which is the 16 KiB of HTTP/2. The node asks for at most 64 KiB.
    pub max_frame_size: Option<u32>,
    /// `max_concurrent_streams`: streams that a connection may have open. Default none in the
    /// file, which is 100.
    pub max_concurrent_streams: Option<u32>,
    /// `max_header_list_size` in bytes, from 1,024; default none, which is 16 KiB.
    pub max_header_list_size: Option<u32>,
    /// `keepalive`.
    pub keepalive: ServerKeepalive,
    /// `auth`, default none.
    pub auth: Auth,
    /// `metadata`: a free map, default empty.
    pub metadata: Metadata,
    /// `quic`: the native protocol on the same port of UDP; this node's own key, of data plane
    /// servers only.
    pub quic: Quic,
}

/// How a server notices that a client is gone (`keepalive`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerKeepalive {
    /// `time` between pings, above zero, default `2m`.
    pub time: Duration,
    /// `timeout`: how long to wait for the answer to a ping, above zero, default `20s`.
    pub timeout: Duration,
    /// `max_connection_age`: when a client is asked to connect anew, above zero, default `2h`.
    /// Does not cut open streams.
    pub max_connection_age: Duration,
}

impl Default for ServerKeepalive {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(2 * 60),
            timeout: Duration::from_secs(20),
            max_connection_age: Duration::from_secs(2 * 60 * 60),
        }
    }
}

/// The native protocol on a server (`quic`, this node's own key).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quic {
    /// `enabled`, default true.
    pub enabled: bool,
    /// `mtu`: largest datagram in bytes, from 1200 to 65000, default 1452.
    pub mtu: u16,
    /// `idle_timeout`: when a silent connection ends, above zero, default `30s`.
    pub idle_timeout: Duration,
    /// `congestion`: what decides how much may be under way, `cubic` or `bbr`, default `cubic`.
    pub congestion: Congestion,
    /// `exchange`: whether other nodes that ask for it exchange the names of clients with this one.
    /// Default: yes, but not with `profile: hardened`; see [`Quic::exchanges`].
    pub exchange: Option<bool>,
}

/// What decides how much a QUIC connection may have under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Congestion {
    /// Losses.
    #[default]
    Cubic,
    /// The path's measured bandwidth and delay.
    Bbr,
}

const CONGESTIONS: [(&str, Congestion); 2] =
    [("cubic", Congestion::Cubic), ("bbr", Congestion::Bbr)];

impl Quic {
    /// Whether names are exchanged with nodes that ask for it.
    pub fn exchanges(&self, profile: Profile) -> bool {
        self.exchange.unwrap_or(profile == Profile::Compat)
    }
}

impl Default for Quic {
    fn default() -> Self {
        let idle_timeout = Duration::from_secs(30);
        Self {
            enabled: true,
            mtu: 1452,
            idle_timeout,
            congestion: Congestion::default(),
            exchange: None,
        }
    }
}

/// What a server is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Dataplane,
    Controller,
}

impl Server {
    /// A server without TLS and with all other defaults.
    pub(crate) fn insecure(endpoint: SocketAddr) -> Self {
        Self {
            endpoint,
            tls: None,
            max_frame_size: None,
            max_concurrent_streams: None,
            max_header_list_size: None,
            keepalive: ServerKeepalive::default(),
            auth: Auth::None,
            metadata: Metadata::new(),
            quic: Quic::default(),
        }
    }
}

/// A server block.
pub(crate) fn read(value: Value<'_>, role: Role) -> Option<Server> {
    const MIB: u32 = 1024 * 1024;
    let mut section = value.section()?;
    let endpoint = section.required("endpoint", endpoint::read_listener);
    let tls = read_tls(&mut section);
    let frame_mib = section.optional("max_frame_size", |v| v.integer(1..=15_u32));
    let streams = section.optional("max_concurrent_streams", |v| v.integer(1..=u32::MAX));
    let headers = section.optional("max_header_list_size", |v| v.integer(1024..=u32::MAX));
    let keepalive = section.optional("keepalive", read_keepalive);
    let auth = section.optional("auth", auth::read_server);
    let metadata = section.optional("metadata", metadata::read);
    let quic = match role {
        Role::Dataplane => section.optional("quic", read_quic),
        Role::Controller => None,
    };
    read_ineffective(&mut section);
    section.finish();
    Some(Server {
        endpoint: endpoint?,
        tls: tls?,
        max_frame_size: frame_mib.map(|mib| mib * MIB),
        max_concurrent_streams: streams,
        max_header_list_size: headers,
        keepalive: keepalive.unwrap_or_default(),
        auth: auth.unwrap_or_default(),
        metadata: metadata.unwrap_or_default(),
        quic: quic.unwrap_or_default(),
    })
}

fn read_tls(section: &mut Section<'_>) -> Option<Option<ServerTls>> {
    let Some(value) = section.child("tls") else {
        let hint = "TLS is on by default: add `tls` with `cert_file` and `key_file`, or with \
                    `insecure: true` to serve without";
        return section.missing("tls", Some(hint.into()));
    };
    tls::read_server(value)
}

fn read_ineffective(section: &mut Section<'_>) {
    let any_size = |value: Value<'_>| value.integer(0..=u64::MAX);
    section.ineffective("http2_only", "HTTP/1 is never served", Value::boolean);
    let kernel = "the sizes of buffers are not configurable";
    section.ineffective("read_buffer_size", kernel, any_size);
    section.ineffective("write_buffer_size", kernel, any_size);
}

fn read_keepalive(value: Value<'_>) -> Option<ServerKeepalive> {
    let default = ServerKeepalive::default();
    let mut section = value.section()?;
    let keepalive = ServerKeepalive {
        time: section.optional("time", Value::short_duration).unwrap_or(default.time),
        timeout: section.optional("timeout", Value::short_duration).unwrap_or(default.timeout),
        max_connection_age: section
            .optional("max_connection_age", Value::positive_duration)
            .unwrap_or(default.max_connection_age),
    };
    let why = "no connection ends for being idle or after a grace period";
    section.ineffective("max_connection_idle", why, Value::duration);
    section.ineffective("max_connection_age_grace", why, Value::duration);
    section.finish();
    Some(keepalive)
}

fn read_quic(value: Value<'_>) -> Option<Quic> {
    let default = Quic::default();
    let mut section = value.section()?;
    let quic = Quic {
        enabled: section.optional("enabled", Value::boolean).unwrap_or(default.enabled),
        mtu: section.optional("mtu", |value| value.integer(1200..=65_000)).unwrap_or(default.mtu),
        idle_timeout: section
            .optional("idle_timeout", Value::positive_duration)
            .unwrap_or(default.idle_timeout),
        congestion: section
            .optional("congestion", |value| value.choice(&CONGESTIONS, Case::Sensitive))
            .unwrap_or(default.congestion),
        exchange: section.optional("exchange", Value::boolean),
    };
    section.finish();
    Some(quic)
}
