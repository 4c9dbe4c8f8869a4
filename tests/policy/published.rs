//! Sessions of applications at a node that enforces its policy, each with the names that it needs
//! and no others.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use slim_quic::client::{App, Config, Identity, LinkOptions, Trust};

use crate::principals::{SECRET, token, token_auth};
use crate::support::client::UNMATCHED;
use crate::support::in_time;
use crate::support::native::text;
use crate::support::node::{Node, PLAIN, config};
use crate::support::pki::Authority;
use crate::support::published::{Peer, deliver, published_release, python, reach, wait};
use crate::{REFUSED, VIOLATIONS, policy, until_refused};

/// A node with TLS that takes tokens; each rule is a subject, and the names that are its own.
async fn guarded(authority: &Authority, rules: &[(&str, &str)]) -> Node {
    let rules =
        rules.iter().map(|(subject, rest)| format!("principal: \"token:{subject}\", {rest}"));
    let rules: Vec<String> = rules.collect();
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    let (chain, key) = (authority.text("chain.crt"), authority.text("server.key"));
    let tls = format!("tls: {{ cert_file: {chain}, key_file: {key} }}");
    let server = format!("endpoint: \"127.0.0.1:0\", {tls}, auth: {{ {} }}", token_auth());
    Node::launch(&config(&policy("enforce", &rules), &server)).await
}

/// An app of release 0.6 that shows a token for its subject.
async fn app_0_6(
    authority: &Authority,
    python: &Path,
    node: &Node,
    subject: &str,
    role: &[&str],
) -> Peer {
    let key = json!({ "algorithm": "HS256", "format": "Pem", "str": SECRET });
    let claims = json!({ "audience": ["slim"], "issuer": "me", "subject": subject });
    let jwt = json!({ "claims": claims, "duration": "1h", "key": { "encoding": key } });
    let tls = json!({ "ca_file": authority.text("root.crt") });
    let client = json!({ "tls": tls, "auth": { "jwt": jwt } });
    Peer::start_as(python, node.address, &format!("org/ns/{subject}"), role, &client).await
}

/// The same of release 3.
async fn app_3(
    authority: &Authority,
    python: &Path,
    node: &Node,
    subject: &str,
    role: &[&str],
) -> Peer {
    authority.write("token.key", SECRET);
    let (ca, key) = (authority.text("root.crt"), authority.text("token.key"));
    let options = [
        ["--ca", &ca],
        ["--jwt-key", &key],
        ["--jwt-algorithm", "HS256"],
        ["--jwt-issuer", "me"],
        ["--jwt-subject", subject],
    ];
    let name = format!("org/ns/{subject}");
    Peer::start_modern(python, node.address, options.as_flattened(), &name, role).await
}

/// What is refused to whom, by the log.
fn violations(node: &Node) -> Vec<String> {
    let lines = node.program.stdout.all();
    lines.into_iter().filter(|line| line.contains("policy does not allow")).collect()
}

async fn in_session(peer: &Peer) {
    let entered = || peer.program.stdout.find("in session").is_some();
    assert!(wait(Duration::from_secs(30), entered).await, "no session");
}

async fn assert_answered(caller: &mut Peer, echo: &Peer) {
    in_session(caller).await;
    caller.publish("request");
    let answered = || caller.got("echo of request") > 0;
    assert!(wait(Duration::from_secs(30), answered).await, "no answer");
    assert_eq!(echo.got("request"), 1);
}

#[tokio::test]
async fn a_pair_of_release_0_6_needs_its_own_names_only() {
    let test = "a_pair_of_release_0_6_needs_its_own_names_only";
    let Some(python) = python(test) else { return };
    let authority = Authority::new();
    let rules = [("echo", "subscribe: [org/ns/echo]"), ("caller", "subscribe: [org/ns/caller]")];
    let node = guarded(&authority, &rules).await;
    let echo = app_0_6(&authority, python, &node, "echo", &["echo"]).await;
    let call = ["call", "org/ns/echo"];
    let mut caller = app_0_6(&authority, python, &node, "caller", &call).await;
    assert_answered(&mut caller, &echo).await;
    // The caller has asked for the name of its peer, which it does not need.
    let metrics = node.balanced().await;
    assert_eq!(
        (metrics.refused(REFUSED), metrics.sum(VIOLATIONS)),
        (1, 1),
        "{:#?}",
        violations(&node)
    );
}

