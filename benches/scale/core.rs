//! Cores without I/O, in one thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use slim_quic::datapath::{
    Core, CoreConfig, Framing, LinkId, Mailboxes, Marks, Postbox, SlowLog, Wake,
};
use slim_quic::policy::Principal;
use slim_wire::{Encoding, Name};

struct Asleep;

impl Wake for Asleep {
    fn wake(&self) {}
}

/// The cores of a node, and the end through which their changes go.
pub(crate) struct Cores {
    pub(crate) cores: Vec<Core>,
    postbox: Postbox,
    pub(crate) now: Instant,
}

/// Subscriptions that wait before they are applied.
const BATCH: usize = 256;

impl Cores {
    pub(crate) fn new(cores: usize) -> Self {
        let wakes = vec![Arc::new(Asleep) as Arc<dyn Wake>; cores];
        let (mailboxes, postbox) = Mailboxes::connect(&wakes);
        let config = CoreConfig {
            marks: Marks::new(16 * 1024 * 1024, 256 * 1024),
            slow_consumer: Duration::from_secs(1),
            message_bytes: 4 << 20,
            subscriptions_per_link: usize::MAX,
            subscriptions_per_node: usize::MAX,
            subscriptions: usize::MAX,
            stalled: Duration::from_secs(30),
            seed: 7,
        };
        let core = |mail| Core::new(config, mail, Arc::default(), Arc::new(SlowLog::default()));
        let cores = mailboxes.into_iter().map(core).collect();
        Self { cores, postbox, now: Instant::now() }
    }

    pub(crate) fn open(&mut self, core: usize) -> LinkId {
        self.cores[core].open_link("bench", Framing::Native, Principal::Nobody)
    }

    /// Subscribes a link of a core to names, some of whose texts may be known.
    pub(crate) fn subscribe(
        &mut self,
        link: LinkId,
        names: impl Iterator<Item = (Name, Option<[String; 3]>)>,
    ) {
        let at = usize::from(link.core.0);
        for (count, (name, texts)) in names.enumerate() {
            let texts = texts.as_ref().map(|texts| texts.each_ref().map(String::as_str));
            let core = &mut self.cores[at];
            core.subscribe(link, Encoding::Native, name, texts).expect("within the limit");
            if count % BATCH == 0 {
                core.submit(link);
                self.settle();
            }
        }
        self.cores[at].submit(link);
        self.settle();
    }

    /// Lets all mail arrive.
    pub(crate) fn settle(&mut self) {
        for _ in 0..3 {
            self.cores.iter_mut().for_each(Core::flush);
            while self.postbox.step() {}
            let now = self.now;
            self.cores.iter_mut().for_each(|core| core.turn(now));
        }
    }
}
