use std::collections::BTreeMap;

use crate::tree::Kind;
use crate::value::Value;

/// A free map of a client or server block, or of a token's own claims. The released control
/// planes read `group_name`, `local_endpoint` and `external_endpoint` of a server.
pub type Metadata = BTreeMap<String, MetadataValue>;

/// A value of a free map.
#[derive(Clone, Debug, PartialEq)]
pub enum MetadataValue {
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<MetadataValue>),
    /// A nested map.
    Map(Metadata),
}

/// A free map.
pub(crate) fn read(value: Value<'_>) -> Option<Metadata> {
    let pairs = value.pairs()?.into_iter();
    Some(pairs.filter_map(|(entry, value)| Some((entry.key.clone(), read_value(value)?))).collect())
}

fn read_value(value: Value<'_>) -> Option<MetadataValue> {
    match &value.node.kind {
        Kind::Null => value.expected("a text, number, boolean, list or mapping"),
        Kind::Boolean(boolean) => Some(MetadataValue::Boolean(*boolean)),
        Kind::Number(number) => match (number.parse(), number.parse()) {
            (Ok(integer), _) => Some(MetadataValue::Integer(integer)),
            (_, Ok(float)) if f64::is_finite(float) => Some(MetadataValue::Float(float)),
            _ => value.expected("a finite number"),
        },
        Kind::Text(text) => Some(MetadataValue::Text(text.text.clone())),
        Kind::List(_) => value.each(read_value).map(MetadataValue::List),
        Kind::Mapping(_) => read(value).map(MetadataValue::Map),
    }
}
