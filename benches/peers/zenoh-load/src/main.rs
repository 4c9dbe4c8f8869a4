//! One round of load at a zenoh router: a publisher and its subscribers, each a session with a
//! connection of its own, or a publisher and a subscriber that sends everything back.
//!
//! The only argument is a plan in JSON. Prints `ready` once messages arrive, waits for a line on
//! standard input, sends what the plan says, and prints a report in JSON. Its sessions stay open
//! until standard input ends, so that whoever started it can read the router's CPU time before.

#![forbid(unsafe_code)]

mod clock;
mod ear;
mod links;

use std::io::{BufRead, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use zenoh::Wait;
use zenoh::pubsub::Publisher;

use self::clock::Timer;
use self::ear::Ear;
use self::links::Links;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What the round is.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    /// Of the router, as zenoh writes it: `tcp/127.0.0.1:7447`.
    endpoint: String,
    /// PEM file with the certificate by which the router is known, if it has one.
    authority: Option<String>,
    /// Payload bytes of a message.
    size: usize,
    /// Messages of the publisher.
    count: u64,
    subscribers: usize,
    /// Messages a second, whatever becomes of them; otherwise as the window allows.
    rate: Option<f64>,
    /// Messages under way at most.
    window: u64,
    /// Whether a subscriber sends everything back to the publisher.
    round_trip: bool,
    /// Whether each message leaves at once, instead of being held back for others.
    express: bool,
}

/// Bytes at the start of a payload: when it was to be sent, and its number.
const STAMP_BYTES: usize = 16;

/// The number of messages that are not counted.
const PROBE: u64 = u64::MAX;

/// How long the first message may take.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);

/// Without news for so long, what is under way is lost.
const STALL: Duration = Duration::from_secs(5);

fn main() -> Result<(), Failure> {
    let plan = std::env::args().nth(1).ok_or("expected a plan in JSON, got none")?;
    let plan: Plan = serde_json::from_str(&plan)?;
    if plan.size < STAMP_BYTES || plan.window == 0 {
        return Err(format!("expected 16 bytes and a window of 1 or more, got {plan:?}").into());
    }
    let links = Links::open(&plan)?;
    let mut load = Load { plan: &plan, links: &links, payload: vec![0x5A; plan.size] };
    load.probe()?;
    say("ready")?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let start = clock::now();
    match plan.rate {
        Some(rate) => load.pace(rate)?,
        None => load.saturate()?,
    }
    load.all_arrive();
    say(&ear::report(&links.ears, &plan, start).to_string())?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn say(line: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

struct Load<'a> {
    plan: &'a Plan,
    links: &'a Links,
    payload: Vec<u8>,
}

impl Load<'_> {
    fn publisher(&self) -> &Publisher<'static> {
        &self.links.publisher
    }

    fn send(&mut self, due: u64, sequence: u64) -> Result<(), Failure> {
        self.payload[..8].copy_from_slice(&due.to_le_bytes());
        self.payload[8..STAMP_BYTES].copy_from_slice(&sequence.to_le_bytes());
        self.publisher().put(&self.payload[..]).wait()
    }

    /// Sends messages that are not counted until they have reached every subscriber.
    fn probe(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + FIRST_MESSAGE;
        while !self.links.ears.iter().all(|ear| ear.is_reached()) {
            if Instant::now() > deadline {
                return Err("messages: expected the first to arrive, got none".into());
            }
            self.send(clock::now(), PROBE)?;
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Open loop: each message when it is due, and all at once that are overdue.
    fn pace(&mut self, rate: f64) -> Result<(), Failure> {
        let timer = Timer::new()?;
        let start = clock::now();
        for sequence in 0..self.plan.count {
            let due = start + (sequence as f64 * 1e9 / rate) as u64;
            if clock::now() < due {
                timer.until(due)?;
            }
            self.send(due, sequence)?;
        }
        Ok(())
    }

    /// Closed loop: as many as the window allows.
    fn saturate(&mut self) -> Result<(), Failure> {
        let mut sent = 0;
        while sent < self.plan.count {
            let passed = self.slowest(sent, self.plan.window)?;
            let room = (passed + self.plan.window).min(self.plan.count);
            let now = clock::now();
            while sent < room {
                self.send(now, sent)?;
                sent += 1;
            }
        }
        Ok(())
    }

    /// What the slowest subscriber has, once there is room in the window.
    fn slowest(&self, sent: u64, window: u64) -> Result<u64, Failure> {
        // A wake-up for every message would cost more than the message. Nothing is lost by
        // waiting for a part of the window: the rest keeps the router busy.
        let room = (window / 4).max(1);
        let enough = (sent + room).saturating_sub(window);
        let passed = |ear: &Arc<Ear>| ear.wait_for(enough, STALL).ok_or("messages lost".into());
        let all: Result<Vec<u64>, Failure> = self.links.ears.iter().map(passed).collect();
        Ok(all?.into_iter().min().unwrap_or(u64::MAX))
    }

    /// Waits for all that was sent; what does not come shows in the report.
    fn all_arrive(&self) {
        for ear in &self.links.ears {
            let _lost = ear.wait_for(self.plan.count, STALL);
        }
    }
}
