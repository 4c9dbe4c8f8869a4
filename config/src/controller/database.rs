use std::path::PathBuf;

use crate::value::{Case, Value};

/// Where a controller keeps what operators asked for (`database`, since 0.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Database {
    /// `filePath`: in this file, which is made if it is absent, with its folder. A relative path
    /// starts at the working directory of the process. Default `db/controlplane.redb`.
    ///
    /// A file that cannot be written keeps a controller from starting: only [`Database::InMemory`]
    /// does without one.
    File(PathBuf),
    /// `type: in_memory`: nowhere; channels and routes are lost when the controller ends.
    InMemory,
}

impl Default for Database {
    fn default() -> Self {
        Self::File("db/controlplane.redb".into())
    }
}

/// What `type` says; this program's own key for 0.6, though later releases have it too.
#[derive(Clone, Copy, PartialEq)]
enum Medium {
    File,
    InMemory,
}

const MEDIA: [(&str, Medium); 2] = [("file", Medium::File), ("in_memory", Medium::InMemory)];

/// The `database` block.
pub(super) fn read(value: Value<'_>) -> Option<Database> {
    let mut section = value.section()?;
    let medium = section.child("type").map(|value| value.choice(&MEDIA, Case::Sensitive));
    let path = section.child("filePath").map(Value::file_path);
    section.finish();
    match (medium.unwrap_or(Some(Medium::File))?, path) {
        (Medium::File, None) => Some(Database::default()),
        (Medium::File, Some(path)) => path.map(Database::File),
        (Medium::InMemory, None) => Some(Database::InMemory),
        (Medium::InMemory, Some(_)) => {
            let message = "`type: in_memory` leaves nothing to keep in `filePath`";
            value.fail(message, Some("remove one of the two".into()))
        }
    }
}
