//! Bytes that a core asks the allocator for, per name.

use std::hint::black_box;
use std::sync::Arc;

use slim_quic::datapath::{Port, Table as Routing};
use slim_wire::{Id, Space, TextName};

use super::name;
use crate::core::Cores;
use crate::report::{Cell, Table};

/// Links that share the names.
const LINKS: u64 = 1_000;

pub(super) fn table(counts: &[u64]) -> Table {
    let mut table = Table::new(
        "names_memory",
        "Bytes allocated per name, by one core (1,000 links share the names)",
        &["names", "routing table", "whole core", "whole core, texts known", "largest [MiB]"],
    );
    for &names in counts {
        let (bare, texts) = (core(names, false), core(names, true));
        let largest = (texts * names as f64) as u64;
        let cells = [routing(names), bare, texts].map(Cell::number);
        let cells = std::iter::once(Cell::count(names)).chain(cells);
        table.row(cells.chain([Cell::mib(largest)]).collect());
    }
    table
}

fn per_name(names: u64, build: impl FnOnce()) -> f64 {
    allocation_counter::measure(build).bytes_current as f64 / names as f64
}

/// The routing table alone.
fn routing(names: u64) -> f64 {
    let mut cores = Cores::new(1);
    let links: Vec<_> = (0..LINKS).map(|_| cores.open(0)).collect();
    let port = |link| Arc::clone(cores.cores[0].port(link).expect("just opened"));
    let ports: Vec<Arc<Port>> = links.into_iter().map(port).collect();
    let mut table = Routing::new(7);
    let bytes = per_name(names, || {
        for number in 0..names {
            let port = &ports[(number % LINKS) as usize];
            table.subscribe(Space::Native, name(number), port);
        }
    });
    black_box(table);
    bytes
}

/// Everything that a core keeps: its table, what each link has, and what other nodes may be told.
fn core(names: u64, with_texts: bool) -> f64 {
    let mut cores = Cores::new(1);
    let links: Vec<_> = (0..LINKS).map(|_| cores.open(0)).collect();
    let bytes = per_name(names, || {
        for (link, first) in links.into_iter().zip(0..) {
            let of_link = (first..names).step_by(LINKS as usize);
            let named = |number| match with_texts {
                false => (name(number), None),
                true => {
                    let texts = ["org".into(), "namespace".into(), format!("app-{number:09}")];
                    let text = TextName::new(texts.each_ref().map(String::as_str), Id::from_u64(1));
                    (text.expect("short").to_name(), Some(texts))
                }
            };
            cores.subscribe(link, of_link.map(named));
        }
    });
    black_box(cores);
    bytes
}
