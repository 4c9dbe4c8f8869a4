//! How a controller runs.

use std::time::Duration;

use slim_config::{Auth, ServerTls};

use super::model::Limits;

/// How a controller runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What operators use.
    pub northbound: Api,
    /// What nodes use.
    pub southbound: Api,
    /// How often the routes of every node are compared with what it was told, and the participants
    /// of channels with what nodes say.
    pub sweep: Duration,
    /// After how long without a stream a node is removed; `None`, the default: never.
    pub expire: Option<Duration>,
    /// Lines that are logged for those who wait for them, one per thread of the published
    /// controller. Here every node has a task of its own.
    pub reconcilers: usize,
    /// Bounds.
    pub limits: Limits,
}

/// One of the two APIs.
#[derive(Clone, Debug)]
pub struct Api {
    /// `host:port` to listen on; a port of 0 is any free one.
    pub address: String,
    /// TLS; `None` without.
    pub tls: Option<ServerTls>,
    /// What callers have to show.
    pub auth: Auth,
}

impl Api {
    /// Without TLS, for everybody who reaches it.
    pub fn plain(address: impl Into<String>) -> Self {
        Self { address: address.into(), tls: None, auth: Auth::None }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            northbound: Api::plain("localhost:50051"),
            southbound: Api::plain("localhost:50052"),
            sweep: Duration::from_secs(60),
            expire: None,
            reconcilers: 3,
            limits: Limits::default(),
        }
    }
}
