//! Rounds of a case at a relay, and ratios between relays.

use std::time::Duration;

use hdrhistogram::Histogram;
use slim_quic::ctl::bench::Report;

use crate::Failure;
use crate::case::Case;

/// One round of one case at one relay.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// CPU time of the relay, all threads, per message that it forwarded.
    cpu_ns: f64,
    /// Payload bytes of a message.
    size: usize,
    /// CPU time of the relay to the time that the round took: 1 is a core.
    busy: f64,
    /// Messages a second that arrived.
    throughput: f64,
    pub(crate) latency: Histogram<u64>,
}

/// What is known of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    /// CPU time per message in ns.
    Cpu,
    /// CPU time per megabyte of payload in ms.
    CpuPerMegabyte,
    Busy,
    Throughput,
    /// Latencies in µs.
    P50,
    P99,
    P999,
}

impl Measure {
    pub(crate) const ALL: [Self; 7] = [
        Self::Cpu,
        Self::CpuPerMegabyte,
        Self::Busy,
        Self::Throughput,
        Self::P50,
        Self::P99,
        Self::P999,
    ];

    /// As a heading.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cpu => "CPU/msg [ns]",
            Self::CpuPerMegabyte => "CPU/MB [ms]",
            Self::Busy => "busy",
            Self::Throughput => "msg/s",
            Self::P50 => "p50 [µs]",
            Self::P99 => "p99 [µs]",
            Self::P999 => "p99.9 [µs]",
        }
    }

    /// As the name of a column of a file.
    pub(crate) fn column(self) -> &'static str {
        match self {
            Self::Cpu => "cpu_ns_per_message",
            Self::CpuPerMegabyte => "cpu_ms_per_megabyte",
            Self::Busy => "busy_cores",
            Self::Throughput => "messages_per_second",
            Self::P50 => "p50_us",
            Self::P99 => "p99_us",
            Self::P999 => "p99_9_us",
        }
    }
}

impl Sample {
    /// A round that took `cpu` of the relay.
    ///
    /// # Errors
    /// If a message is missing, or came late or twice.
    pub(crate) fn new(case: &Case, report: Report, cpu: Duration) -> Result<Self, Failure> {
        let copies = case.messages * u64::from(case.subscribers);
        if report.has_losses() || report.messages != copies {
            let Report { messages, out_of_order, .. } = report;
            return Err(format!("{messages} of {copies} came, {out_of_order} late").into());
        }
        Ok(Self {
            cpu_ns: cpu.as_nanos() as f64 / (copies * case.passes()) as f64,
            size: case.size,
            busy: cpu.as_secs_f64() / report.seconds,
            throughput: report.rate(),
            latency: report.latency.ok_or("no latencies")?,
        })
    }

    pub(crate) fn value(&self, measure: Measure) -> f64 {
        let us = |quantile| self.latency.value_at_quantile(quantile) as f64 / 1e3;
        match measure {
            Measure::Cpu => self.cpu_ns,
            // ns per byte.
            Measure::CpuPerMegabyte => self.cpu_ns / self.size as f64,
            Measure::Busy => self.busy,
            Measure::Throughput => self.throughput,
            Measure::P50 => us(0.5),
            Measure::P99 => us(0.99),
            Measure::P999 => us(0.999),
        }
    }
}

/// All rounds of one case at one relay, in the order of rounds.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) case: Case,
    pub(crate) relay: String,
    /// Or why a round did not come to an end.
    pub(crate) rounds: Vec<Result<Sample, String>>,
}

impl Row {
    pub(crate) fn spread(&self, measure: Measure) -> Option<Spread> {
        Spread::of(self.rounds.iter().flatten().map(|sample| sample.value(measure)).collect())
    }

    /// This relay's figures to those of `other` in the same round.
    pub(crate) fn ratio(&self, other: &Self, measure: Measure) -> Option<Spread> {
        let rounds = self.rounds.iter().zip(&other.rounds);
        let ratios = rounds.filter_map(|rounds| match rounds {
            (Ok(this), Ok(that)) => Some(this.value(measure) / that.value(measure)),
            _ => None,
        });
        Spread::of(ratios.collect())
    }

    /// Latencies of all rounds together; `None` if there is no round.
    pub(crate) fn latency(&self) -> Option<Histogram<u64>> {
        let mut rounds = self.rounds.iter().flatten().map(|sample| &sample.latency);
        let mut all = rounds.next()?.clone();
        rounds.for_each(|round| all += round);
        Some(all)
    }
}

/// The row of a case and a relay.
pub(crate) fn find<'a>(rows: &'a [Row], case: &str, relay: &str) -> Option<&'a Row> {
    rows.iter().find(|row| row.case.name == case && row.relay == relay)
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) least: f64,
    pub(crate) median: f64,
    pub(crate) greatest: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (least, greatest) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 => (values[middle - 1] + values[middle]) / 2.0,
            _ => values[middle],
        };
        Some(Self { least, median, greatest })
    }

    /// Median, and in brackets the range.
    pub(crate) fn text(self) -> String {
        format!("{:.2} ({:.2}–{:.2})", self.median, self.least, self.greatest)
    }
}
