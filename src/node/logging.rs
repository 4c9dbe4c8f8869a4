//! Log lines in the form that the documents show.

use std::io::IsTerminal;

use slim_config::{LogLevel, Tracing};
use tracing::Level;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// Lines that wait for whoever reads standard output. More are left out: a reader that stalls
/// must not stop a core.
const WAITING_LINES: usize = 8192;

/// Writes events of the configured level and above to standard output, from a thread of its own,
/// until the guard is dropped.
///
/// Libraries below this program log their inner workings at debug; they stay at info.
///
/// # Errors
/// If the process has a subscriber already.
pub fn init(tracing: &Tracing) -> Result<WorkerGuard, TryInitError> {
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
    let (output, guard) =
        NonBlockingBuilder::default().buffered_lines_limit(WAITING_LINES).finish(std::io::stdout());
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(output)
        .with_ansi(colour)
        .with_thread_names(tracing.display_thread_names)
        .with_thread_ids(tracing.display_thread_ids);
    tracing_subscriber::registry().with(filter).with(lines).try_init()?;
    Ok(guard)
}
