//! What strangers with good tokens can do to sessions of others, and what does not last for ever.

#[allow(dead_code, reason = "each topic uses its part of this module")]
#[path = "../support/exchange.rs"]
mod exchange;
mod lasting;
#[path = "../support/model_mls.rs"]
mod model_mls;

use std::time::Duration;

use bytes::Bytes;
use exchange::{Exchange, LINK, text};
use slim_quic::session::{
    Config, Endpoint, Event, Limits, LinkId, Now, Output, Packet, Publication, SessionError,
};
use slim_wire::session::{Content, Delivery, FullName, RosterMember, Session, SessionKind};
use slim_wire::{Class, Flags, Name, SessionIds};

const ALICE: &str = "org/ns/alice/1";
const BOB: &str = "org/ns/bob/2";
const CAROL: &str = "org/ns/carol/3";
const MALLORY: &str = "org/ns/mallory/66";

fn name(full: &str) -> Name {
    text(full).to_name()
}

/// A packet with a valid token of Mallory; `source` is whatever she writes.
fn forged(
    source: &str,
    to: &str,
    session: u32,
    message: u32,
    kind: SessionKind,
    content: Content,
) -> Packet {
    Packet {
        source: name(source),
        destination: name(to),
        fanout: 1,
        class: Class::Control,
        flags: Flags::empty(),
        ids: SessionIds { session, message },
        session: Session {
            kind,
            content,
            identity: Some("secret:mallory".into()),
            ..Session::default()
        },
        payload: Bytes::new(),
    }
}

/// The links on which a message of the app leaves.
fn links_of_data(app: &mut Endpoint, now: Now, session: u32) -> Vec<LinkId> {
    let publication = Publication { payload: "x".into(), ..Publication::default() };
    app.publish(now, session, publication).expect("room");
    let link = |output| match output {
        Output::Send(link, packet) if matches!(packet.session.content, Content::Data(_)) => {
            Some(link)
        }
        _ => None,
    };
    std::iter::from_fn(|| app.poll_output()).filter_map(link).collect()
}

fn hand(exchange: &mut Exchange, app: &str, packet: Packet) {
    exchange.with(app, |app, now| app.handle(now, LINK, packet));
}

fn try_publish(
    exchange: &mut Exchange,
    app: &str,
    session: u32,
    text: &str,
) -> Result<u32, SessionError> {
    let publication = Publication { payload: text.to_owned().into(), ..Publication::default() };
    exchange.with(app, |app, now| app.publish(now, session, publication))
}

fn publish(exchange: &mut Exchange, app: &str, session: u32, text: &str) -> u32 {
    try_publish(exchange, app, session, text).expect("there is room")
}

fn create(exchange: &mut Exchange, app: &str, config: Config) -> u32 {
    exchange.with(app, |app, now| app.create(now, config)).expect("a session")
}

fn invite(exchange: &mut Exchange, session: u32, who: &str) {
    exchange.with(ALICE, |app, now| app.invite(now, session, &text(who))).expect("starts");
}

/// Alice moderates, Bob and Carol take part, encrypted.
fn group(exchange: &mut Exchange) -> u32 {
    [ALICE, BOB, CAROL, MALLORY].iter().for_each(|name| exchange.join(name));
    let session = create(exchange, ALICE, Config::group(&text("org/ns/channel")).encrypted());
    invite(exchange, session, "org/ns/bob");
    invite(exchange, session, "org/ns/carol");
    exchange.app(BOB).accept().expect("bob");
    exchange.app(CAROL).accept().expect("carol");
    exchange.read(BOB, session);
    exchange.read(CAROL, session);
    session
}

#[test]
fn two_beacons_with_the_last_number_do_not_panic() {
    let mut exchange = Exchange::default();
    let session = group(&mut exchange);
    for _ in 0..2 {
        let beacon =
            forged("org/ns/ghost/9", BOB, session, u32::MAX, SessionKind::Group, Content::Beacon);
        hand(&mut exchange, BOB, beacon);
    }
}

