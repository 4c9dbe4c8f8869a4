//! How results are shown: the documented text, tables, JSON and YAML.

mod escape;
mod table;
mod yaml;

use std::io::Write as _;

use clap::ValueEnum;
use serde_json::Value;

pub(super) use self::escape::shown;
pub(super) use self::table::Table;
pub(super) use self::yaml::to_yaml;

/// The form of a result on standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(in crate::ctl) enum Format {
    /// The lines that the documents show
    #[default]
    Text,
    /// Columns, with the number of rows at the end
    Table,
    /// An object for programs
    Json,
    /// The same object for programs and people
    Yaml,
}

/// The result of a command in every form.
#[derive(Debug)]
pub(super) struct Answer {
    /// The documented lines, each with its end, in which nothing of a peer is left that a terminal
    /// would obey.
    pub(super) text: String,
    /// `None`: a table would say no more than the text.
    pub(super) table: Option<Table>,
    pub(super) value: Value,
}

impl Answer {
    /// A result that is no list.
    pub(super) fn plain(text: String, value: Value) -> Self {
        Self { text, table: None, value }
    }

    pub(super) fn show(&self, format: Format) {
        match (format, &self.table) {
            (Format::Table, Some(table)) => print(&table.to_string()),
            (Format::Text | Format::Table, _) => print(&self.text),
            (Format::Json, _) => print(&json(&self.value)),
            (Format::Yaml, _) => print(&to_yaml(&self.value)),
        }
    }
}

fn json(value: &Value) -> String {
    escape::escape_json(&format!("{value:#}")) + "\n"
}

/// Writes to standard output at once.
pub(super) fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    // Whoever stopped reading does not want the rest.
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}
