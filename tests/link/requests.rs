//! Subscribing and taking it back.

use futures_util::FutureExt;
use slim_quic::client::link::{LinkError, LinkOptions};
use slim_wire::{CloseCode, Fault, Flags, FrameKind};

use crate::fake_node::{FakeNode, name, text};
use crate::support::in_time;

const NAME: &str = "org/ns/me/7";

#[tokio::test]
async fn a_subscription_holds_once_the_node_has_acknowledged_it() {
    let node = FakeNode::start();
    let options = LinkOptions { name: Some(text(NAME)), ..node.options() };
    let (link, mut peer) = node.link_with(&options).await;
    let wanted = text("org/ns/topic");
    for kind in [FrameKind::Subscribe, FrameKind::Unsubscribe] {
        let mut asked = Box::pin(async {
            match kind {
                FrameKind::Subscribe => link.subscribe(&wanted).await,
                _ => link.unsubscribe(&wanted).await,
            }
        });
        assert!(asked.as_mut().now_or_never().is_none());
        let (head, frame) = peer.request().await;
        assert_eq!(head.kind(), Ok(kind));
        assert_eq!((head.destination(), head.source()), (wanted.to_name(), name(NAME)));
        assert_eq!(head.parts(&frame), (&b""[..], &b"org/ns/topic"[..]));
        assert!(asked.as_mut().now_or_never().is_none());
        peer.say(FrameKind::Ack, head.ids().message, Flags::empty(), &[]).await;
        in_time("an answer", asked).await.expect("done");
    }
}

#[tokio::test]
async fn a_refusal_carries_the_nodes_reason_and_the_link_goes_on() {
    let node = FakeNode::start();
    let (link, mut peer) = node.link().await;
    let wanted = text("org/ns/topic");
    let (answer, ()) = tokio::join!(link.subscribe(&wanted), async {
        let (head, _) = peer.request().await;
        let reason = b"limits.subscriptions_per_link:\nexpected at most 3";
        peer.say(FrameKind::Ack, head.ids().message, Flags::ERROR, reason).await;
    });
    let error = answer.expect_err("refused");
    assert_eq!(error.fault(), Fault::Caller);
    let text = error.to_string();
    assert!(text.starts_with("the node refused to subscribe "), "{text}");
    assert!(text.contains("(org/ns/topic/"), "{text}");
    assert!(text.ends_with(": limits.subscriptions_per_link: expected at most 3"), "{text}");

    let (answer, ()) = tokio::join!(link.unsubscribe(&wanted), async {
        let (head, _) = peer.request().await;
        peer.say(FrameKind::Ack, head.ids().message, Flags::empty(), &[]).await;
    });
    answer.expect("done");
}

#[tokio::test]
async fn answers_find_their_requests_in_any_order() {
    let node = FakeNode::start();
    let (link, mut peer) = node.link().await;
    let names = ["org/ns/a", "org/ns/b", "org/ns/c"].map(text);
    let asked = names.clone().map(|name| {
        let link = link.clone();
        tokio::spawn(async move { link.subscribe(&name).await })
    });
    let mut heads = Vec::new();
    while heads.len() < 3 {
        heads.extend(peer.requests().await.into_iter().map(|(head, _)| head));
    }
    for head in heads.iter().rev() {
        let refused = head.destination() == names[1].to_name();
        let flags = if refused { Flags::ERROR } else { Flags::empty() };
        peer.say(FrameKind::Ack, head.ids().message, flags, b"not b").await;
    }
    let mut refused = 0;
    for (number, asked) in asked.into_iter().enumerate() {
        match in_time("an answer", asked).await.expect("no panic") {
            Ok(()) => {}
            Err(LinkError::Refused { reason, .. }) => {
                assert_eq!((number, reason.as_str()), (1, "not b"));
                refused += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(refused, 1);
}

#[tokio::test]
async fn a_request_that_nobody_waits_for_any_more_harms_nothing() {
    let node = FakeNode::start();
    let (link, mut peer) = node.link().await;
    let wanted = text(NAME);
    assert!(link.subscribe(&wanted).now_or_never().is_none());
    let (first, _) = peer.request().await;
    peer.say(FrameKind::Ack, first.ids().message, Flags::empty(), &[]).await;
    let (answer, ()) = tokio::join!(link.subscribe(&wanted), async {
        let (head, _) = peer.request().await;
        assert_ne!(head.ids(), first.ids());
        peer.say(FrameKind::Ack, head.ids().message, Flags::empty(), &[]).await;
    });
    answer.expect("done");
}

#[tokio::test]
async fn after_the_node_ended_the_control_stream_requests_fail_and_messages_go_on() {
    let node = FakeNode::start();
    let (link, mut peer) = node.link().await;
    let wanted = text(NAME);
    let mut asked = Box::pin(link.subscribe(&wanted));
    assert!(asked.as_mut().now_or_never().is_none());
    peer.answers.finish().expect("it is open");
    in_time("an answer", asked).await.expect_err("there is no answer");
    in_time("an answer", link.subscribe(&wanted)).await.expect_err("there is no answer");
    peer.send(0, &crate::fake_node::publish(1, b"still here")).await;
    assert_eq!(in_time("a message", link.receive()).await.expect("one").payload, "still here");
    peer.close(CloseCode::Stopping, "drained");
}
