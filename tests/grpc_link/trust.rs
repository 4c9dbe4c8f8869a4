//! Whom a link with TLS believes.

use slim_quic::client::link::{Link, LinkError, LinkOptions, Trust};
use slim_wire::Fault;
use tempfile::TempDir;

use crate::support::in_time;
use crate::support::native::{message, receive, send, text};
use crate::support::node::{Node, config};

/// A node with a certificate for 127.0.0.1 that it signed itself, in a file.
struct Secured {
    node: Node,
    folder: TempDir,
}

impl Secured {
    async fn start() -> Self {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a pair");
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name| folder.path().join(name);
        std::fs::write(path("ca.pem"), made.cert.pem()).expect("written");
        std::fs::write(path("key.pem"), made.signing_key.serialize_pem()).expect("written");
        let server = format!(
            "endpoint: \"127.0.0.1:0\", tls: {{ cert_file: \"{}\", key_file: \"{}\" }}",
            path("ca.pem").display(),
            path("key.pem").display()
        );
        Self { node: Node::launch(&config("", &server)).await, folder }
    }

    fn trust(&self) -> Trust {
        Trust::File(self.folder.path().join("ca.pem"))
    }

    async fn connect(&self, trust: Trust, name: Option<&str>) -> Result<Link, LinkError> {
        let server_name = name.map(str::to_owned);
        let options = LinkOptions { trust, server_name, ..LinkOptions::default() };
        let address = format!("https://{}", self.node.address);
        in_time("an answer", Link::connect(&address, &options)).await
    }
}

#[tokio::test]
async fn a_node_is_trusted_by_file_or_blindly_and_otherwise_not() {
    let secured = Secured::start().await;
    for trust in [secured.trust(), Trust::DangerAcceptAnyCertificate] {
        let link = secured.connect(trust, None).await.expect("trusted");
        // Over QUIC, so that it is acknowledged.
        let own = text("org/ns/own/1");
        let options = LinkOptions { trust: secured.trust(), ..LinkOptions::default() };
        let address = format!("quic://{}", secured.node.address);
        let native = Link::connect(&address, &options).await.expect("trusted");
        native.subscribe(&own).await.expect("subscribed");
        send(&link, &message("org/ns/other/2", "org/ns/own/1", "over TLS")).await;
        assert_eq!(receive(&native).await.payload, "over TLS");
        link.close().await.expect("handed over");
    }

    let other = Secured::start().await;
    for (trust, name) in [(other.trust(), None), (secured.trust(), Some("elsewhere"))] {
        let error = secured.connect(trust, name).await.expect_err("not trusted");
        assert!(matches!(error, LinkError::Untrusted { .. }), "{error:?}");
        assert_eq!(error.fault(), Fault::Config);
    }
    let error = secured.connect(secured.trust(), Some("not a name")).await.expect_err("no name");
    assert!(matches!(error, LinkError::ServerName { .. }), "{error:?}");
}

#[tokio::test]
async fn one_side_without_tls_fails_the_handshake() {
    let (plain, secured) = (Node::start("").await, Secured::start().await);
    let trust = Trust::DangerAcceptAnyCertificate;
    let options = LinkOptions { trust, ..LinkOptions::default() };
    for address in
        [format!("https://{}", plain.address), format!("http://{}", secured.node.address)]
    {
        let connecting = in_time("an answer", Link::connect(&address, &options));
        let error = connecting.await.expect_err("one speaks TLS, the other does not");
        assert!(matches!(error, LinkError::Handshake { .. }), "{error:?}");
        assert!(error.to_string().contains(&address), "{error}");
    }
}

#[tokio::test]
async fn an_address_with_another_scheme_or_a_path_is_none() {
    for address in ["ftp://127.0.0.1:1", "http://127.0.0.1:1/path", "http://127.0.0.1"] {
        let options = LinkOptions::default();
        let connecting = Link::connect(address, &options);
        let error = in_time("an answer", connecting).await.expect_err("no address");
        assert!(matches!(error, LinkError::Address { .. }), "{error:?}");
        assert_eq!(error.fault(), Fault::Config);
    }
}
