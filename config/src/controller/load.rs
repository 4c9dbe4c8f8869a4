use std::path::Path;

use super::api::{self, Api, NORTHBOUND, SOUTHBOUND};
use super::database::{self, Database};
use super::logging;
use super::reconciler::{self, Reconciler};
use super::variables::{self, LOG_LEVEL};
use crate::diagnostics::{Diagnostics, Findings, Position};
use crate::load::LoadError;
use crate::profile::{self, Profile};
use crate::sources::{self, Sources, System};
use crate::tracing::{self, LogLevel, OpenTelemetry};
use crate::tree::{self, Kind, Node};
use crate::value::Value;

/// What a controller runs on. Every value is within its limits.
#[derive(Clone, Debug, PartialEq)]
pub struct ControllerConfig {
    /// `northbound`: for operators.
    pub northbound: Api,
    /// `southbound`: for nodes.
    pub southbound: Api,
    /// `logging.level`, in any case of letters; `fatal` and `panic` stand for `error`. Default
    /// `info`, where release 0.6 has `debug`.
    pub log_level: LogLevel,
    /// `reconciler`.
    pub reconciler: Reconciler,
    /// `database`.
    pub database: Database,
    /// `profile`: default `compat`. With `hardened` an API that other machines reach needs TLS,
    /// and clients that show who they are. This program's own key.
    pub profile: Profile,
    /// `opentelemetry`: as a node has it in `tracing`, with the name `slim-controller` by default.
    /// This program's own key.
    pub opentelemetry: OpenTelemetry,
}

impl ControllerConfig {
    /// The keys in which a newer reading of the file differs. Of them only `logging.level` can be
    /// applied while a controller runs.
    pub fn changes(&self, newer: &Self) -> Vec<&'static str> {
        let keys = [
            ("northbound", self.northbound != newer.northbound),
            ("southbound", self.southbound != newer.southbound),
            ("logging.level", self.log_level != newer.log_level),
            ("reconciler", self.reconciler != newer.reconciler),
            ("database", self.database != newer.database),
            ("profile", self.profile != newer.profile),
            ("opentelemetry", self.opentelemetry != newer.opentelemetry),
        ];
        keys.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect()
    }
}

/// A configuration, and what its author should know about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The configuration.
    pub config: ControllerConfig,
    /// Keys without effect and the like; warnings only.
    pub warnings: Diagnostics,
}

/// Reads the configuration at `path`, with variables and placeholders from this process's
/// environment and files.
///
/// # Errors
/// [`LoadError`] with everything that is wrong with the file or the environment.
pub fn load(path: &Path) -> Result<Loaded, LoadError> {
    let text =
        System.file(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    Ok(parse(&path.display().to_string(), &text, &System)?)
}

/// Reads a configuration from `text`; `file_name` is only shown in findings. An empty text gives
/// what a controller without a file runs on.
///
/// # Errors
/// Everything that is wrong with the environment, then with the text, warnings included.
pub fn parse(file_name: &str, text: &str, sources: &dyn Sources) -> Result<Loaded, Diagnostics> {
    let findings = Findings::new(file_name);
    let environment = Findings::new("environment");
    let variables = variables::read(sources, &environment);
    let variables = Value { node: &variables, path: String::new(), findings: &environment };
    let config = read(text, sources, &findings, &variables);
    let found = environment.finish().followed_by(findings.finish());
    match config {
        Some(config) if found.errors().next().is_none() => Ok(Loaded { config, warnings: found }),
        _ => Err(found),
    }
}

fn read(
    text: &str,
    sources: &dyn Sources,
    findings: &Findings,
    variables: &Value<'_>,
) -> Option<ControllerConfig> {
    let empty = Node { at: Position::START, kind: Kind::Mapping(Vec::new()) };
    let mut root = tree::parse(text, findings)?.unwrap_or(empty);
    sources::substitute(&mut root, sources, findings);
    let root = Value { node: &root, path: String::new(), findings };
    let Kind::Mapping(_) = root.node.kind else {
        return root.expected("a mapping with keys such as `northbound` and `southbound`");
    };
    let mut section = root.section()?;
    let northbound = api::read(&mut section, NORTHBOUND, variables);
    let southbound = api::read(&mut section, SOUTHBOUND, variables);
    let database = section.child("database").map_or(Some(Database::default()), database::read);
    let profile = section.optional("profile", profile::read).unwrap_or_default();
    let named = OpenTelemetry { service_name: "slim-controller".into(), ..Default::default() };
    let opentelemetry = tracing::read_opentelemetry(&mut section, named);
    let outer = [section.child("reconciler"), section.child("logging")];
    section.finish();
    let [reconciler, log] = outer;
    let blocks = [reconciler, southbound.reconciler, northbound.reconciler];
    let (reconciler, within) = read_reconcilers(blocks.into_iter().flatten());
    let blocks = [log, within, southbound.logging, northbound.logging];
    let level = read_levels(blocks.into_iter().flatten());
    let level = match variables.field(LOG_LEVEL) {
        Some(named) => logging::read_level(&named)?,
        None => level.unwrap_or(LogLevel::Info),
    };
    let (northbound, southbound) = (northbound.api?, southbound.api?);
    check_ports(&root, &northbound, &southbound);
    if profile == Profile::Hardened {
        api::check_hardened(&root, NORTHBOUND, &northbound);
        api::check_hardened(&root, SOUTHBOUND, &southbound);
    }
    Some(ControllerConfig {
        northbound,
        southbound,
        log_level: level,
        reconciler: reconciler.unwrap_or_default(),
        database: database?,
        profile,
        opentelemetry,
    })
}

/// The first of `blocks`, and the first `logging` block in one of them.
fn read_reconcilers<'a>(
    blocks: impl Iterator<Item = Value<'a>>,
) -> (Option<Reconciler>, Option<Value<'a>>) {
    let mut decides: Option<(String, Reconciler)> = None;
    let mut logging = None;
    for value in blocks {
        let (reconciler, within) = reconciler::read(value.clone());
        logging = logging.or(within);
        let Some(reconciler) = reconciler else { continue };
        match &decides {
            None => decides = Some((value.path, reconciler)),
            Some((path, other)) if *other != reconciler => warn_overruled(&value, path),
            Some(_) => {}
        }
    }
    (decides.map(|(_, reconciler)| reconciler), logging)
}

/// The first level that one of `blocks` names.
fn read_levels<'a>(blocks: impl Iterator<Item = Value<'a>>) -> Option<LogLevel> {
    let mut decides: Option<(String, LogLevel)> = None;
    for (value, level) in blocks.filter_map(logging::read) {
        match &decides {
            None => decides = Some((value.path, level)),
            Some((path, other)) if *other != level => warn_overruled(&value, path),
            Some(_) => {}
        }
    }
    decides.map(|(_, level)| level)
}

fn warn_overruled(value: &Value<'_>, by: &str) {
    value.warn(format!("has no effect: `{by}` decides"), Some("remove one of the two"));
}

fn check_ports(root: &Value<'_>, northbound: &Api, southbound: &Api) {
    if northbound.port == 0 || northbound.address() != southbound.address() {
        return;
    }
    let block = root.field(SOUTHBOUND.key).unwrap_or_else(|| root.clone());
    let at = block.field("httpPort").unwrap_or(block).at();
    let message = "expected an address of its own, got that of `northbound`";
    let hint = Some("choose another port".to_owned());
    root.findings.error(at, "southbound.httpPort", message, hint);
}
