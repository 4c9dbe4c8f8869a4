//! The operator calls of the published documents, from Python. Needs `python3`, its package index
//! and the scripts in ../shared; where they are not to be had the test says SKIPPED and why.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::Controller;
use crate::support::say;

const SCRIPT: &str = "../shared/conformance/northbound_seed.py";

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(format!("{}\n{}", text(&output.stdout), text(&output.stderr))),
    }
}

fn python() -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("grpcio");
    let python = folder.join("bin/python");
    let has_package = || run(Command::new(&python).args(["-c", "import grpc, google.protobuf"]));
    if has_package().is_err() {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
        let install = ["-m", "pip", "install", "--quiet", "grpcio", "protobuf"];
        run(Command::new(&python).args(install))?;
        has_package()?;
    }
    Ok(python)
}

/// The script, where it is: beside this checkout or beside the main one.
fn script() -> Option<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = here.ancestors().map(|folder| folder.join(SCRIPT));
    folders.find(|path| path.is_file())
}

#[tokio::test]
async fn every_call_of_the_documents_is_answered_as_documented() {
    let test = "every_call_of_the_documents_is_answered_as_documented";
    let Some(script) = script() else {
        return say(&format!("SKIPPED {test}: there is no {SCRIPT}"));
    };
    let python = match tokio::task::spawn_blocking(python).await.expect("no panic") {
        Ok(python) => python,
        Err(reason) => return say(&format!("SKIPPED {test}: {reason}")),
    };
    let controller = Controller::start().await;
    let (north, south) = (controller.north.to_string(), controller.south.to_string());
    let mut command = Command::new(python);
    command.arg(script).args([&north, "--fake-node", &south, "--negative"]);
    let told = tokio::task::spawn_blocking(move || run(&mut command)).await.expect("no panic");
    let told = told.unwrap_or_else(|told| panic!("{told}"));
    assert!(told.contains(", 0 failed, 0 skipped"), "{told}");
}
