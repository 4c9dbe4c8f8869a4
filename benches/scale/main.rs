//! How the node grows: memory per link and per name, fan-out, lookups in large tables, cores. See
//! `benches/README.md`.

#![expect(clippy::print_stdout, reason = "a program for people to run")]

mod core;
mod cores;
mod fanout;
mod grpc;
mod links;
mod memory;
mod names;
mod native;
#[path = "../relay/node.rs"]
#[allow(dead_code, reason = "this bench uses a part of it")]
mod node;
#[path = "../common/random.rs"]
mod random;
mod report;
mod setup;

use std::error::Error;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use tokio::task::LocalSet;

use self::report::Report;
use self::setup::Setup;

type Failure = Box<dyn Error + Send + Sync>;

#[derive(Debug, Parser)]
#[command(about = "How the node grows with links, subscribers, names and cores")]
struct Args {
    /// What to measure [default: all]
    #[arg(long, value_delimiter = ',')]
    part: Vec<Part>,
    /// Numbers of idle links, rising
    #[arg(long, value_delimiter = ',', default_value = "10,1000,10000")]
    links: Vec<usize>,
    /// Numbers of subscribers of one publisher, rising
    #[arg(long, value_delimiter = ',', default_value = "1,8,64,1000")]
    subscribers: Vec<usize>,
    /// Numbers of names in the table
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,100000,1000000,10000000")]
    names: Vec<u64>,
    /// Rounds of what is measured in turns
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Folder for the results [default: target/scale/TIME]
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// The node to measure, if not that of this build
    #[arg(long, value_name = "PROGRAM", default_value = env!("CARGO_BIN_EXE_slim"))]
    node: PathBuf,
    /// Only relays messages, for who counts instructions
    #[arg(long, hide = true)]
    hand_over: Option<cores::Target>,
    #[arg(long, hide = true, default_value_t = 1)]
    messages: u64,
    #[arg(long, hide = true, default_value_t = 1)]
    burst: u64,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    Links,
    Fanout,
    Names,
    Cores,
}

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    if let Some(target) = args.hand_over {
        cores::relay(target, args.messages, args.burst);
        return Ok(());
    }
    let mut report = Report::new(args.report.as_deref())?;
    println!("{}", report.head());
    let setup = Setup {
        program: args.node,
        links: args.links,
        subscribers: args.subscribers,
        names: args.names,
        rounds: args.rounds,
    };
    let wants = |part| args.part.is_empty() || args.part.contains(&part);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let all = async {
        if wants(Part::Links) {
            links::run(&setup, &mut report).await?;
        }
        if wants(Part::Fanout) {
            fanout::run(&setup, &mut report).await?;
        }
        if wants(Part::Names) {
            names::run(&setup, &mut report).await?;
        }
        if wants(Part::Cores) {
            cores::run(&setup, &mut report).await?;
        }
        Ok::<_, Failure>(())
    };
    LocalSet::new().block_on(&runtime, all)?;
    println!("report: {}", report.folder().display());
    Ok(())
}
