//! Nodes that break the protocol, or do not read.

use std::time::Duration;

use h2::Reason;
use http::Response;
use slim_quic::client::link::{Link, LinkError, LinkOptions};
use slim_wire::{CloseCode, Fault};

use crate::fake_node::{FakeNode, WINDOW_BYTES};
use crate::support::in_time;
use crate::support::message::{framed, framed_bytes, publish, subscribe};
use crate::support::native::{message, receive};

const OWN: &str = "org/ns/own/1";
const OTHER: &str = "org/ns/other/2";

#[tokio::test]
async fn what_cannot_be_read_is_dropped_and_counted_and_the_link_goes_on() {
    let node = FakeNode::start().await;
    let (link, mut peer) = node.link(&LinkOptions::default()).await;
    let large = vec![0; 70_000];
    let mut too_rich = publish(OTHER, OWN, "too rich");
    too_rich.metadata.insert("key".into(), String::from_utf8(large).expect("text"));
    for bytes in [
        framed_bytes(b"no message"),
        framed_bytes(b""),
        framed(&subscribe(OTHER, OWN)),
        framed(&too_rich),
        framed(&publish(OTHER, OWN, "good")),
    ] {
        peer.send(bytes);
    }
    let good = receive(&link).await;
    assert_eq!(good.payload, "good");
    let stats = link.stats();
    assert_eq!((stats.ignored, stats.unreadable), (1, 3));
}

#[tokio::test]
async fn broken_framing_ends_the_link_after_what_came_before_it() {
    for (bytes, told) in [
        (&[1, 0, 0, 0, 0][..], "compression flag of a message: expected 0 (none), got 1"),
        (&[0, 0, 0x40, 0, 1], "message length: expected at most 4194304, got 4194305"),
        (&[0, 0, 0, 0, 9, 1], "message: expected 8 more bytes, got 0"),
    ] {
        let node = FakeNode::start().await;
        let (link, mut peer) = node.link(&LinkOptions::default()).await;
        let good = framed(&publish(OTHER, OWN, "good"));
        peer.send([&good[..], bytes].concat());
        peer.end("0", "");
        assert_eq!(receive(&link).await.payload, "good");
        let error = in_time("the end", link.receive()).await.expect_err("broken");
        assert_eq!(error.to_string(), format!("stream of the node: {told}"));
        assert_eq!(error.fault(), Fault::Peer);
        assert_eq!(link.closed().await.to_string(), error.to_string());
    }
}

#[tokio::test]
async fn the_link_tells_why_the_node_ended_it() {
    let node = FakeNode::start().await;
    let (link, mut peer) = node.link(&LinkOptions::default()).await;
    peer.end("3", "cannot be read");
    let error = in_time("the end", link.closed()).await;
    assert!(matches!(error, LinkError::Status { status: 3, .. }), "{error}");
    assert!(error.to_string().ends_with(": cannot be read"), "{error}");

    let (link, mut peer) = node.link(&LinkOptions::default()).await;
    peer.reset(Reason::ENHANCE_YOUR_CALM);
    let error = in_time("the end", link.closed()).await;
    assert!(matches!(error, LinkError::Closed { code: CloseCode::TooSlow, .. }), "{error}");
    assert_eq!(error.fault(), Fault::Caller);
}

#[tokio::test]
async fn an_answer_that_accepts_no_stream_fails_connecting() {
    for (status, header, fault, told) in [
        (200, Some(("grpc-status", "16")), Fault::Config, "status 16"),
        (200, Some(("grpc-status", "14")), Fault::Peer, "status 14"),
        (401, None, Fault::Peer, "status: expected 200, got 401"),
    ] {
        let node = FakeNode::start().await;
        let address = format!("http://{}", node.address);
        let refuse = async {
            let (_, mut respond) = node.accept().await;
            let mut response = Response::builder().status(status);
            if let Some((name, value)) = header {
                response = response.header(name, value);
            }
            let response = response.body(()).expect("a response");
            respond.send_response(response, true).expect("the stream is open");
        };
        let options = LinkOptions::default();
        let both = async { tokio::join!(Link::connect(&address, &options), refuse) };
        let error = in_time("a refusal", both).await.0.expect_err("refused");
        assert!(error.to_string().contains(told), "{error}");
        assert_eq!(error.fault(), fault);
    }
}

