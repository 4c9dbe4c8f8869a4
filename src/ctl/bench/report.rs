use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// What a run has shown.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Messages received by all subscribers together; sent, if there are none in this process.
    pub messages: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// From the first that was to be sent to the last received. For subscribers alone: from the
    /// first received; for publishers alone: until the server has read the last.
    pub seconds: f64,
    /// Messages sent by publishers of this process.
    pub sent: Option<u64>,
    /// Messages that did not come, or came after a later one; unknown to publishers alone.
    pub lost: Option<u64>,
    /// Messages that came after a later one, or twice.
    pub out_of_order: u64,
    /// From the moment at which a message was to be sent, in nanoseconds.
    pub latency: Option<Histogram<u64>>,
    /// CPU time of the relay, where this run started it.
    pub relay_cpu: Option<Duration>,
}

/// The percentiles that are shown, and their names in JSON.
const PERCENTILES: [(f64, &str); 5] =
    [(50.0, "p50"), (90.0, "p90"), (99.0, "p99"), (99.9, "p99_9"), (99.99, "p99_99")];

pub(super) const NS_PER_US: f64 = 1e3;

impl Report {
    /// Whether a message is missing.
    pub fn has_losses(&self) -> bool {
        self.lost.is_some_and(|lost| lost > 0) || self.out_of_order > 0
    }

    /// Messages a second.
    pub fn rate(&self) -> f64 {
        per(self.messages as f64, self.seconds)
    }

    /// CPU time of the relay per message, in nanoseconds.
    pub fn relay_cpu_ns(&self) -> Option<f64> {
        self.relay_cpu.map(|cpu| per(cpu.as_nanos() as f64, self.messages as f64))
    }

    fn mib_per_second(&self) -> f64 {
        per(self.bytes as f64 / (1024.0 * 1024.0), self.seconds)
    }

    /// Latencies in microseconds by name, from the least to the greatest.
    fn latencies(&self) -> Vec<(&'static str, f64)> {
        let Some(latency) = self.latency.as_ref().filter(|latency| !latency.is_empty()) else {
            return Vec::new();
        };
        let at = |&(percentile, name)| (name, latency.value_at_percentile(percentile));
        let values = std::iter::once(("min", latency.min()))
            .chain(PERCENTILES.iter().map(at))
            .chain([("max", latency.max())]);
        values.map(|(name, ns)| (name, ns as f64 / NS_PER_US)).collect()
    }

    /// A table for people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut row = |name: &str, value: String| {
            let _ = writeln!(text, "{name:<16} {value:>14}");
        };
        row("messages", self.messages.to_string());
        row("bytes", self.bytes.to_string());
        row("seconds", format!("{:.3}", self.seconds));
        row("messages/s", format!("{:.0}", self.rate()));
        row("MiB/s", format!("{:.2}", self.mib_per_second()));
        if let Some(lost) = self.lost {
            row("lost", lost.to_string());
        }
        if self.out_of_order > 0 {
            row("out of order", self.out_of_order.to_string());
        }
        if let Some(cpu) = self.relay_cpu_ns() {
            row("relay ns CPU/msg", format!("{cpu:.0}"));
        }
        for (name, us) in self.latencies() {
            let name = name.replace('_', ".");
            row(&format!("{name} [µs]"), format!("{us:.1}"));
        }
        text
    }

    /// The same for programs; what is unknown is null. Latencies are in microseconds.
    pub fn json(&self) -> Value {
        let latencies = self.latencies();
        let latencies = (!latencies.is_empty()).then(|| {
            let object = latencies.into_iter().map(|(name, us)| (name.to_owned(), us.into()));
            Value::Object(object.collect())
        });
        json!({
            "messages": self.messages,
            "bytes": self.bytes,
            "seconds": self.seconds,
            "messages_per_second": self.rate(),
            "mib_per_second": self.mib_per_second(),
            "sent": self.sent,
            "lost": self.lost,
            "out_of_order": self.out_of_order,
            "relay_cpu_ns_per_message": self.relay_cpu_ns(),
            "latency_us": latencies,
        })
    }
}

/// A quotient that is 0 where there was nothing.
fn per(amount: f64, of: f64) -> f64 {
    if of > 0.0 { amount / of } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut latency = Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds");
        for ms in 1..=100u64 {
            latency.record(ms * 1_000_000).expect("within the bounds");
        }
        Report {
            messages: 100,
            bytes: 6_400,
            seconds: 2.0,
            sent: Some(103),
            lost: Some(3),
            latency: Some(latency),
            ..Report::default()
        }
    }

    #[test]
    fn json_has_counts_and_percentiles_in_microseconds() {
        let json = report().json();
        assert_eq!((&json["messages"], &json["bytes"]), (&json!(100), &json!(6_400)));
        assert_eq!((&json["sent"], &json["lost"]), (&json!(103), &json!(3)));
        assert_eq!(json["messages_per_second"], json!(50.0));
        assert_eq!(json["relay_cpu_ns_per_message"], Value::Null);
        let latency = json["latency_us"].as_object().expect("an object");
        for name in ["min", "p50", "p90", "p99", "p99_9", "p99_99", "max"] {
            assert!(latency[name].is_f64(), "{name}");
        }
        let p50 = latency["p50"].as_f64().expect("a number");
        assert!((49_900.0..50_100.0).contains(&p50), "{p50}");
    }

    #[test]
    fn what_is_unknown_is_null_and_not_in_the_table() {
        let report = Report { messages: 5, seconds: 1.0, sent: Some(5), ..Report::default() };
        assert_eq!(report.json()["lost"], Value::Null);
        assert_eq!(report.json()["latency_us"], Value::Null);
        assert!(!report.text().contains("lost") && !report.text().contains("p50"));
        assert!(!report.has_losses());
    }

    #[test]
    fn the_table_has_a_row_for_each_figure() {
        let text = report().text();
        let value = |name: &str| {
            let row = text.lines().find(|line| line.starts_with(name)).expect(name);
            row.split_whitespace().next_back().expect("a value").to_owned()
        };
        assert_eq!((value("lost"), value("messages/s")), ("3".into(), "50".into()));
        assert!(value("p99.99 [µs]").starts_with("100"), "{text}");
    }

    #[test]
    fn a_run_without_messages_has_no_rates() {
        let report = Report::default();
        assert!(report.rate() == 0.0 && report.text().contains("messages/s"));
    }
}
