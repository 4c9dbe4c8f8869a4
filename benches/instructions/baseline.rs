//! The instructions that are recorded in the tree.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use crate::Failure;

/// What one operation takes now.
pub(crate) struct Count {
    pub(crate) name: String,
    /// Instructions of everything but cryptography, which differs between processors.
    pub(crate) instructions: f64,
    /// Those of cryptography, which nothing is compared with.
    pub(crate) cryptography: f64,
    /// Where it takes a lock.
    pub(crate) locks: Vec<String>,
}

/// What was recorded.
pub(crate) struct Baseline {
    /// By what it was compiled.
    compiler: String,
    instructions: BTreeMap<String, f64>,
}

/// A rise above this fails. Counts of one build differ by far less.
const TOLERATED_PERCENT: f64 = 5.0;

const RECORD: &str = "cargo bench --bench instructions -- --record";

impl Baseline {
    /// What is recorded in the tree.
    pub(crate) fn read() -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path())?;
        let (compiler, rest) = text.split_once('\n').ok_or("an empty baseline")?;
        let rows = rest.lines().skip(1).map(|row| {
            let (name, instructions) = row.rsplit_once(',').ok_or("a row has two columns")?;
            Ok((name.to_owned(), instructions.parse()?))
        });
        Ok(Self {
            compiler: compiler.trim_start_matches("# ").to_owned(),
            instructions: rows.collect::<Result<_, Failure>>()?,
        })
    }

    /// Records what was counted instead.
    pub(crate) fn record(counts: &[Count]) -> Result<(), Failure> {
        let mut text = format!("# {}\noperation,instructions\n", compiler());
        for Count { name, instructions, .. } in counts {
            writeln!(text, "{name},{instructions:.1}")?;
        }
        std::fs::write(path(), text)?;
        println!("{} operations are recorded in {}", counts.len(), path().display());
        Ok(())
    }

    /// Leaves out all operations whose name does not contain `filter`.
    pub(crate) fn keep(&mut self, filter: &str) {
        self.instructions.retain(|name, _| name.contains(filter));
    }

    /// Prints the recorded and the counted instructions. Returns whether each operation is there
    /// on both sides, and none takes more than is tolerated.
    pub(crate) fn compare(mut self, counts: &[Count]) -> bool {
        println!(
            "{:<44} {:>10} {:>10} {:>8} {:>13}",
            "instructions per operation", "recorded", "now", "change", "cryptography"
        );
        let mut fine = true;
        for Count { name, instructions, cryptography, .. } in counts {
            let recorded = self.instructions.remove(name);
            let change = recorded.map(|recorded| (instructions / recorded - 1.0) * 100.0);
            let judgement = match change {
                None => " not recorded",
                Some(change) if change > TOLERATED_PERCENT => " too many",
                Some(_) => "",
            };
            fine &= judgement.is_empty();
            let recorded = recorded.map_or_else(String::new, |recorded| format!("{recorded:.1}"));
            let change = change.map_or_else(String::new, |change| format!("{change:+.2}%"));
            println!(
                "{name:<44} {recorded:>10} {instructions:>10.1} {change:>8} \
                 {cryptography:>13.1}{judgement}"
            );
        }
        for name in self.instructions.keys() {
            println!("{name:<44} recorded, but not counted");
            fine = false;
        }
        if !fine {
            self.say_what_to_do();
        }
        fine
    }

    fn say_what_to_do(&self) {
        eprintln!("More than {TOLERATED_PERCENT} % above what is recorded, or not recorded.");
        let now = compiler();
        if now != self.compiler {
            eprintln!(
                "It was recorded with {}, and this is {now}: check out a commit that passed, record \
                 it anew with this compiler ({RECORD}), and compare again.",
                self.compiler
            );
        }
        eprintln!("Where a rise is worth it, record it, and say why in the commit: {RECORD}");
    }
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/instructions/baseline.csv")
}

/// The compiler, and what it compiles for.
fn compiler() -> String {
    let version = Command::new("rustc").arg("--version").output();
    let version = version.map(|run| String::from_utf8_lossy(&run.stdout).trim().to_owned());
    format!("{}, {}", version.unwrap_or_default(), std::env::consts::ARCH)
}
