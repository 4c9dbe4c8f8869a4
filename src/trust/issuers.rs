use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use reqwest::{Client, Url, redirect};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use crate::identity::{IdentityError, JwtCheck, JwtRules, Keys, Principal, Standing, TokenCheck};

/// Longest answer of an issuer, in bytes.
const ANSWER_BYTES: usize = 256 * 1024;

/// An issuer is not asked again sooner than this.
const AGAIN: Duration = Duration::from_secs(10);

/// So many issuers are remembered as asked, and no other is asked meanwhile.
const ASKED: usize = 256;

/// So many are asked at a time, and as many wait.
const AT_A_TIME: usize = 8;

/// Whose keys to fetch, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerOptions {
    /// The only issuers to ask and believe. Without a list, as by default, everybody who can
    /// publish a key set is believed, unless [`JwtRules::issuer`] names one; see
    /// [`Keys::issuers`].
    pub allowed: Option<Vec<String>>,
    /// A PEM file with the authorities that issuers' certificates are signed by. Default: those of
    /// the system.
    pub ca_file: Option<PathBuf>,
    /// How long asking one issuer may take in all. Default 5 s.
    pub timeout: Duration,
}

impl Default for IssuerOptions {
    fn default() -> Self {
        Self { allowed: None, ca_file: None, timeout: Duration::from_secs(5) }
    }
}

/// Judges JWTs by the keys that their issuers publish.
///
/// An issuer is an `https` URL; `http` is taken on loopback only. Its keys are those at the
/// `jwks_uri` of its OpenID configuration, or else at `/.well-known/jwks.json`. They are fetched in
/// the background when a token asks for them, and a token that comes before them is refused with
/// [`IdentityError::NoKeys`]: [`IssuerKeys::fetch`] avoids that.
#[derive(Debug)]
pub struct IssuerKeys {
    check: Arc<JwtCheck>,
    fetcher: Arc<Fetcher>,
    wanted: mpsc::Sender<String>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Fetcher {
    client: Client,
    timeout: Duration,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: Option<String>,
    jwks_uri: String,
}

impl IssuerKeys {
    /// Starts on the current tokio runtime.
    ///
    /// # Errors
    /// [`IdentityError::Config`] if [`IssuerOptions::ca_file`] cannot be used.
    pub fn start(rules: JwtRules, options: IssuerOptions) -> Result<Self, IdentityError> {
        let client = Client::builder()
            .tls_backend_preconfigured(tls(options.ca_file.as_deref())?)
            // An issuer vouches for its own keys, not for where else to look for some.
            .redirect(redirect::Policy::none())
            .no_proxy()
            .user_agent(concat!("slim-quic/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| unusable(&error))?;
        let fetcher = Arc::new(Fetcher { client, timeout: options.timeout });
        let check = Arc::new(JwtCheck::new(Keys::issuers(options.allowed), rules));
        let (wanted, waiting) = mpsc::channel(AT_A_TIME);
        let task = tokio::spawn(serve(Arc::clone(&fetcher), Arc::clone(&check), waiting));
        Ok(Self { check, fetcher, wanted, _task: AbortOnDropHandle::new(task) })
    }

    /// Fetches the keys of an issuer now.
    ///
    /// # Errors
    /// [`IdentityError::Unavailable`] if they cannot be had, [`IdentityError::Config`] if the
    /// issuer is none of the list.
    pub async fn fetch(&self, issuer: &str) -> Result<(), IdentityError> {
        learn(&self.fetcher, &self.check, issuer).await
    }

    fn ask(&self, token: &str, now: SystemTime) {
        if let Some(issuer) = self.check.missing_issuer(token, now) {
            // If too many wait, a later token asks again.
            let _ = self.wanted.try_send(issuer);
        }
    }
}

impl TokenCheck for IssuerKeys {
    fn check(&self, token: &str, now: SystemTime) -> Result<Principal, IdentityError> {
        self.ask(token, now);
        self.check.check(token, now)
    }

    fn check_credential(
        &self,
        credential: &str,
        key: &[u8],
        standing: Standing,
        now: SystemTime,
    ) -> Result<Principal, IdentityError> {
        self.ask(credential, now);
        self.check.check_credential(credential, key, standing, now)
    }
}

async fn serve(fetcher: Arc<Fetcher>, check: Arc<JwtCheck>, mut waiting: mpsc::Receiver<String>) {
    let mut asked = HashMap::new();
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            issuer = waiting.recv(), if running.len() < AT_A_TIME => {
                let Some(issuer) = issuer else { return };
                asked.retain(|_, at: &mut Instant| at.elapsed() < AGAIN);
                if asked.len() >= ASKED || asked.contains_key(&issuer) {
                    continue;
                }
                asked.insert(issuer.clone(), Instant::now());
                let (fetcher, check) = (Arc::clone(&fetcher), Arc::clone(&check));
                running.spawn(async move {
                    match learn(&fetcher, &check, &issuer).await {
                        Ok(()) => debug!(issuer, "keys of an issuer fetched"),
                        Err(error) => warn!(%error, "keys of an issuer cannot be fetched"),
                    }
                });
            }
            Some(_) = running.join_next() => {}
        }
    }
}

async fn learn(fetcher: &Fetcher, check: &JwtCheck, issuer: &str) -> Result<(), IdentityError> {
    check.allow_issuer(issuer)?;
    let unavailable = |reason: String| IdentityError::Unavailable {
        reason: format!("keys of issuer {issuer:?}: {reason}"),
    };
    let keys = tokio::time::timeout(fetcher.timeout, fetcher.fetch(issuer)).await;
    let late = |_| format!("no answer after {:?}", fetcher.timeout);
    let keys = keys.map_err(late).and_then(|keys| keys).map_err(unavailable)?;
    check.learn(issuer, &keys, SystemTime::now())
}

impl Fetcher {
    async fn fetch(&self, issuer: &str) -> Result<String, String> {
        let (plain, base) = (url(issuer, true)?.scheme() == "http", issuer.trim_end_matches('/'));
        let known = |path| url(&format!("{base}/.well-known/{path}"), plain);
        let configuration = self.text(known("openid-configuration")?).await.ok();
        let discovery = configuration.and_then(|text| serde_json::from_str(&text).ok());
        let Some(Discovery { issuer: own, jwks_uri }) = discovery else {
            return self.text(known("jwks.json")?).await;
        };
        if own.is_some_and(|own| own.trim_end_matches('/') != base) {
            return Err("OpenID configuration: it is that of another issuer".into());
        }
        self.text(url(&jwks_uri, plain)?).await
    }

