//! Where settings come from, and how a server is reached.

use std::os::unix::fs::PermissionsExt as _;

use tonic::transport::Identity;

use crate::controller::{Controller, Script};
use crate::support::pki::Authority;
use crate::{Home, run};

const EARLY: &str = ".slimctl/config.yaml";
const LATER: &str = ".config/slimctl/config.yaml";

/// The server that holds, and where it comes from.
async fn server(home: &Home, arguments: &[&str], environment: &[(&str, &str)]) -> (String, String) {
    let mut command = home.slimctl(&[&["config", "list", "-o", "json"], arguments].concat());
    command.envs(environment.iter().copied());
    let output = run(command).await.ok();
    let value: serde_json::Value = serde_json::from_str(&output).expect("JSON");
    let server = &value["settings"]["server"];
    let text = |key: &str| server[key].as_str().unwrap_or_default().to_owned();
    (text("value"), text("from"))
}

#[tokio::test]
async fn the_command_line_goes_before_the_environment_and_that_before_the_file() {
    let home = Home::new();
    assert_eq!(server(&home, &[], &[]).await, Default::default());
    let own = |path: &str| home.path().join(path).display().to_string();

    home.write("config.yaml", "server: here:1\n");
    assert_eq!(server(&home, &[], &[]).await, ("here:1".into(), "config.yaml".into()));
    home.write(LATER, "common_opts:\n  server: later:1\n");
    assert_eq!(server(&home, &[], &[]).await, ("later:1".into(), own(LATER)));
    let contexts = "current_context: a\ncontexts: { a: { server: 'a:1' }, b: { server: 'b:1' } }";
    home.write(EARLY, &format!("server: early:1\n{contexts}\n"));
    let context = |name: &str| format!("context {name} of {}", own(EARLY));
    assert_eq!(server(&home, &[], &[]).await, ("a:1".into(), context("a")));
    let named = [("SLIMCTL_CONTEXT", "b")];
    assert_eq!(server(&home, &[], &named).await, ("b:1".into(), context("b")));
    let flag = server(&home, &["--context", "a"], &named).await;
    assert_eq!(flag, ("a:1".into(), context("a")));

    let environment = [("SLIMCTL_SERVER", "env:1"), ("SLIMCTL_COMMON_OPTS_SERVER", "other:1")];
    let expected = ("env:1".to_owned(), "environment".to_owned());
    assert_eq!(server(&home, &[], &environment).await, expected);
    assert_eq!(server(&home, &[], &environment[1..]).await.0, "other:1");
    let expected = ("flag:1".to_owned(), "command line".to_owned());
    assert_eq!(server(&home, &["-s", "flag:1"], &environment).await, expected);

    let file = home.write("other.yaml", "server: named:1\n");
    assert_eq!(server(&home, &["--config", &file], &[]).await.0, "named:1");
    assert_eq!(server(&home, &[], &[("SLIMCTL_CONFIG", &file)]).await.0, "named:1");
}

#[tokio::test]
async fn the_file_of_a_node_in_this_folder_is_none_of_ours() {
    let home = Home::new();
    home.write("config.yaml", "tracing: {}\nservices: { slim/0: {} }\n");
    assert_eq!(server(&home, &[], &[]).await, Default::default());
    home.write("config.yaml", "server: here:1\nservices: {}\n");
    let ended = home.run(&["config", "list"]).await;
    assert!(ended.error(2).starts_with("config.yaml:2:1: services: unknown key"), "{ended:?}");
}

#[tokio::test]
async fn every_variable_of_the_environment_has_an_effect() {
    let home = Home::new();
    let mut command = home.slimctl(&["config", "list", "-o", "json"]);
    command.envs([
        ("SLIMCTL_TIMEOUT", "5s"),
        ("SLIMCTL_TLS_INSECURE", "false"),
        ("SLIMCTL_TLS_CA_FILE", "ca"),
        ("SLIMCTL_TLS_CERT_FILE", "cert"),
        ("SLIMCTL_TLS_KEY_FILE", "key"),
        ("SLIMCTL_BASIC_AUTH_CREDS", "user:secret-word"),
    ]);
    let output = run(command).await.ok();
    assert!(!output.contains("secret-word"), "{output}");
    let value: serde_json::Value = serde_json::from_str(&output).expect("JSON");
    let settings = value["settings"].as_object().expect("an object");
    let pairs: Vec<_> = settings.iter().map(|(key, v)| (key.as_str(), &v["value"])).collect();
    let expected = [
        ("basic-auth-creds", "***".into()),
        ("timeout", "5s".into()),
        ("tls-ca-file", "ca".into()),
        ("tls-cert-file", "cert".into()),
        ("tls-insecure", false.into()),
        ("tls-key-file", "key".into()),
    ];
    let expected: Vec<_> = expected.iter().map(|(key, value)| (*key, value)).collect();
    assert_eq!(pairs, expected);
    for (name, value) in [("SLIMCTL_TLS_INSECURE", "perhaps"), ("SLIMCTL_TIMEOUT", "5")] {
        let mut command = home.slimctl(&["node", "list"]);
        command.env(name, value);
        assert!(run(command).await.error(2).ends_with(&format!("got {value}")), "{name}");
    }
}

