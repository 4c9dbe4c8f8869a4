//! Publishers and subscribers, in a process of their own in the other namespace than the relay.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use futures_util::future::join_all;
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use slim_config::Congestion;
use slim_quic::client::link::{LinkOptions, Trust};
use slim_quic::ctl::bench::{Floor, Plan, Report, Server, Session};
use tokio::task::LocalSet;

use crate::Failure;

/// What the relay is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// Our node, native
    Quic,
    /// Our node, gRPC of release 0.6, without encryption
    Grpc,
    /// NATS over plain TCP
    Nats,
    /// Frames over plain TCP through a relay that only moves bytes
    Tcp,
}

/// Pairs of a publisher and a subscriber, all at the same time.
#[derive(Clone, Debug, Parser)]
pub(crate) struct Worker {
    #[arg(long, value_enum)]
    pub(crate) protocol: Protocol,
    /// How QUIC controls congestion
    #[arg(long, default_value = CUBIC, value_parser = quic_congestion)]
    pub(crate) congestion: Congestion,
    /// Where the pairs find the relay; one for each
    #[arg(long, value_delimiter = ',')]
    pub(crate) address: Vec<SocketAddr>,
    #[arg(long)]
    pub(crate) size: usize,
    /// Messages a second; without, as many as the window allows
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    #[arg(long)]
    pub(crate) window: Option<u64>,
    /// How long to send
    #[arg(long, value_parser = humantime::parse_duration)]
    pub(crate) time: Duration,
    /// How long to wait then for what is under way
    #[arg(long, value_parser = humantime::parse_duration)]
    pub(crate) patience: Duration,
}

/// The names of what controls congestion, as the node's configuration has them.
const CUBIC: &str = "cubic";
const BBR: &str = "bbr";

pub(crate) fn quic_name(congestion: Congestion) -> &'static str {
    match congestion {
        Congestion::Cubic => CUBIC,
        Congestion::Bbr => BBR,
    }
}

/// What a name stands for.
pub(crate) fn quic_congestion(name: &str) -> Result<Congestion, String> {
    match name {
        CUBIC => Ok(Congestion::Cubic),
        BBR => Ok(Congestion::Bbr),
        other => Err(format!("expected {CUBIC} or {BBR}, got {other}")),
    }
}

/// What a pair has seen.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// Messages that were to be sent.
    pub(crate) due: u64,
    pub(crate) received: u64,
    /// From the moment at which a message was to be sent, in nanoseconds.
    pub(crate) latency: Histogram<u64>,
}

impl Worker {
    /// The arguments that make this.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let protocol = self.protocol.to_possible_value().expect("no variant is skipped");
        let addresses: Vec<String> = self.address.iter().map(SocketAddr::to_string).collect();
        let mut arguments = vec![
            "worker".to_owned(),
            format!("--protocol={}", protocol.get_name()),
            format!("--address={}", addresses.join(",")),
            format!("--congestion={}", quic_name(self.congestion)),
            format!("--size={}", self.size),
            format!("--time={}", humantime::format_duration(self.time)),
            format!("--patience={}", humantime::format_duration(self.patience)),
        ];
        arguments.extend(self.rate.map(|rate| format!("--rate={rate}")));
        arguments.extend(self.window.map(|window| format!("--window={window}")));
        arguments
    }

    /// Does it, and prints an outcome for each pair.
    #[expect(clippy::print_stdout, reason = "who started it reads it there")]
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let reports = LocalSet::new().block_on(&runtime, self.measure())?;
        println!("{}", reports.iter().map(|report| self.outcome(report)).collect::<Value>());
        Ok(())
    }

    /// What a report says, as [`outcomes`] reads it.
    fn outcome(&self, report: &Report) -> Value {
        let latency = report.latency.iter().flat_map(Histogram::iter_recorded);
        let latency = latency.map(|step| json!([step.value_iterated_to(), step.count_at_value()]));
        // What an open loop owes does not depend on what the link took.
        let owed = self.rate.map(|rate| (rate * self.time.as_secs_f64()) as u64);
        json!({
            "due": owed.or(report.sent),
            "received": report.messages,
            "out_of_order": report.out_of_order,
            "latency": latency.collect::<Value>(),
        })
    }

    async fn measure(&self) -> Result<Vec<Report>, Failure> {
        let sessions = join_all(self.address.iter().enumerate().map(async |(number, &address)| {
            let topic = format!("pair-{number}");
            Session::connect(&self.server(address), self.plan(topic)).await
        }));
        let sessions: Vec<Session> = sessions.await.into_iter().collect::<Result<_, _>>()?;
        let bar = ProgressBar::hidden();
        let reports = join_all(sessions.into_iter().map(|session| session.run(&bar))).await;
        Ok(reports.into_iter().collect::<Result<_, _>>()?)
    }

    fn server(&self, address: SocketAddr) -> Server {
        match self.protocol {
            Protocol::Quic => {
                let trust = Trust::DangerAcceptAnyCertificate;
                let options =
                    LinkOptions { trust, congestion: self.congestion, ..LinkOptions::default() };
                Server::Quic { authority: address.to_string(), options: options.into() }
            }
            Protocol::Grpc => Server::Grpc { authority: address.to_string() },
            Protocol::Nats => Server::Nats { authority: address.to_string(), tls: None },
            Protocol::Tcp => Server::Pump { floor: Floor::Tcp, address, certificate: None },
        }
    }

    fn plan(&self, topic: String) -> Plan {
        Plan {
            topic,
            size: self.size,
            rate: self.rate,
            duration: Some(self.time),
            window: self.window,
            cutoff: Some(self.time + self.patience),
            ..Plan::default()
        }
    }
}

/// What a worker printed.
///
/// # Errors
/// If it is something else, or messages came twice or in another order, which no link may do.
pub(crate) fn outcomes(text: &str) -> Result<Vec<Outcome>, Failure> {
    let Value::Array(pairs) = serde_json::from_str(text)? else {
        return Err(format!("worker: expected an array, got {text:?}").into());
    };
    pairs.iter().map(outcome).collect()
}

fn outcome(pair: &Value) -> Result<Outcome, Failure> {
    let number = |name: &str| {
        pair[name].as_u64().ok_or_else(|| format!("worker: expected {name:?}, got {pair}"))
    };
    let disordered = number("out_of_order")?;
    if disordered > 0 {
        return Err(format!("{disordered} messages twice or out of order").into());
    }
    let mut latency = empty();
    for step in pair["latency"].as_array().into_iter().flatten() {
        let (Some(value), Some(count)) = (step[0].as_u64(), step[1].as_u64()) else {
            return Err(format!("worker: expected a latency and a count, got {step}").into());
        };
        latency.record_n(value, count)?;
    }
    Ok(Outcome { due: number("due")?, received: number("received")?, latency })
}

/// A histogram of latencies up to a minute, in nanoseconds.
pub(crate) fn empty() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds that a histogram can have")
}
