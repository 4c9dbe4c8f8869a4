//! Identities of apps, with what they need from files and the network.
//!
//! ```no_run
//! use slim_quic::identity::Identity;
//!
//! # fn example() -> Result<(), slim_quic::identity::IdentityError> {
//! // By a secret that all apps share:
//! let identity = Identity::shared_secret("alice", "a secret of at least 32 bytes, please")?;
//! // By a token and a trust bundle that spiffe-helper writes and renews:
//! let audience = ["slim-demo".to_owned()];
//! let identity = Identity::static_jwt_with_trust_bundle("jwt_svid.token", "bundle.json", &audience)?;
//! # Ok(())
//! # }
//! ```

mod workload;

use std::path::Path;
use std::sync::Arc;

use rand::rngs::StdRng;

pub use self::workload::{Workload, WorkloadOptions};
use crate::identity::{
    Compat, Identity, IdentityError, Jwt, JwtCheck, JwtRules, SharedSecret, TokenCheck, TokenSource,
};
pub use crate::trust::{IssuerKeys, IssuerOptions, JwtFile, KeyFile, KeyForm};

impl Identity {
    /// By a secret that all apps share and none sends; see [`SharedSecret`].
    ///
    /// # Errors
    /// [`IdentityError::EmptySecret`], [`IdentityError::Config`].
    pub fn shared_secret(identity: &str, secret: &str) -> Result<Self, IdentityError> {
        Self::with_secret(identity, secret, Compat::Native)
    }

    /// By a secret, with apps of releases 0.4 to 0.6 too. **Every node and every member sees the
    /// secret**; see [`Compat::V0_6`].
    ///
    /// # Errors
    /// [`IdentityError::EmptySecret`], [`IdentityError::Config`].
    pub fn shared_secret_v0_6(identity: &str, secret: &str) -> Result<Self, IdentityError> {
        Self::with_secret(identity, secret, Compat::V0_6)
    }

    fn with_secret(identity: &str, secret: &str, compat: Compat) -> Result<Self, IdentityError> {
        let mut rng: StdRng = rand::make_rng();
        let shared = Arc::new(SharedSecret::new(identity, secret, compat, &mut rng)?);
        Ok(Self::new(Arc::clone(&shared) as Arc<dyn TokenSource>, shared))
    }

    /// By JWTs that the app signs, and the keys of the others.
    pub fn jwt(source: Jwt, check: JwtCheck) -> Self {
        Self::new(Arc::new(source), Arc::new(check))
    }

    /// By a JWT in a file, and the keys of a SPIRE trust bundle in another, for tokens with any of
    /// these audiences. Both files are read again when they change.
    ///
    /// # Errors
    /// [`IdentityError::Config`].
    pub fn static_jwt_with_trust_bundle(
        jwt: impl AsRef<Path>,
        bundle: impl AsRef<Path>,
        audience: &[String],
    ) -> Result<Self, IdentityError> {
        let source = JwtFile::open(jwt)?;
        let rules = JwtRules { audience: audience.to_vec(), ..JwtRules::default() };
        let check = KeyFile::open(bundle, KeyForm::TrustBundle, rules)?;
        Ok(Self::new(Arc::new(source), Arc::new(check)))
    }

    /// As a SPIFFE workload, by the Workload API.
    ///
    /// # Errors
    /// [`IdentityError::Unavailable`] without an answer in time.
    pub async fn workload(options: WorkloadOptions) -> Result<Self, IdentityError> {
        let workload = Arc::new(Workload::connect(options).await?);
        Ok(Self::new(Arc::clone(&workload) as Arc<dyn TokenSource>, workload))
    }

    fn new(source: Arc<dyn TokenSource>, check: Arc<dyn TokenCheck>) -> Self {
        Self { source, check }
    }
}
