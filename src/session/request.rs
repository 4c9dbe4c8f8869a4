//! Requests of the handshakes: sent again until they are answered, or given up.

use std::time::Instant;

use slim_wire::Name;

use super::config::{REQUEST_INTERVAL, REQUEST_RETRIES};
use super::packet::Packet;

/// What a request asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asks {
    Discovery,
    Join,
    Welcome,
    Commit,
    Proposal,
    Leave,
    Roster,
}

/// A request that is not fully answered yet.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) asks: Asks,
    pub(super) packet: Packet,
    /// Who has yet to answer. Empty: whoever it reaches.
    pub(super) awaited: Vec<Name>,
    /// Who should answer too, but is not waited for after a few tries.
    pub(super) optional: Option<Name>,
    deadline: Instant,
    retries: u32,
}

/// What became of a request.
#[derive(Debug)]
pub(super) enum Outcome {
    /// All have answered.
    Answered(Request),
    /// It was sent often enough; those in `awaited` have not answered.
    GivenUp(Request),
}

/// Tries after which who is optional is not waited for.
const OPTIONAL_RETRIES: u32 = 3;

#[derive(Debug, Default)]
pub(super) struct Requests(Vec<Request>);

impl Requests {
    /// Keeps a request that is being sent now.
    pub(super) fn add(&mut self, now: Instant, asks: Asks, packet: Packet, awaited: Vec<Name>) {
        let deadline = now + REQUEST_INTERVAL;
        self.0.push(Request { asks, packet, awaited, optional: None, deadline, retries: 0 });
    }

    /// Lets the last one added also wait a little for `name`.
    pub(super) fn also_await(&mut self, name: Name) {
        if let Some(request) = self.0.last_mut() {
            request.optional = Some(name);
        }
    }

    /// Somebody answers; the request, if that was the last answer it waited for.
    pub(super) fn answer(&mut self, asks: Asks, id: u32, from: Name) -> Option<Request> {
        let is_it = |request: &Request| request.asks == asks && request.packet.ids.message == id;
        let position = self.0.iter().position(is_it)?;
        let request = &mut self.0[position];
        if request.awaited.is_empty() && request.optional.is_none() {
            return Some(self.0.remove(position));
        }
        request.awaited.retain(|name| *name != from);
        request.optional = request.optional.filter(|name| *name != from);
        request.is_answered().then(|| self.0.remove(position))
    }

    /// Drops requests of a kind.
    pub(super) fn cancel(&mut self, asks: Asks, id: u32) {
        self.0.retain(|request| request.asks != asks || request.packet.ids.message != id);
    }

    /// Drops all requests of a kind. Whether there were any.
    pub(super) fn cancel_each(&mut self, asks: Asks) -> bool {
        let before = self.0.len();
        self.0.retain(|request| request.asks != asks);
        self.0.len() < before
    }

    pub(super) fn cancel_all(&mut self) {
        self.0.clear();
    }

    /// What is to be sent again, and what is given up.
    pub(super) fn due(&mut self, now: Instant) -> (Vec<Packet>, Vec<Outcome>) {
        let (mut again, mut outcomes) = (Vec::new(), Vec::new());
        let mut index = 0;
        while let Some(request) = self.0.get_mut(index) {
            if request.deadline > now {
                index += 1;
                continue;
            }
            if request.optional.is_some() && request.retries >= OPTIONAL_RETRIES {
                request.optional = None;
                if request.awaited.is_empty() {
                    outcomes.push(Outcome::Answered(self.0.remove(index)));
                    continue;
                }
            }
            if request.retries == REQUEST_RETRIES {
                outcomes.push(Outcome::GivenUp(self.0.remove(index)));
                continue;
            }
            request.retries += 1;
            request.deadline = now + REQUEST_INTERVAL;
            again.push(request.packet.clone());
            index += 1;
        }
        (again, outcomes)
    }

    /// The link is back: everything is due, and counts anew.
    pub(super) fn resume(&mut self, now: Instant) {
        for request in &mut self.0 {
            (request.deadline, request.retries) = (now, 0);
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.iter().map(|request| request.deadline).min()
    }

    /// Whether `name` has yet to answer such a request.
    pub(super) fn awaits(&self, asks: Asks, name: Name) -> bool {
        let is_it = |request: &Request| request.asks == asks && request.awaited.contains(&name);
        self.0.iter().any(is_it)
    }

    /// Who has yet to answer such a request.
    pub(super) fn awaited(&self, asks: Asks) -> impl Iterator<Item = Name> {
        let of = self.0.iter().filter(move |request| request.asks == asks);
        of.flat_map(|request| request.awaited.iter().copied())
    }

    pub(super) fn contains(&self, asks: Asks) -> bool {
        self.0.iter().any(|request| request.asks == asks)
    }
}

impl Request {
    fn is_answered(&self) -> bool {
        self.awaited.is_empty() && self.optional.is_none()
    }
}
