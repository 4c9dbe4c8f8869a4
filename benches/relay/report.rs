//! Rounds of one case, put together.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::client::{Dialect, Shape};

/// What was asked of the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) dialect: Dialect,
    pub(crate) shape: Shape,
    /// Messages a second; `None` for as many as the window allows.
    pub(crate) rate: Option<u64>,
    /// Messages published in a round.
    pub(crate) messages: u64,
}

/// One round of one case at one node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// CPU time of the node per copy delivered.
    pub(crate) cpu_ns: f64,
    /// Times the scheduler let a thread of the node run, per copy.
    pub(crate) runs: f64,
    /// Copies a second, from the first message published to the last received.
    pub(crate) throughput: f64,
}

/// All rounds of one case at one node, in the order of rounds.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) case: Case,
    pub(crate) node: String,
    /// Whether ratios are to this node.
    pub(crate) is_reference: bool,
    /// Or why the round did not come to an end.
    pub(crate) rounds: Vec<Result<Sample, String>>,
}

impl Row {
    fn spread(&self, of: impl Fn(&Sample) -> f64) -> Option<(f64, f64, f64)> {
        spread(self.rounds.iter().flatten().map(of).collect())
    }

    /// Least, median and greatest ratio of this node's CPU time to that of `other` in the same
    /// round.
    fn ratio(&self, other: &Self) -> Option<(f64, f64, f64)> {
        let rounds = self.rounds.iter().zip(&other.rounds);
        let ratios = rounds.filter_map(|rounds| match rounds {
            (Ok(us), Ok(them)) => Some(us.cpu_ns / them.cpu_ns),
            _ => None,
        });
        spread(ratios.collect())
    }
}

/// Least, median, greatest.
fn spread(mut values: Vec<f64>) -> Option<(f64, f64, f64)> {
    values.sort_by(f64::total_cmp);
    let (least, greatest) = (*values.first()?, *values.last()?);
    Some((least, values[values.len() / 2], greatest))
}

impl Case {
    fn load(&self) -> String {
        self.rate.map_or_else(|| "saturated".into(), |rate| format!("{rate}/s"))
    }
}

/// The node that ratios of the row are to, in the same case.
fn beside<'a>(rows: &'a [Row], row: &Row) -> Option<&'a Row> {
    rows.iter().find(|other| other.is_reference && other.case == row.case)
}

/// The rows as a table.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<7} {:>7} {:>11}  {:<10} {:<24} {:>9} {:>11} {:>7} {:>9} {:>9}  {}\n",
        "dialect",
        "payload",
        "subscribers",
        "load",
        "node",
        "messages",
        "ns CPU/copy",
        "least",
        "runs/copy",
        "copies/s",
        "ratio to upstream"
    );
    for row in rows {
        let _ = write!(
            text,
            "{:<7} {:>7} {:>11}  {:<10} {:<24} {:>9}",
            row.case.dialect.name(),
            row.case.shape.size,
            row.case.shape.subscribers,
            row.case.load(),
            row.node,
            row.case.messages
        );
        if let (Some((least, cpu, _)), Some((_, runs, _)), Some((_, throughput, _))) = (
            row.spread(|sample| sample.cpu_ns),
            row.spread(|sample| sample.runs),
            row.spread(|sample| sample.throughput),
        ) {
            let _ = write!(text, " {cpu:>11.0} {least:>7.0} {runs:>9.3} {throughput:>9.0}");
        }
        if let Some((least, median, greatest)) =
            beside(rows, row).and_then(|reference| row.ratio(reference))
        {
            let _ = write!(text, "  {median:.3} ({least:.3} to {greatest:.3})");
        }
        for failure in row.rounds.iter().filter_map(|round| round.as_ref().err()) {
            let _ = write!(text, "  FAILED: {failure}");
        }
        text.push('\n');
    }
    text
}

/// The rows with every round.
pub(crate) fn json(rows: &[Row]) -> Value {
    let rows = rows.iter().map(|row| {
        let ratio = beside(rows, row).and_then(|reference| row.ratio(reference));
        json!({
            "dialect": row.case.dialect.name(),
            "payload_bytes": row.case.shape.size,
            "identity_bytes": row.case.shape.identity,
            "subscribers": row.case.shape.subscribers,
            "rate": row.case.rate,
            "node": row.node,
            "messages": row.case.messages,
            "rounds": row.rounds.iter().map(|round| match round {
                Ok(sample) => json!({
                    "cpu_ns_per_copy": sample.cpu_ns,
                    "runs_per_copy": sample.runs,
                    "copies_per_second": sample.throughput,
                }),
                Err(failure) => json!({"failed": failure}),
            }).collect::<Vec<_>>(),
            "ratio_to_upstream": ratio.map(|(least, median, greatest)| json!({
                "least": least, "median": median, "greatest": greatest,
            })),
        })
    });
    Value::Array(rows.collect())
}
