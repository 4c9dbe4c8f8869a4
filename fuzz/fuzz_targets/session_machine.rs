//! Sessions of one app, driven by operations and by whatever packets arrive: no panic, and no more
//! is kept or sent than the limits allow.

#![no_main]

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use rand::SeedableRng;
use rand::rngs::StdRng;
use slim_quic::identity::{Identity, IdentityError, Principal, Standing, TokenCheck, TokenSource};
use slim_quic::mls::Factory;
use slim_quic::session::{
    Config, ControlPlane, Endpoint, Limits, LinkId, Now, Output, Packet, Publication, Setup,
};
use slim_wire::session::{Content, access};
use slim_wire::{Class, Flags, Id, Name, SessionIds, TextName};

const LINK: LinkId = LinkId(0);
const INBOX: usize = 16;

#[derive(Arbitrary, Debug)]
enum Operation {
    Create {
        kind: u8,
        encrypted: bool,
        reliable: bool,
    },
    Publish {
        session: u8,
        bytes: u8,
    },
    Invite {
        session: u8,
        id: u8,
    },
    Remove {
        session: u8,
        id: u8,
    },
    Delete {
        session: u8,
    },
    Read {
        session: u8,
    },
    LinkDown,
    LinkUp,
    Pass {
        milliseconds: u16,
    },
    /// A packet with this session part. Its numbers are near those that were sent.
    Arrives {
        session: u8,
        message: u8,
        from: u8,
        to: u8,
        error: bool,
        part: Vec<u8>,
        payload: Vec<u8>,
    },
    /// What was sent comes back, as somebody else's, with another content.
    Echo {
        of: u8,
        content: u8,
        from: u8,
        payload: Vec<u8>,
    },
}

struct Plain;

impl TokenSource for Plain {
    fn token(&self, _: SystemTime) -> Result<Arc<str>, IdentityError> {
        Ok("token".into())
    }
}

impl TokenCheck for Plain {
    fn check(&self, _: &str, _: SystemTime) -> Result<Principal, IdentityError> {
        Ok(Principal { subject: "anybody".into(), issuer: None })
    }

    fn check_credential(
        &self,
        credential: &str,
        _: &[u8],
        _: Standing,
        now: SystemTime,
    ) -> Result<Principal, IdentityError> {
        self.check(credential, now)
    }
}

struct App {
    endpoint: Endpoint,
    start: (Instant, SystemTime),
    elapsed: Duration,
    sessions: Vec<u32>,
    sent: Vec<Packet>,
}

fn name(id: u8) -> TextName {
    TextName::new(["org", "ns", "other"], Id::new(id.into())).expect("short")
}

fuzz_target!(|operations: Vec<Operation>| {
    let tokens = Arc::new(Plain);
    let identity = Identity { source: tokens.clone(), check: tokens };
    let endpoint = Endpoint::new(Setup {
        name: "org/ns/app/1".parse().expect("a name"),
        mls: Box::new(Factory::new(identity.clone())),
        store: false,
        control_plane: ControlPlane::FromSubject("anybody".into()),
        identity,
        rng: Box::new(StdRng::seed_from_u64(7)),
        limits: Limits { sessions: 8, inbox_messages: INBOX, ..Limits::default() },
    });
    let start = (Instant::now(), SystemTime::now());
    let elapsed = Duration::ZERO;
    let mut app = App { endpoint, start, elapsed, sessions: Vec::new(), sent: Vec::new() };
    app.endpoint.link_up(app.now(), LINK);
    for operation in operations.into_iter().take(64) {
        app.perform(operation);
        app.settle();
    }
});

impl App {
    fn now(&self) -> Now {
        Now { instant: self.start.0 + self.elapsed, wall: self.start.1 + self.elapsed }
    }

    fn session(&self, index: u8) -> u32 {
        let known = self.sessions.get(usize::from(index) % self.sessions.len().max(1));
        known.copied().unwrap_or(index.into())
    }

