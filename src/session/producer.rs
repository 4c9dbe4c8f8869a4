//! What a session's app has published: numbered, kept until nobody needs it any more, and sent
//! again.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use slim_wire::Name;
use slim_wire::session::FullName;

use super::config::{BUFFERED_BYTES, BUFFERED_MESSAGES, Limits, Reliability};
use super::earlier;

/// How messages are known to have arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// They are not.
    Unreliable,
    /// The receiver acknowledges each.
    Each(Reliability),
    /// Members of a group ask for what they miss; those of this library also acknowledge.
    Group,
}

/// A published message.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) id: u32,
    pub(super) payload: Bytes,
    pub(super) payload_type: String,
    pub(super) metadata: Vec<(String, String)>,
    pub(super) destination: Option<FullName>,
    acknowledged: bool,
    retries: u32,
    deadline: Option<Instant>,
    /// Bytes published up to its end.
    end: u64,
    /// The payload as it was encrypted last, and in which epoch.
    sealed: Option<(u64, Bytes)>,
}

/// What a member that acknowledges has got.
#[derive(Clone, Copy, Debug)]
struct Progress {
    /// The first message that is meant for it.
    start: u32,
    /// The first message that it has not acknowledged.
    next: u32,
    /// Since when it has said nothing new, while there was something to say.
    since: Instant,
}

/// When the next beacon is due.
#[derive(Clone, Copy, Debug)]
struct Beacon {
    deadline: Instant,
    interval: Duration,
}

const FIRST_BEACON: Duration = Duration::from_millis(500);
const LAST_BEACON: Duration = Duration::from_secs(30);

/// How long a member that acknowledges is waited for: as long as a request of the handshakes.
const PATIENCE: Duration = Duration::from_secs(61);

#[derive(Debug)]
pub(super) struct Producer {
    mode: Mode,
    window_messages: usize,
    window_bytes: u64,
    next: u32,
    /// In the order of their numbers, without gaps.
    kept: VecDeque<Kept>,
    /// How many at the end have not been sent yet.
    unsent: usize,
    published_bytes: u64,
    members: BTreeMap<Name, Progress>,
    beacon: Option<Beacon>,
}

/// What time has brought about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Send this message again.
    Again(u32),
    /// Nobody acknowledged this message; it is forgotten.
    GivenUp(u32),
    /// This member did not acknowledge these messages, and is not waited for any more.
    Silent { member: Name, first: u32, last: u32 },
    /// Tell the group the number of the last message.
    Beacon(u32),
}

impl Producer {
    pub(super) fn new(mode: Mode, limits: &Limits) -> Self {
        Self {
            mode,
            window_messages: limits.window_messages,
            window_bytes: limits.window_bytes,
            next: 0,
            kept: VecDeque::new(),
            unsent: 0,
            published_bytes: 0,
            members: BTreeMap::new(),
            beacon: None,
        }
    }

    /// The same, with numbers that go on from those of a former part in the same session.
    pub(super) fn starting_at(self, next: u32) -> Self {
        Self { next, ..self }
    }

    /// The number of the next message.
    pub(super) fn next(&self) -> u32 {
        self.next
    }

    /// Whether one more message may be published.
    pub(super) fn has_room(&self) -> bool {
        if self.next == u32::MAX {
            return false;
        }
        let open = self.oldest_open();
        let messages = self.next - open;
        let bytes = self.find(open).map_or(0, |oldest| self.published_bytes - oldest.start());
        (messages as usize) < self.window_messages && (messages == 0 || bytes < self.window_bytes)
    }

    /// Whether nothing is unsent, and nobody has anything to acknowledge.
    pub(super) fn is_settled(&self) -> bool {
        self.oldest_open() == self.next
    }

    /// The first message that is unsent, or that somebody has yet to acknowledge.
    fn oldest_open(&self) -> u32 {
        let unsent = self.next - self.unsent as u32;
        match self.mode {
            Mode::Unreliable => unsent,
            Mode::Each(_) => self.kept.front().map_or(self.next, |kept| kept.id),
            Mode::Group => {
                let behind = self.members.values().map(|progress| progress.next).min();
                behind.map_or(unsent, |behind| behind.min(unsent))
            }
        }
    }

