//! A disk that can lose power.

use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard};

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use redb::StorageBackend;

/// What is written at once, if power is lost in between.
const SECTOR: usize = 512;

/// What a sync does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Sync {
    /// All that was written before stays.
    Honest,
    /// Nothing; it only says so.
    Lies,
}

/// A disk that keeps what was written since the last sync in memory. Clones are the same disk.
#[derive(Clone, Debug)]
pub(crate) struct Disk(Arc<Mutex<Medium>>);

#[derive(Debug)]
struct Medium {
    sync: Sync,
    /// What stays.
    durable: Vec<u8>,
    /// What a program sees.
    seen: Vec<u8>,
    /// What makes the second of the first.
    unsynced: Vec<Step>,
    /// How many steps are taken before the next fails, and how.
    left: Option<(u64, ErrorKind)>,
    failed: Option<ErrorKind>,
}

#[derive(Clone, Debug)]
enum Step {
    Write { offset: usize, data: Vec<u8> },
    Length(usize),
}

impl Disk {
    pub(crate) fn new(sync: Sync) -> Self {
        Self::holding(sync, Vec::new())
    }

    /// A disk with `bytes` on it.
    pub(crate) fn holding(sync: Sync, bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Medium {
            sync,
            seen: bytes.clone(),
            durable: bytes,
            unsynced: Vec::new(),
            left: None,
            failed: None,
        })))
    }

    /// Takes `steps` more writes, changes of length and syncs, and fails from then on. The step at
    /// which it fails may be taken in part.
    pub(crate) fn fail_after(&self, steps: u64, kind: ErrorKind) {
        self.medium().left = Some((steps, kind));
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.medium().failed.is_some()
    }

    /// Works again, with all that was written.
    pub(crate) fn repair(&self) {
        let mut medium = self.medium();
        (medium.left, medium.failed) = (None, None);
    }

    /// Works again, after power was lost: of what was not synced some is there, in whole or in
    /// part, whatever was written first.
    pub(crate) fn lose_power(&self, rng: &mut StdRng) {
        let mut medium = self.medium();
        (medium.left, medium.failed) = (None, None);
        let mut steps = std::mem::take(&mut medium.unsynced);
        steps.shuffle(rng);
        let kept = [0.0, 0.1, 0.5, 0.9, 1.0][rng.random_range(0..5)];
        let mut length = medium.durable.len();
        for step in steps {
            if !rng.random_bool(kept) {
                continue;
            }
            match step {
                Step::Length(new) => length = new,
                Step::Write { offset, data } => {
                    tear(&mut medium.durable, offset, &data, rng);
                }
            }
        }
        resize(&mut medium.durable, length);
        medium.seen = medium.durable.clone();
    }

    /// All that a program sees.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.medium().seen.clone()
    }

    fn medium(&self) -> MutexGuard<'_, Medium> {
        self.0.lock().expect("no panic while it is held")
    }
}

/// `Vec::resize` with zeros, which takes each byte for itself where nothing is optimised.
fn resize(bytes: &mut Vec<u8>, length: usize) {
    let mut resized = vec![0; length];
    let kept = length.min(bytes.len());
    resized[..kept].copy_from_slice(&bytes[..kept]);
    *bytes = resized;
}

/// Writes all of `data`, or its begin, or some sectors of it.
fn tear(bytes: &mut Vec<u8>, offset: usize, data: &[u8], rng: &mut StdRng) {
    if bytes.len() < offset + data.len() {
        resize(bytes, offset + data.len());
    }
    let place = &mut bytes[offset..offset + data.len()];
    match rng.random_range(0..4) {
        0 => {
            let written = rng.random_range(0..=data.len());
            place[..written].copy_from_slice(&data[..written]);
        }
        1 => {
            for (place, data) in place.chunks_mut(SECTOR).zip(data.chunks(SECTOR)) {
                if rng.random_bool(0.5) {
                    place.copy_from_slice(data);
                }
            }
        }
        _ => place.copy_from_slice(data),
    }
}

impl Medium {
    fn check(&self) -> io::Result<()> {
        match self.failed {
            Some(kind) => Err(kind.into()),
            None => Ok(()),
        }
    }

    /// Takes `step`, or fails at it.
    fn take(&mut self, step: Step) -> io::Result<()> {
        self.check()?;
        self.unsynced.push(step);
        self.count()?;
        match self.unsynced.last().expect("just pushed") {
            Step::Length(length) => resize(&mut self.seen, *length),
            Step::Write { offset, data } => {
                let place = self.seen.get_mut(*offset..offset + data.len());
                place.ok_or(ErrorKind::UnexpectedEof)?.copy_from_slice(data);
            }
        }
        Ok(())
    }

    fn count(&mut self) -> io::Result<()> {
        match &mut self.left {
            None => Ok(()),
            Some((0, kind)) => {
                self.failed = Some(*kind);
                self.check()
            }
            Some((left, _)) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    fn make_durable(&mut self) {
        for step in self.unsynced.drain(..) {
            match step {
                Step::Length(length) => resize(&mut self.durable, length),
                Step::Write { offset, data } => {
                    self.durable[offset..offset + data.len()].copy_from_slice(&data);
                }
            }
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        let medium = self.medium();
        medium.check()?;
        Ok(medium.seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let medium = self.medium();
        medium.check()?;
        let offset = usize::try_from(offset).map_err(|_| ErrorKind::UnexpectedEof)?;
        let end = offset.checked_add(out.len()).ok_or(ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(medium.seen.get(offset..end).ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.medium().take(Step::Length(length as usize))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut medium = self.medium();
        medium.check()?;
        medium.count()?;
        if medium.sync == Sync::Honest {
            medium.make_durable();
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.medium().take(Step::Write { offset: offset as usize, data: data.to_vec() })
    }
}
