//! Unmodified published clients, from the Python package of release 0.6, against this node.
//!
//! Needs `python3` and its package index. Where they are not to be had the tests say SKIPPED and
//! why on standard error, whatever the test runner captures.

mod support;

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use support::node::{ConfigFile, Node, Program, config, slim};
use support::say;

const PACKAGE: &str = "slim-bindings==0.6.3";

/// The interpreter of an environment that has the package.
static PYTHON: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(PACKAGE.replace("==", "-"));
    let python = folder.join("bin/python");
    let has_package = || run(Command::new(&python).args(["-c", "import slim_bindings"]));
    if has_package().is_ok() {
        return Ok(python);
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", PACKAGE]))?;
    has_package().map(|()| python)
});

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr);
    let last = told.lines().last().unwrap_or_default();
    Err(format!("{command:?}: {}: {last}", output.status))
}

/// The interpreter, unless it cannot be had; then `test` is skipped, and says so.
fn python(test: &str) -> Option<&'static Path> {
    match &*PYTHON {
        Ok(python) => Some(python),
        Err(reason) => {
            say(&format!("SKIPPED {test}: {reason}"));
            None
        }
    }
}

/// An application in a process of its own.
struct Peer {
    program: Program,
    input: ChildStdin,
}

impl Peer {
    async fn start(python: &Path, node: SocketAddr, name: &str, role: &[&str]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/peer.py");
        let mut command = Command::new(python);
        let endpoint = format!("http://{node}");
        command.arg(script).args([&endpoint, name]).args(role);
        let (program, input) = Program::spawn_with_input(command);
        program.line("ready").await;
        Self { program, input }
    }

    fn publish(&mut self, text: &str) {
        writeln!(self.input, "{text}").expect("the application reads");
    }

    fn got(&self, text: &str) -> usize {
        let line = format!("got {text}");
        let lines = self.program.stdout.all();
        lines.iter().filter(|got| **got == line).count()
    }
}

/// Asks until it is true, for as long as published clients take at worst.
async fn wait(limit: Duration, mut check: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !check() {
        if Instant::now() > deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    true
}

/// Publishes a text again and again until all have got one: members of release 0.6 are not told
/// when the others are ready, nor when a connection is there again.
async fn reach(from: &mut Peer, to: &[&Peer], what: &str) {
    for attempt in 1..=60 {
        let text = format!("{what} {attempt}");
        from.publish(&text);
        let heard = || to.iter().all(|peer| peer.got(&text) > 0);
        if wait(Duration::from_secs(1), heard).await {
            return;
        }
    }
    panic!("{what} never arrived");
}

/// A single message, which everyone gets once.
async fn deliver(from: &mut Peer, to: &[&Peer], text: &str) {
    from.publish(text);
    let heard = || to.iter().all(|peer| peer.got(text) > 0);
    assert!(wait(Duration::from_secs(30), heard).await, "{text}");
}

#[tokio::test]
async fn a_moderator_and_two_members_hold_an_encrypted_group() {
    let Some(python) = python("a_moderator_and_two_members_hold_an_encrypted_group") else {
        return;
    };
    let node = Node::start("").await;
    let names = ["agntcy/ns/client-1", "agntcy/ns/client-2"];
    let mut one = Peer::start(python, node.address, names[0], &["listen"]).await;
    let mut two = Peer::start(python, node.address, names[1], &["listen"]).await;
    let role = ["moderate", "agntcy/ns/chat", names[0], names[1]];
    let mut moderator = Peer::start(python, node.address, "agntcy/ns/moderator", &role).await;
    for peer in [&one, &two, &moderator] {
        peer.program.line("in session").await;
    }
    reach(&mut moderator, &[&one, &two], "welcome").await;
    for number in 0..20 {
        let text = |who: &str| format!("{number} of {who}");
        deliver(&mut moderator, &[&one, &two], &text("moderator")).await;
        deliver(&mut one, &[&moderator, &two], &text("one")).await;
        deliver(&mut two, &[&moderator, &one], &text("two")).await;
    }
    for number in 0..20 {
        for (who, others) in
            [("moderator", [&one, &two]), ("one", [&moderator, &two]), ("two", [&moderator, &one])]
        {
            for other in others {
                assert_eq!(other.got(&format!("{number} of {who}")), 1);
            }
        }
    }
    drop((moderator, one, two));
    node.until("all links are gone", |metrics| {
        metrics.sum("slim_links") == 0 && metrics.sum("slim_subscriptions") == 0
    })
    .await;
    let metrics = node.balanced().await;
    assert_eq!(metrics.sum("slim_messages_refused_total"), 0);
    assert_eq!(metrics.sum("slim_deliveries_dropped_total"), 0);
}

#[tokio::test]
async fn a_point_to_point_session_is_answered() {
    let Some(python) = python("a_point_to_point_session_is_answered") else {
        return;
    };
    let node = Node::start("").await;
    let echo = Peer::start(python, node.address, "agntcy/ns/echo", &["echo"]).await;
    let role = ["call", "agntcy/ns/echo"];
    let mut caller = Peer::start(python, node.address, "agntcy/ns/caller", &role).await;
    caller.program.line("in session").await;
    for number in 0..20 {
        let text = format!("request {number}");
        caller.publish(&text);
        let answer = format!("echo of {text}");
        let answered = || caller.got(&answer) > 0;
        assert!(wait(Duration::from_secs(30), answered).await, "{answer}");
    }
    for number in 0..20 {
        assert_eq!(echo.got(&format!("request {number}")), 1);
        assert_eq!(caller.got(&format!("echo of request {number}")), 1);
    }
    drop((caller, echo));
    let metrics = node.balanced().await;
    assert_eq!(metrics.sum("slim_messages_refused_total"), 0);
}

#[tokio::test]
async fn clients_come_back_after_the_node_was_restarted() {
    let Some(python) = python("clients_come_back_after_the_node_was_restarted") else {
        return;
    };
    let mut node = Node::start("").await;
    let address = node.address;
    let server = format!("endpoint: \"{address}\", tls: {{ insecure: true }}");
    let file = ConfigFile::new(&config("", &server));
    let echo = Peer::start(python, address, "agntcy/ns/echo", &["echo"]).await;
    let role = ["call", "agntcy/ns/echo"];
    let mut caller = Peer::start(python, address, "agntcy/ns/caller", &role).await;
    reach(&mut caller, &[&echo], "before").await;
    for (signal, code, what) in
        [(Signal::TERM, Some(0), "after a stop"), (Signal::KILL, None, "after a crash")]
    {
        node.program.signal(signal);
        assert_eq!(node.program.exit().await, code);
        node = Node::ready(Program::spawn(slim(&["--config", &file.text()]))).await;
        node.until("both are back", |metrics| {
            metrics.sum("slim_links") == 2 && metrics.sum("slim_subscriptions") >= 2
        })
        .await;
        // The session goes on where it was.
        reach(&mut caller, &[&echo], what).await;
    }
    node.balanced().await;
}