#[test]
fn peer_data_with_the_last_number_does_not_panic() {
    let mut exchange = Exchange::default();
    [ALICE, BOB].iter().for_each(|name| exchange.join(name));
    let config =
        Config::point_to_point(&text("org/ns/bob")).reliable(Duration::from_secs(1), Some(3));
    let session = create(&mut exchange, ALICE, config);
    publish(&mut exchange, ALICE, session, "x");
    for id in [u32::MAX, u32::MAX - 1] {
        let data = forged(
            BOB,
            ALICE,
            session,
            id,
            SessionKind::PointToPoint,
            Content::Data(Delivery::Reliable),
        );
        hand(&mut exchange, ALICE, data);
    }
    exchange.pass(Duration::from_secs(60));
    exchange.read(ALICE, session);
}

#[test]
fn a_strangers_acknowledgement_does_not_block_publishing() {
    let mut exchange = Exchange::default();
    let session = group(&mut exchange);
    let ack = forged("org/ns/ghost/9", BOB, session, 0, SessionKind::Group, Content::Ack);
    hand(&mut exchange, BOB, ack);
    let mut refused = None;
    for number in 0..600 {
        if let Err(error) = try_publish(&mut exchange, BOB, session, "x") {
            refused = Some((number, error));
            break;
        }
        exchange.read(ALICE, session);
        exchange.read(CAROL, session);
        exchange.pass(Duration::from_millis(50));
    }
    exchange.pass(Duration::from_secs(62));
    let events = exchange.read(BOB, session);
    assert_eq!((refused, events), (None, vec![]));
}

#[test]
fn a_strangers_beacon_in_a_members_name_loses_nothing() {
    let mut exchange = Exchange::default();
    let session = group(&mut exchange);
    publish(&mut exchange, ALICE, session, "first");
    assert_eq!(exchange.texts(BOB, session), ["first"]);
    let beacon = forged(ALICE, BOB, session, 1_000_000, SessionKind::Group, Content::Beacon);
    hand(&mut exchange, BOB, beacon);
    for number in 0..5 {
        publish(&mut exchange, ALICE, session, &format!("{number}"));
    }
    exchange.pass(Duration::from_secs(200));
    let events = exchange.read(BOB, session);
    let heard = events.iter().filter(|event| matches!(event, Event::Message(..))).count();
    assert_eq!(heard, 5, "{} events, the first: {:?}", events.len(), events.first());
}

#[test]
fn a_strangers_garbage_in_a_members_name_loses_nothing() {
    let mut exchange = Exchange::default();
    let session = group(&mut exchange);
    publish(&mut exchange, ALICE, session, "first");
    assert_eq!(exchange.texts(BOB, session), ["first"]);
    let mut data =
        forged(ALICE, BOB, session, 1_000_000, SessionKind::Group, Content::Data(Delivery::Group));
    data.session.encrypted = true;
    data.payload = Bytes::from_static(b"garbage");
    hand(&mut exchange, BOB, data);
    for number in 0..5 {
        publish(&mut exchange, ALICE, session, &format!("{number}"));
    }
    exchange.pass(Duration::from_secs(200));
    let events = exchange.read(BOB, session);
    let heard = events.iter().filter(|event| matches!(event, Event::Message(..))).count();
    assert_eq!(heard, 5, "{} events, the first: {:?}", events.len(), events.first());
}

#[test]
fn one_beacon_is_not_answered_with_thousands_of_requests() {
    let mut exchange = Exchange::default();
    let session = group(&mut exchange);
    let before = exchange.sent.len();
    hand(
        &mut exchange,
        BOB,
        forged("org/ns/victim/9", BOB, session, 0, SessionKind::Group, Content::Beacon),
    );
    hand(
        &mut exchange,
        BOB,
        forged("org/ns/victim/9", BOB, session, 100_000, SessionKind::Group, Content::Beacon),
    );
    exchange.pass(Duration::from_secs(120));
    let to_victim =
        exchange.sent[before..].iter().filter(|p| p.destination == name("org/ns/victim/9")).count();
    assert!(to_victim < 1000, "{to_victim} packets to a third party for 2");
}

