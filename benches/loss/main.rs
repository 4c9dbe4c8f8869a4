//! Throughput and tail latency over a bad link, and whether one delays others. See
//! `benches/README.md`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people to run")]

mod impair;
mod isolation;
#[path = "../peers/machine.rs"]
mod machine;
mod namespace;
mod relay;
mod report;
mod table;
mod wire;
mod worker;

use std::error::Error;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use slim_config::Congestion;

use self::impair::Impairment;
use self::namespace::{Namespaces, RELAY, Side};
use self::relay::Relay;
use self::report::Folder;
use self::table::{Case, Load, Row, Sample};
use self::wire::{Ends, Seen, Way, Wire};
use self::worker::{Outcome, Protocol, Worker};

type Failure = Box<dyn Error + Send + Sync>;

#[derive(Debug, Parser)]
#[command(about = "Throughput and tail latency over a link that loses packets")]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    /// Packets that get lost in each direction of each link, in percent
    #[arg(long, value_delimiter = ',', default_value = "0,0.1,1,3")]
    loss: Vec<f64>,
    /// Round-trip times of each link, in ms
    #[arg(long, value_delimiter = ',', default_value = "20,100")]
    rtt: Vec<u64>,
    /// Packets that are held back, in percent
    #[arg(long, default_value_t = 0.0)]
    reorder: f64,
    /// How much later those come, in ms
    #[arg(long, default_value_t = 5)]
    reorder_delay: u64,
    /// What the wire carries in each direction, in Mbit/s
    #[arg(long, default_value_t = 100)]
    bandwidth: u64,
    /// What may wait for that, in ms
    #[arg(long, default_value_t = 50)]
    queue: u64,
    /// Payload bytes of a message
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// Messages a second of the open-loop cases
    #[arg(long, default_value_t = 500)]
    rate: u64,
    /// How long each case sends, in s
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Rounds of each case
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// What is measured
    #[arg(long, value_enum, value_delimiter = ',', default_value = "quic,grpc,nats")]
    relays: Vec<Protocol>,
    /// How QUIC controls congestion, cubic or bbr
    #[arg(long, value_delimiter = ',', default_value = "cubic,bbr",
        value_parser = worker::quic_congestion)]
    quic: Vec<Congestion>,
    /// How TCP controls congestion, as the kernel names it
    #[arg(long, value_delimiter = ',', default_value = "cubic")]
    tcp: Vec<String>,
    /// Pairs of a publisher and a subscriber, one of them behind a bad link; 0 leaves that out
    #[arg(long, default_value_t = 16)]
    links: usize,
    /// Rounds with and without that bad link
    #[arg(long, default_value_t = 5)]
    link_rounds: usize,
    /// Loss of that link, in percent
    #[arg(long, default_value_t = 3.0)]
    link_loss: f64,
    /// Round-trip time of all of those links, in ms
    #[arg(long, default_value_t = 20)]
    link_rtt: u64,
    /// Messages a second of each of those pairs
    #[arg(long, default_value_t = 200)]
    link_rate: u64,
    /// Decides which packets get lost
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the results go [default: target/loss/TIME]
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Publishers and subscribers; the bench starts it by itself
    #[command(hide = true)]
    Worker(Worker),
}

/// How long is waited for what is under way at the end of an open-loop case.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many one-way delays the wire outlasts the relay.
const LINGER_DELAYS: u32 = 6;

/// Where relays run, and the wire to them.
struct Place {
    namespaces: Namespaces,
    ends: Arc<Ends>,
}

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    if let Some(Part::Worker(worker)) = &args.part {
        return worker.run();
    }
    let (namespaces, ends) = Namespaces::make()
        .map_err(|error| format!("NOTHING MEASURED: no network namespaces here: {error}"))?;
    remove_when_told_to_end(&namespaces)?;
    let place = Place { namespaces, ends };
    let folder = Folder::make(args.report.clone(), args.seed, args.rounds)?;
    print!("{}", folder.head());
    let rows = measure_table(&args, &place)?;
    let mut text = table::text(&rows);
    print!("{text}");
    folder.write("loss.csv", &table::csv(&rows))?;
    folder.write_latencies(&rows)?;
    if args.links > 0 {
        let rows = isolation::measure(&args, &place)?;
        let isolated = isolation::text(&args, &rows);
        print!("{isolated}");
        text.push_str(&isolated);
        folder.write("isolation.csv", &isolation::csv(&rows))?;
    }
    folder.write("loss.txt", &format!("{}{text}", folder.head()))?;
    let dropped = place.namespaces.dropped()?;
    println!("\nreport: {}", folder.path().display());
    if dropped > 0 {
        // They count as lost, but no seed decided which.
        eprintln!("THE WIRE WAS TOO SLOW: devices dropped {dropped} packets by themselves");
    }
    Ok(())
}

