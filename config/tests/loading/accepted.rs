//! What loads, what it means, and what is warned about.

use std::time::Duration;

use slim_config::{
    Algorithm, Auth, Certificates, ClientTls, Config, Identity, JwtKey, KeyFormat, KeySource,
    Loaded, MetadataValue, Profile, RateLimit, Secret, TlsVersion, TokenSource,
};

use crate::support::{Fixed, parse, with_client, with_server, with_top};

#[track_caller]
fn loaded(text: &str) -> Loaded {
    parse(text).unwrap_or_else(|found| panic!("{text}\n{found}"))
}

fn client(block: &str) -> slim_config::Client {
    let mut config = loaded(&with_client(block)).config;
    config.services.remove(0).dataplane.clients.remove(0)
}

/// The keys of the warnings about `text`.
fn warned(text: &str) -> Vec<String> {
    let warnings = loaded(text).warnings;
    assert_eq!(warnings.errors().count(), 0);
    warnings.warnings().map(|warning| warning.key.clone()).collect()
}

#[test]
fn the_least_file_is_the_embedded_configuration() {
    let Loaded { config, warnings, .. } = loaded(&with_top(""));
    assert!(warnings.is_empty(), "{warnings}");
    let listen = "0.0.0.0:46357".parse().expect("an address");
    assert_eq!(config, Config::embedded(listen));
    assert_eq!(config.admin, "127.0.0.1:46359".parse().ok());
}

#[test]
fn durations_are_read_as_documented() {
    for (text, millis) in [
        ("10s", 10_000),
        ("500ms", 500),
        ("1m30s", 90_000),
        ("2h3m4s", 7_384_000),
        ("\"5 s\"", 5_000),
        ("1d", 86_400_000),
        ("0s", 0),
        ("'1h 30m'", 5_400_000),
    ] {
        let config = loaded(&with_top(&format!("runtime: {{ drain_timeout: {text} }}"))).config;
        assert_eq!(config.runtime.drain_timeout, Duration::from_millis(millis), "{text}");
    }
}

#[test]
fn admin_can_be_moved_and_switched_off() {
    assert_eq!(loaded(&with_top("admin: none")).config.admin, None);
    let moved = loaded(&with_top("admin: \"[::1]:9\"")).config.admin;
    assert_eq!(moved, "[::1]:9".parse().ok());
}

#[test]
fn limits_are_read_in_their_units() {
    let text = "limits:\n  links: 5\n  message_bytes: 1024\n  queue_bytes: 4096\n  pause_ms: 0\n";
    let limits = loaded(&with_top(text)).config.limits;
    assert_eq!((limits.links, limits.message_bytes, limits.queue_bytes), (5, 1024, 4096));
    assert_eq!(limits.pause, Duration::ZERO);
    assert_eq!(limits.handshake, Duration::from_secs(5));
    assert_eq!(limits.partial_message, Duration::from_secs(30));
}

#[test]
fn placeholders_become_text_once_and_as_a_whole() {
    let sources = Fixed::default()
        .with_variable("NAME", "${env:OTHER}")
        .with_variable("LISTEN", "127.0.0.1:1")
        .with_file("/secret", "hidden\n");
    let text = r#"
runtime: { thread_name: "${env:NAME}" }
tracing: { opentelemetry: { service_name: "a-${env:NAME}" } }
services:
  slim/0:
    dataplane: { servers: [{ endpoint: "${env:LISTEN}", tls: { insecure: true } }] }
    controller: { token_provider: { shared_secret: "${file:/secret}" } }
"#;
    let loaded = slim_config::parse("c.yaml", text, &sources).unwrap_or_else(|e| panic!("{e}"));
    let config = &loaded.config;
    assert_eq!(config.runtime.thread_name, "${env:OTHER}");
    assert_eq!(config.tracing.opentelemetry.service_name, "a-${env:NAME}");
    let service = &config.services[0];
    assert_eq!(service.dataplane.servers[0].endpoint.port(), 1);
    let TokenSource::SharedSecret(secret) = &service.controller.token_provider else {
        panic!("{service:?}");
    };
    assert_eq!(secret.expose(), "hidden\n");
    assert!(!format!("{loaded:?}").contains("hidden"));
    let warned: Vec<_> = loaded.warnings.iter().map(|w| w.key.as_str()).collect();
    assert_eq!(warned, ["tracing.opentelemetry.service_name"]);
}

