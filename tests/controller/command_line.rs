use std::process::Command;

use crate::program::slim_controller;
use crate::support::node::Program;

fn output(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().expect("the program runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

const FILE: &str = "northbound: { httpHost: 127.0.0.1, httpPort: 0 }\n\
                    southbound: { httpHost: 127.0.0.1, httpPort: 0 }\n\
                    database: { type: in_memory }\n";

#[tokio::test]
async fn a_file_is_named_with_one_dash_or_two_or_lies_in_the_working_directory() {
    let folder = tempfile::tempdir().expect("a folder");
    let named = folder.path().join("config.yaml");
    std::fs::write(&named, FILE).expect("written");
    let path = named.to_str().expect("UTF-8");
    let both = format!("-config={path}");
    for arguments in [vec!["--config", path], vec!["-config", path], vec![&both], vec![]] {
        let mut command = slim_controller();
        command.args(&arguments).current_dir(folder.path());
        let mut program = Program::spawn(command);
        program.line("Northbound API Service is listening on 127.0.0.1:").await;
        program.signal(rustix::process::Signal::INT);
        assert_eq!(program.exit().await, Some(0), "{arguments:?}");
    }
}

#[test]
fn what_is_wrong_is_told_with_an_exit_code_of_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let (code, _, told) = output(slim_controller().args(["--config", "/does/not/exist"]));
    assert_eq!(code, Some(3), "{told}");
    assert!(told.contains("/does/not/exist"), "{told}");
    let (code, _, _) = output(slim_controller().arg("--unknown"));
    assert_eq!(code, Some(2));
    let file = folder.path().join("wrong.yaml");
    std::fs::write(&file, "northbound: { httpPort: many }\n").expect("written");
    let (code, _, told) = output(slim_controller().arg("--config").arg(&file));
    assert_eq!(code, Some(3), "{told}");
    assert!(told.contains("northbound.httpPort"), "{told}");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port();
    let text = FILE.replacen("httpPort: 0", &format!("httpPort: {port}"), 1);
    std::fs::write(&file, text).expect("written");
    let (code, told, _) = output(slim_controller().arg("--config").arg(&file));
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains(&format!("ERR Failed to start: listen on 127.0.0.1:{port}")), "{told}");
}

#[test]
fn the_version_is_that_of_the_node() {
    let (code, told, _) = output(slim_controller().arg("--version"));
    assert_eq!(code, Some(0));
    assert!(told.contains(env!("CARGO_PKG_VERSION")), "{told}");
}
