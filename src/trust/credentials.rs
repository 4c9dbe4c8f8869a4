use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use slim_config::{
    Auth, Jwt as JwtConfig, JwtKey, KeyFormat, KeySource, MetadataValue, Secret,
    TokenSource as ConfiguredSource,
};

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

/// Tokens as the configuration says, but for those of a shared secret.
///
/// # Errors
/// [`IdentityError::Config`].
pub fn source_of(configured: &ConfiguredSource) -> Result<Arc<dyn TokenSource>, IdentityError> {
    Ok(match configured {
        ConfiguredSource::StaticJwt(token) => Arc::new(JwtFile::open(&token.file)?),
        ConfiguredSource::Jwt(jwt) => Arc::new(signed(jwt)?),
        ConfiguredSource::None | ConfiguredSource::SharedSecret(_) => {
            return Err(IdentityError::config("token source: expected `static_jwt` or `jwt`"));
        }
    })
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

#[cfg(test)]
mod tests {
    use slim_config::{Algorithm, Claims, KeyData};

    use super::*;
    use crate::identity::{JwtCheck, JwtRules, TokenCheck};
    use crate::trust::KeyText;

    const SECRET: &str = "a secret of at least 32 bytes, really";

    fn key(algorithm: Algorithm, format: KeyFormat, text: &str) -> KeyData {
        KeyData { algorithm, format, source: KeySource::Text(Secret::new(text)) }
    }

    fn jwt(key: JwtKey, custom: &[(&str, MetadataValue)]) -> Auth {
        let custom = custom.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        let subject = Some("alice".to_owned());
        let claims = Claims { subject, custom: custom.collect(), ..Claims::default() };
        Auth::Jwt(JwtConfig { claims, duration: std::time::Duration::from_secs(60), key })
    }

    fn authorization(auth: &Auth) -> String {
        let credentials = Credentials::of(auth).expect("usable");
        assert!(!format!("{credentials:?}").contains("secret"));
        let value = credentials.authorization(SystemTime::now()).expect("a value");
        value.expect("a value").expose().to_owned()
    }

    #[test]
    fn what_a_configuration_says_is_written_as_published_clients_write_it() {
        let (username, password) = ("alice".to_owned(), Secret::new("open secret"));
        let basic = authorization(&Auth::Basic { username, password });
        assert_eq!(basic, "Basic YWxpY2U6b3BlbiBzZWNyZXQ=");
        assert_eq!(authorization(&Auth::Bearer(Secret::new("a.b.c"))), "Bearer a.b.c");
        let none = Credentials::of(&Auth::None).expect("usable");
        assert!(none.authorization(SystemTime::now()).expect("nothing").is_none());
    }

    #[test]
    fn a_signed_token_is_good_by_its_key_and_has_the_further_claims() {
        let key = key(Algorithm::Hs256, KeyFormat::Pem, SECRET);
        let nested = [("b".to_owned(), MetadataValue::List(vec![MetadataValue::Integer(1)]))];
        let custom = [("site", MetadataValue::Map(nested.into()))];
        let value = authorization(&jwt(JwtKey::Encoding(key.clone()), &custom));
        let token = value.strip_prefix("Bearer ").expect("a token");
        let keys = KeyText::read(&key).and_then(|text| text.keys(&key)).expect("keys");
        let check = JwtCheck::new(keys, JwtRules::default());
        let principal = check.check(token, SystemTime::now()).expect("good");
        assert_eq!(&*principal.subject, "alice");
        let claims = token.split('.').nth(1).expect("claims");
        let claims = base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(claims).expect("base64");
        let claims: Value = serde_json::from_slice(&claims).expect("JSON");
        assert_eq!(claims["site"], serde_json::json!({ "b": [1] }));
    }

    #[test]
    fn keys_and_claims_that_cannot_be_used_are_told() {
        let error = |auth| Credentials::of(&auth).expect_err("unusable").to_string();
        let signs = |algorithm, format, text| JwtKey::Encoding(key(algorithm, format, text));
        let set = jwt(signs(Algorithm::Es256, KeyFormat::Jwks, "{}"), &[]);
        assert!(error(set).contains("format: expected `Pem`"));
        let wrong = jwt(signs(Algorithm::Es256, KeyFormat::Pem, SECRET), &[]);
        assert!(error(wrong).contains("expected a private key"));
        let own = [("exp", MetadataValue::Integer(0))];
        let own = jwt(signs(Algorithm::Hs256, KeyFormat::Pem, SECRET), &own);
        assert!(error(own).contains("expected others than \"exp\""));
    }

    #[test]
    fn a_key_that_checks_has_to_be_one_for_the_configured_algorithm() {
        let oct = r#"{"kty":"oct","k":"c2VjcmV0","kid":"a"}"#;
        let keys = |algorithm, format, text: &str| {
            let key = key(algorithm, format, text);
            KeyText::read(&key).and_then(|text| text.keys(&key)).err().map(|e| e.to_string())
        };
        assert_eq!(keys(Algorithm::Hs384, KeyFormat::Jwk, oct), None);
        let told = keys(Algorithm::Es256, KeyFormat::Jwk, oct).expect("another kind");
        assert!(told.contains("expected one for ES256"), "{told}");
        let set = format!(r#"{{"keys":[{oct}]}}"#);
        assert_eq!(keys(Algorithm::Hs256, KeyFormat::Jwks, &set), None);
        let told = keys(Algorithm::EdDsa, KeyFormat::Jwks, &set).expect("another kind");
        assert!(told.contains("expected one for EdDSA"), "{told}");
    }
}
