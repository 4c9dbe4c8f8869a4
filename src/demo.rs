//! A node and three apps in one process, who exchange messages over real sockets and say what
//! happened: to see whether everything works here, and how fast.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use slim_config::Config;
use slim_wire::{Id, NameError, SessionIds, TextName};
use thiserror::Error;

use crate::client::link::{Link, LinkError, LinkOptions, Message, Trust};
use crate::node::{Drained, Node, StartError};

/// Messages of each step.
const MESSAGES: u32 = 1_000;

const PAYLOAD_BYTES: usize = 64;

const LARGE_BYTES: usize = 3 * 1024 * 1024;

/// Round trips to measure, after some that warm up.
const ROUND_TRIPS: u32 = 5_000;
const WARM_UP: u32 = 500;

/// Far more than any step needs on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why a demonstration failed.
#[derive(Debug, Error)]
pub enum DemoError {
    /// The node did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The system has no runtime for the apps.
    #[error("runtime of the apps: {0}")]
    Runtime(io::Error),
    /// A name of an app is none: a defect.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A link failed.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Not everything arrived, or not where and how it should.
    #[error("{step}: expected {expected}, got {got}")]
    Missing {
        /// What was shown.
        step: &'static str,
        /// What should have arrived.
        expected: String,
        /// What did.
        got: String,
    },
    /// What happened cannot be printed.
    #[error("output: {0}")]
    Output(#[from] io::Error),
}

/// Runs the demonstration and tells its course to `out`, a line each.
///
/// # Errors
/// [`DemoError`] as soon as something is not as it should be.
pub fn run(out: &mut dyn Write) -> Result<(), DemoError> {
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let node = Node::start(&Config { admin: None, ..Config::embedded(any_port) })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(DemoError::Runtime)?;
    runtime.block_on(async {
        play(out, node.servers()[0]).await?;
        match node.drain(std::future::pending()).await {
            Drained::Clean => writeln!(out, "\nEverything arrived.")?,
            other => return Err(missing("stop", "everything to be written", &other)),
        }
        Ok(())
    })
}

fn missing(
    step: &'static str,
    expected: impl Into<String>,
    got: &dyn std::fmt::Debug,
) -> DemoError {
    DemoError::Missing { step, expected: expected.into(), got: format!("{got:?}") }
}

async fn play(out: &mut dyn Write, address: SocketAddr) -> Result<(), DemoError> {
    writeln!(out, "One node and three apps, connected to it by QUIC over loopback:\n")?;
    writeln!(out, "  node   {address}")?;
    let alice = App::connect(out, address, "alice", 1).await?;
    let bob = App::connect(out, address, "bob", 2).await?;
    let carol = App::connect(out, address, "carol", 3).await?;
    writeln!(out)?;
    let stage = Stage { alice, bob, carol };
    stage.unicast(out).await?;
    stage.anycast(out).await?;
    stage.group(out).await?;
    stage.large(out).await?;
    stage.latency(out).await?;
    for app in [stage.alice, stage.bob, stage.carol] {
        app.link.close().await?;
    }
    Ok(())
}

/// An app: a link that is subscribed to its own name.
struct App {
    name: TextName,
    link: Link,
}

impl App {
    async fn connect(
        out: &mut dyn Write,
        address: SocketAddr,
        name: &str,
        id: u64,
    ) -> Result<Self, DemoError> {
        let name = TextName::new(["demo", "apps", name], Id::from_u64(id))?;
        let options = LinkOptions {
            // The node has just made its certificate, and does not leave this process.
            trust: Trust::DangerAcceptAnyCertificate,
            name: Some(name.clone()),
            ..LinkOptions::default()
        };
        let link = Link::connect(&address.to_string(), &options).await?;
        link.subscribe(&name).await?;
        writeln!(out, "  {:<6} {}", name.components()[2], path(&name))?;
        Ok(Self { name, link })
    }

