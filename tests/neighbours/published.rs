//! Published clients of all releases, on two nodes that exchange names.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::mesh;
use crate::support::published::{Peer, deliver, published_release, python, reach, wait};

#[tokio::test]
async fn an_encrypted_group_of_0_6_has_members_on_two_nodes_without_any_route() {
    let Some(python) = python("an_encrypted_group_of_0_6_has_members_on_two_nodes") else {
        return;
    };
    let [here, there] = mesh::<2>(false, "").await;
    let (channel, names) = ("agntcy/ns/chat", ["agntcy/ns/client-1", "agntcy/ns/client-2"]);
    let mut one = Peer::start(python, there.address, names[0], &["listen"]).await;
    let mut two = Peer::start(python, here.address, names[1], &["listen"]).await;
    let role = ["moderate", channel, names[0], names[1]];
    let mut moderator = Peer::start(python, here.address, "agntcy/ns/moderator", &role).await;
    for peer in [&one, &two, &moderator] {
        peer.program.line("in session").await;
    }
    reach(&mut moderator, &[&one, &two], "welcome").await;
    for number in 0..10 {
        let text = |who: &str| format!("{number} of {who}");
        deliver(&mut moderator, &[&one, &two], &text("moderator")).await;
        deliver(&mut one, &[&moderator, &two], &text("one")).await;
        deliver(&mut two, &[&moderator, &one], &text("two")).await;
    }
    for number in 0..10 {
        for (who, others) in
            [("moderator", [&one, &two]), ("one", [&moderator, &two]), ("two", [&moderator, &one])]
        {
            for other in others {
                assert_eq!(other.got(&format!("{number} of {who}")), 1, "each once, no echo");
            }
        }
    }
}

#[tokio::test]
async fn initiators_on_two_nodes_find_one_listener_wherever_it_is() {
    let Some(python) = python("initiators_on_two_nodes_find_one_listener") else {
        return;
    };
    let nodes = mesh::<3>(true, "").await;
    let echo = Peer::start(python, nodes[0].address, "agntcy/ns/echo", &["echo"]).await;
    let mut callers = Vec::new();
    for number in 0..6 {
        let (name, node) = (format!("agntcy/ns/caller-{number}"), &nodes[number % 3]);
        let caller = Peer::start(python, node.address, &name, &["call", "agntcy/ns/echo"]).await;
        caller.program.line("in session").await;
        callers.push(caller);
    }
    for (number, caller) in callers.iter_mut().enumerate() {
        let text = format!("request {number}");
        caller.publish(&text);
        let answer = format!("echo of {text}");
        assert!(wait(Duration::from_secs(30), || caller.got(&answer) == 1).await, "{answer}");
        assert_eq!(echo.got(&text), 1);
    }
}

const FAMILIES: [&str; 4] = ["0.5.0", "0.6.3", "1.4.1", "3.3.8"];

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_each_family_talk_across_two_nodes() {
    let test = "clients_of_each_family_talk_across_two_nodes";
    if FAMILIES.iter().any(|release| published_release(test, release).is_none()) {
        return;
    }
    let nodes = mesh::<2>(true, "").await;
    let endpoints = format!("http://{},http://{}", nodes[0].address, nodes[1].address);
    let soak = tokio::task::spawn_blocking(move || {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
        let releases = FAMILIES.join(",");
        let mut command = Command::new("python3");
        command.arg(folder.join("soak.py"));
        command.args(["--versions", &releases, "--endpoint", &endpoints, "--same-names"]);
        command.args(["--clients", "4", "--group", "3", "--seconds", "12", "--rate", "5"]);
        command.output().expect("python3, which was there before")
    });
    let output = soak.await.expect("it ran");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    let output = text(&output.stdout);
    let counts = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let counts: Vec<Value> = counts.collect();
    assert_eq!(counts.len(), FAMILIES.len());
    for counts in counts {
        assert!(counts["received"].as_u64() > Some(50), "{counts}");
        assert_eq!((&counts["lost"], &counts["duplicated"]), (&0.into(), &0.into()), "{counts}");
    }
    for node in &nodes {
        assert_eq!(node.balanced().await.sum("slim_deliveries_dropped_total"), 0);
    }
}
