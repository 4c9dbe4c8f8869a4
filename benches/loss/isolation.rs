//! Whether a link that loses packets delays others: many pairs at one relay, one of them behind a
//! bad link in every other round.

use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::impair::Impairment;
use crate::namespace::RELAY;
use crate::relay::Relay;
use crate::table;
use crate::wire::Way;
use crate::worker::{self, Protocol, Worker};
use crate::{Args, Failure, PATIENCE, Place};

/// One relay, all rounds.
pub(crate) struct Row {
    relay: String,
    /// Without the bad link and with it, by turns; or why that did not come to an end.
    rounds: Vec<Result<[Sample; 2], String>>,
}

/// What pairs saw in one run.
struct Sample {
    /// All pairs but the last.
    others: Latency,
    /// The last, whose link is bad or not.
    last: Latency,
}

struct Latency {
    due: u64,
    latency: Histogram<u64>,
}

/// The way of the last pair.
const LAST: usize = 1;

pub(crate) fn measure(args: &Args, place: &Place) -> Result<Vec<Row>, Failure> {
    if args.links < 2 {
        return Err("--links: expected 0, or at least 2".into());
    }
    let mut relays = crate::relays(args);
    // What controls congestion on one link is not the question here.
    relays.dedup_by_key(|relay| relay.protocol);
    // A floor serves one pair at a time.
    relays.retain(|relay| relay.protocol != Protocol::Tcp);
    let mut rows = Vec::new();
    for relay in relays {
        let mut row = Row { relay: relay.label(), rounds: Vec::new() };
        for round in 0..args.link_rounds {
            let sample = measure_round(args, place, &relay, round).map_err(|e| e.to_string());
            eprintln!("{} links, round {round}, {}", args.links, row.relay);
            row.rounds.push(sample);
        }
        rows.push(row);
    }
    Ok(rows)
}

fn measure_round(
    args: &Args,
    place: &Place,
    relay: &Relay,
    round: usize,
) -> Result<[Sample; 2], Failure> {
    let seed = args.seed.wrapping_add(round as u64);
    let run = |loss| measure_once(args, place, relay, seed, loss);
    // Neither is always the first.
    if round.is_multiple_of(2) {
        let without = run(0.0)?;
        Ok([without, run(args.link_loss)?])
    } else {
        let with = run(args.link_loss)?;
        Ok([run(0.0)?, with])
    }
}

fn measure_once(
    args: &Args,
    place: &Place,
    relay: &Relay,
    seed: u64,
    loss: f64,
) -> Result<Sample, Failure> {
    let mut address = vec![Relay::address(0); args.links - 1];
    address.push(Relay::address(LAST));
    let worker = Worker {
        protocol: relay.protocol,
        congestion: relay.quic,
        address,
        size: args.size,
        rate: Some(args.link_rate as f64),
        window: None,
        time: Duration::from_secs_f64(args.seconds),
        patience: PATIENCE,
    };
    let clean = args.impairment(0.0, Duration::from_millis(args.link_rtt));
    let clean = Impairment { reorder: 0.0, ..clean };
    let bad = Impairment { loss: loss / 100.0, ..clean };
    let ways = [Way { relay: RELAY[0], how: clean }, Way { relay: RELAY[LAST], how: bad }];
    let (mut outcomes, _) = place.run(relay, &worker, &ways, seed)?;
    let last = outcomes.pop().ok_or("the worker told nothing")?;
    let mut others = Latency { due: 0, latency: worker::empty() };
    for outcome in &outcomes {
        others.due += outcome.due;
        others.latency.add(&outcome.latency)?;
    }
    Ok(Sample { others, last: Latency { due: last.due, latency: last.latency } })
}

impl Latency {
    /// In ms; infinite if so much did not come in time.
    fn quantile(&self, quantile: f64) -> f64 {
        table::quantile_ms(&self.latency, self.due, quantile).unwrap_or(f64::INFINITY)
    }
}

impl Row {
    /// Least, median and greatest of all rounds.
    fn spread(&self, of: impl Fn(&[Sample; 2]) -> f64) -> Option<(f64, f64, f64)> {
        table::spread(self.rounds.iter().flatten().map(of))
    }
}

const P99: f64 = 0.99;

/// A table: what the others' 99th percentile is with the bad link, to what it is without.
pub(crate) fn text(args: &Args, rows: &[Row]) -> String {
    let mut text = format!(
        "\n{} pairs at {}/s, round-trip time of a link {} ms, the last with {} % loss or none; p99 in \
         ms\n{:<20} {:>14} {:>14} {:>22} {:>14} {:>14}\n",
        args.links,
        args.link_rate,
        args.link_rtt,
        args.link_loss,
        "relay",
        "others without",
        "others with",
        "ratio",
        "last without",
        "last with",
    );
    for row in rows {
        let _ = write!(text, "{:<20}", row.relay);
        let median = |of: fn(&[Sample; 2]) -> &Latency| {
            row.spread(|round| of(round).quantile(P99)).map_or(f64::NAN, |(_, median, _)| median)
        };
        let ratio =
            row.spread(|[without, with]| with.others.quantile(P99) / without.others.quantile(P99));
        if let Some((least, ratio, greatest)) = ratio {
            let ratio = format!("{ratio:.3} ({least:.3} to {greatest:.3})");
            let others = [median(|[without, _]| &without.others), median(|[_, with]| &with.others)];
            let last = [median(|[without, _]| &without.last), median(|[_, with]| &with.last)];
            let _ = write!(text, " {:>14.2} {:>14.2} {ratio:>22}", others[0], others[1]);
            let _ = write!(text, " {:>14.2} {:>14.2}", last[0], last[1]);
        }
        for failure in row.rounds.iter().filter_map(|round| round.as_ref().err()) {
            let _ = write!(text, "  FAILED: {failure}");
        }
        text.push('\n');
    }
    text
}

/// Every round.
pub(crate) fn csv(rows: &[Row]) -> String {
    let mut text = "relay,round,last_is_bad,pairs,due,received,p50_ms,p99_ms,p99_9_ms\n".to_owned();
    for row in rows {
        let relay = row.relay.replace(',', "");
        for (round, samples) in row.rounds.iter().enumerate() {
            let samples = samples.iter().flatten().zip([false, true]);
            let pairs = samples.flat_map(|(sample, bad)| {
                [(bad, "others", &sample.others), (bad, "last", &sample.last)]
            });
            for (bad, pairs, seen) in pairs {
                let (due, received) = (seen.due, seen.latency.len());
                let _ = write!(text, "{relay},{round},{bad},{pairs},{due},{received}");
                for (quantile, _) in table::QUANTILES {
                    let _ = write!(text, ",{:.3}", seen.quantile(quantile));
                }
                text.push('\n');
            }
        }
    }
    text
}
