//! Very many names: what they take of memory, how long it takes to subscribe to them, and what
//! they do to the others.

mod lookup;
mod memory;
mod node;

pub(crate) use lookup::{drain, frame, header};
use slim_wire::{Id, Name, Prefix};

use crate::Failure;
use crate::random::Random;
use crate::report::Report;
use crate::setup::Setup;

/// All of it.
pub(crate) async fn run(setup: &Setup, report: &mut Report) -> Result<(), Failure> {
    report.add(memory::table(&setup.names))?;
    report.add(lookup::table(&setup.names, setup.rounds)?)?;
    report.add(node::subscribing(setup).await?)?;
    report.add(node::forwarding(setup).await?)
}

/// One of very many names. Hashes in their nature: no two are near each other.
fn name(number: u64) -> Name {
    let prefix = Prefix([1, 2, Random(number).next()]);
    Name { prefix, id: Id::from_u64(Random(!number).next() >> 1) }
}
