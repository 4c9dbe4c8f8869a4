use crate::tracing::LogLevel;
use crate::value::{Case, Value};

/// Words of 0.6. Nothing is above `error` here, so what is `fatal` there is shown with it.
const LEVELS: [(&str, LogLevel); 7] = [
    ("trace", LogLevel::Trace),
    ("debug", LogLevel::Debug),
    ("info", LogLevel::Info),
    ("warn", LogLevel::Warn),
    ("error", LogLevel::Error),
    ("fatal", LogLevel::Error),
    ("panic", LogLevel::Error),
];

/// The name of a level, in any case of letters.
pub(super) fn read_level(value: &Value<'_>) -> Option<LogLevel> {
    value.choice(&LEVELS, Case::Insensitive)
}

/// A `logging` block: where it names a level, and which one.
pub(super) fn read(value: Value<'_>) -> Option<(Value<'_>, LogLevel)> {
    let mut section = value.section()?;
    let level = section.child("level");
    section.finish();
    let level = level?;
    let named = read_level(&level)?;
    Some((level, named))
}
