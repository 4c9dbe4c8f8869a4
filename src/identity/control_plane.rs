//! Tokens of the control plane, which has apps moderate groups.

use std::sync::Arc;
use std::time::SystemTime;

use rand::Rng;

use super::{Compat, IdentityError, SharedSecret, TokenSource};

/// The subject of the control plane's tokens, unless apps are told another.
pub const CONTROL_PLANE: &str = "control-plane";

/// The tokens of a control plane that knows the secret of its apps, of both forms that apps may
/// take.
///
/// A message carries one token. To an app of this library, which over gRPC says so by its
/// `user-agent`, send the native one: it does not tell the secret, and all native apps take it. Any
/// other may be an app of release 0.6, which takes only the clear one: send it that. A node does
/// so, with one message each.
#[derive(Debug)]
pub struct ControlPlaneTokens {
    native: SharedSecret,
    v0_6: Option<SharedSecret>,
}

impl ControlPlaneTokens {
    /// By the apps' secret. With one that holds a `:`, which release 0.6 cannot take, there is no
    /// token of that release.
    ///
    /// # Errors
    /// [`IdentityError::EmptySecret`].
    pub fn new(secret: &str, rng: &mut dyn Rng) -> Result<Self, IdentityError> {
        let native = SharedSecret::new(CONTROL_PLANE, secret, Compat::Native, rng)?;
        let v0_6 = match secret.contains(':') {
            true => None,
            false => Some(SharedSecret::new(CONTROL_PLANE, secret, Compat::V0_6, rng)?),
        };
        Ok(Self { native, v0_6 })
    }

    /// The token that native apps take, for a message sent at `now`. It is good for an hour.
    ///
    /// # Errors
    /// As [`TokenSource::token`].
    pub fn native(&self, now: SystemTime) -> Result<Arc<str>, IdentityError> {
        self.native.token(now)
    }

    /// The token that apps of release 0.6 take: `secret:control-plane`. **Whoever sees it knows the
    /// secret.**
    ///
    /// # Errors
    /// As [`TokenSource::token`].
    pub fn v0_6(&self, now: SystemTime) -> Result<Option<Arc<str>>, IdentityError> {
        self.v0_6.as_ref().map(|tokens| tokens.token(now)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::identity::{Principal, TokenCheck};

    const NOW: SystemTime = UNIX_EPOCH;

    fn app(compat: Compat, seed: u64) -> SharedSecret {
        let mut rng = StdRng::seed_from_u64(seed);
        SharedSecret::new("client-9", "secret", compat, &mut rng).expect("an identity")
    }

    fn tokens(secret: &str) -> ControlPlaneTokens {
        ControlPlaneTokens::new(secret, &mut StdRng::seed_from_u64(7)).expect("a secret")
    }

    #[test]
    fn each_kind_of_app_takes_its_token_and_knows_whose_it_is() {
        let tokens = tokens("secret");
        let clear = tokens.v0_6(NOW).expect("a token").expect("the secret has no colon");
        assert_eq!(*clear, *"secret:control-plane");
        let native = tokens.native(NOW).expect("a token");
        assert!(!native.contains("secret"));
        let control_plane = Principal { subject: CONTROL_PLANE.into(), issuer: None };
        assert_eq!(app(Compat::Native, 1).check(&native, NOW), Ok(control_plane.clone()));
        assert_eq!(app(Compat::Native, 1).check(&clear, NOW), Err(IdentityError::Format));
        for token in [&native, &clear] {
            assert_eq!(app(Compat::V0_6, 2).check(token, NOW), Ok(control_plane.clone()));
        }
        let late = NOW + Duration::from_secs(3601);
        let expired = IdentityError::Expired { seconds: 1 };
        assert_eq!(app(Compat::Native, 1).check(&native, late), Err(expired));
    }

    #[test]
    fn a_secret_that_release_0_6_cannot_take_has_no_clear_token() {
        let tokens = tokens("a:b");
        assert_eq!(tokens.v0_6(NOW), Ok(None));
        assert!(tokens.native(NOW).is_ok());
        let empty = ControlPlaneTokens::new("", &mut StdRng::seed_from_u64(7));
        assert_eq!(empty.err(), Some(IdentityError::EmptySecret));
    }
}