#[tokio::test]
async fn a_node_that_does_not_answer_fails_connecting_in_time() {
    let node = FakeNode::start().await;
    let address = format!("http://{}", node.address);
    let connect_timeout = Duration::from_millis(200);
    let options = LinkOptions { connect_timeout, ..LinkOptions::default() };
    let connecting = in_time("a refusal", Link::connect(&address, &options));
    let (error, (mut request, _respond)) = tokio::join!(connecting, node.accept());
    let error = error.expect_err("no answer");
    assert!(matches!(error, LinkError::Timeout { .. }), "{error}");
    // The attempt has left nothing behind.
    let end = in_time("the end of the connection", request.body_mut().data()).await;
    assert!(!matches!(end, Some(Ok(_))), "{end:?}");
}

#[tokio::test]
async fn publishing_waits_for_a_node_that_does_not_read_and_closing_gives_up_in_time() {
    let node = FakeNode::start().await;
    let close_timeout = Duration::from_millis(300);
    let options = LinkOptions { close_timeout, ..LinkOptions::default() };
    let (link, mut peer) = node.link(&options).await;
    let large = message(OWN, OTHER, vec![7; 10_000]);
    let mut bytes = 0;
    while bytes < 64 << 20 && link.try_publish(&large).expect("the link is open") {
        bytes += large.payload.len();
        tokio::task::yield_now().await;
    }
    // The queue, what waits for flow control, and what it lets through.
    assert!(bytes < 2 << 20, "{bytes} bytes were taken");
    // Who stops waiting has published nothing, and the link is as before.
    let waiting = tokio::time::timeout(Duration::from_millis(50), link.publish(&large));
    waiting.await.expect_err("there is no room");
    assert!(!link.try_publish(&large).expect("the link is open"));
    let error = in_time("the end", link.close()).await.expect_err("it reads nothing");
    assert!(matches!(error, LinkError::Timeout { after, .. } if after == close_timeout));
    assert_eq!(peer.reset_by_client().await, Reason::CANCEL);
    let error = link.publish(&large).await.expect_err("closed");
    assert!(matches!(error, LinkError::Ended), "{error}");
}

#[tokio::test]
async fn a_node_is_stopped_by_flow_control_while_the_app_does_not_receive() {
    const COUNT: u32 = 64;
    const LENGTH: usize = 1 << 20;
    let node = FakeNode::start().await;
    let (link, mut peer) = node.link(&LinkOptions::default()).await;
    let frame = framed(&publish(OTHER, OWN, vec![7; LENGTH]));
    let (sent, mut progress) = tokio::sync::watch::channel(0);
    let sending = tokio::spawn(async move {
        for number in 1..=COUNT {
            peer.send_in_time(frame.clone()).await;
            sent.send_replace(number);
        }
        peer.end("0", "");
    });
    let step = Duration::from_millis(300);
    while tokio::time::timeout(step, progress.changed()).await.is_ok() {}
    // The stream's window, the app's queue with a batch, and what the node's end buffers.
    assert!(*progress.borrow() < 8, "{} MiB were taken", *progress.borrow());
    for _ in 0..COUNT {
        assert_eq!(receive(&link).await.payload.len(), LENGTH);
    }
    in_time("the end of sending", sending).await.expect("no panic");
    let end = in_time("the end", link.receive()).await.expect_err("the node ended it");
    assert!(matches!(end, LinkError::Closed { code: CloseCode::Done, .. }), "{end}");
}

#[tokio::test]
async fn closing_ends_this_side_and_waits_for_the_nodes() {
    let node = FakeNode::start().await;
    let (link, mut peer) = node.link(&LinkOptions::default()).await;
    let large = message(OWN, OTHER, vec![7; 4 * WINDOW_BYTES as usize]);
    link.publish(&large).await.expect("there is room");
    let closing = tokio::spawn({
        let link = link.clone();
        async move { link.close().await }
    });
    assert!(peer.read_to_end().await > large.payload.len());
    assert!(!closing.is_finished(), "the node's side is still open");
    // What still comes keeps nobody from closing.
    for _ in 0..8 {
        peer.send(framed(&publish(OTHER, OWN, vec![7; 1 << 20])));
    }
    peer.end("0", "");
    in_time("the close", closing).await.expect("no panic").expect("handed over");
}
