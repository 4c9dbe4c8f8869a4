//! What programs export to a collector of OpenTelemetry, and that they do without it.

mod collector;
#[path = "../support/mod.rs"]
mod support;

use std::io::Write;
use std::net::TcpListener;
use std::process::Output;

use opentelemetry::trace::TraceContextExt;
use rustix::process::Signal;
use slim_quic::client::{App, Config, Identity, LinkOptions, trace_context};
use slim_quic::node::METRICS;
use slim_quic::telemetry::{OpenTelemetry, Telemetry};
use tracing::Instrument;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::layer::SubscriberExt;

use collector::{Collector, Got, attributes};
use support::metrics::Metrics;
use support::native::{join, message, receive, send};
use support::node::{ConfigFile, Node, PLAIN, config, free_address, slim};
use support::pki::Authority;
use support::{eventually, in_time};

/// The top-level keys of a node that exports to an endpoint; `more` holds further keys of `grpc`.
fn exports(endpoint: &str, more: &str) -> String {
    format!(
        "tracing: {{ log_level: info, opentelemetry: {{ enabled: true, \
         grpc: {{ endpoint: \"{endpoint}\", {more} }}, service_name: a-node, \
         service_version: v7, environment: test, metrics_interval_secs: 1 }} }}"
    )
}

fn plain(collector: &Collector) -> String {
    exports(&format!("http://{}", collector.address), "tls: { insecure: true }")
}

/// Messages from one link of the node to another.
async fn talk(node: &Node, messages: usize) {
    let (from, to) = (join(node, &["org/ns/one/1"]).await, join(node, &["org/ns/two/2"]).await);
    for number in 0..messages {
        send(&from, &message("org/ns/one/1", "org/ns/two/2", number.to_string())).await;
        assert_eq!(receive(&to).await.payload, number.to_string());
    }
    for link in [from, to] {
        link.close().await.expect("nothing is lost");
    }
}

/// Whether the last look of the collector shows all that the node shows itself, and no more.
fn agree(got: &Got, node: &Metrics) -> bool {
    let Some(look) = got.metrics.last() else { return false };
    let of_links = |name: &str| {
        METRICS.iter().any(|metric| metric.name == name && metric.labels.starts_with("link"))
    };
    let own: Vec<_> = node.0.iter().filter(|sample| !of_links(&sample.name)).collect();
    look.len() == own.len()
        && own.iter().all(|sample| {
            look.iter().any(|exported| {
                let labels = exported.labels.iter().cloned().collect();
                (&exported.name, exported.value) == (&sample.name, sample.value)
                    && sample.labels == labels
            })
        })
}

