//! Sessions of apps that are directly connected, in a time of their own.

#[allow(dead_code, reason = "each topic uses its part of this module")]
#[path = "support/exchange.rs"]
mod exchange;
#[path = "support/model_mls.rs"]
mod model_mls;

use std::time::Duration;

use exchange::{Exchange, LINK, text};
use slim_quic::session::{CloseReason, Config, Event, Limits, Packet, Publication, SessionError};
use slim_wire::session::Content;

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
fn a_late_request_to_join_of_a_former_part_changes_nothing() {
    for encrypted in [false, true] {
        let mut exchange = Exchange::default();
        [ALICE, BOB].iter().for_each(|name| exchange.join(name));
        let session = create(&mut exchange, ALICE, group(encrypted));
        invite(&mut exchange, ALICE, session, "org/ns/bob");
        let is_request =
            |packet: &&Packet| matches!(packet.session.content, Content::JoinRequest { .. });
        let late = exchange.sent.iter().find(is_request).cloned().expect("bob was invited");
        exchange.with(BOB, |app, now| app.delete(now, session)).expect("bob leaves");
        invite(&mut exchange, ALICE, session, "org/ns/bob");
        exchange.with(BOB, |app, now| app.handle(now, LINK, late));
        publish(&mut exchange, BOB, session, "from bob");
        publish(&mut exchange, ALICE, session, "from alice");
        assert_eq!(exchange.texts(ALICE, session), ["from bob"]);
        assert_eq!(exchange.texts(BOB, session), ["from alice"]);
    }
}

#[test]
fn who_was_taken_out_of_an_encrypted_group_ends_even_if_nobody_says_so() {
    let mut exchange = Exchange::default();
    [ALICE, BOB].iter().for_each(|name| exchange.join(name));
    let session = create(&mut exchange, ALICE, group(true));
    invite(&mut exchange, ALICE, session, "org/ns/bob");
    exchange.lose =
        Box::new(|packet, _| matches!(packet.session.content, Content::LeaveRequest { .. }));
    exchange
        .with(ALICE, |app, now| app.remove(now, session, &text("org/ns/bob")))
        .expect("the removal starts");
    exchange.pass(Duration::from_secs(10));
    let events = exchange.read(BOB, session);
    assert_eq!(events.last(), Some(&Event::Closed(CloseReason::Removed)), "{events:?}");
}