    /// Takes a message, and numbers it. There has to be room.
    pub(super) fn push(
        &mut self,
        payload: Bytes,
        payload_type: String,
        metadata: Vec<(String, String)>,
        destination: Option<FullName>,
    ) -> u32 {
        let id = self.next;
        self.next += 1;
        self.unsent += 1;
        self.published_bytes += payload.len() as u64;
        let (end, deadline) = (self.published_bytes, None);
        let (acknowledged, retries) = (false, 0);
        self.kept.push_back(Kept {
            id,
            payload,
            payload_type,
            metadata,
            destination,
            acknowledged,
            retries,
            deadline,
            end,
            sealed: None,
        });
        id
    }

    /// The next message that has not been sent.
    pub(super) fn unsent(&self) -> Option<&Kept> {
        self.kept.get(self.kept.len() - self.unsent)
    }

    /// That message has been sent.
    pub(super) fn sent(&mut self, now: Instant) {
        let index = self.kept.len() - self.unsent;
        self.unsent -= 1;
        match self.mode {
            Mode::Unreliable => {
                self.kept.remove(index);
            }
            Mode::Each(reliability) => {
                if let Some(kept) = self.kept.get_mut(index) {
                    kept.deadline = Some(now + reliability.timeout);
                }
            }
            Mode::Group => {
                let first = self.next - self.unsent as u32 - 1;
                for progress in self.members.values_mut().filter(|member| member.next == first) {
                    progress.since = now;
                }
                // While messages follow each other the first beacon is not put off, so that
                // everybody hears one soon.
                if self.beacon.is_none_or(|beacon| beacon.interval != FIRST_BEACON) {
                    let (deadline, interval) = (now + FIRST_BEACON, FIRST_BEACON);
                    self.beacon = Some(Beacon { deadline, interval });
                }
                self.trim();
            }
        }
    }

    /// That message cannot be sent, ever.
    pub(super) fn discard_unsent(&mut self) {
        let index = self.kept.len() - self.unsent;
        if let Some(kept) = self.kept.get_mut(index) {
            kept.acknowledged = true;
            self.unsent -= 1;
        }
        self.trim();
    }

    /// A message that was sent and is still kept.
    pub(super) fn sent_message(&self, id: u32) -> Option<&Kept> {
        let sent = self.next - self.unsent as u32;
        self.find(id).filter(|kept| kept.id < sent && !kept.acknowledged)
    }

    /// A message was encrypted.
    pub(super) fn keep_sealed(&mut self, id: u32, epoch: u64, ciphertext: Bytes) {
        if let Some(first) = self.kept.front().map(|kept| kept.id)
            && let Some(kept) = self.kept.get_mut(id.wrapping_sub(first) as usize)
        {
            kept.sealed = Some((epoch, ciphertext));
        }
    }

    fn find(&self, id: u32) -> Option<&Kept> {
        let first = self.kept.front()?.id;
        self.kept.get(id.checked_sub(first)? as usize)
    }

    /// One message was acknowledged. Whether anybody waited for that.
    pub(super) fn acknowledge(&mut self, id: u32) -> bool {
        let sent = self.kept.len() - self.unsent;
        let Some(first) = self.kept.front().map(|kept| kept.id) else { return false };
        let index = id.wrapping_sub(first) as usize;
        let Some(kept) = self.kept.get_mut(index).filter(|_| index < sent) else { return false };
        let fresh = !std::mem::replace(&mut kept.acknowledged, true);
        (kept.payload, kept.sealed) = (Bytes::new(), None);
        kept.deadline = None;
        self.trim();
        fresh
    }

    /// A member says which message of this app it expects next. It is waited for from now on.
    pub(super) fn acknowledge_up_to(&mut self, member: Name, next: u32, now: Instant) {
        let sent = self.next - self.unsent as u32;
        let next = next.min(sent);
        let new = Progress { start: sent, next, since: now };
        let progress = self.members.entry(member).or_insert(new);
        if next > progress.next {
            *progress = Progress { next, since: now, ..*progress };
        }
        self.trim();
    }

    /// A member acknowledges what is sent from now on.
    pub(super) fn expect(&mut self, member: Name, now: Instant) {
        let next = self.next - self.unsent as u32;
        self.members.entry(member).or_insert(Progress { start: next, next, since: now });
    }

