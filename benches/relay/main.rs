//! CPU time that a node spends per forwarded message, through real processes and sockets over
//! the gRPC of published releases, beside upstream's own nodes in the same run. See
//! `benches/README.md`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people to run")]

mod channel;
mod client;
mod d20;
mod d6;
mod load;
mod node;
mod report;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Parser, ValueEnum};
use tokio::task::LocalSet;

use self::client::{Dialect, Shape};
use self::load::Load;
use self::node::{MTU, Node};
use self::report::{Case, Row, Sample};

type Failure = Box<dyn Error + Send + Sync>;

#[derive(Debug, Parser)]
#[command(about = "CPU time of a node per forwarded message")]
struct Args {
    /// What publisher and subscribers speak
    #[arg(long, value_delimiter = ',', default_value = "d6,d20")]
    dialect: Vec<Dialect>,
    /// Releases of upstream's node; ratios are to the first that speaks the dialect
    #[arg(long, value_name = "RELEASE", value_delimiter = ',', default_value = "0.6.3,3.3.8")]
    upstream: Vec<String>,
    /// Payload sizes in bytes
    #[arg(long, value_delimiter = ',', default_value = "64,1024")]
    size: Vec<usize>,
    /// Length of the identity in each message in bytes [default: 46 for D6, 231 for D20, as
    /// published clients send]
    #[arg(long, value_name = "BYTES")]
    identity: Option<usize>,
    /// Copies of messages delivered in a saturated round
    #[arg(long, default_value_t = 200_000)]
    count: u64,
    /// Messages under way at most in a saturated round
    #[arg(long, default_value_t = 512)]
    window: u64,
    /// Copies a second of the open-loop rounds; 0 leaves them out
    #[arg(long, default_value_t = 5_000)]
    rate: u64,
    /// Copies of an open-loop round
    #[arg(long, default_value_t = 5_000)]
    paced_count: u64,
    /// Subscribers, each of which gets every message
    #[arg(long, value_delimiter = ',', default_value = "1",
          value_parser = clap::value_parser!(u64).range(1..))]
    subscribers: Vec<u64>,
    /// Rounds of each case
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Another build of our node, measured beside this one
    #[arg(long, value_name = "LABEL=PROGRAM", value_parser = labelled)]
    node: Vec<(String, PathBuf)>,
    /// Measure only nodes whose label contains this text
    #[arg(long, default_value = "")]
    only: String,
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

fn labelled(text: &str) -> Result<(String, PathBuf), String> {
    let (label, program) = text.split_once('=').ok_or("expected LABEL=PROGRAM")?;
    Ok((label.into(), program.into()))
}

/// A node as one kind of row: the same process can be measured with its connections on one core
/// and on two.
struct Target {
    node: usize,
    label: String,
    placement: Placement,
    /// What it speaks; `None` for all.
    dialect: Option<Dialect>,
}

/// Where the kernel put publisher and subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Placement {
    Any,
    SameCore,
    OtherCore,
}

/// Connections are made again until they lie as wanted: each time it is a toss of a coin.
const TOSSES: usize = 24;

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let (nodes, targets) = start(&args)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut rows = Vec::new();
    for case in cases(&args) {
        rows.extend(LocalSet::new().block_on(&runtime, measure(&args, case, &nodes, &targets)));
    }
    match args.output {
        Output::Text => print!("{}", report::table(&rows)),
        Output::Json => println!("{:#}", report::json(&rows)),
    }
    Ok(())
}

fn cases(args: &Args) -> Vec<Case> {
    let mut cases = Vec::new();
    let loads = [Some((None, args.count)), Some((Some(args.rate), args.paced_count))];
    for &dialect in &args.dialect {
        for &subscribers in &args.subscribers {
            for (rate, copies) in loads.into_iter().flatten().filter(|load| load.0 != Some(0)) {
                let messages = (copies / subscribers).max(1);
                let case = |&size| {
                    let identity = args.identity.unwrap_or(dialect.usual_identity());
                    let shape = Shape { size, identity, subscribers };
                    Case { dialect, shape, rate: rate.map(|rate| rate / subscribers), messages }
                };
                cases.extend(args.size.iter().map(case));
            }
        }
    }
    cases
}

