//! One core and two: CPU per message, and what it takes to hand a message to another core.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use futures_util::future::try_join_all;
use indicatif::ProgressBar;
use slim_quic::client::link::{LinkOptions, Trust};
use slim_quic::ctl::bench::{Plan, Server, Session};
use slim_wire::{Envelope, Id, Name, Prefix};

use crate::Failure;
use crate::core::Cores;
use crate::names::{drain, frame, header};
use crate::node::{MTU, Node};
use crate::report::{Cell, Report, Table, median_of};
use crate::setup::{Setup, node};

/// Publishers, each with a subscriber; every link has a socket of its own, so that the kernel
/// spreads them over the cores.
const PAIRS: usize = 8;

const REST: Duration = Duration::from_millis(30);

pub(crate) async fn run(setup: &Setup, report: &mut Report) -> Result<(), Failure> {
    report.add(messages(setup).await?)?;
    report.add(hand_over(setup.rounds)?)
}

async fn messages(setup: &Setup) -> Result<Table, Failure> {
    let mut table = Table::new(
        "cores_cpu",
        "CPU of a node per message, native, MTU 1452, 8 publishers and 8 subscribers; ratio to one \
         core in the same round",
        &[
            "payload",
            "cores",
            "ns CPU/msg",
            "least",
            "ratio",
            "min",
            "max",
            "busy threads",
            "msg/s",
        ],
    );
    for size in [64, 1024] {
        let nodes = [node(setup, 1)?, node(setup, 2)?];
        let mut measured = [Vec::new(), Vec::new()];
        for _ in 0..setup.rounds {
            for (node, samples) in nodes.iter().zip(&mut measured) {
                samples.push(round(node, size).await?);
            }
        }
        for (at, samples) in measured.iter().enumerate() {
            let cpu = || samples.iter().map(|sample: &Sample| sample.cpu);
            let mut ratios: Vec<f64> =
                cpu().zip(&measured[0]).map(|(this, one)| this / one.cpu).collect();
            ratios.sort_by(f64::total_cmp);
            table.row(vec![
                Cell::count(size as u64),
                Cell::count(at as u64 + 1),
                Cell::number(median_of(cpu())),
                Cell::number(cpu().fold(f64::INFINITY, f64::min)),
                Cell::number(median_of(ratios.iter().copied())),
                Cell::number(ratios[0]),
                Cell::number(ratios[ratios.len() - 1]),
                Cell::number(median_of(samples.iter().map(|sample| sample.threads))),
                Cell::number(median_of(samples.iter().map(|sample| sample.rate))),
            ]);
        }
    }
    Ok(table)
}

struct Sample {
    /// ns per message.
    cpu: f64,
    rate: f64,
    threads: f64,
}

async fn round(node: &Node, size: usize) -> Result<Sample, Failure> {
    const MESSAGES: u64 = 15_000;
    let trust = Trust::DangerAcceptAnyCertificate;
    let options = LinkOptions { trust, mtu: MTU, ..LinkOptions::default() };
    let server = Server::Quic { authority: node.address.to_string(), options: options.into() };
    let mut sessions = Vec::new();
    for pair in 0..PAIRS {
        let topic = format!("pair-{pair}");
        let window = Some(256);
        let plan = Plan { size, topic, count: Some(MESSAGES), window, ..Plan::default() };
        sessions.push(Session::connect(&server, plan).await?);
    }
    let (before, start) = (node.cpu()?, Instant::now());
    let bar = ProgressBar::hidden();
    let reports = try_join_all(sessions.into_iter().map(|session| session.run(&bar))).await?;
    let seconds = start.elapsed().as_secs_f64();
    tokio::time::sleep(REST).await;
    let spent = node.cpu()?.since(&before);
    if reports.iter().any(|report| report.has_losses()) {
        return Err("messages were lost".into());
    }
    let messages = (PAIRS as u64 * MESSAGES) as f64;
    let threads = spent.busy_threads() as f64;
    Ok(Sample { cpu: spent.ns() as f64 / messages, rate: messages / seconds, threads })
}

