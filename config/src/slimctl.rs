//! The file of `slimctl`: the keys of releases 0.6 (`server`, `tls.insecure`, ...) and those that
//! later ones put under `common_opts`, and named contexts, which are this project's own.

use std::path::PathBuf;

use crate::diagnostics::{Diagnostics, Findings};
use crate::secret::Secret;
use crate::section::Section;
use crate::sources::{self, Sources};
use crate::tree::{self, Kind};
use crate::value::Value;

/// Keys that may stand at the top of the file.
const TOP: [&str; 13] = [
    "server",
    "timeout",
    "basic_auth_creds",
    "token",
    "token_file",
    "tls",
    "tls_insecure",
    "tls_ca_file",
    "tls_cert_file",
    "tls_key_file",
    "common_opts",
    "contexts",
    "current_context",
];

/// How `slimctl` reaches a server, as far as it is said in one place. What is not said there is
/// `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CtlOptions {
    /// `server`: `host:port`, or a URL.
    pub server: Option<String>,
    /// `timeout` as Go writes it, such as `15s`.
    pub timeout: Option<String>,
    /// `basic_auth_creds`: `user:password`.
    pub basic_auth_creds: Option<Secret>,
    /// `token`: sent as bearer token.
    pub token: Option<Secret>,
    /// `token_file`: where a bearer token is.
    pub token_file: Option<PathBuf>,
    /// `tls.insecure`: plaintext.
    pub tls_insecure: Option<bool>,
    /// `tls.ca_file`.
    pub tls_ca_file: Option<PathBuf>,
    /// `tls.cert_file`.
    pub tls_cert_file: Option<PathBuf>,
    /// `tls.key_file`.
    pub tls_key_file: Option<PathBuf>,
}

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CtlFile {
    /// What holds without a context, and for what a context does not say.
    pub options: CtlOptions,
    /// `current_context`: the one that holds when no other is named.
    pub current_context: Option<String>,
    /// `contexts` in the order of the file.
    pub contexts: Vec<(String, CtlOptions)>,
}

impl CtlFile {
    /// Reads a file from `text`; `file_name` is only shown in findings. Without `sources`
    /// placeholders stay as they are, for a file that is to be written again.
    ///
    /// # Errors
    /// Everything that is wrong with the text, warnings included, in its order.
    pub fn parse(
        file_name: &str,
        text: &str,
        sources: Option<&dyn Sources>,
    ) -> Result<Self, Diagnostics> {
        let findings = Findings::new(file_name);
        let file = read(text, sources, &findings);
        let found = findings.finish();
        match file {
            Some(file) if found.errors().next().is_none() => Ok(file),
            _ => Err(found),
        }
    }

    /// Whether the text has a key of such a file at its top. A `config.yaml` in the folder where
    /// someone works may as well be that of a node.
    pub fn is_meant_by(text: &str) -> bool {
        let root = tree::parse(text, &Findings::new(""));
        let Some(Some(tree::Node { kind: Kind::Mapping(entries), .. })) = root else {
            return false;
        };
        entries.iter().any(|entry| TOP.contains(&entry.key.as_str()))
    }
}

fn read(text: &str, sources: Option<&dyn Sources>, findings: &Findings) -> Option<CtlFile> {
    let Some(mut root) = tree::parse(text, findings)? else {
        return Some(CtlFile::default());
    };
    if let Some(sources) = sources {
        sources::substitute(&mut root, sources, findings);
    }
    let mut section = Value { node: &root, path: String::new(), findings }.section()?;
    let own = read_options(&mut section);
    let common = section.optional("common_opts", read_all).unwrap_or_default();
    let current_context = section.optional("current_context", Value::owned_text);
    let contexts = section.optional("contexts", |value| {
        let contexts = value.pairs()?.into_iter();
        Some(contexts.filter_map(|(entry, v)| Some((entry.key.clone(), read_all(v)?))).collect())
    });
    section.finish();
    let contexts = contexts.unwrap_or_default();
    Some(CtlFile { options: own.or(common), current_context, contexts })
}

fn read_all(value: Value<'_>) -> Option<CtlOptions> {
    let mut section = value.section()?;
    let options = read_options(&mut section);
    section.finish();
    Some(options)
}

/// Keys of `tls` are read in both spellings: as a mapping, and with `tls_` before them.
fn read_options(section: &mut Section<'_>) -> CtlOptions {
    let flat = CtlOptions {
        server: given(section, "server", |v| v.filled_text().map(str::to_owned)),
        timeout: given(section, "timeout", |v| v.filled_text().map(str::to_owned)),
        basic_auth_creds: given(section, "basic_auth_creds", Value::secret),
        token: given(section, "token", Value::secret),
        token_file: given(section, "token_file", Value::file_path),
        tls_insecure: given(section, "tls_insecure", Value::boolean),
        tls_ca_file: given(section, "tls_ca_file", Value::file_path),
        tls_cert_file: given(section, "tls_cert_file", Value::file_path),
        tls_key_file: given(section, "tls_key_file", Value::file_path),
    };
    let nested = section.optional("tls", |value| {
        let mut section = value.section()?;
        let options = CtlOptions {
            tls_insecure: given(&mut section, "insecure", Value::boolean),
            tls_ca_file: given(&mut section, "ca_file", Value::file_path),
            tls_cert_file: given(&mut section, "cert_file", Value::file_path),
            tls_key_file: given(&mut section, "key_file", Value::file_path),
            ..CtlOptions::default()
        };
        section.finish();
        Some(options)
    });
    flat.or(nested.unwrap_or_default())
}

