//! Who is not obeyed, and what is not done twice.

use slim_quic::identity::IdentityError;
use slim_quic::session::{Config, ControlCounts, ControlPlane, Limits, Packet, SessionError};
use slim_wire::session::{Content, SessionKind};

use crate::exchange::{Exchange, identity, text};
use crate::messages::{Managed, hand, packet};
use crate::requests::{
    ALICE, BOB, CAROL, CHANNEL, GROUP, apps, counts, created, members, outcomes, publish,
};

/// All that there is to ask.
fn everything(group: &mut Managed) -> Vec<Packet> {
    let requests = [
        group.create(),
        group.invite("org/ns/carol"),
        group.remove("org/ns/bob"),
        group.remove(ALICE),
        group.delete(),
    ];
    requests.iter().map(packet).collect()
}

/// One that has Bob for a member.
fn with_bob() -> (Exchange, Managed) {
    let (mut exchange, mut group) = created();
    hand(&mut exchange, ALICE, packet(&group.invite("org/ns/bob")));
    (exchange, group)
}

#[test]
fn only_the_subject_of_the_control_plane_is_obeyed() {
    // Tokens of an ordinary app with the same secret, of one with another, and no good ones.
    for token in ["secret:mallory", "secret:Control-Plane", "other:control-plane", "secret:", ""] {
        let (mut exchange, group) = with_bob();
        let before = counts(&mut exchange);
        for request in everything(&mut group.with_token(token)) {
            hand(&mut exchange, ALICE, request);
        }
        assert_eq!(members(&mut exchange), [ALICE, BOB], "{token}");
        assert!(exchange.app(CAROL).accept().is_none(), "{token}");
        let after = counts(&mut exchange);
        assert_eq!(ControlCounts { refused: 0, ..after }, before, "{token}");
        let good = token.starts_with("secret:");
        // Requests to be removed are also those of members, and dropped where those are.
        assert_eq!((after.refused, exchange.rejected.len()), if good { (3, 3) } else { (0, 5) });
        let (_, error) = exchange.rejected.first().expect("some");
        assert_eq!(matches!(error, IdentityError::Subject { .. }), good, "{token}: {error}");
    }
}

#[test]
fn an_app_obeys_whom_it_was_told_to() {
    let subject = |of: &str| ControlPlane::FromSubject(of.into());
    for (control_plane, token, obeyed) in [
        (ControlPlane::Refused, "secret:control-plane", false),
        (subject("operator"), "secret:control-plane", false),
        (subject("operator"), "secret:operator", true),
        (subject(""), "secret:", false),
    ] {
        let mut exchange = Exchange::default();
        exchange.join_under(ALICE, identity(ALICE, "secret"), Limits::default(), control_plane);
        let mut group = Managed::new(ALICE, CHANNEL, GROUP).with_token(token);
        hand(&mut exchange, ALICE, packet(&group.create()));
        assert_eq!(exchange.app(ALICE).accept().is_some(), obeyed, "{token}");
    }
}

#[test]
fn a_request_that_comes_again_is_not_executed_again() {
    let (mut exchange, mut group) = created();
    let invite = packet(&group.invite("org/ns/bob"));
    let remove = packet(&group.remove("org/ns/bob"));
    hand(&mut exchange, ALICE, invite.clone());
    hand(&mut exchange, ALICE, remove.clone());
    let sent = exchange.sent.len();
    // Whoever has seen them says them again, with any good token of the control plane.
    for request in [&invite, &remove, &invite] {
        hand(&mut exchange, ALICE, request.clone());
    }
    assert_eq!(exchange.sent.len(), sent);
    assert_eq!(members(&mut exchange), [ALICE]);
    assert_eq!(counts(&mut exchange).repeated, 3);

    let delete = packet(&group.delete());
    hand(&mut exchange, ALICE, delete.clone());
    let mut again = group.clone();
    hand(&mut exchange, ALICE, packet(&again.create()));
    exchange.read(ALICE, GROUP);
    hand(&mut exchange, ALICE, packet(&again.create()));
    hand(&mut exchange, ALICE, delete);
    assert_eq!(members(&mut exchange), [ALICE], "the new group goes on");
}

