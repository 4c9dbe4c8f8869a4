use std::sync::atomic::{AtomicU64, Ordering};

/// A number that one core writes and anyone reads: an add is a plain load and store.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the core that owns the counter may call this.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Takes `n` off, for counters of what is there now. Only the owning core may call this.
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(n), Ordering::Relaxed);
    }

    /// The value now.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Declares an enum of reasons whose names appear in metrics and logs.
macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// All reasons, in the order of their counters.
            pub const ALL: [Self; [$($text),*].len()] = [$(Self::$variant),*];

            /// The reason as metrics and logs write it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }
    };
}

reasons! {
    /// Why a matched message was not written to one of its targets.
    DropReason {
        /// Best effort, and the queue is above its soft mark.
        QueueFull = "queue_full",
        /// The target was evicted because its queue is above its hard mark.
        Overrun = "overrun",
        /// The link ended before the message was written.
        LinkClosed = "link_closed",
        /// The target is another node, and the message may pass no more of them.
        Expired = "expired",
        /// The message cannot be put into the encoding that the target reads.
        Untranslatable = "untranslatable",
        /// The message is too large for the target in the form that it takes there.
        TooLarge = "too_large",
    }
}

reasons! {
    /// Why a message was not routed at all.
    RefuseReason {
        /// Not a message of the stream's dialect; ends the stream.
        Undecodable = "undecodable",
        /// Lacks a field that routing needs, or exceeds a limit of one.
        Invalid = "invalid",
        /// Longer than a message may be; ends the stream.
        TooLarge = "too_large",
        /// The link has as many subscriptions as it may have.
        SubscriptionLimit = "subscription_limit",
        /// The authentication code of its header is not that of its link, or absent.
        Unauthentic = "unauthentic",
        /// It may pass no more nodes.
        Expired = "expired",
        /// The policy does not allow its name to who sent it.
        NotAllowed = "not_allowed",
    }
}

/// What one core counts. Two sums hold at any quiet moment, over all cores:
/// `received = matched + unmatched + Σ refused` per message, and
/// `deliveries = written + Σ dropped + queued + in flight` per message and target.
#[derive(Debug, Default)]
pub struct Counters {
    /// Messages to route, and all that were refused.
    pub received: Counter,
    /// Messages with at least one target.
    pub matched: Counter,
    /// Messages without a target.
    pub unmatched: Counter,
    /// Those of them whose name is known, but only to clients of other releases.
    pub elsewhere: Counter,
    /// Messages not routed, by reason.
    pub refused: [Counter; RefuseReason::ALL.len()],
    /// Copies of messages, one per target.
    pub deliveries: Counter,
    /// Copies handed to a link's transport.
    pub written: Counter,
    /// Copies lost, by reason.
    pub dropped: [Counter; DropReason::ALL.len()],
    /// Copies that wait in the queues of this core's links, now.
    pub queued: Counter,
    /// Copies ever sent to other cores.
    pub sent_to_cores: Counter,
    /// Copies ever received from other cores.
    pub received_from_cores: Counter,
    /// Bytes of messages received, without framing.
    pub bytes_received: Counter,
    /// Bytes handed to links' transports, with framing.
    pub bytes_written: Counter,
    /// Links of this core, now.
    pub links: Counter,
    /// Subscriptions of this core's links, now.
    pub subscriptions: Counter,
    /// Subscriptions and messages that the policy does not allow, let pass or not.
    pub violations: Counter,
    /// Links cut off for being too slow.
    pub evicted: Counter,
    /// Times that a source was not read for a while because its only target was behind.
    pub pauses: Counter,
}

impl Counters {
    /// Counts `n` copies as dropped.
    pub fn drop_copies(&self, reason: DropReason, n: u64) {
        self.dropped[reason as usize].add(n);
    }

    /// Counts a message as received and refused.
    pub fn refuse(&self, reason: RefuseReason) {
        self.received.add(1);
        self.refused[reason as usize].add(1);
    }
}
