//! What callgrind writes: which instructions were executed in which function, and from which
//! source file, that of inlined code too.
//! See <https://valgrind.org/docs/manual/cl-format.html>.

use std::collections::{BTreeSet, HashMap};

use crate::Failure;

/// What is taken from a profile.
#[derive(Debug, Default)]
pub(crate) struct Profile {
    /// Instructions of everything but cryptography.
    pub(crate) instructions: u64,
    /// Those of ciphers and digests, which differ between processors.
    pub(crate) cryptography: u64,
    /// Where a lock was taken.
    pub(crate) locks: BTreeSet<String>,
}

/// In the names of functions and files of locks. Those of uncontended locks are inlined, and only
/// their file shows.
const LOCKS: [&str; 8] =
    ["mutex", "rwlock", "futex", "parking_lot", "lll_lock", "sem_wait", "condvar", "reentrant"];

/// In those of the cryptographic library.
const CRYPTOGRAPHY: [&str; 3] = ["aws_lc", "aws-lc-sys", "aws-lc/"];

impl Profile {
    pub(crate) fn read(text: &str) -> Result<Self, Failure> {
        let (mut files, mut functions) = (Names::default(), Names::default());
        let (mut file, mut function) = (String::new(), String::new());
        let mut profile = Self::default();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            match line.split_once('=') {
                Some(("fl" | "fi" | "fe", name)) => file = files.resolve(name)?,
                Some(("fn", name)) => function = functions.resolve(name)?,
                // Whatever is named here for the first time is known by its number later.
                Some(("cfl" | "cfi", name)) => _ = files.resolve(name)?,
                Some(("cfn", name)) => _ = functions.resolve(name)?,
                // The next line is what the callee has cost, which is counted there.
                Some(("calls", _)) => _ = lines.next(),
                _ if line.starts_with(|c: char| c.is_ascii_digit() || "+-*".contains(c)) => {
                    let cost = line.split(' ').nth(1).ok_or("a line without a cost")?;
                    profile.add(cost.parse()?, &file, &function);
                }
                _ => {}
            }
        }
        Ok(profile)
    }

    fn add(&mut self, cost: u64, file: &str, function: &str) {
        let is = |marks: &[&str]| {
            marks.iter().any(|mark| file.contains(mark) || function.contains(mark))
        };
        if cost > 0 && is(&LOCKS) {
            self.locks.insert(format!("{function} ({file})"));
        }
        let sum = if is(&CRYPTOGRAPHY) { &mut self.cryptography } else { &mut self.instructions };
        *sum += cost;
    }
}

/// Names that are written out once, and then by number.
#[derive(Default)]
struct Names(HashMap<String, String>);

impl Names {
    /// The name behind `(12) name` or `(12)`.
    fn resolve(&mut self, text: &str) -> Result<String, Failure> {
        let (number, name) = text.split_once(' ').unwrap_or((text, ""));
        if !name.is_empty() {
            self.0.insert(number.to_owned(), name.to_lowercase());
        }
        Ok(self.0.get(number).ok_or("a number without a name")?.clone())
    }
}
