use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};

use super::Shared;

/// Writes what waits for the stream until it is finished, and ends this side of it; or resets it
/// if the link ends otherwise.
pub(super) async fn write(shared: Arc<Shared>, mut stream: SendStream<Bytes>) {
    tokio::select! {
        biased;
        done = write_all(&shared, &mut stream) => {
            // Why the node takes no more is told by what it sends.
            if done.is_some() && shared.end.get().is_none() {
                let _ = stream.send_data(Bytes::new(), true);
            }
            shared.over.cancelled().await;
        }
        () = shared.over.cancelled() => {}
    }
    stream.send_reset(Reason::CANCEL);
}

/// `None` if the stream takes no more.
async fn write_all(shared: &Shared, stream: &mut SendStream<Bytes>) -> Option<()> {
    let mut batch = Vec::new();
    while shared.outbound.take(&mut batch).await {
        for mut bytes in batch.drain(..) {
            while !bytes.is_empty() {
                let room = room_for(bytes.len(), stream).await?.min(bytes.len());
                stream.send_data(bytes.split_to(room), false).ok()?;
            }
        }
    }
    Some(())
}

/// Waits until flow control has room for some of `wanted` bytes.
async fn room_for(wanted: usize, stream: &mut SendStream<Bytes>) -> Option<usize> {
    stream.reserve_capacity(wanted);
    poll_fn(|cx| {
        if stream.capacity() > 0 {
            return Poll::Ready(Some(stream.capacity()));
        }
        loop {
            return match ready!(stream.poll_capacity(cx)) {
                // A change that leaves nothing is not the end of waiting.
                Some(Ok(0)) => continue,
                Some(Ok(room)) => Poll::Ready(Some(room)),
                Some(Err(_)) | None => Poll::Ready(None),
            };
        }
    })
    .await
}
