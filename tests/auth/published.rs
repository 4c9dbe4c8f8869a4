//! Published clients at servers that ask who they are.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::node::{Node, config};
use crate::support::pki::Authority;
use crate::support::published::{Peer, python, wait};

const SECRET: &str = "a secret of at least 32 bytes, really";

/// A node with TLS, and what else its server asks for.
async fn guarded(authority: &Authority, tls: &str, auth: &str) -> Node {
    let (chain, key) = (authority.text("chain.crt"), authority.text("server.key"));
    let server = format!(
        "endpoint: \"127.0.0.1:0\", tls: {{ cert_file: {chain}, key_file: {key}{tls} }}, auth: {auth}"
    );
    Node::launch(&config("", &server)).await
}

/// A session is opened and answered.
async fn assert_served(python: &std::path::Path, node: &Node, client: &Value) {
    let start =
        |name, role: &'static [&str]| Peer::start_as(python, node.address, name, role, client);
    let echo = start("agntcy/ns/echo", &["echo"]).await;
    let mut caller = start("agntcy/ns/caller", &["call", "agntcy/ns/echo"]).await;
    caller.program.line("in session").await;
    caller.publish("request");
    let answered = || caller.got("echo of request") > 0;
    assert!(wait(Duration::from_secs(30), answered).await);
    assert_eq!(echo.got("request"), 1);
    assert_eq!(node.metrics().await.incidents("unauthenticated"), 0);
}

#[tokio::test]
async fn published_clients_are_let_in_with_a_password_a_token_or_a_certificate() {
    let test = "published_clients_are_let_in_with_a_password_a_token_or_a_certificate";
    let Some(python) = python(test) else { return };
    let authority = Authority::new();
    let ca = authority.text("root.crt");
    let tls = json!({ "ca_file": ca });

    let auth = "{ basic: { username: alice, password: secret } }";
    let node = guarded(&authority, "", auth).await;
    let basic = json!({ "basic": { "username": "alice", "password": "secret" } });
    assert_served(python, &node, &json!({ "tls": tls, "auth": basic })).await;

    let key = json!({ "algorithm": "HS256", "format": "Pem", "str": SECRET });
    let claims = json!({ "audience": ["slim"], "issuer": "me", "subject": "alice" });
    let auth = json!({ "jwt": { "claims": claims, "key": { "decoding": key } } });
    let node = guarded(&authority, "", &auth.to_string()).await;
    let jwt = json!({ "claims": claims, "duration": "1h", "key": { "encoding": key } });
    assert_served(python, &node, &json!({ "tls": tls, "auth": { "jwt": jwt } })).await;

    let node = guarded(&authority, &format!(", client_ca_file: {ca}"), "none").await;
    // They show no more than one certificate.
    let (certificate, key) = authority.issue_directly("alice");
    authority.write("client.crt", &certificate);
    authority.write("client.key", &key);
    let files = [authority.text("client.crt"), authority.text("client.key")];
    let tls = json!({ "ca_file": ca, "cert_file": files[0], "key_file": files[1] });
    assert_served(python, &node, &json!({ "tls": tls })).await;
}

#[tokio::test]
async fn a_published_client_with_a_wrong_password_gives_up_and_does_not_spin() {
    let test = "a_published_client_with_a_wrong_password_gives_up_and_does_not_spin";
    let Some(python) = python(test) else { return };
    let authority = Authority::new();
    let auth = "{ basic: { username: alice, password: secret } }";
    let node = guarded(&authority, "", auth).await;
    let basic = json!({ "basic": { "username": "alice", "password": "wrong" } });
    let client = json!({ "tls": { "ca_file": authority.text("root.crt") }, "auth": basic });
    let mut peer = Peer::spawn_as(python, node.address, "agntcy/ns/caller", &["echo"], &client);
    let gives_up = wait(Duration::from_secs(60), || !peer.program.is_running()).await;
    assert!(gives_up, "it does not give up");
    const ATTEMPTS: u64 = 10;
    let refused = node.metrics().await.incidents("unauthenticated");
    assert!((1..=ATTEMPTS + 1).contains(&refused), "{refused} attempts");
    let told = peer.program.stderr.all().join("\n");
    assert!(told.contains("retries") || told.contains("nauthenticated"), "{told}");
}
