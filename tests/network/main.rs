//! Networks of nodes with groups of published members spread over them, by tests/clients/network.py:
//! small numbers of what it does at length.

#[path = "../support/mod.rs"]
mod support;

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use support::published::published_release;
use support::say;

/// Runs a scenario, and gives its result; `None` if the published package cannot be had.
///
/// # Panics
/// If it finds a fault, with all that it told.
fn play(test: &str, scenario: &str, options: &[&str]) -> Option<Value> {
    published_release(test, "0.6.3")?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    let mut command = Command::new("python3");
    command.arg(folder.join("network.py")).args(["--scenario", scenario]).args(options);
    command.args(["--slim", env!("CARGO_BIN_EXE_slim")]);
    command.args(["--controller", env!("CARGO_BIN_EXE_slim-controller")]);
    command.args(["--slimctl", env!("CARGO_BIN_EXE_slimctl")]);
    let output = command.output().expect("python3, which was there before");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (found, told) = (text(&output.stdout), text(&output.stderr));
    // The seed is among it.
    say(&told);
    assert!(output.status.success(), "{}\n{found}\n{told}", output.status);
    let mut results: Value = serde_json::from_str(&found).expect("JSON");
    Some(results[scenario].take())
}

/// Whether each of so many members got all that so many others published.
fn all_heard_all(result: &Value, members: u64, messages: u64) {
    let found = result["members"].as_object().expect("an object");
    assert_eq!(found.len() as u64, members, "{result}");
    for counts in found.values() {
        assert_eq!(counts["received"], messages * (members - 1), "{counts}");
        assert_eq!((&counts["lost"], &counts["duplicated"]), (&0.into(), &0.into()), "{counts}");
    }
}

#[test]
fn a_group_over_nodes_that_only_the_controller_joins_hears_everything_once() {
    let test = "a_group_over_nodes_that_only_the_controller_joins";
    let options = ["--nodes", "2", "--members", "2", "--messages", "50", "--rate", "20"];
    if let Some(result) = play(test, "managed", &options) {
        all_heard_all(&result, 4, 50);
    }
}

#[test]
fn a_group_over_nodes_that_are_peers_hears_everything_once() {
    let test = "a_group_over_nodes_that_are_peers";
    let options = ["--nodes", "3", "--members", "1", "--messages", "50", "--rate", "20"];
    if let Some(result) = play(test, "peers", &options) {
        all_heard_all(&result, 3, 50);
    }
}

/// How long a gap may be depends on the machine, and is not judged here.
const ANY_GAP: &str = "600";

#[test]
fn nothing_acknowledged_is_lost_when_the_controller_and_nodes_are_killed() {
    let test = "nothing_acknowledged_is_lost_when_the_controller_and_nodes_are_killed";
    let options = ["--nodes", "3", "--kills", "1", "--quiet", "3", "--gap", ANY_GAP];
    if let Some(result) = play(test, "kills", &options) {
        assert_eq!(result["kills"], 4, "{result}");
        assert!(result["changes"]["acknowledged"].as_u64() > Some(5), "{result}");
        assert!(result["traffic"]["sent"].as_u64() > Some(100), "{result}");
    }
}

#[test]
fn a_node_of_a_mesh_is_back_after_each_kill() {
    let test = "a_node_of_a_mesh_is_back_after_each_kill";
    let options = ["--nodes", "3", "--kills", "2", "--quiet", "3", "--gap", ANY_GAP];
    if let Some(result) = play(test, "flaps", &options) {
        assert_eq!(result["kills"], 2, "{result}");
        assert!(result["traffic"]["sent"].as_u64() > Some(100), "{result}");
    }
}
