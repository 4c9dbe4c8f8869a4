//! What the node knows now, as JSON for people who run it: its links, and why a message reaches
//! its destination or does not. A core only copies what it knows; texts are made here.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use slim_config::PolicyMode;
use slim_wire::{Space, TextName};

use super::core::{CoreHandle, Remote};
use super::metrics::Observed;
use crate::datapath::{
    Counter, Explanation, Fate, Framing, LinkStatus, Marks, NodeLink, Port, Rank, Rule,
};

/// Most links of an answer, and how many unless more are asked for.
pub(super) const LINKS: usize = 10_000;
pub(super) const USUAL_LINKS: usize = 1_000;

/// Links of each kind that an explanation looks at.
const TARGETS: usize = 100;

/// Names that are compared with one that is not known, of each core.
const CANDIDATES: usize = 2_000;

/// Longer names are not compared.
const COMPARED_BYTES: usize = 256;

/// How near a name has to be to be shown, from 0 to 1; and how many are shown.
const NEAR: f64 = 0.6;
const NEAREST: usize = 5;

/// Looks into a running node.
#[derive(Clone)]
pub(super) struct Inspector {
    cores: Arc<[Remote]>,
    observed: Observed,
}

impl Inspector {
    pub(super) fn new(cores: &[CoreHandle], observed: Observed) -> Self {
        Self { cores: cores.iter().map(|core| core.remote.clone()).collect(), observed }
    }

    /// Up to `limit` links, those first for which most waits, and what the node has done.
    pub(super) async fn links(&self, limit: usize) -> Value {
        let limit = limit.min(LINKS);
        let mut links = Vec::new();
        let mut marks = None;
        let mut total = 0;
        for core in self.cores.iter() {
            let seen = core.call(move |local| {
                let core = local.host.core.borrow();
                (core.fullest_links(limit), *core.marks(), core.ports().count())
            });
            // A core that has ended has no links.
            let Some((seen, of_core, count)) = seen.await else { continue };
            links.extend(seen);
            marks = Some(of_core);
            total += count;
        }
        links.sort_by_key(|link| (Reverse(link.port.queued()), link.port.id()));
        links.truncate(limit);
        let shown: Vec<_> = links.iter().map(|link| link_value(link, marks.as_ref())).collect();
        json!({
            "node": self.totals(),
            "links": shown,
            "total": total,
            "truncated": total > links.len(),
        })
    }

    fn totals(&self) -> Value {
        let node = &self.observed;
        json!({
            "received": node.total(|core| core.received.value()),
            "received_bytes": node.total(|core| core.bytes_received.value()),
            "unmatched": node.total(|core| core.unmatched.value()),
            "refused": node.total(|core| core.refused.iter().map(Counter::value).sum()),
            "written": node.total(|core| core.written.value()),
            "written_bytes": node.total(|core| core.bytes_written.value()),
            "dropped": node.total(|core| core.dropped.iter().map(Counter::value).sum()),
            "queued": node.total(|core| core.queued.value()),
            "evicted": node.total(|core| core.evicted.value()),
            "subscriptions": node.total(|core| core.subscriptions.value()),
        })
    }

    /// Who would get a message for the name, and what stands in its way.
    pub(super) async fn explain(&self, text: &TextName) -> Value {
        let name = text.to_name();
        let mut known = None;
        let mut policy = (PolicyMode::Open, 0, 0);
        for core in self.cores.iter() {
            let first = known.is_none();
            let seen = core.call(move |local| {
                let core = local.host.core.borrow();
                let spaces = Space::ALL.into_iter().filter(|_| first);
                // Every core knows all names.
                let explained = spaces
                    .filter_map(|space| Some((space, core.explain(space, name, TARGETS)?)))
                    .collect::<Vec<_>>();
                (explained, *core.marks(), core.allowed(&name))
            });
            let Some((explained, marks, (mode, allowed, links))) = seen.await else { continue };
            if first {
                known = Some((explained, marks));
            }
            policy = (mode, policy.1 + allowed, policy.2 + links);
        }
        let (spaces, nearest) = match known {
            Some((explained, marks)) if !explained.is_empty() => {
                let values = explained.iter().map(|(space, why)| space_value(*space, why, &marks));
                (values.collect(), Vec::new())
            }
            _ => (Vec::new(), self.nearest(text).await),
        };
        let [org, namespace, app] = text.components();
        let id = text.id().to_u64().map(|id| id.to_string());
        json!({
            "name": format!("{org}/{namespace}/{app}"),
            "id": id.filter(|_| !text.id().is_any()),
            "known": !spaces.is_empty(),
            "spaces": spaces,
            "policy": {
                "mode": policy.0.to_string(),
                "links": policy.2,
                "links_that_may_subscribe": policy.1,
            },
            "nearest": nearest,
        })
    }

