//! `auth: jwt`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::routing::get;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures_util::future::join_all;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256};
use serde_json::json;
use slim_quic::client::identity::JwtFile;
use slim_quic::client::link::Credentials;
use slim_quic::identity::{Algorithm, Jwt, JwtClaims, SigningKey, TokenSource};

use crate::support::eventually;
use crate::support::node::{Node, PLAIN, config};
use crate::{WAYS, assert_passes, bearer, blind, connect, refused};

const ISSUER: &str = "https://issuer.example";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn claims() -> JwtClaims {
    JwtClaims {
        issuer: Some(ISSUER.into()),
        audience: vec!["slim".into()],
        subject: Some("alice".into()),
        ..JwtClaims::default()
    }
}

fn jwt(algorithm: Algorithm, key: &str, claims: JwtClaims) -> Jwt {
    Jwt::new(SigningKey::new(algorithm, key).expect("a key"), claims).expect("claims")
}

fn token(algorithm: Algorithm, key: &str, claims: JwtClaims) -> String {
    jwt(algorithm, key, claims).token(SystemTime::now()).expect("a token").to_string()
}

/// A node that asks for tokens; `key` is the key of its block, `rules` are its claims.
async fn asking(rules: &str, key: &str) -> Node {
    let auth = format!("auth: {{ jwt: {{ claims: {{ {rules} }}, key: {{ {key} }} }} }}");
    Node::launch(&config("", &format!("{PLAIN}, {auth}"))).await
}

const RULES: &str = "issuer: \"https://issuer.example\", audience: slim";

/// A text as YAML and JSON write it.
fn quoted(text: &str) -> String {
    json!(text).to_string()
}

fn es256() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key")
}

fn jwks(pair: &KeyPair) -> String {
    let point = pair.public_key_raw();
    let [x, y] = [&point[1..33], &point[33..]].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
    // Tokens of this library name no key: the first for their algorithm is taken.
    let key = json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "alg": "ES256"});
    json!({ "keys": [key] }).to_string()
}

#[tokio::test]
async fn tokens_of_each_kind_of_key_are_taken_and_all_that_is_wrong_with_one_is_found() {
    const SECRET: &str = "a secret of at least 32 bytes, really";
    let pair = |algorithm| KeyPair::generate_for(algorithm).expect("a key");
    let pairs = [pair(&PKCS_RSA_SHA256), pair(&PKCS_ECDSA_P256_SHA256), pair(&PKCS_ED25519)];
    let [rsa, ec, ed] = pairs.each_ref().map(|pair| (pair.serialize_pem(), pair.public_key_pem()));
    for (name, algorithm, (private, public)) in [
        ("HS256", Algorithm::HS256, (SECRET.to_owned(), SECRET.to_owned())),
        ("RS256", Algorithm::RS256, rsa.clone()),
        ("PS384", Algorithm::PS384, rsa),
        ("ES256", Algorithm::ES256, ec),
        ("EdDSA", Algorithm::EdDSA, ed),
    ] {
        let key = format!("decoding: {{ algorithm: {name}, pem: {} }}", quoted(&public));
        let node = asking(RULES, &key).await;
        let good = jwt(algorithm, &private, claims());
        let good = blind(Credentials::Token(Arc::new(good)));
        let [http, quic] = WAYS.map(|way| connect(&node, way, &good));
        let (http, quic) = (http.await.expect("let in"), quic.await.expect("let in"));
        assert_passes(&http, &quic).await;

        let make = |claims| token(algorithm, &private, claims);
        let old = jwt(algorithm, &private, claims()).token(SystemTime::now() - DAY);
        let other = JwtClaims { issuer: Some("https://other.example".into()), ..claims() };
        let unsigned = make(claims()).rsplit_once('.').map(|(token, _)| format!("{token}."));
        let wrong = [
            (old.expect("a token").to_string(), "expired"),
            (make(JwtClaims { audience: vec!["x".into()], ..claims() }), "its audience is not"),
            (make(JwtClaims { audience: vec![], ..claims() }), "expected a claim \"aud\""),
            (make(other), "expected another issuer"),
            (make(JwtClaims { issuer: None, ..claims() }), "expected a claim \"iss\""),
            // A public key is no secret, and another algorithm not the configured one.
            (token(Algorithm::HS512, &public, claims()), "does not go with the key"),
            (unsigned.expect("three parts"), "signature"),
            ("nonsense".to_owned(), "invalid token format"),
        ];
        let count = (wrong.len() * WAYS.len()) as u64;
        join_all(wrong.iter().flat_map(|(token, told)| {
            let node = &node;
            WAYS.map(|way| async move {
                let reason = refused(node, way, &blind(bearer(token))).await;
                assert!(reason.contains(told), "{name} {way}: {reason}");
            })
        }))
        .await;
        assert_eq!(node.metrics().await.incidents("unauthenticated"), count, "{name}");
    }
}

