use rcgen::{PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256};

use super::*;
use crate::identity::{Standing, TokenSource, captured};

fn claims() -> JwtClaims {
    JwtClaims {
        issuer: Some("test-issuer".into()),
        audience: vec!["slim-demo".into()],
        subject: Some("alice".into()),
        duration: Duration::from_secs(5),
        custom: serde_json::Map::new(),
        bind_credentials: false,
    }
}

fn jwt(claims: JwtClaims) -> Jwt {
    Jwt::new(SigningKey::new(Algorithm::HS256, SECRET).expect("a key"), claims).expect("claims")
}

#[test]
fn tokens_are_those_that_a_published_app_made() {
    let tokens = captured::tokens("group-mls-jwt-identity.jsonl");
    let mut same = 0;
    for token in &tokens {
        let parsed = token::Token::parse(token).expect("a token");
        let made = parsed.claims.validity().expect("an exp").exp as u64 - 5;
        let claims = JwtClaims { subject: parsed.claims.sub, ..claims() };
        assert_eq!(jwt(claims).token(at(made)).as_deref(), Ok(&**token));
        same += 1;
    }
    assert!(same > 10, "{same}");
}

#[test]
fn each_algorithm_is_checked_by_the_public_key_of_its_family_and_no_other() {
    let rsa = key_pair(&PKCS_RSA_SHA256);
    let (p256, p384, ed) = (p256(), key_pair(&PKCS_ECDSA_P384_SHA384), key_pair(&PKCS_ED25519));
    let pairs = [
        (Some(&rsa), "RS256 RS384 RS512 PS256 PS384 PS512"),
        (Some(&p256), "ES256"),
        (Some(&p384), "ES384"),
        (Some(&ed), "EdDSA"),
        (None, "HS256 HS384 HS512"),
    ];
    for (index, (pair, algorithms)) in pairs.iter().enumerate() {
        for algorithm in algorithms.split(' ') {
            let algorithm = algorithm.parse::<Algorithm>().expect("an algorithm");
            let text = pair.map_or(SECRET.into(), |pair| pair.serialize_pem());
            let key = SigningKey::new(algorithm, &text).expect("a key");
            let claims = JwtClaims { audience: vec![], ..claims() };
            let token = Jwt::new(key, claims).expect("claims").token(at(NOW)).expect("a token");
            for (other, (pair, _)) in pairs.iter().enumerate() {
                let check = match pair {
                    Some(pair) => by_pem(pair),
                    None => by_secret(JwtRules::default()),
                };
                let checked = check.check(&token, at(NOW));
                assert_eq!(checked.is_ok(), index == other, "{algorithm:?}: {checked:?}");
            }
        }
    }
}

#[test]
fn a_token_is_sent_again_for_half_its_time_and_at_most_a_minute() {
    for (duration, reuse) in [(1, 1), (5, 2), (100, 50), (3600, 60)] {
        let jwt = jwt(JwtClaims { duration: Duration::from_secs(duration), ..claims() });
        let token = |now| jwt.token(at(now)).expect("a token");
        let first = token(NOW);
        assert_eq!(token(NOW + reuse - 1), first, "{duration} s");
        assert_ne!(token(NOW + reuse), first, "{duration} s");
        assert_ne!(token(NOW - 1), first, "the clock was set back");
    }
}

#[test]
fn a_bound_credential_is_good_beside_its_key_only() {
    let check = by_secret(JwtRules { audience: vec!["slim-demo".into()], ..JwtRules::default() });
    for (bind_credentials, beside_another) in [(false, true), (true, false)] {
        let jwt = jwt(JwtClaims { bind_credentials, ..claims() });
        let credential = jwt.credential(&[7; 32], at(NOW)).expect("a credential");
        let good =
            |key: &[u8]| check.check_credential(&credential, key, Standing::New, at(NOW)).is_ok();
        assert!(good(&[7; 32]));
        assert_eq!(good(&[8; 32]), beside_another);
    }
}

#[test]
fn keys_and_claims_that_cannot_be_used_are_refused_at_once() {
    let pem = p256().serialize_pem();
    let refused = |algorithm, text: &str| match SigningKey::new(algorithm, text) {
        Err(IdentityError::Config { reason }) => {
            assert!(!reason.contains("BEGIN"), "{reason}");
            true
        }
        _ => false,
    };
    assert!(refused(Algorithm::RS256, &pem));
    assert!(refused(Algorithm::ES384, &pem));
    assert!(refused(Algorithm::EdDSA, &pem));
    assert!(refused(Algorithm::ES256, "secret"));
    assert!(refused(Algorithm::ES256, &p256().public_key_pem()));
    let empty = SigningKey::new(Algorithm::HS256, "").map(|_| ());
    assert_eq!(empty, Err(IdentityError::EmptySecret));

    let key = SigningKey::new(Algorithm::HS256, SECRET).expect("a key");
    for claims in [
        JwtClaims { duration: Duration::from_millis(999), ..claims() },
        JwtClaims { subject: Some("x".repeat(16 * 1024)), ..claims() },
    ] {
        let refused = Jwt::new(key.clone(), claims).map(|_| ());
        assert!(matches!(refused, Err(IdentityError::Config { .. })), "{refused:?}");
    }
}

#[test]
fn an_issued_token_is_sent_trimmed_until_it_expires_or_is_replaced() {
    let (first, second) = (hs256(&good_until(NOW, "a")), hs256(&good_until(NOW + 1000, "b")));
    let jwt = StaticJwt::new(&format!("\n {first}\r\n")).expect("a token");
    assert_eq!(jwt.token(at(NOW + 60)).as_deref(), Ok(&*first));
    let expired = jwt.token(at(NOW + 61)).expect_err("expired");
    assert_eq!(expired.to_string(), "no token: the app's JWT expired 61 s ago and was not renewed");
    assert!(jwt.replace(&second[..20]).is_err(), "half written");
    assert!(jwt.token(at(NOW)).is_ok());
    jwt.replace(&second).expect("a token");
    assert_eq!(jwt.token(at(NOW + 61)).as_deref(), Ok(&*second));
}

#[test]
fn what_is_no_jwt_is_refused_at_once() {
    for text in ["", "secret:alice", "a.b.c", "e30.e30.e30", &"x".repeat(1_000_000)] {
        let refused = StaticJwt::new(text).map(|_| ());
        assert!(matches!(refused, Err(IdentityError::Config { .. })), "{refused:?}");
    }
}

#[test]
fn neither_keys_nor_tokens_are_printed() {
    let pair = p256();
    let pem = pair.serialize_pem();
    let key = SigningKey::new(Algorithm::ES256, &pem).expect("a key");
    let token = hs256(&good_until(NOW, "a"));
    let printed = [
        format!("{:?}", jwt(claims())),
        format!("{key:?}"),
        format!("{:?}", StaticJwt::new(&token)),
        format!("{:?}", by_secret(JwtRules::default())),
        format!("{:?}", Keys::jwk(r#"{"kty":"oct","k":"dmVjdG9yLWhzMjU2"}"#)),
    ];
    for text in &printed {
        assert!(!text.contains("vector") && !text.contains("dmVj"), "{text}");
        assert!(!text.contains(&token) && !text.contains(&pem[40..60]), "{text}");
        assert!(!text.contains("118, 101, 99"), "bytes of a secret: {text}");
    }
}
