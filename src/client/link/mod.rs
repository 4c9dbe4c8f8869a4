//! A link: one connection of an app to a node.
//!
//! A [`Link`] subscribes to names, publishes [`Message`]s and receives those for its names. It
//! knows nothing of sessions.
//!
//! The address says what it runs over, and little else depends on it:
//!
//! | address | what it is |
//! |---|---|
//! | `quic://HOST:PORT`, `HOST:PORT` | native QUIC, always with TLS |
//! | `https://HOST:PORT` | gRPC as clients of release 0.6 speak it, with TLS |
//! | `http://HOST:PORT` | the same without TLS |
//!
//! Over gRPC messages travel in the form of release 0.6, so that published nodes pass them on and
//! published clients read them. That form has ids of 64 bits, needs a session part, takes the
//! class of a message from its content, and acknowledges no subscription: [`Link::subscribe`]
//! then returns once the stream has it, ahead of all that is published later on the link.
//!
//! - **Order.** Messages of one source and session arrive in the order of publishing, unless they
//!   are best effort.
//! - **Waiting.** [`Link::publish`] waits while what was published before has not left; a link
//!   whose app does not receive is not read, and in the end the node evicts it.
//! - **Handles.** A link is cheap to clone; any number of tasks may publish and receive. When the
//!   last handle is gone the link is closed, and what has not left yet is lost:
//!   [`Link::close`] hands it over first.
//! - **Strays.** What a node sends over gRPC that is no publish, or that cannot be read, is
//!   dropped and counted in [`LinkStats`]; the link goes on.
//! - **The end.** A link that is lost stays lost: every call returns the reason from then on.
//!
//! A node does not send a message back on the link it came from.
//!
//! ```no_run
//! use slim_quic::client::link::{Link, LinkOptions, Message, Trust};
//! use slim_wire::TextName;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let options = LinkOptions { trust: Trust::File("ca.pem".into()), ..LinkOptions::default() };
//! let (alice, bob): (TextName, TextName) = ("org/ns/alice/1".parse()?, "org/ns/bob/2".parse()?);
//! let receiving = Link::connect("node.example.org:46357", &options).await?;
//! receiving.subscribe(&bob).await?;
//!
//! let sending = Link::connect("node.example.org:46357", &options).await?;
//! sending.publish(&Message::new(alice.to_name(), bob.to_name(), "hello, bob")).await?;
//! assert_eq!(receiving.receive().await?.payload, "hello, bob");
//! sending.close().await?;
//! # Ok(())
//! # }
//! ```

mod address;
mod error;
mod grpc;
mod inbound;
mod message;
mod options;
mod outbound;
mod quic;
mod requests;
pub(crate) mod tls;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use slim_wire::limits::GRPC_MESSAGE_BYTES;
use slim_wire::{FrameKind, TextName};
use tokio::task::coop;

use self::address::{Address, Scheme};
pub use self::error::{LinkError, Place};
use self::grpc::{Change, Grpc};
use self::inbound::Inbound;
pub use self::message::Message;
pub use self::options::{LinkOptions, Trust};
use self::quic::Quic;
pub use crate::trust::Credentials;

/// One connection to a node; see the [module](self).
#[derive(Clone)]
pub struct Link(Arc<Transport>);

/// What a link runs over.
enum Transport {
    Quic(Quic),
    Grpc(Grpc),
}

/// How a link is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkStats {
    /// How long a packet and its acknowledgement take at present; over gRPC, how long the last
    /// answer to a ping took.
    pub rtt: Duration,
    /// Largest packet that the path is known to carry, in bytes of UDP payload; 0 over gRPC.
    pub mtu: u16,
    /// Packets that were lost on the way to the node. What they held was sent again, unless it
    /// was best effort. 0 over gRPC, where the system takes care of it.
    pub lost_packets: u64,
    /// Best-effort messages that arrived while the app was behind, and were dropped.
    pub dropped: u64,
    /// Messages that arrived over gRPC and were no publishes.
    pub ignored: u64,
    /// Messages that arrived over gRPC and were not readable, or exceeded a limit of native ones.
    pub unreadable: u64,
}

impl Link {
    /// Connects to the node at `address` from the current tokio runtime. The address is
    /// `quic://HOST:PORT`, `https://HOST:PORT`, `http://HOST:PORT`, or `HOST:PORT`, which is QUIC.
    ///
    /// # Errors
    /// [`LinkError`]; a new attempt may succeed if its fault is the peer's.
    pub async fn connect(address: &str, options: &LinkOptions) -> Result<Self, LinkError> {
        options.check()?;
        let address = Address::parse(address)?;
        let transport = match address.scheme {
            Scheme::Quic => quic::connect(address, options).await.map(Transport::Quic),
            Scheme::Http | Scheme::Https => {
                grpc::connect(address, options).await.map(Transport::Grpc)
            }
        };
        transport.map(|transport| Self(Arc::new(transport)))
    }

    /// Subscribes to a name: from now on what goes to it also goes to this link. Without an id it
    /// stands for all under the name. Returns once the whole node knows; over gRPC, once it is on
    /// its way.
    ///
    /// # Errors
    /// [`LinkError::Refused`] with the node's reason, or why the link ended; over gRPC,
    /// [`LinkError::Untranslatable`].
    pub async fn subscribe(&self, name: &TextName) -> Result<(), LinkError> {
        self.subscribe_with(name, &[]).await
    }

