//! How links end.

use futures_util::FutureExt;
use slim_quic::client::link::LinkError;
use slim_wire::{CloseCode, Fault};

use crate::fake_node::{FakeNode, message, publish, text};
use crate::support::in_time;

#[tokio::test]
async fn after_the_node_closed_every_call_returns_its_reason() {
    use CloseCode::{Done, Limit, Protocol, Stopping, Timeout, TooSlow};
    let node = FakeNode::start();
    for (code, meaning, fault) in [
        (Done, "done", Fault::Peer),
        (Protocol, "wrong frame", Fault::Internal),
        (TooSlow, "too slow", Fault::Caller),
        (Stopping, "stopping", Fault::Peer),
        (Limit, "limit reached", Fault::Config),
        (Timeout, "timeout", Fault::Peer),
    ] {
        let (link, peer) = node.link().await;
        let name = text("org/ns/me");
        let mut waiting = Box::pin(async { tokio::join!(link.receive(), link.subscribe(&name)) });
        assert!(waiting.as_mut().now_or_never().is_none());
        peer.close(code, "because");
        let expected = format!("the node closed the link ({meaning}): because");
        let (received, subscribed) = in_time("the reason", waiting).await;
        let errors = [
            received.map(|_| ()),
            subscribed,
            link.receive_many(&mut Vec::new()).await.map(|_| ()),
            link.publish(&message(1, 1, "x")).await,
            link.try_publish(&message(1, 1, "x")).map(|_| ()),
            link.unsubscribe(&name).await,
            link.close().await,
            Err(link.closed().await),
        ];
        for error in errors {
            let error = error.expect_err("the link has ended");
            assert_eq!((error.to_string(), error.fault()), (expected.clone(), fault));
        }
    }
}

#[tokio::test]
async fn a_code_that_is_not_known_is_passed_on_as_a_loss() {
    let node = FakeNode::start();
    let (link, peer) = node.link().await;
    peer.connection.close(quinn::VarInt::from_u32(77), b"of the\nfuture");
    let error = in_time("the end", link.closed()).await;
    assert_eq!(error.to_string(), "connection lost: closed with code 77: of the future");
    assert_eq!(error.fault(), Fault::Peer);
}

#[tokio::test]
async fn what_arrived_before_the_end_is_received_before_the_reason() {
    let node = FakeNode::start();
    let (link, mut peer) = node.link().await;
    for number in 0..1_000 {
        peer.send(2, &publish(number, &[0; 200])).await;
    }
    peer.finish_lanes().await;
    peer.close(CloseCode::Stopping, "drained");
    in_time("the end", link.closed()).await;
    for number in 0..1_000 {
        let received = in_time("a message", link.receive()).await.expect("it had arrived");
        assert_eq!(received.ids.message, number);
    }
    let error = in_time("the reason", link.receive()).await.expect_err("nothing more");
    assert!(matches!(error, LinkError::Closed { code: CloseCode::Stopping, .. }), "{error:?}");
}

#[tokio::test]
async fn closing_hands_over_what_was_published() {
    let node = FakeNode::start();
    let (link, mut peer) = node.link().await;
    for number in 0..2_000 {
        link.publish(&message(number % 5, number, vec![0; 700])).await.expect("published");
    }
    let closing = link.clone();
    let closed = tokio::spawn(async move { closing.close().await });
    let mut arrived = 0;
    for _ in 0..8 {
        arrived += in_time("a lane's end", peer.lane().await.count()).await;
    }
    assert_eq!(arrived, 2_000);
    in_time("the end of the control stream", peer.no_more_requests()).await;
    // The node may still have to pass some on.
    assert!(!closed.is_finished());
    peer.close(CloseCode::Done, "");
    in_time("closed", closed).await.expect("no panic").expect("all was handed over");

    let error = link.publish(&message(1, 1, "x")).await.expect_err("closed");
    assert_eq!(error.to_string(), "the link was closed at this end");
    assert_eq!(error.fault(), Fault::Caller);
    in_time("nothing", link.receive()).await.expect_err("closed");
    link.close().await.expect("closed already");
}

#[tokio::test]
async fn closing_towards_a_node_that_does_not_read_ends_in_time_and_says_so() {
    let node = FakeNode::start();
    let mut options = node.options();
    options.close_timeout = std::time::Duration::from_millis(100);
    let (link, peer) = node.link_with(&options).await;
    while link.try_publish(&message(1, 0, vec![0; 10_000])).expect("the link is open") {
        tokio::task::yield_now().await;
    }
    let error = in_time("the end", link.close()).await.expect_err("it was not taken");
    assert!(matches!(error, LinkError::Timeout { .. }), "{error:?}");
    assert_eq!(peer.close_reason().await.0, Some(CloseCode::Done));
}

#[tokio::test]
async fn a_node_that_ends_while_the_link_is_closed_says_that_not_all_was_handed_over() {
    let node = FakeNode::start();
    let (link, mut peer) = node.link().await;
    link.publish(&message(1, 1, "x")).await.expect("published");
    let gone = async {
        in_time("the end of the control stream", peer.no_more_requests()).await;
        peer.close(CloseCode::Stopping, "drain timeout");
    };
    let (closed, ()) = tokio::join!(link.close(), gone);
    let error = closed.expect_err("it stopped");
    assert_eq!(error.to_string(), "the node closed the link (stopping): drain timeout");
}

#[tokio::test]
async fn the_last_handle_closes_the_link() {
    let node = FakeNode::start();
    let (link, mut peer) = node.link().await;
    let other = link.clone();
    drop(link);
    peer.send(0, &publish(1, b"x")).await;
    in_time("a message", other.receive()).await.expect("the link is open");
    drop(other);
    assert_eq!(peer.close_reason().await.0, Some(CloseCode::Done));
}
