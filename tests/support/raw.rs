use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use slim_compat_grpc::proto::d6::Message;
use slim_compat_grpc::{D6, Dialect, MessageReader};
use slim_wire::limits::GRPC_MESSAGE_BYTES;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::client::{NOBODY, UNMATCHED};
use super::message::{framed, publish, subscribe};
use super::node::Node;
use super::{PATIENCE, in_time};

/// Flow-control windows of published clients.
const STREAM_WINDOW: u32 = 2 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 5 * 1024 * 1024;

/// One HTTP/2 connection, driven by a task of its own as long as that is wanted.
pub(crate) struct Connection {
    requests: SendRequest<Bytes>,
    frozen: Arc<Notify>,
    driver: JoinHandle<Result<(), h2::Error>>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("accepted");
        Self::over(stream).await
    }

    pub(crate) async fn over<Io>(io: Io) -> Self
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let handshake = Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(io);
        let (requests, connection) =
            in_time("the HTTP/2 handshake", handshake).await.expect("an HTTP/2 server");
        let frozen = Arc::new(Notify::new());
        let freeze = Arc::clone(&frozen);
        let driver = tokio::spawn(async move {
            let mut connection = connection;
            tokio::select! {
                ended = &mut connection => ended,
                () = freeze.notified() => std::future::pending().await,
            }
        });
        Self { requests, frozen, driver }
    }

    /// Opens a channel of release 0.6, if the node serves the connection at all.
    pub(crate) async fn try_channel(&mut self) -> Option<Channel> {
        let mut requests = self.requests.clone().ready().await.ok()?;
        let (response, send) = requests.send_request(request(D6::PATH), false).ok()?;
        let response = in_time("response headers", response).await.ok()?;
        Some(Channel::new(response, send))
    }

    /// Opens a stream and resets it at once; false when the node serves the connection no more.
    pub(crate) async fn open_and_reset(&mut self) -> bool {
        let Ok(mut requests) = self.requests.clone().ready().await else {
            return false;
        };
        let Ok((response, mut send)) = requests.send_request(request(D6::PATH), false) else {
            return false;
        };
        send.send_reset(h2::Reason::CANCEL);
        drop(response);
        tokio::task::yield_now().await;
        true
    }

    /// Sends a request for `path`; returns its response and the open body.
    pub(crate) async fn request(
        &mut self,
        path: &str,
    ) -> (Response<RecvStream>, SendStream<Bytes>) {
        let (response, body) = in_time("room for a stream", async {
            let ready = self.requests.clone().ready().await;
            self.requests = ready.expect("the connection is open");
            self.requests.send_request(request(path), false)
        })
        .await
        .expect("a stream");
        let response = in_time("response headers", response).await.expect("a response");
        (response, body)
    }

    /// Asks for a channel of release 0.6 with these credentials; returns the response's head, and
    /// whether it is all.
    pub(crate) async fn ask(&self, authorization: &str) -> (Response<()>, bool, Channel) {
        let mut request = request(D6::PATH);
        let value = authorization.parse().expect("the value of a header");
        request.headers_mut().insert("authorization", value);
        let ready = in_time("room for a stream", self.requests.clone().ready()).await;
        let (response, send) = ready
            .and_then(|mut requests| requests.send_request(request, false))
            .expect("the connection is open");
        let response = in_time("response headers", response).await.expect("a response");
        let (parts, body) = response.into_parts();
        let is_all = body.is_end_stream();
        let head = Response::from_parts(parts.clone(), ());
        (head, is_all, Channel::new(Response::from_parts(parts, body), send))
    }

    /// Opens a channel of release 0.6; of later ones too, which have the same path.
    pub(crate) async fn channel(&mut self) -> Channel {
        self.channel_at(D6::PATH).await
    }

    /// Opens a channel of the releases that have this path.
    pub(crate) async fn channel_at(&mut self, path: &str) -> Channel {
        let (response, send) = self.request(path).await;
        assert_eq!(response.status(), 200);
        assert!(!response.headers().contains_key("grpc-status"));
        Channel::new(response, send)
    }

    /// Reads and writes nothing from now on, and leaves the socket open.
    pub(crate) fn freeze(&self) {
        self.frozen.notify_one();
    }

    /// Closes the socket without a word of HTTP/2.
    pub(crate) async fn abandon(self) {
        self.driver.abort();
        let _ = self.driver.await;
    }

    /// Waits until the other end has closed the connection.
    pub(crate) async fn closed(self) {
        let _ = in_time("the connection ends", self.driver).await;
    }
}

