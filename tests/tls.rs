//! A server with TLS.

mod support;

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ProtocolVersion, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use support::in_time;
use support::message::publish;
use support::node::{ConfigFile, Node, Program, config, slim};
use support::raw::{Connection, read_to_end};

type Issuer = CertifiedIssuer<'static, KeyPair>;

/// An authority, one that it certified, and the server's certificate by the latter, in files.
struct Authority {
    root: CertificateDer<'static>,
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

impl Authority {
    fn new() -> Self {
        let root = Issuer::self_signed(authority("root"), key()).expect("a root");
        let between =
            Issuer::signed_by(authority("between"), key(), &root).expect("an intermediate");
        let server_key = key();
        let server = CertificateParams::new(["node".to_owned()])
            .and_then(|params| params.signed_by(&server_key, &between))
            .expect("a server certificate");
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Self { root: root.der().clone(), folder };
        authority.write("chain.crt", &(server.pem() + &between.pem()));
        authority.write("server.key", &server_key.serialize_pem());
        authority.write("other.key", &key().serialize_pem());
        authority
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("written");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The configuration of a server with this key; `more` are further keys of its TLS.
    fn config(&self, key: &str, more: &str) -> String {
        let (chain, key) = (self.path("chain.crt"), self.path(key));
        let (chain, key) = (chain.display(), key.display());
        config(
            "",
            &format!(
                "endpoint: \"127.0.0.1:0\", \
                 tls: {{ cert_file: \"{chain}\", key_file: \"{key}\"{more} }}"
            ),
        )
    }

    /// A TLS connection to the node by a client that trusts the root and nothing else.
    async fn connect(
        &self,
        node: &Node,
        version: &'static SupportedProtocolVersion,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.root.clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(node.address).await.expect("accepted");
        let server = ServerName::try_from("node").expect("a name");
        let handshake = TlsConnector::from(Arc::new(tls)).connect(server, stream);
        in_time("the end of the handshake", handshake).await
    }
}

/// Two clients exchange a message.
async fn assert_serves(
    authority: &Authority,
    node: &Node,
    version: &'static SupportedProtocolVersion,
) {
    let mut channels = Vec::new();
    for name in ["org/ns/one/1", "org/ns/two/2"] {
        let stream = authority.connect(node, version).await.expect("trusted");
        let (_, session) = stream.get_ref();
        assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]));
        assert_eq!(session.protocol_version(), Some(version.version));
        // The server's and the one between: whoever trusts the root can check them.
        assert_eq!(session.peer_certificates().expect("a chain").len(), 2);
        let mut connection = Connection::over(stream).await;
        let mut channel = connection.channel().await;
        channel.join(node, name).await;
        channels.push((connection, channel));
    }
    let message = publish("org/ns/one/1", "org/ns/two/2", vec![7; 100_000]);
    channels[0].1.send(&message).await;
    let arrived = channels[1].1.receive().await.expect("a message");
    assert!(arrived.len() > 100_000);
}

#[tokio::test]
async fn each_version_of_tls_is_served_with_the_whole_chain_and_the_other_is_not() {
    let authority = Authority::new();
    let versions = [&rustls::version::TLS12, &rustls::version::TLS13];
    for (version, other, keys) in [
        (versions[0], versions[1], ", tls_version: tls1.2"),
        (versions[1], versions[0], ", tls_version: tls1.3"),
        (versions[1], versions[0], ""),
    ] {
        let node = Node::launch(&authority.config("server.key", keys)).await;
        let running = node.program.stdout.find("running service");
        assert!(running.expect("a line").contains("tls=true"));
        assert_serves(&authority, &node, version).await;
        let refused = authority.connect(&node, other).await;
        assert!(refused.is_err(), "{:?}", ProtocolVersion::TLSv1_2);
        let metrics = node
            .until("the refusal is counted", |metrics| metrics.incidents("tls_failed") > 0)
            .await;
        assert_eq!(metrics.incidents("tls_failed"), 1);
        assert_serves(&authority, &node, version).await;
        node.balanced().await;
    }
}

