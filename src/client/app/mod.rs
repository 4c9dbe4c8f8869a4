//! Apps: a name, an identity, links to nodes, and sessions.
//!
//! The [crate's page](crate) shows an app that opens a session. Here is one that waits for those
//! that others open, and answers:
//!
//! ```no_run
//! # async fn example(app: slim_quic::client::App) -> Result<(), Box<dyn std::error::Error>> {
//! let session = app.listen_for_session(None).await?;
//! while let Ok((context, payload)) = session.get_message().await {
//!     session.publish_to(&context, payload).await?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! And the moderator of an encrypted group:
//!
//! ```no_run
//! # use slim_quic::client::{App, Config};
//! # async fn example(app: App) -> Result<(), Box<dyn std::error::Error>> {
//! let group = app.create_session(Config::group(&"org/ns/chat".parse()?).encrypted())?;
//! group.invite(&"org/ns/bob".parse()?)?.done().await?;
//! group.publish("welcome, bob").await?;
//! # Ok(())
//! # }
//! ```
//!
//! - **Kinds.** [`Config::anycast`]: each message to any instance of an app.
//!   [`Config::point_to_point`]: all to one instance. [`Config::group`]: to all members of
//!   a channel, whom its creator, the moderator, invites.
//! - **Reliable** with [`Config::reliable`]: what does not arrive is sent again, in the end the
//!   sender is told. Groups always are. **Encrypted** with [`Config::encrypted`]: end to end, with
//!   MLS.
//! - **The control plane** may have an app moderate groups, which it gets as if another app had
//!   opened them: see [`AppOptions::control_plane`].
//! - **Links** that are lost are made anew; sessions go on where they were.
//! - **Errors** say whose [`fault`](AppError::fault) they are and give a [`hint`](AppError::hint).

mod connection;
mod convert;
mod error;
mod folder;
mod session;
mod shared;
mod trace;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rand::rngs::{StdRng, SysRng};
use rand::{Rng, SeedableRng};
use slim_wire::{Id, Name, TextName};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::connection::Connection;
pub use self::error::AppError;
use self::folder::Folder;
pub use self::session::{Operation, PublishOptions, Session};
use self::shared::Shared;
pub use self::trace::trace_context;
use crate::client::link::LinkOptions;
use crate::identity::{Identity, IdentityError};
use crate::mls::Factory;
use crate::session::{
    Config, ControlCounts, ControlPlane, Endpoint, Limits, LinkId, SessionError, Setup,
};

/// An app: its name, its identity, its links and its sessions; see the [module](self).
///
/// When it is dropped its sessions end and nobody is told; stored ones can go on in a later process.
/// [`App::close`] tells all members first.
pub struct App {
    name: TextName,
    shared: Arc<Shared>,
    links: Mutex<Links>,
    tasks: TaskTracker,
    folder: Option<Folder>,
}

#[derive(Default)]
struct Links {
    /// Number of the last one.
    next: u32,
    stops: BTreeMap<LinkId, CancellationToken>,
}

/// What an app may be given beside its name and identity.
#[derive(Clone, Debug, Default)]
pub struct AppOptions {
    /// Bounds of what its sessions keep.
    pub limits: Limits,
    /// A folder of this app alone, in which it stores its id and its encrypted groups, so that
    /// they outlive its process: see [`App::restore_sessions`]. Default: none.
    pub folder: Option<PathBuf>,
    /// Who may have it moderate groups, which it then gets by [`App::listen_for_session`]. Default:
    /// who has good tokens with the subject `control-plane`.
    pub control_plane: ControlPlane,
}

impl App {
    /// An app by this name. Without an id in it, a random one is drawn. Has to be called inside a
    /// tokio runtime.
    ///
    /// # Errors
    /// [`AppError::Identity`] if the identity has no token.
    pub fn new(name: &TextName, identity: Identity) -> Result<Self, AppError> {
        Self::with_options(name, identity, AppOptions::default())
    }