#[test]
fn services_keep_the_order_of_the_file() {
    let server = |port| format!("{{ endpoint: \"0.0.0.0:{port}\", tls: {{ insecure: true }} }}");
    let text =
        ["z", "a", "m"].iter().zip(1_u16..).fold("services:\n".to_owned(), |text, (name, port)| {
            format!("{text}  slim/{name}: {{ dataplane: {{ servers: [{}] }} }}\n", server(port))
        });
    let services = loaded(&text).config.services;
    let names: Vec<_> = services.iter().map(|s| (s.id.as_str(), s.node_id.as_str())).collect();
    assert_eq!(names, [("slim/z", "z"), ("slim/a", "a"), ("slim/m", "m")]);
}

#[test]
fn anchors_and_aliases_are_followed() {
    let text = with_server("endpoint: \"0.0.0.0:1\", tls: &plain { insecure: true }")
        + "        - { endpoint: \"0.0.0.0:2\", tls: *plain }\n";
    let servers = &loaded(&text).config.services[0].dataplane.servers;
    assert_eq!(servers.len(), 2);
    assert_eq!(servers[1].tls, None);
}

#[test]
fn server_tls_is_read_from_files_or_texts() {
    let tls = |block: &str| {
        let text = with_server(&format!("endpoint: \"0.0.0.0:1\", tls: {{ {block} }}"));
        let config = loaded(&text).config;
        config.services[0].dataplane.servers[0].tls.clone()
    };
    let files = tls("cert_file: c, key_file: k, tls_version: tls1.2").expect("TLS");
    assert_eq!(files.version, TlsVersion::Tls12);
    assert!(matches!(files.identity, Identity::Files { .. }));
    let texts = tls("cert_pem: c, key_pem: k").expect("TLS");
    assert_eq!(texts.version, TlsVersion::Tls13);
    let key = Secret::new("k");
    assert_eq!(texts.identity, Identity::Pem { certificate: "c".into(), key });
    assert_eq!(tls("insecure: true"), None);
}

#[test]
fn client_tls_is_on_unless_switched_off_and_authorities_keep_it_on() {
    assert_eq!(client("endpoint: \"http://a:1\"").tls, Some(ClientTls::default()));
    assert_eq!(client("endpoint: \"https://a:1\", tls: { insecure: true }").tls, None);
    let kept = client("endpoint: \"http://a:1\", tls: { insecure: true, ca_file: c }").tls;
    let authorities = kept.expect("TLS").authorities;
    assert_eq!(authorities, Some(Certificates::File("c".into())));
}

#[test]
fn client_blocks_have_the_documented_values() {
    let client = client(
        "endpoint: \"https://Host\", rate_limit: \"20/60\", connect_timeout: 500ms, \
         keepalive: {}, headers: { a: b }, metadata: { n: 1, f: 1.5, l: [x, true], m: { k: v } }",
    );
    assert_eq!(client.endpoint.to_string(), "https://host:443");
    let limit = RateLimit { count: 20, period: Duration::from_secs(60) };
    assert_eq!(client.rate_limit, Some(limit));
    assert_eq!(client.connect_timeout, Some(Duration::from_millis(500)));
    assert_eq!(client.request_timeout, None);
    let keepalive = client.keepalive.expect("keepalive");
    assert_eq!(keepalive.tcp, Duration::from_secs(60));
    assert_eq!(keepalive.timeout, Duration::from_secs(10));
    assert_eq!(client.headers, [("a".to_owned(), Secret::new("b"))]);
    assert_eq!(client.metadata["n"], MetadataValue::Integer(1));
    assert_eq!(client.metadata["f"], MetadataValue::Float(1.5));
    let list = vec![MetadataValue::Text("x".into()), MetadataValue::Boolean(true)];
    assert_eq!(client.metadata["l"], MetadataValue::List(list));
    assert!(matches!(client.metadata["m"], MetadataValue::Map(_)));
}

#[test]
fn every_form_of_client_authentication_is_read() {
    let auth = |auth: &str| client(&format!("endpoint: \"http://a:1\", auth: {auth}")).auth;
    assert_eq!(auth("none"), Auth::None);
    assert!(matches!(auth("{ basic: { username: a, password: b } }"), Auth::Basic { .. }));
    assert_eq!(auth("{ bearer: { token: t } }"), Auth::Bearer(Secret::new("t")));
    let Auth::StaticJwt(token) = auth("{ static_jwt: { file: /t } }") else {
        panic!("a token");
    };
    assert_eq!(token.duration, Duration::from_secs(3600));
    for (audience, expected) in [("a", vec!["a"]), ("[a, b]", vec!["a", "b"])] {
        for (source, text) in
            [("str: k", true), ("pem: k", true), ("data: k", true), ("file: k", false)]
        {
            let Auth::Jwt(jwt) = auth(&format!(
                "{{ jwt: {{ claims: {{ audience: {audience}, custom_claims: {{ x: 1 }} }}, \
                 key: {{ encoding: {{ algorithm: EdDSA, format: pEM, {source} }} }} }} }}"
            )) else {
                panic!("a token");
            };
            assert_eq!(jwt.claims.audience, expected);
            assert_eq!(jwt.duration, Duration::from_secs(3600));
            let JwtKey::Encoding(key) = jwt.key else {
                panic!("a key that signs");
            };
            assert_eq!((key.algorithm, key.format), (Algorithm::EdDsa, KeyFormat::Pem));
            assert_eq!(matches!(key.source, KeySource::Text(_)), text, "{source}");
        }
    }
}

