//! The configuration, read again by a running node when it gets the signal SIGHUP.

mod support;

use rustix::process::Signal;
use slim_quic::client::link::Link;

use support::native::{join, message, receive, send, text};
use support::node::{ConfigFile, Node, Program, slim};
use support::{eventually, in_time};

const READ: &str = "configuration was read again";

/// A node whose file can be written again.
struct Subject {
    node: Node,
    file: ConfigFile,
}

/// A file with one server; `top` holds further top-level keys, `plane` further ones of the data
/// plane.
fn file(top: &str, plane: &str) -> String {
    format!(
        "admin: \"127.0.0.1:0\"\n{top}\nservices:\n  slim/0:\n    dataplane:\n      servers:\n        \
         - endpoint: \"127.0.0.1:0\"\n          tls: {{ insecure: true }}\n{plane}"
    )
}

impl Subject {
    async fn start(text: &str) -> Self {
        let file = ConfigFile::new(text);
        let node = Node::ready(Program::spawn(slim(&["--config", &file.text()]))).await;
        Self { node, file }
    }

    /// Writes the file and sends the signal; returns the lines from the signal on, once one of
    /// them contains `last`.
    async fn reload(&self, text: &str, last: &str) -> Vec<String> {
        let new = self.file.path().with_extension("new");
        std::fs::write(&new, text).expect("written");
        std::fs::rename(new, self.file.path()).expect("renamed");
        let before = self.node.program.stdout.all().len();
        self.node.program.signal(Signal::HUP);
        eventually(last, async || {
            let lines = self.node.program.stdout.all().split_off(before);
            lines.iter().any(|line| line.contains(last)).then_some(lines)
        })
        .await
    }

    async fn count(&self, result: &str) -> u64 {
        self.node.metrics().await.with("slim_config_reloads_total", "result", result)
    }
}

/// What lines say of single keys, in their order.
fn verdicts(lines: &[String]) -> Vec<&str> {
    let told = lines.iter().filter_map(|line| line.split_once(" slim: ").map(|(_, told)| told));
    told.filter(|told| told.ends_with(": applied") || told.ends_with(": needs a restart")).collect()
}

async fn subscribed(link: &Link, name: &str) -> bool {
    in_time("an answer", link.subscribe(&text(name))).await.is_ok()
}

#[tokio::test]
async fn what_can_be_applied_is_and_what_needs_a_restart_is_named_until_it_is_taken_back() {
    let old = file("tracing: { log_level: info }", "");
    let subject = Subject::start(&old).await;
    let new = file(
        "tracing: { log_level: error, display_thread_ids: true }\n\
         limits: { subscriptions_per_link: 2, subscriptions_per_node: 9, links: 5, \
         stalled_ms: 30000 }\n\
         runtime: { drain_timeout: 3s }",
        "          max_concurrent_streams: 7\n",
    );
    let new = new.replace("127.0.0.1:0\"\n          tls", "127.0.0.1:1\"\n          tls");
    let expected = [
        "tracing.log_level: applied",
        "runtime.drain_timeout: applied",
        "limits.subscriptions_per_link: applied",
        "limits.subscriptions_per_node: applied",
        "limits.stalled_ms: applied",
        "tracing.display_thread_ids: needs a restart",
        "services.slim/0.dataplane.servers[0].endpoint: needs a restart",
        "services.slim/0.dataplane.servers[0].max_concurrent_streams: needs a restart",
        "limits.links: needs a restart",
    ];
    let lines = subject.reload(&new, READ).await;
    assert!(lines[0].contains("slim::signal: received signal SIGHUP"), "{lines:#?}");
    let mut told = verdicts(&lines);
    told.sort_unstable();
    let mut sorted = expected;
    sorted.sort_unstable();
    assert_eq!(told, sorted);
    let summary = lines.last().expect("a line");
    assert!(summary.contains("applied=5 needs_restart=4"), "{summary}");

    // The log is at `error` now; nothing but what was there before is written.
    let before = subject.node.program.stdout.all().len();
    let link = join(&subject.node, &["org/ns/one/1", "org/ns/two/2"]).await;
    assert!(!subscribed(&link, "org/ns/three/3").await, "two are the limit");
    subject.node.program.signal(Signal::HUP);
    eventually("it was read again", async || (subject.count("taken").await == 2).then_some(()))
        .await;
    assert_eq!(subject.node.program.stdout.all().len(), before);

    // Louder again: what still needs a restart is said again.
    let louder = new.replace("log_level: error", "log_level: info");
    let lines = subject.reload(&louder, READ).await;
    let told = verdicts(&lines);
    assert_eq!(told[0], "tracing.log_level: applied");
    assert_eq!(told.iter().filter(|told| told.ends_with("restart")).count(), 4, "{told:#?}");

    let lines = subject.reload(&old, READ).await;
    let told = verdicts(&lines);
    assert!(told.len() == 4 && told.iter().all(|told| told.ends_with("applied")), "{told:#?}");
    assert!(subscribed(&link, "org/ns/three/3").await);
    let same =
        format!("# in other words\n{}", old.replace("{ log_level: info }", "\n  log_level: info"));
    let lines = subject.reload(&same, READ).await;
    assert_eq!(verdicts(&lines), Vec::<&str>::new());
    assert_eq!(subject.count("taken").await, 5);
}

