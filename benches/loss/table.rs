//! Rounds of the cases, put together.

use std::fmt::{self, Write as _};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::impair::Counts;
use crate::wire::Seen;
use crate::worker::{self, Outcome};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// As fast as a window of messages allows.
    Saturated,
    /// Open loop, messages a second.
    Paced(u64),
}

/// What is asked of every relay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    /// Payload bytes of a message.
    pub(crate) size: usize,
    pub(crate) load: Load,
    /// Of each link.
    pub(crate) rtt: Duration,
    /// Of each direction of each link, in percent.
    pub(crate) loss: f64,
}

/// One round of one case at one relay.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) outcome: Outcome,
    /// How long messages were sent.
    pub(crate) time: Duration,
    pub(crate) seen: Seen,
}

/// All rounds of one case at one relay.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) case: Case,
    pub(crate) relay: String,
    /// Or why the round did not come to an end.
    pub(crate) rounds: Vec<Result<Sample, String>>,
}

/// What is shown of latency, and its names.
pub(crate) const QUANTILES: [(f64, &str); 3] = [(0.5, "p50"), (0.99, "p99"), (0.999, "p99.9")];

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Saturated => f.write_str("saturated"),
            Self::Paced(rate) => write!(f, "{rate}/s"),
        }
    }
}

impl Sample {
    /// Messages a second. What came after the sending is no matter of throughput.
    pub(crate) fn throughput(&self) -> f64 {
        self.outcome.received as f64 / self.time.as_secs_f64()
    }

    pub(crate) fn delivered(&self) -> f64 {
        self.outcome.received as f64 / self.outcome.due.max(1) as f64
    }

    /// What the wire did to both directions together.
    pub(crate) fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        for counts in self.seen.ways.iter().flatten() {
            sum.packets += counts.packets;
            sum.lost += counts.lost;
            sum.refused += counts.refused;
            sum.reordered += counts.reordered;
            sum.longest = sum.longest.max(counts.longest);
        }
        sum
    }
}

impl Row {
    pub(crate) fn new(case: Case, relay: String) -> Self {
        Self { case, relay, rounds: Vec::new() }
    }

    fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.rounds.iter().flatten()
    }

    /// Latencies of all rounds.
    pub(crate) fn latency(&self) -> Histogram<u64> {
        let mut all = worker::empty();
        for sample in self.samples() {
            all.add(&sample.outcome.latency).expect("all have the same bounds");
        }
        all
    }

    fn due(&self) -> u64 {
        self.samples().map(|sample| sample.outcome.due).sum()
    }

    /// A latency in ms. In an open loop what did not come in time counts as slower than all that
    /// came: `None` if the quantile lies there.
    fn quantile(&self, quantile: f64) -> Option<f64> {
        let latency = self.latency();
        quantile_ms(&latency, self.case.load.counted(&latency, self.due()), quantile)
    }
}

impl Load {
    /// Among how many messages a quantile is: what a window holds back was not late.
    fn counted(self, latency: &Histogram<u64>, due: u64) -> u64 {
        match self {
            Self::Saturated => latency.len(),
            Self::Paced(_) => due,
        }
    }
}

/// A latency in ms among `of` messages, those that are missing counted as the slowest; `None` if
/// the quantile lies there.
pub(crate) fn quantile_ms(latency: &Histogram<u64>, of: u64, quantile: f64) -> Option<f64> {
    let among = quantile * of as f64 / latency.len() as f64;
    (among <= 1.0).then(|| latency.value_at_quantile(among) as f64 / 1e6)
}

/// Least, median, greatest.
pub(crate) fn spread(values: impl Iterator<Item = f64>) -> Option<(f64, f64, f64)> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let (least, greatest) = (*values.first()?, *values.last()?);
    Some((least, values[values.len() / 2], greatest))
}

