use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use slim_compat_grpc::transcode::TranscodeError;
use slim_wire::{CloseCode, DecodeError, Fault};
use thiserror::Error;
use tonic::Code;

use crate::identity::IdentityError;

/// Why a link could not be had, a request failed, or a link ended. Cheap to clone, because after
/// the end of a link every call returns the same one.
#[derive(Clone, Debug, Error)]
pub enum LinkError {
    /// The node's address is no address, or its host name is not known.
    #[error("address {address:?}: {source}")]
    Address {
        /// The address as it was given.
        address: String,
        /// The system's answer.
        source: Arc<io::Error>,
    },
    /// A TLS certificate cannot be checked against this name.
    #[error("server name: expected a host name or an IP address, got {got:?}")]
    ServerName {
        /// The name, from the options or the address.
        got: String,
    },
    /// An option has a value that it cannot have.
    #[error("option {option}: expected {expected}, got {got}")]
    Option {
        /// The option.
        option: &'static str,
        /// What it may be.
        expected: &'static str,
        /// What it is.
        got: u64,
    },
    /// The certificates by which to know the node cannot be used.
    #[error("certificates to trust{}: {reason}", in_file(.file))]
    Roots {
        /// The file they are in, if they are in one.
        file: Option<PathBuf>,
        /// What is wrong.
        reason: String,
    },
    /// The app's own certificate cannot be used.
    #[error("certificate of this app: {reason}")]
    Certificate {
        /// What is wrong.
        reason: String,
    },
    /// The app's credentials cannot be had.
    #[error("credentials of this app: {source}")]
    Credentials {
        /// What is wrong.
        source: IdentityError,
    },
    /// The node's certificate is not one to trust.
    #[error("the node at {address} is not trusted: {reason}")]
    Untrusted {
        /// The node's address as it was given.
        address: String,
        /// What is wrong with its certificate.
        reason: String,
    },
    /// The system has no socket for the link.
    #[error("socket: {source}")]
    Socket {
        /// The system's answer.
        source: Arc<io::Error>,
    },
    /// Nothing listens at the node's address, or it cannot be reached.
    #[error("the node at {address} cannot be reached: {source}")]
    Unreachable {
        /// The node's address as it was given.
        address: String,
        /// The system's answer.
        source: Arc<io::Error>,
    },
    /// Nothing, or not enough, was heard of the node in time.
    #[error("{what}: not done after {after:?}")]
    Timeout {
        /// What was awaited.
        what: String,
        /// For how long.
        after: Duration,
    },
    /// The handshake of QUIC, TLS or HTTP/2 failed for another reason than the node's certificate.
    #[error("handshake with the node at {address}: {reason}")]
    Handshake {
        /// The node's address as it was given.
        address: String,
        /// What the side that gave up says.
        reason: String,
    },
    /// The node sent bytes that are no frame, or a frame that it must not send.
    #[error("{place} of the node: {source}")]
    Wrong {
        /// Where they came: the control stream, a lane, a datagram, the stream.
        place: Place,
        /// What is wrong.
        source: DecodeError,
    },
    /// The node ended a stream that stays open as long as the link.
    #[error("{place} of the node: expected it to stay open, but the node {how}")]
    Broken {
        /// Which stream.
        place: Place,
        /// What the node did.
        how: &'static str,
    },
    /// The node closed the link and said why.
    #[error("the node closed the link ({}): {reason}", meaning(*.code))]
    Closed {
        /// Why, by number.
        code: CloseCode,
        /// Why, in words.
        reason: String,
    },
    /// The node refused the link, or ended it, with a status of gRPC.
    #[error("the node ended the link (status {status}, {}): {reason}", description(*.status))]
    Status {
        /// The published number of the status; 16 if the node asks for credentials.
        status: i32,
        /// The node's words.
        reason: String,
    },
    /// The connection was lost, without a word of the node that this library knows.
    #[error("connection lost: {reason}")]
    Lost {
        /// What is known.
        reason: String,
    },
    /// The link was closed at this end, by [`Link::close`](super::Link::close).
    #[error("the link was closed at this end")]
    Ended,
    /// The node refused a subscription, or to take one back. The link goes on.
    #[error("the node refused to {request} {name}: {reason}")]
    Refused {
        /// `subscribe` or `unsubscribe`.
        request: &'static str,
        /// The name in question.
        name: String,
        /// The node's words.
        reason: String,
    },
    /// A message or name that the protocol of release 0.6 cannot tell. The link goes on.
    #[error("cannot be said to this node: {source}")]
    Untranslatable {
        /// What is in the way.
        source: TranscodeError,
    },
    /// A message that is longer than a frame may be, or than this node takes. The link goes on.
    #[error("{field}: expected at most {limit} bytes, got {got}")]
    TooLarge {
        /// Which part of the message.
        field: &'static str,
        /// The limit in bytes.
        limit: usize,
        /// Its length in bytes.
        got: usize,
    },
}

/// Where on a link something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The control stream.
    Control,
    /// The lane of this number.
    Lane(u64),
    /// A datagram.
    Datagram,
    /// The stream that is the link.
    Stream,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Control => write!(f, "control stream"),
            Self::Lane(number) => write!(f, "lane {number}"),
            Self::Datagram => write!(f, "datagram"),
            Self::Stream => write!(f, "stream"),
        }
    }
}

