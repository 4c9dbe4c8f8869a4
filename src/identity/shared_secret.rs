//! Tokens that whoever knows a secret can make and check.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use aws_lc_rs::{constant_time, hmac};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use rand::distr::{Alphanumeric, Distribution};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{IdentityError, Principal, Standing, TokenCheck, TokenSource, checked_length, seconds};

/// A token is sent for so long, in seconds; then a new one is made.
const REUSE: u64 = 60;

/// A token is taken until it is so old, in seconds.
const LONGEST_AGE: u64 = 3600;

/// A token may be so far ahead of this clock, in seconds.
const AHEAD: u64 = 5;

/// Characters that tell two instances with the same identity apart.
const SUFFIX: usize = 8;

/// Later releases take no secret that is shorter, in bytes.
const SHORT: usize = 32;

const IDENTITY_BYTES: usize = 1024;

/// Which tokens are spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compat {
    /// Those that do not tell the secret.
    #[default]
    Native,
    /// Those of releases 0.4 to 0.6 are sent, and both kinds are taken. Such a token is the text
    /// `secret:identity`: **every node on the way and every member sees the secret**, whoever has
    /// seen one can be anybody, and as a credential it is bound to no key. For apps that have to
    /// talk to those releases, on a network that is trusted.
    V0_6,
}

/// An identity by a secret that all apps share: their tokens, made and checked.
///
/// A token is `id:time:nonce:claims:mac`. The id is the identity with a suffix of its own for each
/// instance, the time is in seconds since 1970, the claims are JSON in base64url or empty, and the
/// MAC is HMAC-SHA256 over what stands before it. A token is sent for up to 60 s and taken for
/// up to an hour; it proves that the sender knows the secret, not which of those who do it is. In
/// an MLS credential the claims bind it to the member's signature key.
pub struct SharedSecret {
    id: Box<str>,
    key: hmac::Key,
    clear: Option<Clear>,
    short: bool,
    made: Mutex<Made>,
}

/// What speaking 0.6 takes.
struct Clear {
    secret: Zeroizing<String>,
    token: Arc<str>,
}

struct Made {
    rng: StdRng,
    /// The latest token, and when it was made, in seconds.
    latest: Option<(u64, Arc<str>)>,
}

/// The parts of a token before its MAC; see [`SharedSecret`].
struct Parts<'a> {
    id: &'a str,
    time: u64,
    claims: &'a str,
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    pubkey: String,
}

/// The member's key, where releases from 0.7 on put it.
#[derive(Deserialize)]
struct KeyClaims {
    pubkey: Option<String>,
    #[serde(default)]
    custom_claims: CustomClaims,
}

#[derive(Default, Deserialize)]
struct CustomClaims {
    pubkey: Option<String>,
}

impl SharedSecret {
    /// For the app `identity`, of up to 1,024 bytes without `:` and white space. With
    /// [`Compat::V0_6`] the secret is seen by every node and member, and cannot hold a `:`. `rng`
    /// makes two instances differ.
    ///
    /// # Errors
    /// [`IdentityError::EmptySecret`], [`IdentityError::Config`].
    pub fn new(
        identity: &str,
        secret: &str,
        compat: Compat,
        rng: &mut dyn Rng,
    ) -> Result<Self, IdentityError> {
        if secret.is_empty() {
            return Err(IdentityError::EmptySecret);
        }
        let unfit = |character: char| character == ':' || character.is_whitespace();
        if identity.is_empty() || identity.len() > IDENTITY_BYTES || identity.contains(unfit) {
            let expected = "expected 1 to 1024 bytes without ':' and white space";
            return Err(IdentityError::config(format!("identity: {expected}, got {identity:?}")));
        }
        let clear = match compat {
            Compat::Native => None,
            Compat::V0_6 if secret.contains(':') => {
                let reason = "shared secret: expected none with ':', as release 0.6 cannot take it";
                return Err(IdentityError::config(reason));
            }
            Compat::V0_6 => Some(Clear {
                secret: Zeroizing::new(secret.to_owned()),
                token: format!("{secret}:{identity}").into(),
            }),
        };
        let mut rng = StdRng::from_rng(rng);
        let suffix: String =
            (0..SUFFIX).map(|_| char::from(Alphanumeric.sample(&mut rng))).collect();
        Ok(Self {
            id: format!("{identity}_{suffix}").into(),
            key: hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()),
            clear,
            short: secret.len() < SHORT,
            made: Mutex::new(Made { rng, latest: None }),
        })
    }

    /// Whether the secret is shorter than the 32 bytes that later releases ask for: a reason to
    /// warn, since who has a token can try secrets until one fits.
    pub fn is_short(&self) -> bool {
        self.short
    }

    fn make(&self, rng: &mut StdRng, claims: &str, now: u64) -> Arc<str> {
        let mut nonce = [0; 12];
        rng.fill_bytes(&mut nonce);
        let nonce = BASE64_URL_SAFE_NO_PAD.encode(nonce);
        let signed = format!("{}:{now}:{nonce}:{claims}", self.id);
        let mac = BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(&self.key, signed.as_bytes()));
        format!("{signed}:{mac}").into()
    }

    /// The identity of a clear token, if it is one and they are taken.
    fn clear_identity<'a>(&self, token: &'a str) -> Option<Result<&'a str, IdentityError>> {
        let clear = self.clear.as_ref()?;
        let (secret, identity) = token.split_once(':').filter(|(_, rest)| !rest.contains(':'))?;
        let equal =
            constant_time::verify_slices_are_equal(secret.as_bytes(), clear.secret.as_bytes());
        Some(equal.map(|()| identity).map_err(|_| IdentityError::WrongSecret))
    }

    fn parts<'a>(&self, token: &'a str) -> Result<Parts<'a>, IdentityError> {
        let (signed, mac) = token.rsplit_once(':').ok_or(IdentityError::Format)?;
        let mut parts = signed.split(':');
        let mut next = || parts.next().ok_or(IdentityError::Format);
        let (id, time, _nonce, claims) = (next()?, next()?, next()?, next()?);
        if parts.next().is_some() || id.is_empty() || !time.bytes().all(|b| b.is_ascii_digit()) {
            return Err(IdentityError::Format);
        }
        let time = time.parse().map_err(|_| IdentityError::Format)?;
        let mac = BASE64_URL_SAFE_NO_PAD.decode(mac).map_err(|_| IdentityError::Format)?;
        hmac::verify(&self.key, signed.as_bytes(), &mac).map_err(|_| IdentityError::WrongSecret)?;
        Ok(Parts { id, time, claims })
    }
}

