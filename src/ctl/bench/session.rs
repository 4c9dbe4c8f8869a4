use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use indicatif::ProgressBar;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::clock;
use super::flow::{Ear, Flows, PROBER};
use super::plan::{Mode, Plan};
use super::publisher::Publisher;
use super::report::Report;
use super::stamp::{Mark, Stamp};
use super::transport::{PUBLISHER_IDS, Receiver, Route, Sender, Server, Target, Template};
use crate::ctl::Error;

/// How long the first message may take from end to end.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);

/// Without news for so long, what is under way is lost.
const STALL: Duration = Duration::from_secs(5);

/// How often progress is looked at.
const STEP: Duration = Duration::from_millis(100);

type Tasks = JoinSet<Result<(), Error>>;

/// All ends of a run that are in this process, connected; messages arrive. To be used inside a
/// [`tokio::task::LocalSet`].
pub struct Session {
    plan: Rc<Plan>,
    flows: Rc<Flows>,
    publishers: Vec<Publisher>,
    subscribers: Tasks,
    /// Ends of a round trip that send everything back.
    echoes: Tasks,
}

impl Session {
    /// Connects everyone and waits until messages arrive, without any that is counted.
    ///
    /// # Errors
    /// [`Error::Argument`] for a plan that cannot be, [`Error::Connect`], [`Error::Link`] and
    /// [`Error::NothingArrives`] for what the server does.
    pub async fn connect(server: &Server, plan: Plan) -> Result<Self, Error> {
        plan.check()?;
        let slots = match plan.mode {
            Mode::RoundTrip => 1,
            Mode::Publish | Mode::Subscribe => usize::from(plan.subscribers),
        };
        let mut session = Self {
            flows: Rc::new(Flows::new(plan.publishers, slots, slots)),
            plan: Rc::new(plan),
            publishers: Vec::new(),
            subscribers: Tasks::new(),
            echoes: Tasks::new(),
        };
        let through = async {
            match session.plan.mode {
                Mode::RoundTrip => session.add_round_trips(server).await?,
                Mode::Subscribe => session.add_subscribers(server).await?,
                Mode::Publish => {
                    session.add_subscribers(server).await?;
                    session.add_publishers(server).await?;
                }
            }
            session.probe(server).await
        };
        timeout(FIRST_MESSAGE, through)
            .await
            .unwrap_or(Err(Error::NothingArrives(FIRST_MESSAGE)))?;
        Ok(session)
    }

    async fn add_subscribers(&mut self, server: &Server) -> Result<(), Error> {
        for slot in 0..usize::from(self.plan.subscribers) {
            let (sender, receiver) =
                server.connect(&self.plan.topic, Some(slot as u64 + 1)).await?;
            let limit = self.plan.count.filter(|_| self.plan.mode == Mode::Subscribe);
            let ear = self.ear(slot, 0..self.plan.publishers, limit);
            self.subscribers.spawn_local(listen(Some(sender), receiver, ear));
        }
        Ok(())
    }

    async fn add_publishers(&mut self, server: &Server) -> Result<(), Error> {
        let target = match self.plan.targets() {
            1 => Target::Id(1),
            several => Target::All(several.into()),
        };
        for number in 0..self.plan.publishers {
            let (sender, receiver) = server.connect(&self.plan.topic, None).await?;
            let template = self.template(server, PUBLISHER_IDS + u64::from(number), target);
            self.publishers.push(Publisher {
                number,
                sender,
                receiver: Some(receiver),
                template,
                batch_bytes: server.batch_bytes(),
                flows: Rc::clone(&self.flows),
            });
        }
        Ok(())
    }

    async fn add_round_trips(&mut self, server: &Server) -> Result<(), Error> {
        for number in 0..self.plan.publishers {
            let here = PUBLISHER_IDS + u64::from(number);
            let there = u64::from(number) + 1;
            let (back, receiver) = server.connect(&self.plan.topic, Some(there)).await?;
            let answer = self.template(server, there, Target::Id(here));
            self.echoes.spawn_local(echo(back, receiver, answer));
            let (sender, receiver) = server.connect(&self.plan.topic, Some(here)).await?;
            let ear = self.ear(0, number..number + 1, None);
            self.subscribers.spawn_local(listen(None, receiver, ear));
            let template = self.template(server, here, Target::Id(there));
            self.publishers.push(Publisher {
                number,
                sender,
                receiver: None,
                template,
                batch_bytes: server.batch_bytes(),
                flows: Rc::clone(&self.flows),
            });
        }
        Ok(())
    }

    fn template(&self, server: &Server, source: u64, target: Target) -> Template {
        let route = Route { topic: &self.plan.topic, source, target };
        server.template(&route, self.plan.size)
    }

    fn ear(&self, slot: usize, senders: std::ops::Range<u16>, limit: Option<u64>) -> Ear {
        Ear { flows: Rc::clone(&self.flows), slot, senders, limit, messages: 0 }
    }

    /// Waits until messages arrive wherever this process would see them.
    async fn probe(&mut self, server: &Server) -> Result<(), Error> {
        let Self { plan, flows, publishers, subscribers, echoes } = self;
        let through = async {
            match plan.mode {
                Mode::Subscribe => probe_subscribers(server, plan, flows).await,
                Mode::Publish if plan.subscribers == 0 => Ok(()),
                Mode::Publish | Mode::RoundTrip => {
                    for publisher in publishers {
                        publisher.probe().await?;
                    }
                    Ok(())
                }
            }
        };
        tokio::select! {
            through = through => through,
            error = failure(subscribers) => Err(error),
            error = failure(echoes) => Err(error),
        }
    }

