use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use slim_config::{Auth, Jwt as JwtConfig, JwtKey, KeyFormat, KeySource, MetadataValue, Secret};

use super::JwtFile;
use super::keys::algorithm;
use crate::identity::{IdentityError, Jwt, JwtClaims, SigningKey, TOKEN_BYTES, TokenSource};

/// What a link shows to a node that asks who it is (`auth` of its server), beside a certificate.
#[derive(Clone, Default)]
pub enum Credentials {
    /// Nothing; the default.
    #[default]
    None,
    /// A user and a password.
    Basic {
        /// The user; without a colon.
        username: String,
        /// The password.
        password: Secret,
    },
    /// A token that stays the same.
    Bearer(Secret),
    /// A token made, or read, when the link is begun: a [`Jwt`] that the app signs, or a
    /// [`JwtFile`] that somebody else renews.
    Token(Arc<dyn TokenSource>),
}

impl Credentials {
    /// As `auth` of a client's configuration says. Files are read now, to see that they can be.
    ///
    /// # Errors
    /// [`IdentityError::Config`].
    pub fn of(auth: &Auth) -> Result<Self, IdentityError> {
        Ok(match auth {
            Auth::None => Self::None,
            Auth::Basic { username, password } => {
                Self::Basic { username: username.clone(), password: password.clone() }
            }
            Auth::Bearer(token) => Self::Bearer(token.clone()),
            Auth::StaticJwt(token) => Self::Token(Arc::new(JwtFile::open(&token.file)?)),
            Auth::Jwt(jwt) => Self::Token(Arc::new(signed(jwt)?)),
        })
    }

    /// The value of the header `authorization` for a link begun at `now`, if there is one.
    ///
    /// # Errors
    /// [`IdentityError::Unavailable`] without a token that is still good, and
    /// [`IdentityError::Config`] for credentials that cannot be written.
    pub fn authorization(&self, now: SystemTime) -> Result<Option<Secret>, IdentityError> {
        let value = match self {
            Self::None => return Ok(None),
            Self::Basic { username, .. } if username.contains(':') => {
                let reason = "username: expected a text without a colon";
                return Err(IdentityError::config(reason));
            }
            Self::Basic { username, password } => {
                let pair = format!("{username}:{}", password.expose());
                format!("Basic {}", BASE64_STANDARD.encode(pair))
            }
            Self::Bearer(token) => format!("Bearer {}", token.expose()),
            Self::Token(source) => format!("Bearer {}", source.token(now)?),
        };
        let plain = value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if !plain || value.len() > TOKEN_BYTES {
            let reason = "credentials: expected at most 16 KiB of printable ASCII as token";
            return Err(IdentityError::config(reason));
        }
        Ok(Some(Secret::new(value)))
    }
}

/// Tokens that are signed with a key of the configuration.
fn signed(jwt: &JwtConfig) -> Result<Jwt, IdentityError> {
    let JwtKey::Encoding(key) = &jwt.key else {
        return Err(IdentityError::config("jwt.key: expected `encoding`, the key that signs"));
    };
    if key.format != KeyFormat::Pem {
        let reason = "jwt.key.encoding.format: expected `Pem`, the only form of keys that sign";
        return Err(IdentityError::config(reason));
    }
    let algorithm = algorithm(key.algorithm);
    let key = match &key.source {
        KeySource::File(path) => SigningKey::from_file(algorithm, path)?,
        KeySource::Text(text) => SigningKey::new(algorithm, text.expose())?,
    };
    let custom = jwt.claims.custom.iter();
    let claims = JwtClaims {
        issuer: jwt.claims.issuer.clone(),
        audience: jwt.claims.audience.clone(),
        subject: jwt.claims.subject.clone(),
        duration: jwt.duration,
        custom: custom.map(|(name, value)| (name.clone(), json(value))).collect(),
        ..JwtClaims::default()
    };
    Jwt::new(key, claims)
}

/// Without a word of the secret.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Basic { .. } => "Basic",
            Self::Bearer(_) => "Bearer",
            Self::Token(_) => "Token",
        })
    }
}

fn json(value: &MetadataValue) -> Value {
    match value {
        MetadataValue::Boolean(boolean) => (*boolean).into(),
        MetadataValue::Integer(integer) => (*integer).into(),
        MetadataValue::Float(float) => (*float).into(),
        MetadataValue::Text(text) => text.as_str().into(),
        MetadataValue::List(list) => list.iter().map(json).collect(),
        MetadataValue::Map(map) => {
            map.iter().map(|(key, value)| (key.clone(), json(value))).collect()
        }
    }
}
