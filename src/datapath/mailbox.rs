//! What cores tell each other, through bounded channels.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use slim_wire::Envelope;
use smallvec::SmallVec;

use super::port::{CoreId, LinkId};
use super::replica::{Ordered, Sequencer, Submission};

/// Wakes a core that sleeps, once it has mail.
pub trait Wake: Send + Sync {
    /// Makes the core take a turn soon. Cheap when it is already going to.
    fn wake(&self);
}

/// One piece of mail for a core.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all letters are deliveries")]
pub enum Mail {
    /// The next change of the routing table.
    Change(Arc<Ordered>),
    /// All cores have applied what the link submitted.
    Done(LinkId),
    /// A message for links of the core, with room already taken at their ports.
    Deliver(Envelope, SmallVec<[LinkId; 4]>),
    /// A message for the link overran its queue.
    Evict(LinkId),
}

/// Letters that fit a core's box before they wait at the sender. What waits there is bounded all
/// the same: messages by the room they took at their targets, the rest by the number of links.
pub(super) const BOX_LETTERS: usize = 4096;

/// One core's end of the channels: its own box, and the way to every other core.
pub struct Mailboxes {
    core: CoreId,
    inbox: Receiver<Mail>,
    outboxes: Vec<Outbox<Mail>>,
    sequencer: Outbox<Submission>,
}

/// A channel to another thread, and what did not fit it yet.
struct Outbox<T> {
    channel: Sender<T>,
    waiting: VecDeque<T>,
    wake: Option<Arc<dyn Wake>>,
    dirty: bool,
}

/// The sequencer's end: submissions in, changes out to every core.
pub struct Postbox {
    sequencer: Sequencer,
    submissions: Receiver<Submission>,
    cores: Vec<(Sender<Mail>, Arc<dyn Wake>)>,
}

impl Mailboxes {
    /// The connected ends of all cores, one per entry of `wakes`, and of the sequencer.
    pub fn connect(wakes: &[Arc<dyn Wake>]) -> (Vec<Self>, Postbox) {
        let (submit, submissions) = bounded(BOX_LETTERS);
        let channels: Vec<_> = wakes.iter().map(|_| bounded::<Mail>(BOX_LETTERS)).collect();
        let senders = || channels.iter().map(|(sender, _)| sender.clone()).zip(wakes);
        let cores = senders().map(|(sender, wake)| (sender, Arc::clone(wake))).collect();
        let postbox = Postbox { sequencer: Sequencer::new(wakes.len()), submissions, cores };
        let mailboxes = channels.iter().enumerate().map(|(index, (_, inbox))| Self {
            core: CoreId(u16::try_from(index).expect("fewer than 65,536 cores")),
            inbox: inbox.clone(),
            outboxes: senders().map(|(sender, wake)| Outbox::new(sender, Some(wake))).collect(),
            sequencer: Outbox::new(submit.clone(), None),
        });
        (mailboxes.collect(), postbox)
    }

    /// The core whose end this is.
    pub fn core(&self) -> CoreId {
        self.core
    }

    /// The next letter of this core, if one is there.
    pub fn receive(&self) -> Option<Mail> {
        self.inbox.try_recv().ok()
    }

    /// Puts a letter into a core's box.
    pub fn send(&mut self, to: CoreId, mail: Mail) {
        self.outboxes[usize::from(to.0)].send(mail);
    }

    /// Hands changes to the sequencer.
    pub fn submit(&mut self, submission: Submission) {
        self.sequencer.send(submission);
    }

    /// Retries what did not fit, and wakes every core that got mail since the last call; and
    /// this one, if something still does not fit or mail is left.
    pub fn flush(&mut self) {
        let full = self.outboxes.iter_mut().filter_map(|outbox| (!outbox.flush()).then_some(()));
        let full = full.count();
        if full > 0 || !self.sequencer.flush() || !self.inbox.is_empty() {
            self.wake_self();
        }
    }

    /// Makes this core take a turn.
    pub fn wake_self(&self) {
        self.outboxes[usize::from(self.core.0)].wake();
    }
}

impl<T> Outbox<T> {
    fn new(channel: Sender<T>, wake: Option<&Arc<dyn Wake>>) -> Self {
        Self { channel, waiting: VecDeque::new(), wake: wake.map(Arc::clone), dirty: false }
    }

    fn send(&mut self, item: T) {
        self.dirty = true;
        if self.waiting.is_empty() {
            self.try_send(item);
        } else {
            self.waiting.push_back(item);
        }
    }

    /// Whether the item left. A channel without a receiver belongs to a core that has ended.
    fn try_send(&mut self, item: T) -> bool {
        match self.channel.try_send(item) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => true,
            Err(TrySendError::Full(item)) => {
                self.waiting.push_front(item);
                false
            }
        }
    }

    fn flush(&mut self) -> bool {
        while let Some(item) = self.waiting.pop_front() {
            if !self.try_send(item) {
                break;
            }
        }
        if std::mem::take(&mut self.dirty) {
            self.wake();
        }
        self.waiting.is_empty()
    }

    fn wake(&self) {
        if let Some(wake) = &self.wake {
            wake.wake();
        }
    }
}

impl Postbox {
    /// Orders submissions until no core is left that could send one.
    ///
    /// Blocks while a core's box is full, which is safe: a core never waits for the sequencer,
    /// so it always comes to empty its box.
    pub fn run(mut self) {
        while let Ok(submission) = self.submissions.recv() {
            self.distribute(submission);
        }
    }

    /// Orders one submission if there is one, without waiting for more; for drivers that own the
    /// schedule, such as tests.
    pub fn step(&mut self) -> bool {
        let Ok(submission) = self.submissions.try_recv() else {
            return false;
        };
        self.distribute(submission);
        true
    }

    fn distribute(&mut self, submission: Submission) {
        let handles = self.sequencer.order(submission);
        for ((channel, wake), ordered) in self.cores.iter().zip(handles) {
            // A core that has ended needs no changes any more.
            let _ = channel.send(Mail::Change(ordered));
            wake.wake();
        }
    }
}
