//! The command line of slim-quic.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use slim_quic::ctl::{EXIT_CODES, Error, Exit, bench};
use slim_quic::version::Version;

/// Works with SLIM nodes.
#[derive(Parser)]
#[command(name = "slimctl", after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure throughput, latency and losses of a node
    #[command(subcommand, after_help = EXIT_CODES)]
    Bench(Box<bench::Command>),
    /// Print build information
    Version,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Bench(command) => command.run(),
        Command::Version => Ok(print_version()),
    };
    done.unwrap_or_else(|error| report(&error)).into()
}

#[expect(clippy::print_stdout, reason = "the answer to the command")]
fn print_version() -> Exit {
    print!("{Version}");
    Exit::Clean
}

#[expect(clippy::print_stderr, reason = "standard output is for results")]
fn report(error: &Error) -> Exit {
    eprintln!("error: {error}\n hint: {}", error.hint());
    error.exit()
}
