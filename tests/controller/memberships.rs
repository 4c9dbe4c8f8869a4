//! What is kept of channels, and what is so.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use slim_compat_grpc::proto::southbound::control_message::Payload;
use tonic::Code;

use crate::fake_node::FakeNode;
use crate::program::{Controller, Operator};
use crate::support::eventually;

const MODERATOR: &str = "org/ns/moderator/7";
const GUEST: &str = "org/ns/guest";

type Members = Arc<Mutex<BTreeSet<(String, String)>>>;

/// A controller that compares often what it keeps with what nodes say.
async fn controller() -> Controller {
    Controller::start_with("", "reconciler: { sweepPeriod: 100ms }").await
}

/// The moderator's node, and the one of a guest.
async fn nodes(controller: &Controller, published: bool, members: &Members) -> [FakeNode; 2] {
    let first = match published {
        true => FakeNode::published(controller.south, "slim/0", 1).await,
        false => FakeNode::complete(controller.south, "slim/0", 1).await,
    };
    let second = FakeNode::complete(controller.south, "slim/1", 2).await;
    let mut operator = controller.operator().await;
    for (node, id) in [(&first, "slim/0"), (&second, "slim/1")] {
        node.script().members = Arc::clone(members);
        operator.until_connected(id, true).await;
    }
    first.join("org/ns/moderator", 7).await;
    second.join(GUEST, 8).await;
    second.until_routes(&[("org/ns/moderator", 7, "http://127.0.0.1:1")]).await;
    first.until_routes(&[(GUEST, 8, "http://127.0.0.1:2")]).await;
    [first, second]
}

fn enter(members: &Members, channel: &str, name: &str) {
    members.lock().expect("no panic").insert((channel.to_owned(), name.to_owned()));
}

fn leave(members: &Members, channel: &str, name: &str) {
    members.lock().expect("no panic").remove(&(channel.to_owned(), name.to_owned()));
}

async fn until_listed(operator: &mut Operator, channel: &str, participants: &[&str]) {
    eventually("participants", async || {
        (operator.participants(channel).await == participants).then_some(())
    })
    .await;
}

fn is_removal(payload: &Payload) -> bool {
    matches!(payload, Payload::DeleteParticipantRequest(_))
}

/// A controller that was killed while it made a channel, started again, and the channel's name.
async fn cut_off(members: &Members) -> (Controller, String) {
    let controller = controller().await;
    let [first, _second] = nodes(&controller, false, members).await;
    first.script().silent = true;
    let mut operator = controller.operator().await;
    let creating = tokio::spawn(async move { operator.create(MODERATOR).await });
    let channel = first.until("an order", |seen| match seen {
        Payload::CreateChannelRequest(create) => Some(create.channel_name.clone()),
        _ => None,
    });
    let channel = channel.await;
    let controller = controller.restart().await;
    creating.await.expect("no panic").expect_err("the controller is gone");
    (controller, channel)
}

