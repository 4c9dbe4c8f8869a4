//! The SLIM controller.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use slim_config::controller::{ControllerConfig, Database, Loaded};
use slim_config::{System, controller as configuration};
use slim_quic::controller::lifecycle;
use slim_quic::controller::logging;
use slim_quic::controller::settings::{Api, Settings};
use slim_quic::controller::store::{EmbeddedStore, MemoryStore, Store, StoreError};
use slim_quic::node::lifecycle::Exit;
use slim_quic::telemetry::logging::Logging;
use slim_quic::version::Version;
use tracing::{error, info, warn};

const EXIT_CODES: &str = "Exit codes: 0 stopped cleanly, 1 did not start, 2 wrong command line, \
                          3 wrong configuration, 4 stopped before everything had ended";

/// What is read without --config, if it is there.
const DEFAULT_FILE: &str = "config.yaml";

/// Tells SLIM nodes of each other, and manages groups.
#[derive(Parser)]
#[command(name = "slim-controller", after_help = EXIT_CODES)]
struct Cli {
    /// Configuration file (YAML); without one config.yaml in the working directory, if it is there
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print build information
    #[arg(short, long)]
    version: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse_from(std::env::args_os().map(with_two_dashes));
    if cli.version { print_version() } else { run(cli.config) }.into()
}

/// The published controller's flag has one dash.
fn with_two_dashes(argument: OsString) -> OsString {
    match argument.to_str() {
        Some(text) if text == "-config" || text.starts_with("-config=") => {
            format!("-{text}").into()
        }
        _ => argument,
    }
}

fn run(named: Option<PathBuf>) -> Exit {
    let file = named.or_else(|| Path::new(DEFAULT_FILE).is_file().then(|| DEFAULT_FILE.into()));
    let loaded = match &file {
        Some(file) => configuration::load(file).map_err(|error| error.to_string()),
        None => configuration::parse("", "", &System).map_err(|found| found.to_string()),
    };
    let Loaded { config, warnings } = match loaded {
        Ok(loaded) => loaded,
        Err(error) => return report(&error),
    };
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
            let reread = || reread(file.as_deref(), &mut applied, logging.as_ref().ok());
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
    let api = |api: slim_config::controller::Api| {
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

#[expect(clippy::print_stdout, reason = "the answer to the command")]
fn print_version() -> Exit {
    print!("{Version}");
    Exit::Clean
}

/// Errors of the configuration go to standard error, since logging needs a configuration.
#[expect(clippy::print_stderr, reason = "there is no log yet")]
fn report(error: &str) -> Exit {
    eprintln!("{error}");
    Exit::Config
}
