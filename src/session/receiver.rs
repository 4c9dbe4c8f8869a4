//! What one sender's messages are put in order with, and what is asked for again.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::config::{BUFFERED_BYTES, BUFFERED_MESSAGES, Reliability};
use super::earlier;
use super::packet::Packet;

/// How a sender's messages are put in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// As they come; what is late is dropped.
    AsTheyCome,
    /// In order. A missing message is asked for after `ask_after`, then each timeout.
    Sequence { ask_after: Duration, timeout: Duration, max_retries: Option<u32> },
}

impl Order {
    /// Of a point-to-point session: the sender repeats what is not acknowledged by itself.
    pub(super) fn point_to_point(reliability: Reliability) -> Self {
        let Reliability { timeout, max_retries } = reliability;
        Self::Sequence { ask_after: timeout, timeout, max_retries }
    }

    /// Of a group: nobody but the receivers knows what is missing.
    pub(super) fn group(reliability: Option<Reliability>) -> Self {
        match reliability {
            Some(Reliability { timeout, max_retries }) => {
                Self::Sequence { ask_after: Duration::ZERO, timeout, max_retries }
            }
            None => Self::AsTheyCome,
        }
    }
}

/// A message, or what is in its place.
#[derive(Debug)]
enum Slot {
    Here(Box<Packet>),
    /// It has come, but cannot be opened yet.
    Sealed(Box<Packet>, Hole),
    Hole(Hole),
    Lost,
}

/// A message that is asked for.
#[derive(Clone, Copy, Debug)]
struct Hole {
    deadline: Instant,
    asked: u32,
}

/// Whether it is known with which message a sender's begin, for this receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Known,
    /// Not even whether the sender can tell. What comes waits for that, from the first message on
    /// until a deadline.
    Undecided(Option<Instant>),
    /// Messages before the first that was heard of, numbered `heard`, are asked for, `step` more
    /// with each answer, until the sender says that it meant none of them for this receiver.
    Probing {
        heard: u32,
        step: u32,
    },
}

/// What there is to deliver.
#[derive(Debug)]
pub(super) enum Delivery {
    Message(Box<Packet>),
    /// So many messages in a row are lost.
    Lost(u32),
}

/// What becomes of a message that has just come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// It is wanted.
    Wanted,
    /// It was delivered, or waits for it.
    Duplicate,
    /// It was given up before it came.
    Skipped,
    /// There is no room for it now.
    NoRoom,
}

/// Most messages that cannot be opened yet.
const SEALED_MESSAGES: usize = 64;

/// How often a message is asked for of a sender that keeps it until it is acknowledged.
const PATIENT_RETRIES: u32 = 60;

/// How long messages of a sender wait until it is known whether it uses this library.
const UNDECIDED: Duration = Duration::from_secs(61);

/// Gaps given up of which a late arrival is recognised.
const REMEMBERED: usize = 64;

#[derive(Debug)]
pub(super) struct Receiver {
    order: Order,
    /// Number of the message to be delivered next; `None` before the first.
    next: Option<u32>,
    slots: BTreeMap<u32, Slot>,
    bytes: u64,
    /// What is missing before this number is lost.
    floor: u32,
    skipped: Vec<Range<u32>>,
    /// The sender keeps what has not been acknowledged.
    patient: bool,
    start: Start,
    /// What is numbered below was delivered before.
    barrier: u32,
}

impl Receiver {
    /// For a sender whose first message is numbered `first`; `None`: whichever comes first.
    pub(super) fn new(order: Order, first: Option<u32>) -> Self {
        Self {
            order,
            next: first,
            slots: BTreeMap::new(),
            bytes: 0,
            floor: 0,
            skipped: Vec::new(),
            patient: false,
            start: Start::Known,
            barrier: 0,
        }
    }

    /// For a sender that may have sent messages before the first that will be heard of. What is
    /// numbered below `barrier` was delivered before.
    pub(super) fn undecided(order: Order, barrier: u32) -> Self {
        let start = match order {
            Order::AsTheyCome => Start::Known,
            Order::Sequence { .. } => Start::Undecided(None),
        };
        Self { start, barrier, ..Self::new(order, None) }
    }

