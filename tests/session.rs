//! Sessions of apps that are directly connected, in a time of their own.

#[path = "support/exchange.rs"]
mod exchange;
#[path = "support/model_mls.rs"]
mod model_mls;

use std::time::Duration;

use exchange::{Exchange, text};
use slim_quic::session::{CloseReason, Config, Event, Publication, SessionError};

const ALICE: &str = "org/ns/alice/1";
const BOB: &str = "org/ns/bob/2";
const CAROL: &str = "org/ns/carol/3";

fn publish(exchange: &mut Exchange, app: &str, session: u32, text: &str) -> u32 {
    let payload = text.to_owned().into();
    let publication = Publication { payload, ..Publication::default() };
    exchange.with(app, |app, now| app.publish(now, session, publication)).expect("there is room")
}

fn create(exchange: &mut Exchange, app: &str, config: Config) -> u32 {
    exchange.with(app, |app, now| app.create(now, config)).expect("a session")
}

fn group(mls: bool) -> Config {
    let config = Config::group(&text("org/ns/channel"));
    if mls { config.encrypted() } else { config }
}

fn invite(exchange: &mut Exchange, moderator: &str, session: u32, name: &str) {
    exchange
        .with(moderator, |app, now| app.invite(now, session, &text(name)))
        .expect("the invitation starts");
}

#[test]
fn a_reliable_point_to_point_session_delivers_in_order_both_ways() {
    for encrypted in [false, true] {
        let mut exchange = Exchange::default();
        [ALICE, BOB].iter().for_each(|name| exchange.join(name));
        let mut config =
            Config::point_to_point(&text("org/ns/bob")).reliable(Duration::from_secs(1), Some(3));
        config.mls = encrypted;
        let session = create(&mut exchange, ALICE, config);
        for number in 0..10 {
            publish(&mut exchange, ALICE, session, &format!("{number}"));
        }
        let opened = exchange.app(BOB).accept().expect("bob is invited");
        assert_eq!(opened.id, session);
        let expected: Vec<String> = (0..10).map(|number| number.to_string()).collect();
        assert_eq!(exchange.texts(BOB, session), expected);
        publish(&mut exchange, BOB, session, "back");
        assert_eq!(exchange.texts(ALICE, session), ["back"]);
        exchange.pass(Duration::from_secs(60));
        assert_eq!(exchange.read(ALICE, session), [], "everything was acknowledged");
    }
}

#[test]
fn a_group_delivers_to_all_members_and_tells_who_is_removed() {
    for encrypted in [false, true] {
        let mut exchange = Exchange::default();
        [ALICE, BOB, CAROL].iter().for_each(|name| exchange.join(name));
        let session = create(&mut exchange, ALICE, group(encrypted));
        invite(&mut exchange, ALICE, session, "org/ns/bob");
        publish(&mut exchange, ALICE, session, "first");
        invite(&mut exchange, ALICE, session, "org/ns/carol");
        assert_eq!(exchange.completed.len(), 2);
        assert!(exchange.completed.iter().all(|(_, _, result)| result.is_ok()));
        publish(&mut exchange, CAROL, session, "from carol");
        publish(&mut exchange, BOB, session, "from bob");
        assert_eq!(exchange.texts(ALICE, session), ["from carol", "from bob"]);
        assert_eq!(exchange.texts(BOB, session), ["first", "from carol"]);
        assert_eq!(exchange.texts(CAROL, session), ["from bob"]);
        for app in [ALICE, BOB, CAROL] {
            let names = exchange.app(app).participants(session).expect("a session");
            assert_eq!(names.len(), 3, "{app}: {names:?}");
        }
        exchange
            .with(ALICE, |app, now| app.remove(now, session, &text("org/ns/bob")))
            .expect("the removal starts");
        assert_eq!(exchange.completed.len(), 3);
        let events = exchange.read(BOB, session);
        assert_eq!(events.last(), Some(&Event::Closed(CloseReason::Removed)), "{events:?}");
        publish(&mut exchange, ALICE, session, "without bob");
        assert_eq!(exchange.texts(CAROL, session), ["without bob"]);
    }
}

#[test]
fn what_is_lost_in_a_group_is_asked_for_again() {
    let mut exchange = Exchange::default();
    [ALICE, BOB, CAROL].iter().for_each(|name| exchange.join(name));
    let session = create(&mut exchange, ALICE, group(true));
    invite(&mut exchange, ALICE, session, "org/ns/bob");
    invite(&mut exchange, ALICE, session, "org/ns/carol");
    let mut count = 0;
    exchange.lose = Box::new(move |packet, _| {
        count += 1;
        packet.fanout == 50 && count % 3 == 0
    });
    let expected: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    for number in &expected {
        publish(&mut exchange, ALICE, session, number);
    }
    exchange.pass(Duration::from_secs(100));
    assert_eq!(exchange.texts(BOB, session), expected);
    assert_eq!(exchange.texts(CAROL, session), expected);
}

