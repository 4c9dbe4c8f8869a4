//! How the collector is reached, as a client block of the configuration says.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use hyper_util::rt::TokioIo;
use opentelemetry_otlp::{WithExportConfig, WithTonicConfig};
use rustls::pki_types::ServerName;
use slim_config::{Client, ClientTls, Scheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio_rustls::TlsConnector;
use tonic::codegen::Service;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::TelemetryError;
use crate::node::tls::{ClientMaterial, TlsError, http2_client};
use crate::trust::Credentials;

/// From the name of the collector to a connection, unless `connect_timeout` says otherwise.
const CONNECT: Duration = Duration::from_secs(5);

/// How often a collector is asked whether it is still there, and how long it may take to answer,
/// unless `keepalive` says otherwise.
const KEEP_ALIVE: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(10)];

/// A collector that is connected to when there is something to export.
pub(super) struct Collector {
    channel: Channel,
    headers: HeaderMap,
    credentials: Credentials,
}

/// Whether certificates, keys and tokens can be used.
pub(super) fn check(client: &Client) -> Result<(), TelemetryError> {
    if client.endpoint.scheme == Scheme::Quic {
        return Err(TelemetryError::Endpoint(client.endpoint.to_string()));
    }
    if let Some(tls) = &client.tls {
        secure(tls)?;
    }
    Credentials::of(&client.auth)?;
    Ok(())
}

impl Collector {
    pub(super) fn new(client: &Client, runtime: &Handle) -> Result<Self, TelemetryError> {
        check(client)?;
        let _entered = runtime.enter();
        Ok(Self {
            channel: channel(client),
            headers: headers(client),
            credentials: Credentials::of(&client.auth)?,
        })
    }

    /// An exporter that reaches the collector this way.
    pub(super) fn reached_by<B: WithExportConfig + WithTonicConfig>(&self, builder: B) -> B {
        let credentials = self.credentials.clone();
        let authorize = move |mut request: Request<()>| {
            let credentials = credentials.authorization(SystemTime::now());
            let credentials = credentials.map_err(|error| Status::internal(error.to_string()))?;
            if let Some(credentials) = credentials {
                let value = AsciiMetadataValue::try_from(credentials.expose());
                let mut value = value.expect("credentials are printable ASCII");
                value.set_sensitive(true);
                request.metadata_mut().insert(AUTHORIZATION.as_str(), value);
            }
            Ok(request)
        };
        builder
            .with_channel(self.channel.clone())
            .with_metadata(MetadataMap::from_headers(self.headers.clone()))
            .with_interceptor(authorize)
    }
}

fn channel(client: &Client) -> Channel {
    let authority = format!("{}:{}", client.endpoint.host, client.endpoint.port);
    let scheme = if client.tls.is_some() { "https" } else { "http" };
    let origin = match &client.origin {
        Some(origin) => origin.clone(),
        None => format!("{scheme}://{authority}"),
    };
    // TLS is the connector's; the channel itself has none.
    let endpoint = Endpoint::from_shared(format!("http://{authority}"));
    let [interval, timeout] = match client.keepalive {
        Some(keepalive) => [keepalive.http2, keepalive.timeout],
        None => KEEP_ALIVE,
    };
    let idle = client.keepalive.is_some_and(|keepalive| keepalive.while_idle);
    endpoint
        .expect("the configuration's endpoint is valid")
        .origin(origin.parse::<Uri>().expect("the configuration's origin is valid"))
        .connect_timeout(client.connect_timeout.unwrap_or(CONNECT))
        .http2_keep_alive_interval(interval)
        .keep_alive_timeout(timeout)
        .keep_alive_while_idle(idle)
        .connect_with_connector_lazy(Connector {
            host: client.endpoint.host.trim_matches(['[', ']']).into(),
            port: client.endpoint.port,
            tls: client.tls.clone().map(Arc::new),
        })
}

fn headers(client: &Client) -> HeaderMap {
    let headers = client.headers.iter().map(|(name, value)| {
        let name = HeaderName::from_bytes(name.as_bytes());
        let mut value = HeaderValue::from_str(value.expose()).expect("checked with the file");
        value.set_sensitive(true);
        (name.expect("checked with the file"), value)
    });
    headers.collect()
}

fn secure(tls: &ClientTls) -> Result<TlsConnector, TelemetryError> {
    let material = ClientMaterial::read(tls).map_err(TlsError::from)?;
    Ok(TlsConnector::from(http2_client(tls, &material)?))
}

/// Makes connections. Certificates and keys are read for each, so that files may change.
struct Connector {
    host: Box<str>,
    port: u16,
    tls: Option<Arc<ClientTls>>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Stream>>;
    type Error = std::io::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(connect(self.host.clone(), self.port, self.tls.clone()))
    }
}

async fn connect(
    host: Box<str>,
    port: u16,
    tls: Option<Arc<ClientTls>>,
) -> std::io::Result<TokioIo<Box<dyn Stream>>> {
    let tcp = TcpStream::connect((&*host, port)).await?;
    let Some(tls) = tls else {
        return Ok(TokioIo::new(Box::new(tcp)));
    };
    let server = ServerName::try_from(host.into_string()).map_err(std::io::Error::other)?;
    let connector = secure(&tls).map_err(std::io::Error::other)?;
    Ok(TokioIo::new(Box::new(connector.connect(server, tcp).await?)))
}
