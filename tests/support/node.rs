use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::metrics::{Metrics, get};
use super::{eventually, say};

/// The program under test with these arguments, and nothing of this process's environment that
/// it reads.
pub(crate) fn slim(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slim"));
    command.args(arguments).env_remove("CONFIG");
    command
}

/// Lines of a pipe, as far as they have come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lines(Arc<Mutex<(Vec<String>, End)>>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum End {
    #[default]
    Open,
    Closed,
}

impl Lines {
    fn follow(pipe: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let sink = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                sink.lock().0.push(line);
            }
            sink.lock().1 = End::Closed;
        });
        lines
    }

    fn lock(&self) -> MutexGuard<'_, (Vec<String>, End)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing more will come.
    fn is_closed(&self) -> bool {
        self.lock().1 == End::Closed
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.lock().0.clone()
    }

    /// The first line that contains `part`.
    pub(crate) fn find(&self, part: &str) -> Option<String> {
        self.all().into_iter().find(|line| line.contains(part))
    }

    pub(crate) fn count(&self, part: &str) -> usize {
        self.all().iter().filter(|line| line.contains(part)).count()
    }
}

/// A process of the program, killed when it is dropped.
pub(crate) struct Program {
    child: Child,
    pub(crate) stdout: Lines,
    pub(crate) stderr: Lines,
}

impl Program {
    pub(crate) fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::null());
        Self::start(command)
    }

    /// A process, and what it reads.
    pub(crate) fn spawn_with_input(mut command: Command) -> (Self, ChildStdin) {
        command.stdin(Stdio::piped());
        let mut program = Self::start(command);
        let input = program.child.stdin.take().expect("piped");
        (program, input)
    }

    fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stdout = Lines::follow(child.stdout.take().expect("piped"));
        let stderr = Lines::follow(child.stderr.take().expect("piped"));
        Self { child, stdout, stderr }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the process is there");
    }

    /// The exit code, once the process has ended by itself and all that it printed is there.
    pub(crate) async fn exit(&mut self) -> Option<i32> {
        let status = eventually("the process ends", async || {
            let status = self.child.try_wait().expect("a child")?;
            (self.stdout.is_closed() && self.stderr.is_closed()).then_some(status)
        })
        .await;
        status.code()
    }

    /// The first line on standard output that contains `part`, once it is there.
    pub(crate) async fn line(&self, part: &str) -> String {
        eventually(part, async || {
            let closed = self.stdout.is_closed();
            let found = self.stdout.find(part);
            assert!(
                found.is_some() || !closed,
                "ended before {part:?}: {:#?} {:#?}",
                self.stdout.all(),
                self.stderr.all()
            );
            found
        })
        .await
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let mut log = String::new();
            for line in self.stdout.all().iter().chain(&self.stderr.all()) {
                let _ = writeln!(log, "    {line}");
            }
            say(&format!("output of the process:\n{log}"));
        }
    }
}

/// A server without TLS on any free port.
pub(crate) const PLAIN: &str = r#"endpoint: "127.0.0.1:0", tls: { insecure: true }"#;

/// A configuration with one server; `top` holds further top-level keys, `server` the keys of the
/// server, comma-separated.
pub(crate) fn config(top: &str, server: &str) -> String {
    format!(
        "admin: \"127.0.0.1:0\"\n{top}\nservices:\n  slim/0:\n    dataplane:\n      \
         servers: [{{ {server} }}]\n"
    )
}

/// A text in a file of its own, which goes with it.
pub(crate) struct ConfigFile {
    folder: TempDir,
}

impl ConfigFile {
    pub(crate) fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = Self { folder };
        std::fs::File::create(file.path())
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .expect("the file is written");
        file
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("slim.yaml")
    }

    pub(crate) fn text(&self) -> String {
        self.path().to_str().expect("UTF-8").to_owned()
    }
}

/// A running node.
pub(crate) struct Node {
    pub(crate) program: Program,
    /// Where its first data-plane server listens.
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Node {
    /// A node without TLS; `top` holds top-level keys of its configuration.
    pub(crate) async fn start(top: &str) -> Self {
        Self::launch(&config(top, PLAIN)).await
    }

    /// A node with a whole configuration.
    pub(crate) async fn launch(text: &str) -> Self {
        let file = ConfigFile::new(text);
        // The file is read before the first line is logged, and not needed after that.
        Self::ready(Program::spawn(slim(&["--config", &file.text()]))).await
    }

    /// The node of a process, once it says where it listens.
    pub(crate) async fn ready(program: Program) -> Self {
        let admin = program.line("admin ready: ").await;
        let plane = program.line("data plane ready: gRPC on ").await;
        Self {
            address: address_after(&plane, "gRPC on "),
            admin: address_after(&admin, "http://"),
            program,
        }
    }

    /// Where its data-plane servers listen, in the order of the configuration.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let lines = self.program.stdout.all();
        let planes = lines.iter().filter(|line| line.contains("data plane ready: gRPC on "));
        planes.map(|line| address_after(line, "gRPC on ")).collect()
    }

    pub(crate) async fn metrics(&self) -> Metrics {
        let (status, text) = get(self.admin, "/metrics").await;
        assert_eq!(status, 200, "{text}");
        Metrics::parse(&text)
    }

    /// The metrics, once they are as `accepted` wants them.
    pub(crate) async fn until(
        &self,
        what: &str,
        mut accepted: impl FnMut(&Metrics) -> bool,
    ) -> Metrics {
        eventually(what, async || {
            let metrics = self.metrics().await;
            accepted(&metrics).then_some(metrics)
        })
        .await
    }

    /// The metrics, once every message is accounted for; their sums are those of the reference.
    pub(crate) async fn balanced(&self) -> Metrics {
        self.until("the sums of the metrics hold", Metrics::is_balanced).await
    }

    pub(crate) async fn assert_alive(&self) {
        assert_eq!(get(self.admin, "/livez").await.0, 200);
    }

    /// Resident memory in KiB.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.program.pid()))
            .expect("the process's status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let amount = line.expect("VmRSS").trim().trim_end_matches(" kB");
        amount.parse().expect("a number")
    }
}

fn address_after(line: &str, marker: &str) -> SocketAddr {
    let (_, rest) = line.split_once(marker).expect("the marker");
    let end = rest.find(['/', ' ', ',']).unwrap_or(rest.len());
    rest[..end].parse().expect("an address")
}

/// An address whose port is free in TCP and UDP.
pub(crate) fn free_address() -> SocketAddr {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = tcp.local_addr().expect("bound");
        if UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}
