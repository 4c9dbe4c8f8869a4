//! What happened, for people and for comparing two runs.

use std::collections::VecDeque;
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use slim_quic::session::Packet;
use slim_wire::session::Content;

struct Line {
    at: Duration,
    app: usize,
    what: &'static str,
    /// What a message is.
    content: &'static str,
    session: u32,
    message: u32,
    other: u64,
}

pub(crate) struct Trace {
    lines: VecDeque<Line>,
    keep: usize,
    hash: DefaultHasher,
    pub(crate) count: u64,
}

impl Trace {
    /// Keeps the last `keep` lines.
    pub(crate) fn new(keep: usize) -> Self {
        Self { lines: VecDeque::new(), keep, hash: DefaultHasher::new(), count: 0 }
    }

    pub(crate) fn note(
        &mut self,
        at: Duration,
        app: usize,
        what: &'static str,
        (session, message): (u32, u32),
        other: u64,
    ) {
        self.push(Line { at, app, what, content: "", session, message, other });
    }

    pub(crate) fn packet(
        &mut self,
        at: Duration,
        app: usize,
        what: &'static str,
        packet: &Packet,
        to: u64,
    ) {
        let (session, message) = (packet.ids.session, packet.ids.message);
        let content = tag(&packet.session.content);
        self.push(Line { at, app, what, content, session, message, other: to });
    }

    fn push(&mut self, line: Line) {
        let Line { at, app, what, content, session, message, other } = &line;
        (at, app, what, content, session, message, other).hash(&mut self.hash);
        self.count += 1;
        if self.lines.len() == self.keep {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// The same for the same run.
    pub(crate) fn hash(&self) -> u64 {
        self.hash.finish()
    }

    pub(crate) fn tail(&self) -> String {
        let mut text = String::new();
        for line in &self.lines {
            let Line { at, app, what, content, session, message, other } = line;
            let at = at.as_secs_f64();
            let _ = writeln!(
                text,
                "{at:10.3} app {app} {what} {content} session={session} message={message} {other:x}"
            );
        }
        text
    }
}

fn tag(content: &Content) -> &'static str {
    match content {
        Content::Data(_) => "data",
        Content::Ack => "ack",
        Content::RetransmissionRequest => "retransmission-request",
        Content::RetransmissionReply => "retransmission-reply",
        Content::Beacon => "beacon",
        Content::DiscoveryRequest { .. } => "discovery-request",
        Content::DiscoveryReply => "discovery-reply",
        Content::JoinRequest { .. } => "join-request",
        Content::JoinReply => "join-reply",
        Content::LeaveRequest { .. } => "leave-request",
        Content::LeaveReply => "leave-reply",
        Content::Welcome { .. } => "welcome",
        Content::Commit => "commit",
        Content::Proposal { .. } => "proposal",
        Content::ControlAck { busy: false } => "control-ack",
        Content::ControlAck { busy: true } => "busy",
        Content::Foreign { .. } => "foreign",
        Content::Roster { .. } => "roster",
    }
}
