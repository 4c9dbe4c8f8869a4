use std::sync::{Arc, Mutex, PoisonError};

use super::{Change, State, Store, StoreError};

/// Keeps everything until the process ends. Clones share what they keep.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
}

impl Store for MemoryStore {
    fn load(&self) -> Result<State, StoreError> {
        Ok(self.state.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        changes.iter().for_each(|change| state.apply(change));
        Ok(())
    }
}
