use std::time::Duration;

/// Units as Go writes them, in nanoseconds; longer names before those they begin with.
const UNITS: [(&str, f64); 8] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3),
    ("μs", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3600e9),
];

/// Longest time that a call may be given.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// A duration as Go writes it: numbers with units, such as `1m30s` or `1.5s`. Above zero and at
/// most a day, else the text that says so.
pub(super) fn parse(text: &str) -> Result<Duration, &'static str> {
    const EXPECTED: &str = "a duration such as 5s, 1m30s or 500ms, above zero and at most 24h";
    let mut rest = text;
    let mut nanoseconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(EXPECTED)?;
        let number: f64 = rest[..digits].parse().map_err(|_| EXPECTED)?;
        let unit = UNITS.iter().find(|(unit, _)| rest[digits..].starts_with(unit));
        let (unit, scale) = unit.ok_or(EXPECTED)?;
        nanoseconds += number * scale;
        rest = &rest[digits + unit.len()..];
    }
    let duration = Duration::try_from_secs_f64(nanoseconds / 1e9).map_err(|_| EXPECTED)?;
    if duration.is_zero() || duration > LONGEST { Err(EXPECTED) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        for (text, milliseconds) in [
            ("5s", 5000),
            ("1m", 60_000),
            ("1h30m", 5_400_000),
            ("1.5s", 1500),
            (".5s", 500),
            ("500ms", 500),
            ("2000us", 2),
            ("1000µs", 1),
            ("1m0s", 60_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "5", "s", "5 s", "-5s", "0s", "1.2.3s", "5x", "25h", "1e9h", "∞s"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
