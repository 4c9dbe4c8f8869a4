//! Certificates and keys in PEM form, in files or in the configuration itself.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use slim_config::{Certificates, Identity};
use thiserror::Error;
use zeroize::Zeroizing;

/// A certificate with those that vouch for it, and its key.
pub type Shown = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Largest file with certificates or a key, in bytes.
const FILE_BYTES: u64 = 4 * 1024 * 1024;

/// A text that is not what it should be.
#[derive(Debug, Error)]
pub enum PemError {
    /// A file cannot be read, or holds no PEM of the kind that is wanted.
    #[error("{key} {}: {source}", path.display())]
    File {
        /// The configuration key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// A text in the configuration is not PEM of the kind that is wanted.
    #[error("{key}: {source}")]
    Text {
        /// The configuration key.
        key: &'static str,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// There is no certificate at all.
    #[error("{key}: expected at least one certificate, got none")]
    NoCertificate {
        /// The configuration key.
        key: &'static str,
    },
    /// A certificate cannot be that of an authority.
    #[error("{key}: {source}")]
    NoAuthority {
        /// The configuration key.
        key: &'static str,
        /// What is wrong with it.
        source: rustls::Error,
    },
}

impl PemError {
    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::File { .. } => "check that the file exists, is readable, and is in PEM form",
            Self::Text { .. } | Self::NoCertificate { .. } => {
                "expected PEM: a text that starts with -----BEGIN"
            }
            Self::NoAuthority { .. } => "name certificates that are in order",
        }
    }
}

/// A text in PEM form, as it was read, and where.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    key: &'static str,
    path: Option<PathBuf>,
    text: Zeroizing<Vec<u8>>,
}

impl Pem {
    /// The content of the file that `key` of the configuration names.
    ///
    /// # Errors
    /// [`PemError::File`].
    pub fn read(key: &'static str, path: &Path) -> Result<Self, PemError> {
        let error = |source| PemError::File { key, path: path.to_owned(), source };
        let text = content(path).map_err(|source| error(pem::Error::Io(source)))?;
        Ok(Self { key, path: Some(path.to_owned()), text })
    }

    /// The text that `key` of the configuration holds.
    pub fn given(key: &'static str, text: &str) -> Self {
        Self { key, path: None, text: Zeroizing::new(text.as_bytes().to_vec()) }
    }

    /// The certificates of authorities: `file` and `text` are the keys of the two forms.
    ///
    /// # Errors
    /// [`PemError::File`].
    pub fn authorities(
        [file, text]: [&'static str; 2],
        certificates: &Certificates,
    ) -> Result<Self, PemError> {
        match certificates {
            Certificates::File(path) => Self::read(file, path),
            Certificates::Pem(pem) => Ok(Self::given(text, pem)),
        }
    }

    /// All certificates of the text, at least one.
    ///
    /// # Errors
    /// [`PemError`].
    pub fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, PemError> {
        let all = CertificateDer::pem_slice_iter(&self.text);
        let all: Vec<_> = all.collect::<Result<_, _>>().map_err(|source| self.wrong(source))?;
        if all.is_empty() { Err(PemError::NoCertificate { key: self.key }) } else { Ok(all) }
    }

    /// The first private key of the text.
    ///
    /// # Errors
    /// [`PemError`].
    pub fn private_key(&self) -> Result<PrivateKeyDer<'static>, PemError> {
        PrivateKeyDer::from_pem_slice(&self.text).map_err(|source| self.wrong(source))
    }

    /// Adds all certificates of the text to `roots`.
    ///
    /// # Errors
    /// [`PemError`].
    pub fn add_to(&self, roots: &mut RootCertStore) -> Result<(), PemError> {
        let error = |source| PemError::NoAuthority { key: self.key, source };
        self.certificates()?.into_iter().try_for_each(|one| roots.add(one).map_err(error))
    }

    fn wrong(&self, source: pem::Error) -> PemError {
        let key = self.key;
        match self.path.clone() {
            Some(path) => PemError::File { key, path, source },
            None => PemError::Text { key, source },
        }
    }
}

/// A certificate and its key as they were read.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    chain: Pem,
    key: Pem,
}

impl Pair {
    /// What the configuration names.
    ///
    /// # Errors
    /// [`PemError::File`].
    pub fn read(identity: &Identity) -> Result<Self, PemError> {
        Ok(match identity {
            Identity::Files { certificate, key } => Self {
                chain: Pem::read("cert_file", certificate)?,
                key: Pem::read("key_file", key)?,
            },
            Identity::Pem { certificate, key } => Self {
                chain: Pem::given("cert_pem", certificate),
                key: Pem::given("key_pem", key.expose()),
            },
        })
    }

    /// The whole chain and the key. Whether they go together is not looked at.
    ///
    /// # Errors
    /// [`PemError`].
    pub fn shown(&self) -> Result<Shown, PemError> {
        Ok((self.chain.certificates()?, self.key.private_key()?))
    }
}

/// The bytes of a file, which is to be no pipe and not too long.
fn content(path: &Path) -> std::io::Result<Zeroizing<Vec<u8>>> {
    use std::io::{Error, ErrorKind};
    // To open a pipe would wait for its other end.
    if !std::fs::metadata(path)?.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "expected a file"));
    }
    let mut bytes = Zeroizing::new(Vec::new());
    File::open(path)?.take(FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES {
        let reason = format!("expected at most {FILE_BYTES} bytes");
        return Err(Error::new(ErrorKind::FileTooLarge, reason));
    }
    Ok(bytes)
}
