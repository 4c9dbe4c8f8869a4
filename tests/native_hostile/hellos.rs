//! Connections that do not begin with one right hello.

use slim_wire::limits::HEADER_BYTES;
use slim_wire::{CloseCode, Hello, Role};

use crate::support::native::{HELLO, Raw, hello, join, publish, receive, subscribe};
use crate::support::node::Node;
use crate::support::pair::{BYSTANDERS, Bystanders};

#[tokio::test]
async fn a_wrong_hello_is_answered_with_what_is_wrong_about_it() {
    let node = Node::start("").await;
    let bystanders = Bystanders::start(&node).await;
    let with = |at: usize, byte: u8| {
        let mut bytes = HELLO.encode();
        bytes[at] = byte;
        hello(&bytes)
    };
    let small = Hello { frame_bytes: 4 * 1024 * 1024 - 1, ..HELLO };
    let mut long = hello(&HELLO.encode()).to_vec();
    long[..4].copy_from_slice(&9_000_u32.to_le_bytes());
    let mut short = hello(&HELLO.encode()).to_vec();
    short[..4].copy_from_slice(&(HEADER_BYTES as u32 - 1).to_le_bytes());
    let wrong = [
        (with(0, 2), "version: expected 1 among those of the peer, got 2"),
        (with(2, 0), "version: expected 1 among those of the peer, got 0"),
        (with(4, 7), "role: expected 0 or 1, got 7"),
        (with(8, 1), "node of an app: expected 0, got 1"),
        (with(4, 1), "node: expected a number above 0, got 0"),
        (with(19, 1), "frame bytes: expected at most 16777216, got 20971520"),
        (
            hello(&Hello { frame_bytes: 103, ..HELLO }.encode()),
            "frame bytes: expected at least 104, got 103",
        ),
        (
            hello(&small.encode()),
            "frame bytes: expected at least 4194304 (limits.message_bytes), got 4194303",
        ),
        (hello(&HELLO.encode()[..10]), "hello: expected 10 more bytes, got 10"),
        (hello(&[]), "hello: expected 20 more bytes, got 0"),
        (long.into(), "frame length: expected at most 8192, got 9000"),
        (short.into(), "frame length: expected at least 104, got 103"),
        (
            subscribe(1, "org/ns/early/1"),
            "kind on the control stream: expected one hello (4), then subscribe (2) or unsubscribe (3), got 2",
        ),
    ];
    let count = wrong.len() as u64;
    for (bytes, reason) in wrong {
        let raw = Raw::connect(&node).await;
        let mut control = raw.control().await;
        control.say(&bytes).await;
        assert_eq!(raw.closed().await, (CloseCode::Protocol, reason.to_owned()));
    }
    let metrics = node.metrics().await;
    assert_eq!(metrics.incidents("protocol_broken"), count);
    assert_eq!(metrics.sum("slim_links"), BYSTANDERS);
    assert_eq!(metrics.sum("slim_subscriptions"), BYSTANDERS);
    bystanders.assert_unharmed(&node).await;
}

#[tokio::test]
async fn a_hello_of_a_later_version_that_speaks_this_one_too_is_as_good() {
    let node = Node::start("").await;
    let mut later = HELLO.encode().to_vec();
    later[2] = 9;
    // No credentials, and then what this version knows nothing of.
    later.extend([0; 2]);
    later.extend([7; 30]);
    let raw = Raw::connect(&node).await;
    let mut control = raw.control().await;
    control.say(&hello(&later)).await;
    let (_, payload) = control.hear().await;
    assert_eq!(Hello::decode(&payload).map(|hello| hello.role), Ok(Role::Node));
    control.subscribe(1, "org/ns/later/1").await;
}

#[tokio::test]
async fn who_says_no_hello_in_time_is_cut_off_and_nothing_of_it_forwarded() {
    let node = Node::start("limits: { handshake_ms: 300 }").await;
    let bystanders = Bystanders::start(&node).await;
    let listener = join(&node, &["org/ns/listener/1"]).await;
    let silent = Raw::connect(&node).await;
    let half = Raw::connect(&node).await;
    let mut control = half.control().await;
    control.say(&hello(&HELLO.encode())[..50]).await;
    let sender = Raw::connect(&node).await;
    let early = publish("org/ns/sender/1", "org/ns/listener/1", b"early");
    sender.connection.send_datagram(early).expect("sent");
    for raw in [silent, half, sender] {
        let reason = "hello: expected within limits.handshake_ms, got none";
        assert_eq!(raw.closed().await, (CloseCode::Timeout, reason.to_owned()));
    }
    let metrics = node.metrics().await;
    assert_eq!(metrics.incidents("handshake_timeout"), 3);
    assert_eq!(metrics.sum("slim_incidents_total"), 3);
    let lines = node.program.stdout.count("connection closed: no link opened in time");
    assert!((1..=3).contains(&lines), "{lines}");

    // Before a hello there are no lanes, so that nothing has to be kept for one.
    let raw = Raw::connect(&node).await;
    let mut lane = Box::pin(raw.lane());
    tokio::select! {
        biased;
        _ = lane.as_mut() => panic!("a lane before the hello"),
        () = std::future::ready(()) => {}
    }
    let mut control = raw.control().await;
    control.say(&hello(&HELLO.encode())).await;
    let in_time = publish("org/ns/sender/1", "org/ns/listener/1", b"in time");
    let mut lane = lane.await;
    lane.write_all(&in_time).await.expect("sent");
    assert_eq!(receive(&listener).await.payload, "in time");
    drop((raw, listener));
    bystanders.assert_unharmed(&node).await;
}

#[tokio::test]
async fn a_second_hello_ends_the_link() {
    let node = Node::start("").await;
    let bystanders = Bystanders::start(&node).await;
    let (raw, mut control) = Raw::greeted(&node).await;
    control.subscribe(1, "org/ns/twice/1").await;
    control.say(&hello(&HELLO.encode())).await;
    let (code, reason) = raw.closed().await;
    assert_eq!(code, CloseCode::Protocol);
    assert!(reason.starts_with("kind on the control stream: expected one hello"), "{reason}");
    node.until("its subscription is gone", |metrics| {
        metrics.sum("slim_links") == BYSTANDERS && metrics.sum("slim_subscriptions") == BYSTANDERS
    })
    .await;
    bystanders.assert_unharmed(&node).await;
}
