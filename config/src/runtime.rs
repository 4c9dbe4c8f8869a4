use std::time::Duration;

use crate::value::Value;

/// Threads and shutdown (reference of 0.6, `runtime`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// `n_cores`: worker threads, default 0 = one per core of the machine.
    pub n_cores: usize,
    /// `thread_name`: name of the worker threads, default `slim`.
    pub thread_name: String,
    /// `drain_timeout`: how long a service may take to stop, default `10s`.
    pub drain_timeout: Duration,
    /// `busy_poll_us` (this node's own key): for so long after the last packet a core looks for the
    /// next one instead of sleeping, in microseconds, at most 10,000. Default 0: never. Shortens
    /// latency, and takes a whole processor as long as packets keep coming.
    pub busy_poll: Duration,
}

impl Default for Runtime {
    fn default() -> Self {
        Self {
            n_cores: 0,
            thread_name: "slim".into(),
            drain_timeout: Duration::from_secs(10),
            busy_poll: Duration::ZERO,
        }
    }
}

/// More threads than any machine has cores.
const MOST_CORES: usize = 4096;

/// Beyond that a core that sleeps costs less than the wait is worth.
const LONGEST_BUSY_POLL_US: u64 = 10_000;

/// The `runtime` block.
pub(crate) fn read(value: Value<'_>) -> Option<Runtime> {
    let default = Runtime::default();
    let mut section = value.section()?;
    let runtime = Runtime {
        n_cores: section
            .optional("n_cores", |value| value.integer(0..=MOST_CORES))
            .unwrap_or(default.n_cores),
        thread_name: section
            .optional("thread_name", read_thread_name)
            .unwrap_or(default.thread_name),
        drain_timeout: section
            .optional("drain_timeout", Value::duration)
            .unwrap_or(default.drain_timeout),
        busy_poll: section
            .optional("busy_poll_us", |value| value.integer(0..=LONGEST_BUSY_POLL_US))
            .map_or(default.busy_poll, Duration::from_micros),
    };
    section.finish();
    Some(runtime)
}

/// Threads cannot be named with a zero byte.
fn read_thread_name(value: Value<'_>) -> Option<String> {
    let name = value.filled_text()?;
    if name.contains('\0') {
        return value.expected("a text without control characters");
    }
    Some(name.to_owned())
}
