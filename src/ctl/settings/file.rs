use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use slim_config::{CtlFile, CtlOptions, Secret, Sources as _, System};

use crate::ctl::Error;
use crate::ctl::output::to_yaml;

/// Where the settings are, and where they would be put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A file that is there.
    There(PathBuf),
    /// There is none; new settings go here.
    Nowhere(PathBuf),
}

impl Place {
    /// `named` if given, else the first that there is of those in `home` and in this folder.
    pub(super) fn find(named: Option<&Path>, home: Option<&Path>) -> Self {
        if let Some(named) = named {
            return Self::There(named.to_owned());
        }
        let here = Path::new("config.yaml");
        let (early, later) = (".slimctl/config.yaml", ".config/slimctl/config.yaml");
        let in_home = home.into_iter().flat_map(|home| [home.join(early), home.join(later)]);
        let in_home: Vec<_> = in_home.collect();
        if let Some(there) = in_home.iter().find(|path| path.is_file()) {
            return Self::There(there.clone());
        }
        // It may as well be the file of a node that somebody starts in this folder.
        if System.file(here).is_ok_and(|text| CtlFile::is_meant_by(&text)) {
            return Self::There(here.to_owned());
        }
        Self::Nowhere(in_home.into_iter().next().unwrap_or_else(|| here.to_owned()))
    }

    pub(super) fn path(&self) -> &Path {
        let (Self::There(path) | Self::Nowhere(path)) = self;
        path
    }

    /// What the file says, with its placeholders replaced.
    pub(super) fn load(&self) -> Result<CtlFile, Error> {
        match self {
            Self::There(path) => parse(path, &read(path)?, true),
            Self::Nowhere(_) => Ok(CtlFile::default()),
        }
    }

    /// Changes what the file says, and writes it again as a whole.
    pub(super) fn edit(
        &self,
        change: impl FnOnce(&mut CtlFile) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let path = self.path();
        let mut file = match System.file(path) {
            Err(slim_config::SourceError::Io(error)) if error.kind() == ErrorKind::NotFound => {
                CtlFile::default()
            }
            text => parse(path, &text.map_err(|reason| Error::settings(path, reason))?, false)?,
        };
        change(&mut file)?;
        let later = path.parent().is_some_and(|folder| folder.ends_with(".config/slimctl"));
        save(path, &to_yaml(&value(&file, later))).map_err(|source| Error::file(path, source))
    }
}

fn read(path: &Path) -> Result<String, Error> {
    System.file(path).map_err(|reason| Error::settings(path, reason))
}

fn parse(path: &Path, text: &str, substitute: bool) -> Result<CtlFile, Error> {
    let sources = substitute.then_some(&System as _);
    let file = CtlFile::parse(&path.display().to_string(), text, sources);
    file.map_err(|findings| Error::Settings(findings.to_string()))
}

/// The file as a value: keys as release 0.6 has them, or as `later` ones.
fn value(file: &CtlFile, later: bool) -> Value {
    let own = options(&file.options, !later);
    let mut all = if later { Map::new() } else { own.clone() };
    if later && !own.is_empty() {
        all.insert("common_opts".into(), own.into());
    }
    if let Some(current) = &file.current_context {
        all.insert("current_context".into(), json!(current));
    }
    if !file.contexts.is_empty() {
        let contexts = file.contexts.iter();
        let contexts: Map<_, _> =
            contexts.map(|(name, own)| (name.clone(), options(own, !later).into())).collect();
        all.insert("contexts".into(), contexts.into());
    }
    all.into()
}

fn options(options: &CtlOptions, nested: bool) -> Map<String, Value> {
    let secret = |secret: &Option<Secret>| secret.as_ref().map(|s| json!(s.expose()));
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| json!(path));
    let text = |text: &Option<String>| text.as_ref().map(|text| json!(text));
    let given = |pairs: Vec<(String, Option<Value>)>| {
        pairs.into_iter().filter_map(|(key, value)| Some((key, value?))).collect::<Map<_, _>>()
    };
    let tls = |prefix: &str| {
        given(vec![
            (format!("{prefix}insecure"), options.tls_insecure.map(Value::from)),
            (format!("{prefix}ca_file"), path(&options.tls_ca_file)),
            (format!("{prefix}cert_file"), path(&options.tls_cert_file)),
            (format!("{prefix}key_file"), path(&options.tls_key_file)),
        ])
    };
    let mut all = given(vec![
        ("server".into(), text(&options.server)),
        ("timeout".into(), text(&options.timeout)),
        ("basic_auth_creds".into(), secret(&options.basic_auth_creds)),
        ("token".into(), secret(&options.token)),
        ("token_file".into(), path(&options.token_file)),
    ]);
    if !nested {
        all.extend(tls("tls_"));
    } else if let tls = tls("")
        && !tls.is_empty()
    {
        all.insert("tls".into(), tls.into());
    }
    all
}

/// Puts a new file in the place of the old one, for its owner alone: it may hold passwords.
fn save(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let new = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    let placed = written.and_then(|()| fs::rename(&new, path));
    if placed.is_err() {
        let _ = fs::remove_file(&new);
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_as_it_was_in_both_spellings() {
        let options = CtlOptions {
            server: Some("a:1".into()),
            timeout: Some("5s".into()),
            token: Some(Secret::new("${env:TOKEN}")),
            tls_insecure: Some(false),
            tls_ca_file: Some("ca \u{e9}.pem".into()),
            ..CtlOptions::default()
        };
        let contexts = vec![("no".to_owned(), options.clone()), ("prod".into(), options.clone())];
        let file = CtlFile { options, current_context: Some("no".into()), contexts };
        for later in [false, true] {
            let text = to_yaml(&value(&file, later));
            assert_eq!(text.contains("common_opts"), later);
            let read = CtlFile::parse("config.yaml", &text, None).expect("valid");
            assert_eq!(read, file, "{text}");
        }
        let empty = to_yaml(&value(&CtlFile::default(), true));
        let read = CtlFile::parse("config.yaml", &empty, None).expect("valid");
        assert_eq!(read, CtlFile::default());
    }
}
