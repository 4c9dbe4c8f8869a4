//! What is asked of every relay.

use slim_quic::ctl::bench::{Mode, Plan};

#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Payload bytes.
    pub(crate) size: usize,
    pub(crate) subscribers: u16,
    pub(crate) load: Load,
    /// Messages of the publisher in a round.
    pub(crate) messages: u64,
    /// Messages under way at most, where the load is not paced.
    pub(crate) window: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// As fast as the window allows.
    Saturated,
    /// So many messages a second, each when it is due.
    Paced(u32),
    /// A message there and back, then the next.
    RoundTrip,
}

/// Messages that a publisher has under way, at most so many and about so many bytes.
const WINDOW_MESSAGES: u64 = 2048;
const WINDOW_BYTES: u64 = 1024 * 1024;

/// Messages a second of paced loads.
const RATE: u32 = 5_000;

const KIB: usize = 1024;

/// All cases. With `window` messages under way where the load is saturated; each round a fifth as
/// long if it has to be `quick`.
pub(crate) fn all(window: Option<u64>, quick: bool) -> Vec<Case> {
    use Load::{Paced, RoundTrip, Saturated};
    let case = |name, size: usize, subscribers, load, messages: u64| {
        let usual = WINDOW_MESSAGES.min(WINDOW_BYTES / size as u64);
        let window = if load == RoundTrip { 1 } else { window.unwrap_or(usual) };
        let messages = if quick { messages / 5 } else { messages };
        Case { name, size, subscribers, load, messages, window }
    };
    vec![
        case("64B", 64, 1, Saturated, 400_000),
        case("1KiB", KIB, 1, Saturated, 200_000),
        case("16KiB", 16 * KIB, 1, Saturated, 30_000),
        case("fanout8-1KiB", KIB, 8, Saturated, 40_000),
        case("paced-64B", 64, 1, Paced(RATE), 10_000),
        case("paced-1KiB", KIB, 1, Paced(RATE), 10_000),
        case("rtt-64B", 64, 1, RoundTrip, 5_000),
    ]
}

impl Case {
    pub(crate) fn is_saturated(&self) -> bool {
        self.load == Load::Saturated
    }

    /// Messages per second, where the load is paced.
    pub(crate) fn rate(&self) -> Option<f64> {
        match self.load {
            Load::Paced(rate) => Some(rate.into()),
            Load::Saturated | Load::RoundTrip => None,
        }
    }

    /// Times that a relay forwards a message that is counted once.
    pub(crate) fn passes(&self) -> u64 {
        if self.load == Load::RoundTrip { 2 } else { 1 }
    }

    pub(crate) fn plan(&self) -> Plan {
        let round_trip = self.load == Load::RoundTrip;
        Plan {
            mode: if round_trip { Mode::RoundTrip } else { Mode::Publish },
            size: self.size,
            rate: self.rate(),
            count: Some(self.messages),
            subscribers: if round_trip { 0 } else { self.subscribers },
            window: self.rate().is_none().then_some(self.window),
            ..Plan::default()
        }
    }

    /// For the reader of the report.
    pub(crate) fn description(&self) -> String {
        let Self { name, size, subscribers, messages, window, .. } = self;
        let load = match self.load {
            Load::Saturated => format!("saturated, {window} messages under way"),
            Load::Paced(rate) => format!("{rate} messages/s"),
            Load::RoundTrip => "round trips, one at a time".to_owned(),
        };
        let copies = if *subscribers == 1 { String::new() } else { format!(" to {subscribers}") };
        format!("{name}: {messages} messages of {size} bytes{copies} a round, {load}")
    }
}