#[test]
fn who_does_not_answer_fails_its_invitation_and_nothing_else() {
    let mut exchange = Exchange::default();
    [ALICE, BOB].iter().for_each(|name| exchange.join(name));
    let session = create(&mut exchange, ALICE, group(true));
    invite(&mut exchange, ALICE, session, "org/ns/nobody");
    invite(&mut exchange, ALICE, session, "org/ns/bob");
    publish(&mut exchange, ALICE, session, "hello");
    assert_eq!(exchange.texts(BOB, session), ["hello"]);
    exchange.pass(Duration::from_secs(62));
    let results: Vec<_> = exchange.completed.iter().map(|(_, _, result)| result.clone()).collect();
    assert_eq!(results[0], Ok(()));
    assert!(matches!(results[1], Err(SessionError::Unanswered { .. })), "{results:?}");
}

#[test]
fn who_has_left_a_group_can_be_invited_again() {
    for encrypted in [false, true] {
        let mut exchange = Exchange::default();
        [ALICE, BOB].iter().for_each(|name| exchange.join(name));
        let session = create(&mut exchange, ALICE, group(encrypted));
        invite(&mut exchange, ALICE, session, "org/ns/bob");
        exchange.with(BOB, |app, now| app.delete(now, session)).expect("bob leaves");
        assert_eq!(exchange.app(ALICE).participants(session).expect("open").len(), 1);
        invite(&mut exchange, ALICE, session, "org/ns/bob");
        publish(&mut exchange, ALICE, session, "again");
        assert_eq!(exchange.texts(BOB, session), ["again"]);
    }
}

#[test]
fn repetitions_into_silence_do_not_cost_the_peer_its_place_in_the_group() {
    let mut exchange = Exchange::default();
    [ALICE, BOB].iter().for_each(|name| exchange.join(name));
    let config = Config::point_to_point(&text("org/ns/bob"));
    let config = config.reliable(Duration::from_secs(1), None).encrypted();
    let session = create(&mut exchange, ALICE, config);
    publish(&mut exchange, ALICE, session, "first");
    assert_eq!(exchange.texts(BOB, session), ["first"]);
    exchange.lose = Box::new(|_, _| true);
    let expected: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    for number in &expected {
        publish(&mut exchange, ALICE, session, number);
    }
    exchange.pass(Duration::from_secs(60));
    exchange.lose = Box::new(|_, _| false);
    exchange.pass(Duration::from_secs(2));
    assert_eq!(exchange.texts(BOB, session), expected);
}

#[test]
fn what_one_member_asks_for_again_does_not_lock_the_others_out() {
    let mut exchange = Exchange::default();
    [ALICE, BOB, CAROL].iter().for_each(|name| exchange.join(name));
    let session = create(&mut exchange, ALICE, group(true));
    invite(&mut exchange, ALICE, session, "org/ns/bob");
    invite(&mut exchange, ALICE, session, "org/ns/carol");
    publish(&mut exchange, ALICE, session, "first");
    assert_eq!(exchange.texts(BOB, session), ["first"]);
    assert_eq!(exchange.texts(CAROL, session), ["first"]);
    exchange.lose = Box::new(|packet, app| packet.session.encrypted && app == BOB);
    let expected: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    for number in &expected {
        publish(&mut exchange, ALICE, session, number);
    }
    // Bob hears how many there are, and asks for them each second.
    exchange.pass(Duration::from_secs(20));
    exchange.lose = Box::new(|_, _| false);
    publish(&mut exchange, ALICE, session, "last");
    exchange.pass(Duration::from_secs(20));
    for app in [BOB, CAROL] {
        let heard = exchange.texts(app, session);
        assert_eq!((&heard[..200], &heard[200..]), (&expected[..], &["last".to_owned()][..]));
    }
}

#[test]
fn an_anycast_session_that_another_app_opened_ends_after_a_long_silence() {
    let mut exchange = Exchange::default();
    [ALICE, BOB].iter().for_each(|name| exchange.join(name));
    let session = create(&mut exchange, ALICE, Config::anycast());
    let destination = Some((&text("org/ns/bob")).into());
    let publication = || Publication { destination: destination.clone(), ..Publication::default() };
    for _ in 0..3 {
        exchange.with(ALICE, |app, now| app.publish(now, session, publication())).expect("room");
        exchange.pass(Duration::from_secs(400));
    }
    assert_eq!(exchange.read(BOB, session).len(), 3);
    exchange.pass(Duration::from_secs(601));
    assert_eq!(exchange.read(BOB, session), [Event::Closed(CloseReason::Idle)]);
    assert!(exchange.app(BOB).info(session).is_err(), "it is forgotten");
}
