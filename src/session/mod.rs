//! Sessions: what apps share end to end, as machines without clock, socket or randomness of their
//! own.
//!
//! An [`Endpoint`] holds the sessions of one app. It is told what arrives on links, what the app
//! wants and what time it is, and it says what is to be sent and what there is to know. All its
//! deadlines are data, so that the same inputs give the same outputs.
//!
//! The flows are those of release 0.6. A member of this library says so when it invites and when
//! it joins (the mark [`NATIVE_MARK`]), and only such members are sent what published apps do not
//! know: acknowledgements of group messages, lists of the members, and that a point-to-point
//! session has ended.

mod binding;
mod config;
mod control;
mod endpoint;
mod error;
mod event;
mod machine;
mod moderator;
mod packet;
mod participant;
mod producer;
mod receiver;
mod request;
mod saved;

use std::time::{Instant, SystemTime};

pub use self::config::{Config, Kind, Limits, Reliability};
pub use self::control::{ControlCounts, ControlPlane, ControlRequest, Controlled};
pub use self::endpoint::{Endpoint, Setup, Subscription};
pub use self::error::{CloseReason, SessionError};
pub use self::event::{Context, Event, LinkId, Member, Output, Publication, SessionInfo, Ticket};
pub use self::packet::Packet;

/// The time, as it is passed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// For deadlines.
    pub instant: Instant,
    /// For tokens.
    pub wall: SystemTime,
}

/// Key of the metadata by which members of this library know each other: on requests to join,
/// the replies to them, and beacons.
pub const NATIVE_MARK: &str = "SLIM_NATIVE";

/// The earlier of two deadlines.
fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
