//! What one node was told, what it has acknowledged, and what it has to be told next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message;
use slim_compat_grpc::proto::southbound::{
    ConfigurationCommand, ConfigurationCommandAck, Connection,
};

use crate::controller::name::RouteName;

/// Something that a node is told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Item {
    /// A connection that is wanted whether or not a name is reached over it, by its endpoint.
    Link(String),
    /// A name, and the endpoint that it is reached by.
    Route(Arc<RouteName>, String),
}

impl Item {
    fn endpoint(&self) -> &str {
        match self {
            Self::Link(endpoint) | Self::Route(_, endpoint) => endpoint,
        }
    }
}

/// How far an item got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The node does not know it yet.
    Pending,
    /// The node has acknowledged it.
    Applied,
    /// The node could not do it; it will be told again.
    Failed {
        /// Why.
        reason: String,
        /// How often, since it last succeeded.
        attempts: u32,
    },
    /// It is wanted no more, but the node has not acknowledged that.
    Deleted,
}

/// A node's answer to a command.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// All of it was done.
    Done,
    /// Something of it was not, and this is all that is known.
    Failed(String),
    /// A result for each.
    Detailed(ConfigurationCommandAck),
    /// None came in time, or the stream ended.
    Silence,
}

/// How failures are repeated.
#[derive(Clone, Copy, Debug)]
pub struct Retries {
    /// Wait after the first failure; it doubles with each.
    pub first: Duration,
    /// Longest wait.
    pub longest: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self { first: Duration::from_millis(200), longest: Duration::from_secs(30) }
    }
}

impl Retries {
    fn after(self, attempts: u32) -> Duration {
        let doubled = 2_u32.saturating_pow(attempts.saturating_sub(1).min(16));
        self.first.saturating_mul(doubled).min(self.longest)
    }
}

/// Everything of one node.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: BTreeMap<Item, Entry>,
    /// Those that the node has to be told.
    due: BTreeSet<Item>,
    /// How many entries need the connection to an endpoint.
    users: BTreeMap<String, usize>,
    /// Endpoints that the node was told to connect to.
    links: BTreeSet<String>,
    /// When the node may be told again what it does not need.
    quiet_until: Option<Instant>,
    /// A command was sent since the node registered.
    greeted: bool,
    /// The node was told since then that it needs nothing else.
    pruned: bool,
    /// The node gives a result for each item, and can be told of connections that are needed no
    /// more.
    detailed: bool,
    under_way: Option<UnderWay>,
    acknowledged: u64,
}

#[derive(Debug)]
struct Entry {
    /// The client block of its connection; `None` if the item is wanted no more.
    config: Option<Arc<str>>,
    /// The node may have it.
    told: bool,
    /// When the node acknowledged it, by [`Ledger::acknowledged`].
    applied: Option<u64>,
    failure: Option<Failure>,
}

#[derive(Debug)]
struct Failure {
    reason: String,
    attempts: u32,
    retry_at: Instant,
}

#[derive(Debug)]
struct UnderWay {
    items: Vec<(Item, Option<Arc<str>>)>,
    links: Vec<String>,
    prunes: bool,
}

/// A command stays far below what receivers take as one message (4 MiB).
const COMMAND_BYTES: usize = 1024 * 1024;

/// One that holds everything goes only to nodes that take larger ones (64 MiB).
const WHOLE_BYTES: usize = 32 * 1024 * 1024;

impl Ledger {
    /// Wants an item, whose connection is made with the client block `config`.
    pub fn want(&mut self, item: Item, config: &Arc<str>) {
        if let Some(entry) = self.entries.get_mut(&item) {
            if entry.config.as_ref() == Some(config) {
                return;
            }
            *entry = Entry::new(Some(Arc::clone(config)), entry.told);
        } else {
            *self.users.entry(item.endpoint().to_owned()).or_default() += 1;
            self.entries.insert(item.clone(), Entry::new(Some(Arc::clone(config)), false));
        }
        self.due.insert(item);
    }

    /// Wants an item no more.
    pub fn drop(&mut self, item: &Item) {
        let Some(entry) = self.entries.get_mut(item) else { return };
        // Of connections the node is told once nothing needs them.
        if !entry.told || matches!(item, Item::Link(_)) {
            self.forget(item);
        } else if entry.config.is_some() {
            *entry = Entry::new(None, true);
            self.due.insert(item.clone());
        }
    }

