use slim_wire::session::FullName;
use slim_wire::{DecodeError, Fault, Name};
use thiserror::Error;

use crate::identity::IdentityError;
use crate::mls::MlsError;

/// Why a session did not do what it was asked to, or what became of a message. The texts that
/// apps of release 0.6 know are the same.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum SessionError {
    /// A message of this app was not acknowledged, or could not be sent.
    #[error(
        "error receiving message: failed to decode message: message={message} session={session}: timeout"
    )]
    Undelivered {
        /// The session.
        session: u32,
        /// The message's number, as publishing it returned.
        message: u32,
    },
    /// A member of a group has not acknowledged messages of this app for too long, and is no
    /// longer waited for.
    #[error("message={first}..={last} session={session}: not acknowledged by {member}")]
    Unacknowledged {
        /// The session.
        session: u32,
        /// First message in question.
        first: u32,
        /// Last message in question.
        last: u32,
        /// Who is silent.
        member: Name,
    },
    /// A member did not acknowledge a change of the group for a minute, and is removed.
    #[error("session={session}: {member} does not answer and is removed")]
    Expelled {
        /// The session.
        session: u32,
        /// Who is silent.
        member: Name,
    },
    /// Messages of another member are lost for ever.
    #[error("error receiving message: failed to decode message: message lost: {session}")]
    Lost {
        /// The session.
        session: u32,
        /// Who sent them.
        sender: Name,
        /// How many in a row.
        count: u32,
    },
    /// A session could not be set up: nobody answered for a minute.
    #[error(
        "error receiving message: failed to decode message: error processing message: timer failed on channel endpoint. Stop sending messages"
    )]
    NoAnswer {
        /// Whom it was to be with.
        name: Box<FullName>,
    },
    /// Who was invited, or was to leave, did not answer for a minute. The session goes on.
    #[error("{name} did not answer")]
    Unanswered {
        /// Who was asked.
        name: Box<FullName>,
    },
    /// Who was invited cannot be a member: it refuses this app, or cannot be added to the
    /// encrypted group.
    #[error("{name} cannot be added: {reason}")]
    Refused {
        /// Who was invited.
        name: Box<FullName>,
        /// Why.
        reason: String,
    },
    /// Who was invited is a member already.
    #[error("{name} is a member already")]
    AlreadyMember {
        /// Who was invited.
        name: Box<FullName>,
    },
    /// Who was to be removed is not a member.
    #[error("{name} is not a member")]
    NotMember {
        /// Who was to be removed.
        name: Box<FullName>,
    },
    /// Who was invited was removed before it was a member.
    #[error("the invitation of {name} was withdrawn")]
    Withdrawn {
        /// Who was invited.
        name: Box<FullName>,
    },
    /// Only a moderator does that.
    #[error("only the moderator of a group can {what} participants")]
    NotModerator {
        /// `invite`, `remove` or `remove all`.
        what: &'static str,
    },
    /// Only groups have participants.
    #[error(
        "error in session: error processing message: cannot {what} participant {to_or_from} point-to-point session"
    )]
    NotGroup {
        /// `invite` or `remove`.
        what: &'static str,
        /// `to` or `from`.
        to_or_from: &'static str,
    },
    /// There is room for more messages only after some have left.
    #[error(
        "error in session: error sending message to session: session={session}, error=window full"
    )]
    Full {
        /// The session.
        session: u32,
    },
    /// Where the message was to go, the session cannot send it.
    #[error("destination: expected {expected}, got {got}")]
    Destination {
        /// What would have been right.
        expected: &'static str,
        /// What was given.
        got: String,
    },
    /// Part of what was given to publish, or to create a session with.
    #[error("{field}: expected {expected}, got {got}")]
    Argument {
        /// Which part.
        field: &'static str,
        /// What would have been right.
        expected: &'static str,
        /// What was given.
        got: String,
    },
    /// A message that does not fit into a frame.
    #[error(transparent)]
    Encoding(#[from] DecodeError),
    /// This app has no token.
    #[error("identity error: {0}")]
    Identity(#[from] IdentityError),
    /// The session has ended.
    #[error("{0}")]
    Closed(CloseReason),
    /// No session has this number.
    #[error("session not found: {session}")]
    Unknown {
        /// The number.
        session: u32,
    },
    /// There is no link to send on.
    #[error("No active connection. Please connect first.")]
    NoLink,
    /// An encrypted group could not be created.
    #[error("encryption: {0}")]
    Mls(#[from] MlsError),
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CloseReason {
    /// The app deleted it.
    #[error("session closed: session already closed")]
    Deleted,
    /// The moderator removed this app, or closed the group; or this app is the moderator, and the
    /// control plane had it close the group.
    #[error("error receiving message: application channel closed")]
    Removed,
    /// The peer of a point-to-point session has ended it.
    #[error("error receiving message: application channel closed by the peer")]
    PeerClosed,
    /// An anycast session that another app opened has been idle.
    #[error("error receiving message: application channel closed after a long silence")]
    Idle,
    /// The app's endpoint has ended.
    #[error("error in session: session closed")]
    Stopped,
}

impl SessionError {
    /// Who has to act.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Undelivered { .. }
            | Self::Unacknowledged { .. }
            | Self::Expelled { .. }
            | Self::Lost { .. }
            | Self::NoAnswer { .. }
            | Self::Unanswered { .. }
            | Self::Refused { .. } => Fault::Peer,
            Self::Closed(CloseReason::Removed | CloseReason::PeerClosed) => Fault::Peer,
            Self::Identity(_) => Fault::Config,
            Self::Mls(_) => Fault::Internal,
            _ => Fault::Caller,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Undelivered { .. } => {
                "the peer may be gone or slow: raise timeout or max_retries, or open a new session"
            }
            Self::Unacknowledged { .. } => "the member may be gone: remove it, or go on without it",
            Self::Expelled { .. } => "invite it again when it is back",
            Self::Lost { .. } => "raise timeout or max_retries; the messages are gone",
            Self::NoAnswer { .. } | Self::Unanswered { .. } => {
                "check that the app runs, is connected, and has an identity that this one accepts \
                 (a wrong secret or audience looks like silence)"
            }
            Self::Refused { .. } => {
                "check the identities of both apps: each needs one of its own, that the other accepts"
            }
            Self::AlreadyMember { .. } | Self::NotMember { .. } | Self::Withdrawn { .. } => {
                "see the participants"
            }
            Self::NotModerator { .. } => "ask the app that created the group",
            Self::NotGroup { .. } => "create a group session for more than two",
            Self::Full { .. } => "wait until messages have left",
            Self::Destination { .. } | Self::Argument { .. } | Self::Encoding(_) => {
                "correct the argument"
            }
            Self::Identity(_) => "check the identity that the app was given",
            Self::Closed(_) | Self::Unknown { .. } => "create a new session, or wait for one",
            Self::NoLink => "connect the app to a node",
            Self::Mls(_) => "this is a defect: report it",
        }
    }
}
