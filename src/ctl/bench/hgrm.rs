//! Latencies for tools that plot them.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

use super::report::NS_PER_US;

/// Steps between two halvings of the distance to 100 %.
pub(super) const STEPS_PER_HALVING: u32 = 5;

/// The percentile distribution of latencies in nanoseconds, in the text form that HdrHistogram's
/// tools plot, in microseconds.
pub fn latency_hgrm(latency: &Histogram<u64>) -> String {
    let mut text = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let mut total = 0;
    for step in latency.iter_quantiles(STEPS_PER_HALVING) {
        total += step.count_since_last_iteration();
        let value = step.value_iterated_to() as f64 / NS_PER_US;
        let quantile = step.quantile_iterated_to();
        let _ = write!(text, "{value:12.3} {quantile:2.12} {total:10}");
        if quantile < 1.0 {
            let _ = write!(text, " {:14.2}", 1.0 / (1.0 - quantile));
        }
        text.push('\n');
    }
    let _ = write!(
        text,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]\n\
         #[Max     = {:12.3}, Total count    = {:12}]\n\
         #[Buckets = {:12}, SubBuckets     = {:12}]\n",
        latency.mean() / NS_PER_US,
        latency.stdev() / NS_PER_US,
        latency.max() as f64 / NS_PER_US,
        latency.len(),
        latency.buckets(),
        // Of three significant digits.
        2048,
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_rise_to_the_maximum_and_hold_every_message() {
        let mut latency = Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds");
        for us in 1..=1_000u64 {
            latency.record(us * 1_000).expect("within the bounds");
        }
        let text = latency_hgrm(&latency);
        let mut lines = text.lines();
        let heading = lines.next().expect("a heading");
        let heading: Vec<&str> = heading.split_whitespace().collect();
        assert_eq!(heading, ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]);
        assert_eq!(lines.next(), Some(""));
        let rows: Vec<Vec<f64>> = lines
            .take_while(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().map(|cell| cell.parse().expect(cell)).collect())
            .collect();
        assert!(rows.len() > 10);
        assert!(rows.is_sorted_by(|a, b| a[0] <= b[0] && a[1] <= b[1] && a[2] <= b[2]));
        let last = rows.last().expect("rows");
        assert_eq!((last.len(), last[1], last[2]), (3, 1.0, 1_000.0));
        let median = rows.iter().find(|row| row[1] >= 0.5).expect("a median");
        assert!((495.0..=505.0).contains(&median[0]), "{median:?}");
        assert!((median[3] - 2.0).abs() < 0.01, "{median:?}");
        assert!(text.contains("Total count    =         1000]"), "{text}");
    }

    #[test]
    fn a_histogram_without_messages_has_only_its_summary() {
        let latency = Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds");
        assert!(latency_hgrm(&latency).contains("Total count    =            0]"));
    }
}
