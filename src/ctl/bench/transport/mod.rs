//! Links of the load generator. Messages are encoded once, as a [`Template`]; what differs between
//! them is the stamp in their payloads. All else about a protocol is behind [`Sender`] and
//! [`Receiver`].

mod datagram;
mod driver;
mod grpc;
mod messages;
mod native;
mod nats;
mod quic;
mod segment;
mod stream;

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use bytes::{Bytes, BytesMut};
use http::Uri;
use rustls::pki_types::CertificateDer;
use slim_wire::{Id, Name, Prefix, hash_component};

pub(super) use self::datagram::enlarge_buffers;
use super::pump::Floor;
use super::stamp::{STAMP_BYTES, Stamp};
use crate::client::link::{LinkOptions, Trust};
use crate::ctl::Error;

/// Ids of subscribers count from 1, those of publishers from here.
pub(super) const PUBLISHER_IDS: u64 = 1_000_000;

/// What a run sends its messages through.
#[derive(Clone, Debug)]
pub enum Server {
    /// A node, over the gRPC of release 0.6.
    Grpc {
        /// Host and port.
        authority: String,
    },
    /// A node, over the native protocol.
    Quic {
        /// Host and port.
        authority: String,
        /// How to connect.
        options: Box<LinkOptions>,
    },
    /// The same on the node's own loop, which is cheaper than the library for apps.
    Driver {
        /// Host and port.
        authority: String,
        /// How to connect; credentials are not shown.
        options: Box<LinkOptions>,
    },
    /// A NATS server.
    Nats {
        /// Host and port.
        authority: String,
        /// By what it is known; `None` for one without TLS.
        tls: Option<Trust>,
    },
    /// A relay without routing, see [`super::Pump`]; not that over QUIC, which is spoken to as
    /// a node is.
    Pump {
        /// Which kind.
        floor: Floor,
        /// Where it listens.
        address: SocketAddr,
        /// By which it is known, if it speaks TLS.
        certificate: Option<CertificateDer<'static>>,
    },
}

impl FromStr for Server {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self, Error> {
        let expected = "grpc://HOST:PORT, http://HOST:PORT, quic://HOST:PORT, nats://HOST:PORT \
                        or tls://HOST:PORT";
        let wrong = || Error::argument("--server", expected, url);
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let authority = uri.authority().filter(|authority| authority.port().is_some());
        match (uri.scheme_str(), authority, uri.path()) {
            (Some("grpc" | "http"), Some(authority), "" | "/") => {
                Ok(Self::Grpc { authority: authority.to_string() })
            }
            (Some("quic"), Some(authority), "" | "/") => {
                let authority = authority.to_string();
                Ok(Self::Quic { authority, options: Box::default() })
            }
            (Some("nats"), Some(authority), "" | "/") => {
                Ok(Self::Nats { authority: authority.to_string(), tls: None })
            }
            (Some("tls"), Some(authority), "" | "/") => {
                Ok(Self::Nats { authority: authority.to_string(), tls: Some(Trust::System) })
            }
            _ => Err(wrong()),
        }
    }
}

impl Server {
    /// The same server, known by `trust`, and where it is native with datagrams of up to `mtu`
    /// bytes.
    ///
    /// # Errors
    /// [`Error::Argument`] for a server that has no certificate, or sends no datagrams.
    pub(super) fn known_by(self, trust: Option<Trust>, mtu: Option<u16>) -> Result<Self, Error> {
        match self {
            Self::Quic { authority, options } => {
                let (trust, mtu) = (trust.unwrap_or(options.trust), mtu.unwrap_or(options.mtu));
                let options = LinkOptions { trust, mtu, ..*options };
                Ok(Self::Quic { authority, options: Box::new(options) })
            }
            Self::Nats { authority, tls: Some(known) } if mtu.is_none() => {
                Ok(Self::Nats { authority, tls: Some(trust.unwrap_or(known)) })
            }
            other if trust.is_none() && mtu.is_none() => Ok(other),
            other => Err(Error::argument(
                "--server",
                "quic:// with --mtu; quic:// or tls:// with --ca or \
                 --danger-accept-any-certificate",
                other,
            )),
        }
    }
}

