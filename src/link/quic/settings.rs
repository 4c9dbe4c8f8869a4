//! How QUIC is spoken: windows, timers, packet sizes, TLS. The numbers are measured ones; see
//! docs/architecture.md.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use quinn_proto::congestion::{BbrConfig, ControllerFactory, CubicConfig};
use quinn_proto::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use quinn_proto::{
    AckFrequencyConfig, ClientConfig, Connection, Dir, EndpointConfig, IdleTimeout,
    MtuDiscoveryConfig, ServerConfig, TransportConfig, VarInt,
};
use slim_config::Congestion;
use slim_wire::limits::LANES;

use super::cid::CoreConnectionIds;
use crate::datapath::CoreId;

/// What may be chosen about connections.
#[derive(Clone, Copy, Debug)]
pub struct QuicSettings {
    /// Largest datagram in bytes, 1200 to 65000.
    pub mtu: u16,
    /// When a silent connection ends.
    pub idle_timeout: Duration,
    /// What decides how much may be under way.
    pub congestion: Congestion,
}

/// Larger windows gain nothing on the paths measured, and every byte in flight makes finding the
/// next packet's bytes slower.
const STREAM_WINDOW_BYTES: u32 = 512 * 1024;

/// All lanes and the control stream together, so that paused lanes never take the others' part.
const WINDOW_BYTES: u32 = (LANES as u32 + 1) * STREAM_WINDOW_BYTES;

/// What a connection may hold for its peer until it is acknowledged, beside its queue.
const SEND_WINDOW_BYTES: u64 = 2 * 1024 * 1024;

/// Paths that let packets overtake each other are common, and each packet that is wrongly taken for
/// lost halves what may be in flight. A real loss is found a little later for it, by time.
const REORDERED_PACKETS: u32 = 128;
const REORDERED_ROUND_TRIPS: f32 = 2.0;

/// Packets that are acknowledged together. At a low rate each acknowledgement wakes a core, which
/// costs as much as a message; more at a time would hold up a sender that may have only a few
/// packets under way.
const PACKETS_PER_ACK: u32 = 5;

const DATAGRAM_BUFFER_BYTES: usize = 1024 * 1024;

/// The smallest packet size that every path has to carry.
const SMALLEST_MTU: u16 = 1200;

/// Both directions of a link have as many lanes.
const LANE_STREAMS: VarInt = VarInt::from_u32(LANES as u32);

/// A connection is asked for signs of life several times before it is given up.
const KEEPALIVES_PER_IDLE: u32 = 3;

/// What a server tells peers with that still hold connections to what it was before it was killed
/// (stateless resets). With the same key after a restart it ends those at once, which would else
/// swallow what is sent until their idle timeout.
#[derive(Clone)]
pub struct ResetKey(Arc<hmac::Key>);

impl ResetKey {
    /// The key of a server that proves who it is by the private key `secret`, in DER.
    pub fn of(secret: &[u8]) -> Self {
        const PURPOSE: &[u8] = b"slim stateless reset";
        let root = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let key = hmac::sign(&root, PURPOSE);
        Self(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, key.as_ref())))
    }

    /// The key of a server whose certificate nobody checks, and which so has no secret that lasts.
    /// Everybody knows it. To end a connection by it takes the connection's id too, of which 48 bits
    /// are chance: who can read that on the way could as well pose as the server.
    pub fn known_to_all() -> Self {
        Self::of(&[])
    }
}

impl fmt::Debug for ResetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResetKey(..)")
    }
}

/// Settings of a listening endpoint on `core`.
pub fn listening(core: CoreId, settings: QuicSettings, resets: &ResetKey) -> Arc<EndpointConfig> {
    let key = Arc::clone(&resets.0);
    Arc::new(configured(EndpointConfig::new(key), core, settings))
}

/// Settings of an endpoint on `core` that is gone with its connections.
pub fn endpoint(core: CoreId, settings: QuicSettings) -> Arc<EndpointConfig> {
    Arc::new(configured(EndpointConfig::default(), core, settings))
}

