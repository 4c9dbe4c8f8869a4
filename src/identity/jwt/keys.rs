use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use super::LEEWAY;
use super::token::Token;
use crate::identity::IdentityError;
use crate::identity::error::shown;

/// Keys of an issuer are used for so long after they were fetched.
const KEPT: Duration = Duration::from_secs(3600);

/// After so long they are asked for again, so that there are new ones in time.
const RENEWED: Duration = Duration::from_secs(50 * 60);

/// A token with a key that its issuer did not have asks for its keys again, but not sooner.
const ASKED_AGAIN: Duration = Duration::from_secs(60);

/// Keys of so many issuers are kept.
const ISSUERS: usize = 64;

/// A set of so many keys is none.
const KEYS: usize = 1000;

/// By what JWTs are known to be good.
#[derive(Clone, Debug)]
pub struct Keys(Kind);

#[derive(Clone, Debug)]
enum Kind {
    /// For all tokens.
    One(PublicKey),
    /// By the `kid` of the token.
    Set(KeySet),
    /// By the trust domain of the token's subject, and its `kid`.
    Domains(BTreeMap<Box<str>, KeySet>),
    /// By the token's issuer, and its `kid`.
    Issuers(Issuers),
}

#[derive(Clone, Debug, Default)]
struct Issuers {
    allowed: Option<BTreeSet<Box<str>>>,
    known: BTreeMap<Box<str>, Fetched>,
}

#[derive(Clone, Debug)]
struct Fetched {
    at: SystemTime,
    keys: Arc<KeySet>,
}

#[derive(Clone)]
struct PublicKey {
    kid: Option<Box<str>>,
    /// The only one that it is for, if it says so.
    algorithm: Option<Algorithm>,
    key: DecodingKey,
}

#[derive(Clone, Debug)]
struct KeySet(Vec<PublicKey>);

impl Keys {
    /// One secret for HS256, HS384 and HS512.
    ///
    /// # Errors
    /// [`IdentityError::EmptySecret`].
    pub fn secret(secret: &str) -> Result<Self, IdentityError> {
        if secret.is_empty() {
            return Err(IdentityError::EmptySecret);
        }
        Ok(Self::one(DecodingKey::from_secret(secret.as_bytes())))
    }

    /// One public key in PEM form: RSA, EC or Ed25519.
    ///
    /// # Errors
    /// [`IdentityError::Config`].
    pub fn pem(text: &str) -> Result<Self, IdentityError> {
        let bytes = text.as_bytes();
        // The RSA reader would take a private key too.
        let private = text.contains("PRIVATE KEY");
        let key = DecodingKey::from_ec_pem(bytes)
            .or_else(|_| DecodingKey::from_ed_pem(bytes))
            .or_else(|_| DecodingKey::from_rsa_pem(bytes));
        match key {
            Ok(key) if !private && is_sound(&key) => Ok(Self::one(key)),
            _ => {
                let reason = "public key: expected RSA, EC or Ed25519 in PEM form (PUBLIC KEY)";
                Err(IdentityError::config(reason))
            }
        }
    }

    /// One key as a JWK, for all tokens.
    ///
    /// # Errors
    /// [`IdentityError::Config`].
    pub fn jwk(json: &str) -> Result<Self, IdentityError> {
        let key = serde_json::from_str(json).ok().and_then(PublicKey::of);
        let reason = "public key: expected a JWK for signatures: RSA, EC (P-256, P-384), Ed25519";
        key.map(|key| Self(Kind::One(key))).ok_or_else(|| IdentityError::config(reason))
    }

    /// A set of keys: `{"keys": […]}`. A token's key is the one with its `kid`, or, if it has none,
    /// the first for its algorithm. Keys that cannot be used are left out.
    ///
    /// # Errors
    /// [`IdentityError::Config`], also if no key is left.
    pub fn jwks(json: &str) -> Result<Self, IdentityError> {
        let set = KeySet::parse(json)?;
        if set.0.is_empty() {
            let reason = "key set: expected a key for RSA, EC (P-256, P-384), Ed25519 or HMAC";
            return Err(IdentityError::config(reason));
        }
        Ok(Self(Kind::Set(set)))
    }

