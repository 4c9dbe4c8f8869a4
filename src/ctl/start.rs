use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use slim_config::{Config, Loaded};

use super::{Error, Exit};
use crate::node::lifecycle;

/// `slimctl slim`.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a node in the foreground, on 127.0.0.1:46357 without TLS unless a file says otherwise
    Start(Start),
}

/// How the node is configured.
#[derive(Args, Debug)]
pub(super) struct Start {
    /// Configuration file of the node (YAML)
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where it listens without a file; the admin endpoint then takes any free port
    #[arg(long, value_name = "ADDR", conflicts_with = "config")]
    endpoint: Option<SocketAddr>,
}

/// Where a node for a first try listens.
const USUAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 46357);

impl Command {
    pub(super) fn run(&self) -> Result<Exit, Error> {
        let Self::Start(Start { config, endpoint }) = self;
        let loaded = match (config, endpoint) {
            (Some(file), _) => slim_config::load(file).map_err(|error| error.to_string()),
            (None, None) => Ok(Loaded::without_file(Config::embedded(USUAL))),
            (None, endpoint) => lifecycle::defaults(*endpoint, &[])
                .map(Loaded::without_file)
                .map_err(|error| error.to_string()),
        };
        let loaded = loaded.map_err(Error::Settings)?;
        Ok(match lifecycle::run(loaded, config.as_deref()) {
            lifecycle::Exit::Clean => Exit::Clean,
            lifecycle::Exit::StartFailed => Exit::Failed,
            lifecycle::Exit::Usage | lifecycle::Exit::Config => Exit::Usage,
            lifecycle::Exit::DirtyStop => Exit::Lost,
            lifecycle::Exit::Failed => Exit::Internal,
        })
    }
}