impl Server {
    /// The same server, where it is native: spoken to on the node's own loop.
    ///
    /// # Errors
    /// [`Error::Argument`] for a server that is not.
    pub(super) fn on_node_loop(self) -> Result<Self, Error> {
        match self {
            Self::Quic { authority, options } => Ok(Self::Driver { authority, options }),
            other => Err(Error::argument("--server", "quic:// with --node-loop", other)),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grpc { authority } => write!(f, "grpc://{authority}"),
            Self::Quic { authority, .. } | Self::Driver { authority, .. } => {
                write!(f, "quic://{authority}")
            }
            Self::Nats { authority, tls: None } => write!(f, "nats://{authority}"),
            Self::Nats { authority, tls: Some(_) } => write!(f, "tls://{authority}"),
            Self::Pump { floor, address, .. } => write!(f, "{floor} pump at {address}"),
        }
    }
}

/// Where a message goes to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    Id(u64),
    /// All who subscribed to the topic, so many.
    All(u32),
}

/// From which end to which, within a topic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route<'a> {
    pub(super) topic: &'a str,
    pub(super) source: u64,
    pub(super) target: Target,
}

impl Route<'_> {
    fn address(&self) -> Address {
        let prefix = Prefix(components(self.topic).map(hash_component));
        let (id, fanout) = match self.target {
            Target::Id(id) => (Id::from_u64(id), 1),
            Target::All(fanout) => (Id::ANY, fanout),
        };
        let source = Name { prefix, id: Id::from_u64(self.source) };
        Address { source, destination: Name { prefix, id }, fanout }
    }
}

/// A route as the native protocol has it.
#[derive(Clone, Copy, Debug)]
struct Address {
    source: Name,
    destination: Name,
    fanout: u32,
}

/// The texts of the name that all ends of a topic share.
fn components(topic: &str) -> [&str; 3] {
    ["slimctl", "bench", topic]
}

/// A message as it leaves, but for its stamp.
#[derive(Clone, Debug)]
pub(super) struct Template {
    bytes: Vec<u8>,
    stamp_at: usize,
    /// For links that write the rest of a message themselves.
    address: Address,
}

impl Template {
    /// Adds a message to those that leave together.
    pub(super) fn append(&self, stamp: Stamp, batch: &mut BytesMut) {
        let at = batch.len() + self.stamp_at;
        batch.extend_from_slice(&self.bytes);
        batch[at..at + STAMP_BYTES].copy_from_slice(&stamp.to_bytes());
    }

    /// Bytes of a message.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// A message that arrived.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub(super) stamp: Stamp,
    /// Length of its payload.
    pub(super) bytes: usize,
}

impl Arrival {
    fn of(payload: &[u8]) -> Option<Self> {
        Stamp::read(payload).map(|stamp| Self { stamp, bytes: payload.len() })
    }
}

/// The sending half of a link.
pub(super) enum Sender {
    Grpc(grpc::Sender),
    Quic(quic::Sender),
    Driver(driver::Sender),
    Nats(nats::Sender),
    Stream(stream::Sender),
    Datagram(datagram::Sender),
}

/// The receiving half of a link.
pub(super) enum Receiver {
    Grpc(grpc::Receiver),
    Quic(quic::Receiver),
    Driver(driver::Receiver),
    Nats(nats::Receiver),
    Stream(stream::Receiver),
    Datagram(datagram::Receiver),
}

impl Server {
    /// A link of its own, subscribed to the id if there is one.
    pub(super) async fn connect(
        &self,
        topic: &str,
        id: Option<u64>,
    ) -> Result<(Sender, Receiver), Error> {
        match self {
            Self::Grpc { authority } => {
                let (sender, receiver) = grpc::connect(authority, topic, id).await?;
                Ok((Sender::Grpc(sender), Receiver::Grpc(receiver)))
            }
            Self::Quic { authority, options } => {
                let (sender, receiver) = quic::connect(authority, options, topic, id).await?;
                Ok((Sender::Quic(sender), Receiver::Quic(receiver)))
            }
            Self::Driver { authority, options } => {
                let (sender, receiver) = driver::connect(authority, options, topic, id).await?;
                Ok((Sender::Driver(sender), Receiver::Driver(receiver)))
            }
            Self::Nats { authority, tls } => {
                let (sender, receiver) = nats::connect(authority, tls.as_ref(), topic, id).await?;
                Ok((Sender::Nats(sender), Receiver::Nats(receiver)))
            }
            Self::Pump { floor: Floor::Udp, address, .. } => {
                let subscriber = id.is_some_and(|id| id < PUBLISHER_IDS);
                let (sender, receiver) = datagram::connect(*address, subscriber).await?;
                Ok((Sender::Datagram(sender), Receiver::Datagram(receiver)))
            }
            Self::Pump { address, certificate, .. } => {
                let certificate = certificate.as_ref();
                let (sender, receiver) =
                    stream::connect(*address, certificate, id.is_some()).await?;
                Ok((Sender::Stream(sender), Receiver::Stream(receiver)))
            }
        }
    }

