//! A group without cryptography that follows the rules of one: epochs, members, generations. It
//! is strict where MLS is, and fast, so that many runs can be tried.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use slim_quic::identity::Principal;
use slim_quic::mls::{Added, Mls, MlsError, MlsFactory, Opened};
use slim_quic::session::Now;

/// Epochs before the present one of which messages can still be read.
const PAST_EPOCHS: u64 = 3;

/// Messages of a sender that a reader may have missed and still read on.
const SKIPPED: u64 = 1024;

/// One member's view, as text: fields separated by `|`, lists by `,`.
#[derive(Debug)]
pub(crate) struct ModelMls {
    credential: String,
    group: Option<Group>,
    package: u64,
    pending: Option<String>,
}

#[derive(Debug)]
struct Group {
    epoch: u64,
    members: Vec<String>,
    generation: u64,
    /// Generations that were read, by epoch and sender.
    read: BTreeSet<(u64, String, u64)>,
    /// Members of the present epoch and those before it.
    past: BTreeMap<u64, Vec<String>>,
}

pub(crate) struct ModelFactory(pub String);

impl MlsFactory for ModelFactory {
    fn session(&mut self, _: u32) -> Result<Box<dyn Mls>, MlsError> {
        let credential = self.0.clone();
        Ok(Box::new(ModelMls { credential, group: None, package: 0, pending: None }))
    }
}

fn wrong(field: &'static str, expected: &'static str, got: impl ToString) -> MlsError {
    MlsError::Wrong { field, expected, got: got.to_string() }
}

fn fields<const N: usize>(
    bytes: &[u8],
    field: &'static str,
    tag: &str,
) -> Result<[String; N], MlsError> {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let parts: Vec<String> = text.splitn(N + 1, '|').map(str::to_owned).collect();
    match parts.split_first() {
        Some((first, rest)) if first == tag => {
            rest.to_vec().try_into().map_err(|_| wrong(field, "all fields", &text))
        }
        _ => Err(wrong(field, "its tag", &text)),
    }
}

fn number(text: &str) -> u64 {
    text.parse().expect("the model wrote a number")
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::to_owned).collect()
}

impl Group {
    fn new(epoch: u64, members: Vec<String>) -> Self {
        let past = BTreeMap::from([(epoch, members.clone())]);
        Self { epoch, members, generation: 0, read: BTreeSet::new(), past }
    }

    fn enter(&mut self, epoch: u64, members: Vec<String>) {
        self.epoch = epoch;
        self.generation = 0;
        self.past.insert(epoch, members.clone());
        self.past.retain(|past, _| past + PAST_EPOCHS >= epoch);
        self.read.retain(|(past, ..)| past + PAST_EPOCHS >= epoch);
        self.members = members;
    }

    /// The commit that makes these the members.
    fn commit(&mut self, members: Vec<String>) -> Bytes {
        let from = self.epoch;
        self.enter(from + 1, members);
        format!("commit|{from}|{}", self.members.join(",")).into()
    }
}

impl ModelMls {
    fn group(&mut self) -> Result<&mut Group, MlsError> {
        let credential = self.credential.clone();
        let group = self.group.as_mut().ok_or(MlsError::NotJoined)?;
        if group.members.contains(&credential) { Ok(group) } else { Err(MlsError::NotJoined) }
    }
}

impl Mls for ModelMls {
    fn create(&mut self, _: Now) -> Result<(), MlsError> {
        self.group = Some(Group::new(0, vec![self.credential.clone()]));
        Ok(())
    }

    fn key_package(&mut self, _: Now) -> Result<Bytes, MlsError> {
        Ok(format!("package|{}|{}", self.credential, self.package).into())
    }

    fn add(&mut self, key_package: &[u8], _: Now) -> Result<Added, MlsError> {
        let [credential, package] = fields(key_package, "key package", "package")?;
        let group = self.group()?;
        if group.members.contains(&credential) {
            return Err(MlsError::Duplicate);
        }
        let mut members = group.members.clone();
        members.push(credential.clone());
        let commit = group.commit(members);
        let (epoch, members) = (group.epoch, group.members.join(","));
        let welcome = format!("welcome|{credential}|{package}|{epoch}|{members}").into();
        self.pending = None;
        Ok(Added { welcome, commit, credential: credential.into() })
    }

    fn remove(&mut self, credential: &[u8], _: Now) -> Result<Bytes, MlsError> {
        let credential = String::from_utf8_lossy(credential).into_owned();
        let group = self.group()?;
        let mut members = group.members.clone();
        let before = members.len();
        members.retain(|member| *member != credential);
        if members.len() == before {
            return Err(MlsError::NotMember);
        }
        let commit = group.commit(members);
        self.pending = None;
        Ok(commit)
    }