    /// Whether the sender can tell which messages are meant for this receiver.
    pub(super) fn decide(&mut self, now: Instant, can_tell: bool) {
        let Start::Undecided(_) = self.start else { return };
        self.start = match (can_tell, self.next) {
            (false, _) => Start::Known,
            (true, next) => Start::Probing { heard: next.unwrap_or(u32::MAX), step: 1 },
        };
        if matches!(self.slots.first_key_value(), Some((_, Slot::Here(_) | Slot::Sealed(..)))) {
            self.probe(now);
        }
    }

    /// The first message that is known has come: asks for some before it.
    fn probe(&mut self, now: Instant) {
        let (Start::Probing { heard, step }, Some(next)) = (self.start, self.next) else { return };
        let room = (BUFFERED_MESSAGES as u32).saturating_sub(self.end() - next);
        if next <= self.barrier || room == 0 {
            self.start = Start::Known;
            return;
        }
        let low = next.saturating_sub(step.min(room)).max(self.barrier);
        for id in low..next {
            self.slots.insert(id, Slot::Hole(Hole { deadline: now, asked: 0 }));
        }
        self.next = Some(low);
        self.start = Start::Probing { heard, step: step.saturating_mul(2) };
    }

    /// The number after the last that is known of.
    fn end(&self) -> u32 {
        let last = self.slots.last_key_value().map_or(0, |(last, _)| last.saturating_add(1));
        last.max(self.next.unwrap_or(0))
    }

    /// The sender's messages for this receiver begin after `id`, if that was asked.
    fn begin_after(&mut self, id: u32) -> bool {
        let Start::Probing { heard, .. } = self.start else { return false };
        let before = |slot: &Slot| matches!(slot, Slot::Here(_) | Slot::Sealed(..));
        let asked = matches!(self.slots.get(&id), Some(Slot::Hole(_)));
        if !asked || id >= heard || self.slots.range(..=id).any(|(_, slot)| before(slot)) {
            return false;
        }
        self.slots.retain(|slot, _| *slot > id);
        (self.next, self.start) = (Some(id + 1), Start::Known);
        true
    }

    /// The sender keeps what has not been acknowledged.
    pub(super) fn be_patient(&mut self) {
        self.patient = true;
    }

    /// The number of the message to be delivered next, once that is known.
    pub(super) fn next(&self) -> Option<u32> {
        self.next.filter(|_| self.start == Start::Known)
    }

    /// What is numbered below was delivered.
    pub(super) fn delivered(&self) -> u32 {
        self.next().unwrap_or(self.barrier)
    }

    /// Bytes of what waits.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether a message is wanted, if that makes `buffered` bytes that wait in all.
    pub(super) fn offer(&self, id: u32, buffered: u64) -> Offer {
        if id < self.barrier {
            return Offer::Duplicate;
        }
        let next = match (self.start, self.next) {
            (_, None) => id,
            (Start::Known, Some(next)) => next,
            (_, Some(next)) if self.end().saturating_sub(id) <= BUFFERED_MESSAGES as u32 => {
                next.min(id)
            }
            (_, Some(next)) => next,
        };
        if id < next {
            return match self.skipped.iter().any(|lost| lost.contains(&id)) {
                true => Offer::Skipped,
                false => Offer::Duplicate,
            };
        }
        match self.slots.get(&id) {
            Some(Slot::Here(_)) => Offer::Duplicate,
            Some(Slot::Lost) => Offer::Skipped,
            _ if id < self.floor => Offer::Skipped,
            _ if id > next && buffered > BUFFERED_BYTES => Offer::NoRoom,
            _ => Offer::Wanted,
        }
    }

    /// Takes a message that is wanted.
    pub(super) fn put(&mut self, now: Instant, packet: Box<Packet>) {
        let id = packet.ids.message;
        self.hear(now, id);
        self.bytes += packet.bytes() as u64;
        self.set(id, Slot::Here(packet));
        if self.next == Some(id) {
            self.probe(now);
        }
    }