    fn perform(&mut self, operation: Operation) {
        let now = self.now();
        match operation {
            Operation::Create { kind, encrypted, reliable } => {
                let mut config = match kind % 3 {
                    0 => Config::anycast(),
                    1 => Config::point_to_point(&name(kind)),
                    _ => Config::group(&"org/ns/channel".parse().expect("a name")),
                };
                config.mls = encrypted;
                if reliable {
                    config = config.reliable(Duration::from_secs(1), Some(2));
                }
                self.sessions.extend(self.endpoint.create(now, config));
            }
            Operation::Publish { session, bytes } => {
                let payload = vec![7; bytes.into()].into();
                let publication = Publication { payload, ..Publication::default() };
                _ = self.endpoint.publish(now, self.session(session), publication);
            }
            Operation::Invite { session, id } => {
                _ = self.endpoint.invite(now, self.session(session), &name(id));
            }
            Operation::Remove { session, id } => {
                _ = self.endpoint.remove(now, self.session(session), &name(id));
            }
            Operation::Delete { session } => _ = self.endpoint.delete(now, self.session(session)),
            Operation::Read { session } => {
                let session = self.session(session);
                let mut read = 0;
                while let Ok(Some(_)) = self.endpoint.next_event(now, session) {
                    read += 1;
                    assert!(read < 100_000, "an inbox without end");
                }
            }
            Operation::LinkDown => self.endpoint.link_down(now, LINK),
            Operation::LinkUp => self.endpoint.link_up(now, LINK),
            Operation::Pass { milliseconds } => {
                self.elapsed += Duration::from_millis(milliseconds.into());
                self.endpoint.due(self.now());
            }
            Operation::Arrives { session, message, from, to, error, part, payload } => {
                let Ok(Ok(mut part)) = access(&part).map(|part| part.to_session()) else { return };
                part.identity = Some("token".to_owned());
                let own = self.endpoint.name().to_name();
                let destination = if to % 4 == 0 { name(to).to_name() } else { own };
                let ids = SessionIds { session: self.session(session), message: message.into() };
                let flags = if error { Flags::ERROR } else { Flags::empty() };
                let packet = Packet {
                    source: name(from).to_name(),
                    destination,
                    fanout: 1,
                    class: Class::Control,
                    flags,
                    ids,
                    session: part,
                    payload: payload.into(),
                };
                self.endpoint.handle(now, LINK, packet);
            }
            Operation::Echo { of, content, from, payload } => self.echo(of, content, from, payload),
        }
    }

    fn echo(&mut self, of: u8, content: u8, from: u8, payload: Vec<u8>) {
        let Some(sent) = self.sent.get(usize::from(of) % self.sent.len().max(1)) else { return };
        let mut packet = sent.clone();
        let asked = packet.destination;
        let id = if asked.id.is_any() { Id::new(from.into()) } else { asked.id };
        (packet.source, packet.destination) = (Name { id, ..asked }, packet.source);
        packet.session.content = match content % 12 {
            0 => Content::DiscoveryReply,
            1 => Content::JoinReply,
            2 => Content::Ack,
            3 => Content::ControlAck { busy: of % 2 == 0 },
            4 => Content::RetransmissionRequest,
            5 => Content::RetransmissionReply,
            6 => Content::LeaveReply,
            7 => Content::Welcome { commit: from.into() },
            8 => Content::Commit,
            9 => Content::Beacon,
            10 => Content::LeaveRequest { participant: None, delete_group: false },
            _ => packet.session.content,
        };
        if content >= 128 {
            packet.payload = payload.into();
        }
        let now = self.now();
        self.endpoint.handle(now, LINK, packet);
    }

    fn settle(&mut self) {
        let mut outputs = 0;
        while let Some(output) = self.endpoint.poll_output() {
            outputs += 1;
            match output {
                Output::Send(_, packet) if self.sent.len() < 256 => self.sent.push(*packet),
                Output::Opened(id) => {
                    self.endpoint.accept();
                    self.sessions.push(id);
                }
                _ => {}
            }
        }
        assert!(outputs < 20_000, "{outputs} outputs at once");
    }
}
