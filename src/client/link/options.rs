use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use slim_config::{Congestion, Identity, Secret};
use slim_wire::TextName;
use slim_wire::limits::{FRAME_BYTES, GRPC_MESSAGE_BYTES, HEADER_BYTES};

use super::LinkError;
use crate::trust::Credentials;

/// By what a node is known to be the one that was meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// Its certificate is signed by an authority that this system trusts.
    #[default]
    System,
    /// Its certificate is signed by an authority in this PEM file.
    File(PathBuf),
    /// Its certificate is signed by an authority in this PEM text.
    Pem(String),
    /// Any certificate will do: whoever sits between can read and forge everything. For trials,
    /// and for nodes with `tls.insecure: true`.
    DangerAcceptAnyCertificate,
}

/// How to connect. The defaults fit a node with a public certificate.
#[derive(Clone, Debug)]
pub struct LinkOptions {
    /// By what to know the node; without effect where the address is one of `http://`. Default:
    /// the system's authorities.
    pub trust: Trust,
    /// The name that the node's certificate has to carry. Default: the host of the address.
    pub server_name: Option<String>,
    /// The app's own certificate with its key, for a node that asks for one (`client_ca`). Files
    /// are read whenever a link is begun. Default: none.
    pub certificate: Option<Identity>,
    /// What to show to a node that asks who the app is (`auth`). Default: nothing.
    pub credentials: Credentials,
    /// The app's own name, for the node's log, and over gRPC the source of subscriptions.
    /// Default: none.
    pub name: Option<TextName>,
    /// Largest UDP payload to try for, in bytes, 1,200 to 65,000. It is reached only if the path
    /// carries it. Default 1,452, an Ethernet; 65,000 is fastest where node and app share a
    /// machine. Without effect over gRPC.
    pub mtu: u16,
    /// What decides how much may be under way to the node. Default: losses (Cubic). Without effect
    /// over gRPC.
    pub congestion: Congestion,
    /// Longest frame to take, in bytes with its header of 104; up to 16 MiB. A node refuses
    /// a link that takes less than it does itself (`limits.message_bytes`). Default 4 MiB, which it always is over gRPC.
    pub frame_bytes: u32,
    /// How long connecting may take, all addresses of the host together. Default 5 s.
    pub connect_timeout: Duration,
    /// How long [`Link::close`](super::Link::close) may take to hand over what was published.
    /// Default 5 s.
    pub close_timeout: Duration,
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self {
            trust: Trust::default(),
            server_name: None,
            certificate: None,
            credentials: Credentials::None,
            name: None,
            mtu: 1452,
            congestion: Congestion::default(),
            frame_bytes: GRPC_MESSAGE_BYTES as u32,
            connect_timeout: Duration::from_secs(5),
            close_timeout: Duration::from_secs(5),
        }
    }
}

impl LinkOptions {
    /// The value of the header `authorization` for a link that is begun now.
    pub(super) fn authorization(&self) -> Result<Option<Secret>, LinkError> {
        let now = SystemTime::now();
        self.credentials.authorization(now).map_err(|source| LinkError::Credentials { source })
    }

    pub(super) fn check(&self) -> Result<(), LinkError> {
        if !(1200..=65_000).contains(&self.mtu) {
            let (option, expected) = ("mtu", "1200 to 65000");
            return Err(LinkError::Option { option, expected, got: self.mtu.into() });
        }
        if !(HEADER_BYTES..=FRAME_BYTES).contains(&(self.frame_bytes as usize)) {
            let (option, expected) = ("frame_bytes", "104 to 16777216");
            return Err(LinkError::Option { option, expected, got: self.frame_bytes.into() });
        }
        Ok(())
    }
}