#[test]
fn a_stranger_cannot_have_itself_invited_into_an_encrypted_group() {
    let mut exchange = Exchange::default();
    let session = group(&mut exchange);
    let participant = Some(Box::new(FullName::from(&text(MALLORY))));
    let content = Content::DiscoveryRequest { requester: None, participant };
    hand(&mut exchange, ALICE, forged(MALLORY, ALICE, session, 5, SessionKind::Group, content));
    publish(&mut exchange, ALICE, session, "confidential");
    assert_eq!(exchange.texts(MALLORY, session), Vec::<String>::new());
}

#[test]
fn a_stranger_cannot_take_over_a_route() {
    let mut exchange = Exchange::default();
    let session = group(&mut exchange);
    let participant = Some(Box::new(FullName::from(&text("org/ns/channel"))));
    let content = Content::DiscoveryRequest { requester: None, participant };
    let packet = forged(MALLORY, ALICE, session, 5, SessionKind::Group, content);
    let now = exchange.now();
    let alice = exchange.app(ALICE);
    alice.link_up(now, LinkId(7));
    while alice.poll_output().is_some() {}
    alice.handle(now, LinkId(7), packet);
    while alice.poll_output().is_some() {}
    assert_eq!(links_of_data(alice, now, session), [LINK]);
}

#[test]
fn a_strangers_join_request_does_not_move_a_session_to_its_link() {
    let mut exchange = Exchange::default();
    let session = group(&mut exchange);
    let content = Content::JoinRequest {
        channel: Box::new(FullName::from(&text("org/ns/other"))),
        moderator: Box::new(FullName::from(&text(MALLORY))),
        mls: true,
        as_moderator: false,
    };
    let packet = forged(MALLORY, BOB, session, 5, SessionKind::Group, content);
    let now = exchange.now();
    let bob = exchange.app(BOB);
    bob.link_up(now, LinkId(7));
    while bob.poll_output().is_some() {}
    bob.handle(now, LinkId(7), packet);
    assert_eq!(links_of_data(bob, now, session), [LINK]);
}

#[test]
fn a_stranger_does_not_dismiss_a_member_by_the_moderators_name() {
    let mut exchange = Exchange::default();
    let session = group(&mut exchange);
    let content = Content::LeaveRequest { participant: None, delete_group: false };
    hand(&mut exchange, BOB, forged(ALICE, BOB, session, 5, SessionKind::Group, content));
    publish(&mut exchange, ALICE, session, "still here?");
    assert_eq!(exchange.texts(BOB, session), ["still here?"]);
}

#[test]
fn a_stranger_does_not_put_a_member_out_by_another_join_request() {
    let mut exchange = Exchange::default();
    let session = group(&mut exchange);
    let content = Content::JoinRequest {
        channel: Box::new(FullName::from(&text("org/ns/channel"))),
        moderator: Box::new(FullName::from(&text(ALICE))),
        mls: true,
        as_moderator: false,
    };
    hand(&mut exchange, BOB, forged(ALICE, BOB, session, 5, SessionKind::Group, content));
    for _ in 0..3 {
        publish(&mut exchange, ALICE, session, "still here?");
        exchange.pass(Duration::from_secs(100));
    }
    assert_eq!(exchange.texts(BOB, session).len(), 3);
}

#[test]
fn a_strangers_roster_does_not_fill_the_inbox() {
    let mut exchange = Exchange::default();
    let session = group(&mut exchange);
    for round in 0..20u32 {
        let members = (0..700u64)
            .map(|n| RosterMember {
                name: Name {
                    id: slim_wire::Id::from_u64(n + 1000 * u64::from(round)),
                    ..name("org/ns/x/1")
                }
                .into(),
                native: true,
                identity: "".into(),
            })
            .collect();
        hand(
            &mut exchange,
            BOB,
            forged(
                ALICE,
                BOB,
                session,
                (1 << 31) + 1000 + round,
                SessionKind::Group,
                Content::Roster { members },
            ),
        );
    }
    let events = exchange.read(BOB, session).len();
    assert!(events <= Limits::default().inbox_messages, "{events} events wait");
}

