//! Very many links over the gRPC of release 0.6, each a connection of its own, on one thread.

use std::collections::HashMap;
use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use http::Request;
use prost::Message as _;
use slim_compat_grpc::proto::d6;
use slim_compat_grpc::{D6, Dialect, prefix};
use slim_wire::{Id, Name};
use std::future::poll_fn;
use tokio::net::TcpStream;

use crate::Failure;

/// One link. To be used inside a [`tokio::task::LocalSet`].
pub(crate) struct Link {
    stream: SendStream<Bytes>,
    body: Body,
}

/// The node sends the response headers when the link is open.
enum Body {
    Awaited(ResponseFuture),
    Open(RecvStream),
}

/// Windows as published clients announce them.
const STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 5 * 1024 * 1024;

impl Link {
    /// An open link to `node`.
    pub(crate) async fn connect(node: SocketAddr) -> Result<Self, Failure> {
        let tcp = TcpStream::connect(node).await?;
        tcp.set_nodelay(true)?;
        let (mut requests, connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .handshake(tcp)
            .await?;
        // Ends with the connection; what goes wrong shows in its stream.
        tokio::task::spawn_local(connection);
        let request = Request::post(format!("http://{node}{}", D6::PATH))
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            .body(())?;
        let (response, stream) = requests.send_request(request, false)?;
        let mut link = Self { stream, body: Body::Awaited(response) };
        link.body().await?;
        Ok(link)
    }

    async fn body(&mut self) -> Result<&mut RecvStream, Failure> {
        if let Body::Awaited(response) = &mut self.body {
            self.body = Body::Open(response.await?.into_body());
        }
        match &mut self.body {
            Body::Open(body) => Ok(body),
            Body::Awaited(_) => unreachable!("it has just been opened"),
        }
    }

    /// Sends subscriptions to names. They are not answered.
    pub(crate) async fn subscribe(
        &mut self,
        names: impl Iterator<Item = Name>,
    ) -> Result<(), Failure> {
        const BATCH_BYTES: usize = 16 * 1024;
        let mut batch = Vec::new();
        for name in names {
            append(&subscription(name), &mut batch);
            if batch.len() >= BATCH_BYTES {
                self.send(std::mem::take(&mut batch).into()).await?;
            }
        }
        self.send(batch.into()).await
    }

    /// Publishes a payload to an id.
    pub(crate) async fn publish(&mut self, to: Name, payload: &[u8]) -> Result<(), Failure> {
        let mut message = Vec::new();
        append(&publication(to, payload), &mut message);
        self.send(message.into()).await
    }

    /// Waits until something has come, and drops it. Returns how many bytes that was.
    pub(crate) async fn receive(&mut self) -> Result<usize, Failure> {
        let body = self.body().await?;
        let chunk = body.data().await.ok_or("a link ended")??;
        body.flow_control().release_capacity(chunk.len())?;
        Ok(chunk.len())
    }

    async fn send(&mut self, mut bytes: Bytes) -> Result<(), Failure> {
        while !bytes.is_empty() {
            self.stream.reserve_capacity(bytes.len());
            let room = poll_fn(|cx| self.stream.poll_capacity(cx)).await;
            let room = room.ok_or("a link ended")??.min(bytes.len());
            self.stream.send_data(bytes.split_to(room), false)?;
        }
        Ok(())
    }
}

fn append(message: &d6::Message, batch: &mut Vec<u8>) {
    batch.extend_from_slice(&prefix(message.encoded_len()));
    message.encode_raw(batch);
}

fn header(destination: Name) -> d6::Header {
    let source = Name { id: Id::from_u64(1), ..destination };
    let name = |Name { prefix, id }: Name| d6::Name {
        component_0: prefix.0[0],
        component_1: prefix.0[1],
        component_2: prefix.0[2],
        component_3: id.to_u64().unwrap_or(u64::MAX),
    };
    d6::Header {
        source: Some(name(source)),
        destination: Some(name(destination)),
        fanout: 1,
        incoming_conn: Some(0),
        ..d6::Header::default()
    }
}

/// Without texts, which are not known of a name that was made from numbers: nodes would go by them.
fn subscription(name: Name) -> d6::Message {
    let header = Some(header(name));
    message(d6::message::Type::Subscribe(d6::Subscribe { header, ..d6::Subscribe::default() }))
}

fn publication(to: Name, payload: &[u8]) -> d6::Message {
    let kind = d6::message::Type::Publish(d6::Publish {
        header: Some(header(to)),
        session: Some(d6::SessionHeader {
            session_type: d6::SessionType::PointToPoint as i32,
            session_message_type: d6::SessionMessageType::P2pReliable as i32,
            session_id: 1,
            message_id: 1,
            source: None,
            destination: None,
        }),
        msg: Some(d6::Content {
            content_type: "msg".into(),
            blob: Bytes::copy_from_slice(payload),
        }),
    });
    message(kind)
}

/// With what published clients put into every message, by which their release is told.
fn message(kind: d6::message::Type) -> d6::Message {
    let metadata = HashMap::from([("SLIM_IDENTITY".to_owned(), "x".repeat(46))]);
    d6::Message { r#type: Some(kind), metadata }
}