#[tokio::test]
async fn a_pair_of_release_0_6_that_may_have_each_other_s_names_is_not_refused_anything() {
    let test = "a_pair_of_release_0_6_that_may_have_each_other_s_names_is_not_refused_anything";
    let Some(python) = python(test) else { return };
    let authority = Authority::new();
    let rules = [
        ("echo", "subscribe: [org/ns/echo]"),
        ("caller", "subscribe: [org/ns/caller, org/ns/echo], publish: [org/ns/caller]"),
    ];
    let node = guarded(&authority, &rules).await;
    let echo = app_0_6(&authority, python, &node, "echo", &["echo"]).await;
    let call = ["call", "org/ns/echo"];
    let mut caller = app_0_6(&authority, python, &node, "caller", &call).await;
    assert_answered(&mut caller, &echo).await;
    assert_eq!(node.balanced().await.sum(VIOLATIONS), 0, "{:#?}", violations(&node));
}

#[tokio::test]
async fn a_group_of_release_0_6_needs_the_name_of_the_group_too() {
    let test = "a_group_of_release_0_6_needs_the_name_of_the_group_too";
    let Some(python) = python(test) else { return };
    let authority = Authority::new();
    let rules = [
        ("host", "subscribe: [org/ns/host, org/groups/chat], publish: [org/ns/host]"),
        ("one", "subscribe: [org/ns/one, org/groups/chat], publish: [org/ns/one]"),
        ("two", "subscribe: [org/ns/two, org/groups/chat], publish: [org/ns/two]"),
        ("spy", "subscribe: [org/ns/spy]"),
    ];
    let node = guarded(&authority, &rules).await;
    let mut one = app_0_6(&authority, python, &node, "one", &["listen"]).await;
    let mut two = app_0_6(&authority, python, &node, "two", &["listen"]).await;
    let moderate = ["moderate", "org/groups/chat", "org/ns/one", "org/ns/two"];
    let mut host = app_0_6(&authority, python, &node, "host", &moderate).await;
    for peer in [&host, &one, &two] {
        in_session(peer).await;
    }
    reach(&mut host, &[&one, &two], "from the host").await;
    deliver(&mut one, &[&host, &two], "from one").await;
    deliver(&mut two, &[&host, &one], "from two").await;
    assert_eq!(node.metrics().await.sum(VIOLATIONS), 0, "{:#?}", violations(&node));
    let options = LinkOptions {
        trust: authority.trust(),
        credentials: token("spy"),
        ..LinkOptions::default()
    };
    let address = format!("quic://{}", node.address);
    let spy = slim_quic::client::link::Link::connect(&address, &options).await.expect("let in");
    let asked = in_time("an answer", spy.subscribe(&text("org/groups/chat"))).await;
    assert!(asked.is_err(), "a spy in the group");
}

#[tokio::test]
async fn a_pair_of_release_3_needs_its_own_names_only() {
    let test = "a_pair_of_release_3_needs_its_own_names_only";
    let Some(python) = published_release(test, "3.3.8") else { return };
    let authority = Authority::new();
    let rules = [("echo", "subscribe: [org/ns/echo]"), ("caller", "subscribe: [org/ns/caller]")];
    let node = guarded(&authority, &rules).await;
    let echo = app_3(&authority, &python, &node, "echo", &["echo"]).await;
    let call = ["call", "org/ns/echo"];
    let mut caller = app_3(&authority, &python, &node, "caller", &call).await;
    assert_answered(&mut caller, &echo).await;
    assert_eq!(node.balanced().await.sum(VIOLATIONS), 0, "{:#?}", violations(&node));
}

#[tokio::test]
async fn an_app_of_release_3_is_told_that_a_name_is_not_its_own() {
    let test = "an_app_of_release_3_is_told_that_a_name_is_not_its_own";
    let Some(python) = published_release(test, "3.3.8") else { return };
    let authority = Authority::new();
    let node = guarded(&authority, &[("echo", "subscribe: [org/ns/echo]")]).await;
    let mut echo = app_3(&authority, &python, &node, "echo", &["echo"]).await;
    echo.publish("/subscribe org/ns/other");
    // It keeps the reason to itself.
    let line = echo.program.line("refused").await;
    assert!(line.contains("ack rejected by datapath"), "{line}");
    assert_eq!(node.balanced().await.sum(VIOLATIONS), 1);
}