#[tokio::test]
async fn contexts_are_made_used_and_deleted() {
    let home = Home::new();
    let set = ["config", "set", "--context", "prod"];
    for (key, value) in [("server", "prod:1"), ("token", "t0ken"), ("tls-insecure", "false")] {
        home.run(&[&set[..], &[key, value]].concat()).await.ok();
    }
    home.run(&["config", "set", "server", "test:1"]).await.ok();
    let written = home.read(EARLY);
    assert_eq!(
        written,
        "contexts:\n  prod:\n    server: \"prod:1\"\n    tls:\n      insecure: false\n    \
         token: t0ken\nserver: \"test:1\"\n"
    );
    let mode = std::fs::metadata(home.path().join(EARLY)).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    assert_eq!(server(&home, &[], &[]).await.0, "test:1");
    let used = home.run(&["config", "use-context", "prod"]).await.ok();
    assert_eq!(used, "Switched to context prod\n");
    assert_eq!(server(&home, &[], &[]).await.0, "prod:1");
    assert_eq!(home.run(&["config", "get-contexts"]).await.ok(), "* prod\n");
    let table = "CURRENT  NAME  SERVER\n*        prod  prod:1\n1 context\n";
    assert_eq!(home.run(&["config", "get-contexts", "-o", "table"]).await.ok(), table);

    let unknown = home.run(&["config", "use-context", "prd"]).await;
    assert_eq!(unknown.error(2), "NAME: expected a context of the file (prod), got prd");
    home.run(&["config", "delete-context", "prod"]).await.ok();
    assert_eq!(home.read(EARLY), "server: \"test:1\"\n");
    home.run(&["config", "set", "server", ""]).await.ok();
    assert_eq!(home.read(EARLY), "{}\n");
}

#[tokio::test]
async fn a_file_is_written_in_the_form_of_the_release_it_belongs_to_and_keeps_its_placeholders() {
    let home = Home::new();
    home.write(LATER, "common_opts:\n  token: ${env:SLIM_NO_SUCH}\n");
    home.run(&["config", "set", "tls-ca-file", "ca.pem"]).await.ok();
    let expected = "common_opts:\n  tls_ca_file: ca.pem\n  token: \"${env:SLIM_NO_SUCH}\"\n";
    assert_eq!(home.read(LATER), expected);
    for (key, value) in [("sever", "x"), ("timeout", "5"), ("tls-insecure", "x")] {
        home.run(&["config", "set", key, value]).await.error(2);
    }
    assert_eq!(home.read(LATER), expected);
}

#[tokio::test]
async fn credentials_are_sent_with_every_request() {
    let home = Home::new();
    let token = home.write("token", "from-a-file\n");
    let controller = Controller::start(Script::default()).await;
    let server = controller.server();
    let list = ["channel", "list", "-s", &server];
    for (arguments, expected) in [
        (&["-b", "user:pass"][..], Some("Basic dXNlcjpwYXNz")),
        (&["--basic_auth_creds", "user:pass"], Some("Basic dXNlcjpwYXNz")),
        (&["--basic-auth-creds=user:pass"], Some("Basic dXNlcjpwYXNz")),
        (&["--token", "abc"], Some("Bearer abc")),
        (&["--token-file", &token], Some("Bearer from-a-file")),
        (&[], None),
    ] {
        home.run(&[&list, arguments].concat()).await.ok();
        assert_eq!(controller.last().1.as_deref(), expected, "{arguments:?}");
    }
    home.run(&[&list[..], &["-b", "user"]].concat()).await.error(2);
    home.run(&[&list[..], &["--token-file", "absent"]].concat()).await.error(2);
}

#[tokio::test]
async fn a_controller_with_tls_sees_the_certificate_of_the_caller() {
    let home = Home::new();
    let authority = Authority::new();
    let (certificate, key) = authority.issue("node");
    let root = std::fs::read_to_string(authority.path("root.crt")).expect("a root");
    let controller = Controller::start_tls(Identity::from_pem(certificate, key), &root).await;
    let port = controller.address.port();
    let (certificate, key) = authority.issue("operator");
    let (certificate, key) = (home.write("op.crt", &certificate), home.write("op.key", &key));
    let ca = authority.path("root.crt");
    let ca = ca.to_str().expect("UTF-8");
    let own = ["--tls.cert_file", &certificate, "--tls.key_file", &key];

    for server in [format!("127.0.0.1:{port}"), format!("https://127.0.0.1:{port}")] {
        let list = ["channel", "list", "-s", &server, "--tls.ca_file", ca];
        home.run(&[&list[..], &own].concat()).await.ok();
        home.run(&[&list[..], &own, &["--tls.insecure=false"]].concat()).await.ok();
        // Whom the controller does not know, it does not answer.
        let stranger = home.run(&list).await;
        assert_eq!(stranger.code, 1, "{stranger:?}");
    }
    let server = format!("127.0.0.1:{port}");
    // Without an authority of ours those of the system decide, and they know nothing of it.
    let unknown = home.run(&[&["channel", "list", "-s", &server], &own[..]].concat()).await;
    assert!(unknown.error(1).contains("UnknownIssuer"), "{unknown:?}");
    for wrong in [
        &["--tls.insecure", "--tls.ca_file", ca][..],
        &["--tls.cert_file", &certificate],
        &["--tls.ca_file", "absent"],
        &["-s", "https://127.0.0.1:1", "--tls.insecure=true"],
        &["-s", "ftp://127.0.0.1:1"],
        &["-s", "127.0.0.1"],
        &["-s", "https://127.0.0.1:1/path"],
    ] {
        home.run(&[&["channel", "list"], wrong].concat()).await.error(2);
    }
}
