//! Apps of two trust domains in one encrypted group, and who is kept out of it, and why.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use serde_json::{Map, Value, json};
use slim_quic::client::{App, Config, Identity, LinkOptions, Session, SessionError, Trust};
use slim_quic::identity::{
    Algorithm, IdentityError, Jwt, JwtCheck, JwtClaims, JwtRules, Keys, SigningKey, TokenSource,
};
use slim_wire::TextName;

use support::in_time;
use support::node::Node;

/// The audience of all.
const AUDIENCE: &str = "slim-demo";

struct Domain {
    name: &'static str,
    key: KeyPair,
}

impl Domain {
    fn new(name: &'static str) -> Self {
        Self { name, key: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key") }
    }

    fn key_set(&self) -> String {
        let point = self.key.der_bytes();
        let [x, y] = [&point[1..33], &point[33..]].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
        let key = json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "alg": "ES256"});
        json!({ "keys": [key] }).to_string()
    }

    fn tokens(&self, app: &str, audience: &str, duration: Duration) -> Arc<Jwt> {
        let claims = JwtClaims {
            audience: vec![audience.into()],
            subject: Some(format!("spiffe://{}/{app}", self.name)),
            duration,
            ..JwtClaims::default()
        };
        let key = SigningKey::new(Algorithm::ES256, &self.key.serialize_pem()).expect("a key");
        Arc::new(Jwt::new(key, claims).expect("claims"))
    }
}

/// Tokens that were made an hour ago.
struct Stale(Arc<Jwt>);

impl TokenSource for Stale {
    fn token(&self, now: SystemTime) -> Result<Arc<str>, IdentityError> {
        self.0.token(now - Duration::from_secs(3600))
    }
}

struct World {
    node: Node,
    bundle: String,
    one: Domain,
    two: Domain,
}

impl World {
    async fn new() -> Self {
        let [one, two] = ["trust-domain-1.org", "trust-domain-2.org"].map(Domain::new);
        let entry = |domain: &Domain| {
            (domain.name.to_owned(), Value::from(BASE64_STANDARD.encode(domain.key_set())))
        };
        let bundle = Value::from(Map::from_iter([entry(&one), entry(&two)])).to_string();
        Self { node: Node::start("").await, bundle, one, two }
    }

    async fn app(&self, scheme: &str, name: &str, source: Arc<dyn TokenSource>) -> App {
        let keys = Keys::trust_bundle(&self.bundle).expect("a bundle");
        let rules = JwtRules { audience: vec![AUDIENCE.into()], ..JwtRules::default() };
        let identity = Identity { source, check: Arc::new(JwtCheck::new(keys, rules)) };
        connect(self.node.address, scheme, name, identity).await
    }
}

async fn connect(node: SocketAddr, scheme: &str, name: &str, identity: Identity) -> App {
    let app = App::new(&text(&format!("org/ns/{name}")), identity).expect("an app");
    let trust = Trust::DangerAcceptAnyCertificate;
    let options = LinkOptions { trust, ..LinkOptions::default() };
    app.connect(&format!("{scheme}://{node}"), options).await.expect("the node answers");
    app
}

fn text(name: &str) -> TextName {
    name.parse().expect("a name")
}

async fn message(session: &Session) -> String {
    let (_, payload) = in_time("a message", session.get_message()).await.expect("a message");
    String::from_utf8(payload.to_vec()).expect("text")
}

async fn refusal(what: &str, moderator: &Session, name: &str) -> String {
    let invitation = moderator.invite(&text(name)).expect("it starts");
    match in_time(what, invitation.done()).await {
        Err(SessionError::Refused { reason, .. }) => reason,
        other => panic!("{what}: expected a refusal, got {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_two_trust_domains_keeps_others_out_and_says_why() {
    const HOUR: Duration = Duration::from_secs(3600);
    let world = World::new().await;
    let (one, two) = (&world.one, &world.two);
    let moderator = world.app("quic", "moderator", one.tokens("moderator", AUDIENCE, HOUR)).await;
    let alice = world.app("quic", "alice", two.tokens("alice", AUDIENCE, HOUR)).await;
    let bob = world.app("http", "bob", one.tokens("bob", AUDIENCE, HOUR)).await;
    let config = Config::group(&text("org/ns/channel")).encrypted();
    let group = moderator.create_session(config).expect("a session");
    for name in ["org/ns/alice", "org/ns/bob"] {
        let invitation = group.invite(&text(name)).expect("it starts");
        in_time(name, invitation.done()).await.expect("it joins");
    }
    let of_alice = in_time("a session", alice.listen_for_session(None)).await.expect("open");
    let of_bob = in_time("a session", bob.listen_for_session(None)).await.expect("open");
    of_alice.publish("from the other domain").await.expect("it is taken");
    assert_eq!(message(&group).await, "from the other domain");
    assert_eq!(message(&of_bob).await, "from the other domain");

    let elsewhere = Domain::new("trust-domain-3.org");
    let impostor = Domain::new("trust-domain-2.org");
    let old = Arc::new(Stale(one.tokens("old", AUDIENCE, Duration::from_secs(60))));
    let cases: [(&str, Arc<dyn TokenSource>, &str); 4] = [
        ("old", old, "expired"),
        ("stray", one.tokens("stray", "another audience", HOUR), "audience"),
        ("foreign", elsewhere.tokens("foreign", AUDIENCE, HOUR), "key"),
        ("impostor", impostor.tokens("impostor", AUDIENCE, HOUR), "signature"),
    ];
    for (name, source, expected) in cases {
        let intruder = world.app("quic", name, source).await;
        // Whom it calls refuses it, and it can read why.
        let config = Config::point_to_point(&text("org/ns/bob"));
        let config = config.reliable(Duration::from_secs(1), Some(3)).encrypted();
        let session = intruder.create_session(config).expect("a session");
        session.publish("let me in").await.expect("it is taken");
        let error = in_time(name, session.get_message()).await.expect_err("refused").to_string();
        assert!(error.to_lowercase().contains(expected), "{name}: {error}");
        let undelivered = in_time(name, session.get_message()).await;
        assert!(matches!(undelivered, Err(SessionError::Undelivered { .. })), "{name}");
        // Who invites it refuses it, and can read why.
        let reason = refusal(name, &group, &format!("org/ns/{name}")).await;
        assert!(reason.to_lowercase().contains(expected), "{name}: {reason}");
        // Nobody else is disturbed.
        group.publish(format!("without {name}")).await.expect("it is taken");
        assert_eq!(message(&of_alice).await, format!("without {name}"));
        assert_eq!(message(&of_bob).await, format!("without {name}"));
    }
    assert!(bob.listen_for_session(Some(Duration::ZERO)).await.is_err());
    assert!(!bob.rejections().is_empty());

    // Another secret altogether.
    let identity = Identity::shared_secret("mallory", "a secret").expect("a secret");
    let _mallory = connect(world.node.address, "quic", "mallory", identity).await;
    let reason = refusal("mallory", &group, "org/ns/mallory").await;
    assert!(reason.contains("token"), "{reason}");
}
