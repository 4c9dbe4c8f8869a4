//! What release 0.6 says with a message type, metadata keys and bincode, as typed content.

use std::borrow::Cow;
use std::mem::take;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use slim_wire::DecodeError;
use slim_wire::limits::ROSTER_MEMBERS;
use slim_wire::session::{
    ArchivedContent, ArchivedDelivery, ArchivedFullName, ArchivedRosterMember, ArchivedSession,
    Content, Delivery, FullName, RosterMember,
};

use super::TranscodeError;
use super::bincode::{
    read_bool, read_integer, read_name, read_only_name, read_text, write_integer, write_name,
};
use crate::proto::d6::SessionMessageType as MessageType;

/// The sender's token; on every message.
pub(super) const IDENTITY: &str = "SLIM_IDENTITY";

const MLS_ENABLED: &str = "MLS_ENABLED";
const MLS_INIT_COMMIT_ID: &str = "MLS_INIT_COMMIT_ID";
const MLS_ENCRYPTED: &str = "MLS_ENCRYPTED";
const IS_MODERATOR: &str = "IS_MODERATOR";
const PARTICIPANT_NAME: &str = "PARTICIPANT_NAME";
const DELETE_GROUP: &str = "DELETE_GROUP";

const TRUE: &str = "true";
const BUSY: &[u8] = b"busy";
const POINT_TO_POINT_DISCOVERY: &str = "p2p_session_discovery";

/// The message type of a roster, which only native apps send, and only to each other: far from
/// those that published releases use.
const ROSTER: u32 = 100;

/// The most keys that any content types, beside the identity.
pub(super) const TYPED_KEYS: usize = 2;

/// The metadata keys that are part of a message's content, by its type.
fn typed_keys(message_type: MessageType) -> &'static [&'static str] {
    use MessageType::*;
    match message_type {
        P2pMsg | P2pReliable | P2pAck | MulticastMsg | RtxRequest | RtxReply | BeaconMulticast => {
            &[MLS_ENCRYPTED]
        }
        ChannelDiscoveryRequest => &[PARTICIPANT_NAME],
        ChannelJoinRequest => &[MLS_ENABLED, IS_MODERATOR],
        ChannelLeaveRequest => &[PARTICIPANT_NAME, DELETE_GROUP],
        ChannelMlsWelcome => &[MLS_INIT_COMMIT_ID],
        _ => &[],
    }
}

/// What a message of release 0.6 is; `metadata` without the identity.
#[derive(Debug)]
pub(super) struct Read<'a> {
    pub(super) content: Content,
    pub(super) encrypted: bool,
    pub(super) content_type: &'a str,
    pub(super) payload: &'a [u8],
    pub(super) metadata: Vec<(&'a str, &'a str)>,
}

pub(super) fn read<'a>(
    message_type: u32,
    content_type: &'a str,
    blob: &'a [u8],
    metadata: Vec<(&'a str, &'a str)>,
) -> Read<'a> {
    if message_type == ROSTER
        && let Some(content) = read_roster(blob)
    {
        return Read { content, encrypted: false, content_type, payload: &[], metadata };
    }
    let known = MessageType::try_from(message_type as i32).ok();
    let typed = known.and_then(|known| read_typed(known, content_type, blob, &metadata));
    let Some((known, mut typed)) = known.zip(typed) else {
        let content = Content::Foreign { message_type };
        return Read { content, encrypted: false, content_type, payload: blob, metadata };
    };
    typed.metadata = metadata;
    typed.metadata.retain(|(key, _)| !typed_keys(known).contains(key));
    typed
}

/// `None` if writing the content back would not give the same.
fn read_typed<'a>(
    message_type: MessageType,
    mut content_type: &'a str,
    blob: &'a [u8],
    metadata: &[(&str, &str)],
) -> Option<Read<'a>> {
    use MessageType::*;
    let keys = Keys(metadata);
    let mut payload = blob;
    let content = match message_type {
        P2pMsg => Content::Data(Delivery::Unreliable),
        P2pReliable => Content::Data(Delivery::Reliable),
        MulticastMsg => Content::Data(Delivery::Group),
        P2pAck => Content::Ack,
        RtxRequest => Content::RetransmissionRequest,
        RtxReply => Content::RetransmissionReply,
        BeaconMulticast => Content::Beacon,
        ChannelDiscoveryRequest => {
            let requester = read_requester(take(&mut payload), content_type)?;
            if requester.is_some() && content_type == POINT_TO_POINT_DISCOVERY {
                content_type = "";
            }
            Content::DiscoveryRequest { requester, participant: keys.participant()? }
        }
        ChannelDiscoveryReply => Content::DiscoveryReply,
        ChannelJoinRequest => read_join(take(&mut payload), &keys)?,
        ChannelJoinReply => Content::JoinReply,
        ChannelLeaveRequest => Content::LeaveRequest {
            participant: keys.participant()?,
            delete_group: keys.mark(DELETE_GROUP)?,
        },
        ChannelLeaveReply => Content::LeaveReply,
        ChannelMlsCommit => Content::Commit,
        ChannelMlsWelcome => Content::Welcome { commit: keys.number(MLS_INIT_COMMIT_ID)? },
        ChannelMlsProposal => {
            let originator = Box::new(read_name(&mut payload)?);
            let length = read_integer(&mut payload)?;
            (length == payload.len() as u64).then_some(Content::Proposal { originator })?
        }
        ChannelMlsAck => match take(&mut payload) {
            [] => Content::ControlAck { busy: false },
            BUSY => Content::ControlAck { busy: true },
            _ => return None,
        },
        Unspecified => return None,
    };
    let encrypted =
        typed_keys(message_type).contains(&MLS_ENCRYPTED) && keys.mark(MLS_ENCRYPTED)?;
    Some(Read { content, encrypted, content_type, payload, metadata: Vec::new() })
}

