use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::Message;

/// Messages may wait for the app up to so many bytes of frames, plus a batch of each lane. Beyond
/// it the link stops reading, and flow control stops the node.
const QUEUE_BYTES: usize = 1024 * 1024;

/// What has arrived and waits for the app.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    state: Mutex<State>,
    /// Tells the tasks that receive.
    filled: Notify,
    /// Tells the tasks that read.
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    messages: VecDeque<Message>,
    /// Their frames' bytes.
    bytes: usize,
    /// No more will arrive, or nobody will receive.
    ended: bool,
}

impl State {
    fn append(&mut self, batch: &mut Vec<Message>) {
        self.bytes += batch.iter().map(Message::frame_bytes).sum::<usize>();
        self.messages.extend(batch.drain(..));
    }
}

impl Inbound {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a batch over as soon as there is room, and leaves it empty. Whether it could: not if
    /// nobody will receive it.
    pub(super) async fn push(&self, batch: &mut Vec<Message>) -> bool {
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            room.as_mut().enable();
            {
                let mut state = self.lock();
                if state.ended {
                    return false;
                }
                if state.bytes < QUEUE_BYTES {
                    state.append(batch);
                    break;
                }
            }
            room.await;
        }
        self.filled.notify_waiters();
        true
    }

    /// Hands a batch over even if there is no room, and leaves it empty. Whether it could.
    pub(super) fn push_at_once(&self, batch: &mut Vec<Message>) -> bool {
        let mut state = self.lock();
        if state.ended {
            return false;
        }
        state.append(batch);
        drop(state);
        self.filled.notify_waiters();
        true
    }

    /// Hands a message over if there is room. Whether there was.
    pub(super) fn offer(&self, message: Message) -> bool {
        let mut state = self.lock();
        if state.ended || state.bytes >= QUEUE_BYTES {
            return false;
        }
        state.bytes += message.frame_bytes();
        state.messages.push_back(message);
        drop(state);
        self.filled.notify_waiters();
        true
    }

    /// The oldest message, once there is one; `None` if no more will come.
    pub(super) async fn receive(&self) -> Option<Message> {
        self.when_filled(|state| {
            let message = state.messages.pop_front()?;
            state.bytes -= message.frame_bytes();
            Some(message)
        })
        .await
    }

    /// Moves all messages that are there to the end of `batch`, once there is one. Returns how
    /// many; 0 if no more will come.
    pub(super) async fn receive_many(&self, batch: &mut Vec<Message>) -> usize {
        let taken = self.when_filled(|state| {
            let count = state.messages.len();
            batch.extend(state.messages.drain(..));
            state.bytes = 0;
            (count > 0).then_some(count)
        });
        taken.await.unwrap_or(0)
    }

    async fn when_filled<T>(&self, mut take: impl FnMut(&mut State) -> Option<T>) -> Option<T> {
        loop {
            if let Some(answer) = self.try_take(&mut take) {
                return answer;
            }
            let mut filled = std::pin::pin!(self.filled.notified());
            filled.as_mut().enable();
            // Something may have come before the wait was made known.
            if let Some(answer) = self.try_take(&mut take) {
                return answer;
            }
            filled.await;
        }
    }

    /// What `take` takes; `Some(None)` if no more will come.
    fn try_take<T>(&self, take: &mut impl FnMut(&mut State) -> Option<T>) -> Option<Option<T>> {
        let mut state = self.lock();
        let was_full = state.bytes >= QUEUE_BYTES;
        let taken = take(&mut state);
        let has_room = was_full && state.bytes < QUEUE_BYTES;
        let ended = state.ended;
        drop(state);
        if has_room {
            self.room.notify_waiters();
        }
        if taken.is_some() || ended { Some(taken) } else { None }
    }

    /// No more will arrive. What waits can still be received.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.filled.notify_waiters();
        self.room.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use slim_wire::TextName;

    use super::*;

    fn message(payload: usize) -> Message {
        let name = "org/ns/app".parse::<TextName>().expect("a name").to_name();
        Message::new(name, name, vec![7; payload])
    }

    #[test]
    fn a_full_queue_makes_readers_wait_and_datagrams_go() {
        let queue = Inbound::default();
        let mut first = vec![message(QUEUE_BYTES), message(1)];
        assert_eq!(queue.push(&mut first).now_or_never(), Some(true));
        assert!(first.is_empty());
        assert!(!queue.offer(message(2)));
        let mut second = vec![message(3)];
        let mut waits = Box::pin(queue.push(&mut second));
        assert_eq!(waits.as_mut().now_or_never(), None);
        let received = queue.receive().now_or_never().flatten().expect("a message");
        assert_eq!(received.payload.len(), QUEUE_BYTES);
        assert_eq!(waits.as_mut().now_or_never(), Some(true));
        let mut rest = Vec::new();
        assert_eq!(queue.receive_many(&mut rest).now_or_never(), Some(2));
        assert_eq!(rest, [message(1), message(3)]);
    }

    #[test]
    fn every_receiver_that_waits_gets_its_message_of_a_batch() {
        let queue = Inbound::default();
        let (mut one, mut two) = (Box::pin(queue.receive()), Box::pin(queue.receive()));
        assert_eq!(one.as_mut().now_or_never(), None);
        assert_eq!(two.as_mut().now_or_never(), None);
        let mut batch = vec![message(1), message(2)];
        assert_eq!(queue.push(&mut batch).now_or_never(), Some(true));
        assert_eq!(two.now_or_never().flatten(), Some(message(1)));
        assert_eq!(one.now_or_never().flatten(), Some(message(2)));
    }

    #[test]
    fn what_arrived_before_the_end_is_received_first() {
        let queue = Inbound::default();
        assert!(queue.offer(message(1)));
        queue.end();
        assert!(!queue.offer(message(2)));
        assert_eq!(queue.receive().now_or_never(), Some(Some(message(1))));
        assert_eq!(queue.receive().now_or_never(), Some(None));
        assert_eq!(queue.receive_many(&mut Vec::new()).now_or_never(), Some(0));
    }
}
