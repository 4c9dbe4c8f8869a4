//! Keys that issuers publish.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::http::StatusCode;
use axum::response::Redirect;
use axum::routing::get;
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use slim_quic::client::identity::{IssuerKeys, IssuerOptions};
use slim_quic::identity::{IdentityError, TokenCheck};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use super::{jwks, key_pair, rules, token};

const DISCOVERY: &str = "/.well-known/openid-configuration";
const WELL_KNOWN: &str = "/.well-known/jwks.json";

/// Serves what `routes` makes of its own URL, and returns that.
async fn issuer(routes: impl FnOnce(String) -> Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let routes = routes(url.clone());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    url
}

fn start(allowed: Option<&str>) -> IssuerKeys {
    let allowed = allowed.map(|issuer| vec![issuer.to_owned()]);
    let timeout = Duration::from_secs(2);
    let options = IssuerOptions { allowed, timeout, ..IssuerOptions::default() };
    IssuerKeys::start(rules(), options).expect("authorities of the system")
}

fn configuration(issuer: &str, keys: &str) -> String {
    serde_json::json!({"issuer": issuer, "jwks_uri": keys}).to_string()
}

#[tokio::test]
async fn keys_are_fetched_when_a_token_asks_for_them() {
    let pair = key_pair();
    let (keys, asked) = (jwks(&pair), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    let url = issuer(|url| {
        let answer = configuration(&url, &format!("{url}/keys"));
        Router::new().route(DISCOVERY, get(|| async { answer })).route(
            "/keys",
            get(|| async move {
                count.fetch_add(1, Relaxed);
                keys
            }),
        )
    })
    .await;
    let (check, now) = (start(None), SystemTime::now());
    let token = token(&pair, Some(&url), "alice", now);
    assert_eq!(check.check(&token, now), Err(IdentityError::NoKeys { issuer: url.clone() }));
    let learnt = async {
        while check.check(&token, now).is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), learnt).await.expect("fetched");
    assert_eq!(asked.load(Relaxed), 1);
    let principal = check.check(&token, now).expect("good");
    assert_eq!(principal.issuer.as_deref(), Some(&*url));
}

#[tokio::test]
async fn without_a_configuration_the_usual_place_is_asked() {
    let pair = key_pair();
    let keys = jwks(&pair);
    let url = issuer(|_| Router::new().route(WELL_KNOWN, get(|| async { keys }))).await;
    let (check, now) = (start(Some(&url)), SystemTime::now());
    check.fetch(&url).await.expect("fetched");
    let later = SystemTime::now();
    assert!(check.check(&token(&pair, Some(&url), "alice", now), later).is_ok());
}

/// Why no keys are taken from an issuer with this configuration and this key set.
async fn refused(configuration: impl FnOnce(&str) -> String, keys: String) -> String {
    let url = issuer(|url| {
        let answer = configuration(&url);
        Router::new()
            .route(DISCOVERY, get(|| async { answer }))
            .route("/keys", get(|| async { keys }))
            .route("/moved", get(|| async { Redirect::to("/keys") }))
            .route("/gone", get(|| async { StatusCode::GONE }))
            .route("/never", get(std::future::pending::<StatusCode>))
    })
    .await;
    let check = start(None);
    check.fetch(&url).await.expect_err("nothing to believe").to_string()
}

#[tokio::test]
async fn keys_from_elsewhere_or_too_many_or_too_late_are_not_taken() {
    let good = jwks(&key_pair());
    let at = |path: &'static str| move |url: &str| configuration(url, &format!("{url}{path}"));
    let another = |url: &str| configuration("https://issuer.example", &format!("{url}/keys"));
    let local = |url: &str| configuration(url, "file:///etc/passwd");
    let far = |url: &str| configuration(url, "http://192.0.2.1/keys");
    let long = " ".repeat(300_000);
    for (error, part) in [
        (refused(another, good.clone()).await, "another issuer"),
        (refused(local, good.clone()).await, "expected an https URL"),
        (refused(far, good.clone()).await, "expected an https URL"),
        (refused(at("/moved"), good.clone()).await, "303"),
        (refused(at("/gone"), good.clone()).await, "410"),
        (refused(at("/never"), good.clone()).await, "no answer after 2s"),
        (refused(at("/keys"), long).await, "expected at most 262144 bytes"),
        (refused(at("/keys"), "nonsense".into()).await, "key set: expected"),
    ] {
        assert!(error.contains(part), "{error}");
    }
}

#[tokio::test]
async fn an_issuer_that_is_not_on_the_list_is_not_even_asked() {
    let (pair, asked) = (key_pair(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    let url = issuer(|_| {
        Router::new().fallback(move || {
            count.fetch_add(1, Relaxed);
            async { StatusCode::NOT_FOUND }
        })
    })
    .await;
    let (check, now) = (start(Some("https://issuer.example")), SystemTime::now());
    let refused = check.check(&token(&pair, Some(&url), "mallory", now), now);
    assert_eq!(refused, Err(IdentityError::Issuer { got: url.clone() }));
    assert!(check.fetch(&url).await.is_err());
    assert_eq!(asked.load(Relaxed), 0);
}

/// Answers each request on one connection after another with this key set, over TLS.
async fn serve_tls(listener: tokio::net::TcpListener, config: ServerConfig, keys: String) {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    while let Ok((stream, _)) = listener.accept().await {
        // A client that does not trust the certificate ends here.
        let Ok(mut stream) = acceptor.accept(stream).await else { continue };
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.expect("a request"));
        }
        let (status, body) = match request.starts_with(b"GET /.well-known/jwks.json ") {
            true => ("200 OK", &*keys),
            false => ("404 Not Found", ""),
        };
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close");
        let answer = format!("{head}\r\n\r\n{body}");
        stream.write_all(answer.as_bytes()).await.expect("sent");
        stream.shutdown().await.expect("sent");
    }
}

#[tokio::test]
async fn over_tls_an_issuer_is_known_by_its_certificate() {
    let folder = tempfile::tempdir().expect("a folder");
    let certified = || rcgen::generate_simple_self_signed(["localhost".to_owned()]);
    let (certified, other) = (certified().expect("one"), certified().expect("another"));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.into())
        .expect("a certificate");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (pair, url) = (key_pair(), format!("https://localhost:{port}"));
    tokio::spawn(serve_tls(listener, config, jwks(&pair)));

    let start = |name: &str, pem: String| {
        let ca_file = folder.path().join(name);
        std::fs::write(&ca_file, pem).expect("written");
        let options = IssuerOptions { ca_file: Some(ca_file), ..IssuerOptions::default() };
        IssuerKeys::start(rules(), options).expect("an authority")
    };
    let (trusting, wary) =
        (start("its.pem", certified.cert.pem()), start("other.pem", other.cert.pem()));
    trusting.fetch(&url).await.expect("fetched");
    let now = SystemTime::now();
    assert!(trusting.check(&token(&pair, Some(&url), "alice", now), now).is_ok());
    let refused = wary.fetch(&url).await;
    assert!(matches!(refused, Err(IdentityError::Unavailable { .. })), "{refused:?}");

    let ca_file = Some(folder.path().join("none.pem"));
    std::fs::write(ca_file.as_ref().expect("a path"), "nonsense").expect("written");
    let refused = IssuerKeys::start(rules(), IssuerOptions { ca_file, ..IssuerOptions::default() });
    let refused = refused.expect_err("no authority").to_string();
    assert!(refused.contains("none.pem: expected at least one certificate"), "{refused}");
}
