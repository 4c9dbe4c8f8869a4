//! The nodes under measurement: child processes, and what they cost.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Failure;

/// Native datagrams on an Ethernet.
pub(crate) const MTU: u16 = 1452;

/// A running node; ends with its handle.
pub(crate) struct Node {
    pub(crate) label: String,
    pub(crate) address: SocketAddr,
    child: Child,
}

/// CPU time of a process so far, per thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cpu(BTreeMap<String, Thread>);

#[derive(Clone, Copy, Debug, Default)]
struct Thread {
    ns: u64,
    /// Times that the scheduler let the thread run.
    runs: u64,
}

/// How long a node may take to listen; the first start of upstream's installs it.
const START: Duration = Duration::from_secs(180);

impl Node {
    /// Our node, from `program`, with `cores` cores (0: all) and native datagrams of up to `mtu`
    /// bytes.
    pub(crate) fn ours(
        label: String,
        program: &Path,
        cores: usize,
        mtu: u16,
        scratch: &Path,
    ) -> Result<Self, Failure> {
        Self::ours_with(label, program, cores, mtu, "", scratch)
    }

    /// The same with `more` lines of configuration.
    pub(crate) fn ours_with(
        label: String,
        program: &Path,
        cores: usize,
        mtu: u16,
        more: &str,
        scratch: &Path,
    ) -> Result<Self, Failure> {
        let address = free_address()?;
        let file = scratch.join(format!("relay-{}.yaml", address.port()));
        fs::write(
            &file,
            format!(
                "{more}admin: none\ntracing: {{log_level: error}}\nruntime: {{n_cores: {cores}}}\n\
                 services:\n  slim/0:\n    dataplane:\n      servers:\n        \
                 - endpoint: \"{address}\"\n          tls: {{insecure: true}}\n          quic: {{mtu: {mtu}}}\n"
            ),
        )?;
        let node = Self::start(label, address, Command::new(program).arg("--config").arg(&file));
        // The node has read it, or failed.
        fs::remove_file(&file)?;
        node
    }

    /// Upstream's node of a release, from the published wheel; with a library of ours in its
    /// process if there is one.
    pub(crate) fn upstream(
        release: &str,
        scratch: &Path,
        preload: Option<&Path>,
    ) -> Result<Self, Failure> {
        let address = free_address()?;
        let home = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new("python3");
        if release.starts_with("0.") {
            command.arg(home.join("benches/relay/upstream_node.py"));
            command.arg("--cache").arg(scratch).arg("--release").arg(release);
        } else {
            command.arg(home.join("tests/clients/node_modern.py")).arg(release);
        }
        command.arg("--listen").arg(address.to_string());
        if let Some(library) = preload {
            command.env("LD_PRELOAD", library);
        }
        Self::start(format!("upstream {release}"), address, &mut command)
    }

    /// What `command` runs, once it listens.
    pub(crate) fn start(
        label: String,
        address: SocketAddr,
        command: &mut Command,
    ) -> Result<Self, Failure> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let mut node = Self { label, address, child };
        let deadline = Instant::now() + START;
        while TcpStream::connect(address).is_err() {
            if let Some(status) = node.child.try_wait()? {
                return Err(format!("{}: ended at start, {status}", node.label).into());
            }
            if Instant::now() > deadline {
                return Err(format!("{}: does not listen on {address}", node.label).into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(node)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// CPU time so far, user and system, in nanoseconds. A thread that is running just now has
    /// its last time slice missing, so ask while the node is at rest.
    pub(crate) fn cpu(&self) -> Result<Cpu, Failure> {
        let mut threads = BTreeMap::new();
        for task in fs::read_dir(format!("/proc/{}/task", self.pid()))? {
            let task = task?;
            let text = fs::read_to_string(task.path().join("schedstat"))?;
            let mut fields = text.split_whitespace().map(str::parse);
            let (Some(Ok(ns)), Some(_), Some(Ok(runs))) =
                (fields.next(), fields.next(), fields.next())
            else {
                return Err(format!("schedstat: expected three numbers, got {text:?}").into());
            };
            let id = task.file_name().to_string_lossy().into_owned();
            threads.insert(id, Thread { ns, runs });
        }
        Ok(Cpu(threads))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // There is nothing to do for a child that cannot be ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Cpu {
    /// What was spent since `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let spent = |(id, now): (&String, &Thread)| {
            let then = before.0.get(id).copied().unwrap_or_default();
            let (ns, runs) = (now.ns - then.ns, now.runs - then.runs);
            (id.clone(), Thread { ns, runs })
        };
        Self(self.0.iter().map(spent).collect())
    }

    pub(crate) fn ns(&self) -> u64 {
        self.0.values().map(|thread| thread.ns).sum()
    }

    pub(crate) fn runs(&self) -> u64 {
        self.0.values().map(|thread| thread.runs).sum()
    }

    /// Threads that did a tenth of the work or more.
    pub(crate) fn busy_threads(&self) -> usize {
        let share = self.ns() / 10;
        self.0.values().filter(|thread| thread.ns > share).count()
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_address() -> Result<SocketAddr, Failure> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
