//! What a crash leaves of a database that was being made.
//!
//! redb writes the bytes by which it knows a database last, and refuses a file without them unless
//! it is empty. A controller that crashes while it makes its file could so never start again.

use std::io::{self, ErrorKind};
use std::ops::Bound;

use redb::{BackendError, StorageBackend};

/// The first bytes of every database of redb.
const MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";
/// Where the header ends at the latest. Nothing behind it is written before the magic bytes are.
const HEADER: usize = 512;
/// A database that is being made is smaller, so that no large file is read in vain.
const LARGEST: u64 = 64 * 1024 * 1024;

/// Empties `backend` if all that it holds is a database that was never completed.
///
/// # Errors
/// Those of the backend; [`ErrorKind::WouldBlock`] if another process uses it.
pub(super) fn clear(backend: &impl StorageBackend) -> io::Result<()> {
    const ALL: (Bound<u64>, Bound<u64>) = (Bound::Unbounded, Bound::Unbounded);
    let is_locked = match backend.try_lock_range(ALL.0, ALL.1) {
        Ok(true) => true,
        Ok(false) => return Err(ErrorKind::WouldBlock.into()),
        Err(BackendError::Unsupported) => false,
        Err(error) => return Err(error.into()),
    };
    let cleared = clear_locked(backend);
    if is_locked {
        backend.unlock_range(ALL.0, ALL.1)?;
    }
    cleared
}

fn clear_locked(backend: &impl StorageBackend) -> io::Result<()> {
    if is_unfinished(backend)? {
        backend.set_len(0)?;
        backend.sync_data()?;
    }
    Ok(())
}

fn is_unfinished(backend: &impl StorageBackend) -> io::Result<bool> {
    let len = backend.len()?;
    if len == 0 || len > LARGEST {
        return Ok(false);
    }
    let mut bytes = vec![0; usize::try_from(len).expect("at most LARGEST")];
    let (header, _) = bytes.split_at_mut(HEADER.min(len as usize));
    backend.read(0, header)?;
    let (magic, _) = header.split_at(MAGIC.len().min(header.len()));
    // A part of the magic bytes may have been written, with nothing behind it.
    let written =
        magic.iter().zip(MAGIC).take_while(|(byte, of_magic)| **byte == *of_magic).count();
    let is_short_text = written > 0 && len <= HEADER as u64;
    if written == MAGIC.len() || is_short_text || magic[written..].iter().any(|byte| *byte != 0) {
        return Ok(false);
    }
    backend.read(0, &mut bytes)?;
    Ok(bytes.iter().skip(HEADER).all(|byte| *byte == 0))
}