    /// The same, of an item that the node may have been told in an earlier life of this program.
    pub fn drop_anyway(&mut self, item: Item) {
        if self.entries.contains_key(&item) {
            return self.drop(&item);
        }
        *self.users.entry(item.endpoint().to_owned()).or_default() += 1;
        self.entries.insert(item.clone(), Entry::new(None, true));
        self.due.insert(item);
    }

    /// The endpoints over which a name is reached, or was until now.
    pub fn endpoints(&self, name: &Arc<RouteName>) -> Vec<String> {
        let first = Item::Route(Arc::clone(name), String::new());
        let items = self.entries.range(first..).map(|(item, _)| item);
        let of_name = items.map_while(|item| match item {
            Item::Route(other, endpoint) if other == name => Some(endpoint.clone()),
            _ => None,
        });
        of_name.collect()
    }

    /// How far an item got; `None` if it is neither wanted nor known to the node.
    pub fn progress(&self, item: &Item) -> Option<Progress> {
        let Entry { config, applied, failure, .. } = self.entries.get(item)?;
        Some(match (config, applied, failure) {
            (None, ..) => Progress::Deleted,
            (_, Some(_), _) => Progress::Applied,
            (_, None, Some(Failure { reason, attempts, .. })) => {
                Progress::Failed { reason: reason.clone(), attempts: *attempts }
            }
            (_, None, None) => Progress::Pending,
        })
    }

    /// Items that are wanted no more, but of which the node still has to be told.
    pub fn deleted(&self) -> impl Iterator<Item = &Item> {
        self.due.iter().filter(|item| self.entries[*item].config.is_none())
    }

    /// The node has registered: what it knows is unknown, and it is told everything. `detailed`
    /// nodes give a result for each item, and can be told of connections that are needed no more.
    pub fn registered(&mut self, detailed: bool) {
        (self.greeted, self.pruned) = (false, false);
        (self.under_way, self.quiet_until) = (None, None);
        self.detailed = detailed;
        for (item, entry) in &mut self.entries {
            *entry = Entry::new(entry.config.take(), entry.told);
            self.due.insert(item.clone());
        }
    }

    /// What to tell the node now, unless an answer is awaited.
    ///
    /// The first command after a registration is sent even if it is empty. What has failed is
    /// repeated by itself, one endpoint at a time, so that it does not stop the rest. If all that
    /// there may be is known (`whole`), detailed nodes are told once that they need nothing else:
    /// they may have it from an earlier life of this program.
    pub fn next(&mut self, now: Instant, whole: bool) -> Option<ConfigurationCommand> {
        if self.under_way.is_some() {
            return None;
        }
        let prunes = whole && self.may_prune(now);
        let everything =
            || self.entries.iter().map(|(item, entry)| (item.clone(), entry.config.clone()));
        let items = if prunes { everything().collect() } else { self.choose(now) };
        let links = self.unneeded(now);
        if items.is_empty() && links.is_empty() && !prunes && self.greeted {
            return None;
        }
        self.greeted = true;
        self.pruned |= prunes;
        let (detailed, complete) = (self.detailed, prunes);
        let mut command = ConfigurationCommand { detailed, complete, ..Default::default() };
        command.connections_to_delete.clone_from(&links);
        for (item, config) in &items {
            self.add(&mut command, item, config.as_ref());
        }
        self.under_way = Some(UnderWay { items, links, prunes });
        Some(command)
    }

    fn choose(&self, now: Instant) -> Vec<(Item, Option<Arc<str>>)> {
        let mut room = COMMAND_BYTES;
        let mut take = |item: &Item| {
            let config = self.entries[item].config.clone();
            let size = size(item, config.as_deref());
            let taken = room >= size;
            room = room.saturating_sub(size);
            taken.then(|| (item.clone(), config))
        };
        let failure = |item: &&Item| self.entries[*item].failure.as_ref();
        let fresh = self.due.iter().filter(|item| failure(item).is_none());
        let fresh: Vec<_> = fresh.map_while(&mut take).collect();
        if !fresh.is_empty() {
            return fresh;
        }
        let again = self.due.iter().filter_map(|item| Some((failure(&item)?.retry_at, item)));
        let Some((_, first)) = again.min().filter(|(at, _)| *at <= now) else {
            return Vec::new();
        };
        let endpoint = first.endpoint();
        let of_endpoint = self.due.iter().filter(|item| item.endpoint() == endpoint);
        of_endpoint.map_while(take).collect()
    }