/// Without it namespaces would stay when the bench is interrupted.
fn remove_when_told_to_end(namespaces: &Namespaces) -> Result<(), Failure> {
    let remove = namespaces.remover();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let told = runtime.block_on(async {
            let terminate = tokio::signal::unix::SignalKind::terminate();
            let mut terminate = tokio::signal::unix::signal(terminate)?;
            tokio::select! {
                interrupted = tokio::signal::ctrl_c() => interrupted,
                _ = terminate.recv() => Ok(()),
            }
        });
        if told.is_ok() {
            remove();
            std::process::exit(130);
        }
    })?;
    Ok(())
}

fn measure_table(args: &Args, place: &Place) -> Result<Vec<Row>, Failure> {
    let relays = relays(args);
    let mut rows = Vec::new();
    for case in cases(args) {
        let mut of_case: Vec<Row> =
            relays.iter().map(|relay| Row::new(case, relay.label())).collect();
        for round in 0..args.rounds {
            for (relay, row) in relays.iter().zip(&mut of_case) {
                let seed = args.seed.wrapping_add(round as u64);
                let sample = measure(args, place, case, relay, seed);
                let sample = sample.map_err(|error| error.to_string());
                eprintln!("{}", table::line(case, &row.relay, &sample));
                row.rounds.push(sample);
            }
        }
        rows.append(&mut of_case);
    }
    Ok(rows)
}

fn relays(args: &Args) -> Vec<Relay> {
    let of = |&protocol: &Protocol| -> Vec<Relay> {
        let over_quic = |&quic: &Congestion| Relay { protocol, quic, tcp: None };
        let over_tcp = |algorithm: &String| {
            let (quic, tcp) = (Congestion::default(), Some(algorithm.clone()));
            Relay { protocol, quic, tcp }
        };
        match protocol {
            Protocol::Quic => args.quic.iter().map(over_quic).collect(),
            Protocol::Grpc | Protocol::Nats | Protocol::Tcp => {
                args.tcp.iter().map(over_tcp).collect()
            }
        }
    };
    args.relays.iter().flat_map(of).collect()
}

fn cases(args: &Args) -> Vec<Case> {
    let mut cases = Vec::new();
    for load in [Load::Saturated, Load::Paced(args.rate)] {
        for &rtt in &args.rtt {
            let rtt = Duration::from_millis(rtt);
            cases.extend(args.loss.iter().map(|&loss| Case { size: args.size, load, rtt, loss }));
        }
    }
    cases
}

impl Args {
    fn impairment(&self, loss: f64, rtt: Duration) -> Impairment {
        let rate = self.bandwidth * 1_000_000;
        Impairment {
            loss: loss / 100.0,
            delay: rtt / 2,
            reorder: self.reorder / 100.0,
            reorder_delay: Duration::from_millis(self.reorder_delay),
            rate: Some(rate),
            queue_bytes: (rate / 8 * self.queue / 1_000) as usize,
        }
    }

    /// Twice what a link holds, and its queue: what is under way never is the limit.
    fn window(&self, rtt: Duration) -> u64 {
        let way = self.impairment(0.0, rtt);
        let held = self.bandwidth as f64 * 1e6 / 8.0 * rtt.as_secs_f64();
        (2.0 * held) as u64 / self.size as u64 + (way.queue_bytes / self.size) as u64 + 1
    }
}

fn measure(
    args: &Args,
    place: &Place,
    case: Case,
    relay: &Relay,
    seed: u64,
) -> Result<Sample, Failure> {
    let time = Duration::from_secs_f64(args.seconds);
    let (rate, window, patience) = match case.load {
        Load::Saturated => (None, Some(args.window(case.rtt)), Duration::ZERO),
        Load::Paced(rate) => (Some(rate as f64), None, PATIENCE),
    };
    let worker = Worker {
        protocol: relay.protocol,
        congestion: relay.quic,
        address: vec![Relay::address(0)],
        size: args.size,
        rate,
        window,
        time,
        patience,
    };
    let way = Way { relay: RELAY[0], how: args.impairment(case.loss, case.rtt) };
    let (mut outcomes, seen) = place.run(relay, &worker, &[way], seed)?;
    let outcome = outcomes.pop().ok_or("the worker told nothing")?;
    Ok(Sample { outcome, time, seen })
}

impl Place {
    /// A relay, a wire and a worker, all new.
    fn run(
        &self,
        relay: &Relay,
        worker: &Worker,
        ways: &[Way],
        seed: u64,
    ) -> Result<(Vec<Outcome>, Seen), Failure> {
        let running = relay.start(&self.namespaces)?;
        let wire = Wire::start(Arc::clone(&self.ends), ways, seed)?;
        let mut command = self.namespaces.command(Side::Load, std::env::current_exe()?);
        let output = command.args(worker.arguments()).stdin(Stdio::null()).output()?;
        drop(running);
        // The kernels on both sides tell each other that connections are gone, so that nothing of
        // this case is in the next.
        let delay = ways.iter().map(|way| way.how.delay).max().unwrap_or_default();
        std::thread::sleep(delay * LINGER_DELAYS);
        let seen = wire.end()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(said.trim().to_owned().into());
        }
        Ok((worker::outcomes(&String::from_utf8_lossy(&output.stdout))?, seen))
    }
}