    /// Sends and receives what the plan says. `bar` shows how many messages have come.
    ///
    /// # Errors
    /// [`Error::Link`] if a link breaks, [`Error::Machine`] for want of a timer. Lost messages are
    /// no error but part of the report.
    pub async fn run(mut self, bar: &ProgressBar) -> Result<Report, Error> {
        let start = clock::now();
        let mut publishers = Tasks::new();
        for publisher in self.publishers.drain(..) {
            publishers.spawn_local(publisher.run(Rc::clone(&self.plan)));
        }
        let Self { plan, flows, subscribers, echoes, .. } = &mut self;
        let all = async {
            if subscribers.is_empty() {
                return ended(&mut publishers).await;
            }
            tokio::select! {
                ended = ended(subscribers) => ended,
                error = failure(&mut publishers) => Err(error),
            }
        };
        tokio::select! {
            ended = all => ended?,
            error = failure(echoes) => return Err(error),
            () = stalled(plan, flows, bar) => {}
            _ = tokio::signal::ctrl_c(), if plan.mode == Mode::Subscribe => {}
        }
        Ok(self.report(start))
    }

    fn report(&self, start: u64) -> Report {
        let received = self.flows.received.borrow();
        let sent = self.flows.sent();
        let seconds = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1e9;
        if !self.plan.receives() {
            return Report {
                messages: sent,
                bytes: sent * self.plan.size as u64,
                seconds: seconds(start, clock::now()),
                sent: Some(sent),
                ..Report::default()
            };
        }
        let publishers_here = self.plan.mode != Mode::Subscribe;
        let start = if publishers_here { start } else { received.first };
        Report {
            messages: received.messages,
            bytes: received.bytes,
            seconds: seconds(start, received.last),
            sent: publishers_here.then_some(sent),
            lost: Some(self.flows.lost(publishers_here)),
            out_of_order: self.flows.out_of_order(),
            latency: Some(received.latency.clone()),
            relay_cpu: None,
        }
    }
}

/// Returns when there is nothing more to wait for, although not all has come.
async fn stalled(plan: &Plan, flows: &Flows, bar: &ProgressBar) {
    let start = Instant::now();
    let (mut seen, mut since) = (0, start);
    loop {
        let left = plan.cutoff.map(|cutoff| cutoff.saturating_sub(start.elapsed()));
        tokio::time::sleep(left.map_or(STEP, |left| left.min(STEP))).await;
        let (messages, first) = {
            let received = flows.received.borrow();
            (received.messages, received.first)
        };
        let progress = if plan.receives() { messages } else { flows.sent() };
        bar.set_position(progress);
        if progress != seen {
            (seen, since) = (progress, Instant::now());
        }
        let (waits, over) = match plan.mode {
            Mode::Subscribe => {
                let time = Duration::from_nanos(clock::now().saturating_sub(first));
                let over = plan.duration.is_some_and(|duration| time >= duration);
                (messages > 0, messages > 0 && over)
            }
            // Where all but the last messages are lost, the end alone is awaited.
            Mode::Publish | Mode::RoundTrip => {
                let over = plan.cutoff.is_some_and(|cutoff| start.elapsed() >= cutoff);
                (flows.under_way() > 0 || flows.is_sent(), over)
            }
        };
        if over || waits && since.elapsed() >= STALL {
            return;
        }
    }
}

/// Reads a link until nothing more is awaited. `sender` keeps the link open.
async fn listen(sender: Option<Sender>, mut receiver: Receiver, mut ear: Ear) -> Result<(), Error> {
    let _stays_open = sender;
    let mut arrivals = Vec::new();
    loop {
        arrivals.clear();
        if !receiver.receive(&mut arrivals).await? {
            return Err(Error::link("its end"));
        }
        if ear.note(&arrivals, clock::now()) {
            return Ok(());
        }
    }
}

/// Sends every message back, with its stamp.
async fn echo(mut sender: Sender, mut receiver: Receiver, template: Template) -> Result<(), Error> {
    let mut arrivals = Vec::new();
    while receiver.receive(&mut arrivals).await? {
        let mut batch = BytesMut::with_capacity(arrivals.len() * template.len());
        for arrival in arrivals.drain(..) {
            template.append(arrival.stamp, &mut batch);
        }
        if !batch.is_empty() {
            sender.send(batch.freeze(), &template).await?;
        }
    }
    Err(Error::link("its end"))
}

/// Where there are only subscribers: sends to each until something has come.
async fn probe_subscribers(server: &Server, plan: &Plan, flows: &Flows) -> Result<(), Error> {
    let (mut sender, _receiver) = server.connect(&plan.topic, None).await?;
    for slot in 0..usize::from(plan.subscribers) {
        let target = Target::Id(slot as u64 + 1);
        let route = Route { topic: &plan.topic, source: PUBLISHER_IDS - 1, target };
        let template = server.template(&route, plan.size);
        while !flows.of_prober.has_reached(slot) {
            let stamp = Stamp { due: clock::now(), sender: PROBER, mark: Mark::Probe, sequence: 0 };
            let mut batch = BytesMut::new();
            template.append(stamp, &mut batch);
            sender.send(batch.freeze(), &template).await?;
            // Too late is no failure here: then there is another probe.
            let _late = timeout(STEP, flows.of_prober.progressed()).await;
        }
    }
    Ok(())
}

/// Returns once all tasks have ended, or one has failed.
async fn ended(tasks: &mut Tasks) -> Result<(), Error> {
    while let Some(task) = tasks.join_next().await {
        task.unwrap_or_else(|error| Err(Error::link(error)))?;
    }
    Ok(())
}

/// Returns only if a task fails.
async fn failure(tasks: &mut Tasks) -> Error {
    match ended(tasks).await {
        Ok(()) => std::future::pending().await,
        Err(error) => error,
    }
}
