//! Relays without routing: what moving bytes from one socket to another costs by itself.
//!
//! A pump serves one publisher and one subscriber at a time, in one thread, in a process of its
//! own, so that its CPU time can be read. It takes what has arrived before it sends any of it on.

mod child;
mod datagram;
mod quic;
mod stream;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;

use clap::ValueEnum;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};

pub use self::child::Pump;
use crate::ctl::Error;

/// Below what a relay over this transport cannot get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Floor {
    /// UDP segments of 1452 bytes with the kernel's offloads, no encryption
    Udp,
    /// TCP
    Tcp,
    /// TLS 1.3 over TCP, AES-128-GCM
    Tls,
    /// The node's QUIC, AES-128-GCM, without its routing
    Quic,
}

impl Floor {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Udp, Self::Tcp, Self::Tls, Self::Quic];

    fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Quic => "quic",
        }
    }
}

impl fmt::Display for Floor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What an end sends first: over UDP only the subscriber, in a datagram of its own.
pub(super) const SUBSCRIBER: u8 = b'S';
pub(super) const PUBLISHER: u8 = b'P';

/// For which name a pump's certificate is made.
pub(super) const TLS_NAME: &str = "localhost";

/// The one cipher suite that pumps are measured with.
pub(super) fn tls_provider() -> CryptoProvider {
    let cipher_suites = vec![cipher_suite::TLS13_AES_128_GCM_SHA256];
    CryptoProvider { cipher_suites, ..default_provider() }
}

/// Runs a pump until the process is ended. `mtu` is the largest datagram in bytes of one that
/// speaks QUIC. `announce` is called once it listens, with the text that
/// says where, and by which certificate it is known.
///
/// # Errors
/// [`Error::Connect`] if it cannot listen there, [`Error::Machine`] if the socket fails later.
pub(super) fn serve(
    floor: Floor,
    listen: SocketAddr,
    mtu: u16,
    announce: impl FnOnce(&str),
) -> Result<Infallible, Error> {
    let failed = |source: io::Error| Error::connect(listen, source);
    match floor {
        Floor::Udp => {
            let socket = UdpSocket::bind(listen).map_err(failed)?;
            announce(&announcement(socket.local_addr(), "").map_err(failed)?);
            datagram::serve(&socket).map_err(Error::machine("UDP socket"))
        }
        Floor::Tcp => {
            let listener = TcpListener::bind(listen).map_err(failed)?;
            announce(&announcement(listener.local_addr(), "").map_err(failed)?);
            stream::serve(&listener, None).map_err(Error::machine("listener"))
        }
        Floor::Tls => {
            let listener = TcpListener::bind(listen).map_err(failed)?;
            let (config, pem) = identity().map_err(|source| Error::connect(listen, source))?;
            announce(&announcement(listener.local_addr(), &pem).map_err(failed)?);
            stream::serve(&listener, Some(&Arc::new(config))).map_err(Error::machine("listener"))
        }
        Floor::Quic => {
            let socket = UdpSocket::bind(listen).map_err(failed)?;
            let (mut config, pem) = identity().map_err(|source| Error::connect(listen, source))?;
            config.alpn_protocols = vec![slim_wire::ALPN.to_vec()];
            announce(&announcement(socket.local_addr(), &pem).map_err(failed)?);
            quic::serve(socket, config, mtu).map_err(Error::machine("QUIC socket"))
        }
    }
}

const LISTENING: &str = "listening on ";

fn announcement(address: io::Result<SocketAddr>, pem: &str) -> io::Result<String> {
    Ok(format!("{LISTENING}{}\n{pem}", address?))
}

/// A certificate of its own, and its PEM text.
fn identity() -> Result<(ServerConfig, String), Box<dyn std::error::Error + Send + Sync>> {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed([TLS_NAME.to_owned()])?;
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    let mut config = ServerConfig::builder_with_provider(Arc::new(tls_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key.into())?;
    // Nobody comes back.
    config.send_tls13_tickets = 0;
    Ok((config, cert.pem()))
}
