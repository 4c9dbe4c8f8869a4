//! What `slimctl` does.

mod admin;
pub mod bench;
mod cli;
mod connect;
mod controller;
mod cpu;
mod direct;
mod error;
mod manual;
mod output;
mod settings;
mod start;

use std::process::ExitCode;

pub use cli::Cli;
pub use cpu::cpu_time;
pub use error::Error;
use tokio::runtime::Runtime;

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All went well.
    Clean,
    /// A server could not be reached, or a link to it broke.
    Failed,
    /// The command line asks for what cannot be.
    Usage,
    /// Messages were lost. The result is printed all the same.
    Lost,
    /// A server was reached and refused what was asked, or could not do it.
    Refused,
    /// A defect in this program, or of the machine it runs on.
    Internal,
    /// The time for the command passed.
    TimedOut,
}

/// The exit codes as the help shows them.
pub const EXIT_CODES: &str = "Exit codes: 0 done, 1 server not reached or link broken, 2 wrong \
                              command line or settings, 3 messages lost, 4 refused by the \
                              server, 5 internal failure, 6 out of time";

/// A runtime for one command.
fn runtime() -> Result<Runtime, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(Error::machine("runtime"))
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Clean => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Lost => 3,
            Exit::Refused => 4,
            Exit::Internal => 5,
            Exit::TimedOut => 6,
        })
    }
}
