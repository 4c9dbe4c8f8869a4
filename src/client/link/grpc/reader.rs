use std::sync::Arc;
use std::sync::atomic::Ordering;

use h2::{Reason, RecvStream};
use http::HeaderMap;
use slim_compat_grpc::transcode::{TranscodeError, d6_to_native};
use slim_compat_grpc::{D6, Dialect, FramingError, MessageReader, Routed};
use slim_wire::limits::GRPC_MESSAGE_BYTES;
use slim_wire::{CloseCode, DecodeError, FrameHeader, Header, Kind, Pieces};
use tonic::{Code, Status};

use super::Shared;
use crate::client::link::error::one_line;
use crate::client::link::{LinkError, Message, Place};

/// Reads the stream to its end, which is the link's. While the app is behind, it is left unread.
pub(super) async fn read(shared: Arc<Shared>, mut body: RecvStream) {
    let reason = read_all(&shared, &mut body).await;
    shared.conclude(reason);
    shared.inbound.end();
}

async fn read_all(shared: &Shared, body: &mut RecvStream) -> LinkError {
    let mut messages = MessageReader::new(GRPC_MESSAGE_BYTES);
    let mut batch = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(error) => return broken(shared, &error),
        };
        let length = chunk.len();
        messages.push(chunk);
        let cut = cut(shared, &mut messages, &mut batch);
        // What came before a wrong message is as good as ever.
        if !deliver(shared, &mut batch).await {
            return LinkError::Ended;
        }
        if let Err(error) = cut {
            return wrong(&error);
        }
        // Only now may the node send as much again. It fails only after the end of the stream,
        // which shows in the next round.
        let _ = body.flow_control().release_capacity(length);
    }
    if let Err(error) = messages.finish() {
        return wrong(&error);
    }
    match body.trailers().await {
        Ok(trailers) => concluded(shared, &trailers.unwrap_or_default()),
        Err(error) => broken(shared, &error),
    }
}

/// Moves all messages that are whole to the end of `batch`.
fn cut(
    shared: &Shared,
    messages: &mut MessageReader,
    batch: &mut Vec<Message>,
) -> Result<(), FramingError> {
    while let Some(message) = messages.next()? {
        match native(&message) {
            Ok(Some(message)) => batch.push(message),
            Ok(None) => _ = shared.ignored.fetch_add(1, Ordering::Relaxed),
            Err(_) => _ = shared.unreadable.fetch_add(1, Ordering::Relaxed),
        }
    }
    Ok(())
}

/// A publish as native apps see it; `None` if it is no publish.
fn native(message: &[u8]) -> Result<Option<Message>, TranscodeError> {
    let publish = |read: &Routed<'_>| read.header.kind == Kind::Publish;
    if D6::read(message)?.routed().filter(publish).is_none() {
        return Ok(None);
    }
    let frame = d6_to_native(message, Header::DEFAULT_TTL)?;
    let Some(head) = FrameHeader::prefix_of(&frame).copied() else {
        return Ok(None);
    };
    let mut pieces = Pieces::new();
    pieces.push(frame);
    Ok(Some(Message::from_frame(&head, pieces)?))
}

/// Whether somebody may receive the batch, which is empty then.
async fn deliver(shared: &Shared, batch: &mut Vec<Message>) -> bool {
    if batch.is_empty() {
        return true;
    }
    tokio::select! {
        biased;
        delivered = shared.inbound.push(batch) => delivered,
        // No more than flow control let in can come.
        () = shared.gone.cancelled() => shared.inbound.push_at_once(batch),
        // Who closes does not wait for what it no longer receives.
        () = shared.leaving.cancelled() => {
            batch.clear();
            true
        }
    }
}

fn wrong(error: &FramingError) -> LinkError {
    let source = match *error {
        FramingError::TooLarge { limit, got } => {
            DecodeError::TooLarge { field: "message length", limit: limit as u64, got: got as u64 }
        }
        FramingError::Compressed { got } => DecodeError::Unexpected {
            field: "compression flag of a message",
            expected: "0 (none)",
            got: got.into(),
        },
        FramingError::Cut { expected } => {
            DecodeError::Truncated { field: "message", expected, got: 0 }
        }
    };
    LinkError::Wrong { place: Place::Stream, source }
}

/// Why the link ended, by what the node says last.
fn concluded(shared: &Shared, trailers: &HeaderMap) -> LinkError {
    if let Err(refused) = accept(trailers) {
        return refused;
    }
    if shared.leaving.is_cancelled() {
        return LinkError::Ended;
    }
    LinkError::Closed { code: CloseCode::Done, reason: "it ended the stream".into() }
}

/// Why the link ended, by how the stream broke.
fn broken(shared: &Shared, error: &h2::Error) -> LinkError {
    let reset = error.reason().filter(|_| error.is_reset() && error.is_remote());
    match reset {
        Some(Reason::NO_ERROR | Reason::CANCEL) if shared.leaving.is_cancelled() => {
            LinkError::Ended
        }
        Some(Reason::ENHANCE_YOUR_CALM) => {
            LinkError::Closed { code: CloseCode::TooSlow, reason: "it reset the stream".into() }
        }
        _ => LinkError::Lost { reason: one_line(error.to_string().as_bytes()) },
    }
}

/// Fails on the status of a refusal.
pub(super) fn accept(headers: &HeaderMap) -> Result<(), LinkError> {
    match Status::from_header_map(headers) {
        Some(status) if status.code() != Code::Ok => Err(LinkError::Status {
            status: status.code() as i32,
            reason: one_line(status.message().as_bytes()),
        }),
        _ => Ok(()),
    }
}