#[test]
fn a_strangers_retransmission_reply_does_not_lose_messages() {
    let mut exchange = Exchange::default();
    let session = group(&mut exchange);
    publish(&mut exchange, ALICE, session, "0");
    exchange.lose = Box::new(|packet, app| app == BOB && !packet.payload.is_empty());
    publish(&mut exchange, ALICE, session, "1");
    exchange.lose = Box::new(|packet, app| {
        app == BOB && packet.session.content == Content::RetransmissionReply
    });
    publish(&mut exchange, ALICE, session, "2");
    let mut reply =
        forged(ALICE, BOB, session, 1, SessionKind::Group, Content::RetransmissionReply);
    reply.flags = Flags::ERROR;
    hand(&mut exchange, BOB, reply);
    exchange.lose = Box::new(|_, _| false);
    exchange.pass(Duration::from_secs(30));
    assert_eq!(exchange.texts(BOB, session), ["0", "1", "2"]);
}

#[test]
fn a_stranger_cannot_take_a_sessions_number_before_the_moderator_invites() {
    let mut exchange = Exchange::default();
    [ALICE, BOB].iter().for_each(|name| exchange.join(name));
    let session = create(&mut exchange, ALICE, Config::group(&text("org/ns/channel")).encrypted());
    hand(
        &mut exchange,
        BOB,
        forged(
            MALLORY,
            BOB,
            session,
            0,
            SessionKind::PointToPoint,
            Content::Data(Delivery::Unreliable),
        ),
    );
    invite(&mut exchange, session, "org/ns/bob");
    exchange.pass(Duration::from_secs(70));
    assert!(exchange.completed[0].2.is_ok(), "{:?}", exchange.completed);
}

#[test]
fn many_forged_senders_do_not_make_a_new_member_unheard() {
    let mut exchange = Exchange::default();
    let session = group(&mut exchange);
    for n in 0..5000u64 {
        let mut p = forged(MALLORY, BOB, session, 0, SessionKind::Group, Content::Beacon);
        p.source = Name { id: slim_wire::Id::from_u64(n + 10), ..name("org/ns/x/1") };
        hand(&mut exchange, BOB, p);
    }
    exchange.app(BOB);
    publish(&mut exchange, CAROL, session, "do you hear me?");
    exchange.pass(Duration::from_secs(130));
    let heard = exchange.texts(BOB, session);
    assert_eq!(heard, ["do you hear me?"]);
}

#[test]
fn close_reason_of_a_forged_error_ack_is_not_believed() {
    let mut exchange = Exchange::default();
    [ALICE, BOB].iter().for_each(|name| exchange.join(name));
    let config = Config::point_to_point(&text("org/ns/bob"))
        .reliable(Duration::from_secs(1), None)
        .encrypted();
    let session = create(&mut exchange, ALICE, config);
    publish(&mut exchange, ALICE, session, "x");
    exchange.read(BOB, session);
    exchange.lose = Box::new(|packet, _| matches!(packet.session.content, Content::Data(_)));
    let id = publish(&mut exchange, ALICE, session, "important");
    hand(
        &mut exchange,
        ALICE,
        forged(BOB, ALICE, session, id, SessionKind::PointToPoint, Content::Ack),
    );
    exchange.lose = Box::new(|_, _| false);
    exchange.pass(Duration::from_secs(100));
    let (bob, alice) = (exchange.texts(BOB, session), exchange.read(ALICE, session));
    assert!(bob == ["important"] || !alice.is_empty(), "neither delivered nor told");
}

