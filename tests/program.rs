//! The program from its command line to its exit code.

mod support;

use std::path::{Path, PathBuf};
use std::process::Output;

use rustix::process::Signal;
use slim_quic::node::METRICS;
use tokio::io::AsyncWriteExt;

use support::metrics::get;
use support::node::{ConfigFile, Node, PLAIN, Program, config, slim};
use support::raw::read_to_end;

/// The lines that scripts in the wild wait for, in their documented order.
const START_LINES: [&str; 7] = [
    " slim: Runtime started",
    " slim: Starting service: slim/0",
    " slim_service::service: starting service",
    " slim_service::service: starting server 127.0.0.1:0",
    " slim_service::service: server configured: setting it up config=",
    " slim_config::grpc::server: running service",
    " slim: service started",
];

fn output(arguments: &[&str]) -> Output {
    slim(arguments).output().expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples")
}

fn example(name: &str) -> String {
    std::fs::read_to_string(examples().join(name)).expect("an example")
}

#[track_caller]
fn assert_in_order(lines: &[String], parts: &[&str]) {
    let mut rest = lines.iter();
    for part in parts {
        assert!(rest.any(|line| line.contains(part)), "{part:?} in its place of {lines:#?}");
    }
}

#[tokio::test]
async fn a_node_without_a_file_prints_the_documented_lines_and_where_every_listener_is() {
    let mut node = Node::ready(Program::spawn(slim(&["--listen", "127.0.0.1:0"]))).await;
    assert_ne!(node.address.port(), 0);
    assert_ne!(node.admin.port(), 0);
    let lines = node.program.stdout.all();
    assert_in_order(&lines, &START_LINES);
    for line in &lines {
        assert!(!line.contains('\u{1b}'), "no colours in a pipe: {line}");
        assert!(line.contains(" INFO "), "no warning on loopback: {line}");
    }
    node.program.signal(Signal::TERM);
    assert_eq!(node.program.exit().await, Some(0));
    assert_in_order(
        &node.program.stdout.all(),
        &[
            "slim::signal: received signal SIGTERM, starting shutdown",
            "slim: Received shutdown signal",
            "stopping service",
            "shutting down server",
            "stopped",
        ],
    );
    assert_eq!(node.program.stderr.all(), Vec::<String>::new());
}

#[test]
fn the_version_has_four_lines_of_a_name_a_tab_and_a_value() {
    for flag in ["-v", "--version"] {
        let mut command = slim(&[flag]);
        // A container sets it for the usual start; it has no part in this.
        command.env("CONFIG", "/nowhere/slim.yaml");
        let output = command.output().expect("the program runs");
        assert_eq!(output.status.code(), Some(0), "{flag}");
        let printed = text(&output.stdout);
        let lines: Vec<_> =
            printed.lines().map(|line| line.split_once('\t').expect("a tab")).collect();
        let names: Vec<_> = lines.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["Version:", "Build Date:", "Git SHA:", "Profile:"]);
        assert!(lines.iter().all(|(_, value)| !value.is_empty()), "{printed}");
        assert_eq!(lines[0].1, env!("CARGO_PKG_VERSION"));
    }
}

#[test]
fn config_check_accepts_every_example_whose_files_are_there() {
    let mut count = 0;
    for entry in examples().read_dir().expect("the folder") {
        let path = entry.expect("an entry").path();
        let file = path.to_str().expect("UTF-8");
        if file.contains("/controller-") {
            continue;
        }
        let output = output(&["config", "check", file]);
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        count += 1;
        // Certificates are the reader's, and named as what is missing.
        let missing = match path.file_name().and_then(|name| name.to_str()) {
            Some("auth.yaml" | "hardened.yaml" | "tls.yaml") => {
                Some("servers[0].tls: cert_file /etc/slim/server.crt")
            }
            Some("reference.yaml") => Some("clients[0].tls: cert_file /etc/slim/client.crt"),
            _ => None,
        };
        if let Some(missing) = missing {
            assert_eq!(output.status.code(), Some(3), "{stdout}{stderr}");
            assert!(stderr.contains(missing), "{stderr}");
            continue;
        }
        assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
        assert!(stdout.ends_with(&format!("{file}: valid\n")), "{stdout}");
        assert_eq!(stderr, "");
        let tutorial = file.ends_with("tutorial-0.5.yaml") || file.ends_with("tutorial-0.6.yaml");
        if tutorial {
            assert_eq!(stdout.lines().count(), 1, "no warning: {stdout}");
        }
        if file.ends_with("hardened.yaml") {
            let policy = format!("{file}: profile hardened, policy enforce with 4 rules\n");
            assert!(stdout.contains(&policy), "{stdout}");
        }
    }
    assert!(count >= 6, "{count}");
}

