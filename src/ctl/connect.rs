use std::error::Error as StdError;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::Uri;
use rustls::RootCertStore;
use slim_config::{Secret, Sources as _, System};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};

use super::error::rpc_code;
use super::output::shown;
use super::settings::{Credentials, Settings};
use super::{Error, runtime};

/// A connection over which calls are made.
pub(super) type Link = InterceptedService<Channel, Authorization>;

/// Puts credentials into every request.
#[derive(Clone)]
pub(super) struct Authorization(Option<MetadataValue<Ascii>>);

impl Interceptor for Authorization {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// A server that is yet to be connected to.
pub(super) struct Server {
    endpoint: Endpoint,
    authorization: Authorization,
    timeout: Duration,
}

impl Server {
    /// The one that the settings name, else `default`.
    ///
    /// # Errors
    /// [`Error::Argument`] and [`Error::Settings`], for what cannot be used.
    pub(super) fn new(settings: &Settings, default: &str) -> Result<Self, Error> {
        let server = settings.server.as_deref().unwrap_or(default);
        let (uri, plaintext) = address(server, settings)?;
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let mut endpoint = Endpoint::from(uri);
        if !plaintext {
            let tls = tls(settings)?.domain_name(host);
            endpoint = endpoint.tls_config(tls).map_err(|error| Error::Usage(chain(&error)))?;
        }
        let authorization = Authorization(authorization(settings.credentials.as_ref())?);
        Ok(Self { endpoint, authorization, timeout: settings.timeout })
    }

    /// Connects and makes `call`, all within the time of a command. `what` is what did not work,
    /// in the words of release 0.6.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub(super) fn call<T>(
        &self,
        what: &'static str,
        call: impl AsyncFnOnce(Link) -> Result<T, Status>,
    ) -> Result<T, Error> {
        runtime()?.block_on(async {
            let done = async {
                let channel = self.endpoint.connect().await.map_err(|error| Reason {
                    reached: false,
                    code: Code::Unavailable,
                    text: format!("connection error: {}", chain(&error)),
                })?;
                let link = InterceptedService::new(channel, self.authorization.clone());
                call(link).await.map_err(|status| Reason::of(&status))
            };
            let late = || Reason {
                reached: true,
                code: Code::DeadlineExceeded,
                text: "context deadline exceeded".into(),
            };
            let done = tokio::time::timeout(self.timeout, done).await;
            done.unwrap_or_else(|_| Err(late())).map_err(|reason| reason.error(what))
        })
    }
}

/// Why a call has no answer.
struct Reason {
    reached: bool,
    code: Code,
    text: String,
}

impl Reason {
    /// A status that has a cause was made here: the link broke.
    fn of(status: &Status) -> Self {
        let cause = status.source();
        let text = match cause {
            Some(cause) => format!("{}: {}", status.message(), chain(cause)),
            None => status.message().to_owned(),
        };
        let code = if cause.is_some() { Code::Unavailable } else { status.code() };
        // What answers without a status of its own is something in between.
        let in_between = status.message().starts_with("grpc-status header missing");
        Self { reached: cause.is_none() && !in_between, code, text }
    }

    fn error(self, what: &'static str) -> Error {
        Error::Call {
            what,
            reached: self.reached,
            code: rpc_code(self.code),
            text: shown(&self.text),
        }
    }
}

/// An error with all its causes.
pub(super) fn chain(error: &dyn StdError) -> String {
    let mut texts = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        texts.push(error.to_string());
        cause = error.source();
    }
    texts.dedup();
    texts.join(": ")
}

/// The server's address, and whether it is spoken to in plaintext.
fn address(server: &str, settings: &Settings) -> Result<(Uri, bool), Error> {
    let wrong = || Error::argument("--server", "HOST:PORT, http:// or https://", server);
    let files = [&settings.ca_file, &settings.cert_file, &settings.key_file];
    let names_files = files.iter().any(|file| file.is_some());
    let (scheme, authority) = server.split_once("://").unwrap_or(("", server));
    let plaintext = match (scheme, settings.insecure) {
        ("http", _) => true,
        ("https", Some(true)) => {
            let both = "--tls.insecure=true means plaintext, and https:// in --server does not";
            return Err(Error::Usage(both.into()));
        }
        ("https", _) => false,
        ("", said) => said.unwrap_or(!names_files),
        _ => return Err(wrong()),
    };
    if plaintext && names_files {
        let message = "files for TLS are named, but the connection would be plaintext";
        return Err(Error::Usage(message.into()));
    }
    let scheme = if plaintext { "http" } else { "https" };
    let uri: Uri = format!("{scheme}://{authority}").parse().map_err(|_| wrong())?;
    let has_port = uri.port_u16().is_some_and(|port| port != 0);
    if !has_port || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(wrong());
    }
    Ok((uri, plaintext))
}

fn tls(settings: &Settings) -> Result<ClientTlsConfig, Error> {
    let text = |path: &std::path::PathBuf| {
        System.file(path).map_err(|reason| Error::settings(path, reason))
    };
    let mut tls = ClientTlsConfig::new();
    tls = match &settings.ca_file {
        Some(file) => tls.ca_certificate(Certificate::from_pem(text(file)?)),
        None => {
            let mut roots = RootCertStore::empty();
            // Systems carry certificates that no library takes; the others will do.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            tls.trust_anchors(roots.roots)
        }
    };
    match (&settings.cert_file, &settings.key_file) {
        (Some(certificate), Some(key)) => {
            Ok(tls.identity(Identity::from_pem(text(certificate)?, text(key)?)))
        }
        (None, None) => Ok(tls),
        _ => Err(Error::Usage("tls.cert_file and tls.key_file only work together".into())),
    }
}

fn authorization(credentials: Option<&Credentials>) -> Result<Option<MetadataValue<Ascii>>, Error> {
    let token = |token: &Secret| format!("Bearer {}", token.expose().trim());
    let text = match credentials {
        None => return Ok(None),
        Some(Credentials::Basic(pair)) if !pair.expose().contains(':') => {
            let expected = "--basic_auth_creds: expected USER:PASSWORD, got a text without `:`";
            return Err(Error::Usage(expected.into()));
        }
        Some(Credentials::Basic(pair)) => format!("Basic {}", BASE64.encode(pair.expose())),
        Some(Credentials::Token(text)) => token(text),
        Some(Credentials::TokenFile(path)) => {
            let text = System.file(path).map_err(|reason| Error::settings(path, reason))?;
            token(&Secret::new(text))
        }
    };
    let mut value = MetadataValue::try_from(text)
        .map_err(|_| Error::Usage("token: expected printable ASCII".into()))?;
    value.set_sensitive(true);
    Ok(Some(value))
}