fn configured(mut config: EndpointConfig, core: CoreId, settings: QuicSettings) -> EndpointConfig {
    config.cid_generator(move || Box::new(CoreConnectionIds(core)));
    config
        .max_udp_payload_size(settings.mtu.max(MIN_UDP_PAYLOAD))
        .expect("the configuration allows 1200 to 65000");
    config
}

/// Peers may send us packets of an Ethernet path whatever we send ourselves.
const MIN_UDP_PAYLOAD: u16 = 1472;

/// What both ends of a link agree on: windows, lanes, sizes of packets.
pub fn transport(settings: QuicSettings) -> TransportConfig {
    let mut config = TransportConfig::default();
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(settings.mtu);
    let congestion: Arc<dyn ControllerFactory + Send + Sync> = match settings.congestion {
        Congestion::Cubic => Arc::new(CubicConfig::default()),
        Congestion::Bbr => Arc::new(BbrConfig::default()),
    };
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(PACKETS_PER_ACK - 1));
    config
        .ack_frequency_config(Some(acks))
        .congestion_controller_factory(congestion)
        .stream_receive_window(STREAM_WINDOW_BYTES.into())
        .receive_window(WINDOW_BYTES.into())
        .send_window(SEND_WINDOW_BYTES)
        .max_concurrent_uni_streams(LANE_STREAMS)
        .packet_threshold(REORDERED_PACKETS)
        .time_threshold(REORDERED_ROUND_TRIPS)
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER_BYTES))
        .datagram_send_buffer_size(DATAGRAM_BUFFER_BYTES)
        .initial_mtu(SMALLEST_MTU)
        .mtu_discovery_config(Some(discovery))
        .max_idle_timeout(Some(idle(settings.idle_timeout)));
    config
}

/// The longest timeout that QUIC can express is beyond any that makes sense.
fn idle(timeout: Duration) -> IdleTimeout {
    IdleTimeout::try_from(timeout).unwrap_or(IdleTimeout::from(VarInt::MAX))
}

/// Settings of a listening endpoint. The client opens the one control stream; it may open lanes
/// once it has said hello, since what is not read yet keeps memory.
///
/// # Errors
/// If `tls` lacks the cipher suite that QUIC begins with.
pub fn server(
    tls: Arc<rustls::ServerConfig>,
    settings: QuicSettings,
) -> Result<Arc<ServerConfig>, NoInitialCipherSuite> {
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    let mut transport = transport(settings);
    transport.max_concurrent_bidi_streams(1_u8.into()).max_concurrent_uni_streams(0_u8.into());
    config.transport_config(Arc::new(transport)).migration(true);
    Ok(Arc::new(config))
}

/// The same settings with another certificate: what clients were told before, such as tokens by
/// which they are known again, stays good.
///
/// # Errors
/// If `tls` lacks the cipher suite that QUIC begins with.
pub fn renewed(
    server: &ServerConfig,
    tls: Arc<rustls::ServerConfig>,
) -> Result<Arc<ServerConfig>, NoInitialCipherSuite> {
    let mut config = server.clone();
    config.crypto = Arc::new(QuicServerConfig::try_from(tls)?);
    Ok(Arc::new(config))
}

/// Lets the peer open its lanes.
pub fn allow_lanes(connection: &mut Connection) {
    connection.set_max_concurrent_streams(Dir::Uni, LANE_STREAMS);
}

/// Settings of a connection to another node.
///
/// # Errors
/// If `tls` lacks the cipher suite that QUIC begins with.
pub fn client(
    tls: Arc<rustls::ClientConfig>,
    settings: QuicSettings,
) -> Result<ClientConfig, NoInitialCipherSuite> {
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    let mut transport = transport(settings);
    transport
        .max_concurrent_bidi_streams(0_u8.into())
        .max_concurrent_uni_streams(0_u8.into())
        .keep_alive_interval(Some(settings.idle_timeout / KEEPALIVES_PER_IDLE));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// What links to other nodes, which have no settings of their own, use. Nodes ask each other for
/// signs of life often: what is sent to one that has crashed is lost until its link ends.
impl Default for QuicSettings {
    fn default() -> Self {
        let congestion = Congestion::default();
        Self { mtu: 1452, idle_timeout: Duration::from_secs(6), congestion }
    }
}
