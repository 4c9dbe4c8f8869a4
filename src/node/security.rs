//! How connections are secured, and how that changes while the node runs.

use std::sync::Arc;

use arc_swap::ArcSwap;
use slim_config::{
    Auth, Claims, Client, ClientTls, Jwt, JwtKey, KeyData, KeySource, Server, ServerTls,
};
use tracing::warn;

use super::StartError;
use super::listener::quic_settings;
use super::tls::{self, ClientMaterial, ServerMaterial, TlsError};
use super::watch::{Watched, Watcher};
use crate::identity::{IdentityError, JwtCheck, JwtRules};
use crate::link::Gate;
use crate::link::quic::settings::{self, QuicSettings, ResetKey};
use crate::trust::{IssuerKeys, IssuerOptions, KeyText};

/// How a server's connections are secured from now on.
#[derive(Clone)]
pub(super) struct Security {
    /// TLS of gRPC connections; `None` without.
    pub(super) grpc: Option<Arc<ArcSwap<rustls::ServerConfig>>>,
    /// QUIC; `None` where it is switched off.
    pub(super) quic: Option<Arc<ArcSwap<quinn_proto::ServerConfig>>>,
    /// What ends connections over QUIC from before a restart.
    pub(super) resets: ResetKey,
    /// Who is let in.
    pub(super) gate: Arc<Gate>,
}

/// The security of a server, whose files are watched. `block` is where in the configuration.
pub(super) fn of_server(
    block: &str,
    server: &Server,
    watcher: &mut Watcher,
) -> Result<Security, StartError> {
    let ((grpc, quic), resets) = tls_of(block, server, watcher)
        .map_err(|source| StartError::Tls { block: block.to_owned(), source })?;
    let gate = gate(&server.auth, &format!("services.{block}.auth"), watcher)
        .map_err(|source| StartError::Auth { block: block.to_owned(), source })?;
    Ok(Security { grpc, quic, resets, gate: Arc::new(gate) })
}

/// What connections of a listener are accepted with, if with TLS; its files are watched. `place` is
/// where in the configuration.
pub(crate) fn listener_tls(
    place: String,
    tls: &ServerTls,
    watcher: &mut Watcher,
) -> Result<Arc<ArcSwap<rustls::ServerConfig>>, TlsError> {
    let material = ServerMaterial::read(tls)?;
    let grpc = Arc::new(ArcSwap::new(tls::grpc_server(tls, &material)?));
    if ServerMaterial::is_in_files(tls) {
        let (tls, grpc) = (tls.clone(), Arc::clone(&grpc));
        watcher.add(ServerFiles { place, tls, material, grpc, quic: None });
    }
    Ok(grpc)
}

/// What changes with certificates.
type Swapped =
    (Option<Arc<ArcSwap<rustls::ServerConfig>>>, Option<Arc<ArcSwap<quinn_proto::ServerConfig>>>);

fn tls_of(
    block: &str,
    server: &Server,
    watcher: &mut Watcher,
) -> Result<(Swapped, ResetKey), TlsError> {
    let material = server.tls.as_ref().map(ServerMaterial::read).transpose()?;
    let resets = material.as_ref().map(ServerMaterial::reset_key).transpose()?;
    let resets = resets.unwrap_or_else(ResetKey::known_to_all);
    let quic = if server.quic.enabled {
        let config = settings::server(tls::quic_server(material.as_ref())?, quic_settings(server));
        Some(Arc::new(ArcSwap::new(config.expect("the suites of QUIC are there"))))
    } else {
        None
    };
    let (Some(tls), Some(material)) = (&server.tls, material) else {
        return Ok(((None, quic), resets));
    };
    let grpc = Arc::new(ArcSwap::new(tls::grpc_server(tls, &material)?));
    if ServerMaterial::is_in_files(tls) {
        let (grpc, quic) = (Arc::clone(&grpc), quic.clone());
        let place = format!("services.{block}.tls");
        watcher.add(ServerFiles { place, tls: tls.clone(), material, grpc, quic });
    }
    Ok(((Some(grpc), quic), resets))
}

/// Certificates of a server and the authorities of its clients.
struct ServerFiles {
    place: String,
    tls: ServerTls,
    material: ServerMaterial,
    grpc: Arc<ArcSwap<rustls::ServerConfig>>,
    quic: Option<Arc<ArcSwap<quinn_proto::ServerConfig>>>,
}

impl Watched for ServerFiles {
    fn place(&self) -> &str {
        &self.place
    }

    fn look(&mut self) -> Result<bool, String> {
        let text = |error: TlsError| error.to_string();
        let material = ServerMaterial::read(&self.tls).map_err(|error| error.to_string())?;
        if material == self.material {
            return Ok(false);
        }
        let grpc = tls::grpc_server(&self.tls, &material).map_err(text)?;
        if let Some(current) = &self.quic {
            let tls = tls::quic_server(Some(&material)).map_err(text)?;
            let renewed = settings::renewed(&current.load(), tls);
            current.store(renewed.expect("the suites of QUIC are there"));
        }
        self.grpc.store(grpc);
        self.material = material;
        Ok(true)
    }
}

/// Who is let in at a server. `place` is where in the configuration.
pub(crate) fn gate(auth: &Auth, place: &str, watcher: &mut Watcher) -> Result<Gate, IdentityError> {
    match auth {
        Auth::None => Ok(Gate::open()),
        Auth::Basic { username, password } => Ok(Gate::basic(username, password.expose())),
        Auth::Jwt(jwt) => token_gate(jwt, place, watcher),
        Auth::StaticJwt(_) | Auth::Bearer(_) => {
            Err(IdentityError::config("expected `basic` or `jwt`, got what only clients can have"))
        }
    }
}

