use crate::client::{self, Client};
use crate::endpoint::{Endpoint, Scheme};
use crate::section::Section;
use crate::value::{Case, Value};

/// What is logged and traced (reference of 0.6, `tracing`).
#[derive(Clone, Debug, PartialEq)]
pub struct Tracing {
    /// `log_level`, in any case of letters; default `info`.
    pub log_level: LogLevel,
    /// `display_thread_names`, default true.
    pub display_thread_names: bool,
    /// `display_thread_ids`, default false.
    pub display_thread_ids: bool,
    /// `opentelemetry`.
    pub opentelemetry: OpenTelemetry,
}

impl Default for Tracing {
    fn default() -> Self {
        Self {
            log_level: LogLevel::Info,
            display_thread_names: true,
            display_thread_ids: false,
            opentelemetry: OpenTelemetry::default(),
        }
    }
}

/// Events of this level and above are logged.
#[allow(missing_docs, reason = "the names say it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

/// Export of logs, traces and metrics (`tracing.opentelemetry`).
#[derive(Clone, Debug, PartialEq)]
pub struct OpenTelemetry {
    /// `enabled`, default false.
    pub enabled: bool,
    /// `grpc`: where to; default `http://localhost:4317` without TLS.
    pub grpc: Client,
    /// `service_name`, default `slim-data-plane`.
    pub service_name: String,
    /// `service_version`, default `v0.1.0`.
    pub service_version: String,
    /// `environment`, default `development`.
    pub environment: String,
    /// `metrics_interval_secs`: seconds between two exports, default 30.
    pub metrics_interval_secs: u32,
}

impl Default for OpenTelemetry {
    fn default() -> Self {
        Self {
            enabled: false,
            grpc: Client::insecure(Endpoint {
                scheme: Scheme::Http,
                host: "localhost".into(),
                port: 4317,
            }),
            service_name: "slim-data-plane".into(),
            service_version: "v0.1.0".into(),
            environment: "development".into(),
            metrics_interval_secs: 30,
        }
    }
}

const LEVELS: [(&str, LogLevel); 5] = [
    ("trace", LogLevel::Trace),
    ("debug", LogLevel::Debug),
    ("info", LogLevel::Info),
    ("warn", LogLevel::Warn),
    ("error", LogLevel::Error),
];

/// The `tracing` block.
pub(crate) fn read(value: Value<'_>) -> Option<Tracing> {
    let default = Tracing::default();
    let mut section = value.section()?;
    let tracing = Tracing {
        log_level: section
            .optional("log_level", |v| v.choice(&LEVELS, Case::Insensitive))
            .unwrap_or(default.log_level),
        display_thread_names: section
            .optional("display_thread_names", Value::boolean)
            .unwrap_or(default.display_thread_names),
        display_thread_ids: section
            .optional("display_thread_ids", Value::boolean)
            .unwrap_or(default.display_thread_ids),
        opentelemetry: read_opentelemetry(&mut section, default.opentelemetry),
    };
    section.ineffective("filter", "`log_level` alone decides", Value::owned_text);
    section.finish();
    Some(tracing)
}

/// The block `opentelemetry` of a section; `default` without it, and for what it leaves out.
pub(crate) fn read_opentelemetry(outer: &mut Section<'_>, default: OpenTelemetry) -> OpenTelemetry {
    let block = outer.child("opentelemetry").and_then(|value| value.section());
    let Some(mut section) = block else { return default };
    let opentelemetry = OpenTelemetry {
        enabled: section.optional("enabled", Value::boolean).unwrap_or(default.enabled),
        grpc: section.optional("grpc", read_collector).unwrap_or(default.grpc),
        service_name: section
            .optional("service_name", Value::owned_text)
            .unwrap_or(default.service_name),
        service_version: section
            .optional("service_version", Value::owned_text)
            .unwrap_or(default.service_version),
        environment: section
            .optional("environment", Value::owned_text)
            .unwrap_or(default.environment),
        metrics_interval_secs: section
            .optional("metrics_interval_secs", |v| v.integer(1..=86_400))
            .unwrap_or(default.metrics_interval_secs),
    };
    section.finish();
    opentelemetry
}

fn read_collector(value: Value<'_>) -> Option<Client> {
    let collector = client::read(value.clone())?;
    if collector.endpoint.scheme == Scheme::Quic {
        let endpoint = value.field("endpoint").unwrap_or(value);
        return endpoint.expected("`http://host:port` or `https://host:port` of a collector");
    }
    for key in ["proxy", "rate_limit", "buffer_size", "metadata", "release", "announce", "exchange"]
    {
        if let Some(field) = value.field(key) {
            field.warn("valid, but without effect on a collector", None);
        }
    }
    Some(collector)
}
