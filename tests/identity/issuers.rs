//! Keys that issuers publish.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::http::StatusCode;
use axum::response::Redirect;
use axum::routing::get;
use slim_quic::client::identity::{IssuerKeys, IssuerOptions};
use slim_quic::identity::{IdentityError, TokenCheck};

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
