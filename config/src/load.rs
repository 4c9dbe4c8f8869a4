use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use slim_wire::Fault;
use thiserror::Error;

use crate::diagnostics::{Diagnostics, Findings, Position};
use crate::endpoint;
use crate::limits::{self, Limits};
use crate::outline::Outline;
use crate::policy::{self, Policy};
use crate::profile::{self, Profile};
use crate::runtime::{self, Runtime};
use crate::server::{Role, Server};
use crate::service::{self, Controller, Dataplane, Service};
use crate::sources::{self, SourceError, Sources, System};
use crate::tracing::{self, Tracing};
use crate::tree::{self, Kind};
use crate::value::Value;

/// What a node runs on. Every value is within its limits.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `tracing`.
    pub tracing: Tracing,
    /// `runtime`.
    pub runtime: Runtime,
    /// `services` in the order of the file; at least one.
    pub services: Vec<Service>,
    /// `admin`: where health and metrics are served, `IP:port`; `none` in the file for nowhere.
    /// Default `127.0.0.1:46359`. This node's own key.
    pub admin: Option<SocketAddr>,
    /// `limits`. This node's own key.
    pub limits: Limits,
    /// `profile`: default `compat`. This node's own key.
    pub profile: Profile,
    /// `policy`: default as the profile says. This node's own key.
    pub policy: Policy,
}

const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 46359);

impl Config {
    /// What a node without a file runs on: one service `slim/0` with one server on `listen`
    /// without TLS, and every default.
    pub fn embedded(listen: SocketAddr) -> Self {
        Self {
            tracing: Tracing::default(),
            runtime: Runtime::default(),
            services: vec![Service {
                id: "slim/0".into(),
                node_id: "0".into(),
                group_name: None,
                dataplane: Dataplane {
                    servers: vec![Server::insecure(listen)],
                    ..Dataplane::default()
                },
                controller: Controller::default(),
            }],
            admin: Some(ADMIN),
            limits: Limits::default(),
            profile: Profile::default(),
            policy: Policy::default(),
        }
    }
}

/// A configuration, and what its author should know about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Keys without effect and the like; warnings only.
    pub warnings: Diagnostics,
    /// What the file says.
    pub outline: Outline,
}

impl Loaded {
    /// A configuration that is of no file.
    pub fn without_file(config: Config) -> Self {
        Self { config, warnings: Diagnostics::default(), outline: Outline::default() }
    }

    /// Paths of the keys by which `newer` differs, as `tracing.log_level`. A key that says no more
    /// than its default is none of them if its whole block stays what it was.
    pub fn changes(&self, newer: &Self) -> Vec<String> {
        let (old, new) = (&self.config, &newer.config);
        let same = [
            ("admin", old.admin == new.admin),
            ("limits", old.limits == new.limits),
            ("policy", old.policy == new.policy),
            ("profile", old.profile == new.profile),
            ("runtime", old.runtime == new.runtime),
            ("services", old.services == new.services),
            ("tracing", old.tracing == new.tracing),
        ];
        let mut changed = self.outline.changes(&newer.outline);
        changed.retain(|path| {
            let block = path.split(['.', '[']).next();
            !same.iter().any(|(name, same)| *same && Some(*name) == block)
        });
        changed
    }
}

/// Why a file gives no configuration.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: SourceError,
    },
    /// The file was read and is wrong.
    #[error(transparent)]
    Invalid(#[from] Diagnostics),
}

impl LoadError {
    /// Always the configuration's.
    pub fn fault(&self) -> Fault {
        Fault::Config
    }
}