    /// The trust bundle of SPIRE: `{"trust domain": "standard base64 of a key set", …}`.
    ///
    /// A token whose subject is a SPIFFE id is checked by the keys of its trust domain only; any
    /// other by the key with its `kid` in any domain. Shared secrets in it are left out.
    ///
    /// # Errors
    /// [`IdentityError::Config`], also if it has no key.
    pub fn trust_bundle(json: &str) -> Result<Self, IdentityError> {
        let domains: BTreeMap<String, String> = serde_json::from_str(json).map_err(|_| {
            let expected = "expected a JSON object of trust domains with their key sets in base64";
            IdentityError::config(format!("trust bundle: {expected}"))
        })?;
        let domains = domains.into_iter().map(|(domain, base64)| {
            let wrong = |what| {
                let domain = shown(&domain);
                IdentityError::config(format!("trust bundle, domain {domain:?}: expected {what}"))
            };
            let json = BASE64_STANDARD.decode(base64.trim()).map_err(|_| wrong("base64"))?;
            let json = String::from_utf8(json).map_err(|_| wrong("UTF-8 in base64"))?;
            Ok((domain, json))
        });
        let keys = Self::domains(domains.collect::<Result<Vec<_>, _>>()?)?;
        match &keys.0 {
            Kind::Domains(domains) if domains.values().all(|set| set.0.is_empty()) => {
                let reason = "trust bundle: expected a key for RSA, EC (P-256, P-384) or Ed25519";
                Err(IdentityError::config(reason))
            }
            _ => Ok(keys),
        }
    }

