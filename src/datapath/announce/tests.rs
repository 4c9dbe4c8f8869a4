use slim_wire::{Id, Prefix};

use super::*;
use crate::datapath::testing::port;
use crate::datapath::{Framing, Port};

fn text(app: &str) -> Arc<TextName> {
    Arc::new(format!("org/ns/{app}/7").parse().expect("a name"))
}

fn subscribe(port: &Arc<Port>, text: &Arc<TextName>) -> Change {
    let (port, name, text) = (Arc::clone(port), text.to_name(), Some(Arc::clone(text)));
    Change::Subscribe { port, space: Space::D20, name, text, recency: None }
}

fn unsubscribe(port: &Port, text: &TextName) -> Change {
    Change::Unsubscribe(port.id(), Space::D20, text.to_name())
}

fn app(name: &TextName) -> String {
    name.components()[2].to_owned()
}

/// A node of a published release, which is told of the names of one space.
const PUBLISHED: Audience = Audience::Published(Space::D20);

fn note(announcer: &mut Announcer, change: &Change) {
    announcer.note(change, |_| {});
}

fn next(announcer: &mut Announcer, link: LinkId) -> Option<Announcement> {
    announcer.next(link, |_| 1, |_| true)
}

fn told(announcer: &mut Announcer, link: LinkId) -> Vec<(Subscription, String)> {
    let all = std::iter::from_fn(|| next(announcer, link));
    all.map(|told| (told.change, app(told.text.as_ref().expect("it is known")))).collect()
}

#[test]
fn a_node_is_told_with_the_first_client_of_a_name_and_after_the_last() {
    let (mut announcer, [node, one, two]) = (Announcer::default(), [1, 2, 3].map(port));
    announcer.listen(node.id(), PUBLISHED);
    let name = text("app");
    note(&mut announcer, &subscribe(&one, &name));
    note(&mut announcer, &subscribe(&two, &name));
    let made = vec![(Subscription::Made, "app".to_owned())];
    assert_eq!(told(&mut announcer, node.id()), made);
    note(&mut announcer, &unsubscribe(&one, &name));
    assert_eq!(told(&mut announcer, node.id()), []);
    note(&mut announcer, &unsubscribe(&two, &name));
    let gone = vec![(Subscription::TakenBack, "app".to_owned())];
    assert_eq!(told(&mut announcer, node.id()), gone);
}

#[test]
fn a_node_that_comes_later_is_told_of_all_there_is() {
    let (mut announcer, [node, one]) = (Announcer::default(), [1, 2].map(port));
    for app in ["a", "b", "c"] {
        note(&mut announcer, &subscribe(&one, &text(app)));
    }
    note(&mut announcer, &unsubscribe(&one, &text("b")));
    announcer.listen(node.id(), PUBLISHED);
    let mut names: Vec<_> = told(&mut announcer, node.id()).into_iter().map(|t| t.1).collect();
    names.sort();
    assert_eq!(names, ["a", "c"]);
    announcer.leave(node.id());
    announcer.listen(node.id(), Audience::Published(Space::P));
    assert_eq!(told(&mut announcer, node.id()), []);
}

#[test]
fn what_came_and_went_before_it_was_told_is_not_told() {
    let (mut announcer, [node, one]) = (Announcer::default(), [1, 2].map(port));
    announcer.listen(node.id(), PUBLISHED);
    note(&mut announcer, &subscribe(&one, &text("app")));
    note(&mut announcer, &unsubscribe(&one, &text("app")));
    assert_eq!(told(&mut announcer, node.id()), []);
}

#[test]
fn a_name_that_comes_and_goes_waits_once() {
    let (mut announcer, [node, one, two]) = (Announcer::default(), [1, 2, 3].map(port));
    announcer.listen(node.id(), PUBLISHED);
    for _ in 0..1000 {
        note(&mut announcer, &subscribe(&one, &text("app")));
        note(&mut announcer, &unsubscribe(&one, &text("app")));
    }
    assert_eq!(announcer.listeners[&node.id()].changed.len(), 0);
    note(&mut announcer, &subscribe(&one, &text("app")));
    note(&mut announcer, &subscribe(&two, &text("app")));
    assert_eq!(announcer.listeners[&node.id()].changed.len(), 1);
}

#[test]
fn what_another_node_reaches_is_not_announced() {
    let mut announcer = Announcer::default();
    let id = |number| port(number).id();
    let framing = Framing::PublishedNode { node: None, ends_here: false };
    let other = Arc::new(Port::new(id(2), framing, "another node"));
    announcer.listen(id(1), PUBLISHED);
    note(&mut announcer, &subscribe(&other, &text("app")));
    note(&mut announcer, &unsubscribe(&other, &text("app")));
    assert_eq!(told(&mut announcer, id(1)), []);
}