#[tokio::test]
async fn a_channel_whose_making_was_cut_off_is_listed_once_its_moderator_is_in_it() {
    let members = Members::default();
    let (controller, channel) = cut_off(&members).await;

    let _nodes = nodes(&controller, false, &members).await;
    let line = controller.program.line("It is not known whether a channel was made").await;
    assert!(line.contains(" WRN ") && line.contains(&format!("channel={channel}")), "{line}");
    let mut operator = controller.operator().await;
    assert_eq!(operator.channels().await, Vec::<String>::new());
    enter(&members, &channel, "org/ns/moderator");
    eventually("the channel", async || {
        (operator.channels().await == std::slice::from_ref(&channel)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_channel_of_which_nothing_is_known_can_be_deleted() {
    let members = Members::default();
    let (controller, channel) = cut_off(&members).await;

    let [first, _second] = nodes(&controller, false, &members).await;
    let mut operator = controller.operator().await;
    let error = operator.add(&channel, GUEST).await.expect_err("it may not be there");
    assert_eq!(error.code(), Code::NotFound);
    operator.delete(&channel).await.expect("deleted");
    let is_order = |seen: &Payload| matches!(seen, Payload::DeleteChannelRequest(_));
    assert!(first.seen().iter().any(is_order));
    assert_eq!(operator.delete(&channel).await.expect_err("gone").code(), Code::NotFound);
}

#[tokio::test]
async fn an_invitation_that_was_cut_off_is_listed_once_it_is_followed() {
    let (controller, members) = (controller().await, Members::default());
    let [first, _second] = nodes(&controller, false, &members).await;
    let mut operator = controller.operator().await;
    let channel = operator.create(MODERATOR).await.expect("made");
    first.script().deaf = true;
    let to = channel.clone();
    let adding = tokio::spawn(async move { operator.add(&to, GUEST).await });
    let invited = |seen: &Payload| matches!(seen, Payload::AddParticipantRequest(_)).then_some(());
    first.until("an invitation", invited).await;
    let controller = controller.restart().await;
    adding.await.expect("no panic").expect_err("the controller is gone");

    let [first, _second] = nodes(&controller, false, &members).await;
    let line = "It is not known whether an invited participant has joined";
    let line = controller.program.line(line).await;
    let who = format!("channel={channel} participant={GUEST}");
    assert!(line.contains(" WRN ") && line.contains(&who), "{line}");
    let mut operator = controller.operator().await;
    assert_eq!(operator.participants(&channel).await, Vec::<String>::new());
    enter(&members, &channel, GUEST);
    until_listed(&mut operator, &channel, &[GUEST]).await;

    leave(&members, &channel, GUEST);
    let line = controller.program.line("A participant is listed, but not in its channel").await;
    assert!(line.contains(" WRN ") && line.contains(&who), "{line}");
    assert_eq!(operator.participants(&channel).await, [GUEST], "it is only logged");
    assert!(!first.seen().iter().any(is_removal));
}

#[tokio::test]
async fn who_joins_late_by_an_invitation_that_cannot_be_withdrawn_is_listed_and_can_be_removed() {
    let (controller, members) = (controller().await, Members::default());
    let [first, _second] = nodes(&controller, true, &members).await;
    let mut operator = controller.operator().await;
    let channel = operator.create(MODERATOR).await.expect("made");
    first.script().deaf = true;
    let error = operator.add(&channel, GUEST).await.expect_err("it does not come");
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(error.message().contains("the invitation stands"), "{error}");
    assert_eq!(operator.participants(&channel).await, Vec::<String>::new());
    let error = operator.remove(&channel, GUEST).await.expect_err("it is not in it");
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(!first.seen().iter().any(is_removal), "its moderator would do nothing else any more");
    enter(&members, &channel, GUEST);
    until_listed(&mut operator, &channel, &[GUEST]).await;
    operator.remove(&channel, GUEST).await.expect("removed");
    assert!(first.seen().iter().any(is_removal));
    assert_eq!(operator.participants(&channel).await, Vec::<String>::new());
}

#[tokio::test]
async fn without_its_moderator_a_participant_goes_only_if_it_has_left() {
    let (controller, members) = (controller().await, Members::default());
    let [first, _second] = nodes(&controller, false, &members).await;
    let mut operator = controller.operator().await;
    let channel = operator.create(MODERATOR).await.expect("made");
    operator.add(&channel, GUEST).await.expect("it joins");
    let nobody = "moderator org/ns/moderator/7 not found: no client of this node has this name";
    first.script().refusal = Some((5, nobody.to_owned()));
    let error = operator.remove(&channel, GUEST).await.expect_err("nobody removes it");
    assert_eq!(error.code(), Code::NotFound);
    assert!(error.message().contains(nobody), "{error}");
    assert_eq!(operator.participants(&channel).await, [GUEST]);
    leave(&members, &channel, GUEST);
    operator.remove(&channel, GUEST).await.expect("it has left by itself");
    assert_eq!(operator.participants(&channel).await, Vec::<String>::new());

    let published = FakeNode::published(controller.south, "slim/2", 3).await;
    operator.until_connected("slim/2", true).await;
    published.join("org/ns/other", 9).await;
    first.script().refusal = None;
    operator.add(&channel, "org/ns/other").await.expect("as far as anybody knows");
    first.script().refusal = Some((5, nobody.to_owned()));
    let error = operator.remove(&channel, "org/ns/other").await.expect_err("nobody removes it");
    assert_eq!(error.code(), Code::NotFound);
    assert_eq!(operator.participants(&channel).await, ["org/ns/other"]);
}
