//! What `slim --version` prints about this build.

use std::process::Command;
use std::time::{Duration, SystemTime};

fn main() {
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo:rerun-if-changed=.git/HEAD");
    println!("cargo:rerun-if-changed=.git/refs/heads");
    let sha = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    let sha = sha.ok().filter(|output| output.status.success());
    let sha =
        sha.map_or_else(|| "unknown".into(), |o| String::from_utf8_lossy(&o.stdout).into_owned());
    let epoch = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.parse().ok());
    let date = epoch.map_or_else(SystemTime::now, |seconds| {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    });
    println!("cargo:rustc-env=SLIM_GIT_SHA={}", sha.trim());
    println!("cargo:rustc-env=SLIM_BUILD_DATE={}", humantime::format_rfc3339_seconds(date));
    println!("cargo:rustc-env=SLIM_PROFILE={}", std::env::var("PROFILE").unwrap_or_default());
}
