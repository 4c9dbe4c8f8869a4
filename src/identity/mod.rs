//! Who an app is: tokens made and checked.
//!
//! Every message of a session carries a token of its sender, and in encrypted sessions each
//! member's MLS credential is one. A [`TokenSource`] makes those of this app, a [`TokenCheck`]
//! judges those of others. Both are given the time; what they need from files or the network is
//! brought to them.
//!
//! | kind | made by | judged by |
//! |---|---|---|
//! | shared secret | [`SharedSecret`] | [`SharedSecret`] |
//! | JWT with a key of the app | [`Jwt`] | [`JwtCheck`] |
//! | JWT that somebody else issues | [`StaticJwt`] | [`JwtCheck`] |
//!
//! The keys of a [`JwtCheck`] are [`Keys`]: one key, a set, a SPIRE trust bundle, or those of
//! issuers, which are learned as their tokens arrive.

#[cfg(test)]
mod captured;
mod control_plane;
mod error;
mod jwt;
mod shared_secret;

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

pub use self::control_plane::{CONTROL_PLANE, ControlPlaneTokens};
pub use self::error::IdentityError;
pub use self::jwt::{Algorithm, Jwt, JwtCheck, JwtClaims, JwtRules, Keys, SigningKey, StaticJwt};
pub use self::shared_secret::{Compat, SharedSecret};

/// Longest token that is taken, in bytes; a longer one is refused unread.
pub const TOKEN_BYTES: usize = 16 * 1024;

/// Makes the tokens of an app.
pub trait TokenSource: Send + Sync {
    /// A token for a message sent at `now`. The same text may be returned as long as it is fresh
    /// enough for every peer.
    ///
    /// # Errors
    /// [`IdentityError`] if there is none, or none that is still valid.
    fn token(&self, now: SystemTime) -> Result<Arc<str>, IdentityError>;

    /// The token to be the MLS credential beside the public signature key `key`. It must differ
    /// from that of every other member, and it stays the same for as long as the session lasts:
    /// ask once, and keep it. Another call may return another text.
    ///
    /// # Errors
    /// As [`TokenSource::token`].
    fn credential(&self, key: &[u8], now: SystemTime) -> Result<Arc<str>, IdentityError> {
        let _ = key;
        self.token(now)
    }
}

/// Judges the tokens of others.
pub trait TokenCheck: Send + Sync {
    /// Whether `token`, which came with a message at `now`, is good, and whose it is.
    ///
    /// # Errors
    /// [`IdentityError`]: what is wrong with it.
    fn check(&self, token: &str, now: SystemTime) -> Result<Principal, IdentityError>;

    /// Whether `credential` is good beside the public signature key `key`. Of a member that is
    /// [`Standing::Admitted`] its age is not judged: it was good when the member was added.
    ///
    /// # Errors
    /// [`IdentityError`]: what is wrong with it.
    fn check_credential(
        &self,
        credential: &str,
        key: &[u8],
        standing: Standing,
        now: SystemTime,
    ) -> Result<Principal, IdentityError>;
}

/// Whom a good token belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Principal {
    /// The subject: the identity text of a shared-secret token, the `sub` of a JWT, else empty.
    pub subject: Box<str>,
    /// The `iss` of a JWT.
    pub issuer: Option<Box<str>>,
}

/// Where a member with a credential stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It wants to be a member, or to renew its keys.
    New,
    /// It is one already, in a group that this app joins.
    Admitted,
}

/// An app's own tokens and its judgement of others'.
#[derive(Clone)]
pub struct Identity {
    /// Makes its own.
    pub source: Arc<dyn TokenSource>,
    /// Judges others'.
    pub check: Arc<dyn TokenCheck>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

fn checked_length(token: &str) -> Result<(), IdentityError> {
    match token.len() {
        got if got > TOKEN_BYTES => Err(IdentityError::TooLong { limit: TOKEN_BYTES, got }),
        _ => Ok(()),
    }
}

/// Whole seconds since 1970; a clock before that is at 0.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
