//! A link: one connection of an app to a node.
//!
//! A [`Link`] subscribes to names, publishes [`Message`]s and receives those for its names. It
//! knows nothing of sessions, and its interface nothing of QUIC, over which it runs.
//!
//! - **Order.** Messages of one source and session arrive in the order of publishing, unless they
//!   are best effort.
//! - **Waiting.** [`Link::publish`] waits while what was published before has not left; a link
//!   whose app does not receive is not read, and in the end the node evicts it.
//! - **Handles.** A link is cheap to clone; any number of tasks may publish and receive. When the
//!   last handle is gone the link is closed, and what has not left yet is lost:
//!   [`Link::close`] hands it over first.
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

mod error;
mod inbound;
mod message;
mod options;
mod outbound;
mod quic;
mod requests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use slim_wire::{FrameKind, TextName};
use tokio::task::coop;

pub use self::error::{LinkError, Place};
pub use self::message::Message;
pub use self::options::{LinkOptions, Trust};
use self::quic::Quic;

/// One connection to a node; see the [module](self).
#[derive(Clone)]
pub struct Link(Arc<Quic>);

/// How a link is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkStats {
    /// How long a packet and its acknowledgement take at present.
    pub rtt: Duration,
    /// Largest packet that the path is known to carry, in bytes of UDP payload.
    pub mtu: u16,
    /// Packets that were lost on the way to the node. What they held was sent again, unless it
    /// was best effort.
    pub lost_packets: u64,
    /// Best-effort messages that arrived while the app was behind, and were dropped.
    pub dropped: u64,
}

impl Link {
    /// Connects to the node at `address`, which is `HOST:PORT`, from the current tokio runtime.
    ///
    /// # Errors
    /// [`LinkError`]; a new attempt may succeed if its fault is the peer's.
    pub async fn connect(address: &str, options: &LinkOptions) -> Result<Self, LinkError> {
        quic::connect(address, options).await.map(|quic| Self(Arc::new(quic)))
    }

    /// Subscribes to a name: from now on what goes to it also goes to this link. Returns once the
    /// whole node knows. Without an id it stands for all under the name.
    ///
    /// # Errors
    /// [`LinkError::Refused`] with the node's reason, or why the link ended.
    pub async fn subscribe(&self, name: &TextName) -> Result<(), LinkError> {
        self.0.shared.request(FrameKind::Subscribe, name).await
    }

    /// Takes a subscription back. Returns once the whole node knows; messages that it matched
    /// before may still arrive.
    ///
    /// # Errors
    /// [`LinkError::Refused`] with the node's reason, or why the link ended.
    pub async fn unsubscribe(&self, name: &TextName) -> Result<(), LinkError> {
        self.0.shared.request(FrameKind::Unsubscribe, name).await
    }

    /// Publishes a message, as soon as there is room for it. It has then not left yet. Payloads
    /// above 2 KiB are shared, not copied.
    ///
    /// A caller that stops waiting has published nothing.
    ///
    /// # Errors
    /// [`LinkError::TooLarge`], or why the link ended.
    pub async fn publish(&self, message: &Message) -> Result<(), LinkError> {
        // A task that publishes without end would otherwise keep its thread while there is room.
        coop::consume_budget().await;
        self.0.shared.publish(message).await
    }

    /// Publishes a message if there is room for it now. Whether there was.
    ///
    /// # Errors
    /// [`LinkError::TooLarge`], or why the link ended.
    pub fn try_publish(&self, message: &Message) -> Result<bool, LinkError> {
        self.0.shared.try_publish(message)
    }

    /// The next message for any of the names subscribed to. Of several tasks that receive, each
    /// message goes to one.
    ///
    /// # Errors
    /// Why the link ended, after all that had arrived was received.
    pub async fn receive(&self) -> Result<Message, LinkError> {
        coop::consume_budget().await;
        let shared = &self.0.shared;
        shared.inbound.receive().await.ok_or_else(|| shared.reason())
    }

    /// Moves all messages that have arrived to the end of `batch`, at least one, and returns how
    /// many.
    ///
    /// # Errors
    /// Why the link ended, after all that had arrived was received.
    pub async fn receive_many(&self, batch: &mut Vec<Message>) -> Result<usize, LinkError> {
        coop::consume_budget().await;
        let shared = &self.0.shared;
        match shared.inbound.receive_many(batch).await {
            0 => Err(shared.reason()),
            count => Ok(count),
        }
    }

    /// Hands over what was published and closes the link for all handles. The node has then
    /// passed on all that travelled on lanes.
    ///
    /// # Errors
    /// [`LinkError::Timeout`] after [`LinkOptions::close_timeout`]; what was left is lost. Or why
    /// the link had ended before.
    pub async fn close(&self) -> Result<(), LinkError> {
        self.0.close().await
    }

    /// Waits for the end of the link, and returns its reason.
    pub async fn closed(&self) -> LinkError {
        self.0.shared.closed().await
    }

    /// Longest frame that the node takes, in bytes; see [`Message::frame_bytes`].
    pub fn frame_bytes(&self) -> usize {
        self.0.shared.frame_bytes()
    }

    /// How the link is doing.
    pub fn stats(&self) -> LinkStats {
        self.0.shared.stats()
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
