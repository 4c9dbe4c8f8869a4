//! How a server is reached: what the command line, the environment and the settings file say, the
//! first before the others.

mod command;
mod duration;
mod environment;
mod file;
mod flags;

use std::path::PathBuf;
use std::time::Duration;

use slim_config::{CtlOptions, Secret};

pub(in crate::ctl) use self::command::Command;
use self::file::Place;
pub(in crate::ctl) use self::flags::Flags;
use super::Error;
use super::output::Format;

/// Time for a whole command.
const TIMEOUT: Duration = Duration::from_secs(15);

/// What holds for one command.
#[derive(Debug)]
pub(super) struct Settings {
    /// `host:port` or a URL; `None`: the default of the command.
    pub(super) server: Option<String>,
    pub(super) timeout: Duration,
    pub(super) credentials: Option<Credentials>,
    /// Whether plaintext was asked for, or TLS; `None`: neither.
    pub(super) insecure: Option<bool>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) cert_file: Option<PathBuf>,
    pub(super) key_file: Option<PathBuf>,
}

#[derive(Debug)]
pub(super) enum Credentials {
    /// User and password.
    Basic(Secret),
    /// A bearer token.
    Token(Secret),
    /// A file with one.
    TokenFile(PathBuf),
}

/// What one place says, and which.
struct Layer {
    source: String,
    options: CtlOptions,
}

/// All that is said, the highest first; and where the settings file is.
struct Layers {
    layers: Vec<Layer>,
    place: Place,
}

type Variable<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A variable of this process's environment.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn place(flags: &Flags, variable: Variable<'_>) -> Place {
    let given = |name: &str| variable(name).filter(|text| !text.is_empty()).map(PathBuf::from);
    let named = flags.config.clone().or_else(|| given("SLIMCTL_CONFIG"));
    Place::find(named.as_deref(), given("HOME").as_deref())
}

impl Layers {
    fn read(flags: &Flags, variable: Variable<'_>) -> Result<Self, Error> {
        let place = place(flags, variable);
        let file = place.load()?;
        let path = place.path().display();
        let mut layers = vec![
            Layer { source: "command line".into(), options: flags.options() },
            Layer { source: "environment".into(), options: environment::options(variable)? },
        ];
        let named = variable("SLIMCTL_CONTEXT").filter(|name| !name.is_empty());
        if let Some(name) = flags.context.clone().or(named).or(file.current_context) {
            let found = file.contexts.iter().find(|(known, _)| *known == name);
            let (_, options) = found.ok_or_else(|| {
                let known: Vec<_> = file.contexts.iter().map(|(name, _)| name.as_str()).collect();
                let known = if known.is_empty() { "none".into() } else { known.join(", ") };
                Error::argument("--context", format!("a context of {path} ({known})"), &name)
            })?;
            let source = format!("context {name} of {path}");
            layers.push(Layer { source, options: options.clone() });
        }
        layers.push(Layer { source: path.to_string(), options: file.options });
        Ok(Self { layers, place })
    }

    fn joined(&self) -> CtlOptions {
        let layers = self.layers.iter().map(|layer| layer.options.clone());
        layers.fold(CtlOptions::default(), CtlOptions::or)
    }
}

impl Settings {
    /// What holds with these flags.
    pub(super) fn read(flags: &Flags, variable: Variable<'_>) -> Result<Self, Error> {
        let options = Layers::read(flags, variable)?.joined();
        let timeout = options.timeout.map(|text| {
            duration::parse(&text).map_err(|expected| Error::argument("--timeout", expected, text))
        });
        Ok(Self {
            server: options.server,
            timeout: timeout.transpose()?.unwrap_or(TIMEOUT),
            credentials: credentials([
                options.basic_auth_creds.map(Credentials::Basic),
                options.token.map(Credentials::Token),
                options.token_file.map(Credentials::TokenFile),
            ])?,
            insecure: options.tls_insecure,
            ca_file: options.tls_ca_file,
            cert_file: options.tls_cert_file,
            key_file: options.tls_key_file,
        })
    }
}

/// The only one that is given.
fn credentials(given: [Option<Credentials>; 3]) -> Result<Option<Credentials>, Error> {
    let mut given = given.into_iter().flatten();
    match (given.next(), given.next()) {
        (only, None) => Ok(only),
        _ => Err(Error::Usage(
            "expected one of basic_auth_creds, token and token_file in one place, got several"
                .into(),
        )),
    }
}

impl Flags {
    /// The form of results.
    pub(super) fn format(&self) -> Format {
        self.output.unwrap_or_default()
    }
}
