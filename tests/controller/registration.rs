use rustix::process::Signal;
use slim_compat_grpc::proto::northbound::Node;
use slim_compat_grpc::proto::southbound::control_message::Payload;
use slim_compat_grpc::proto::southbound::{
    Ack, AddParticipantRequest, ConfigurationCommand, ConfigurationCommandAck, ConnectionStatus,
    DeregisterNodeRequest, ListChannelsRequest,
};
use tonic::Code;

use crate::fake_node::{FakeNode, Script, open, registration};
use crate::program::Controller;
use crate::support::in_time;

fn id(text: &str) -> Node {
    Node { id: text.to_owned(), dest_node_id: String::new() }
}

#[track_caller]
fn assert_in_order(lines: &[String], parts: &[&str]) {
    let mut rest = lines.iter();
    for part in parts {
        assert!(rest.any(|line| line.contains(part)), "{part:?} in its place of {lines:#?}");
    }
}

#[tokio::test]
async fn a_node_is_greeted_registered_and_told_everything_as_the_tutorial_shows() {
    let controller = Controller::start().await;
    let mut operator = controller.operator().await;
    let node = FakeNode::published(controller.south, "slim/0", 46357).await;
    operator.until_connected("slim/0", true).await;
    node.until("a first command", |seen| match seen {
        Payload::ConfigCommand(command) => Some(command.clone()),
        _ => None,
    })
    .await;
    controller.program.line("Sending routes completed successfully ack_messages=[]").await;
    let acks = node.seen().into_iter().filter_map(|seen| match seen {
        Payload::Ack(ack) => Some(ack),
        _ => None,
    });
    let text = vec!["Node registered successfully".to_owned()];
    let greeting = Ack { success: true, ..Ack::default() };
    let registered = Ack { messages: text, ..greeting.clone() };
    assert_eq!(acks.collect::<Vec<_>>(), [greeting, registered]);
    assert_eq!(node.commands(), [ConfigurationCommand::default()]);
    let lines = controller.program.stdout.all();
    assert_in_order(
        &lines,
        &[
            " INF Starting route reconcilers",
            " INF Starting Route Reconciler thread_name=reconciler-0",
            " INF Southbound API Service is Listening on 127.0.0.1:",
            " INF Northbound API Service is listening on 127.0.0.1:",
            " INF Registering node with ID: slim/0 svc=southbound",
            " INF Connection details: [endpoint: 127.0.0.1:46357] svc=southbound",
            " INF Create generic routes for node node_id=slim/0 service=RouteService",
            " INF Sending routes to registered node slim/0 node_id=slim/0",
            " INF Sending configuration command to registered node connections_count=0 message_id=",
            " INF Sending routes completed successfully ack_messages=[] node_id=slim/0 \
             original_message_id=",
        ],
    );
    assert!(lines.iter().all(|line| !line.contains('\u{1b}')), "no colours in a pipe");
    node.stop();
    operator.until_connected("slim/0", false).await;
}

#[tokio::test]
async fn of_two_live_nodes_with_one_id_the_first_stays() {
    let controller = Controller::start().await;
    let mut operator = controller.operator().await;
    let first = FakeNode::published(controller.south, "slim/0", 1).await;
    operator.until_connected("slim/0", true).await;
    let second = FakeNode::published(controller.south, "slim/0", 2).await;
    let refusal = second.until("a refusal", |seen| match seen {
        Payload::Ack(ack) if !ack.success => Some(ack.messages.join(" ")),
        _ => None,
    });
    assert_eq!(refusal.await, "a node with ID slim/0 is connected already");
    second.ended().await.expect("published nodes come back only after an end without an error");
    let listed = operator.0.list_connections(id("slim/0")).await.expect("the first is there");
    assert_eq!(listed.into_inner().entries.len(), 1);
    first.stop();
}

#[tokio::test]
async fn a_stream_that_was_left_behind_gives_way() {
    let controller = Controller::start().await;
    let mut operator = controller.operator().await;
    let silent = Script { silent: true, ..Script::default() };
    let who = registration("slim/0", 1, false);
    let left = FakeNode::start(controller.south, who, silent).await;
    operator.until_connected("slim/0", true).await;
    let next = FakeNode::published(controller.south, "slim/0", 2).await;
    left.ended().await.expect("no error");
    next.until("a first command", |seen| matches!(seen, Payload::ConfigCommand(_)).then_some(()))
        .await;
    assert_eq!(operator.is_connected("slim/0").await, Some(true), "the new one is kept");
    next.stop();
}

