//! On what a report was measured.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

/// The head of a report. `node` is the program under measurement, `peers` the versions of others.
pub(crate) fn description(node: &Path, seed: u64, rounds: usize, peers: &[String]) -> String {
    let file = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = file("/proc/cpuinfo");
    let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let home = ["-C", env!("CARGO_MANIFEST_DIR")];
    let git = |arguments: &[&str]| output("git", home.iter().chain(arguments));
    let describe = git(&["describe", "--always", "--dirty", "--tags", "--abbrev=12"]);
    let date = git(&["show", "--no-patch", "--format=%cs"]);
    let lines = [
        ("date", humantime::format_rfc3339_seconds(SystemTime::now()).to_string()),
        ("machine", format!("{}, {cores} cores", cpu.trim_start_matches([' ', '\t', ':']))),
        ("kernel", file("/proc/sys/kernel/osrelease").trim().to_owned()),
        ("load average", file("/proc/loadavg").trim().to_owned()),
        ("commit", format!("{describe} of {date}")),
        ("node", node.display().to_string()),
        ("compiler", output("rustc", ["--version"])),
        ("rounds", rounds.to_string()),
        ("seed", seed.to_string()),
        ("peers", peers.join(", ")),
    ];
    let mut text = String::new();
    for (name, value) in lines {
        let _ = writeln!(text, "{name:<13} {value}");
    }
    text
}

/// The first line that a program prints; "unknown" if it does not run.
pub(crate) fn output<A: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    arguments: impl IntoIterator<Item = A>,
) -> String {
    // zenoh's router logs that it starts, to the same place.
    let output = Command::new(program).env("RUST_LOG", "error").args(arguments).output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().next().map_or("unknown".to_owned(), str::to_owned)
}
