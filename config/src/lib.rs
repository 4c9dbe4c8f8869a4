//! The configuration file of a SLIM node: the YAML that releases 0.4 to 0.6 document, as
//! validated types, and the keys this node adds (`admin`, `limits`, `policy`, `profile`, `routes`
//! and `quic`).
//!
//! One run over a file reports everything that is wrong with it, each finding with line, column,
//! path of the key and, where one is known, a hint. A key that is not known is an error, a key
//! that is known and does nothing is a warning. What cannot be honoured and would leave a node
//! open if it were ignored is refused.
//!
//! The file of a controller is read by [`controller`], in the same way.
//!
//! Nothing here binds or connects. What `${env:NAME}` and `${file:/path}` stand for comes from a
//! [`Sources`].
//!
//! ```
//! let text = r#"
//! services:
//!   slim/0:
//!     dataplane:
//!       servers:
//!         - endpoint: "0.0.0.0:46357"
//!           tls:
//!             insecure: true
//! "#;
//! let loaded = slim_config::parse("config.yaml", text, &slim_config::System)?;
//! assert_eq!(loaded.config.services[0].dataplane.servers[0].endpoint.port(), 46357);
//!
//! let typo = text.replace("endpoint", "endpoit");
//! let errors = slim_config::parse("config.yaml", &typo, &slim_config::System).unwrap_err();
//! assert!(errors.to_string().contains("help: did you mean `endpoint`?"));
//! # Ok::<(), slim_config::Diagnostics>(())
//! ```

mod auth;
mod client;
pub mod controller;
mod diagnostics;
mod endpoint;
mod limits;
mod load;
mod metadata;
mod outline;
mod policy;
mod profile;
mod runtime;
mod secret;
mod section;
mod server;
mod service;
mod slimctl;
mod sources;
mod tls;
mod tracing;
mod tree;
mod value;

pub use auth::{
    Algorithm, Auth, Claims, Jwt, JwtKey, KeyData, KeyFormat, KeySource, StaticJwt, TokenSource,
};
pub use client::{Client, ClientKeepalive, Headers, Proxy, RateLimit, Release};
pub use diagnostics::{Diagnostic, Diagnostics, Severity};
pub use endpoint::{Endpoint, Scheme};
pub use limits::Limits;
pub use load::{Config, LoadError, Loaded, load, parse};
pub use metadata::{Metadata, MetadataValue};
pub use outline::Outline;
pub use policy::{NamePattern, Policy, PolicyMode, PolicyRule, PrincipalPattern, TextPattern};
pub use profile::Profile;
pub use runtime::Runtime;
pub use secret::Secret;
pub use server::{Congestion, Quic, Server, ServerKeepalive};
pub use service::{Controller, Dataplane, Route, Service};
pub use slimctl::{CtlFile, CtlOptions};
pub use sources::{SourceError, Sources, System};
pub use tls::{Certificates, ClientTls, Identity, ServerTls, TlsVersion};
pub use tracing::{LogLevel, OpenTelemetry, Tracing};
