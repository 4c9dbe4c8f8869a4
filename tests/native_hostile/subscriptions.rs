//! Subscriptions that the node does not want.

use slim_wire::{FrameKind, Id, Name};

use crate::support::native::{Raw, join, message, name, receive, request, send, subscribe};
use crate::support::node::Node;
use crate::support::pair::{BYSTANDERS, Bystanders};

#[tokio::test]
async fn a_subscription_beyond_the_limit_is_refused_and_the_link_goes_on() {
    let node = Node::start("limits: { subscriptions_per_link: 3 }").await;
    let bystanders = Bystanders::start(&node).await;
    let (_raw, mut control) = Raw::greeted(&node).await;
    for (number, name) in (1..).zip(["a", "b", "c", "b", "d", "e"]) {
        control.say(&subscribe(number, &format!("org/ns/{name}/1"))).await;
    }
    let mut answers = Vec::new();
    for _ in 0..6 {
        answers.push(control.answer().await);
    }
    answers.sort();
    let refused = || Some("subscriptions of one link: expected at most 3".to_owned());
    let expected = [(1, None), (2, None), (3, None), (4, None), (5, refused()), (6, refused())];
    assert_eq!(answers, expected);
    let metrics = node.metrics().await;
    assert_eq!(metrics.refused("subscription_limit"), 2);
    assert_eq!(metrics.incidents("message_refused"), 2);
    assert_eq!(metrics.sum("slim_subscriptions"), BYSTANDERS + 3);
    // With one less there is room for one more.
    control.say(&request(FrameKind::Unsubscribe, 7, name("org/ns/a/1"), b"")).await;
    assert_eq!(control.answer().await, (7, None));
    control.subscribe(8, "org/ns/d/1").await;
    bystanders.assert_unharmed(&node).await;
}

#[tokio::test]
async fn ids_that_other_encodings_cannot_carry_are_refused_with_a_word() {
    let node = Node::start("").await;
    let bystanders = Bystanders::start(&node).await;
    let (_raw, mut control) = Raw::greeted(&node).await;
    let with = |id: u128| Name { id: Id::new(id), ..name("org/ns/wide") };
    let wide = [u128::from(u64::MAX), 1 << 64, u128::MAX - 1];
    for (number, id) in (1..).zip(wide) {
        for kind in [FrameKind::Subscribe, FrameKind::Unsubscribe] {
            control.say(&request(kind, number, with(id), b"org/ns/wide")).await;
            let expected = "id of a name: expected below 18446744073709551615, or all ones";
            assert_eq!(control.answer().await, (number, Some(expected.to_owned())));
        }
    }
    assert_eq!(node.metrics().await.refused("invalid"), 6);
    assert_eq!(node.metrics().await.sum("slim_subscriptions"), BYSTANDERS);
    for id in [u128::from(u64::MAX) - 1, u128::MAX] {
        control.say(&request(FrameKind::Subscribe, 9, with(id), b"org/ns/wide")).await;
        assert_eq!(control.answer().await, (9, None));
    }
    bystanders.assert_unharmed(&node).await;
}

#[tokio::test]
async fn a_flood_of_subscriptions_delays_nobody_and_leaves_nothing() {
    const ROUNDS: u32 = 5_000;
    let node = Node::start("").await;
    let bystanders = Bystanders::start(&node).await;
    let (raw, control) = Raw::greeted(&node).await;
    let (mut requests, mut answers) = (control.send, control.receive);
    let writing = tokio::spawn(async move {
        for round in 0..ROUNDS {
            let to = Name { id: Id::new((round % 50).into()), ..name("org/ns/flood") };
            for (offset, kind) in [(0, FrameKind::Subscribe), (1, FrameKind::Unsubscribe)] {
                let frame = request(kind, 2 * round + offset, to, b"org/ns/flood");
                requests.write_all(&frame).await.expect("the link goes on");
            }
        }
        requests
    });
    for number in 0..2 * ROUNDS {
        let (head, _) = crate::support::native::read_frame(&mut answers).await;
        assert_eq!((head.ids().message, head.is_error()), (number, false));
    }
    let _requests = writing.await.expect("all is sent");
    assert_eq!(node.metrics().await.sum("slim_subscriptions"), BYSTANDERS);
    // The last word counts.
    let sender = join(&node, &["org/ns/sender/1"]).await;
    let before = node.metrics().await.sum("slim_messages_unmatched_total");
    send(&sender, &message("org/ns/sender/1", "org/ns/flood/7", "nobody")).await;
    node.until("it matches nobody", |metrics| {
        metrics.sum("slim_messages_unmatched_total") == before + 1
    })
    .await;
    drop((raw, sender));
    bystanders.assert_unharmed(&node).await;
}

#[tokio::test]
async fn texts_that_are_not_those_of_the_name_show_nowhere() {
    let top = "limits: { message_bytes: 1048576, queue_bytes: 4194304, stalled_ms: 400 }";
    let node = Node::start(top).await;
    let bystanders = Bystanders::start(&node).await;
    let source = join(&node, &["org/ns/source/1"]).await;
    let forged: [&[u8]; 4] = [
        b"org/ns/admin",
        b"no slashes",
        b"\xFF\xFE/\x00/x",
        b"org/ns/liar\n2026-01-01T00:00:00Z  INFO slim: a forged line",
    ];
    for (count, texts) in (1..).zip(forged) {
        let (raw, mut control) = Raw::greeted(&node).await;
        control.say(&request(FrameKind::Subscribe, 1, name("org/ns/liar/1"), texts)).await;
        assert_eq!(control.answer().await, (1, None));
        // It is the owner of the name all the same, and is named by its hashes when it stalls.
        for _ in 0..40 {
            send(&source, &message("org/ns/source/1", "org/ns/liar/1", vec![7; 50_000])).await;
        }
        assert_eq!(raw.closed().await.0, slim_wire::CloseCode::TooSlow);
        let metrics = node
            .until("it is evicted", |m| m.sum("slim_slow_consumers_evicted_total") == count)
            .await;
        for entry in metrics.named("slim_slow_consumer_queued_bytes") {
            assert_eq!(entry.labels["name"], name("org/ns/liar/1").to_string());
        }
    }
    for line in node.program.stdout.all() {
        for word in ["admin", "slashes", "forged"] {
            assert!(!line.contains(word) || line.contains("admin ready"), "{line:?}");
        }
    }
    // A client that gets nothing else wrong is still one of those who get their messages.
    let honest = join(&node, &["org/ns/liar/1"]).await;
    send(&source, &message("org/ns/source/1", "org/ns/liar/1", "hello")).await;
    assert_eq!(receive(&honest).await.payload, "hello");
    drop((source, honest));
    bystanders.assert_unharmed(&node).await;
}