    /// The key sets of trust domains, as JSON; used as those of [`Keys::trust_bundle`]. There may
    /// be none.
    ///
    /// # Errors
    /// [`IdentityError::Config`].
    pub fn domains(
        sets: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, IdentityError> {
        let sets = sets.into_iter().map(|(domain, json)| {
            let set = KeySet::parse(&json).map_err(|error| {
                let domain = shown(&domain);
                IdentityError::config(format!("trust domain {domain:?}: {error}"))
            })?;
            let domain = domain.strip_prefix("spiffe://").unwrap_or(&domain);
            if domain.is_empty() {
                return Err(IdentityError::config("trust domain: expected a name, got \"\""));
            }
            Ok((domain.to_ascii_lowercase().into(), set.public()))
        });
        Ok(Self(Kind::Domains(sets.collect::<Result<_, IdentityError>>()?)))
    }

    /// The keys that issuers publish. They are fetched as tokens arrive; see
    /// [`JwtCheck::missing_issuer`](super::JwtCheck::missing_issuer).
    ///
    /// Only the issuers of the list are asked and believed. Without a list that is **everybody**
    /// who can publish a key set, unless [`JwtRules::issuer`](super::JwtRules::issuer) names the
    /// only one; and whoever sends a token chooses what this machine connects to.
    pub fn issuers(allowed: Option<Vec<String>>) -> Self {
        let allowed = allowed.map(|list| list.into_iter().map(Box::from).collect());
        Self(Kind::Issuers(Issuers { allowed, known: BTreeMap::new() }))
    }

    /// Those of these keys that are for `algorithm`, and for no other from now on.
    ///
    /// # Errors
    /// [`IdentityError::Config`] if there is none, or the keys are not one or a set.
    pub fn only(self, algorithm: Algorithm) -> Result<Self, IdentityError> {
        let for_it = |key: PublicKey| {
            key.fits(algorithm).then_some(PublicKey { algorithm: Some(algorithm), ..key })
        };
        let kept = match self.0 {
            Kind::One(key) => for_it(key).map(Kind::One),
            Kind::Set(set) => {
                let kept: Vec<_> = set.0.into_iter().filter_map(for_it).collect();
                (!kept.is_empty()).then_some(Kind::Set(KeySet(kept)))
            }
            Kind::Domains(_) | Kind::Issuers(_) => None,
        };
        let reason = || IdentityError::config(format!("key: expected one for {algorithm:?}"));
        kept.map(Self).ok_or_else(reason)
    }

    fn one(key: DecodingKey) -> Self {
        Self(Kind::One(PublicKey { kid: None, algorithm: None, key }))
    }

    /// Whether the token's signature is that of the key it should be.
    pub(super) fn verify(&self, token: &Token<'_>, now: SystemTime) -> Result<(), IdentityError> {
        self.select(token, now)?.verify(token)
    }

    fn select(&self, token: &Token<'_>, now: SystemTime) -> Result<&PublicKey, IdentityError> {
        let key = match &self.0 {
            Kind::One(key) => Some(key),
            Kind::Set(set) => set.find(token),
            Kind::Domains(domains) => match trust_domain(token.claims.sub.as_deref()) {
                Some(domain) => domains.get(domain).and_then(|set| set.find(token)),
                None => domains.values().find_map(|set| set.find(token)),
            },
            Kind::Issuers(issuers) => issuers.fresh(token, now)?.find(token),
        };
        key.ok_or_else(|| {
            let kid = token.kid.as_deref().map(shown);
            IdentityError::UnknownKey { kid: kid.unwrap_or(format!("{:?}", token.algorithm)) }
        })
    }

    /// The token's issuer, if its keys have to be fetched.
    pub(super) fn missing(&self, token: &Token<'_>, now: SystemTime) -> Option<String> {
        let Kind::Issuers(issuers) = &self.0 else { return None };
        let issuer = token.claims.iss.as_deref().filter(|issuer| issuers.allows(issuer))?;
        let known = issuers.known.get(issuer).is_some_and(|fetched| {
            let has_key = fetched.keys.find(token).is_some();
            fetched.is_within(if has_key { RENEWED } else { ASKED_AGAIN }, now)
        });
        (!known).then(|| issuer.to_owned())
    }

    /// Whether the keys of this issuer may be taken.
    fn allow(&self, issuer: &str) -> Result<&Issuers, IdentityError> {
        match &self.0 {
            Kind::Issuers(issuers) if issuers.allows(issuer) => Ok(issuers),
            Kind::Issuers(_) => {
                let issuer = shown(issuer);
                let reason = format!("issuer: expected one of the list, got {issuer:?}");
                Err(IdentityError::config(reason))
            }
            _ => Err(IdentityError::config("keys: expected those of issuers, got others")),
        }
    }

    pub(super) fn allow_issuer(&self, issuer: &str) -> Result<(), IdentityError> {
        self.allow(issuer).map(|_| ())
    }

    /// These keys, with those of an issuer as they were fetched at `now`.
    pub(super) fn with_issuer(
        &self,
        issuer: &str,
        json: &str,
        now: SystemTime,
    ) -> Result<Self, IdentityError> {
        let issuers = self.allow(issuer)?;
        let keys = Arc::new(KeySet::parse(json)?.public());
        let mut issuers = issuers.clone();
        if issuers.known.len() >= ISSUERS && !issuers.known.contains_key(issuer) {
            let oldest = issuers.known.iter().min_by_key(|(_, fetched)| fetched.at);
            let oldest = oldest.map(|(issuer, _)| issuer.clone());
            oldest.and_then(|issuer| issuers.known.remove(&issuer));
        }
        issuers.known.insert(issuer.into(), Fetched { at: now, keys });
        Ok(Self(Kind::Issuers(issuers)))
    }
}

/// The trust domain of a subject, if it is a SPIFFE id: an empty one, which no bundle has, if it
/// is not well formed.
fn trust_domain(subject: Option<&str>) -> Option<&str> {
    const SCHEME: &str = "spiffe:";
    let (scheme, rest) = subject?.split_at_checked(SCHEME.len())?;
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return None;
    }
    let path = rest.strip_prefix("//").filter(|_| scheme == SCHEME).unwrap_or("");
    Some(path.split_once('/').map_or(path, |(domain, _)| domain))
}

impl Issuers {
    fn allows(&self, issuer: &str) -> bool {
        self.allowed.as_ref().is_none_or(|allowed| allowed.contains(issuer))
    }

    fn fresh(&self, token: &Token<'_>, now: SystemTime) -> Result<&KeySet, IdentityError> {
        let issuer = token.claims.iss.as_deref().ok_or(IdentityError::NoClaim { claim: "iss" })?;
        if !self.allows(issuer) {
            return Err(IdentityError::Issuer { got: shown(issuer) });
        }
        let fetched = self.known.get(issuer).filter(|fetched| fetched.is_within(KEPT, now));
        let fetched = fetched.ok_or_else(|| IdentityError::NoKeys { issuer: shown(issuer) })?;
        Ok(&fetched.keys)
    }
}

