//! The control plane's own app inside the node: it sends requests to apps, and is told of the
//! names of clients.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use slim_compat_grpc::{CONTROLLER, D6, Dialect, Inbound, Routed};
use slim_wire::{Encoding, Envelope, Id, Space, TextName};

use super::names::Names;
use crate::datapath::{Core, Departure, Framing, LinkId};
use crate::link::Host;
use crate::node::core::{Local, Remote};
use crate::policy::Principal;

/// The app, as other threads reach it.
#[derive(Clone)]
pub(super) struct Presence {
    pub(super) core: Remote,
    pub(super) link: LinkId,
}

/// How often it is looked whether something has become true: ever less often.
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LONGEST_LOOK: Duration = Duration::from_millis(250);

/// Names that are taken at a time before the core goes on with messages.
const TURN_NAMES: usize = 256;

/// What becomes of a request to an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// It waits in the app's queue.
    Queued,
    /// No client of this node has the name.
    Unknown,
}

impl Presence {
    /// Opens the app's link on a core; `None` when the core has ended.
    pub(super) async fn open(core: Remote, names: Arc<Names>) -> Option<Self> {
        let link = core.call(|local| open(local, names)).await?;
        Some(Self { core, link })
    }

    /// Whether something becomes true within a time, as far as this node knows.
    pub(super) async fn wait(
        &self,
        limit: Duration,
        holds: impl Fn(&Core) -> bool + Clone + Send + 'static,
    ) -> bool {
        let deadline = tokio::time::Instant::now() + limit;
        let mut pause = FIRST_LOOK;
        loop {
            let holds = holds.clone();
            let look = self.core.call(move |local| holds(&local.host.core.borrow()));
            match look.await {
                Some(true) => return true,
                Some(false) if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_LOOK);
                }
                Some(false) | None => return false,
            }
        }
    }

    /// Sends a request to the app `to`, made by `make` for an app of this library, or
    /// of another.
    pub(super) async fn send(
        &self,
        to: TextName,
        make: impl FnOnce(bool) -> Bytes + Send + 'static,
    ) -> Option<Sent> {
        let link = self.link;
        self.core.call(move |local| send(local, link, &to, make)).await
    }
}

fn send(local: &Local, link: LinkId, to: &TextName, make: impl FnOnce(bool) -> Bytes) -> Sent {
    let mut core = local.host.core.borrow_mut();
    let owner = core.owner(Space::Native, &to.to_name());
    let Some(owner) = owner.map(Arc::clone) else {
        return Sent::Unknown;
    };
    let message = make(owner.is_of_this_library());
    let Ok(Inbound::Routed(Routed { header, .. })) = D6::read(&message) else {
        return Sent::Unknown;
    };
    // To this client and no other: the token is of the kind that it takes.
    core.forward_to(&owner, link, &Envelope::single(header, message), Instant::now());
    core.flush();
    Sent::Queued
}

fn open(local: &Local, names: Arc<Names>) -> LinkId {
    let mut core = local.host.core.borrow_mut();
    let link = core.open_link("this node", Framing::Grpc, Principal::Configured);
    let own = TextName::new(CONTROLLER, Id::from_u64(0)).expect("short texts");
    core.subscribe(link, Encoding::D6, own.to_name(), Some(own.components()))
        .expect("an empty link may subscribe");
    core.submit(link);
    core.report(link);
    core.flush();
    drop(core);
    local.host.tasks.spawn_local(live(Rc::clone(&local.host), link, own, names));
    link
}

/// Until the node stops: what apps answer is not used, but must not pile up.
async fn live(host: Rc<Host>, link: LinkId, own: TextName, names: Arc<Names>) {
    for turn in 1.. {
        if turn % TURN_NAMES == 0 {
            tokio::task::yield_now().await;
        }
        let told = poll_fn(|cx| {
            let mut core = host.core.borrow_mut();
            loop {
                match core.poll_departure(link, cx) {
                    Poll::Ready(Departure::Chunk(_)) => {}
                    Poll::Ready(Departure::Finished | Departure::Evicted) => {
                        return Poll::Ready(None);
                    }
                    Poll::Pending => break,
                }
            }
            core.poll_announcement(link, cx).map(Some)
        });
        match told.await {
            Some(told) => {
                if let Some(name) = told.text.filter(|name| **name != own) {
                    names.note(told.change, &name);
                }
            }
            None => break,
        }
    }
    let mut core = host.core.borrow_mut();
    core.close_link(link);
    core.flush();
}
