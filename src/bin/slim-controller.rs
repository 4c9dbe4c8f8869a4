//! The SLIM controller.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use slim_config::{System, controller as configuration};
use slim_quic::controller::program;
use slim_quic::node::lifecycle::Exit;
use slim_quic::version::Version;

const EXIT_CODES: &str = "Exit codes: 0 stopped cleanly, 1 did not start, 2 wrong command line, \
                          3 wrong configuration, 4 stopped before everything had ended";

/// What is read without --config, if it is there.
const DEFAULT_FILE: &str = "config.yaml";

/// Tells SLIM nodes of each other, and manages groups.
#[derive(Parser)]
#[command(name = "slim-controller", after_help = EXIT_CODES)]
struct Cli {
    /// Configuration file (YAML); without one config.yaml in the working directory, if it is there
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print build information
    #[arg(short, long)]
    version: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse_from(std::env::args_os().map(with_two_dashes));
    if cli.version { print_version() } else { run(cli.config) }.into()
}

/// The published controller's flag has one dash.
fn with_two_dashes(argument: OsString) -> OsString {
    match argument.to_str() {
        Some(text) if text == "-config" || text.starts_with("-config=") => {
            format!("-{text}").into()
        }
        _ => argument,
    }
}

fn run(named: Option<PathBuf>) -> Exit {
    let file = named.or_else(|| Path::new(DEFAULT_FILE).is_file().then(|| DEFAULT_FILE.into()));
    let loaded = match &file {
        Some(file) => configuration::load(file).map_err(|error| error.to_string()),
        None => configuration::parse("", "", &System).map_err(|found| found.to_string()),
    };
    match loaded {
        Ok(loaded) => program::run(loaded, file.as_deref()),
        Err(error) => report(&error),
    }
}

#[expect(clippy::print_stdout, reason = "the answer to the command")]
fn print_version() -> Exit {
    print!("{Version}");
    Exit::Clean
}

/// Errors of the configuration go to standard error, since logging needs a configuration.
#[expect(clippy::print_stderr, reason = "there is no log yet")]
fn report(error: &str) -> Exit {
    eprintln!("{error}");
    Exit::Config
}
