use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, SupportedProtocolVersion};
use slim_config::{Certificates, ClientTls, Identity, ServerTls, TlsVersion};
use thiserror::Error;

use crate::link::quic::settings::ResetKey;
use crate::link::quic::tls::{AcceptAny, quic_provider};
use crate::trust::pem::{Pair, Pem, PemError, Shown};

/// A certificate or key that cannot be used. A fault of the configuration.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file or text is not what it should be.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// Certificate and key do not go together, or are of a kind that is not supported.
    #[error("certificate and key: {0}")]
    Rejected(#[from] rustls::Error),
    /// The authorities of clients cannot be used.
    #[error("client_ca: {0}")]
    ClientAuthorities(#[from] VerifierBuilderError),
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
            Self::Pem(error) => error.hint(),
            Self::Rejected(_) => "the key has to be the one that the certificate was made for",
            Self::ClientAuthorities(_) => "name the certificates of authorities",
            Self::SelfSigned(_) => "configure a certificate, or set `quic: { enabled: false }`",
            Self::Platform(_) => "name the authority with `ca_file`",
        }
    }
}

/// What the TLS of a server is made from, as it was read.
#[derive(PartialEq, Eq)]
pub(super) struct ServerMaterial {
    pair: Pair,
    client_ca: Option<Pem>,
}

impl ServerMaterial {
    pub(super) fn read(tls: &ServerTls) -> Result<Self, PemError> {
        const KEYS: [&str; 2] = ["client_ca_file", "client_ca_pem"];
        let pair = Pair::read(&tls.identity)?;
        let client_ca = tls.client_ca.as_ref().map(|ca| Pem::authorities(KEYS, ca)).transpose()?;
        Ok(Self { pair, client_ca })
    }

    /// By what its peers are told, after a restart, that their connections are gone.
    pub(super) fn reset_key(&self) -> Result<ResetKey, PemError> {
        let (_, key) = self.pair.shown()?;
        Ok(ResetKey::of(key.secret_der()))
    }

    /// Whether any of it can change.
    pub(super) fn is_in_files(tls: &ServerTls) -> bool {
        matches!(tls.identity, Identity::Files { .. })
            || matches!(tls.client_ca, Some(Certificates::File(_)))
    }
}

/// What TLS connections are accepted with as the configuration says: the whole chain of the
/// certificate, one version of TLS, HTTP/2 only.
pub(super) fn grpc_server(
    tls: &ServerTls,
    material: &ServerMaterial,
) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let version = match tls.version {
        TlsVersion::Tls12 => &rustls::version::TLS12,
        TlsVersion::Tls13 => &rustls::version::TLS13,
    };
    let (shown, ca) = (material.pair.shown()?, material.client_ca.as_ref());
    server(aws_lc_rs::default_provider(), version, shown, ca, b"h2")
}

/// What QUIC connections are accepted with: the configured certificate, or, where the
/// configuration does without TLS, one made now for nobody in particular; QUIC has no other way.
pub(super) fn quic_server(
    material: Option<&ServerMaterial>,
) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let (shown, ca) = match material {
        Some(material) => (material.pair.shown()?, material.client_ca.as_ref()),
        None => (self_signed()?, None),
    };
    server(quic_provider(), &rustls::version::TLS13, shown, ca, slim_wire::ALPN)
}

fn server(
    provider: CryptoProvider,
    version: &'static rustls::SupportedProtocolVersion,
    (chain, key): Shown,
    client_ca: Option<&Pem>,
    protocol: &[u8],
) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let provider = Arc::new(provider);
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])?;
    let builder = match client_ca {
        Some(authorities) => {
            let mut roots = RootCertStore::empty();
            authorities.add_to(&mut roots)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build()?)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Arc::new(config))
}

fn self_signed() -> Result<Shown, TlsError> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    Ok((vec![made.cert.der().clone()], key.into()))
}

/// What the TLS of a link to another node is made from, as it was read.
#[derive(PartialEq, Eq)]
pub(crate) struct ClientMaterial {
    pair: Option<Pair>,
    authorities: Option<Pem>,
}

impl ClientMaterial {
    pub(crate) fn read(tls: &ClientTls) -> Result<Self, PemError> {
        const KEYS: [&str; 2] = ["ca_file", "ca_pem"];
        let authorities = tls.authorities.as_ref().map(|ca| Pem::authorities(KEYS, ca));
        Ok(Self {
            pair: tls.identity.as_ref().map(Pair::read).transpose()?,
            authorities: authorities.transpose()?,
        })
    }

    /// Whether any of it can change.
    pub(super) fn is_in_files(tls: &ClientTls) -> bool {
        matches!(tls.identity, Some(Identity::Files { .. }))
            || matches!(tls.authorities, Some(Certificates::File(_)))
    }
}

/// What a link to another node is begun with.
pub(super) fn quic_client(
    tls: Option<(&ClientTls, &ClientMaterial)>,
) -> Result<Arc<rustls::ClientConfig>, TlsError> {
    client(tls, quic_provider(), &rustls::version::TLS13, slim_wire::ALPN)
}

/// What a link to a published node is begun with.
pub(crate) fn http2_client(
    tls: &ClientTls,
    material: &ClientMaterial,
) -> Result<Arc<rustls::ClientConfig>, TlsError> {
    let version = match tls.version {
        TlsVersion::Tls12 => &rustls::version::TLS12,
        TlsVersion::Tls13 => &rustls::version::TLS13,
    };
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    client(Some((tls, material)), provider, version, b"h2")
}

fn client(
    tls: Option<(&ClientTls, &ClientMaterial)>,
    provider: CryptoProvider,
    version: &'static SupportedProtocolVersion,
    protocol: &[u8],
) -> Result<Arc<rustls::ClientConfig>, TlsError> {
    let provider = Arc::new(provider);
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])?;
    let builder = match tls {
        Some((tls, material)) if !tls.skip_verification => {
            builder.with_root_certificates(authorities(tls, material)?)
        }
        // Without TLS in the configuration the other end has a certificate of its own making.
        _ => builder.dangerous().with_custom_certificate_verifier(AcceptAny::new(&provider)),
    };
    let mut config = match tls.and_then(|(_, material)| material.pair.as_ref()) {
        Some(pair) => {
            let (chain, key) = pair.shown()?;
            builder.with_client_auth_cert(chain, key)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Arc::new(config))
}

fn authorities(tls: &ClientTls, material: &ClientMaterial) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    if let Some(named) = &material.authorities {
        named.add_to(&mut roots)?;
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