#[tokio::test]
async fn a_node_exports_its_logs_its_life_and_the_metrics_that_it_serves() {
    let collector = Collector::start().await;
    let more = "tls: { insecure: true }, headers: { x-tenant: blue }, \
                auth: { basic: { username: node, password: secret } }";
    let endpoint = format!("http://{}", collector.address);
    let mut node = Node::start(&exports(&endpoint, more)).await;
    talk(&node, 100).await;
    node.balanced().await;
    let metrics = node.until("both links are gone", |metrics| metrics.sum("slim_links") == 0).await;
    assert_eq!(metrics.sum("slim_messages_matched_total"), 100);
    collector.until("the same metrics", |got| agree(got, &metrics)).await;

    let got = collector.until("links", |got| got.spans.len() >= 3).await;
    let links: Vec<_> = got.spans.iter().filter(|span| span.name == "link").collect();
    assert_eq!(links.len(), 2);
    for link in links {
        assert!(link.parent_span_id.is_empty(), "a trace of its own");
        let attributes = attributes(&link.attributes);
        let of = |key: &str| attributes.iter().find(|(name, _)| name == key).map(|(_, it)| &**it);
        assert_eq!((of("principal"), of("framing")), (Some("nobody"), Some("Native")));
        assert!(of("peer").is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{attributes:?}");
    }

    node.program.signal(Signal::TERM);
    assert_eq!(node.program.exit().await, Some(0));
    // All is there when the process has ended.
    let got = collector.got();
    let life = got.span("application_lifecycle").expect("the life of the node");
    for name in ["start", "drain"] {
        let span = got.span(name).expect(name);
        assert_eq!(span.parent_span_id, life.span_id, "{name}");
        assert_eq!(span.trace_id, life.trace_id, "{name}");
    }
    for line in ["Runtime started", "data plane ready: gRPC on ", "stopped"] {
        let (target, record) = got.log(line).expect(line);
        assert_eq!((&**target, &*record.severity_text), ("slim", "INFO"), "{line}");
    }
    let (_, stopped) = got.log("received signal SIGTERM").expect("it is exported");
    assert_eq!(stopped.trace_id, life.trace_id, "what is logged belongs to its span");
    let told = node.program.stdout.all();
    assert!(
        told.iter().all(|line| !line.contains("start: ") && !line.contains("WARN")),
        "{told:#?}"
    );

    assert!(got.resources.len() >= 3);
    for resource in &got.resources {
        for (key, value) in [
            ("service.name", "a-node"),
            ("service.version", "v7"),
            ("deployment.environment.name", "test"),
        ] {
            assert!(resource.contains(&(key.into(), value.into())), "{key} in {resource:?}");
        }
        assert!(
            resource.iter().any(|(key, value)| key == "service.instance.id" && value.len() == 32)
        );
    }
    for headers in &got.headers {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        assert_eq!(header("x-tenant"), Some("blue"));
        assert_eq!(header("authorization"), Some("Basic bm9kZTpzZWNyZXQ="));
    }
}

#[tokio::test]
async fn what_an_export_is_made_of_is_not_exported() {
    let collector = Collector::start().await;
    let top = plain(&collector).replace("log_level: info", "log_level: trace");
    let node = Node::start(&top).await;
    talk(&node, 10).await;
    collector.until("what was said before", |got| got.log("data plane ready").is_some()).await;
    // Nothing happens from here on but exports of metrics.
    let quiet = eventually("nothing more is said", async || {
        let before = collector.got();
        let looks = before.metrics.len();
        let after = collector.until("more exports", |got| got.metrics.len() >= looks + 3).await;
        (after.logs.len() == before.logs.len()).then_some(after)
    })
    .await;
    for (target, record) in &quiet.logs {
        let crates = ["h2", "hyper", "opentelemetry", "tonic", "tower", "rustls"];
        let of = crates.into_iter().find(|name| target.starts_with(name));
        assert_eq!(of, None, "{target}: {record:?}");
    }
}

#[tokio::test]
async fn the_level_of_the_log_is_none_of_the_traces() {
    let collector = Collector::start().await;
    let top = plain(&collector).replace("log_level: info", "log_level: warn");
    let file = ConfigFile::new(&config(&top, PLAIN));
    let mut program = support::node::Program::spawn(slim(&["--config", &file.text()]));
    collector.until("metrics", |got| !got.metrics.is_empty()).await;
    program.signal(Signal::TERM);
    assert_eq!(program.exit().await, Some(0));
    assert_eq!(program.stdout.all(), Vec::<String>::new());
    let got = collector.got();
    assert!(got.span("application_lifecycle").is_some());
    assert_eq!(got.logs.len(), 0, "{:?}", got.logs);
}

#[tokio::test]
async fn a_collector_that_is_not_there_is_missed_once_and_found_when_it_comes() {
    let address = free_address();
    let node = Node::start(&exports(&format!("http://{address}"), "tls: { insecure: true }")).await;
    let told = node.program.line("telemetry is not exported").await;
    assert!(told.contains(" WARN ") && told.contains(&address.to_string()), "{told}");
    talk(&node, 50).await;
    let metrics = node.balanced().await;
    let collector = Collector::at(address, None).await;
    let matched = metrics.sum("slim_messages_matched_total");
    collector
        .until("what was counted meanwhile", |got| {
            let last = got.metrics.last().into_iter().flatten();
            let mut last = last.filter(|sample| sample.name == "slim_messages_matched_total");
            last.any(|sample| sample.value == matched)
        })
        .await;
    assert_eq!(node.program.stdout.count("telemetry is not exported"), 1);
}

#[tokio::test]
async fn a_collector_that_stops_answering_delays_neither_messages_nor_the_stop() {
    let collector = Collector::start().await;
    let more = "tls: { insecure: true }, request_timeout: 1s";
    let mut node = Node::start(&exports(&format!("http://{}", collector.address), more)).await;
    collector.until("it began well", |got| !got.metrics.is_empty()).await;
    collector.answer(false);
    talk(&node, 500).await;
    node.program.line("telemetry is not exported").await;
    for _ in 0..20 {
        talk(&node, 20).await;
    }
    let metrics = node.balanced().await;
    assert_eq!(metrics.sum("slim_messages_matched_total"), 900);
    assert_eq!(node.program.stdout.count("telemetry is not exported"), 1);
    node.program.signal(Signal::TERM);
    assert_eq!(node.program.exit().await, Some(0));
    assert_eq!(node.program.stderr.all(), Vec::<String>::new());
}

#[tokio::test]
async fn a_collector_that_says_nothing_or_anything_delays_no_start_and_no_stop() {
    // The system completes the connections; nobody reads what comes on them.
    let mute = TcpListener::bind("127.0.0.1:0").expect("a port");
    let babbler = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoints =
        [&mute, &babbler].map(|it| format!("http://{}", it.local_addr().expect("bound")));
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = babbler.accept() {
            let _ = stream.write_all(&[0x61; 65_536]);
        }
    });
    let ways = ["tls: { insecure: true }", "tls: { insecure_skip_verify: true }"];
    for (endpoint, more) in endpoints.iter().flat_map(|it| ways.map(|way| (it, way))) {
        let mut node = Node::start(&exports(endpoint, more)).await;
        talk(&node, 10).await;
        node.program.signal(Signal::TERM);
        assert_eq!(node.program.exit().await, Some(0), "{more}");
        assert_eq!(node.program.stderr.all(), Vec::<String>::new(), "{more}");
    }
}

