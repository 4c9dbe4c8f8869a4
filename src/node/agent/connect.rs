use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use slim_compat_grpc::proto::southbound::ControlMessage;
use slim_compat_grpc::proto::southbound::controller_service_client::ControllerServiceClient;
use slim_config::{Client, Endpoint};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tonic::metadata::MetadataValue;
use tonic::transport::Endpoint as Transport;
use tonic::{Request, Streaming};
use tower::service_fn;

use crate::node::watch::Watcher;
use crate::node::{StartError, security};
use crate::trust::Credentials;

/// A controller, and how it is reached.
pub(super) struct Controller {
    pub(super) endpoint: Endpoint,
    tls: Option<Arc<ArcSwap<rustls::ClientConfig>>>,
    credentials: Credentials,
    patience: Duration,
}

/// How long a controller may take to answer the connection.
const CONNECT: Duration = Duration::from_secs(10);

/// A controller that is silent for this long and does not answer for as long again is gone.
const SILENCE: Duration = Duration::from_secs(10);

/// What a controller may send in one message, in bytes: a whole network's routes for one node.
const MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// TCP, with TLS or without.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Controller {
    /// As a block of the configuration says, whose files are watched.
    ///
    /// # Errors
    /// [`StartError`] if a file or key of it cannot be used.
    pub(super) fn new(
        client: &Client,
        block: &str,
        watcher: &mut Watcher,
    ) -> Result<Self, StartError> {
        let block = || block.to_owned();
        let tls = security::of_published(client, watcher)
            .map_err(|source| StartError::Tls { block: block(), source })?;
        let credentials = Credentials::of(&client.auth)
            .map_err(|source| StartError::Auth { block: block(), source })?;
        let patience = client.connect_timeout.unwrap_or(CONNECT);
        Ok(Self { endpoint: client.endpoint.clone(), tls, credentials, patience })
    }

    /// Opens a stream on which `messages` are sent.
    ///
    /// # Errors
    /// Why there is none, for the log.
    pub(super) async fn open(
        &self,
        messages: mpsc::Receiver<ControlMessage>,
    ) -> Result<Streaming<ControlMessage>, String> {
        let Endpoint { host, port, .. } = &self.endpoint;
        let transport = Transport::from_shared(format!("http://{host}:{port}"))
            .map_err(|error| error.to_string())?
            .http2_keep_alive_interval(SILENCE)
            .keep_alive_timeout(SILENCE)
            .keep_alive_while_idle(true);
        let (host, port) = (host.trim_matches(['[', ']']).to_owned(), *port);
        let tls = self.tls.as_ref().map(|tls| tls.load_full());
        let connector = service_fn(move |_: Uri| {
            let (host, tls) = (host.clone(), tls.clone());
            async move { dial(&host, port, tls).await.map(TokioIo::new) }
        });
        let connecting = transport.connect_with_connector(connector);
        let channel = tokio::time::timeout(self.patience, connecting)
            .await
            .map_err(|_| "no answer in time".to_owned())?
            .map_err(|error| with_causes(&error))?;
        let stream = futures_util::stream::unfold(messages, async |mut messages| {
            messages.recv().await.map(|message| (message, messages))
        });
        let mut request = Request::new(stream);
        let credentials = self.credentials.authorization(SystemTime::now());
        if let Some(credentials) = credentials.map_err(|error| error.to_string())? {
            let mut value =
                MetadataValue::try_from(credentials.expose()).map_err(|error| error.to_string())?;
            value.set_sensitive(true);
            request.metadata_mut().insert("authorization", value);
        }
        let mut service =
            ControllerServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES);
        let opened = service.open_control_channel(request).await;
        opened.map(tonic::Response::into_inner).map_err(|status| with_causes(&status))
    }
}

async fn dial(
    host: &str,
    port: u16,
    tls: Option<Arc<rustls::ClientConfig>>,
) -> std::io::Result<Box<dyn Io>> {
    let tcp = TcpStream::connect((host, port)).await?;
    tcp.set_nodelay(true)?;
    let Some(tls) = tls else {
        return Ok(Box::new(tcp));
    };
    let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
    Ok(Box::new(TlsConnector::from(tls).connect(name, tcp).await?))
}

/// An error with what led to it.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