    fn commit(&mut self, _: Now) -> Result<Bytes, MlsError> {
        let group = self.group()?;
        let members = group.members.clone();
        let commit = group.commit(members);
        self.pending = None;
        Ok(commit)
    }

    fn join(&mut self, welcome: &[u8], _: Now) -> Result<(), MlsError> {
        let [credential, package, epoch, members] = fields(welcome, "welcome", "welcome")?;
        if credential != self.credential || number(&package) != self.package {
            return Err(wrong("welcome", "the last key package", package));
        }
        self.package += 1;
        self.group = Some(Group::new(number(&epoch), list(&members)));
        Ok(())
    }

    fn apply(&mut self, commit: &[u8], _: Now) -> Result<(), MlsError> {
        let [from, members] = fields(commit, "commit", "commit")?;
        let group = self.group()?;
        if number(&from) != group.epoch {
            return Err(wrong("epoch of the commit", "the present one", from));
        }
        group.enter(number(&from) + 1, list(&members));
        self.pending = None;
        Ok(())
    }

    fn propose(&mut self, _: Now) -> Result<Bytes, MlsError> {
        let credential = self.credential.clone();
        let epoch = self.group()?.epoch;
        self.pending = Some(credential.clone());
        Ok(format!("update|{epoch}|{credential}").into())
    }

    fn withdraw(&mut self) {
        self.pending = None;
    }

    fn store(&mut self, proposal: &[u8], _: Now) -> Result<(), MlsError> {
        let [epoch, credential] = fields(proposal, "proposal", "update")?;
        if number(&epoch) != self.group()?.epoch {
            return Err(wrong("epoch of the proposal", "the present one", epoch));
        }
        self.pending = Some(credential);
        Ok(())
    }

    fn encrypt(&mut self, plaintext: &[u8]) -> Result<Bytes, MlsError> {
        let credential = self.credential.clone();
        let pending = self.pending.is_some();
        let group = self.group()?;
        if pending {
            return Err(MlsError::ProposalPending);
        }
        group.generation += 1;
        let (epoch, generation) = (group.epoch, group.generation);
        let mut bytes = format!("secret|{epoch}|{credential}|{generation}|").into_bytes();
        bytes.extend_from_slice(plaintext);
        Ok(bytes.into())
    }

    fn decrypt(&mut self, ciphertext: &[u8]) -> Result<Opened, MlsError> {
        let end = ciphertext.iter().enumerate().filter(|(_, byte)| **byte == b'|').nth(3);
        let end = end.ok_or_else(|| wrong("message", "four fields", ""))?.0;
        let [epoch, sender, generation] = fields(&ciphertext[..end], "message", "secret")?;
        let own = self.credential.clone();
        let group = self.group()?;
        let (epoch, generation) = (number(&epoch), number(&generation));
        let members = group.past.get(&epoch);
        if !members.is_some_and(|members| members.contains(&sender) && members.contains(&own)) {
            return Err(wrong("epoch", "one that this member has seen", epoch));
        }
        let of_sender = (epoch, sender.clone(), 0)..=(epoch, sender.clone(), u64::MAX);
        let last = group.read.range(of_sender).next_back().map_or(0, |(_, _, last)| *last);
        if generation > last + SKIPPED || generation + SKIPPED < last {
            return Err(wrong("generation", "one near the last", generation));
        }
        if sender == own || !group.read.insert((epoch, sender.clone(), generation)) {
            return Err(wrong("generation", "one that was not read", generation));
        }
        let plaintext = Bytes::copy_from_slice(&ciphertext[end + 1..]);
        Ok(Opened { plaintext, credential: sender.into() })
    }

    fn is_member(&self) -> bool {
        self.group.as_ref().is_some_and(|group| group.members.contains(&self.credential))
    }

    fn epoch(&self) -> u64 {
        self.group.as_ref().map_or(0, |group| group.epoch)
    }

    fn members(&self) -> Vec<Bytes> {
        let members = self.group.iter().flat_map(|group| &group.members);
        members.map(|member| Bytes::from(member.clone())).collect()
    }

    fn principals(&self, _: Now) -> Vec<(Bytes, Principal)> {
        let members = self.group.iter().flat_map(|group| &group.members);
        let principal =
            |member: &String| Principal { subject: member.as_str().into(), issuer: None };
        members.map(|member| (Bytes::from(member.clone()), principal(member))).collect()
    }
}
