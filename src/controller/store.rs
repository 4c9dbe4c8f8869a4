//! What operators want, as it is kept.

pub mod conformance;
mod embedded;
mod memory;

use std::collections::BTreeMap;
use std::io::{Error as IoError, ErrorKind};

use serde::{Deserialize, Serialize};
use slim_wire::Fault;
use thiserror::Error;

pub use self::embedded::EmbeddedStore;
pub use self::memory::MemoryStore;

/// Keeps the desired state. A clustered store can stand in for the embedded one.
///
/// A controller reads everything once, when it starts, and from then on only writes.
pub trait Store: Send + Sync {
    /// Everything that was committed.
    ///
    /// # Errors
    /// [`StoreError`].
    fn load(&self) -> Result<State, StoreError>;

    /// Makes all of the changes in their order, or none. When it returns they outlast a crash of
    /// the process and of the machine.
    ///
    /// # Errors
    /// [`StoreError`]; then none of the changes is seen by this process. A medium that failed while
    /// they were made durable may still have all of them when the store is opened again.
    fn commit(&self, changes: &[Change]) -> Result<(), StoreError>;
}

/// Why a store cannot do what it was asked for.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Another process, or another store of this one, has it open.
    #[error("store {place}: expected to be the only one that uses it, got another")]
    InUse {
        /// Where it keeps its data.
        place: String,
    },
    /// The medium failed. A store whose commit failed so fails until it is opened again.
    #[error("store {place}: {source}")]
    Medium {
        /// Where it keeps its data.
        place: String,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What it holds was not written by this program, or by a later one, or it is damaged.
    #[error("store {place}: {key}: expected {expected}, got {got}")]
    Foreign {
        /// Where it keeps its data.
        place: String,
        /// Of which record.
        key: String,
        /// What this program writes.
        expected: &'static str,
        /// What is there.
        got: String,
    },
}

impl StoreError {
    /// Who has to act.
    pub fn fault(&self) -> Fault {
        match self {
            Self::InUse { .. } | Self::Foreign { .. } => Fault::Config,
            Self::Medium { .. } => match self.io_kind() {
                Some(_) => Fault::Config,
                None => Fault::Internal,
            },
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::InUse { .. } => {
                "stop the other controller, or name another file with `database.filePath`"
            }
            Self::Foreign { .. } => {
                "name another file with `database.filePath`, or move this one away to begin with \
                 nothing"
            }
            Self::Medium { .. } => match self.io_kind() {
                Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                    "make room there, and start again"
                }
                Some(
                    ErrorKind::PermissionDenied
                    | ErrorKind::ReadOnlyFilesystem
                    | ErrorKind::NotADirectory
                    | ErrorKind::IsADirectory
                    | ErrorKind::NotFound,
                ) => {
                    "name a file that this user can write with `database.filePath`, or keep \
                     nothing with `database: { type: in_memory }`"
                }
                _ => "check the medium, and start again",
            },
        }
    }

    fn io_kind(&self) -> Option<ErrorKind> {
        match self {
            Self::Medium { source, .. } => source.downcast_ref::<IoError>().map(IoError::kind),
            Self::InUse { .. } | Self::Foreign { .. } => None,
        }
    }
}

/// Everything that a controller keeps, by its keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// By [`NodeRecord::id`].
    pub nodes: BTreeMap<String, NodeRecord>,
    /// By node and connection id.
    pub connections: BTreeMap<(String, String), ConnectionRecord>,
    /// By [`RouteRecord::id`].
    pub routes: BTreeMap<String, RouteRecord>,
    /// By [`ChannelRecord::name`].
    pub channels: BTreeMap<String, ChannelRecord>,
}

impl State {
    /// Makes a change.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::PutNode(node) => {
                self.nodes.insert(node.id.clone(), node.clone());
            }
            Change::DeleteNode(id) => {
                self.nodes.remove(id);
            }
            Change::PutConnection(connection) => {
                let key = (connection.node.clone(), connection.id.clone());
                self.connections.insert(key, connection.clone());
            }
            Change::DeleteConnection(node, id) => {
                self.connections.remove(&(node.clone(), id.clone()));
            }
            Change::PutRoute(route) => {
                self.routes.insert(route.id.clone(), route.clone());
            }
            Change::DeleteRoute(id) => {
                self.routes.remove(id);
            }
            Change::PutChannel(channel) => {
                self.channels.insert(channel.name.clone(), channel.clone());
            }
            Change::DeleteChannel(name) => {
                self.channels.remove(name);
            }
        }
    }
}

/// One change of the desired state. Removing what is not there changes nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Adds or replaces a node.
    PutNode(NodeRecord),
    /// Removes a node, by its id.
    DeleteNode(String),
    /// Adds or replaces a connection.
    PutConnection(ConnectionRecord),
    /// Removes a connection, by node and connection id.
    DeleteConnection(String, String),
    /// Adds or replaces a route.
    PutRoute(RouteRecord),
    /// Removes a route, by its id.
    DeleteRoute(String),
    /// Adds or replaces a channel.
    PutChannel(ChannelRecord),
    /// Removes a channel, by its name.
    DeleteChannel(String),
}

/// A node as it last registered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// `[group/]kind/name`.
    pub id: String,
    /// Its group, if it has one.
    pub group: Option<String>,
    /// Where it listens.
    pub connections: Vec<NodeAddress>,
    /// `program/version` of a node whose reports are complete and whose acknowledgements tell
    /// the outcome; `None` for published ones.
    pub product: Option<String>,
}

/// Where a node listens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeAddress {
    /// `host:port`, as others reach it.
    pub endpoint: String,
    /// Whether it asks for TLS.
    pub mtls_required: bool,
    /// As given by the node.
    pub external_endpoint: Option<String>,
    /// As given by the node.
    pub group: Option<String>,
}

/// A connection that an operator asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectionRecord {
    /// The node that makes it.
    pub node: String,
    /// By which routes name it.
    pub id: String,
    /// The endpoint in `config`.
    pub endpoint: String,
    /// A client block as JSON.
    pub config: String,
}

/// A route that an operator asked for. Routes that follow from what nodes report are not kept:
/// nodes report again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteRecord {
    /// By which operators name it.
    pub id: String,
    /// The node that gets it.
    pub node: String,
    /// The texts of the name.
    pub components: [String; 3],
    /// The instance, or any.
    pub instance: Option<u64>,
    /// Where it leads.
    pub to: RouteTarget,
    /// It was deleted, but the node does not know that yet.
    pub deleted: bool,
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RouteTarget {
    /// Another node of this controller.
    Node(String),
    /// A connection of [`ConnectionRecord`], by its id.
    Connection(String),
    /// An endpoint with the client block as JSON.
    Endpoint {
        /// The endpoint in `config`.
        endpoint: String,
        /// A client block as JSON.
        config: String,
    },
}

/// A channel, and who is wanted in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChannelRecord {
    /// `org/namespace/name`.
    pub name: String,
    /// As given when it was made, with instance.
    pub moderators: Vec<String>,
    /// Names of three parts of those who joined, in the order in which they were added.
    pub participants: Vec<String>,
    /// It is not known yet whether its moderator made it.
    #[serde(default)]
    pub pending: bool,
    /// Names of three parts that were invited, of which it is not known whether they joined.
    #[serde(default)]
    pub invited: Vec<String>,
}
