use std::fmt::Write as _;

use clap::Args;
use serde::Deserialize;

use super::{Admin, At};
use crate::ctl::output::{Answer, Table, shown};
use crate::ctl::{Error, Exit, runtime};

/// `slimctl explain`.
#[derive(Args, Debug)]
pub(in crate::ctl) struct Explain {
    /// The destination: ORG/NS/APP, or ORG/NS/APP/ID
    name: String,
    #[command(flatten)]
    at: At,
}

/// What a node says of a name.
#[derive(Debug, Deserialize)]
struct Explained {
    name: String,
    id: Option<String>,
    spaces: Vec<Space>,
    policy: Policy,
    #[serde(default)]
    nearest: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Space {
    releases: String,
    rule: String,
    to_one: Vec<String>,
    links: Vec<Link>,
    total: u64,
    truncated: bool,
}

#[derive(Debug, Deserialize)]
struct Link {
    id: String,
    kind: String,
    peer: String,
    principal: String,
    rank: String,
    queued_bytes: u64,
    queue: String,
}

#[derive(Debug, Deserialize)]
struct Policy {
    mode: String,
    links: u64,
    links_that_may_subscribe: u64,
}

impl Explain {
    pub(in crate::ctl) fn run(&self) -> Result<Exit, Error> {
        let admin = Admin::new(&self.at.admin)?;
        let parameters = [("name", self.name.as_str())];
        let asked = admin.ask::<Explained>("failed to explain", "/explain", &parameters);
        let (value, explained) = runtime()?.block_on(asked)?;
        let (text, table) = (explained.text(), explained.table());
        Answer { text, table: Some(table), value }.show(self.at.output);
        Ok(Exit::Clean)
    }
}

impl Explained {
    fn text(&self) -> String {
        let mut text = String::new();
        let name = match &self.id {
            Some(id) => shown(&format!("{}/{id}", self.name)),
            None => shown(&self.name),
        };
        if self.spaces.is_empty() {
            _ = writeln!(
                text,
                "{name} is not known: no client of this node has subscribed to it, no other node has \
                 told of one, and no route leads there.\nMessages to it are dropped, and counted in \
                 slim_messages_unmatched_total."
            );
            for near in &self.nearest {
                _ = writeln!(text, "Did you mean {}?", shown(near));
            }
        }
        for space in &self.spaces {
            space.write(&mut text, &name);
        }
        if self.spaces.len() > 1 {
            text.push_str("Clients of these releases do not reach each other.\n");
        }
        let Policy { mode, links, links_that_may_subscribe: allowed } = &self.policy;
        if mode != "open" {
            let mode = shown(mode);
            _ = writeln!(
                text,
                "policy.mode is {mode}: of {links} links {allowed} may subscribe to this name. \
                 What is not allowed is logged, and counted in slim_policy_violations_total."
            );
        }
        text
    }

    fn table(&self) -> Table {
        let headings =
            &["RELEASES", "RANK", "LINK", "KIND", "PEER", "PRINCIPAL", "QUEUED", "QUEUE"];
        let mut table = Table::new(headings, ("link", "links"));
        for space in &self.spaces {
            for link in &space.links {
                let cells = [
                    &space.releases,
                    &link.rank,
                    &link.id,
                    &link.kind,
                    &link.peer,
                    &link.principal,
                    &link.queued_bytes.to_string(),
                    &link.queue,
                ];
                table.push(cells.map(|cell| shown(cell)).to_vec());
            }
        }
        table
    }
}

impl Space {
    fn write(&self, text: &mut String, name: &str) {
        let releases = shown(&self.releases);
        _ = writeln!(text, "From clients of releases {releases}:");
        let one: Vec<_> = self.to_one.iter().map(|id| shown(id)).collect();
        let why = match self.rule.as_str() {
            "anycast" => {
                "the first rank that there is, of it the least loaded of the next 8".to_owned()
            }
            "newest of the id" => "the newest subscription to this id".to_owned(),
            "only subscriber" => "this id is not known, and nobody else has the name".to_owned(),
            "routes" => "this id is not known, so by routes alone".to_owned(),
            other => shown(other),
        };
        match &one[..] {
            [] => {
                _ = writeln!(
                    text,
                    "  to one:  nobody. {name}: the name is known, this id is not, and no route \
                     leads further"
                );
            }
            targets => _ = writeln!(text, "  to one:  link {} ({why})", targets.join(", ")),
        }
        let all = match self.rule.as_str() {
            "anycast" => "every link below",
            "newest of the id" => "those of the links below that have this id",
            _ => "routes alone",
        };
        _ = writeln!(text, "  to all:  {all}, but never back to where a message came from");
        for link in &self.links {
            let [id, kind, peer, principal, rank] =
                [&link.id, &link.kind, &link.peer, &link.principal, &link.rank].map(|t| shown(t));
            let queue = match link.queue.as_str() {
                "full" => ", FULL: reliable messages cut it off",
                "behind" => ", BEHIND: best effort to it is dropped",
                _ => "",
            };
            _ = writeln!(
                text,
                "    {rank}: link {id}, {kind} at {peer}, principal {principal}, {} bytes queued{queue}",
                link.queued_bytes
            );
        }
        if self.truncated {
            let shown = self.links.len();
            _ = writeln!(text, "    {shown} of {} links are shown", self.total);
        }
    }
}
