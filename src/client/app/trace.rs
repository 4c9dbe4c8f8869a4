//! OpenTelemetry's trace context in the metadata of messages, as W3C `traceparent` and
//! `tracestate`.

use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing_opentelemetry::OpenTelemetrySpanExt;

struct Metadata<'a>(&'a mut Vec<(String, String)>);

impl Injector for Metadata<'_> {
    fn set(&mut self, key: &str, value: String) {
        if !value.is_empty() && !self.0.iter().any(|(known, _)| known == key) {
            self.0.push((key.to_owned(), value));
        }
    }
}

struct Found<'a>(&'a [(String, String)]);

impl Extractor for Found<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|(key, _)| key.as_str()).collect()
    }
}

/// Adds the context of the current span, if there is one that is traced. What the app has set
/// itself stays.
pub(super) fn inject(metadata: &mut Vec<(String, String)>) {
    let current = opentelemetry::Context::current();
    let context = match current.span().span_context().is_valid() {
        true => current,
        false => tracing::Span::current().context(),
    };
    if context.span().span_context().is_valid() {
        TraceContextPropagator::new().inject_context(&context, &mut Metadata(metadata));
    }
}

/// The context of the span in which a message with this metadata was published; an empty one if
/// it tells none. To be set as the parent of the receiver's span.
pub fn trace_context(metadata: &[(String, String)]) -> opentelemetry::Context {
    let nothing = opentelemetry::Context::new();
    TraceContextPropagator::new().extract_with_context(&nothing, &Found(metadata))
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

    use super::*;

    #[test]
    fn a_trace_goes_on_at_the_receiver() {
        let span = SpanContext::new(
            TraceId::from(7),
            SpanId::from(9),
            TraceFlags::SAMPLED,
            true,
            TraceState::default(),
        );
        let context = opentelemetry::Context::new().with_remote_span_context(span.clone());
        let mut metadata = vec![("key".to_owned(), "value".to_owned())];
        {
            let _current = context.attach();
            inject(&mut metadata);
        }
        let text = "00-00000000000000000000000000000007-0000000000000009-01";
        assert_eq!(metadata[1], ("traceparent".to_owned(), text.to_owned()));
        let found = trace_context(&metadata);
        assert_eq!(found.span().span_context().trace_id(), span.trace_id());
    }

    #[test]
    fn without_a_trace_nothing_is_added() {
        let mut metadata = Vec::new();
        inject(&mut metadata);
        assert_eq!(metadata, []);
        let garbage = vec![("traceparent".to_owned(), "not one".to_owned())];
        assert!(!trace_context(&garbage).span().span_context().is_valid());
    }
}
