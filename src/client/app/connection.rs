//! A link that is kept up: made anew when it is lost, until the app lets go of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::convert::{to_message, to_packet};
use super::shared::{Order, Queue, Shared};
use crate::client::link::{Link, LinkError, LinkOptions, Message};
use crate::session::{LinkId, Packet, Subscription};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Longest wait for the node to confirm a subscription.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Messages that are handled under one lock.
const AT_ONCE: usize = 32;

pub(super) struct Connection {
    pub(super) id: LinkId,
    pub(super) address: String,
    pub(super) options: LinkOptions,
    pub(super) shared: Arc<Shared>,
    pub(super) stop: CancellationToken,
}

impl Connection {
    pub(super) async fn connect(&self) -> Result<Link, LinkError> {
        Link::connect(&self.address, &self.options).await
    }

    /// Uses the link as long as it lasts, and then the next, until the app lets go.
    /// Tells `ready` when the app's name is known to the node.
    pub(super) async fn keep_up(self, mut link: Link, ready: oneshot::Sender<()>) {
        let stop = self.stop.clone();
        let mut ready = Some(ready);
        loop {
            let begun = Instant::now();
            let reason = self.live(&link, &mut ready).await;
            self.shared.with(|state, now| {
                state.endpoint.link_down(now, self.id);
                if let Some(queue) = state.queues.get_mut(&self.id) {
                    queue.up = false;
                    queue.take();
                }
            });
            self.shared.drained.notify_waiters();
            if stop.is_cancelled() {
                // What was handed over is to reach the node; how the link ends tells nothing more.
                let _ = link.close().await;
                return;
            }
            tracing::info!(address = self.address, %reason, "link lost; connecting again");
            match stop.run_until_cancelled(self.reconnect(begun)).await {
                Some(next) => link = next,
                None => return,
            }
        }
    }

    async fn reconnect(&self, begun: Instant) -> Link {
        // One that ends at once, again and again, is not to be tried ever faster.
        let mut last = begun;
        let mut pauses = pauses();
        loop {
            if last.elapsed() > LONGEST_PAUSE {
                pauses = self::pauses();
            }
            tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
            last = Instant::now();
            match self.connect().await {
                Ok(link) => return link,
                Err(error) => {
                    tracing::debug!(address = self.address, %error, "no link yet");
                }
            }
        }
    }

    /// One life of the link; why it ended.
    async fn live(&self, link: &Link, ready: &mut Option<oneshot::Sender<()>>) -> LinkError {
        self.shared.with(|state, now| {
            state.queues.entry(self.id).or_default().up = true;
            state.endpoint.link_up(now, self.id);
        });
        tokio::select! {
            error = self.read(link) => error,
            error = self.write(link, ready) => error,
            () = self.stopped_for_long() => LinkError::Ended,
        }
    }

    async fn read(&self, link: &Link) -> LinkError {
        let mut batch = Vec::new();
        loop {
            if let Err(error) = link.receive_many(&mut batch).await {
                return error;
            }
            while !batch.is_empty() {
                // Whoever publishes gets its turn in between.
                let part = batch.drain(..batch.len().min(AT_ONCE)).filter_map(decoded);
                let part: Vec<_> = part.collect();
                self.shared.with(|state, now| {
                    for packet in part {
                        state.endpoint.handle(now, self.id, packet);
                    }
                });
            }
        }
    }

    async fn write(&self, link: &Link, ready: &mut Option<oneshot::Sender<()>>) -> LinkError {
        loop {
            let queued = self.shared.queued.notified();
            tokio::pin!(queued);
            queued.as_mut().enable();
            let orders = self.take_orders();
            if orders.is_empty() {
                tokio::select! {
                    () = queued => {}
                    // The last words of the app have been handed over.
                    () = self.stop.cancelled() => return LinkError::Ended,
                }
                continue;
            }
            for order in orders {
                if let Err(error) = self.carry_out(link, order).await {
                    return error;
                }
            }
            self.shared.drained.notify_waiters();
            if let Some(ready) = ready.take() {
                // Who connects may have stopped waiting.
                let _ = ready.send(());
            }
        }
    }

    fn take_orders(&self) -> VecDeque<Order> {
        self.shared
            .with(|state, _| state.queues.get_mut(&self.id).map(Queue::take).unwrap_or_default())
    }

    async fn stopped_for_long(&self) {
        self.stop.cancelled().await;
        tokio::time::sleep(self.options.close_timeout).await;
    }

    async fn carry_out(&self, link: &Link, order: Order) -> Result<(), LinkError> {
        let result = match &order {
            Order::Send(packet) => match to_message(packet) {
                Ok(message) => link.publish(&message).await,
                Err(error) => {
                    tracing::warn!(%error, "message that cannot be sent dropped");
                    return Ok(());
                }
            },
            Order::Subscribe(subscription) => {
                let metadata = self.metadata(subscription);
                let metadata = borrowed(&metadata);
                self.confirm(link.subscribe_with(&subscription.name, &metadata)).await
            }
            Order::Unsubscribe(subscription) => {
                let metadata = self.metadata(subscription);
                let metadata = borrowed(&metadata);
                self.confirm(link.unsubscribe_with(&subscription.name, &metadata)).await
            }
        };
        match result {
            // The link goes on: the message or the name is at fault.
            Err(
                error @ (LinkError::TooLarge { .. }
                | LinkError::Untranslatable { .. }
                | LinkError::Refused { .. }),
            ) => {
                tracing::warn!(%error, "the node or the link does not take this");
                Ok(())
            }
            result => result,
        }
    }

    async fn confirm(
        &self,
        request: impl Future<Output = Result<(), LinkError>>,
    ) -> Result<(), LinkError> {
        match tokio::time::timeout(SUBSCRIBE_TIMEOUT, request).await {
            Ok(result) => result,
            Err(_) => Err(LinkError::Lost { reason: "the node does not answer".to_owned() }),
        }
    }

    /// What published apps tell with a subscription.
    fn metadata(&self, subscription: &Subscription) -> Vec<(&'static str, String)> {
        let token = self.shared.with(|state, now| state.endpoint.token(now));
        let mut metadata = Vec::new();
        metadata.extend(token.ok().map(|token| ("SLIM_IDENTITY", token.as_ref().to_owned())));
        if subscription.channel {
            metadata.push(("CHANNEL_SUBSCRIPTION", "true".to_owned()));
        }
        if subscription.creates {
            metadata.push(("CHANNEL_CREATION", "true".to_owned()));
        }
        metadata
    }
}

fn decoded(message: Message) -> Option<Packet> {
    let source = message.source;
    to_packet(message)
        .inspect_err(|error| {
            tracing::debug!(%source, %error, "message that cannot be read dropped");
        })
        .ok()
}

fn borrowed<'a>(metadata: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    metadata.iter().map(|(key, value)| (*key, value.as_str())).collect()
}

fn pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::new()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .without_max_times()
        .build()
}
