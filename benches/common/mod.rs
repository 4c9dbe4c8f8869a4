//! What the micro-benches share.

use std::hint::black_box;
use std::time::Duration;

use criterion::Criterion;

/// Prints how many allocations an operation makes, and of how many bytes, as a mean of `rounds`
/// calls of `run`, each of which is `operations` operations.
#[expect(clippy::print_stdout, reason = "a program for people to run")]
pub(crate) fn print_allocations<R>(
    label: &str,
    rounds: u64,
    operations: u64,
    mut run: impl FnMut() -> R,
) {
    // What grows once, such as a queue, is not the operation's.
    black_box(run());
    let info = allocation_counter::measure(|| {
        for _ in 0..rounds {
            black_box(run());
        }
    });
    let mean = |total: u64| total as f64 / (rounds * operations) as f64;
    let (count, bytes) = (mean(info.count_total), mean(info.bytes_total));
    println!("{label:<40} allocations: {count:.3}/op, {bytes:.1} bytes/op");
}

/// Enough samples to see a change, few enough that a run takes minutes.
pub(crate) fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args()
}