/// The value of `key`; a text without content says nothing, as later releases write them.
fn given<'a, T>(
    section: &mut Section<'a>,
    key: &'static str,
    read: impl FnOnce(Value<'a>) -> Option<T>,
) -> Option<T> {
    let empty =
        |value: &Value<'_>| matches!(&value.node.kind, Kind::Text(text) if text.text.is_empty());
    section.optional(key, |value| if empty(&value) { None } else { read(value) })
}

impl CtlOptions {
    /// What is said here, and for what is not said here, what `other` says. Credentials are one
    /// thing: those of `other` count only if there are none here.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let other = if self.has_credentials() { other.without_credentials() } else { other };
        Self {
            server: self.server.or(other.server),
            timeout: self.timeout.or(other.timeout),
            basic_auth_creds: self.basic_auth_creds.or(other.basic_auth_creds),
            token: self.token.or(other.token),
            token_file: self.token_file.or(other.token_file),
            tls_insecure: self.tls_insecure.or(other.tls_insecure),
            tls_ca_file: self.tls_ca_file.or(other.tls_ca_file),
            tls_cert_file: self.tls_cert_file.or(other.tls_cert_file),
            tls_key_file: self.tls_key_file.or(other.tls_key_file),
        }
    }

    fn has_credentials(&self) -> bool {
        self.basic_auth_creds.is_some() || self.token.is_some() || self.token_file.is_some()
    }

    fn without_credentials(self) -> Self {
        Self { basic_auth_creds: None, token: None, token_file: None, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::System;

    fn parse(text: &str) -> Result<CtlFile, Diagnostics> {
        CtlFile::parse("config.yaml", text, Some(&System))
    }

    #[test]
    fn the_spellings_of_all_releases_say_the_same() {
        let early = "server: a:1\ntimeout: 5s\ntls:\n  insecure: false\n  ca_file: ca.pem\n";
        let later = "common_opts:\n  server: a:1\n  timeout: 5s\n  tls_insecure: false\n  tls_ca_file: ca.pem\n";
        let file = parse(early).expect("valid");
        assert_eq!(file, parse(later).expect("valid"));
        assert_eq!(file.options.server.as_deref(), Some("a:1"));
        assert_eq!(file.options.tls_insecure, Some(false));
        for nothing in ["", "server: ''\ntls: { ca_file: '' }\nbasic_auth_creds: ''\n"] {
            assert_eq!(parse(nothing), Ok(CtlFile::default()));
        }
    }

    #[test]
    fn contexts_keep_their_order_and_their_placeholders_when_they_are_edited() {
        let text = "current_context: b\ncontexts:\n  b: { server: b:1 }\n  \
                    a: { token: '${env:SLIM_NO_SUCH}' }\n";
        let file = CtlFile::parse("config.yaml", text, None).expect("valid");
        let names: Vec<_> = file.contexts.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["b", "a"]);
        assert_eq!(file.contexts[1].1.token, Some(Secret::new("${env:SLIM_NO_SUCH}")));
        let error = parse(text).expect_err("no such variable").to_string();
        assert!(error.contains("config.yaml:4:15: contexts.a.token: "), "{error}");
    }

    #[test]
    fn a_slip_is_reported_and_the_file_of_a_node_is_told_apart() {
        let error = parse("sever: a:1\n").expect_err("a slip").to_string();
        assert!(error.contains("did you mean `server`?"), "{error}");
        assert!(!CtlFile::is_meant_by("services: {}\ntracing: {}\n"));
        assert!(!CtlFile::is_meant_by("not: [valid"));
        assert!(CtlFile::is_meant_by("server: a:1\nsevices: {}\n"));
    }

    #[test]
    fn credentials_of_another_kind_take_the_place_of_those_below() {
        let token = CtlOptions { token: Some(Secret::new("t")), ..CtlOptions::default() };
        let basic = CtlOptions {
            basic_auth_creds: Some(Secret::new("u:p")),
            server: Some("a:1".into()),
            ..CtlOptions::default()
        };
        let both = token.clone().or(basic);
        assert_eq!(both, CtlOptions { server: Some("a:1".into()), ..token });
    }

    #[test]
    fn every_key_at_the_top_is_one_that_is_read() {
        for key in TOP {
            let error = parse(&format!("{key}: [1]\n")).expect_err("no key is a list").to_string();
            assert!(!error.contains("unknown key"), "{key}: {error}");
        }
    }
}