#[tokio::test]
async fn a_group_of_release_3_needs_the_name_of_the_group_too() {
    let test = "a_group_of_release_3_needs_the_name_of_the_group_too";
    let Some(python) = published_release(test, "3.3.8") else { return };
    let authority = Authority::new();
    let rules = [
        ("host", "subscribe: [org/ns/host, org/groups/chat], publish: [org/ns/host]"),
        ("one", "subscribe: [org/ns/one, org/groups/chat], publish: [org/ns/one]"),
        ("two", "subscribe: [org/ns/two, org/groups/chat], publish: [org/ns/two]"),
    ];
    let node = guarded(&authority, &rules).await;
    let mut one = app_3(&authority, &python, &node, "one", &["listen"]).await;
    let mut two = app_3(&authority, &python, &node, "two", &["listen"]).await;
    let moderate = ["moderate", "org/groups/chat", "org/ns/one", "org/ns/two"];
    let mut host = app_3(&authority, &python, &node, "host", &moderate).await;
    for peer in [&host, &one, &two] {
        in_session(peer).await;
    }
    reach(&mut host, &[&one, &two], "from the host").await;
    deliver(&mut one, &[&host, &two], "from one").await;
    deliver(&mut two, &[&host, &one], "from two").await;
    assert_eq!(node.metrics().await.sum(VIOLATIONS), 0, "{:#?}", violations(&node));
}

/// A native app whose name and token are of the subject.
async fn native(node: &Node, subject: &str) -> App {
    let identity = Identity::shared_secret(subject, SECRET).expect("a secret");
    let app = App::new(&text(&format!("org/ns/{subject}")), identity).expect("an app");
    let trust = Trust::DangerAcceptAnyCertificate;
    let options = LinkOptions { trust, credentials: token(subject), ..LinkOptions::default() };
    app.connect(&format!("quic://{}", node.address), options).await.expect("let in");
    app
}

#[tokio::test]
async fn native_apps_talk_with_their_own_names_and_that_of_their_group() {
    let rules = [
        "principal: \"token:host\", subscribe: [org/ns/host, org/groups/*], publish: [org/ns/host]",
        "principal: \"token:guest\", subscribe: [org/ns/guest, org/groups/chat], publish: [org/ns/guest]",
        "principal: \"token:other\", subscribe: [org/ns/other]",
    ];
    let server = format!("{PLAIN}, auth: {{ {} }}", token_auth());
    let node = Node::launch(&config(&policy("enforce", &rules), &server)).await;
    let (host, guest) = (native(&node, "host").await, native(&node, "guest").await);
    let other = native(&node, "other").await;
    for (config, payload) in [
        (Config::point_to_point(&text("org/ns/guest")).encrypted(), "to the guest"),
        (Config::group(&text("org/groups/chat")).encrypted(), "to the group"),
    ] {
        let is_group = payload == "to the group";
        let session = host.create_session(config).expect("a session");
        if is_group {
            let invitation = session.invite(&text("org/ns/guest")).expect("it starts");
            in_time("the guest", invitation.done()).await.expect("it joins");
        }
        session.publish(payload).await.expect("it is taken");
        let theirs = in_time("a session", guest.listen_for_session(None)).await.expect("open");
        let (_, heard) = in_time("a message", theirs.get_message()).await.expect("a message");
        assert_eq!(heard, payload);
        theirs.publish("an answer").await.expect("it is taken");
        let (_, heard) = in_time("a message", session.get_message()).await.expect("a message");
        assert_eq!(heard, "an answer");
    }
    assert_eq!(node.balanced().await.sum(VIOLATIONS), 0);
    // Who may not have the name of a group hears nothing in it.
    let session = host.create_session(Config::group(&text("org/groups/b"))).expect("a session");
    let _invitation = session.invite(&text("org/ns/other")).expect("it starts");
    let _theirs = in_time("a session", other.listen_for_session(None)).await.expect("open");
    let metrics = until_refused(&node, 1).await;
    session.publish("to nobody").await.expect("it is taken");
    let unmatched = metrics.sum(UNMATCHED);
    node.until("nobody gets it", |metrics| metrics.sum(UNMATCHED) > unmatched).await;
}
