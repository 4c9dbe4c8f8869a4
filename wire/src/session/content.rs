//! What a message of a session is.

use std::fmt;

use rkyv::{Archive, Deserialize, Serialize};

use crate::name::{Name, TextName};

/// What a message is. Where the payload is not mentioned, it is empty.
///
/// Requests have a message id of their own, their replies repeat it.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub enum Content {
    /// What an app published. Payload: its bytes.
    Data(Delivery),
    /// The reliable message of a point-to-point session with this message id has arrived.
    Ack,
    /// The message with this id is missing.
    RetransmissionRequest,
    /// The message with this id once more, its bytes as payload; or, with
    /// [`Flags::ERROR`](crate::Flags::ERROR), that it is gone.
    RetransmissionReply,
    /// The message id is that of the last message sent to the group.
    Beacon,
    /// Who is there under the destination name?
    DiscoveryRequest {
        /// In point-to-point sessions, who asks.
        requester: Option<Box<FullName>>,
        /// From the control plane to a moderator: whom to invite.
        participant: Option<Box<FullName>>,
    },
    /// The source is.
    DiscoveryReply,
    /// Join a session. The metadata is that of the session.
    JoinRequest {
        /// The channel; in point-to-point sessions a name that means nothing to the invited.
        channel: Box<FullName>,
        /// Who invites.
        moderator: Box<FullName>,
        /// Whether the session is encrypted with MLS.
        mls: bool,
        /// From the control plane: be the moderator.
        as_moderator: bool,
    },
    /// Joined. Payload: a key package, if the session is encrypted.
    JoinReply,
    /// Leave the session.
    LeaveRequest {
        /// From the control plane to a moderator: whom to remove.
        participant: Option<Box<FullName>>,
        /// From the control plane to a moderator: remove all, and the session.
        delete_group: bool,
    },
    /// Left.
    LeaveReply,
    /// Payload: an MLS welcome.
    Welcome {
        /// Number of the commit that added the new member, in the moderator's order of commits
        /// and proposals.
        commit: u32,
    },
    /// Payload: an MLS commit. Its message id is its number in the moderator's order.
    Commit,
    /// Payload: an MLS proposal. From the moderator, its message id is its number in the
    /// moderator's order.
    Proposal {
        /// Whose proposal it is.
        originator: Box<FullName>,
    },
    /// The commit, welcome or proposal with this message id has arrived.
    ControlAck {
        /// It was not taken, for another change is under way.
        busy: bool,
    },
    /// A message of a published release that is none of these: of unknown type, or not in the
    /// form that its type asks for. Payload and metadata as they came. Endpoints ignore it.
    Foreign {
        /// The published number of its type.
        message_type: u32,
    },
    /// Who the members of a group are, from a native moderator to native members. The message id
    /// is the number of the list; that of a later list is higher.
    Roster {
        /// The members, at most [`ROSTER_MEMBERS`](crate::limits::ROSTER_MEMBERS).
        members: Vec<RosterMember>,
    },
}

impl Default for Content {
    fn default() -> Self {
        Self::Data(Delivery::Reliable)
    }
}

/// How an app's data is to be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Clone, Copy, Debug, PartialEq, Eq))]
pub enum Delivery {
    /// To one, at most once.
    Unreliable,
    /// To one, which acknowledges.
    Reliable,
    /// To all members of a group.
    Group,
}

/// A name that control content tells: hashes and id and, if the sender knows them, the texts.
/// That they belong together is for the reader to check.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct FullName {
    /// Hashes and id.
    pub name: Name,
    /// Texts of organization, namespace and application.
    pub texts: Option<[Box<str>; 3]>,
}

/// A member of a group, as its moderator knows it.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct RosterMember {
    /// Its name, with the id.
    pub name: FullName,
    /// Whether it is a native app, which acknowledges what it receives; otherwise it is one of
    /// release 0.6.
    pub native: bool,
    /// Whose tokens it sends, in the words of the library; empty if that is not known.
    pub identity: Box<str>,
}

impl FullName {
    /// The texts.
    pub fn texts(&self) -> Option<[&str; 3]> {
        self.texts.as_ref().map(|texts| texts.each_ref().map(|text| &**text))
    }

    /// The name with its texts, if they are known and belong to it.
    pub fn to_text(&self) -> Option<TextName> {
        let text = TextName::new(self.texts()?, self.name.id).ok()?;
        (text.to_name() == self.name).then_some(text)
    }
}

/// With its texts, if they are known and belong to it.
impl fmt::Display for FullName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_text() {
            Some(text) => text.fmt(f),
            None => self.name.fmt(f),
        }
    }
}

impl From<&TextName> for FullName {
    fn from(name: &TextName) -> Self {
        Self { name: name.to_name(), texts: Some(name.components().map(Box::from)) }
    }
}

impl From<Name> for FullName {
    fn from(name: Name) -> Self {
        Self { name, texts: None }
    }
}

impl Content {
    /// The names in it.
    pub(super) fn names(&self) -> impl Iterator<Item = &FullName> {
        let named = match self {
            Self::DiscoveryRequest { requester, participant } => {
                [requester.as_deref(), participant.as_deref()]
            }
            Self::JoinRequest { channel, moderator, .. } => [Some(&**channel), Some(&**moderator)],
            Self::LeaveRequest { participant, .. } => [participant.as_deref(), None],
            Self::Proposal { originator } => [Some(&**originator), None],
            _ => [None, None],
        };
        named.into_iter().flatten().chain(self.members().iter().map(|member| &member.name))
    }

    /// The members that it lists.
    pub(super) fn members(&self) -> &[RosterMember] {
        if let Self::Roster { members } = self { members } else { &[] }
    }

    /// Whether its payload can be a private message.
    pub(super) fn may_be_encrypted(&self) -> bool {
        matches!(
            self,
            Self::Data(_)
                | Self::Ack
                | Self::RetransmissionRequest
                | Self::RetransmissionReply
                | Self::Beacon
        )
    }
}

impl ArchivedContent {
    pub(super) fn names(&self) -> impl Iterator<Item = &ArchivedFullName> {
        let named = match self {
            Self::DiscoveryRequest { requester, participant } => {
                [requester.as_deref(), participant.as_deref()]
            }
            Self::JoinRequest { channel, moderator, .. } => [Some(&**channel), Some(&**moderator)],
            Self::LeaveRequest { participant, .. } => [participant.as_deref(), None],
            Self::Proposal { originator } => [Some(&**originator), None],
            _ => [None, None],
        };
        named.into_iter().flatten().chain(self.members().iter().map(|member| &member.name))
    }

    /// The members that it lists.
    pub(super) fn members(&self) -> &[ArchivedRosterMember] {
        if let Self::Roster { members } = self { members } else { &[] }
    }

    pub(super) fn may_be_encrypted(&self) -> bool {
        matches!(
            self,
            Self::Data(_)
                | Self::Ack
                | Self::RetransmissionRequest
                | Self::RetransmissionReply
                | Self::Beacon
        )
    }
}
