//! Where an app keeps what outlives its process: its id, and what its sessions store.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use slim_wire::Id;

/// A folder of one app, readable by its user alone.
#[derive(Clone, Debug)]
pub(super) struct Folder(PathBuf);

/// The file of a session's state, beside that of its keys in the folder named by its number.
const SESSION: &str = "session";
const ID: &str = "id";

impl Folder {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        Ok(Self(path.to_owned()))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The app's id: the one of its first process, or `new`.
    pub(super) fn id(&self, new: Id) -> io::Result<Id> {
        let path = self.0.join(ID);
        match fs::read_to_string(&path) {
            Ok(text) => {
                let wrong = || io::Error::new(io::ErrorKind::InvalidData, format!("id {text:?}"));
                text.trim().parse().map(Id::new).map_err(|_| wrong())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write(&path, new.as_u128().to_string().as_bytes())?;
                Ok(new)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn save(&self, session: u32, state: &[u8]) -> io::Result<()> {
        let folder = self.0.join(session.to_string());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        write(&folder.join(SESSION), state)
    }

    pub(super) fn forget(&self, session: u32) {
        // It may never have been stored.
        let _ = fs::remove_dir_all(self.0.join(session.to_string()));
    }

    /// What is stored of each session.
    pub(super) fn sessions(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut sessions = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            match fs::read(entry?.path().join(SESSION)) {
                Ok(state) => sessions.push(state),
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(sessions)
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Writes all or nothing, whenever the process ends.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let options = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).clone();
    let mut file: File = options.open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)
}