#[tokio::test]
async fn a_wrong_file_changes_nothing_and_is_reported_like_at_the_start() {
    let good = file("policy: { mode: open }", "");
    let subject = Subject::start(&good).await;
    let link = join(&subject.node, &["org/ns/one/1"]).await;
    let refused = "policy:\n  mode: enforce\n  rules: [{ principal: anyone, subscribe: [a/b/c] }]";
    let path = subject.file.text();
    let misspelt = file(refused, "").replace("endpoint:", "endpoit:");
    let secured = file(refused, "")
        .replace("insecure: true", "cert_file: /nowhere/server.crt, key_file: /nowhere/server.key");
    let wrong = [
        (
            misspelt,
            vec![format!("{path}:9:11: services.slim/0.dataplane.servers[0].endpoit: unknown key")],
        ),
        (secured, vec!["servers[0].tls: cert_file /nowhere/server.crt".to_owned()]),
        (
            file("", "")
                + "    controller: { clients: [{ endpoint: \"https://127.0.0.1:1\", tls: \
                            { ca_file: /nowhere/ca.crt } }] }\n",
            vec!["services.slim/0.controller.clients[0].tls: ca_file /nowhere/ca.crt".to_owned()],
        ),
        ("admin: [".to_owned(), vec![format!("{path}:"), "not valid YAML".to_owned()]),
    ];
    for (count, (text, told)) in (1..).zip(wrong) {
        let last = told.last().expect("a text").clone();
        let lines = subject.reload(&text, &last).await;
        for part in told {
            assert!(lines.iter().any(|line| line.contains(&part)), "{part} in {lines:#?}");
        }
        let all = "the configuration cannot be used, all stays as it is";
        assert!(lines.iter().any(|line| line.contains(" ERROR ") && line.contains(all)));
        eventually("counted", async || (subject.count("refused").await == count).then_some(()))
            .await;
        assert!(subscribed(&link, &format!("org/ns/more/{count}")).await, "it is not refused");
    }
    std::fs::remove_file(subject.file.path()).expect("removed");
    subject.node.program.signal(Signal::HUP);
    eventually("counted", async || (subject.count("refused").await == 5).then_some(())).await;
    let lines = subject.reload(&file(refused, ""), READ).await;
    let told = verdicts(&lines);
    assert!(told.iter().all(|told| told.starts_with("policy.")) && !told.is_empty(), "{told:#?}");
    assert_eq!(subject.count("taken").await, 1);
}

#[tokio::test]
async fn a_node_without_a_file_says_so_and_goes_on() {
    let node = Node::ready(Program::spawn(slim(&["--listen", "127.0.0.1:0"]))).await;
    node.program.signal(Signal::HUP);
    let line = node.program.line("there is none to read again").await;
    assert!(line.contains(" WARN "), "{line}");
    node.assert_alive().await;
}

