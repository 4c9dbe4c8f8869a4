//! Applications of the published Python package, each in a process of its own.
//!
//! Needs `python3` and its package index. Where they are not to be had the tests say SKIPPED and
//! why on standard error, whatever the test runner captures.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use super::node::Program;
use super::say;

/// The interpreters of environments that have the package.
static LATEST: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| environment("0.6.3"));
static FIRST: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| environment("0.6.0"));

fn environment(version: &str) -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("slim-bindings-{version}"));
    let package = format!("slim-bindings=={version}");
    let python = folder.join("bin/python");
    let has_package = || run(Command::new(&python).args(["-c", "import slim_bindings"]));
    if has_package().is_ok() {
        return Ok(python);
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).arg(package))?;
    has_package().map(|()| python)
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr);
    let last = told.lines().last().unwrap_or_default();
    Err(format!("{command:?}: {}: {last}", output.status))
}

/// An interpreter with the last release 0.6, unless it cannot be had; then `test` is skipped, and
/// says so.
pub(crate) fn python(test: &str) -> Option<&'static Path> {
    found(&LATEST, test)
}

/// The same with the first release 0.6.
pub(crate) fn first_python(test: &str) -> Option<&'static Path> {
    found(&FIRST, test)
}

/// An interpreter with any release from 0.4 on, as the scripts of tests/clients keep them.
pub(crate) fn published_release(test: &str, release: &str) -> Option<PathBuf> {
    kept(test, &format!("python('{release}')"))
}

/// An interpreter with what the documents' calls of a controller are written with.
pub(crate) fn caller_python(test: &str) -> Option<PathBuf> {
    kept(test, "calls()")
}

/// An interpreter of tests/clients/releases.py.
fn kept(test: &str, which: &str) -> Option<PathBuf> {
    let program = format!("import releases; print(releases.{which})");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    let output = Command::new("python3").args(["-c", &program]).current_dir(folder).output();
    let reason = match output {
        Ok(output) if output.status.success() => {
            return Some(String::from_utf8_lossy(&output.stdout).trim().into());
        }
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    let reason = reason.lines().last().unwrap_or_default();
    say(&format!("SKIPPED {test}: {which}: {reason}"));
    None
}

/// A script of the conformance kit, which is beside this checkout or beside the main one; where
/// it is not, `test` is skipped, and says so.
pub(crate) fn conformance_script(test: &str, name: &str) -> Option<PathBuf> {
    let script = format!("../shared/conformance/{name}");
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = here.ancestors().map(|folder| folder.join(&script)).find(|script| script.is_file());
    if found.is_none() {
        say(&format!("SKIPPED {test}: there is no {script}"));
    }
    found
}

fn found(python: &'static Result<PathBuf, String>, test: &str) -> Option<&'static Path> {
    match python {
        Ok(python) => Some(python),
        Err(reason) => {
            say(&format!("SKIPPED {test}: {reason}"));
            None
        }
    }
}

/// A library to be preloaded, built from tests/clients/skip_hour.c.
fn skipping_clock() -> &'static Path {
    static BUILT: LazyLock<PathBuf> = LazyLock::new(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/skip_hour.c");
        let process = std::process::id();
        let library =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("skip_hour-{process}.so"));
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl");
        run(&mut cc).expect("a C compiler, which the project needs anyway");
        library
    });
    &BUILT
}

/// The script of release 0.6.
const PEER: &str = "peer.py";

/// A script of tests/clients.
pub(crate) fn program(python: &Path, script: &str) -> Command {
    let mut command = Command::new(python);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(script));
    command
}

/// An application in a process of its own.
pub(crate) struct Peer {
    pub(crate) program: Program,
    input: ChildStdin,
}

impl Peer {
    pub(crate) async fn start(python: &Path, node: SocketAddr, name: &str, role: &[&str]) -> Self {
        Self::start_with(program(python, PEER), node, name, role).await
    }

    /// One of a release from 1.0 on.
    pub(crate) async fn modern(python: &Path, node: SocketAddr, name: &str, role: &[&str]) -> Self {
        Self::start_with(program(python, "modern.py"), node, name, role).await
    }

    /// One whose clock skips an hour at [`Peer::skip_hour`].
    pub(crate) async fn start_with_clock(
        python: &Path,
        node: SocketAddr,
        name: &str,
        role: &[&str],
    ) -> Self {
        let mut command = program(python, PEER);
        command.env("LD_PRELOAD", skipping_clock());
        Self::start_with(command, node, name, role).await
    }

    /// One whose client block has these keys.
    pub(crate) async fn start_as(
        python: &Path,
        node: SocketAddr,
        name: &str,
        role: &[&str],
        client: &serde_json::Value,
    ) -> Self {
        let peer = Self::spawn_as(python, node, name, role, client);
        peer.program.line("ready").await;
        peer
    }

    /// The same, which may or may not connect.
    pub(crate) fn spawn_as(
        python: &Path,
        node: SocketAddr,
        name: &str,
        role: &[&str],
        client: &serde_json::Value,
    ) -> Self {
        let mut command = program(python, PEER);
        command.env("PEER_CLIENT", client.to_string());
        Self::spawn(command, &format!("https://{node}"), name, role)
    }

    /// An application of the releases 1 to 3 (tests/clients/modern.py) at a node with TLS.
    pub(crate) async fn start_modern(
        python: &Path,
        node: SocketAddr,
        options: &[&str],
        name: &str,
        role: &[&str],
    ) -> Self {
        let mut command = program(python, "modern.py");
        command.args(options);
        let peer = Self::spawn(command, &format!("https://{node}"), name, role);
        peer.program.line("ready").await;
        peer
    }

    async fn start_with(command: Command, node: SocketAddr, name: &str, role: &[&str]) -> Self {
        let peer = Self::spawn(command, &format!("http://{node}"), name, role);
        peer.program.line("ready").await;
        peer
    }

    fn spawn(mut command: Command, endpoint: &str, name: &str, role: &[&str]) -> Self {
        command.args([endpoint, name]).args(role);
        let (program, input) = Program::spawn_with_input(command);
        Self { program, input }
    }

    pub(crate) fn skip_hour(&self) {
        self.program.signal(rustix::process::Signal::USR1);
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

/// The published node, and where it listens.
pub(crate) async fn published_node(python: &Path) -> (Program, String) {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = free.local_addr().expect("an address").to_string();
    drop(free);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/node.py");
    let mut command = Command::new(python);
    command.arg(script).arg(&address);
    let program = Program::spawn(command);
    program.line("listening").await;
    (program, address)
}
