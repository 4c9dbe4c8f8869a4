use super::api::{NORTHBOUND, SOUTHBOUND};
use crate::diagnostics::{Findings, Position};
use crate::sources::{SourceError, Sources};
use crate::tree::{Entry, Kind, Node, Text};

/// Replaces `logging.level`.
pub(super) const LOG_LEVEL: &str = "API_LOG_LEVEL";

const NAMES: [&str; 5] = [
    NORTHBOUND.host_variable,
    NORTHBOUND.port_variable,
    SOUTHBOUND.host_variable,
    SOUTHBOUND.port_variable,
    LOG_LEVEL,
];

/// The variables that are set and not empty, as a mapping that is read like a file.
pub(super) fn read(sources: &dyn Sources, findings: &Findings) -> Node {
    let mut entries = Vec::new();
    for name in NAMES {
        match sources.variable(name) {
            Ok(text) if text.is_empty() => {}
            Ok(text) => entries.push(Entry {
                key: name.to_owned(),
                key_at: Position::START,
                value: Node {
                    at: Position::START,
                    kind: Kind::Text(Text { text, placeholder: None }),
                },
            }),
            Err(SourceError::Unset) => {}
            Err(error) => findings.error(Position::START, name, error.to_string(), None),
        }
    }
    Node { at: Position::START, kind: Kind::Mapping(entries) }
}
