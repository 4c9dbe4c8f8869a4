use std::str::FromStr;
use std::time::SystemTime;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

use super::LEEWAY;
use crate::identity::error::shown;
use crate::identity::{IdentityError, checked_length, seconds};

/// A token in its parts. Nothing of it is to be believed before its signature was checked.
pub(super) struct Token<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) kid: Option<String>,
    pub(super) claims: Claims,
    /// What the signature is over.
    pub(super) signed: &'a str,
    pub(super) signature: Vec<u8>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<IgnoredAny>,
}

/// The claims that are judged.
#[derive(Deserialize)]
pub(super) struct Claims {
    pub(super) iss: Option<String>,
    pub(super) sub: Option<String>,
    pub(super) aud: Option<Audience>,
    pub(super) exp: Option<f64>,
    nbf: Option<f64>,
    pubkey: Option<Value>,
    custom_claims: Option<Value>,
}

/// RFC 7519 has both forms.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Audience {
    One(String),
    Many(Vec<String>),
}

/// When a token is good.
#[derive(Clone, Copy)]
pub(super) struct Validity {
    pub(super) exp: f64,
    nbf: Option<f64>,
}

impl<'a> Token<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, IdentityError> {
        checked_length(text)?;
        let (signed, signature) = text.rsplit_once('.').ok_or(IdentityError::Format)?;
        let (header, claims) = signed.split_once('.').ok_or(IdentityError::Format)?;
        let header: Header = json(header, "header: expected JSON with a text alg")?;
        if header.crit.is_some() {
            let reason = "header: expected no extensions that have to be understood, got crit";
            return Err(IdentityError::Invalid { reason: reason.into() });
        }
        let algorithm = Algorithm::from_str(&header.alg)
            .map_err(|_| IdentityError::Algorithm { got: shown(&header.alg) })?;
        let expected = "claims: expected JSON with texts iss and sub, numbers exp and nbf, and aud \
                        as text or list of texts, as far as they are there";
        let claims = json(claims, expected)?;
        Ok(Self { algorithm, kid: header.kid, claims, signed, signature: decoded(signature)? })
    }
}

fn json<T: DeserializeOwned>(part: &str, expected: &str) -> Result<T, IdentityError> {
    serde_json::from_slice(&decoded(part)?)
        .map_err(|_| IdentityError::Invalid { reason: expected.into() })
}

fn decoded(part: &str) -> Result<Vec<u8>, IdentityError> {
    BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| IdentityError::Format)
}

impl Claims {
    pub(super) fn validity(&self) -> Result<Validity, IdentityError> {
        let exp = self.exp.ok_or(IdentityError::NoClaim { claim: "exp" })?;
        Ok(Validity { exp, nbf: self.nbf })
    }

    /// The key of an MLS member that the token was made for, where releases from 0.7 on put it.
    pub(super) fn member_key(&self) -> Option<&Value> {
        let custom = self.custom_claims.as_ref();
        self.pubkey.as_ref().or_else(|| custom.and_then(|claims| claims.get("pubkey")))
    }
}

impl Audience {
    pub(super) fn any(&self, of: &[String]) -> bool {
        match self {
            Self::One(one) => of.contains(one),
            Self::Many(many) => many.iter().any(|one| of.contains(one)),
        }
    }
}

impl Validity {
    pub(super) fn judge(self, now: SystemTime) -> Result<(), IdentityError> {
        let now = seconds(now) as f64;
        if now > self.exp + LEEWAY {
            return Err(IdentityError::Expired { seconds: (now - self.exp) as u64 });
        }
        match self.nbf {
            Some(nbf) if now < nbf - LEEWAY => {
                Err(IdentityError::NotYet { seconds: (nbf - now) as u64 })
            }
            _ => Ok(()),
        }
    }
}
