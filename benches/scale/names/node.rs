//! Names in a running node.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use slim_wire::Name;

use super::lookup::frame;
use super::{Random, name};
use crate::Failure;
use crate::grpc::Link;
use crate::memory::Memory;
use crate::native::Swarm;
use crate::node::{MTU, Node};
use crate::report::{Cell, Table, median_of};
use crate::setup::{Setup, node};

/// Names that one link subscribes to while the clock runs.
const SUBSCRIBED: u64 = 100_000;

/// How long it takes one link to subscribe to very many names.
pub(super) async fn subscribing(setup: &Setup) -> Result<Table, Failure> {
    let mut table = Table::new(
        "names_subscribing",
        "100,000 names subscribed over one link, on one core",
        &["protocol", "seconds", "node CPU [s]", "RSS [MiB]", "bytes per name"],
    );
    for protocol in ["native", "gRPC"] {
        let node = node(setup, 1)?;
        let (cpu, memory, start) = (node.cpu()?, Memory::of(node.pid())?, Instant::now());
        match protocol {
            "native" => {
                let mut swarm = Swarm::new(node.address, MTU)?;
                swarm.grow(1).await?;
                swarm.subscribe(0, (0..SUBSCRIBED).map(name)).await?;
            }
            _ => over_grpc(&node).await?,
        }
        let seconds = start.elapsed().as_secs_f64();
        let after = Memory::of(node.pid())?;
        let grown = after.rss.saturating_sub(memory.rss) as f64;
        table.row(vec![
            Cell::text(protocol),
            Cell::number(seconds),
            Cell::number(node.cpu()?.since(&cpu).ns() as f64 / 1e9),
            Cell::mib(after.rss),
            Cell::number(grown / SUBSCRIBED as f64),
        ]);
    }
    Ok(table)
}

/// Subscriptions of release 0.6 are not answered: the last one is in force when a message to it
/// arrives.
async fn over_grpc(node: &Node) -> Result<(), Failure> {
    const AGAIN: Duration = Duration::from_millis(5);
    const LIMIT: Duration = Duration::from_secs(60);
    let mut link = Link::connect(node.address).await?;
    let mut other = Link::connect(node.address).await?;
    link.subscribe((0..SUBSCRIBED).map(name)).await?;
    let end = Instant::now() + LIMIT;
    while Instant::now() < end {
        other.publish(name(SUBSCRIBED - 1), &[0]).await?;
        if let Ok(received) = tokio::time::timeout(AGAIN, link.receive()).await {
            received?;
            return Ok(());
        }
    }
    Err("names: the last one was not subscribed in time".into())
}

/// What a message costs a node with few names, and one with very many.
pub(super) async fn forwarding(setup: &Setup) -> Result<Table, Failure> {
    let mut table = Table::new(
        "names_forwarding",
        "CPU of a node on one core per message of 1 KiB to a random name, native, one publisher; \
         ratio to the first in the same round",
        &["names", "RSS [MiB]", "ns CPU/msg", "least", "ratio", "ratio min", "ratio max"],
    );
    let counts = [1_000, 1_000_000];
    let mut nodes = Vec::new();
    for names in counts {
        nodes.push(Named::new(setup, names).await?);
    }
    let mut measured = vec![Vec::new(); nodes.len()];
    for _ in 0..setup.rounds {
        for at in 0..nodes.len() {
            let cpu = nodes[at].round().await?;
            measured[at].push(cpu);
            for other in &mut nodes {
                // Links want to be kept alive.
                other.swarm.idle(Duration::from_millis(20)).await?;
            }
        }
    }
    for (at, names) in counts.into_iter().enumerate() {
        let mut ratios: Vec<f64> =
            measured[at].iter().zip(&measured[0]).map(|(this, first)| this / first).collect();
        ratios.sort_by(f64::total_cmp);
        table.row(vec![
            Cell::count(names),
            Cell::mib(Memory::of(nodes[at].node.pid())?.rss),
            Cell::number(median_of(measured[at].iter().copied())),
            Cell::number(measured[at].iter().copied().fold(f64::INFINITY, f64::min)),
            Cell::number(median_of(ratios.iter().copied())),
            Cell::number(ratios[0]),
            Cell::number(ratios[ratios.len() - 1]),
        ]);
    }
    Ok(table)
}

/// A node with so many names, of one link, and another that publishes.
struct Named {
    node: Node,
    swarm: Swarm,
    names: u64,
    random: Random,
}

impl Named {
    async fn new(setup: &Setup, names: u64) -> Result<Self, Failure> {
        let node = node(setup, 1)?;
        let mut swarm = Swarm::new(node.address, MTU)?;
        swarm.grow(2).await?;
        swarm.subscribe(0, (0..names).map(name)).await?;
        Ok(Self { node, swarm, names, random: Random(1) })
    }

    /// CPU time per message.
    async fn round(&mut self) -> Result<f64, Failure> {
        const BATCHES: u64 = 100;
        const MESSAGES: u64 = 400;
        const LIMIT: Duration = Duration::from_secs(20);
        let before = self.node.cpu()?;
        for _ in 0..BATCHES {
            let mut batch = BytesMut::new();
            for _ in 0..MESSAGES {
                let to: Name = name(self.random.next() % self.names);
                batch.extend_from_slice(&frame(to));
            }
            let expected = self.swarm.clients().received(0..1) + batch.len() as u64;
            self.swarm.publish(1, batch.freeze()).await?;
            self.swarm.until(LIMIT, |clients| clients.received(0..1) >= expected).await?;
        }
        self.swarm.idle(Duration::from_millis(20)).await?;
        Ok(self.node.cpu()?.since(&before).ns() as f64 / (BATCHES * MESSAGES) as f64)
    }
}
