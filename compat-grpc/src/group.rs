//! What a node sends to an app of release 0.6 to have it moderate a group (reference: the session
//! layer of 0.6 takes these requests from the app controller/controller/controller).

use std::collections::HashMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use prost::Message as _;
use slim_wire::{Id, TextName};
use xxhash_rust::xxh64::xxh64;

use crate::proto::d6;
use crate::transcode::bincode::write_parts;

/// What is asked of a moderator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupRequest<'a> {
    /// To begin the group.
    Create,
    /// To invite an app, by its name of three parts.
    Add(&'a TextName),
    /// To remove an app, by its name of three parts.
    Remove(&'a TextName),
    /// To end the group.
    Delete,
}

/// Who sends such requests, in a node: an app of its own with the instance 0.
pub const CONTROLLER: [&str; 3] = ["controller"; 3];

/// Session ids from here on are refused by apps of 0.6.
const RESERVED_IDS: u32 = 4_294_966_295;

/// The id of the session that `moderator` leads in `channel`, so that nobody has to keep it. `None`
/// if apps would refuse it: then the channel needs another name.
pub fn session_id(moderator: &TextName, channel: &TextName) -> Option<u32> {
    let mut bytes = [0; 72];
    let (count, names) = bytes.split_at_mut(8);
    count.copy_from_slice(&8_u64.to_le_bytes());
    let parts = [moderator, channel].map(|name| {
        let [a, b, c] = name.to_name().prefix.0;
        [a, b, c, name.id().to_u64().unwrap_or(u64::MAX)]
    });
    for (to, part) in names.chunks_exact_mut(8).zip(parts.as_flattened()) {
        to.copy_from_slice(&part.to_le_bytes());
    }
    let hash = xxh64(&bytes, 0);
    let id = u32::try_from((hash ^ (hash >> 32)) & u64::from(u32::MAX)).expect("32 bits");
    (id < RESERVED_IDS).then_some(id)
}

/// A request as a message of 0.6 to `moderator`, which has an instance; `None` if apps would
/// refuse the session's id. `message_id` is random, and `metadata` holds the token that the
/// moderator checks.
pub fn group_request(
    request: GroupRequest<'_>,
    moderator: &TextName,
    channel: &TextName,
    message_id: u32,
    metadata: HashMap<String, String>,
) -> Option<Bytes> {
    use d6::SessionMessageType as Type;
    let session_id = session_id(moderator, channel)?;
    let controller = TextName::new(CONTROLLER, Id::from_u64(0)).expect("short texts");
    let mut metadata = metadata;
    let mut add = |key: &str, value: &str| _ = metadata.insert(key.to_owned(), value.to_owned());
    let (message_type, destination, blob) = match request {
        GroupRequest::Create => {
            add("IS_MODERATOR", "true");
            add("MLS_ENABLED", "true");
            let names = [channel, moderator].map(encoded);
            (Type::ChannelJoinRequest, channel, names.concat())
        }
        GroupRequest::Add(participant) => {
            add("PARTICIPANT_NAME", &BASE64_STANDARD.encode(encoded(participant)));
            (Type::ChannelDiscoveryRequest, moderator, Vec::new())
        }
        GroupRequest::Remove(participant) => {
            add("PARTICIPANT_NAME", &BASE64_STANDARD.encode(encoded(participant)));
            (Type::ChannelLeaveRequest, moderator, Vec::new())
        }
        GroupRequest::Delete => {
            add("DELETE_GROUP", "true");
            (Type::ChannelLeaveRequest, moderator, Vec::new())
        }
    };
    let [component_0, component_1, component_2] = destination.components().map(str::to_owned);
    let publish = d6::Publish {
        header: Some(d6::Header {
            source: Some(numbers(&controller)),
            destination: Some(numbers(moderator)),
            fanout: 1,
            incoming_conn: Some(0),
            ..Default::default()
        }),
        session: Some(d6::SessionHeader {
            session_type: d6::SessionType::Multicast.into(),
            session_message_type: message_type.into(),
            session_id,
            message_id,
            source: None,
            destination: Some(d6::OriginalName {
                component_0,
                component_1,
                component_2,
                component_3: destination.id().to_u64().unwrap_or(u64::MAX),
            }),
        }),
        msg: Some(d6::Content { content_type: String::new(), blob: blob.into() }),
    };
    let message = d6::Message { r#type: Some(d6::message::Type::Publish(publish)), metadata };
    Some(message.encode_to_vec().into())
}

fn numbers(name: &TextName) -> d6::Name {
    let [component_0, component_1, component_2] = name.to_name().prefix.0;
    let component_3 = name.id().to_u64().unwrap_or(u64::MAX);
    d6::Name { component_0, component_1, component_2, component_3 }
}

/// A name as apps of 0.6 carry it.
fn encoded(name: &TextName) -> Vec<u8> {
    let (mut out, id) = (Vec::new(), name.id().to_u64().unwrap_or(u64::MAX));
    write_parts(name.to_name().prefix, id, Some(name.components()), &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> TextName {
        text.parse().expect("a name")
    }

    const CHANNEL: &str = "agntcy/ns/mTTe9bQHv1EhnPemtz";
    const MODERATOR: &str = "agntcy/ns/client-9/123";

    /// What a node of 0.6 sent (reference: controller, 3.3).
    const CREATE: &str = "1a81020a4a0a2108d69de1d7d6b8efa5f80110d69de1d7d6b8efa5f80118d69de1d7d6b8efa5f801122108c2d7f58beb85aace1610d1a1a6e3a4d3dd\
fcee0118dad898cdef91dfec4c207b18013000123d0802100a18acadacd10420a38da3e706322b0a0661676e74637912026e731a126d545465396251\
48763145686e50656d747a20ffffffffffffffffff011a741272fdc26b7db12ea89c16fdd190694c9a76f9eefd487fba95bbe8cb52fdffffffffffff\
ffff010661676e746379026e73126d54546539625148763145686e50656d747afdc26b7db12ea89c16fdd190694c9a76f9eefd5a2ca6f98e7cd94c7b\
010661676e746379026e7308636c69656e742d3922250a0d534c494d5f4944454e5449545912147365637265743a636f6e74726f6c2d706c616e6522\
130a0b4d4c535f454e41424c454412047472756522140a0c49535f4d4f44455241544f52120474727565";
    const ADD: &str = "1a7a0a4a0a2108d69de1d7d6b8efa5f80110d69de1d7d6b8efa5f80118d69de1d7d6b8efa5f801122108c2d7f58beb85aace1610d1a1a6e3a4d3ddfc\
ee0118dad898cdef91dfec4c207b18013000122a0802100818acadacd10420f99cead30e32180a0661676e74637912026e731a08636c69656e742d39\
207b1a0022600a105041525449434950414e545f4e414d45124c2f634a7266624575714a77572f6447516155796164766e752f61686e456f39346f79\
47312f662f2f2f2f2f2f2f2f2f2f41515a685a32353059336b43626e4d49593278705a5735304c54493d22250a0d534c494d5f4944454e5449545912\
147365637265743a636f6e74726f6c2d706c616e65";
    const DELETE: &str = "1a7a0a4a0a2108d69de1d7d6b8efa5f80110d69de1d7d6b8efa5f80118d69de1d7d6b8efa5f801122108c2d7f58beb85aace1610d1a1a6e3a4d3ddfc\
ee0118dad898cdef91dfec4c207b18013000122a0802100c18acadacd104208a8ca7a60b32180a0661676e74637912026e731a08636c69656e742d39\
207b1a0022140a0c44454c4554455f47524f555012047472756522250a0d534c494d5f4944454e5449545912147365637265743a636f6e74726f6c2d\
706c616e65";

    fn decoded(hex: &str) -> d6::Message {
        let bytes: Vec<u8> = (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal"))
            .collect();
        d6::Message::decode(&bytes[..]).expect("a message")
    }

    fn message_id(message: &d6::Message) -> u32 {
        match &message.r#type {
            Some(d6::message::Type::Publish(publish)) => {
                publish.session.as_ref().expect("a session").message_id
            }
            _ => panic!("a publish"),
        }
    }

    /// Metadata is a map: its order is free, all else is the same byte by byte.
    fn assert_is(request: GroupRequest<'_>, captured: &str) {
        let captured = decoded(captured);
        let identity = ("SLIM_IDENTITY".to_owned(), "secret:control-plane".to_owned());
        let id = message_id(&captured);
        let made =
            group_request(request, &name(MODERATOR), &name(CHANNEL), id, HashMap::from([identity]));
        let made = made.expect("a session id that apps take");
        assert_eq!(made.len(), captured.encoded_len());
        assert_eq!(d6::Message::decode(made).expect("a message"), captured);
    }

    #[test]
    fn requests_are_those_of_a_node_of_0_6() {
        let participant = name("agntcy/ns/client-2");
        assert_is(GroupRequest::Create, CREATE);
        assert_is(GroupRequest::Add(&participant), ADD);
        assert_is(GroupRequest::Delete, DELETE);
        let removed = ADD.replacen("122a08021008", "122a0802100c", 1);
        assert_is(GroupRequest::Remove(&participant), &removed);
    }

    #[test]
    fn session_ids_are_those_of_a_node_of_0_6() {
        for (moderator, channel, id) in [
            ("agntcy/ns/client-1/634978703020046644", "agntcy/ns/wwarEi9cV6oGeZOwy6", 274_544_745),
            (MODERATOR, CHANNEL, 1_244_337_836),
        ] {
            assert_eq!(session_id(&name(moderator), &name(channel)), Some(id));
        }
    }
}
