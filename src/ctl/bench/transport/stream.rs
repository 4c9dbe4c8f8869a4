//! Frames over TCP, with or without TLS, to a pump.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, split};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::super::pump;
use super::{Arrival, native};
use crate::ctl::Error;

/// What a read may bring at most.
const READ_BYTES: usize = 256 * 1024;

pub(crate) struct Sender {
    io: Box<dyn AsyncWrite + Unpin>,
}

pub(crate) struct Receiver {
    io: Box<dyn AsyncRead + Unpin>,
    buffer: BytesMut,
}

/// A connection in the role of a subscriber or of a publisher.
pub(super) async fn connect(
    address: SocketAddr,
    certificate: Option<&CertificateDer<'static>>,
    subscriber: bool,
) -> Result<(Sender, Receiver), Error> {
    let failed = |source| Error::connect(address, source);
    let tcp = TcpStream::connect(address).await.map_err(failed)?;
    tcp.set_nodelay(true).map_err(failed)?;
    let (mut sender, receiver) = match certificate {
        None => halves(tcp),
        Some(certificate) => {
            let connector = connector(certificate).map_err(|e| Error::connect(address, e))?;
            let name = ServerName::try_from(pump::TLS_NAME).expect("a DNS name");
            // rustls itself asks for no more than 4 KiB at a time.
            let tcp = BufReader::with_capacity(READ_BYTES, tcp);
            halves(connector.connect(name, tcp).await.map_err(failed)?)
        }
    };
    let role = if subscriber { pump::SUBSCRIBER } else { pump::PUBLISHER };
    sender.send(&[role]).await?;
    Ok((sender, receiver))
}

fn halves(io: impl AsyncRead + AsyncWrite + 'static) -> (Sender, Receiver) {
    let (read, write) = split(io);
    let buffer = BytesMut::with_capacity(READ_BYTES);
    (Sender { io: Box::new(write) }, Receiver { io: Box::new(read), buffer })
}

fn connector(certificate: &CertificateDer<'static>) -> Result<TlsConnector, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone())?;
    let config = ClientConfig::builder_with_provider(Arc::new(pump::tls_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config).into())
}

impl Sender {
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.io.write_all(bytes).await.map_err(Error::link)?;
        self.io.flush().await.map_err(Error::link)
    }

    pub(super) async fn finish(mut self) -> Result<(), Error> {
        self.io.shutdown().await.map_err(Error::link)
    }
}

impl Receiver {
    pub(super) async fn receive(&mut self, arrivals: &mut Vec<Arrival>) -> Result<bool, Error> {
        self.buffer.reserve(READ_BYTES / 2);
        if self.io.read_buf(&mut self.buffer).await.map_err(Error::link)? == 0 {
            return Ok(false);
        }
        while let Some(len) = native::frame_len(&self.buffer)? {
            let Some(frame) = self.buffer.get(..len) else { break };
            arrivals.extend(native::arrival(frame));
            self.buffer.advance(len);
        }
        Ok(true)
    }
}
