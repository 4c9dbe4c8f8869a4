use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use slim_wire::Fault;

/// A place in the text of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    /// Line, the first is 1.
    pub(crate) line: usize,
    /// Column in characters, the first is 1.
    pub(crate) column: usize,
}

impl Position {
    pub(crate) const START: Self = Self { line: 1, column: 1 };
}

/// Whether a finding keeps the file from being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// The file cannot be used as it is.
    Error,
    /// The file is used, but something in it has no effect or not the one it seems to have.
    Warning,
}

/// One finding about one place of a configuration file.
///
/// Displays as `file:line:column: key: message`, with `warning: ` before the key if it is one,
/// and the hint on a line of its own. Never holds the text of a secret or of a placeholder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether the file can be used nevertheless.
    pub severity: Severity,
    /// The file's name as it was given to the loader, or `environment` for a variable that stands
    /// for a key.
    pub file: Arc<str>,
    /// Line, the first is 1.
    pub line: usize,
    /// Column in characters, the first is 1.
    pub column: usize,
    /// Path of the key, as `services.slim/0.dataplane.servers[0].endpoint`; empty if the finding
    /// is about the file as a whole.
    pub key: String,
    /// What was expected and what is there.
    pub message: String,
    /// What a person can do about it, where that is known.
    pub hint: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  help: {hint}"),
            None => Ok(()),
        }
    }
}

/// Everything found in one run over a file, in the order of the file; of a file with more than
/// 200 errors or warnings the first 200 found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// All findings in the order of the file.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.0.iter()
    }

    /// The findings that keep the file from being used.
    pub fn errors(&self) -> impl Iterator<Item = &Diagnostic> {
        self.iter().filter(|d| d.severity == Severity::Error)
    }

    /// The findings that do not.
    pub fn warnings(&self) -> impl Iterator<Item = &Diagnostic> {
        self.iter().filter(|d| d.severity == Severity::Warning)
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many findings there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// These findings, and then `others`.
    pub(crate) fn followed_by(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// Always the configuration's.
    pub fn fault(&self) -> Fault {
        Fault::Config
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// How many errors, and how many warnings, of one file are kept. A file with more is not a
/// configuration, and nobody reads on.
const MOST: usize = 200;

/// Collects findings while a file is read.
pub(crate) struct Findings {
    file: Arc<str>,
    errors: RefCell<Vec<Diagnostic>>,
    warnings: RefCell<Vec<Diagnostic>>,
}

impl Findings {
    pub(crate) fn new(file: &str) -> Self {
        Self { file: file.into(), errors: RefCell::default(), warnings: RefCell::default() }
    }

    /// Records that the file cannot be used because of `message`.
    pub(crate) fn error(
        &self,
        at: Position,
        key: &str,
        message: impl Into<String>,
        hint: Option<String>,
    ) {
        self.add(Severity::Error, at, key, message.into(), hint);
    }

    /// Whether further errors are not kept.
    pub(crate) fn is_full(&self) -> bool {
        self.errors.borrow().len() >= MOST
    }

    /// Records that something does not have the effect it seems to have.
    pub(crate) fn warning(
        &self,
        at: Position,
        key: &str,
        message: impl Into<String>,
        hint: Option<String>,
    ) {
        self.add(Severity::Warning, at, key, message.into(), hint);
    }

    fn add(
        &self,
        severity: Severity,
        at: Position,
        key: &str,
        message: String,
        hint: Option<String>,
    ) {
        let mut list = match severity {
            Severity::Error => self.errors.borrow_mut(),
            Severity::Warning => self.warnings.borrow_mut(),
        };
        if list.len() < MOST {
            list.push(Diagnostic {
                severity,
                file: Arc::clone(&self.file),
                line: at.line,
                column: at.column,
                key: key.to_owned(),
                message,
                hint,
            });
        }
    }

    /// The findings in the order of the file.
    pub(crate) fn finish(self) -> Diagnostics {
        let mut list = self.errors.into_inner();
        list.append(&mut self.warnings.into_inner());
        list.sort_by_key(|d| (d.line, d.column));
        Diagnostics(list)
    }
}

/// `text` for a message: quoted, without control characters, at most 60 characters of it.
pub(crate) fn shown(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// The path of `key` within `parent`.
pub(crate) fn key_path(parent: &str, key: &str) -> String {
    let plain = !key.is_empty()
        && key.len() <= 64
        && key.chars().all(|c| c.is_alphanumeric() || "_-/".contains(c));
    let key = if plain { key.to_owned() } else { shown(key) };
    if parent.is_empty() { key } else { format!("{parent}.{key}") }
}

/// The candidate that `word` is most likely a slip of, if any is near.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let length = word.chars().count();
    if length > 64 {
        return None;
    }
    let word = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= length.max(candidate.len()).div_ceil(3).min(4))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_keyboard_find_the_key_and_other_words_do_not() {
        let keys = ["endpoint", "tls", "metadata"];
        for (word, expected) in [
            ("endpoit", Some("endpoint")),
            ("Endpoint", Some("endpoint")),
            ("tsl", Some("tls")),
            ("tl", Some("tls")),
            ("metdata", Some("metadata")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, keys), expected, "{word}");
        }
    }

    #[test]
    fn long_or_unprintable_text_stays_short_and_printable() {
        assert_eq!(shown("a\u{7}b"), "\"a\\u{7}b\"");
        assert!(shown(&"x".repeat(10_000)).len() < 80);
        assert_eq!(key_path("a", "b c"), "a.\"b c\"");
        assert_eq!(key_path("services", "slim/0"), "services.slim/0");
    }
}
