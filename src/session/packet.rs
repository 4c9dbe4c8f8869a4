use bytes::Bytes;
use slim_wire::session::{Content, Session, SessionKind};
use slim_wire::{Class, Flags, Name, SessionIds};

/// A message between sessions, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Who sent it.
    pub source: Name,
    /// Whom it is for.
    pub destination: Name,
    /// 1: for one; any other number: for all.
    pub fanout: u32,
    /// How nodes treat it where room is short.
    pub class: Class,
    /// Marks.
    pub flags: Flags,
    /// Session and message.
    pub ids: SessionIds,
    /// What the sessions tell each other.
    pub session: Session,
    /// Bytes of the app or of MLS.
    pub payload: Bytes,
}

/// For data and beacons to a channel, and for what moderators send it, as published apps have it.
pub(super) const FANOUT_DATA: u32 = 50;
pub(super) const FANOUT_CONTROL: u32 = 256;

/// Marks of requests for messages: any, or only if it is meant for who asks.
pub(super) const ASK: &str = "1";
pub(super) const PROBE: &str = "probe";

impl Packet {
    /// A message of control content to one receiver.
    pub(super) fn control(
        kind: SessionKind,
        ids: SessionIds,
        (source, destination): (Name, Name),
        content: Content,
    ) -> Self {
        Self {
            source,
            destination,
            fanout: 1,
            class: Class::Control,
            flags: Flags::empty(),
            ids,
            session: Session { kind, content, ..Session::default() },
            payload: Bytes::new(),
        }
    }

    pub(super) fn with_payload(self, payload: Bytes) -> Self {
        Self { payload, ..self }
    }

    pub(super) fn with_fanout(self, fanout: u32) -> Self {
        Self { fanout, ..self }
    }

    /// The answer to a request: the same message number, back to its sender.
    pub(super) fn answer(request: &Self, source: Name, content: Content) -> Self {
        let kind = match request.session.kind {
            SessionKind::Unspecified => SessionKind::Group,
            kind => kind,
        };
        Self::control(kind, request.ids, (source, request.source), content)
    }

    /// Says that the sender uses this library.
    pub(super) fn marked(self) -> Self {
        self.marked_as(ASK)
    }

    /// The same, and something more.
    pub(super) fn marked_as(mut self, value: &str) -> Self {
        self.session.metadata.push((super::NATIVE_MARK.to_owned(), value.to_owned()));
        self
    }

    /// Whether a message is asked for only if it is meant for who asks.
    pub(super) fn is_probe(&self) -> bool {
        let is_it = |(key, value): &(String, String)| key == super::NATIVE_MARK && value == PROBE;
        self.session.metadata.iter().any(is_it)
    }

    /// Whether the sender says that it uses this library.
    pub(super) fn is_marked(&self) -> bool {
        self.session.metadata.iter().any(|(key, _)| key == super::NATIVE_MARK)
    }

    /// Why a request is refused, in an answer with [`Flags::ERROR`].
    pub(super) fn reason(&self) -> String {
        String::from_utf8_lossy(&self.payload).escape_debug().to_string()
    }

    /// Approximate size in memory.
    pub(super) fn bytes(&self) -> usize {
        let metadata = self.session.metadata.iter().map(|(key, value)| key.len() + value.len());
        self.payload.len() + metadata.sum::<usize>() + 256
    }
}
