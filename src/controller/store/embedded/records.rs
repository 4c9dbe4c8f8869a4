//! Records as they stand in tables.

use std::collections::BTreeMap;

use redb::{
    Key, ReadTransaction, ReadableTable, Table, TableDefinition, TableHandle, WriteTransaction,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::Change;

type ByText<'a> = TableDefinition<'a, &'static str, &'static [u8]>;

pub(super) const NODES: ByText<'_> = TableDefinition::new("nodes");
/// By node and connection.
pub(super) const CONNECTIONS: TableDefinition<'_, (&str, &str), &[u8]> =
    TableDefinition::new("connections");
pub(super) const ROUTES: ByText<'_> = TableDefinition::new("routes");
pub(super) const CHANNELS: ByText<'_> = TableDefinition::new("channels");

/// The first byte of a record: what follows is JSON of the record types as they are now.
const FORM: u8 = 1;

/// Why something cannot be read or written, before it is said where.
#[derive(Debug)]
pub(super) enum Fail {
    Medium(redb::Error),
    Foreign { key: String, expected: &'static str, got: String },
}

impl<E: Into<redb::Error>> From<E> for Fail {
    fn from(error: E) -> Self {
        Self::Medium(error.into())
    }
}

/// All records of a table, by what `key_of` makes of each.
pub(super) fn read<K, T, M>(
    reading: &ReadTransaction,
    table: TableDefinition<'_, K, &'static [u8]>,
    key_of: impl Fn(&T) -> M,
) -> Result<BTreeMap<M, T>, Fail>
where
    K: Key + 'static,
    T: DeserializeOwned,
    M: Ord,
{
    let mut records = BTreeMap::new();
    for entry in reading.open_table(table)?.iter()? {
        let (key, bytes) = entry?;
        let record = decode(bytes.value()).map_err(|got| Fail::Foreign {
            key: format!("{} {:?}", table.name(), key.value()),
            expected: "a record of form 1",
            got,
        })?;
        records.insert(key_of(&record), record);
    }
    Ok(records)
}

fn encode(record: &impl Serialize) -> Vec<u8> {
    let mut bytes = vec![FORM];
    serde_json::to_writer(&mut bytes, record).expect("records are texts, numbers and lists");
    bytes
}

/// The record, or what the bytes are instead.
fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    match bytes {
        [FORM, json @ ..] => serde_json::from_slice(json).map_err(|error| error.to_string()),
        [form, ..] => Err(format!("form {form}")),
        [] => Err("nothing".into()),
    }
}

/// The tables of a transaction that writes.
pub(super) struct Writer<'a> {
    nodes: Table<'a, &'static str, &'static [u8]>,
    connections: Table<'a, (&'static str, &'static str), &'static [u8]>,
    routes: Table<'a, &'static str, &'static [u8]>,
    channels: Table<'a, &'static str, &'static [u8]>,
}

impl<'a> Writer<'a> {
    /// Opens the tables, and makes those that are absent.
    pub(super) fn open(writing: &'a WriteTransaction) -> Result<Self, Fail> {
        Ok(Self {
            nodes: writing.open_table(NODES)?,
            connections: writing.open_table(CONNECTIONS)?,
            routes: writing.open_table(ROUTES)?,
            channels: writing.open_table(CHANNELS)?,
        })
    }

    pub(super) fn apply(&mut self, change: &Change) -> Result<(), Fail> {
        match change {
            Change::PutNode(node) => {
                self.nodes.insert(node.id.as_str(), &encode(node)[..])?;
            }
            Change::DeleteNode(id) => {
                self.nodes.remove(id.as_str())?;
            }
            Change::PutConnection(connection) => {
                let key = (connection.node.as_str(), connection.id.as_str());
                self.connections.insert(key, &encode(connection)[..])?;
            }
            Change::DeleteConnection(node, id) => {
                self.connections.remove((node.as_str(), id.as_str()))?;
            }
            Change::PutRoute(route) => {
                self.routes.insert(route.id.as_str(), &encode(route)[..])?;
            }
            Change::DeleteRoute(id) => {
                self.routes.remove(id.as_str())?;
            }
            Change::PutChannel(channel) => {
                self.channels.insert(channel.name.as_str(), &encode(channel)[..])?;
            }
            Change::DeleteChannel(name) => {
                self.channels.remove(name.as_str())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::store::ChannelRecord;

    #[test]
    fn a_channel_that_an_earlier_release_wrote_is_known_to_be_there() {
        let old = br#"{"name":"o/n/c","moderators":["o/n/m/1"],"participants":["o/n/p"]}"#;
        let record: ChannelRecord = decode(&[&[FORM], &old[..]].concat()).expect("it is read");
        let expected = ChannelRecord {
            name: "o/n/c".into(),
            moderators: vec!["o/n/m/1".into()],
            participants: vec!["o/n/p".into()],
            pending: false,
            invited: Vec::new(),
        };
        assert_eq!(record, expected);
    }
}
