//! What an app does that the control plane has moderate a group, in a time of its own.

use std::time::Duration;

use slim_quic::session::{
    CloseReason, Config, ControlCounts, ControlRequest, Event, Publication, SessionError,
};
use slim_wire::TextName;
use slim_wire::session::{Content, FullName};

use crate::exchange::{Exchange, text};
use crate::messages::{Managed, captured, hand, native, packet};

pub(crate) const ALICE: &str = "org/ns/alice/1";
pub(crate) const BOB: &str = "org/ns/bob/2";
pub(crate) const CAROL: &str = "org/ns/carol/3";
pub(crate) const CHANNEL: &str = "org/ns/channel";

/// Number of the group.
pub(crate) const GROUP: u32 = 274_544_745;

/// Apps, of which the first is to moderate.
pub(crate) fn apps() -> (Exchange, Managed) {
    let mut exchange = Exchange::default();
    [ALICE, BOB, CAROL].iter().for_each(|name| exchange.join(name));
    (exchange, Managed::new(ALICE, CHANNEL, GROUP))
}

/// The same, with the group created.
pub(crate) fn created() -> (Exchange, Managed) {
    let (mut exchange, mut group) = apps();
    hand(&mut exchange, ALICE, packet(&group.create()));
    exchange.app(ALICE).accept().expect("the app gets the session");
    (exchange, group)
}

pub(crate) fn publish(exchange: &mut Exchange, app: &str, text: &str) {
    let publication = Publication { payload: text.to_owned().into(), ..Publication::default() };
    exchange.with(app, |app, now| app.publish(now, GROUP, publication)).expect("there is room");
}

pub(crate) fn members(exchange: &mut Exchange) -> Vec<String> {
    let members = exchange.app(ALICE).participants(GROUP).expect("open");
    members.iter().map(|member| written(&member.name.to_text().expect("with texts"))).collect()
}

/// A name with its id as it is read.
pub(crate) fn written(name: &TextName) -> String {
    format!("{}/{}", name.components().join("/"), name.id().as_u128())
}

/// The outcomes that were told since the last call.
pub(crate) fn outcomes(exchange: &mut Exchange) -> Vec<(ControlRequest, Option<SessionError>)> {
    let outcomes = exchange.controlled.drain(..);
    outcomes.map(|(_, controlled)| (controlled.request, controlled.result.err())).collect()
}

pub(crate) fn counts(exchange: &mut Exchange) -> ControlCounts {
    exchange.app(ALICE).control_counts()
}

pub(crate) fn full(name: &str) -> Box<FullName> {
    Box::new(FullName::from(&text(name)))
}

fn is_closed(events: &[Event]) -> bool {
    events.last() == Some(&Event::Closed(CloseReason::Removed))
}

#[test]
fn what_a_published_node_says_is_obeyed() {
    const MODERATOR: &str = "agntcy/ns/client-9/123";
    const PARTICIPANT: &str = "agntcy/ns/client-2/7";
    const SESSION: u32 = 1_244_337_836;
    let mut exchange = Exchange::default();
    [MODERATOR, PARTICIPANT].iter().for_each(|name| exchange.join(name));
    let say = |exchange: &mut Exchange, text: &str| {
        let publication = Publication { payload: text.to_owned().into(), ..Publication::default() };
        exchange
            .with(MODERATOR, |app, now| app.publish(now, SESSION, publication))
            .expect("there is room");
    };

    hand(&mut exchange, MODERATOR, native(&captured("create")));
    let info = exchange.app(MODERATOR).accept().expect("the app gets the session");
    assert_eq!((info.id, info.initiator, info.config.mls), (SESSION, true, true));
    assert_eq!(info.destination, Some(*full("agntcy/ns/mTTe9bQHv1EhnPemtz")));
    assert_eq!((info.source, info.config.metadata), (text(MODERATOR), Vec::new()));
    assert_eq!(exchange.sent, [], "nobody is told");
    say(&mut exchange, "kept until somebody is there");

    hand(&mut exchange, MODERATOR, native(&captured("invite")));
    let opened = exchange.app(PARTICIPANT).accept().expect("it is invited");
    assert_eq!((opened.id, opened.initiator, opened.config.mls), (SESSION, false, true));
    assert_eq!(exchange.texts(PARTICIPANT, SESSION), ["kept until somebody is there"]);

    hand(&mut exchange, MODERATOR, native(&captured("remove")));
    assert!(is_closed(&exchange.read(PARTICIPANT, SESSION)));
    assert_eq!(exchange.app(MODERATOR).participants(SESSION).expect("open").len(), 1);

    hand(&mut exchange, MODERATOR, native(&captured("delete")));
    assert!(is_closed(&exchange.read(MODERATOR, SESSION)));
    let participant = || full("agntcy/ns/client-2");
    let done = [
        ControlRequest::Create,
        ControlRequest::Invite(participant()),
        ControlRequest::Remove(participant()),
        ControlRequest::Delete,
    ];
    assert_eq!(outcomes(&mut exchange), done.map(|request| (request, None)));
    assert_eq!(exchange.completed, [], "the app has asked for nothing");
    let counts = exchange.app(MODERATOR).control_counts();
    assert_eq!(counts, ControlCounts { accepted: 4, ..ControlCounts::default() });
}

