use std::time::Duration;

use slim_wire::limits::GRPC_MESSAGE_BYTES;

use super::stamp::STAMP_BYTES;
use crate::ctl::Error;

/// Which ends run in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Publishers, and subscribers if there are any.
    Publish,
    /// Subscribers alone.
    Subscribe,
    /// Publishers, each with a subscriber that sends everything back to it.
    RoundTrip,
}

/// What a run is to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which ends run in this process.
    pub mode: Mode,
    /// Last component of the names that are used, `slimctl/bench/TOPIC`.
    pub topic: String,
    /// Payload bytes of every message, at least [`STAMP_BYTES`].
    pub size: usize,
    /// Messages a second of each publisher, whatever becomes of them; `None` for as many as the
    /// window allows.
    pub rate: Option<f64>,
    /// Messages of each publisher. For subscribers alone: messages of each subscriber.
    pub count: Option<u64>,
    /// How long publishers send. For subscribers alone: how long they receive after the first
    /// message.
    pub duration: Option<Duration>,
    /// Publishers in this process. For subscribers alone: publishers elsewhere.
    pub publishers: u16,
    /// Subscribers in this process.
    pub subscribers: u16,
    /// Subscribers elsewhere that are to get every message; counts if there are none here.
    pub fanout: u16,
    /// Messages that each publisher may have under way without a rate; `None` for a default.
    pub window: Option<u64>,
    /// After how long a run ends, whatever is still under way then, counted from its start; `None`
    /// for once all has come, or nothing more comes. Without effect for subscribers alone.
    pub cutoff: Option<Duration>,
}

/// What a window holds by default: at most so many messages, and about so many bytes.
const WINDOW_MESSAGES: u64 = 2048;
const WINDOW_BYTES: usize = 1024 * 1024;

/// What a message holds beside its payload, generously.
const OVERHEAD_BYTES: usize = 1024;

/// How long publishers send if nothing is said.
const DURATION: Duration = Duration::from_secs(10);

impl Default for Plan {
    /// One publisher and one subscriber exchange messages of 64 bytes for ten seconds.
    fn default() -> Self {
        Self {
            mode: Mode::Publish,
            topic: "default".into(),
            size: 64,
            rate: None,
            count: None,
            duration: None,
            publishers: 1,
            subscribers: 1,
            fanout: 1,
            window: None,
            cutoff: None,
        }
    }
}

impl Plan {
    /// # Errors
    /// [`Error::Argument`] for what cannot be done.
    pub fn check(&self) -> Result<(), Error> {
        let sizes = STAMP_BYTES..=GRPC_MESSAGE_BYTES - OVERHEAD_BYTES;
        if !sizes.contains(&self.size) {
            let expected = format!("{} to {} bytes", sizes.start(), sizes.end());
            return Err(Error::argument("--size", expected, self.size));
        }
        if self.rate.is_some_and(|rate| !(rate > 0.0 && rate <= 1e9)) {
            let rate = self.rate.unwrap_or_default();
            return Err(Error::argument("--rate", "more than 0 and at most 1e9", rate));
        }
        if self.topic.is_empty() || self.topic.contains('/') || self.topic.len() > 255 {
            let expected = "1 to 255 bytes without a slash";
            return Err(Error::argument("--topic", expected, &self.topic));
        }
        if self.window == Some(0) {
            return Err(Error::argument("--window", "at least 1", 0));
        }
        if self.publishers == 0 || self.publishers > MOST_PUBLISHERS {
            let expected = format!("1 to {MOST_PUBLISHERS}");
            return Err(Error::argument("--publishers", expected, self.publishers));
        }
        if self.mode == Mode::Subscribe && self.subscribers == 0 {
            return Err(Error::argument("--subscribers", "at least 1", 0));
        }
        Ok(())
    }

    /// Messages that each publisher may have under way; `None` for no limit.
    pub(super) fn window(&self) -> Option<u64> {
        match (self.mode, self.window) {
            // What subscribers in other processes have, a publisher does not know.
            (Mode::Publish, _) if self.subscribers == 0 => None,
            (_, Some(window)) => Some(window),
            (Mode::RoundTrip, None) => Some(1),
            _ => Some(WINDOW_MESSAGES.min((WINDOW_BYTES / self.size) as u64).max(1)),
        }
    }

    /// Whether messages end in this process.
    pub(super) fn receives(&self) -> bool {
        self.mode == Mode::RoundTrip || self.subscribers > 0
    }

    /// Subscribers that are to get every message of a publisher.
    pub(super) fn targets(&self) -> u16 {
        match self.mode {
            Mode::RoundTrip => 1,
            _ if self.subscribers > 0 => self.subscribers,
            _ => self.fanout.max(1),
        }
    }

    /// How long publishers send at most.
    pub(super) fn sending(&self) -> Option<Duration> {
        match (self.count, self.duration) {
            (None, None) => Some(DURATION),
            (_, duration) => duration,
        }
    }

    /// Messages of each publisher, as far as the plan says.
    pub(super) fn total(&self) -> Option<u64> {
        let timed = self.rate.zip(self.sending());
        let timed = timed.map(|(rate, time)| ((rate * time.as_secs_f64()) as u64).max(1));
        match (self.count, timed) {
            (Some(count), Some(timed)) => Some(count.min(timed)),
            (count, timed) => count.or(timed),
        }
    }
}

/// The number that is left is that of the prober.
const MOST_PUBLISHERS: u16 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_that_has_no_room_for_the_stamp_is_refused() {
        let with = |size| Plan { size, ..Plan::default() }.check();
        assert!(with(16).is_ok() && with(64).is_ok());
        let error = with(15).expect_err("too small").to_string();
        assert_eq!(error, "--size: expected 16 to 4193280 bytes, got 15");
        assert!(with(4 * 1024 * 1024).is_err());
    }

    #[test]
    fn a_rate_that_is_none_is_refused() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Plan { rate: Some(rate), ..Plan::default() }.check().is_err(), "{rate}");
        }
    }

    #[test]
    fn count_or_time_whichever_ends_first() {
        let plan = |count, seconds: Option<u64>, rate| Plan {
            count,
            duration: seconds.map(Duration::from_secs),
            rate,
            ..Plan::default()
        };
        assert_eq!(plan(Some(50), Some(2), Some(10.0)).total(), Some(20));
        assert_eq!(plan(Some(10), Some(2), Some(10.0)).total(), Some(10));
        assert_eq!(plan(Some(10), None, Some(0.5)).total(), Some(10));
        assert_eq!(plan(None, None, Some(10.0)).total(), Some(100));
        assert_eq!(plan(None, Some(2), None).total(), None);
    }

    #[test]
    fn the_default_window_is_bounded_in_messages_and_bytes() {
        let window = |size| Plan { size, ..Plan::default() }.window();
        assert_eq!([window(64), window(16_384), window(2 << 20)], [Some(2048), Some(64), Some(1)]);
        assert_eq!(Plan { mode: Mode::RoundTrip, ..Plan::default() }.window(), Some(1));
        assert_eq!(Plan { subscribers: 0, ..Plan::default() }.window(), None);
    }
}
