//! One publisher to very many subscribers: CPU per delivered message, and memory of what waits.

use std::ops::Range;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use slim_wire::{Class, Encoding, Flags, FrameKind, Header, Id, Kind, Name, Prefix, SessionIds};

use crate::Failure;
use crate::memory::Memory;
use crate::native::Swarm;
use crate::node::{MTU, Node};
use crate::report::{Cell, Report, Table, median_of};
use crate::setup::{Setup, node};

/// Until the node is at rest and its CPU time up to date.
const REST: Duration = Duration::from_millis(50);

/// What no round takes longer than.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) async fn run(setup: &Setup, report: &mut Report) -> Result<(), Failure> {
    report.add(cpu(setup).await?)?;
    report.add(waiting(setup).await?)
}

/// The name that a number of links have subscribed to.
fn channel(links: usize) -> Name {
    Name { prefix: Prefix([7, 7, links as u64]), id: Id::ANY }
}

/// Messages to all subscribers of a name.
fn frames(to: Name, payload: usize, count: usize) -> Bytes {
    let header = Header {
        kind: Kind::Publish,
        class: Class::Reliable,
        encoding: Encoding::Native,
        flags: Flags::empty(),
        ttl: Header::DEFAULT_TTL,
        fanout: u32::MAX,
        lane: 0,
        source: Name { prefix: Prefix([9, 9, 9]), id: Id::new(1) },
        destination: to,
    };
    let (ids, payload) = (SessionIds::default(), vec![0x5A; payload]);
    let frame = slim_wire::frame(FrameKind::Publish, &header, ids, &[], &payload);
    let frame = frame.expect("a payload that fits");
    let mut frames = BytesMut::with_capacity(frame.len() * count);
    (0..count).for_each(|_| frames.extend_from_slice(&frame));
    frames.freeze()
}

/// One node and one set of links for all numbers of subscribers, which take turns.
async fn cpu(setup: &Setup) -> Result<Table, Failure> {
    let mut table = Table::new(
        "fanout_cpu",
        "CPU of a node on one core per delivered message of 1 KiB, native, MTU 1452, one \
         publisher; ratio to the first in the same round",
        &[
            "subscribers",
            "messages in a batch",
            "ns CPU/delivered",
            "least",
            "ratio",
            "delivered/s",
        ],
    );
    let node = node(setup, 1)?;
    let most = setup.subscribers.iter().copied().max().unwrap_or(1);
    let mut swarm = Swarm::new(node.address, MTU)?;
    swarm.grow(most + 1).await?;
    for &subscribers in &setup.subscribers {
        for link in 0..subscribers {
            swarm.subscribe(link, std::iter::once(channel(subscribers))).await?;
        }
    }
    let mut cases: Vec<_> = setup.subscribers.iter().map(|&links| (links, 1)).collect();
    let batches = setup.subscribers.iter().map(|&links| (links, batch_of(links)));
    cases.extend(batches.filter(|&(_, batch)| batch > 1));
    let mut measured = vec![Vec::new(); cases.len()];
    for _ in 0..setup.rounds {
        for (&(subscribers, batch), samples) in cases.iter().zip(&mut measured) {
            samples.push(round(&node, &mut swarm, 0..subscribers, most, batch).await?);
        }
    }
    for (&(subscribers, batch), samples) in cases.iter().zip(&measured) {
        let cpu = || samples.iter().map(|sample| sample.0);
        let ratios = cpu().zip(&measured[0]).map(|(this, first)| this / first.0);
        table.row(vec![
            Cell::count(subscribers as u64),
            Cell::count(batch as u64),
            Cell::number(median_of(cpu())),
            Cell::number(cpu().fold(f64::INFINITY, f64::min)),
            Cell::number(median_of(ratios)),
            Cell::number(median_of(samples.iter().map(|sample| sample.1))),
        ]);
    }
    Ok(table)
}

const PAYLOAD: usize = 1024;

/// Copies under way fit the socket of the subscribers, which all share one.
fn batch_of(subscribers: usize) -> usize {
    const COPIES: usize = 512;
    (COPIES / subscribers).max(1)
}

/// CPU time in ns per delivered message, and delivered messages a second.
async fn round(
    node: &Node,
    swarm: &mut Swarm,
    links: Range<usize>,
    publisher: usize,
    count: usize,
) -> Result<(f64, f64), Failure> {
    const DELIVERED: usize = 100_000;
    const BATCHES: usize = 10_000;
    let subscribers = links.len();
    let batch = frames(channel(subscribers), PAYLOAD, count);
    let batches = DELIVERED.div_ceil(count * subscribers).min(BATCHES);
    let (before, start) = (node.cpu()?, std::time::Instant::now());
    for _ in 0..batches {
        let expected = swarm.clients().received(links.clone()) + (batch.len() * subscribers) as u64;
        swarm.publish(publisher, batch.clone()).await?;
        swarm.until(LIMIT, |clients| clients.received(links.clone()) >= expected).await?;
    }
    let seconds = start.elapsed().as_secs_f64();
    swarm.idle(REST).await?;
    let delivered = (batches * count * subscribers) as f64;
    Ok((node.cpu()?.since(&before).ns() as f64 / delivered, delivered / seconds))
}

/// Memory of messages that wait for subscribers which do not read.
async fn waiting(setup: &Setup) -> Result<Table, Failure> {
    let mut table = Table::new(
        "fanout_waiting",
        "Memory of messages that wait for subscribers whose host has gone silent",
        &[
            "subscribers",
            "payload",
            "messages",
            "RSS grows [KiB/msg]",
            "B per copy, beside one payload",
        ],
    );
    let Some(&subscribers) = setup.subscribers.iter().max() else {
        return Ok(table);
    };
    for (payload, messages) in [(1024, 100), (16 * 1024, 100), (64 * 1024, 100)] {
        let grown = grown(setup, 0..subscribers, payload, messages).await?;
        let per_message = grown as f64 / messages as f64;
        table.row(vec![
            Cell::count(subscribers as u64),
            Cell::count(payload as u64),
            Cell::count(messages as u64),
            Cell::number(per_message / 1024.0),
            Cell::number((per_message - payload as f64) / subscribers as f64),
        ]);
    }
    Ok(table)
}

/// By how much the node grows with so many messages.
async fn grown(
    setup: &Setup,
    links: Range<usize>,
    payload: usize,
    messages: usize,
) -> Result<u64, Failure> {
    let node = node(setup, 1)?;
    let (mut silent, mut publisher) =
        (Swarm::new(node.address, MTU)?, Swarm::new(node.address, MTU)?);
    silent.grow(links.end).await?;
    publisher.grow(1).await?;
    for link in links.clone() {
        silent.subscribe(link, std::iter::once(channel(links.end))).await?;
    }
    silent.idle(REST).await?;
    // From here on nobody drives the subscribers: what comes for them stays in their socket. The
    // first message fills what grows once and what QUIC has under way.
    publisher.publish(0, frames(channel(links.end), payload, 1)).await?;
    publisher.idle(10 * REST).await?;
    let before = Memory::of(node.pid())?;
    for _ in 0..messages {
        publisher.publish(0, frames(channel(links.end), payload, 1)).await?;
        publisher.idle(REST / 10).await?;
    }
    publisher.idle(10 * REST).await?;
    Ok(Memory::of(node.pid())?.rss.saturating_sub(before.rss))
}