#[test]
fn a_group_is_encrypted_only_if_that_is_asked_for() {
    let (mut exchange, group) = apps();
    let mut group = group.plain();
    let mut create = packet(&group.create());
    let given = [("topic", "weather"), ("SLIM_OTHER", "of the protocol")];
    let given = given.map(|(key, value)| (key.to_owned(), value.to_owned()));
    create.session.metadata.extend(given);
    hand(&mut exchange, ALICE, create);
    let info = exchange.app(ALICE).accept().expect("the app gets the session");
    assert!(!info.config.mls);
    let topic = [("topic".to_owned(), "weather".to_owned())];
    assert_eq!(info.config.metadata, topic);
    for name in ["org/ns/bob", "org/ns/carol"] {
        hand(&mut exchange, ALICE, packet(&group.invite(name)));
    }
    let opened = exchange.app(BOB).accept().expect("it is invited");
    assert_eq!((opened.config.mls, opened.config.metadata), (false, topic.into()));
    publish(&mut exchange, CAROL, "to all");
    assert_eq!(exchange.texts(ALICE, GROUP), ["to all"]);
    assert_eq!(exchange.texts(BOB, GROUP), ["to all"]);
}

#[test]
fn deletion_ends_the_group_for_all_and_drops_what_is_under_way() {
    let (mut exchange, mut group) = created();
    for name in ["org/ns/bob", "org/ns/carol", "org/ns/nobody"] {
        hand(&mut exchange, ALICE, packet(&group.invite(name)));
    }
    publish(&mut exchange, BOB, "unread");
    hand(&mut exchange, ALICE, packet(&group.delete()));
    for app in [ALICE, BOB, CAROL] {
        assert!(is_closed(&exchange.read(app, GROUP)), "{app}");
    }
    let left = outcomes(&mut exchange).split_off(3);
    let closed = SessionError::Closed(CloseReason::Deleted);
    let nobody = ControlRequest::Invite(full("org/ns/nobody"));
    assert_eq!(left, [(nobody, Some(closed)), (ControlRequest::Delete, None)]);

    // The controller may have the same group created once more.
    hand(&mut exchange, ALICE, packet(&group.create()));
    hand(&mut exchange, ALICE, packet(&group.invite("org/ns/bob")));
    exchange.read(ALICE, GROUP);
    publish(&mut exchange, ALICE, "again");
    assert_eq!(exchange.texts(BOB, GROUP), ["again"]);
}

#[test]
fn who_is_being_invited_or_removed_is_told_of_the_end_too() {
    let (mut exchange, group) = apps();
    let mut group = group.plain();
    hand(&mut exchange, ALICE, packet(&group.create()));
    hand(&mut exchange, ALICE, packet(&group.invite("org/ns/carol")));
    // Bob has joined, but his word for it is lost; and so is the word that carol is to leave.
    exchange.lose = Box::new(|packet, _| {
        matches!(packet.session.content, Content::JoinReply | Content::LeaveRequest { .. })
    });
    hand(&mut exchange, ALICE, packet(&group.invite("org/ns/bob")));
    hand(&mut exchange, ALICE, packet(&group.remove("org/ns/carol")));
    hand(&mut exchange, ALICE, packet(&group.delete()));
    exchange.lose = Box::new(|_, _| false);
    exchange.pass(Duration::from_secs(2));
    for app in [BOB, CAROL] {
        assert!(is_closed(&exchange.read(app, GROUP)), "{app}");
    }
}

