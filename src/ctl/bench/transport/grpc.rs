//! The gRPC of release 0.6, spoken with `h2` itself: a framework would encode and copy every
//! message, and the generator shares the machine with what it measures.

use std::collections::HashMap;
use std::future::poll_fn;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use prost::Message as _;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use slim_compat_grpc::proto::d6;
use slim_compat_grpc::{D6, Dialect, MessageReader, prefix};
use slim_wire::hash_component;
use slim_wire::limits::GRPC_MESSAGE_BYTES;
use tokio::net::TcpStream;

use super::{Arrival, Route, Target, Template, components};
use crate::ctl::Error;

/// Windows as published clients announce them.
const STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 5 * 1024 * 1024;

/// As long as what published clients put into every message.
const IDENTITY: &str = "an-identity-token-of-46-bytes-as-0.6.3-sends:x";

const ANY_ID: u64 = u64::MAX;

pub(crate) struct Sender {
    stream: SendStream<Bytes>,
}

pub(crate) struct Receiver {
    body: Body,
    messages: MessageReader,
}

/// A server may send the response headers only with the first message.
enum Body {
    Awaited(ResponseFuture),
    Open(RecvStream),
}

/// Opens a channel on a connection of its own, subscribed to the id if there is one.
pub(super) async fn connect(
    authority: &str,
    topic: &str,
    id: Option<u64>,
) -> Result<(Sender, Receiver), Error> {
    let (stream, response) =
        open(authority).await.map_err(|source| Error::connect(authority, source))?;
    let messages = MessageReader::new(GRPC_MESSAGE_BYTES);
    let receiver = Receiver { body: Body::Awaited(response), messages };
    let mut sender = Sender { stream };
    if let Some(id) = id {
        sender.send(framed(&subscription(topic, id)).into()).await?;
    }
    Ok((sender, receiver))
}

async fn open(
    authority: &str,
) -> Result<(SendStream<Bytes>, ResponseFuture), Box<dyn std::error::Error + Send + Sync>> {
    let tcp = TcpStream::connect(authority).await?;
    // Otherwise delayed acknowledgements would bunch what is paced.
    tcp.set_nodelay(true)?;
    let (mut requests, connection) = h2::client::Builder::new()
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .handshake(tcp)
        .await?;
    // Ends with the connection; what goes wrong shows in its stream.
    tokio::spawn(connection);
    let request = Request::post(format!("http://{authority}{}", D6::PATH))
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .body(())?;
    let (response, stream) = requests.send_request(request, false)?;
    Ok((stream, response))
}

impl Sender {
    pub(super) async fn send(&mut self, mut bytes: Bytes) -> Result<(), Error> {
        while !bytes.is_empty() {
            self.stream.reserve_capacity(bytes.len());
            let room = poll_fn(|cx| self.stream.poll_capacity(cx)).await;
            let room = room.ok_or_else(|| Error::link("the end of the stream"))?;
            let room = room.map_err(Error::link)?.min(bytes.len());
            self.stream.send_data(bytes.split_to(room), false).map_err(Error::link)?;
        }
        Ok(())
    }

    /// The server ends its side once it has read all of ours.
    pub(super) async fn finish(mut self, mut receiver: Receiver) -> Result<(), Error> {
        self.stream.send_data(Bytes::new(), true).map_err(Error::link)?;
        let mut ignored = Vec::new();
        while receiver.receive(&mut ignored).await? {
            ignored.clear();
        }
        Ok(())
    }
}

impl Receiver {
    pub(super) async fn receive(&mut self, arrivals: &mut Vec<Arrival>) -> Result<bool, Error> {
        let body = match &mut self.body {
            Body::Open(body) => body,
            Body::Awaited(response) => {
                let response = response.await.map_err(Error::link)?;
                if response.status() != 200 {
                    let status = response.status();
                    return Err(Error::link(format!("status: expected 200, got {status}")));
                }
                accept(response.headers())?;
                self.body = Body::Open(response.into_body());
                return Ok(true);
            }
        };
        let Some(chunk) = body.data().await else {
            let trailers = body.trailers().await.map_err(Error::link)?;
            return accept(&trailers.unwrap_or_default()).map(|()| false);
        };
        let chunk = chunk.map_err(Error::link)?;
        body.flow_control().release_capacity(chunk.len()).map_err(Error::link)?;
        self.messages.push(chunk);
        while let Some(message) = self.messages.next().map_err(Error::link)? {
            arrivals.extend(payload(&message).and_then(Arrival::of));
        }
        Ok(true)
    }
}

/// Fails on the status of a refusal.
fn accept(headers: &HeaderMap) -> Result<(), Error> {
    match tonic::Status::from_header_map(headers) {
        Some(status) if status.code() != tonic::Code::Ok => Err(Error::link(status)),
        _ => Ok(()),
    }
}

