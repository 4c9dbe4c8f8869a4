//! The programs of the tutorial: controller, node, application, and `slimctl`.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{ChildStdin, Command, Output, Stdio};

use std::io::Write as _;

use serde_json::json;
use tempfile::TempDir;

use crate::support::node::{Node, Program};
use crate::support::published::program;

/// The controller's file, as the tutorial has it.
const CONTROLLER: &str = "\
northbound:
  httpHost: 0.0.0.0
  httpPort: 50051
  logging:
    level: DEBUG
southbound:
  httpHost: 0.0.0.0
  httpPort: 50052
# number of node reconciler threads
reconciler:
  threads: 3
logging:
  level: INFO
";

/// The node's file, likewise.
const NODE: &str = r#"
tracing:
  log_level: info
  display_thread_names: true
  display_thread_ids: true
runtime:
  n_cores: 0
  thread_name: "slim-data-plane"
  drain_timeout: 10s
services:
  slim/0:
    dataplane:
      servers:
        - endpoint: "0.0.0.0:46357"
          tls:
            insecure: true
      clients: []
    controller:
      servers: []
      clients:
        - endpoint: "http://host.docker.internal:50052"
          tls:
            insecure: true
      token_provider:
        shared_secret: "secret"
"#;

/// A running controller, on any free ports.
pub(crate) struct Controller {
    pub(crate) program: Program,
    pub(crate) north: SocketAddr,
    pub(crate) south: SocketAddr,
    /// Where it keeps its data.
    _folder: TempDir,
}

impl Controller {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let text = CONTROLLER.replace("50051", "0").replace("50052", "0");
        let file = folder.path().join("config-controller.yaml");
        std::fs::write(&file, text).expect("the file is written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_slim-controller"));
        command.arg("--config").arg(&file).current_dir(folder.path());
        for host in ["NB_API", "SB_API"] {
            command.env_remove(format!("{host}_HTTP_HOST"));
            command.env_remove(format!("{host}_HTTP_PORT"));
        }
        command.env_remove("API_LOG_LEVEL");
        let program = Program::spawn(command);
        let south = local(&program.line("Southbound API Service is Listening on").await);
        let north = local(&program.line("Northbound API Service is listening on").await);
        Self { program, north, south, _folder: folder }
    }

    /// An operator of it.
    pub(crate) fn operator(&self) -> Operator {
        Operator::of(self.north)
    }
}

/// The address that a line ends with, as it is reached from here.
fn local(line: &str) -> SocketAddr {
    let (_, port) = line.rsplit_once(':').expect("an address");
    SocketAddr::from(([127, 0, 0, 1], port.parse().expect("a port")))
}

/// A node with the tutorial's file, on any free port, under the controller at `south`.
pub(crate) async fn node(id: &str, south: SocketAddr) -> Node {
    let text = NODE
        .replace("slim/0", id)
        .replace("0.0.0.0:46357", "0.0.0.0:0")
        .replace("host.docker.internal:50052", &south.to_string());
    let mut node = Node::launch(&format!("admin: \"127.0.0.1:0\"{text}")).await;
    node.address.set_ip([127, 0, 0, 1].into());
    node.program.line("connected to control plane").await;
    node
}

/// The tutorial's `group` program, with release 0.6.3 of the package.
pub(crate) struct Member {
    pub(crate) program: Program,
    input: ChildStdin,
    pub(crate) name: String,
    pub(crate) instance: u64,
}

impl Member {
    /// One that waits to be invited.
    pub(crate) async fn start(python: &Path, node: &Node, name: &str) -> Self {
        let endpoint = format!("http://localhost:{}", node.address.port());
        let slim = json!({ "endpoint": endpoint, "tls": { "insecure": true } }).to_string();
        let mut command = program(python, "group.py");
        command.args(["--local", name, "--slim", &slim, "--shared-secret", "secret"]);
        let (program, input) = Program::spawn_with_input(command);
        let created = program.line(" Created app").await;
        let (full, _) = created.split_once(' ').expect("a name");
        let (_, instance) = full.rsplit_once('/').expect("an instance");
        let instance = instance.parse().expect("a number");
        program.line("Waiting for session...").await;
        Self { program, input, name: name.to_owned(), instance }
    }

