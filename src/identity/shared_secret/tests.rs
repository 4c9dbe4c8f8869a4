use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;

use super::*;
use crate::identity::{TOKEN_BYTES, captured};

const SECRET: &str = "vector-shared-secret-0123456789abcdef";

/// Made elsewhere, with the library of another language, at `MADE`.
const TOKEN: &str = "alice_A1b2C3d4:1795206948:AAECAwQFBgcICQoL::\
                     E0aOPZR_1F6BSMI4UoES8nuRKdYLT4uWt9h7xmmxsEM";
const MADE: u64 = 1_795_206_948;

/// Credentials made likewise, for the key 0, 1, … 31: as a claim of its own, and of `custom_claims`.
const CREDENTIALS: [&str; 2] = [
    "alice_A1b2C3d4:1795206948:AAECAwQFBgcICQoL:eyJwdWJrZXkiOiJBQUVDQXdRRkJnY0lDUW9MREEwT0R4QVJFa\
     E1VRlJZWEdCa2FHeHdkSGg4PSIsInN1YiI6ImFsaWNlIn0:Oe4nOlbQHa20OKTmVY3wHriMtXPsE-Jv3eu2s7djBK0",
    "alice_A1b2C3d4:1795206948:AAECAwQFBgcICQoL:eyJzdWIiOiJhbGljZSIsImN1c3RvbV9jbGFpbXMiOnsicHVia\
     2V5IjoiQUFFQ0F3UUZCZ2NJQ1FvTERBME9EeEFSRWhNVUZSWVhHQmthR3h3ZEhoOD0ifX0:RIBS2Gs-M7xQIDu88LrcjF\
     Ir_-_h6FZxQ_Ah_RkmUfE",
];

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn shared(identity: &str, secret: &str, compat: Compat) -> Result<SharedSecret, IdentityError> {
    SharedSecret::new(identity, secret, compat, &mut StdRng::seed_from_u64(7))
}

fn native(identity: &str) -> SharedSecret {
    shared(identity, SECRET, Compat::Native).expect("an identity")
}

fn with_0_6(identity: &str) -> SharedSecret {
    shared(identity, SECRET, Compat::V0_6).expect("an identity")
}

fn alice() -> Principal {
    Principal { subject: "alice".into(), issuer: None }
}

fn key() -> Vec<u8> {
    (0..32).collect()
}

#[test]
fn a_token_made_elsewhere_is_good() {
    assert_eq!(native("bob").check(TOKEN, at(MADE)), Ok(alice()));
}

#[test]
fn credentials_made_elsewhere_are_good_beside_their_key_only() {
    for credential in CREDENTIALS {
        let check =
            |key: &[u8]| native("bob").check_credential(credential, key, Standing::New, at(MADE));
        assert_eq!(check(&key()), Ok(alice()));
        assert_eq!(check(&[7; 32]), Err(IdentityError::MemberKey));
        assert_eq!(check(&[]), Err(IdentityError::MemberKey));
    }
}

#[test]
fn a_token_is_good_for_an_hour_and_when_the_clock_is_five_seconds_behind() {
    let check = |now| native("bob").check(TOKEN, at(now));
    assert_eq!(check(MADE - 5), Ok(alice()));
    assert_eq!(check(MADE - 6), Err(IdentityError::NotYet { seconds: 6 }));
    assert_eq!(check(MADE + 3600), Ok(alice()));
    assert_eq!(check(MADE + 3601), Err(IdentityError::Expired { seconds: 1 }));
    assert_eq!(native("bob").check(TOKEN, at(0) - Duration::from_secs(9)), check(0));
}

#[test]
fn a_member_stays_acceptable_when_its_credential_has_aged() {
    let check =
        |standing, now| native("bob").check_credential(CREDENTIALS[0], &key(), standing, at(now));
    let late = MADE + 1_000_000;
    assert_eq!(check(Standing::Admitted, late), Ok(alice()));
    assert!(matches!(check(Standing::New, late), Err(IdentityError::Expired { .. })));
}

