//! The node under measurement, with limits that let it grow.

use std::path::{Path, PathBuf};

use crate::Failure;
use crate::node::{MTU, Node};

/// What is asked for on the command line.
pub(crate) struct Setup {
    pub(crate) program: PathBuf,
    /// Numbers of idle links, in rising order.
    pub(crate) links: Vec<usize>,
    /// Numbers of subscribers of one publisher.
    pub(crate) subscribers: Vec<usize>,
    /// Numbers of names.
    pub(crate) names: Vec<u64>,
    pub(crate) rounds: usize,
}

/// Two places more than the most links that are measured, for who looks at them, and names for all.
const LIMITS: &str =
    "limits: {links: 11000, subscriptions_per_link: 1000000, subscriptions: 20000000}\n";

/// A node on so many cores.
pub(crate) fn node(setup: &Setup, cores: usize) -> Result<Node, Failure> {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let label = format!("slim, {cores} cores");
    Node::ours_with(label, &setup.program, cores, MTU, LIMITS, scratch)
}
