//! A link over gRPC, as clients of release 0.6 have it: one HTTP/2 connection with one stream,
//! on which messages of that release go both ways.

mod connect;
mod reader;
mod writer;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use slim_compat_grpc::prefix;
use slim_compat_grpc::proto::d6;
use slim_compat_grpc::transcode::{TranscodeError, native_to_d6};
use slim_wire::limits::{FRAME_BYTES, GRPC_MESSAGE_BYTES};
use slim_wire::{Name, Prefix, TextName};
use tokio_util::sync::CancellationToken;

pub(super) use self::connect::connect;
use super::inbound::Inbound;
use super::outbound::{Frame, Outbound, Push};
use super::{LinkError, LinkStats, Message};

/// What the handles and the tasks of a link share.
#[derive(Default)]
pub(super) struct Shared {
    /// The app's own name, if it told.
    name: Option<TextName>,
    outbound: Outbound,
    pub(super) inbound: Inbound,
    /// Why the link ended; the first reason stays.
    end: OnceLock<LinkError>,
    /// The reason is known.
    over: CancellationToken,
    /// This end has said that it is done.
    leaving: CancellationToken,
    /// Nothing more can arrive but what already has.
    gone: CancellationToken,
    /// How long the last answer to a ping took, in microseconds.
    rtt: AtomicU64,
    /// Messages that were no publishes.
    ignored: AtomicU64,
    /// Messages that could not be read.
    unreadable: AtomicU64,
}

/// A stream with its tasks.
pub(super) struct Grpc {
    pub(super) shared: Arc<Shared>,
    close_timeout: Duration,
}

/// Which way a subscription is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Subscribe,
    Unsubscribe,
}

impl Shared {
    /// Why the link ended. To be asked after something failed because it did.
    pub(super) fn reason(&self) -> LinkError {
        self.end.get().cloned().unwrap_or(LinkError::Ended)
    }

    /// Ends the link; what has arrived can still be received.
    fn conclude(&self, reason: LinkError) {
        self.end.get_or_init(|| reason);
        self.outbound.end();
        self.over.cancel();
    }

    /// Hands a change of a subscription to the stream; nothing acknowledges it.
    pub(super) async fn request(
        &self,
        change: Change,
        name: &TextName,
        metadata: &[(&str, &str)],
    ) -> Result<(), LinkError> {
        let message = Bytes::from(subscription(change, self.name.as_ref(), name, metadata)?);
        let head = prefix(message.len());
        self.push(Frame { head: &head, session: &[], payload: &message }).await
    }

    pub(super) async fn publish(&self, message: &Message) -> Result<(), LinkError> {
        let message = encode(message)?;
        let head = prefix(message.len());
        self.push(Frame { head: &head, session: &[], payload: &message }).await
    }

    async fn push(&self, frame: Frame<'_>) -> Result<(), LinkError> {
        if self.outbound.push(frame).await { Ok(()) } else { Err(self.reason()) }
    }

    pub(super) fn try_publish(&self, message: &Message) -> Result<bool, LinkError> {
        let message = encode(message)?;
        let head = prefix(message.len());
        match self.outbound.try_push(Frame { head: &head, session: &[], payload: &message }) {
            Push::Queued => Ok(true),
            Push::Full => Ok(false),
            Push::Closed => Err(self.reason()),
        }
    }

    pub(super) async fn closed(&self) -> LinkError {
        self.over.cancelled().await;
        self.reason()
    }

    pub(super) fn stats(&self) -> LinkStats {
        LinkStats {
            rtt: Duration::from_micros(self.rtt.load(Ordering::Relaxed)),
            mtu: 0,
            lost_packets: 0,
            dropped: 0,
            ignored: self.ignored.load(Ordering::Relaxed),
            unreadable: self.unreadable.load(Ordering::Relaxed),
        }
    }
}

impl Grpc {
    /// Ends this side of the stream. A node that has read all of it ends its own.
    pub(super) async fn close(&self) -> Result<(), LinkError> {
        let shared = &*self.shared;
        shared.leaving.cancel();
        shared.outbound.finish();
        let Ok(reason) = tokio::time::timeout(self.close_timeout, shared.closed()).await else {
            shared.conclude(LinkError::Ended);
            let what = "handing over what was published".into();
            return Err(LinkError::Timeout { what, after: self.close_timeout });
        };
        match reason {
            LinkError::Ended => Ok(()),
            reason => Err(reason),
        }
    }
}

