use slim_compat_grpc::proto::northbound::CreateChannelRequest;
use slim_compat_grpc::proto::southbound::control_message::Payload;
use slim_compat_grpc::proto::southbound::{
    AddParticipantRequest, CreateChannelRequest as Create, DeleteChannelRequest as Delete,
};
use tonic::Code;

use crate::fake_node::FakeNode;
use crate::program::{Controller, Operator};

const MODERATOR: &str = "org/ns/moderator/7";
const GUEST: &str = "org/ns/guest";

/// Two nodes of this project, with the moderator at the first and a guest at the second.
async fn two_nodes(controller: &Controller) -> (Operator, FakeNode, FakeNode) {
    let mut operator = controller.operator().await;
    let first = FakeNode::complete(controller.south, "slim/0", 1).await;
    let second = FakeNode::complete(controller.south, "slim/1", 2).await;
    second.share_members(&first);
    operator.until_connected("slim/0", true).await;
    operator.until_connected("slim/1", true).await;
    first.join("org/ns/moderator", 7).await;
    second.join(GUEST, 8).await;
    second.until_routes(&[("org/ns/moderator", 7, "http://127.0.0.1:1")]).await;
    first.until_routes(&[(GUEST, 8, "http://127.0.0.1:2")]).await;
    (operator, first, second)
}

fn is_group_command(payload: &Payload) -> bool {
    matches!(
        payload,
        Payload::CreateChannelRequest(_)
            | Payload::DeleteChannelRequest(_)
            | Payload::AddParticipantRequest(_)
            | Payload::DeleteParticipantRequest(_)
    )
}

fn removals(node: &FakeNode) -> Vec<String> {
    let removals = node.seen().into_iter().filter_map(|seen| match seen {
        Payload::DeleteParticipantRequest(delete) => Some(delete.participant_name),
        _ => None,
    });
    removals.collect()
}

#[tokio::test]
async fn a_group_is_managed_where_its_moderator_is_and_what_is_told_of_it_is_true() {
    let controller = Controller::start().await;
    let (mut operator, first, second) = two_nodes(&controller).await;
    let channel = operator.create("org/ns/moderator").await.expect("the only instance");
    let moderators = vec![MODERATOR.to_owned()];
    let create = Create { moderators: moderators.clone(), channel_name: channel.clone() };
    assert!(first.seen().contains(&Payload::CreateChannelRequest(create)));
    assert_eq!(operator.channels().await, std::slice::from_ref(&channel));
    assert_eq!(operator.participants(&channel).await, Vec::<String>::new());

    let added = operator.add(&channel, GUEST).await.expect("it joins");
    assert!(added.success);
    assert_eq!(added.messages, Vec::<String>::new(), "these are notes for people");
    let add = AddParticipantRequest {
        channel_name: channel.clone(),
        participant_name: GUEST.to_owned(),
        moderators: moderators.clone(),
    };
    assert!(first.seen().contains(&Payload::AddParticipantRequest(add)));
    let asked = |seen: &Payload| matches!(seen, Payload::MembershipRequest(_)).then_some(());
    second.until("a question", asked).await;
    assert_eq!(operator.participants(&channel).await, [GUEST]);
    let before = first.seen().iter().filter(|seen| is_group_command(seen)).count();
    let error = operator.add(&channel, GUEST).await.expect_err("a second time");
    assert_eq!(error.code(), Code::AlreadyExists);
    assert!(error.message().contains("already exists"), "{error}");
    let after = first.seen().iter().filter(|seen| is_group_command(seen)).count();
    assert_eq!(before, after, "nothing is sent");

    let removed = operator.remove(&channel, GUEST).await.expect("it leaves");
    assert_eq!(removed.messages, Vec::<String>::new());
    assert_eq!(operator.participants(&channel).await, Vec::<String>::new());
    let error = operator.remove(&channel, "org/ns/moderator").await.expect_err("not this way");
    assert_eq!(error.code(), Code::NotFound);
    assert!(error.message().contains("not found"), "{error}");
    operator.add(&channel, GUEST).await.expect("it joins again");
    let deleted = operator.delete(&channel).await.expect("deleted");
    assert!(deleted.success && deleted.messages.is_empty());
    let delete = Delete { channel_name: channel, moderators };
    assert!(first.seen().contains(&Payload::DeleteChannelRequest(delete)));
    assert_eq!(operator.channels().await, Vec::<String>::new());
    assert!(!second.seen().iter().any(is_group_command), "only the moderator's node is asked");
}

#[tokio::test]
async fn a_participant_that_nobody_has_is_refused_before_anything_is_sent() {
    let controller = Controller::start().await;
    let (mut operator, first, _second) = two_nodes(&controller).await;
    let channel = operator.create(MODERATOR).await.expect("made");
    let error = operator.add(&channel, "org/ns/nobody").await.expect_err("unknown");
    assert_eq!(error.code(), Code::NotFound);
    let text = "participant org/ns/nobody not found: no client has subscribed to this name";
    assert_eq!(error.message(), text);
    let invited = |seen: &Payload| matches!(seen, Payload::AddParticipantRequest(_));
    assert!(!first.seen().iter().any(invited));
    for wrong in ["org/ns/guest/8", "org/ns", ""] {
        let error = operator.add(&channel, wrong).await.expect_err("not of three parts");
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    }
    // With a published node there may be clients that nobody has heard of.
    let published = FakeNode::published(controller.south, "slim/2", 3).await;
    operator.until_connected("slim/2", true).await;
    operator.add(&channel, "org/ns/nobody").await.expect("as with the published controller");
    published.stop();
}

