use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use slim_wire::Fault;
use thiserror::Error;

use super::Exit;
use crate::client::link::LinkError;

/// Why a command of `slimctl` has no result.
#[derive(Debug, Error)]
pub enum Error {
    /// An option has a value that cannot be used.
    #[error("{option}: expected {expected}, got {got}")]
    Argument {
        /// The option as it is typed.
        option: &'static str,
        /// What is possible.
        expected: String,
        /// What was given.
        got: String,
    },
    /// A server cannot be reached, or does not speak the protocol.
    #[error("{server}: {source}")]
    Connect {
        /// The server's address.
        server: String,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A node cannot be reached over the native protocol, or does not take a subscription.
    #[error("quic://{server}: {source}")]
    Native {
        /// The node's address.
        server: String,
        /// What went wrong.
        source: LinkError,
    },
    /// A link broke, or its other end sent something wrong.
    #[error("link: expected it to stay open, got: {0}")]
    Link(String),
    /// No message arrives at a subscriber.
    #[error("messages: expected the first to arrive within {0:?}, got none")]
    NothingArrives(Duration),
    /// A result cannot be written.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// The machine does not give what the program needs.
    #[error("{what}: {source}")]
    Machine {
        /// What was wanted.
        what: &'static str,
        /// What went wrong.
        source: io::Error,
    },
    /// The relay process of a floor did not start or has ended.
    #[error("pump: expected {expected}, got {got:?}")]
    Pump {
        /// What it should have said.
        expected: &'static str,
        /// What it said.
        got: String,
    },
}

impl Error {
    /// Who has to act.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Argument { .. } | Self::File { .. } => Fault::Caller,
            Self::Native { source, .. } => source.fault(),
            Self::Connect { .. } | Self::Link(_) | Self::NothingArrives(_) => Fault::Peer,
            Self::Machine { .. } | Self::Pump { .. } => Fault::Internal,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Argument { .. } => "see --help",
            Self::File { .. } => "check that the folder exists and can be written to",
            Self::Connect { .. } => "check that a node listens there, without TLS",
            Self::Native { source: LinkError::Untrusted { .. }, .. } => {
                "name the authority with --ca, or use --danger-accept-any-certificate for a node \
                 with `tls.insecure: true`"
            }
            Self::Native { source, .. } => source.hint(),
            Self::Link(_) => "the log of the node says more",
            Self::NothingArrives(_) => {
                "check that the node serves clients of release 0.6, and that no other run uses \
                 the topic"
            }
            Self::Machine { .. } => "check the limits of this process",
            Self::Pump { .. } => "run `slimctl bench pump` by itself to see why",
        }
    }

    /// The code with which the program ends.
    pub fn exit(&self) -> Exit {
        match self.fault() {
            Fault::Caller | Fault::Config => Exit::Usage,
            Fault::Peer => Exit::Failed,
            Fault::Internal => Exit::Internal,
        }
    }

    pub(super) fn argument(
        option: &'static str,
        expected: impl Into<String>,
        got: impl Display,
    ) -> Self {
        Self::Argument { option, expected: expected.into(), got: got.to_string() }
    }

    pub(super) fn connect(
        server: impl Display,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Connect { server: server.to_string(), source: source.into() }
    }

    pub(super) fn link(reason: impl Display) -> Self {
        Self::Link(reason.to_string())
    }

    pub(super) fn file(path: &Path, reason: impl Display) -> Self {
        Self::File { path: path.to_owned(), reason: reason.to_string() }
    }

    /// For `map_err`: an error of the machine while doing `what`.
    pub(super) fn machine<E: Into<io::Error>>(what: &'static str) -> impl Fn(E) -> Self {
        move |source| Self::Machine { what, source: source.into() }
    }
}