#[tokio::test]
async fn who_does_not_register_is_let_go_without_an_error() {
    let controller = Controller::start().await;
    let stranger = Payload::ListChannelRequest(ListChannelsRequest {});
    let (_out, mut messages) = open(controller.south, stranger).await;
    let mut refusals = Vec::new();
    while let Some(message) = in_time("the end", messages.message()).await.expect("no error") {
        if let Some(Payload::Ack(Ack { success: false, messages, .. })) = message.payload {
            refusals.extend(messages);
        }
    }
    assert_eq!(refusals, ["expected a registration as first message"]);
}

#[tokio::test]
async fn a_controller_that_stops_lets_its_nodes_come_back() {
    let mut controller = Controller::start().await;
    let mut operator = controller.operator().await;
    let node = FakeNode::published(controller.south, "slim/0", 1).await;
    operator.until_connected("slim/0", true).await;
    controller.program.signal(Signal::TERM);
    node.ended().await.expect("no error");
    drop(operator);
    assert_eq!(controller.program.exit().await, Some(0));
}

#[tokio::test]
async fn lists_are_whole_in_both_layouts_and_may_be_empty() {
    let controller = Controller::start().await;
    let mut operator = controller.operator().await;
    let node = FakeNode::complete(controller.south, "slim/0", 1).await;
    operator.until_connected("slim/0", true).await;
    for number in 0..99 {
        node.script().clients.insert(("org/ns/app".to_owned(), number));
    }
    let listed = operator.0.list_routes(id("slim/0")).await.expect("a list").into_inner();
    assert_eq!(listed.entries.len(), 100, "exactly one message, with its own");
    for number in 99..10_250 {
        node.script().clients.insert(("org/ns/app".to_owned(), number));
    }
    for later_layout in [false, true] {
        node.script().later_layout = later_layout;
        let listed = operator.0.list_routes(id("slim/0")).await.expect("a list").into_inner();
        assert_eq!(listed.entries.len(), 10_251, "more messages than are queued");
        assert_eq!(listed.entries[1].component_2, "app");
    }
    node.script().unconnected = true;
    let listed = operator.0.list_connections(id("slim/0")).await.expect("the node is alive");
    assert_eq!(listed.into_inner().entries, []);
    node.script().silent = true;
    let error = operator.0.list_connections(id("slim/0")).await.expect_err("it is not");
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(error.message().contains("timeout waiting for message of type"), "{error}");
    node.stop();
    operator.until_connected("slim/0", false).await;
    let error = operator.0.list_connections(id("slim/0")).await.expect_err("nobody is there");
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.message().contains("node slim/0 is not connected"), "{error}");
}

#[tokio::test]
async fn an_answer_may_be_as_large_as_the_largest_command_makes_it() {
    let controller = Controller::start().await;
    let mut operator = controller.operator().await;
    let node = FakeNode::complete(controller.south, "slim/0", 1).await;
    operator.until_connected("slim/0", true).await;
    let statuses = (0..40_000).map(|number| ConnectionStatus {
        connection_id: format!("http://127.0.0.1:{number}"),
        success: false,
        error_msg: "x".repeat(1024),
    });
    let connections_status = statuses.collect();
    let answer = ConfigurationCommandAck { connections_status, ..Default::default() };
    node.send(Payload::ConfigCommandAck(answer)).await;
    node.send(Payload::ListChannelRequest(ListChannelsRequest {})).await;
    let listed = |seen: &Payload| matches!(seen, Payload::ListChannelResponse(_)).then_some(());
    node.until("an answer over the same stream", listed).await;
}

#[tokio::test]
async fn messages_that_no_node_sends_are_answered_and_end_nothing() {
    let controller = Controller::start().await;
    let mut operator = controller.operator().await;
    let node = FakeNode::published(controller.south, "slim/0", 1).await;
    operator.until_connected("slim/0", true).await;
    node.send(Payload::RegisterNodeRequest(registration("slim/1", 1, false))).await;
    node.send(Payload::Ack(Ack::default())).await;
    node.send(Payload::AddParticipantRequest(AddParticipantRequest::default())).await;
    let refusal = node.until("a refusal", |seen| match seen {
        Payload::Ack(ack) if !ack.success => Some(ack.original_message_id.clone()),
        _ => None,
    });
    assert!(!refusal.await.is_empty());
    node.send(Payload::ListChannelRequest(ListChannelsRequest {})).await;
    let listed = node.until("a list", |seen| match seen {
        Payload::ListChannelResponse(list) => Some(list.channel_name.clone()),
        _ => None,
    });
    assert_eq!(listed.await, Vec::<String>::new());
    assert_eq!(operator.is_connected("slim/1").await, None);
    node.send(Payload::DeregisterNodeRequest(DeregisterNodeRequest::default())).await;
    node.until("an answer", |seen| {
        matches!(seen, Payload::DeregisterNodeResponse(_)).then_some(())
    })
    .await;
    operator.until_connected("slim/0", false).await;
    node.ended().await.expect("no error");
}
