//! The Rust API for apps.
//!
//! [`app`] is what most need: connect, session, message. [`identity`] tells who an app is.
//! [`link`] is the lowest floor: one connection to a node, and messages as they travel.

pub mod app;
pub mod identity;
pub mod link;

pub use self::app::{App, AppError, AppOptions, Operation, PublishOptions, Session, trace_context};
pub use self::link::{LinkOptions, Trust};
pub use crate::identity::Identity;
pub use crate::session::{
    CloseReason, Config, Context, ControlCounts, ControlPlane, Event, Limits, LinkId, Member,
    SessionError,
};
