//! One thread per core: a current-thread runtime that hosts the core's datapath, its listeners
//! and all its connections. Nothing on the way of a message leaves this thread, unless its
//! target lives on another core.

use std::fmt::Display;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use slim_config::{Config, Limits};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::StartError;
use super::listener::{CoreListener, take_quic};
use super::uplink::Uplink;
use crate::datapath::{
    Act, Core, CoreConfig, Counters, Mailboxes, Marks, SlowConsumer, SlowLog, SlowState, Violation,
    Wake,
};
use crate::link::quic::settings::{self, QuicSettings};
use crate::link::quic::{Crossing, Dials, Driver};
use crate::link::{Host, Incidents, LinkLimits, Places, RateLimit};
use crate::policy::Policy;

/// Wakes a core that has mail.
#[derive(Debug, Default)]
pub(super) struct Bell(Notify);

impl Wake for Bell {
    fn wake(&self) {
        self.0.notify_one();
    }
}

/// What a core is made of.
pub(super) struct CoreSpec {
    pub(super) config: Config,
    /// How many cores the node has.
    pub(super) cores: usize,
    pub(super) servers: Vec<CoreListener>,
    /// The number by which other nodes know this one.
    pub(super) node: u64,
    /// Links to other nodes that live on this core.
    pub(super) uplinks: Vec<Uplink>,
    pub(super) crossing: Crossing,
    pub(super) mail: Mailboxes,
    pub(super) bell: Arc<Bell>,
    pub(super) slow_log: Arc<SlowLog>,
    pub(super) places: Places,
}

/// One step of a stop. All cores take a step before any takes the next.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// Close the listeners: a client that comes back is refused by the kernel, and tries again.
    StopListening,
    /// Read no more from sources.
    StopReading,
    /// Write what is queued, end the streams, and be done when the last has ended.
    Finish,
}

type Order = (Step, oneshot::Sender<()>);

/// What a core has to work with, for calls from other threads.
#[derive(Clone)]
pub(super) struct Local {
    pub(super) host: Rc<Host>,
    pub(super) dials: Rc<Dials>,
}

type Call = Box<dyn FnOnce(&Local) + Send>;

/// Calls that may wait for a core.
const CALLS: usize = 64;

/// The way to a running core from other threads.
#[derive(Clone)]
pub(super) struct Remote {
    calls: mpsc::Sender<Call>,
}

impl Remote {
    /// Has the core do some work between its other work, and returns what comes of it; `None`
    /// when the core has ended.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Local) -> T + Send + 'static,
    ) -> Option<T> {
        let (tell, told) = oneshot::channel();
        // Who asked may have gone meanwhile.
        let call = move |local: &Local| _ = tell.send(work(local));
        self.calls.send(Box::new(call)).await.ok()?;
        told.await.ok()
    }
}

/// A running core, as the node sees it. Dropping it ends the core's thread, whatever it is doing.
pub(super) struct CoreHandle {
    pub(super) counters: Arc<Counters>,
    pub(super) incidents: Arc<Incidents>,
    /// Cancelled when the core has ended, on purpose or not.
    pub(super) ended: CancellationToken,
    pub(super) remote: Remote,
    orders: mpsc::Sender<Order>,
    ending: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl CoreHandle {
    /// Starts the core's thread.
    pub(super) fn start(spec: CoreSpec) -> Result<Self, StartError> {
        let system = |what| move |source| StartError::System { what, source };
        let (counters, incidents) = (Arc::<Counters>::default(), Arc::<Incidents>::default());
        let (orders, inbox) = mpsc::channel(1);
        let (calls, called) = mpsc::channel(CALLS);
        let (ending, ended) = (CancellationToken::new(), CancellationToken::new());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(system("the runtime of a core"))?;
        let (end, has_ended) = (ending.clone(), ended.clone().drop_guard());
        let seen = (Arc::clone(&counters), Arc::clone(&incidents));
        let thread = std::thread::Builder::new()
            .name(spec.config.runtime.thread_name.clone())
            .spawn(move || {
                let _has_ended = has_ended;
                let (counters, incidents) = seen;
                LocalSet::new().block_on(&runtime, async move {
                    let run = run(spec, counters, incidents, inbox, called);
                    end.run_until_cancelled(run).await;
                });
            })
            .map_err(system("the thread of a core"))?;
        let remote = Remote { calls };
        Ok(Self { counters, incidents, ended, remote, orders, ending, thread: Some(thread) })
    }
}

impl Drop for CoreHandle {
    fn drop(&mut self) {
        self.ending.cancel();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a core ended by a panic");
        }
    }
}

/// Lets every core take a step, and waits until all have.
pub(super) async fn take_step(cores: &[CoreHandle], step: Step) {
    let mut done = Vec::with_capacity(cores.len());
    for core in cores {
        let (tell, told) = oneshot::channel();
        // A core that has ended has nothing to do any more.
        let _ = core.orders.send((step, tell)).await;
        done.push(told);
    }
    for told in done {
        let _ = told.await;
    }
}