/// A name that is known by its hashes only.
fn hashes(prefix: u64) -> Name {
    Name { prefix: Prefix([0, 0, prefix]), id: Id::new(7) }
}

fn subscribe_hashes(port: &Arc<Port>, space: Space, name: Name) -> Change {
    Change::Subscribe { port: Arc::clone(port), space, name, text: None, recency: None }
}

#[test]
fn a_node_of_this_kind_is_told_of_every_space_and_of_names_without_texts() {
    let (mut announcer, [node, published, one]) = (Announcer::default(), [1, 2, 3].map(port));
    announcer.listen(node.id(), Audience::Exchange);
    announcer.listen(published.id(), PUBLISHED);
    for space in Space::ALL {
        note(&mut announcer, &subscribe_hashes(&one, space, hashes(1)));
    }
    let spaces = std::iter::from_fn(|| next(&mut announcer, node.id())).map(|told| told.space);
    let mut spaces: Vec<_> = spaces.collect();
    spaces.sort_by_key(|space| *space as u8);
    assert_eq!(spaces, Space::ALL);
    assert!(next(&mut announcer, published.id()).is_none());
    note(&mut announcer, &Change::Unsubscribe(one.id(), Space::P, hashes(1)));
    let gone = next(&mut announcer, node.id()).expect("it was told");
    assert_eq!(
        (gone.change, gone.space, gone.name),
        (Subscription::TakenBack, Space::P, hashes(1))
    );
}

#[test]
fn a_node_is_not_told_of_names_that_it_may_not_know() {
    let (mut announcer, [node, one]) = (Announcer::default(), [1, 2].map(port));
    announcer.listen(node.id(), Audience::Exchange);
    for number in 1..=2 {
        note(&mut announcer, &subscribe_hashes(&one, Space::Native, hashes(number)));
    }
    let may = |name: &Name| *name == hashes(2);
    assert_eq!(announcer.next(node.id(), |_| 1, may).map(|told| told.name), Some(hashes(2)));
    assert!(announcer.next(node.id(), |_| 1, may).is_none());
    note(&mut announcer, &Change::Unsubscribe(one.id(), Space::Native, hashes(1)));
    assert!(announcer.next(node.id(), |_| 1, may).is_none());
}

#[test]
fn a_change_of_what_a_node_may_know_is_told_and_taken_back() {
    let (mut announcer, [node, published, one]) = (Announcer::default(), [1, 2, 3].map(port));
    announcer.listen(node.id(), Audience::Exchange);
    announcer.listen(published.id(), Audience::Published(Space::P));
    for number in 1..=3 {
        note(&mut announcer, &subscribe_hashes(&one, Space::Native, hashes(number)));
    }
    let judged = |announcer: &mut Announcer, may: fn(&Name) -> bool| {
        let mut woken = Vec::new();
        announcer.judge_again(|link| woken.push(link));
        assert_eq!(woken, [node.id()], "nothing is here for the other");
        let all = std::iter::from_fn(|| announcer.next(node.id(), |_| 1, may));
        let mut all: Vec<_> = all.map(|told| (told.name.prefix.0[2], told.change)).collect();
        all.sort_by_key(|(number, _)| *number);
        all
    };
    let (made, gone) = (Subscription::Made, Subscription::TakenBack);
    assert_eq!(judged(&mut announcer, |name| *name != hashes(3)), [(1, made), (2, made)]);
    assert_eq!(judged(&mut announcer, |name| *name != hashes(3)), [], "it is as it was");
    assert_eq!(
        judged(&mut announcer, |name| *name == hashes(3)),
        [(1, gone), (2, gone), (3, made)]
    );
    assert_eq!(judged(&mut announcer, |_| true), [(1, made), (2, made)]);
    assert_eq!(judged(&mut announcer, |_| false), [(1, gone), (2, gone), (3, gone)]);
    note(&mut announcer, &Change::Unsubscribe(one.id(), Space::Native, hashes(1)));
    assert!(announcer.next(node.id(), |_| 1, |_| true).is_none(), "it was taken back before");
}

#[test]
fn what_a_node_refused_and_may_no_longer_know_takes_the_room_of_nothing_else() {
    let (mut announcer, [node, one]) = (Announcer::default(), [1, 2].map(port));
    announcer.listen(node.id(), Audience::Exchange);
    let mut told = Vec::new();
    for number in 1..=3 {
        note(&mut announcer, &subscribe_hashes(&one, Space::Native, hashes(number)));
        told.push(next(&mut announcer, node.id()).expect("it is new"));
        announcer.answered(node.id(), &told[told.len() - 1], number == 1);
    }
    let may = |name: &Name| *name == hashes(2);
    announcer.judge_again(|_| {});
    let mut again: Vec<_> = std::iter::from_fn(|| announcer.next(node.id(), |_| 1, may)).collect();
    again.sort_by_key(|told| told.name.prefix.0[2]);
    let [back, retried] = &again[..] else { panic!("{again:?}") };
    assert_eq!((back.change, back.name), (Subscription::TakenBack, hashes(1)));
    assert_eq!((retried.change, retried.name), (Subscription::Made, hashes(2)));
    announcer.answered(node.id(), retried, false);
    announcer.answered(node.id(), back, true);
    let last = announcer.next(node.id(), |_| 1, may).expect("there is room for one");
    assert_eq!((last.change, last.name), (Subscription::Made, hashes(2)));
}

