//! What a process takes of memory.

use std::fs;

use crate::Failure;

/// Memory of a process in bytes, as the kernel counts its pages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Resident pages, shared ones in full.
    pub(crate) rss: u64,
    /// Resident pages, shared ones by their part.
    pub(crate) pss: u64,
}

impl Memory {
    /// That of a process.
    pub(crate) fn of(pid: u32) -> Result<Self, Failure> {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let field = |name: &str| -> Result<u64, Failure> {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let kib =
                line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
            kib.map(|kib| kib * 1024).ok_or_else(|| format!("smaps_rollup: no {name}").into())
        };
        Ok(Self { rss: field("Rss:")?, pss: field("Pss:")? })
    }
}
