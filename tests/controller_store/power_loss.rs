//! Power is lost at any moment, also while a store recovers from the last time: what was
//! acknowledged is there, and nothing else but a commit that had begun.

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use slim_quic::controller::store::{EmbeddedStore, State, Store};

use crate::chance::{changes, seeds};
use crate::disk::{Disk, Sync};

/// What was seen to happen, so that no case is missed unnoticed.
#[derive(Debug, Default)]
struct Seen {
    /// Power was lost in an opening; in a commit that is not there afterwards; in one that is.
    openings: u32,
    lost: u32,
    kept: u32,
}

/// What a disk may hold: what was acknowledged, or that with a commit that had begun.
struct Promise {
    acknowledged: State,
    begun: Option<State>,
}

/// Several lives of one disk, each of which ends with a loss of power.
fn live(seed: u64, sync: Sync, seen: &mut Seen) -> Result<(), String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let disk = Disk::new(sync);
    let mut promise = Promise { acknowledged: State::default(), begun: None };
    for _ in 0..4 {
        let most = [10, 60, 400][rng.random_range(0..3)];
        disk.fail_after(rng.random_range(0..most), ErrorKind::BrokenPipe);
        run(&disk, &mut rng, &mut promise, seen)?;
        disk.lose_power(&mut rng);
    }
    let store = EmbeddedStore::with_backend(disk).map_err(|error| format!("last: {error}"))?;
    keep(&store, &mut promise, seen)
}

/// Opens the store, and commits until something fails or chance ends it.
fn run(
    disk: &Disk,
    rng: &mut StdRng,
    promise: &mut Promise,
    seen: &mut Seen,
) -> Result<(), String> {
    let excuse = |error: &dyn std::fmt::Display| match disk.has_failed() {
        true => Ok(()),
        false => Err(format!("failed with power: {error}")),
    };
    let store = match EmbeddedStore::with_backend(disk.clone()) {
        Ok(store) => store,
        Err(error) => {
            seen.openings += 1;
            return excuse(&error);
        }
    };
    if disk.has_failed() {
        return Err("opened without power".into());
    }
    keep(&store, promise, seen)?;
    for _ in 0..rng.random_range(0..16) {
        let changes = changes(rng);
        let mut after = promise.acknowledged.clone();
        changes.iter().for_each(|change| after.apply(change));
        match store.commit(&changes) {
            Ok(()) => promise.acknowledged = after,
            Err(error) => {
                promise.begun = Some(after);
                return excuse(&error);
            }
        }
    }
    if rng.random_bool(0.5) {
        // The process ends with the power, and closes nothing.
        disk.fail_after(0, ErrorKind::BrokenPipe);
    }
    Ok(())
}

/// Asserts the promise; what is seen now has to stay.
fn keep(store: &EmbeddedStore, promise: &mut Promise, seen: &mut Seen) -> Result<(), String> {
    let state = store.load().map_err(|error| error.to_string())?;
    let begun = promise.begun.take();
    if begun.as_ref() == Some(&state) {
        seen.kept += 1;
        promise.acknowledged = state;
        return Ok(());
    }
    if state != promise.acknowledged {
        return Err(format!("expected {:?}, got {state:?}", promise.acknowledged));
    }
    seen.lost += u32::from(begun.is_some());
    Ok(())
}

/// [`live`], where a panic is a failure as any other.
fn outcome(seed: u64, sync: Sync, seen: &mut Seen) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| live(seed, sync, seen))).unwrap_or(Err("panicked".into()))
}

#[test]
fn what_was_acknowledged_outlasts_losses_of_power() {
    let seeds = seeds(0..600);
    let mut seen = Seen::default();
    for seed in seeds.clone() {
        if let Err(violation) = outcome(seed, Sync::Honest, &mut seen) {
            let shown: String = violation.chars().take(2000).collect();
            panic!("STORE_SEED={seed}: {shown}");
        }
    }
    println!("seeds {seeds:?}: {seen:?}");
    if seeds.end - seeds.start >= 500 {
        assert!(seen.openings >= 100 && seen.lost >= 100 && seen.kept >= 10, "{seen:?}");
    }
}

#[test]
fn a_disk_that_does_not_sync_is_found_out() {
    let failed = (0..100).filter(|seed| outcome(*seed, Sync::Lies, &mut Seen::default()).is_err());
    let failed = failed.count();
    assert!(failed >= 50, "{failed} of 100");
}
