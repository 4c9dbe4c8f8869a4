//! What `slimctl` does.

pub mod bench;
mod cpu;
mod error;

use std::process::ExitCode;

pub use cpu::cpu_time;
pub use error::Error;

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
    /// A defect in this program, or of the machine it runs on.
    Internal,
}

/// The exit codes as the help shows them.
pub const EXIT_CODES: &str = "Exit codes: 0 done, 1 server not reached or link broken, 2 wrong \
                              command line, 3 messages lost, 5 internal failure";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Clean => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Lost => 3,
            Exit::Internal => 5,
        })
    }
}