impl Fetched {
    /// A clock that was set back by much says nothing about age.
    fn is_within(&self, age: Duration, now: SystemTime) -> bool {
        match now.duration_since(self.at) {
            Ok(since) => since < age,
            Err(ahead) => ahead.duration().as_secs_f64() < LEEWAY,
        }
    }
}

impl PublicKey {
    /// None for a key that is not for signatures, or of a kind that is not supported.
    fn of(jwk: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(jwk).ok()?;
        let other_use = match &jwk.common.public_key_use {
            Some(PublicKeyUse::Encryption) => true,
            // SPIFFE bundles hold certificates of X.509 beside the keys of tokens.
            Some(PublicKeyUse::Other(purpose)) => purpose == "x509-svid",
            Some(PublicKeyUse::Signature) | None => false,
        };
        let algorithm = match jwk.common.key_algorithm.map(Algorithm::try_from) {
            Some(Err(_)) => return None,
            Some(Ok(algorithm)) => Some(algorithm),
            None => None,
        };
        let curve = match &jwk.algorithm {
            AlgorithmParameters::EllipticCurve(key) => Some(&key.curve),
            _ => None,
        };
        let other_curve = !matches!(curve, None | Some(EllipticCurve::P256 | EllipticCurve::P384));
        let key = DecodingKey::from_jwk(&jwk).ok().filter(is_sound)?;
        let fits = algorithm.is_none_or(|algorithm| algorithm.family() == key.family());
        let kid = jwk.common.key_id.map(Box::from);
        (fits && !other_use && !other_curve).then_some(Self { kid, algorithm, key })
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        self.key.family() == algorithm.family() && self.algorithm.is_none_or(|own| own == algorithm)
    }

    fn verify(&self, token: &Token<'_>) -> Result<(), IdentityError> {
        // A public key must never serve as the secret of an HMAC.
        if !self.fits(token.algorithm) {
            return Err(IdentityError::Algorithm { got: format!("{:?}", token.algorithm) });
        }
        let verifier = (DEFAULT_PROVIDER.verifier_factory)(&token.algorithm, &self.key);
        let verifier = verifier.map_err(|_| IdentityError::Signature)?;
        let good = verifier.verify(token.signed.as_bytes(), &token.signature);
        good.map_err(|_| IdentityError::Signature)
    }
}

/// Whether a key has a length that its kind can have; that of RSA keys is judged when they are used.
fn is_sound(key: &DecodingKey) -> bool {
    let bytes = || key.try_get_as_bytes().map_or(0, <[u8]>::len);
    match key.family() {
        AlgorithmFamily::Hmac => bytes() > 0,
        AlgorithmFamily::Rsa => true,
        AlgorithmFamily::Ec => [65, 97].contains(&bytes()),
        AlgorithmFamily::Ed => bytes() == 32,
    }
}

impl KeySet {
    fn parse(json: &str) -> Result<Self, IdentityError> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let wrong = |got| {
            let expected = format!("expected {{\"keys\": […]}} with at most {KEYS} keys");
            IdentityError::config(format!("key set: {expected}, got {got}"))
        };
        let set: Set = serde_json::from_str(json).map_err(|_| wrong("something else".into()))?;
        if set.keys.len() > KEYS {
            return Err(wrong(format!("{} keys", set.keys.len())));
        }
        Ok(Self(set.keys.into_iter().filter_map(PublicKey::of).collect()))
    }

    /// A secret that is published is none.
    fn public(mut self) -> Self {
        self.0.retain(|key| key.key.family() != AlgorithmFamily::Hmac);
        self
    }

    fn find(&self, token: &Token<'_>) -> Option<&PublicKey> {
        self.0.iter().find(|key| match &token.kid {
            Some(kid) => key.kid.as_deref() == Some(kid),
            None => key.algorithm == Some(token.algorithm),
        })
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = self.key.family();
        f.debug_struct("PublicKey").field("kid", &self.kid).field("family", &family).finish()
    }
}
