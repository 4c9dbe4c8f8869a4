use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::TypedValueParser;
use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::LocalSet;

use super::{Floor, Mode, Plan, Pump, Report, Server, Session, latency_hgrm, latency_svg, pump};
use crate::client::link::Trust;
use crate::ctl::{Error, Exit, runtime};

/// `slimctl bench`: what a command line asks for.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Publish, to subscribers in this process or elsewhere
    ///
    /// With --subscribers N both ends run in this process, and latency and losses are measured.
    /// Without, messages go to those of `bench sub` on the same topic: start that first. It ends
    /// when this command has sent its last message.
    Pub {
        /// Which node.
        #[command(flatten)]
        target: At,
        /// What is sent.
        #[command(flatten)]
        load: Load,
        /// Publishers, each with a connection of its own
        #[arg(long, value_name = "P", default_value_t = 1)]
        publishers: u16,
        /// Subscribers in this process, each with a connection of its own. One is addressed by its
        /// id; several get a copy of every message each
        #[arg(long, value_name = "S", default_value_t = 0)]
        subscribers: u16,
        /// Without --subscribers: how many subscribers elsewhere get every message
        #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "subscribers")]
        fanout: u16,
        /// How the result is shown.
        #[command(flatten)]
        output: Output,
    },
    /// Receive what `bench pub` of another process on this machine sends
    ///
    /// Says on standard error when it is ready. Ends when all publishers have sent their last
    /// message; or by --count or --duration; or when nothing has come for 5 s after the first
    /// message; or with Ctrl-C. Prints what it has then. Losses at the very end show only if the
    /// publishers' last words arrive.
    Sub {
        /// Which node.
        #[command(flatten)]
        target: At,
        /// End after so many messages in each subscriber
        #[arg(long, value_name = "N")]
        count: Option<u64>,
        /// End so long after the first message, such as 10s
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        duration: Option<Duration>,
        /// Publishers whose messages are awaited
        #[arg(long, value_name = "P", default_value_t = 1)]
        publishers: u16,
        /// Subscribers, each with a connection of its own
        #[arg(long, value_name = "S", default_value_t = 1)]
        subscribers: u16,
        /// How the result is shown.
        #[command(flatten)]
        output: Output,
    },
    /// Measure round trips: publishers, each with a subscriber that sends everything back
    ///
    /// Both ends run in this process. Without --rate and --window each publisher waits for the
    /// answer before it sends the next message.
    Rtt {
        /// Which node.
        #[command(flatten)]
        target: At,
        /// What is sent.
        #[command(flatten)]
        load: Load,
        /// Publishers, each with a subscriber of its own
        #[arg(long, value_name = "P", default_value_t = 1)]
        publishers: u16,
        /// How the result is shown.
        #[command(flatten)]
        output: Output,
    },
    /// Send from one publisher to one subscriber through a relay that only moves bytes
    ///
    /// Starts `bench pump` as a process of its own and says how much CPU time it took per
    /// message: below that a node cannot get over the same transport. Messages are as long as
    /// frames of the native protocol: 104 bytes and the payload.
    Floor {
        /// Transport
        #[arg(value_enum)]
        floor: Floor,
        /// Over QUIC: largest datagram in bytes, 1200 to 65000
        #[arg(long, value_name = "BYTES", value_parser = mtus(), default_value_t = 1452)]
        mtu: u16,
        /// What is sent.
        #[command(flatten)]
        load: Load,
        /// How the result is shown.
        #[command(flatten)]
        output: Output,
    },
    /// Run the relay of `bench floor` in the foreground
    ///
    /// For TLS and QUIC it prints the certificate that it made for itself, after the address.
    Pump {
        /// Transport
        #[arg(value_enum)]
        floor: Floor,
        /// Where to listen
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        /// Over QUIC: largest datagram in bytes, 1200 to 65000
        #[arg(long, value_name = "BYTES", value_parser = mtus(), default_value_t = 1452)]
        mtu: u16,
    },
}

