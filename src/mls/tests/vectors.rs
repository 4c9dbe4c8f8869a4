//! What published apps sent.

use openmls::prelude::KeyPackageBundle;
use openmls_basic_credential::SignatureKeyPair;
use openmls_traits::OpenMlsProvider;
use openmls_traits::storage::StorageProvider;
use serde_json::Value;
use std::time::UNIX_EPOCH;

use super::*;
use crate::mls::state::State;

const KNOWN_KEYS: &str =
    include_str!("../../../compat-grpc/tests/vectors/session-0.6.3/mls-known-keys-member.json");

/// The key packages in the vectors end a year after 2026-11-20; openmls judges that by the
/// system's clock.
fn are_valid() -> bool {
    SystemTime::now() < UNIX_EPOCH + Duration::from_secs(1_826_600_000)
}

fn bytes(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().expect("hex");
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
    (0..hex.len()).step_by(2).map(byte).collect()
}

/// Carol with the keys of the vectors.
fn carol(vectors: &Value) -> OpenMls {
    let carol = &vectors["member"];
    let keys = carol["openmls_0_9_signature_key_pair_json"].clone();
    let signer: SignatureKeyPair = serde_json::from_value(keys).expect("a key pair");
    let bundle = carol["openmls_0_9_key_package_bundle_json"].clone();
    let bundle: KeyPackageBundle = serde_json::from_value(bundle).expect("a key package");
    let mut state = State { signer: Some(Arc::new(signer)), ..State::default() };
    let reference = bundle.key_package().hash_ref(state.provider.crypto()).expect("a hash");
    state.provider.storage().write_key_package(&reference, &bundle).expect("memory");
    state.package = Some(bytes(&carol["key_package_mls_message_hex"]).into());
    let name = carol["credential_identity_utf8"].as_str().expect("a text");
    OpenMls::with_state(identity(name), state)
}

#[track_caller]
fn is_expected(carol: &OpenMls, expect: &Value) {
    assert_eq!(Some(carol.epoch()), expect["epoch"].as_u64());
    let authenticator = carol.epoch_authenticator().expect("a group");
    assert_eq!(authenticator, bytes(&expect["epoch_authenticator"]));
    let members = expect["members"].as_array().expect("members").iter();
    let members: Vec<_> =
        members.map(|member| member["cred"].as_str().expect("a text").to_owned()).collect();
    assert_eq!(carol.members(), members);
    assert_eq!(carol.is_member(), expect["still_member"].as_bool().unwrap_or(true));
}

#[test]
fn a_member_follows_what_0_6_3_sent_to_the_byte() {
    let vectors: Value = serde_json::from_str(KNOWN_KEYS).expect("JSON");
    let mut carol = carol(&vectors);
    for step in vectors["steps"].as_array().expect("steps") {
        let (message, expect) = (bytes(&step["mls_message_hex"]), &step["expect"]);
        match step["step"].as_str() {
            Some("join") => {
                carol.join(&message, now()).expect("a welcome for carol");
                assert_eq!(carol.group_id().expect("a group"), bytes(&expect["group_id"]));
                is_expected(&carol, expect);
            }
            Some("commit") if are_valid() => {
                carol.apply(&message, now()).expect("the moderator's commit");
                is_expected(&carol, expect);
            }
            Some("commit") => {
                assert!(wrong(carol.apply(&message, now())).contains("valid now"));
                return;
            }
            Some("application") => {
                let opened = carol.decrypt(&message).expect("a member's");
                assert_eq!(opened.plaintext, bytes(&expect["plaintext_hex"]));
                assert!(carol.decrypt(&message).is_err(), "a replay");
            }
            other => panic!("step {other:?}"),
        }
    }
}

#[test]
fn key_packages_of_0_6_3_are_added_while_they_are_valid() {
    let captured = include_str!(
        "../../../compat-grpc/tests/vectors/session-0.6.3/group-mls-with-openmls-moderator.jsonl"
    );
    let mut moderator = member("moderator");
    moderator.create(now()).expect("it has a credential");
    let mut added = 0;
    for line in captured.lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let message = line["hex"].as_str().expect("hex");
        if line["decoded"]["message_type"] != "CHANNEL_JOIN_REPLY"
            || line["direction"] != "app->node"
        {
            continue;
        }
        let at = message.find("0001000500010001").expect("a key package");
        let length = line["decoded"]["payload_len"].as_u64().expect("a length") as usize;
        let package = bytes(&message[at..at + 2 * length].into());
        let early = Now { wall: UNIX_EPOCH + Duration::from_secs(1_790_000_000), ..now() };
        assert!(matches!(
            moderator.add(&package, early),
            Err(MlsError::NotYetValid { .. } | MlsError::Wrong { .. })
        ));
        if are_valid() {
            moderator.add(&package, now()).expect("a valid key package");
            assert_eq!(moderator.add(&package, now()), Err(MlsError::Duplicate));
            added += 1;
        } else {
            assert!(wrong(moderator.add(&package, now())).contains("valid now"));
        }
    }
    assert!(!are_valid() || added == 2, "added {added}");
}
