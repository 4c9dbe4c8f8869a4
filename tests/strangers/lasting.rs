//! What ends in time, and what does not.

use super::*;

#[test]
fn sessions_that_the_peer_ended_do_not_stay_for_ever() {
    let mut exchange = Exchange::default();
    let limits = Limits { sessions: 20, ..Limits::default() };
    exchange.join_with(ALICE, "secret", limits);
    exchange.join(BOB);
    for round in 0..50 {
        let config =
            Config::point_to_point(&text("org/ns/bob")).reliable(Duration::from_secs(1), Some(3));
        let created = exchange.with(ALICE, |app, now| app.create(now, config));
        let session = created.unwrap_or_else(|error| panic!("round {round}: {error}"));
        publish(&mut exchange, ALICE, session, "x");
        exchange.app(BOB).accept().expect("opened");
        exchange.read(BOB, session);
        exchange.with(BOB, |app, now| app.delete(now, session)).expect("bob ends it");
        exchange.read(ALICE, session);
        let _ = exchange.with(ALICE, |app, now| app.delete(now, session));
        exchange.pass(Duration::from_secs(10));
    }
}

#[test]
fn an_operation_ends_when_its_group_is_closed() {
    let mut exchange = Exchange::default();
    [ALICE, BOB, CAROL].iter().for_each(|name| exchange.join(name));
    let session = create(&mut exchange, ALICE, Config::group(&text("org/ns/channel")).encrypted());
    invite(&mut exchange, session, "org/ns/bob");
    // Bob does not hear the commit that adds Carol.
    exchange.lose = Box::new(|packet, app| app == BOB && packet.session.content == Content::Commit);
    invite(&mut exchange, session, "org/ns/carol");
    assert_eq!(exchange.completed.len(), 1);
    exchange.with(ALICE, |app, now| app.delete(now, session)).expect("closed");
    exchange.pass(Duration::from_secs(200));
    assert_eq!(exchange.completed.len(), 2, "who invited carol waits for ever");
}

#[test]
fn clients_that_come_and_go_do_not_fill_a_server_for_ever() {
    let mut exchange = Exchange::default();
    [ALICE, BOB].iter().for_each(|name| exchange.join(name));
    for id in 0..4096u32 {
        let mut data = forged(
            MALLORY,
            BOB,
            id,
            0,
            SessionKind::PointToPoint,
            Content::Data(Delivery::Unreliable),
        );
        data.source = Name { id: slim_wire::Id::from_u64(u64::from(id) + 10), ..name(MALLORY) };
        hand(&mut exchange, BOB, data);
        exchange.app(BOB).accept().expect("opened");
        exchange.read(BOB, id);
    }
    exchange.pass(Duration::from_secs(24 * 3600));
    for id in 0..4096 {
        exchange.read(BOB, id);
    }
    let config =
        Config::point_to_point(&text("org/ns/bob")).reliable(Duration::from_secs(1), Some(3));
    let session = create(&mut exchange, ALICE, config);
    publish(&mut exchange, ALICE, session, "hello");
    exchange.pass(Duration::from_secs(70));
    assert_eq!(
        exchange.texts(BOB, session),
        ["hello"],
        "a day later: {:?}",
        exchange.read(ALICE, session)
    );
}

#[test]
fn an_invitation_without_a_welcome_ends() {
    let mut exchange = Exchange::default();
    exchange.join(BOB);
    let content = Content::JoinRequest {
        channel: Box::new(FullName::from(&text("org/ns/channel"))),
        moderator: Box::new(FullName::from(&text(MALLORY))),
        mls: true,
        as_moderator: false,
    };
    hand(&mut exchange, BOB, forged(MALLORY, BOB, 77, 5, SessionKind::Group, content));
    exchange.app(BOB).accept().expect("opened");
    exchange.pass(Duration::from_secs(24 * 3600));
    let state = exchange.with(BOB, |app, now| app.next_event(now, 77));
    assert!(matches!(state, Err(_) | Ok(Some(_))), "after a day: {state:?}");
}

#[test]
fn a_message_sent_again_keeps_its_type_and_metadata() {
    let mut exchange = Exchange::default();
    let session = group(&mut exchange);
    publish(&mut exchange, ALICE, session, "first");
    exchange.read(BOB, session);
    exchange.lose =
        Box::new(|packet, app| app == BOB && matches!(packet.session.content, Content::Data(_)));
    let publication = Publication {
        payload: "x".into(),
        payload_type: "application/json".into(),
        metadata: vec![("reply-to".into(), "7".into())],
        destination: None,
    };
    exchange.with(ALICE, |app, now| app.publish(now, session, publication)).expect("room");
    exchange.pass(Duration::from_secs(5));
    let events = exchange.read(BOB, session);
    let Some(Event::Message(context, _)) = events.first() else { panic!("{events:?}") };
    let kept = context.metadata.iter().any(|(key, _)| key == "reply-to");
    assert_eq!((context.payload_type.as_str(), kept), ("application/json", true));
}