#[test]
fn keys_without_effect_are_warned_about() {
    let server = "services.slim/0.dataplane.servers[0]";
    let client = "services.slim/0.dataplane.clients[0]";
    let plain = "endpoint: \"0.0.0.0:1\", tls: { insecure: true }";
    for (block, keys) in [
        ("http2_only: true", vec![".http2_only"]),
        (
            "read_buffer_size: 1, write_buffer_size: 2",
            vec![".read_buffer_size", ".write_buffer_size"],
        ),
        ("keepalive: { max_connection_idle: 1h }", vec![".keepalive.max_connection_idle"]),
        (
            "keepalive: { max_connection_age_grace: 5m }",
            vec![".keepalive.max_connection_age_grace"],
        ),
        ("quic: { enabled: false }", vec![]),
    ] {
        let keys: Vec<_> = keys.into_iter().map(|key| format!("{server}{key}")).collect();
        assert_eq!(warned(&with_server(&format!("{plain}, {block}"))), keys);
    }
    for (tls, key) in [
        ("insecure: true, ca_file: a", ".tls.ca_file"),
        ("insecure: true, include_system_ca_certs_pool: true", ".tls.include_system_ca_certs_pool"),
        ("insecure: true, reload_client_ca_file: true", ".tls.reload_client_ca_file"),
        ("insecure: true, reload_interval: { secs: 1, nanos: 0 }", ".tls.reload_interval"),
        ("insecure: true, cert_file: a, key_file: b", ".tls"),
    ] {
        let text = with_server(&format!("endpoint: \"0.0.0.0:1\", tls: {{ {tls} }}"));
        assert_eq!(warned(&text), [format!("{server}{key}")]);
    }
    for (block, key) in [
        ("compression: Gzip", ".compression"),
        ("connection_timeout: 5s", ".connection_timeout"),
        ("permit_without_stream: true", ".permit_without_stream"),
        ("keepalive: { permit_without_stream: true }", ".keepalive.permit_without_stream"),
        ("buffer_size: 5", ".buffer_size"),
        ("proxy: { url: \"http://b:1\" }", ".proxy"),
        ("exchange: true", ".exchange"),
        ("tls: { reload_interval: 5s }", ".tls.reload_interval"),
    ] {
        let text = with_client(&format!("endpoint: \"http://a:1\", {block}"));
        assert_eq!(warned(&text), [format!("{client}{key}")]);
    }
    let text = with_client("endpoint: \"quic://a:1\", exchange: true");
    assert!(loaded(&text).config.services[0].dataplane.clients[0].exchange);
    assert_eq!(warned(&text), Vec::<String>::new());
}

#[test]
fn names_are_exchanged_with_who_asks_unless_the_profile_or_the_server_says_no() {
    let quic = |text: &str| loaded(&with_server(text)).config.services[0].dataplane.servers[0].quic;
    let plain = "endpoint: \"127.0.0.1:1\", tls: { insecure: true }";
    for (block, exchanges) in [
        ("", [true, false]),
        (", quic: { exchange: false }", [false, false]),
        (", quic: { exchange: true }", [true, true]),
    ] {
        let quic = quic(&format!("{plain}{block}"));
        assert_eq!([Profile::Compat, Profile::Hardened].map(|p| quic.exchanges(p)), exchanges);
    }
}

#[test]
fn what_is_not_served_yet_is_warned_about() {
    let controller = "    controller:\n      servers: [{ endpoint: \"0.0.0.0:2\", tls: { cert_file: c, \
                      key_file: k, client_ca_file: a }, auth: { basic: { username: u, password: p } } }]\n      \
                      token_verifier: none\n";
    let text = with_server("endpoint: \"0.0.0.0:1\", tls: { insecure: true }");
    let text = format!("{text}      token_provider: none\n{controller}");
    assert_eq!(
        warned(&text),
        ["services.slim/0.dataplane.token_provider", "services.slim/0.controller.token_verifier",]
    );
    let collector = "endpoint: \"http://otel:4317\", request_timeout: 5s, rate_limit: 1/1";
    let text =
        format!("tracing: {{ opentelemetry: {{ enabled: true, grpc: {{ {collector} }} }} }}");
    assert_eq!(warned(&with_top(&text)), ["tracing.opentelemetry.grpc.rate_limit"]);
}
