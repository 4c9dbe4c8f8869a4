//! What the endpoint says in HTTP: which request opens a channel, how it is refused, how a
//! channel ends.

use std::fmt;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use tonic::{Code, Status};

use crate::dialect::Dialect;
use crate::layout::{D6, P};

const GRPC: &str = "application/grpc";

/// Why a request opens no channel.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// Not a gRPC request; answered in plain HTTP.
    NotGrpc(StatusCode),
    /// A gRPC request for something else; answered with a gRPC status and no body.
    Status(Status),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotGrpc(status) => write!(f, "not a gRPC request (HTTP {status})"),
            Self::Status(status) => f.write_str(status.message()),
        }
    }
}

impl Refusal {
    /// The whole response.
    pub fn into_response<B: Default>(self) -> http::Response<B> {
        match self {
            Self::NotGrpc(status) => {
                let mut response = http::Response::new(B::default());
                *response.status_mut() = status;
                response
            }
            Self::Status(status) => status.into_http(),
        }
    }
}

/// Which of the published services a channel belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// `pubsub.proto.v1`: releases 0.4 and 0.5.
    PubSub,
    /// `dataplane.proto.v1`: releases from 0.6.
    DataPlane,
}

/// The service whose channel the request opens.
///
/// # Errors
/// [`Refusal`]: what to answer instead. Refusals of gRPC requests are gRPC-shaped (HTTP 200 and
/// `grpc-status`), because published clients reconnect in a tight loop on a bare HTTP error.
pub fn open_channel<B>(request: &Request<B>) -> Result<Service, Refusal> {
    let content_type = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    if !content_type.is_some_and(is_grpc) {
        return Err(Refusal::NotGrpc(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    if request.method() != Method::POST {
        return Err(Refusal::NotGrpc(StatusCode::METHOD_NOT_ALLOWED));
    }
    match request.uri().path() {
        path if path == <D6 as Dialect>::PATH => Ok(Service::DataPlane),
        path if path == <P as Dialect>::PATH => Ok(Service::PubSub),
        path => Err(Refusal::Status(Status::new(
            Code::Unimplemented,
            format!("unknown method {path}; expected {}", <D6 as Dialect>::PATH),
        ))),
    }
}

/// `application/grpc` alone, with a message format, or with parameters.
fn is_grpc(content_type: &[u8]) -> bool {
    let rest = content_type.strip_prefix(GRPC.as_bytes());
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// The response that accepts a channel. To be sent at once: clients wait for it in `connect`.
pub fn channel_response<B>(body: B) -> http::Response<B> {
    let mut response = http::Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
    response
}

/// The trailers that end a channel with `status`.
pub fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        // The message cannot be written as a header; the code alone always can.
        let bare = Status::new(status.code(), "");
        bare.add_header(&mut trailers).expect("a status without a message is a valid header");
    }
    trailers
}