    fn message(&self, step: Step, number: u32, destination: &TextName, payload: Bytes) -> Message {
        Message {
            ids: SessionIds { session: step as u32, message: number },
            ..Message::new(self.name.to_name(), destination.to_name(), payload)
        }
    }
}

/// A name as applications write it.
fn path(name: &TextName) -> String {
    let components = name.components().join("/");
    if name.id().is_any() { components } else { format!("{components}/{}", name.id().as_u128()) }
}

/// What is shown; the number tells the messages of one step from those of another.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Unicast = 1,
    Anycast,
    Group,
    Large,
    Latency,
}

impl Step {
    fn as_str(self) -> &'static str {
        match self {
            Self::Unicast => "unicast",
            Self::Anycast => "anycast",
            Self::Group => "group",
            Self::Large => "large",
            Self::Latency => "latency",
        }
    }
}

struct Stage {
    alice: App,
    bob: App,
    carol: App,
}

/// Numbers of the messages that bob and carol got.
type Got = [Vec<u32>; 2];

impl Stage {
    async fn unicast(&self, out: &mut dyn Write) -> Result<(), DemoError> {
        let [bob, carol] = self.exchange(Step::Unicast, &self.bob.name, 1, 1).await?;
        if !bob.iter().copied().eq(0..MESSAGES) || !carol.is_empty() {
            return Err(not_all(Step::Unicast, "all for bob, in order", &[bob, carol]));
        }
        let name = path(&self.bob.name);
        writeln!(out, "  unicast  {MESSAGES} messages to {name}: bob got all, in order")?;
        Ok(())
    }

    async fn anycast(&self, out: &mut dyn Write) -> Result<(), DemoError> {
        let worker = |id| TextName::new(["demo", "apps", "worker"], id);
        self.bob.link.subscribe(&worker(self.bob.name.id())?).await?;
        self.carol.link.subscribe(&worker(self.carol.name.id())?).await?;
        let any = worker(Id::ANY)?;
        let [bob, carol] = self.exchange(Step::Anycast, &any, 1, 1).await?;
        let mut all = [&bob[..], &carol].concat();
        all.sort_unstable();
        if !all.into_iter().eq(0..MESSAGES) {
            return Err(not_all(Step::Anycast, "each for one of bob and carol", &[bob, carol]));
        }
        let (name, bob, carol) = (path(&any), bob.len(), carol.len());
        writeln!(
            out,
            "  anycast  {MESSAGES} messages to {name}: bob got {bob}, carol {carol}, each once"
        )?;
        Ok(())
    }

    async fn group(&self, out: &mut dyn Write) -> Result<(), DemoError> {
        let group = TextName::new(["demo", "apps", "group"], Id::ANY)?;
        self.bob.link.subscribe(&group).await?;
        self.carol.link.subscribe(&group).await?;
        let got = self.exchange(Step::Group, &group, Message::TO_ALL, 2).await?;
        if !got.iter().all(|one| one.iter().copied().eq(0..MESSAGES)) {
            return Err(not_all(Step::Group, "all for bob and for carol, in order", &got));
        }
        let name = path(&group);
        writeln!(out, "  group    {MESSAGES} messages to {name}: bob and carol got all, in order")?;
        Ok(())
    }

    /// Alice publishes the messages of a step, each of which is to arrive `copies` times.
    async fn exchange(
        &self,
        step: Step,
        destination: &TextName,
        fanout: u32,
        copies: u32,
    ) -> Result<Got, DemoError> {
        let payload = Bytes::from_static(&[0; PAYLOAD_BYTES]);
        let publish = async {
            for number in 0..MESSAGES {
                let message = self.alice.message(step, number, destination, payload.clone());
                self.alice.link.publish(&Message { fanout, ..message }).await?;
            }
            Ok::<_, DemoError>(())
        };
        let mut got = Got::default();
        let collect = self.collect(step, (MESSAGES * copies) as usize, &mut got);
        let both = async { tokio::try_join!(publish, collect) };
        match tokio::time::timeout(PATIENCE, both).await {
            Ok(done) => done.map(|_| got),
            // What is missing can be seen by what is there.
            Err(_) => Ok(got),
        }
    }