fn request(path: &str) -> Request<()> {
    Request::post(format!("http://node{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("a request")
}

/// One stream of a connection.
pub(crate) struct Channel {
    send: SendStream<Bytes>,
    receive: RecvStream,
    messages: MessageReader,
}

impl Channel {
    fn new(response: Response<RecvStream>, send: SendStream<Bytes>) -> Self {
        Self {
            send,
            receive: response.into_body(),
            messages: MessageReader::new(GRPC_MESSAGE_BYTES),
        }
    }

    pub(crate) async fn send(&mut self, message: &Message) {
        self.send_bytes(framed(message)).await.expect("the stream is open");
    }

    /// Subscribes to `name`, and waits until the whole node knows; see `Client::settle`.
    pub(crate) async fn join(&mut self, node: &Node, name: &str) {
        let before = node.metrics().await.sum(UNMATCHED);
        self.send(&subscribe(name, name)).await;
        self.send(&publish(name, NOBODY, "settle")).await;
        node.until("a subscription is known", |metrics| metrics.sum(UNMATCHED) > before).await;
    }

    /// Sends as flow control allows; fails when the node has ended the stream.
    pub(crate) async fn send_bytes(&mut self, mut bytes: Bytes) -> Result<(), h2::Error> {
        while !bytes.is_empty() {
            self.send.reserve_capacity(bytes.len());
            let room = std::future::poll_fn(|cx| self.send.poll_capacity(cx));
            let room = match in_time("room to send", room).await {
                Some(room) => room?,
                None => return Err(h2::Reason::CANCEL.into()),
            };
            let len = room.min(bytes.len());
            self.send.send_data(bytes.split_to(len), false)?;
        }
        Ok(())
    }

    /// The next message, without its framing; `None` at the end of the body.
    pub(crate) async fn receive(&mut self) -> Option<Bytes> {
        loop {
            if let Some(message) = self.messages.next().expect("valid framing") {
                return Some(message);
            }
            let chunk = in_time("a message", self.receive.data()).await?;
            let chunk = chunk.expect("the stream goes on");
            let flow = self.receive.flow_control();
            flow.release_capacity(chunk.len()).expect("released");
            self.messages.push(chunk);
        }
    }

    /// Ends this side of the stream.
    pub(crate) fn close(&mut self) {
        let end = self.send.send_data(Bytes::new(), true);
        end.expect("the stream is open");
    }

    /// The trailers that end the stream, without a message before.
    pub(crate) async fn trailers(&mut self) -> HeaderMap {
        assert_eq!(self.receive().await, None);
        in_time("trailers", self.receive.trailers())
            .await
            .expect("an orderly end")
            .expect("trailers")
    }

    /// How the node broke the stream off.
    pub(crate) async fn reset(&mut self) -> h2::Reason {
        let broken = async {
            loop {
                match self.receive.data().await {
                    Some(Ok(chunk)) => {
                        let flow = self.receive.flow_control();
                        let _ = flow.release_capacity(chunk.len());
                    }
                    Some(Err(error)) => return error.reason().expect("a reset"),
                    None => panic!("expected a reset, got the end of the stream"),
                }
            }
        };
        in_time("the stream is reset", broken).await
    }
}

/// The gRPC status of trailers or of a headers-only response, and its message.
pub(crate) fn status(headers: &HeaderMap) -> tonic::Status {
    tonic::Status::from_header_map(headers).expect("a gRPC status")
}

/// Reads a plain socket until the other end closes it; returns what came.
pub(crate) async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    use tokio::io::AsyncReadExt;
    let mut bytes = Vec::new();
    // A reset is an end too.
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes));
    let _ = read.await.expect("the node closes the connection");
    bytes
}