    fn may_prune(&self, now: Instant) -> bool {
        let is_quiet = self.quiet_until.is_some_and(|at| now < at);
        let size = self.entries.iter().map(|(item, entry)| size(item, entry.config.as_deref()));
        self.detailed && !self.pruned && !is_quiet && size.sum::<usize>() <= WHOLE_BYTES
    }

    fn unneeded(&self, now: Instant) -> Vec<String> {
        if self.quiet_until.is_some_and(|at| now < at) {
            return Vec::new();
        }
        self.links.iter().filter(|link| !self.users.contains_key(*link)).cloned().collect()
    }

    fn add(&mut self, command: &mut ConfigurationCommand, item: &Item, config: Option<&Arc<str>>) {
        if let Some(entry) = self.entries.get_mut(item) {
            entry.told = true;
        }
        let endpoint = item.endpoint();
        if let Some(config) = config {
            if self.detailed {
                self.links.insert(endpoint.to_owned());
            }
            let connections = &mut command.connections_to_create;
            if !connections.iter().any(|connection| connection.connection_id == endpoint) {
                let (connection_id, config_data) = (endpoint.to_owned(), config.to_string());
                connections.push(Connection { connection_id, config_data });
            }
        }
        if let Item::Route(name, _) = item {
            let subscription = name.to_subscription(endpoint);
            match config {
                Some(_) => command.subscriptions_to_set.push(subscription),
                None => command.subscriptions_to_delete.push(subscription),
            }
        }
    }

    /// Takes the answer to the last command. Returns what the node does not have any more.
    pub fn answered(&mut self, answer: &Answer, now: Instant, retries: Retries) -> Vec<Item> {
        let Some(UnderWay { items, links, prunes }) = self.under_way.take() else {
            return Vec::new();
        };
        self.acknowledged += 1;
        let results = Results::new(answer);
        if matches!(answer, Answer::Failed(_) | Answer::Silence) && (prunes || !links.is_empty()) {
            self.quiet_until = Some(now + retries.longest);
            self.pruned &= !prunes;
        } else {
            let gone = links.iter().filter(|link| !self.users.contains_key(*link));
            gone.for_each(|link| _ = self.links.remove(link));
        }
        let mut removed = Vec::new();
        for (item, told) in items {
            let result = results.of(&item, told.is_some());
            let Some(entry) = self.entries.get_mut(&item).filter(|entry| entry.config == told)
            else {
                continue;
            };
            match result {
                Ok(()) if told.is_none() => {
                    self.forget(&item);
                    removed.push(item);
                }
                Ok(()) => {
                    (entry.applied, entry.failure) = (Some(self.acknowledged), None);
                    self.due.remove(&item);
                }
                Err(reason) => {
                    let attempts = entry.failure.as_ref().map_or(0, |failure| failure.attempts);
                    let attempts = attempts.saturating_add(1);
                    let retry_at = now + retries.after(attempts);
                    entry.failure = Some(Failure { reason, attempts, retry_at });
                }
            }
        }
        removed
    }

    /// When there is something to tell next, if no answer is awaited; `whole` as for
    /// [`Ledger::next`].
    pub fn due(&self, now: Instant, whole: bool) -> Option<Due> {
        if self.under_way.is_some() {
            return None;
        }
        let times = self.due.iter().map(|item| self.entries[item].failure.as_ref());
        let first = times.map(|failure| failure.map(|failure| failure.retry_at)).min();
        match first {
            _ if !self.greeted || (whole && self.may_prune(now)) => Some(Due::Now),
            Some(None) => Some(Due::Now),
            Some(Some(at)) => Some(Due::At(at)),
            None => self.unneeded_due(),
        }
    }

    fn unneeded_due(&self) -> Option<Due> {
        let any = self.links.iter().any(|link| !self.users.contains_key(link));
        any.then(|| self.quiet_until.map_or(Due::Now, Due::At))
    }

