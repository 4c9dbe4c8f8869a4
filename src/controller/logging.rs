//! Log lines in the form of the published controller.

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Write};
use std::time::SystemTime;

use slim_config::{LogLevel, OpenTelemetry};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::TryInitError;

use crate::SPANS;
use crate::telemetry::logging::{Logging, level_of};

/// Writes events of this level and above to standard output until what it returns is dropped, and
/// exports them, with traces, if `collector` is enabled.
///
/// # Errors
/// If the process has a subscriber already. What is wrong with the collector says
/// [`Logging::telemetry`].
pub fn init(level: LogLevel, collector: &OpenTelemetry) -> Result<Logging, TryInitError> {
    Logging::start(level, logged, collector, |output| {
        tracing_subscriber::fmt::layer().with_writer(output).event_format(Lines)
    })
}

/// What is logged at this level: of libraries nothing below info.
fn logged(level: LogLevel) -> Targets {
    let level = level_of(level);
    Targets::new()
        .with_default(level.min(Level::INFO))
        .with_target("slim_quic", level)
        .with_target(SPANS, LevelFilter::OFF)
}

/// Time, level in three letters, text, then `key=value` sorted by key.
struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        line(&mut writer, SystemTime::now(), *event.metadata().level(), &fields)
    }
}

fn line(out: &mut dyn Write, now: SystemTime, level: Level, fields: &Fields) -> fmt::Result {
    let level = match level {
        Level::TRACE => "TRC",
        Level::DEBUG => "DBG",
        Level::INFO => "INF",
        Level::WARN => "WRN",
        Level::ERROR => "ERR",
    };
    write!(out, "{} {level} ", humantime::format_rfc3339_seconds(now))?;
    shown(out, &fields.text)?;
    for (key, value) in &fields.others {
        write!(out, " {key}=")?;
        let plain = |sign: char| sign.is_ascii_graphic() && sign != '"' && sign != '\\';
        match value.chars().all(plain) {
            true => out.write_str(value)?,
            false => write!(out, "{value:?}")?,
        }
    }
    out.write_char('\n')
}

/// Nobody outside makes a line of their own.
fn shown(out: &mut dyn Write, text: &str) -> fmt::Result {
    text.chars().try_for_each(|sign| match sign.is_control() {
        true => write!(out, "{}", sign.escape_default()),
        false => out.write_char(sign),
    })
}

#[derive(Default)]
struct Fields {
    text: String,
    others: BTreeMap<&'static str, String>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.text = format!("{value:?}"),
            name => _ = self.others.insert(name, format!("{value:?}")),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.text = value.to_owned(),
            name => _ = self.others.insert(name, value.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(level: Level, text: &str, others: &[(&'static str, &str)]) -> String {
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_759_738_366_500);
        let others = others.iter().map(|(key, value)| (*key, (*value).to_owned()));
        let fields = Fields { text: text.to_owned(), others: others.collect() };
        let mut out = String::new();
        line(&mut out, now, level, &fields).expect("a text takes all");
        out
    }

    #[test]
    fn a_line_is_as_in_the_tutorial() {
        let told = written(Level::INFO, "Starting route reconcilers", &[]);
        assert_eq!(told, "2025-10-06T08:12:46Z INF Starting route reconcilers\n");
        let fields = [("node_id", "slim/0"), ("ack_messages", "[]")];
        let told = written(Level::WARN, "Sending routes", &fields);
        assert_eq!(
            told,
            "2025-10-06T08:12:46Z WRN Sending routes ack_messages=[] node_id=slim/0\n"
        );
    }

    #[test]
    fn what_others_say_stays_in_its_line_and_in_its_place() {
        let told = written(Level::ERROR, "a\nb", &[("reason", "no \"way\"\n"), ("x", "")]);
        assert_eq!(told, "2025-10-06T08:12:46Z ERR a\\nb reason=\"no \\\"way\\\"\\n\" x=\n");
    }
}
