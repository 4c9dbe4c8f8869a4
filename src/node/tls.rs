use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use slim_config::{Identity, ServerTls, TlsVersion};
use thiserror::Error;
use tokio_rustls::TlsAcceptor;

/// A certificate or key that cannot be used. A fault of the configuration.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read, or holds no PEM of the kind that is wanted.
    #[error("{key} {}: {source}", path.display())]
    File {
        /// The configuration key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::pki_types::pem::Error,
    },
    /// A PEM text in the configuration is not of the kind that is wanted.
    #[error("{key}: {source}")]
    Pem {
        /// The configuration key.
        key: &'static str,
        /// What is wrong with it.
        source: rustls::pki_types::pem::Error,
    },
    /// There is no certificate at all.
    #[error("{key}: expected at least one certificate, got none")]
    NoCertificate {
        /// The configuration key.
        key: &'static str,
    },
    /// Certificate and key do not go together, or are of a kind that is not supported.
    #[error("certificate and key: {0}")]
    Rejected(#[from] rustls::Error),
}

impl TlsError {
    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::File { .. } => "check that the file exists, is readable, and is in PEM form",
            Self::Pem { .. } | Self::NoCertificate { .. } => {
                "expected PEM: a text that starts with -----BEGIN"
            }
            Self::Rejected(_) => "the key has to be the one that the certificate was made for",
        }
    }
}

/// What accepts TLS connections as the configuration says: the whole chain of the certificate,
/// one version of TLS, HTTP/2 only.
pub(super) fn acceptor(tls: &ServerTls) -> Result<TlsAcceptor, TlsError> {
    let (chain, key) = match &tls.identity {
        Identity::Files { certificate, key } => (chain_of_file(certificate)?, key_of_file(key)?),
        Identity::Pem { certificate, key } => {
            (chain_of_text(certificate)?, key_of_text(key.expose())?)
        }
    };
    let version = match tls.version {
        TlsVersion::Tls12 => &rustls::version::TLS12,
        TlsVersion::Tls13 => &rustls::version::TLS13,
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn chain_of_file(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let error = |source| TlsError::File { key: "cert_file", path: path.to_owned(), source };
    let certificates = CertificateDer::pem_file_iter(path).map_err(error)?;
    not_empty("cert_file", certificates.collect::<Result<_, _>>().map_err(error)?)
}

fn chain_of_text(text: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_slice_iter(text.as_bytes());
    let error = |source| TlsError::Pem { key: "cert_pem", source };
    not_empty("cert_pem", certificates.collect::<Result<_, _>>().map_err(error)?)
}

fn not_empty(
    key: &'static str,
    chain: Vec<CertificateDer<'static>>,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    if chain.is_empty() { Err(TlsError::NoCertificate { key }) } else { Ok(chain) }
}

fn key_of_file(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let error = |source| TlsError::File { key: "key_file", path: path.to_owned(), source };
    PrivateKeyDer::from_pem_file(path).map_err(error)
}

fn key_of_text(text: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(text.as_bytes())
        .map_err(|source| TlsError::Pem { key: "key_pem", source })
}
