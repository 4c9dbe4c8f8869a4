use std::path::Path;
use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CipherSuite, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use slim_wire::ALPN;

use crate::client::link::{LinkError, Trust};

/// TLS 1.3 without early data, and the check of the node's certificate.
pub(super) fn config(trust: &Trust) -> Result<QuicClientConfig, LinkError> {
    let provider = Arc::new(provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| unusable(None, &error))?;
    let builder = match trust {
        Trust::DangerAcceptAnyCertificate => {
            let algorithms = provider.signature_verification_algorithms;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(algorithms)))
        }
        known => builder.with_root_certificates(roots(known)?),
    };
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    QuicClientConfig::try_from(config).map_err(|error| unusable(None, &error))
}

/// AES-128 first, because it costs least per packet; ChaCha20, which costs twice as much where
/// there is hardware for AES, last.
fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    let rank = |suite| match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => 0,
        CipherSuite::TLS13_AES_256_GCM_SHA384 => 1,
        _ => 2,
    };
    provider.cipher_suites.retain(|suite| suite.tls13().is_some());
    provider.cipher_suites.sort_by_key(|suite| rank(suite.suite()));
    provider
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

fn unusable(file: Option<&Path>, reason: &dyn std::fmt::Display) -> LinkError {
    LinkError::Roots { file: file.map(Path::to_owned), reason: reason.to_string() }
}

/// Takes any certificate, as long as the node has its key.
#[derive(Debug)]
struct Anyone(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cheapest_suite_is_offered_first() {
        let suites: Vec<_> = provider().cipher_suites.iter().map(|suite| suite.suite()).collect();
        assert_eq!(
            suites,
            [
                CipherSuite::TLS13_AES_128_GCM_SHA256,
                CipherSuite::TLS13_AES_256_GCM_SHA384,
                CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
            ]
        );
    }

    #[test]
    fn certificates_that_cannot_be_used_name_their_file() {
        let error = config(&Trust::File("/nowhere/ca.pem".into())).err().expect("no file");
        assert!(error.to_string().starts_with("certificates to trust in /nowhere/ca.pem: "));
        let error = config(&Trust::Pem("nothing".into())).err().expect("no certificate");
        let expected = "certificates to trust: expected at least one certificate, got none";
        assert_eq!(error.to_string(), expected);
    }
}
