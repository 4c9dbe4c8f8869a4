//! The configuration, read again while the node runs.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use slim_config::{Client, Config, Loaded, LogLevel, Service};
use tracing::{error, info, warn};

use super::Node;
use super::core::core_config;
use super::lifecycle::check;
use super::uplink::{self, UplinkControl};
use crate::policy::Policy;
use crate::telemetry::logging::Logging;

/// Keys, with all below them, that are applied while the node runs; and so are the routes of a
/// service whose clients are those that run. Not `profile`: of it only the policy is, and servers
/// exchange names as it said at the start.
const APPLIED: [&str; 8] = [
    "limits.slow_consumer_ms",
    "limits.stalled_ms",
    "limits.subscriptions",
    "limits.subscriptions_per_link",
    "limits.subscriptions_per_node",
    POLICY,
    "runtime.drain_timeout",
    "tracing.log_level",
];

const POLICY: &str = "policy";

/// Changed keys that are told one by one; a file with more was rather replaced than changed.
const LINES: usize = 100;

/// What the node runs on, and where that is read again.
pub(super) struct Reload<'a> {
    file: Option<&'a Path>,
    /// What it was started with, which is what all that needs a restart still is.
    started: Loaded,
    /// What was last read, which is what all else is.
    last: Loaded,
    logging: Option<&'a Logging>,
}

/// A link of the configuration that this node begins.
pub(super) struct ConfiguredUplink {
    service: String,
    client: Client,
    control: UplinkControl,
}

impl<'a> Reload<'a> {
    pub(super) fn new(
        loaded: Loaded,
        file: Option<&'a Path>,
        logging: Option<&'a Logging>,
    ) -> Self {
        Self { file, started: loaded.clone(), last: loaded, logging }
    }

    /// Reads the file again, applies what can be applied, and says what has changed. If anything
    /// is wrong with the file or what it names, all stays as it is.
    pub(super) async fn reload(&mut self, node: &mut Node) {
        node.watching.look();
        let outcomes = Arc::clone(&node.watching.reloads);
        let Some(file) = self.file else {
            warn!(target: "slim", "started without a configuration file: there is none to read again");
            return;
        };
        let loaded = match check(file) {
            Ok(loaded) => loaded,
            Err(error) => {
                outcomes.config.refused.add(1);
                error!(target: "slim", "the configuration cannot be used, all stays as it is: {error}");
                return;
            }
        };
        for warning in &loaded.warnings {
            warn!(target: "slim", "{warning}");
        }
        let levels = [&self.last, &loaded].map(|it| it.config.tracing.log_level);
        // What is told is told at the level of both that lets more through.
        self.set_level(levels[0].min(levels[1]));
        let rerouted = node.reconfigure(&loaded.config).await;
        self.tell(&loaded, &rerouted);
        self.set_level(levels[1]);
        self.last = loaded;
        outcomes.config.taken.add(1);
    }

    fn set_level(&self, level: LogLevel) {
        if let Some(logging) = self.logging {
            logging.set_level(level);
        }
    }

    /// Says of each changed key what becomes of it. `rerouted` names services.
    fn tell(&self, loaded: &Loaded, rerouted: &HashSet<String>) {
        let is_applied = |path: &String| is_applied(path, rerouted);
        let mut applied = self.last.changes(loaded);
        applied.retain(is_applied);
        let differs = self.last.config.policy != loaded.config.policy;
        if differs && !applied.iter().any(|path| is_within(path, POLICY)) {
            // No key of it has changed: it follows from another profile.
            applied.push(POLICY.to_owned());
        }
        let mut waiting = self.started.changes(loaded);
        waiting.retain(|path| !is_applied(path));
        for path in applied.iter().take(LINES) {
            info!(target: "slim", "{path}: applied");
        }
        for path in waiting.iter().take(LINES) {
            warn!(target: "slim", "{path}: needs a restart");
        }
        let (applied, waiting) = (applied.len(), waiting.len());
        info!(target: "slim", applied, needs_restart = waiting, "configuration was read again");
    }
}

/// Whether a key is another or below it.
fn is_within(path: &str, key: &str) -> bool {
    path.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn is_applied(path: &str, rerouted: &HashSet<String>) -> bool {
    if APPLIED.iter().any(|key| is_within(path, key)) {
        return true;
    }
    let service = path.strip_prefix("services.").and_then(|path| path.split_once(".dataplane."));
    service.is_some_and(|(id, rest)| is_within(rest, "routes") && rerouted.contains(id))
}

impl Node {
    /// Lets all that can change while a node runs be as `config` says: the policy, of all links;
    /// limits of subscriptions and of slow and stalled links; how long a drain may take; routes.
    /// Returns the services whose routes are as the file says now; those of others stay, since
    /// their clients are not those that run.
    async fn reconfigure(&mut self, config: &Config) -> HashSet<String> {
        self.drain_timeout = config.runtime.drain_timeout;
        let policy = Policy::new(&config.policy);
        let limits = core_config(config, self.cores.len());
        let mut ended = 0;
        for core in &self.cores {
            let policy = policy.clone();
            let change = core.remote.call(move |local| {
                let mut core = local.host.core.borrow_mut();
                core.set_limits(&limits);
                let ended = core.set_policy(policy);
                core.flush();
                ended
            });
            ended += change.await.unwrap_or_default();
        }
        if ended > 0 {
            warn!(target: "slim", ended, "subscriptions that the policy does not allow any more have ended");
        }
        let rerouted = config.services.iter().filter(|service| self.reroute(service));
        rerouted.map(|service| service.id.clone()).collect()
    }

    /// Gives the links of a service the routes that it has; returns whether it has links, and
    /// those are they.
    fn reroute(&self, service: &Service) -> bool {
        let running = || self.uplinks.iter().filter(|uplink| uplink.service == service.id);
        let clients = &service.dataplane.clients;
        if clients.is_empty() || !running().map(|uplink| &uplink.client).eq(clients) {
            return false;
        }
        for ConfiguredUplink { client, control, .. } in running() {
            let routes = uplink::routes(service, client).collect();
            control.routes.send_if_modified(|current| {
                let changes = **current != routes;
                *current = Arc::new(routes);
                changes
            });
        }
        true
    }
}

/// The links of the configuration, with who may change them, in their order.
pub(super) fn configured(config: &Config, controls: Vec<UplinkControl>) -> Vec<ConfiguredUplink> {
    let clients = config.services.iter().flat_map(|service| {
        service.dataplane.clients.iter().map(|client| (service.id.clone(), client.clone()))
    });
    let uplinks = clients.zip(controls);
    uplinks
        .map(|((service, client), control)| ConfiguredUplink { service, client, control })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_known_with_all_below_them_and_not_by_their_beginning() {
        let rerouted = HashSet::from(["slim/0".to_owned()]);
        for (path, applied) in [
            ("policy.rules[3].publish", true),
            ("policy", true),
            ("policyx", false),
            ("profile", false),
            ("limits.subscriptions", true),
            ("limits.subscriptions_per_link", true),
            ("limits.subscriptions_per_node", true),
            ("limits.message_bytes", false),
            ("services.slim/0.dataplane.routes[0].name", true),
            ("services.slim/0.dataplane.routes", true),
            ("services.slim/0.dataplane.routesx", false),
            ("services.slim/1.dataplane.routes[0].name", false),
            ("services.slim/0.dataplane.servers[0].endpoint", false),
            ("tracing.opentelemetry.enabled", false),
        ] {
            assert_eq!(is_applied(path, &rerouted), applied, "{path}");
        }
    }
}
