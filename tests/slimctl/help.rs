//! What the program says about itself.

use clap::Command;
use slim_quic::ctl::Cli;

use crate::Home;

/// Where the options begin that many commands have.
const CONNECTION: &str = "Connection options:\n";

#[tokio::test]
async fn the_help_of_every_command() {
    let home = Home::new();
    let (mut all, mut connection) = (String::new(), String::new());
    for path in paths(&Cli::definition(), &[]) {
        let arguments: Vec<_> = path.iter().map(String::as_str).chain(["--help"]).collect();
        let mut help = home.run(&arguments).await.ok();
        if let Some(at) = help.find(CONNECTION) {
            let own = help.split_off(at);
            let own = own.split("\nExit codes: ").next().expect("text");
            // Empty lines between options depend on the others.
            let own: Vec<_> = own.lines().filter(|line| !line.is_empty()).collect();
            let own = own.join("\n");
            if connection.is_empty() {
                connection = own;
            } else if !path.ends_with(&["outline".to_owned()]) {
                assert_eq!(own, connection, "{path:?}");
            }
            help += "(connection options)\n";
        }
        all += &format!("$ slimctl {}\n{help}\n", arguments.join(" "));
    }
    insta::assert_snapshot!("help", format!("{all}{connection}\n"));
}

/// All commands, each as the words that lead to it.
fn paths(command: &Command, path: &[String]) -> Vec<Vec<String>> {
    let mut all = vec![path.to_vec()];
    for next in command.get_subcommands().filter(|next| next.get_name() != "help") {
        all.extend(paths(next, &[path, &[next.get_name().to_owned()]].concat()));
    }
    all
}

fn page() -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/slimctl.md");
    std::fs::read_to_string(path).expect("the page")
}

#[test]
fn the_page_of_the_documents_has_every_command() {
    let page = page();
    let all = paths(&Cli::definition(), &[]);
    let leaf = |path: &&Vec<String>| {
        let longer = |other: &Vec<String>| other.len() > path.len() && other.starts_with(path);
        !all.iter().any(longer)
    };
    for path in all.iter().filter(leaf).map(|path| path.join(" ")) {
        // These are said to be the same as others; that one has a page of its own.
        let same = ["controller ", "node route ", "node connection ", "bench ", "version"];
        let said = same.iter().any(|start| path.starts_with(start));
        assert!(said || page.contains(&path), "{path}");
    }
}

#[tokio::test]
async fn the_exit_codes_of_the_page_are_those_of_the_help() {
    let help = Home::new().run(&["--help"]).await.ok();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let (_, codes) = help.split_once("Exit codes: ").expect("exit codes");
    let page = page();
    let rows = page.lines().skip_while(|line| !line.starts_with("| exit code |")).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    let rows: Vec<_> = rows.map(|row| row.trim_matches(['|', ' ']).replace(" | ", " ")).collect();
    assert_eq!(codes, rows.join(", "));
}

#[test]
fn the_definition_of_the_command_line_holds_together() {
    Cli::definition().debug_assert();
}

#[tokio::test]
async fn every_shell_gets_a_script_that_names_the_commands() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = home.run(&["completion", shell]).await.ok();
        for word in ["participant", "node-connect", "outline", "deregister"] {
            assert!(script.contains(word), "{word} in the script for {shell}");
        }
    }
}

#[tokio::test]
async fn there_is_a_page_of_the_manual_for_every_command() {
    let home = Home::new();
    let page = home.run(&["man"]).await.ok();
    assert!(page.contains(".TH slimctl 1"), "{page}");
    home.run(&["man", "--dir", "pages/new"]).await.ok();
    for page in ["slimctl.1", "slimctl-route-outline.1", "slimctl-bench-pub.1"] {
        assert!(home.read(&format!("pages/new/{page}")).contains(".SH NAME"), "{page}");
    }
    home.write("file", "");
    assert_eq!(home.run(&["man", "--dir", "file"]).await.code, 2);
}
