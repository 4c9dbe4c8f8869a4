use std::path::PathBuf;

use super::group::{OpenMls, Store};
use super::{Mls, MlsError, MlsFactory};
use crate::identity::Identity;

/// Makes the members of an app's sessions, each with a signature key of its own.
#[derive(Clone)]
pub struct Factory {
    identity: Identity,
    folder: Option<PathBuf>,
}

impl Factory {
    /// Members that live in memory.
    pub fn new(identity: Identity) -> Self {
        Self { identity, folder: None }
    }

    /// Members that [`Factory::open`] stores in this folder, each in one of its own that is named
    /// by the session's id.
    pub fn in_folder(identity: Identity, folder: impl Into<PathBuf>) -> Self {
        Self { identity, folder: Some(folder.into()) }
    }

    /// The member of the session with this id: as it was stored, or a new one. In memory, if the
    /// factory has no folder.
    ///
    /// # Errors
    /// [`MlsError::Internal`] if what is stored cannot be used.
    pub fn open(&self, id: u32) -> Result<OpenMls, MlsError> {
        let store = match &self.folder {
            Some(folder) => Store::File(folder.join(id.to_string())),
            None => Store::Memory,
        };
        OpenMls::open(self.identity.clone(), store)
    }
}

impl MlsFactory for Factory {
    fn session(&mut self, id: u32) -> Result<Box<dyn Mls>, MlsError> {
        if let Some(folder) = &self.folder
            && folder.join(id.to_string()).exists()
        {
            // Whoever invites to a session by this number must not be able to delete it.
            return Err(MlsError::Internal(format!("session {id} is stored, and not open")));
        }
        Ok(Box::new(self.open(id)?))
    }

    fn reopen(&mut self, id: u32) -> Result<Box<dyn Mls>, MlsError> {
        Ok(Box::new(self.open(id)?))
    }

    fn forget(&mut self, id: u32) {
        if let Some(folder) = &self.folder {
            // It may never have been stored.
            let _ = std::fs::remove_dir_all(folder.join(id.to_string()));
        }
    }
}
