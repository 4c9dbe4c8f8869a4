use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::RawQuery;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use reqwest::Url;
use serde_json::{Value, json};
use slim_wire::TextName;

use super::inspect::{Inspector, USUAL_LINKS};
use super::listener::BindError;
use super::metrics::Observed;

/// The content type that Prometheus asks for.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves the admin endpoint on the current runtime until that ends.
pub(super) async fn serve(
    address: SocketAddr,
    observed: Observed,
    inspector: Inspector,
    ready: Arc<AtomicBool>,
) -> Result<SocketAddr, BindError> {
    let error = |source| BindError { address, source };
    let listener = tokio::net::TcpListener::bind(address).await.map_err(error)?;
    let address = listener.local_addr().map_err(error)?;
    let explaining = inspector.clone();
    let router = Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(move || readyz(Arc::clone(&ready))))
        .route("/metrics", get(move || metrics(observed.clone())))
        .route("/links", get(move |query| links(inspector.clone(), query)))
        .route("/explain", get(move |query| explain(explaining.clone(), query)));
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "admin endpoint failed");
        }
    });
    Ok(address)
}

async fn readyz(ready: Arc<AtomicBool>) -> (StatusCode, &'static str) {
    if ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    }
}

async fn metrics(observed: Observed) -> impl IntoResponse {
    match observed.render() {
        Ok(text) => (StatusCode::OK, [(header::CONTENT_TYPE, METRICS_TYPE)], text),
        Err(error) => {
            let plain = [(header::CONTENT_TYPE, "text/plain")];
            (StatusCode::INTERNAL_SERVER_ERROR, plain, format!("metrics: {error}\n"))
        }
    }
}

/// What the node carries and who is linked to it: `/links?limit=N`.
async fn links(inspector: Inspector, RawQuery(query): RawQuery) -> impl IntoResponse {
    let limit = parameter(query.as_deref(), "limit");
    match limit.as_deref().map_or(Ok(USUAL_LINKS), str::parse) {
        Ok(limit) => answer(StatusCode::OK, &inspector.links(limit).await),
        Err(_) => refuse("limit: expected a whole number"),
    }
}

/// Who would get a message for a name: `/explain?name=ORG/NS/APP`, or with `/ID`.
async fn explain(inspector: Inspector, RawQuery(query): RawQuery) -> impl IntoResponse {
    let Some(name) = parameter(query.as_deref(), "name") else {
        return refuse("name: expected ORG/NS/APP or ORG/NS/APP/ID, got none");
    };
    match name.parse::<TextName>() {
        Ok(name) => answer(StatusCode::OK, &inspector.explain(&name).await),
        Err(error) => refuse(&format!("name: {error}")),
    }
}

/// The value of one parameter of a query, decoded.
fn parameter(query: Option<&str>, name: &str) -> Option<String> {
    let url = Url::parse(&format!("http://node/?{}", query?)).ok()?;
    let found = url.query_pairs().find(|(key, _)| key == name);
    found.map(|(_, value)| value.into_owned())
}

type Answer = (StatusCode, [(header::HeaderName, &'static str); 1], String);

fn answer(status: StatusCode, value: &Value) -> Answer {
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{value}\n"))
}

fn refuse(reason: &str) -> Answer {
    answer(StatusCode::BAD_REQUEST, &json!({ "error": reason }))
}
