//! What the control plane asks of the apps that moderate groups.

use slim_wire::SessionIds;
use slim_wire::session::{Content, FullName};

use super::error::SessionError;
use super::packet::Packet;
use crate::identity::CONTROL_PLANE;

/// Who may have an app moderate groups: create them, invite to them, remove from them, delete
/// them.
///
/// A request of the control plane is known by its token alone, whatever name it comes from. The
/// token has to be one that the app's [check](crate::identity::TokenCheck) takes: with a shared
/// secret one of those kinds that the app takes from other apps, and who knows the secret can make it;
/// of JWTs any whose `sub` is the one that is set here, whoever of the issuers that the app trusts has
/// issued it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlPlane {
    /// Nobody: such requests are dropped.
    Refused,
    /// Whose tokens have this subject. No empty one is taken. Default:
    /// [`CONTROL_PLANE`](crate::identity::CONTROL_PLANE).
    FromSubject(Box<str>),
}

impl Default for ControlPlane {
    fn default() -> Self {
        Self::FromSubject(CONTROL_PLANE.into())
    }
}

impl ControlPlane {
    /// Whether tokens with this subject are its.
    pub(super) fn is(&self, subject: &str) -> bool {
        match self {
            Self::Refused => false,
            Self::FromSubject(expected) => !subject.is_empty() && **expected == *subject,
        }
    }
}

/// A request of the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlRequest {
    /// Be the moderator of a new group.
    Create,
    /// Invite this app, any instance of it or one.
    Invite(Box<FullName>),
    /// Remove this app, by its name with or without an id.
    Remove(Box<FullName>),
    /// Remove all, and the group.
    Delete,
}

impl ControlRequest {
    /// What a message asks, if it is such a request.
    pub(super) fn of(packet: &Packet) -> Option<Self> {
        Some(match &packet.session.content {
            Content::JoinRequest { as_moderator: true, .. } => Self::Create,
            Content::DiscoveryRequest { participant: Some(name), .. } => Self::Invite(name.clone()),
            Content::LeaveRequest { delete_group: true, .. } => Self::Delete,
            Content::LeaveRequest { participant: Some(name), .. } => Self::Remove(name.clone()),
            _ => return None,
        })
    }
}

/// What became of a request of the control plane.
#[derive(Clone, Debug, PartialEq)]
pub struct Controlled {
    /// Of the group, and of the request.
    pub ids: SessionIds,
    /// What was asked.
    pub request: ControlRequest,
    /// Whether it was done. The control plane is not told.
    pub result: Result<(), SessionError>,
}

/// How many requests of the control plane an app has had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ControlCounts {
    /// Executed, or under way.
    pub accepted: u64,
    /// Not executed, or begun and not completed: who was invited did not answer, for example.
    pub failed: u64,
    /// Dropped, for the app has no such session.
    pub unknown: u64,
    /// Dropped, for they came from somebody else.
    pub refused: u64,
    /// Dropped, for they were executed before.
    pub repeated: u64,
}
