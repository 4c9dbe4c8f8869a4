//! Our node beside its floors and peers, under the same load in the same run: what a message costs
//! each relay, and how long it takes. See `docs/performance.md`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people to run")]

mod case;
mod chart;
mod folder;
mod machine;
#[path = "../relay/node.rs"]
#[allow(dead_code, reason = "this bench uses a part of it")]
mod node;
mod relay;
mod sample;
mod table;
mod targets;
mod zenoh;

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::Parser;
use indicatif::ProgressBar;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use slim_quic::ctl::bench::{Server, Session};
use tokio::task::LocalSet;

use self::case::Case;
use self::folder::Folder;
use self::relay::{Relay, Relays, Way};
use self::sample::{Row, Sample};

type Failure = Box<dyn Error + Send + Sync>;

#[derive(Debug, Parser)]
#[command(about = "A node beside its floors and peers: CPU time, throughput and latency")]
struct Args {
    /// Only cases whose name begins with one of these
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    case: Vec<String>,
    /// Only relays whose name begins with one of these
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    relay: Vec<String>,
    /// Rounds of each case
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Rounds a fifth as long, for a first look
    #[arg(long)]
    quick: bool,
    /// Messages under way at most in saturated rounds [default: 2048 or 1 MiB of payload,
    /// whichever is less]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    window: Option<u64>,
    /// Order in which relays take turns
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder for the report [default: target/peers/TIME]
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Our node
    #[arg(long, value_name = "PROGRAM", default_value = env!("CARGO_BIN_EXE_slim"))]
    node: PathBuf,
    /// NATS
    #[arg(long, value_name = "PROGRAM", default_value = "nats-server")]
    nats_server: PathBuf,
    /// The router of zenoh
    #[arg(long, value_name = "PROGRAM", default_value = "zenohd")]
    zenohd: PathBuf,
    /// Load for it [default: built from benches/peers/zenoh-load]
    #[arg(long, value_name = "PROGRAM")]
    zenoh_load: Option<PathBuf>,
    /// Have zenoh send paced messages and round trips at once, without looking for others
    #[arg(long)]
    zenoh_express: bool,
    /// Release of upstream's node
    #[arg(long, value_name = "RELEASE", default_value = "0.6.3")]
    upstream: String,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// Until a relay is at rest and its CPU time up to date.
const REST: Duration = Duration::from_millis(20);

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let mut cases = case::all(args.window, args.quick);
    let wanted = |case: &Case| {
        args.case.is_empty() || args.case.iter().any(|part| case.name.starts_with(part.as_str()))
    };
    cases.retain(wanted);
    let relays = Relays::start(&args)?;
    if cases.is_empty() || relays.all.is_empty() || args.rounds == 0 {
        return Err("expected a case, a relay and a round to measure, got none".into());
    }
    let mut report = Folder::create(args.report.clone().unwrap_or_else(usual_folder))?;
    report.say(&machine::description(&args.node, args.seed, args.rounds, &relays.versions))?;
    for line in &relays.missing {
        report.say(&format!("\n{line}\n"))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut order: Vec<&Relay> = relays.all.iter().collect();
    order.shuffle(&mut StdRng::seed_from_u64(args.seed));
    let mut rows = Vec::new();
    for case in &cases {
        let measured = measure(case, args.rounds, &order, &runtime);
        report.say(&table::case(&measured))?;
        rows.extend(measured);
    }
    report.say(&table::targets(&rows))?;
    report.finish(&cases, &rows)
}

fn usual_folder() -> PathBuf {
    let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    // CARGO_TARGET_TMPDIR is a folder in it.
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("..");
    target.join("peers").join(time.replace(':', ""))
}

/// All rounds of a case, the relays taking turns, so that what else the machine does meets all.
fn measure(
    case: &Case,
    rounds: usize,
    relays: &[&Relay],
    runtime: &tokio::runtime::Runtime,
) -> Vec<Row> {
    let relays: Vec<&Relay> = relays.iter().copied().filter(|relay| relay.serves(case)).collect();
    let row =
        |relay: &&Relay| Row { case: case.clone(), relay: relay.name.clone(), rounds: vec![] };
    let mut rows: Vec<Row> = relays.iter().map(row).collect();
    let mut order: Vec<usize> = (0..relays.len()).collect();
    let bar = ProgressBar::new((rounds * relays.len()) as u64).with_prefix(case.name);
    for _ in 0..rounds {
        for &at in &order {
            let sample = round(case, relays[at], runtime);
            rows[at].rounds.push(sample.map_err(|error| error.to_string()));
            bar.inc(1);
        }
        // Nobody is always the one after a costly neighbour.
        order.rotate_left(1.min(relays.len()));
    }
    bar.finish_and_clear();
    rows.sort_by(|a, b| a.relay.cmp(&b.relay));
    rows
}

fn round(case: &Case, relay: &Relay, runtime: &tokio::runtime::Runtime) -> Result<Sample, Failure> {
    let (report, cpu) = match &relay.way {
        Way::Session(server) => LocalSet::new().block_on(runtime, session(case, relay, server))?,
        Way::Zenoh(router) => router.round(case, || relay.cpu())?,
    };
    Sample::new(case, report, cpu)
}

async fn session(
    case: &Case,
    relay: &Relay,
    server: &Server,
) -> Result<(slim_quic::ctl::bench::Report, Duration), Failure> {
    let session = Session::connect(server, case.plan()).await?;
    tokio::time::sleep(REST).await;
    let before = relay.cpu()?;
    let report = session.run(&ProgressBar::hidden()).await?;
    tokio::time::sleep(REST).await;
    Ok((report, relay.cpu()?.saturating_sub(before)))
}
