use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::diagnostics::{Findings, Position, key_path, nearest};
use crate::secret::Secret;
use crate::section::Section;
use crate::tree::{Entry, Kind, Node};

/// Longest duration that is read: one year. Longer ones are slips, and this bound lets every user
/// add a duration to a clock without a check.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A value at its place in the file. Readers return `None` after they have reported what is wrong.
#[derive(Clone)]
pub(crate) struct Value<'a> {
    pub(crate) node: &'a Node,
    pub(crate) path: String,
    pub(crate) findings: &'a Findings,
}

impl<'a> Value<'a> {
    /// Where the value begins.
    pub(crate) fn at(&self) -> Position {
        self.node.at
    }

    /// Reports `message` and has no value.
    pub(crate) fn fail<T>(&self, message: impl Into<String>, hint: Option<String>) -> Option<T> {
        self.findings.error(self.at(), &self.path, message, hint);
        None
    }

    /// Reports that something else was expected, showing the value.
    pub(crate) fn expected<T>(&self, what: impl Display) -> Option<T> {
        self.fail(format!("expected {what}, got {}", self.node.describe()), None)
    }

    /// Like [`Self::expected`], with what a person can do about it.
    pub(crate) fn expected_with_hint<T>(&self, what: impl Display, hint: &str) -> Option<T> {
        let message = format!("expected {what}, got {}", self.node.describe());
        self.fail(message, Some(hint.to_owned()))
    }

    /// Reports that something else was expected, without showing what may be a secret.
    pub(crate) fn expected_unshown<T>(&self, what: impl Display) -> Option<T> {
        self.fail(format!("expected {what}, got {}", self.node.kind_name()), None)
    }

    /// Reports that the value has not the effect it seems to have.
    pub(crate) fn warn(&self, message: impl Into<String>, hint: Option<&str>) {
        let hint = hint.map(str::to_owned);
        self.findings.warning(self.at(), &self.path, message, hint);
    }

