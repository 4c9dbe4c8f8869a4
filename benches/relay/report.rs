//! Rounds of one case, put together.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// What was asked of the nodes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) size: usize,
    /// Messages a second; `None` for as many as the window allows.
    pub(crate) rate: Option<u64>,
    pub(crate) messages: u64,
}

/// One round of one case at one node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// CPU time of the node per message.
    pub(crate) cpu_ns: f64,
    /// Times the scheduler let a thread of the node run, per message.
    pub(crate) runs: f64,
    /// Messages a second, from the first to the last received.
    pub(crate) throughput: f64,
}

/// All rounds of one case at one node, in the order of rounds.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) case: Case,
    pub(crate) node: String,
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

/// The row of `reference` for the same case.
fn beside<'a>(rows: &'a [Row], row: &Row, reference: Option<&str>) -> Option<&'a Row> {
    let same = |other: &&Row| {
        Some(other.node.as_str()) == reference
            && other.case.size == row.case.size
            && other.case.rate == row.case.rate
    };
    rows.iter().find(same)
}

/// The rows as a table; ratios are to the node called `reference`.
pub(crate) fn table(rows: &[Row], reference: Option<&str>) -> String {
    let mut text = format!(
        "{:>7}  {:<10} {:<24} {:>9} {:>10} {:>7} {:>9} {:>9}  {}\n",
        "payload",
        "load",
        "node",
        "messages",
        "ns CPU/msg",
        "least",
        "runs/msg",
        "msg/s",
        "ratio to upstream"
    );
    for row in rows {
        let _ = write!(
            text,
            "{:>7}  {:<10} {:<24} {:>9}",
            row.case.size,
            row.case.load(),
            row.node,
            row.case.messages
        );
        if let (Some((least, cpu, _)), Some((_, runs, _)), Some((_, throughput, _))) = (
            row.spread(|sample| sample.cpu_ns),
            row.spread(|sample| sample.runs),
            row.spread(|sample| sample.throughput),
        ) {
            let _ = write!(text, " {cpu:>10.0} {least:>7.0} {runs:>9.3} {throughput:>9.0}");
        }
        if let Some((least, median, greatest)) =
            beside(rows, row, reference).and_then(|reference| row.ratio(reference))
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
pub(crate) fn json(rows: &[Row], reference: Option<&str>) -> Value {
    let rows = rows.iter().map(|row| {
        let ratio = beside(rows, row, reference).and_then(|reference| row.ratio(reference));
        json!({
            "payload_bytes": row.case.size,
            "rate": row.case.rate,
            "node": row.node,
            "messages": row.case.messages,
            "rounds": row.rounds.iter().map(|round| match round {
                Ok(sample) => json!({
                    "cpu_ns_per_message": sample.cpu_ns,
                    "runs_per_message": sample.runs,
                    "messages_per_second": sample.throughput,
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