/// Moderators of groups do not say who they are; nor what the content is.
fn read_requester(blob: &[u8], content_type: &str) -> Option<Option<Box<FullName>>> {
    match blob {
        [] => Some(None),
        _ if content_type.is_empty() => None,
        name => read_only_name(name).map(|name| Some(Box::new(name))),
    }
}

fn read_join(mut blob: &[u8], keys: &Keys<'_>) -> Option<Content> {
    Some(Content::JoinRequest {
        channel: Box::new(read_name(&mut blob)?),
        moderator: Box::new(read_only_name(blob)?),
        mls: keys.mark(MLS_ENABLED)?,
        as_moderator: keys.mark(IS_MODERATOR)?,
    })
}

/// The members in number and one by one, each with whether it is native.
fn read_roster(mut blob: &[u8]) -> Option<Content> {
    let count = read_integer(&mut blob).filter(|count| *count <= ROSTER_MEMBERS as u64)?;
    let mut member = || {
        let (name, native) = (read_name(&mut blob)?, read_bool(&mut blob)?);
        Some(RosterMember { name, native, identity: read_text(&mut blob)?.into() })
    };
    let members = (0..count).map(|_| member()).collect::<Option<_>>()?;
    blob.is_empty().then_some(Content::Roster { members })
}

/// Metadata, of which only values in the form that published clients write count.
struct Keys<'a>(&'a [(&'a str, &'a str)]);

impl Keys<'_> {
    fn value(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| *other == key).map(|(_, value)| *value)
    }

    fn mark(&self, key: &str) -> Option<bool> {
        match self.value(key) {
            None => Some(false),
            Some(value) => (value == TRUE).then_some(true),
        }
    }

    fn number(&self, key: &str) -> Option<u32> {
        let text = self.value(key)?;
        text.parse::<u32>().ok().filter(|number| number.to_string() == text)
    }

    fn participant(&self) -> Option<Option<Box<FullName>>> {
        match self.value(PARTICIPANT_NAME) {
            None => Some(None),
            Some(text) => {
                let name = STANDARD.decode(text).ok()?;
                read_only_name(&name).map(|name| Some(Box::new(name)))
            }
        }
    }
}

/// What release 0.6 says instead of the content of a session part.
#[derive(Debug)]
pub(super) struct Written<'a> {
    pub(super) message_type: u32,
    pub(super) content_type: &'a str,
    /// What stands before the payload in the blob.
    pub(super) blob_start: Vec<u8>,
    /// Metadata without the app's.
    pub(super) metadata: Vec<(&'static str, Cow<'a, str>)>,
}

pub(super) fn write<'a>(
    session: &'a ArchivedSession,
    payload: &[u8],
) -> Result<Written<'a>, TranscodeError> {
    let mut written = Written {
        message_type: 0,
        content_type: &session.content_type,
        blob_start: Vec::new(),
        metadata: Vec::new(),
    };
    let keys = written.put_content(&session.content, payload)?;
    if let Some(identity) = session.identity() {
        written.metadata.push((IDENTITY, identity.into()));
    }
    if session.encrypted {
        written.mark(MLS_ENCRYPTED, true);
    }
    for (key, _) in session.metadata() {
        if let Some(key) = [IDENTITY].iter().chain(keys).find(|typed| **typed == key) {
            return Err(TranscodeError::ReservedKey { key });
        }
    }
    Ok(written)
}

