use bytes::Bytes;
use slim_wire::session::{FullName, RosterMember};
use slim_wire::{Name, TextName};

use super::config::Config;
use super::control::Controlled;
use super::error::{CloseReason, SessionError};
use super::packet::Packet;
use crate::identity::IdentityError;

/// A connection of the app to a node. The number stays when it is made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u32);

/// An invitation or removal under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What an [`Endpoint`](super::Endpoint) wants done, or makes known.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Send a message on a link.
    Send(LinkId, Box<Packet>),
    /// Subscribe to a name on a link, before what follows is sent.
    Subscribe(LinkId, super::Subscription),
    /// Take a subscription back.
    Unsubscribe(LinkId, super::Subscription),
    /// Store this of a session, before what follows is sent.
    Save(u32, Vec<u8>),
    /// Nothing of this session needs to be stored any more.
    Forget(u32),
    /// Another app opened this session; ask with
    /// [`Endpoint::accept`](super::Endpoint::accept).
    Opened(u32),
    /// This session has something to read.
    Readable(u32),
    /// This session has room for more messages.
    Writable(u32),
    /// A message was dropped, for its sender's token is not good.
    Rejected(Name, IdentityError),
    /// What became of an invitation or a removal.
    Completed(Ticket, Result<(), SessionError>),
    /// What became of a request of the control plane.
    Controlled(Box<Controlled>),
}

/// What there is to read of a session, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A message.
    Message(Context, Bytes),
    /// Something went wrong; the session goes on.
    Failed(SessionError),
    /// Somebody became a member. Only moderators, and members of this library's moderators, are
    /// told.
    Joined(FullName),
    /// Somebody is no longer a member.
    Left(FullName),
    /// The session has ended. Nothing follows.
    Closed(CloseReason),
}

/// What is known of a message beside its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// Who sent it; without texts if the sender told none.
    pub source: FullName,
    /// Whom it was sent to.
    pub destination: FullName,
    /// What the sender says the bytes are; `msg` by default.
    pub payload_type: String,
    /// Keys and values that the sender chose, and as `SLIM_IDENTITY` its token.
    pub metadata: Vec<(String, String)>,
    /// The link on which it arrived.
    pub link: LinkId,
    /// Its number, of the sender in this session.
    pub message: u32,
}

/// A message to be published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Publication {
    /// The bytes.
    pub payload: Bytes,
    /// What they are; empty: `msg`.
    pub payload_type: String,
    /// Keys and values for the receiver. Keys of the protocol are refused.
    pub metadata: Vec<(String, String)>,
    /// Whom it is for, in sessions where that is not given.
    pub destination: Option<FullName>,
}

/// What a session is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// Its number.
    pub id: u32,
    /// This app, by the name under which it takes part.
    pub source: TextName,
    /// The peer (with its id as soon as it is known) or the channel; `None` in anycast sessions.
    pub destination: Option<FullName>,
    /// What it was created with; of sessions that others opened, what applies here.
    pub config: Config,
    /// Whether this app created it, by itself or for the control plane.
    pub initiator: bool,
    /// Unordered messages that were dropped because the app did not ask for those before.
    pub dropped: u64,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name, with its id.
    pub name: FullName,
    /// Whether it uses this library.
    pub native: bool,
    /// Whose tokens it sends: the subject, and the issuer before it where there is one; empty if
    /// that is not known.
    pub identity: Box<str>,
}

impl From<&Member> for RosterMember {
    fn from(member: &Member) -> Self {
        let identity = member.identity.clone();
        Self { name: member.name.clone(), native: member.native, identity }
    }
}

impl From<&RosterMember> for Member {
    fn from(entry: &RosterMember) -> Self {
        let identity = entry.identity.clone();
        Self { name: entry.name.clone(), native: entry.native, identity }
    }
}

impl Member {
    pub(super) fn is(&self, name: Name) -> bool {
        self.name.name == name
    }
}