#[tokio::test]
async fn a_certificate_in_the_file_itself_is_served_too() {
    let authority = Authority::new();
    let read = |name| std::fs::read_to_string(authority.path(name)).expect("PEM");
    let lines = |text: String| text.replace('\n', "\\n").replace("\\r", "");
    let (chain, key) = (lines(read("chain.crt")), lines(read("server.key")));
    let server =
        format!("endpoint: \"127.0.0.1:0\", tls: {{ cert_pem: \"{chain}\", key_pem: \"{key}\" }}")
            .replace('\r', "");
    let node = Node::launch(&config("", &server)).await;
    assert_serves(&authority, &node, &rustls::version::TLS13).await;
    let secret = read("server.key");
    let secret = secret.lines().nth(1).expect("a line of the key");
    let told = node.program.stdout.find(secret);
    assert_eq!(told, None, "the key is in the log");
}

#[tokio::test]
async fn a_key_that_is_not_the_certificates_keeps_the_node_from_starting() {
    let authority = Authority::new();
    authority.write("empty.key", "no PEM\n");
    for (key, told) in [
        ("other.key", "certificate and key: "),
        ("empty.key", "key_file "),
        ("missing.key", "missing.key: "),
    ] {
        let file = ConfigFile::new(&authority.config(key, ""));
        let mut program = Program::spawn(slim(&["--config", &file.text()]));
        assert_eq!(program.exit().await, Some(1), "{key}");
        let line = program.line("failed to start service").await;
        let place = "services.slim/0.dataplane.servers[0].tls: ";
        assert!(line.contains(place) && line.contains(told), "{line}");
        assert!(line.contains("hint="), "{line}");

        let check = slim(&["config", "check", &file.text()]).output();
        let check = check.expect("the program runs");
        assert_eq!(check.status.code(), Some(3), "{key}");
        let report = String::from_utf8(check.stderr).expect("UTF-8");
        assert!(report.contains(place) && report.contains(told), "{report}");
    }
    let file = ConfigFile::new(&authority.config("server.key", ""));
    let check = slim(&["config", "check", &file.text()]).output();
    assert_eq!(check.expect("the program runs").status.code(), Some(0));
}

#[tokio::test]
async fn a_client_without_tls_is_closed_and_counted_and_one_that_says_nothing_too() {
    let authority = Authority::new();
    let text = authority.config("server.key", "").replacen(
        "services:",
        "limits: { handshake_ms: 300 }\nservices:",
        1,
    );
    let node = Node::launch(&text).await;
    let stream = TcpStream::connect(node.address).await.expect("accepted");
    // What a client of HTTP/2 says first is no TLS.
    Connection::over(stream).await.closed().await;
    node.until("it is counted", |metrics| metrics.incidents("tls_failed") == 1).await;
    let mut silent = TcpStream::connect(node.address).await.expect("accepted");
    assert!(read_to_end(&mut silent).await.is_empty());
    node.until("it is counted", |metrics| metrics.incidents("handshake_timeout") == 1).await;
    assert_serves(&authority, &node, &rustls::version::TLS13).await;
    node.assert_alive().await;
    node.balanced().await;
}

#[tokio::test]
async fn a_client_that_does_not_trust_the_authority_gets_no_stream() {
    let (authority, other) = (Authority::new(), Authority::new());
    let node = Node::launch(&authority.config("server.key", "")).await;
    let refused = other.connect(&node, &rustls::version::TLS13).await;
    assert!(refused.is_err());
    node.until("it is counted", |metrics| metrics.incidents("tls_failed") == 1).await;
    assert_serves(&authority, &node, &rustls::version::TLS13).await;
}

#[tokio::test]
async fn an_insecure_server_has_no_tls() {
    let node = Node::start("").await;
    let authority = Authority::new();
    let running = node.program.stdout.find("running service");
    assert!(running.expect("a line").contains("tls=false"));
    let refused = authority.connect(&node, &rustls::version::TLS13).await;
    assert!(refused.is_err());
    let mut connection = Connection::open(node.address).await;
    connection.channel().await.join(&node, "org/ns/one/1").await;
}

#[tokio::test]
async fn a_client_in_the_middle_of_its_handshake_does_not_keep_the_node_from_stopping() {
    let authority = Authority::new();
    let text = authority.config("server.key", "").replacen(
        "services:",
        "runtime: { drain_timeout: 1h }\nlimits: { handshake_ms: 600000 }\nservices:",
        1,
    );
    let mut node = Node::launch(&text).await;
    let mut silent = TcpStream::connect(node.address).await.expect("accepted");
    assert_serves(&authority, &node, &rustls::version::TLS13).await;
    node.program.signal(rustix::process::Signal::TERM);
    assert_eq!(node.program.exit().await, Some(0));
    read_to_end(&mut silent).await;
}
