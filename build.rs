//! What `slim --version` prints about this build.

use std::process::Command;
use std::time::{Duration, SystemTime};

fn main() {
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    // A path that does not exist would have this run, and the crate compiled, each time.
    for path in git(&["rev-parse", "--git-path", "HEAD", "--git-path", "refs/heads"]).lines() {
        println!("cargo:rerun-if-changed={path}");
    }
    let sha = git(&["rev-parse", "--short=12", "HEAD"]);
    let sha = if sha.is_empty() { "unknown" } else { sha.trim() };
    let epoch = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.parse().ok());
    let date = epoch.map_or_else(SystemTime::now, |seconds| {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    });
    println!("cargo:rustc-env=SLIM_GIT_SHA={sha}");
    println!("cargo:rustc-env=SLIM_BUILD_DATE={}", humantime::format_rfc3339_seconds(date));
    println!("cargo:rustc-env=SLIM_PROFILE={}", std::env::var("PROFILE").unwrap_or_default());
}

/// What git answers; nothing where there is no git or no repository.
fn git(args: &[&str]) -> String {
    let output = Command::new("git").args(args).output().ok();
    let output = output.filter(|output| output.status.success());
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}