#[tokio::test]
async fn another_policy_is_that_of_links_that_are_open_already() {
    const REFUSED: &str = "slim_policy_violations_total";
    let subject = Subject::start(&file("", "")).await;
    let receiver = join(&subject.node, &["org/ns/one/1", "org/ns/two/2"]).await;
    let sender = join(&subject.node, &["org/ns/sender/9"]).await;
    let ask = async |to: &str| {
        send(&sender, &message("org/ns/sender/9", to, to.to_owned())).await;
    };
    for name in ["org/ns/one/1", "org/ns/two/2"] {
        ask(name).await;
        assert_eq!(receive(&receiver).await.payload, name);
    }
    let rules = "policy:\n  mode: enforce\n  rules:\n    \
                 - { principal: anyone, subscribe: [org/ns/two], publish: [org/ns/sender] }";
    let lines = subject.reload(&file(rules, ""), READ).await;
    let ended = lines.iter().find(|line| line.contains("does not allow any more"));
    assert!(ended.is_some_and(|line| line.contains("ended=2")), "{lines:#?}");
    assert_eq!(subject.node.metrics().await.sum("slim_subscriptions"), 1);
    ask("org/ns/one/1").await;
    ask("org/ns/two/2").await;
    assert_eq!(receive(&receiver).await.payload, "org/ns/two/2");
    let metrics = subject.node.balanced().await;
    assert_eq!(metrics.sum("slim_messages_unmatched_total"), 1);
    assert!(!subscribed(&receiver, "org/ns/three/3").await);
    assert_eq!(subject.node.metrics().await.sum(REFUSED), 1);

    subject.reload(&file("", ""), READ).await;
    assert!(subscribed(&receiver, "org/ns/three/3").await);
    ask("org/ns/three/3").await;
    assert_eq!(receive(&receiver).await.payload, "org/ns/three/3");
}

#[tokio::test]
async fn of_another_profile_the_policy_is_applied_and_the_rest_needs_a_restart() {
    let subject = Subject::start(&file("", "")).await;
    let link = join(&subject.node, &["org/ns/one/1"]).await;
    let lines = subject.reload(&file("profile: hardened", ""), READ).await;
    assert_eq!(verdicts(&lines), ["policy: applied", "profile: needs a restart"]);
    assert!(!subscribed(&link, "org/ns/two/2").await, "no rule allows it");
    let rules = "profile: hardened\npolicy: { mode: observe, rules: [] }";
    let lines = subject.reload(&file(rules, ""), READ).await;
    let mut told = verdicts(&lines);
    told.sort_unstable();
    assert_eq!(told, ["policy.mode: applied", "policy.rules: applied", "profile: needs a restart"]);
    assert!(subscribed(&link, "org/ns/two/2").await);
}

#[tokio::test]
async fn a_service_that_is_no_longer_in_the_file_stays_until_a_restart() {
    let plane = "  slim/1:\n    dataplane:\n      servers: [{ endpoint: \"127.0.0.1:0\", tls: { \
                 insecure: true } }]\n      clients: [{ endpoint: \"quic://127.0.0.1:1\", tls: { \
                 insecure_skip_verify: true } }]\n      routes: [{ name: org/ns/far/1, via: \
                 \"quic://127.0.0.1:1\" }]\n";
    let subject = Subject::start(&file("", plane)).await;
    let lines = subject.reload(&file("", ""), READ).await;
    let lists = ["servers", "clients", "routes"];
    let waiting = lists.map(|list| format!("services.slim/1.dataplane.{list}: needs a restart"));
    assert_eq!(verdicts(&lines), waiting);
}

