use std::future::poll_fn;
use std::task::{Poll, ready};

use bytes::Bytes;
use h2::SendStream;

use super::stream::Ended;
use crate::datapath::{Departure, LinkId};
use crate::link::host::Host;

/// Writes what the datapath has for the link, as fast as flow control lets it.
pub(super) async fn run(host: &Host, link: LinkId, send: &mut SendStream<Bytes>) -> Ended {
    loop {
        let departure = poll_fn(|cx| host.core.borrow_mut().poll_departure(link, cx)).await;
        let mut bytes = match departure {
            Departure::Chunk(chunk) => chunk.bytes,
            Departure::Finished => return Ended::Finished,
            Departure::Evicted => return Ended::TooSlow,
        };
        while !bytes.is_empty() {
            let room = match room_for(host, link, send, bytes.len()).await {
                Ok(room) => room.min(bytes.len()),
                Err(ended) => return ended,
            };
            if let Err(error) = send.send_data(bytes.split_to(room), false) {
                return Ended::Broken(error);
            }
        }
    }
}

/// Waits until flow control has room for some of `wanted` bytes, or the link is cut off.
async fn room_for(
    host: &Host,
    link: LinkId,
    send: &mut SendStream<Bytes>,
    wanted: usize,
) -> Result<usize, Ended> {
    send.reserve_capacity(wanted);
    poll_fn(|cx| {
        if host.core.borrow_mut().poll_evicted(link, cx).is_ready() {
            return Poll::Ready(Err(Ended::TooSlow));
        }
        if send.capacity() > 0 {
            return Poll::Ready(Ok(send.capacity()));
        }
        loop {
            return match ready!(send.poll_capacity(cx)) {
                // A change that leaves nothing is not the end of waiting.
                Some(Ok(0)) => continue,
                Some(Ok(room)) => Poll::Ready(Ok(room)),
                Some(Err(error)) => Poll::Ready(Err(Ended::Broken(error))),
                None => Poll::Ready(Err(Ended::ByClient)),
            };
        }
    })
    .await
}
