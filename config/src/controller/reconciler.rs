use crate::value::Value;

/// How routes are driven into nodes (`reconciler`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reconciler {
    /// `threads`, since 0.7 `maxNumOfParallelReconciles`: how many nodes are driven at the same
    /// time, 1 to 10,000. Default 3.
    pub threads: u32,
    /// `maxRequeues`: how often a failure is tried again, 0 to 1,000,000. Default 15.
    pub max_requeues: u32,
}

impl Default for Reconciler {
    fn default() -> Self {
        Self { threads: 3, max_requeues: 15 }
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
    let max_requeues = section.optional("maxRequeues", |value| value.integer(0..=1_000_000_u32));
    let logging = section.child("logging");
    section.finish();
    let reconciler = Reconciler {
        threads: threads.or(parallel).unwrap_or(default.threads),
        max_requeues: max_requeues.unwrap_or(default.max_requeues),
    };
    (Some(reconciler), logging)
}