    async fn text(&self, url: Url) -> Result<String, String> {
        let answer =
            self.client.get(url).send().await.and_then(reqwest::Response::error_for_status);
        let mut answer = answer.map_err(|error| error.to_string())?;
        if !answer.status().is_success() {
            return Err(format!("expected an answer with content, got status {}", answer.status()));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| error.to_string())? {
            if bytes.len() + chunk.len() > ANSWER_BYTES {
                return Err(format!("expected at most {ANSWER_BYTES} bytes"));
            }
            bytes.extend_from_slice(&chunk);
        }
        String::from_utf8(bytes).map_err(|_| "expected UTF-8".into())
    }
}

/// An address that keys may come from. Without TLS they could be anybody's, unless they stay on
/// this machine; and nobody elsewhere may choose what to ask here.
fn url(text: &str, plain: bool) -> Result<Url, String> {
    let wrong = || format!("expected an https URL, or http on loopback, got {text:?}");
    let url = Url::parse(text).map_err(|_| wrong())?;
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let loopback = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    let bare = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    let reachable = url.scheme() == "https" || (plain && url.scheme() == "http" && loopback);
    if bare && reachable && !host.is_empty() { Ok(url) } else { Err(wrong()) }
}

fn tls(ca_file: Option<&Path>) -> Result<ClientConfig, IdentityError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca_file {
        let wrong = |reason: &dyn std::fmt::Display| {
            unusable(&format!("authorities in {}: {reason}", path.display()))
        };
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))? {
            let certificate = certificate.map_err(|error| wrong(&error))?;
            roots.add(certificate).map_err(|error| wrong(&error))?;
        }
        if roots.is_empty() {
            return Err(wrong(&"expected at least one certificate, got none"));
        }
    } else {
        // Systems carry certificates that no library takes; the others will do.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_root_certificates(roots).with_no_client_auth())
        .map_err(|error| unusable(&error))
}

fn unusable(error: &dyn std::fmt::Display) -> IdentityError {
    IdentityError::Config { reason: format!("fetching keys of issuers: {error}") }
}

#[cfg(test)]
mod tests {
    use super::url;

    #[test]
    fn keys_come_over_tls_or_from_this_machine() {
        let taken = ["https://issuer.example/a", "http://127.0.0.1:8080", "http://[::1]/x"];
        for text in taken {
            assert!(url(text, true).is_ok(), "{text}");
        }
        let refused = [
            "http://issuer.example",
            "http://127.0.0.1.example",
            "http://10.0.0.1",
            "https://user:password@issuer.example",
            "https://issuer.example/#",
            "file:///etc/passwd",
            "issuer",
            "",
        ];
        for text in refused {
            assert!(url(text, true).is_err(), "{text}");
        }
        assert!(url("http://127.0.0.1:8080", false).is_err(), "an issuer elsewhere");
    }
}
