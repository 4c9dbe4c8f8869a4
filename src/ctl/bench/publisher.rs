use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;

use super::clock::{self, Timer};
use super::flow::{Flow, Flows};
use super::plan::Plan;
use super::schedule::Schedule;
use super::stamp::{Mark, Stamp};
use super::transport::{Receiver, Sender, Template};
use crate::ctl::Error;

/// How long a probe has before the next is sent.
const PROBE_STEP: Duration = Duration::from_millis(20);

/// One sending end.
pub(super) struct Publisher {
    pub(super) number: u16,
    pub(super) sender: Sender,
    /// Kept, so that the link stays whole; read only where nothing else reads it.
    pub(super) receiver: Option<Receiver>,
    pub(super) template: Template,
    /// What leaves in one write at most.
    pub(super) batch_bytes: usize,
    pub(super) flows: Rc<Flows>,
}

impl Publisher {
    fn flow(&self) -> &Flow {
        &self.flows.of_publishers[usize::from(self.number)]
    }

    /// Sends probes until they have reached every subscriber: release 0.6 has no acknowledgement
    /// of a subscription.
    pub(super) async fn probe(&mut self) -> Result<(), Error> {
        while !self.flow().is_through() {
            self.send_mark(Mark::Probe, 0).await?;
            // Too late is no failure here: then there is another probe.
            let _late = tokio::time::timeout(PROBE_STEP, self.flow().progressed()).await;
        }
        Ok(())
    }

    async fn send_mark(&mut self, mark: Mark, sequence: u64) -> Result<(), Error> {
        let mut batch = BytesMut::with_capacity(self.template.len());
        let stamp = Stamp { due: clock::now(), sender: self.number, mark, sequence };
        self.template.append(stamp, &mut batch);
        self.sender.send(batch.freeze(), &self.template).await
    }

    /// Sends what the plan says, and that this is all.
    pub(super) async fn run(mut self, plan: Rc<Plan>) -> Result<(), Error> {
        match plan.rate {
            Some(rate) => self.pace(rate, plan.total()).await?,
            None => self.saturate(&plan).await?,
        }
        self.send_mark(Mark::End, self.flow().sent()).await?;
        self.flow().finish();
        match self.receiver {
            Some(receiver) => self.sender.finish(receiver).await,
            // It is also the way back of a round trip.
            None => std::future::pending().await,
        }
    }

    /// Open loop: each message when it is due, and all at once that are overdue.
    async fn pace(&mut self, rate: f64, total: Option<u64>) -> Result<(), Error> {
        let timer = Timer::new().map_err(Error::machine("timer"))?;
        let schedule = Schedule::new(clock::now(), rate);
        let total = total.unwrap_or(u64::MAX);
        let mut sent = 0;
        while sent < total {
            let due = schedule.due_by(clock::now()).min(total);
            if due == sent {
                let next = timer.until(schedule.due(sent)).await;
                next.map_err(Error::machine("timer"))?;
                continue;
            }
            sent += self.send(due - sent, |index| schedule.due(index)).await?;
        }
        Ok(())
    }

    /// Closed loop: as many as the window allows.
    async fn saturate(&mut self, plan: &Plan) -> Result<(), Error> {
        let end = plan.sending().map(|time| clock::now().saturating_add(nanoseconds(time)));
        let count = plan.total().unwrap_or(u64::MAX);
        let window = plan.window().unwrap_or(u64::MAX);
        loop {
            let now = clock::now();
            let left = count - self.flow().sent();
            if left == 0 || end.is_some_and(|end| now >= end) {
                return Ok(());
            }
            match window.saturating_sub(self.flow().under_way()).min(left) {
                0 => self.flow().progressed().await,
                room => {
                    self.send(room, |_| now).await?;
                    if window == u64::MAX {
                        // Nothing else here waits for others.
                        tokio::task::yield_now().await;
                    }
                }
            }
        }
    }

    /// Sends as many of `wanted` messages as go into one write.
    async fn send(&mut self, wanted: u64, due: impl Fn(u64) -> u64) -> Result<u64, Error> {
        let len = self.template.len();
        let messages = wanted.min((self.batch_bytes / len).max(1) as u64);
        let first = self.flow().sent();
        let mut batch = BytesMut::with_capacity(messages as usize * len);
        for sequence in first..first + messages {
            let due = due(sequence);
            let stamp = Stamp { due, sender: self.number, mark: Mark::Data, sequence };
            self.template.append(stamp, &mut batch);
        }
        self.sender.send(batch.freeze(), &self.template).await?;
        self.flow().add_sent(messages);
        Ok(messages)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
