//! What a member of an encrypted group needs to go on after its process has ended, beside the
//! group's keys.

use std::time::Duration;

use rkyv::rancor::Failure;
use rkyv::{Archive, Deserialize, Serialize};
use slim_wire::session::{FullName, RosterMember};
use slim_wire::{Name, TextName};

use super::config::{Config, Kind, Reliability};
use super::error::SessionError;

/// A session as it is stored.
#[derive(Debug, Archive, Serialize, Deserialize)]
pub(super) struct Saved {
    /// Of this form.
    version: u32,
    /// The app's name, with its id.
    pub(super) app: TextName,
    pub(super) id: u32,
    pub(super) local: TextName,
    channel: FullName,
    /// Milliseconds and tries.
    reliability: Option<(u64, Option<u32>)>,
    metadata: Vec<(String, String)>,
    /// No message was published under this number or a higher one.
    pub(super) next: u32,
    pub(super) role: Role,
}

/// The side that it is on.
#[derive(Debug, Archive, Serialize, Deserialize)]
pub(super) enum Role {
    Moderator {
        members: Vec<SavedMember>,
        sequence: u32,
        roster: u32,
    },
    Participant {
        moderator: Name,
        native: bool,
        request: u32,
        last: u32,
        members: Vec<RosterMember>,
    },
}

#[derive(Debug, Archive, Serialize, Deserialize)]
pub(super) struct SavedMember {
    pub(super) member: RosterMember,
    /// By which MLS knows it.
    pub(super) credential: Vec<u8>,
}

const VERSION: u32 = 1;

impl Saved {
    /// `None` if the session is none that is stored: only encrypted groups are.
    pub(super) fn new(
        app: &TextName,
        (id, local): (u32, &TextName),
        config: &Config,
        next: u32,
        role: Role,
    ) -> Option<Self> {
        let Kind::Group { channel } = &config.kind else { return None };
        if !config.mls {
            return None;
        }
        let reliability = config
            .reliability
            .map(|reliability| (reliability.timeout.as_millis() as u64, reliability.max_retries));
        Some(Self {
            version: VERSION,
            app: app.clone(),
            id,
            local: local.clone(),
            channel: channel.clone(),
            reliability,
            metadata: config.metadata.clone(),
            next,
            role,
        })
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>, SessionError> {
        let bytes = rkyv::to_bytes::<Failure>(self).map_err(|_| unusable("more than fits"))?;
        Ok(bytes.into_vec())
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, SessionError> {
        let saved = rkyv::from_bytes::<Self, Failure>(bytes);
        let saved = saved.map_err(|_| unusable("something else, or a part of it"))?;
        match saved.version {
            VERSION => Ok(saved),
            other => Err(unusable(&format!("version {other}"))),
        }
    }

    pub(super) fn config(&self) -> Config {
        Config {
            kind: Kind::Group { channel: self.channel.clone() },
            reliability: self.reliability.map(|(timeout, max_retries)| Reliability {
                timeout: Duration::from_millis(timeout),
                max_retries,
            }),
            mls: true,
            metadata: self.metadata.clone(),
        }
    }
}

fn unusable(got: &str) -> SessionError {
    let expected = "a session that this release has stored";
    SessionError::Argument { field: "stored session", expected, got: got.to_owned() }
}
