//! What the tests of this crate share.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use slim_config::{Diagnostics, Loaded, SourceError, Sources};

/// Variables and files that exist only in a test.
#[derive(Default)]
pub(crate) struct Fixed {
    variables: HashMap<String, String>,
    files: HashMap<String, String>,
}

impl Fixed {
    pub(crate) fn with_variable(mut self, name: &str, text: &str) -> Self {
        self.variables.insert(name.into(), text.into());
        self
    }

    pub(crate) fn with_file(mut self, path: &str, text: &str) -> Self {
        self.files.insert(path.into(), text.into());
        self
    }
}

impl Sources for Fixed {
    fn variable(&self, name: &str) -> Result<String, SourceError> {
        let text = self.variables.get(name).cloned();
        text.ok_or(SourceError::Unset)
    }

    fn file(&self, path: &Path) -> Result<String, SourceError> {
        let text = path.to_str().and_then(|path| self.files.get(path)).cloned();
        text.ok_or_else(|| SourceError::Io(io::ErrorKind::NotFound.into()))
    }
}

/// `text` read as `c.yaml`.
pub(crate) fn parse(text: &str) -> Result<Loaded, Diagnostics> {
    slim_config::parse("c.yaml", text, &Fixed::default())
}

/// A file with one server, whose block is `server` in flow form without its braces.
pub(crate) fn with_server(server: &str) -> String {
    format!("services:\n  slim/0:\n    dataplane:\n      servers:\n        - {{ {server} }}\n")
}

/// A file with one plain server and `rest` at the top level.
pub(crate) fn with_top(rest: &str) -> String {
    let server = with_server("endpoint: \"0.0.0.0:46357\", tls: { insecure: true }");
    format!("{server}{rest}\n")
}

/// A file with one plain server and `client` among the clients, in flow form without its braces.
pub(crate) fn with_client(client: &str) -> String {
    let server = with_server("endpoint: \"0.0.0.0:46357\", tls: { insecure: true }");
    format!("{server}      clients:\n        - {{ {client} }}\n")
}