/// Reads the configuration at `path`, with placeholders from this process's environment and files.
///
/// # Errors
/// [`LoadError`] with everything that is wrong with the file.
pub fn load(path: &Path) -> Result<Loaded, LoadError> {
    let text =
        System.file(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    Ok(parse(&path.display().to_string(), &text, &System)?)
}

/// Reads a configuration from `text`; `file_name` is only shown in findings.
///
/// # Errors
/// Everything that is wrong with the text, warnings included, in its order.
pub fn parse(file_name: &str, text: &str, sources: &dyn Sources) -> Result<Loaded, Diagnostics> {
    let findings = Findings::new(file_name);
    let read = read(text, sources, &findings);
    let found = findings.finish();
    match read {
        Some((config, outline)) if found.errors().next().is_none() => {
            Ok(Loaded { config, warnings: found, outline })
        }
        _ => Err(found),
    }
}

/// What a file has to be.
const WHAT: &str = "a mapping with the key `services`";

fn read(text: &str, sources: &dyn Sources, findings: &Findings) -> Option<(Config, Outline)> {
    let Some(mut root) = tree::parse(text, findings)? else {
        let message = format!("expected {WHAT}, got an empty file");
        findings.error(Position::START, "", message, None);
        return None;
    };
    sources::substitute(&mut root, sources, findings);
    let config = read_root(Value { node: &root, path: String::new(), findings })?;
    Some((config, Outline::new(root)))
}

fn read_root(root: Value<'_>) -> Option<Config> {
    let Kind::Mapping(_) = root.node.kind else {
        return root.expected(WHAT);
    };
    let mut section = root.section()?;
    let tracing = section.optional("tracing", tracing::read);
    let runtime = section.optional("runtime", runtime::read);
    let services = section.required("services", service::read_all);
    let limits = section.optional("limits", limits::read);
    let profile = section.optional("profile", profile::read).unwrap_or_default();
    let policy = section
        .optional("policy", |value| policy::read(value, profile))
        .unwrap_or_else(|| Policy::of_profile(profile));
    let admin = match section.child("admin") {
        Some(value) => read_admin(value),
        None => Some(Some(ADMIN)),
    };
    if let Some(value) = section.child("policy").or_else(|| section.child("profile")) {
        policy::warn(&value, policy.mode);
    }
    section.finish();
    check_listeners(&root, admin.flatten());
    if profile == Profile::Hardened {
        check_hardened(&root);
    }
    Some(Config {
        tracing: tracing.unwrap_or_default(),
        runtime: runtime.unwrap_or_default(),
        services: services?,
        admin: admin?,
        limits: limits.unwrap_or_default(),
        profile,
        policy,
    })
}

fn read_admin(value: Value<'_>) -> Option<Option<SocketAddr>> {
    if value.text()? == "none" {
        return Some(None);
    }
    endpoint::read_listener(value).map(Some)
}

/// No two listeners of a file may have the same address, whichever service they belong to.
fn check_listeners(root: &Value<'_>, admin: Option<SocketAddr>) {
    let mut taken: HashMap<SocketAddr, String> = HashMap::new();
    taken.extend(admin.map(|admin| (admin, "admin".to_owned())));
    let planes = [Role::Dataplane, Role::Controller];
    let servers = planes.iter().flat_map(|role| blocks(root, *role, "servers"));
    for endpoint in servers.filter_map(|server| server.field("endpoint")) {
        let Kind::Text(text) = &endpoint.node.kind else {
            continue;
        };
        match text.text.parse::<SocketAddr>() {
            // The system chooses a port of its own for each.
            Err(_) => {}
            Ok(address) if address.port() == 0 => {}
            Ok(address) => match taken.get(&address) {
                Some(by) => {
                    let message =
                        format!("expected an address of its own, got {address}, taken by `{by}`");
                    endpoint.fail::<()>(message, Some("choose another port".into()));
                }
                None => {
                    taken.insert(address, endpoint.path.clone());
                }
            },
        }
    }
}

/// What the profile `hardened` asks of servers and of clients of controllers.
fn check_hardened(root: &Value<'_>) {
    for role in [Role::Dataplane, Role::Controller] {
        for server in blocks(root, role, "servers") {
            profile::check_server(&server, role);
        }
    }
    blocks(root, Role::Controller, "clients").iter().for_each(profile::check_controller);
}

/// All blocks of one list of all services as they stand in the file.
fn blocks<'a>(root: &Value<'a>, role: Role, list: &str) -> Vec<Value<'a>> {
    let plane = match role {
        Role::Dataplane => "dataplane",
        Role::Controller => "controller",
    };
    let services = root.field("services").into_iter();
    let services = services.flat_map(|services| services.fields());
    let lists = services.filter_map(|(_, service)| service.field(plane)?.field(list));
    lists.flat_map(|list| list.elements()).collect()
}
