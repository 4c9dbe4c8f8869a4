use std::path::PathBuf;
use std::time::Duration;

use crate::metadata::{self, Metadata};
use crate::secret::Secret;
use crate::section::Section;
use crate::tree::Kind;
use crate::value::{Case, Value};

/// Who a client is, or who may connect to a server (reference of 0.6, `auth`).
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Auth {
    /// Nobody is asked; the default.
    #[default]
    None,
    /// `basic`: user name and password.
    Basic {
        /// The user; not empty.
        username: String,
        /// The password; not empty.
        password: Secret,
    },
    /// `jwt`: a token that a client signs and a server checks.
    Jwt(Jwt),
    /// `static_jwt`: a token in a file; clients only.
    StaticJwt(StaticJwt),
    /// `bearer`: a fixed token; clients only, releases 0.4 and 0.5.
    Bearer(Secret),
}

/// `token_provider` and `token_verifier`: the identity on messages that a node itself sends for
/// its control plane.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum TokenSource {
    /// None; the default.
    #[default]
    None,
    /// `shared_secret`: what all members of a group know; not empty.
    SharedSecret(Secret),
    /// `static_jwt`: a token in a file; `token_provider` only.
    StaticJwt(StaticJwt),
    /// `jwt`: a token that is signed or checked with a key.
    Jwt(Jwt),
}

/// A token in a file that something else renews (`static_jwt`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticJwt {
    /// The file with the token.
    pub file: PathBuf,
    /// How long a token is used; in the file whole seconds, default 3600.
    pub duration: Duration,
}

/// A token that is signed or checked here (`jwt`).
#[derive(Clone, Debug, PartialEq)]
pub struct Jwt {
    /// What the token says, or has to say.
    pub claims: Claims,
    /// Life time of a token, default `1h`.
    pub duration: Duration,
    /// The key.
    pub key: JwtKey,
}

/// What a token says (`jwt.claims`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claims {
    /// `audience`: one text or a list. Default empty.
    pub audience: Vec<String>,
    /// `issuer`, default none.
    pub issuer: Option<String>,
    /// `subject`, default none.
    pub subject: Option<String>,
    /// `custom_claims`: a free map, default empty.
    pub custom: Metadata,
}

/// Where the key of a token comes from (`jwt.key`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwtKey {
    /// `encoding`: signs; clients.
    Encoding(KeyData),
    /// `decoding`: checks; servers.
    Decoding(KeyData),
    /// `autoresolve: true`: the issuer, which `claims.issuer` has to name, publishes its keys;
    /// servers.
    AutoResolve,
}

/// A key (`jwt.key.encoding` or `.decoding`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyData {
    /// `algorithm`; required.
    pub algorithm: Algorithm,
    /// `format`, in any case of letters; default `Pem`.
    pub format: KeyFormat,
    /// `file`, or the text itself as `str`, `pem` or `data`.
    pub source: KeySource,
}

/// Where the text of a key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// In this file.
    File(PathBuf),
    /// Here.
    Text(Secret),
}

/// How the text of a key is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyFormat {
    /// PEM; the default.
    #[default]
    Pem,
    /// One JSON Web Key.
    Jwk,
    /// A set of JSON Web Keys.
    Jwks,
}

/// How a token is signed; the names are those of RFC 7518 and RFC 8037.
#[allow(missing_docs, reason = "the names are the registered ones")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

const ALGORITHMS: [(&str, Algorithm); 12] = [
    ("HS256", Algorithm::Hs256),
    ("HS384", Algorithm::Hs384),
    ("HS512", Algorithm::Hs512),
    ("RS256", Algorithm::Rs256),
    ("RS384", Algorithm::Rs384),
    ("RS512", Algorithm::Rs512),
    ("PS256", Algorithm::Ps256),
    ("PS384", Algorithm::Ps384),
    ("PS512", Algorithm::Ps512),
    ("ES256", Algorithm::Es256),
    ("ES384", Algorithm::Es384),
    ("EdDSA", Algorithm::EdDsa),
];

const FORMATS: [(&str, KeyFormat); 3] =
    [("Pem", KeyFormat::Pem), ("Jwk", KeyFormat::Jwk), ("Jwks", KeyFormat::Jwks)];

/// Which end of a token a block configures.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Signs,
    Checks,
}

/// The `auth` block of a server.
pub(crate) fn read_server(value: Value<'_>) -> Option<Auth> {
    read(value, &["basic", "jwt"], |kind, value| match kind {
        0 => read_basic(value),
        _ => read_jwt(value, End::Checks).map(Auth::Jwt),
    })
}

/// The `auth` block of a client.
pub(crate) fn read_client(value: Value<'_>) -> Option<Auth> {
    const KINDS: &[&str] = &["basic", "jwt", "static_jwt", "bearer"];
    read(value, KINDS, |kind, value| match kind {
        0 => read_basic(value),
        1 => read_jwt(value, End::Signs).map(Auth::Jwt),
        2 => read_static_jwt(value).map(Auth::StaticJwt),
        _ => read_bearer(value),
    })
}

/// The `auth` block of a client that is not of this machine's configuration: nothing of it may come
/// from files.
pub(crate) fn read_inline(value: Value<'_>) -> Option<Auth> {
    read(value, &["basic", "bearer"], |kind, value| match kind {
        0 => read_basic(value),
        _ => read_bearer(value),
    })
}

/// `controller.token_provider`.
pub(crate) fn read_provider(value: Value<'_>) -> Option<TokenSource> {
    const KINDS: &[&str] = &["shared_secret", "static_jwt", "jwt"];
    read(value, KINDS, |kind, value| match kind {
        0 => value.secret().map(TokenSource::SharedSecret),
        1 => read_static_jwt(value).map(TokenSource::StaticJwt),
        _ => read_jwt(value, End::Signs).map(TokenSource::Jwt),
    })
}