    /// An app by this name, with options.
    ///
    /// # Errors
    /// As [`App::new`].
    pub fn with_options(
        name: &TextName,
        identity: Identity,
        options: AppOptions,
    ) -> Result<Self, AppError> {
        identity.source.token(SystemTime::now())?;
        let mut rng = StdRng::try_from_rng(&mut SysRng)
            .map_err(|error| AppError::Randomness(error.to_string()))?;
        let failed = |source| {
            let folder = options.folder.clone().unwrap_or_default();
            AppError::Folder { folder, source }
        };
        let folder = options.folder.as_deref().map(Folder::open).transpose().map_err(failed)?;
        // Published apps have ids of 64 bits.
        let drawn = Id::from_u64(rng.next_u64() >> 1);
        let name = match (name.id(), &folder) {
            (Id::ANY, None) => TextName::new(name.components(), drawn)?,
            (Id::ANY, Some(folder)) => {
                TextName::new(name.components(), folder.id(drawn).map_err(failed)?)?
            }
            _ => name.clone(),
        };
        let factory = match &options.folder {
            Some(path) => Factory::in_folder(identity.clone(), path),
            None => Factory::new(identity.clone()),
        };
        let setup = Setup {
            name: name.clone(),
            identity,
            mls: Box::new(factory),
            rng: Box::new(rng),
            limits: options.limits,
            store: folder.is_some(),
            control_plane: options.control_plane,
        };
        let stored = folder.clone();
        let shared = Arc::new(Shared::new(Endpoint::new(setup), folder));
        let tasks = TaskTracker::new();
        tasks.spawn(shared.clone().keep_time());
        Ok(Self { name, shared, links: Mutex::default(), tasks, folder: stored })
    }

    /// The app's name, with its id.
    pub fn name(&self) -> &TextName {
        &self.name
    }

    /// Connects to the node at `address`: `quic://HOST:PORT`, `http://HOST:PORT` or
    /// `https://HOST:PORT`. From then on the link is made anew whenever it is lost. Apps may
    /// connect to several nodes. Returns once the node knows the app's name.
    ///
    /// # Errors
    /// [`AppError::Link`] if the first attempt fails.
    pub async fn connect(&self, address: &str, options: LinkOptions) -> Result<LinkId, AppError> {
        let options = LinkOptions { name: Some(self.name.clone()), ..options };
        let stop = self.shared.stop.child_token();
        let shared = self.shared.clone();
        let address = address.to_owned();
        let mut connection = Connection { id: LinkId(0), address, options, shared, stop };
        let link = connection.connect().await?;
        let (ready, is_ready) = oneshot::channel();
        connection.id = self.keep_link(&connection.stop);
        let id = connection.id;
        self.tasks.spawn(connection.keep_up(link, ready));
        is_ready.await.map_err(|_| AppError::Closed)?;
        Ok(id)
    }

    fn keep_link(&self, stop: &CancellationToken) -> LinkId {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.next += 1;
        let id = LinkId(links.next);
        links.stops.insert(id, stop.clone());
        id
    }