    /// What leaves in one write at most if so much is due, in bytes.
    pub(super) fn batch_bytes(&self) -> usize {
        match self {
            // As published clients: tonic's threshold.
            Self::Grpc { .. } => 32 * 1024,
            // The link packs what it sends by itself.
            Self::Quic { .. } | Self::Driver { .. } => 64 * 1024,
            // As published clients buffer.
            Self::Nats { .. } => 64 * 1024,
            // A floor is lowest where as much as possible moves at a time.
            Self::Pump { .. } => 256 * 1024,
        }
    }

    /// A message of `size` payload bytes along `route`.
    pub(super) fn template(&self, route: &Route<'_>, size: usize) -> Template {
        match self {
            Self::Grpc { .. } => grpc::template(route, size),
            Self::Quic { .. } => quic::template(route, size),
            Self::Driver { .. } => driver::template(route, size),
            Self::Nats { .. } => nats::template(route, size),
            Self::Pump { .. } => native::template(route, size),
        }
    }
}

impl Sender {
    /// Sends whole messages, each made from `template`, as fast as the link takes them.
    pub(super) async fn send(&mut self, messages: Bytes, template: &Template) -> Result<(), Error> {
        match self {
            Self::Grpc(sender) => sender.send(messages).await,
            Self::Quic(sender) => sender.send(messages, template).await,
            Self::Driver(sender) => sender.send(messages).await,
            Self::Nats(sender) => sender.send(messages).await,
            Self::Stream(sender) => sender.send(&messages).await,
            Self::Datagram(sender) => sender.send(&messages, template.len()).await,
        }
    }

    /// Ends the link once its other end has all that was sent, as far as the protocol tells.
    pub(super) async fn finish(self, receiver: Receiver) -> Result<(), Error> {
        match (self, receiver) {
            (Self::Grpc(sender), Receiver::Grpc(receiver)) => sender.finish(receiver).await,
            (Self::Quic(sender), _) => sender.finish().await,
            (Self::Driver(sender), _) => sender.finish().await,
            (Self::Nats(sender), _) => sender.finish().await,
            (Self::Stream(sender), _) => sender.finish().await,
            _ => Ok(()),
        }
    }
}

impl Receiver {
    /// Adds what comes next, at least one chunk; false at the end of the link.
    pub(super) async fn receive(&mut self, arrivals: &mut Vec<Arrival>) -> Result<bool, Error> {
        match self {
            Self::Grpc(receiver) => receiver.receive(arrivals).await,
            Self::Quic(receiver) => receiver.receive(arrivals).await,
            Self::Driver(receiver) => receiver.receive(arrivals).await,
            Self::Nats(receiver) => receiver.receive(arrivals).await,
            Self::Stream(receiver) => receiver.receive(arrivals).await,
            Self::Datagram(receiver) => receiver.receive(arrivals).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_scheme_a_host_and_a_port() {
        let native: Server = "quic://[::1]:46357".parse().expect("a server");
        assert_eq!(native.to_string(), "quic://[::1]:46357");
        assert!(matches!(native, Server::Quic { .. }));
        let nats: Server = "tls://localhost:4222".parse().expect("a server");
        assert_eq!(nats.to_string(), "tls://localhost:4222");
        assert!(matches!(nats, Server::Nats { tls: Some(Trust::System), .. }));
        let nats: Server = "nats://localhost:4222".parse().expect("a server");
        assert!(matches!(nats, Server::Nats { tls: None, .. }));
        for url in ["grpc://127.0.0.1:46357", "http://node.example:1", "grpc://[::1]:2/"] {
            let server: Server = url.parse().expect(url);
            assert!(matches!(server, Server::Grpc { .. }));
        }
        for url in ["127.0.0.1:1", "grpc://host", "https://host:1", "grpc://host:1/path", ""] {
            let error = url.parse::<Server>().expect_err(url);
            assert!(error.to_string().starts_with("--server: expected grpc://"), "{error}");
        }
    }
}
