use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use aws_lc_rs::digest;

use super::keys::Keys;
use super::token::{Claims, Token, Validity};
use crate::identity::error::shown;
use crate::identity::shared_secret::judge_member_key;
use crate::identity::{IdentityError, Principal, Standing, TokenCheck, checked_length};

/// So many tokens are known to be good without another look at their signature.
const VERIFIED: usize = 4096;

/// What the claims of a token have to be. By default anything will do, except an audience.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JwtRules {
    /// A token's `iss`, if it has one, has to be this.
    pub issuer: Option<String>,
    /// A token's `aud`, if it has one, has to name one of these; with none here, a token with an
    /// `aud` is refused.
    pub audience: Vec<String>,
    /// A token's `sub`, if it has one, has to be this. Releases up to 0.6 have such an argument,
    /// but do not heed it.
    pub subject: Option<String>,
    /// Whether a token has to have an `iss`.
    pub require_issuer: bool,
    /// Whether a token has to have an `aud`.
    pub require_audience: bool,
    /// Whether a token has to have a `sub`.
    pub require_subject: bool,
}

/// Judges JWTs: a signature by a known key, times by a clock that may differ by 60 s, and claims by
/// [`JwtRules`].
///
/// A token needs an `exp`; an `nbf` is heeded if there is one. The algorithm is that of the
/// token's header, but only if it is one of the key. An MLS credential with a claim `pubkey` has
/// to belong to the member's key; without one it is bound to none.
pub struct JwtCheck {
    rules: JwtRules,
    state: Mutex<State>,
}

struct State {
    keys: Arc<Keys>,
    /// Tokens whose signature was good by these keys and whose claims are right, by their SHA-256.
    verified: HashMap<[u8; 32], Verified>,
}

struct Verified {
    principal: Principal,
    validity: Validity,
}

impl JwtRules {
    fn judge(&self, claims: &Claims) -> Result<(), IdentityError> {
        let missing = [
            ("iss", self.require_issuer && claims.iss.is_none()),
            ("aud", self.require_audience && claims.aud.is_none()),
            ("sub", self.require_subject && claims.sub.is_none()),
        ];
        if let Some((claim, _)) = missing.into_iter().find(|(_, missing)| *missing) {
            return Err(IdentityError::NoClaim { claim });
        }
        match (&self.issuer, &claims.iss) {
            (Some(expected), Some(got)) if expected != got => {
                return Err(IdentityError::Issuer { got: shown(got) });
            }
            _ => {}
        }
        match (&self.subject, &claims.sub) {
            (Some(expected), Some(got)) if expected != got => {
                return Err(IdentityError::subject(got));
            }
            _ => {}
        }
        match &claims.aud {
            Some(audience) if !audience.any(&self.audience) => Err(IdentityError::Audience),
            _ => Ok(()),
        }
    }
}

impl JwtCheck {
    /// By these keys and rules.
    pub fn new(keys: Keys, rules: JwtRules) -> Self {
        let state = State { keys: Arc::new(keys), verified: HashMap::new() };
        Self { rules, state: Mutex::new(state) }
    }

    /// Judges by these keys from now on, all tokens anew.
    pub fn replace_keys(&self, keys: Keys) {
        let mut state = self.state();
        *state = State { keys: Arc::new(keys), verified: HashMap::new() };
    }

    /// The issuer whose keys should be fetched, because they are not known or not known to be the
    /// latest, so that this token can be judged. None if no keys of it would help, or the keys
    /// are not [those of issuers](Keys::issuers).
    pub fn missing_issuer(&self, token: &str, now: SystemTime) -> Option<String> {
        checked_length(token).ok()?;
        if self.state().verified.contains_key(&digest_of(token)) {
            return None;
        }
        let token = Token::parse(token).ok()?;
        self.rules.judge(&token.claims).ok()?;
        token.claims.validity().and_then(|validity| validity.judge(now)).ok()?;
        let keys = Arc::clone(&self.state().keys);
        keys.missing(&token, now)
    }

    /// Whether the keys of this issuer would be taken, if they were [learnt](JwtCheck::learn).
    ///
    /// # Errors
    /// [`IdentityError::Config`] if not.
    pub fn allow_issuer(&self, issuer: &str) -> Result<(), IdentityError> {
        self.state().keys.allow_issuer(issuer)
    }

    /// Takes the key set that an issuer published at `now`, as JSON. Of 64 issuers the keys are
    /// kept, each for an hour; one more takes the place of the oldest.
    ///
    /// # Errors
    /// [`IdentityError::Config`] if it is no key set, or the issuer none of the list.
    pub fn learn(&self, issuer: &str, keys: &str, now: SystemTime) -> Result<(), IdentityError> {
        let mut state = self.state();
        let keys = state.keys.with_issuer(issuer, keys, now)?;
        *state = State { keys: Arc::new(keys), verified: HashMap::new() };
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.state().verified.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The token's claims, if all but its times is right, and the keys by which they are.
    fn verify(&self, token: &str, now: SystemTime) -> Result<(Claims, Arc<Keys>), IdentityError> {
        let token = Token::parse(token)?;
        self.rules.judge(&token.claims)?;
        let keys = Arc::clone(&self.state().keys);
        keys.verify(&token, now)?;
        Ok((token.claims, keys))
    }
}

impl State {
    fn remember(&mut self, token: [u8; 32], verified: Verified, now: SystemTime) {
        if self.verified.len() >= VERIFIED {
            self.verified.retain(|_, verified| verified.validity.judge(now).is_ok());
        }
        if self.verified.len() >= VERIFIED {
            self.verified.clear();
        }
        self.verified.insert(token, verified);
    }
}

impl TokenCheck for JwtCheck {
    fn check(&self, token: &str, now: SystemTime) -> Result<Principal, IdentityError> {
        checked_length(token)?;
        let digest = digest_of(token);
        if let Some(verified) = self.state().verified.get(&digest) {
            verified.validity.judge(now)?;
            return Ok(verified.principal.clone());
        }
        let (claims, keys) = self.verify(token, now)?;
        let validity = claims.validity()?;
        validity.judge(now)?;
        let principal = principal(claims);
        let mut state = self.state();
        // The keys may have been replaced meanwhile.
        if Arc::ptr_eq(&state.keys, &keys) {
            state.remember(digest, Verified { principal: principal.clone(), validity }, now);
        }
        Ok(principal)
    }

    fn check_credential(
        &self,
        credential: &str,
        key: &[u8],
        standing: Standing,
        now: SystemTime,
    ) -> Result<Principal, IdentityError> {
        let (claims, _) = self.verify(credential, now)?;
        let validity = claims.validity()?;
        if standing == Standing::New {
            validity.judge(now)?;
        }
        if let Some(claimed) = claims.member_key() {
            judge_member_key(claimed.as_str().unwrap_or_default(), key)?;
        }
        Ok(principal(claims))
    }
}

fn principal(claims: Claims) -> Principal {
    Principal {
        subject: claims.sub.map(Box::from).unwrap_or_default(),
        issuer: claims.iss.map(Box::from),
    }
}

fn digest_of(token: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    bytes
}

impl fmt::Debug for JwtCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = Arc::clone(&self.state().keys);
        f.debug_struct("JwtCheck")
            .field("rules", &self.rules)
            .field("keys", &keys)
            .finish_non_exhaustive()
    }
}
