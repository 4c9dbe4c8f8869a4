//! Commands that look into a node, and one that runs it.

use rustix::process::Signal;
use serde_json::Value;

use crate::Home;
use crate::support::client::Client;
use crate::support::metrics::get;
use crate::support::node::{Node, Program, config};

fn admin(node: &Node) -> String {
    format!("http://{}", node.admin)
}

async fn json(home: &Home, arguments: &[&str]) -> Value {
    let output = home.run(&[arguments, &["-o", "json"]].concat()).await.ok();
    serde_json::from_str(&output).expect("JSON")
}

/// The ranks under the first routing space in which the name is known.
fn ranks(explained: &Value) -> Vec<&str> {
    let links = explained["spaces"][0]["links"].as_array().into_iter().flatten();
    links.map(|link| link["rank"].as_str().expect("a rank")).collect()
}

#[tokio::test]
async fn top_shows_every_link_and_what_it_carried() {
    let (home, node) = (Home::new(), Node::start("").await);
    let mut receiver = Client::join(&node, "org/ns/receiver/7").await;
    let sender = Client::connect(&node, "org/ns/sender/1").await;
    for _ in 0..5 {
        sender.publish("org/ns/receiver/7", vec![1; 100]).await;
        receiver.payload().await;
    }
    node.balanced().await;
    let url = admin(&node);
    let table = home.run(&["top", "--admin", &url]).await.ok();
    assert!(table.starts_with("links 2, subscriptions 1, messages queued 0"), "{table}");
    // One more, to nobody, is how the receiver made sure that it has joined.
    assert!(table.contains("received 6 ("), "{table}");
    assert_eq!(table.lines().last(), Some("2 links shown"), "{table}");

    let value = json(&home, &["top", "--admin", &url]).await;
    assert_eq!(value["truncated"], false);
    let links = value["links"].as_array().expect("a list");
    let carried = |key: &str| {
        let mut all: Vec<_> = links.iter().map(|link| link[key].as_u64()).collect();
        all.sort_unstable();
        all
    };
    assert_eq!(carried("received"), [Some(1), Some(5)]);
    assert_eq!(carried("written"), [Some(0), Some(5)]);
    assert!(carried("written_bytes")[1] > Some(500), "{value}");
    let named = links.iter().filter_map(|link| link["name"].as_str());
    assert!(named.into_iter().any(|name| name.contains("org/ns/receiver")), "{value}");

    let one = json(&home, &["top", "--admin", &url, "--limit", "1"]).await;
    assert_eq!((&one["total"], &one["truncated"]), (&2.into(), &true.into()));
    assert_eq!(one["links"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn the_reason_why_a_message_is_delivered_or_not_is_explained() {
    let (home, node) = (Home::new(), Node::start("").await);
    let url = admin(&node);
    let explain = |name: &'static str| {
        let arguments = ["explain", name, "--admin", &url].map(str::to_owned);
        let home = &home;
        async move {
            let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
            (home.run(&arguments).await.ok(), json(home, &arguments).await)
        }
    };
    let (text, value) = explain("org/ns/printer").await;
    assert!(text.starts_with("org/ns/printer is not known: "), "{text}");
    assert_eq!((&value["known"], &value["policy"]["mode"]), (&false.into(), &"open".into()));

    let owner = Client::join(&node, "org/ns/printer/7").await;
    let listener = Client::join(&node, "org/ns/printer").await;
    let (text, value) = explain("org/ns/printer").await;
    assert_eq!(ranks(&value), ["owner", "listener"]);
    assert_eq!(value["spaces"][0]["rule"], "anycast");
    assert_eq!(value["spaces"][0]["to_one"][0], value["spaces"][0]["links"][0]["id"]);
    assert!(text.contains("From clients of releases 0.6 and native ones:"), "{text}");

    let (_, known) = explain("org/ns/printer/7").await;
    assert_eq!(
        (&known["id"], &known["spaces"][0]["rule"]),
        (&"7".into(), &"newest of the id".into())
    );
    assert_eq!(known["spaces"][0]["to_one"][0], value["spaces"][0]["links"][0]["id"]);
    let (text, unknown) = explain("org/ns/printer/8").await;
    assert_eq!(unknown["spaces"][0]["to_one"], Value::Array(Vec::new()));
    assert!(text.contains("to one:  nobody. org/ns/printer/8: the name is known"), "{text}");

    let (text, value) = explain("org/ns/prniter").await;
    assert_eq!(value["nearest"], serde_json::json!(["org/ns/printer"]));
    assert!(text.contains("Did you mean org/ns/printer?"), "{text}");

    owner.leave(&node).await;
    listener.leave(&node).await;
    assert_eq!(explain("org/ns/printer").await.1["known"], false);
}

#[tokio::test]
async fn a_policy_that_stands_in_the_way_is_named() {
    let home = Home::new();
    let policy = "policy:\n  mode: enforce\n  rules:\n    - principal: nobody\n      \
                  subscribe: [org/ns/open]\n      publish: [\"*\"]\n";
    let node = Node::start(policy).await;
    let _client = Client::connect(&node, "org/ns/app/1").await;
    node.until("the link is there", |metrics| metrics.sum("slim_links") == 1).await;
    let url = admin(&node);
    for (name, allowed) in [("org/ns/open", 1), ("org/ns/closed", 0)] {
        let value = json(&home, &["explain", name, "--admin", &url]).await;
        let policy = &value["policy"];
        assert_eq!((&policy["mode"], &policy["links"]), (&"enforce".into(), &1.into()));
        assert_eq!(policy["links_that_may_subscribe"], allowed, "{name}");
        let text = home.run(&["explain", name, "--admin", &url]).await.ok();
        assert!(text.contains(&format!("of 1 links {allowed} may subscribe")), "{text}");
    }
}

#[tokio::test]
async fn wrong_requests_are_refused_and_say_what_is_expected() {
    let (home, node) = (Home::new(), Node::start("").await);
    for path in ["/links?limit=many", "/explain", "/explain?name=", "/explain?name=a/b"] {
        let (status, body) = get(node.admin, path).await;
        assert_eq!(status, 400, "{path}");
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert!(body["error"].as_str().expect("a reason").contains("expected"), "{body}");
    }
    // A parameter may hold any text.
    let (status, body) = get(node.admin, "/explain?name=%C3%B6rg/n%20s/a%26b/7").await;
    let body: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((status, &body["name"], &body["id"]), (200, &"örg/n s/a&b".into(), &"7".into()));

    let url = admin(&node);
    home.run(&["explain", "a/b", "--admin", &url]).await.error(2);
    home.run(&["top", "--admin", "ftp://127.0.0.1:1"]).await.error(2);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let nobody = closed.local_addr().expect("bound").to_string();
    drop(closed);
    let ended = home.run(&["top", "--admin", &nobody]).await;
    assert!(ended.error(1).contains("Connection refused"), "{ended:?}");
}

#[tokio::test]
async fn a_node_runs_in_the_foreground_until_it_is_told_to_stop() {
    let home = Home::new();
    let file =
        home.write("node.yaml", &config("", "endpoint: \"127.0.0.1:0\", tls: { insecure: true }"));
    for arguments in [&["--endpoint", "127.0.0.1:0"][..], &["-c", &file]] {
        let start = home.slimctl(&[&["slim", "start"], arguments].concat());
        let mut node = Node::ready(Program::spawn(start)).await;
        let links = json(&home, &["top", "--admin", &admin(&node)]).await;
        assert_eq!(links["total"], 0);
        node.program.signal(Signal::TERM);
        assert_eq!(node.program.exit().await, Some(0));
    }
    let broken = home.write("broken.yaml", "servces: {}");
    let ended = home.run(&["slim", "start", "--config", &broken]).await;
    assert!(ended.error(2).contains("did you mean `services`"), "{ended:?}");
}