#[test]
fn removal_of_the_moderator_itself_deletes_the_group() {
    let (mut exchange, mut group) = created();
    hand(&mut exchange, ALICE, packet(&group.invite("org/ns/bob")));
    // Another instance of its name is not there; it is not meant itself.
    hand(&mut exchange, ALICE, packet(&group.remove("org/ns/alice")));
    let stranger = full("org/ns/alice");
    let failed = SessionError::NotMember { name: stranger.clone() };
    let last = outcomes(&mut exchange).pop();
    assert_eq!(last, Some((ControlRequest::Remove(stranger), Some(failed))));
    hand(&mut exchange, ALICE, packet(&group.remove(ALICE)));
    assert!(is_closed(&exchange.read(ALICE, GROUP)));
    assert!(is_closed(&exchange.read(BOB, GROUP)));
}

#[test]
fn an_unknown_participant_fails_in_bounded_time_and_holds_up_nobody() {
    let (mut exchange, mut group) = created();
    hand(&mut exchange, ALICE, packet(&group.invite("org/ns/nobody")));
    hand(&mut exchange, ALICE, packet(&group.invite("org/ns/bob")));
    exchange.pass(Duration::from_secs(5));
    hand(&mut exchange, ALICE, packet(&group.invite("org/ns/carol")));
    hand(&mut exchange, ALICE, packet(&group.remove("org/ns/bob")));
    assert_eq!(members(&mut exchange), [ALICE, CAROL]);
    exchange.pass(Duration::from_secs(62));
    let nobody = full("org/ns/nobody");
    let failed = SessionError::Unanswered { name: nobody.clone() };
    let last = outcomes(&mut exchange).pop();
    assert_eq!(last, Some((ControlRequest::Invite(nobody), Some(failed))));
    // The app, which has asked for nothing, is not told of a failure.
    let events = exchange.read(ALICE, GROUP);
    assert!(events.iter().all(|e| matches!(e, Event::Joined(_) | Event::Left(_))), "{events:?}");
    publish(&mut exchange, ALICE, "still here");
    assert_eq!(exchange.texts(CAROL, GROUP), ["still here"]);
    assert_eq!(counts(&mut exchange).failed, 1);
}

#[test]
fn who_is_removed_while_it_is_invited_does_not_become_a_member() {
    let stages: [fn(&Content) -> bool; 5] = [
        |content| matches!(content, Content::DiscoveryRequest { .. }),
        |content| matches!(content, Content::DiscoveryReply),
        |content| matches!(content, Content::JoinRequest { .. }),
        |content| matches!(content, Content::JoinReply),
        |content| matches!(content, Content::Welcome { .. }),
    ];
    for (index, stage) in stages.into_iter().enumerate() {
        let (mut exchange, mut group) = created();
        exchange.lose = Box::new(move |packet, _| stage(&packet.session.content));
        hand(&mut exchange, ALICE, packet(&group.invite("org/ns/bob")));
        hand(&mut exchange, ALICE, packet(&group.remove("org/ns/bob")));
        exchange.lose = Box::new(|_, _| false);
        exchange.pass(Duration::from_secs(70));
        assert_eq!(members(&mut exchange), [ALICE], "stage {index}");
        let open = exchange.app(BOB).participants(GROUP);
        if open.is_ok() {
            assert!(is_closed(&exchange.read(BOB, GROUP)), "stage {index}");
        }
        // It may come back.
        hand(&mut exchange, ALICE, packet(&group.invite("org/ns/bob")));
        exchange.pass(Duration::from_secs(5));
        assert_eq!(members(&mut exchange), [ALICE, BOB], "stage {index}");
    }
}

#[test]
fn the_app_itself_may_invite_and_remove_too() {
    let (mut exchange, mut group) = created();
    exchange.with(ALICE, |app, now| app.invite(now, GROUP, &text("org/ns/bob"))).expect("starts");
    assert_eq!(exchange.completed.len(), 1);
    hand(&mut exchange, ALICE, packet(&group.remove("org/ns/bob")));
    assert!(is_closed(&exchange.read(BOB, GROUP)));
    // And what it has created by itself is managed by who knows the number.
    let config = Config::group(&text("org/ns/own"));
    let own = exchange.with(ALICE, |app, now| app.create(now, config)).expect("a session");
    let mut group = Managed::new(ALICE, "org/ns/own", own);
    hand(&mut exchange, ALICE, packet(&group.invite("org/ns/carol")));
    assert_eq!(exchange.app(CAROL).accept().expect("invited").id, own);
}
