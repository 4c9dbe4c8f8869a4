//! The node's end of a link over gRPC, byte by byte.

use std::future::poll_fn;
use std::net::SocketAddr;

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use slim_quic::client::link::{Link, LinkOptions};
use tokio::net::TcpListener;

use crate::support::in_time;

/// Room for the client on its way to a node that does not read.
pub(crate) const WINDOW_BYTES: u32 = 64 * 1024;

pub(crate) struct FakeNode {
    listener: TcpListener,
    pub(crate) address: SocketAddr,
}

/// The node's end of a stream.
pub(crate) struct Peer {
    send: SendStream<Bytes>,
    pub(crate) body: RecvStream,
}

impl FakeNode {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        Self { listener, address }
    }

    /// The next stream, not yet answered; its connection is driven until it ends.
    pub(crate) async fn accept(&self) -> (Request<RecvStream>, SendResponse<Bytes>) {
        let (tcp, _) = self.listener.accept().await.expect("a client");
        let mut builder = Builder::new();
        builder.initial_window_size(WINDOW_BYTES);
        let mut connection = builder.handshake::<_, Bytes>(tcp).await.expect("HTTP/2");
        let stream = connection.accept().await.expect("a stream").expect("a stream");
        tokio::spawn(async move { while connection.accept().await.is_some() {} });
        stream
    }

    /// A link and the node's end of it.
    pub(crate) async fn link(&self, options: &LinkOptions) -> (Link, Peer) {
        let address = format!("http://{}", self.address);
        let node = async {
            let (request, mut respond) = self.accept().await;
            assert_eq!(request.uri().path(), "/dataplane.proto.v1.DataPlaneService/OpenChannel");
            let response = Response::builder().header("content-type", "application/grpc");
            let response = response.body(()).expect("a response");
            let send = respond.send_response(response, false).expect("the stream is open");
            Peer { send, body: request.into_body() }
        };
        let both = async { tokio::join!(Link::connect(&address, options), node) };
        let (link, peer) = in_time("a stream", both).await;
        (link.expect("a link"), peer)
    }
}

impl Peer {
    pub(crate) fn send(&mut self, bytes: impl Into<Bytes>) {
        self.send.send_data(bytes.into(), false).expect("the stream is open");
    }

    /// Sends as flow control lets it.
    pub(crate) async fn send_in_time(&mut self, mut bytes: Bytes) {
        while !bytes.is_empty() {
            self.send.reserve_capacity(bytes.len());
            let room = in_time("room", poll_fn(|cx| self.send.poll_capacity(cx))).await;
            let room = room.expect("the stream is open").expect("the stream is open");
            self.send(bytes.split_to(room.min(bytes.len())));
        }
    }

    /// Ends the stream with a status of gRPC.
    pub(crate) fn end(&mut self, status: &'static str, message: &'static str) {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", status.parse().expect("a value"));
        trailers.insert("grpc-message", message.parse().expect("a value"));
        self.send.send_trailers(trailers).expect("the stream is open");
    }

    pub(crate) fn reset(&mut self, reason: Reason) {
        self.send.send_reset(reason);
    }

    /// How the client reset the stream.
    pub(crate) async fn reset_by_client(&mut self) -> Reason {
        let reset = poll_fn(|cx| self.send.poll_reset(cx));
        in_time("a reset", reset).await.expect("the connection is open")
    }

    /// Reads to the end of the client's side; how many bytes came.
    pub(crate) async fn read_to_end(&mut self) -> usize {
        let mut count = 0;
        while let Some(chunk) = in_time("bytes", self.body.data()).await {
            let chunk = chunk.expect("the stream is open");
            count += chunk.len();
            self.body.flow_control().release_capacity(chunk.len()).expect("it was taken");
        }
        count
    }
}