#[tokio::test]
async fn routes_change_while_the_link_stays_and_other_links_need_a_restart() {
    let far = Node::start("").await;
    let endpoint = format!("quic://{}", far.address);
    let client = |endpoint: &str| {
        format!(
            "      clients: [{{ endpoint: \"{endpoint}\", tls: {{ insecure_skip_verify: true }} }}]\n"
        )
    };
    let route =
        |endpoint: &str| format!("      routes: [{{ name: org/ns/far/1, via: \"{endpoint}\" }}]\n");
    let without = file("", &client(&endpoint));
    let with = file("", &(client(&endpoint) + &route(&endpoint)));
    let subject = Subject::start(&without).await;
    subject.node.program.line("linked to another node").await;
    let receiver = join(&far, &["org/ns/far/1"]).await;
    let sender = join(&subject.node, &["org/ns/near/2"]).await;
    let ask = async || send(&sender, &message("org/ns/near/2", "org/ns/far/1", "hello")).await;
    ask().await;
    let unmatched = async |count| {
        let what = "it is unmatched";
        let is = |metrics: &_| {
            support::metrics::Metrics::sum(metrics, "slim_messages_unmatched_total") == count
        };
        subject.node.until(what, is).await
    };
    unmatched(1).await;

    let lines = subject.reload(&with, READ).await;
    assert_eq!(verdicts(&lines), ["services.slim/0.dataplane.routes: applied"]);
    eventually("the route is there", async || {
        ask().await;
        let before = subject.node.metrics().await.sum("slim_messages_matched_total");
        (before > 0).then_some(())
    })
    .await;
    assert_eq!(receive(&receiver).await.payload, "hello");

    let other = "quic://127.0.0.1:1";
    let lines = subject.reload(&file("", &(client(other) + &route(other))), READ).await;
    let mut told = verdicts(&lines);
    told.sort_unstable();
    let plane = "services.slim/0.dataplane";
    let waiting = [
        format!("{plane}.clients[0].endpoint: needs a restart"),
        format!("{plane}.routes: needs a restart"),
    ];
    assert_eq!(told, waiting);
    let matched = subject.node.metrics().await.sum("slim_messages_matched_total");
    ask().await;
    let more = |metrics: &support::metrics::Metrics| {
        metrics.sum("slim_messages_matched_total") == matched + 1
    };
    subject.node.until("what runs is what was", more).await;
    assert_eq!(subject.node.program.stdout.count("linked to another node"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_signal_after_the_other_under_traffic_loses_nothing() {
    const SIGNALS: u64 = 40;
    let tops = [
        "policy: { mode: enforce, rules: [{ principal: anyone, subscribe: [\"org/*\"] }] }",
        "limits: { stalled_ms: 20000, slow_consumer_ms: 900 }\npolicy: { mode: observe, \
         rules: [{ principal: anyone, subscribe: [\"org/*\"] }] }",
        "tracing: { log_level: debug }",
        "no_such_key: 1",
    ];
    let subject = Subject::start(&file("", "")).await;
    let (from, to) = (
        join(&subject.node, &["org/ns/one/1"]).await,
        join(&subject.node, &["org/ns/two/2"]).await,
    );
    let stop = std::sync::atomic::AtomicBool::new(false);
    let traffic = async {
        let mut sent = 0_u64;
        while !stop.load(std::sync::atomic::Ordering::Relaxed) || sent < 1000 {
            send(&from, &message("org/ns/one/1", "org/ns/two/2", sent.to_string())).await;
            sent += 1;
            assert_eq!(receive(&to).await.payload, (sent - 1).to_string());
        }
        sent
    };
    let signals = async {
        for (signal, top) in (1..=SIGNALS).zip(tops.iter().cycle()) {
            std::fs::write(subject.file.path(), file(top, "")).expect("written");
            subject.node.program.signal(Signal::HUP);
            eventually("it is read", async || {
                let metrics = subject.node.metrics().await;
                (metrics.sum("slim_config_reloads_total") == signal).then_some(())
            })
            .await;
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    let (sent, ()) = tokio::join!(traffic, signals);
    let metrics = subject.node.balanced().await;
    assert_eq!(metrics.sum("slim_messages_matched_total"), sent);
    assert_eq!(metrics.sum("slim_deliveries_dropped_total"), 0);
    assert_eq!(metrics.sum("slim_policy_violations_total"), 0);
    assert_eq!([subject.count("taken").await, subject.count("refused").await], [30, 10]);
}
