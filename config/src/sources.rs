use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use thiserror::Error;

use crate::diagnostics::{Findings, Position, key_path, shown};
use crate::tree::{Kind, Node, TEXT_BYTES, Text};

/// Where the placeholders `${env:NAME}` and `${file:/path}` get their text.
pub trait Sources {
    /// The environment variable `name`.
    ///
    /// # Errors
    /// [`SourceError`] if it is not set or not Unicode.
    fn variable(&self, name: &str) -> Result<String, SourceError>;

    /// The whole content of the file at `path`, with its trailing newline.
    ///
    /// # Errors
    /// [`SourceError`] if it cannot be read, is too large or is not UTF-8.
    fn file(&self, path: &Path) -> Result<String, SourceError>;
}

/// Why a source has no text for a placeholder.
#[derive(Debug, Error)]
pub enum SourceError {
    /// The variable is not in the environment.
    #[error("expected the environment variable to be set")]
    Unset,
    /// The variable or the file is not Unicode text.
    #[error("expected Unicode text, got other bytes")]
    NotUnicode,
    /// The file is larger than a configuration can be.
    #[error("expected at most {limit} bytes, got more")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The file cannot be read.
    #[error("expected a readable file: {0}")]
    Io(#[from] io::Error),
}

/// The environment and the file system of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Sources for System {
    fn variable(&self, name: &str) -> Result<String, SourceError> {
        // The standard library does not define what these names look up.
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(SourceError::Unset);
        }
        std::env::var_os(name)
            .ok_or(SourceError::Unset)?
            .into_string()
            .map_err(|_| SourceError::NotUnicode)
    }

    fn file(&self, path: &Path) -> Result<String, SourceError> {
        let mut bytes = Vec::new();
        let limit = TEXT_BYTES;
        File::open(path)?.take(limit as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > limit {
            return Err(SourceError::TooLarge { limit });
        }
        String::from_utf8(bytes).map_err(|_| SourceError::NotUnicode)
    }
}

/// Replaces every value that is a placeholder as a whole, once, and reports those that cannot be.
pub(crate) fn substitute(root: &mut Node, sources: &dyn Sources, findings: &Findings) {
    visit(root, "", &mut |node, path| {
        let Kind::Text(text) = &mut node.kind else {
            return;
        };
        match resolve(&text.text, sources) {
            Outcome::Literal => {}
            Outcome::Partial => warn_partial(findings, node.at, path),
            Outcome::Replaced(with) => {
                let placeholder = Some(std::mem::replace(&mut text.text, with));
                text.placeholder = placeholder;
            }
            Outcome::Failed(message, hint) => findings.error(node.at, path, message, Some(hint)),
        }
    });
}

fn warn_partial(findings: &Findings, at: Position, path: &str) {
    findings.warning(
        at,
        path,
        "the placeholder inside this text is not replaced",
        Some("only a value that is one placeholder as a whole is".into()),
    );
}

fn visit(node: &mut Node, path: &str, each: &mut dyn FnMut(&mut Node, &str)) {
    match &mut node.kind {
        Kind::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                visit(item, &format!("{path}[{index}]"), each);
            }
        }
        Kind::Mapping(entries) => {
            for entry in entries {
                visit(&mut entry.value, &key_path(path, &entry.key), each);
            }
        }
        Kind::Text(Text { .. }) => each(node, path),
        Kind::Null | Kind::Boolean(_) | Kind::Number(_) => {}
    }
}

enum Outcome {
    /// The text has no placeholder.
    Literal,
    /// The text has a placeholder among other text.
    Partial,
    Replaced(String),
    /// Message and hint.
    Failed(String, String),
}

const FORMS: &str = "`${env:NAME}` or `${file:/path}`";

fn resolve(text: &str, sources: &dyn Sources) -> Outcome {
    let Some(reference) = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) else {
        let partial = ["${env:", "${file:"].iter().any(|p| text.contains(p));
        return if partial { Outcome::Partial } else { Outcome::Literal };
    };
    let failed = |message: String, hint: &str| Outcome::Failed(message, hint.to_owned());
    if reference.contains("${") {
        let message = format!("expected one placeholder, got {}", shown(text));
        return failed(message, "a value can be one placeholder and no more");
    }
    let (found, hint) = match reference.split_once(':') {
        Some(("env", name)) => (sources.variable(name), "set it in the environment of the node"),
        Some(("file", path)) => {
            (sources.file(Path::new(path)), "check the path and who may read it")
        }
        _ => {
            let message = format!("expected {FORMS}, got {}", shown(text));
            return failed(message, "only environment variables and files can be inserted");
        }
    };
    match found {
        Ok(found) => Outcome::Replaced(found),
        Err(error) => failed(format!("placeholder {}: {error}", shown(text)), hint),
    }
}
