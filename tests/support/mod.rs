//! A node in its own process, and clients that behave, misbehave, and look at its metrics.

#![allow(dead_code, reason = "each topic uses its part of this module")]

pub(crate) mod client;
pub(crate) mod message;
pub(crate) mod metrics;
pub(crate) mod native;
pub(crate) mod node;
pub(crate) mod pair;
pub(crate) mod pki;
pub(crate) mod published;
pub(crate) mod quic;
pub(crate) mod raw;
pub(crate) mod seed;

use std::time::{Duration, Instant};

/// How long anything that has to happen may take: far more than it needs on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

const POLL_STEP: Duration = Duration::from_millis(10);

/// Asks `check` until it has an answer.
pub(crate) async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = check().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(POLL_STEP).await;
    }
}

/// What `future` resolves to; a panic that names `what` if it takes too long.
pub(crate) async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

/// Writes past the capture of test output.
pub(crate) fn say(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{line}");
}
