//! Log lines in the form that the documents show, and what else the events of a program become.

use std::io::IsTerminal;

use slim_config::{LogLevel, OpenTelemetry, Tracing};
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Registry, reload};

use super::{Telemetry, TelemetryError};
use crate::SPANS;

/// Lines that wait for whoever reads standard output. More are left out: a reader that stalls
/// must not stop a core.
const WAITING_LINES: usize = 8192;

/// Where the events of this process go, until it is dropped: what waits is written then, and
/// exported in a bounded time.
pub struct Logging {
    telemetry: Result<Option<Telemetry>, TelemetryError>,
    logged: fn(LogLevel) -> Targets,
    filter: reload::Handle<Targets, Registry>,
    _lines: WorkerGuard,
}

/// Writes events of the configured level and above to standard output, from a thread of its own,
/// and exports them, with traces, if the configuration says so.
///
/// Libraries below this program log their inner workings at debug; they stay at info.
///
/// # Errors
/// If the process has a subscriber already. A collector whose settings cannot be used is no
/// reason not to log: see [`Logging::telemetry`].
pub fn init(tracing: &Tracing) -> Result<Logging, TryInitError> {
    let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    Logging::start(tracing.log_level, logged, &tracing.opentelemetry, |output| {
        tracing_subscriber::fmt::layer()
            .with_writer(output)
            .with_ansi(colour)
            .with_thread_names(tracing.display_thread_names)
            .with_thread_ids(tracing.display_thread_ids)
    })
}

impl Logging {
    /// Has events go to standard output in the form of `lines`, and to a collector. `logged` says
    /// which, by the level.
    pub(crate) fn start<L>(
        level: LogLevel,
        logged: fn(LogLevel) -> Targets,
        collector: &OpenTelemetry,
        lines: impl FnOnce(NonBlocking) -> L,
    ) -> Result<Self, TryInitError>
    where
        L: Layer<Registry> + Send + Sync,
    {
        let telemetry = Telemetry::start(collector);
        let exported = telemetry.as_ref().ok().and_then(Option::as_ref);
        let (filter, handle) = reload::Layer::new(logged(level));
        let (output, guard) = NonBlockingBuilder::default()
            .buffered_lines_limit(WAITING_LINES)
            .finish(std::io::stdout());
        let logs = lines(output).and_then(exported.map(Telemetry::logs)).with_filter(filter);
        let spans = exported.map(Telemetry::node_spans);
        tracing_subscriber::registry().with(logs).with(spans).try_init()?;
        Ok(Self { telemetry, logged, filter: handle, _lines: guard })
    }

    /// What exports, if anything is to be exported.
    ///
    /// # Errors
    /// Why nothing can be, though it is to be.
    pub fn telemetry(&self) -> Result<Option<&Telemetry>, &TelemetryError> {
        self.telemetry.as_ref().map(Option::as_ref)
    }

    /// Logs and exports events of this level and above from now on.
    pub fn set_level(&self, level: LogLevel) {
        // It fails when the subscriber is gone, and with it who would be told.
        let _ = self.filter.reload((self.logged)(level));
    }
}

/// What is logged at this level. Spans of [`SPANS`] are for traces only.
fn logged(level: LogLevel) -> Targets {
    let level = level_of(level);
    Targets::new()
        .with_default(level)
        .with_target(SPANS, LevelFilter::OFF)
        .with_target("h2", level.min(Level::INFO))
        .with_target("hyper", level.min(Level::INFO))
        .with_target("rustls", level.min(Level::INFO))
}

/// The level of events by the word of a configuration.
pub(crate) fn level_of(level: LogLevel) -> Level {
    match level {
        LogLevel::Trace => Level::TRACE,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Info => Level::INFO,
        LogLevel::Warn => Level::WARN,
        LogLevel::Error => Level::ERROR,
    }
}