#[tokio::test]
async fn a_collector_with_a_certificate_is_trusted_by_its_authority_and_no_other() {
    let (authority, other) = (Authority::new(), Authority::new());
    let collector = Collector::with_tls(authority.issue("node")).await;
    let endpoint = format!("https://{}", collector.address);
    let of = |authority: &Authority| {
        let ca = authority.text("root.crt");
        exports(
            &endpoint,
            &format!("tls: {{ ca_file: {ca}, include_system_ca_certs_pool: false }}"),
        )
    };
    let stranger = Node::start(&of(&other)).await;
    let told = stranger.program.line("telemetry is not exported").await;
    assert!(told.contains("certificate"), "{told}");
    assert_eq!(collector.got().headers.len(), 0);
    let node = Node::start(&of(&authority)).await;
    collector.until("all three", |got| !got.metrics.is_empty() && !got.logs.is_empty()).await;
    assert_eq!(node.program.stdout.count("telemetry is not exported"), 0);
}

#[tokio::test]
async fn a_collector_that_cannot_be_reached_as_configured_is_told_before_the_start() {
    let top = exports("https://127.0.0.1:1", "tls: { ca_file: /nowhere/ca.crt }");
    let file = ConfigFile::new(&config(&top, PLAIN));
    let path = file.text();
    let run = |arguments: &[&str]| -> (Option<i32>, String) {
        let Output { status, stdout, stderr } = slim(arguments).output().expect("it runs");
        (status.code(), String::from_utf8([stdout, stderr].concat()).expect("UTF-8"))
    };
    for (arguments, code) in [(&["config", "check", &path][..], 3), (&["--config", &path], 1)] {
        let (status, told) = run(arguments);
        assert_eq!(status, Some(code), "{told}");
        assert!(told.contains("opentelemetry.grpc.tls: ca_file /nowhere/ca.crt"), "{told}");
        assert!(!told.contains("data plane ready"), "{told}");
    }
    let quic = ConfigFile::new(&config(&exports("quic://127.0.0.1:1", ""), PLAIN));
    let (status, told) = run(&["config", "check", &quic.text()]);
    assert_eq!(status, Some(3), "{told}");
    assert!(told.contains("tracing.opentelemetry.grpc.endpoint: expected `http://"), "{told}");
}

