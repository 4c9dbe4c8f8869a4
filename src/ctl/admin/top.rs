use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Deserialize;

use super::{Admin, At};
use crate::ctl::output::{Answer, Format, Table, print, shown};
use crate::ctl::{Error, Exit, runtime};

/// `slimctl top`.
#[derive(Args, Debug)]
pub(in crate::ctl) struct Top {
    #[command(flatten)]
    at: At,
    /// Print one table and end; so it is where the output is no terminal, and for JSON and YAML
    #[arg(long)]
    once: bool,
    /// Time between two looks
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "2s")]
    interval: Duration,
    /// Most links that are shown
    #[arg(long, value_name = "N", default_value_t = 30)]
    limit: usize,
}

/// Less would only load the node.
const SHORTEST: Duration = Duration::from_millis(100);

/// What a node says of itself and its links.
#[derive(Debug, Default, Deserialize)]
struct Look {
    node: Totals,
    links: Vec<Link>,
    total: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Totals {
    received: u64,
    received_bytes: u64,
    written: u64,
    written_bytes: u64,
    unmatched: u64,
    refused: u64,
    dropped: u64,
    queued: u64,
    evicted: u64,
    subscriptions: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Link {
    id: String,
    kind: String,
    peer: String,
    name: String,
    state: String,
    queue: String,
    subscriptions: u64,
    queued_bytes: u64,
    received: u64,
    written: u64,
    written_bytes: u64,
}

impl Top {
    pub(in crate::ctl) fn run(&self) -> Result<Exit, Error> {
        let admin = Admin::new(&self.at.admin)?;
        let interval = self.interval.max(SHORTEST);
        runtime()?.block_on(async {
            let (value, mut look) = self.look(&admin).await?;
            let text = matches!(self.at.output, Format::Text | Format::Table);
            if self.once || !text || !std::io::stdout().is_terminal() {
                let table = links(&look, None);
                let text = format!("{}{table}", head(&look, None));
                Answer { text, table: Some(table), value }.show(self.at.output);
                return Ok(Exit::Clean);
            }
            let mut before = None;
            let mut at = Instant::now();
            loop {
                let since =
                    before.as_ref().map(|(look, at): &(Look, Instant)| (look, at.elapsed()));
                let frame = format!("{}{}", head(&look, since), links(&look, since));
                // Home, clear, draw: what is left of a longer frame goes too.
                print(&format!("\u{1b}[H\u{1b}[2J{frame}"));
                tokio::select! {
                    _ = tokio::signal::ctrl_c() => return Ok(Exit::Clean),
                    () = tokio::time::sleep(interval) => {}
                }
                let (_, next) = self.look(&admin).await?;
                before = Some((std::mem::replace(&mut look, next), at));
                at = Instant::now();
            }
        })
    }

    async fn look(&self, admin: &Admin) -> Result<(serde_json::Value, Look), Error> {
        let limit = self.limit.to_string();
        admin.ask("failed to list links", "/links", &[("limit", &limit)]).await
    }
}

/// An earlier look, and how long ago it was.
type Since<'a> = Option<(&'a Look, Duration)>;

/// What the node carries: each second if there was a look before, else since it started.
fn head(look: &Look, since: Since<'_>) -> String {
    let node = &look.node;
    let count = |of: fn(&Totals) -> u64| match since {
        Some((before, elapsed)) => rate(of(node), of(&before.node), elapsed) + "/s",
        None => of(node).to_string(),
    };
    let bytes = |of: fn(&Totals) -> u64| match since {
        Some((before, elapsed)) => {
            let more = of(node).saturating_sub(of(&before.node));
            size(more as f64 / elapsed.as_secs_f64()) + "/s"
        }
        None => size(of(node) as f64),
    };
    let mut text = String::new();
    _ = writeln!(
        text,
        "links {}, subscriptions {}, messages queued {}, evicted {}",
        look.total, node.subscriptions, node.queued, node.evicted
    );
    _ = writeln!(
        text,
        "received {} ({}), written {} ({}), unmatched {}, refused {}, dropped {}\n",
        count(|node| node.received),
        bytes(|node| node.received_bytes),
        count(|node| node.written),
        bytes(|node| node.written_bytes),
        count(|node| node.unmatched),
        count(|node| node.refused),
        count(|node| node.dropped),
    );
    text
}

fn links(look: &Look, since: Since<'_>) -> Table {
    const TOTALS: &[&str] =
        &["LINK", "KIND", "PEER", "NAME", "SUBS", "IN", "OUT", "OUT BYTES", "QUEUED", "STATE"];
    const RATES: &[&str] =
        &["LINK", "KIND", "PEER", "NAME", "SUBS", "IN/s", "OUT/s", "OUT B/s", "QUEUED", "STATE"];
    let known: HashMap<_, _> = since
        .iter()
        .flat_map(|(before, _)| before.links.iter().map(|link| (link.id.as_str(), link)))
        .collect();
    let headings = if since.is_some() { RATES } else { TOTALS };
    let mut table = Table::new(headings, ("link shown", "links shown"));
    for link in &look.links {
        let before = since.map(|(_, elapsed)| (known.get(link.id.as_str()), elapsed));
        let count = |of: fn(&Link) -> u64| match before {
            Some((Some(before), elapsed)) => rate(of(link), of(before), elapsed),
            // A link that was not seen before has no rate yet.
            Some((None, _)) => "-".into(),
            None => of(link).to_string(),
        };
        let bytes = match before {
            Some((Some(before), elapsed)) => {
                let more = link.written_bytes.saturating_sub(before.written_bytes);
                size(more as f64 / elapsed.as_secs_f64())
            }
            Some((None, _)) => "-".into(),
            None => size(link.written_bytes as f64),
        };
        let state = match (link.state.as_str(), link.queue.as_str()) {
            ("open", "room") => "open".into(),
            ("open", queue) => shown(queue),
            (state, _) => shown(state),
        };
        table.push(vec![
            shown(&link.id),
            shown(&link.kind),
            shown(&link.peer),
            shown(plain(&link.name)),
            link.subscriptions.to_string(),
            count(|link| link.received),
            count(|link| link.written),
            bytes,
            size(link.queued_bytes as f64),
            state,
        ]);
    }
    table
}

/// A name in its texts, where the node knows them: they stand in brackets behind the hashes.
fn plain(name: &str) -> &str {
    let texts = name.split_once(" (").and_then(|(_, texts)| texts.strip_suffix(')'));
    texts.unwrap_or(name)
}

fn rate(now: u64, before: u64, elapsed: Duration) -> String {
    format!("{:.0}", now.saturating_sub(before) as f64 / elapsed.as_secs_f64())
}

/// Bytes with a unit.
fn size(bytes: f64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let (mut bytes, mut unit) = (bytes, 0);
    while bytes >= 1000.0 && unit + 1 < UNITS.len() {
        bytes /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes:.0} B") } else { format!("{bytes:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(received: u64, written_bytes: u64) -> Look {
        let link = Link {
            id: "0.1".into(),
            kind: "native client".into(),
            name: "org/ns/app\u{1b}[2J".into(),
            state: "open".into(),
            queue: "behind".into(),
            received,
            written_bytes,
            ..Link::default()
        };
        let node = Totals { received, written_bytes, ..Totals::default() };
        Look { node, links: vec![link], total: 7 }
    }

    #[test]
    fn a_second_look_shows_what_happens_in_a_second() {
        let (before, now) = (look(100, 1_000), look(300, 5_000_000));
        let since = Some((&before, Duration::from_secs(2)));
        let head = head(&now, since);
        assert!(head.contains("links 7,") && head.contains("received 100/s"), "{head}");
        assert!(head.contains("(2.5 MB/s)"), "{head}");
        let table = links(&now, since).to_string();
        assert!(table.starts_with("LINK") && table.contains("IN/s"), "{table}");
        assert!(table.contains("  100  ") && table.contains("2.5 MB"), "{table}");
        assert!(table.contains("behind") && !table.contains('\u{1b}'), "{table}");
    }

    #[test]
    fn a_first_look_shows_what_has_been_and_a_new_link_has_no_rate() {
        let now = look(300, 5_000_000);
        assert!(head(&now, None).contains("received 300 (0 B)"));
        assert!(links(&now, None).to_string().contains("5.0 MB"));
        let before = Look::default();
        let table = links(&now, Some((&before, Duration::from_secs(1)))).to_string();
        assert!(table.contains("  -  "), "{table}");
    }

    #[test]
    fn names_are_shown_in_their_texts_if_they_are_known() {
        assert_eq!(plain("1f/2/3/7 (org/ns/a (b)/7)"), "org/ns/a (b)/7");
        assert_eq!(plain("1f/2/3/7"), "1f/2/3/7");
    }

    #[test]
    fn sizes_have_units() {
        for (bytes, expected) in [(0.0, "0 B"), (999.0, "999 B"), (1500.0, "1.5 kB")] {
            assert_eq!(size(bytes), expected);
        }
        assert_eq!(size(2e18), "2000000.0 TB");
    }
}
