use clap::Subcommand;
use serde_json::{Value, json};
use slim_config::{CtlFile, CtlOptions, Secret};

use super::environment::boolean;
use super::{Flags, Layers, Variable, duration, place};
use crate::ctl::Error;
use crate::ctl::output::{Answer, Table, shown};

/// `slimctl config`: the settings file.
#[derive(Debug, Subcommand)]
pub(in crate::ctl) enum Command {
    /// Show every setting that holds, and where it comes from
    #[command(visible_alias = "ls")]
    List,
    /// Write a setting into the file; with --context NAME into that context, which is made if
    /// there is none
    ///
    /// Comments in the file are lost. Keys: server, timeout, basic-auth-creds, token, token-file,
    /// tls-insecure, tls-ca-file, tls-cert-file, tls-key-file.
    Set {
        /// Which setting
        key: String,
        /// Its value; an empty one removes the setting
        value: String,
    },
    /// List the contexts of the file; the one that holds has a star
    GetContexts,
    /// Let a context hold from now on
    UseContext {
        /// Which
        name: String,
    },
    /// Remove a context from the file
    DeleteContext {
        /// Which
        name: String,
    },
}

impl Command {
    pub(in crate::ctl) fn run(
        &self,
        flags: &Flags,
        variable: Variable<'_>,
    ) -> Result<Answer, Error> {
        match self {
            Self::List => list(flags, variable),
            Self::Set { key, value } => set(flags, variable, key, value),
            Self::GetContexts => contexts(&place(flags, variable).load()?),
            Self::UseContext { name } => {
                let place = place(flags, variable);
                place.edit(|file| {
                    known(file, name)?;
                    file.current_context = Some(name.clone());
                    Ok(())
                })?;
                let name = shown(name);
                let text = format!("Switched to context {name}\n");
                Ok(Answer::plain(text, json!({ "current_context": name })))
            }
            Self::DeleteContext { name } => {
                let place = place(flags, variable);
                place.edit(|file| {
                    file.contexts.remove(known(file, name)?);
                    file.current_context.take_if(|current| current == name);
                    Ok(())
                })?;
                let text = format!("Deleted context {}\n", shown(name));
                Ok(Answer::plain(text, json!({ "deleted_context": name })))
            }
        }
    }
}

fn known(file: &CtlFile, name: &str) -> Result<usize, Error> {
    let found = file.contexts.iter().position(|(known, _)| known == name);
    found.ok_or_else(|| {
        let names: Vec<_> = file.contexts.iter().map(|(name, _)| name.as_str()).collect();
        let names = if names.is_empty() { "none there".into() } else { names.join(", ") };
        Error::argument("NAME", format!("a context of the file ({names})"), name)
    })
}

fn list(flags: &Flags, variable: Variable<'_>) -> Result<Answer, Error> {
    let layers = Layers::read(flags, variable)?;
    let mut table = Table::new(&["SETTING", "VALUE", "FROM"], ("setting", "settings"));
    let mut settings = serde_json::Map::new();
    for (key, value) in fields(&layers.joined()) {
        let Some(value) = value else { continue };
        let said =
            |options: &CtlOptions| fields(options).iter().any(|(k, v)| *k == key && v.is_some());
        let source = layers.layers.iter().find(|layer| said(&layer.options));
        let source = source.map(|layer| layer.source.clone()).unwrap_or_default();
        let text = value.as_str().map_or_else(|| value.to_string(), shown);
        table.push(vec![key.to_owned(), text, shown(&source)]);
        settings.insert(key.to_owned(), json!({ "value": value, "from": source }));
    }
    let path = layers.place.path();
    let text = format!("File: {}\n{table}", shown(&path.display().to_string()));
    let value = json!({ "file": path, "settings": settings });
    Ok(Answer { text, table: Some(table), value })
}

/// Every setting for people: what is secret is not shown.
fn fields(options: &CtlOptions) -> [(&'static str, Option<Value>); 9] {
    let hidden = |secret: &Option<Secret>| secret.as_ref().map(|secret| json!(secret.to_string()));
    [
        ("server", options.server.as_ref().map(|v| json!(v))),
        ("timeout", options.timeout.as_ref().map(|v| json!(v))),
        ("basic-auth-creds", hidden(&options.basic_auth_creds)),
        ("token", hidden(&options.token)),
        ("token-file", options.token_file.as_ref().map(|v| json!(v))),
        ("tls-insecure", options.tls_insecure.map(|v| json!(v))),
        ("tls-ca-file", options.tls_ca_file.as_ref().map(|v| json!(v))),
        ("tls-cert-file", options.tls_cert_file.as_ref().map(|v| json!(v))),
        ("tls-key-file", options.tls_key_file.as_ref().map(|v| json!(v))),
    ]
}

fn set(flags: &Flags, variable: Variable<'_>, key: &str, value: &str) -> Result<Answer, Error> {
    let place = place(flags, variable);
    place.edit(|file| {
        let Some(context) = &flags.context else {
            return put(&mut file.options, key, value);
        };
        let found = file.contexts.iter().position(|(name, _)| name == context);
        let index = found.unwrap_or_else(|| {
            file.contexts.push((context.clone(), CtlOptions::default()));
            file.contexts.len() - 1
        });
        put(&mut file.contexts[index].1, key, value)
    })?;
    let path = place.path();
    let text = format!("Set {} in {}\n", shown(key), shown(&path.display().to_string()));
    Ok(Answer::plain(text, json!({ "set": key, "context": flags.context, "file": path })))
}

fn put(options: &mut CtlOptions, key: &str, value: &str) -> Result<(), Error> {
    let text = (!value.is_empty()).then(|| value.to_owned());
    match key.replace('_', "-").as_str() {
        "server" => options.server = text,
        "timeout" => {
            if let Err(expected) = duration::parse(value)
                && text.is_some()
            {
                return Err(Error::argument("timeout", expected, value));
            }
            options.timeout = text;
        }
        "basic-auth-creds" => options.basic_auth_creds = text.map(Secret::new),
        "token" => options.token = text.map(Secret::new),
        "token-file" => options.token_file = text.map(Into::into),
        "tls-insecure" => {
            let truth = text.map(|text| {
                let expected = "`true` or `false`";
                boolean(&text).ok_or_else(|| Error::argument("tls-insecure", expected, text))
            });
            options.tls_insecure = truth.transpose()?;
        }
        "tls-ca-file" => options.tls_ca_file = text.map(Into::into),
        "tls-cert-file" => options.tls_cert_file = text.map(Into::into),
        "tls-key-file" => options.tls_key_file = text.map(Into::into),
        _ => {
            let known = fields(options).map(|(key, _)| key).join(", ");
            return Err(Error::argument("KEY", format!("one of {known}"), key));
        }
    }
    Ok(())
}

fn contexts(file: &CtlFile) -> Result<Answer, Error> {
    let mut table = Table::new(&["CURRENT", "NAME", "SERVER"], ("context", "contexts"));
    let mut text = String::new();
    let mut values = Vec::new();
    for (name, options) in &file.contexts {
        let current = file.current_context.as_ref() == Some(name);
        let server = options.server.clone().unwrap_or_default();
        let star = if current { "*" } else { "" };
        text.push_str(&format!("{star:1} {}\n", shown(name)));
        values.push(json!({ "name": name, "current": current, "server": options.server }));
        table.push(vec![star.to_owned(), shown(name), shown(&server)]);
    }
    Ok(Answer { text, table: Some(table), value: json!({ "contexts": values }) })
}
