//! Files, and the environment, of the real system.

use std::fs;

use slim_config::{LoadError, TokenSource};

use crate::support::with_top;

#[test]
fn placeholders_are_read_from_the_process_and_the_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("secret");
    fs::write(&secret, "hidden\n").expect("a file");
    let text = format!(
        "{}    controller: {{ token_provider: {{ shared_secret: \"${{file:{}}}\" }} }}\n\
         runtime: {{ thread_name: \"${{env:CARGO_PKG_NAME}}\" }}\n",
        with_top(""),
        secret.display()
    );
    let path = folder.path().join("config.yaml");
    fs::write(&path, text).expect("a file");
    let config = slim_config::load(&path).unwrap_or_else(|error| panic!("{error}")).config;
    let TokenSource::SharedSecret(secret) = &config.services[0].controller.token_provider else {
        panic!("{config:?}");
    };
    assert_eq!(secret.expose(), "hidden\n");
    assert_eq!(config.runtime.thread_name, "slim-config");
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("config.yaml");
    let message = |expected: &str| {
        let error = slim_config::load(&path).expect_err(expected);
        assert!(matches!(error, LoadError::Read { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("config.yaml: ") && text.contains(expected), "{text}");
    };
    message("expected a readable file");
    fs::write(&path, b"a: \xff\n").expect("a file");
    message("expected Unicode text");
    fs::write(&path, vec![b' '; 2 * 1024 * 1024]).expect("a file");
    message("expected at most 1048576 bytes");
}
