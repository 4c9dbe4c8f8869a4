use std::collections::HashSet;

use foldhash::fast::FixedState;
use slim_config::NamePattern;
use slim_wire::{Name, Prefix, hash_component};

/// The names that a list of patterns covers, by the hashes of their components. One set per
/// depth, so that a look-up costs the same however long the list is.
#[derive(Debug, Default)]
pub(super) struct Names {
    everything: bool,
    organizations: HashSet<u64, FixedState>,
    namespaces: HashSet<[u64; 2], FixedState>,
    apps: HashSet<Prefix, FixedState>,
    instances: HashSet<Name, FixedState>,
}

impl Names {
    pub(super) fn new(patterns: &[NamePattern]) -> Self {
        let mut names = Self::default();
        for pattern in patterns {
            match pattern {
                NamePattern::Everything => names.everything = true,
                NamePattern::Organization(org) => {
                    names.organizations.insert(hash_component(org));
                }
                NamePattern::Namespace(parts) => {
                    names.namespaces.insert(parts.each_ref().map(|part| hash_component(part)));
                }
                NamePattern::Name(name) if name.id().is_any() => {
                    names.apps.insert(name.to_name().prefix);
                }
                NamePattern::Name(name) => {
                    names.instances.insert(name.to_name());
                }
            }
        }
        names
    }

    /// Whether every name is covered.
    pub(super) fn is_everything(&self) -> bool {
        self.everything
    }

    pub(super) fn contains(&self, name: &Name) -> bool {
        let Prefix([org, namespace, _]) = name.prefix;
        self.everything
            || self.organizations.contains(&org)
            || self.namespaces.contains(&[org, namespace])
            || self.apps.contains(&name.prefix)
            || self.instances.contains(name)
    }
}
