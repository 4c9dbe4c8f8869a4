//! What clients of a published release say: how they begin, subscribe and publish.

use std::net::SocketAddr;

use bytes::Bytes;
use clap::ValueEnum;
use slim_compat_grpc::LinkKey;

use crate::channel::{Channel, framed, send};
use crate::{Failure, d6, d20};

/// The releases that are measured, by what they speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dialect {
    /// Release 0.6
    D6,
    /// Releases from 2.0
    D20,
}

impl Dialect {
    /// What a release speaks.
    pub(crate) fn of(release: &str) -> Option<Self> {
        let mut numbers = release.split('.').map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(0)), Some(Ok(6))) => Some(Self::D6),
            (Some(Ok(2..=3)), Some(Ok(_))) => Some(Self::D20),
            _ => None,
        }
    }

    /// Length of the identity that its clients put into every message, in bytes: that of 3.3.8
    /// holds a key for signatures.
    pub(crate) fn usual_identity(self) -> usize {
        match self {
            Self::D6 => 46,
            Self::D20 => 231,
        }
    }

    /// As people write it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::D6 => "D6",
            Self::D20 => "D20",
        }
    }
}

/// What is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Payload bytes.
    pub(crate) size: usize,
    /// Bytes of the publisher's identity.
    pub(crate) identity: usize,
    /// Who gets it: the only subscriber, or all of them.
    pub(crate) subscribers: u64,
}

/// All of the targets, where there are several.
pub(crate) const ALL: u32 = 50;

/// The name of all subscribers; each has an id of its own.
pub(crate) const APP: [&str; 3] = ["bench", "relay", "subscriber"];

/// Begins all publishes of all dialects, and no other message.
const PUBLISH_TAG: u8 = 0x1A;

/// A client that a node has accepted.
pub(crate) struct Client {
    pub(crate) channel: Channel,
    /// By which headers are authenticated on the link (D20).
    key: Option<LinkKey>,
    /// Whether a message has been checked.
    checked: bool,
}

impl Client {
    pub(crate) async fn connect(node: SocketAddr, dialect: Dialect) -> Result<Self, Failure> {
        let mut channel = Channel::open(node).await?;
        let key = match dialect {
            Dialect::D6 => None,
            Dialect::D20 => Some(d20::negotiate(&mut channel).await?),
        };
        Ok(Self { channel, key, checked: false })
    }

    /// Subscribes to the name of all subscribers with this id, and waits until the node says that it has
    /// it, where nodes do.
    pub(crate) async fn subscribe(&mut self, id: u64) -> Result<(), Failure> {
        match &self.key {
            None => send(&mut self.channel.send, framed(&[&d6::subscription(id)])).await,
            Some(key) => {
                let message = d20::subscription(id, key)?;
                send(&mut self.channel.send, framed(&[&message])).await?;
                d20::acknowledged(&self.channel.receive.next().await?)
            }
        }
    }

    /// A message as this client sends it, framed. All that it sends are equal: a code covers no counter.
    pub(crate) fn publish(&self, shape: Shape) -> Result<Bytes, Failure> {
        match &self.key {
            None => Ok(framed(&[&d6::publish(shape)])),
            Some(key) => d20::publish(shape, key),
        }
    }

    /// Waits for publishes, and returns how many came; `None` at the end of the stream. The first of all
    /// is checked as a client does before it uses a message.
    pub(crate) async fn receive(&mut self, shape: Shape) -> Result<Option<u64>, Failure> {
        let Self { channel, key, checked } = self;
        let mut count = 0;
        let open = channel.receive.next_some(|message| {
            if message.first() != Some(&PUBLISH_TAG) {
                return Err("delivered: expected publishes only, got another message".into());
            }
            if !std::mem::replace(checked, true) {
                match key {
                    None => d6::check(message, shape)?,
                    Some(key) => d20::check(message, shape, key)?,
                }
            }
            count += 1;
            Ok(())
        });
        Ok(open.await?.then_some(count))
    }
}

/// The payload of all messages.
pub(crate) fn payload(size: usize) -> Bytes {
    Bytes::from(vec![0x5A; size])
}

/// An identity of so many bytes.
pub(crate) fn identity(length: usize) -> String {
    "an-identity-token:".chars().cycle().take(length).collect()
}
