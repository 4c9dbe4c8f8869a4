//! Memory that datagrams are received in.

// The one place with `unsafe` code: without it all memory would be cleared once more for every use.
#![allow(unsafe_code)]

use std::collections::VecDeque;

use bytes::BytesMut;

/// The most that the kernel joins into one receive.
pub(super) const RECEIVE_BYTES: usize = 64 * 1024;

/// Memory that received datagrams are cut from. One that is small enough stays in the cache.
const SLAB_BYTES: usize = 4 * RECEIVE_BYTES;

/// Slabs that wait to be used again; beyond that their memory is given back.
const RETIRED_SLABS: usize = 16;

/// Memory for receiving, used again once nothing that was received in it is held any more. Fresh
/// memory would have to be cleared by the kernel page by page, which costs more than a receive.
pub(super) struct Slabs {
    current: BytesMut,
    retired: VecDeque<Slab>,
}

/// What is left of a slab from which datagrams were cut: no more than a handle to its memory, all
/// of which has been cleared once.
struct Slab(BytesMut);

impl Slabs {
    /// A slab with room for a receive.
    pub(super) fn current(&mut self) -> &mut BytesMut {
        if self.current.len() < RECEIVE_BYTES {
            let next = self.reclaimed().unwrap_or_else(|| BytesMut::zeroed(SLAB_BYTES));
            let mut used = std::mem::replace(&mut self.current, next);
            used.clear();
            if self.retired.len() < RETIRED_SLABS {
                self.retired.push_back(Slab(used));
            }
        }
        &mut self.current
    }

    /// The slab that was retired first, if all that was cut from it is gone.
    fn reclaimed(&mut self) -> Option<BytesMut> {
        let mut slab = self.retired.pop_front()?;
        if slab.0.try_reclaim(SLAB_BYTES) {
            return Some(slab.whole());
        }
        self.retired.push_back(slab);
        None
    }
}

impl Default for Slabs {
    fn default() -> Self {
        Self { current: BytesMut::zeroed(SLAB_BYTES), retired: VecDeque::new() }
    }
}

impl Slab {
    /// The slab at its full length, once it alone holds its memory again.
    fn whole(self) -> BytesMut {
        let Self(mut slab) = self;
        if !slab.is_empty() || slab.capacity() != SLAB_BYTES {
            // It does not begin where its memory does, or has more of it than was asked for.
            return BytesMut::zeroed(SLAB_BYTES);
        }
        // SAFETY: the capacity is `SLAB_BYTES`, as was just checked, and all these bytes are
        // initialised: this memory was made by `BytesMut::zeroed(SLAB_BYTES)` and has never grown, so
        // a slab with all of that capacity begins where the memory does; and what has been written to
        // initialised bytes since has left them initialised.
        unsafe { slab.set_len(SLAB_BYTES) };
        slab
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes all receives that a slab has room for, of `length` bytes each.
    fn use_up(slabs: &mut Slabs, length: usize) -> Vec<BytesMut> {
        let receives = SLAB_BYTES / RECEIVE_BYTES;
        (0..receives).map(|_| slabs.current().split_to(length)).collect()
    }

    #[test]
    fn a_slab_is_used_again_once_nothing_of_it_is_held() {
        let mut slabs = Slabs::default();
        let mut cut = use_up(&mut slabs, RECEIVE_BYTES);
        let memory = cut[0].as_ptr();
        cut.iter_mut().for_each(|datagram| datagram.fill(7));
        let frozen: Vec<_> = cut.into_iter().map(BytesMut::freeze).collect();
        let held = use_up(&mut slabs, RECEIVE_BYTES);
        assert_ne!(held[0].as_ptr(), memory, "it is still held");
        drop(frozen);
        let again = use_up(&mut slabs, RECEIVE_BYTES);
        assert_eq!(again[0].as_ptr(), memory);
        assert!(again.iter().all(|datagram| datagram.iter().all(|byte| *byte == 7)));
    }

    #[test]
    fn a_slab_is_whole_again_after_short_receives_too() {
        let mut slabs = Slabs::default();
        for _ in 0..100 {
            for length in [0, 1, 1452, 9_000, RECEIVE_BYTES] {
                let slab = slabs.current();
                assert!(slab.len() >= RECEIVE_BYTES);
                let datagram = slab.split_to(length);
                assert_eq!(datagram.iter().filter(|byte| **byte != 0).count(), 0);
            }
        }
    }

    #[test]
    fn few_slabs_are_kept() {
        let mut slabs = Slabs::default();
        let held: Vec<_> = (0..100).flat_map(|_| use_up(&mut slabs, RECEIVE_BYTES)).collect();
        assert_eq!(slabs.retired.len(), RETIRED_SLABS);
        drop(held);
        assert!(slabs.reclaimed().is_some());
    }
}