#[test]
fn a_token_of_a_message_is_no_credential() {
    let refused = native("bob").check_credential(TOKEN, &key(), Standing::New, at(MADE));
    assert_eq!(refused, Err(IdentityError::NoClaim { claim: "pubkey" }));
}

#[test]
fn a_token_is_sent_again_for_a_minute() {
    let alice = native("alice");
    let token = |now| alice.token(at(now)).expect("a token");
    let first = token(1000);
    assert_eq!(token(1059), first);
    let second = token(1060);
    assert_ne!(second, first);
    assert_ne!(token(1059), second, "the clock was set back");
}

#[test]
fn two_instances_of_an_identity_differ_and_are_the_same_principal() {
    let mut rng = StdRng::seed_from_u64(7);
    let mut instance = || SharedSecret::new("a_l", SECRET, Compat::Native, &mut rng).expect("fine");
    let (one, other) = (instance(), instance());
    let id = |shared: &SharedSecret| {
        let token = shared.token(at(MADE)).expect("a token");
        let id = token.split(':').next().expect("an id").to_owned();
        let principal = one.check(&token, at(MADE)).expect("good");
        assert_eq!(&*principal.subject, "a_l");
        id
    };
    assert_ne!(id(&one), id(&other));
    assert!(id(&one).starts_with("a_l_") && id(&one).len() == "a_l_".len() + 8);
}

#[test]
fn whoever_has_another_secret_is_told_apart() {
    let other = shared("bob", "another", Compat::Native).expect("an identity");
    assert_eq!(other.check(TOKEN, at(MADE)), Err(IdentityError::WrongSecret));
}

#[test]
fn no_byte_of_a_token_can_be_changed() {
    let bob = native("bob");
    for at_byte in 0..TOKEN.len() {
        let mut token = TOKEN.as_bytes().to_vec();
        token[at_byte] = if token[at_byte] == b'A' { b'B' } else { b'A' };
        let token = String::from_utf8(token).expect("ASCII");
        let refused = bob.check(&token, at(MADE)).expect_err("changed");
        assert!(
            matches!(refused, IdentityError::WrongSecret | IdentityError::Format),
            "{token}: {refused}"
        );
    }
}

#[test]
fn what_has_not_the_form_of_a_token_is_refused() {
    let signed = |text: &str| {
        let mac = hmac::sign(&native("bob").key, text.as_bytes());
        format!("{text}:{}", BASE64_URL_SAFE_NO_PAD.encode(mac))
    };
    let tokens = [
        String::new(),
        "alice".into(),
        ":".into(),
        "::::".into(),
        signed(":1795206948:AAAA:"),
        signed("alice:+1795206948:AAAA:"),
        signed("alice:-1:AAAA:"),
        signed("alice::AAAA:"),
        signed("alice:99999999999999999999999:AAAA:"),
        signed("alice:1795206948:AAAA::"),
        signed("alice:1795206948:AAAA"),
        format!("{TOKEN}="),
        format!("{SECRET}:alice"),
    ];
    for token in tokens {
        assert_eq!(native("bob").check(&token, at(MADE)), Err(IdentityError::Format), "{token}");
    }
    let long = "a:".repeat(500_000);
    let refused = Err(IdentityError::TooLong { limit: TOKEN_BYTES, got: 1_000_000 });
    assert_eq!(native("bob").check(&long, at(MADE)), refused);
    assert_eq!(native("bob").check_credential(&long, &[], Standing::Admitted, at(0)), refused);
    assert_eq!(with_0_6("bob").check(&long, at(MADE)), refused);
}

#[test]
fn what_published_apps_sent_is_taken_with_the_option_only() {
    let files = ["p2p-reliable.jsonl", "p2p-mls.jsonl", "group-plain.jsonl", "group-mls.jsonl"];
    for token in files.into_iter().flat_map(captured::tokens) {
        let principal = with_0_6("bob").check(&token, at(MADE)).expect("good");
        assert_eq!(token, format!("{SECRET}:{}", principal.subject));
        assert_eq!(native("bob").check(&token, at(MADE)), Err(IdentityError::Format));
    }
}