fn start(args: &Args) -> Result<(Vec<Node>, Vec<Target>), Failure> {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (mut nodes, mut targets) = (Vec::new(), Vec::new());
    let mut add = |node: Node, dialect: Option<Dialect>, labels: &[(&str, Placement)]| {
        eprintln!("{}: pid {} on {}", node.label, node.pid(), node.address);
        for (label, placement) in labels {
            targets.push(Target {
                node: nodes.len(),
                label: format!("{}{label}", node.label),
                placement: *placement,
                dialect,
            });
        }
        nodes.push(node);
    };
    for release in &args.upstream {
        let dialect = Dialect::of(release);
        let dialect = dialect.ok_or_else(|| format!("{release}: no release to measure"))?;
        if args.dialect.contains(&dialect) && format!("upstream {release}").contains(&args.only) {
            match Node::upstream(release, scratch, None) {
                Ok(node) => add(node, Some(dialect), &[("", Placement::Any)]),
                Err(error) => eprintln!("\n*** UPSTREAM'S NODE DID NOT START: {error} ***\n"),
            }
        }
    }
    let this = ("slim".to_owned(), env!("CARGO_BIN_EXE_slim").into());
    for (label, program) in [this].iter().chain(&args.node) {
        if format!("{label}, 1 core").contains(&args.only) {
            let node = Node::ours(format!("{label}, 1 core"), program, 1, MTU, scratch)?;
            add(node, None, &[("", Placement::Any)]);
        }
        let both = [(", same", Placement::SameCore), (", other", Placement::OtherCore)];
        if format!("{label}, all cores").contains(&args.only) {
            let node = Node::ours(format!("{label}, all cores"), program, 0, MTU, scratch)?;
            let alone = args.subscribers.iter().all(|subscribers| *subscribers == 1);
            add(node, None, if alone { &both } else { &[("", Placement::Any)] });
        }
    }
    Ok((nodes, targets))
}

/// All rounds of a case, the nodes taking turns, so that what else the machine does meets all.
async fn measure(args: &Args, case: Case, nodes: &[Node], targets: &[Target]) -> Vec<Row> {
    let speaks = |target: &&Target| target.dialect.is_none_or(|dialect| dialect == case.dialect);
    let targets: Vec<_> = targets.iter().filter(speaks).collect();
    let reference = targets.iter().position(|target| target.dialect.is_some());
    if reference.is_none() {
        eprintln!("\n*** NO RATIOS FOR {}: no node of upstream ***\n", case.dialect.name());
    }
    let row = |(at, target): (usize, &&Target)| Row {
        case,
        node: target.label.clone(),
        is_reference: Some(at) == reference,
        rounds: Vec::new(),
    };
    let mut rows: Vec<Row> = targets.iter().enumerate().map(row).collect();
    let mut order: Vec<usize> = (0..targets.len()).collect();
    for _ in 0..args.rounds {
        for &at in &order {
            let Target { node, placement, .. } = targets[at];
            let sample = round(args, case, &nodes[*node], *placement).await;
            rows[at].rounds.push(sample.map_err(|error| error.to_string()));
        }
        // Nobody is always the one after a costly neighbour.
        order.rotate_left(1.min(targets.len()));
    }
    rows
}

async fn round(
    args: &Args,
    case: Case,
    node: &Node,
    placement: Placement,
) -> Result<Sample, Failure> {
    let mut load = placed(args, case, node, placement).await?;
    let (before, start) = (node.cpu()?, Instant::now());
    match case.rate {
        None => load.saturate(case.messages, args.window).await?,
        Some(rate) => load.pace(case.messages, rate).await?,
    }
    let (elapsed, spent) = (start.elapsed(), node.cpu()?.since(&before));
    let copies = (case.messages * case.shape.subscribers) as f64;
    Ok(Sample {
        cpu_ns: spent.ns() as f64 / copies,
        runs: spent.runs() as f64 / copies,
        throughput: copies / elapsed.as_secs_f64(),
    })
}

/// A warm load whose connections lie as wanted. Where they lie shows in which of the node's
/// threads work during the warm-up.
async fn placed(
    args: &Args,
    case: Case,
    node: &Node,
    placement: Placement,
) -> Result<Load, Failure> {
    for _ in 0..TOSSES {
        let mut load = Load::connect(node.address, case.dialect, case.shape).await?;
        let before = node.cpu()?;
        let warm_up = case.messages.min(args.count / case.shape.subscribers / 10);
        load.saturate(warm_up, args.window).await?;
        let threads = node.cpu()?.since(&before).busy_threads();
        let found = match placement {
            Placement::Any => true,
            Placement::SameCore => threads == 1,
            Placement::OtherCore => threads > 1,
        };
        if found {
            return Ok(load);
        }
    }
    Err(format!("connections never lay as wanted ({placement:?})").into())
}
