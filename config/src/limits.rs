use std::ops::RangeInclusive;
use std::time::Duration;

use slim_wire::limits::GRPC_MESSAGE_BYTES;

use crate::section::Section;
use crate::value::Value;

/// What a node gives to others at most (`limits`, this node's own key). Keys without a unit count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `links`: open links of the node, 1 to 1,000,000, default 10,000.
    pub links: usize,
    /// `subscriptions_per_link`: names one link of a client may subscribe to, 1 to 1,000,000,
    /// default 10,000.
    pub subscriptions_per_link: usize,
    /// `subscriptions_per_node`: names that may be reached by one link to another node, by routes or
    /// because the other node has told of them, 1 to 1,000,000, default 100,000.
    pub subscriptions_per_node: usize,
    /// `subscriptions`: names that all links together may subscribe to, 1 to 100,000,000, default
    /// 1,000,000. Each takes about half a KiB per core.
    pub subscriptions: usize,
    /// `message_bytes`: largest message, 1,024 to 4,194,304 bytes, which is also the default: the
    /// most that published gRPC clients can read.
    pub message_bytes: usize,
    /// `queue_bytes`: hard mark of a link's egress queue, from four times `message_bytes`
    /// to 1,073,741,824 bytes, default 16,777,216.
    pub queue_bytes: usize,
    /// `control_reserve_bytes`: room above `queue_bytes` for control messages, 4,096 to
    /// 16,777,216 bytes, default 262,144.
    pub control_reserve_bytes: usize,
    /// `slow_consumer_ms`: how long a link's queue may stay above its soft mark before the link is
    /// closed, 1 to 600,000 milliseconds, default 1,000.
    pub slow_consumer: Duration,
    /// `stalled_ms`: how long a link may take nothing of what waits for it before it is closed,
    /// 1 to 600,000 milliseconds, default 30,000.
    pub stalled: Duration,
    /// `pause_ms`: how long a source may be paused for a single target, 0 to 10,000 milliseconds,
    /// default 500.
    pub pause: Duration,
    /// `handshake_ms`: from an accepted connection to an open stream, 100 to 600,000
    /// milliseconds, default 5,000.
    pub handshake: Duration,
    /// `partial_message_ms`: time to complete a message that has begun, 100 to 600,000
    /// milliseconds, default 30,000.
    pub partial_message: Duration,
    /// `partial_bytes`: room for begun messages of all links together, 4,194,304 to
    /// 68,719,476,736 bytes, default 268,435,456. A link whose message finds no room is closed.
    pub partial_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            links: 10_000,
            subscriptions_per_link: 10_000,
            subscriptions_per_node: 100_000,
            subscriptions: MOST,
            message_bytes: GRPC_MESSAGE_BYTES,
            queue_bytes: 16 * 1024 * 1024,
            control_reserve_bytes: 256 * 1024,
            slow_consumer: Duration::from_millis(1_000),
            stalled: Duration::from_millis(30_000),
            pause: Duration::from_millis(500),
            handshake: Duration::from_millis(5_000),
            partial_message: Duration::from_millis(30_000),
            partial_bytes: 256 * 1024 * 1024,
        }
    }
}

const MOST: usize = 1_000_000;
const MOST_SUBSCRIPTIONS: usize = 100_000_000;
const LARGEST_PARTIAL: usize = 64 * 1024 * 1024 * 1024;
const QUEUED_MESSAGES: usize = 4;
const SMALLEST_MESSAGE: usize = 1024;
const LARGEST_QUEUE: usize = 1024 * 1024 * 1024;
const LARGEST_RESERVE: usize = 16 * 1024 * 1024;
const LONGEST_MS: u64 = 600_000;

/// The `limits` block.
pub(crate) fn read(value: Value<'_>) -> Option<Limits> {
    let default = Limits::default();
    let mut section = value.section()?;
    let links = number(&mut section, "links", 1..=MOST, default.links);
    let subscriptions_per_link =
        number(&mut section, "subscriptions_per_link", 1..=MOST, default.subscriptions_per_link);
    let subscriptions_per_node =
        number(&mut section, "subscriptions_per_node", 1..=MOST, default.subscriptions_per_node);
    let subscriptions =
        number(&mut section, "subscriptions", 1..=MOST_SUBSCRIPTIONS, default.subscriptions);
    let message_bytes = section
        .optional("message_bytes", |value| value.integer(SMALLEST_MESSAGE..=GRPC_MESSAGE_BYTES));
    let limits = Limits {
        links,
        subscriptions_per_link,
        subscriptions_per_node,
        subscriptions,
        message_bytes: message_bytes.unwrap_or(default.message_bytes),
        queue_bytes: number(
            &mut section,
            "queue_bytes",
            QUEUED_MESSAGES * SMALLEST_MESSAGE..=LARGEST_QUEUE,
            default.queue_bytes,
        ),
        control_reserve_bytes: number(
            &mut section,
            "control_reserve_bytes",
            4096..=LARGEST_RESERVE,
            default.control_reserve_bytes,
        ),
        slow_consumer: millis(
            &mut section,
            "slow_consumer_ms",
            1..=LONGEST_MS,
            default.slow_consumer,
        ),
        stalled: millis(&mut section, "stalled_ms", 1..=LONGEST_MS, default.stalled),
        pause: millis(&mut section, "pause_ms", 0..=10_000, default.pause),
        handshake: millis(&mut section, "handshake_ms", 100..=LONGEST_MS, default.handshake),
        partial_message: millis(
            &mut section,
            "partial_message_ms",
            100..=LONGEST_MS,
            default.partial_message,
        ),
        partial_bytes: number(
            &mut section,
            "partial_bytes",
            GRPC_MESSAGE_BYTES..=LARGEST_PARTIAL,
            default.partial_bytes,
        ),
    };
    if message_bytes.is_some() || !section.has("message_bytes") {
        check_queue(&mut section, &limits);
    }
    section.finish();
    Some(limits)
}

/// Below its soft mark, which is half of it, a queue must hold one message while another is
/// written, with what each is charged beside its bytes.
fn check_queue(section: &mut Section<'_>, limits: &Limits) {
    let least = QUEUED_MESSAGES * limits.message_bytes;
    if limits.queue_bytes >= least {
        return;
    }
    if let Some(queue) = section.child("queue_bytes") {
        let message = format!(
            "expected at least four times `message_bytes`, {least}, got the number `{}`",
            limits.queue_bytes
        );
        queue.fail::<()>(message, Some("raise it or lower `message_bytes`".into()));
    }
}

fn number(
    section: &mut Section<'_>,
    key: &'static str,
    range: RangeInclusive<usize>,
    default: usize,
) -> usize {
    section.optional(key, |value| value.integer(range)).unwrap_or(default)
}

fn millis(
    section: &mut Section<'_>,
    key: &'static str,
    range: RangeInclusive<u64>,
    default: Duration,
) -> Duration {
    section.optional(key, |value| value.integer(range)).map_or(default, Duration::from_millis)
}
