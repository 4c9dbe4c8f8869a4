//! The configuration file of a controller: the YAML that release 0.6 documents for
//! `control-plane`, what 0.7 added to it, and this program's own keys (`profile`, `auth`, the
//! node's form of `tls`, and `database.type`).
//!
//! As with a node's file, a key that is not known is an error and a key that does nothing is a
//! warning. No key is required: a controller without a file serves `localhost` on the documented
//! ports.
//!
//! The indentation of the published tutorial is lost, so `logging` and `reconciler` may also stand
//! within `northbound` or `southbound`, and `logging` within `reconciler`. Of several the
//! outermost decides, then that of `reconciler`, of `southbound` and of `northbound`; if others
//! differ they are warned about.
//!
//! These environment variables replace what a file says, unless they are empty: `NB_API_HTTP_HOST`,
//! `NB_API_HTTP_PORT`, `SB_API_HTTP_HOST`, `SB_API_HTTP_PORT`, `API_LOG_LEVEL`. Findings about them
//! name `environment` as their file.
//!
//! ```
//! use slim_config::{System, controller};
//!
//! let text = "southbound: { httpHost: 0.0.0.0, httpPort: \"50052\" }\n";
//! let loaded = controller::parse("config.yaml", text, &System)?;
//! assert_eq!(loaded.config.southbound.address(), "0.0.0.0:50052");
//! assert_eq!(loaded.config.northbound.address(), "localhost:50051");
//! # Ok::<(), slim_config::Diagnostics>(())
//! ```

mod api;
mod database;
mod load;
mod logging;
mod reconciler;
mod variables;

pub use api::Api;
pub use database::Database;
pub use load::{ControllerConfig, Loaded, load, parse};
pub use reconciler::Reconciler;
