use std::path::PathBuf;
use std::str::FromStr;

use serde_json::{Map, Value};
use slim_quic::client::{LinkOptions, Trust};

const TLS_KEYS: &str = "insecure, insecure_skip_verify, ca_file, ca_pem and server_name";

/// Where a node is, and by what it is known.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Endpoint {
    address: String,
    trust: Trust,
    server_name: Option<String>,
}

impl Endpoint {
    /// The address as it was given.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// How to connect.
    pub(crate) fn options(&self) -> LinkOptions {
        LinkOptions {
            trust: self.trust.clone(),
            server_name: self.server_name.clone(),
            ..LinkOptions::default()
        }
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.trim_start().starts_with('{') {
            let (trust, server_name) = (Trust::System, None);
            return Ok(Self { address: text.to_owned(), trust, server_name });
        }
        let mut keys: Map<String, Value> = serde_json::from_str(text)
            .map_err(|error| format!("expected JSON or an endpoint: {error}"))?;
        let address = take(&mut keys, "endpoint", "an address in quotes", string)?
            .ok_or("endpoint: expected an address, got none")?;
        let mut tls = take(&mut keys, "tls", "an object", object)?.unwrap_or_default();
        nothing_else(&keys, "", "endpoint and tls")?;
        let trust = trust(&mut tls, &address)?;
        let server_name = take(&mut tls, "server_name", "a host name in quotes", string)?;
        nothing_else(&tls, "tls.", TLS_KEYS)?;
        Ok(Self { address, trust, server_name })
    }
}

fn trust(tls: &mut Map<String, Value>, address: &str) -> Result<Trust, String> {
    let flag = "true or false";
    let insecure = take(tls, "insecure", flag, |value| value.as_bool())?.unwrap_or(false);
    let skip = take(tls, "insecure_skip_verify", flag, |value| value.as_bool())?.unwrap_or(false);
    let file = take(tls, "ca_file", "a path in quotes", string)?;
    let pem = take(tls, "ca_pem", "PEM text in quotes", string)?;
    if insecure && address.starts_with("https://") {
        return Err("tls.insecure: expected false with https://, got true; to accept any \
                    certificate there is tls.insecure_skip_verify"
            .into());
    }
    match (file, pem) {
        (Some(_), Some(_)) => Err("tls.ca_pem: expected none beside tls.ca_file".into()),
        // QUIC has no form without TLS: such a node's certificate is one of its own making.
        _ if insecure || skip => Ok(Trust::DangerAcceptAnyCertificate),
        (Some(path), None) => Ok(Trust::File(PathBuf::from(path))),
        (None, Some(text)) => Ok(Trust::Pem(text)),
        (None, None) => Ok(Trust::System),
    }
}

/// Takes the value of a key, which `read` has to understand.
fn take<T>(
    keys: &mut Map<String, Value>,
    key: &str,
    expected: &str,
    read: impl FnOnce(&Value) -> Option<T>,
) -> Result<Option<T>, String> {
    let Some(value) = keys.remove(key) else { return Ok(None) };
    match read(&value) {
        None => Err(format!("{key}: expected {expected}, got {value}")),
        found => Ok(found),
    }
}

fn string(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn object(value: &Value) -> Option<Map<String, Value>> {
    value.as_object().cloned()
}

fn nothing_else(keys: &Map<String, Value>, place: &str, known: &str) -> Result<(), String> {
    match keys.keys().next() {
        Some(key) => Err(format!("{place}{key}: no such key; known are {known}")),
        None => Ok(()),
    }
}
