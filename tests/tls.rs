//! A server with TLS.

mod support;

use rustls::pki_types::ServerName;
use rustls::{ProtocolVersion, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use support::in_time;
use support::message::publish;
use support::node::{ConfigFile, Node, Program, config, slim};
use support::pki::Authority;
use support::raw::{Connection, read_to_end};

const SERVER: &str = "server.key";

/// The configuration of a server with this key; `more` are further keys of its TLS.
fn server_config(authority: &Authority, key: &str, more: &str) -> String {
    let (chain, key) = (authority.text("chain.crt"), authority.text(key));
    config(
        "",
        &format!(
            "endpoint: \"127.0.0.1:0\", \
             tls: {{ cert_file: \"{chain}\", key_file: \"{key}\"{more} }}"
        ),
    )
}

/// A TLS connection to the node by a client that trusts the authority and nothing else.
async fn connect(
    authority: &Authority,
    node: &Node,
    version: &'static SupportedProtocolVersion,
) -> std::io::Result<TlsStream<TcpStream>> {
    let connector = authority.connector(version);
    let stream = TcpStream::connect(node.address).await.expect("accepted");
    let server = ServerName::try_from("node").expect("a name");
    in_time("the end of the handshake", connector.connect(server, stream)).await
}

/// Two clients exchange a message.
async fn assert_serves(
    authority: &Authority,
    node: &Node,
    version: &'static SupportedProtocolVersion,
) {
    let mut channels = Vec::new();
    for name in ["org/ns/one/1", "org/ns/two/2"] {
        let stream = connect(authority, node, version).await.expect("trusted");
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
        let node = Node::launch(&server_config(&authority, SERVER, keys)).await;
        let running = node.program.stdout.find("running service");
        assert!(running.expect("a line").contains("tls=true"));
        assert_serves(&authority, &node, version).await;
        let refused = connect(&authority, &node, other).await;
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
    let (_, other) = authority.issue("other");
    authority.write("other.key", &other);
    for (key, told) in [
        ("other.key", "certificate and key: "),
        ("empty.key", "key_file "),
        ("missing.key", "missing.key: "),
    ] {
        let file = ConfigFile::new(&server_config(&authority, key, ""));
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
    let file = ConfigFile::new(&server_config(&authority, SERVER, ""));
    let check = slim(&["config", "check", &file.text()]).output();
    assert_eq!(check.expect("the program runs").status.code(), Some(0));
}

#[tokio::test]
async fn a_client_without_tls_is_closed_and_counted_and_one_that_says_nothing_too() {
    let authority = Authority::new();
    let text = server_config(&authority, SERVER, "").replacen(
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
    let node = Node::launch(&server_config(&authority, SERVER, "")).await;
    let refused = connect(&other, &node, &rustls::version::TLS13).await;
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
    let refused = connect(&authority, &node, &rustls::version::TLS13).await;
    assert!(refused.is_err());
    let mut connection = Connection::open(node.address).await;
    connection.channel().await.join(&node, "org/ns/one/1").await;
}

#[tokio::test]
async fn a_client_in_the_middle_of_its_handshake_does_not_keep_the_node_from_stopping() {
    let authority = Authority::new();
    let text = server_config(&authority, SERVER, "").replacen(
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
