use proptest::prelude::*;

use super::*;
use crate::identity::{Standing, TOKEN_BYTES, captured};

#[test]
fn what_a_published_app_sent_is_good_in_its_time() {
    let rules = JwtRules {
        issuer: Some("test-issuer".into()),
        audience: vec!["slim-demo".into()],
        ..JwtRules::default()
    };
    let check = by_secret(rules);
    for token in captured::tokens("group-mls-jwt-identity.jsonl") {
        let parsed = token::Token::parse(&token).expect("a token");
        let exp = parsed.claims.validity().expect("an exp").exp as u64;
        let principal = check.check(&token, at(exp)).expect("good");
        assert_eq!(principal.issuer.as_deref(), Some("test-issuer"));
        assert!(["moderator", "alice", "bob"].contains(&&*principal.subject), "{principal:?}");
        assert_eq!(check.check(&token, at(exp + 60)), Ok(principal.clone()));
        let late = check.check(&token, at(exp + 61));
        assert_eq!(late, Err(IdentityError::Expired { seconds: 61 }));
        let standing = |standing| check.check_credential(&token, &[7; 32], standing, at(exp + 61));
        assert_eq!(standing(Standing::New), Err(IdentityError::Expired { seconds: 61 }));
        assert_eq!(standing(Standing::Admitted), Ok(principal));
    }
}

#[test]
fn claims_are_judged_by_the_rules() {
    let none = JwtRules::default;
    let audience = || JwtRules { audience: vec!["a".into(), "b".into()], ..none() };
    let issuer = || JwtRules { issuer: Some("us".into()), ..none() };
    let subject = || JwtRules { subject: Some("alice".into()), ..none() };
    let missing = |claim| Err(IdentityError::NoClaim { claim });
    let table = [
        (none(), json!({}), Ok(())),
        (none(), json!({"iss": "x", "sub": "y"}), Ok(())),
        (none(), json!({"aud": ["a"]}), Err(IdentityError::Audience)),
        (none(), json!({"aud": []}), Err(IdentityError::Audience)),
        (audience(), json!({}), Ok(())),
        (audience(), json!({"aud": ["c", "b"]}), Ok(())),
        (audience(), json!({"aud": "a"}), Ok(())),
        (audience(), json!({"aud": ["c"]}), Err(IdentityError::Audience)),
        (audience(), json!({"aud": "c"}), Err(IdentityError::Audience)),
        (JwtRules { require_audience: true, ..audience() }, json!({}), missing("aud")),
        (issuer(), json!({}), Ok(())),
        (issuer(), json!({"iss": "us"}), Ok(())),
        (issuer(), json!({"iss": "me"}), Err(IdentityError::Issuer { got: "me".into() })),
        (JwtRules { require_issuer: true, ..none() }, json!({}), missing("iss")),
        (subject(), json!({}), Ok(())),
        (subject(), json!({"sub": "alice"}), Ok(())),
        (subject(), json!({"sub": "bob"}), Err(IdentityError::Subject { got: "bob".into() })),
        (JwtRules { require_subject: true, ..none() }, json!({}), missing("sub")),
        (JwtRules { require_subject: true, ..none() }, json!({"sub": ""}), Ok(())),
    ];
    for (rules, mut claims, expected) in table {
        claims["exp"] = NOW.into();
        let token = hs256(&claims);
        let checked = check(&by_secret(rules.clone()), &token).map(|_| ());
        assert_eq!(checked, expected, "{claims} by {rules:?}");
    }
}

#[test]
fn times_are_judged_with_a_minute_to_spare() {
    let late = |seconds| Err(IdentityError::Expired { seconds });
    let table = [
        (json!({"exp": NOW - 60}), Ok(())),
        (json!({"exp": NOW - 61}), late(61)),
        (json!({"exp": NOW as f64 - 60.5}), late(60)),
        (json!({"exp": 0}), late(NOW)),
        (json!({"exp": -1.5e300}), late(u64::MAX)),
        (json!({"exp": 1e300}), Ok(())),
        (json!({"exp": NOW, "nbf": NOW + 60, "iat": NOW + 1000}), Ok(())),
        (json!({"exp": NOW, "nbf": NOW + 61}), Err(IdentityError::NotYet { seconds: 61 })),
        (json!({}), Err(IdentityError::NoClaim { claim: "exp" })),
        (json!({"exp": null}), Err(IdentityError::NoClaim { claim: "exp" })),
    ];
    for (claims, expected) in table {
        let checked = check(&by_secret(JwtRules::default()), &hs256(&claims)).map(|_| ());
        assert_eq!(checked, expected, "{claims}");
    }
}