#[test]
fn with_the_option_clear_tokens_are_sent_and_both_kinds_are_taken() {
    let (old, new) = (with_0_6("alice"), native("alice"));
    let clear = format!("{SECRET}:alice");
    assert_eq!(old.token(at(MADE)).as_deref(), Ok(&*clear));
    assert_eq!(old.credential(&key(), at(MADE)).as_deref(), Ok(&*clear));
    for source in [&old, &new] {
        let token = source.token(at(MADE)).expect("a token");
        assert_eq!(old.check(&token, at(MADE)), Ok(alice()));
        let credential = source.credential(&key(), at(MADE)).expect("a credential");
        let checked = old.check_credential(&credential, &key(), Standing::New, at(MADE));
        assert_eq!(checked, Ok(alice()));
    }
}

#[test]
fn clear_tokens_are_judged_as_published() {
    let check = |token: &str| with_0_6("bob").check(token, at(MADE));
    let nobody = Principal { subject: "".into(), issuer: None };
    assert_eq!(check(&format!("{SECRET}:")), Ok(nobody));
    assert_eq!(check("another:alice"), Err(IdentityError::WrongSecret));
    assert_eq!(check(":alice"), Err(IdentityError::WrongSecret));
    assert_eq!(check(&format!("{SECRET}:a:b")), Err(IdentityError::Format));
    assert_eq!(check(SECRET), Err(IdentityError::Format));
}

#[test]
fn what_cannot_be_an_identity_is_refused_at_once() {
    let new = |identity: &str, secret: &str, compat| shared(identity, secret, compat).map(|_| ());
    assert_eq!(new("alice", "", Compat::Native), Err(IdentityError::EmptySecret));
    for identity in ["", "a:b", "a b", "a\n", &"a".repeat(1025)] {
        let refused = new(identity, SECRET, Compat::Native).expect_err("no identity");
        assert!(refused.to_string().contains("expected 1 to 1024 bytes"), "{refused}");
    }
    let refused = new("alice", "a:b", Compat::V0_6).expect_err("0.6 would not take it");
    assert!(!refused.to_string().contains("a:b"), "{refused}");
    assert_eq!(new("alice", "a:b", Compat::Native), Ok(()));
}

#[test]
fn a_secret_below_32_bytes_is_short() {
    for (secret, short) in [("secret", true), (&*"s".repeat(31), true), (&*"s".repeat(32), false)] {
        let shared = shared("alice", secret, Compat::Native).expect("an identity");
        assert_eq!(shared.is_short(), short, "{secret}");
    }
}

#[test]
fn the_secret_is_not_printed() {
    for compat in [Compat::Native, Compat::V0_6] {
        let shared = shared("alice", SECRET, compat).expect("an identity");
        shared.token(at(MADE)).expect("a token");
        let printed = format!("{shared:?}");
        assert!(printed.contains("alice") && !printed.contains("vector"), "{printed}");
    }
}

proptest! {
    #[test]
    fn what_is_made_is_good_and_only_with_the_same_secret(
        identity in "[^:\\s]{1,40}",
        secret in ".{1,60}",
        other in ".{1,60}",
        now in 0u64..1 << 40,
        key in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        prop_assume!(secret != other);
        let one = shared(&identity, &secret, Compat::Native).expect("an identity");
        let other = shared(&identity, &other, Compat::Native).expect("an identity");
        let token = one.token(at(now)).expect("a token");
        let principal = Principal { subject: identity.into(), issuer: None };
        prop_assert_eq!(one.check(&token, at(now)), Ok(principal.clone()));
        prop_assert_eq!(other.check(&token, at(now)), Err(IdentityError::WrongSecret));
        let credential = one.credential(&key, at(now)).expect("a credential");
        let checked = one.check_credential(&credential, &key, Standing::New, at(now));
        prop_assert_eq!(checked, Ok(principal));
    }

    #[test]
    fn no_text_at_all_is_taken(text in "[^:]{0,20}(:[^:]{0,20}){0,6}", now in any::<u32>()) {
        for shared in [native("alice"), with_0_6("alice")] {
            prop_assert!(shared.check(&text, at(now.into())).is_err());
        }
    }
}
