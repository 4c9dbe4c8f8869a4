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
use std::rc::Rc;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use indicatif::ProgressBar;
use slim_quic::client::link::{LinkOptions, Trust};
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
    /// Largest datagrams in bytes, 1200 to 65000, of native nodes and of floors over QUIC
    #[arg(long, value_delimiter = ',', default_value = "1452,65000")]
    mtu: Vec<u16>,
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

/// A relay under measurement, by one of its ways in.
struct Relay {
    label: String,
    /// Largest datagram, where it speaks QUIC.
    mtu: Option<u16>,
    server: Server,
    process: Process,
}

/// Where a relay runs: a process of its own.
enum Process {
    Node(Rc<Node>),
    Pump(Box<Pump>),
}

impl Relay {
    fn grpc(node: &Rc<Node>) -> Result<Self, Failure> {
        let server = format!("grpc://{}", node.address).parse()?;
        let process = Process::Node(Rc::clone(node));
        Ok(Self { label: "slim, gRPC".into(), mtu: None, server, process })
    }

    fn native(node: &Rc<Node>, mtu: u16) -> Self {
        let trust = Trust::DangerAcceptAnyCertificate;
        let options = LinkOptions { trust, mtu, ..LinkOptions::default() };
        Self {
            label: format!("slim, native {mtu}"),
            mtu: Some(mtu),
            server: Server::Quic { authority: node.address.to_string(), options: options.into() },
            process: Process::Node(Rc::clone(node)),
        }
    }

    fn floor(floor: Floor, mtu: u16) -> Result<Self, Failure> {
        let pump = Pump::start(Path::new(env!("CARGO_BIN_EXE_slimctl")), floor, mtu)?;
        let server = pump.server().clone();
        let (label, mtu) = match floor {
            Floor::Quic => (format!("{floor} floor {mtu}"), Some(mtu)),
            _ => (format!("{floor} floor"), None),
        };
        Ok(Self { label, mtu, server, process: Process::Pump(Box::new(pump)) })
    }

    fn cpu(&self) -> Result<Duration, Failure> {
        match &self.process {
            Process::Node(node) => Ok(cpu_time(node.pid())?),
            Process::Pump(pump) => Ok(pump.cpu_time()?),
        }
    }
}

/// What a saturated round sends at most.
const ROUND_BYTES: u64 = 512 * 1024 * 1024;

/// Until a relay is at rest and its CPU time up to date.
const REST: Duration = Duration::from_millis(20);

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let relays = start(&args.mtu)?;
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

fn start(mtus: &[u16]) -> Result<Vec<Relay>, Failure> {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let program = Path::new(env!("CARGO_BIN_EXE_slim"));
    let mut relays = Vec::new();
    for &mtu in mtus {
        let node = Rc::new(Node::ours("slim".into(), program, 1, mtu, scratch)?);
        if relays.is_empty() {
            relays.push(Relay::grpc(&node)?);
        }
        relays.push(Relay::native(&node, mtu));
        relays.push(Relay::floor(Floor::Quic, mtu)?);
    }
    for floor in [Floor::Udp, Floor::Tcp, Floor::Tls] {
        relays.push(Relay::floor(floor, node::MTU)?);
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
    let row = |relay: &Relay| {
        let (relay, mtu) = (relay.label.clone(), relay.mtu);
        Row { case, relay, mtu, rounds: Vec::new() }
    };
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
    let session = Session::connect(&relay.server, plan).await?;
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