#[tokio::test]
async fn a_token_by_another_key_is_refused_until_the_set_in_the_file_has_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys.json");
    let (old, new) = (es256(), es256());
    std::fs::write(&path, jwks(&old)).expect("written");
    let file = format!("format: Jwks, file: {}", quoted(path.to_str().expect("UTF-8")));
    let node = asking(RULES, &format!("decoding: {{ algorithm: ES256, {file} }}")).await;
    let shown =
        |pair: &KeyPair| blind(bearer(&token(Algorithm::ES256, &pair.serialize_pem(), claims())));
    let before = connect(&node, "quic", &shown(&old)).await.expect("let in");
    let reason = refused(&node, "http", &shown(&new)).await;
    assert!(reason.contains("signature"), "{reason}");
    // Half of a set changes nothing, but is told.
    std::fs::write(&path, &jwks(&new)[..40]).expect("written");
    let refused_reload = |metrics: &crate::support::metrics::Metrics| {
        metrics.with("slim_reloads_total", "result", "refused") == 1
    };
    node.until("half a set is refused", refused_reload).await;
    let line = node.program.line("files cannot be used, what was read before is kept").await;
    assert!(line.contains("keys.json"), "{line}");
    connect(&node, "http", &shown(&old)).await.expect("let in");
    std::fs::write(folder.path().join("next"), jwks(&new)).expect("written");
    std::fs::rename(folder.path().join("next"), &path).expect("renamed");
    for way in WAYS {
        let let_in = async || connect(&node, way, &shown(&new)).await.ok();
        let after = eventually("the new key is known", let_in).await;
        refused(&node, way, &shown(&old)).await;
        // Who was let in before is not put out.
        assert_passes(&after, &before).await;
    }
    let metrics = node.metrics().await;
    assert_eq!(metrics.with("slim_reloads_total", "result", "taken"), 1);
}

#[tokio::test]
async fn a_token_in_a_file_is_read_for_every_link() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("token");
    let pair = es256();
    let key = pair.serialize_pem();
    let decoding =
        format!("decoding: {{ algorithm: ES256, pem: {} }}", quoted(&pair.public_key_pem()));
    let node =
        asking("subject: bob, issuer: \"https://issuer.example\", audience: slim", &decoding).await;
    let write = |subject: &str| {
        let claims = JwtClaims { subject: Some(subject.into()), ..claims() };
        std::fs::write(&path, token(Algorithm::ES256, &key, claims)).expect("written");
    };
    write("alice");
    let options = blind(Credentials::Token(Arc::new(JwtFile::open(&path).expect("a token"))));
    let reason = refused(&node, "http", &options).await;
    assert!(reason.contains("expected another subject, got \"alice\""), "{reason}");
    write("bob");
    for way in WAYS {
        eventually("the token is read", async || connect(&node, way, &options).await.ok()).await;
    }
}

#[tokio::test]
async fn the_keys_of_the_configured_issuer_are_fetched_and_no_others() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (pair, asked) = (es256(), Arc::new(AtomicUsize::new(0)));
    let (keys, count) = (jwks(&pair), Arc::clone(&asked));
    let routes =
        Router::new().route("/.well-known/jwks.json", get(|| async { keys })).fallback(move || {
            count.fetch_add(1, Relaxed);
            async { axum::http::StatusCode::NOT_FOUND }
        });
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let rules = format!("issuer: \"{url}\", audience: slim");
    let node = asking(&rules, "autoresolve: true").await;
    let by = |pair: &KeyPair, issuer: &str| {
        let claims = JwtClaims { issuer: Some(issuer.into()), ..claims() };
        blind(bearer(&token(Algorithm::ES256, &pair.serialize_pem(), claims)))
    };
    for way in WAYS {
        connect(&node, way, &by(&pair, &url)).await.expect("let in");
        let reason = refused(&node, way, &by(&es256(), &url)).await;
        assert!(reason.contains("signature"), "{reason}");
        let reason = refused(&node, way, &by(&pair, &format!("{url}/other"))).await;
        assert!(reason.contains("expected another issuer"), "{reason}");
    }
    // Once for its configuration, which it has not.
    assert_eq!(asked.load(Relaxed), 1);
}
