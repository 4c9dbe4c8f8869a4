use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tracing::warn;
use zeroize::Zeroizing;

use crate::identity::{
    Algorithm, IdentityError, JwtCheck, JwtRules, Keys, Principal, SigningKey, Standing, StaticJwt,
    TOKEN_BYTES, TokenCheck, TokenSource,
};

/// A file is looked at no more often than this.
const LOOK: Duration = Duration::from_secs(1);

/// Largest file with keys, in bytes.
const KEYS_BYTES: usize = 4 * 1024 * 1024;

/// A JWT in a file that somebody else renews, in place or by another file of its name. Whether it
/// changed is looked up when a token is asked for, at most once a second.
#[derive(Debug)]
pub struct JwtFile {
    jwt: StaticJwt,
    file: WatchedFile,
}

/// The form of keys in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyForm {
    /// [`Keys::pem`].
    Pem,
    /// [`Keys::jwk`].
    Jwk,
    /// [`Keys::jwks`].
    Jwks,
    /// [`Keys::trust_bundle`].
    TrustBundle,
    /// [`Keys::secret`]: the whole text is the secret.
    Secret,
}

/// Judges JWTs by keys in a file, which are read again as the token of a [`JwtFile`] is.
#[derive(Debug)]
pub struct KeyFile {
    check: JwtCheck,
    form: KeyForm,
    file: WatchedFile,
}

#[derive(Debug)]
struct WatchedFile {
    path: PathBuf,
    /// Longest text in bytes.
    limit: usize,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    looked: Option<SystemTime>,
    stamp: Option<Stamp>,
}

/// What is other after a change: of the content, or of the file that has the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl SigningKey {
    /// From a file with the text that [`SigningKey::new`] takes.
    ///
    /// # Errors
    /// [`IdentityError::Config`] if it cannot be read, or cannot sign by this algorithm.
    pub fn from_file(algorithm: Algorithm, path: impl AsRef<Path>) -> Result<Self, IdentityError> {
        let path = path.as_ref();
        let text = read_keys(path)?;
        Self::new(algorithm, &text).map_err(|error| in_file(path, error))
    }
}

impl JwtFile {
    /// The JWT in this file; white space around it is left out.
    ///
    /// # Errors
    /// [`IdentityError::Config`] if there is none.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, IdentityError> {
        let (file, text) = WatchedFile::open(path.as_ref(), TOKEN_BYTES + 1024)?;
        let jwt = StaticJwt::new(&text).map_err(|error| in_file(&file.path, error))?;
        Ok(Self { jwt, file })
    }
}

impl TokenSource for JwtFile {
    fn token(&self, now: SystemTime) -> Result<Arc<str>, IdentityError> {
        self.file.follow(now, |text| self.jwt.replace(text));
        self.jwt.token(now)
    }
}

impl KeyForm {
    fn read(self, text: &str) -> Result<Keys, IdentityError> {
        match self {
            Self::Pem => Keys::pem(text),
            Self::Jwk => Keys::jwk(text),
            Self::Jwks => Keys::jwks(text),
            Self::TrustBundle => Keys::trust_bundle(text),
            Self::Secret => Keys::secret(text),
        }
    }
}

impl KeyFile {
    /// By the keys in this file, and these rules.
    ///
    /// # Errors
    /// [`IdentityError::Config`] if there are none.
    pub fn open(
        path: impl AsRef<Path>,
        form: KeyForm,
        rules: JwtRules,
    ) -> Result<Self, IdentityError> {
        let (file, text) = WatchedFile::open(path.as_ref(), KEYS_BYTES)?;
        let keys = form.read(&text).map_err(|error| in_file(&file.path, error))?;
        Ok(Self { check: JwtCheck::new(keys, rules), form, file })
    }

    fn follow(&self, now: SystemTime) {
        let take = |text: &str| self.form.read(text).map(|keys| self.check.replace_keys(keys));
        self.file.follow(now, take);
    }
}

impl TokenCheck for KeyFile {
    fn check(&self, token: &str, now: SystemTime) -> Result<Principal, IdentityError> {
        self.follow(now);
        self.check.check(token, now)
    }

    fn check_credential(
        &self,
        credential: &str,
        key: &[u8],
        standing: Standing,
        now: SystemTime,
    ) -> Result<Principal, IdentityError> {
        self.follow(now);
        self.check.check_credential(credential, key, standing, now)
    }
}

impl WatchedFile {
    fn open(path: &Path, limit: usize) -> Result<(Self, Zeroizing<String>), IdentityError> {
        let (stamp, text) = read(path, limit).map_err(|error| unreadable(path, &error))?;
        let seen = Mutex::new(Seen { looked: None, stamp: Some(stamp) });
        Ok((Self { path: path.to_owned(), limit, seen }, text))
    }

    /// Hands over the text if it has changed. One that cannot be read or used changes nothing, and
    /// is logged once: it may be half written.
    fn follow(&self, now: SystemTime, take: impl FnOnce(&str) -> Result<(), IdentityError>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let just = |looked| now.duration_since(looked).is_ok_and(|since| since < LOOK);
        if seen.looked.is_some_and(just) {
            return;
        }
        seen.looked = Some(now);
        let stamp = fs::metadata(&self.path).map(|metadata| Stamp::of(&metadata)).ok();
        if stamp == seen.stamp {
            return;
        }
        seen.stamp = stamp;
        let taken = read(&self.path, self.limit)
            .map_err(|error| unreadable(&self.path, &error))
            .and_then(|(stamp, text)| {
                seen.stamp = Some(stamp);
                take(&text).map_err(|error| in_file(&self.path, error))
            });
        if let Err(error) = taken {
            warn!(%error, "what was read before is kept");
        }
    }
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// The text of a file with keys.
pub(super) fn read_keys(path: &Path) -> Result<Zeroizing<String>, IdentityError> {
    read(path, KEYS_BYTES).map(|(_, text)| text).map_err(|error| unreadable(path, &error))
}

/// The text of a file, and what the file was like before it was read.
fn read(path: &Path, limit: usize) -> io::Result<(Stamp, Zeroizing<String>)> {
    // To open a pipe would wait for its other end.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "expected a file"));
    }
    let file = File::open(path)?;
    let stamp = Stamp::of(&file.metadata()?);
    let mut text = Zeroizing::new(String::new());
    file.take(limit as u64 + 1).read_to_string(&mut text)?;
    if text.len() > limit {
        let reason = format!("expected at most {limit} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
    }
    Ok((stamp, text))
}

fn unreadable(path: &Path, error: &io::Error) -> IdentityError {
    IdentityError::Config { reason: format!("{}: {error}", path.display()) }
}

fn in_file(path: &Path, error: IdentityError) -> IdentityError {
    match error {
        IdentityError::Config { reason } => {
            IdentityError::Config { reason: format!("{}: {reason}", path.display()) }
        }
        other => other,
    }
}
