//! Memory of a node per idle link.

use std::time::Duration;

use slim_wire::{Id, Name, Prefix};

use crate::Failure;
use crate::grpc::Link;
use crate::memory::Memory;
use crate::native::Swarm;
use crate::node::{MTU, Node};
use crate::report::{Cell, Report, Table};
use crate::setup::{Setup, node};

/// Until what the last link made due is done.
const REST: Duration = Duration::from_secs(2);

/// Memory at each number of links, over both protocols.
pub(crate) async fn run(setup: &Setup, report: &mut Report) -> Result<(), Failure> {
    let mut table = Table::new(
        "links",
        "Memory of a node with idle links, each subscribed to a name of its own",
        &["protocol", "links", "RSS [MiB]", "PSS [MiB]", "KiB per link", "KiB per further link"],
    );
    native(setup, &mut table).await?;
    grpc(setup, &mut table).await?;
    report.add(table)
}

/// The name of a link.
fn name(link: usize) -> Name {
    Name { prefix: Prefix([1, 2, 3]), id: Id::from_u64(link as u64 + 1) }
}

async fn native(setup: &Setup, table: &mut Table) -> Result<(), Failure> {
    let node = node(setup, 1)?;
    let mut swarm = Swarm::new(node.address, MTU)?;
    let mut rows = Rows::new("native", &node)?;
    let mut before = 0;
    for &links in &setup.links {
        swarm.grow(links).await?;
        for link in before..links {
            swarm.subscribe(link, std::iter::once(name(link))).await?;
        }
        before = links;
        swarm.idle(REST).await?;
        rows.add(links, table)?;
    }
    Ok(())
}

async fn grpc(setup: &Setup, table: &mut Table) -> Result<(), Failure> {
    let node = node(setup, 1)?;
    let mut rows = Rows::new("gRPC", &node)?;
    let mut open = Vec::new();
    for &links in &setup.links {
        while open.len() < links {
            let mut link = Link::connect(node.address).await?;
            link.subscribe(std::iter::once(name(open.len()))).await?;
            open.push(link);
        }
        tokio::time::sleep(REST).await;
        rows.add(links, table)?;
    }
    Ok(())
}

/// The rows of one protocol.
struct Rows<'a> {
    protocol: &'static str,
    node: &'a Node,
    empty: Memory,
    last: (usize, Memory),
}

impl<'a> Rows<'a> {
    fn new(protocol: &'static str, node: &'a Node) -> Result<Self, Failure> {
        let empty = Memory::of(node.pid())?;
        Ok(Self { protocol, node, empty, last: (0, empty) })
    }

    fn add(&mut self, links: usize, table: &mut Table) -> Result<(), Failure> {
        let now = Memory::of(self.node.pid())?;
        let per_link = |from: Memory, count: usize| {
            now.rss.saturating_sub(from.rss) as f64 / 1024.0 / count.max(1) as f64
        };
        let (before, memory) = self.last;
        table.row(vec![
            Cell::text(self.protocol),
            Cell::count(links as u64),
            Cell::mib(now.rss),
            Cell::mib(now.pss),
            Cell::number(per_link(self.empty, links)),
            Cell::number(per_link(memory, links - before)),
        ]);
        self.last = (links, now);
        Ok(())
    }
}
