//! Any commits in any order leave what the same changes leave of a plain [`State`].

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use slim_quic::controller::store::{EmbeddedStore, MemoryStore, State, Store};

use crate::chance::{changes, seeds};
use crate::disk::{Disk, Sync};

fn run(seed: u64, mut open: impl FnMut() -> Box<dyn Store>) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut model = State::default();
    let mut store = open();
    for step in 0..40 {
        let changes = changes(&mut rng);
        store.commit(&changes).unwrap_or_else(|error| panic!("STORE_SEED={seed}: {error}"));
        changes.iter().for_each(|change| model.apply(change));
        if rng.random_bool(0.1) {
            drop(store);
            store = open();
        }
        if rng.random_bool(0.3) || step == 39 {
            let state = store.load().unwrap_or_else(|error| panic!("STORE_SEED={seed}: {error}"));
            assert_eq!(state, model, "STORE_SEED={seed}, step {step}");
        }
    }
}

#[test]
fn stores_hold_what_the_model_holds() {
    for seed in seeds(0..60) {
        let disk = Disk::new(Sync::Honest);
        run(seed, || Box::new(EmbeddedStore::with_backend(disk.clone()).expect("a store")));
        let memory = MemoryStore::default();
        run(seed, || Box::new(memory.clone()));
    }
}
