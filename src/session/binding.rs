//! Whose tokens the names in a session go with.
//!
//! A token is good for its app, but says nothing of the name that a message carries. So a session
//! holds on to who has spoken under a name first, or was invited under it: nobody else can
//! speak under it afterwards. In an encrypted group only those speak at all whose tokens are of
//! a member.

use std::collections::BTreeMap;

use bytes::Bytes;
use slim_wire::Name;

use crate::identity::Principal;

/// Names that one member may speak under, and names in all.
const NAMES_EACH: usize = 4;
const NAMES: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Bindings {
    names: BTreeMap<Name, Box<str>>,
    /// The members of the encrypted group, by their credentials.
    members: BTreeMap<Bytes, Box<str>>,
}

/// Subject, and the issuer before it where there is one.
pub(super) fn identity(who: &Principal) -> Box<str> {
    match &who.issuer {
        None => who.subject.clone(),
        Some(issuer) => format!("{issuer} {}", who.subject).into(),
    }
}

impl Bindings {
    /// This name is known to be theirs.
    pub(super) fn bind(&mut self, name: Name, who: Box<str>) {
        if self.names.len() < NAMES || self.names.contains_key(&name) {
            self.names.insert(name, who);
        }
    }

    /// Whose the name is known to be; empty if that is not known.
    pub(super) fn of(&self, name: Name) -> Box<str> {
        self.names.get(&name).cloned().unwrap_or_default()
    }

    /// This name is known to be that of a member.
    pub(super) fn bind_credential(&mut self, name: Name, credential: &Bytes) {
        if let Some(who) = self.members.get(credential).cloned() {
            self.bind(name, who);
        }
    }

    /// Who the members of the encrypted group are now.
    pub(super) fn learn_members(&mut self, members: Vec<(Bytes, Principal)>) {
        let members = members.into_iter();
        self.members = members.map(|(credential, who)| (credential, identity(&who))).collect();
    }

    /// Whether the name is known to be theirs; `None`: it has not been heard yet.
    pub(super) fn holds(&self, name: Name, who: &str) -> Option<bool> {
        self.names.get(&name).map(|known| **known == *who)
    }

    /// Binds a name that has not been heard yet to who speaks under it, if there is room.
    pub(super) fn admit(&mut self, name: Name, who: &str, encrypted: bool) -> bool {
        let names = self.names.values().filter(|known| ***known == *who).count();
        let is_member = !encrypted || self.members.values().any(|member| **member == *who);
        if !is_member || self.names.len() >= NAMES || (encrypted && names >= NAMES_EACH) {
            return false;
        }
        self.names.insert(name, who.into());
        true
    }

    /// Whether a member's credential belongs to who speaks under the name.
    pub(super) fn fits(&self, name: Name, credential: &Bytes) -> bool {
        match (self.members.get(credential), self.names.get(&name)) {
            (Some(member), Some(known)) => member == known,
            _ => false,
        }
    }
}
