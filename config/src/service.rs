use std::collections::HashSet;

use slim_wire::{NameError, TextName};

use crate::auth::{self, TokenSource};
use crate::client::{self, Client};
use crate::diagnostics::shown;
use crate::endpoint::{self, Endpoint, Scheme};
use crate::section::Section;
use crate::server::{self, Role, Server};
use crate::tree::Entry;
use crate::value::Value;

/// One node of the network (reference of 0.6, an entry of `services`).
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// The key: `slim/NAME`, where the name is of `a-z`, `0-9` and `-`.
    pub id: String,
    /// `node_id`: the name towards a control plane; default: the name part of the id.
    pub node_id: String,
    /// `group_name`: the group towards a control plane; default none.
    pub group_name: Option<String>,
    /// `dataplane`.
    pub dataplane: Dataplane,
    /// `controller`.
    pub controller: Controller,
}

/// Where messages come in and go out (`services.<id>.dataplane`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dataplane {
    /// `servers`: at least one.
    pub servers: Vec<Server>,
    /// `clients`: endpoints are unique. Default none.
    pub clients: Vec<Client>,
    /// `routes`: this node's own key. Default none.
    pub routes: Vec<Route>,
}

/// A name that is reached over a client (`services.<id>.dataplane.routes`, this node's own key).
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// `name`: `org/namespace/app` or `org/namespace/app/id`.
    pub name: TextName,
    /// `via`: the endpoint of one of `dataplane.clients`.
    pub via: Endpoint,
}

/// How the node is controlled (`services.<id>.controller`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Controller {
    /// `servers`: where a control plane may connect to. Default none.
    pub servers: Vec<Server>,
    /// `clients`: control planes to connect to; endpoints are unique. Default none.
    pub clients: Vec<Client>,
    /// `token_provider`: identity of the messages that the node sends for a control plane.
    /// Default none.
    pub token_provider: TokenSource,
}

/// Longest name part of a service id, in bytes.
const NAME_BYTES: usize = 1024;

/// The `services` block.
pub(crate) fn read_all(value: Value<'_>) -> Option<Vec<Service>> {
    let pairs = value.pairs()?;
    if pairs.is_empty() {
        let hint = "add one, such as `slim/0`";
        return value.fail("expected at least one service, got none", Some(hint.into()));
    }
    Some(pairs.into_iter().filter_map(|(entry, value)| read(entry, value)).collect())
}

fn read(entry: &Entry, value: Value<'_>) -> Option<Service> {
    let name = read_id(entry, &value);
    let mut section = value.section()?;
    let node_id = section.optional("node_id", read_node_id);
    let group_name = section.optional("group_name", Value::owned_text);
    let dataplane = match section.child("dataplane") {
        Some(value) => read_dataplane(value),
        None => section.missing("dataplane", Some(NO_SERVER_HINT.into())),
    };
    let controller = section.optional("controller", read_controller);
    section.finish();
    Some(Service {
        id: entry.key.clone(),
        node_id: node_id.unwrap_or_else(|| name.unwrap_or_default().to_owned()),
        group_name,
        dataplane: dataplane?,
        controller: controller.unwrap_or_default(),
    })
}

/// The name part of a service id.
fn read_id<'a>(entry: &'a Entry, value: &Value<'_>) -> Option<&'a str> {
    const HINT: &str = "write `slim/NAME` with a name of a-z, 0-9 and -, such as `slim/0`";
    let fail = |what: String| {
        let message = format!("service id: {what}");
        let hint = Some(HINT.to_owned());
        let findings = value.findings;
        findings.error(entry.key_at, &value.path, message, hint);
        None
    };
    match entry.key.split_once('/') {
        Some(("slim", name)) if is_name(name) => Some(name),
        Some(("slim", name)) if name.len() > NAME_BYTES => {
            fail(format!("expected a name of at most {NAME_BYTES} bytes, got {}", name.len()))
        }
        Some(("slim", name)) => {
            fail(format!("expected a name of a-z, 0-9 and -, got {}", shown(name)))
        }
        Some((kind, _)) => fail(format!("expected the kind `slim`, got {}", shown(kind))),
        None => fail(format!("expected `slim/NAME`, got {}", shown(&entry.key))),
    }
}

fn read_node_id(value: Value<'_>) -> Option<String> {
    let text = value.filled_text()?;
    if !is_name(text) {
        return value.expected("a name of at most 1024 characters of a-z, 0-9 and -");
    }
    Some(text.to_owned())
}

fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    text.len() <= NAME_BYTES && text.bytes().all(allowed)
}

const NO_SERVER_HINT: &str = "add one under `dataplane.servers`, such as \
                              `- { endpoint: \"0.0.0.0:46357\", tls: { insecure: true } }`";

