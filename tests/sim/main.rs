//! Deterministic simulation: apps with sessions around a node, in one thread, with one clock and
//! one source of chance. First everything fails, then nothing does any more; what was promised
//! has to hold all the time, and all that was begun has to come to an end.
//!
//! `SIM_SEEDS=0..10000` runs other seeds than the default, `SIM_SEED=7` one with its trace,
//! `SIM_MLS=openmls` with real encryption.

#[path = "../support/exchange.rs"]
#[allow(dead_code)]
mod exchange;
#[path = "../support/model_mls.rs"]
mod model_mls;

mod control;
mod node;
mod oracle;
mod plant;
mod profile;
mod script;
mod trace;
mod world;

use std::io::Write;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use plant::Bug;
use world::World;

/// How long requests and acknowledgements may take when nothing is wrong any more: a minute for
/// each app that has gone, and some more.
const PATIENCE: Duration = Duration::from_secs(61 * 5);
const STEP: Duration = Duration::from_secs(5);

struct Outcome {
    violation: Option<String>,
    trace: String,
    hash: u64,
    steps: u64,
    reads: u64,
}

fn run(seed: u64, bug: Option<Bug>, keep: usize) -> Outcome {
    let mut world = World::new(seed, bug, keep);
    let result = catch_unwind(AssertUnwindSafe(|| play(&mut world)));
    if result.is_err() {
        world.oracle.violate("panic".to_owned());
    }
    Outcome {
        violation: world.oracle.violation,
        trace: world.trace.tail(),
        hash: world.trace.hash(),
        steps: world.trace.count,
        reads: world.oracle.reads,
    }
}

fn play(world: &mut World) {
    world.plan();
    world.run_until(world.profile.chaos);
    world.heal();
    settle(world, PATIENCE + Duration::from_secs(61) * world.profile.apps as u32);
    // A member that has crashed takes up room until it is not waited for any more.
    let mut parties: Vec<usize> = (0..world.oracle.parties.len()).collect();
    let end = world.elapsed + PATIENCE;
    while !parties.is_empty() && world.elapsed < end {
        parties = world.publish_fresh(parties);
        world.run_until(world.elapsed + STEP);
    }
    if let Some(party) = parties.first().map(|party| &world.oracle.parties[*party]) {
        let full = format!("{}: no room in session {}", party.app.id, party.session);
        world.oracle.violate(full);
    }
    settle(world, PATIENCE);
    world.check_removed();
}

/// Waits until all that was begun has ended.
fn settle(world: &mut World, at_most: Duration) {
    let end = world.elapsed + at_most;
    loop {
        world.run_until(world.elapsed + STEP);
        match world.oracle.pending() {
            _ if world.oracle.violation.is_some() => return,
            None => return,
            Some(pending) if world.elapsed >= end => return world.oracle.violate(pending),
            Some(_) => {}
        }
    }
}

fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn seeds() -> Range<u64> {
    let number = |text: &str| text.parse().expect("a number");
    if let Ok(seed) = std::env::var("SIM_SEED") {
        let seed = number(&seed);
        return seed..seed + 1;
    }
    match std::env::var("SIM_SEEDS") {
        Ok(seeds) => {
            let (start, end) = seeds.split_once("..").expect("a range: 0..2000");
            number(start)..number(end)
        }
        Err(_) => 0..2000,
    }
}

#[test]
fn sessions_keep_their_promises_whatever_the_network_does() {
    let seeds = seeds();
    let keep = if seeds.end - seeds.start == 1 { usize::MAX } else { 100 };
    let (mut steps, mut reads) = (0, 0);
    let mut failed = Vec::new();
    for seed in seeds.clone() {
        let outcome = run(seed, None, keep);
        (steps, reads) = (steps + outcome.steps, reads + outcome.reads);
        if let Some(violation) = outcome.violation {
            if failed.is_empty() || std::env::var("SIM_SEED").is_ok() {
                say(&outcome.trace);
            }
            say(&format!("seed {seed}: {violation}"));
            say(&format!(
                "    repeat with SIM_SEED={seed} cargo test --test sim -- keep --nocapture"
            ));
            failed.push(seed);
        }
    }
    say(&format!("seeds {seeds:?}: {steps} steps, {reads} messages read"));
    assert!(failed.is_empty(), "of {seeds:?} failed {failed:?}");
}

#[test]
fn a_seed_gives_the_same_trace_each_time() {
    for seed in 0..20 {
        assert_eq!(run(seed, None, 1).hash, run(seed, None, 1).hash, "seed {seed}");
    }
    assert_ne!(run(0, None, 1).hash, run(1, None, 1).hash);
}

/// The first seed that shows a planted defect.
fn finds(bug: Bug) {
    let found = (0..1000).find_map(|seed| Some((seed, run(seed, Some(bug), 1).violation?)));
    let (seed, violation) = found.expect("the simulation finds a planted defect");
    say(&format!("{bug:?}: found with seed {seed}: {violation}"));
}

#[test]
fn a_message_lost_after_its_acknowledgement_is_found() {
    finds(Bug::LoseAcknowledged);
}

#[test]
fn a_commit_that_is_skipped_is_found() {
    finds(Bug::SkipCommit);
}

#[test]
fn a_timer_that_is_forgotten_is_found() {
    finds(Bug::ForgetTime);
}
