//! What routing costs beyond moving bytes: CPU time of our node per forwarded message, beside
//! that of relays without routing, in the same run and under the same load. See
//! `benches/README.md`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people to run")]

#[path = "../relay/node.rs"]
#[allow(dead_code, reason = "this bench uses a part of it")]
mod node;
mod table;

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use indicatif::ProgressBar;
use slim_quic::ctl::bench::{Floor, Plan, Pump, Server, Session};
use slim_quic::ctl::cpu_time;
use tokio::task::LocalSet;

use self::node::Node;
use self::table::{Row, Sample};

type Failure = Box<dyn Error + Send + Sync>;

#[derive(Debug, Parser)]
#[command(about = "CPU time of a node per forwarded message, beside relays without routing")]
struct Args {
    /// Payload sizes in bytes
    #[arg(long, value_delimiter = ',', default_value = "64,1024,16384")]
    size: Vec<usize>,
    /// Messages of a saturated round; fewer where they would be more than 512 MiB
    #[arg(long, default_value_t = 200_000)]
    count: u64,
    /// Messages under way at most in a saturated round [default: as `slimctl bench pub`]
    #[arg(long)]
    window: Option<u64>,
    /// Messages a second of the open-loop rounds; 0 leaves them out
    #[arg(long, default_value_t = 5_000)]
    rate: u64,
    /// Messages of an open-loop round
    #[arg(long, default_value_t = 5_000)]
    paced_count: u64,
    /// Rounds of each case
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// What is asked of every relay.
#[derive(Clone, Copy, Debug)]
struct Case {
    size: usize,
    /// Messages a second; `None` for as many as the window allows.
    rate: Option<u64>,
    messages: u64,
    window: Option<u64>,
}

/// A relay under measurement, in a process of its own.
enum Relay {
    Node(Node),
    Pump(Floor, Pump),
}

impl Relay {
    fn label(&self) -> String {
        match self {
            Self::Node(node) => node.label.clone(),
            Self::Pump(floor, _) => format!("{floor} floor"),
        }
    }

    fn server(&self) -> Result<Server, Failure> {
        match self {
            Self::Node(node) => Ok(format!("grpc://{}", node.address).parse()?),
            Self::Pump(_, pump) => Ok(pump.server().clone()),
        }
    }

    fn cpu(&self) -> Result<Duration, Failure> {
        match self {
            Self::Node(node) => Ok(cpu_time(node.pid())?),
            Self::Pump(_, pump) => Ok(pump.cpu_time()?),
        }
    }
}

/// What a saturated round sends at most.
const ROUND_BYTES: u64 = 512 * 1024 * 1024;

/// Until a relay is at rest and its CPU time up to date.
const REST: Duration = Duration::from_millis(20);

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let relays = start()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut rows = Vec::new();
    for case in cases(&args) {
        eprintln!("{} bytes, {}", case.size, table::load(case.rate));
        let measured = measure(case, args.rounds, &relays);
        rows.extend(LocalSet::new().block_on(&runtime, measured));
    }
    match args.output {
        Output::Text => print!("{}", table::text(&rows)),
        Output::Json => println!("{:#}", table::json(&rows)),
    }
    Ok(())
}

fn start() -> Result<Vec<Relay>, Failure> {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let program = Path::new(env!("CARGO_BIN_EXE_slim"));
    let node = Node::ours("slim, gRPC".into(), program, 1, scratch)?;
    let mut relays = vec![Relay::Node(node)];
    for floor in Floor::ALL {
        let pump = Pump::start(Path::new(env!("CARGO_BIN_EXE_slimctl")), floor, 1452)?;
        relays.push(Relay::Pump(floor, pump));
    }
    Ok(relays)
}

fn cases(args: &Args) -> Vec<Case> {
    let saturated = args.size.iter().map(|&size| Case {
        size,
        rate: None,
        messages: args.count.min(ROUND_BYTES / size as u64).max(1),
        window: args.window,
    });
    let paced = args.size.iter().filter(|_| args.rate > 0).map(|&size| Case {
        size,
        rate: Some(args.rate),
        messages: args.paced_count,
        window: None,
    });
    saturated.chain(paced).collect()
}

/// All rounds of a case, the relays taking turns, so that what else the machine does meets all.
async fn measure(case: Case, rounds: usize, relays: &[Relay]) -> Vec<Row> {
    let row = |relay: &Relay| Row { case, relay: relay.label(), rounds: Vec::new() };
    let mut rows: Vec<Row> = relays.iter().map(row).collect();
    let mut order: Vec<usize> = (0..relays.len()).collect();
    for _ in 0..rounds {
        for &at in &order {
            let sample = round(case, &relays[at]).await;
            rows[at].rounds.push(sample.map_err(|error| error.to_string()));
        }
        // Nobody is always the one after a costly neighbour.
        order.rotate_left(1);
    }
    rows
}

async fn round(case: Case, relay: &Relay) -> Result<Sample, Failure> {
    let Case { size, rate, messages, window } = case;
    let plan = Plan {
        size,
        rate: rate.map(|rate| rate as f64),
        count: Some(messages),
        window,
        ..Plan::default()
    };
    let session = Session::connect(&relay.server()?, plan).await?;
    let before = relay.cpu()?;
    let report = session.run(&ProgressBar::hidden()).await?;
    tokio::time::sleep(REST).await;
    let spent = relay.cpu()?.saturating_sub(before);
    if report.has_losses() {
        let lost = report.lost.unwrap_or_default();
        return Err(format!("{lost} of {messages} messages lost").into());
    }
    let latency = report.latency.as_ref().map(|latency| latency.value_at_quantile(0.5));
    Ok(Sample {
        cpu_ns: spent.as_nanos() as f64 / messages as f64,
        throughput: report.rate(),
        latency_us: latency.unwrap_or_default() as f64 / 1e3,
    })
}