/// Where the target of a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// On the core that the message came in on.
    Local,
    /// On the other core.
    Remote,
}

fn hand_over(rounds: usize) -> Result<Table, Failure> {
    let mut table = Table::new(
        "cores_hand_over",
        "The datapath alone: a message of 1 KiB from a link to another one of its own core, or of \
         the other core; instructions by valgrind, where it is installed",
        &["target", "messages in a turn", "ns/msg", "ratio", "instructions/msg"],
    );
    for burst in [1, 16] {
        let mut measured = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            for (target, samples) in [Target::Local, Target::Remote].into_iter().zip(&mut measured)
            {
                const MESSAGES: u64 = 200_000;
                let mut path = Datapath::new(target);
                path.relay(MESSAGES / 10, burst);
                let start = Instant::now();
                path.relay(MESSAGES, burst);
                samples.push(start.elapsed().as_nanos() as f64 / MESSAGES as f64);
            }
        }
        for (target, samples) in [Target::Local, Target::Remote].into_iter().zip(&measured) {
            let ratios = samples.iter().zip(&measured[0]).map(|(this, local)| this / local);
            let instructions = instructions(target, burst)?;
            table.row(vec![
                Cell::text(format!("{target:?}").to_lowercase()),
                Cell::count(burst),
                Cell::number(median_of(samples.iter().copied())),
                Cell::number(median_of(ratios)),
                instructions.map_or(Cell::text("-"), Cell::number),
            ]);
        }
    }
    Ok(table)
}

/// Instructions per message, from two runs of this program that differ in their number alone;
/// `None` without valgrind.
fn instructions(target: Target, burst: u64) -> Result<Option<f64>, Failure> {
    const MESSAGES: u64 = 20_000;
    let (Some(few), Some(many)) =
        (collected(target, MESSAGES, burst)?, collected(target, 2 * MESSAGES, burst)?)
    else {
        return Ok(None);
    };
    Ok(Some((many - few) as f64 / MESSAGES as f64))
}

fn collected(target: Target, messages: u64, burst: u64) -> Result<Option<u64>, Failure> {
    let target = target.to_possible_value().expect("none is hidden");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["--hand-over", target.get_name()])
        .args(["--messages", &messages.to_string(), "--burst", &burst.to_string()])
        .stdin(Stdio::null())
        .current_dir(Path::new(env!("CARGO_TARGET_TMPDIR")))
        .output();
    let Ok(output) = output else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().find_map(|line| line.split("Collected : ").nth(1));
    let count = line.and_then(|count| count.trim().parse().ok());
    count.map(Some).ok_or_else(|| format!("valgrind: no count of instructions in {text}").into())
}

/// Relays messages, for who counts what that takes.
pub(crate) fn relay(target: Target, messages: u64, burst: u64) {
    Datapath::new(target).relay(messages, burst);
}

struct Datapath {
    cores: Cores,
    envelope: Envelope,
    source: slim_quic::datapath::LinkId,
    target: usize,
    ready: Vec<slim_quic::datapath::LinkId>,
}

impl Datapath {
    fn new(target: Target) -> Self {
        let to = Name { prefix: Prefix([1, 2, 3]), id: Id::from_u64(1) };
        let mut cores = Cores::new(2);
        let source = cores.open(0);
        let target = usize::from(target == Target::Remote);
        let sink = cores.open(target);
        cores.subscribe(sink, std::iter::once((to, None)));
        let envelope = Envelope::single(header(to), frame(to));
        Self { cores, envelope, source, target, ready: Vec::new() }
    }

    /// Messages in bursts, each handled in one turn of both cores.
    fn relay(&mut self, messages: u64, burst: u64) {
        for _ in 0..messages / burst {
            let now = self.cores.now;
            for _ in 0..burst {
                self.cores.cores[0].forward(self.source, &self.envelope, now);
            }
            self.cores.cores[0].flush();
            if self.target != 0 {
                self.cores.cores[1].turn(now);
            }
            let left = drain(&mut self.cores.cores[self.target], &mut self.ready);
            assert_eq!(left, burst, "every message leaves");
        }
    }
}
