//! What is drawn once per seed: who takes part, and how bad the network is.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, RngExt};
use slim_quic::session::Limits;

#[derive(Clone, Debug)]
pub(crate) struct Profile {
    pub(crate) apps: usize,
    /// So many of the apps are instances of one name.
    pub(crate) pool: usize,
    pub(crate) limits: Limits,
    pub(crate) cores: usize,
    /// Of each egress queue of the node.
    pub(crate) queue_bytes: usize,
    pub(crate) faults: Faults,
    /// How long things go wrong.
    pub(crate) chaos: Duration,
    pub(crate) operations: usize,
    /// Crashes, partitions and the like.
    pub(crate) accidents: usize,
    pub(crate) encrypted: bool,
}

/// Chances per message, in thousandths.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    pub(crate) lost: u32,
    pub(crate) doubled: u32,
    /// Out of its lane's order.
    pub(crate) late: u32,
    pub(crate) delay: Duration,
}

pub(crate) fn pick<T: Copy>(rng: &mut StdRng, of: &[T]) -> T {
    of[rng.random_range(0..of.len())]
}

pub(crate) fn chance(rng: &mut StdRng, thousandths: u32) -> bool {
    thousandths > 0 && rng.next_u32() % 1000 < thousandths
}

impl Profile {
    pub(crate) fn draw(rng: &mut StdRng) -> Self {
        let apps = pick(rng, &[2, 2, 3, 3, 3, 4, 4, 5, 6, 8]);
        let limits = Limits {
            window_messages: pick(rng, &[4, 16, 64, 256]),
            window_bytes: pick(rng, &[200, 1 << 20, 1 << 20, 1 << 20]),
            inbox_messages: pick(rng, &[4, 16, 1024, 1024]),
            inbox_bytes: pick(rng, &[300, 1 << 20, 1 << 20, 1 << 20]),
            key_rotation: Duration::from_secs(pick(rng, &[3600, 3600, 2, 7, 20])),
            ..Limits::default()
        };
        Self {
            apps,
            pool: pick(rng, &[0, 0, 2, 3]).min(apps - 1),
            limits,
            cores: pick(rng, &[1, 1, 1, 2]),
            queue_bytes: pick(rng, &[1 << 20, 1 << 20, 6000]),
            faults: Faults::draw(rng),
            chaos: Duration::from_secs(pick(rng, &[5, 5, 10, 20, 100])),
            operations: rng.random_range(6..30),
            accidents: pick(rng, &[0, 0, 1, 2, 4]),
            encrypted: rng.random(),
        }
    }
}

impl Faults {
    fn draw(rng: &mut StdRng) -> Self {
        Self {
            lost: pick(rng, &[0, 0, 10, 50, 200]),
            doubled: pick(rng, &[0, 0, 20, 100]),
            late: pick(rng, &[0, 0, 20, 100]),
            delay: Duration::from_millis(pick(rng, &[1, 5, 20, 100])),
        }
    }

    pub(crate) const NONE: Self =
        Self { lost: 0, doubled: 0, late: 0, delay: Duration::from_millis(5) };
}
