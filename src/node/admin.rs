use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;

use super::listener::BindError;
use super::metrics::Observed;

/// The content type that Prometheus asks for.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves the admin endpoint on the current runtime until that ends.
pub(super) async fn serve(
    address: SocketAddr,
    observed: Observed,
    ready: Arc<AtomicBool>,
) -> Result<SocketAddr, BindError> {
    let error = |source| BindError { address, source };
    let listener = tokio::net::TcpListener::bind(address).await.map_err(error)?;
    let address = listener.local_addr().map_err(error)?;
    let router = Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(move || readyz(Arc::clone(&ready))))
        .route("/metrics", get(move || metrics(observed.clone())));
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
