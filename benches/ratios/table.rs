//! Rounds of one case, put together.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::Case;

/// One round of one case at one relay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// CPU time of the relay per message.
    pub(crate) cpu_ns: f64,
    /// Messages a second, as they came through.
    pub(crate) throughput: f64,
    /// Median latency.
    pub(crate) latency_us: f64,
}

/// All rounds of one case at one relay, in the order of rounds.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) case: Case,
    pub(crate) relay: String,
    /// Largest datagram, where the relay speaks QUIC.
    pub(crate) mtu: Option<u16>,
    /// Or why the round did not come to an end.
    pub(crate) rounds: Vec<Result<Sample, String>>,
}

/// What the ratios are to, and the heading of their column.
const REFERENCES: [(&str, &str); 5] = [
    ("quic floor", "/ quic, same MTU"),
    ("udp floor", "/ udp"),
    ("tcp floor", "/ tcp"),
    ("tls floor", "/ tls"),
    ("slim, gRPC", "/ slim, gRPC"),
];

impl Row {
    fn median(&self, of: impl Fn(&Sample) -> f64) -> Option<f64> {
        spread(self.rounds.iter().flatten().map(of).collect()).map(|(_, median, _)| median)
    }

    /// Least, median and greatest ratio of this relay's CPU time to that of `other` in the same
    /// round.
    fn ratio(&self, other: &Self) -> Option<(f64, f64, f64)> {
        let rounds = self.rounds.iter().zip(&other.rounds);
        let ratios = rounds.filter_map(|rounds| match rounds {
            (Ok(this), Ok(that)) => Some(this.cpu_ns / that.cpu_ns),
            _ => None,
        });
        spread(ratios.collect())
    }

    fn ratio_to(&self, rows: &[Self], reference: &str) -> Option<(f64, f64, f64)> {
        let same = |other: &&Self| {
            other.relay.starts_with(reference)
                && (other.mtu == self.mtu || other.mtu.is_none() || self.mtu.is_none())
                && other.case.size == self.case.size
                && other.case.rate == self.case.rate
        };
        rows.iter().find(same).and_then(|other| self.ratio(other))
    }
}

/// Least, median, greatest.
fn spread(mut values: Vec<f64>) -> Option<(f64, f64, f64)> {
    values.sort_by(f64::total_cmp);
    let (least, greatest) = (*values.first()?, *values.last()?);
    Some((least, values[values.len() / 2], greatest))
}

pub(crate) fn load(rate: Option<u64>) -> String {
    rate.map_or_else(|| "saturated".into(), |rate| format!("{rate}/s"))
}

/// The rows as a table, a block per case.
pub(crate) fn text(rows: &[Row]) -> String {
    let mut text = format!(
        "{:>7}  {:<10} {:<18} {:>10} {:>9} {:>9}",
        "payload", "load", "relay", "ns CPU/msg", "msg/s", "p50 [µs]"
    );
    for (_, heading) in REFERENCES {
        let _ = write!(text, "  {heading:<22}");
    }
    for row in rows {
        let case = row.case;
        let _ = write!(text, "\n{:>7}  {:<10} {:<18}", case.size, load(case.rate), row.relay);
        if let (Some(cpu), Some(throughput), Some(latency)) = (
            row.median(|sample| sample.cpu_ns),
            row.median(|sample| sample.throughput),
            row.median(|sample| sample.latency_us),
        ) {
            let _ = write!(text, " {cpu:>10.0} {throughput:>9.0} {latency:>9.1}");
        }
        for (reference, _) in REFERENCES {
            let ratio = row.ratio_to(rows, reference).map_or_else(
                || "-".into(),
                |(least, median, greatest)| format!("{median:.2} ({least:.2} to {greatest:.2})"),
            );
            let _ = write!(text, "  {ratio:<22}");
        }
        for failure in row.rounds.iter().filter_map(|round| round.as_ref().err()) {
            let _ = write!(text, "  FAILED: {failure}");
        }
    }
    text.push('\n');
    text
}

/// The rows with every round.
pub(crate) fn json(rows: &[Row]) -> Value {
    let rounds = |row: &Row| -> Vec<Value> {
        let round = |round: &Result<Sample, String>| match round {
            Ok(sample) => json!({
                "cpu_ns_per_message": sample.cpu_ns,
                "messages_per_second": sample.throughput,
                "latency_us_p50": sample.latency_us,
            }),
            Err(failure) => json!({"failed": failure}),
        };
        row.rounds.iter().map(round).collect()
    };
    let ratios = |row: &Row| -> Value {
        let ratio = |(reference, _): (&str, &str)| {
            let ratio = row.ratio_to(rows, reference).map(|(least, median, greatest)| {
                json!({"least": least, "median": median, "greatest": greatest})
            });
            (reference.to_owned(), ratio.unwrap_or_default())
        };
        Value::Object(REFERENCES.into_iter().map(ratio).collect())
    };
    let rows = rows.iter().map(|row| {
        json!({
            "payload_bytes": row.case.size,
            "rate": row.case.rate,
            "relay": row.relay,
            "mtu": row.mtu,
            "messages": row.case.messages,
            "rounds": rounds(row),
            "cpu_ratio_to": ratios(row),
        })
    });
    Value::Array(rows.collect())
}
