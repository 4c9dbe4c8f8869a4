use base64::prelude::BASE64_STANDARD;
use rcgen::PKCS_ED25519;

use super::*;

fn by(keys: Result<Keys, IdentityError>) -> JwtCheck {
    JwtCheck::new(keys.expect("keys"), JwtRules::default())
}

fn unknown(kid: &str) -> Result<Principal, IdentityError> {
    Err(IdentityError::UnknownKey { kid: kid.into() })
}

fn bundle(domains: &[(&str, &[Value])]) -> String {
    let domains = domains
        .iter()
        .map(|(domain, keys)| ((*domain).to_owned(), BASE64_STANDARD.encode(jwks(keys)).into()));
    Value::Object(domains.collect()).to_string()
}

#[test]
fn a_single_key_serves_whatever_the_token_calls_it() {
    let pair = p256();
    for keys in [Keys::pem(&pair.public_key_pem()), Keys::jwk(&jwk(&pair, "one").to_string())] {
        let by = by(keys);
        for kid in [None, Some("other")] {
            let token = es256(&pair, kid, &good_until(NOW, "alice"));
            assert_eq!(check(&by, &token), Ok(principal("alice")));
        }
        let token = es256(&p256(), None, &good_until(NOW, "alice"));
        assert_eq!(check(&by, &token), Err(IdentityError::Signature));
    }
}

#[test]
fn a_key_of_a_set_is_chosen_by_kid_and_without_one_by_algorithm() {
    let (one, two) = (p256(), p256());
    let mut unnamed = jwk(&two, "two");
    unnamed["alg"] = Value::Null;
    let by = by(Keys::jwks(&jwks(&[unnamed, jwk(&one, "one")])));
    let token = |pair, kid| es256(pair, kid, &good_until(NOW, "alice"));
    assert_eq!(check(&by, &token(&one, Some("one"))), Ok(principal("alice")));
    assert_eq!(check(&by, &token(&two, Some("two"))), Ok(principal("alice")));
    assert_eq!(check(&by, &token(&one, None)), Ok(principal("alice")), "the first for ES256");
    assert_eq!(check(&by, &token(&one, Some("two"))), Err(IdentityError::Signature));
    assert_eq!(check(&by, &token(&one, Some("three"))), unknown("three"));
    assert_eq!(check(&by, &hs256(&good_until(NOW, "alice"))), unknown("HS256"));
}

#[test]
fn a_key_is_not_used_for_what_it_is_not_for() {
    let pair = p256();
    let with = |field: &str, value: &str| {
        let mut key = jwk(&pair, "one");
        key[field] = value.into();
        key
    };
    let unusable = [
        with("use", "enc"),
        with("use", "x509-svid"),
        with("alg", "RS256"),
        with("alg", "RSA-OAEP"),
        with("crv", "P-521"),
        with("kty", "RSA"),
        with("x", "!"),
        json!({"kty": "oct", "k": ""}),
        json!(7),
    ];
    for key in &unusable {
        expect_config(Keys::jwk(&key.to_string()), "expected a JWK");
        expect_config(Keys::jwks(&jwks(std::slice::from_ref(key))), "expected a key");
    }
    // Beside others they do no harm.
    let mut keys = unusable.to_vec();
    keys.push(with("use", "jwt-svid"));
    let by = by(Keys::jwks(&jwks(&keys)));
    let token = es256(&pair, Some("one"), &good_until(NOW, "alice"));
    assert_eq!(check(&by, &token), Ok(principal("alice")));
}

