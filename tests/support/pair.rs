use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::client::Client;
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

    /// Ends the exchange. Everything that was sent has arrived once and in order, also after
    /// the misbehaviour.
    pub(crate) async fn assert_unharmed(self) {
        self.stop.send(()).expect("the exchange goes on");
        let count = self.exchange.await.expect("nothing was lost");
        assert!(count > 0);
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