#[test]
fn config_check_looks_at_what_the_node_is_managed_by_too_and_binds_nothing() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address");
    let client = "clients: [{ endpoint: \"http://127.0.0.1:1\", tls: { insecure: true } }]";
    let at = "services.slim/0.controller";
    for (controller, missing) in [
        (
            "clients: [{ endpoint: \"https://127.0.0.1:1\", tls: { ca_file: /nowhere/a } }]".into(),
            Some("clients[0].tls: ca_file /nowhere/a"),
        ),
        (
            "clients: [{ endpoint: \"http://127.0.0.1:1\", tls: { insecure: true }, \
             auth: { static_jwt: { file: /nowhere/b } } }]"
                .into(),
            Some("clients[0].auth: "),
        ),
        (
            format!(
                "servers: [{{ endpoint: \"{address}\", \
                 tls: {{ cert_file: /nowhere/c, key_file: /nowhere/d }} }}]"
            ),
            Some("servers[0].tls: cert_file /nowhere/c"),
        ),
        (
            format!("{client}, token_provider: {{ static_jwt: {{ file: /nowhere/e }} }}"),
            Some("token_provider: "),
        ),
        (
            format!(
                "{client}, servers: [{{ endpoint: \"{address}\", tls: {{ insecure: true }} }}], \
                 token_provider: {{ shared_secret: secret }}"
            ),
            None,
        ),
    ] {
        let text = format!("{}    controller: {{ {controller} }}\n", config("", PLAIN));
        let output = output(&["config", "check", &ConfigFile::new(&text).text()]);
        let stderr = self::text(&output.stderr);
        let expected = if missing.is_some() { 3 } else { 0 };
        assert_eq!(output.status.code(), Some(expected), "{text}{stderr}");
        if let Some(missing) = missing {
            assert!(stderr.contains(&format!("{at}.{missing}")), "{stderr}");
        }
    }
}

const MISSPELT: &str = r#"runtme: {}
limits:
  links: 0
services:
  slim/0:
    dataplane:
      servers:
        - endpoit: "127.0.0.1:0"
          tls:
            insecur: true
"#;

#[test]
fn a_misspelt_file_is_reported_with_place_key_and_nearest_key_all_at_once() {
    let file = ConfigFile::new(MISSPELT);
    let path = file.text();
    for arguments in [&["config", "check", &path][..], &["--config", &path]] {
        let output = output(arguments);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}");
        assert_eq!(text(&output.stdout), "");
        let report = text(&output.stderr);
        let server = "services.slim/0.dataplane.servers[0]";
        for (place, key, hint) in [
            ("1:1", "runtme".to_owned(), "did you mean `runtime`"),
            ("3:10", "limits.links".to_owned(), ""),
            ("8:11", format!("{server}.endpoit"), "did you mean `endpoint`"),
            ("10:13", format!("{server}.tls.insecur"), "did you mean `insecure`"),
        ] {
            let start = format!("{path}:{place}: {key}: ");
            let (_, after) =
                report.split_once(&start).unwrap_or_else(|| panic!("{start} in {report}"));
            let finding = after.split(&path).next().expect("a finding");
            assert!(finding.contains(hint), "{finding}");
        }
    }
}

#[test]
fn wrong_command_lines_and_files_have_their_own_exit_codes() {
    for arguments in [
        &["--no-such-flag"][..],
        &["--listen", "localhost"],
        &["--listen", "127.0.0.1:0", "--config", "slim.yaml"],
        &["config", "check"],
        &["no-such-command"],
    ] {
        let output = output(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(text(&output.stdout), "", "{arguments:?}");
        assert!(text(&output.stderr).contains("try '--help'"), "{arguments:?}");
    }
    for arguments in
        [&["--config", "/nowhere/slim.yaml"][..], &["config", "check", "/nowhere/slim.yaml"]]
    {
        let output = output(arguments);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}");
        assert!(text(&output.stderr).contains("/nowhere/slim.yaml: "));
    }
    let help = text(&output(&["--help"]).stdout);
    assert!(help.contains("Exit codes: 0 stopped cleanly, 1 did not start"), "{help}");
}

#[tokio::test]
async fn a_port_in_use_ends_the_program_with_a_hint() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address");
    let plane = format!("endpoint: \"{address}\", tls: {{ insecure: true }}");
    let admin = config("", PLAIN).replacen("127.0.0.1:0", &address.to_string(), 1);
    for (text, hint) in [
        (config("", &plane), "another process listens there"),
        (admin, "set `admin` to another IP:port, or to `none`"),
    ] {
        let file = ConfigFile::new(&text);
        let mut program = Program::spawn(slim(&["--config", &file.text()]));
        assert_eq!(program.exit().await, Some(1), "{text}");
        let line = program.line("failed to start service").await;
        assert!(line.contains(" ERROR "), "{line}");
        assert!(line.contains(&format!("listen on {address}: ")), "{line}");
        assert!(line.contains(hint), "{line}");
        assert!(program.stdout.find("data plane ready").is_none());
    }
}