/// A round in a line, for whoever waits.
pub(crate) fn line(case: Case, relay: &str, sample: &Result<Sample, String>) -> String {
    let Case { load, rtt, loss, .. } = case;
    let said = match sample {
        Ok(sample) => format!("{:.0} messages/s", sample.throughput()),
        Err(error) => format!("FAILED: {error}"),
    };
    format!("{load}, {} ms, {loss} %, {relay}: {said}", rtt.as_millis())
}

/// The rows as a table, a block for each load and round-trip time.
pub(crate) fn text(rows: &[Row]) -> String {
    let mut text = String::new();
    let mut block = None;
    for row in rows {
        let Case { load, rtt, loss, .. } = row.case;
        if block.replace((load, rtt)) != Some((load, rtt)) {
            let _ = writeln!(
                text,
                "\n{load}, round-trip time of a link {} ms\n{:>6}  {:<20} {:>8} {:>15} {:>8} {:>10} \
                 {:>9} {:>9} {:>9}",
                rtt.as_millis(),
                "loss",
                "relay",
                "msg/s",
                "",
                "Mbit/s",
                "delivered",
                "p50 [ms]",
                "p99",
                "p99.9"
            );
        }
        let _ = write!(text, "{loss:>5}%  {:<20}", row.relay);
        if let Some((least, median, greatest)) = spread(row.samples().map(Sample::throughput)) {
            let range = format!("({least:.0} to {greatest:.0})");
            let range = if row.rounds.len() > 1 { range } else { String::new() };
            let delivered = spread(row.samples().map(Sample::delivered));
            let delivered = match (load, delivered) {
                (Load::Paced(_), Some((_, median, _))) => format!("{:.1} %", median * 100.0),
                _ => String::new(),
            };
            let mbits = median * (row.case.size * 8) as f64 / 1e6;
            let _ = write!(text, " {median:>8.0} {range:>15} {mbits:>8.1} {delivered:>10}");
            for (quantile, _) in QUANTILES {
                let value = row.quantile(quantile);
                let value = value.map_or_else(|| "never".into(), |ms| format!("{ms:.1}"));
                let _ = write!(text, " {value:>9}");
            }
        }
        for failure in row.rounds.iter().filter_map(|round| round.as_ref().err()) {
            let _ = write!(text, "  FAILED: {failure}");
        }
        text.push('\n');
    }
    text
}

/// Every round, and what the wire did to it.
pub(crate) fn csv(rows: &[Row]) -> String {
    let mut text = "load,rtt_ms,loss_percent,relay,round,payload_bytes,seconds,due,received,\
                    messages_per_s,p50_ms,p99_ms,p99_9_ms,packets,lost,refused,reordered,\
                    longest_packet,late_us,failure\n"
        .to_owned();
    for row in rows {
        let Case { size, load, rtt, loss } = row.case;
        let relay = row.relay.replace(',', "");
        for (round, sample) in row.rounds.iter().enumerate() {
            let _ = write!(text, "{load},{},{loss},{relay},{round},{size},", rtt.as_millis());
            match sample {
                Ok(sample) => text.push_str(&sample.csv(load)),
                Err(error) => {
                    let error = error.replace([',', '\n'], ";");
                    let _ = writeln!(text, ",,,,,,,,,,,,,{error}");
                }
            }
        }
    }
    text
}

impl Sample {
    fn csv(&self, load: Load) -> String {
        let Outcome { due, received, latency } = &self.outcome;
        let mut text = format!("{},{due},{received},", self.time.as_secs_f64());
        let _ = write!(text, "{:.1}", self.throughput());
        for (quantile, _) in QUANTILES {
            let value = quantile_ms(latency, load.counted(latency, *due), quantile);
            let value = value.map_or_else(String::new, |ms| format!("{ms:.3}"));
            let _ = write!(text, ",{value}");
        }
        let Counts { packets, lost, refused, reordered, longest } = self.counts();
        let late = self.seen.late.as_micros();
        let _ = writeln!(text, ",{packets},{lost},{refused},{reordered},{longest},{late},");
        text
    }
}