/// `controller.token_verifier`.
pub(crate) fn read_verifier(value: Value<'_>) -> Option<TokenSource> {
    read(value, &["shared_secret", "jwt"], |kind, value| match kind {
        0 => value.secret().map(TokenSource::SharedSecret),
        _ => read_jwt(value, End::Checks).map(TokenSource::Jwt),
    })
}

/// `none`, or a mapping with a single one of `kinds`.
fn read<'a, T: Default>(
    value: Value<'a>,
    kinds: &'static [&'static str],
    of_kind: impl FnOnce(usize, Value<'a>) -> Option<T>,
) -> Option<T> {
    match &value.node.kind {
        Kind::Text(text) if text.text == "none" => return Some(T::default()),
        Kind::Mapping(_) => {}
        _ => {
            let kinds: Vec<_> = kinds.iter().map(|kind| format!("`{kind}`")).collect();
            let what = format!("`none` or a mapping with one of {}", kinds.join(", "));
            return value.expected_unshown(what);
        }
    }
    let mut section = value.section()?;
    if section.later_spelling("type", "the kind as key, as in `auth: { basic: { … } }`") {
        return None;
    }
    let kind = section.one_of(kinds);
    section.finish();
    let (kind, value) = kind?;
    of_kind(kind, value)
}

fn read_basic(value: Value<'_>) -> Option<Auth> {
    let mut section = value.section()?;
    let username = section.required("username", |value| match value.filled_text()? {
        text if text.contains(':') => value.expected_unshown("a text without a colon"),
        text => Some(text.to_owned()),
    });
    let password = section.required("password", Value::secret);
    section.finish();
    Some(Auth::Basic { username: username?, password: password? })
}

fn read_bearer(value: Value<'_>) -> Option<Auth> {
    let mut section = value.section()?;
    let token = section.required("token", Value::secret);
    section.finish();
    token.map(Auth::Bearer)
}

fn read_static_jwt(value: Value<'_>) -> Option<StaticJwt> {
    const YEAR: u64 = 365 * 24 * 60 * 60;
    let mut section = value.section()?;
    let file = section.required("file", Value::file_path);
    let seconds = section.optional("duration", |value| value.integer(1..=YEAR));
    section.finish();
    Some(StaticJwt { file: file?, duration: Duration::from_secs(seconds.unwrap_or(3600)) })
}

fn read_jwt(value: Value<'_>, end: End) -> Option<Jwt> {
    let mut section = value.section()?;
    let claims = section.optional("claims", read_claims).unwrap_or_default();
    let duration = section.optional("duration", Value::positive_duration);
    let key = section.required("key", |value| read_key(value, end));
    section.finish();
    let key = key?;
    if key == JwtKey::AutoResolve && claims.issuer.is_none() {
        return value.fail(
            "expected `claims.issuer` with `key.autoresolve`, got none",
            Some("name the issuer: otherwise whoever can publish keys is let in".into()),
        );
    }
    if end == End::Checks && !claims.custom.is_empty() {
        let message = "`claims.custom_claims` has no effect: only clients put claims into tokens";
        value.warn(message, Some("it can be removed"));
    }
    Some(Jwt { claims, duration: duration.unwrap_or(Duration::from_secs(3600)), key })
}

fn read_claims(value: Value<'_>) -> Option<Claims> {
    let mut section = value.section()?;
    let audience = section.optional("audience", |value| match &value.node.kind {
        Kind::Text(text) => Some(vec![text.text.clone()]),
        Kind::List(_) => value.each(Value::owned_text),
        _ => value.expected("a text or a list of texts"),
    });
    let claims = Claims {
        audience: audience.unwrap_or_default(),
        issuer: section.optional("issuer", Value::owned_text),
        subject: section.optional("subject", Value::owned_text),
        custom: section.optional("custom_claims", metadata::read).unwrap_or_default(),
    };
    section.finish();
    Some(claims)
}

fn read_key(value: Value<'_>, end: End) -> Option<JwtKey> {
    let mut section = value.section()?;
    if section.later_spelling("type", "`encoding`, `decoding` or `autoresolve` as key") {
        return None;
    }
    let kind = match end {
        End::Signs => section.one_of(&["encoding"]),
        End::Checks => section.one_of(&["decoding", "autoresolve"]),
    };
    section.finish();
    match (kind?, end) {
        ((0, value), End::Signs) => read_key_data(value).map(JwtKey::Encoding),
        ((0, value), End::Checks) => read_key_data(value).map(JwtKey::Decoding),
        ((_, value), _) => match value.clone().boolean()? {
            true => Some(JwtKey::AutoResolve),
            false => value.expected_with_hint("`true`", "name a key with `decoding` instead"),
        },
    }
}

fn read_key_data(value: Value<'_>) -> Option<KeyData> {
    let mut section = value.section()?;
    let algorithm = section.required("algorithm", |v| v.choice(&ALGORITHMS, Case::Sensitive));
    let format = section.optional("format", |v| v.choice(&FORMATS, Case::Insensitive));
    let source = read_key_source(&mut section);
    section.finish();
    Some(KeyData { algorithm: algorithm?, format: format.unwrap_or_default(), source: source? })
}

fn read_key_source(section: &mut Section<'_>) -> Option<KeySource> {
    match section.one_of(&["file", "str", "pem", "data"])? {
        (0, value) => value.file_path().map(KeySource::File),
        (_, value) => value.secret().map(KeySource::Text),
    }
}