fn read_dataplane(value: Value<'_>) -> Option<Dataplane> {
    let mut section = value.section()?;
    let servers = read_servers(&mut section, Role::Dataplane);
    let clients = read_clients(&mut section, Role::Dataplane);
    let routes =
        section.optional("routes", |value| value.each(|route| read_route(route, clients.as_ref())));
    let why = "only the controller sends messages of its own";
    section.ineffective("token_provider", why, auth::read_provider);
    section.ineffective("token_verifier", why, auth::read_verifier);
    // A key that is misspelt is the better finding.
    let misspelt = section.has_unknown();
    section.finish();
    let (servers, clients) = (servers?, clients?);
    if servers.given == 0 && !misspelt {
        let message = if clients.given == 0 {
            "expected at least one data plane server, got none"
        } else {
            "expected at least one data plane server: a node with clients only is not supported yet"
        };
        return value.fail(message, Some(NO_SERVER_HINT.into()));
    }
    Some(Dataplane {
        servers: servers.read,
        clients: clients.read,
        routes: routes.unwrap_or_default(),
    })
}

fn read_controller(value: Value<'_>) -> Option<Controller> {
    let mut section = value.section()?;
    let servers = read_servers(&mut section, Role::Controller);
    let clients = read_clients(&mut section, Role::Controller);
    let token_provider = section.optional("token_provider", auth::read_provider);
    let why = "no release uses it";
    section.ineffective("token_verifier", why, auth::read_verifier);
    section.finish();
    Some(Controller {
        servers: servers?.read,
        clients: clients?.read,
        token_provider: token_provider.unwrap_or_default(),
    })
}

/// Blocks of a list: how many a file gives, and those that could be read.
struct Blocks<T> {
    given: usize,
    read: Vec<T>,
}

impl<T> Blocks<T> {
    const NONE: Self = Self { given: 0, read: Vec::new() };
}

/// The blocks of a list; `None` if it is not one.
fn read_blocks<'a, T>(
    value: &Value<'a>,
    read: impl FnMut(Value<'a>) -> Option<T>,
) -> Option<Blocks<T>> {
    let items = value.items()?;
    Some(Blocks { given: items.len(), read: items.into_iter().filter_map(read).collect() })
}

fn read_servers(section: &mut Section<'_>, role: Role) -> Option<Blocks<Server>> {
    let Some(value) = section.child("servers") else {
        return Some(Blocks::NONE);
    };
    read_blocks(&value, |value| server::read(value, role))
}

/// The clients of a block, with a warning about what has no effect there.
fn read_clients(section: &mut Section<'_>, role: Role) -> Option<Blocks<Client>> {
    let Some(value) = section.child("clients") else {
        return Some(Blocks::NONE);
    };
    let mut seen = HashSet::new();
    let clients = read_blocks(&value, |value| {
        let client = client::read(value.clone())?;
        if !seen.insert(client.endpoint.clone()) {
            let message = format!("expected unique endpoints, got {} again", client.endpoint);
            let endpoint = value.field("endpoint").unwrap_or(value);
            return endpoint.fail(message, Some("remove one of the two".into()));
        }
        let more: &[&str] = match (role, client.endpoint.scheme) {
            (Role::Controller, Scheme::Quic) => {
                let endpoint = value.field("endpoint").unwrap_or(value);
                return endpoint.expected("`http://host:port` or `https://host:port`");
            }
            (Role::Controller, _) => {
                &["release", "announce", "exchange", "headers", "origin", "keepalive"]
            }
            (Role::Dataplane, Scheme::Quic) => {
                &["release", "announce", "headers", "origin", "keepalive"]
            }
            (Role::Dataplane, Scheme::Http | Scheme::Https) => &["exchange"],
        };
        let unused = ["proxy", "rate_limit", "request_timeout", "buffer_size"];
        for key in unused.iter().chain(more) {
            if let Some(field) = value.field(key) {
                field.warn("valid, but without effect on links of this node", None);
            }
        }
        Some(client)
    })?;
    Some(clients)
}

fn read_route(value: Value<'_>, clients: Option<&Blocks<Client>>) -> Option<Route> {
    let mut section = value.section()?;
    let name = section.required("name", read_name);
    let via = section.required("via", |value| read_via(value, clients));
    section.finish();
    Some(Route { name: name?, via: via? })
}

fn read_name(value: Value<'_>) -> Option<TextName> {
    match value.text()?.parse() {
        Ok(name) => Some(name),
        Err(error @ NameError::TooLong { .. }) => value.fail(error.to_string(), None),
        // The other errors would show a text that a placeholder stands for.
        Err(_) => value.expected("`org/namespace/app`, with a decimal id or without"),
    }
}

/// The endpoint of one of `clients`. If one of them is wrong it may be the one that is meant.
fn read_via(value: Value<'_>, clients: Option<&Blocks<Client>>) -> Option<Endpoint> {
    let via = endpoint::read_client(value.clone())?;
    let clients = clients?;
    let known = || clients.read.iter().map(|client| &client.endpoint);
    if clients.read.len() < clients.given || known().any(|endpoint| *endpoint == via) {
        return Some(via);
    }
    let hint = if clients.given == 0 {
        "add a client with this endpoint to `dataplane.clients`".to_owned()
    } else {
        let known: Vec<_> = known().map(Endpoint::to_string).collect();
        format!("endpoints of `dataplane.clients`: {}", known.join(", "))
    };
    value.expected_with_hint("the endpoint of one of `dataplane.clients`", &hint)
}