    /// Whether a message was published when this member was one already, and it has not
    /// acknowledged it. If it asks all the same its process is a new one, and the old one's app has
    /// had the message.
    pub(super) fn is_for(&self, member: Name, id: u32) -> bool {
        self.members.get(&member).is_none_or(|progress| progress.start.max(progress.next) <= id)
    }

    /// A member is not waited for any more.
    pub(super) fn forget(&mut self, member: Name) {
        self.members.remove(&member);
        self.trim();
    }

    /// Nobody is waited for any more.
    pub(super) fn forget_all(&mut self) {
        self.members.clear();
        self.trim();
    }

    /// Forgets what nobody can need any more.
    fn trim(&mut self) {
        let sent = self.kept.len() - self.unsent;
        match self.mode {
            Mode::Unreliable | Mode::Each(_) => {
                while self.kept.len() > self.unsent
                    && self.kept.front().is_some_and(|kept| kept.acknowledged)
                {
                    self.kept.pop_front();
                }
            }
            Mode::Group => {
                let open = self.oldest_open();
                let mut sent = sent;
                while let Some(first) = self.kept.front().filter(|_| sent > 0) {
                    let bytes = self.published_bytes - first.start();
                    if first.id >= open || (sent <= BUFFERED_MESSAGES && bytes <= BUFFERED_BYTES) {
                        break;
                    }
                    self.kept.pop_front();
                    sent -= 1;
                }
            }
        }
    }

    /// What the time asks for.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Due> {
        let mut due = Vec::new();
        if let Mode::Each(reliability) = self.mode {
            self.due_again(reliability, now, &mut due);
        }
        let sent = self.next - self.unsent as u32;
        let silent = |progress: &Progress| progress.next < sent && progress.since + PATIENCE <= now;
        for (member, progress) in self.members.iter().filter(|(_, progress)| silent(progress)) {
            due.push(Due::Silent { member: *member, first: progress.next, last: sent - 1 });
        }
        self.members.retain(|_, progress| !silent(progress));
        if let Some(beacon) = self.beacon.as_mut().filter(|beacon| beacon.deadline <= now)
            && sent > 0
        {
            beacon.interval = (beacon.interval * 2).min(LAST_BEACON);
            beacon.deadline = now + beacon.interval;
            due.push(Due::Beacon(sent - 1));
        }
        self.trim();
        due
    }

    fn due_again(&mut self, reliability: Reliability, now: Instant, due: &mut Vec<Due>) {
        let late = |kept: &&mut Kept| kept.deadline.is_some_and(|deadline| deadline <= now);
        for kept in self.kept.iter_mut().filter(late) {
            if reliability.max_retries.is_some_and(|most| kept.retries >= most) {
                (kept.acknowledged, kept.deadline) = (true, None);
                due.push(Due::GivenUp(kept.id));
            } else {
                kept.retries = kept.retries.saturating_add(1);
                kept.deadline = Some(now + reliability.timeout);
                due.push(Due::Again(kept.id));
            }
        }
    }

    /// The link is back: all is due, and counts anew.
    pub(super) fn resume(&mut self, now: Instant) {
        for kept in self.kept.iter_mut().filter(|kept| kept.deadline.is_some()) {
            (kept.deadline, kept.retries) = (Some(now), 0);
        }
        self.members.values_mut().for_each(|progress| progress.since = now);
        if let Some(beacon) = &mut self.beacon {
            *beacon = Beacon { deadline: now, interval: FIRST_BEACON };
        }
    }

    /// Gives all up that has not been acknowledged, and returns the numbers.
    pub(super) fn give_up(&mut self) -> Vec<u32> {
        let open = self.kept.iter().filter(|kept| !kept.acknowledged);
        let sent = self.next - self.unsent as u32;
        let numbers = match self.mode {
            Mode::Each(_) => open.map(|kept| kept.id).collect(),
            Mode::Unreliable | Mode::Group => {
                open.map(|kept| kept.id).filter(|id| *id >= sent).collect()
            }
        };
        self.kept.clear();
        self.unsent = 0;
        numbers
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let again = match self.mode {
            Mode::Each(_) => self.kept.iter().filter_map(|kept| kept.deadline).min(),
            Mode::Unreliable | Mode::Group => None,
        };
        let sent = self.next - self.unsent as u32;
        let behind = self.members.values().filter(|progress| progress.next < sent);
        let silent = behind.map(|progress| progress.since + PATIENCE).min();
        let beacon = self.beacon.map(|beacon| beacon.deadline);
        earlier(earlier(again, silent), beacon)
    }
}

