//! Latency by percentile as a picture.

use hdrhistogram::Histogram;
use plotters::prelude::*;

use super::hgrm::STEPS_PER_HALVING;
use super::report::NS_PER_US;

const SIZE: (u32, u32) = (960, 540);

/// Latencies by percentile, a line for each name, as an SVG text. Latencies are in nanoseconds;
/// both axes are logarithmic, that of percentiles in the distance to 100 %.
///
/// # Errors
/// If there is no message, or nothing can be drawn.
pub fn latency_svg(
    caption: &str,
    latencies: &[(&str, &Histogram<u64>)],
) -> Result<String, Box<dyn std::error::Error>> {
    if latencies.iter().all(|(_, latency)| latency.is_empty()) {
        return Err("no message has a latency".into());
    }
    let lines: Vec<_> = latencies.iter().map(|(name, latency)| (*name, points(latency))).collect();
    let all = || lines.iter().flat_map(|(_, points)| points);
    let right = all().map(|point| point.0).fold(10.0, f64::max);
    let bottom = all().map(|point| point.1).fold(f64::INFINITY, f64::min);
    let top = all().map(|point| point.1).fold(bottom, f64::max) * 1.1;
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(caption, ("sans-serif", 20))
            .margin(16)
            .x_label_area_size(48)
            .y_label_area_size(72)
            .build_cartesian_2d((1.0..right).log_scale(), (bottom * 0.9..top).log_scale())?;
        chart
            .configure_mesh()
            .x_desc("percentile")
            .y_desc("latency in µs")
            .x_label_formatter(&|distance| format!("{:.6}", 100.0 - 100.0 / distance))
            .draw()?;
        for (index, (name, points)) in lines.iter().enumerate() {
            let color = Palette99::pick(index).to_rgba();
            let key = move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color);
            let line = LineSeries::new(points.iter().copied(), color);
            chart.draw_series(line)?.label(*name).legend(key);
        }
        if lines.len() > 1 {
            let labels = &mut chart.configure_series_labels();
            let labels = labels.position(SeriesLabelPosition::UpperLeft);
            labels.background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.2)).draw()?;
        }
        root.present()?;
    }
    Ok(text)
}

/// Distances to 100 %, as one part of so many, and latencies in microseconds.
fn points(latency: &Histogram<u64>) -> Vec<(f64, f64)> {
    if latency.is_empty() {
        return Vec::new();
    }
    latency
        .iter_quantiles(STEPS_PER_HALVING)
        .filter(|step| step.quantile_iterated_to() < 1.0)
        .map(|step| {
            let distance = 1.0 / (1.0 - step.quantile_iterated_to());
            (distance, step.value_iterated_to() as f64 / NS_PER_US)
        })
        // Where there are few messages, the last of them is 100 %.
        .chain([(latency.len() as f64, latency.max() as f64 / NS_PER_US)])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_becomes_a_line() {
        let mut latency = Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds");
        assert!(latency_svg("empty", &[("a", &latency)]).is_err());
        for us in 1..=1_000u64 {
            latency.record(us * 1_000).expect("within the bounds");
        }
        let text = latency_svg("one", &[("a", &latency)]).expect("a chart");
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"));
        assert!(text.contains("<polyline") && text.contains("latency in µs"));
        assert!(!text.contains("first"));
        let names = [("first", &latency), ("second", &latency)];
        let text = latency_svg("two", &names).expect("a chart");
        assert!(text.contains("first") && text.contains("second"), "lines are named");
    }

    #[test]
    fn a_single_message_can_be_drawn() {
        let mut latency = Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds");
        latency.record(5_000).expect("within the bounds");
        assert!(latency_svg("one", &[("a", &latency)]).is_ok());
    }
}