    /// The same with metadata that nodes and clients of release 0.6 expect in some cases, such as
    /// `SLIM_IDENTITY` or `CHANNEL_SUBSCRIPTION`. Over QUIC it is not sent.
    ///
    /// # Errors
    /// Those of [`Link::subscribe`].
    pub async fn subscribe_with(
        &self,
        name: &TextName,
        metadata: &[(&str, &str)],
    ) -> Result<(), LinkError> {
        match &*self.0 {
            Transport::Quic(quic) => quic.shared.request(FrameKind::Subscribe, name).await,
            Transport::Grpc(grpc) => grpc.shared.request(Change::Subscribe, name, metadata).await,
        }
    }

    /// Takes a subscription back. Returns once the whole node knows, over gRPC once it is on its
    /// way; messages that it matched before may still arrive.
    ///
    /// # Errors
    /// Those of [`Link::subscribe`].
    pub async fn unsubscribe(&self, name: &TextName) -> Result<(), LinkError> {
        self.unsubscribe_with(name, &[]).await
    }

    /// The same with metadata, as in [`Link::subscribe_with`].
    ///
    /// # Errors
    /// Those of [`Link::subscribe`].
    pub async fn unsubscribe_with(
        &self,
        name: &TextName,
        metadata: &[(&str, &str)],
    ) -> Result<(), LinkError> {
        match &*self.0 {
            Transport::Quic(quic) => quic.shared.request(FrameKind::Unsubscribe, name).await,
            Transport::Grpc(grpc) => grpc.shared.request(Change::Unsubscribe, name, metadata).await,
        }
    }

    /// Publishes a message, as soon as there is room for it. It has then not left yet. Payloads
    /// above 2 KiB are shared, not copied, over QUIC.
    ///
    /// A caller that stops waiting has published nothing.
    ///
    /// # Errors
    /// [`LinkError::TooLarge`], or why the link ended; over gRPC, [`LinkError::Untranslatable`]
    /// for a message without a session part or with an id of more than 64 bits.
    pub async fn publish(&self, message: &Message) -> Result<(), LinkError> {
        // A task that publishes without end would otherwise keep its thread while there is room.
        coop::consume_budget().await;
        match &*self.0 {
            Transport::Quic(quic) => quic.shared.publish(message).await,
            Transport::Grpc(grpc) => grpc.shared.publish(message).await,
        }
    }

    /// Publishes a message if there is room for it now. Whether there was.
    ///
    /// # Errors
    /// Those of [`Link::publish`].
    pub fn try_publish(&self, message: &Message) -> Result<bool, LinkError> {
        match &*self.0 {
            Transport::Quic(quic) => quic.shared.try_publish(message),
            Transport::Grpc(grpc) => grpc.shared.try_publish(message),
        }
    }

    /// The next message for any of the names subscribed to. Of several tasks that receive, each
    /// message goes to one.
    ///
    /// # Errors
    /// Why the link ended, after all that had arrived was received.
    pub async fn receive(&self) -> Result<Message, LinkError> {
        coop::consume_budget().await;
        self.0.inbound().receive().await.ok_or_else(|| self.0.reason())
    }

    /// Moves all messages that have arrived to the end of `batch`, at least one, and returns how
    /// many.
    ///
    /// # Errors
    /// Why the link ended, after all that had arrived was received.
    pub async fn receive_many(&self, batch: &mut Vec<Message>) -> Result<usize, LinkError> {
        coop::consume_budget().await;
        match self.0.inbound().receive_many(batch).await {
            0 => Err(self.0.reason()),
            count => Ok(count),
        }
    }

    /// Hands over what was published and closes the link for all handles. The node has then
    /// passed on all that travelled on lanes, or over gRPC.
    ///
    /// # Errors
    /// [`LinkError::Timeout`] after [`LinkOptions::close_timeout`]; what was left is lost. Or why
    /// the link had ended before.
    pub async fn close(&self) -> Result<(), LinkError> {
        match &*self.0 {
            Transport::Quic(quic) => quic.close().await,
            Transport::Grpc(grpc) => grpc.close().await,
        }
    }

    /// Waits for the end of the link, and returns its reason.
    pub async fn closed(&self) -> LinkError {
        match &*self.0 {
            Transport::Quic(quic) => quic.shared.closed().await,
            Transport::Grpc(grpc) => grpc.shared.closed().await,
        }
    }

    /// Longest frame that the node takes, in bytes; see [`Message::frame_bytes`]. Over gRPC it is
    /// the longest message in the form of release 0.6, which can be longer than its frame by what
    /// the session part's numbers and texts take there.
    pub fn frame_bytes(&self) -> usize {
        match &*self.0 {
            Transport::Quic(quic) => quic.shared.frame_bytes(),
            Transport::Grpc(_) => GRPC_MESSAGE_BYTES,
        }
    }

    /// How the link is doing.
    pub fn stats(&self) -> LinkStats {
        match &*self.0 {
            Transport::Quic(quic) => quic.shared.stats(),
            Transport::Grpc(grpc) => grpc.shared.stats(),
        }
    }
}

impl Transport {
    fn inbound(&self) -> &Inbound {
        match self {
            Self::Quic(quic) => &quic.shared.inbound,
            Self::Grpc(grpc) => &grpc.shared.inbound,
        }
    }

    fn reason(&self) -> LinkError {
        match self {
            Self::Quic(quic) => quic.shared.reason(),
            Self::Grpc(grpc) => grpc.shared.reason(),
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