/// The payload of a published message, found without decoding the rest.
fn payload(message: &[u8]) -> Option<&[u8]> {
    const PUBLISH: u32 = 3;
    const CONTENT: u32 = 3;
    const BLOB: u32 = 2;
    field(field(field(message, PUBLISH)?, CONTENT)?, BLOB)
}

/// The value of a field of bytes.
fn field(mut message: &[u8], number: u32) -> Option<&[u8]> {
    while !message.is_empty() {
        let (found, wire_type) = decode_key(&mut message).ok()?;
        if wire_type != WireType::LengthDelimited {
            skip_field(wire_type, found, &mut message, DecodeContext::default()).ok()?;
            continue;
        }
        let len = usize::try_from(decode_varint(&mut message).ok()?).ok()?;
        let (value, rest) = message.split_at_checked(len)?;
        if found == number {
            return Some(value);
        }
        message = rest;
    }
    None
}

fn framed(message: &d6::Message) -> Vec<u8> {
    let mut frame = prefix(message.encoded_len()).to_vec();
    message.encode_raw(&mut frame);
    frame
}

fn name(topic: &str, id: u64) -> d6::Name {
    let [component_0, component_1, component_2] = components(topic).map(hash_component);
    d6::Name { component_0, component_1, component_2, component_3: id }
}

fn header(topic: &str, source: u64, destination: u64, fanout: u32) -> d6::Header {
    d6::Header {
        source: Some(name(topic, source)),
        destination: Some(name(topic, destination)),
        fanout,
        incoming_conn: Some(0),
        ..d6::Header::default()
    }
}

fn subscription(topic: &str, id: u64) -> d6::Message {
    let [component_0, component_1, component_2] = components(topic).map(String::from);
    message(d6::message::Type::Subscribe(d6::Subscribe {
        header: Some(header(topic, id, id, 1)),
        component_0,
        component_1,
        component_2,
    }))
}

/// A reliable point-to-point message as published clients send it.
pub(super) fn template(route: &Route<'_>, size: usize) -> Template {
    let (destination, fanout) = match route.target {
        Target::Id(id) => (id, 1),
        Target::All(fanout) => (ANY_ID, fanout),
    };
    let frame = framed(&message(d6::message::Type::Publish(d6::Publish {
        header: Some(header(route.topic, route.source, destination, fanout)),
        session: Some(d6::SessionHeader {
            session_type: d6::SessionType::PointToPoint as i32,
            session_message_type: d6::SessionMessageType::P2pReliable as i32,
            session_id: 0x0bad_cafe,
            message_id: 1_000_000,
            source: None,
            destination: None,
        }),
        msg: Some(d6::Content { content_type: "msg".into(), blob: Bytes::from(vec![0x5A; size]) }),
    })));
    let body = &frame[prefix(0).len()..];
    let payload = payload(body).expect("the message has just been given one");
    let stamp_at = payload.as_ptr().addr() - frame.as_ptr().addr();
    Template { bytes: frame, stamp_at, address: route.address() }
}

fn message(kind: d6::message::Type) -> d6::Message {
    let metadata = HashMap::from([("SLIM_IDENTITY".to_owned(), IDENTITY.to_owned())]);
    d6::Message { r#type: Some(kind), metadata }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::super::super::stamp::{Mark, Stamp};
    use super::*;

    #[test]
    fn a_stamped_message_is_one_of_release_0_6_with_the_stamp_in_its_payload() {
        let route = Route { topic: "t", source: 7, target: Target::All(3) };
        let stamp = Stamp { due: 1, sender: 2, mark: Mark::End, sequence: 3 };
        let mut batch = BytesMut::new();
        template(&route, 64).append(stamp, &mut batch);
        let mut messages = MessageReader::new(GRPC_MESSAGE_BYTES);
        messages.push(batch.freeze());
        let bytes = messages.next().expect("framed").expect("whole");
        assert_eq!(Arrival::of(payload(&bytes).expect("a payload")).expect("ours").stamp, stamp);

        let message = d6::Message::decode(bytes).expect("valid");
        let Some(d6::message::Type::Publish(publish)) = message.r#type else {
            panic!("expected a publish");
        };
        assert_eq!(publish.header.as_ref().map(|header| header.fanout), Some(3));
        assert_eq!(Stamp::read(&publish.msg.expect("content").blob), Some(stamp));
    }

    #[test]
    fn a_message_that_is_cut_has_no_payload() {
        let route = Route { topic: "t", source: 7, target: Target::Id(1) };
        let frame = template(&route, 64).bytes;
        let end = frame.len() - 100;
        assert_eq!(payload(&frame[prefix(0).len()..end]), None);
    }
}
