//! `slimctl` from its command line to its output and exit code, against servers that say what a
//! test tells them to.

#[path = "../support/mod.rs"]
mod support;

mod admin;
mod commands;
mod controller;
mod direct;
mod help;
mod settings;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A home in which nothing is set, and the folder in which the program runs.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file, with the folders that it is in.
    fn write(&self, path: &str, text: &str) -> String {
        let path = self.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.path().join(path)).expect("readable")
    }

    /// The program with these arguments, and nothing of this process's environment.
    fn slimctl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slimctl"));
        command.args(arguments).env_clear().env("HOME", self.path()).env("COLUMNS", "100");
        command.current_dir(self.path()).stdin(Stdio::null());
        command
    }

    /// Runs the program to its end beside the test, which may have to answer it.
    async fn run(&self, arguments: &[&str]) -> Ended {
        run(self.slimctl(arguments)).await
    }
}

async fn run(mut command: Command) -> Ended {
    let run = tokio::task::spawn_blocking(move || command.output());
    run.await.expect("no panic").expect("the program runs").into()
}

/// What a run of the program came to.
#[derive(Debug, PartialEq, Eq)]
struct Ended {
    code: i32,
    stdout: String,
    stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        let code = output.status.code().expect("no signal");
        Self { code, stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Ended {
    /// The output of a run that went well.
    #[track_caller]
    fn ok(self) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (0, ""), "{}", self.stdout);
        self.stdout
    }

    /// The message of a run that did not, without the hint.
    #[track_caller]
    fn error(&self, code: i32) -> &str {
        assert_eq!(self.code, code, "{self:?}");
        let (message, hint) = self.stderr.split_once("\n hint: ").expect("a hint");
        assert!(!hint.trim().is_empty());
        message.strip_prefix("error: ").expect("an error")
    }
}
