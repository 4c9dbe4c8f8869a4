//! The command line of slim-quic.

use std::process::ExitCode;

use slim_quic::ctl::Cli;

/// As in the node: `bench pump` is measured beside it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    Cli::run(std::env::args_os())
}
