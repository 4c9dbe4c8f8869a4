//! What both APIs share: the model, the store behind it, and the streams of nodes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info};

use super::model::{Admission, Model};
use super::settings::Settings;
use super::southbound::Stream;
use super::store::{Change, NodeRecord, Store, StoreError};

/// What both APIs share.
pub(super) struct Hub {
    store: Arc<dyn Store>,
    model: Mutex<Model>,
    changed: watch::Sender<()>,
    streams: Mutex<BTreeMap<String, Arc<Stream>>>,
    pub(super) settings: Settings,
    /// Cancelled when the controller stops.
    pub(super) stop: CancellationToken,
    /// The tasks of all streams.
    pub(super) tasks: TaskTracker,
}

impl Hub {
    /// Everything as it was committed.
    pub(super) fn new(settings: Settings, store: Arc<dyn Store>) -> Result<Self, StoreError> {
        let model = Model::new(store.load()?, settings.limits, Instant::now());
        Ok(Self {
            store,
            model: Mutex::new(model),
            changed: watch::Sender::new(()),
            streams: Mutex::default(),
            settings,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })
    }

    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the model.
    pub(super) fn read<T>(&self, look: impl FnOnce(&Model) -> T) -> T {
        look(&self.model())
    }

    /// Changes what is not kept, and has those who wait look again.
    pub(super) fn update<T>(&self, change: impl FnOnce(&mut Model) -> T) -> T {
        let result = self.quietly(change);
        self.changed.send_replace(());
        result
    }

    /// The same, for changes that nobody waits for.
    pub(super) fn quietly<T>(&self, change: impl FnOnce(&mut Model) -> T) -> T {
        let mut model = self.model();
        let result = change(&mut model);
        let settled = model.settled();
        if !settled.is_empty() {
            match self.store.commit(&settled) {
                Ok(()) => {
                    let now = Instant::now();
                    settled.into_iter().for_each(|change| model.apply(change, now));
                }
                // They are found again when the controller starts.
                Err(error) => error!(%error, "Deleted routes could not be removed from the store"),
            }
        }
        result
    }

    /// Commits what `decide` wants changed, and only then makes it so. The model is locked
    /// meanwhile: nothing is decided on what may yet fail.
    pub(super) fn commit<T, E: From<StoreError>>(
        &self,
        decide: impl FnOnce(&Model) -> Result<(Vec<Change>, T), E>,
    ) -> Result<T, E> {
        let mut model = self.model();
        let (changes, result) = decide(&model)?;
        if !changes.is_empty() {
            self.store.commit(&changes)?;
        }
        let now = Instant::now();
        changes.into_iter().for_each(|change| model.apply(change, now));
        drop(model);
        self.changed.send_replace(());
        Ok(result)
    }

    /// Resolves with every change from now on.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The answer of `look`, as soon as there is one; `None` if there is none by `deadline`.
    pub(super) async fn until<T>(
        &self,
        deadline: Instant,
        mut look: impl FnMut(&mut Model) -> Option<T>,
    ) -> Option<T> {
        let mut changes = self.changes();
        loop {
            if let Some(answer) = self.quietly(&mut look) {
                return Some(answer);
            }
            let next = tokio::time::timeout_at(deadline.into(), changes.changed()).await;
            if !matches!(next, Ok(Ok(()))) {
                return self.quietly(&mut look);
            }
        }
    }

    fn streams(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Stream>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stream of a node that is connected.
    pub(super) fn stream(&self, node: &str) -> Option<Arc<Stream>> {
        self.streams().get(node).cloned()
    }

    /// Registers a node whose stream `open` makes, by its number.
    pub(super) fn register(
        &self,
        record: &NodeRecord,
        open: impl FnOnce(u64) -> Stream,
    ) -> Result<Arc<Stream>, Refused> {
        let id = &record.id;
        let mut streams = self.streams();
        self.commit(|model| match model.admission(id) {
            Admission::Taken(generation) => Err(Refused::Taken(generation)),
            Admission::Full => Err(Refused::Full),
            Admission::Free if model.node(id) == Some(record) => Ok((Vec::new(), ())),
            Admission::Free => Ok((vec![Change::PutNode(record.clone())], ())),
        })?;
        let generation = self.update(|model| model.register(id)).expect("it was put there");
        let stream = Arc::new(open(generation));
        streams.insert(id.clone(), Arc::clone(&stream));
        Ok(stream)
    }

    /// A stream has ended; a later one of the same node stays.
    pub(super) fn lose(&self, stream: &Stream) {
        stream.ended.cancel();
        let mut streams = self.streams();
        if streams.get(&stream.node).is_some_and(|now| now.generation == stream.generation) {
            streams.remove(&stream.node);
        }
        self.update(|model| model.lose(&stream.node, stream.generation, Instant::now()));
    }

    /// Removes a node, and ends its stream if it has one. Returns whether there was such a node.
    pub(super) fn remove(&self, id: &str) -> Result<bool, StoreError> {
        let known = self.commit(|model| {
            let known = model.node(id).is_some();
            Ok::<_, StoreError>((if known { model.removal(id) } else { Vec::new() }, known))
        })?;
        if let Some(stream) = self.stream(id) {
            self.lose(&stream);
        }
        Ok(known)
    }

    /// Removes nodes that have been away for as long as the settings say.
    pub(super) async fn expire(&self, limit: Duration) {
        const LOOK: Duration = Duration::from_secs(10);
        let mut looks = tokio::time::interval(LOOK.min(limit / 2).max(Duration::from_millis(10)));
        loop {
            looks.tick().await;
            for lost in self.read(|model| model.lost_for(limit, Instant::now())) {
                match self.remove(&lost.id) {
                    Ok(_) => {
                        let away = lost.away.as_secs();
                        info!(
                            node_id = lost.id,
                            away_seconds = away,
                            "Removed a node that is gone"
                        );
                    }
                    Err(error) => error!(node_id = lost.id, %error, "A node could not be removed"),
                }
            }
        }
    }
}

/// Why a node is not registered.
#[derive(Debug)]
pub(super) enum Refused {
    /// There is a stream of its id, of this number.
    Taken(u64),
    /// There are too many nodes.
    Full,
    /// It could not be kept.
    Store(StoreError),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
