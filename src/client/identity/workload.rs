use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use spiffe::{JwtSource, JwtSourceError, JwtSvid};
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use crate::identity::{
    IdentityError, JwtCheck, JwtRules, Keys, Principal, Standing, StaticJwt, TokenCheck,
    TokenSource,
};

/// After a token could not be fetched, it is tried again so soon; nor is one fetched sooner.
const AGAIN: Duration = Duration::from_secs(5);

/// How to be a SPIFFE workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadOptions {
    /// The Workload API: `unix:PATH` or `tcp:IP:PORT`. Default: what the environment variable
    /// `SPIFFE_ENDPOINT_SOCKET` says.
    pub endpoint: Option<String>,
    /// Whom the app's tokens are for, and whom those of others have to be for. At least one.
    pub audience: Vec<String>,
    /// How long the first answer may take. Default 10 s.
    pub timeout: Duration,
}

impl Default for WorkloadOptions {
    fn default() -> Self {
        Self { endpoint: None, audience: Vec::new(), timeout: Duration::from_secs(10) }
    }
}

/// A SPIFFE workload: its JWT-SVIDs, renewed at half their time, and the keys of its trust domain
/// and those federated with it, as the agent announces them.
pub struct Workload {
    jwt: Arc<StaticJwt>,
    check: Arc<JwtCheck>,
    _task: AbortOnDropHandle<()>,
}

impl Workload {
    /// Connects to the Workload API, from the current tokio runtime, and waits for keys and a
    /// token.
    ///
    /// # Errors
    /// [`IdentityError::Unavailable`], [`IdentityError::Config`] without an audience.
    pub async fn connect(options: WorkloadOptions) -> Result<Self, IdentityError> {
        let WorkloadOptions { endpoint, audience, timeout } = options;
        if audience.is_empty() {
            return Err(IdentityError::config("audience: expected at least one, got none"));
        }
        let mut builder = JwtSource::builder().initial_sync_timeout(timeout);
        if let Some(endpoint) = endpoint {
            builder = builder.endpoint(endpoint);
        }
        let source = builder.build().await.map_err(|error| unavailable(&error))?;
        let svid = tokio::time::timeout(timeout, source.fetch_jwt_svid(&audience)).await;
        let svid = svid.map_err(|_| unavailable(&format!("no token after {timeout:?}")))?;
        let svid = svid.map_err(|error| unavailable(&error))?;
        let jwt = Arc::new(StaticJwt::new(svid.token())?);
        let rules = JwtRules {
            audience: audience.clone(),
            require_audience: true,
            require_subject: true,
            ..JwtRules::default()
        };
        let check = Arc::new(JwtCheck::new(keys(&source)?, rules));
        let renewal = renew(source, audience, svid, Arc::clone(&jwt), Arc::clone(&check));
        Ok(Self { jwt, check, _task: AbortOnDropHandle::new(tokio::spawn(renewal)) })
    }
}

async fn renew(
    source: JwtSource,
    audience: Vec<String>,
    svid: JwtSvid,
    jwt: Arc<StaticJwt>,
    check: Arc<JwtCheck>,
) {
    let mut updates = source.updated();
    let mut pause = half_of(&svid);
    loop {
        let due = tokio::time::sleep(pause);
        tokio::pin!(due);
        // News of keys must not put the token off.
        loop {
            tokio::select! {
                () = &mut due => break,
                news = updates.changed() => match news {
                    Ok(_) => match keys(&source) {
                        Ok(keys) => check.replace_keys(keys),
                        Err(error) => warn!(%error, "keys of the trust domains are kept"),
                    },
                    Err(error) => {
                        warn!(%error, "the Workload API is gone; tokens are no longer renewed");
                        return;
                    }
                },
            }
        }
        let fetched = source.fetch_jwt_svid(&audience).await;
        pause = match &fetched {
            Ok(svid) => half_of(svid),
            Err(_) => AGAIN,
        };
        let taken = fetched.map_err(|error| unavailable(&error));
        if let Err(error) = taken.and_then(|svid| jwt.replace(svid.token())) {
            warn!(%error, "the app's token is not renewed");
        }
    }
}

fn half_of(svid: &JwtSvid) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let expiry = u64::try_from(svid.expiry().unix_timestamp()).unwrap_or(0);
    Duration::from_secs(expiry.saturating_sub(now) / 2).max(AGAIN)
}

/// The agent's keys; none if it has withdrawn them.
fn keys(source: &JwtSource) -> Result<Keys, IdentityError> {
    let bundles = match source.bundle_set() {
        Ok(bundles) => bundles,
        Err(JwtSourceError::Withdrawn(_)) => return Keys::domains([]),
        Err(error) => return Err(unavailable(&error)),
    };
    let sets = bundles.iter().map(|(domain, bundle)| {
        let keys = bundle.jwt_authorities().map(|key| String::from_utf8_lossy(key.jwk_json()));
        let keys = keys.collect::<Vec<_>>().join(",");
        (domain.as_str().to_owned(), format!(r#"{{"keys":[{keys}]}}"#))
    });
    Keys::domains(sets)
}

fn unavailable(error: &dyn fmt::Display) -> IdentityError {
    IdentityError::Unavailable { reason: format!("SPIFFE Workload API: {error}") }
}

impl TokenSource for Workload {
    fn token(&self, now: SystemTime) -> Result<Arc<str>, IdentityError> {
        self.jwt.token(now)
    }
}

impl TokenCheck for Workload {
    fn check(&self, token: &str, now: SystemTime) -> Result<Principal, IdentityError> {
        self.check.check(token, now)
    }

    fn check_credential(
        &self,
        credential: &str,
        key: &[u8],
        standing: Standing,
        now: SystemTime,
    ) -> Result<Principal, IdentityError> {
        self.check.check_credential(credential, key, standing, now)
    }
}

impl fmt::Debug for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workload").field("check", &self.check).finish_non_exhaustive()
    }
}
