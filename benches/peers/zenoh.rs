//! zenoh's router, and load for it: a program of its own, as it takes zenoh's library.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Deserialize;
use serde_json::json;
use slim_quic::ctl::bench::Report;

use crate::case::{Case, Load};
use crate::node::{self, Node};
use crate::relay::Certificate;
use crate::{Args, Failure, REST};

/// Of the router and of the library.
pub(crate) const VERSION: &str = "1.10.2";

/// Where a router is, and how to load it.
pub(crate) struct Router {
    endpoint: String,
    authority: Option<PathBuf>,
    load: Rc<Path>,
    express: bool,
}

/// Builds the load; takes minutes when it is first done.
pub(crate) fn build(scratch: &Path) -> Result<PathBuf, Failure> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/zenoh-load");
    let target = scratch.join("zenoh-load");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--release", "--locked", "--manifest-path"]).arg(home.join("Cargo.toml"));
    match cargo.arg("--target-dir").arg(&target).status()? {
        status if status.success() => Ok(target.join("release/zenoh-load")),
        status => Err(format!("its load is not built, {status}").into()),
    }
}

/// A router over one transport, that looks for nobody.
pub(crate) fn start(
    args: &Args,
    transport: &str,
    certificate: &Certificate,
    load: &Rc<Path>,
) -> Result<(Node, Router), Failure> {
    let address = node::free_address()?;
    let endpoint = format!("{transport}/{address}");
    let mut command = Command::new(&args.zenohd);
    command.env("RUST_LOG", "error").arg("--listen").arg(&endpoint);
    command.args(["--no-multicast-scouting", "--cfg", "scouting/gossip/enabled:false"]);
    // A time in each message would be work that no other relay does.
    command.arg("--no-timestamp");
    if transport == "quic" {
        // Whoever waits for a node to listen does so over TCP.
        command.arg("--listen").arg(format!("tcp/{address}"));
    }
    for (name, file) in
        [("certificate", &certificate.certificate), ("private_key", &certificate.key)]
    {
        let file = serde_json::to_string(file)?;
        command.arg("--cfg").arg(format!("transport/link/tls/listen_{name}:{file}"));
    }
    let node = Node::start(format!("zenohd {transport}"), address, &mut command)?;
    let authority = (transport != "tcp").then(|| certificate.certificate.clone());
    Ok((node, Router { endpoint, authority, load: Rc::clone(load), express: args.zenoh_express }))
}

/// What the load reports.
#[derive(Deserialize)]
struct Outcome {
    messages: u64,
    bytes: u64,
    seconds: f64,
    lost: u64,
    out_of_order: u64,
    latency_ns: Vec<(u64, u64)>,
}

impl Router {
    /// A round; `cpu` tells what the router has taken so far. Returns what it took.
    pub(crate) fn round(
        &self,
        case: &Case,
        cpu: impl Fn() -> Result<Duration, Failure>,
    ) -> Result<(Report, Duration), Failure> {
        let plan = json!({
            "endpoint": self.endpoint,
            "authority": self.authority,
            "size": case.size,
            "count": case.messages,
            "subscribers": case.subscribers,
            "rate": case.rate(),
            "window": case.window,
            "round_trip": case.load == Load::RoundTrip,
            "express": self.express && !case.is_saturated(),
        });
        let mut load = Process(
            Command::new(&*self.load)
                .arg(plan.to_string())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?,
        );
        let mut lines =
            load.0.stdout.take().into_iter().flat_map(|out| BufReader::new(out).lines());
        let mut line =
            || lines.next().unwrap_or_else(|| Err(std::io::ErrorKind::UnexpectedEof.into()));
        let ready = line()?;
        if ready != "ready" {
            return Err(format!("the load: expected it to be ready, got {ready:?}").into());
        }
        std::thread::sleep(REST);
        let before = cpu()?;
        load.0.stdin.as_mut().ok_or("the load has no input")?.write_all(b"go\n")?;
        let outcome: Outcome = serde_json::from_str(&line()?)?;
        std::thread::sleep(REST);
        let spent = cpu()?.saturating_sub(before);
        drop(load.0.stdin.take());
        load.0.wait()?;
        Ok((outcome.report()?, spent))
    }
}

impl Outcome {
    fn report(self) -> Result<Report, Failure> {
        let mut latency = Histogram::new_with_bounds(1, 60_000_000_000, 3)?;
        for (value, count) in self.latency_ns {
            latency.saturating_record_n(value, count);
        }
        Ok(Report {
            messages: self.messages,
            bytes: self.bytes,
            seconds: self.seconds,
            lost: Some(self.lost),
            out_of_order: self.out_of_order,
            latency: Some(latency),
            ..Report::default()
        })
    }
}

/// Ends with its handle.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // There is nothing to do for a child that cannot be ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