    /// Known names that look like this one, the most alike first.
    async fn nearest(&self, text: &TextName) -> Vec<String> {
        let joined = |name: &TextName| name.components().join("/");
        let wanted = joined(text);
        if wanted.len() > COMPARED_BYTES {
            return Vec::new();
        }
        let mut names = BTreeSet::new();
        for core in self.cores.iter() {
            let texts = core.call(|local| {
                let core = local.host.core.borrow();
                let texts = core.client_names().filter_map(|known| known.text.cloned());
                texts.take(CANDIDATES).collect::<Vec<_>>()
            });
            let texts = texts.await.unwrap_or_default();
            let short = texts.iter().map(|text| joined(text));
            names.extend(short.filter(|name| name.len() <= COMPARED_BYTES));
        }
        let likeness = |name: &str| strsim::normalized_levenshtein(&wanted, name);
        let mut near: Vec<_> = names.into_iter().map(|name| (likeness(&name), name)).collect();
        near.retain(|(likeness, _)| *likeness >= NEAR);
        near.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        near.into_iter().take(NEAREST).map(|(_, name)| name).collect()
    }
}

fn port_value(port: &Port, marks: Option<&Marks>) -> Value {
    let kind = match port.framing() {
        Framing::Grpc => "client over gRPC",
        Framing::Native => "native client",
        Framing::Node(_, NodeLink::Exchange) => "node, exchanges names",
        Framing::Node(_, NodeLink::LastHop) => "node, last hop",
        Framing::Node(_, NodeLink::Transit) => "node",
        Framing::PublishedNode { .. } => "node over gRPC",
    };
    let queued = port.queued();
    let room = match marks {
        Some(marks) if queued > marks.hard => "full",
        Some(marks) if queued > marks.soft => "behind",
        _ => "room",
    };
    json!({
        "id": port.id().to_string(),
        "core": port.id().core.0,
        "kind": kind,
        "peer": port.peer(),
        "principal": port.principal().to_string(),
        "name": port.name(),
        "queued_bytes": queued,
        "queue": room,
    })
}

fn link_value(link: &LinkStatus, marks: Option<&Marks>) -> Value {
    let mut value = port_value(&link.port, marks);
    let state = match link.fate {
        Fate::Open => "open",
        Fate::Finished => "finishing",
        Fate::Evicted => "evicted",
    };
    let more = json!({
        "state": state,
        "subscriptions": link.subscriptions,
        "queued": link.queued,
        "received": link.traffic.received,
        "received_bytes": link.traffic.received_bytes,
        "written": link.traffic.written,
        "written_bytes": link.traffic.written_bytes,
    });
    if let (Value::Object(all), Value::Object(more)) = (&mut value, more) {
        all.extend(more);
    }
    value
}

fn space_value(space: Space, why: &Explanation, marks: &Marks) -> Value {
    let target = |rank: Rank, port: &Port| {
        let mut value = port_value(port, Some(marks));
        value["rank"] = json!(rank.as_str());
        value
    };
    let links: Vec<_> = why.links.iter().map(|(rank, port)| target(*rank, port)).collect();
    let one: Vec<_> = match why.rule {
        // The best of them, which may be another one a moment later.
        Rule::Anycast => why.one.iter().take(1).map(|port| port.id().to_string()).collect(),
        _ => why.one.iter().map(|port| port.id().to_string()).collect(),
    };
    json!({
        "releases": space.releases(),
        "rule": why.rule.as_str(),
        "to_one": one,
        "links": links,
        "total": why.total,
        "truncated": why.total > why.links.len(),
    })
}