impl Parts<'_> {
    fn judge_age(&self, now: SystemTime) -> Result<(), IdentityError> {
        let now = seconds(now);
        if self.time > now.saturating_add(AHEAD) {
            return Err(IdentityError::NotYet { seconds: self.time - now });
        }
        match now.saturating_sub(self.time) {
            age if age > LONGEST_AGE => Err(IdentityError::Expired { seconds: age - LONGEST_AGE }),
            _ => Ok(()),
        }
    }

    fn judge_key(&self, key: &[u8]) -> Result<(), IdentityError> {
        let none = IdentityError::NoClaim { claim: "pubkey" };
        if self.claims.is_empty() {
            return Err(none);
        }
        let json = BASE64_URL_SAFE_NO_PAD.decode(self.claims);
        let json = json.map_err(|_| IdentityError::Format)?;
        let claims: KeyClaims = serde_json::from_slice(&json).map_err(|_| IdentityError::Format)?;
        let claimed = claims.pubkey.or(claims.custom_claims.pubkey).ok_or(none)?;
        judge_member_key(&claimed, key)
    }

    fn principal(&self) -> Principal {
        let suffixed = self.id.rsplit_once('_').filter(|(_, suffix)| {
            suffix.len() == SUFFIX && suffix.bytes().all(|b| b.is_ascii_alphanumeric())
        });
        Principal {
            subject: suffixed.map_or(self.id, |(identity, _)| identity).into(),
            issuer: None,
        }
    }
}

/// Whether a claim `pubkey` is that of a member's signature key.
pub(super) fn judge_member_key(claimed: &str, key: &[u8]) -> Result<(), IdentityError> {
    if claimed == BASE64_STANDARD.encode(key) { Ok(()) } else { Err(IdentityError::MemberKey) }
}

impl TokenSource for SharedSecret {
    fn token(&self, now: SystemTime) -> Result<Arc<str>, IdentityError> {
        if let Some(clear) = &self.clear {
            return Ok(Arc::clone(&clear.token));
        }
        let now = seconds(now);
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let Made { rng, latest } = &mut *made;
        match latest {
            Some((time, token)) if (*time..time.saturating_add(REUSE)).contains(&now) => {
                Ok(Arc::clone(token))
            }
            _ => {
                let token = self.make(rng, "", now);
                *latest = Some((now, Arc::clone(&token)));
                Ok(token)
            }
        }
    }

    fn credential(&self, key: &[u8], now: SystemTime) -> Result<Arc<str>, IdentityError> {
        if let Some(clear) = &self.clear {
            return Ok(Arc::clone(&clear.token));
        }
        let claims = Claims { sub: &self.id, pubkey: BASE64_STANDARD.encode(key) };
        let json = serde_json::to_vec(&claims)
            .map_err(|error| IdentityError::Unavailable { reason: error.to_string() })?;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(self.make(&mut made.rng, &BASE64_URL_SAFE_NO_PAD.encode(json), seconds(now)))
    }
}

impl TokenCheck for SharedSecret {
    fn check(&self, token: &str, now: SystemTime) -> Result<Principal, IdentityError> {
        checked_length(token)?;
        if let Some(identity) = self.clear_identity(token) {
            return Ok(Principal { subject: identity?.into(), issuer: None });
        }
        let parts = self.parts(token)?;
        parts.judge_age(now)?;
        Ok(parts.principal())
    }

    fn check_credential(
        &self,
        credential: &str,
        key: &[u8],
        standing: Standing,
        now: SystemTime,
    ) -> Result<Principal, IdentityError> {
        checked_length(credential)?;
        if let Some(identity) = self.clear_identity(credential) {
            return Ok(Principal { subject: identity?.into(), issuer: None });
        }
        let parts = self.parts(credential)?;
        if standing == Standing::New {
            parts.judge_age(now)?;
        }
        parts.judge_key(key)?;
        Ok(parts.principal())
    }
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let compat = if self.clear.is_some() { Compat::V0_6 } else { Compat::Native };
        f.debug_struct("SharedSecret")
            .field("id", &self.id)
            .field("compat", &compat)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
