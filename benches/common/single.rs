//! Cores without I/O.

use std::sync::Arc;
use std::time::Duration;

use slim_quic::datapath::{Core, CoreConfig, Mailboxes, Marks, Postbox, SlowLog, Wake};
use slim_wire::limits::GRPC_MESSAGE_BYTES;

struct Asleep;

impl Wake for Asleep {
    fn wake(&self) {}
}

/// The only core of a node, and the end through which its changes go.
#[allow(dead_code, reason = "some benches need several")]
pub(crate) fn core() -> (Core, Postbox) {
    let (mut cores, postbox) = cores(1);
    (cores.pop().expect("one was asked for"), postbox)
}

/// All cores of a node, and the end through which their changes go.
pub(crate) fn cores(count: usize) -> (Vec<Core>, Postbox) {
    let wakes: Vec<_> = (0..count).map(|_| Arc::new(Asleep) as Arc<dyn Wake>).collect();
    let (mailboxes, postbox) = Mailboxes::connect(&wakes);
    let config = CoreConfig {
        marks: Marks::new(16 * 1024 * 1024, 256 * 1024),
        slow_consumer: Duration::from_secs(1),
        message_bytes: GRPC_MESSAGE_BYTES,
        subscriptions_per_link: 10_000,
        subscriptions_per_node: 10_000,
        subscriptions: 1_000_000,
        stalled: Duration::from_secs(30),
        seed: 7,
    };
    let slow_log = Arc::new(SlowLog::default());
    let core = |mail| Core::new(config, mail, Arc::default(), Arc::clone(&slow_log));
    (mailboxes.into_iter().map(core).collect(), postbox)
}
