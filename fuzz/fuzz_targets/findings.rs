//! What the targets that read configurations share.

use std::io;
use std::path::Path;

use slim_config::{Diagnostics, SourceError, Sources};

/// What placeholders stand for here.
pub(crate) struct Fixed;

/// No finding may repeat what a placeholder stands for.
const SECRET: &str = "s3cr3t-t3xt";

impl Sources for Fixed {
    fn variable(&self, name: &str) -> Result<String, SourceError> {
        match name {
            "A" => Ok(SECRET.into()),
            "N" => Ok("7".into()),
            "E" => Ok(String::new()),
            "P" => Ok("${env:P}".into()),
            "U" => Err(SourceError::NotUnicode),
            _ => Err(SourceError::Unset),
        }
    }

    fn file(&self, path: &Path) -> Result<String, SourceError> {
        match path.to_str() {
            Some("/a") => Ok(format!("{SECRET}\n")),
            Some("/l") => Err(SourceError::TooLarge { limit: 1 }),
            _ => Err(io::Error::from(io::ErrorKind::NotFound).into()),
        }
    }
}

/// Every finding lies inside the text, and none repeats what a placeholder stands for.
pub(crate) fn check(found: &Diagnostics, text: &str) {
    let lines = line_lengths(text);
    for finding in found {
        let length = finding.line.checked_sub(1).and_then(|index| lines.get(index));
        let inside = length.is_some_and(|length| (1..=length + 1).contains(&finding.column));
        assert!(inside, "outside of the text: {finding}");
    }
    assert!(text.contains(SECRET) || !found.to_string().contains(SECRET), "{found}");
}

/// The length of each line in characters, with YAML's line breaks: LF, CR LF and CR.
fn line_lengths(text: &str) -> Vec<usize> {
    let text = text.replace("\r\n", "\n");
    text.split(['\n', '\r']).map(|line| line.chars().count()).collect()
}