#[test]
fn a_name_that_a_newer_client_has_too_is_told_again() {
    let (mut announcer, [node, one, two]) = (Announcer::default(), [1, 2, 3].map(port));
    announcer.listen(node.id(), Audience::Exchange);
    let mut next = |change: &Change, recency| {
        note(&mut announcer, change);
        announcer.next(node.id(), |_| recency, |_| true).map(|told| (told.change, told.recency))
    };
    let subscribe = |port| subscribe_hashes(port, Space::Native, hashes(1));
    assert_eq!(next(&subscribe(&one), 1), Some((Subscription::Made, 1)));
    assert_eq!(next(&subscribe(&two), 3), Some((Subscription::Made, 3)));
    let gone = |port: &Port| Change::Unsubscribe(port.id(), Space::Native, hashes(1));
    assert_eq!(next(&gone(&two), 1), None, "it is still there, and nobody has a newer one");
    assert_eq!(next(&gone(&one), 0), Some((Subscription::TakenBack, 3)));
}

#[test]
fn what_was_refused_is_told_again_when_something_else_was_taken_back() {
    let (mut announcer, [node, one]) = (Announcer::default(), [1, 2].map(port));
    announcer.listen(node.id(), Audience::Exchange);
    let gone = |name| Change::Unsubscribe(one.id(), Space::Native, name);
    note(&mut announcer, &subscribe_hashes(&one, Space::Native, hashes(1)));
    let taken = next(&mut announcer, node.id()).expect("it is new");
    announcer.answered(node.id(), &taken, true);
    note(&mut announcer, &subscribe_hashes(&one, Space::Native, hashes(2)));
    let refused = next(&mut announcer, node.id()).expect("it is new");
    announcer.answered(node.id(), &refused, false);
    assert!(next(&mut announcer, node.id()).is_none(), "not at once");
    note(&mut announcer, &gone(hashes(1)));
    let back = next(&mut announcer, node.id()).expect("it was told");
    assert_eq!(back.change, Subscription::TakenBack);
    assert!(next(&mut announcer, node.id()).is_none(), "there is no room before the answer");
    announcer.answered(node.id(), &back, true);
    let again = next(&mut announcer, node.id()).expect("there may be room");
    assert_eq!((again.change, again.name), (Subscription::Made, hashes(2)));
    announcer.answered(node.id(), &again, false);
    note(&mut announcer, &gone(hashes(2)));
    assert!(next(&mut announcer, node.id()).is_none(), "it was never taken");
    announcer.answered(node.id(), &back, true);
    assert!(next(&mut announcer, node.id()).is_none(), "nobody wants it any more");
}

#[test]
fn a_late_refusal_says_nothing_of_a_name_that_was_told_again_since() {
    let (mut announcer, [node, one]) = (Announcer::default(), [1, 2].map(port));
    announcer.listen(node.id(), Audience::Exchange);
    let subscribe = subscribe_hashes(&one, Space::Native, hashes(1));
    let gone = Change::Unsubscribe(one.id(), Space::Native, hashes(1));
    note(&mut announcer, &subscribe);
    let first = next(&mut announcer, node.id()).expect("it is new");
    note(&mut announcer, &gone);
    next(&mut announcer, node.id()).expect("it was told");
    note(&mut announcer, &subscribe);
    let second = next(&mut announcer, node.id()).expect("it is back");
    announcer.answered(node.id(), &first, false);
    announcer.answered(node.id(), &second, true);
    note(&mut announcer, &gone);
    let back = next(&mut announcer, node.id()).expect("the node knows it");
    assert_eq!(back.change, Subscription::TakenBack);
}

#[test]
fn a_node_that_hears_nothing_costs_no_more_than_the_names_there_are() {
    let (mut announcer, [node, one]) = (Announcer::default(), [1, 2].map(port));
    announcer.listen(node.id(), Audience::Exchange);
    for number in 0..1000 {
        note(&mut announcer, &subscribe_hashes(&one, Space::Native, hashes(number)));
        if number >= 10 {
            let gone = Change::Unsubscribe(one.id(), Space::Native, hashes(number - 10));
            note(&mut announcer, &gone);
        }
    }
    assert_eq!(announcer.listeners[&node.id()].changed.len(), 10);
}
