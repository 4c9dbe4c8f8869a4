//! The load: one publisher and its subscribers, each a connection of its own, as published
//! clients are. Messages are encoded and signed once, so that the generator, which shares the
//! machine with the node, costs little.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use crate::Failure;
use crate::channel::send;
use crate::client::{Client, Dialect, Shape};

/// A publisher and its subscribers at one node.
pub(crate) struct Load {
    publisher: Client,
    subscribers: Vec<Rc<Subscriber>>,
    tasks: Vec<JoinHandle<()>>,
    frame: Bytes,
    sent: u64,
}

/// Closes the subscribers' connections. Otherwise the next load would share its messages with
/// them: upstream's node takes turns among all links of one name and id.
impl Drop for Load {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

#[derive(Default)]
struct Subscriber {
    received: Cell<u64>,
    ended: Cell<bool>,
    failure: RefCell<Option<String>>,
    progress: Notify,
}

/// What a published client encodes into one buffer when messages are ready: tonic's threshold.
const BATCH_BYTES: usize = 32 * 1024;

/// Without news for so long, messages are lost.
const STALL: Duration = Duration::from_secs(5);

/// Lets the node come to rest, so that its CPU time is up to date, and copies too many show.
const REST: Duration = Duration::from_millis(20);

impl Load {
    /// Connects everyone and waits until messages arrive.
    pub(crate) async fn connect(
        node: SocketAddr,
        dialect: Dialect,
        shape: Shape,
    ) -> Result<Self, Failure> {
        let (mut everyone, mut tasks) = (Vec::new(), Vec::new());
        for id in 1..=shape.subscribers {
            let mut client = Client::connect(node, dialect).await?;
            client.subscribe(id).await?;
            let subscriber = Rc::<Subscriber>::default();
            everyone.push(Rc::clone(&subscriber));
            tasks.push(tokio::task::spawn_local(subscriber.run(client, shape)));
        }
        let publisher = Client::connect(node, dialect).await?;
        let frame = publisher.publish(shape)?;
        let mut load = Self { publisher, subscribers: everyone, tasks, frame, sent: 0 };
        load.probe().await?;
        Ok(load)
    }

    /// Release 0.6 has no acknowledgement of a subscription: send until all receive.
    async fn probe(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + STALL;
        while self.received() == 0 {
            if Instant::now() > deadline {
                return Err(self.failure().unwrap_or_else(|| "no message arrives".into()).into());
            }
            send(&mut self.publisher.channel.send, self.frame.clone()).await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        self.sent = 0;
        self.subscribers.iter().for_each(|s| s.received.set(0));
        Ok(())
    }

    /// What the slowest subscriber has.
    fn received(&self) -> u64 {
        let counts = self.subscribers.iter().map(|s| s.received.get());
        counts.min().unwrap_or(0)
    }

    /// Why a subscriber receives no more.
    fn failure(&self) -> Option<String> {
        self.subscribers.iter().find_map(|s| s.failure.borrow().clone())
    }

    /// Publishes `count` messages as fast as `window` messages under way allow, and waits for
    /// the last.
    pub(crate) async fn saturate(&mut self, count: u64, window: u64) -> Result<(), Failure> {
        let batch = (BATCH_BYTES / self.frame.len()).max(1);
        let frames = Bytes::from(self.frame.repeat(batch));
        let end = self.sent + count;
        while self.sent < end {
            let room = window.saturating_sub(self.sent - self.received());
            if room == 0 {
                self.progress().await?;
                continue;
            }
            let messages = room.min(batch as u64).min(end - self.sent);
            let bytes = frames.slice(..messages as usize * self.frame.len());
            send(&mut self.publisher.channel.send, bytes).await?;
            self.sent += messages;
        }
        self.all_received().await
    }

    /// Publishes `count` messages, `rate` a second, whatever becomes of them, and waits for the
    /// last.
    pub(crate) async fn pace(&mut self, count: u64, rate: u64) -> Result<(), Failure> {
        let mut ticks = ticks(count, rate);
        while ticks.recv().await.is_some() {
            send(&mut self.publisher.channel.send, self.frame.clone()).await?;
            self.sent += 1;
        }
        self.all_received().await
    }

    /// Each subscriber has everything, and nothing twice.
    async fn all_received(&self) -> Result<(), Failure> {
        while self.received() < self.sent {
            self.progress().await?;
        }
        tokio::time::sleep(REST).await;
        let most = self.subscribers.iter().map(|s| s.received.get()).max().unwrap_or(0);
        if most > self.sent {
            let sent = self.sent;
            return Err(format!("delivered: expected {sent} messages, got {most}").into());
        }
        Ok(())
    }

    async fn progress(&self) -> Result<(), Failure> {
        let slowest = self
            .subscribers
            .iter()
            .min_by_key(|subscriber| subscriber.received.get())
            .ok_or("no subscriber")?;
        let waited = tokio::time::timeout(STALL, slowest.progress.notified()).await;
        if waited.is_err() || slowest.ended.get() {
            let (sent, received) = (self.sent, self.received());
            let reason = self.failure().unwrap_or_default();
            return Err(format!("{} of {sent} messages lost; {reason}", sent - received).into());
        }
        Ok(())
    }
}

impl Subscriber {
    async fn run(self: Rc<Self>, mut client: Client, shape: Shape) {
        if let Err(error) = self.receive(&mut client, shape).await {
            *self.failure.borrow_mut() = Some(error.to_string());
        }
        self.ended.set(true);
        self.progress.notify_one();
    }

    async fn receive(&self, client: &mut Client, shape: Shape) -> Result<(), Failure> {
        while let Some(count) = client.receive(shape).await? {
            self.received.set(self.received.get() + count);
            self.progress.notify_one();
        }
        Err("the node closed the stream".into())
    }
}

/// Ticks from a thread of their own: the runtime's timer is as coarse as a millisecond, which
/// would make bunches of what is to be single messages.
fn ticks(count: u64, rate: u64) -> mpsc::UnboundedReceiver<()> {
    let (tick, ticks) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let start = Instant::now();
        for index in 0..count {
            let due = start + Duration::from_secs(1).mul_f64(index as f64 / rate as f64);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if tick.send(()).is_err() {
                return;
            }
        }
    });
    ticks
}
