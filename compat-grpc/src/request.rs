//! Subscriptions that this node makes at nodes of published releases.

use bytes::Bytes;
use prost::Message as _;
use slim_wire::{Header, TextName};

use crate::mac::LinkKey;
use crate::proto::{d6, d20};

/// What is asked of the other node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscription {
    /// To send here what is for the name.
    Made,
    /// To do so no more.
    TakenBack,
}

/// A subscription in D6; `None` if the name's id is too wide for it.
pub fn d6_subscription(change: Subscription, name: &TextName) -> Option<Bytes> {
    let numbers = name.to_name();
    let [component_0, component_1, component_2] = numbers.prefix.0;
    let id = numbers.id.to_u64()?;
    let numbers = d6::Name { component_0, component_1, component_2, component_3: id };
    let header = Some(d6::Header {
        source: Some(numbers),
        destination: Some(numbers),
        fanout: 1,
        ..Default::default()
    });
    let [component_0, component_1, component_2] = name.components().map(str::to_owned);
    let message = match change {
        Subscription::Made => d6::message::Type::Subscribe(d6::Subscribe {
            header,
            component_0,
            component_1,
            component_2,
        }),
        Subscription::TakenBack => d6::message::Type::Unsubscribe(d6::Unsubscribe {
            header,
            component_0,
            component_1,
            component_2,
        }),
    };
    let message = d6::Message { r#type: Some(message), ..Default::default() };
    Some(message.encode_to_vec().into())
}

/// A subscription in D20, to be acknowledged under `number`; with an authentication code if the
/// link has a key.
pub fn d20_subscription(
    change: Subscription,
    name: &TextName,
    number: u64,
    key: Option<&LinkKey>,
) -> Bytes {
    let mut header = d20::Header {
        source: Some(d20_name(name)),
        destination: Some(d20_name(name)),
        fanout: 1,
        ttl: Header::DEFAULT_TTL.into(),
        ..Default::default()
    };
    header.header_mac = key.map(|key| {
        let code = key.code(&header.encode_to_vec()).expect("a header just made can be read");
        Bytes::copy_from_slice(&code)
    });
    let (header, subscription_id) = (Some(header), number);
    let message = match change {
        Subscription::Made => {
            d20::message::Type::Subscribe(d20::Subscribe { header, subscription_id })
        }
        Subscription::TakenBack => {
            d20::message::Type::Unsubscribe(d20::Unsubscribe { header, subscription_id })
        }
    };
    d20::Message { r#type: Some(message), ..Default::default() }.encode_to_vec().into()
}

fn d20_name(name: &TextName) -> d20::Name {
    let numbers = name.to_name();
    let [component_0, component_1, component_2] = numbers.prefix.0;
    let id = numbers.id.as_u128();
    let name_id = Some(d20::NameId { id_0: (id >> 64) as u64, id_1: id as u64 });
    let encoded = d20::EncodedName { component_0, component_1, component_2, name_id };
    let [component_0, component_1, component_2] = name.components().map(str::to_owned);
    let texts = d20::StringName { component_0, component_1, component_2 };
    d20::Name { name: Some(encoded), str_name: Some(texts) }
}
