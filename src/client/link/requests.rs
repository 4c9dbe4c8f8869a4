use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// What the node answered: done, or why not.
pub(super) type Answer = Result<(), String>;

/// Requests on the control stream that wait for the node's answer.
#[derive(Debug, Default)]
pub(super) struct Requests(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: u32,
    waiting: HashMap<u32, oneshot::Sender<Answer>>,
    ended: bool,
}

impl Requests {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for a new request, and where its answer arrives; the latter is closed if there
    /// will be none. `None` if there are no answers any more.
    pub(super) fn begin(&self) -> Option<(u32, oneshot::Receiver<Answer>)> {
        let mut state = self.lock();
        if state.ended {
            return None;
        }
        let mut number = state.last.wrapping_add(1);
        while state.waiting.contains_key(&number) {
            number = number.wrapping_add(1);
        }
        state.last = number;
        let (sender, receiver) = oneshot::channel();
        state.waiting.insert(number, sender);
        Some((number, receiver))
    }

    /// Passes an answer on. Whether there was such a request.
    pub(super) fn answer(&self, number: u32, answer: Answer) -> bool {
        match self.lock().waiting.remove(&number) {
            Some(waiting) => {
                // Who asked may have lost interest.
                let _ = waiting.send(answer);
                true
            }
            None => false,
        }
    }

    /// There will be no more answers.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        state.waiting.clear();
    }
}
