//! Identities with files and the network: what is renewed is noticed, and keys come only from where
//! they may.

mod issuers;
mod workload;

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::json;
use slim_quic::client::identity::{JwtFile, KeyFile, KeyForm};
use slim_quic::identity::{
    Algorithm, Identity, IdentityError, Jwt, JwtClaims, JwtRules, SigningKey, Standing, TokenCheck,
    TokenSource,
};

/// The clock goes on by more than a second, so that a file is looked at again.
const LATER: Duration = Duration::from_secs(2);

fn key_pair() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key")
}

fn signing(pair: &KeyPair) -> SigningKey {
    SigningKey::new(Algorithm::ES256, &pair.serialize_pem()).expect("a key")
}

fn jwks(pair: &KeyPair) -> String {
    let point = pair.public_key_raw();
    let [x, y] = [&point[1..33], &point[33..]].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
    // Tokens of this library name no key: the first for their algorithm is taken.
    let key = json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "a", "alg": "ES256"});
    json!({ "keys": [key] }).to_string()
}

fn bundle(domain: &str, pair: &KeyPair) -> String {
    json!({ domain: BASE64_STANDARD.encode(jwks(pair)) }).to_string()
}

fn token(pair: &KeyPair, issuer: Option<&str>, subject: &str, now: SystemTime) -> String {
    let claims = JwtClaims {
        issuer: issuer.map(str::to_owned),
        audience: vec!["slim-demo".into()],
        subject: Some(subject.into()),
        ..JwtClaims::default()
    };
    Jwt::new(signing(pair), claims).expect("claims").token(now).expect("a token").to_string()
}

fn rules() -> JwtRules {
    JwtRules { audience: vec!["slim-demo".into()], ..JwtRules::default() }
}

/// As spiffe-helper and Kubernetes do it: another file takes the name.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).expect("written");
    fs::rename(new, path).expect("renamed");
}

#[test]
fn two_apps_with_the_files_of_spiffe_helper_know_each_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let [a, b, trust] = ["a.token", "b.token", "bundle.json"].map(|name| folder.path().join(name));
    let (pair, now) = (key_pair(), SystemTime::now());
    fs::write(&trust, bundle("example.org", &pair)).expect("written");
    let audience = ["slim-demo".to_owned()];
    let identity = |path: &Path, subject| {
        fs::write(path, token(&pair, None, subject, now) + "\n").expect("written");
        Identity::static_jwt_with_trust_bundle(path, &trust, &audience).expect("an identity")
    };
    let (alice, bob) =
        (identity(&a, "spiffe://example.org/alice"), identity(&b, "spiffe://example.org/bob"));
    let sent = alice.source.token(now).expect("a token");
    let principal = bob.check.check(&sent, now).expect("good");
    assert_eq!(&*principal.subject, "spiffe://example.org/alice");
    let credential = bob.source.credential(&[7; 32], now).expect("a credential");
    assert!(alice.check.check_credential(&credential, &[7; 32], Standing::New, now).is_ok());
}

#[test]
fn a_renewed_token_is_noticed_in_place_and_by_rename_and_half_a_token_is_not_sent() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("svid.token");
    let (pair, now) = (key_pair(), SystemTime::now());
    let [first, second, third] = ["1", "2", "3"].map(|subject| token(&pair, None, subject, now));
    fs::write(&path, &first).expect("written");
    let jwt = JwtFile::open(&path).expect("a token");
    let sent = |turn: u32| jwt.token(now + turn * LATER).expect("a token").to_string();
    assert_eq!(sent(0), first);
    fs::write(&path, &second).expect("written");
    assert_eq!(sent(0), first, "a file is looked at once a second");
    assert_eq!(sent(1), second);
    replace(&path, &third);
    assert_eq!(sent(2), third);
    fs::write(&path, &first[..30]).expect("written");
    assert_eq!(sent(3), third);
    fs::remove_file(&path).expect("removed");
    assert_eq!(sent(4), third);
    replace(&path, &first);
    assert_eq!(sent(5), first);
}

type TextOf = fn(&KeyPair) -> String;

#[test]
fn keys_in_a_file_are_read_again_and_old_tokens_judged_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys");
    let (old, new, now) = (key_pair(), key_pair(), SystemTime::now());
    let forms: [(KeyForm, TextOf); 3] = [
        (KeyForm::Pem, KeyPair::public_key_pem),
        (KeyForm::Jwks, jwks),
        (KeyForm::TrustBundle, |pair| bundle("example.org", pair)),
    ];
    for (form, text) in forms {
        fs::write(&path, text(&old)).expect("written");
        let keys = KeyFile::open(&path, form, rules()).expect("keys");
        let tokens = [&old, &new].map(|pair| token(pair, None, "alice", now));
        let good = |now| tokens.each_ref().map(|token| keys.check(token, now).is_ok());
        assert_eq!(good(now), [true, false], "{form:?}");
        replace(&path, "nonsense");
        assert_eq!(good(now + LATER), [true, false], "{form:?}");
        replace(&path, &text(&new));
        assert_eq!(good(now + 2 * LATER), [false, true], "{form:?}");
    }
}

#[test]
fn what_is_wrong_with_a_file_names_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("file");
    let reason = |result: Result<(), IdentityError>| match result {
        Err(IdentityError::Config { reason }) => {
            assert!(reason.contains(folder.path().to_str().expect("UTF-8")), "{reason}");
            reason
        }
        other => panic!("expected an error of configuration, got {other:?}"),
    };
    let jwt = || JwtFile::open(&path).map(|_| ());
    let keys = || KeyFile::open(&path, KeyForm::TrustBundle, rules()).map(|_| ());
    let signing = || SigningKey::from_file(Algorithm::ES256, &path).map(|_| ());
    for open in [&jwt as &dyn Fn() -> _, &keys, &signing] {
        assert!(reason(open()).contains("No such file"));
    }
    fs::write(&path, "nonsense").expect("written");
    assert!(reason(jwt()).contains("expected a JWT"));
    assert!(reason(keys()).contains("trust bundle: expected"));
    assert!(reason(signing()).contains("expected a private key"));
    fs::write(&path, "x".repeat(100_000)).expect("written");
    assert!(reason(jwt()).contains("expected at most 17408 bytes"));
    assert!(reason(JwtFile::open(folder.path()).map(|_| ())).contains("expected a file"));
}

#[test]
fn apps_that_share_a_secret_know_each_other_and_only_with_the_option_those_of_0_6() {
    let now = SystemTime::now();
    let secret = "a shared secret of 32 bytes or so";
    let alice = Identity::shared_secret("alice", secret).expect("an identity");
    let bob = Identity::shared_secret_v0_6("bob", secret).expect("an identity");
    let mallory = Identity::shared_secret("mallory", "guessed").expect("an identity");
    let check = |of: &Identity, by: &Identity| {
        let token = of.source.token(now).expect("a token");
        by.check.check(&token, now).map(|principal| principal.subject.to_string())
    };
    assert_eq!(check(&alice, &bob).as_deref(), Ok("alice"));
    assert_eq!(check(&bob, &alice), Err(IdentityError::Format));
    assert_eq!(check(&bob, &bob).as_deref(), Ok("bob"));
    assert_eq!(check(&mallory, &bob), Err(IdentityError::WrongSecret));
    assert_ne!(check(&alice, &alice), Err(IdentityError::WrongSecret));
    assert!(!format!("{alice:?} {bob:?}").contains(secret));
}
