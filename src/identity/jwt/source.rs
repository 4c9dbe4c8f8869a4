use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use jsonwebtoken::{Algorithm, AlgorithmFamily, EncodingKey};
use serde::Serialize;

use super::token::{Token, Validity};
use crate::identity::{IdentityError, TokenSource, checked_length, seconds};

/// A token is sent for at most so long, in seconds; then a new one is made.
const REUSE: u64 = 60;

/// A private key, or a secret, with the algorithm it signs by.
#[derive(Clone)]
pub struct SigningKey {
    algorithm: Algorithm,
    key: EncodingKey,
}

/// What the tokens of a [`Jwt`] say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtClaims {
    /// The claim `iss`. Default: none.
    pub issuer: Option<String>,
    /// The claim `aud`, a list; no claim if it is empty, as it is by default.
    pub audience: Vec<String>,
    /// The claim `sub`. Default: none. In MLS sessions the subjects of the members have to differ.
    pub subject: Option<String>,
    /// How long a token is good, in whole seconds, at least one. Default an hour. To add members
    /// to an MLS session, releases up to 0.6 need tokens that are good for as long as it lasts.
    pub duration: Duration,
    /// Further claims, beside those that are set here. Default: none.
    pub custom: serde_json::Map<String, serde_json::Value>,
    /// Whether an MLS credential says for which member's key it was made, in a claim `pubkey`, so
    /// that nobody else can use it. Default no: releases up to 0.6 have no such claim.
    pub bind_credentials: bool,
}

/// Makes JWTs with a key of the app.
///
/// The claims are those of published apps: `iss`, `sub`, `aud`, `exp`, `iat`, `nbf`. A token is
/// sent for up to half its duration, and at most 60 s.
pub struct Jwt {
    key: SigningKey,
    claims: JwtClaims,
    /// The latest token, and when it was made, in seconds.
    latest: Mutex<Option<(u64, Arc<str>)>>,
}

/// A JWT that somebody else issues and renews, such as the SVID of a SPIFFE workload in a file.
pub struct StaticJwt(Mutex<Issued>);

struct Issued {
    text: Arc<str>,
    validity: Option<Validity>,
}

#[derive(Serialize)]
struct Payload<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    aud: &'a [String],
    exp: u64,
    iat: u64,
    nbf: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pubkey: Option<String>,
    #[serde(flatten)]
    custom: &'a serde_json::Map<String, serde_json::Value>,
}

/// The claims that have fields of their own.
const OWN_CLAIMS: [&str; 7] = ["iss", "sub", "aud", "exp", "iat", "nbf", "pubkey"];

impl SigningKey {
    /// From a PEM text, for EC and Ed25519 in PKCS #8; for HS256, HS384 and HS512 the text is the
    /// secret, as it is.
    ///
    /// # Errors
    /// [`IdentityError::Config`] if it cannot sign by this algorithm.
    pub fn new(algorithm: Algorithm, text: &str) -> Result<Self, IdentityError> {
        let bytes = text.as_bytes();
        let key = match algorithm.family() {
            AlgorithmFamily::Hmac if text.is_empty() => return Err(IdentityError::EmptySecret),
            AlgorithmFamily::Hmac => Ok(EncodingKey::from_secret(bytes)),
            AlgorithmFamily::Rsa => EncodingKey::from_rsa_pem(bytes),
            AlgorithmFamily::Ec => EncodingKey::from_ec_pem(bytes),
            AlgorithmFamily::Ed => EncodingKey::from_ed_pem(bytes),
        };
        let unusable = || {
            let expected = "expected a private key in PEM form, for EC and Ed25519 in PKCS #8";
            IdentityError::config(format!("signing key for {algorithm:?}: {expected}"))
        };
        let key = Self { algorithm, key: key.map_err(|_| unusable())? };
        // Not all is read before the first use.
        key.sign("").map_err(|_| unusable())?;
        Ok(key)
    }

    pub(super) fn sign(&self, message: &str) -> Result<Vec<u8>, IdentityError> {
        let failed = |reason: &dyn fmt::Display| IdentityError::Unavailable {
            reason: format!("signing by {:?}: {reason}", self.algorithm),
        };
        let signer = (DEFAULT_PROVIDER.signer_factory)(&self.algorithm, &self.key);
        let signer = signer.map_err(|error| failed(&error))?;
        signer.try_sign(message.as_bytes()).map_err(|error| failed(&error))
    }
}

impl Default for JwtClaims {
    fn default() -> Self {
        Self {
            issuer: None,
            audience: Vec::new(),
            subject: None,
            duration: Duration::from_secs(3600),
            custom: serde_json::Map::new(),
            bind_credentials: false,
        }
    }
}

