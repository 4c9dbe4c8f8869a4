//! Unmodified published clients of all releases from 0.4 on, through this node.
//!
//! What they do is written in Python, in tests/clients; it prints what failed, and why.

mod support;

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use support::node::{Node, config, free_address};
use support::pki::Authority;
use support::published::{Peer, published_release};
use support::say;

/// Runs a script of tests/clients to its end, and returns its output.
fn run(script: &str, arguments: &[&str], variable: Option<(&str, String)>) -> (bool, String) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    let mut command = Command::new("python3");
    command.arg(folder.join(script)).args(arguments).envs(variable);
    let output = command.output().expect("python3, which was there before");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

/// Every scenario, on a node of its own that some of them restart.
fn scenarios(test: &str, release: &str) {
    if published_release(test, release).is_none() {
        return;
    }
    let endpoint = format!("http://{}", free_address());
    let node = format!("{} --listen {{listen}}", env!("CARGO_BIN_EXE_slim"));
    let arguments = ["--version", release, "--endpoint", &endpoint, "--node-cmd", &node];
    let (passed, output) = run("scenarios_modern.py", &arguments, None);
    assert!(passed, "{output}");
    say(&format!("release {release}: {}", output.lines().last().unwrap_or_default()));
}

#[test]
fn clients_of_1_0_hold_sessions_and_groups() {
    scenarios("clients_of_1_0_hold_sessions_and_groups", "1.0.0");
}

#[test]
fn clients_of_1_4_hold_sessions_and_groups() {
    scenarios("clients_of_1_4_hold_sessions_and_groups", "1.4.1");
}

#[test]
fn clients_of_2_2_hold_sessions_and_groups() {
    scenarios("clients_of_2_2_hold_sessions_and_groups", "2.2.0");
}

#[test]
fn clients_of_3_3_hold_sessions_and_groups() {
    scenarios("clients_of_3_3_hold_sessions_and_groups", "3.3.8");
}

const FAMILIES: [&str; 4] = ["0.5.0", "0.6.3", "1.4.1", "3.3.8"];

/// Clients of all families talk at the same time, under the same names; returns whether they could
/// be had.
async fn talk(test: &str, endpoint: String, authority: Option<String>) -> bool {
    if FAMILIES.iter().any(|release| published_release(test, release).is_none()) {
        return false;
    }
    let soak = tokio::task::spawn_blocking(move || {
        let releases = FAMILIES.join(",");
        let who = ["--versions", &releases, "--endpoint", &endpoint, "--same-names"];
        let traffic = ["--clients", "4", "--group", "3", "--seconds", "12", "--rate", "5"];
        let ca = authority.map(|file| ("SOAK_CA", file));
        run("soak.py", &[&who[..], &traffic[..]].concat(), ca)
    });
    let (passed, output) = soak.await.expect("it ran");
    assert!(passed, "{output}");
    let counts: Vec<Value> =
        output.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    for release in FAMILIES {
        let of = |counts: &&Value| counts["family"] == *release;
        let last = counts.iter().rfind(of).expect("counts of each release");
        assert!(last["received"].as_u64() > Some(50), "{last}");
        assert_eq!((&last["lost"], &last["foreign"]), (&0.into(), &0.into()), "{last}");
    }
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn families_share_a_port_and_never_meet() {
    let node = Node::start("").await;
    let endpoint = format!("http://{}", node.address);
    if talk("families_share_a_port_and_never_meet", endpoint, None).await {
        let metrics = node.balanced().await;
        assert_eq!(metrics.sum("slim_deliveries_dropped_total"), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_each_family_connect_with_tls() {
    let authority = Authority::new();
    let [chain, key, root] =
        ["chain.crt", "server.key", "root.crt"].map(|name| authority.text(name));
    let tls = format!("{{ cert_file: \"{chain}\", key_file: \"{key}\" }}");
    let node = Node::launch(&config("", &format!("endpoint: \"127.0.0.1:0\", tls: {tls}"))).await;
    let endpoint = format!("https://{}", node.address);
    talk("clients_of_each_family_connect_with_tls", endpoint, Some(root)).await;
}

/// Seven initiators of release 0.6, each of which then listens on the listener's name too: none
/// may swallow what finds the listener for the next.
#[tokio::test]
async fn seven_initiators_find_one_listener() {
    let Some(python) = support::published::python("seven_initiators_find_one_listener") else {
        return;
    };
    let node = Node::start("").await;
    let _echo = Peer::start(python, node.address, "agntcy/ns/echo", &["echo"]).await;
    let mut callers = Vec::new();
    for number in 0..7 {
        let name = format!("agntcy/ns/caller-{number}");
        let caller = Peer::start(python, node.address, &name, &["call", "agntcy/ns/echo"]).await;
        caller.program.line("in session").await;
        callers.push(caller);
    }
    for (number, caller) in callers.iter_mut().enumerate() {
        caller.publish(&format!("request {number}"));
        caller.program.line(&format!("got echo of request {number}")).await;
    }
}