#[test]
fn what_has_not_the_form_of_a_token_is_refused() {
    let check = by_secret(JwtRules::default());
    let good = hs256(&good_until(NOW, "a"));
    let claims = |text: &str| {
        let key = SigningKey::new(Algorithm::HS256, SECRET).expect("a key");
        let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        let message = format!("{}.{}", part(r#"{"alg":"HS256"}"#), part(text));
        format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(key.sign(&message).expect("signed")))
    };
    let nested = format!(r#"{{"exp":{NOW},"x":{}}}"#, "[".repeat(10_000));
    let tokens = [
        String::new(),
        "secret:alice".into(),
        "..".into(),
        format!("{good}="),
        format!("{good}."),
        good.replacen('.', "", 1),
        format!(" {good}"),
        claims("[]"),
        claims(&nested),
        claims(&format!(r#"{{"exp":"{NOW}"}}"#)),
        claims(&format!(r#"{{"exp":{NOW},"exp":{NOW}}}"#)),
        claims(&format!(r#"{{"exp":{NOW},"sub":7}}"#)),
        claims(&format!(r#"{{"exp":{NOW},"aud":[7]}}"#)),
        claims(r#"{"exp":1e999}"#),
    ];
    for token in tokens {
        let refused = check.check(&token, at(NOW)).expect_err("no token");
        assert!(
            matches!(refused, IdentityError::Format | IdentityError::Invalid { .. }),
            "{token}: {refused}"
        );
    }
    let long = format!("{good}{}", "A".repeat(1_000_000));
    let refused = check.check(&long, at(NOW));
    assert_eq!(refused, Err(IdentityError::TooLong { limit: TOKEN_BYTES, got: long.len() }));
    let credential = check.check_credential(&long, &[], Standing::Admitted, at(NOW));
    assert_eq!(credential, refused);
}

#[test]
fn a_public_key_is_no_secret_and_no_signature_is_none() {
    let pair = p256();
    let key = SigningKey::new(Algorithm::HS256, &pair.public_key_pem()).expect("a key");
    let confused = signed(&key, &json!({"alg": "HS256"}), &good_until(NOW, "mallory"));
    let refused = check(&by_pem(&pair), &confused);
    assert_eq!(refused, Err(IdentityError::Algorithm { got: "HS256".into() }));

    let claims = BASE64_URL_SAFE_NO_PAD.encode(good_until(NOW, "mallory").to_string());
    for (alg, got) in [("none", "none"), ("None", "None"), ("ES256K", "ES256K"), ("", "")] {
        let header = BASE64_URL_SAFE_NO_PAD.encode(json!({ "alg": alg }).to_string());
        let unsigned = format!("{header}.{claims}.");
        for check in [by_pem(&pair), by_secret(JwtRules::default())] {
            let refused = check.check(&unsigned, at(NOW));
            assert_eq!(refused, Err(IdentityError::Algorithm { got: got.into() }));
        }
    }
}

#[test]
fn a_token_with_extensions_that_have_to_be_understood_is_refused() {
    let key = SigningKey::new(Algorithm::HS256, SECRET).expect("a key");
    let header = json!({"alg": "HS256", "crit": ["b64"], "b64": false});
    let refused =
        check(&by_secret(JwtRules::default()), &signed(&key, &header, &good_until(NOW, "a")));
    assert!(matches!(refused, Err(IdentityError::Invalid { .. })), "{refused:?}");
}

#[test]
fn no_byte_of_a_token_can_be_changed() {
    let pair = p256();
    let (token, check) = (es256(&pair, None, &good_until(NOW, "alice")), by_pem(&pair));
    for at_byte in 0..token.len() {
        let mut changed = token.as_bytes().to_vec();
        changed[at_byte] = if changed[at_byte] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).expect("ASCII");
        assert!(check.check(&changed, at(NOW)).is_err(), "{changed}");
    }
    assert_eq!(check.check(&token, at(NOW)), Ok(principal("alice")));
}

#[test]
fn a_verified_token_expires_and_is_judged_anew_by_new_keys() {
    let check = by_secret(JwtRules::default());
    let token = hs256(&good_until(NOW, "alice"));
    assert!(check.check(&token, at(NOW)).is_ok());
    assert_eq!(check.check(&token, at(NOW + 99)), Err(IdentityError::Expired { seconds: 99 }));
    check.replace_keys(Keys::secret("another").expect("a key"));
    assert_eq!(check.check(&token, at(NOW)), Err(IdentityError::Signature));
}

#[test]
fn verified_tokens_are_remembered_in_bounded_room() {
    let check = by_secret(JwtRules::default());
    let first = hs256(&good_until(NOW, "0"));
    for number in 0..5000 {
        let token = hs256(&good_until(NOW, &number.to_string()));
        assert!(check.check(&token, at(NOW)).is_ok());
        assert!(check.remembered() <= 4096);
    }
    assert!(check.remembered() > 0);
    assert!(check.check(&first, at(NOW)).is_ok());
}

#[test]
fn a_token_of_a_peer_does_not_reach_a_log_at_length() {
    let long = json!({"exp": NOW, "iss": "x\n".repeat(2000)});
    let rules = JwtRules { issuer: Some("us".into()), ..JwtRules::default() };
    let error = check(&by_secret(rules), &hs256(&long)).expect_err("another issuer").to_string();
    assert!(error.len() < 200 && !error.contains('\n'), "{error}");
}

proptest! {
    #[test]
    fn no_text_at_all_is_taken(text in "\\PC{0,200}") {
        prop_assert!(check(&by_secret(JwtRules::default()), &text).is_err());
    }

    #[test]
    fn no_json_at_all_brings_a_check_down(
        header in "\\{(\"(alg|kid|crit)\":(\"HS256\"|\"none\"|null|7|\\[\\])(,|)){0,3}\\}",
        claims in "\\{(\"(exp|iss|sub|aud|nbf|pubkey)\":(\"a\"|null|-7|9e99|\\[\"a\",\"b\"\\])(,|)){0,5}\\}",
    ) {
        let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        let key = SigningKey::new(Algorithm::HS256, SECRET).expect("a key");
        let message = format!("{}.{}", part(&header), part(&claims));
        let signature = BASE64_URL_SAFE_NO_PAD.encode(key.sign(&message).expect("signed"));
        let rules = JwtRules { audience: vec!["a".into()], ..JwtRules::default() };
        let (one, other) = (by_secret(rules.clone()), by_pem(&P256));
        let token = format!("{message}.{signature}");
        let taken = one.check(&token, at(NOW));
        if taken.is_ok() {
            prop_assert!(header.contains("HS256") && claims.contains("9e99"), "{header} {claims}");
        }
        prop_assert!(other.check(&token, at(NOW)).is_err());
    }
}

static P256: std::sync::LazyLock<rcgen::KeyPair> = std::sync::LazyLock::new(p256);
