//! Latency by percentile as a picture.

use hdrhistogram::Histogram;
use plotters::prelude::*;

use super::hgrm::STEPS_PER_HALVING;
use super::report::NS_PER_US;

const SIZE: (u32, u32) = (960, 540);

/// An SVG text; the axis of percentiles is logarithmic in the distance to 100 %.
///
/// # Errors
/// If there is no message, or nothing can be drawn.
pub(super) fn svg(latency: &Histogram<u64>) -> Result<String, Box<dyn std::error::Error>> {
    let points: Vec<(f64, f64)> = latency
        .iter_quantiles(STEPS_PER_HALVING)
        .filter(|step| step.quantile_iterated_to() < 1.0)
        .map(|step| {
            let distance = 1.0 / (1.0 - step.quantile_iterated_to());
            (distance, step.value_iterated_to() as f64 / NS_PER_US)
        })
        // Where there are few messages, the last of them is 100 %.
        .chain([(latency.len() as f64, latency.max() as f64 / NS_PER_US)])
        .collect();
    if latency.is_empty() {
        return Err("no message has a latency".into());
    }
    let right = points.iter().map(|point| point.0).fold(10.0, f64::max);
    let top = points.iter().map(|point| point.1).fold(1.0, f64::max) * 1.05;
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption("Latency by percentile", ("sans-serif", 20))
            .margin(16)
            .x_label_area_size(48)
            .y_label_area_size(72)
            .build_cartesian_2d((1.0..right).log_scale(), 0.0..top)?;
        chart
            .configure_mesh()
            .x_desc("percentile")
            .y_desc("latency in µs")
            .x_label_formatter(&|distance| format!("{:.6}", 100.0 - 100.0 / distance))
            .draw()?;
        chart.draw_series(LineSeries::new(points, &BLUE))?;
        root.present()?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_becomes_a_line() {
        let mut latency = Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds");
        assert!(svg(&latency).is_err());
        for us in 1..=1_000u64 {
            latency.record(us * 1_000).expect("within the bounds");
        }
        let text = svg(&latency).expect("a chart");
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"));
        assert!(text.contains("<polyline") && text.contains("latency in µs"));
    }

    #[test]
    fn a_single_message_can_be_drawn() {
        let mut latency = Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds");
        latency.record(5_000).expect("within the bounds");
        assert!(svg(&latency).is_ok());
    }
}
