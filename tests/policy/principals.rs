//! Whose link it is decides which names it has.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use prost::Message as _;
use slim_compat_grpc::proto::d6::Message as D6Message;
use slim_config::Secret;
use slim_quic::client::link::{Credentials, Link, LinkError, LinkOptions, Message, Trust};
use slim_quic::identity::{Algorithm, Jwt, JwtClaims, SigningKey, TokenSource};

use crate::support::client::{NOBODY, UNMATCHED};
use crate::support::in_time;
use crate::support::message as message_d6;
use crate::support::native::{message, receive, send, text};
use crate::support::node::{Node, PLAIN, config};
use crate::support::pki::Authority;
use crate::support::raw::Connection;
use crate::{policy, until_refused};

const ALICE: &str = "org/ns/alice/1";
const BOB: &str = "org/ns/bob/2";

/// All that a guest of this kind and text may do is under its own name.
fn rule(kind: &str, text: &str, name: &str) -> String {
    format!("principal: \"{kind}:{text}\", subscribe: [{name}]")
}

/// Rules for two guests.
fn rules(kind: &str, [alice, bob]: [&str; 2]) -> String {
    let rules = [rule(kind, alice, "org/ns/alice"), rule(kind, bob, "org/ns/bob")];
    policy("enforce", &rules.each_ref().map(String::as_str))
}

async fn connect(address: SocketAddr, way: &str, name: &str, options: LinkOptions) -> Link {
    let options = LinkOptions { name: Some(text(name)), ..options };
    let address = format!("{way}://{address}");
    in_time("a link", Link::connect(&address, &options)).await.expect("let in")
}

/// Waits until the whole node knows what the link subscribed to before.
async fn settle(node: &Node, link: &Link, name: &str) {
    let before = node.metrics().await.sum(UNMATCHED);
    send(link, &message(name, NOBODY, "settle")).await;
    node.until("a subscription is known", |metrics| metrics.sum(UNMATCHED) > before).await;
}

/// Over gRPC release 0.6 has no word for a refusal.
fn assert_told(way: &str, principal: &str, asked: &Result<(), LinkError>) {
    match asked {
        Ok(()) => assert!(way.starts_with("http"), "{way}"),
        Err(LinkError::Refused { reason, .. }) => {
            assert_eq!(way, "quic");
            assert_eq!(*reason, format!("policy: this name is not allowed to {principal}"));
        }
        Err(other) => panic!("expected a refusal, got {other}"),
    }
}

/// Two links of the two guests, each of which is kept to its own names; `refused` says how much
/// the policy refused before. Returns how much it has afterwards.
async fn assert_apart(
    node: &Node,
    way: &str,
    principals: [&str; 2],
    [alice, bob]: [&Link; 2],
    refused: u64,
) -> u64 {
    for (link, principal, own, others) in [
        (alice, principals[0], ALICE, [BOB, "org/ns/bob", "org/other/alice"]),
        (bob, principals[1], BOB, [ALICE, "org/ns/alice", "org/other/bob"]),
    ] {
        in_time("an answer", link.subscribe(&text(own))).await.expect("its own name");
        for other in others {
            let asked = in_time("an answer", link.subscribe(&text(other))).await;
            assert_told(way, principal, &asked);
        }
        settle(node, link, own).await;
    }
    let refused = refused + 6;
    assert_eq!(until_refused(node, refused).await.sum("slim_subscriptions"), 2, "{way}");

    // To publish in the name of another is refused, and the link goes on.
    send(alice, &message(BOB, BOB, "forged")).await;
    send(alice, &message("org/ns/bob", BOB, "forged")).await;
    let refused = refused + 2;
    until_refused(node, refused).await;
    send(alice, &message(ALICE, BOB, "from alice")).await;
    let received = receive(bob).await;
    assert_eq!(
        (received.source, &received.payload[..]),
        (text(ALICE).to_name(), &b"from alice"[..])
    );
    // Had she his name, she would get the first of these, which he does not get back.
    let to_all = |destination, text: &'static str| Message::to_all(message(BOB, destination, text));
    send(bob, &to_all(BOB, "for bob")).await;
    send(bob, &to_all(ALICE, "for alice")).await;
    assert_eq!(receive(alice).await.payload, "for alice");
    refused
}

