//! What bounds exports and reports those that fail.

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::logs::{LogBatch, LogExporter};
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use slim_config::Client;
use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::warn;

/// How long an export may take unless `request_timeout` says otherwise.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two lines about exports that fail.
const LINE_INTERVAL: Duration = Duration::from_secs(60);

/// What all exports go by: a runtime on a thread of its own, which ends with the last exporter.
pub(super) struct Way {
    runtime: Handle,
    patience: Duration,
    collector: String,
    failures: Mutex<Failures>,
    _end: DropGuard,
}

#[derive(Default)]
struct Failures {
    told: Option<Instant>,
    left_out: u64,
}

impl Way {
    pub(super) fn start(client: &Client) -> std::io::Result<Arc<Self>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (handle, end) = (runtime.handle().clone(), CancellationToken::new());
        let ended = end.clone();
        std::thread::Builder::new().name("slim-telemetry".into()).spawn(move || {
            // What an export is made of is not told, or each would make the next.
            let _silence = opentelemetry::Context::enter_telemetry_suppressed_scope();
            runtime.block_on(ended.cancelled());
            // A name may still be looked up.
            runtime.shutdown_background();
        })?;
        Ok(Arc::new(Self {
            runtime: handle,
            patience: client.request_timeout.unwrap_or(PATIENCE),
            collector: client.endpoint.to_string(),
            failures: Mutex::default(),
            _end: end.drop_guard(),
        }))
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Polled by threads of the SDK, which know no timers.
    async fn within(
        &self,
        signal: &'static str,
        export: impl Future<Output = OTelSdkResult> + Send,
    ) -> OTelSdkResult {
        let mut export = pin!(async {
            let in_time = tokio::time::timeout(self.patience, export).await;
            in_time.unwrap_or(Err(OTelSdkError::Timeout(self.patience)))
        });
        let result = poll_fn(|cx| {
            let _entered = self.runtime.enter();
            export.as_mut().poll(cx)
        });
        let result = result.await;
        if let Err(error) = &result {
            self.report(signal, error);
        }
        result
    }

    fn report(&self, signal: &'static str, error: &OTelSdkError) {
        let left_out = {
            let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
            if failures.told.is_some_and(|told| told.elapsed() < LINE_INTERVAL) {
                failures.left_out += 1;
                return;
            }
            failures.told = Some(Instant::now());
            std::mem::take(&mut failures.left_out)
        };
        let collector = &self.collector;
        warn!(target: "slim", collector, signal, %error, left_out, "telemetry is not exported");
    }
}

/// An exporter of one signal, whose exports take a bounded time.
pub(super) struct Bounded<E> {
    signal: &'static str,
    exporter: E,
    way: Arc<Way>,
}

impl<E> Bounded<E> {
    pub(super) fn new(signal: &'static str, exporter: E, way: &Arc<Way>) -> Self {
        Self { signal, exporter, way: Arc::clone(way) }
    }
}

impl<E> fmt::Debug for Bounded<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bounded").field("signal", &self.signal).finish_non_exhaustive()
    }
}

impl<E: SpanExporter> SpanExporter for Bounded<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.way.within(self.signal, self.exporter.export(batch)).await
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

impl<E: LogExporter> LogExporter for Bounded<E> {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        self.way.within(self.signal, self.exporter.export(batch)).await
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

impl<E: PushMetricExporter> PushMetricExporter for Bounded<E> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        self.way.within(self.signal, self.exporter.export(metrics)).await
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.exporter.temporality()
    }
}
