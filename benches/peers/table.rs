//! The report as text.

use std::fmt::Write as _;

use crate::case::{Case, Load};
use crate::sample::{Measure, Row};
use crate::targets;

/// Below this a saturated relay was not what limited the load.
const SATURATED: f64 = 0.8;

/// A case: figures of all relays, and ratios of ours to the others.
pub(crate) fn case(rows: &[Row]) -> String {
    let Some(case) = rows.first().map(|row| &row.case) else { return String::new() };
    let mut text = format!("\n{}\n\n{:<17}", case.description(), "relay");
    for measure in Measure::ALL {
        let range = if measure == Measure::Cpu { 24 } else { 12 };
        let _ = write!(text, " {:>range$}", measure.name());
    }
    text.push('\n');
    rows.iter().for_each(|row| figures(row, &mut text));
    if rows.iter().any(is_idle) {
        text += "* this relay was not kept busy: its figures are those of another bottleneck\n";
    }
    ratios(case, rows, &mut text);
    text
}

fn figures(row: &Row, text: &mut String) {
    let _ = write!(text, "{:<17}", row.relay);
    for measure in Measure::ALL {
        let Some(spread) = row.spread(measure) else { break };
        let median = spread.median;
        let mark = if measure == Measure::Busy && is_idle(row) { "*" } else { "" };
        let _ = match measure {
            Measure::Cpu => {
                let range = format!("({:.0}–{:.0})", spread.least, spread.greatest);
                write!(text, " {median:>9.0} {range:>14}")
            }
            Measure::Throughput => write!(text, " {median:>12.0}"),
            Measure::Busy => write!(text, " {:>12}", format!("{:.0} %{mark}", median * 100.0)),
            Measure::CpuPerMegabyte => write!(text, " {median:>12.3}"),
            Measure::P50 | Measure::P99 | Measure::P999 => write!(text, " {median:>12.1}"),
        };
    }
    text.push('\n');
    for failure in row.rounds.iter().filter_map(|round| round.as_ref().err()) {
        let _ = writeln!(text, "{:<17} *** A ROUND FAILED: {failure} ***", "");
    }
}

fn is_idle(row: &Row) -> bool {
    let busy = row.spread(Measure::Busy);
    row.case.is_saturated() && busy.is_some_and(|busy| busy.median < SATURATED)
}

/// What is compared under a load.
fn compared(load: Load) -> &'static [Measure] {
    match load {
        Load::Saturated => &[Measure::Cpu, Measure::Throughput],
        Load::Paced(_) => &[Measure::Cpu, Measure::P50, Measure::P99, Measure::P999],
        Load::RoundTrip => &[Measure::Cpu, Measure::P50, Measure::P999],
    }
}

fn ratios(case: &Case, rows: &[Row], text: &mut String) {
    let ours = |row: &&Row| row.relay.starts_with("slim");
    let measures = compared(case.load);
    for this in rows.iter().filter(ours) {
        let mut lines = String::new();
        for other in rows.iter().filter(|other| other.relay != this.relay) {
            let mut line = format!("  / {:<17}", other.relay);
            for &measure in measures {
                let ratio = this.ratio(other, measure).map_or_else(|| "-".into(), |r| r.text());
                let _ = write!(line, " {ratio:>22}");
            }
            let _ = writeln!(lines, "{line}");
        }
        if !lines.is_empty() {
            let names: String = measures.iter().map(|m| format!(" {:>22}", m.name())).collect();
            let _ = write!(text, "\n{:<21}{names}\n{lines}", this.relay);
        }
    }
}

/// What is to be reached, as far as both relays of a ratio ran.
pub(crate) fn targets(rows: &[Row]) -> String {
    let mut text = format!(
        "\n{:<13} {:<37} {:<13} {:>14}  {:<22} verdict\n",
        "case", "ratio of", "measure", "target", "measured"
    );
    let mut any = false;
    for target in targets::all() {
        let Some(measured) = target.measured(rows) else { continue };
        any = true;
        let ratio = format!("{} / {}", target.ours, target.other);
        let _ = writeln!(
            text,
            "{:<13} {ratio:<37} {:<13} {:>14}  {:<22} {}",
            target.case,
            target.measure.name(),
            target.bound.text(),
            measured.text(),
            target.bound.verdict(measured.median),
        );
    }
    if any { text } else { String::new() }
}