#[tokio::test]
async fn who_does_not_join_is_not_listed() {
    let controller = Controller::start().await;
    let (mut operator, first, _second) = two_nodes(&controller).await;
    let channel = operator.create(MODERATOR).await.expect("made");
    first.script().deaf = true;
    let mut watching = controller.operator().await;
    let adding = operator.add(&channel, GUEST);
    let watched = async {
        first
            .until("an invitation", |seen| {
                matches!(seen, Payload::AddParticipantRequest(_)).then_some(())
            })
            .await;
        watching.participants(&channel).await
    };
    let (error, meanwhile) = tokio::join!(adding, watched);
    let error = error.expect_err("it does not come");
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert_eq!(error.message(), format!("participant {GUEST} did not join channel {channel}"));
    assert_eq!(meanwhile, Vec::<String>::new());
    assert_eq!(removals(&first), [GUEST], "the invitation is withdrawn");
    assert_eq!(operator.participants(&channel).await, Vec::<String>::new());
    let controller = controller.restart().await;
    let mut operator = controller.operator().await;
    assert_eq!(operator.channels().await, std::slice::from_ref(&channel));
    assert_eq!(operator.participants(&channel).await, Vec::<String>::new(), "nor kept");
}

#[tokio::test]
async fn what_a_node_says_of_a_failure_is_passed_on_and_undone() {
    let controller = Controller::start().await;
    let (mut operator, first, _second) = two_nodes(&controller).await;
    first.script().refusal = Some((9, "there is no token".to_owned()));
    let error = operator.create(MODERATOR).await.expect_err("refused");
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert_eq!(error.message(), "failed to create channel: [there is no token]");
    assert_eq!(operator.channels().await, Vec::<String>::new());
    first.script().refusal = None;
    let channel = operator.create(MODERATOR).await.expect("made");
    first.script().refusal = Some((0, "whatever".to_owned()));
    let error = operator.add(&channel, GUEST).await.expect_err("refused");
    assert_eq!(error.code(), Code::FailedPrecondition, "published nodes give no code");
    assert_eq!(operator.participants(&channel).await, Vec::<String>::new());
    let error = operator.delete(&channel).await.expect_err("refused");
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert_eq!(operator.channels().await, [channel]);
}

#[tokio::test]
async fn a_moderator_has_to_be_one_that_is_there() {
    let controller = Controller::start().await;
    let mut operator = controller.operator().await;
    let error = operator.create(MODERATOR).await.expect_err("no nodes");
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.message().contains("no nodes available"), "{error}");
    let (_, first, second) = two_nodes(&controller).await;
    let error = operator.create("org/ns/moderator/8").await.expect_err("another instance");
    assert_eq!(error.code(), Code::NotFound);
    assert!(error.message().contains("moderator org/ns/moderator/8 not found"), "{error}");
    second.join("org/ns/moderator", 9).await;
    first
        .until_routes(&[
            (GUEST, 8, "http://127.0.0.1:2"),
            ("org/ns/moderator", 9, "http://127.0.0.1:2"),
        ])
        .await;
    let error = operator.create("org/ns/moderator").await.expect_err("two instances");
    assert_eq!(error.code(), Code::FailedPrecondition);
    let both = "org/ns/moderator/7, org/ns/moderator/9";
    assert!(error.message().ends_with(both), "{error}");
    for moderators in [vec![], vec!["org/ns".to_owned()], vec!["org/ns/a/b/c".to_owned()]] {
        let request = CreateChannelRequest { moderators };
        let error = operator.0.create_channel(request).await.expect_err("wrong");
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    }
}

#[tokio::test]
async fn a_channel_without_its_moderator_can_still_be_deleted() {
    let controller = Controller::start().await;
    let (mut operator, first, second) = two_nodes(&controller).await;
    let channel = operator.create(MODERATOR).await.expect("made");
    let controller = controller.restart().await;
    let mut again = controller.operator().await;
    let error = again.delete(&channel).await.expect_err("nothing is known of the moderator");
    assert_eq!(error.code(), Code::Unavailable);
    drop((first, second));
    let first = FakeNode::complete(controller.south, "slim/0", 1).await;
    again.until_connected("slim/0", true).await;
    let error = again.delete(&channel).await.expect_err("it may be at the other node");
    assert_eq!(error.code(), Code::NotFound);
    assert!(error.message().contains("moderator org/ns/moderator/7 not found"), "{error}");
    let _second = FakeNode::complete(controller.south, "slim/1", 2).await;
    again.until_connected("slim/1", true).await;
    let deleted = again.delete(&channel).await.expect("the record goes");
    assert!(deleted.messages[0].starts_with("only the record of the channel was removed"));
    assert_eq!(again.channels().await, Vec::<String>::new());
    assert!(!first.seen().iter().any(is_group_command));
    operator = again;
    let error = operator.delete(&channel).await.expect_err("gone");
    assert_eq!(error.code(), Code::NotFound);
}
