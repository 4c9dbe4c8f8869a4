use std::net::SocketAddr;

use bytes::Bytes;
use slim_compat_grpc::proto::d6::Message;
use slim_compat_grpc::proto::d6::data_plane_service_client::DataPlaneServiceClient;
use tokio::sync::mpsc;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Status, Streaming};

use super::message::{publish, subscribe, unsubscribe};
use super::node::Node;
use super::{eventually, in_time, message};

/// A name that no test subscribes to.
pub(crate) const NOBODY: &str = "nobody/has/this-name/1";

pub(crate) const UNMATCHED: &str = "slim_messages_unmatched_total";

/// A client as release 0.6 has them: one connection with one stream. It asserts on connecting
/// that the response headers come before any message.
pub(crate) struct Client {
    pub(crate) name: String,
    sender: mpsc::Sender<Message>,
    received: Streaming<Message>,
}

impl Client {
    /// Connects under `name`, subscribed to nothing.
    pub(crate) async fn connect(node: &Node, name: &str) -> Self {
        Self::connect_to(node.address, name).await
    }

    pub(crate) async fn connect_to(address: SocketAddr, name: &str) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a URI");
        let channel = in_time("a connection", endpoint.connect()).await.expect("the node accepts");
        let (sender, messages) = mpsc::channel(64);
        let mut service = DataPlaneServiceClient::new(channel);
        let opened = service.open_channel(ReceiverStream::new(messages));
        let response = in_time("response headers", opened).await.expect("a stream");
        Self { name: name.to_owned(), sender, received: response.into_inner() }
    }

    /// Connects and subscribes to its own name, as published clients do, and waits until the
    /// whole node knows.
    pub(crate) async fn join(node: &Node, name: &str) -> Self {
        let client = Self::connect(node, name).await;
        client.subscribe(name).await;
        client.settle(node).await;
        client
    }

    pub(crate) async fn send(&self, message: Message) {
        in_time("room to send", self.sender.send(message)).await.expect("the stream is open");
    }

    pub(crate) async fn subscribe(&self, name: &str) {
        self.send(subscribe(&self.name, name)).await;
    }

    pub(crate) async fn unsubscribe(&self, name: &str) {
        self.send(unsubscribe(&self.name, name)).await;
    }

    pub(crate) async fn publish(&self, destination: &str, payload: impl Into<Bytes>) {
        self.send(publish(&self.name, destination, payload)).await;
    }

    pub(crate) async fn broadcast(&self, destination: &str, payload: impl Into<Bytes>) {
        self.send(message::broadcast(&self.name, destination, payload)).await;
    }

    /// Waits until every core knows what this client sent before: a subscription has no
    /// acknowledgement, but takes effect before the next message of its stream. That message
    /// goes to a name that nobody has, and is counted. Not to be used beside traffic that
    /// matches nobody.
    pub(crate) async fn settle(&self, node: &Node) {
        let before = node.metrics().await.sum(UNMATCHED);
        self.publish(NOBODY, "settle").await;
        node.until("a subscription is known", |metrics| metrics.sum(UNMATCHED) > before).await;
    }

    /// The next message.
    pub(crate) async fn receive(&mut self) -> Message {
        in_time("a message", self.received.message())
            .await
            .expect("the stream goes on")
            .expect("the stream is open")
    }

    /// The payload of the next message.
    pub(crate) async fn payload(&mut self) -> Bytes {
        message::payload(&self.receive().await).clone()
    }

    /// Messages to the end of the stream, and how it ended.
    pub(crate) async fn rest(&mut self) -> (Vec<Message>, Result<(), Status>) {
        let mut messages = Vec::new();
        loop {
            match in_time("the end of the stream", self.received.message()).await {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => return (messages, Ok(())),
                Err(status) => return (messages, Err(status)),
            }
        }
    }

    /// The status with which the node ended the stream, without a message before.
    pub(crate) async fn status(&mut self) -> Status {
        let (messages, end) = self.rest().await;
        assert!(messages.is_empty(), "{messages:?}");
        end.expect_err("a status other than OK")
    }

    /// Closes the stream and its connection, and waits until the node has no trace of it.
    pub(crate) async fn leave(self, node: &Node) {
        let before = node.metrics().await.sum("slim_links");
        drop(self);
        eventually("the link is gone", async || {
            (node.metrics().await.sum("slim_links") < before).then_some(())
        })
        .await;
    }
}
