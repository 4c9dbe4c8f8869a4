//! `auth: basic`.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::future::join_all;
use rustix::process::Signal;
use slim_quic::client::link::{Credentials, LinkError};
use slim_wire::limits::GRPC_MESSAGE_BYTES;

use crate::support::eventually;
use crate::support::native::{HELLO, Raw, hello};
use crate::support::node::{Node, PLAIN, config};
use crate::support::raw::{Connection, status};
use crate::{WAYS, assert_passes, basic, bearer, blind, connect, refused};

async fn guarded(top: &str) -> Node {
    let auth = "auth: { basic: { username: alice, password: \"pass:wörd\" } }";
    Node::launch(&config(top, &format!("{PLAIN}, {auth}"))).await
}

fn alice() -> Credentials {
    basic("alice", "pass:wörd")
}

#[tokio::test]
async fn who_knows_the_password_is_let_in_and_nobody_else() {
    let node = guarded("").await;
    let warned = node.program.stdout.find("Auth is enabled without TLS");
    assert!(warned.is_some());
    let shown = [
        (Credentials::None, "no credentials: expected authorization: Basic"),
        (bearer("a-token"), "credentials: expected authorization: Basic"),
        (basic("alice", "pass:wörd "), "user name or password wrong"),
        (basic("alice", "pass"), "user name or password wrong"),
        (basic("bob", "pass:wörd"), "user name or password wrong"),
    ];
    let mut attempts = Vec::new();
    for way in WAYS {
        for (credentials, told) in &shown {
            let (node, options) = (&node, blind(credentials.clone()));
            attempts.push(async move {
                let reason = refused(node, way, &options).await;
                assert!(reason.contains(told), "{way} {credentials:?}: {reason}");
            });
        }
    }
    let count = attempts.len() as u64;
    join_all(attempts).await;
    // Each is told once, and counted once.
    let metrics = node.metrics().await;
    assert_eq!(metrics.incidents("unauthenticated"), count);
    assert_eq!(metrics.sum("slim_links"), 0);
    let line = node.program.line("link refused: not authenticated").await;
    assert!(!line.contains("wörd"), "{line}");
    for (from, to) in [("http", "quic"), ("quic", "http")] {
        let from = connect(&node, from, &blind(alice())).await.expect("let in");
        let to = connect(&node, to, &blind(alice())).await.expect("let in");
        assert_passes(&from, &to).await;
    }
    node.balanced().await;
}

#[tokio::test]
async fn a_refusal_is_a_status_of_grpc_in_headers_alone() {
    let node = guarded("").await;
    let connection = Connection::open(node.address).await;
    for value in ["Basic !", "Basic", "Negotiate x", "Basic dXNlcjpwYXNz"] {
        let (head, is_all, _) = connection.ask(value).await;
        assert_eq!((head.status().as_u16(), is_all), (200, true), "{value}");
        assert_eq!(status(head.headers()).code(), tonic::Code::Unauthenticated, "{value}");
    }
    // The connection is as good as before.
    let value = format!("basic {}", BASE64_STANDARD.encode("alice:pass:wörd"));
    let (head, is_all, _channel) = connection.ask(&value).await;
    assert_eq!((head.status().as_u16(), is_all), (200, false));
    assert!(!head.headers().contains_key("grpc-status"));
}

#[tokio::test]
async fn who_breaks_a_link_is_named_in_the_log() {
    let node = guarded("").await;
    let value = format!("Basic {}", BASE64_STANDARD.encode("alice:pass:wörd"));
    let connection = Connection::open(node.address).await;
    let (_, _, mut channel) = connection.ask(&value).await;
    let mut long = vec![0; 5];
    long[1..].copy_from_slice(&(GRPC_MESSAGE_BYTES as u32 + 1).to_be_bytes());
    channel.send_bytes(Bytes::from(long)).await.expect("sent");
    channel.trailers().await;
    let line = node.program.line("message refused").await;
    assert!(line.contains("(user \"alice\")"), "{line}");

    let raw = Raw::connect(&node).await;
    let mut control = raw.control().await;
    let payload = HELLO.encode_with(value.as_bytes()).expect("short");
    control.say(&hello(&payload)).await;
    control.hear().await;
    control.say(&hello(&payload)).await;
    raw.closed().await;
    let line = node.program.line("connection closed: protocol broken").await;
    assert!(line.contains("(user \"alice\")"), "{line}");
}

#[tokio::test]
async fn more_refused_clients_than_are_kept_waiting_are_all_told() {
    const CLIENTS: usize = 700;
    let node = guarded("").await;
    let mut connections = Vec::new();
    for _ in 0..CLIENTS / 100 {
        connections.push(Connection::open(node.address).await);
    }
    let told = join_all(connections.iter().map(|connection| {
        join_all((0..100).map(async |_| {
            let (head, _, _) = connection.ask("Basic x").await;
            status(head.headers()).code()
        }))
    }));
    let told = told.await;
    // Whoever knows the password could not be told from them, and is let in once they are told.
    let options = blind(alice());
    let friend = async || connect(&node, "quic", &options).await.ok();
    eventually("the friend is let in", friend).await;
    let told: Vec<_> = told.into_iter().flatten().collect();
    assert_eq!(told, vec![tonic::Code::Unauthenticated; CLIENTS]);
    let metrics = node.metrics().await;
    assert!(metrics.incidents("unauthenticated") >= CLIENTS as u64);
}

#[tokio::test]
async fn who_waits_for_its_refusal_does_not_keep_the_node_from_stopping() {
    let top = "runtime: { drain_timeout: 1h }";
    let mut node = guarded(top).await;
    let wrong = blind(basic("alice", "wrong"));
    let attempts = async {
        loop {
            for way in WAYS {
                // In the end nobody is there to refuse.
                match connect(&node, way, &wrong).await {
                    Err(LinkError::Unreachable { .. }) => return,
                    Err(_) => {}
                    Ok(_) => panic!("let in"),
                }
            }
        }
    };
    let stop = async {
        node.until("some were refused", |metrics| metrics.incidents("unauthenticated") > 1).await;
        node.program.signal(Signal::TERM);
    };
    tokio::join!(attempts, stop);
    assert_eq!(node.program.exit().await, Some(0));
}

#[tokio::test]
async fn credentials_that_cannot_be_written_are_refused_before_anything_is_sent() {
    let node = guarded("").await;
    for way in WAYS {
        for wrong in [basic("a:b", "c"), bearer("a\nb"), bearer(&"x".repeat(20_000))] {
            let error = connect(&node, way, &blind(wrong)).await.expect_err("unusable");
            assert!(matches!(error, LinkError::Credentials { .. }), "{error:?}");
        }
    }
    // A hello has less room than a request.
    let long = blind(bearer(&"x".repeat(8_000)));
    let error = connect(&node, "quic", &long).await.expect_err("too long");
    assert!(error.to_string().contains("expected at most 7168, got 8007"), "{error}");
    assert_eq!(node.metrics().await.incidents("unauthenticated"), 0);
}