#[test]
fn what_is_no_key_is_refused_at_once() {
    let private = p256().serialize_pem();
    let ed = key_pair(&PKCS_ED25519).serialize_pem();
    for text in ["", "secret", "-----BEGIN PUBLIC KEY-----", &private, &ed] {
        expect_config(Keys::pem(text), "expected RSA, EC or Ed25519 in PEM form");
    }
    for text in ["", "[]", "{}", r#"{"keys":{}}"#] {
        expect_config(Keys::jwks(text), "key set: expected");
    }
    expect_config(Keys::jwks(&jwks(&vec![json!({}); 1001])), "got 1001 keys");
    for text in ["", "[]", r#"{"a":7}"#] {
        expect_config(Keys::trust_bundle(text), "trust bundle: expected");
    }
    expect_config(Keys::trust_bundle(r#"{"a.org":"!"}"#), "domain \"a.org\": expected base64");
    expect_config(Keys::trust_bundle(r#"{"a.org":"e30="}"#), "trust domain \"a.org\"");
    expect_config(Keys::trust_bundle("{}"), "expected a key");
    expect_config(Keys::trust_bundle(&bundle(&[("", &[])])), "expected a name");
    assert!(matches!(Keys::secret(""), Err(IdentityError::EmptySecret)));
}

#[test]
fn a_key_of_one_trust_domain_does_not_vouch_for_another() {
    let (ours, theirs) = (p256(), p256());
    let json = bundle(&[("our.org", &[jwk(&ours, "a")]), ("their.org", &[jwk(&theirs, "b")])]);
    let by = by(Keys::trust_bundle(&json));
    let token = |pair, kid, subject: &str| es256(pair, Some(kid), &good_until(NOW, subject));
    for (pair, kid, domain) in [(&ours, "a", "our.org"), (&theirs, "b", "their.org")] {
        let subject = format!("spiffe://{domain}/workload");
        assert_eq!(check(&by, &token(pair, kid, &subject)), Ok(principal(&subject)));
        assert_eq!(check(&by, &token(pair, kid, "alice")), Ok(principal("alice")));
    }
    let foreign = [
        "spiffe://our.org/admin",
        "spiffe://our.org",
        "SPIFFE://our.org/admin",
        "Spiffe://their.org/admin",
        "spiffe://OUR.org/admin",
        "spiffe://third.org/admin",
        "spiffe:///admin",
        "spiffe:our.org",
        "spiffe://their.org.our.org/admin",
    ];
    for subject in foreign {
        assert_eq!(check(&by, &token(&theirs, "b", subject)), unknown("b"), "{subject}");
    }
    let forged = token(&theirs, "a", "spiffe://our.org/admin");
    assert_eq!(check(&by, &forged), Err(IdentityError::Signature));
}

#[test]
fn domains_may_use_the_same_kid_and_be_written_as_spiffe_ids() {
    let (ours, theirs) = (p256(), p256());
    let json =
        bundle(&[("spiffe://our.org", &[jwk(&ours, "1")]), ("Their.org", &[jwk(&theirs, "1")])]);
    let by = by(Keys::trust_bundle(&json));
    for (pair, subject) in [(&ours, "spiffe://our.org/a"), (&theirs, "spiffe://their.org/a")] {
        let token = es256(pair, Some("1"), &good_until(NOW, subject));
        assert_eq!(check(&by, &token), Ok(principal(subject)));
    }
}

#[test]
fn a_secret_that_is_published_is_none() {
    let secret = BASE64_URL_SAFE_NO_PAD.encode(SECRET);
    let oct = json!({"kty": "oct", "k": secret, "alg": "HS256"});
    let token = hs256(&good_until(NOW, "mallory"));
    let configured = by(Keys::jwks(&jwks(std::slice::from_ref(&oct))));
    assert_eq!(check(&configured, &token), Ok(principal("mallory")), "a set of one's own");
    let keys = [oct, jwk(&p256(), "a")];
    let bundled = by(Keys::trust_bundle(&bundle(&[("our.org", &keys)])));
    assert_eq!(check(&bundled, &token), unknown("HS256"));
}

const ISSUER: &str = "https://issuer.example";

fn issued(pair: &rcgen::KeyPair, kid: &str, issuer: &str) -> String {
    es256(pair, Some(kid), &json!({"iss": issuer, "sub": "alice", "exp": NOW + 100_000}))
}

#[test]
fn keys_of_an_issuer_are_asked_for_used_and_renewed_in_time() {
    let pair = p256();
    let by = JwtCheck::new(Keys::issuers(None), JwtRules::default());
    let token = |number: u64| {
        let claims = json!({"iss": ISSUER, "exp": NOW + 100_000 + number});
        es256(&pair, Some("a"), &claims)
    };
    let missing = |token: &str, now| by.missing_issuer(token, at(now));
    let first = token(0);
    assert_eq!(missing(&first, NOW).as_deref(), Some(ISSUER));
    let early = by.check(&first, at(NOW));
    assert_eq!(early, Err(IdentityError::NoKeys { issuer: ISSUER.into() }));
    by.learn(ISSUER, &jwks(&[jwk(&pair, "a")]), at(NOW)).expect("a key set");
    assert_eq!(missing(&first, NOW), None);
    assert!(by.check(&first, at(NOW)).is_ok());
    assert!(by.check(&token(3), at(NOW - 59)).is_ok(), "clocks are read one after the other");
    let set_back = by.check(&token(4), at(NOW - 60));
    assert_eq!(set_back, Err(IdentityError::NoKeys { issuer: ISSUER.into() }));
    assert_eq!(missing(&token(1), NOW + 2999), None);
    assert_eq!(missing(&token(1), NOW + 3000).as_deref(), Some(ISSUER), "there is time left");
    assert!(by.check(&token(1), at(NOW + 3599)).is_ok());
    let late = by.check(&token(2), at(NOW + 3600));
    assert_eq!(late, Err(IdentityError::NoKeys { issuer: ISSUER.into() }));
    assert!(by.check(&first, at(NOW + 3600)).is_ok(), "verified before");
}

#[test]
fn a_new_key_of_an_issuer_is_asked_for_once_a_minute() {
    let (old, new) = (p256(), p256());
    let by = JwtCheck::new(Keys::issuers(None), JwtRules::default());
    by.learn(ISSUER, &jwks(&[jwk(&old, "old")]), at(NOW)).expect("a key set");
    let token = issued(&new, "new", ISSUER);
    assert_eq!(check(&by, &token), unknown("new"));
    assert_eq!(by.missing_issuer(&token, at(NOW + 59)), None);
    assert_eq!(by.missing_issuer(&token, at(NOW + 60)).as_deref(), Some(ISSUER));
    by.learn(ISSUER, &jwks(&[jwk(&new, "new")]), at(NOW + 60)).expect("a key set");
    assert!(check(&by, &issued(&old, "old", ISSUER)).is_err());
    assert!(by.check(&token, at(NOW + 60)).is_ok());
}

#[test]
fn only_issuers_to_believe_are_asked() {
    let pair = p256();
    let set = jwks(&[jwk(&pair, "a")]);
    let listed = JwtCheck::new(Keys::issuers(Some(vec![ISSUER.into()])), JwtRules::default());
    let rules = JwtRules { issuer: Some(ISSUER.into()), ..JwtRules::default() };
    let ruled = JwtCheck::new(Keys::issuers(None), rules);
    let (good, evil) = (issued(&pair, "a", ISSUER), issued(&pair, "a", "https://evil.example"));
    for by in [&listed, &ruled] {
        assert_eq!(by.missing_issuer(&good, at(NOW)).as_deref(), Some(ISSUER));
        assert_eq!(by.missing_issuer(&evil, at(NOW)), None);
        let refused = IdentityError::Issuer { got: "https://evil.example".into() };
        assert_eq!(check(by, &evil), Err(refused));
    }
    assert!(listed.learn("https://evil.example", &set, at(NOW)).is_err());
    assert!(by_pem(&pair).learn(ISSUER, &set, at(NOW)).is_err(), "keys that were configured");
    let expired = es256(&pair, None, &json!({"iss": ISSUER, "exp": NOW - 61}));
    assert_eq!(listed.missing_issuer(&expired, at(NOW)), None);
    let nobody = es256(&pair, None, &good_until(NOW, "alice"));
    assert_eq!(listed.missing_issuer(&nobody, at(NOW)), None);
    assert_eq!(check(&listed, &nobody), Err(IdentityError::NoClaim { claim: "iss" }));
    assert_eq!(listed.missing_issuer("nonsense", at(NOW)), None);
}

#[test]
fn an_issuer_vouches_for_its_own_tokens_only() {
    let (ours, theirs) = (p256(), p256());
    let by = JwtCheck::new(Keys::issuers(None), JwtRules::default());
    by.learn(ISSUER, &jwks(&[jwk(&ours, "a")]), at(NOW)).expect("a key set");
    by.learn("https://other", &jwks(&[jwk(&theirs, "b")]), at(NOW)).expect("a key set");
    assert!(check(&by, &issued(&ours, "a", ISSUER)).is_ok());
    assert_eq!(check(&by, &issued(&theirs, "b", ISSUER)), unknown("b"));
    assert_eq!(check(&by, &issued(&theirs, "a", ISSUER)), Err(IdentityError::Signature));
}

#[test]
fn one_issuer_too_many_takes_the_place_of_the_oldest() {
    let pair = p256();
    let by = JwtCheck::new(Keys::issuers(None), JwtRules::default());
    for number in 0..65 {
        let issuer = format!("https://{number}.example");
        by.learn(&issuer, &jwks(&[jwk(&pair, "a")]), at(NOW + number)).expect("a key set");
    }
    let known = |number: u64| {
        let token = issued(&pair, "a", &format!("https://{number}.example"));
        by.check(&token, at(NOW + 100)).is_ok()
    };
    assert!(!known(0));
    assert!((1..65).all(known));
}
