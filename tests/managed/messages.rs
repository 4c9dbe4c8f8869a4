//! What a node says for the control plane: messages of release 0.6, whoever they are for.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use slim_compat_grpc::proto::d6::message::Type;
use slim_compat_grpc::proto::d6::{
    Content, Header, Message, OriginalName, Publish, SessionHeader, SessionMessageType, SessionType,
};
use slim_compat_grpc::transcode::d6_to_native;
use slim_quic::session::Packet;
use slim_wire::session::access;
use slim_wire::{FrameHeader, Id, TextName};

use crate::exchange::{Exchange, LINK};
use crate::support::message::name;

/// The name from which a node sends.
pub(crate) const CONTROLLER: &str = "controller/controller/controller/0";

/// The token of a control plane that knows the secret of the exchange.
pub(crate) const TOKEN: &str = "secret:control-plane";

/// A group that a controller manages.
#[derive(Clone)]
pub(crate) struct Managed {
    pub(crate) moderator: String,
    pub(crate) channel: String,
    pub(crate) session: u32,
    pub(crate) mls: bool,
    pub(crate) token: String,
    /// Number of the next message.
    next: u32,
}

impl Managed {
    pub(crate) fn new(moderator: &str, channel: &str, session: u32) -> Self {
        let (moderator, channel) = (moderator.to_owned(), channel.to_owned());
        Self { moderator, channel, session, mls: true, token: TOKEN.to_owned(), next: 100 }
    }

    pub(crate) fn plain(self) -> Self {
        Self { mls: false, ..self }
    }

    pub(crate) fn with_token(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    pub(crate) fn create(&mut self) -> Message {
        let blob = [encoded(&self.channel), encoded(&self.moderator)].concat();
        let mut metadata = vec![("IS_MODERATOR", "true".to_owned())];
        metadata.extend(self.mls.then(|| ("MLS_ENABLED", "true".to_owned())));
        let channel = self.channel.clone();
        self.message(SessionMessageType::ChannelJoinRequest, &channel, blob, metadata)
    }

    pub(crate) fn invite(&mut self, participant: &str) -> Message {
        self.about(SessionMessageType::ChannelDiscoveryRequest, named(participant))
    }

    pub(crate) fn remove(&mut self, participant: &str) -> Message {
        self.about(SessionMessageType::ChannelLeaveRequest, named(participant))
    }

    pub(crate) fn delete(&mut self) -> Message {
        let metadata = ("DELETE_GROUP", "true".to_owned());
        self.about(SessionMessageType::ChannelLeaveRequest, metadata)
    }

    fn about(&mut self, what: SessionMessageType, metadata: (&str, String)) -> Message {
        let moderator = self.moderator.clone();
        self.message(what, &moderator, Vec::new(), vec![metadata])
    }

    fn message(
        &mut self,
        what: SessionMessageType,
        to: &str,
        blob: Vec<u8>,
        metadata: Vec<(&str, String)>,
    ) -> Message {
        self.next += 1;
        let header = Header {
            source: Some(name(CONTROLLER)),
            destination: Some(name(&self.moderator)),
            fanout: 1,
            ..Header::default()
        };
        let session = SessionHeader {
            session_type: SessionType::Multicast.into(),
            session_message_type: what.into(),
            session_id: self.session,
            message_id: self.next,
            source: None,
            destination: Some(original(to)),
        };
        let identity = ("SLIM_IDENTITY", self.token.clone());
        let metadata = metadata.into_iter().chain([identity]);
        Message {
            metadata: metadata.map(|(key, value)| (key.to_owned(), value)).collect(),
            r#type: Some(Type::Publish(Publish {
                header: Some(header),
                session: Some(session),
                msg: Some(Content { content_type: String::new(), blob: blob.into() }),
            })),
        }
    }
}

fn text(name: &str) -> TextName {
    name.parse().expect("a name")
}

fn original(of: &str) -> OriginalName {
    let [component_0, component_1, component_2] = text(of).components().map(ToOwned::to_owned);
    let component_3 = name(of).component_3;
    OriginalName { component_0, component_1, component_2, component_3 }
}

fn named(participant: &str) -> (&'static str, String) {
    ("PARTICIPANT_NAME", STANDARD.encode(encoded(participant)))
}

/// A name in bincode.
fn encoded(name: &str) -> Vec<u8> {
    let text = text(name);
    let of = text.to_name();
    let id = of.id.to_u64().expect("64 bits");
    let mut bytes: Vec<u8> = of.prefix.0.into_iter().chain([id]).flat_map(integer).collect();
    bytes.push(1);
    for component in text.components() {
        bytes.push(component.len() as u8);
        bytes.extend_from_slice(component.as_bytes());
    }
    bytes
}

fn integer(value: u64) -> Vec<u8> {
    let bytes = value.to_le_bytes();
    match value {
        0..=250 => vec![value as u8],
        251..=0xFFFF => [&[0xFB], &bytes[..2]].concat(),
        0x1_0000..=0xFFFF_FFFF => [&[0xFC], &bytes[..4]].concat(),
        _ => [&[0xFD], &bytes[..]].concat(),
    }
}

/// A packet arrives at an app.
pub(crate) fn hand(exchange: &mut Exchange, to: &str, packet: Packet) {
    exchange.with(to, |app, now| app.handle(now, LINK, packet));
}

/// The message as the node hands it to a native app.
pub(crate) fn packet(message: &Message) -> Packet {
    native(&message.encode_to_vec())
}

/// The same of the message's bytes.
pub(crate) fn native(message: &[u8]) -> Packet {
    let frame = d6_to_native(message, 5).expect("a publish");
    let head = FrameHeader::prefix_of(&frame).expect("a frame");
    let header = head.header(0).expect("as it was written");
    let (session, payload) = head.parts(&frame);
    Packet {
        source: header.source,
        destination: header.destination,
        fanout: header.fanout,
        class: header.class,
        flags: header.flags,
        ids: head.ids(),
        session: access(session).and_then(|part| part.to_session()).expect("a session part"),
        payload: frame.slice_ref(payload),
    }
}

/// What a published node has said, by what it asks; see the file.
pub(crate) fn captured(what: &str) -> Vec<u8> {
    let file = include_str!("../../compat-grpc/tests/vectors/control-plane-0.6.0.json");
    let captured: serde_json::Value = serde_json::from_str(file).expect("JSON");
    let hex = captured[what].as_str().expect("hex");
    let bytes = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16));
    bytes.collect::<Result<_, _>>().expect("hex digits")
}

#[test]
fn the_messages_of_these_tests_are_those_of_a_published_node() {
    let mut group =
        Managed::new("agntcy/ns/client-9/123", "agntcy/ns/mTTe9bQHv1EhnPemtz", 1_244_337_836);
    let participant = "agntcy/ns/client-2";
    for (what, ours) in [
        ("create", group.create()),
        ("invite", group.invite(participant)),
        ("remove", group.remove(participant)),
        ("delete", group.delete()),
    ] {
        let mut theirs = Message::decode(&captured(what)[..]).expect("a message");
        let Some(Type::Publish(publish)) = &mut theirs.r#type else { panic!("{what}") };
        publish.header.as_mut().expect("a header").incoming_conn = None;
        let session = publish.session.as_mut().expect("a session header");
        let Some(Type::Publish(made)) = &ours.r#type else { panic!("{what}") };
        session.message_id = made.session.as_ref().expect("a session header").message_id;
        assert_eq!(theirs, ours, "{what}");
    }
    assert_eq!(packet(&group.delete()).destination.id, Id::new(123));
}