    /// Lets go of a link. Its sessions end.
    pub fn disconnect(&self, link: LinkId) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stop) = links.stops.remove(&link) {
            stop.cancel();
            self.shared.with(|state, now| state.endpoint.remove_link(now, link));
        }
    }

    /// Also answers to this name, with the app's own id.
    pub fn subscribe(&self, name: &TextName) {
        self.shared.with(|state, _| state.endpoint.subscribe(name));
    }

    /// No longer answers to this name.
    pub fn unsubscribe(&self, name: &TextName) {
        self.shared.with(|state, _| state.endpoint.unsubscribe(name));
    }

    /// Says on which link `name` is reached. With one link there is no need to.
    ///
    /// # Errors
    /// [`SessionError::NoLink`] if there is no such link.
    pub fn set_route(&self, name: &TextName, link: LinkId) -> Result<(), SessionError> {
        self.shared.with(|state, _| state.endpoint.set_route(name, link))
    }

    /// Takes a route back.
    pub fn remove_route(&self, name: &TextName) {
        self.shared.with(|state, _| state.endpoint.remove_route(name));
    }

    /// Creates a session. Nothing is sent before its first message or invitation.
    ///
    /// # Errors
    /// [`SessionError::NoLink`] before the app has connected, or what is wrong with `config`.
    pub fn create_session(&self, config: Config) -> Result<Session, SessionError> {
        let info = self.shared.with(|state, now| {
            let id = state.endpoint.create(now, config)?;
            state.endpoint.info(id)
        })?;
        Ok(Session::new(self.shared.clone(), info))
    }

    /// The encrypted groups that an earlier process of this app was a member of, from
    /// [`AppOptions::folder`]; to be called once, after the app has connected. What was
    /// published last when that process ended may be lost, and what it received last may come
    /// again.
    ///
    /// # Errors
    /// [`AppError::Folder`]. A session that cannot be used is left out, with a line in the log.
    pub fn restore_sessions(&self) -> Result<Vec<Session>, AppError> {
        let Some(folder) = &self.folder else { return Ok(Vec::new()) };
        let failed = |source| AppError::Folder { folder: folder.path().to_owned(), source };
        let mut sessions = Vec::new();
        for stored in folder.sessions().map_err(failed)? {
            let restored = self.shared.with(|state, now| {
                let id = state.endpoint.restore(now, &stored)?;
                state.endpoint.info(id)
            });
            match restored {
                Ok(info) => sessions.push(Session::new(self.shared.clone(), info)),
                Err(error) => tracing::error!(%error, "stored session left out"),
            }
        }
        Ok(sessions)
    }

    /// The next session that another app has opened, or that the control plane has had this one open; `timeout: None` waits without end.
    ///
    /// # Errors
    /// [`AppError::Timeout`], or [`AppError::Closed`].
    pub async fn listen_for_session(&self, timeout: Option<Duration>) -> Result<Session, AppError> {
        let next = async {
            loop {
                let opened = self.shared.opened.notified();
                if let Some(info) = self.shared.with(|state, _| state.endpoint.accept()) {
                    // Several may wait, and several may have been opened.
                    self.shared.opened.notify_one();
                    return Ok(Session::new(self.shared.clone(), info));
                }
                tokio::select! {
                    () = opened => {}
                    () = self.shared.stop.cancelled() => return Err(AppError::Closed),
                }
            }
        };
        match timeout {
            None => next.await,
            Some(timeout) => {
                tokio::time::timeout(timeout, next).await.unwrap_or(Err(AppError::Timeout))
            }
        }
    }

    /// Ends a session: a group of which this app is the moderator is closed, another is left, and
    /// the members are told. What was published and not acknowledged is given up.
    pub fn delete_session(&self, session: Session) {
        drop(session);
    }

    /// Messages that were dropped because their senders' tokens are not good, since the last call;
    /// at most the last 64.
    pub fn rejections(&self) -> Vec<(Name, IdentityError)> {
        self.shared.with(|state, _| state.take_rejections())
    }

    /// How many requests of the control plane there were.
    pub fn control_counts(&self) -> ControlCounts {
        self.shared.with(|state, _| state.endpoint.control_counts())
    }

    /// Waits until all that was published is acknowledged where that is due, for at most five
    /// seconds; ends all sessions, and tells their members; and closes the links.
    pub async fn close(self) {
        const PATIENCE: Duration = Duration::from_secs(5);
        const STEP: Duration = Duration::from_millis(10);
        let settled = async {
            while !self.shared.with(|state, _| state.endpoint.is_settled() && state.is_drained()) {
                tokio::time::sleep(STEP).await;
            }
        };
        let _ = tokio::time::timeout(PATIENCE, settled).await;
        self.shared.with(|state, now| state.endpoint.delete_all(now));
        self.shared.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.shared.stop.cancel();
        // Whoever waits for something in a session is to learn of the end.
        self.shared.with(|state, now| state.endpoint.stop(now));
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("name", &self.name).finish_non_exhaustive()
    }
}