impl Kept {
    /// What it was encrypted to in this epoch.
    pub(super) fn sealed(&self, epoch: u64) -> Option<&Bytes> {
        self.sealed.as_ref().filter(|(sealed, _)| *sealed == epoch).map(|(_, bytes)| bytes)
    }

    /// Bytes published before it.
    fn start(&self) -> u64 {
        self.end.saturating_sub(self.payload.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use slim_wire::{Id, Prefix};

    use super::*;

    const WINDOW: usize = 8;

    fn member(number: u8) -> Name {
        Name { prefix: Prefix([1; 3]), id: Id::new(number.into()) }
    }

    /// What may happen to a producer.
    #[derive(Clone, Debug)]
    enum Happens {
        Published(u8),
        Sent,
        Acknowledged(u32),
        AcknowledgedUpTo(u8, u32),
        Expected(u8),
        Forgotten(u8),
        TimePasses(u64),
        LinkIsBack,
    }

    fn happens() -> impl Strategy<Value = Happens> {
        prop_oneof![
            4 => any::<u8>().prop_map(Happens::Published),
            4 => Just(Happens::Sent),
            2 => (0..60_u32).prop_map(Happens::Acknowledged),
            2 => (0..3_u8, any::<u32>()).prop_map(|(of, id)| Happens::AcknowledgedUpTo(of, id % 60)),
            1 => (0..3_u8).prop_map(Happens::Expected),
            1 => (0..3_u8).prop_map(Happens::Forgotten),
            2 => (0..30_000_u64).prop_map(Happens::TimePasses),
            1 => Just(Happens::LinkIsBack),
        ]
    }

    proptest! {
        #[test]
        fn the_window_is_kept_and_no_message_is_forgotten_before_its_time(
            group: bool,
            happenings in proptest::collection::vec(happens(), 0..200),
        ) {
            let reliability =
                Reliability { timeout: Duration::from_secs(1), max_retries: Some(2) };
            let mode = if group { Mode::Group } else { Mode::Each(reliability) };
            let limits = Limits { window_messages: WINDOW, ..Limits::default() };
            let mut producer = Producer::new(mode, &limits);
            let mut now = Instant::now();
            // Of messages that somebody waits for.
            let mut open = std::collections::BTreeSet::new();
            for happening in happenings {
                match happening {
                    Happens::Published(bytes) if producer.has_room() => {
                        let payload = vec![0; bytes.into()].into();
                        open.insert(producer.push(payload, String::new(), Vec::new(), None));
                    }
                    Happens::Sent if producer.unsent().is_some() => producer.sent(now),
                    Happens::Published(_) | Happens::Sent => {}
                    Happens::Acknowledged(id) if !group => {
                        if producer.acknowledge(id) {
                            prop_assert!(open.remove(&id), "{id} was acknowledged twice");
                        }
                    }
                    Happens::Acknowledged(_) => {}
                    Happens::AcknowledgedUpTo(of, next) => {
                        producer.acknowledge_up_to(member(of), next, now);
                    }
                    Happens::Expected(of) => producer.expect(member(of), now),
                    Happens::Forgotten(of) => producer.forget(member(of)),
                    Happens::TimePasses(time) => {
                        now += Duration::from_millis(time);
                        for due in producer.due(now) {
                            if let Due::GivenUp(id) = due {
                                prop_assert!(open.remove(&id), "{id} was given up twice");
                            }
                        }
                        prop_assert!(producer.deadline().is_none_or(|deadline| deadline > now));
                    }
                    Happens::LinkIsBack => producer.resume(now),
                }
                if !group {
                    prop_assert!(open.len() <= WINDOW);
                    let kept = producer.kept.iter().filter(|kept| !kept.acknowledged);
                    prop_assert!(kept.map(|kept| kept.id).eq(open.iter().copied()));
                }
                prop_assert!(producer.kept.len() <= BUFFERED_MESSAGES + WINDOW);
                let behind = producer.members.values().map(|member| member.next).min();
                let first = producer.kept.front().map_or(producer.next, |kept| kept.id);
                if group && let Some(behind) = behind.filter(|behind| *behind < first) {
                    prop_assert!(producer.next as usize > BUFFERED_MESSAGES, "{behind} < {first}");
                }
            }
        }
    }
}
