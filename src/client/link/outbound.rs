use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};
use slim_wire::limits::PACKING_THRESHOLD_BYTES;
use tokio::sync::Notify;

/// Frames may wait for one stream up to so many bytes, plus the frame that reaches it.
const QUEUE_BYTES: usize = 256 * 1024;

/// Small frames are put into buffers of this size: as many as leave in one write on a fast path,
/// and below the sizes that allocators fetch from the system.
const BUFFER_BYTES: usize = 64 * 1024;

/// What waits for one stream. Any number of tasks put frames in; one takes all there is, as
/// often as the stream has room: the busier it is, the more frames leave in one write.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    state: Mutex<State>,
    /// Tells the task that writes.
    filled: Notify,
    /// Tells the tasks that wait for room.
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    ready: Vec<Bytes>,
    /// Where small frames are packed.
    tail: BytesMut,
    /// Bytes in `ready` and `tail`.
    waiting: usize,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Open,
    /// No more is taken in; what waits is written.
    Finishing,
    /// Nothing will be written.
    Ended,
}

/// A frame as it is put in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    pub(super) head: &'a [u8],
    pub(super) session: &'a [u8],
    pub(super) payload: &'a Bytes,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Push {
    Queued,
    /// There is no room now.
    Full,
    /// There will be none any more.
    Closed,
}

impl Outbound {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a frame in if there is room.
    pub(super) fn try_push(&self, frame: Frame<'_>) -> Push {
        let mut state = self.lock();
        if state.phase != Phase::Open {
            return Push::Closed;
        }
        if state.waiting >= QUEUE_BYTES {
            return Push::Full;
        }
        let was_empty = state.waiting == 0;
        state.append(frame);
        drop(state);
        if was_empty {
            self.filled.notify_one();
        }
        Push::Queued
    }

    /// Puts a frame in as soon as there is room. Whether it could: not if the stream has ended.
    pub(super) async fn push(&self, frame: Frame<'_>) -> bool {
        loop {
            match self.try_push(frame) {
                Push::Queued => return true,
                Push::Closed => return false,
                Push::Full => {}
            }
            let mut room = std::pin::pin!(self.room.notified());
            room.as_mut().enable();
            // Room may have come before the wait was made known.
            if self.lock().is_full() {
                room.await;
            }
        }
    }

    /// Moves all that waits to the end of `batch`, once there is something. Whether there was:
    /// not if nothing more will come.
    pub(super) async fn take(&self, batch: &mut Vec<Bytes>) -> bool {
        loop {
            {
                let mut state = self.lock();
                if state.phase == Phase::Ended {
                    return false;
                }
                if state.waiting > 0 {
                    state.take(batch);
                    drop(state);
                    self.room.notify_waiters();
                    return true;
                }
                if state.phase == Phase::Finishing {
                    return false;
                }
            }
            self.filled.notified().await;
        }
    }

    /// Takes nothing more in; what waits is still to be written.
    pub(super) fn finish(&self) {
        self.enter(Phase::Finishing);
    }

    /// Drops what waits and takes nothing more in.
    pub(super) fn end(&self) {
        self.enter(Phase::Ended);
    }

    fn enter(&self, phase: Phase) {
        let mut state = self.lock();
        if state.phase != Phase::Ended {
            state.phase = phase;
        }
        drop(state);
        self.filled.notify_one();
        self.room.notify_waiters();
    }
}

impl State {
    fn is_full(&self) -> bool {
        self.phase == Phase::Open && self.waiting >= QUEUE_BYTES
    }

    fn append(&mut self, Frame { head, session, payload }: Frame<'_>) {
        let packed = payload.len() <= PACKING_THRESHOLD_BYTES;
        let copied = head.len() + session.len() + if packed { payload.len() } else { 0 };
        if self.tail.capacity() - self.tail.len() < copied {
            self.seal();
            self.tail.reserve(copied.max(BUFFER_BYTES));
        }
        self.tail.put_slice(head);
        self.tail.put_slice(session);
        if packed {
            self.tail.put_slice(payload);
        } else {
            self.seal();
            self.ready.push(payload.clone());
        }
        self.waiting += head.len() + session.len() + payload.len();
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.ready.push(self.tail.split().freeze());
        }
    }

    fn take(&mut self, batch: &mut Vec<Bytes>) {
        self.seal();
        if batch.is_empty() {
            mem::swap(batch, &mut self.ready);
        } else {
            batch.append(&mut self.ready);
        }
        self.waiting = 0;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use slim_wire::TextName;

    use super::super::Message;
    use super::*;

    fn message(payload: usize) -> Message {
        let name = "org/ns/app".parse::<TextName>().expect("a name").to_name();
        Message::new(name, name, vec![7; payload])
    }

    fn push(queue: &Outbound, message: &Message) -> Push {
        let head = message.head(1 << 24).expect("it fits");
        let (session, payload) = (&message.session[..], &message.payload);
        queue.try_push(Frame { head: head.as_bytes(), session, payload })
    }

    #[test]
    fn small_frames_leave_in_one_piece_and_large_payloads_as_they_came() {
        let queue = Outbound::default();
        let (small, large) = (message(100), message(5000));
        for message in [&small, &small, &large, &small] {
            assert_eq!(push(&queue, message), Push::Queued);
        }
        let mut batch = Vec::new();
        assert_eq!(queue.take(&mut batch).now_or_never(), Some(true));
        let lengths: Vec<_> = batch.iter().map(Bytes::len).collect();
        assert_eq!(lengths, [204 + 204 + 104, 5000, 204]);
        assert_eq!(batch[1].as_ptr(), large.payload.as_ptr());
    }

    #[test]
    fn a_full_queue_takes_more_only_after_its_stream_has_taken_some() {
        let queue = Outbound::default();
        let message = message(1000);
        let mut queued = 0;
        while push(&queue, &message) == Push::Queued {
            queued += 1;
        }
        assert_eq!(queued, QUEUE_BYTES / message.frame_bytes() + 1);
        let head = message.head(1 << 24).expect("it fits");
        let frame = Frame { head: head.as_bytes(), session: &[], payload: &message.payload };
        let mut waits = std::pin::pin!(queue.push(frame));
        assert_eq!(waits.as_mut().now_or_never(), None);
        let mut batch = Vec::new();
        assert_eq!(queue.take(&mut batch).now_or_never(), Some(true));
        assert_eq!(waits.now_or_never(), Some(true));
    }

    #[test]
    fn after_the_end_nothing_is_taken_and_who_waits_is_told() {
        let queue = Outbound::default();
        let large = message(QUEUE_BYTES);
        assert_eq!(push(&queue, &large), Push::Queued);
        let head = large.head(1 << 24).expect("it fits");
        let frame = Frame { head: head.as_bytes(), session: &[], payload: &large.payload };
        let mut waits = std::pin::pin!(queue.push(frame));
        assert_eq!(waits.as_mut().now_or_never(), None);
        queue.end();
        assert_eq!(waits.now_or_never(), Some(false));
        assert_eq!(queue.take(&mut Vec::new()).now_or_never(), Some(false));
    }

    #[test]
    fn what_waits_when_a_queue_is_finished_is_still_written() {
        let queue = Outbound::default();
        push(&queue, &message(1));
        queue.finish();
        assert_eq!(push(&queue, &message(1)), Push::Closed);
        let mut batch = Vec::new();
        assert_eq!(queue.take(&mut batch).now_or_never(), Some(true));
        assert_eq!(queue.take(&mut batch).now_or_never(), Some(false));
    }
}
