use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use slim_quic::client::link::Trust;
use tempfile::TempDir;
use tokio_rustls::TlsConnector;

type Issuer = CertifiedIssuer<'static, KeyPair>;

/// An authority and one that it certified, by which all others are. `root.crt`, and `chain.crt`
/// with `server.key` for the server `node` on this machine, are in files.
pub(crate) struct Authority {
    root: Issuer,
    between: Issuer,
    folder: TempDir,
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn params(name: &str) -> CertificateParams {
    let names = ["127.0.0.1".to_owned()];
    let mut params = CertificateParams::new(names).expect("names");
    params.subject_alt_names.push(match name.starts_with("spiffe://") {
        true => SanType::URI(name.try_into().expect("ASCII")),
        false => SanType::DnsName(name.try_into().expect("ASCII")),
    });
    params
}

impl Authority {
    pub(crate) fn new() -> Self {
        let root = Issuer::self_signed(authority("root"), key()).expect("a root");
        let between =
            Issuer::signed_by(authority("between"), key(), &root).expect("an intermediate");
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Self { root, between, folder };
        let (chain, key) = authority.issue("node");
        authority.write("chain.crt", &chain);
        authority.write("server.key", &key);
        authority.write("root.crt", &authority.root.pem());
        authority
    }

    /// A certificate for a server or a client of this name, with that of the authority between
    /// after it; and its key.
    pub(crate) fn issue(&self, name: &str) -> (String, String) {
        let key = key();
        let issued = params(name).signed_by(&key, &self.between).expect("a certificate");
        (issued.pem() + &self.between.pem(), key.serialize_pem())
    }

    /// The same by the root itself.
    pub(crate) fn issue_directly(&self, name: &str) -> (String, String) {
        let key = key();
        let issued = params(name).signed_by(&key, &self.root).expect("a certificate");
        (issued.pem(), key.serialize_pem())
    }

    /// A client's certificate as an option of links.
    pub(crate) fn identity(&self, name: &str) -> slim_config::Identity {
        let (certificate, key) = self.issue(name);
        slim_config::Identity::Pem { certificate, key: slim_config::Secret::new(key) }
    }

    pub(crate) fn root(&self) -> &CertificateDer<'static> {
        self.root.der()
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust::Pem(self.root.pem())
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("written");
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("UTF-8").to_owned()
    }

    /// What connects clients that trust the root and nothing else, and show no certificate.
    pub(crate) fn connector(&self, version: &'static SupportedProtocolVersion) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.root().clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        TlsConnector::from(Arc::new(tls))
    }
}