    /// A mark for [`Ledger::compare`].
    pub fn mark(&self) -> u64 {
        self.acknowledged
    }

    /// Compares with what the node says it has, in a list that was asked for at `mark`. What is
    /// missing will be told again; returns how much that is.
    pub fn compare(&mut self, has: &BTreeSet<(RouteName, String)>, mark: u64) -> usize {
        let mut missing = Vec::new();
        for (item, entry) in &mut self.entries {
            let Item::Route(name, endpoint) = item else { continue };
            let old = entry.applied.is_some_and(|applied| applied <= mark);
            if old && !has.contains(&(RouteName::clone(name), endpoint.clone())) {
                entry.applied = None;
                missing.push(item.clone());
            }
        }
        let count = missing.len();
        self.due.extend(missing);
        count
    }

    fn forget(&mut self, item: &Item) {
        self.entries.remove(item);
        self.due.remove(item);
        if let Some(users) = self.users.get_mut(item.endpoint()) {
            *users -= 1;
            if *users == 0 {
                self.users.remove(item.endpoint());
            }
        }
    }
}

/// When something is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Due {
    /// At once.
    Now,
    /// Then.
    At(Instant),
}

impl Entry {
    fn new(config: Option<Arc<str>>, told: bool) -> Self {
        Self { config, told, applied: None, failure: None }
    }
}

/// Roughly what an item adds to a command.
fn size(item: &Item, config: Option<&str>) -> usize {
    const TAGS: usize = 64;
    let name = match item {
        Item::Link(_) => 0,
        Item::Route(name, _) => name.to_subscription("").encoded_len(),
    };
    TAGS + name + 2 * item.endpoint().len() + config.map_or(0, str::len)
}

/// The results in an answer, by what they are about.
enum Results<'a> {
    All(Result<(), &'a str>),
    Each {
        links: BTreeMap<&'a str, Result<(), &'a str>>,
        routes: BTreeMap<(RouteName, &'a str), Result<(), &'a str>>,
    },
}

const SILENT: &str = "the node gave no answer in time";
const NO_RESULT: &str = "the node gave no result";

impl<'a> Results<'a> {
    fn new(answer: &'a Answer) -> Self {
        let result = |success, text: &'a str| if success { Ok(()) } else { Err(text) };
        match answer {
            Answer::Done => Self::All(Ok(())),
            Answer::Failed(reason) => Self::All(Err(reason)),
            Answer::Silence => Self::All(Err(SILENT)),
            Answer::Detailed(ack) => {
                let links = ack.connections_status.iter();
                let links =
                    links.map(|link| (&*link.connection_id, result(link.success, &link.error_msg)));
                let routes = ack.subscriptions_status.iter().filter_map(|route| {
                    let subscription = route.subscription.as_ref()?;
                    let name = RouteName::of(subscription).ok()?;
                    let key = (name, &*subscription.connection_id);
                    Some((key, result(route.success, &route.error_msg)))
                });
                Self::Each { links: links.collect(), routes: routes.collect() }
            }
        }
    }

    /// What became of an item that was to be set, or else to be deleted.
    fn of(&self, item: &Item, set: bool) -> Result<(), String> {
        let result = match (self, item) {
            (Self::All(result), _) => *result,
            (Self::Each { links, .. }, Item::Link(endpoint)) => {
                *links.get(&**endpoint).unwrap_or(&Err(NO_RESULT))
            }
            (Self::Each { links, routes }, Item::Route(name, endpoint)) => {
                let route = routes.get(&(RouteName::clone(name), &**endpoint));
                let link = links.get(&**endpoint).filter(|link| link.is_err());
                // Nodes take routes over links that did not come up; deleting one needs no link.
                *if set { link.or(route) } else { route.or(link) }.unwrap_or(&Err(NO_RESULT))
            }
        };
        match result {
            // It is gone already.
            Err(reason) if !set && reason.to_ascii_lowercase().contains("not found") => Ok(()),
            result => result.map_err(told),
        }
    }
}

/// The beginning of a text of a node: nodes may be of any make.
fn told(text: &str) -> String {
    const CHARACTERS: usize = 512;
    if text.is_empty() {
        "the node gave no reason".to_owned()
    } else {
        text.chars().take(CHARACTERS).collect()
    }
}