    /// Its name with its instance.
    pub(crate) fn full_name(&self) -> String {
        format!("{}/{}", self.name, self.instance)
    }

    /// Types a line.
    pub(crate) fn types(&mut self, text: &str) {
        writeln!(self.input, "{text}").expect("it reads");
    }

    /// Waits until it shows a message.
    pub(crate) async fn hears(&self, text: &str) {
        self.program.line(&format!(" > {text}")).await;
    }

    /// The messages that it has shown whose text begins so, in their order.
    pub(crate) fn heard(&self, start: &str) -> Vec<String> {
        let lines = self.program.stdout.all().into_iter();
        let texts = lines.filter_map(|line| Some(line.split_once(" > ")?.1.to_owned()));
        texts.filter(|text| text.starts_with(start)).collect()
    }

    /// Waits until the program ends because its session does.
    pub(crate) async fn ends(&mut self) {
        self.program.line("-> Error receiving message").await;
        assert_eq!(self.program.exit().await, Some(0));
    }
}

/// Somebody with `slimctl`.
pub(crate) struct Operator {
    server: String,
    home: TempDir,
}

impl Operator {
    pub(crate) fn of(north: SocketAddr) -> Self {
        Self { server: north.to_string(), home: tempfile::tempdir().expect("a folder") }
    }

    /// Runs the program to its end, with nothing of this process's environment.
    pub(crate) async fn slimctl(&self, arguments: &[&str]) -> Ended {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slimctl"));
        command.args(["--server", &self.server]).args(arguments);
        command.env_clear().env("HOME", self.home.path()).current_dir(self.home.path());
        run(command).await
    }

    /// The name of a new channel.
    pub(crate) async fn create(&self, moderator: &str) -> String {
        let moderators = format!("moderators={moderator}");
        let told = self.slimctl(&["channel", "create", &moderators]).await.ok();
        let channel = told.strip_prefix("Received response: ").expect("the documented words");
        channel.trim_end().to_owned()
    }

    pub(crate) async fn add(&self, channel: &str, participant: &str) -> Ended {
        self.slimctl(&["participant", "add", "-c", channel, participant]).await
    }

    pub(crate) async fn remove(&self, channel: &str, participant: &str) -> Ended {
        self.slimctl(&["participant", "delete", "-c", channel, participant]).await
    }

    pub(crate) async fn delete(&self, channel: &str) -> Ended {
        self.slimctl(&["channel", "delete", channel]).await
    }

    pub(crate) async fn participants(&self, channel: &str) -> String {
        let told = self.slimctl(&["participant", "list", "-c", channel]).await.ok();
        let (_, list) = told.split_once(&format!("channel ID {channel}: ")).expect("a list");
        list.trim_end().to_owned()
    }

    pub(crate) async fn channels(&self) -> String {
        let told = self.slimctl(&["channel", "list"]).await.ok();
        let list = told.strip_prefix("Following channels found: ").expect("a list");
        list.trim_end().to_owned()
    }
}

/// Runs a program to its end, beside those of the test.
pub(crate) async fn run(mut command: Command) -> Ended {
    command.stdin(Stdio::null());
    let run = tokio::task::spawn_blocking(move || command.output());
    run.await.expect("no panic").expect("the program runs").into()
}

/// What a run of a program came to.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        let code = output.status.code().expect("no signal");
        Self { code, stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Ended {
    /// What was printed, of a run that went well.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (0, ""), "{}", self.stdout);
        self.stdout
    }

    /// What was printed, of a run that went well and of which this had to be noted.
    #[track_caller]
    pub(crate) fn ok_with(self, note: &str) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        assert!(self.stderr.starts_with("note: ") && self.stderr.contains(note), "{self:?}");
        self.stdout
    }

    /// The server refused, with these words.
    #[track_caller]
    pub(crate) fn refused(&self, words: &str) {
        assert_eq!(self.code, 4, "{self:?}");
        assert!(self.stderr.contains(words), "{self:?}");
    }
}
