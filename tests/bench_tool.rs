//! `slimctl bench` against a real node, and through the relays that only move bytes.

mod support;

use std::path::Path;
use std::process::{Command, Output};

use rustix::process::Signal;
use serde_json::Value;
use support::eventually;
use support::node::{Node, Program, config};

fn slimctl(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slimctl"));
    command.args(arguments);
    command
}

/// Runs a command to its end beside the test, which may be waiting for something else.
async fn output(mut command: Command) -> Output {
    let run = tokio::task::spawn_blocking(move || command.output());
    run.await.expect("no panic").expect("the program runs")
}

/// The result of a command that succeeds, as JSON.
async fn result(arguments: &[&str]) -> Value {
    let output = output(slimctl(arguments)).await;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {errors}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The node over each of the protocols that it serves, as arguments.
fn servers(node: &Node) -> [Vec<String>; 2] {
    let url = |scheme: &str| ["--server".into(), format!("{scheme}://{}", node.address)];
    let any = "--danger-accept-any-certificate".into();
    [url("grpc").into(), [&url("quic")[..], &[any]].concat()]
}

/// `bench` with these arguments, as a command line.
fn bench<'a>(command: &'a str, server: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    let server = server.iter().map(String::as_str);
    ["bench", command].into_iter().chain(server).chain(more.iter().copied()).collect()
}

#[track_caller]
fn assert_received(result: &Value, messages: u64, size: u64) {
    assert_eq!(result["messages"], messages, "{result}");
    assert_eq!(result["bytes"], messages * size, "{result}");
    assert_eq!((&result["lost"], &result["out_of_order"]), (&0.into(), &0.into()), "{result}");
    let latency = |name: &str| result["latency_us"][name].as_f64().expect(name);
    let rising = ["min", "p50", "p90", "p99", "p99_9", "p99_99", "max"].map(latency);
    assert!(rising[0] > 0.0 && rising.is_sorted(), "{rising:?}");
}

/// A percentile distribution of so many messages.
fn assert_distribution(file: &Path, messages: u64) {
    let text = std::fs::read_to_string(file).expect("a distribution");
    let rows: Vec<Vec<f64>> = text
        .lines()
        .skip(1)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_whitespace().map(|cell| cell.parse().expect(cell)).collect())
        .collect();
    let last = rows.last().expect("rows");
    assert_eq!((last[1], last[2]), (1.0, messages as f64), "{text}");
    assert!(rows.is_sorted_by(|a, b| a[0] <= b[0] && a[1] <= b[1]), "{text}");
}

#[tokio::test]
async fn both_ends_in_one_process_see_every_message() {
    let node = Node::start("").await;
    for server in servers(&node) {
        let run = async |more: &[&str]| {
            let load = ["--count", "300", "-o", "json"];
            result(&bench("pub", &server, &[&load[..], more].concat())).await
        };
        assert_received(&run(&["--subscribers", "1", "--size", "16"]).await, 300, 16);
        let many = run(&["--subscribers", "3", "--publishers", "2", "--size", "20000"]).await;
        assert_received(&many, 2 * 3 * 300, 20_000);
        assert_eq!(many["sent"], 600);
        let paced = run(&["--subscribers", "1", "--rate", "3000"]).await;
        assert_received(&paced, 300, 64);
        // The last of 300 is due 299 intervals after the first, and none is sent before it is due.
        assert!(paced["seconds"].as_f64().expect("a number") >= 299.0 / 3000.0, "{paced}");
    }
    node.balanced().await;
}

#[tokio::test]
async fn publishers_and_subscribers_of_two_processes_meet() {
    let node = Node::start("").await;
    let folder = tempfile::tempdir().expect("a folder");
    let hgrm = folder.path().join("latency.hgrm");
    let file = hgrm.to_str().expect("UTF-8");
    for server in servers(&node) {
        let many = ["--topic", "two processes", "--publishers", "2", "-o", "json"];
        let both = ["--subscribers", "2", "--hgrm", file];
        let arguments = bench("sub", &server, &[&many[..], &both[..]].concat());
        let mut subscribers = Program::spawn(slimctl(&arguments));
        eventually("subscribers are ready", async || subscribers.stderr.find("ready at")).await;

        let load = ["--fanout", "2", "--count", "100"];
        let sent = result(&bench("pub", &server, &[&many[..], &load[..]].concat())).await;
        assert_eq!((&sent["messages"], &sent["sent"]), (&200.into(), &200.into()));
        assert_eq!((&sent["lost"], &sent["latency_us"]), (&Value::Null, &Value::Null));

        assert_eq!(subscribers.exit().await, Some(0));
        let received = subscribers.stdout.all().join("\n");
        assert_received(&serde_json::from_str(&received).expect("JSON"), 400, 64);
        assert_distribution(&hgrm, 400);
    }
}

#[tokio::test]
async fn subscribers_end_after_as_many_messages_as_they_are_told() {
    let node = Node::start("").await;
    for server in servers(&node) {
        let arguments = bench("sub", &server, &["--count", "20", "-o", "json"]);
        let mut subscriber = Program::spawn(slimctl(&arguments));
        eventually("the subscriber is ready", async || subscriber.stderr.find("ready at")).await;
        result(&bench("pub", &server, &["--count", "50", "-o", "json"])).await;
        assert_eq!(subscriber.exit().await, Some(0));
        let received = subscriber.stdout.all().join("\n");
        assert_received(&serde_json::from_str(&received).expect("JSON"), 20, 64);
    }
}

