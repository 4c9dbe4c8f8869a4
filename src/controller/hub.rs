//! What both APIs share: the model, the store behind it, and the streams of nodes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::{Handle, RuntimeFlavor};
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
    /// Held from what is decided until it is so. The model is free meanwhile, for a disk takes
    /// long; whoever locks both takes this first.
    turn: Mutex<()>,
    changed: watch::Sender<()>,
    /// Changed only while the model is locked.
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
            turn: Mutex::default(),
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
        let (result, has_settled) = {
            let mut model = self.model();
            let result = change(&mut model);
            (result, model.has_settled())
        };
        if has_settled {
            let settled = |model: &mut Model| Ok::<_, StoreError>((model.settled(), ()));
            if let Err(error) = self.write(settled, |_, ()| {}) {
                // They are found again when the controller starts.
                error!(%error, "Deleted routes could not be removed from the store");
            }
        }
        result
    }

    /// Commits what `decide` wants changed, and only then makes it so. Nothing else is committed
    /// meanwhile: nothing is decided on what may yet fail.
    pub(super) fn commit<T, E: From<StoreError>>(
        &self,
        decide: impl FnOnce(&Model) -> Result<(Vec<Change>, T), E>,
    ) -> Result<T, E> {
        self.commit_then(decide, |_, result| result)
    }

    /// The same; `then` is done before anybody else can see or change what was committed.
    fn commit_then<T, R, E: From<StoreError>>(
        &self,
        decide: impl FnOnce(&Model) -> Result<(Vec<Change>, T), E>,
        then: impl FnOnce(&mut Model, T) -> R,
    ) -> Result<R, E> {
        let result = self.write(|model| decide(model), then)?;
        self.changed.send_replace(());
        Ok(result)
    }

    fn write<T, R, E: From<StoreError>>(
        &self,
        decide: impl FnOnce(&mut Model) -> Result<(Vec<Change>, T), E>,
        then: impl FnOnce(&mut Model, T) -> R,
    ) -> Result<R, E> {
        blocking(|| {
            let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            let (changes, decided) = decide(&mut self.model())?;
            if !changes.is_empty() {
                self.store.commit(&changes)?;
            }
            let mut model = self.model();
            let now = Instant::now();
            changes.into_iter().for_each(|change| model.apply(change, now));
            Ok(then(&mut model, decided))
        })
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
        let admit = |model: &Model| match model.admission(id) {
            Admission::Taken(generation) => Err(Refused::Taken(generation)),
            Admission::Full => Err(Refused::Full),
            Admission::Free if model.node(id) == Some(record) => Ok((Vec::new(), ())),
            Admission::Free => Ok((vec![Change::PutNode(record.clone())], ())),
        };
        self.commit_then(admit, |model, ()| {
            let generation = model.register(id).expect("nobody could remove it since it was put");
            let stream = Arc::new(open(generation));
            self.streams().insert(id.clone(), Arc::clone(&stream));
            stream
        })
    }

    /// A stream has ended; a later one of the same node stays.
    pub(super) fn lose(&self, stream: &Stream) {
        stream.ended.cancel();
        self.update(|model| {
            model.lose(&stream.node, stream.generation, Instant::now());
            let mut streams = self.streams();
            if streams.get(&stream.node).is_some_and(|now| now.generation == stream.generation) {
                streams.remove(&stream.node);
            }
        });
    }

    /// Removes a node, and ends its stream if it has one. Returns whether there was such a node.
    pub(super) fn remove(&self, id: &str) -> Result<bool, StoreError> {
        let decide = |model: &Model| {
            let known = model.node(id).is_some();
            Ok::<_, StoreError>((if known { model.removal(id) } else { Vec::new() }, known))
        };
        let (known, stream) = self.commit_then(decide, |_, known| (known, self.stream(id)))?;
        if let Some(stream) = stream {
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

/// Does what may wait for a disk, without holding up the other tasks of this thread.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        // There are no other tasks, or no other threads that they could go to.
        _ => work(),
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;
    use crate::controller::store::{MemoryStore, State};

    fn hub(store: impl Store + 'static) -> Arc<Hub> {
        Arc::new(Hub::new(Settings::default(), Arc::new(store)).expect("an empty store"))
    }

    fn node() -> NodeRecord {
        NodeRecord { id: "slim/0".into(), group: None, connections: Vec::new(), product: None }
    }

    fn open(generation: u64) -> Stream {
        let (out, _) = tokio::sync::mpsc::channel(1);
        Stream::new("slim/0".into(), generation, false, out, CancellationToken::new())
    }

    const PATIENCE: Duration = Duration::from_secs(60);

    /// A disk that takes as long as the test likes.
    struct Slow {
        begun: mpsc::SyncSender<()>,
        end: Mutex<mpsc::Receiver<()>>,
    }

    impl Store for Slow {
        fn load(&self) -> Result<State, StoreError> {
            Ok(State::default())
        }

        fn commit(&self, _: &[Change]) -> Result<(), StoreError> {
            self.begun.send(()).expect("the test looks");
            let end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
            end.recv().expect("the test ends it");
            Ok(())
        }
    }

    #[test]
    fn what_is_being_written_holds_up_nobody_and_is_seen_only_when_it_is() {
        let ((begun, is_begun), (end, ended)) = (mpsc::sync_channel(1), mpsc::channel());
        let hub = hub(Slow { begun, end: Mutex::new(ended) });
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_time().build().expect("a runtime");
        let writer = Arc::clone(&hub);
        let written = runtime.spawn(async move {
            let put = vec![Change::PutNode(node())];
            writer.commit(|_| Ok::<_, StoreError>((put, ())))
        });
        is_begun.recv().expect("it is being written");
        let reader = Arc::clone(&hub);
        // There is one worker thread, which waits for the disk.
        let read =
            runtime.spawn(async move { reader.read(|model| model.node("slim/0").is_some()) });
        let read = runtime.block_on(async { tokio::time::timeout(PATIENCE, read).await });
        assert!(!read.expect("nothing holds it up").expect("no panic"));
        end.send(()).expect("it waits");
        runtime.block_on(written).expect("no panic").expect("written");
        assert!(hub.read(|model| model.node("slim/0").is_some()));
    }

    #[test]
    fn a_node_may_be_removed_whenever_it_registers() {
        let hub = hub(MemoryStore::default());
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        if let Ok(stream) = hub.register(&node(), open) {
                            hub.lose(&stream);
                        }
                    }
                });
            }
            scope.spawn(|| {
                for _ in 0..8_000 {
                    hub.remove("slim/0").expect("removed");
                }
            });
        });
        hub.remove("slim/0").expect("removed");
        assert!(hub.stream("slim/0").is_none(), "no stream without a node");
        let stream = hub.register(&node(), open).expect("nobody is there");
        assert_eq!(hub.read(|model| model.live("slim/0")), Some(stream.generation));
        hub.remove("slim/0").expect("removed");
        assert!(stream.ended.is_cancelled() && hub.stream("slim/0").is_none());
    }
}
