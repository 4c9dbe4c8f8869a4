use std::time::Duration;

use crate::value::Value;

/// How routes are driven into nodes (`reconciler`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reconciler {
    /// `threads`, since 0.7 `maxNumOfParallelReconciles`: 1 to 10,000, default 3. It only shows in the
    /// log: every node has a task of its own.
    pub threads: u32,
    /// `sweepPeriod`: how often the routes of every node are compared with what it was told, and
    /// the participants of channels with what nodes say, above zero; default `60s`. This program's own key.
    pub sweep: Duration,
    /// `forgetNodesAfter`: after how long without a stream a node is removed, above zero; default
    /// never. This program's own key.
    pub forget_nodes_after: Option<Duration>,
}

impl Default for Reconciler {
    fn default() -> Self {
        Self { threads: 3, sweep: Duration::from_secs(60), forget_nodes_after: None }
    }
}

/// A `reconciler` block and the `logging` block in it. `None` in place of the first if it is wrong.
pub(super) fn read(value: Value<'_>) -> (Option<Reconciler>, Option<Value<'_>>) {
    let default = Reconciler::default();
    let Some(mut section) = value.section() else { return (None, None) };
    let number = |value: Value<'_>| value.integer(1..=10_000_u32);
    let threads = section.optional("threads", number);
    let parallel = match threads {
        Some(_) => {
            section.ineffective("maxNumOfParallelReconciles", "`threads` decides", number);
            None
        }
        None => section.optional("maxNumOfParallelReconciles", number),
    };
    let why = "failures are tried again for ever, after ever longer pauses";
    section.ineffective("maxRequeues", why, |value| value.integer(0..=1_000_000_u32));
    let sweep = section.optional("sweepPeriod", Value::positive_duration);
    let forget_nodes_after = section.optional("forgetNodesAfter", Value::positive_duration);
    let logging = section.child("logging");
    section.finish();
    let reconciler = Reconciler {
        threads: threads.or(parallel).unwrap_or(default.threads),
        sweep: sweep.unwrap_or(default.sweep),
        forget_nodes_after,
    };
    (Some(reconciler), logging)
}
