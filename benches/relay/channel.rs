//! One stream on a connection of its own. HTTP/2 is spoken with `h2` itself, so that the generator, which
//! shares the machine with the node, costs little.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use h2::{RecvStream, SendStream};
use http::Request;
use slim_compat_grpc::{D6, Dialect as _, MessageReader, prefix};
use slim_wire::limits::GRPC_MESSAGE_BYTES;
use tokio::net::TcpStream;

use crate::Failure;

/// Both directions of a stream.
pub(crate) struct Channel {
    pub(crate) send: SendStream<Bytes>,
    pub(crate) receive: Incoming,
}

/// The messages that arrive on a stream.
pub(crate) struct Incoming {
    body: RecvStream,
    messages: MessageReader,
}

/// Windows as published clients announce them.
const STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 5 * 1024 * 1024;

impl Channel {
    pub(crate) async fn open(node: SocketAddr) -> Result<Self, Failure> {
        let tcp = TcpStream::connect(node).await?;
        // Otherwise delayed acknowledgements would bunch what is paced.
        tcp.set_nodelay(true)?;
        let (mut requests, connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .handshake(tcp)
            .await?;
        // Ends with the connection; what goes wrong shows in its stream.
        tokio::spawn(connection);
        // All dialects that are measured share the path.
        let request = Request::post(format!("http://{node}{}", D6::PATH))
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            .body(())?;
        let (response, send) = requests.send_request(request, false)?;
        let body = response.await?.into_body();
        let messages = MessageReader::new(GRPC_MESSAGE_BYTES);
        Ok(Self { send, receive: Incoming { body, messages } })
    }
}

impl Incoming {
    /// The next message.
    pub(crate) async fn next(&mut self) -> Result<Bytes, Failure> {
        loop {
            if let Some(message) = self.messages.next()? {
                return Ok(message);
            }
            if !self.fill().await? {
                return Err("the node closed the stream".into());
            }
        }
    }

    /// Calls `see` with each of the next messages; `false` at the end of the stream.
    pub(crate) async fn next_some(
        &mut self,
        mut see: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<bool, Failure> {
        let open = self.fill().await?;
        while let Some(message) = self.messages.next()? {
            see(&message)?;
        }
        Ok(open)
    }

    async fn fill(&mut self) -> Result<bool, Failure> {
        let Some(chunk) = self.body.data().await else { return Ok(false) };
        let chunk = chunk?;
        self.body.flow_control().release_capacity(chunk.len())?;
        self.messages.push(chunk);
        Ok(true)
    }
}

/// Sends all of `bytes` as flow control lets it.
pub(crate) async fn send(stream: &mut SendStream<Bytes>, mut bytes: Bytes) -> Result<(), Failure> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let room = room.ok_or("the node closed the stream")??;
        stream.send_data(bytes.split_to(room.min(bytes.len())), false)?;
    }
    Ok(())
}

pub(crate) fn framed(pieces: &[&[u8]]) -> Bytes {
    let len = pieces.iter().map(|piece| piece.len()).sum();
    let mut frame = BytesMut::from(&prefix(len)[..]);
    pieces.iter().for_each(|piece| frame.extend_from_slice(piece));
    frame.freeze()
}
