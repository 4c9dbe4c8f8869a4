//! What the node is to reach beside its floors and peers.

use crate::sample::{Measure, Row, Spread, find};

/// A ratio of one of our relays to another in one case.
pub(crate) struct Target {
    pub(crate) case: &'static str,
    pub(crate) ours: &'static str,
    pub(crate) other: &'static str,
    pub(crate) measure: Measure,
    pub(crate) bound: Bound,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    /// The second is hoped for.
    Most(f64, Option<f64>),
    Least(f64),
}

impl Bound {
    pub(crate) fn text(self) -> String {
        match self {
            Self::Most(most, None) => format!("≤ {most:.2}"),
            Self::Most(most, Some(hoped)) => format!("≤ {most:.2} ({hoped:.2})"),
            Self::Least(least) => format!("≥ {least:.2}"),
        }
    }

    pub(crate) fn verdict(self, ratio: f64) -> &'static str {
        let met = |met| if met { "met" } else { "missed" };
        match self {
            Self::Most(_, Some(hoped)) if ratio <= hoped => "met, also the one hoped for",
            Self::Most(most, _) => met(ratio <= most),
            Self::Least(least) => met(ratio >= least),
        }
    }
}

impl Target {
    /// `None` if one of the two did not run.
    pub(crate) fn measured(&self, rows: &[Row]) -> Option<Spread> {
        let ours = find(rows, self.case, self.ours)?;
        ours.ratio(find(rows, self.case, self.other)?, self.measure)
    }
}

pub(crate) fn all() -> Vec<Target> {
    use Bound::{Least, Most};
    use Measure::{Cpu, P50, P999, Throughput};
    const ETHERNET: &str = "slim-quic-1452";
    const JUMBO: &str = "slim-quic-65000";
    const GRPC: &str = "slim-grpc";
    let list = [
        ("1KiB", ETHERNET, "zenoh-tls", Cpu, Most(1.0, Some(0.85))),
        ("1KiB", ETHERNET, "nats-tls", Cpu, Most(0.7, None)),
        ("1KiB", JUMBO, "zenoh-tcp", Cpu, Most(0.45, None)),
        ("64B", ETHERNET, "nats-tcp", Cpu, Most(0.6, None)),
        ("16KiB", ETHERNET, "zenoh-tls", Cpu, Most(1.0, None)),
        ("16KiB", JUMBO, "floor-tls", Cpu, Most(0.8, None)),
        ("paced-64B", ETHERNET, "nats-tcp", Cpu, Most(0.6, None)),
        ("paced-1KiB", ETHERNET, "nats-tcp", Cpu, Most(0.6, None)),
        ("64B", ETHERNET, "floor-quic-1452", Cpu, Most(1.25, None)),
        ("1KiB", ETHERNET, "floor-quic-1452", Cpu, Most(1.25, None)),
        ("64B", JUMBO, "floor-quic-65000", Cpu, Most(1.25, None)),
        ("1KiB", JUMBO, "floor-quic-65000", Cpu, Most(1.25, None)),
        ("fanout8-1KiB", ETHERNET, "zenoh-tls", Cpu, Most(1.0, None)),
        ("paced-64B", ETHERNET, "nats-tcp", P50, Most(1.1, None)),
        ("paced-64B", ETHERNET, "nats-tcp", P999, Most(1.0, None)),
        ("paced-1KiB", ETHERNET, "nats-tcp", P50, Most(1.1, None)),
        ("paced-1KiB", ETHERNET, "nats-tcp", P999, Most(1.0, None)),
        ("rtt-64B", ETHERNET, "nats-tcp", P50, Most(1.0, None)),
        ("rtt-64B", ETHERNET, "floor-udp", P50, Most(1.5, None)),
        ("64B", GRPC, "upstream", Cpu, Most(0.4, Some(0.33))),
        ("1KiB", GRPC, "upstream", Cpu, Most(0.4, Some(0.33))),
        ("64B", GRPC, "upstream-nodelay", Throughput, Least(1.5)),
        ("1KiB", GRPC, "upstream-nodelay", Throughput, Least(1.5)),
        ("paced-64B", GRPC, "upstream-nodelay", P50, Most(1.0, None)),
        ("paced-1KiB", GRPC, "upstream-nodelay", P50, Most(1.0, None)),
    ];
    let target = |(case, ours, other, measure, bound)| Target { case, ours, other, measure, bound };
    list.map(target).into()
}
