//! The folder with the results, and what they were measured on.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use slim_quic::ctl::bench::latency_hgrm;

use crate::table::Row;
use crate::{Failure, machine, relay};

pub(crate) struct Folder {
    path: PathBuf,
    head: String,
}

impl Folder {
    /// Makes it; `path` instead of the default.
    pub(crate) fn make(path: Option<PathBuf>, seed: u64, rounds: usize) -> Result<Self, Failure> {
        let path = path.unwrap_or_else(|| {
            let now = humantime::format_rfc3339_seconds(SystemTime::now());
            let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
            target.unwrap_or(Path::new("target")).join("loss").join(now.to_string())
        });
        fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let node = Path::new(env!("CARGO_BIN_EXE_slim"));
        let nats = machine::output(relay::NATS, ["--version"]);
        let mut head = machine::description(node, seed, rounds, &[nats]);
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let _ = writeln!(head, "{:<13} {}", "arguments", arguments.join(" "));
        Ok(Self { path, head })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// On what, of what and when.
    pub(crate) fn head(&self) -> &str {
        &self.head
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> Result<(), Failure> {
        let path = self.path.join(name);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()).into())
    }

    /// The distribution of latencies of every row, in a file of its own.
    pub(crate) fn write_latencies(&self, rows: &[Row]) -> Result<(), Failure> {
        for row in rows {
            let (case, relay) = (row.case, row.relay.replace([',', ' '], "_"));
            let load = case.load.to_string().replace('/', "_per_");
            let rtt = case.rtt.as_millis();
            let name = format!("{load}-{rtt}ms-{}pct-{relay}.hgrm", case.loss);
            self.write(&name, &latency_hgrm(&row.latency()))?;
        }
        Ok(())
    }
}