    /// Takes a message that is wanted but cannot be opened yet.
    pub(super) fn put_sealed(&mut self, now: Instant, packet: Box<Packet>) {
        let sealed = |slot: &&Slot| matches!(slot, Slot::Sealed(..));
        if self.slots.values().filter(sealed).count() >= SEALED_MESSAGES {
            return;
        }
        let id = packet.ids.message;
        self.hear(now, id);
        let timeout = match self.order {
            Order::AsTheyCome => return,
            Order::Sequence { timeout, .. } => timeout,
        };
        // A group that changes often must not put off that it is asked for.
        let hole = match self.slots.get(&id) {
            Some(Slot::Hole(hole) | Slot::Sealed(_, hole)) => *hole,
            _ => Hole { deadline: now + timeout, asked: 0 },
        };
        self.bytes += packet.bytes() as u64;
        self.set(id, Slot::Sealed(packet, hole));
        if self.next == Some(id) {
            self.probe(now);
        }
    }

    /// Takes all out that could not be opened, to be tried again. Their places are kept.
    pub(super) fn take_sealed(&mut self) -> Vec<Packet> {
        let mut sealed = Vec::new();
        for slot in self.slots.values_mut() {
            let Slot::Sealed(_, hole) = slot else { continue };
            let hole = Slot::Hole(*hole);
            if let Slot::Sealed(packet, _) = std::mem::replace(slot, hole) {
                self.bytes -= packet.bytes() as u64;
                sealed.push(*packet);
            }
        }
        sealed
    }

    /// The sender says that its last message is `id`.
    pub(super) fn announce(&mut self, now: Instant, id: u32) {
        let low = self.barrier.max(self.floor).max(self.next.unwrap_or(0));
        let known = id < low;
        if self.order == Order::AsTheyCome || known {
            return;
        }
        let first = self.next.is_none();
        self.reach(now, id);
        let hole = self.hole(now);
        if self.next.is_none_or(|next| id >= next) {
            self.next.get_or_insert(id);
            self.slots.entry(id).or_insert(Slot::Hole(hole));
        }
        if let (true, Start::Probing { heard, .. }) = (first, &mut self.start) {
            *heard = id.saturating_add(1);
        }
    }

    /// The sender says that it cannot send `id` again.
    pub(super) fn lose(&mut self, id: u32) {
        if self.begin_after(id) {
            return;
        }
        if let Some(slot @ (Slot::Hole(_) | Slot::Sealed(..))) = self.slots.get_mut(&id) {
            let old = std::mem::replace(slot, Slot::Lost);
            self.release(&old);
        }
    }

    fn hole(&self, now: Instant) -> Hole {
        let wait = match self.order {
            Order::AsTheyCome => Duration::ZERO,
            Order::Sequence { ask_after, .. } => ask_after,
        };
        Hole { deadline: now + wait, asked: 0 }
    }

    fn hear(&mut self, now: Instant, id: u32) {
        if let Start::Probing { heard, .. } = &mut self.start {
            *heard = id.min(*heard);
        }
        self.reach(now, id);
    }

    /// Makes room up to `id`, with holes for what is missing before it.
    fn reach(&mut self, now: Instant, id: u32) {
        let next = *self.next.get_or_insert(id);
        match &mut self.start {
            Start::Undecided(until) => _ = until.get_or_insert(now + UNDECIDED),
            Start::Probing { .. } | Start::Known => {}
        }
        if id < next && self.start != Start::Known {
            let hole = self.hole(now);
            for missing in id + 1..next {
                self.slots.entry(missing).or_insert(Slot::Hole(hole));
            }
            self.next = Some(id);
            return;
        }
        if self.order == Order::AsTheyCome {
            if id > next {
                self.next = Some(id);
            }
            return;
        }
        let oldest = id.saturating_sub(BUFFERED_MESSAGES as u32 - 1);
        if oldest > next.max(self.floor) {
            self.skip_to(oldest);
        }
        let first = self.end().max(next).max(self.floor);
        let hole = self.hole(now);
        for missing in first..id {
            self.slots.insert(missing, Slot::Hole(hole));
        }
    }

    /// Gives up what is missing before `oldest`. What is there waits for its delivery.
    fn skip_to(&mut self, oldest: u32) {
        self.floor = oldest;
        if let Start::Probing { heard, .. } = self.start {
            (self.next, self.start) = (self.next.map(|next| next.max(heard)), Start::Known);
        }
        let missing = |(_, slot): &(&u32, &Slot)| !matches!(slot, Slot::Here(_));
        let missing = self.slots.range(..oldest).filter(missing).map(|(id, _)| *id);
        for id in missing.collect::<Vec<_>>() {
            if let Some(slot) = self.slots.remove(&id) {
                self.release(&slot);
            }
        }
    }