#[test]
fn a_moderator_does_not_multiply_what_strangers_send() {
    let mut exchange = Exchange::default();
    let session = group(&mut exchange);
    let before = exchange.sent.len();
    for n in 0..500u64 {
        let mut beacon = forged(MALLORY, ALICE, session, 1, SessionKind::Group, Content::Beacon);
        beacon.source = Name { id: slim_wire::Id::from_u64(n + 10), ..name("org/ns/victim/1") };
        hand(&mut exchange, ALICE, beacon);
    }
    exchange.pass(Duration::from_secs(70));
    let victim = name("org/ns/victim/1").prefix;
    let to_victim =
        exchange.sent[before..].iter().filter(|p| p.destination.prefix == victim).count();
    assert!(to_victim <= 1000, "{to_victim} packets for 500");
}

#[test]
fn a_strangers_roster_does_not_freeze_the_list_of_members() {
    let mut exchange = Exchange::default();
    let session = group(&mut exchange);
    hand(
        &mut exchange,
        BOB,
        forged(
            ALICE,
            BOB,
            session,
            u32::MAX,
            SessionKind::Group,
            Content::Roster { members: vec![] },
        ),
    );
    exchange
        .with(ALICE, |app, now| app.invite(now, session, &text("org/ns/mallory")))
        .expect("starts");
    let names = exchange.app(BOB).participants(session).expect("open").len();
    assert_eq!(names, 4);
}

#[test]
fn controls_the_same_without_strangers() {
    let mut exchange = Exchange::default();
    let session = group(&mut exchange);
    for _ in 0..3 {
        publish(&mut exchange, ALICE, session, "still here?");
        publish(&mut exchange, CAROL, session, "do you hear me?");
        exchange.pass(Duration::from_secs(100));
    }
    assert_eq!(exchange.texts(BOB, session).len(), 6);
    let unencrypted =
        forged(ALICE, BOB, session, 3, SessionKind::Group, Content::Data(Delivery::Group));
    hand(&mut exchange, BOB, unencrypted);
    let mut untold = forged(
        ALICE,
        BOB,
        session,
        5,
        SessionKind::Group,
        Content::LeaveRequest { participant: None, delete_group: false },
    );
    untold.session.identity = Some("other:mallory".into());
    hand(&mut exchange, BOB, untold);
    hand(
        &mut exchange,
        BOB,
        forged(
            MALLORY,
            BOB,
            session,
            6,
            SessionKind::Group,
            Content::LeaveRequest { participant: None, delete_group: false },
        ),
    );
    hand(&mut exchange, BOB, forged(MALLORY, BOB, session, 7, SessionKind::Group, Content::Commit));
    hand(
        &mut exchange,
        BOB,
        forged(MALLORY, BOB, session, 8, SessionKind::Group, Content::Welcome { commit: 9 }),
    );
    hand(
        &mut exchange,
        ALICE,
        forged(
            MALLORY,
            ALICE,
            session,
            9,
            SessionKind::Group,
            Content::LeaveRequest {
                participant: Some(Box::new(FullName::from(&text(BOB)))),
                delete_group: true,
            },
        ),
    );
    publish(&mut exchange, ALICE, session, "after");
    assert_eq!(exchange.texts(BOB, session), ["after"]);
}

#[test]
fn without_overflow_checks_the_last_number_does_not_repeat_losses_for_ever() {
    let mut exchange = Exchange::default();
    [ALICE, BOB].iter().for_each(|name| exchange.join(name));
    let config =
        Config::point_to_point(&text("org/ns/bob")).reliable(Duration::from_secs(1), Some(3));
    let session = create(&mut exchange, ALICE, config);
    publish(&mut exchange, ALICE, session, "x");
    let data = forged(
        BOB,
        ALICE,
        session,
        u32::MAX,
        SessionKind::PointToPoint,
        Content::Data(Delivery::Reliable),
    );
    hand(&mut exchange, ALICE, data);
    exchange.pass(Duration::from_secs(60));
    let mut events = 0;
    while let Ok(Some(_)) = exchange.with(ALICE, |app, now| app.next_event(now, session)) {
        events += 1;
        assert!(events < 100_000, "events without end");
    }
}
