//! What the program `slim-controller` does with its configuration.

use std::path::Path;
use std::sync::Arc;

use slim_config::controller::{self as configuration, ControllerConfig, Database, Loaded};
use tracing::{error, info, warn};

use super::settings::{Api, Settings};
use super::store::{EmbeddedStore, MemoryStore, Store, StoreError};
use super::{lifecycle, logging};
use crate::node::lifecycle::Exit;
use crate::telemetry::logging::Logging;

/// Runs a controller until a signal stops it. `file` is where the configuration comes from; the
/// signal SIGHUP has it read again.
pub fn run(loaded: Loaded, file: Option<&Path>) -> Exit {
    let Loaded { config, warnings } = loaded;
    let logging = logging::init(config.log_level, &config.opentelemetry);
    if let Ok(Err(error)) = logging.as_ref().map(Logging::telemetry) {
        error!(hint = error.hint(), "Failed to start: {error}");
        return Exit::StartFailed;
    }
    for warning in &warnings {
        warn!("{warning}");
    }
    match store(&config.database) {
        Ok(store) => {
            let mut applied = config.clone();
            let reread = || reread(file, &mut applied, logging.as_ref().ok());
            lifecycle::run_until_signal(settings(config), store, reread)
        }
        Err(error) => {
            error!(hint = error.hint(), "Failed to start: {error}");
            Exit::StartFailed
        }
    }
}

/// Reads the configuration again, applies what can be applied, and says what cannot.
fn reread(file: Option<&Path>, applied: &mut ControllerConfig, logging: Option<&Logging>) {
    let Some(file) = file else {
        return warn!("There is no configuration file to read again");
    };
    let newer = match configuration::load(file) {
        Ok(Loaded { config, .. }) => config,
        Err(error) => return error!("The configuration stays as it was: {error}"),
    };
    let changes = applied.changes(&newer);
    if changes.is_empty() {
        info!("The configuration has not changed");
    }
    for key in changes {
        if let ("logging.level", Some(logging)) = (key, logging) {
            logging.set_level(newer.log_level);
            applied.log_level = newer.log_level;
            info!(key, "Applied");
        } else {
            warn!(key, "Changed, but needs a restart");
        }
    }
}

fn store(database: &Database) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match database {
        Database::File(path) => {
            let store = EmbeddedStore::open(path)?;
            info!("What operators want is kept in {}", path.display());
            Arc::new(store)
        }
        Database::InMemory => {
            warn!("What operators want is kept in memory only, and lost when this program ends");
            Arc::new(MemoryStore::default())
        }
    })
}

fn settings(config: ControllerConfig) -> Settings {
    let api = |api: configuration::Api| {
        let address = api.address();
        Api { address, tls: api.tls, auth: api.auth }
    };
    Settings {
        northbound: api(config.northbound),
        southbound: api(config.southbound),
        reconcilers: config.reconciler.threads as usize,
        sweep: config.reconciler.sweep,
        expire: config.reconciler.forget_nodes_after,
        ..Settings::default()
    }
}
