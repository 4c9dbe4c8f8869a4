//! Commands that look into one node, through its admin endpoint.

mod explain;
mod top;

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use reqwest::{Client, StatusCode, Url, redirect};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use serde::de::DeserializeOwned;
use serde_json::Value;

pub(super) use self::explain::Explain;
pub(super) use self::top::Top;
use super::Error;
use super::output::{Format, shown};

/// Longest answer that is read, in bytes.
const ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// How long a node may take to answer.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Which node, and how the result is shown.
#[derive(Args, Debug)]
pub(super) struct At {
    /// The node's admin endpoint, as http://HOST:PORT or HOST:PORT
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:46359")]
    admin: String,
    /// Form of the result
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t)]
    output: Format,
}

/// The admin endpoint of a node.
struct Admin {
    client: Client,
    base: Url,
}

impl Admin {
    fn new(text: &str) -> Result<Self, Error> {
        let wrong = || Error::argument("--admin", "http://HOST:PORT", text);
        let url = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let base = Url::parse(&url).map_err(|_| wrong())?;
        if !matches!(base.scheme(), "http" | "https") || !base.has_host() {
            return Err(wrong());
        }
        let mut roots = RootCertStore::empty();
        if base.scheme() == "https" {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::connect(text, error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .timeout(TIMEOUT)
            .build()
            .map_err(|error| Error::connect(text, error))?;
        Ok(Self { client, base })
    }

    /// What the node answers at a path: as it came, and as `T`.
    async fn ask<T: DeserializeOwned>(
        &self,
        what: &'static str,
        path: &str,
        parameters: &[(&str, &str)],
    ) -> Result<(Value, T), Error> {
        let mut url = self.base.clone();
        url.set_path(path);
        url.query_pairs_mut().extend_pairs(parameters);
        let failed = |error: reqwest::Error| Error::connect(&self.base, Causes(error));
        let mut response = self.client.get(url).send().await.map_err(failed)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(failed)? {
            body.extend_from_slice(&part);
            if body.len() > ANSWER_BYTES {
                let text = format!("expected at most {ANSWER_BYTES} bytes, got more");
                return Err(Error::Refused { what, text });
            }
        }
        if status == StatusCode::NOT_FOUND {
            let text = format!("this node does not answer {path}; it may be of another release");
            return Err(Error::Refused { what, text });
        }
        let value: Result<Value, _> = serde_json::from_slice(&body);
        if status == StatusCode::BAD_REQUEST
            && let Ok(value) = &value
            && let Some(reason) = value["error"].as_str()
        {
            return Err(Error::Usage(shown(reason)));
        }
        let refused = |text: String| Error::Refused { what, text: shown(&text) };
        if !status.is_success() {
            return Err(refused(format!("the node answered {status}")));
        }
        let value = value.map_err(|error| refused(format!("expected JSON: {error}")))?;
        let read = T::deserialize(&value).map_err(|error| refused(error.to_string()))?;
        Ok((value, read))
    }
}

/// An error of the client with what caused it.
#[derive(Debug)]
struct Causes(reqwest::Error);

impl std::fmt::Display for Causes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&super::connect::chain(&self.0))
    }
}

impl std::error::Error for Causes {}
