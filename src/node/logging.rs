//! Log lines in the form that the documents show.

use std::io::IsTerminal;

use slim_config::{LogLevel, Tracing};
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// Writes events of the configured level and above to standard output.
///
/// Libraries below this program log their inner workings at debug; they stay at info.
///
/// # Errors
/// If the process has a subscriber already.
pub fn init(tracing: &Tracing) -> Result<(), TryInitError> {
    let level = match tracing.log_level {
        LogLevel::Trace => Level::TRACE,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Info => Level::INFO,
        LogLevel::Warn => Level::WARN,
        LogLevel::Error => Level::ERROR,
    };
    let filter = Targets::new()
        .with_default(level)
        .with_target("h2", level.min(Level::INFO))
        .with_target("hyper", level.min(Level::INFO))
        .with_target("rustls", level.min(Level::INFO));
    let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(colour)
        .with_thread_names(tracing.display_thread_names)
        .with_thread_ids(tracing.display_thread_ids);
    tracing_subscriber::registry().with(filter).with(lines).try_init()
}
