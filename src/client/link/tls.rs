use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use slim_wire::ALPN;

use super::{LinkError, LinkOptions, Trust};
use crate::link::quic::tls::{AcceptAny, quic_provider};
use crate::trust::pem::Pair;

/// TLS 1.3 without early data, the check of the node's certificate, and the app's own.
pub(crate) fn quic(options: &LinkOptions) -> Result<QuicClientConfig, LinkError> {
    let mut config = config(options, quic_provider(), &[&rustls::version::TLS13])?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    QuicClientConfig::try_from(config).map_err(|error| unusable(None, &error))
}

/// The same for HTTP/2, also with TLS 1.2, which published nodes can be told to speak.
pub(super) fn http2(options: &LinkOptions) -> Result<ClientConfig, LinkError> {
    let mut config = config(options, aws_lc_rs::default_provider(), rustls::ALL_VERSIONS)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// The same without a protocol within TLS.
pub(crate) fn config(
    options: &LinkOptions,
    provider: CryptoProvider,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<ClientConfig, LinkError> {
    let provider = Arc::new(provider);
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(|error| unusable(None, &error))?;
    let builder = match &options.trust {
        Trust::DangerAcceptAnyCertificate => {
            builder.dangerous().with_custom_certificate_verifier(AcceptAny::new(&provider))
        }
        known => builder.with_root_certificates(roots(known)?),
    };
    let config = match &options.certificate {
        Some(certificate) => {
            let own = |error: &dyn Display| LinkError::Certificate { reason: error.to_string() };
            let pair = Pair::read(certificate).and_then(|pair| pair.shown());
            let (chain, key) = pair.map_err(|error| own(&error))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| own(&error))?
        }
        None => builder.with_no_client_auth(),
    };
    Ok(config)
}

fn roots(trust: &Trust) -> Result<RootCertStore, LinkError> {
    let mut roots = RootCertStore::empty();
    match trust {
        Trust::System | Trust::DangerAcceptAnyCertificate => {
            let system = rustls_native_certs::load_native_certs();
            // Systems carry certificates that no library takes; the others will do.
            roots.add_parsable_certificates(system.certs);
            if let (true, Some(error)) = (roots.is_empty(), system.errors.first()) {
                return Err(unusable(None, error));
            }
        }
        Trust::File(path) => {
            let error = |error| unusable(Some(path), &error);
            let certificates = CertificateDer::pem_file_iter(path).map_err(error)?;
            for certificate in certificates {
                let certificate = certificate.map_err(error)?;
                roots.add(certificate).map_err(|error| unusable(Some(path), &error))?;
            }
        }
        Trust::Pem(text) => {
            for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
                let certificate = certificate.map_err(|error| unusable(None, &error))?;
                roots.add(certificate).map_err(|error| unusable(None, &error))?;
            }
        }
    }
    if roots.is_empty() {
        let path = if let Trust::File(path) = trust { Some(path.as_path()) } else { None };
        return Err(unusable(path, &"expected at least one certificate, got none"));
    }
    Ok(roots)
}

fn unusable(file: Option<&Path>, reason: &dyn Display) -> LinkError {
    LinkError::Roots { file: file.map(Path::to_owned), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_that_cannot_be_used_name_their_file() {
        let options = |trust| LinkOptions { trust, ..LinkOptions::default() };
        let error = quic(&options(Trust::File("/nowhere/ca.pem".into()))).err().expect("no file");
        assert!(error.to_string().starts_with("certificates to trust in /nowhere/ca.pem: "));
        let error = http2(&options(Trust::Pem("nothing".into()))).expect_err("no certificate");
        let expected = "certificates to trust: expected at least one certificate, got none";
        assert_eq!(error.to_string(), expected);
    }
}
