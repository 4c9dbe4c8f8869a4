//! The command line of slim-quic.

use std::process::ExitCode;

use slim_quic::ctl::Cli;

fn main() -> ExitCode {
    Cli::run(std::env::args_os())
}