#[tokio::test]
async fn round_trips_are_measured_and_drawn() {
    let node = Node::start("").await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let (hgrm, svg) = (file("latency.hgrm"), file("latency.svg"));
    for server in servers(&node) {
        let load = ["--publishers", "2", "--count", "50", "--hgrm", &hgrm, "--svg", &svg];
        let arguments = bench("rtt", &server, &[&load[..], &["-o", "json"]].concat());
        assert_received(&result(&arguments).await, 100, 64);
        assert_distribution(Path::new(&hgrm), 100);
        let svg = std::fs::read_to_string(&svg).expect("a picture");
        assert!(svg.starts_with("<svg") && svg.contains("<polyline"), "{svg}");
    }
}

#[tokio::test]
async fn a_native_node_is_known_by_its_certificate() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let (certificate, key) = (file("node.crt"), file("node.key"));
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("certified");
    std::fs::write(&certificate, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let tls = format!("tls: {{ cert_file: \"{certificate}\", key_file: \"{key}\" }}");
    let server = format!("endpoint: \"127.0.0.1:0\", {tls}, quic: {{ mtu: 65000 }}");
    let node = Node::launch(&config("", &server)).await;

    let server = ["--server".to_owned(), format!("quic://{}", node.address)];
    let load = ["--subscribers", "1", "--count", "300", "--size", "20000", "-o", "json"];
    let known = ["--ca", &certificate, "--mtu", "65000"];
    let known = result(&bench("pub", &server, &[&load[..], &known[..]].concat())).await;
    assert_received(&known, 300, 20_000);
    let stranger = output(slimctl(&bench("pub", &server, &load))).await;
    let errors = String::from_utf8(stranger.stderr).expect("text");
    assert_eq!(stranger.status.code(), Some(2), "{errors}");
    assert!(
        errors.contains("is not trusted") && errors.contains("hint: name the authority with --ca")
    );
}

#[tokio::test]
async fn floors_move_every_message_and_say_what_it_costs() {
    for floor in ["udp", "tcp", "tls", "quic"] {
        let arguments = ["bench", "floor", floor, "--count", "300", "-o", "json"];
        for (size, load) in [(64, ["--window", "100"]), (16_384, ["--rate", "3000"])] {
            let size_text = size.to_string();
            let load = [&arguments[..], &["--size", &size_text], &load[..]].concat();
            let floor = result(&load).await;
            assert_received(&floor, 300, size);
            assert!(floor["relay_cpu_ns_per_message"].as_f64().expect("a number") > 0.0);
        }
    }
}

#[tokio::test]
async fn a_command_that_cannot_be_done_says_whose_fault_it_is_and_what_to_do() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let nobody = format!("grpc://{}", closed.local_addr().expect("bound"));
    drop(closed);
    let cases = [
        (vec!["pub", "--size", "15"], 2, "--size: expected 16 to "),
        (vec!["pub", "--rate", "0"], 2, "--rate: expected more than 0"),
        (vec!["rtt", "--server", "127.0.0.1"], 2, "--server: expected grpc://HOST:PORT"),
        (vec!["rtt", "--mtu", "1500"], 2, "--server: expected quic://"),
        (vec!["sub", "--ca", "a", "--danger-accept-any-certificate"], 2, "cannot be used with"),
        (vec!["sub", "--server", "quic://127.0.0.1:1", "--ca", "/no/file"], 2, "/no/file"),
        (vec!["sub", "--subscribers", "0"], 2, "--subscribers: expected at least 1"),
        (vec!["pub", "--rate", "5", "--window", "5"], 2, "cannot be used with"),
        (vec!["pub", "--server", &nobody, "--count", "1"], 1, "onnection refused"),
    ];
    for (arguments, code, part) in cases {
        let output = output(slimctl(&[vec!["bench"], arguments.clone()].concat())).await;
        let errors = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        assert!(errors.contains(part), "{arguments:?}: {errors}");
        assert!(errors.contains("hint: ") || errors.contains("--help"), "{errors}");
        assert!(output.stdout.is_empty());
    }
}

#[tokio::test]
async fn a_node_that_goes_ends_the_run() {
    for protocol in 0..2 {
        let node = Node::start("").await;
        let server = &servers(&node)[protocol];
        let load = ["--subscribers", "1", "--rate", "100"];
        let mut run = Program::spawn(slimctl(&bench("pub", server, &load)));
        let received = "slim_messages_received_total";
        node.until("messages come", |metrics| metrics.sum(received) > 5).await;
        node.program.signal(Signal::TERM);
        assert_eq!(run.exit().await, Some(1));
        assert!(run.stderr.find("hint: ").is_some());
    }
}

#[test]
fn the_version_is_that_of_the_node() {
    let version = slimctl(&["version"]).output().expect("the program runs");
    let node = support::node::slim(&["--version"]).output().expect("the program runs");
    assert!(version.status.success() && !version.stdout.is_empty());
    assert_eq!(version.stdout, node.stdout);
}