impl Written<'_> {
    /// Bytes that go into the published content, beside the payload.
    pub(super) fn length(&self) -> usize {
        self.content_type.len() + self.blob_start.len()
    }

    fn mark(&mut self, key: &'static str, is_set: bool) {
        if is_set {
            self.metadata.push((key, TRUE.into()));
        }
    }

    fn put_participant(&mut self, name: &ArchivedFullName) -> Result<(), TranscodeError> {
        let mut bytes = Vec::new();
        write_name(name, "participant", &mut bytes)?;
        self.metadata.push((PARTICIPANT_NAME, STANDARD.encode(bytes).into()));
        Ok(())
    }

    fn put_roster(&mut self, members: &[ArchivedRosterMember]) -> Result<(), TranscodeError> {
        self.message_type = ROSTER;
        write_integer(members.len() as u64, &mut self.blob_start);
        for member in members {
            write_name(&member.name, "member", &mut self.blob_start)?;
            self.blob_start.push(member.native.into());
            write_integer(member.identity.len() as u64, &mut self.blob_start);
            self.blob_start.extend_from_slice(member.identity.as_bytes());
        }
        Ok(())
    }

    /// Returns the metadata keys that are part of the content.
    fn put_content(
        &mut self,
        content: &ArchivedContent,
        payload: &[u8],
    ) -> Result<&'static [&'static str], TranscodeError> {
        use MessageType::*;
        if let ArchivedContent::Foreign { message_type } = content {
            self.message_type = message_type.to_native();
            return Ok(&[]);
        }
        if let ArchivedContent::Roster { members } = content {
            expect_no_payload(payload)?;
            self.put_roster(members)?;
            return Ok(&[]);
        }
        let message_type = message_type(content);
        self.message_type = message_type as u32;
        if matches!(message_type, ChannelDiscoveryRequest | ChannelJoinRequest | ChannelMlsAck) {
            expect_no_payload(payload)?;
        }
        match content {
            ArchivedContent::DiscoveryRequest { requester, participant } => {
                if let Some(requester) = requester.as_ref() {
                    write_name(requester, "requester", &mut self.blob_start)?;
                    if self.content_type.is_empty() {
                        self.content_type = POINT_TO_POINT_DISCOVERY;
                    }
                }
                participant.as_ref().map_or(Ok(()), |name| self.put_participant(name))?;
            }
            ArchivedContent::JoinRequest { channel, moderator, mls, as_moderator } => {
                write_name(channel, "channel", &mut self.blob_start)?;
                write_name(moderator, "moderator", &mut self.blob_start)?;
                self.mark(MLS_ENABLED, *mls);
                self.mark(IS_MODERATOR, *as_moderator);
            }
            ArchivedContent::LeaveRequest { participant, delete_group } => {
                participant.as_ref().map_or(Ok(()), |name| self.put_participant(name))?;
                self.mark(DELETE_GROUP, *delete_group);
            }
            ArchivedContent::Welcome { commit } => {
                self.metadata.push((MLS_INIT_COMMIT_ID, commit.to_string().into()));
            }
            ArchivedContent::Proposal { originator } => {
                write_name(originator, "originator", &mut self.blob_start)?;
                write_integer(payload.len() as u64, &mut self.blob_start);
            }
            ArchivedContent::ControlAck { busy: true } => self.blob_start.extend_from_slice(BUSY),
            _ => {}
        }
        Ok(typed_keys(message_type))
    }
}

fn expect_no_payload(payload: &[u8]) -> Result<(), DecodeError> {
    if payload.is_empty() {
        return Ok(());
    }
    let (field, expected) = ("payload length", "0 with this content");
    Err(DecodeError::Unexpected { field, expected, got: payload.len() as u64 })
}

fn message_type(content: &ArchivedContent) -> MessageType {
    use MessageType::*;
    match content {
        ArchivedContent::Data(ArchivedDelivery::Unreliable) => P2pMsg,
        ArchivedContent::Data(ArchivedDelivery::Reliable) => P2pReliable,
        ArchivedContent::Data(ArchivedDelivery::Group) => MulticastMsg,
        ArchivedContent::Ack => P2pAck,
        ArchivedContent::RetransmissionRequest => RtxRequest,
        ArchivedContent::RetransmissionReply => RtxReply,
        ArchivedContent::Beacon => BeaconMulticast,
        ArchivedContent::DiscoveryRequest { .. } => ChannelDiscoveryRequest,
        ArchivedContent::DiscoveryReply => ChannelDiscoveryReply,
        ArchivedContent::JoinRequest { .. } => ChannelJoinRequest,
        ArchivedContent::JoinReply => ChannelJoinReply,
        ArchivedContent::LeaveRequest { .. } => ChannelLeaveRequest,
        ArchivedContent::LeaveReply => ChannelLeaveReply,
        ArchivedContent::Welcome { .. } => ChannelMlsWelcome,
        ArchivedContent::Commit => ChannelMlsCommit,
        ArchivedContent::Proposal { .. } => ChannelMlsProposal,
        ArchivedContent::ControlAck { .. } => ChannelMlsAck,
        ArchivedContent::Foreign { .. } | ArchivedContent::Roster { .. } => Unspecified,
    }
}
