//! Who may use which names.
//!
//! A [`Policy`] is made once of the configuration. For each link it gives the [`View`] of the
//! link's [`Principal`], and the view judges every subscription and message without an
//! allocation, a lock or a text. What to do with what is not allowed says [`Policy::mode`], and
//! the caller does it.
//!
//! ```
//! use slim_quic::policy::{Mode, Policy, Principal};
//!
//! let file = r#"
//! policy:
//!   mode: enforce
//!   rules:
//!     - { principal: "basic:alice", subscribe: [org/ns/alice, org/groups/*], publish: [org/ns/alice] }
//! services:
//!   slim/0: { dataplane: { servers: [{ endpoint: "127.0.0.1:46357", tls: { insecure: true } }] } }
//! "#;
//! let config = slim_config::parse("config.yaml", file, &slim_config::System)?.config;
//! let policy = Policy::new(&config.policy);
//! assert_eq!(policy.mode(), Mode::Enforce);
//!
//! let alice = policy.view(&Principal::Basic("alice".into()));
//! let group = "org/groups/chat".parse::<slim_wire::TextName>()?.to_name();
//! assert!(alice.may_subscribe(&group) && !alice.may_publish_as(&group));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod names;
mod principal;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use slim_config::PolicyMode as Mode;
use slim_config::PrincipalPattern;
use slim_wire::Name;

use self::names::Names;
pub use self::principal::Principal;

/// The rules of a configuration, ready to judge.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    mode: Mode,
    rules: Arc<[Rule]>,
}

#[derive(Debug)]
struct Rule {
    principal: PrincipalPattern,
    grant: Arc<Grant>,
}

/// What one rule allows.
#[derive(Debug)]
struct Grant {
    subscribe: Names,
    publish: Names,
}

/// What one principal may do. Small, and shares what it knows with its policy.
#[derive(Clone, Debug)]
pub enum View {
    /// Everything, as in the mode [`Mode::Open`].
    Everything,
    /// What rules allow.
    Granted(Grants),
}

/// What all rules about a principal allow together.
#[derive(Clone, Debug)]
pub struct Grants(Box<[Arc<Grant>]>);

impl Policy {
    /// The policy as it is configured. A `Policy` of [`Default`] is open.
    pub fn new(policy: &slim_config::Policy) -> Self {
        let rules = policy.rules.iter().map(|rule| Rule {
            principal: rule.principal.clone(),
            grant: Arc::new(Grant {
                subscribe: Names::new(&rule.subscribe),
                publish: Names::new(&rule.publish),
            }),
        });
        Self { mode: policy.mode, rules: rules.collect() }
    }

    /// What to do with what a [`View`] does not allow. In [`Mode::Open`] there is no such thing.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// What `principal` may do. Looks at every rule, so it is for once per link.
    pub fn view(&self, principal: &Principal) -> View {
        if self.mode == Mode::Open || *principal == Principal::Configured {
            return View::Everything;
        }
        let meant =
            self.rules.iter().filter(|rule| principal::is_meant(&rule.principal, principal));
        let grants: Box<[_]> = meant.map(|rule| Arc::clone(&rule.grant)).collect();
        let any = |names: fn(&Grant) -> &Names| grants.iter().any(|g| names(g).is_everything());
        if any(|grant| &grant.subscribe) && any(|grant| &grant.publish) {
            return View::Everything;
        }
        View::Granted(Grants(grants))
    }
}

impl View {
    /// Whether the link may subscribe to `name`. A name without an id stands for all ids, so a
    /// rule about a single id does not allow it.
    pub fn may_subscribe(&self, name: &Name) -> bool {
        match self {
            Self::Everything => true,
            Self::Granted(grants) => grants.0.iter().any(|grant| grant.subscribe.contains(name)),
        }
    }

    /// Whether the link may publish with `source` as the name it comes from.
    pub fn may_publish_as(&self, source: &Name) -> bool {
        match self {
            Self::Everything => true,
            Self::Granted(grants) => grants.0.iter().any(|grant| grant.publish.contains(source)),
        }
    }
}
