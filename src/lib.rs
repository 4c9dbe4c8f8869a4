//! SLIM: apps that talk by name, end-to-end encrypted, through nodes that cannot read them.
//!
//! An app connects to a node, opens a session, and publishes and receives messages:
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use slim_quic::client::{App, Config, Identity, LinkOptions};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! // connect
//! let identity = Identity::shared_secret("alice", "a secret of both apps")?;
//! let app = App::new(&"org/ns/alice".parse()?, identity)?;
//! app.connect("quic://node.example.org:46357", LinkOptions::default()).await?;
//!
//! // session
//! let config = Config::point_to_point(&"org/ns/bob".parse()?).encrypted();
//! let session = app.create_session(config.reliable(Duration::from_secs(5), Some(5)))?;
//!
//! // message
//! session.publish("hello, bob").await?;
//! let (context, answer) = session.get_message().await?;
//! println!("{} > {}", context.source, String::from_utf8_lossy(&answer));
//! # Ok(())
//! # }
//! ```
//!
//! [`client::app`] goes on from here: groups, invitations, waiting for sessions.
//!
//! This library is also the node. Its rooms, from the bottom up: [`datapath`] routes messages and
//! knows neither sockets nor clocks; [`link`] turns bytes of sockets into messages and back;
//! [`policy`] judges who may use which names; [`node`] puts cores, listeners and the admin endpoint
//! together and drives them. Of the apps' side, [`identity`], [`mls`] and [`session`] are machines
//! without I/O, and [`client`] drives them over a link. [`demo`] shows all at work; [`ctl`] is what
//! `slimctl` does; [`controller`] is the other program, which tells nodes of each other and manages
//! groups.

pub mod client;
pub mod controller;
pub mod ctl;
pub mod datapath;
pub mod demo;
pub mod identity;
pub mod link;
pub mod mls;
pub mod node;
pub mod policy;
pub mod session;
pub mod telemetry;
pub mod trust;
pub mod version;

/// The target of spans that are for traces and would only make log lines longer. It stands here
/// since rooms on every floor make such spans.
pub(crate) const SPANS: &str = "slim::trace";