    fn set(&mut self, id: u32, slot: Slot) {
        if let Some(old) = self.slots.insert(id, slot) {
            self.release(&old);
        }
    }

    fn release(&mut self, slot: &Slot) {
        if let Slot::Here(packet) | Slot::Sealed(packet, _) = slot {
            self.bytes = self.bytes.saturating_sub(packet.bytes() as u64);
        }
    }

    /// The next message in order, or how many are lost in its place.
    pub(super) fn pop(&mut self) -> Option<Delivery> {
        let next = self.next()?;
        let lost = match self.slots.get(&next) {
            Some(Slot::Here(_)) => return self.pop_here(next),
            Some(Slot::Lost) => self.lost_from(next),
            _ if next < self.floor => self.lost_from(next),
            _ => return None,
        };
        self.slots.retain(|id, _| *id >= lost);
        if self.skipped.len() == REMEMBERED {
            self.skipped.remove(0);
        }
        self.skipped.push(next..lost);
        self.next = Some(lost);
        Some(Delivery::Lost(lost - next))
    }

    fn pop_here(&mut self, next: u32) -> Option<Delivery> {
        let slot = self.slots.remove(&next)?;
        self.release(&slot);
        self.next = next.checked_add(1);
        match slot {
            Slot::Here(packet) => Some(Delivery::Message(packet)),
            _ => None,
        }
    }

    /// The first number from `next` on that is not lost.
    fn lost_from(&self, next: u32) -> u32 {
        let mut end = next;
        for (id, slot) in self.slots.range(next..) {
            end = end.max(self.floor.min(*id));
            let given_up = *id < self.floor && !matches!(slot, Slot::Here(_));
            if *id != end || !(given_up || matches!(slot, Slot::Lost)) {
                return end;
            }
            end += 1;
        }
        end.max(self.floor)
    }

    /// The numbers to be asked for now, and whether only if they are meant for this receiver.
    /// What was asked for often enough is lost.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(u32, bool)> {
        if let Start::Undecided(Some(until)) = self.start
            && until <= now
        {
            self.start = Start::Known;
        }
        let Order::Sequence { timeout, max_retries, .. } = self.order else { return Vec::new() };
        let most = match self.patient {
            true => max_retries.map(|most| most.max(PATIENT_RETRIES)),
            false => max_retries,
        };
        let heard = match self.start {
            Start::Probing { heard, .. } => heard,
            _ => 0,
        };
        let (mut ask, mut unheard) = (Vec::new(), None);
        let mut freed = 0;
        for (id, slot) in &mut self.slots {
            let (Slot::Hole(hole) | Slot::Sealed(_, hole)) = slot else { continue };
            if hole.deadline > now {
                continue;
            }
            if most.is_some_and(|most| hole.asked > most) {
                if *id < heard && matches!(slot, Slot::Hole(_)) {
                    unheard = Some(*id);
                    continue;
                }
                if let Slot::Sealed(packet, _) = slot {
                    freed += packet.bytes() as u64;
                }
                *slot = Slot::Lost;
                continue;
            }
            hole.asked = hole.asked.saturating_add(1);
            hole.deadline = now + timeout;
            ask.push((*id, *id < heard));
        }
        self.bytes = self.bytes.saturating_sub(freed);
        if let Some(id) = unheard {
            self.lose(id);
            ask.retain(|(asked, _)| *asked > id);
        }
        ask
    }

    /// The link is back: all is due, and counts anew.
    pub(super) fn resume(&mut self, now: Instant) {
        for slot in self.slots.values_mut() {
            if let Slot::Hole(hole) | Slot::Sealed(_, hole) = slot {
                *hole = Hole { deadline: now, asked: 0 };
            }
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let deadline = |slot: &Slot| match slot {
            Slot::Hole(hole) | Slot::Sealed(_, hole) => Some(hole.deadline),
            Slot::Here(_) | Slot::Lost => None,
        };
        let undecided = match self.start {
            Start::Undecided(until) => until,
            _ => None,
        };
        earlier(self.slots.values().filter_map(deadline).min(), undecided)
    }
}

#[cfg(test)]
mod tests;