/// Which node, and under which name.
#[derive(Args, Debug)]
pub struct At {
    /// The node: grpc://HOST:PORT or http://HOST:PORT, over the gRPC of release 0.6;
    /// quic://HOST:PORT, over the native protocol. To compare: nats://HOST:PORT, or with TLS
    /// tls://HOST:PORT, a NATS server
    #[arg(long, value_name = "URL", default_value = "grpc://127.0.0.1:46357")]
    server: String,
    /// For quic:// and tls://: PEM file with the authority that signed the server's certificate
    /// [default: those of the system]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// For quic:// and tls://: talk to whoever answers, for nodes with `tls.insecure: true`
    #[arg(long, conflicts_with = "ca")]
    danger_accept_any_certificate: bool,
    /// For quic://: largest datagram in bytes, 1200 to 65000 [default: 1452]
    #[arg(long, value_name = "BYTES", value_parser = mtus())]
    mtu: Option<u16>,
    /// For quic://: instead of the library for apps use the node's own loop, which costs less, so
    /// that this program is not what limits a run
    #[arg(long)]
    node_loop: bool,
    /// Names used are slimctl/bench/TOPIC; runs at the same time need a topic each
    #[arg(long, default_value = "default")]
    topic: String,
}

/// Sizes that a datagram may have at most.
fn mtus() -> impl TypedValueParser<Value = u16> {
    clap::value_parser!(u16).range(1200..=65_000)
}

impl At {
    fn server(&self) -> Result<Server, Error> {
        let any = self.danger_accept_any_certificate;
        let any = any.then_some(Trust::DangerAcceptAnyCertificate);
        let trust = self.ca.clone().map(Trust::File).or(any);
        let server = self.server.parse::<Server>()?.known_by(trust, self.mtu)?;
        if self.node_loop { server.on_node_loop() } else { Ok(server) }
    }
}

