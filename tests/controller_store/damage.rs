//! Bytes that something else has changed are an error, or make no difference.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use slim_quic::controller::store::{EmbeddedStore, State, Store, StoreError};

use crate::chance::{changes, seeds};
use crate::disk::{Disk, Sync};

#[test]
fn a_damaged_database_never_panics() {
    let mut rng = StdRng::seed_from_u64(1);
    let disk = Disk::new(Sync::Honest);
    let mut states = vec![State::default()];
    let store = EmbeddedStore::with_backend(disk.clone()).expect("a store");
    for _ in 0..20 {
        let changes = changes(&mut rng);
        store.commit(&changes).expect("a commit");
        let mut state = states.last().expect("the first").clone();
        changes.iter().for_each(|change| state.apply(change));
        states.push(state);
    }
    drop(store);
    let whole = disk.bytes();
    let used: Vec<_> = (0..whole.len()).filter(|at| whole[*at] != 0).collect();
    let mut refused = 0;
    for seed in seeds(0..1000) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut bytes = whole.clone();
        for _ in 0..rng.random_range(1..4) {
            // The header is one page of many, but the one that is believed first.
            let last = if rng.random_bool(0.5) { 40 } else { used.len() };
            bytes[used[rng.random_range(0..last)]] ^= 1 << rng.random_range(0..8);
        }
        let disk = Disk::holding(Sync::Honest, bytes);
        let load = || EmbeddedStore::with_backend(disk).and_then(|store| store.load());
        match catch_unwind(AssertUnwindSafe(load)) {
            Ok(Ok(state)) => assert!(states.contains(&state), "STORE_SEED={seed}"),
            Ok(Err(error)) => {
                assert!(matches!(error, StoreError::Foreign { .. }), "STORE_SEED={seed}: {error}");
                refused += 1;
            }
            Err(_) => panic!("STORE_SEED={seed} panicked"),
        }
    }
    println!("{refused} were refused");
}