impl Drop for Grpc {
    fn drop(&mut self) {
        self.shared.conclude(LinkError::Ended);
        self.shared.inbound.end();
    }
}

/// A message as release 0.6 has it.
fn encode(message: &Message) -> Result<Bytes, LinkError> {
    let head = message.head(FRAME_BYTES)?;
    native_to_d6(&message.to_frame(&head)).map_err(|error| match error {
        TranscodeError::TooLarge { field, limit, got } => {
            LinkError::TooLarge { field, limit: limit as usize, got: got as usize }
        }
        source => LinkError::Untranslatable { source },
    })
}

fn subscription(
    change: Change,
    source: Option<&TextName>,
    name: &TextName,
    metadata: &[(&str, &str)],
) -> Result<Vec<u8>, LinkError> {
    let source = source.map_or(Name::NOBODY, TextName::to_name);
    let header = d6::Header {
        source: Some(numbers(source, "own name")?),
        destination: Some(numbers(name.to_name(), "name")?),
        fanout: 1,
        ..d6::Header::default()
    };
    let [component_0, component_1, component_2] = name.components().map(str::to_owned);
    let header = Some(header);
    let body = match change {
        Change::Subscribe => d6::message::Type::Subscribe(d6::Subscribe {
            header,
            component_0,
            component_1,
            component_2,
        }),
        Change::Unsubscribe => d6::message::Type::Unsubscribe(d6::Unsubscribe {
            header,
            component_0,
            component_1,
            component_2,
        }),
    };
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    let metadata: HashMap<_, _> = metadata.iter().map(owned).collect();
    let message = d6::Message { r#type: Some(body), metadata };
    let got = message.encoded_len();
    if got > GRPC_MESSAGE_BYTES {
        let (field, limit) = ("subscription with its metadata", GRPC_MESSAGE_BYTES);
        return Err(LinkError::TooLarge { field, limit, got });
    }
    Ok(message.encode_to_vec())
}

fn numbers(name: Name, field: &'static str) -> Result<d6::Name, LinkError> {
    let Prefix([component_0, component_1, component_2]) = name.prefix;
    let wide = TranscodeError::WideId { field, got: name.id };
    let id = name.id.to_u64().ok_or(LinkError::Untranslatable { source: wide })?;
    Ok(d6::Name { component_0, component_1, component_2, component_3: id })
}

#[cfg(test)]
mod tests {
    use slim_compat_grpc::{D6, Dialect};
    use slim_wire::{Id, Kind};

    use super::*;

    #[test]
    fn a_subscription_is_one_that_nodes_read_with_texts_and_metadata() {
        let own: TextName = "org/ns/own/7".parse().expect("a name");
        let name: TextName = "org/ns/channel".parse().expect("a name");
        let keys = [("SLIM_IDENTITY", "a token"), ("CHANNEL_SUBSCRIPTION", "true")];
        for (change, kind) in
            [(Change::Subscribe, Kind::Subscribe), (Change::Unsubscribe, Kind::Unsubscribe)]
        {
            let bytes = subscription(change, Some(&own), &name, &keys).expect("narrow ids");
            let read = D6::read(&bytes).expect("valid").routed().expect("a subscription");
            assert_eq!((read.header.kind, read.header.source), (kind, own.to_name()));
            assert_eq!(read.header.destination, name.to_name());
            assert_eq!(read.texts, Some(["org", "ns", "channel"]));
            let metadata = d6::Message::decode(&bytes[..]).expect("decodable").metadata;
            let expected = keys.map(|(key, value)| (key.to_owned(), value.to_owned()));
            assert_eq!(metadata, HashMap::from(expected));
        }
    }

    #[test]
    fn an_id_that_release_0_6_does_not_have_is_refused_by_name() {
        let wide = Id::new(1 << 64);
        let name = TextName::new(["org", "ns", "app"], wide).expect("short texts");
        let error = subscription(Change::Subscribe, None, &name, &[]).expect_err("65 bits");
        assert!(error.to_string().contains("name: expected an id below"), "{error}");
    }
}
