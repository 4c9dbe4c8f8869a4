use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use slim_quic::client::link::Link;

use super::client::Client;
use super::native::{join, message, receive, send};
use super::node::Node;

/// Two clients that exchange messages all the while others misbehave.
pub(crate) struct HealthyPair {
    stop: oneshot::Sender<()>,
    exchange: JoinHandle<u32>,
}

/// Messages under way at a time.
const WINDOW: u32 = 8;

impl HealthyPair {
    /// Starts the exchange; at least one message has arrived when this returns.
    pub(crate) async fn start(node: &Node) -> Self {
        let sender = Client::join(node, "healthy/pair/sender/1").await;
        let mut receiver = Client::join(node, "healthy/pair/receiver/2").await;
        sender.publish("healthy/pair/receiver/2", "first").await;
        assert_eq!(receiver.payload().await, "first");
        let (stop, mut stopped) = oneshot::channel();
        let exchange = tokio::spawn(async move {
            let mut count = 0;
            while stopped.try_recv() == Err(oneshot::error::TryRecvError::Empty) {
                exchange(&sender, &mut receiver, count).await;
                count += WINDOW;
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
            exchange(&sender, &mut receiver, count).await;
            count + WINDOW
        });
        Self { stop, exchange }
    }

    /// The same over native QUIC.
    pub(crate) async fn start_native(node: &Node) -> Self {
        let sender = join(node, &[NATIVE_SENDER]).await;
        let receiver = join(node, &[NATIVE_RECEIVER]).await;
        native_exchange(&sender, &receiver, 0).await;
        let (stop, mut stopped) = oneshot::channel();
        let exchange = tokio::spawn(async move {
            let mut count = 0;
            while stopped.try_recv() == Err(oneshot::error::TryRecvError::Empty) {
                native_exchange(&sender, &receiver, count).await;
                count += WINDOW;
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
            native_exchange(&sender, &receiver, count).await;
            count + WINDOW
        });
        Self { stop, exchange }
    }

    /// Ends the exchange. Everything that was sent has arrived once and in order, also after
    /// the misbehaviour.
    pub(crate) async fn assert_unharmed(self) {
        self.stop.send(()).expect("the exchange goes on");
        let count = self.exchange.await.expect("nothing was lost");
        assert!(count > 0);
    }
}

const NATIVE_SENDER: &str = "healthy/native/sender/1";
const NATIVE_RECEIVER: &str = "healthy/native/receiver/2";

async fn native_exchange(sender: &Link, receiver: &Link, from: u32) {
    for number in from..from + WINDOW {
        send(sender, &message(NATIVE_SENDER, NATIVE_RECEIVER, number.to_string())).await;
    }
    for number in from..from + WINDOW {
        assert_eq!(receive(receiver).await.payload, number.to_string());
    }
}

async fn exchange(sender: &Client, receiver: &mut Client, from: u32) {
    for number in from..from + WINDOW {
        sender.publish("healthy/pair/receiver/2", number.to_string()).await;
    }
    for number in from..from + WINDOW {
        assert_eq!(receiver.payload().await, number.to_string());
    }
}

/// Two pairs, of release 0.6 and native.
pub(crate) struct Bystanders {
    published: HealthyPair,
    native: HealthyPair,
}

/// Links and subscriptions of the bystanders.
pub(crate) const BYSTANDERS: u64 = 4;

impl Bystanders {
    pub(crate) async fn start(node: &Node) -> Self {
        let published = HealthyPair::start(node).await;
        Self { published, native: HealthyPair::start_native(node).await }
    }

    /// Ends the exchanges, of which nothing was lost, and sees to the node itself: it lives, and
    /// accounts for every message.
    pub(crate) async fn assert_unharmed(self, node: &Node) {
        self.published.assert_unharmed().await;
        self.native.assert_unharmed().await;
        node.assert_alive().await;
        node.balanced().await;
    }
}
