use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, Meter};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::core::CoreHandle;
use super::watch::{Outcomes, Reloads};
use crate::datapath::{Counter, Counters, DropReason, RefuseReason, SlowLog};
use crate::link::{Incident, Incidents};

/// One metric: its row in the reference, and how it is read.
pub struct Metric {
    /// The full name.
    pub name: &'static str,
    /// `counter` or `gauge`.
    pub kind: &'static str,
    /// Its labels, or empty.
    pub labels: &'static str,
    /// What it counts.
    pub help: &'static str,
    read: fn(&Observed) -> Vec<Sample>,
}

/// Label names and values, and the value.
type Sample = (Vec<(&'static str, String)>, u64);

impl Metric {
    /// Whether its labels name single links. What OpenTelemetry counts by would have no end then,
    /// and would keep links that are gone.
    fn is_of_links(&self) -> bool {
        self.labels.starts_with("link")
    }
}

/// Every metric of the node. Two sums hold whenever the node is quiet:
/// messages received = matched + unmatched + Σ refused, and
/// deliveries = written + Σ dropped + queued.
pub const METRICS: &[Metric] = &[
    Metric {
        name: "slim_messages_received_total",
        kind: "counter",
        labels: "",
        help: "Messages to route, and all that were refused",
        read: |node| node.sum(|core| core.received.value()),
    },
    Metric {
        name: "slim_messages_matched_total",
        kind: "counter",
        labels: "",
        help: "Messages with at least one target",
        read: |node| node.sum(|core| core.matched.value()),
    },
    Metric {
        name: "slim_messages_unmatched_total",
        kind: "counter",
        labels: "",
        help: "Messages whose destination nobody subscribed to",
        read: |node| node.sum(|core| core.unmatched.value()),
    },
    Metric {
        name: "slim_messages_elsewhere_total",
        kind: "counter",
        labels: "",
        help: "Unmatched messages whose name clients of other releases subscribed to",
        read: |node| node.sum(|core| core.elsewhere.value()),
    },
    Metric {
        name: "slim_messages_refused_total",
        kind: "counter",
        labels: "reason",
        help: "Messages that were not routed at all",
        read: |node| {
            let reasons = RefuseReason::ALL.iter();
            let sum = |reason| node.total(|core| core.refused[reason as usize].value());
            reasons.map(|reason| (label("reason", reason.as_str()), sum(*reason))).collect()
        },
    },
    Metric {
        name: "slim_policy_violations_total",
        kind: "counter",
        labels: "",
        help: "Subscriptions and messages that the policy does not allow, refused or let pass",
        read: |node| node.sum(|core| core.violations.value()),
    },
    Metric {
        name: "slim_deliveries_total",
        kind: "counter",
        labels: "",
        help: "Copies of messages, one per target",
        read: |node| node.sum(|core| core.deliveries.value()),
    },
    Metric {
        name: "slim_deliveries_written_total",
        kind: "counter",
        labels: "",
        help: "Copies handed to a link's transport",
        read: |node| node.sum(|core| core.written.value()),
    },
    Metric {
        name: "slim_deliveries_dropped_total",
        kind: "counter",
        labels: "reason",
        help: "Copies lost",
        read: |node| {
            let reasons = DropReason::ALL.iter();
            let sum = |reason| node.total(|core| core.dropped[reason as usize].value());
            reasons.map(|reason| (label("reason", reason.as_str()), sum(*reason))).collect()
        },
    },
    Metric {
        name: "slim_deliveries_queued",
        kind: "gauge",
        labels: "",
        help: "Copies that wait for a link or are on their way between cores",
        read: |node| {
            vec![(Vec::new(), node.total(|core| core.queued.value()) + node.between_cores())]
        },
    },
    Metric {
        name: "slim_received_bytes_total",
        kind: "counter",
        labels: "",
        help: "Bytes of routed messages, without framing",
        read: |node| node.sum(|core| core.bytes_received.value()),
    },
    Metric {
        name: "slim_written_bytes_total",
        kind: "counter",
        labels: "",
        help: "Bytes handed to links' transports, with framing",
        read: |node| node.sum(|core| core.bytes_written.value()),
    },
    Metric {
        name: "slim_links",
        kind: "gauge",
        labels: "",
        help: "Open links",
        read: |node| node.sum(|core| core.links.value()),
    },
    Metric {
        name: "slim_subscriptions",
        kind: "gauge",
        labels: "",
        help: "Subscriptions of open links",
        read: |node| node.sum(|core| core.subscriptions.value()),
    },
    Metric {
        name: "slim_source_pauses_total",
        kind: "counter",
        labels: "",
        help: "Times that a source was left unread because its only target was behind",
        read: |node| node.sum(|core| core.pauses.value()),
    },
    Metric {
        name: "slim_slow_consumers_evicted_total",
        kind: "counter",
        labels: "",
        help: "Links cut off for being too slow",
        read: |node| node.sum(|core| core.evicted.value()),
    },
    Metric {
        name: "slim_slow_consumer_queued_bytes",
        kind: "gauge",
        labels: "link, name, peer, state",
        help: "The latest slow consumers, with the bytes that waited when they changed state",
        read: slow_consumers,
    },
    Metric {
        name: "slim_incidents_total",
        kind: "counter",
        labels: "kind",
        help: "Connections and streams that went wrong",
        read: |node| {
            let kinds = Incident::ALL.iter();
            kinds.map(|kind| (label("kind", kind.as_str()), node.incidents(*kind))).collect()
        },
    },
    Metric {
        name: "slim_reloads_total",
        kind: "counter",
        labels: "result",
        help: "Changes of certificates and keys in files: taken, or refused and kept as before",
        read: |node| outcomes(&node.reloads.files),
    },
    Metric {
        name: "slim_config_reloads_total",
        kind: "counter",
        labels: "result",
        help: "Signals to read the configuration again: taken, or refused and kept as before",
        read: |node| outcomes(&node.reloads.config),
    },
];

fn label(name: &'static str, value: &str) -> Vec<(&'static str, String)> {
    vec![(name, value.to_owned())]
}

fn outcomes(of: &Outcomes) -> Vec<Sample> {
    let counts = [("taken", &of.taken), ("refused", &of.refused)];
    counts.map(|(result, count)| (label("result", result), count.value())).to_vec()
}

fn slow_consumers(node: &Observed) -> Vec<Sample> {
    let sample = |slow: crate::datapath::SlowConsumer| {
        let labels = vec![
            ("link", slow.link.to_string()),
            ("name", slow.name),
            ("peer", slow.peer),
            ("state", slow.state.as_str().to_owned()),
        ];
        (labels, slow.queued as u64)
    };
    node.slow_log.entries().into_iter().map(sample).collect()
}

/// What can be seen of a running node from any thread.
#[derive(Clone, Debug)]
pub(super) struct Observed {
    cores: Arc<[(Arc<Counters>, Arc<Incidents>)]>,
    slow_log: Arc<SlowLog>,
    reloads: Arc<Reloads>,
}

impl Observed {
    pub(super) fn new(cores: &[CoreHandle], slow_log: Arc<SlowLog>, reloads: Arc<Reloads>) -> Self {
        let of = |core: &CoreHandle| (Arc::clone(&core.counters), Arc::clone(&core.incidents));
        Self { cores: cores.iter().map(of).collect(), slow_log, reloads }
    }

    /// Resolves once no message is on its way between cores.
    pub(super) async fn all_arrived(&self) {
        while self.between_cores() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// All metrics in the text format of Prometheus.
    pub(super) fn render(&self) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self.clone()));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry)?;
        Ok(text)
    }

    /// Has all metrics read for a collector too, but those of single links, which are in its logs.
    pub(super) fn export(&self, meter: &Meter) {
        for metric in METRICS.iter().filter(|metric| !metric.is_of_links()) {
            let (node, read) = (self.clone(), metric.read);
            let observe = move |instrument: &dyn AsyncInstrument<u64>| {
                for (labels, value) in read(&node) {
                    let labels = labels.into_iter().map(|(key, value)| KeyValue::new(key, value));
                    instrument.observe(value, &labels.collect::<Vec<_>>());
                }
            };
            let (name, help) = (metric.name, metric.help);
            if metric.kind == "counter" {
                let counter = meter.u64_observable_counter(name);
                counter.with_description(help).with_callback(observe).build();
            } else {
                let gauge = meter.u64_observable_gauge(name);
                gauge.with_description(help).with_callback(observe).build();
            }
        }
    }

    /// Copies lost so far for any reason, and links cut off, each of which may have lost what was
    /// written to it last.
    pub(super) fn lost(&self) -> u64 {
        let dropped = self.total(|core| core.dropped.iter().map(Counter::value).sum());
        dropped + self.total(|core| core.evicted.value())
    }

    pub(super) fn total(&self, read: impl Fn(&Counters) -> u64) -> u64 {
        self.cores.iter().map(|(counters, _)| read(counters)).sum()
    }

    fn sum(&self, read: impl Fn(&Counters) -> u64) -> Vec<Sample> {
        vec![(Vec::new(), self.total(read))]
    }

    fn incidents(&self, incident: Incident) -> u64 {
        self.cores.iter().map(|(_, incidents)| incidents.count(incident)).sum()
    }

    fn between_cores(&self) -> u64 {
        // Read in this order, so that a message under way is never counted as less than none.
        let received = self.total(|core| core.received_from_cores.value());
        self.total(|core| core.sent_to_cores.value()).saturating_sub(received)
    }
}

impl Collector for Observed {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for metric in METRICS {
            let samples = (metric.read)(self);
            let counter = metric.kind == "counter";
            // The encoder appends the suffix of counters itself.
            let name = metric.name.trim_end_matches("_total");
            let metric_type = if counter {
                ConstCounter::new(0_u64).metric_type()
            } else {
                ConstGauge::new(0_i64).metric_type()
            };
            let mut metric_encoder =
                encoder.encode_descriptor(name, metric.help, None, metric_type)?;
            for (labels, value) in samples {
                let sample = |encoder: MetricEncoder<'_>| {
                    if counter {
                        ConstCounter::new(value).encode(encoder)
                    } else {
                        ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(encoder)
                    }
                };
                if labels.is_empty() {
                    sample(metric_encoder)?;
                    break;
                }
                sample(metric_encoder.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
