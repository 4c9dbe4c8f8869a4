use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use slim_config::{Certificates, ClientTls, Identity, ServerTls, TlsVersion};
use thiserror::Error;
use tokio_rustls::TlsAcceptor;

use crate::link::quic::tls::{AcceptAny, quic_provider};

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
    /// A certificate for a server without one cannot be made.
    #[error("certificate of its own: {0}")]
    SelfSigned(#[from] rcgen::Error),
    /// The authorities of the platform cannot be read.
    #[error("authorities of the platform: {0}")]
    Platform(rustls_native_certs::Error),
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
            Self::SelfSigned(_) => "configure a certificate, or set `quic: { enabled: false }`",
            Self::Platform(_) => "name the authority with `ca_file`",
        }
    }
}

/// A certificate with those that vouch for it, and its key.
type Shown = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn shown(identity: &Identity) -> Result<Shown, TlsError> {
    Ok(match identity {
        Identity::Files { certificate, key } => (chain_of_file(certificate)?, key_of_file(key)?),
        Identity::Pem { certificate, key } => {
            (chain_of_text(certificate)?, key_of_text(key.expose())?)
        }
    })
}

/// What QUIC connections are accepted with: the configured certificate, or, where the
/// configuration does without TLS, one made now for nobody in particular; QUIC has no other way.
pub(super) fn quic_server(tls: Option<&ServerTls>) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let (chain, key) = match tls {
        Some(tls) => shown(&tls.identity)?,
        None => self_signed()?,
    };
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(quic_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![slim_wire::ALPN.to_vec()];
    Ok(Arc::new(config))
}

fn self_signed() -> Result<Shown, TlsError> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    Ok((vec![made.cert.der().clone()], key.into()))
}

/// What accepts TLS connections as the configuration says: the whole chain of the certificate,
/// one version of TLS, HTTP/2 only.
pub(super) fn acceptor(tls: &ServerTls) -> Result<TlsAcceptor, TlsError> {
    let (chain, key) = shown(&tls.identity)?;
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

/// What a link to another node is begun with.
pub(super) fn quic_client(tls: Option<&ClientTls>) -> Result<Arc<rustls::ClientConfig>, TlsError> {
    let provider = Arc::new(quic_provider());
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    let builder = match tls {
        Some(tls) if !tls.skip_verification => builder.with_root_certificates(authorities(tls)?),
        // Without TLS in the configuration the other end has a certificate of its own making.
        _ => builder.dangerous().with_custom_certificate_verifier(AcceptAny::new(&provider)),
    };
    let mut config = match tls.and_then(|tls| tls.identity.as_ref()) {
        Some(identity) => {
            let (chain, key) = shown(identity)?;
            builder.with_client_auth_cert(chain, key)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![slim_wire::ALPN.to_vec()];
    Ok(Arc::new(config))
}

/// What a link to a published node is begun with.
pub(super) fn http2_client(tls: &ClientTls) -> Result<Arc<rustls::ClientConfig>, TlsError> {
    let version = match tls.version {
        TlsVersion::Tls12 => &rustls::version::TLS12,
        TlsVersion::Tls13 => &rustls::version::TLS13,
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])?;
    let builder = if tls.skip_verification {
        builder.dangerous().with_custom_certificate_verifier(AcceptAny::new(&provider))
    } else {
        builder.with_root_certificates(authorities(tls)?)
    };
    let mut config = match &tls.identity {
        Some(identity) => {
            let (chain, key) = shown(identity)?;
            builder.with_client_auth_cert(chain, key)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

fn authorities(tls: &ClientTls) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let named = match &tls.authorities {
        Some(Certificates::File(path)) => certificates_of_file("ca_file", path)?,
        Some(Certificates::Pem(text)) => certificates_of_text("ca_pem", text)?,
        None => Vec::new(),
    };
    for certificate in named {
        roots.add(certificate)?;
    }
    if tls.platform_authorities {
        let mut platform = rustls_native_certs::load_native_certs();
        // Platforms carry certificates that no library takes; the others will do.
        roots.add_parsable_certificates(platform.certs);
        if let (true, Some(error)) = (roots.is_empty(), platform.errors.pop()) {
            return Err(TlsError::Platform(error));
        }
    }
    Ok(roots)
}

fn chain_of_file(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    certificates_of_file("cert_file", path)
}

fn chain_of_text(text: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    certificates_of_text("cert_pem", text)
}

fn certificates_of_file(
    key: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let error = |source| TlsError::File { key, path: path.to_owned(), source };
    let certificates = CertificateDer::pem_file_iter(path).map_err(error)?;
    not_empty(key, certificates.collect::<Result<_, _>>().map_err(error)?)
}

fn certificates_of_text(
    key: &'static str,
    text: &str,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_slice_iter(text.as_bytes());
    let error = |source| TlsError::Pem { key, source };
    not_empty(key, certificates.collect::<Result<_, _>>().map_err(error)?)
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