/// Both guests over each of `ways`; `options` says what a guest shows.
async fn assert_each_way(
    node: &Node,
    [alice, bob]: [SocketAddr; 2],
    ways: [&str; 2],
    principals: [&str; 2],
    options: impl Fn(usize) -> LinkOptions,
) {
    let mut refused = 0;
    for way in ways {
        let name = way.trim_end_matches('s');
        let alice = connect(alice, way, ALICE, options(0)).await;
        let bob = connect(bob, way, BOB, options(1)).await;
        refused = assert_apart(node, name, principals, [&alice, &bob], refused).await;
        drop((alice, bob));
        node.until("the links are gone", |metrics| metrics.sum("slim_links") == 0).await;
    }
    let line = node.program.line("policy does not allow to subscribe to the name: refused").await;
    assert!(line.contains(&format!("principal={}", principals[0])), "{line}");
}

#[tokio::test]
async fn each_user_with_a_password_has_its_own_names() {
    let guarded = |user| format!("{PLAIN}, auth: {{ basic: {{ username: {user}, password: p }} }}");
    let servers = [guarded("alice"), guarded("bob")].join(" }, { ");
    let node = Node::launch(&config(&rules("basic", ["alice", "bob"]), &servers)).await;
    let addresses = node.addresses();
    let principals = [r#"user "alice""#, r#"user "bob""#];
    let addresses = [addresses[0], addresses[1]];
    assert_each_way(&node, addresses, ["http", "quic"], principals, |guest| LinkOptions {
        trust: Trust::DangerAcceptAnyCertificate,
        credentials: Credentials::Basic {
            username: ["alice", "bob"][guest].into(),
            password: Secret::new("p"),
        },
        ..LinkOptions::default()
    })
    .await;
}

/// A token of `subject`, by the key of [`token_auth`].
pub(crate) fn token(subject: &str) -> Credentials {
    Credentials::Bearer(Secret::new(&*token_text(subject)))
}

fn token_text(subject: &str) -> Arc<str> {
    let claims = JwtClaims {
        issuer: Some("me".into()),
        audience: vec!["slim".into()],
        subject: Some(subject.into()),
        ..JwtClaims::default()
    };
    let key = SigningKey::new(Algorithm::HS256, SECRET).expect("a key");
    Jwt::new(key, claims).expect("claims").token(SystemTime::now()).expect("a token")
}

pub(crate) const SECRET: &str = "a secret of at least 32 bytes, really";

/// The `auth` of a server that takes tokens.
pub(crate) fn token_auth() -> String {
    format!(
        "jwt: {{ claims: {{ issuer: me, audience: slim }}, \
         key: {{ decoding: {{ algorithm: HS256, str: \"{SECRET}\" }} }} }}"
    )
}

#[tokio::test]
async fn each_subject_of_a_token_has_its_own_names() {
    let server = format!("{PLAIN}, auth: {{ {} }}", token_auth());
    let node = Node::launch(&config(&rules("token", ["alice", "bob"]), &server)).await;
    let principals = [r#"token "alice""#, r#"token "bob""#];
    let addresses = [node.address; 2];
    assert_each_way(&node, addresses, ["http", "quic"], principals, |guest| LinkOptions {
        trust: Trust::DangerAcceptAnyCertificate,
        credentials: token(["alice", "bob"][guest]),
        ..LinkOptions::default()
    })
    .await;
}

#[tokio::test]
async fn streams_of_one_connection_are_judged_each_by_its_own_token() {
    let server = format!("{PLAIN}, auth: {{ {} }}", token_auth());
    let node = Node::launch(&config(&rules("token", ["alice", "bob"]), &server)).await;
    let connection = Connection::open(node.address).await;
    let mut streams = Vec::new();
    for subject in ["alice", "bob"] {
        let authorization = format!("Bearer {}", token_text(subject));
        let (head, is_all, stream) = connection.ask(&authorization).await;
        assert_eq!((head.status().as_u16(), is_all), (200, false));
        streams.push(stream);
    }
    let [alice, bob] = &mut streams[..] else { panic!("expected two streams") };
    for (stream, own, other) in [(&mut *alice, ALICE, BOB), (&mut *bob, BOB, ALICE)] {
        stream.send(&message_d6::subscribe(own, other)).await;
        stream.send(&message_d6::subscribe(own, own)).await;
        stream.send(&message_d6::publish(other, NOBODY, "forged")).await;
        stream.send(&message_d6::publish(own, NOBODY, "settle")).await;
    }
    node.until("both are settled", |metrics| metrics.sum(UNMATCHED) == 2).await;
    assert_eq!(until_refused(&node, 4).await.sum("slim_subscriptions"), 2);
    alice.send(&message_d6::publish(ALICE, BOB, "from alice")).await;
    let received = D6Message::decode(bob.receive().await.expect("it is open")).expect("a message");
    assert_eq!(message_d6::payload(&received), "from alice");
}

#[tokio::test]
async fn each_certificate_has_its_own_names() {
    const IDS: [&str; 2] = ["spiffe://example.org/alice", "spiffe://example.org/bob"];
    let authority = Authority::new();
    let tls = format!(
        "cert_file: {}, key_file: {}, client_ca_file: {}",
        authority.text("chain.crt"),
        authority.text("server.key"),
        authority.text("root.crt"),
    );
    let server = format!("endpoint: \"127.0.0.1:0\", tls: {{ {tls} }}");
    let node = Node::launch(&config(&rules("certificate", IDS), &server)).await;
    let principals = IDS.map(|id| format!("certificate {id:?}"));
    let principals = principals.each_ref().map(String::as_str);
    let addresses = [node.address; 2];
    assert_each_way(&node, addresses, ["https", "quic"], principals, |guest| LinkOptions {
        trust: authority.trust(),
        certificate: Some(authority.identity(IDS[guest])),
        ..LinkOptions::default()
    })
    .await;
}

#[tokio::test]
async fn nobody_has_what_is_for_nobody_and_anyone_what_is_for_all() {
    let alice = format!("{PLAIN}, auth: {{ basic: {{ username: alice, password: p }} }}");
    let servers = [alice, PLAIN.to_owned()].join(" }, { ");
    let rules = [
        "principal: nobody, subscribe: [org/public/*], publish: []",
        "principal: anyone, subscribe: [org/all/*]",
        "principal: \"basic:*\", subscribe: [org/users/*]",
        "principal: \"basic:alice\", subscribe: [org/ns/alice]",
    ];
    let node = Node::launch(&config(&policy("enforce", &rules), &servers)).await;
    let [known, unknown] = node.addresses()[..] else { panic!("expected two servers") };
    let credentials = Credentials::Basic { username: "alice".into(), password: Secret::new("p") };
    let trust = Trust::DangerAcceptAnyCertificate;
    let options = LinkOptions { trust, ..LinkOptions::default() };
    let nobody = connect(unknown, "quic", "org/public/me/1", options.clone()).await;
    // Credentials that nobody asked for prove nothing.
    let asked_nothing = LinkOptions { credentials: credentials.clone(), ..options.clone() };
    let unproved = connect(unknown, "quic", "org/ns/alice/3", asked_nothing).await;
    let alice = LinkOptions { credentials, ..options };
    let alice = connect(known, "quic", ALICE, alice).await;
    let names = ["org/public/a", "org/all/a", "org/users/a", "org/ns/alice", "org/ns/bob"];
    for (who, link, allowed) in [
        ("nobody", &nobody, [true, true, false, false, false]),
        ("nobody", &unproved, [true, true, false, false, false]),
        (r#"user "alice""#, &alice, [false, true, true, true, false]),
    ] {
        for (name, allowed) in names.iter().zip(allowed) {
            let asked = in_time("an answer", link.subscribe(&text(name))).await;
            assert_eq!(asked.is_ok(), allowed, "{who} {name}");
            if !allowed {
                assert_told("quic", who, &asked);
            }
        }
    }
    // He may listen there, and not speak.
    send(&nobody, &message("org/public/a/1", "org/all/a", "hush")).await;
    until_refused(&node, 9).await;
    send(&nobody, &message("org/all/a/1", "org/ns/alice", "in a name of all")).await;
    assert_eq!(receive(&alice).await.payload, "in a name of all");
}
