//! Beginnings of QUIC connections, made without any I/O.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use quinn_proto::crypto::{
    self, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, Session,
};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{
    ClientConfig, ConnectError, ConnectionId, Endpoint, EndpointConfig, Side, TransportError,
};
use slim_wire::ALPN;

use super::native::tls;

/// The first datagram of a client that asks for a connection.
pub(crate) fn first_packet() -> Vec<u8> {
    first_packet_of(ClientConfig::new(Arc::new(tls(ALPN))))
}

/// The same, with something in it that is no message of TLS.
pub(crate) fn first_packet_without_tls() -> Vec<u8> {
    first_packet_of(ClientConfig::new(Arc::new(Garbage(Arc::new(tls(ALPN))))))
}

fn first_packet_of(config: ClientConfig) -> Vec<u8> {
    let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None, false, None);
    let (now, remote) = (Instant::now(), SocketAddr::from(([127, 0, 0, 1], 1)));
    let (_, mut connection) = endpoint.connect(now, config, remote, "node").expect("an address");
    let mut datagram = Vec::new();
    let transmit = connection.poll_transmit(now, 1, &mut datagram);
    assert!(transmit.is_some());
    datagram
}

/// Whether a datagram asks a client to prove its address.
pub(crate) fn is_retry(datagram: &[u8]) -> bool {
    const LONG_HEADER: u8 = 0x80;
    const TYPE: u8 = 0x30;
    datagram[0] & LONG_HEADER != 0 && datagram[0] & TYPE == TYPE
}

/// Handshakes that begin with garbage.
struct Garbage(Arc<crypto::rustls::QuicClientConfig>);

struct GarbageSession {
    tls: Box<dyn Session>,
    said: bool,
}

impl crypto::ClientConfig for Garbage {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        parameters: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        let session = Arc::clone(&self.0).start_session(version, server_name, parameters)?;
        Ok(Box::new(GarbageSession { tls: session, said: false }))
    }
}

impl Session for GarbageSession {
    fn initial_keys(&self, id: &ConnectionId, side: Side) -> Keys {
        self.tls.initial_keys(id, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.tls.handshake_data()
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.tls.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.tls.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.tls.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    fn read_handshake(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        self.tls.read_handshake(bytes)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.tls.transport_parameters()
    }

    fn write_handshake(&mut self, bytes: &mut Vec<u8>) -> Option<Keys> {
        if !std::mem::replace(&mut self.said, true) {
            bytes.extend_from_slice(b"this is no message of TLS");
        }
        None
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.tls.next_1rtt_keys()
    }

    fn is_valid_retry(&self, id: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.tls.is_valid_retry(id, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.tls.export_keying_material(output, label, context)
    }
}
