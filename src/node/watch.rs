//! Files that the node reads again while it runs: certificates, keys, authorities.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::{Notify, mpsc};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};

use super::StartError;
use crate::datapath::Counter;

/// How often all files are read. Their content is compared rather than waited for: Kubernetes
/// swaps symbolic links, of which the files themselves know nothing.
const LOOK: Duration = Duration::from_secs(1);

/// Something that is made from files.
pub(super) trait Watched: Send {
    /// Which of the node's blocks, for the log.
    fn place(&self) -> &str;

    /// Reads the files, and puts what they hold in place of what they held before. Returns
    /// whether it is another.
    ///
    /// # Errors
    /// Why it cannot be used; all stays as it was.
    fn look(&mut self) -> Result<bool, String>;

    /// Whether somebody still uses what is made from the files.
    fn is_wanted(&self) -> bool {
        true
    }
}

/// How often what files hold was replaced.
#[derive(Debug, Default)]
pub(super) struct Reloads {
    /// Certificates, keys and authorities.
    pub(super) files: Outcomes,
    /// The configuration.
    pub(super) config: Outcomes,
}

/// What became of new contents.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    /// They were taken.
    pub(super) taken: Counter,
    /// They could not be used.
    pub(super) refused: Counter,
}

/// Looks at files, on a thread of its own, so that no core waits for a disk. What else has to be
/// done beside the cores, such as fetching keys, is done there too.
pub(crate) struct Watcher {
    runtime: Option<Runtime>,
    watched: Vec<Box<dyn Watched>>,
    has_tasks: bool,
    more: (MoreWatched, mpsc::UnboundedReceiver<Vec<Box<dyn Watched>>>),
}

/// Has the thread of a watcher look at more files than it was started with.
#[derive(Clone)]
pub(crate) struct MoreWatched(mpsc::UnboundedSender<Vec<Box<dyn Watched>>>);

impl MoreWatched {
    /// Makes something that has files to be looked at from now on, for as long as it is wanted.
    pub(crate) fn with<T, E>(
        &self,
        make: impl FnOnce(&mut Watcher) -> Result<T, E>,
    ) -> Result<T, E> {
        let (unused, receiver) = mpsc::unbounded_channel();
        let more = (Self(unused), receiver);
        let mut watcher = Watcher { runtime: None, watched: Vec::new(), has_tasks: false, more };
        let made = make(&mut watcher)?;
        // Without the thread the node is stopping.
        let _ = self.0.send(std::mem::take(&mut watcher.watched));
        Ok(made)
    }
}

/// The watcher's thread; it ends soon after this is dropped.
pub(crate) struct Watching {
    pub(super) reloads: Arc<Reloads>,
    now: Arc<Notify>,
    _stop: Option<DropGuard>,
}

impl Watching {
    /// Has all files read at once.
    pub(crate) fn look(&self) {
        self.now.notify_one();
    }
}

impl Watcher {
    pub(crate) fn new() -> Result<Self, StartError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let system = |source| StartError::System { what: "the runtime of the watcher", source };
        let runtime = Some(runtime.map_err(system)?);
        let (more, receiver) = mpsc::unbounded_channel();
        let more = (MoreWatched(more), receiver);
        Ok(Self { runtime, watched: Vec::new(), has_tasks: false, more })
    }

    /// By which more files can be looked at once the thread runs.
    pub(crate) fn more(&self) -> MoreWatched {
        self.more.0.clone()
    }

    /// Has files looked at from now on.
    pub(super) fn add(&mut self, watched: impl Watched + 'static) {
        self.watched.push(Box::new(watched));
    }

    /// The runtime of the watcher's thread, for what starts tasks.
    pub(super) fn runtime(&mut self) -> &Runtime {
        self.has_tasks = true;
        self.runtime.as_ref().expect("it is there until the thread takes it")
    }

    /// Starts the thread, if there is anything to do.
    pub(crate) fn start(mut self) -> Result<Watching, StartError> {
        let (reloads, now) = (Arc::<Reloads>::default(), Arc::<Notify>::default());
        if self.watched.is_empty() && !self.has_tasks {
            return Ok(Watching { reloads, now, _stop: None });
        }
        let runtime = self.runtime.take().expect("it is started once");
        let items = std::mem::take(&mut self.watched).into_iter();
        let items = items.map(|watched| Item { watched, failed: None }).collect();
        let (stop, counts) = (CancellationToken::new(), Arc::clone(&reloads));
        let asked = Arc::clone(&now);
        let more = std::mem::replace(&mut self.more.1, mpsc::unbounded_channel().1);
        let stopped = stop.clone();
        std::thread::Builder::new()
            .name("slim-watch".into())
            .spawn(move || {
                let watch = watch(items, more, &counts.files, &asked);
                runtime.block_on(stopped.run_until_cancelled(watch));
                // A task may be waiting for a name to be looked up.
                runtime.shutdown_background();
            })
            .map_err(|source| StartError::System { what: "the thread of the watcher", source })?;
        Ok(Watching { reloads, now, _stop: Some(stop.drop_guard()) })
    }
}

/// A runtime must not be waited for where others are driven.
impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

struct Item {
    watched: Box<dyn Watched>,
    /// What is wrong with what the files hold now.
    failed: Option<String>,
}

async fn watch(
    mut items: Vec<Item>,
    mut more: mpsc::UnboundedReceiver<Vec<Box<dyn Watched>>>,
    reloads: &Outcomes,
    asked: &Notify,
) {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            () = asked.notified() => {}
            Some(more) = more.recv() => {
                items.extend(more.into_iter().map(|watched| Item { watched, failed: None }));
                continue;
            }
        }
        items.retain(|item| item.watched.is_wanted());
        for item in &mut items {
            item.look(reloads);
        }
    }
}

impl Item {
    /// What is wrong is told once, not with every look.
    fn look(&mut self, reloads: &Outcomes) {
        let place = self.watched.place().to_owned();
        match self.watched.look() {
            Ok(false) => self.failed = None,
            Ok(true) => {
                reloads.taken.add(1);
                info!(place, "files were read again");
                self.failed = None;
            }
            Err(error) if self.failed.as_ref() == Some(&error) => {}
            Err(error) => {
                reloads.refused.add(1);
                warn!(place, %error, "files cannot be used, what was read before is kept");
                self.failed = Some(error);
            }
        }
    }
}