#[test]
fn a_proposal_that_is_never_committed_does_not_hold_back_data() {
    let mut exchange = Exchange::default();
    let key_rotation = Duration::from_secs(60);
    [ALICE, CAROL].iter().for_each(|name| exchange.join(name));
    exchange.join_with(BOB, "secret", Limits { key_rotation, ..Limits::default() });
    let session = create(&mut exchange, ALICE, group(true));
    invite(&mut exchange, ALICE, session, "org/ns/bob");
    invite(&mut exchange, ALICE, session, "org/ns/carol");
    // The moderator accepts bob's new keys, and is heard no more.
    exchange.lose = Box::new(|packet, _| {
        let heard =
            matches!(packet.session.content, Content::Proposal { .. } | Content::ControlAck { .. });
        packet.source == text(ALICE).to_name() && !heard
    });
    exchange.pass(Duration::from_secs(61));
    for (from, to) in [(BOB, CAROL), (CAROL, BOB)] {
        publish(&mut exchange, from, session, "hello");
        assert_eq!(exchange.texts(to, session), [""; 0], "the keys are about to change");
    }
    exchange.pass(Duration::from_secs(125));
    for to in [BOB, CAROL] {
        assert_eq!(exchange.texts(to, session), ["hello"]);
    }
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

fn is_data(packet: &Packet) -> bool {
    matches!(packet.session.content, Content::Data(_))
}

/// Hands a message to an app once more, or to another than it was sent to.
fn hand(exchange: &mut Exchange, app: &str, packet: Packet) {
    exchange.with(app, |app, now| app.handle(now, LINK, packet));
}

fn last_sent(exchange: &Exchange, is_it: impl Fn(&Packet) -> bool) -> Packet {
    exchange.sent.iter().rfind(|packet| is_it(packet)).expect("it was sent").clone()
}

#[test]
fn an_app_hears_nothing_of_a_session_that_it_has_ended() {
    let mut exchange = Exchange::default();
    [ALICE, BOB].iter().for_each(|name| exchange.join(name));
    let session = create(&mut exchange, ALICE, group(false));
    invite(&mut exchange, ALICE, session, "org/ns/bob");
    exchange.lose = Box::new(|_, app| app == ALICE);
    exchange.with(BOB, |app, now| app.delete(now, session)).expect("bob leaves");
    publish(&mut exchange, ALICE, session, "too late");
    assert_eq!(exchange.read(BOB, session), []);
}

#[test]
fn a_new_member_misses_nothing_that_was_published_since_it_is_one() {
    for encrypted in [false, true] {
        for later in [0, 1, 5] {
            let mut exchange = Exchange::default();
            [ALICE, BOB, CAROL].iter().for_each(|name| exchange.join(name));
            let session = create(&mut exchange, ALICE, group(encrypted));
            invite(&mut exchange, ALICE, session, "org/ns/carol");
            publish(&mut exchange, ALICE, session, "before");
            invite(&mut exchange, ALICE, session, "org/ns/bob");
            exchange.lose = Box::new(|packet, app| app == BOB && is_data(packet));
            let mut expected: Vec<String> = (0..7).map(|number| number.to_string()).collect();
            expected.iter().for_each(|number| _ = publish(&mut exchange, ALICE, session, number));
            exchange.lose = Box::new(|_, _| false);
            for number in 0..later {
                expected.push(format!("later {number}"));
                publish(&mut exchange, ALICE, session, &expected[7 + number]);
            }
            exchange.pass(Duration::from_secs(1));
            assert_eq!(exchange.texts(BOB, session), expected, "{encrypted} {later}");
        }
    }
}

#[test]
fn who_comes_back_is_heard_by_members_that_did_not_see_it_go() {
    let mut exchange = Exchange::default();
    [ALICE, BOB, CAROL].iter().for_each(|name| exchange.join(name));
    let session = create(&mut exchange, ALICE, group(false));
    invite(&mut exchange, ALICE, session, "org/ns/bob");
    invite(&mut exchange, ALICE, session, "org/ns/carol");
    publish(&mut exchange, BOB, session, "one");
    publish(&mut exchange, BOB, session, "two");
    exchange.lose = Box::new(|packet, app| {
        app == CAROL && matches!(packet.session.content, Content::Roster { .. })
    });
    exchange.with(BOB, |app, now| app.delete(now, session)).expect("bob leaves");
    invite(&mut exchange, ALICE, session, "org/ns/bob");
    exchange.lose = Box::new(|_, _| false);
    publish(&mut exchange, BOB, session, "three");
    exchange.pass(Duration::from_secs(2));
    assert_eq!(exchange.texts(CAROL, session), ["one", "two", "three"]);
    assert_eq!(exchange.texts(ALICE, session), ["one", "two", "three"]);
}

#[test]
fn a_message_that_the_network_doubles_is_delivered_once() {
    let mut exchange = Exchange::default();
    [ALICE, BOB].iter().for_each(|name| exchange.join(name));
    let config = Config::point_to_point(&text("org/ns/bob"));
    let session = create(&mut exchange, ALICE, config);
    publish(&mut exchange, ALICE, session, "once");
    let again = last_sent(&exchange, is_data);
    hand(&mut exchange, BOB, again);
    assert_eq!(exchange.texts(BOB, session), ["once"]);
}

#[test]
fn all_that_was_asked_of_a_group_has_a_result_when_it_is_closed() {
    for encrypted in [false, true] {
        let mut exchange = Exchange::default();
        [ALICE, BOB, CAROL].iter().for_each(|name| exchange.join(name));
        let session = create(&mut exchange, ALICE, group(encrypted));
        for name in ["org/ns/bob", "org/ns/carol"] {
            invite(&mut exchange, ALICE, session, name);
        }
        exchange.lose = Box::new(|_, _| true);
        for name in ["org/ns/bob", "org/ns/carol"] {
            exchange
                .with(ALICE, |app, now| app.remove(now, session, &text(name)))
                .expect("the removal starts");
        }
        invite(&mut exchange, ALICE, session, "org/ns/dave");
        exchange.with(ALICE, |app, now| app.delete(now, session)).expect("it was open");
        let results = exchange.completed.iter().skip(2).map(|(_, _, result)| result);
        let closed = Err(SessionError::Closed(CloseReason::Deleted));
        assert_eq!(results.collect::<Vec<_>>(), [&closed, &closed, &closed]);
    }
}

#[test]
fn who_was_not_welcomed_yet_takes_no_part() {
    let mut exchange = Exchange::default();
    [ALICE, BOB, CAROL].iter().for_each(|name| exchange.join(name));
    let session = create(&mut exchange, ALICE, group(true));
    invite(&mut exchange, ALICE, session, "org/ns/carol");
    publish(&mut exchange, ALICE, session, "before");
    let before = last_sent(&exchange, is_data);
    exchange.lose = Box::new(|packet, app| {
        app == BOB && matches!(packet.session.content, Content::Welcome { .. })
    });
    invite(&mut exchange, ALICE, session, "org/ns/bob");
    hand(&mut exchange, BOB, before);
    exchange.pass(Duration::from_secs(5));
    exchange.lose = Box::new(|_, _| false);
    exchange.pass(Duration::from_secs(2));
    publish(&mut exchange, ALICE, session, "after");
    exchange.pass(Duration::from_secs(2));
    assert_eq!(exchange.texts(BOB, session), ["after"]);
}

#[test]
fn lists_of_members_and_commits_are_never_numbered_alike() {
    let mut exchange = Exchange::default();
    [ALICE, BOB, CAROL].iter().for_each(|name| exchange.join(name));
    let session = create(&mut exchange, ALICE, group(true));
    invite(&mut exchange, ALICE, session, "org/ns/bob");
    invite(&mut exchange, ALICE, session, "org/ns/carol");
    let numbers = |is_it: fn(&Content) -> bool| {
        let sent = exchange.sent.iter().filter(|packet| is_it(&packet.session.content));
        sent.map(|packet| packet.ids.message).collect::<Vec<_>>()
    };
    let commits = numbers(|content| *content == Content::Commit);
    let rosters = numbers(|content| matches!(content, Content::Roster { .. }));
    assert!(!commits.is_empty() && !rosters.is_empty());
    assert!(commits.iter().max() < rosters.iter().min(), "{commits:?} {rosters:?}");
}

#[test]
fn a_request_for_another_instance_is_not_followed() {
    let mut exchange = Exchange::default();
    [ALICE, BOB].iter().for_each(|name| exchange.join(name));
    let session = create(&mut exchange, ALICE, group(false));
    invite(&mut exchange, ALICE, session, "org/ns/bob");
    exchange.lose = Box::new(|_, _| true);
    exchange
        .with(ALICE, |app, now| app.remove(now, session, &text("org/ns/bob")))
        .expect("the removal starts");
    let is_leave = |packet: &Packet| matches!(packet.session.content, Content::LeaveRequest { .. });
    let mut leave = last_sent(&exchange, is_leave);
    leave.destination = text("org/ns/bob/77").to_name();
    hand(&mut exchange, BOB, leave);
    assert!(exchange.app(BOB).info(session).is_ok());
}

#[test]
fn an_invitation_overtakes_no_removal() {
    for encrypted in [false, true] {
        let mut exchange = Exchange::default();
        [ALICE, BOB].iter().for_each(|name| exchange.join(name));
        let session = create(&mut exchange, ALICE, group(encrypted));
        invite(&mut exchange, ALICE, session, "org/ns/bob");
        exchange.lose = Box::new(|packet, app| {
            app == BOB && matches!(packet.session.content, Content::LeaveRequest { .. })
        });
        exchange
            .with(ALICE, |app, now| app.remove(now, session, &text("org/ns/bob")))
            .expect("the removal starts");
        invite(&mut exchange, ALICE, session, "org/ns/bob");
        exchange.pass(Duration::from_secs(2));
        exchange.lose = Box::new(|_, _| false);
        exchange.pass(Duration::from_secs(1));
        assert_eq!(exchange.read(BOB, session).pop(), Some(Event::Closed(CloseReason::Removed)));
        exchange.pass(Duration::from_secs(2));
        let is_leave =
            |packet: &Packet| matches!(packet.session.content, Content::LeaveRequest { .. });
        let leave = last_sent(&exchange, is_leave);
        hand(&mut exchange, BOB, leave);
        publish(&mut exchange, ALICE, session, "again");
        assert_eq!(exchange.texts(BOB, session), ["again"]);
        assert!(exchange.completed.iter().all(|(_, _, result)| result.is_ok()));
    }
}

#[test]
fn who_could_not_be_reached_when_it_was_removed_learns_it_when_it_takes_part() {
    for encrypted in [false, true] {
        let mut exchange = Exchange::default();
        [ALICE, BOB].iter().for_each(|name| exchange.join(name));
        let session = create(&mut exchange, ALICE, group(encrypted));
        invite(&mut exchange, ALICE, session, "org/ns/bob");
        exchange.lose = Box::new(|_, app| app == BOB);
        exchange
            .with(ALICE, |app, now| app.remove(now, session, &text("org/ns/bob")))
            .expect("the removal starts");
        exchange.pass(Duration::from_secs(70));
        exchange.lose = Box::new(|_, _| false);
        publish(&mut exchange, BOB, session, "still here");
        let events = exchange.read(BOB, session);
        assert_eq!(events.last(), Some(&Event::Closed(CloseReason::Removed)), "{events:?}");
        assert_eq!(exchange.texts(ALICE, session), [""; 0]);
    }
}

#[test]
fn members_that_fall_silent_together_are_removed_together() {
    let mut exchange = Exchange::default();
    let others = [BOB, CAROL, "org/ns/dave/4", "org/ns/erin/5"];
    exchange.join(ALICE);
    let session = create(&mut exchange, ALICE, group(true));
    for name in others {
        exchange.join(name);
        invite(&mut exchange, ALICE, session, name);
    }
    exchange.lose = Box::new(|_, app| app == BOB || app == CAROL);
    exchange
        .with(ALICE, |app, now| app.remove(now, session, &text("org/ns/erin")))
        .expect("the removal starts");
    exchange.pass(Duration::from_secs(80));
    let names = exchange.app(ALICE).participants(session).expect("open");
    assert_eq!(names.len(), 2, "{names:?}");
}