    async fn collect(&self, step: Step, count: usize, got: &mut Got) -> Result<(), DemoError> {
        while got[0].len() + got[1].len() < count {
            let (who, message) = tokio::select! {
                message = self.bob.link.receive() => (0, message?),
                message = self.carol.link.receive() => (1, message?),
            };
            if message.ids.session != step as u32 {
                return Err(missing(step.as_str(), "messages of this step", &message.ids));
            }
            got[who].push(message.ids.message);
        }
        Ok(())
    }

    async fn large(&self, out: &mut dyn Write) -> Result<(), DemoError> {
        let payload: Bytes = (0..LARGE_BYTES).map(|at| (at / 251) as u8).collect();
        let name = &self.carol.name;
        let sent = self.alice.message(Step::Large, 0, name, payload);
        let both =
            async { tokio::try_join!(self.alice.link.publish(&sent), self.carol.link.receive()) };
        let received = match tokio::time::timeout(PATIENCE, both).await {
            Ok(done) => done?.1,
            Err(_) => return Err(missing(Step::Large.as_str(), "one message", &0)),
        };
        if received != sent {
            let expected = format!("the {LARGE_BYTES} bytes that were sent");
            return Err(missing(Step::Large.as_str(), expected, &received.payload.len()));
        }
        let (size, name) = (LARGE_BYTES / (1024 * 1024), path(name));
        writeln!(out, "  large    1 message of {size} MiB to {name}: carol got every byte")?;
        Ok(())
    }

    async fn latency(&self, out: &mut dyn Write) -> Result<(), DemoError> {
        let longest = PATIENCE.as_nanos() as u64;
        let mut times = Histogram::new_with_max(longest, 3).expect("three digits are supported");
        let both = async { tokio::try_join!(self.ask(&mut times), self.answer()) };
        match tokio::time::timeout(PATIENCE, both).await {
            Ok(done) => done?,
            Err(_) => {
                let expected = format!("{ROUND_TRIPS} round trips");
                return Err(missing(Step::Latency.as_str(), expected, &times.len()));
            }
        };
        let at = |quantile| micros(times.value_at_quantile(quantile));
        writeln!(
            out,
            "  latency  {ROUND_TRIPS} round trips alice, node, bob, node, alice, one at a time, \
             of {PAYLOAD_BYTES} bytes:\n           \
             p50 {}, p90 {}, p99 {}, p99.9 {}, max {}",
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            micros(times.max()),
        )?;
        Ok(())
    }

    /// Alice sends one message after the other and notes when each is back, in nanoseconds.
    async fn ask(&self, times: &mut Histogram<u64>) -> Result<(), DemoError> {
        let payload = Bytes::from_static(&[0; PAYLOAD_BYTES]);
        for number in 0..WARM_UP + ROUND_TRIPS {
            let (name, payload) = (&self.bob.name, payload.clone());
            let message = self.alice.message(Step::Latency, number, name, payload);
            let sent = Instant::now();
            self.alice.link.publish(&message).await?;
            let back = self.alice.link.receive().await?;
            if back.ids != message.ids {
                return Err(missing(
                    Step::Latency.as_str(),
                    format!("{:?}", message.ids),
                    &back.ids,
                ));
            }
            if number >= WARM_UP {
                let nanoseconds = u64::try_from(sent.elapsed().as_nanos()).unwrap_or(u64::MAX);
                times.saturating_record(nanoseconds);
            }
        }
        Ok(())
    }

    /// Bob sends each message back.
    async fn answer(&self) -> Result<(), DemoError> {
        for _ in 0..WARM_UP + ROUND_TRIPS {
            let asked = self.bob.link.receive().await?;
            let (source, destination) = (asked.destination, asked.source);
            self.bob.link.publish(&Message { source, destination, ..asked }).await?;
        }
        Ok(())
    }
}

fn not_all(step: Step, expected: &str, [bob, carol]: &Got) -> DemoError {
    DemoError::Missing {
        step: step.as_str(),
        expected: format!("{MESSAGES} messages, {expected}"),
        got: format!("{} at bob, {} at carol", bob.len(), carol.len()),
    }
}

fn micros(nanoseconds: u64) -> String {
    format!("{:.1} µs", nanoseconds as f64 / 1_000.0)
}
