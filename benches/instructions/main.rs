//! How many instructions the operations of the hot path take, beside what is recorded in the tree,
//! and whether any of them takes a lock. See `benches/README.md`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people to run")]

#[path = "../common/app.rs"]
mod app;
mod baseline;
mod callgrind;
#[path = "../common/captured.rs"]
mod captured;
#[path = "../common/message.rs"]
mod message;
mod operations;
mod profile;
#[path = "../common/relay.rs"]
mod relay;
#[path = "../common/single.rs"]
mod single;

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;

use self::baseline::{Baseline, Count};
use self::operations::{Meter, Operation};

type Failure = Box<dyn Error + Send + Sync>;

#[derive(Debug, Parser)]
#[command(about = "Instructions per operation of the hot path, beside the recorded ones")]
struct Args {
    /// Only operations whose name contains this; then nothing is recorded
    #[arg(conflicts_with = "record")]
    filter: Option<String>,
    /// Record what is counted now, instead of comparing it
    #[arg(long)]
    record: bool,
    /// Run one operation: what the counting process is called with
    #[arg(long, hide = true)]
    run: Option<String>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<ExitCode, Failure> {
    let args = Args::parse();
    if let Some(name) = args.run {
        let operation = operations::all().into_iter().find(|operation| operation.name == name);
        let mut meter = Meter::default();
        (operation.ok_or("no such operation")?.run)(&mut meter);
        println!("{}", meter.operations());
        return Ok(ExitCode::SUCCESS);
    }
    let counts = counted(args.filter.as_deref())?;
    if args.record {
        return Baseline::record(&counts).map(|()| ExitCode::SUCCESS);
    }
    let mut baseline = Baseline::read()?;
    if let Some(filter) = &args.filter {
        baseline.keep(filter);
    }
    let fine = baseline.compare(&counts) & without_locks(&counts);
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Counts every operation whose name contains the filter.
fn counted(filter: Option<&str>) -> Result<Vec<Count>, Failure> {
    let matches =
        |operation: &Operation| filter.is_none_or(|filter| operation.name.contains(filter));
    let operations: Vec<_> = operations::all().into_iter().filter(matches).collect();
    if operations.is_empty() {
        return Err("no operation has such a name".into());
    }
    operations.iter().map(|operation| callgrind::count(&operation.name)).collect()
}

/// Whether no operation takes a lock.
fn without_locks(counts: &[Count]) -> bool {
    let mut fine = true;
    for count in counts {
        for place in &count.locks {
            fine = false;
            eprintln!("{}: takes a lock: {place}", count.name);
        }
    }
    if fine {
        println!("No lock was taken in any of {} operations.", counts.len());
    }
    fine
}
