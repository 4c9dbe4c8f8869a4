use std::hash::{BuildHasher, Hasher, RandomState};

use super::say;

/// Chance that can be had again: SplitMix64.
pub(crate) struct Seeded(u64);

impl Seeded {
    /// From `SLIM_SEED`, or any; the seed is printed.
    pub(crate) fn new(test: &str) -> Self {
        let given = std::env::var("SLIM_SEED").ok();
        let given = given.map(|seed| seed.parse().expect("SLIM_SEED is a number"));
        let seed = given.unwrap_or_else(|| RandomState::new().build_hasher().finish());
        say(&format!("{test}: SLIM_SEED={seed}"));
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}