#[test]
fn what_is_asked_of_unknown_sessions_is_dropped_and_counted() {
    let (mut exchange, mut group) = apps();
    let requests = everything(&mut group);
    for request in &requests[1..] {
        hand(&mut exchange, ALICE, request.clone());
    }
    assert_eq!(exchange.sent, [], "nobody is answered");
    assert_eq!(counts(&mut exchange), ControlCounts { unknown: 4, ..ControlCounts::default() });
    let unknown = SessionError::Unknown { session: GROUP };
    assert!(outcomes(&mut exchange).iter().all(|(_, error)| error.as_ref() == Some(&unknown)));
}

#[test]
fn who_is_only_a_member_does_not_moderate() {
    let (mut exchange, mut group) = with_bob();
    outcomes(&mut exchange);
    group.moderator = BOB.to_owned();
    for request in [group.invite("org/ns/carol"), group.remove("org/ns/alice"), group.delete()] {
        hand(&mut exchange, BOB, packet(&request));
    }
    let outcomes = outcomes(&mut exchange);
    let refused =
        |error: &Option<SessionError>| matches!(error, Some(SessionError::NotModerator { .. }));
    assert!(outcomes.len() == 3 && outcomes.iter().all(|(_, error)| refused(error)));
    publish(&mut exchange, ALICE, "still here");
    assert_eq!(exchange.texts(BOB, GROUP), ["still here"]);
}

#[test]
fn a_group_is_not_created_in_place_of_another_session() {
    let (mut exchange, mut group) = with_bob();
    outcomes(&mut exchange);
    // Once more for the same group: nothing is left to be done.
    hand(&mut exchange, ALICE, packet(&group.create()));
    assert_eq!(outcomes(&mut exchange).pop().expect("an outcome").1, None);
    let mut other = group.clone();
    other.channel = "org/ns/other".to_owned();
    hand(&mut exchange, ALICE, packet(&other.create()));
    let error = outcomes(&mut exchange).pop().expect("an outcome").1;
    assert!(matches!(error, Some(SessionError::Argument { field: "session id", .. })));
    assert_eq!(members(&mut exchange), [ALICE, BOB]);
    assert!(exchange.app(ALICE).accept().is_none());
}

#[test]
fn what_cannot_be_a_group_is_not_created() {
    let create = |change: &dyn Fn(&mut Packet)| {
        let (mut exchange, mut group) = apps();
        let mut request = packet(&group.create());
        change(&mut request);
        hand(&mut exchange, ALICE, request);
        assert!(exchange.app(ALICE).accept().is_none());
        let (_, error) = outcomes(&mut exchange).pop().expect("an outcome");
        match error.expect("a reason") {
            SessionError::Argument { field, .. } => field,
            other => panic!("{other:?}"),
        }
    };
    let point_to_point = create(&|request| request.session.kind = SessionKind::PointToPoint);
    assert_eq!(point_to_point, "session type");
    assert_eq!(create(&|request| request.ids.session = u32::MAX - 1000), "session id");
    let hashes = create(&|request| {
        request.session.destination = None;
        if let Content::JoinRequest { channel, .. } = &mut request.session.content {
            channel.texts = None;
        }
    });
    assert_eq!(hashes, "channel");
    let metadata = create(&|request| {
        request.session.metadata = (0..250).map(|n| (n.to_string(), String::new())).collect();
    });
    assert_eq!(metadata, "metadata");

    let mut exchange = Exchange::default();
    exchange.join_with(ALICE, "secret", Limits { sessions: 1, ..Limits::default() });
    let config = Config::group(&text("org/ns/own"));
    exchange.with(ALICE, |app, now| app.create(now, config)).expect("a session");
    hand(&mut exchange, ALICE, packet(&Managed::new(ALICE, CHANNEL, GROUP).create()));
    assert!(exchange.app(ALICE).accept().is_none());
    assert_eq!(counts(&mut exchange).failed, 1);
}