fn token_gate(jwt: &Jwt, place: &str, watcher: &mut Watcher) -> Result<Gate, IdentityError> {
    let rules = rules(&jwt.claims);
    let key = match &jwt.key {
        JwtKey::Decoding(key) => key,
        JwtKey::AutoResolve => return issuer_gate(rules, place, watcher),
        JwtKey::Encoding(_) => {
            return Err(IdentityError::config("expected a key that checks, got one that signs"));
        }
    };
    let text = KeyText::read(key)?;
    let check = Arc::new(JwtCheck::new(text.keys(key)?, rules));
    if matches!(key.source, KeySource::File(_)) {
        let (place, key, check) = (place.to_owned(), key.clone(), Arc::clone(&check));
        watcher.add(KeyFile { place, key, text, check });
    }
    Ok(Gate::token(check))
}

/// What the configuration asks for has to be there.
fn rules(claims: &Claims) -> JwtRules {
    JwtRules {
        issuer: claims.issuer.clone(),
        audience: claims.audience.clone(),
        subject: claims.subject.clone(),
        require_issuer: claims.issuer.is_some(),
        require_audience: !claims.audience.is_empty(),
        require_subject: claims.subject.is_some(),
    }
}

/// By the keys that the configured issuer publishes. They are fetched at once, so that the first
/// token does not have to wait.
fn issuer_gate(rules: JwtRules, place: &str, watcher: &mut Watcher) -> Result<Gate, IdentityError> {
    let Some(issuer) = rules.issuer.clone() else {
        let reason = "expected `claims.issuer` with `autoresolve`, got none: whoever can publish \
                      keys would be let in";
        return Err(IdentityError::config(reason));
    };
    let options = IssuerOptions { allowed: Some(vec![issuer.clone()]), ..Default::default() };
    let runtime = watcher.runtime();
    let keys = {
        let _entered = runtime.enter();
        Arc::new(IssuerKeys::start(rules, options)?)
    };
    let (check, place) = (Arc::clone(&keys), place.to_owned());
    runtime.spawn(async move {
        if let Err(error) = check.fetch(&issuer).await {
            warn!(place, %error, "no keys yet, they are asked for again when a token needs them");
        }
    });
    Ok(Gate::token(keys))
}

/// The key that tokens are checked by.
struct KeyFile {
    place: String,
    key: KeyData,
    text: KeyText,
    check: Arc<JwtCheck>,
}

impl Watched for KeyFile {
    fn place(&self) -> &str {
        &self.place
    }

    fn look(&mut self) -> Result<bool, String> {
        let text = KeyText::read(&self.key).map_err(|error| error.to_string())?;
        if text == self.text {
            return Ok(false);
        }
        let keys = text.keys(&self.key).map_err(|error| error.to_string())?;
        self.check.replace_keys(keys);
        self.text = text;
        Ok(true)
    }
}

/// How links to another node are begun from now on.
pub(super) fn of_client(
    client: &Client,
    watcher: &mut Watcher,
) -> Result<Arc<ArcSwap<quinn_proto::ClientConfig>>, TlsError> {
    match &client.tls {
        Some(tls) => watched(client, tls, quic_config, watcher),
        None => {
            let config = settings::client(tls::quic_client(None)?, QuicSettings::default());
            Ok(Arc::new(ArcSwap::from_pointee(config.expect("the suites of QUIC are there"))))
        }
    }
}

/// How the TLS of links to a published node is begun from now on; `None` without.
pub(super) fn of_published(
    client: &Client,
    watcher: &mut Watcher,
) -> Result<Option<Arc<ArcSwap<rustls::ClientConfig>>>, TlsError> {
    let tls = client.tls.as_ref();
    tls.map(|tls| watched(client, tls, tls::http2_client, watcher)).transpose()
}

/// Makes what a link is begun with.
type Make<C> = fn(&ClientTls, &ClientMaterial) -> Result<Arc<C>, TlsError>;

fn quic_config(
    tls: &ClientTls,
    material: &ClientMaterial,
) -> Result<Arc<quinn_proto::ClientConfig>, TlsError> {
    let tls = tls::quic_client(Some((tls, material)))?;
    let config = settings::client(tls, QuicSettings::default());
    Ok(Arc::new(config.expect("the suites of QUIC are there")))
}

fn watched<C: Send + Sync + 'static>(
    client: &Client,
    tls: &ClientTls,
    make: Make<C>,
    watcher: &mut Watcher,
) -> Result<Arc<ArcSwap<C>>, TlsError> {
    let material = ClientMaterial::read(tls)?;
    let config = Arc::new(ArcSwap::new(make(tls, &material)?));
    if ClientMaterial::is_in_files(tls) {
        let place = format!("dataplane.clients, {}", client.endpoint);
        let (tls, config) = (tls.clone(), Arc::clone(&config));
        watcher.add(ClientFiles { place, tls, material, make, config });
    }
    Ok(config)
}

/// The certificate of this node as a client, and the authorities of others.
struct ClientFiles<C> {
    place: String,
    tls: ClientTls,
    material: ClientMaterial,
    make: Make<C>,
    config: Arc<ArcSwap<C>>,
}

impl<C: Send + Sync> Watched for ClientFiles<C> {
    fn place(&self) -> &str {
        &self.place
    }

    fn is_wanted(&self) -> bool {
        Arc::strong_count(&self.config) > 1
    }

    fn look(&mut self) -> Result<bool, String> {
        let material = ClientMaterial::read(&self.tls).map_err(|error| error.to_string())?;
        if material == self.material {
            return Ok(false);
        }
        self.config.store((self.make)(&self.tls, &material).map_err(|error| error.to_string())?);
        self.material = material;
        Ok(true)
    }
}
