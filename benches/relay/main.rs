//! CPU time that a node spends per forwarded message, through real processes and sockets over
//! the gRPC of release 0.6, beside upstream's own node in the same run. See `benches/README.md`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people to run")]

mod load;
mod node;
mod report;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Parser, ValueEnum};
use tokio::task::LocalSet;

use self::load::Load;
use self::node::{MTU, Node};
use self::report::{Case, Row, Sample};

type Failure = Box<dyn Error + Send + Sync>;

#[derive(Debug, Parser)]
#[command(about = "CPU time of a node per forwarded message")]
struct Args {
    /// Payload sizes in bytes
    #[arg(long, value_delimiter = ',', default_value = "64,1024")]
    size: Vec<usize>,
    /// Messages of a saturated round
    #[arg(long, default_value_t = 200_000)]
    count: u64,
    /// Messages under way at most in a saturated round
    #[arg(long, default_value_t = 512)]
    window: u64,
    /// Messages a second of the open-loop rounds; 0 leaves them out
    #[arg(long, default_value_t = 5_000)]
    rate: u64,
    /// Messages of an open-loop round
    #[arg(long, default_value_t = 5_000)]
    paced_count: u64,
    /// Subscribers, each of which gets every message
    #[arg(long, default_value_t = 1)]
    subscribers: u64,
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
    let reference = targets.iter().find(|target| target.label.starts_with("upstream"));
    let reference = reference.map(|target| target.label.clone());
    if reference.is_none() {
        eprintln!("\n*** NO RATIOS: upstream's node is not measured ***\n");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut rows = Vec::new();
    for case in cases(&args) {
        rows.extend(LocalSet::new().block_on(&runtime, measure(&args, case, &nodes, &targets)));
    }
    match args.output {
        Output::Text => print!("{}", report::table(&rows, reference.as_deref())),
        Output::Json => println!("{:#}", report::json(&rows, reference.as_deref())),
    }
    Ok(())
}

fn cases(args: &Args) -> Vec<Case> {
    let saturated = (None, args.count);
    let paced = (args.rate > 0).then_some((Some(args.rate), args.paced_count));
    let loads = [Some(saturated), paced].into_iter().flatten();
    loads
        .flat_map(|(rate, messages)| {
            let sizes = args.size.iter();
            sizes.map(move |&size| Case { size, rate, messages })
        })
        .collect()
}

fn start(args: &Args) -> Result<(Vec<Node>, Vec<Target>), Failure> {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (mut nodes, mut targets) = (Vec::new(), Vec::new());
    let mut add = |node: Node, labels: &[(&str, Placement)]| {
        eprintln!("{}: pid {} on {}", node.label, node.pid(), node.address);
        for (label, placement) in labels {
            targets.push(Target {
                node: nodes.len(),
                label: format!("{}{label}", node.label),
                placement: *placement,
            });
        }
        nodes.push(node);
    };
    if "upstream 0.6.3".contains(&args.only) {
        match Node::upstream(scratch) {
            Ok(node) => add(node, &[("", Placement::Any)]),
            Err(error) => eprintln!("\n*** UPSTREAM'S NODE DID NOT START: {error} ***\n"),
        }
    }
    let this = ("slim".to_owned(), env!("CARGO_BIN_EXE_slim").into());
    for (label, program) in [this].iter().chain(&args.node) {
        if format!("{label}, 1 core").contains(&args.only) {
            add(
                Node::ours(format!("{label}, 1 core"), program, 1, MTU, scratch)?,
                &[("", Placement::Any)],
            );
        }
        let both = [(", same", Placement::SameCore), (", other", Placement::OtherCore)];
        if format!("{label}, all cores").contains(&args.only) {
            let node = Node::ours(format!("{label}, all cores"), program, 0, MTU, scratch)?;
            add(node, if args.subscribers == 1 { &both } else { &[("", Placement::Any)] });
        }
    }
    Ok((nodes, targets))
}

/// All rounds of a case, the nodes taking turns, so that what else the machine does meets all.
async fn measure(args: &Args, case: Case, nodes: &[Node], targets: &[Target]) -> Vec<Row> {
    let row = |target: &Target| Row { case, node: target.label.clone(), rounds: Vec::new() };
    let mut rows: Vec<Row> = targets.iter().map(row).collect();
    let mut order: Vec<usize> = (0..targets.len()).collect();
    for _ in 0..args.rounds {
        for &at in &order {
            let Target { node, placement, .. } = targets[at];
            let sample = round(args, case, &nodes[node], placement).await;
            rows[at].rounds.push(sample.map_err(|error| error.to_string()));
        }
        // Nobody is always the one after a costly neighbour.
        order.rotate_left(1);
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
    let messages = case.messages as f64;
    Ok(Sample {
        cpu_ns: spent.ns() as f64 / messages,
        runs: spent.runs() as f64 / messages,
        throughput: messages / elapsed.as_secs_f64(),
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
        let mut load = Load::connect(node.address, case.size, args.subscribers).await?;
        let before = node.cpu()?;
        load.saturate(case.messages.min(args.count / 10), args.window).await?;
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