impl Jwt {
    /// Tokens with these claims, signed with this key.
    ///
    /// # Errors
    /// [`IdentityError::Config`] for a duration below a second, for custom claims with the name of
    /// another, and for claims that make tokens longer than [`TOKEN_BYTES`](crate::identity::TOKEN_BYTES).
    pub fn new(key: SigningKey, claims: JwtClaims) -> Result<Self, IdentityError> {
        if claims.duration < Duration::from_secs(1) {
            let reason = format!("duration: expected at least 1 s, got {:?}", claims.duration);
            return Err(IdentityError::config(reason));
        }
        if let Some(own) = OWN_CLAIMS.into_iter().find(|own| claims.custom.contains_key(*own)) {
            let reason = format!("custom claims: expected others than {own:?}");
            return Err(IdentityError::config(reason));
        }
        let jwt = Self { key, claims, latest: Mutex::new(None) };
        let longest = jwt.make(u64::MAX, jwt.claims.bind_credentials.then(|| "=".repeat(44)))?;
        checked_length(&longest).map_err(|error| IdentityError::config(error.to_string()))?;
        Ok(jwt)
    }

    fn make(&self, now: u64, pubkey: Option<String>) -> Result<Arc<str>, IdentityError> {
        let payload = Payload {
            iss: self.claims.issuer.as_deref(),
            sub: self.claims.subject.as_deref(),
            aud: &self.claims.audience,
            exp: now.saturating_add(self.claims.duration.as_secs()),
            iat: now,
            nbf: now,
            pubkey,
            custom: &self.claims.custom,
        };
        let payload = serde_json::to_vec(&payload)
            .map_err(|error| IdentityError::Unavailable { reason: error.to_string() })?;
        let header = format!(r#"{{"typ":"JWT","alg":"{:?}"}}"#, self.key.algorithm);
        let mut token = BASE64_URL_SAFE_NO_PAD.encode(header);
        token.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(payload, &mut token);
        let signature = self.key.sign(&token)?;
        token.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token.into())
    }
}

impl TokenSource for Jwt {
    fn token(&self, now: SystemTime) -> Result<Arc<str>, IdentityError> {
        let now = seconds(now);
        let reuse = (self.claims.duration.as_secs() / 2).clamp(1, REUSE);
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        match &*latest {
            Some((time, token)) if (*time..time.saturating_add(reuse)).contains(&now) => {
                Ok(Arc::clone(token))
            }
            _ => {
                let token = self.make(now, None)?;
                *latest = Some((now, Arc::clone(&token)));
                Ok(token)
            }
        }
    }

    fn credential(&self, key: &[u8], now: SystemTime) -> Result<Arc<str>, IdentityError> {
        let bound = self.claims.bind_credentials;
        self.make(seconds(now), bound.then(|| BASE64_STANDARD.encode(key)))
    }
}

impl StaticJwt {
    /// With this token; white space around it is left out.
    ///
    /// # Errors
    /// [`IdentityError::Config`] if it is no JWT.
    pub fn new(text: &str) -> Result<Self, IdentityError> {
        Issued::new(text).map(|issued| Self(Mutex::new(issued)))
    }

    /// With this token from now on.
    ///
    /// # Errors
    /// [`IdentityError::Config`] if it is no JWT; the one before is kept.
    pub fn replace(&self, text: &str) -> Result<(), IdentityError> {
        let issued = Issued::new(text)?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = issued;
        Ok(())
    }
}

impl Issued {
    fn new(text: &str) -> Result<Self, IdentityError> {
        let text = text.trim();
        let token = Token::parse(text)
            .map_err(|error| IdentityError::config(format!("expected a JWT; {error}")))?;
        Ok(Self { text: text.into(), validity: token.claims.validity().ok() })
    }
}

impl TokenSource for StaticJwt {
    fn token(&self, now: SystemTime) -> Result<Arc<str>, IdentityError> {
        let issued = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match issued.validity.map(|validity| validity.judge(now)) {
            Some(Err(IdentityError::Expired { seconds })) => {
                let reason = format!("the app's JWT expired {seconds} s ago and was not renewed");
                Err(IdentityError::Unavailable { reason })
            }
            _ => Ok(Arc::clone(&issued.text)),
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, claims, .. } = self;
        f.debug_struct("Jwt").field("key", key).field("claims", claims).finish_non_exhaustive()
    }
}

impl fmt::Debug for StaticJwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticJwt").finish_non_exhaustive()
    }
}
