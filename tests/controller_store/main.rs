//! What a controller keeps, on media that work and on media that do not.
//!
//! `STORE_SEEDS=0..100000` runs other seeds than the default, `STORE_SEED=7` one.

mod chance;
mod damage;
mod disk;
mod files;
mod model;
mod power_loss;

use slim_quic::controller::store::{EmbeddedStore, MemoryStore, conformance};

use disk::{Disk, Sync};

#[test]
fn a_store_in_memory_does_what_a_store_has_to() {
    conformance::check(&|| {
        let store = MemoryStore::default();
        Box::new(move || Box::new(store.clone()))
    });
}

#[test]
fn an_embedded_store_does_what_a_store_has_to_in_a_file() {
    conformance::check(&|| {
        let folder = tempfile::tempdir().expect("a folder");
        Box::new(move || {
            let store = EmbeddedStore::open(&folder.path().join("db/store.redb"));
            Box::new(store.unwrap_or_else(|error| panic!("{error}")))
        })
    });
}

#[test]
fn an_embedded_store_does_what_a_store_has_to_on_a_backend() {
    conformance::check(&|| {
        let disk = Disk::new(Sync::Honest);
        Box::new(move || {
            let store = EmbeddedStore::with_backend(disk.clone());
            Box::new(store.unwrap_or_else(|error| panic!("{error}")))
        })
    });
}
