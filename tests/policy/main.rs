//! Who may use which names, through a running node.

#[path = "../support/mod.rs"]
mod support;

mod acknowledgements;
mod hostile;
mod modern;
mod modes;
mod nodes;
mod principals;
mod published;
mod texts;

use support::metrics::Metrics;
use support::native::text;
use support::node::{Node, PLAIN, config};

/// The top of a configuration: the mode, and the rules in YAML's flow style.
fn policy(mode: &str, rules: &[&str]) -> String {
    let rules: Vec<String> = rules.iter().map(|rule| format!("{{ {rule} }}")).collect();
    format!("policy: {{ mode: {mode}, rules: [{}] }}", rules.join(", "))
}

/// A node without TLS that refuses what these rules do not allow.
async fn enforcing(rules: &[&str]) -> Node {
    Node::launch(&config(&policy("enforce", rules), PLAIN)).await
}

const REFUSED: &str = "not_allowed";
const VIOLATIONS: &str = "slim_policy_violations_total";

/// The metrics, once so many were refused by the policy and every message is accounted for.
async fn until_refused(node: &Node, count: u64) -> Metrics {
    node.until("the policy refuses", |metrics| metrics.refused(REFUSED) >= count).await;
    let metrics = node.balanced().await;
    assert_eq!(metrics.refused(REFUSED), count);
    assert_eq!(metrics.sum(VIOLATIONS), count);
    metrics
}

/// A name as a node logs it.
fn hashes(name: &str) -> String {
    text(name).to_name().to_string()
}