/// What publishers send.
#[derive(Args, Debug)]
pub struct Load {
    /// Payload bytes of a message, at least 16
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    size: usize,
    /// Messages a second of each publisher, whatever becomes of them; latency then counts from the
    /// moment at which a message was to be sent. Without: as fast as --window allows
    #[arg(long, value_name = "MSGS_PER_S")]
    rate: Option<f64>,
    /// Messages of each publisher
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// How long to send, such as 10s; 10s if there is no --count either. With both, what ends
    /// first
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Without --rate: messages that each publisher may have under way [default: 2048 or 1 MiB of
    /// payload, whichever is less; 1 for rtt; unlimited where no subscriber is in this process]
    #[arg(long, value_name = "N", conflicts_with = "rate")]
    window: Option<u64>,
}

/// How results are shown.
#[derive(Args, Debug)]
pub struct Output {
    /// Form of the result on standard output
    #[arg(short, long, value_enum, default_value_t = Form::Text)]
    output: Form,
    /// Write the percentile distribution of latencies (HdrHistogram's text form, in µs)
    #[arg(long, value_name = "FILE")]
    hgrm: Option<PathBuf>,
    /// Draw latency by percentile
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Form {
    /// A table for people
    Text,
    /// An object for programs; latencies in microseconds
    Json,
}

impl Load {
    fn plan(&self, mode: Mode, publishers: u16, subscribers: u16) -> Plan {
        let Self { size, rate, count, duration, window } = *self;
        let plan = Plan { size, rate, count, duration, window, ..Plan::default() };
        Plan { mode, publishers, subscribers, ..plan }
    }
}

impl Command {
    /// Does it, and prints the result.
    ///
    /// # Errors
    /// As [`Session::connect`] and [`Session::run`], and [`Error::File`] for results that cannot be
    /// written.
    pub fn run(self) -> Result<Exit, Error> {
        match self {
            Self::Pub { target, load, publishers, subscribers, fanout, output } => {
                let plan = load.plan(Mode::Publish, publishers, subscribers);
                at(&target, Plan { fanout, ..plan }, &output)
            }
            Self::Sub { target, count, duration, publishers, subscribers, output } => {
                let mode = Mode::Subscribe;
                let plan = Plan { mode, count, duration, publishers, ..Plan::default() };
                at(&target, Plan { subscribers, ..plan }, &output)
            }
            Self::Rtt { target, load, publishers, output } => {
                at(&target, load.plan(Mode::RoundTrip, publishers, 0), &output)
            }
            Self::Floor { floor, mtu, load, output } => {
                let report = measure_floor(floor, mtu, load.plan(Mode::Publish, 1, 1))?;
                output.show(&report)
            }
            Self::Pump { floor, listen, mtu } => {
                match pump::serve(floor, listen, mtu, announce)? {}
            }
        }
    }
}

#[expect(clippy::print_stdout, reason = "whoever starts a pump has to know where it listens")]
fn announce(text: &str) {
    print!("{text}");
    // Whoever does not listen does not want to know.
    let _ = std::io::stdout().flush();
}

fn at(target: &At, plan: Plan, output: &Output) -> Result<Exit, Error> {
    let server = target.server()?;
    let plan = Plan { topic: target.topic.clone(), ..plan };
    let report = run(async { connect(&server, plan).await?.finish().await })?;
    output.show(&report)
}

fn measure_floor(floor: Floor, mtu: u16, plan: Plan) -> Result<Report, Error> {
    plan.check()?;
    let program = std::env::current_exe().map_err(Error::machine("path of this program"))?;
    let pump = Pump::start(&program, floor, mtu)?;
    run(async {
        let started = connect(pump.server(), plan).await?;
        let before = pump.cpu_time()?;
        let report = started.finish().await?;
        // What runs just now is not counted yet.
        tokio::time::sleep(REST).await;
        let relay_cpu = Some(pump.cpu_time()?.saturating_sub(before));
        Ok(Report { relay_cpu, ..report })
    })
}

/// Until a relay is at rest.
const REST: Duration = Duration::from_millis(20);

fn run<T>(session: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    LocalSet::new().block_on(&runtime()?, session)
}

struct Started {
    session: Session,
    bar: ProgressBar,
}

async fn connect(server: &Server, plan: Plan) -> Result<Started, Error> {
    let bar = bar(&plan);
    let waits = plan.mode == Mode::Subscribe;
    let session = Session::connect(server, plan).await?;
    if waits {
        say(&format!("ready at {server}"));
    }
    Ok(Started { session, bar })
}

impl Started {
    async fn finish(self) -> Result<Report, Error> {
        let report = self.session.run(&self.bar).await;
        self.bar.finish_and_clear();
        report
    }
}

#[expect(clippy::print_stderr, reason = "for people, and for scripts that wait for it")]
fn say(line: &str) {
    eprintln!("{line}");
}

/// Shows itself only where standard error is a terminal.
fn bar(plan: &Plan) -> ProgressBar {
    let messages = plan.total().map(|each| {
        let copies = if plan.receives() { plan.targets() } else { 1 };
        each.saturating_mul(u64::from(plan.publishers) * u64::from(copies))
    });
    let (bar, style) = match messages.filter(|_| plan.mode != Mode::Subscribe) {
        Some(messages) => (
            ProgressBar::new(messages),
            "{elapsed} {wide_bar} {human_pos}/{human_len} messages ({per_sec})",
        ),
        None => (ProgressBar::new_spinner(), "{elapsed} {human_pos} messages ({per_sec})"),
    };
    bar.with_style(ProgressStyle::with_template(style).unwrap_or_else(|_| {
        // A defect of the template costs its looks only.
        ProgressStyle::default_bar()
    }))
}

impl Output {
    #[expect(clippy::print_stdout, reason = "the answer to the command")]
    fn show(&self, report: &Report) -> Result<Exit, Error> {
        match self.output {
            Form::Text => print!("{}", report.text()),
            Form::Json => println!("{:#}", report.json()),
        }
        let none = "expected latencies to write, got none: no subscriber was in this process";
        if let Some(file) = &self.hgrm {
            let latency = report.latency.as_ref().ok_or_else(|| Error::file(file, none))?;
            fs::write(file, latency_hgrm(latency)).map_err(|error| Error::file(file, error))?;
        }
        if let Some(file) = &self.svg {
            let latency = report.latency.as_ref().ok_or_else(|| Error::file(file, none))?;
            let svg = latency_svg("Latency by percentile", &[("", latency)])
                .map_err(|error| Error::file(file, error))?;
            fs::write(file, svg).map_err(|error| Error::file(file, error))?;
        }
        Ok(if report.has_losses() { Exit::Lost } else { Exit::Clean })
    }
}
