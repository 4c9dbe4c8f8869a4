//! Sessions: what apps share end to end, as machines without clock, socket or randomness.

use std::time::{Instant, SystemTime};

/// The time, as it is passed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// For deadlines.
    pub instant: Instant,
    /// For tokens.
    pub wall: SystemTime,
}
