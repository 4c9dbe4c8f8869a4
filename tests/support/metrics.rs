use std::collections::BTreeMap;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::in_time;

/// Status and body of a request to the admin endpoint.
pub(crate) async fn get(admin: SocketAddr, path: &str) -> (u16, String) {
    in_time("an answer of the admin endpoint", async {
        let mut stream = TcpStream::connect(admin).await.expect("admin accepts");
        let request = format!("GET {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut response = String::new();
        stream.read_to_string(&mut response).await.expect("an answer");
        let (head, body) = response.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).expect("a status");
        (status.parse().expect("a number"), body.to_owned())
    })
    .await
}

/// One sample.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: u64,
}

/// All samples of one look at the metrics.
#[derive(Clone, Debug)]
pub(crate) struct Metrics(pub(crate) Vec<Sample>);

impl Metrics {
    pub(crate) fn parse(text: &str) -> Self {
        Self(
            text.lines()
                .filter(|line| !line.starts_with('#') && !line.is_empty())
                .map(parse_sample)
                .collect(),
        )
    }

    /// The sum of all samples of `name`.
    pub(crate) fn sum(&self, name: &str) -> u64 {
        self.named(name).map(|sample| sample.value).sum()
    }

    /// The sample of `name` with this value of a label; 0 if there is none.
    pub(crate) fn with(&self, name: &str, label: &str, value: &str) -> u64 {
        self.named(name)
            .filter(|sample| sample.labels.get(label).is_some_and(|it| it == value))
            .map(|sample| sample.value)
            .sum()
    }

    pub(crate) fn incidents(&self, kind: &str) -> u64 {
        self.with("slim_incidents_total", "kind", kind)
    }

    pub(crate) fn refused(&self, reason: &str) -> u64 {
        self.with("slim_messages_refused_total", "reason", reason)
    }

    pub(crate) fn dropped(&self, reason: &str) -> u64 {
        self.with("slim_deliveries_dropped_total", "reason", reason)
    }

    pub(crate) fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.0.iter().filter(move |sample| sample.name == name)
    }

    /// Whether the two sums of the reference hold.
    pub(crate) fn is_balanced(&self) -> bool {
        let messages = self.sum("slim_messages_matched_total")
            + self.sum("slim_messages_unmatched_total")
            + self.sum("slim_messages_refused_total");
        let copies = self.sum("slim_deliveries_written_total")
            + self.sum("slim_deliveries_dropped_total")
            + self.sum("slim_deliveries_queued");
        self.sum("slim_messages_received_total") == messages
            && self.sum("slim_deliveries_total") == copies
    }
}

/// `name{label="value",…} number`.
fn parse_sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').expect("a value");
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.trim_end_matches('}')),
        None => (series, ""),
    };
    let labels = labels
        .split("\",")
        .filter(|label| !label.is_empty())
        .map(|label| {
            let (key, value) = label.split_once("=\"").expect("a label");
            (key.to_owned(), value.trim_end_matches('"').to_owned())
        })
        .collect();
    Sample { name: name.to_owned(), labels, value: value.parse().expect("a whole number") }
}
