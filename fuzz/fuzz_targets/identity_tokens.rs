//! Whatever comes as a token, no check panics, and none is taken that was not made with its key.

#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use libfuzzer_sys::fuzz_target;
use rand::SeedableRng;
use rand::rngs::StdRng;
use slim_quic::identity::{
    Compat, JwtCheck, JwtRules, Keys, SharedSecret, Standing, StaticJwt, TOKEN_BYTES, TokenCheck,
};

const SECRET: &str = "fuzz-secret-0123456789abcdef-0123456789";
const ANOTHER: &str = "other-secret-0123456789abcdef-012345678";
const NOW: u64 = 1_795_206_948;

/// The key of RFC 7515, A.3.
const PUBLIC: &str = r#"{"kty":"EC","crv":"P-256","kid":"a","alg":"ES256",
    "x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;

struct Checks {
    shared: SharedSecret,
    clear: SharedSecret,
    secret: JwtCheck,
    /// None of these has a key that anybody here can sign with.
    public: Vec<JwtCheck>,
}

static CHECKS: LazyLock<Checks> = LazyLock::new(|| {
    let shared = |compat| {
        let mut rng = StdRng::seed_from_u64(7);
        SharedSecret::new("fuzz", SECRET, compat, &mut rng).expect("an identity")
    };
    let rules = || JwtRules { audience: vec!["a".into()], ..JwtRules::default() };
    let by = |keys: Keys| JwtCheck::new(keys, rules());
    let set = format!(r#"{{"keys":[{PUBLIC}]}}"#);
    let domain = BASE64_STANDARD.encode(&set);
    let bundle = format!(r#"{{"a.org":"{domain}","b.org":"{domain}"}}"#);
    let issuers = by(Keys::issuers(None));
    issuers.learn("https://a.org", &set, now()).expect("a key set");
    let keys = [Keys::jwk(PUBLIC), Keys::jwks(&set), Keys::trust_bundle(&bundle)];
    let mut public: Vec<_> = keys.into_iter().map(|keys| by(keys.expect("keys"))).collect();
    public.push(issuers);
    Checks {
        shared: shared(Compat::Native),
        clear: shared(Compat::V0_6),
        secret: by(Keys::secret(SECRET).expect("a key")),
        public,
    }
});

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

fn mac(secret: &str, text: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(&key, text.as_bytes()))
}

/// Whether a check takes a token in any of the ways to ask.
fn takes(check: &dyn TokenCheck, token: &str) -> bool {
    let credential = |standing| check.check_credential(token, b"key", standing, now()).is_ok();
    let taken = check.check(token, now()).is_ok();
    let again = check.check(token, now()).is_ok();
    assert_eq!(taken, again, "what is remembered changes nothing");
    let (new, admitted) = (credential(Standing::New), credential(Standing::Admitted));
    assert!(!new || (admitted && taken), "a new member is judged most strictly");
    taken || admitted
}

fn refused_by_all_public(token: &str) {
    for check in &CHECKS.public {
        let _ = check.missing_issuer(token, now());
        assert!(!takes(check, token), "{token}");
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((kind, text)) = input.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let Checks { shared, clear, secret, .. } = &*CHECKS;
    match kind {
        // The parts of a token before the MAC, and the MAC.
        b'1' => {
            let token = |secret| format!("{text}:{}", mac(secret, text));
            let (good, forged) = (token(SECRET), token(ANOTHER));
            let form = text.split(':').count() == 4 && good.len() <= TOKEN_BYTES;
            assert!(!takes(shared, &good) || form, "{good}");
            assert!(takes(shared, &good) == takes(clear, &good) || text == SECRET, "{good}");
            assert!(!takes(shared, &forged) && !takes(clear, &forged), "{forged}");
        }
        // Header and claims of a JWT, on two lines, and the signature.
        b'2' => {
            let (header, claims) = text.split_once('\n').unwrap_or((text, ""));
            let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
            let message = format!("{}.{}", part(header), part(claims));
            let token = |secret| format!("{message}.{}", mac(secret, &message));
            let (good, forged) = (token(SECRET), token(ANOTHER));
            let form = header.contains("HS256") || header.contains('\\');
            assert!(!takes(secret, &good) || form, "{good}");
            assert!(!takes(secret, &forged), "{forged}");
            refused_by_all_public(&good);
            let _ = StaticJwt::new(&good);
        }
        // Anything: there is no way to guess a MAC.
        _ => {
            assert!(!takes(shared, text) && !takes(secret, text), "{text}");
            assert!(!takes(clear, text) || text.starts_with(SECRET), "{text}");
            refused_by_all_public(text);
            let _ = StaticJwt::new(text);
        }
    }
});
