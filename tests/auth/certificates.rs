//! `tls.client_ca`: clients known by certificates.

use slim_quic::client::link::{LinkError, LinkOptions};

use crate::support::node::{Node, PLAIN, config};
use crate::support::pki::Authority;
use crate::{assert_passes, basic, connect};

/// Both ways to a server with TLS.
const WAYS: [&str; 2] = ["https", "quic"];

/// A node that takes the clients of `clients`.
async fn guarded(authority: &Authority, clients: &Authority, more: &str) -> Node {
    let tls = format!(
        "cert_file: {}, key_file: {}, client_ca_file: {}",
        authority.text("chain.crt"),
        authority.text("server.key"),
        clients.text("root.crt"),
    );
    let server = format!("endpoint: \"127.0.0.1:0\", tls: {{ {tls} }}{more}");
    Node::launch(&config("", &server)).await
}

#[tokio::test]
async fn only_clients_with_a_certificate_of_the_authority_get_a_link() {
    let (authority, clients, others) = (Authority::new(), Authority::new(), Authority::new());
    let node = guarded(&authority, &clients, "").await;
    let options = |certificate| LinkOptions {
        trust: authority.trust(),
        certificate,
        ..LinkOptions::default()
    };
    let strangers = [None, Some(others.identity("spiffe://example.org/mallory"))];
    let mut refused = 0;
    for way in WAYS {
        for stranger in &strangers {
            let error = connect(&node, way, &options(stranger.clone())).await;
            let error = error.expect_err("not of the authority");
            let ended = matches!(error, LinkError::Handshake { .. } | LinkError::Lost { .. });
            assert!(ended, "{way}: {error:?}");
            refused += 1;
            node.until("it is counted", |metrics| metrics.incidents("tls_failed") == refused).await;
        }
    }
    assert_eq!(node.metrics().await.sum("slim_links"), 0);
    // Its own is signed by the one between, which it shows too.
    let mut links = Vec::new();
    for way in WAYS {
        let name = format!("spiffe://example.org/{way}");
        let link = connect(&node, way, &options(Some(clients.identity(&name)))).await;
        links.push(link.expect("of the authority"));
    }
    assert_passes(&links[0], &links[1]).await;
    assert_passes(&links[1], &links[0]).await;
}

#[tokio::test]
async fn a_certificate_does_not_stand_for_a_password() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let auth = ", auth: { basic: { username: alice, password: secret } }";
    let node = guarded(&authority, &clients, auth).await;
    for way in WAYS {
        let options = LinkOptions {
            trust: authority.trust(),
            certificate: Some(clients.identity("alice")),
            ..LinkOptions::default()
        };
        crate::refused(&node, way, &options).await;
        let options = LinkOptions { credentials: basic("alice", "secret"), ..options };
        connect(&node, way, &options).await.expect("let in");
    }
}

#[tokio::test]
async fn a_certificate_of_its_own_that_cannot_be_used_is_told_before_anything_is_sent() {
    let (node, authority) = (Node::launch(&config("", PLAIN)).await, Authority::new());
    let ((certificate, _), (_, key)) = (authority.issue("one"), authority.issue("two"));
    let mixed = slim_config::Identity::Pem { certificate, key: slim_config::Secret::new(key) };
    let missing = slim_config::Identity::Files {
        certificate: "/nowhere/client.crt".into(),
        key: "/nowhere/client.key".into(),
    };
    for (identity, told) in [(mixed, "certificate of this app: "), (missing, "/nowhere/client.crt")]
    {
        for way in WAYS {
            let options = LinkOptions {
                trust: authority.trust(),
                certificate: Some(identity.clone()),
                ..LinkOptions::default()
            };
            let error = connect(&node, way, &options).await.expect_err("unusable");
            assert!(matches!(error, LinkError::Certificate { .. }), "{error:?}");
            assert!(error.to_string().contains(told), "{error}");
        }
    }
}
