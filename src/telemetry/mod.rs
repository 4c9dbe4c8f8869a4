//! What programs tell of themselves: log lines, and, for a collector of OpenTelemetry, logs,
//! traces and metrics (OTLP over gRPC).
//!
//! Everything is exported from threads of its own. A collector that is absent, slow or silent
//! costs neither time nor messages: what waits for it is bounded, the rest is left out, and a log
//! line a minute says so.
//!
//! An app that has no subscriber of its own begins so, and sees its spans go on at whoever
//! receives its messages:
//!
//! ```no_run
//! use slim_quic::client::trace_context;
//! use slim_quic::telemetry::{self, OpenTelemetry};
//! use tracing_opentelemetry::OpenTelemetrySpanExt;
//!
//! # async fn example(session: slim_quic::client::Session) -> Result<(), Box<dyn std::error::Error>> {
//! let mut config = OpenTelemetry { enabled: true, ..OpenTelemetry::default() };
//! config.service_name = "my-app".into();
//! config.grpc.endpoint.host = "collector.example.org".into();
//! let _telemetry = telemetry::init(&config)?;
//!
//! let (message, payload) = session.get_message().await?;
//! let span = tracing::info_span!("answer");
//! // The sender's span is the parent.
//! span.set_parent(trace_context(&message.metadata))?;
//! let _entered = span.enter();
//! # Ok(())
//! # }
//! ```
//!
//! One that has adds [`Telemetry::layer`] to it.

mod collector;
mod exporter;
pub mod logging;

use std::sync::mpsc;
use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Meter, MeterProvider};
use opentelemetry::trace::TracerProvider;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{ExporterBuildError, LogExporter, MetricExporter, SpanExporter};
use opentelemetry_sdk::logs::{self, BatchLogProcessor, SdkLogger, SdkLoggerProvider};
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::trace::{self, BatchSpanProcessor, SdkTracerProvider};
use opentelemetry_sdk::{Resource, error::OTelSdkResult};
pub use slim_config::OpenTelemetry;
use slim_wire::Fault;
use thiserror::Error;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{FilterFn, Targets, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use self::collector::Collector;
use self::exporter::{Bounded, Way};
use crate::identity::IdentityError;
use crate::node::TlsError;

/// Crates that export. What they say of an export would have to be exported.
const EXPORTERS: [&str; 7] =
    ["h2", "hyper", "hyper_util", "opentelemetry", "rustls", "tonic", "tower"];

/// Spans, and as many log records, that wait for the collector. More are left out.
const WAITING: usize = 2048;

/// How long spans and log records wait for others to be exported with.
const DELAY: Duration = Duration::from_secs(1);

/// How long the last export of all may take when a program stops.
const LAST_EXPORT: Duration = Duration::from_secs(3);

/// Why nothing can be exported.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// Collectors are reached over gRPC only.
    #[error("opentelemetry.grpc.endpoint: expected `http://` or `https://`, got {0}")]
    Endpoint(String),
    /// A certificate or key cannot be used.
    #[error("opentelemetry.grpc.tls: {0}")]
    Tls(#[from] TlsError),
    /// A key or token of `auth` cannot be used.
    #[error("opentelemetry.grpc.auth: {0}")]
    Auth(#[from] IdentityError),
    /// The exporter's own variables in the environment (`OTEL_EXPORTER_OTLP_…`) are wrong.
    #[error("opentelemetry: {0}")]
    Exporter(#[from] ExporterBuildError),
    /// A thread cannot be had from the system.
    #[error("start of the thread that exports telemetry: {0}")]
    System(#[from] std::io::Error),
}

impl TelemetryError {
    /// Who has to act.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Endpoint(_) | Self::Tls(_) | Self::Auth(_) | Self::Exporter(_) => Fault::Config,
            Self::System(_) => Fault::Internal,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Endpoint(_) => "write `http://`, with `tls` if the collector wants it",
            Self::Tls(error) => error.hint(),
            Self::Auth(_) => "name a file that can be read, or a text, with what is asked for",
            Self::Exporter(_) => "look at variables in the environment that begin with OTEL_",
            Self::System(_) => "the system is short of threads or file descriptors",
        }
    }
}

/// Why an app's telemetry does not start.
#[derive(Debug, Error)]
pub enum InitError {
    /// Nothing can be exported.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The process has a subscriber already: add [`Telemetry::layer`] to it.
    #[error("{0}: add the layer of `Telemetry` to the subscriber that is there")]
    Subscriber(#[from] TryInitError),
}

/// Exports until it is dropped. What waits then is exported in at most three seconds, during
/// which dropping it blocks.
pub struct Telemetry {
    traces: SdkTracerProvider,
    logs: SdkLoggerProvider,
    metrics: SdkMeterProvider,
}

/// Exports the spans and events of this process at info and above, whatever crate they are of. For
/// apps without a subscriber of their own. `None` if the configuration does not enable it.
///
/// # Errors
/// [`InitError`].
pub fn init(config: &OpenTelemetry) -> Result<Option<Telemetry>, InitError> {
    let Some(telemetry) = Telemetry::start(config)? else {
        return Ok(None);
    };
    tracing_subscriber::registry().with(telemetry.layer()).try_init()?;
    Ok(Some(telemetry))
}

impl Telemetry {
    /// Starts what exports; `None` if the configuration does not enable it. The collector need not
    /// be there.
    ///
    /// # Errors
    /// [`TelemetryError`].
    pub fn start(config: &OpenTelemetry) -> Result<Option<Self>, TelemetryError> {
        if !config.enabled {
            return Ok(None);
        }
        let way = Way::start(&config.grpc)?;
        let collector = Collector::new(&config.grpc, way.runtime())?;
        let resource = resource(config);
        let spans = collector.reached_by(SpanExporter::builder().with_tonic()).build()?;
        let records = collector.reached_by(LogExporter::builder().with_tonic()).build()?;
        let numbers = collector.reached_by(MetricExporter::builder().with_tonic()).build()?;
        let batches = trace::BatchConfigBuilder::default()
            .with_max_queue_size(WAITING)
            .with_scheduled_delay(DELAY);
        let spans = BatchSpanProcessor::builder(Bounded::new("traces", spans, &way))
            .with_batch_config(batches.build());
        let batches = logs::BatchConfigBuilder::default()
            .with_max_queue_size(WAITING)
            .with_scheduled_delay(DELAY);
        let records = BatchLogProcessor::builder(Bounded::new("logs", records, &way))
            .with_batch_config(batches.build());
        let interval = Duration::from_secs(config.metrics_interval_secs.into());
        let numbers =
            PeriodicReader::builder(Bounded::new("metrics", numbers, &way)).with_interval(interval);
        Ok(Some(Self {
            traces: SdkTracerProvider::builder()
                .with_resource(resource.clone())
                .with_span_processor(spans.build())
                .build(),
            logs: SdkLoggerProvider::builder()
                .with_resource(resource.clone())
                .with_log_processor(records.build())
                .build(),
            metrics: SdkMeterProvider::builder()
                .with_resource(resource)
                .with_reader(numbers.build())
                .build(),
        }))
    }

    /// What can be told of a configuration without exporting anything: whether its certificates,
    /// keys and tokens can be used.
    ///
    /// # Errors
    /// [`TelemetryError`].
    pub fn check(config: &OpenTelemetry) -> Result<(), TelemetryError> {
        match config.enabled {
            true => collector::check(&config.grpc),
            false => Ok(()),
        }
    }

    /// Exports spans and events at info and above, whatever crate they are of, but those that
    /// export.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let filter = Targets::new().with_default(LevelFilter::INFO);
        let filter = filter.with_targets(EXPORTERS.map(|exporter| (exporter, LevelFilter::OFF)));
        let spans = self.spans().with_filter(filter_fn(|metadata| metadata.is_span()));
        spans.and_then(self.logs()).with_filter(filter)
    }

    /// What measures for the collector, under the name of this library.
    pub fn meter(&self) -> Meter {
        self.metrics.meter("slim-quic")
    }

    /// Exports every event that is not of the crates that export.
    fn logs<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let filter = Targets::new().with_default(LevelFilter::TRACE);
        let filter = filter.with_targets(EXPORTERS.map(|exporter| (exporter, LevelFilter::OFF)));
        OpenTelemetryTracingBridge::<_, SdkLogger>::new(&self.logs).with_filter(filter)
    }

    /// Exports the spans of this program, whatever its log level is. Libraries below it have
    /// spans of every packet.
    fn node_spans<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let own: FilterFn = filter_fn(|metadata| {
            metadata.is_span()
                && metadata.target().starts_with("slim")
                && *metadata.level() <= LevelFilter::INFO
        });
        self.spans().with_filter(own.with_max_level_hint(LevelFilter::INFO))
    }

    fn spans<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.traces.tracer("slim-quic"))
            .with_location(false)
            .with_threads(false)
    }
}

