use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use slim_wire::Fault;
use thiserror::Error;
use tonic::Code;

use super::Exit;
use crate::client::link::LinkError;

const TIMED_OUT: &str = "DeadlineExceeded";

/// A gRPC code as Go names it.
pub(super) fn rpc_code(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => TIMED_OUT,
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

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
    /// The command line or the settings ask for what cannot be.
    #[error("{0}")]
    Usage(String),
    /// A file that the settings name cannot be used, or the settings file itself.
    #[error("{0}")]
    Settings(String),
    /// A call of a controller or node failed.
    #[error("{what}: rpc error: code = {code} desc = {text}")]
    Call {
        /// What did not work.
        what: &'static str,
        /// Whether the server was reached.
        reached: bool,
        /// The gRPC code as Go names it.
        code: &'static str,
        /// What the server said.
        text: String,
    },
    /// A server answered that it did not do it.
    #[error("{what}: {text}")]
    Refused {
        /// What did not work.
        what: &'static str,
        /// What the server said.
        text: String,
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
            Self::Argument { .. } | Self::File { .. } | Self::Usage(_) => Fault::Caller,
            Self::Settings(_) => Fault::Config,
            Self::Native { source, .. } => source.fault(),
            Self::Connect { .. } | Self::Link(_) | Self::NothingArrives(_) => Fault::Peer,
            Self::Call { .. } | Self::Refused { .. } => Fault::Peer,
            Self::Machine { .. } | Self::Pump { .. } => Fault::Internal,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Argument { .. } | Self::Usage(_) => "see --help",
            Self::Settings(_) => "correct the file, or name another one",
            Self::Call { code: TIMED_OUT, .. } => "give it more time with --timeout",
            Self::Call { reached: false, .. } => {
                "check --server, and that it listens there, with or without TLS"
            }
            Self::Call { code: "Unimplemented", .. } => {
                "this server has no such call: controllers and nodes have ports of their own"
            }
            Self::Call { code: "Unauthenticated" | "PermissionDenied", .. } => {
                "check --token, --basic_auth_creds or the certificate in --tls.cert_file"
            }
            Self::Call { code: "NotFound", .. } => "the list commands show what there is",
            Self::Call { .. } | Self::Refused { .. } => "the log of the server says more",
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
        match (self, self.fault()) {
            (Self::Call { code: TIMED_OUT, .. }, _) => Exit::TimedOut,
            (Self::Call { reached: true, .. } | Self::Refused { .. }, _) => Exit::Refused,
            (_, Fault::Caller | Fault::Config) => Exit::Usage,
            (_, Fault::Peer) => Exit::Failed,
            (_, Fault::Internal) => Exit::Internal,
        }
    }

    pub(super) fn settings(path: &Path, reason: impl Display) -> Self {
        Self::Settings(format!("{}: {reason}", path.display()))
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
