//! One operation in a process of its own, under valgrind.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::Failure;
use crate::baseline::Count;
use crate::profile::Profile;

/// Runs the operation with this name in another process of this program, and counts what it does
/// between entry to and return from [`measured_region`](crate::operations::measured_region).
pub(crate) fn count(name: &str) -> Result<Count, Failure> {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("instructions.callgrind");
    let run = Command::new("valgrind")
        // The environment lies on the stack, and would move everything there.
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        // Copying memory is otherwise done in the way that suits this processor.
        .env("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-AVX_Fast_Unaligned_Load,-ERMS,-SSSE3")
        .args(["--tool=callgrind", "--quiet", "--collect-atstart=no"])
        .arg("--toggle-collect=*measured_region*")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe()?)
        .args(["--run", name])
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("valgrind: expected to be installed: {error}"))?;
    if !run.status.success() {
        return Err(format!("{name}: {}", run.status).into());
    }
    let operations: u64 = String::from_utf8(run.stdout)?.trim().parse()?;
    let profile = Profile::read(&std::fs::read_to_string(&out)?)?;
    std::fs::remove_file(&out)?;
    if operations == 0 || profile.instructions == 0 {
        return Err(format!("{name}: nothing was counted").into());
    }
    let per_operation = |total: u64| total as f64 / operations as f64;
    Ok(Count {
        name: name.to_owned(),
        instructions: per_operation(profile.instructions),
        cryptography: per_operation(profile.cryptography),
        locks: profile.locks.into_iter().collect(),
    })
}
