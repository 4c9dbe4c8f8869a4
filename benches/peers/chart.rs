//! CPU time per message as bars.

use std::error::Error;

use plotters::prelude::*;

use crate::case::Case;
use crate::sample::{Measure, Row, Spread};

const WIDTH: u32 = 960;
const BAR: u32 = 28;
const AROUND: u32 = 110;

/// An SVG text: a bar for each relay that has a round, the cheapest first, and its range as a line.
pub(crate) fn bars(case: &Case, rows: &[&Row]) -> Result<String, Box<dyn Error>> {
    let mut bars: Vec<(&str, Spread)> = Vec::new();
    for row in rows {
        bars.extend(row.spread(Measure::Cpu).map(|spread| (row.relay.as_str(), spread)));
    }
    bars.sort_by(|a, b| a.1.median.total_cmp(&b.1.median));
    let right = bars.iter().map(|bar| bar.1.greatest).fold(1.0, f64::max) * 1.12;
    let height = AROUND + BAR * bars.len() as u32;
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(format!("CPU time per message, {}", case.name), ("sans-serif", 20))
            .margin(16)
            .x_label_area_size(40)
            .y_label_area_size(140)
            .build_cartesian_2d(0.0..right, (0..bars.len()).into_segmented())?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .x_desc("ns, median and range of all rounds")
            .y_labels(bars.len())
            .y_label_formatter(&|at| match at {
                SegmentValue::CenterOf(at) => bars.get(*at).map_or("", |bar| bar.0).to_owned(),
                _ => String::new(),
            })
            .draw()?;
        for (at, (name, spread)) in bars.iter().enumerate() {
            let color = if name.starts_with("slim") { BLUE } else { RGBColor(150, 150, 150) };
            let corners =
                [(0.0, SegmentValue::Exact(at)), (spread.median, SegmentValue::Exact(at + 1))];
            let mut bar = Rectangle::new(corners, color.mix(0.7).filled());
            bar.set_margin(4, 4, 0, 0);
            let middle = SegmentValue::CenterOf(at);
            let range = [(spread.least, middle.clone()), (spread.greatest, middle.clone())];
            let end = (spread.greatest + right * 0.01, middle);
            let value = Text::new(format!("{:.0}", spread.median), end, ("sans-serif", 14));
            chart.draw_series([bar])?;
            chart.draw_series([PathElement::new(range, BLACK)])?;
            chart.draw_series([value])?;
        }
        root.present()?;
    }
    Ok(text)
}
