//! Applications of the published Python package, each in a process of its own.
//!
//! Needs `python3` and its package index. Where they are not to be had the tests say SKIPPED and
//! why on standard error, whatever the test runner captures.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use super::node::Program;
use super::say;

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
pub(crate) fn python(test: &str) -> Option<&'static Path> {
    match &*PYTHON {
        Ok(python) => Some(python),
        Err(reason) => {
            say(&format!("SKIPPED {test}: {reason}"));
            None
        }
    }
}

/// An application in a process of its own.
pub(crate) struct Peer {
    pub(crate) program: Program,
    input: ChildStdin,
}

impl Peer {
    pub(crate) async fn start(python: &Path, node: SocketAddr, name: &str, role: &[&str]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/peer.py");
        let mut command = Command::new(python);
        let endpoint = format!("http://{node}");
        command.arg(script).args([&endpoint, name]).args(role);
        let (program, input) = Program::spawn_with_input(command);
        program.line("ready").await;
        Self { program, input }
    }

    pub(crate) fn publish(&mut self, text: &str) {
        writeln!(self.input, "{text}").expect("the application reads");
    }

    pub(crate) fn got(&self, text: &str) -> usize {
        let line = format!("got {text}");
        let lines = self.program.stdout.all();
        lines.iter().filter(|got| **got == line).count()
    }
}

/// Asks until it is true, for as long as published clients take at worst.
pub(crate) async fn wait(limit: Duration, mut check: impl FnMut() -> bool) -> bool {
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
pub(crate) async fn reach(from: &mut Peer, to: &[&Peer], what: &str) {
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
pub(crate) async fn deliver(from: &mut Peer, to: &[&Peer], text: &str) {
    from.publish(text);
    let heard = || to.iter().all(|peer| peer.got(text) > 0);
    assert!(wait(Duration::from_secs(30), heard).await, "{text}");
}
