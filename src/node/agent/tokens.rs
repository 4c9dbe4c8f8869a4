use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use slim_config::TokenSource as Configured;

use crate::identity::{ControlPlaneTokens, IdentityError, TokenSource};
use crate::trust::source_of;

/// By what apps know requests of the control plane (`controller.token_provider`).
pub(super) enum Tokens {
    /// Requests carry nothing; apps drop them.
    None,
    /// Apps of release 0.6 are shown the secret itself, as they expect; those of this library a
    /// proof.
    Secret(Box<ControlPlaneTokens>),
    /// One token for all apps.
    Token(Arc<dyn TokenSource>),
}

/// Where apps look for a sender's token.
const IDENTITY: &str = "SLIM_IDENTITY";

impl Tokens {
    /// As the configuration says.
    ///
    /// # Errors
    /// [`IdentityError::Config`].
    pub(super) fn of(configured: &Configured) -> Result<Self, IdentityError> {
        Ok(match configured {
            Configured::None => Self::None,
            Configured::SharedSecret(secret) => {
                Self::Secret(Box::new(ControlPlaneTokens::new(secret.expose(), &mut rand::rng())?))
            }
            Configured::StaticJwt(_) | Configured::Jwt(_) => Self::Token(source_of(configured)?),
        })
    }

    /// What a request carries to an app of release 0.6, and to one of this library.
    ///
    /// # Errors
    /// [`IdentityError`] if no token can be made.
    pub(super) fn metadata(&self) -> Result<[HashMap<String, String>; 2], IdentityError> {
        let with = |token: String| HashMap::from([(IDENTITY.to_owned(), token)]);
        let now = SystemTime::now();
        Ok(match self {
            Self::None => {
                let reason = "expected one, got none: apps drop requests without a token";
                return Err(IdentityError::config(reason));
            }
            Self::Secret(tokens) => {
                let native = tokens.native(now)?.to_string();
                // A secret that release 0.6 cannot take is that of native apps.
                let clear = tokens.v0_6(now)?.map_or_else(|| native.clone(), |t| t.to_string());
                [with(clear), with(native)]
            }
            Self::Token(source) => {
                let token = source.token(now)?.to_string();
                [with(token.clone()), with(token)]
            }
        })
    }
}
