//! What the handles and the tasks of an app share: its sessions behind one lock, and who waits
//! for what.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use slim_wire::Name;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use super::folder::Folder;
use crate::identity::IdentityError;
use crate::session::{
    Controlled, Endpoint, LinkId, Now, Output, Packet, SessionError, Subscription, Ticket,
};

/// What is to be sent on a link, in order.
pub(super) enum Order {
    Subscribe(Subscription),
    Unsubscribe(Subscription),
    Send(Box<Packet>),
}

/// What waits for a link's writer.
#[derive(Default)]
pub(super) struct Queue {
    orders: VecDeque<Order>,
    /// Bytes of their payloads.
    bytes: usize,
    pub(super) up: bool,
}

/// Messages that wait for a link's writer before publishing waits too.
const QUEUED_ORDERS: usize = 512;

/// Messages that wait for a link's writer before more are dropped: what others ask for is not to
/// fill the memory. Enough for the whole windows of many sessions when a link comes back.
const MOST_ORDERS: usize = 64 * 1024;

/// Bytes of the same, in payloads.
const MOST_BYTES: usize = 256 * 1024 * 1024;

/// Messages whose tokens were not good, the last ones.
const REJECTIONS: usize = 64;

/// Who waits for a session.
#[derive(Default)]
pub(super) struct Waiters {
    pub(super) readable: Notify,
    pub(super) writable: Notify,
}

pub(super) struct State {
    pub(super) endpoint: Endpoint,
    pub(super) queues: BTreeMap<LinkId, Queue>,
    waiters: HashMap<u32, Arc<Waiters>>,
    tickets: HashMap<Ticket, oneshot::Sender<Result<(), SessionError>>>,
    rejections: VecDeque<(Name, IdentityError)>,
    folder: Option<Folder>,
    /// When the timer's task will wake up.
    wakes_at: Option<Instant>,
}

pub(super) struct Shared {
    state: Mutex<State>,
    /// A session was opened.
    pub(super) opened: Notify,
    /// The next deadline is earlier than it was.
    earlier: Notify,
    /// A link's writer has something to do.
    pub(super) queued: Notify,
    /// A link's queue has room again.
    pub(super) drained: Notify,
    pub(super) stop: CancellationToken,
}

impl Queue {
    /// What is for a link that is down would not be sent in time, and neither would what is too
    /// much; sessions send it again. Subscriptions are few.
    fn push(&mut self, order: Order) {
        let full = self.orders.len() >= MOST_ORDERS || self.bytes >= MOST_BYTES;
        if !self.up || (full && matches!(order, Order::Send(_))) {
            return;
        }
        if let Order::Send(packet) = &order {
            self.bytes += packet.payload.len();
        }
        self.orders.push_back(order);
    }

    pub(super) fn take(&mut self) -> VecDeque<Order> {
        self.bytes = 0;
        std::mem::take(&mut self.orders)
    }
}

impl State {
    fn carry_out(&mut self, shared: &Shared) {
        while let Some(output) = self.endpoint.poll_output() {
            match output {
                Output::Send(link, packet) => self.order(shared, link, Order::Send(packet)),
                Output::Subscribe(link, name) => self.order(shared, link, Order::Subscribe(name)),
                Output::Unsubscribe(link, name) => {
                    self.order(shared, link, Order::Unsubscribe(name));
                }
                Output::Save(id, state) => self.save(id, &state),
                Output::Forget(id) => {
                    self.folder.iter().for_each(|folder| folder.forget(id));
                }
                Output::Opened(_) => shared.opened.notify_one(),
                Output::Readable(id) => self.waiters(id).readable.notify_waiters(),
                Output::Writable(id) => self.waiters(id).writable.notify_waiters(),
                Output::Rejected(source, error) => self.rejected(source, error),
                Output::Controlled(controlled) => log_controlled(&controlled),
                Output::Completed(ticket, result) => {
                    if let Some(waiter) = self.tickets.remove(&ticket) {
                        // Nobody may be waiting any more.
                        let _ = waiter.send(result);
                    }
                }
            }
        }
        let deadline = self.endpoint.deadline();
        if deadline.is_some_and(|deadline| self.wakes_at.is_none_or(|wakes| deadline < wakes)) {
            self.wakes_at = deadline;
            shared.earlier.notify_one();
        }
    }

    fn order(&mut self, shared: &Shared, link: LinkId, order: Order) {
        self.queues.entry(link).or_default().push(order);
        shared.queued.notify_waiters();
    }

    fn save(&self, id: u32, state: &[u8]) {
        let Some(folder) = &self.folder else { return };
        if let Err(error) = folder.save(id, state) {
            tracing::error!(session = id, %error, "session could not be stored");
        }
    }

    fn rejected(&mut self, source: Name, error: IdentityError) {
        tracing::debug!(%source, %error, "message without a good token dropped");
        if self.rejections.len() == REJECTIONS {
            self.rejections.pop_front();
        }
        self.rejections.push_back((source, error));
    }

    pub(super) fn waiters(&mut self, id: u32) -> Arc<Waiters> {
        self.waiters.entry(id).or_default().clone()
    }

    pub(super) fn forget(&mut self, id: u32) {
        self.waiters.remove(&id);
    }

    pub(super) fn await_ticket(
        &mut self,
        ticket: Ticket,
    ) -> oneshot::Receiver<Result<(), SessionError>> {
        let (sender, receiver) = oneshot::channel();
        self.tickets.insert(ticket, sender);
        receiver
    }

    pub(super) fn take_rejections(&mut self) -> Vec<(Name, IdentityError)> {
        self.rejections.drain(..).collect()
    }

    /// Whether nothing waits for the writers.
    pub(super) fn is_drained(&self) -> bool {
        self.queues.values().all(|queue| queue.orders.is_empty())
    }

    /// Whether the writers keep up.
    pub(super) fn has_room(&self) -> bool {
        self.queues.values().all(|queue| queue.orders.len() < QUEUED_ORDERS)
    }
}

impl Shared {
    pub(super) fn new(endpoint: Endpoint, folder: Option<Folder>) -> Self {
        let state = State {
            endpoint,
            queues: BTreeMap::new(),
            waiters: HashMap::new(),
            tickets: HashMap::new(),
            rejections: VecDeque::new(),
            folder,
            wakes_at: None,
        };
        Self {
            state: Mutex::new(state),
            opened: Notify::new(),
            earlier: Notify::new(),
            queued: Notify::new(),
            drained: Notify::new(),
            stop: CancellationToken::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere has not left anything half done that matters more than going on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the sessions, and passes on what comes of it.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut State, Now) -> T) -> T {
        let mut state = self.lock();
        let result = act(&mut state, now());
        state.carry_out(self);
        result
    }

    /// Serves the deadlines of the sessions until the app ends.
    pub(super) async fn keep_time(self: Arc<Self>) {
        loop {
            let next = self.with(|state, now| {
                state.endpoint.due(now);
                state.wakes_at = state.endpoint.deadline();
                state.wakes_at
            });
            let sleep = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep => {}
                () = self.earlier.notified() => {}
                () = self.stop.cancelled() => return,
            }
        }
    }
}

/// The control plane learns nothing of what becomes of its requests; whoever looks after the app
/// may.
fn log_controlled(controlled: &Controlled) {
    let Controlled { ids, request, result } = controlled;
    let session = ids.session;
    match result {
        Ok(()) => tracing::info!(session, ?request, "done for the control plane"),
        Err(error) => tracing::warn!(session, ?request, %error, "not done for the control plane"),
    }
}

fn now() -> Now {
    Now { instant: Instant::now(), wall: SystemTime::now() }
}
