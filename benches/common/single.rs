//! A core without I/O.

use std::sync::Arc;
use std::time::Duration;

use slim_quic::datapath::{Core, CoreConfig, Mailboxes, Marks, Postbox, SlowLog, Wake};

struct Asleep;

impl Wake for Asleep {
    fn wake(&self) {}
}

/// The only core of a node, and the end through which its changes go.
pub(crate) fn core() -> (Core, Postbox) {
    let (mut mailboxes, postbox) = Mailboxes::connect(&[Arc::new(Asleep) as Arc<dyn Wake>]);
    let config = CoreConfig {
        marks: Marks::new(16 * 1024 * 1024, 256 * 1024),
        slow_consumer: Duration::from_secs(1),
        message_bytes: 4 << 20,
        subscriptions_per_link: 10_000,
        subscriptions_per_node: 10_000,
        subscriptions: 1_000_000,
        stalled: std::time::Duration::from_secs(30),
        seed: 7,
    };
    let mail = mailboxes.pop().expect("one mailbox per wake");
    let core = Core::new(config, mail, Arc::default(), Arc::new(SlowLog::default()));
    (core, postbox)
}
