use slim_config::{Algorithm as Configured, KeyData, KeyFormat, KeySource};
use zeroize::Zeroizing;

use super::file::read_keys;
use crate::identity::{Algorithm, IdentityError, Keys};

/// The key of a configuration as it was read: PEM, JWK or JWKS, of whose content nothing is known
/// yet.
#[derive(PartialEq, Eq)]
pub struct KeyText(Zeroizing<String>);

impl KeyText {
    /// What the configuration names.
    ///
    /// # Errors
    /// [`IdentityError::Config`] for a file that cannot be read.
    pub fn read(key: &KeyData) -> Result<Self, IdentityError> {
        match &key.source {
            KeySource::File(path) => read_keys(path).map(Self),
            KeySource::Text(text) => Ok(Self(Zeroizing::new(text.expose().to_owned()))),
        }
    }

    /// The keys that check tokens, of the configured algorithm only.
    ///
    /// # Errors
    /// [`IdentityError`] if there are none.
    pub fn keys(&self, key: &KeyData) -> Result<Keys, IdentityError> {
        let hmac =
            matches!(key.algorithm, Configured::Hs256 | Configured::Hs384 | Configured::Hs512);
        let keys = match key.format {
            KeyFormat::Pem if hmac => Keys::secret(&self.0),
            KeyFormat::Pem => Keys::pem(&self.0),
            KeyFormat::Jwk => Keys::jwk(&self.0),
            KeyFormat::Jwks => Keys::jwks(&self.0),
        };
        let keys = keys.and_then(|keys| keys.only(algorithm(key.algorithm)));
        match (keys, &key.source) {
            (Err(IdentityError::Config { reason }), KeySource::File(path)) => {
                Err(IdentityError::config(format!("{}: {reason}", path.display())))
            }
            (keys, _) => keys,
        }
    }
}

/// The algorithm of that name.
pub(super) fn algorithm(configured: Configured) -> Algorithm {
    match configured {
        Configured::Hs256 => Algorithm::HS256,
        Configured::Hs384 => Algorithm::HS384,
        Configured::Hs512 => Algorithm::HS512,
        Configured::Rs256 => Algorithm::RS256,
        Configured::Rs384 => Algorithm::RS384,
        Configured::Rs512 => Algorithm::RS512,
        Configured::Ps256 => Algorithm::PS256,
        Configured::Ps384 => Algorithm::PS384,
        Configured::Ps512 => Algorithm::PS512,
        Configured::Es256 => Algorithm::ES256,
        Configured::Es384 => Algorithm::ES384,
        Configured::EdDsa => Algorithm::EdDSA,
    }
}
