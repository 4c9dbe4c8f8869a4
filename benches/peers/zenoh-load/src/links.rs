//! The sessions of a round.

use std::sync::Arc;

use zenoh::Config;
use zenoh::Wait;
use zenoh::pubsub::{Publisher, Subscriber};
use zenoh::qos::CongestionControl;
use zenoh::sample::Sample;

use crate::ear::Ear;
use crate::{Failure, Plan};

const THERE: &str = "slim/bench/there";
const BACK: &str = "slim/bench/back";

pub(crate) struct Links {
    pub(crate) publisher: Publisher<'static>,
    /// Of everyone whose messages count.
    pub(crate) ears: Vec<Arc<Ear>>,
    _subscribers: Vec<Subscriber<()>>,
    /// Closed last.
    _sessions: Vec<zenoh::Session>,
}

impl Links {
    pub(crate) fn open(plan: &Plan) -> Result<Self, Failure> {
        let here = open(plan)?;
        let publisher = publisher(&here, THERE, plan)?;
        let (mut ears, mut subscribers, mut sessions) = (Vec::new(), Vec::new(), Vec::new());
        if plan.round_trip {
            let there = open(plan)?;
            let back = self::publisher(&there, BACK, plan)?;
            let echo = move |sample: Sample| {
                // A link that breaks shows as messages that do not come.
                let _ = back.put(sample.payload().clone()).wait();
            };
            subscribers.push(there.declare_subscriber(THERE).callback(echo).wait()?);
            subscribers.push(subscriber(&here, BACK, &mut ears)?);
            sessions.push(there);
        } else {
            for _ in 0..plan.subscribers {
                let there = open(plan)?;
                subscribers.push(subscriber(&there, THERE, &mut ears)?);
                sessions.push(there);
            }
        }
        sessions.push(here);
        Ok(Self { publisher, ears, _subscribers: subscribers, _sessions: sessions })
    }
}

/// A client with a connection of its own, that looks for nobody else.
fn open(plan: &Plan) -> Result<zenoh::Session, Failure> {
    let mut config = Config::default();
    let endpoints = serde_json::to_string(&[&plan.endpoint])?;
    config.insert_json5("mode", "\"client\"")?;
    config.insert_json5("connect/endpoints", &endpoints)?;
    config.insert_json5("scouting/multicast/enabled", "false")?;
    config.insert_json5("scouting/gossip/enabled", "false")?;
    if let Some(file) = &plan.authority {
        let file = serde_json::to_string(file)?;
        config.insert_json5("transport/link/tls/root_ca_certificate", &file)?;
    }
    zenoh::open(config).wait()
}

/// What waits for room instead of dropping; reliable is what publishers are by default.
fn publisher(
    session: &zenoh::Session,
    key: &'static str,
    plan: &Plan,
) -> Result<Publisher<'static>, Failure> {
    session
        .declare_publisher(key)
        .congestion_control(CongestionControl::Block)
        .express(plan.express)
        .wait()
}

fn subscriber(
    session: &zenoh::Session,
    key: &'static str,
    ears: &mut Vec<Arc<Ear>>,
) -> Result<Subscriber<()>, Failure> {
    let ear = Arc::new(Ear::new());
    ears.push(Arc::clone(&ear));
    let note = move |sample: Sample| ear.note(&sample.payload().to_bytes());
    session.declare_subscriber(key).callback(note).wait()
}