impl LinkError {
    /// Who has to act.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Address { .. }
            | Self::ServerName { .. }
            | Self::Option { .. }
            | Self::Roots { .. }
            | Self::Certificate { .. }
            | Self::Credentials { .. }
            | Self::Untrusted { .. } => Fault::Config,
            Self::Socket { .. } => Fault::Internal,
            Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Handshake { .. }
            | Self::Wrong { .. }
            | Self::Broken { .. }
            | Self::Lost { .. } => Fault::Peer,
            Self::Ended
            | Self::Refused { .. }
            | Self::Untranslatable { .. }
            | Self::TooLarge { .. } => Fault::Caller,
            Self::Status { status, .. } => match Code::from_i32(*status) {
                // All that goes out is checked before.
                Code::InvalidArgument => Fault::Internal,
                Code::PermissionDenied
                | Code::ResourceExhausted
                | Code::Unauthenticated
                | Code::Unimplemented => Fault::Config,
                _ => Fault::Peer,
            },
            Self::Closed { code, .. } => match code {
                CloseCode::Done | CloseCode::Stopping | CloseCode::Timeout => Fault::Peer,
                // All that goes out is checked before.
                CloseCode::Protocol => Fault::Internal,
                CloseCode::TooSlow => Fault::Caller,
                CloseCode::Limit | CloseCode::Unauthenticated => Fault::Config,
            },
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Address { .. } => "expected HOST:PORT, with a host name that resolves",
            Self::ServerName { .. } => "set the server name to one that the certificate carries",
            Self::Option { .. } => "set the option within its bounds, or leave it out",
            Self::Roots { .. } => "check that the file exists, is readable, and is in PEM form",
            Self::Certificate { .. } => {
                "name a certificate and its key, both in PEM form, that go together"
            }
            Self::Credentials { source } => source.hint(),
            Self::Untrusted { .. } => {
                "trust the authority that signed the node's certificate, and use a name that it \
                 carries; a node with `tls.insecure: true` has a certificate of its own making"
            }
            Self::Socket { .. } => "the system is short of sockets or memory",
            Self::Timeout { .. } => {
                "check the address, that its port gets through (UDP for QUIC), and that a node \
                 listens there"
            }
            Self::Unreachable { .. } => "check the address, and that a node listens there",
            Self::Handshake { .. } => {
                "check that a node listens there that serves what the address says: slim/1 over \
                 QUIC, or gRPC with (https) or without TLS (http)"
            }
            Self::Wrong { .. } | Self::Broken { .. } => {
                "check that node and client are releases that fit"
            }
            Self::Closed { code, .. } => hint_of(*code),
            Self::Lost { .. } => "connect again; subscriptions have to be made anew",
            Self::Ended => "connect again if there is more to do",
            Self::Status { status, .. } => hint_of_status(*status),
            Self::Untranslatable { source: TranscodeError::Invalid(_) } => {
                "give the message the session part of a `slim_wire::session::Session`"
            }
            Self::Untranslatable { source } => source.hint(),
            Self::Refused { .. } => "check the name and the node's limits and policy",
            Self::TooLarge { .. } => "send less in one message, or raise the node's limit",
        }
    }
}

fn hint_of(code: CloseCode) -> &'static str {
    match code {
        CloseCode::Done | CloseCode::Stopping => "connect again, to this node or another",
        CloseCode::Protocol => "this is a defect of this library, or of the node: report it",
        CloseCode::TooSlow => "receive faster, or subscribe to less",
        CloseCode::Limit => "raise the limit in the node's configuration, or connect less often",
        CloseCode::Timeout => "the network or this machine is too slow or overloaded",
        CloseCode::Unauthenticated => "the node asks for credentials that this app does not have",
    }
}

fn hint_of_status(status: i32) -> &'static str {
    match Code::from_i32(status) {
        Code::InvalidArgument => hint_of(CloseCode::Protocol),
        Code::ResourceExhausted => hint_of(CloseCode::Limit),
        Code::DeadlineExceeded => hint_of(CloseCode::Timeout),
        Code::PermissionDenied | Code::Unauthenticated => hint_of(CloseCode::Unauthenticated),
        Code::Unimplemented => "check that the node serves release 0.6",
        _ => hint_of(CloseCode::Done),
    }
}

fn description(status: i32) -> &'static str {
    Code::from_i32(status).description()
}

fn meaning(code: CloseCode) -> &'static str {
    match code {
        CloseCode::Done => "done",
        CloseCode::Protocol => "wrong frame",
        CloseCode::TooSlow => "too slow",
        CloseCode::Stopping => "stopping",
        CloseCode::Limit => "limit reached",
        CloseCode::Timeout => "timeout",
        CloseCode::Unauthenticated => "not authenticated",
    }
}

fn in_file(file: &Option<PathBuf>) -> String {
    file.as_ref().map(|file| format!(" in {}", file.display())).unwrap_or_default()
}

/// A text of the node on one line and not too long.
pub(super) fn one_line(text: &[u8]) -> String {
    const CHARACTERS: usize = 300;
    let text = String::from_utf8_lossy(text);
    let plain = |character: char| if character.is_control() { ' ' } else { character };
    text.chars().take(CHARACTERS).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_a_node_can_neither_start_a_line_nor_fill_a_log() {
        assert_eq!(one_line(b"a\nb\x1b[31m\xff"), "a b [31m\u{fffd}");
        assert_eq!(one_line(&[b'x'; 5000]).len(), 300);
    }

    #[test]
    fn every_reason_to_close_says_what_can_be_done() {
        for status in 1..17 {
            let error = LinkError::Status { status, reason: "because".into() };
            assert!(!error.hint().is_empty());
            assert!(error.to_string().ends_with("): because"), "{error}");
        }
        for number in 0..7 {
            let code = CloseCode::from_number(number).expect("a code");
            let error = LinkError::Closed { code, reason: "because".into() };
            assert!(!error.hint().is_empty());
            assert!(error.to_string().ends_with("): because"), "{error}");
        }
    }
}