/// All three are flushed at the same time, and not waited for longer than three seconds.
impl Drop for Telemetry {
    fn drop(&mut self) {
        let (traces, logs, metrics) =
            (self.traces.clone(), self.logs.clone(), self.metrics.clone());
        let ends: [Box<dyn FnOnce() -> OTelSdkResult + Send>; 3] = [
            Box::new(move || traces.shutdown_with_timeout(LAST_EXPORT)),
            Box::new(move || logs.shutdown_with_timeout(LAST_EXPORT)),
            Box::new(move || metrics.shutdown_with_timeout(LAST_EXPORT)),
        ];
        let deadline = Instant::now() + LAST_EXPORT;
        let (end, ended) = mpsc::channel();
        for flush in ends {
            let end = end.clone();
            // Without a thread there is nothing left that could export either.
            let _ = std::thread::Builder::new().name("slim-flush".into()).spawn(move || {
                // What fails was reported by the exporter.
                let _ = flush();
                let _ = end.send(());
            });
        }
        drop(end);
        let left = || deadline.saturating_duration_since(Instant::now());
        while ended.recv_timeout(left()).is_ok() {}
    }
}

/// Who exports, as the configuration says.
fn resource(config: &OpenTelemetry) -> Resource {
    let instance = std::env::var("SLIM_INSTANCE_ID");
    let instance = instance.unwrap_or_else(|_| format!("{:032x}", rand::random::<u128>()));
    Resource::builder_empty()
        .with_service_name(config.service_name.clone())
        .with_attributes([
            KeyValue::new("service.version", config.service_version.clone()),
            KeyValue::new("service.instance.id", instance),
            KeyValue::new("deployment.environment.name", config.environment.clone()),
        ])
        .build()
}
