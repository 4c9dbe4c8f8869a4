//! The folder with the results, and what they were measured on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use slim_quic::ctl::bench::latency_hgrm;

use crate::Failure;
use crate::table::Row;

pub(crate) struct Folder {
    path: PathBuf,
    head: String,
}

impl Folder {
    /// Makes it; `path` instead of the default.
    pub(crate) fn make(path: Option<PathBuf>, seed: u64) -> Result<Self, Failure> {
        let now = humantime::format_rfc3339_seconds(SystemTime::now());
        let path = path.unwrap_or_else(|| {
            let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
            target.unwrap_or(Path::new("target")).join("loss").join(now.to_string())
        });
        fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let cores = std::thread::available_parallelism()?;
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let head = format!(
            "time: {now}\nmachine: {}, {cores} cores\nkernel: {}\ncommit: {}\nseed: {seed}\n\
             arguments: {}\n",
            processor()?,
            fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
            commit(),
            arguments.join(" "),
        );
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

fn processor() -> Result<String, Failure> {
    let text = fs::read_to_string("/proc/cpuinfo")?;
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    Ok(name.unwrap_or("unknown").to_owned())
}

/// As git tells it; a tree with changes says so.
fn commit() -> String {
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = git.output().ok().filter(|output| output.status.success());
    output.map_or_else(
        || "unknown".into(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}