async fn run(
    spec: CoreSpec,
    counters: Arc<Counters>,
    incidents: Arc<Incidents>,
    mut orders: mpsc::Receiver<Order>,
    called: mpsc::Receiver<Call>,
) {
    let CoreSpec { config, cores, mut servers, node, uplinks, crossing, mail, bell, .. } = spec;
    let (slow_log, places) = (spec.slow_log, spec.places);
    let id = mail.core();
    let node_id = format!("slim-{node:016x}").into();
    let core = Core::new(core_config(&config, cores), mail, counters, slow_log)
        .with_policy(Policy::new(&config.policy));
    let host = Rc::new(Host::new(core, link_limits(&config.limits), places, incidents, node_id));
    let dials = Rc::<Dials>::default();
    let endpoint = settings::endpoint(id, QuicSettings::default());
    let listening = take_quic(&mut servers, id);
    match Driver::new(Rc::clone(&host), node, listening, endpoint, crossing, Rc::clone(&dials)) {
        Ok(driver) => {
            let driver = driver.with_busy_poll(config.runtime.busy_poll);
            host.tasks.spawn_local(driver.run());
        }
        Err(error) => tracing::error!(%error, "native links are not served"),
    }
    let local = Local { host: Rc::clone(&host), dials };
    for uplink in uplinks {
        uplink.begin(&local);
    }
    let listening = CancellationToken::new();
    let accepting = TaskTracker::new();
    for server in servers {
        let (accept, listening) = (server.accept(Rc::clone(&host)), listening.clone());
        accepting.spawn_local(async move {
            tokio::select! {
                () = listening.cancelled() => {}
                failed = accept => {
                    if let Err(error) = failed {
                        tracing::error!(%error, "listener failed");
                    }
                }
            }
        });
    }
    accepting.close();
    let turns = take_turns(Rc::clone(&host), bell);
    let steps = take_steps(&host, &listening, &accepting, &mut orders);
    tokio::select! {
        () = turns => {}
        () = steps => {}
        () = take_calls(&local, called) => {}
    }
}

/// Does what other threads ask for, for ever.
async fn take_calls(local: &Local, mut called: mpsc::Receiver<Call>) {
    while let Some(call) = called.recv().await {
        call(local);
        // Messages come first.
        tokio::task::yield_now().await;
    }
    std::future::pending().await
}

/// Takes the node's orders until it has no more.
async fn take_steps(
    host: &Host,
    listening: &CancellationToken,
    accepting: &TaskTracker,
    orders: &mut mpsc::Receiver<Order>,
) {
    while let Some((step, tell)) = orders.recv().await {
        match step {
            Step::StopListening => {
                listening.cancel();
                accepting.wait().await;
            }
            Step::StopReading => host.stop_reading.set(true),
            Step::Finish => {
                {
                    let mut core = host.core.borrow_mut();
                    core.finish_links();
                    core.flush();
                }
                host.finish.cancel();
                host.tasks.close();
                host.tasks.wait().await;
            }
        }
        let _ = tell.send(());
    }
}

/// Handles the core's mail and deadlines, for ever.
async fn take_turns(host: Rc<Host>, bell: Arc<Bell>) {
    let lines = SlowState::ALL.map(|_| RateLimit::default());
    let violations = RateLimit::default();
    loop {
        let deadline = host.core.borrow_mut().deadline();
        tokio::select! {
            () = bell.0.notified() => {}
            () = sleep_until(deadline) => {}
        }
        let (events, violation) = {
            let mut core = host.core.borrow_mut();
            core.turn(Instant::now());
            (core.take_slow_events(), core.take_violation())
        };
        if let Some(violation) = violation
            && let Some(left_out) = violations.admit(Instant::now())
        {
            log_violation(&violation, left_out);
        }
        for event in &events {
            if let Some(left_out) = lines[event.state as usize].admit(Instant::now()) {
                log_slow_consumer(event, left_out);
            }
        }
        // Whatever the mail made ready comes before more mail.
        tokio::task::yield_now().await;
    }
}

fn log_violation(violation: &Violation, left_out: u64) {
    let Violation { principal, peer, act, name, label, tolerated } = violation;
    let name: &dyn Display = match label {
        Some(label) => label,
        None => name,
    };
    let act = match act {
        Act::Subscribe => "subscribe to",
        Act::Publish => "publish as",
    };
    let verdict = if *tolerated { "let pass (policy.mode: observe)" } else { "refused" };
    warn!(%principal, %peer, %name, left_out, "policy does not allow to {act} the name: {verdict}");
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

fn log_slow_consumer(slow: &SlowConsumer, left_out: u64) {
    let SlowConsumer { link, name, peer, state, queued } = slow;
    match state {
        SlowState::Behind => {
            warn!(%link, %name, %peer, queued, left_out, "slow consumer is behind");
        }
        SlowState::Recovered => {
            info!(%link, %name, %peer, queued, left_out, "slow consumer recovered");
        }
        SlowState::Evicted => {
            warn!(%link, %name, %peer, queued, left_out, "slow consumer evicted");
        }
    }
}

/// What a core may have of what the node may have.
pub(super) fn core_config(config: &Config, cores: usize) -> CoreConfig {
    let limits = &config.limits;
    CoreConfig {
        marks: Marks::new(limits.queue_bytes, limits.control_reserve_bytes),
        slow_consumer: limits.slow_consumer,
        stalled: limits.stalled,
        message_bytes: limits.message_bytes,
        subscriptions_per_link: limits.subscriptions_per_link,
        subscriptions_per_node: limits.subscriptions_per_node,
        subscriptions: limits.subscriptions.div_ceil(cores),
        seed: RandomState::new().build_hasher().finish(),
    }
}

fn link_limits(limits: &Limits) -> LinkLimits {
    LinkLimits {
        message_bytes: limits.message_bytes,
        handshake: limits.handshake,
        partial_message: limits.partial_message,
        pause: limits.pause,
    }
}