#[tokio::test]
async fn a_controller_exports_what_it_logs() {
    let collector = Collector::start().await;
    let file = ConfigFile::new(&format!(
        "northbound: {{ httpPort: 0 }}\nsouthbound: {{ httpPort: 0 }}\n\
         database: {{ type: in_memory }}\nopentelemetry: {{ enabled: true, grpc: {{ endpoint: \
         \"http://{}\", tls: {{ insecure: true }} }} }}",
        collector.address
    ));
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_slim-controller"));
    command.args(["--config", &file.text()]);
    let mut program = support::node::Program::spawn(command);
    program.line("Northbound API Service is listening on ").await;
    program.signal(Signal::TERM);
    assert_eq!(program.exit().await, Some(0));
    let got = collector.got();
    for line in ["Northbound API Service is listening on ", "Stopped"] {
        assert!(got.log(line).is_some(), "{line}");
    }
    let name = ("service.name".to_owned(), "slim-controller".to_owned());
    assert!(got.resources.iter().all(|resource| resource.contains(&name)));
}

async fn app(node: &Node, name: &str) -> App {
    let identity = Identity::shared_secret(name, "a secret that both share").expect("a secret");
    let app = App::new(&format!("org/ns/{name}").parse().expect("a name"), identity);
    let app = app.expect("an app");
    let way = format!("http://{}", node.address);
    app.connect(&way, LinkOptions::default()).await.expect("the node answers");
    app
}

#[tokio::test]
async fn a_trace_goes_on_from_app_to_app_over_a_message() {
    let (collector, node) = (Collector::start().await, Node::start("").await);
    let mut config = OpenTelemetry { enabled: true, ..OpenTelemetry::default() };
    config.service_name = "an-app".into();
    config.grpc.endpoint.host = collector.address.ip().to_string();
    config.grpc.endpoint.port = collector.address.port();
    let telemetry = Telemetry::start(&config).expect("usable").expect("enabled");
    let subscriber = tracing_subscriber::registry().with(telemetry.layer());
    let _subscribed = tracing::subscriber::set_default(subscriber);

    let (alice, bob) = (app(&node, "alice").await, app(&node, "bob").await);
    let with_bob = Config::point_to_point(&"org/ns/bob".parse().expect("a name"));
    let session = alice.create_session(with_bob.encrypted()).expect("a session");
    let ask = tracing::info_span!("ask");
    session.publish("a question").instrument(ask).await.expect("it is taken");
    let answering = in_time("a session", bob.listen_for_session(None)).await.expect("open");
    let (asked, _) = in_time("a message", answering.get_message()).await.expect("a message");
    let context = trace_context(&asked.metadata);
    assert!(context.span().span_context().is_sampled());
    {
        let answer = tracing::info_span!("answer");
        answer.set_parent(context).expect("it has not begun");
        answer.in_scope(|| tracing::info!("thinking"));
    }
    let answers = telemetry.meter().u64_counter("answers").build();
    answers.add(1, &[]);
    tokio::task::spawn_blocking(|| drop(telemetry)).await.expect("it ends");

    let got = collector.got();
    let (ask, answer) = (got.span("ask").expect("asked"), got.span("answer").expect("answered"));
    assert_eq!(answer.trace_id, ask.trace_id);
    assert_eq!(answer.parent_span_id, ask.span_id);
    let (_, thought) = got.log("thinking").expect("it is exported");
    assert_eq!((&thought.trace_id, &thought.span_id), (&answer.trace_id, &answer.span_id));
    let look = got.metrics.last().expect("a look");
    assert!(look.iter().any(|sample| sample.name == "answers" && sample.value == 1), "{look:?}");
}
