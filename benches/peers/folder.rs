//! The folder with everything that a run leaves.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;

use hdrhistogram::Histogram;
use slim_quic::ctl::bench::{latency_hgrm, latency_svg};

use crate::Failure;
use crate::case::Case;
use crate::chart;
use crate::sample::{Measure, Row};

pub(crate) struct Folder {
    home: PathBuf,
    report: File,
}

impl Folder {
    pub(crate) fn create(home: PathBuf) -> Result<Self, Failure> {
        fs::create_dir_all(&home)?;
        let home = home.canonicalize()?;
        let report = File::create(home.join("report.txt"))?;
        Ok(Self { home, report })
    }

    /// Prints a part of the report, and keeps it.
    pub(crate) fn say(&mut self, text: &str) -> Result<(), Failure> {
        print!("{text}");
        Ok(self.report.write_all(text.as_bytes())?)
    }

    /// Writes figures of all rounds, distributions and charts.
    pub(crate) fn finish(self, cases: &[Case], rows: &[Row]) -> Result<(), Failure> {
        fs::write(self.home.join("samples.csv"), samples(rows))?;
        for case in cases {
            let rows: Vec<&Row> = rows.iter().filter(|row| row.case.name == case.name).collect();
            let latency = |row: &&Row| Some((row.relay.clone(), row.latency()?));
            let all: Vec<(String, Histogram<u64>)> = rows.iter().filter_map(latency).collect();
            for (relay, latency) in &all {
                let file = format!("{}.{relay}.hgrm", case.name);
                fs::write(self.home.join(file), latency_hgrm(latency))?;
            }
            if all.is_empty() {
                continue;
            }
            let lines: Vec<_> =
                all.iter().map(|(name, latency)| (name.as_str(), latency)).collect();
            let caption = format!("Latency by percentile, {}", case.name);
            let svg = latency_svg(&caption, &lines).map_err(|error| error.to_string())?;
            fs::write(self.home.join(format!("{}.latency.svg", case.name)), svg)?;
            let svg = chart::bars(case, &rows).map_err(|error| error.to_string())?;
            fs::write(self.home.join(format!("{}.cpu.svg", case.name)), svg)?;
        }
        eprintln!("report in {}", self.home.display());
        Ok(())
    }
}

fn samples(rows: &[Row]) -> String {
    let mut text = "case,relay,round".to_owned();
    for measure in Measure::ALL {
        let _ = write!(text, ",{}", measure.column());
    }
    text += ",failure\n";
    for row in rows {
        for (index, round) in row.rounds.iter().enumerate() {
            let _ = write!(text, "{},{},{}", row.case.name, row.relay, index + 1);
            for measure in Measure::ALL {
                let value = round.as_ref().map(|sample| format!("{:.6}", sample.value(measure)));
                let _ = write!(text, ",{}", value.unwrap_or_default());
            }
            let failure = round.as_ref().err().map_or(String::new(), |failure| {
                format!("\"{}\"", failure.replace('"', "'").replace('\n', " "))
            });
            let _ = writeln!(text, ",{failure}");
        }
    }
    text
}
