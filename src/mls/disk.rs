//! One member's state in a file, replaced as a whole.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | `slim-mls` |
//! | 8 | 4 | version of this layout: 1 |
//! | 12 | 4 | messages that may have been encrypted since |
//! | 16 | 8 | length of the records in bytes |
//! | 24 | | records: length of key, length of value (4 bytes each), key, value |
//! | | 32 | SHA-256 of all before |
//!
//! Numbers are little endian.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use zeroize::Zeroizing;

use super::MlsError;
use super::storage::Records;

const MAGIC: &[u8; 8] = b"slim-mls";
const VERSION: u32 = 1;
const HEAD: usize = 24;
const DIGEST: usize = 32;

/// No state is longer: that of a group with a thousand members, all of whom skip messages.
const FILE_BYTES: u64 = 1 << 30;

/// The folder of one member. While it is open, nobody else can open it: two that encrypt from one
/// state would use the same keys.
#[derive(Debug)]
pub(super) struct Disk {
    folder: PathBuf,
    _lock: File,
}

/// What was read.
pub(super) struct Stored {
    pub(super) records: Records,
    /// How many messages may have been encrypted since it was written.
    pub(super) reserved: u32,
}

/// Takes the lock. A child process that was just begun may hold on to the one of before until it
/// runs its own program.
fn acquire(lock: &File) -> Result<(), TryLockError> {
    const TRIES: u32 = 20;
    const PAUSE: Duration = Duration::from_millis(10);
    for _ in 0..TRIES {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => thread::sleep(PAUSE),
            result => return result,
        }
    }
    lock.try_lock()
}

impl Disk {
    /// Opens the folder; makes it if there is none.
    pub(super) fn open(folder: &Path) -> Result<Self, MlsError> {
        let failed = |error: &dyn std::fmt::Display| at(folder, error);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|error| failed(&error))?;
        let lock =
            private().truncate(false).open(folder.join("lock")).map_err(|error| failed(&error))?;
        acquire(&lock).map_err(|error| failed(&format!("in use by another: {error}")))?;
        Ok(Self { folder: folder.to_owned(), _lock: lock })
    }

    /// What is there, if there is something.
    pub(super) fn read(&self) -> Result<Option<Stored>, MlsError> {
        let path = self.path();
        let length = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(at(&path, &error)),
        };
        if length > FILE_BYTES {
            return Err(at(&path, &format!("expected at most 1 GiB, got {length} bytes")));
        }
        let bytes = fs::read(&path).map(Zeroizing::new).map_err(|error| at(&path, &error))?;
        decode(&bytes).map(Some).map_err(|reason| at(&path, &reason))
    }

    /// Puts a state in the place of what was there: after a crash there is one or the other.
    pub(super) fn replace(&self, records: &Records, reserved: u32) -> Result<(), MlsError> {
        let (path, new) = (self.path(), self.folder.join("state.new"));
        let write = || -> io::Result<()> {
            let mut file = private().truncate(true).open(&new)?;
            file.write_all(&encode(records, reserved))?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|error| at(&path, &error))
    }

    fn path(&self) -> PathBuf {
        self.folder.join("state")
    }
}

/// Files that nobody else may read.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true).write(true).mode(0o600);
    options
}

fn at(path: &Path, error: &dyn std::fmt::Display) -> MlsError {
    MlsError::Internal(format!("stored MLS state: {}: {error}", path.display()))
}

fn encode(records: &Records, reserved: u32) -> Zeroizing<Vec<u8>> {
    let length: usize = records.iter().map(|(key, value)| 8 + key.len() + value.len()).sum();
    let mut bytes = Zeroizing::new(Vec::with_capacity(HEAD + length + DIGEST));
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&reserved.to_le_bytes());
    bytes.extend_from_slice(&(length as u64).to_le_bytes());
    for (key, value) in records {
        bytes.extend_from_slice(&(key.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value);
    }
    let sum = digest(&SHA256, &bytes);
    bytes.extend_from_slice(sum.as_ref());
    bytes
}

fn decode(bytes: &[u8]) -> Result<Stored, String> {
    let mut rest = bytes;
    if take(&mut rest, MAGIC.len()) != Some(MAGIC) {
        return Err("expected a state of this library, got another file".into());
    }
    let version = number(&mut rest).ok_or("cut in its head")?;
    if version != VERSION {
        return Err(format!("expected version {VERSION}, got {version}"));
    }
    let reserved = number(&mut rest).ok_or("cut in its head")?;
    let length = take(&mut rest, 8).and_then(|bytes| bytes.try_into().ok());
    let length = length.map(u64::from_le_bytes).ok_or("cut in its head")?;
    let expected = length.saturating_add((HEAD + DIGEST) as u64);
    if bytes.len() as u64 != expected {
        return Err(format!("expected {expected} bytes, got {}", bytes.len()));
    }
    let (body, sum) = bytes.split_at(bytes.len() - DIGEST);
    if digest(&SHA256, body).as_ref() != sum {
        return Err("damaged: its checksum differs".into());
    }
    let mut rest = &body[HEAD..];
    let mut records = Records::new();
    while !rest.is_empty() {
        let record = record(&mut rest).ok_or("damaged: a record is cut")?;
        records.insert(record.0.to_vec(), Zeroizing::new(record.1.to_vec()));
    }
    Ok(Stored { records, reserved })
}

fn record<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let (key, value) = (number(rest)?, number(rest)?);
    Some((take(rest, key as usize)?, take(rest, value as usize)?))
}

fn number(rest: &mut &[u8]) -> Option<u32> {
    take(rest, 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    rest.split_off(..length)
}
