//! Tokens that published apps sent, from the captures of release 0.6.3.

use serde_json::Value;

/// The tokens of the messages in one file of captures, each as often as it was sent.
pub(super) fn tokens(file: &str) -> Vec<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/compat-grpc/tests/vectors/session-0.6.3");
    let text = std::fs::read_to_string(format!("{folder}/{file}")).expect("a file of captures");
    let tokens = text.lines().filter_map(|line| {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let token = &line["decoded"]["metadata"]["SLIM_IDENTITY"];
        token.as_str().map(str::to_owned)
    });
    let tokens: Vec<_> = tokens.collect();
    assert!(!tokens.is_empty(), "{file}");
    tokens
}
