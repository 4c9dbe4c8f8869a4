//! A node that stops, seen by native clients.

use rustix::process::Signal;
use slim_quic::client::link::LinkError;
use slim_wire::{CloseCode, FrameKind, frame};

use crate::support::in_time;
use crate::support::native::{
    Raw, header, join, message, publish, read_frame, receive, send, try_link,
};
use crate::support::node::Node;

const RECEIVER: &str = "org/ns/receiver/1";
const SOURCE: &str = "org/ns/source/2";
const PAYLOAD: usize = 64 * 1024;

/// Publishes `count` numbered messages for the receiver, and waits until some of them wait.
async fn fill(node: &Node, count: u64) {
    let source = join(node, &[SOURCE]).await;
    for number in 0..count {
        let payload = [&number.to_le_bytes()[..], &[7; PAYLOAD]].concat();
        send(&source, &message(SOURCE, RECEIVER, payload)).await;
    }
    node.until("messages wait", |metrics| {
        metrics.sum("slim_messages_matched_total") == count
            && metrics.sum("slim_deliveries_queued") > 0
    })
    .await;
}

#[tokio::test]
async fn a_stopping_node_delivers_what_it_has_and_says_goodbye() {
    const COUNT: u64 = 160;
    let mut node = Node::start("limits: { slow_consumer_ms: 600000 }").await;
    let (raw, mut control) = Raw::greeted(&node).await;
    control.subscribe(1, RECEIVER).await;
    fill(&node, COUNT).await;
    let idle = join(&node, &["org/ns/idle/3"]).await;
    let silent = Raw::connect(&node).await;
    node.program.signal(Signal::TERM);
    // Who has nothing to wait for is let go at once; newcomers are turned away with a word.
    let end = in_time("the end", idle.closed()).await;
    assert!(matches!(end, LinkError::Closed { code: CloseCode::Stopping, .. }), "{end}");
    assert_eq!(silent.closed().await.0, CloseCode::Stopping);
    let refused = try_link(&node).await.expect_err("the node stops");
    assert!(refused.to_string().contains("it takes no more connections"), "{refused}");
    assert!(node.program.is_running(), "something still waits");

    let mut lane = raw.accept(SOURCE).await;
    for number in 0..COUNT {
        let (_, payload) = read_frame(&mut lane).await;
        assert_eq!(payload[..8], number.to_le_bytes());
    }
    assert!(in_time("the end of the lane", lane.read_to_end(1)).await.expect("ended").is_empty());
    assert_eq!(raw.closed().await, (CloseCode::Stopping, "this node stops".to_owned()));
    assert_eq!(node.program.exit().await, Some(0));
    assert!(node.program.stdout.find("slim: stopped").is_some());
}

#[tokio::test]
async fn a_client_that_does_not_read_is_left_behind() {
    let top = "runtime: { drain_timeout: 1s }\nlimits: { slow_consumer_ms: 600000 }";
    let mut node = Node::start(top).await;
    let (_raw, mut control) = Raw::greeted(&node).await;
    control.subscribe(1, RECEIVER).await;
    fill(&node, 160).await;
    node.program.signal(Signal::TERM);
    assert_eq!(node.program.exit().await, Some(4));
}

#[tokio::test]
async fn a_source_that_never_stops_does_not_keep_the_node_from_stopping() {
    let mut node = Node::start("").await;
    let receiver = join(&node, &[RECEIVER]).await;
    let (raw, _control) = Raw::greeted(&node).await;
    let mut lane = raw.lane().await;
    let flood = tokio::spawn(async move {
        let frame = publish(SOURCE, RECEIVER, &[7; 1_000]);
        while lane.write_all(&frame).await.is_ok() {}
    });
    for _ in 0..100 {
        receive(&receiver).await;
    }
    node.program.signal(Signal::TERM);
    let end = in_time("the end", async {
        loop {
            if let Err(end) = receiver.receive().await {
                return end;
            }
        }
    })
    .await;
    assert!(matches!(end, LinkError::Closed { code: CloseCode::Stopping, .. }), "{end}");
    assert_eq!(node.program.exit().await, Some(0));
    in_time("the source is told", flood).await.expect("no panic");
    assert_eq!(raw.closed().await.0, CloseCode::Stopping);
}

#[tokio::test]
async fn begun_frames_and_requests_do_not_keep_the_node_from_stopping() {
    let mut node = Node::start("runtime: { drain_timeout: 1h }").await;
    let (raw, mut control) = Raw::greeted(&node).await;
    let mut lane = raw.lane().await;
    lane.write_all(&publish(SOURCE, RECEIVER, &[7; 1_000])[..500]).await.expect("sent");
    let begun = frame(
        FrameKind::Subscribe,
        &header(SOURCE, RECEIVER),
        slim_wire::SessionIds::default(),
        &[],
        b"org/ns/receiver",
    );
    control.say(&begun.expect("it fits")[..110]).await;
    node.program.signal(Signal::TERM);
    assert_eq!(raw.closed().await.0, CloseCode::Stopping);
    assert_eq!(node.program.exit().await, Some(0));
}
