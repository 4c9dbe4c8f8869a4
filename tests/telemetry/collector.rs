//! A collector that keeps what it gets, or does not answer.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{
    LogsService, LogsServiceServer,
};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{NumberDataPoint, number_data_point};
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use tonic::metadata::MetadataMap;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

use crate::support::eventually;

/// Attributes of anything, as text.
pub(crate) fn attributes(of: &[KeyValue]) -> Vec<(String, String)> {
    of.iter().map(|it| (it.key.clone(), text(it.value.as_ref()))).collect()
}

pub(crate) fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

/// One sample of a metric.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) value: u64,
}

/// What was got, in its order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Got {
    pub(crate) resources: Vec<Vec<(String, String)>>,
    pub(crate) headers: Vec<MetadataMap>,
    pub(crate) spans: Vec<Span>,
    /// Each with the target of its event.
    pub(crate) logs: Vec<(String, LogRecord)>,
    /// Each look at all metrics.
    pub(crate) metrics: Vec<Vec<Sample>>,
}

#[derive(Clone)]
struct Keep {
    got: Arc<Mutex<Got>>,
    answers: watch::Receiver<bool>,
}

impl Keep {
    async fn take<T>(&self, request: Request<T>) -> (MutexGuard<'_, Got>, T) {
        let mut answers = self.answers.clone();
        if answers.wait_for(|answers| *answers).await.is_err() {
            std::future::pending::<()>().await;
        }
        let (headers, _, message) = request.into_parts();
        let mut got = self.got.lock().unwrap_or_else(PoisonError::into_inner);
        got.headers.push(headers);
        (got, message)
    }
}

#[tonic::async_trait]
impl TraceService for Keep {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let (mut got, message) = self.take(request).await;
        for of in message.resource_spans {
            got.resources.push(attributes(&of.resource.expect("a resource").attributes));
            got.spans.extend(of.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Keep {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let (mut got, message) = self.take(request).await;
        for of in message.resource_logs {
            got.resources.push(attributes(&of.resource.expect("a resource").attributes));
            for scope in of.scope_logs {
                let target = scope.scope.map(|scope| scope.name).unwrap_or_default();
                got.logs.extend(scope.log_records.into_iter().map(|it| (target.clone(), it)));
            }
        }
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Keep {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let (mut got, message) = self.take(request).await;
        let mut look = Vec::new();
        for of in message.resource_metrics {
            got.resources.push(attributes(&of.resource.expect("a resource").attributes));
            for metric in of.scope_metrics.into_iter().flat_map(|scope| scope.metrics) {
                look.extend(points(metric.data).iter().map(|point| Sample {
                    name: metric.name.clone(),
                    labels: attributes(&point.attributes),
                    value: whole(point),
                }));
            }
        }
        got.metrics.push(look);
        Ok(Response::new(Default::default()))
    }
}

fn points(data: Option<Data>) -> Vec<NumberDataPoint> {
    match data {
        Some(Data::Sum(sum)) => {
            assert!(sum.is_monotonic, "counters only grow");
            sum.data_points
        }
        Some(Data::Gauge(gauge)) => gauge.data_points,
        other => panic!("neither a counter nor a gauge: {other:?}"),
    }
}

fn whole(point: &NumberDataPoint) -> u64 {
    match point.value {
        Some(number_data_point::Value::AsInt(value)) => value.try_into().expect("not below zero"),
        other => panic!("no whole number: {other:?}"),
    }
}

/// A running collector; it ends when it is dropped.
pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    got: Arc<Mutex<Got>>,
    answers: watch::Sender<bool>,
    _serving: AbortOnDropHandle<()>,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        Self::at("127.0.0.1:0".parse().expect("an address"), None).await
    }

    /// With a certificate and its key.
    pub(crate) async fn with_tls((certificate, key): (String, String)) -> Self {
        let tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
        Self::at("127.0.0.1:0".parse().expect("an address"), Some(tls)).await
    }

    pub(crate) async fn at(address: SocketAddr, tls: Option<ServerTlsConfig>) -> Self {
        let incoming = TcpIncoming::bind(address).expect("a free port");
        let address = incoming.local_addr().expect("bound");
        let (answers, answering) = watch::channel(true);
        let got = Arc::<Mutex<Got>>::default();
        let keep = Keep { got: Arc::clone(&got), answers: answering };
        let mut server = Server::builder();
        if let Some(tls) = tls {
            server = server.tls_config(tls).expect("a certificate and its key");
        }
        let serving = server
            .add_service(TraceServiceServer::new(keep.clone()))
            .add_service(LogsServiceServer::new(keep.clone()))
            .add_service(MetricsServiceServer::new(keep))
            .serve_with_incoming(incoming);
        let serving = tokio::spawn(async { serving.await.expect("it serves") });
        Self { address, got, answers, _serving: AbortOnDropHandle::new(serving) }
    }

    /// Whether it answers from now on.
    pub(crate) fn answer(&self, answers: bool) {
        self.answers.send_replace(answers);
    }

    pub(crate) fn got(&self) -> Got {
        self.got.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was got, once it is as `accepted` wants it.
    pub(crate) async fn until(&self, what: &str, accepted: impl Fn(&Got) -> bool) -> Got {
        eventually(what, async || {
            let got = self.got();
            accepted(&got).then_some(got)
        })
        .await
    }
}

impl Got {
    pub(crate) fn span(&self, name: &str) -> Option<&Span> {
        self.spans.iter().find(|span| span.name == name)
    }

    pub(crate) fn log(&self, part: &str) -> Option<&(String, LogRecord)> {
        self.logs.iter().find(|(_, record)| text(record.body.as_ref()).contains(part))
    }
}