#[tokio::test]
async fn the_documented_tutorials_start_a_node() {
    for name in ["tutorial-0.5.yaml", "tutorial-0.6.yaml"] {
        let documented = example(name);
        assert_eq!(documented.matches("0.0.0.0:46357").count(), 1, "{name}");
        let free = documented.replace("0.0.0.0:46357", "127.0.0.1:0");
        let node = Node::launch(&format!("admin: \"127.0.0.1:0\"\n{free}")).await;
        let lines = node.program.stdout.all();
        assert_in_order(&lines, &START_LINES);
        assert_eq!(node.program.stdout.count(" WARN "), 0, "{lines:#?}");
        let numbered = |line: &String| line.contains("ThreadId(");
        assert!(lines.iter().all(numbered), "display_thread_ids: {lines:#?}");
        assert_eq!(get(node.admin, "/readyz").await.0, 200);
    }
}

#[tokio::test]
async fn the_environment_names_the_file_and_the_command_line_goes_before_it() {
    let file = ConfigFile::new(&config("", PLAIN).replace("slim/0", "slim/from-environment"));
    let mut command = slim(&[]);
    command.env("CONFIG", file.path());
    let node = Node::ready(Program::spawn(command)).await;
    let named = "Starting service: slim/from-environment";
    assert_eq!(node.program.stdout.count(named), 1);

    let other = ConfigFile::new(&config("", PLAIN).replace("slim/0", "slim/from-argument"));
    let mut command = slim(&["--config", &other.text()]);
    command.env("CONFIG", file.path());
    let node = Node::ready(Program::spawn(command)).await;
    let named = "Starting service: slim/from-argument";
    assert_eq!(node.program.stdout.count(named), 1);
}

#[tokio::test]
async fn the_admin_endpoint_answers_and_shows_every_metric_of_the_reference() {
    let node = Node::start("").await;
    assert_eq!(get(node.admin, "/livez").await, (200, "alive\n".into()));
    assert_eq!(get(node.admin, "/readyz").await, (200, "ready\n".into()));
    assert_eq!(get(node.admin, "/elsewhere").await.0, 404);
    let (status, exposition) = get(node.admin, "/metrics").await;
    assert_eq!(status, 200);
    assert!(exposition.ends_with("# EOF\n"), "{exposition}");
    for metric in METRICS {
        let family = metric.name.trim_end_matches("_total");
        let kind = format!("# TYPE {family} {}\n", metric.kind);
        assert!(exposition.contains(&kind), "{kind} in {exposition}");
        let help = format!("# HELP {family} {}", metric.help);
        assert!(exposition.contains(&help), "{help} in {exposition}");
        let named: Vec<_> = metric.labels.split(", ").filter(|l| !l.is_empty()).collect();
        for sample in node.metrics().await.named(metric.name) {
            let labels: Vec<_> = sample.labels.keys().map(String::as_str).collect();
            assert_eq!(labels, named, "{}", metric.name);
            assert_eq!(sample.value, 0, "a node that has done nothing: {sample:?}");
        }
    }
    let metrics = node.metrics().await;
    for sample in &metrics.0 {
        let known = METRICS.iter().any(|metric| metric.name == sample.name);
        assert!(known, "{} is in no reference", sample.name);
    }
}

#[tokio::test]
async fn connections_are_spread_over_all_cores() {
    const CONNECTIONS: u64 = 200;
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    let top = format!("tracing: {{ display_thread_ids: true }}\nruntime: {{ n_cores: {cores} }}");
    let node = Node::start(&top).await;
    for _ in 0..CONNECTIONS {
        let mut stream = tokio::net::TcpStream::connect(node.address).await.expect("accepted");
        stream.write_all(&[0; 100]).await.expect("sent");
        read_to_end(&mut stream).await;
    }
    node.until("all are served", |metrics| metrics.incidents("not_http2") == CONNECTIONS).await;
    // Each core writes the first line of its own.
    let lines = node.program.stdout.all();
    let served = lines.iter().filter(|line| line.contains("not valid HTTP/2"));
    let thread = |line: &String| {
        let (_, id) = line.split_once("ThreadId(").expect("a thread id");
        id.split(')').next().map(ToOwned::to_owned)
    };
    let threads: std::collections::HashSet<_> = served.map(thread).collect();
    assert_eq!(threads.len(), cores, "{lines:#?}");
}