    /// A mapping whose keys are known.
    pub(crate) fn section(&self) -> Option<Section<'a>> {
        match &self.node.kind {
            Kind::Mapping(entries) => Some(Section::new(self.clone(), entries)),
            _ => self.expected_unshown("a mapping"),
        }
    }

    /// The items of a list, each at its place.
    pub(crate) fn items(&self) -> Option<Vec<Self>> {
        match &self.node.kind {
            Kind::List(_) => Some(self.elements()),
            _ => self.expected_unshown("a list"),
        }
    }

    /// Every item of a list as `read` reads it; those it cannot read are left out.
    pub(crate) fn each<T>(&self, read: impl FnMut(Value<'a>) -> Option<T>) -> Option<Vec<T>> {
        Some(self.items()?.into_iter().filter_map(read).collect())
    }

    /// The keys and values of a mapping whose keys are free.
    pub(crate) fn pairs(&self) -> Option<Vec<(&'a Entry, Self)>> {
        match &self.node.kind {
            Kind::Mapping(_) => Some(self.fields()),
            _ => self.expected_unshown("a mapping"),
        }
    }

    /// The items if this is a list, else none.
    pub(crate) fn elements(&self) -> Vec<Self> {
        let items: &[Node] = match &self.node.kind {
            Kind::List(items) => items,
            _ => &[],
        };
        let items = items.iter().enumerate();
        let items = items.map(|(index, node)| self.within(node, format!("{}[{index}]", self.path)));
        items.collect()
    }

    /// The keys and values if this is a mapping, else none.
    pub(crate) fn fields(&self) -> Vec<(&'a Entry, Self)> {
        let entries: &[Entry] = match &self.node.kind {
            Kind::Mapping(entries) => entries,
            _ => &[],
        };
        let fields = entries.iter().map(|entry| {
            let path = key_path(&self.path, &entry.key);
            (entry, self.within(&entry.value, path))
        });
        fields.collect()
    }

    /// The value of `name` if this is a mapping that has it.
    pub(crate) fn field(&self, name: &str) -> Option<Self> {
        let mut fields = self.fields().into_iter();
        fields.find(|(entry, _)| entry.key == name).map(|(_, value)| value)
    }

    fn within(&self, node: &'a Node, path: String) -> Self {
        Self { node, path, findings: self.findings }
    }

    /// A text.
    pub(crate) fn text(&self) -> Option<&'a str> {
        match &self.node.kind {
            Kind::Text(text) => Some(&text.text),
            Kind::Boolean(_) | Kind::Number(_) => {
                self.expected_with_hint("a text", "put the value in quotes")
            }
            _ => self.expected("a text"),
        }
    }

    /// A text of its own.
    pub(crate) fn owned_text(self) -> Option<String> {
        self.text().map(str::to_owned)
    }

    /// A text that is not empty.
    pub(crate) fn filled_text(&self) -> Option<&'a str> {
        let text = self.text()?;
        if text.is_empty() {
            return self.fail("expected a text that is not empty", None);
        }
        Some(text)
    }

    /// The path of a file.
    pub(crate) fn file_path(self) -> Option<PathBuf> {
        let path = self.filled_text()?;
        if path.starts_with("-----BEGIN") {
            let hint = "a text in PEM form belongs to the key that ends in `pem`";
            return self.fail("expected the path of a file, got its content", Some(hint.into()));
        }
        if path.contains('\0') {
            return self.expected("the path of a file");
        }
        Some(path.into())
    }

    /// A text that is not empty and must not be shown.
    pub(crate) fn secret(self) -> Option<Secret> {
        match &self.node.kind {
            Kind::Text(text) if text.text.is_empty() => {
                self.fail("expected a text that is not empty", None)
            }
            Kind::Text(text) => Some(Secret::new(&text.text)),
            Kind::Boolean(_) | Kind::Number(_) => self.fail(
                format!("expected a text, got {}", self.node.kind_name()),
                Some("put the value in quotes".into()),
            ),
            _ => self.expected_unshown("a text"),
        }
    }

    /// `true` or `false`.
    pub(crate) fn boolean(self) -> Option<bool> {
        match &self.node.kind {
            Kind::Boolean(value) => Some(*value),
            Kind::Text(text) if text.placeholder.is_some() => {
                self.expected_with_hint("`true` or `false`", "a placeholder always gives a text")
            }
            _ => self.expected("`true` or `false`"),
        }
    }

    /// A whole number within `range`.
    pub(crate) fn integer<T>(&self, range: RangeInclusive<T>) -> Option<T>
    where
        T: FromStr + PartialOrd + Display,
    {
        let what = format!("a whole number from {} to {}", range.start(), range.end());
        match &self.node.kind {
            Kind::Number(number) => match number.parse::<T>() {
                Ok(number) if range.contains(&number) => Some(number),
                _ => self.expected(what),
            },
            Kind::Text(text) if text.placeholder.is_some() => {
                self.expected_with_hint(what, "a placeholder always gives a text")
            }
            Kind::Text(text) if text.text.parse::<T>().is_ok() => {
                self.expected_with_hint(what, "remove the quotes")
            }
            _ => self.expected(what),
        }
    }

    /// A number with units, as `10s` or `1m30s`, of at most one year.
    pub(crate) fn duration(self) -> Option<Duration> {
        const WHAT: &str = "a duration such as `10s`, `500ms` or `1m30s`";
        let text = match &self.node.kind {
            Kind::Text(text) => &text.text,
            Kind::Number(number) => {
                let hint = format!("add a unit: `{number}s` or `{number}ms`");
                return self.expected_with_hint(WHAT, &hint);
            }
            _ => return self.expected(WHAT),
        };
        match humantime::parse_duration(text) {
            Ok(duration) if duration <= LONGEST => Some(duration),
            Ok(_) => self.expected("a duration of at most one year"),
            Err(_) if text.trim().parse::<u64>().is_ok() => {
                let hint = format!("add a unit: `{0}s` or `{0}ms`", text.trim());
                self.expected_with_hint(WHAT, &hint)
            }
            Err(_) => self.expected_with_hint(
                WHAT,
                "a duration is made of whole numbers, each with a unit: ms, s, m, h or d",
            ),
        }
    }

    /// A duration for which zero stands for none.
    pub(crate) fn duration_or_none(self) -> Option<Option<Duration>> {
        Some(self.duration().filter(|duration| !duration.is_zero()))
    }

    /// A duration above zero.
    pub(crate) fn positive_duration(self) -> Option<Duration> {
        let duration = self.clone().duration()?;
        if duration.is_zero() {
            return self.expected("a duration above zero");
        }
        Some(duration)
    }

    /// A duration that a timer can keep without being busy with it.
    pub(crate) fn short_duration(self) -> Option<Duration> {
        const SHORTEST: Duration = Duration::from_millis(100);
        let duration = self.clone().duration()?;
        if duration < SHORTEST {
            return self.expected("a duration of at least 100ms");
        }
        Some(duration)
    }

    /// One of the words of `choices`.
    pub(crate) fn choice<T: Copy>(&self, choices: &[(&str, T)], case: Case) -> Option<T> {
        let text = self.text()?;
        let found = choices.iter().find(|(word, _)| match case {
            Case::Sensitive => *word == text,
            Case::Insensitive => word.eq_ignore_ascii_case(text),
        });
        if let Some((_, choice)) = found {
            return Some(*choice);
        }
        let words = choices.iter().map(|(word, _)| *word);
        let list = words.clone().map(|word| format!("`{word}`")).collect::<Vec<_>>();
        let what = format!("one of {}", list.join(", "));
        let part_of = |word: &&str| text.len() > 1 && word.contains(text);
        match nearest(text, words.clone()).or_else(|| words.clone().find(part_of)) {
            Some(word) => self.expected_with_hint(what, &format!("did you mean `{word}`?")),
            None => self.expected(what),
        }
    }
}

/// How a word is compared.
#[derive(Clone, Copy)]
pub(crate) enum Case {
    Sensitive,
    Insensitive,
}
