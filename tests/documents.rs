//! The README says what the program does.

use std::path::Path;
use std::process::Command;

use slim_quic::node::METRICS;

fn readme() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    std::fs::read_to_string(path).expect("the README")
}

/// The cells of the table whose first heading is `heading`.
fn table(heading: &str) -> Vec<Vec<String>> {
    let readme = readme();
    let rows = readme.lines().skip_while(|line| !line.starts_with(&format!("| {heading} |")));
    let rows = rows.skip(2).take_while(|line| line.starts_with('|'));
    let cells = |line: &str| {
        let line = line.trim_matches('|').replace('`', "");
        line.split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    rows.map(cells).collect()
}

#[test]
fn the_table_of_metrics_is_that_of_the_program() {
    let metrics: Vec<Vec<String>> = METRICS
        .iter()
        .map(|metric| [metric.name, metric.kind, metric.labels, metric.help])
        .map(|cells| cells.map(str::to_owned).to_vec())
        .collect();
    assert_eq!(table("metric"), metrics);
}

#[test]
fn the_table_of_exit_codes_is_that_of_the_help() {
    let help = Command::new(env!("CARGO_BIN_EXE_slim")).arg("--help").output().expect("the help");
    let help = String::from_utf8(help.stdout).expect("text");
    // A terminal's width decides where the help breaks its lines.
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let (_, codes) = help.split_once("Exit codes: ").expect("exit codes");
    let codes: Vec<Vec<String>> = codes
        .split(", ")
        .map(|code| code.split_once(' ').expect("a number and its meaning"))
        .map(|(code, meaning)| vec![code.to_owned(), meaning.to_owned()])
        .collect();
    assert_eq!(table("exit code"), codes);
}
