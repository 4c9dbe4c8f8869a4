//! Links between nodes, one of which asks the other who it is.

use slim_quic::client::link::LinkOptions;

use crate::support::node::{Node, PLAIN, config};
use crate::support::pki::Authority;
use crate::{assert_passes, basic, blind, connect};

#[tokio::test]
async fn a_node_shows_its_certificate_and_its_credentials_to_another() {
    let authority = Authority::new();
    let (certificate, key) = authority.issue("spiffe://example.org/node");
    authority.write("client.crt", &certificate);
    authority.write("client.key", &key);
    let file = |name| authority.text(name);
    let jwt_key = "algorithm: HS256, str: \"a secret of at least 32 bytes, really\"";
    let claims = "claims: { issuer: me, audience: [there], custom_claims: { site: north } }";
    for (server_auth, client_auth) in [
        ("basic: { username: n, password: p }", "basic: { username: n, password: p }".to_owned()),
        (
            "jwt: { claims: { issuer: me, audience: there }, key: { decoding: { algorithm: HS256, \
             str: \"a secret of at least 32 bytes, really\" } } }",
            format!("jwt: {{ {claims}, duration: 1m, key: {{ encoding: {{ {jwt_key} }} }} }}"),
        ),
    ] {
        let tls = format!(
            "cert_file: {}, key_file: {}, client_ca_file: {}",
            file("chain.crt"),
            file("server.key"),
            file("root.crt")
        );
        let guarded =
            format!("endpoint: \"127.0.0.1:0\", tls: {{ {tls} }}, auth: {{ {server_auth} }}");
        let there = Node::launch(&config("", &guarded)).await;
        let tls = format!(
            "ca_file: {}, cert_file: {}, key_file: {}",
            file("root.crt"),
            file("client.crt"),
            file("client.key")
        );
        let endpoint = format!("quic://{}", there.address);
        let linked = |auth: &str| {
            config("", PLAIN)
                + &format!(
                    "      clients: [{{ endpoint: \"{endpoint}\", tls: {{ {tls} }}{auth} }}]\n      \
                     routes: [{{ name: org/ns/here/2, via: \"{endpoint}\" }}]\n"
                )
        };
        let without = Node::launch(&linked("")).await;
        without.until("it is told", |metrics| metrics.incidents("link_failed") > 0).await;
        let line = without.program.line("link to another node failed").await;
        assert!(line.contains("no credentials"), "{line}");
        assert_eq!(there.metrics().await.sum("slim_links"), 0);
        drop(without);
        let here = Node::launch(&linked(&format!(", auth: {{ {client_auth} }}"))).await;
        there.until("the nodes are linked", |metrics| metrics.sum("slim_links") == 1).await;
        if server_auth.starts_with("basic") {
            let from = connect(&here, "http", &blind(basic("", ""))).await.expect("a link");
            let options = LinkOptions {
                trust: authority.trust(),
                certificate: Some(authority.identity("app")),
                credentials: basic("n", "p"),
                ..LinkOptions::default()
            };
            let to = connect(&there, "quic", &options).await.expect("a link");
            assert_passes(&from, &to).await;
        }
    }
}
