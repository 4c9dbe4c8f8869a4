mod checking;
mod keys;
mod making;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, SignatureAlgorithm};
use serde_json::{Value, json};

use super::*;
use crate::identity::{IdentityError, Principal, TokenCheck};

/// What the captured tokens were signed with.
const SECRET: &str = "vector-hs256-key-0123456789abcdef0123456789";

const NOW: u64 = 1_795_206_948;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn key_pair(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).expect("a key")
}

fn p256() -> KeyPair {
    key_pair(&PKCS_ECDSA_P256_SHA256)
}

/// A token with this header and these claims, signed with the key.
fn signed(key: &SigningKey, header: &Value, claims: &Value) -> String {
    let part = |json: &Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let signature = BASE64_URL_SAFE_NO_PAD.encode(key.sign(&message).expect("signed"));
    format!("{message}.{signature}")
}

/// A token signed with ES256.
fn es256(pair: &KeyPair, kid: Option<&str>, claims: &Value) -> String {
    let key = SigningKey::new(Algorithm::ES256, &pair.serialize_pem()).expect("a key");
    let mut header = json!({"typ": "JWT", "alg": "ES256"});
    if let Some(kid) = kid {
        header["kid"] = kid.into();
    }
    signed(&key, &header, claims)
}

/// A token signed with HS256 and [`SECRET`].
fn hs256(claims: &Value) -> String {
    let key = SigningKey::new(Algorithm::HS256, SECRET).expect("a key");
    signed(&key, &json!({"typ": "JWT", "alg": "HS256"}), claims)
}

fn by_secret(rules: JwtRules) -> JwtCheck {
    JwtCheck::new(Keys::secret(SECRET).expect("a key"), rules)
}

fn by_pem(pair: &KeyPair) -> JwtCheck {
    JwtCheck::new(Keys::pem(&pair.public_key_pem()).expect("a key"), JwtRules::default())
}

/// A P-256 key as a JWK.
fn jwk(pair: &KeyPair, kid: &str) -> Value {
    let point = pair.public_key_raw();
    let [x, y] = [&point[1..33], &point[33..]].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
    json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": kid, "alg": "ES256"})
}

fn jwks(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

fn principal(subject: &str) -> Principal {
    Principal { subject: subject.into(), issuer: None }
}

fn good_until(exp: u64, subject: &str) -> Value {
    json!({"sub": subject, "exp": exp})
}

fn expect_config(result: Result<Keys, IdentityError>, part: &str) {
    match result {
        Err(error @ IdentityError::Config { .. }) => {
            assert!(error.to_string().contains(part), "{error}");
        }
        other => panic!("expected an error of configuration, got {other:?}"),
    }
}

fn check(check: &JwtCheck, token: &str) -> Result<Principal, IdentityError> {
    check.check(token, at(NOW))
}