#[test]
fn metadata_that_cannot_be_sent_is_refused_at_publish() {
    let mut exchange = Exchange::default();
    let session = group(&mut exchange);
    let metadata = (0..300).map(|n| (format!("key{n}"), String::new())).collect();
    let publication = Publication { payload: "x".into(), metadata, ..Publication::default() };
    let result = exchange.with(ALICE, |app, now| app.publish(now, session, publication));
    let sent = exchange.sent.last().expect("sent").session.encode();
    assert!(result.is_err() || sent.is_ok(), "{result:?}, but on the wire: {:?}", sent.err());
}

#[test]
fn what_an_unreliable_group_sends_is_not_kept_up_for_by_acknowledgements() {
    // A group without reliability: nobody asks again, yet publishing waits for acknowledgements.
    let mut exchange = Exchange::default();
    [ALICE, BOB].iter().for_each(|name| exchange.join(name));
    let mut config = Config::group(&text("org/ns/channel"));
    config.reliability = None;
    let session = create(&mut exchange, ALICE, config);
    invite(&mut exchange, session, "org/ns/bob");
    let mut count = 0;
    exchange.lose = Box::new(move |packet, app| {
        count += 1;
        app == BOB && matches!(packet.session.content, Content::Data(_)) && count % 10 == 0
    });
    let mut taken = 0;
    for _ in 0..600 {
        if try_publish(&mut exchange, ALICE, session, "x").is_ok() {
            taken += 1;
        }
        exchange.read(BOB, session);
        exchange.pass(Duration::from_millis(20));
    }
    exchange.pass(Duration::from_secs(70));
    let events = exchange.read(ALICE, session);
    let errors = events.iter().filter(|event| matches!(event, Event::Failed(_))).count();
    assert_eq!((taken, errors), (600, 0), "{events:?}");
}

#[test]
fn an_unsubscribed_name_is_not_answered_for() {
    let mut exchange = Exchange::default();
    [ALICE, BOB].iter().for_each(|name| exchange.join(name));
    exchange.with(BOB, |app, _| app.subscribe(&text("org/ns/alias")));
    exchange.with(BOB, |app, _| app.unsubscribe(&text("org/ns/alias")));
    let config =
        Config::point_to_point(&text("org/ns/alias")).reliable(Duration::from_secs(1), Some(3));
    let session = create(&mut exchange, ALICE, config);
    publish(&mut exchange, ALICE, session, "x");
    exchange.pass(Duration::from_secs(70));
    assert!(exchange.app(BOB).accept().is_none());
    assert_eq!(exchange.read(ALICE, session).len(), 2);
}

#[test]
fn an_anycast_sender_that_pauses_is_heard_again() {
    let mut exchange = Exchange::default();
    [ALICE, BOB].iter().for_each(|name| exchange.join(name));
    let session =
        create(&mut exchange, ALICE, Config::anycast().reliable(Duration::from_secs(1), Some(3)));
    let mut heard = Vec::new();
    for _ in 0..2 {
        let to = Some(FullName::from(&text("org/ns/bob")));
        let publication =
            Publication { payload: "x".into(), destination: to, ..Publication::default() };
        exchange.with(ALICE, |app, now| app.publish(now, session, publication)).expect("room");
        exchange.pass(Duration::from_secs(5));
        while exchange.app(BOB).accept().is_some() {}
        heard.extend(exchange.texts(BOB, session));
        exchange.pass(Duration::from_secs(700));
        exchange.read(BOB, session);
    }
    assert_eq!(heard.len(), 2, "{:?}", exchange.read(ALICE, session));
}

#[test]
fn point_to_point_clients_that_come_and_go_do_not_fill_a_server() {
    // As published clients do: nothing is said when they end.
    let mut exchange = Exchange::default();
    exchange.join_with(BOB, "secret", Limits { sessions: 50, ..Limits::default() });
    exchange.join(ALICE);
    for round in 0..60u64 {
        let full = Box::new(FullName {
            name: Name { id: slim_wire::Id::from_u64(round + 10), ..name(MALLORY) },
            texts: None,
        });
        let content = Content::JoinRequest {
            channel: full.clone(),
            moderator: full.clone(),
            mls: false,
            as_moderator: false,
        };
        let mut join = forged(MALLORY, BOB, round as u32, 0, SessionKind::PointToPoint, content);
        join.source = full.name;
        hand(&mut exchange, BOB, join);
        let mut data = forged(
            MALLORY,
            BOB,
            round as u32,
            0,
            SessionKind::PointToPoint,
            Content::Data(Delivery::Reliable),
        );
        data.source = full.name;
        hand(&mut exchange, BOB, data);
        let opened = exchange.app(BOB).accept();
        assert!(opened.is_some(), "client {round} is not answered, days after the first");
        exchange.read(BOB, round as u32);
        exchange.pass(Duration::from_secs(3600));
    }
}
