//! What was measured, as text for people and as CSV.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::Failure;

/// A folder of results.
pub(crate) struct Report {
    folder: PathBuf,
    head: String,
    text: String,
}

/// One table of it.
pub(crate) struct Table {
    file: &'static str,
    title: &'static str,
    columns: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

/// What stands in a table: rounded for people, in full for programs.
pub(crate) struct Cell {
    text: String,
    exact: String,
}

/// The middle one; of an even number the greater of the two.
pub(crate) fn median_of(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Cell {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { exact: text.clone(), text }
    }

    pub(crate) fn count(count: u64) -> Self {
        Self::text(count.to_string())
    }

    /// A measured value; small ones with more places.
    pub(crate) fn number(value: f64) -> Self {
        let places = match value.abs() {
            ..10.0 => 2,
            10.0..100.0 => 1,
            _ => 0,
        };
        Self { text: format!("{value:.places$}"), exact: value.to_string() }
    }

    /// Bytes, shown in MiB in both.
    pub(crate) fn mib(bytes: u64) -> Self {
        Self::number(bytes as f64 / f64::from(1024 * 1024))
    }
}

impl Table {
    pub(crate) fn new(file: &'static str, title: &'static str, columns: &[&'static str]) -> Self {
        Self { file, title, columns: columns.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    fn csv(&self) -> String {
        let mut lines = vec![self.columns.join(",")];
        let exact = |row: &Vec<Cell>| {
            row.iter().map(|cell| cell.exact.as_str()).collect::<Vec<_>>().join(",")
        };
        lines.extend(self.rows.iter().map(exact));
        lines.join("\n") + "\n"
    }

    fn lines(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].text.chars().count());
            cells.max().unwrap_or(0).max(self.columns[column].chars().count())
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let padded = cells.zip(&widths).map(|(cell, &width)| format!("{cell:>width$}"));
            padded.collect::<Vec<_>>().join("  ")
        };
        let mut text = format!("{}\n{}\n", self.title, line(&mut self.columns.iter().copied()));
        for row in &self.rows {
            let _ = writeln!(text, "{}", line(&mut row.iter().map(|cell| cell.text.as_str())));
        }
        text
    }
}

impl Report {
    /// A report in `folder`, or in one of its own among cargo's targets.
    pub(crate) fn new(folder: Option<&Path>) -> Result<Self, Failure> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let own = || Path::new(env!("CARGO_TARGET_TMPDIR")).join("../scale").join(now.to_string());
        let folder = folder.map_or_else(own, Path::to_path_buf);
        fs::create_dir_all(&folder)?;
        Ok(Self { folder: folder.canonicalize()?, head: head(), text: String::new() })
    }

    pub(crate) fn head(&self) -> &str {
        &self.head
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Prints the table and writes it to its files.
    #[expect(clippy::print_stdout, reason = "a program for people to run")]
    pub(crate) fn add(&mut self, table: Table) -> Result<(), Failure> {
        let lines = table.lines();
        println!("{lines}");
        let _ = writeln!(self.text, "\n{lines}");
        let comment: String = self.head.lines().map(|line| format!("# {line}\n")).collect();
        let csv = self.folder.join(format!("{}.csv", table.file));
        fs::write(csv, comment + &table.csv())?;
        fs::write(self.folder.join("report.txt"), format!("{}{}", self.head, self.text))?;
        Ok(())
    }
}

/// Where and of what it was measured.
fn head() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = read("/proc/meminfo");
    let memory = memory.lines().next().unwrap_or_default().trim_start_matches("MemTotal:").trim();
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["describe", "--always", "--dirty", "--abbrev=12"]).unwrap_or_default();
    let date = Command::new("date").arg("-uIseconds").output();
    let date = date.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    format!(
        "machine: {cores} x {}, {memory}\nkernel: {}\ncommit: {commit}\ndate: {}\n",
        model.unwrap_or("unknown"),
        read("/proc/sys/kernel/osrelease").trim(),
        date.unwrap_or_default(),
    )
}
