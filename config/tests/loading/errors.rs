//! What is wrong with a file is reported with position, key and hint, all of it in one run.

use crate::support::{Fixed, parse, with_client, with_top};

/// Position, key, part of the message, and part of the hint; an empty hint is for none.
type Expected = (usize, usize, &'static str, &'static str, &'static str);

#[track_caller]
fn assert_errors(text: &str, expected: &[Expected]) {
    let found = parse(text).expect_err("errors");
    let all = found.to_string();
    let errors: Vec<_> = found.errors().collect();
    for (error, (line, column, key, message, hint)) in errors.iter().zip(expected) {
        assert_eq!((error.line, error.column), (*line, *column), "{error}");
        assert_eq!(error.key, *key, "{error}");
        assert!(error.message.contains(message), "{error}");
        let given = error.hint.as_deref().unwrap_or_default();
        assert!(given.contains(hint) && (given.is_empty() == hint.is_empty()), "{error}");
    }
    assert_eq!(errors.len(), expected.len(), "{all}");
}

#[test]
fn all_errors_of_a_file_are_reported_in_one_run() {
    let text = r#"tracing:
  log_level: wran
  display_thread_ids: "true"
runtme: {}
runtime:
  n_cores: -1
  drain_timeout: 10
  thread_name: 5
  thread_name: again
admin: localhost:4000
limits:
  message_bytes: 5000000
  queue_bytes: 4096 # not compared with a size that is wrong
  colour: red
services:
  slim/Node_1:
    dataplane:
      servers:
        - endpoit: "0.0.0.0:46357"
          tls:
            insecur: true
        - endpoint: "http://localhost:46357"
          tls:
            insecure: true
"#;
    let words = "one of `trace`, `debug`, `info`, `warn`, `error`, got the text \"wran\"";
    let known =
        "keys known here: links, subscriptions_per_link, subscriptions_per_node, subscriptions";
    let servers = "services.slim/Node_1.dataplane.servers";
    let key = |rest: &str| -> &'static str { format!("{servers}{rest}").leak() };
    assert_errors(
        text,
        &[
            (2, 14, "tracing.log_level", words, "did you mean `warn`?"),
            (3, 23, "tracing.display_thread_ids", "expected `true` or `false`", ""),
            (4, 1, "runtme", "unknown key", "did you mean `runtime`?"),
            (6, 12, "runtime.n_cores", "from 0 to 4096, got the number `-1`", ""),
            (7, 18, "runtime.drain_timeout", "got the number `10`", "`10s` or `10ms`"),
            (8, 16, "runtime.thread_name", "expected a text", "quotes"),
            (9, 3, "runtime.thread_name", "duplicate key, first given in line 8", "remove"),
            (10, 8, "admin", "\"IP:port\"", "write 127.0.0.1:4000"),
            (12, 18, "limits.message_bytes", "from 1024 to 4194304, got the number", ""),
            (14, 3, "limits.colour", "unknown key", known),
            (16, 3, "services.slim/Node_1", "a-z, 0-9 and -", "slim/0"),
            (19, 11, key("[0].endpoit"), "unknown key", "did you mean `endpoint`?"),
            (21, 13, key("[0].tls.insecur"), "unknown key", "did you mean `insecure`?"),
            (22, 21, key("[1].endpoint"), "\"IP:port\"", "write 127.0.0.1:46357"),
        ],
    );
}

#[test]
fn a_finding_displays_as_a_place_and_a_help_line() {
    let found = parse(&with_top("tracng: {}")).expect_err("an error");
    assert_eq!(
        found.to_string(),
        "c.yaml:6:1: tracng: unknown key\n  help: did you mean `tracing`?"
    );
    let found = parse(&with_top("tracing: { filter: info }")).expect("a warning");
    assert_eq!(
        found.warnings.to_string(),
        "c.yaml:6:12: warning: tracing.filter: has no effect: `log_level` alone decides\n  \
         help: it can be removed"
    );
}

#[test]
fn files_without_services_say_so() {
    for (text, line, column, key, message) in [
        ("", 1, 1, "", "got an empty file"),
        ("# nothing\n", 1, 1, "", "got an empty file"),
        ("- a\n", 1, 1, "", "expected a mapping with the key `services`, got a list"),
        ("text", 1, 1, "", "expected a mapping with the key `services`, got the text"),
        ("tracing: {}\n", 1, 1, "services", "required, but not given"),
        ("\nservices:\n", 2, 1, "services", "required, but not given"),
        ("services: {}\n", 1, 11, "services", "at least one service"),
        ("services: []\n", 1, 11, "services", "expected a mapping, got a list"),
        ("services: { slim/0: {} }\n", 1, 21, "services.slim/0.dataplane", "required"),
    ] {
        let found = parse(text).expect_err(text);
        let [error] = found.iter().collect::<Vec<_>>()[..] else {
            panic!("{found}");
        };
        assert_eq!((error.line, error.column), (line, column), "{error}");
        assert_eq!(error.key, key, "{error}");
        assert!(error.message.contains(message), "{error}");
    }
}

#[test]
fn broken_yaml_is_one_error_with_its_position() {
    for (text, line) in [
        ("services:\n  slim/0: [\n", 2),
        ("a: b: c\n", 1),
        ("services:\n\tslim/0: {}\n", 2),
        ("a: \"open\n", 2),
        ("a: *missing\n", 1),
        ("a: 1\n---\nb: 2\n", 2),
    ] {
        let found = parse(text).expect_err(text);
        assert_eq!(found.len(), 1, "{found}");
        let error = found.iter().next().expect("one");
        assert_eq!(error.line, line, "{error}");
    }
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_file() {
    parse(&format!("\u{feff}{}", with_top(""))).expect("a configuration");
}

#[test]
fn positions_count_characters_and_survive_windows_line_ends() {
    let text = "services: {}\r\nüä: 1\r\ntracing: { äö: 1, log_level: x }\r\n";
    let found = parse(text).expect_err("errors");
    let places: Vec<_> = found.iter().map(|error| (error.line, error.column)).collect();
    assert_eq!(places, [(1, 11), (2, 1), (3, 12), (3, 30)], "{found}");
}

#[test]
fn routes_lead_over_a_client_of_the_same_service() {
    let client = with_client("endpoint: \"http://a:1\", tls: { insecure: true }");
    let routes = "      routes:\n        - { name: a/b, via: \"http://a:2\" }\n        - { via: \"http://A:1\" }\n";
    let prefix = "services.slim/0.dataplane.routes";
    let key = |rest: &str| -> &'static str { format!("{prefix}{rest}").leak() };
    assert_errors(
        &format!("{client}{routes}"),
        &[
            (9, 19, key("[0].name"), "expected `org/namespace/app`", ""),
            (9, 29, key("[0].via"), "one of `dataplane.clients`", "http://a:1"),
            (10, 11, key("[1].name"), "required", ""),
        ],
    );
}

#[test]
fn a_node_without_a_server_is_refused() {
    let clients =
        "services:\n  slim/0:\n    dataplane:\n      clients: [{endpoint: \"http://a:1\"}]\n";
    assert_errors(
        clients,
        &[(4, 7, "services.slim/0.dataplane", "clients only is not supported yet", "servers")],
    );
    assert_errors(
        "services:\n  slim/0:\n    dataplane:\n      servers: []\n",
        &[(4, 7, "services.slim/0.dataplane", "at least one data plane server, got none", "add")],
    );
    assert_errors(
        "services:\n  slim/0:\n    dataplane:\n      server: []\n",
        &[(4, 7, "services.slim/0.dataplane.server", "unknown key", "`servers`")],
    );
}

#[test]
fn a_queue_holds_two_messages() {
    let message = "expected at least four times `message_bytes`, 16777216, got the number `4096`";
    assert_errors(
        &with_top("limits: { queue_bytes: 4096 }"),
        &[(6, 24, "limits.queue_bytes", message, "raise it or lower")],
    );
}

#[test]
fn listeners_of_all_services_have_addresses_of_their_own() {
    let block = "{endpoint: \"1.2.3.4:5\", tls: {insecure: true}}";
    let text = format!(
        "services:\n  slim/a:\n    dataplane: {{servers: [{block}]}}\n    controller: {{servers: [{block}]}}\n  \
         slim/b:\n    dataplane: {{servers: [{block}]}}\n"
    );
    let taken = "taken by `services.slim/a.dataplane.servers[0].endpoint`";
    assert_errors(
        &text,
        &[
            (4, 39, "services.slim/a.controller.servers[0].endpoint", taken, "port"),
            (6, 38, "services.slim/b.dataplane.servers[0].endpoint", taken, "port"),
        ],
    );
}

#[test]
fn service_ids_follow_the_grammar() {
    for (id, message) in [
        ("0", "expected `slim/NAME`"),
        ("5", "expected `slim/NAME`"),
        ("mcp/0", "expected the kind `slim`, got \"mcp\""),
        ("slim/a_b", "expected a name of a-z, 0-9 and -"),
        ("slim/a/b", "expected a name of a-z, 0-9 and -"),
        ("/0", "expected the kind `slim`, got \"\""),
    ] {
        let text = with_top("").replace("slim/0", id);
        let found = parse(&text).expect_err(id);
        assert_eq!(found.len(), 1, "{found}");
        assert!(found.to_string().contains(message), "{found}");
    }
    for id in ["slim/0", "slim/", "slim/node-1"] {
        parse(&with_top("").replace("slim/0", id)).expect(id);
    }
}

#[test]
fn placeholders_that_cannot_be_replaced_name_place_and_source() {
    let text = r#"
runtime:
  thread_name: "${env:MISSING}"
  n_cores: ${env:NUMBER}
tracing:
  log_level: ${file:/missing}
  opentelemetry:
    service_name: ${vault:x}
    service_version: ${nothing}
    environment: ${env:NUMBER}${env:NUMBER}
"#;
    let sources = Fixed::default().with_variable("NUMBER", "12345678");
    let found = slim_config::parse("c.yaml", &with_top(text), &sources).expect_err("errors");
    let found: Vec<_> = found.errors().map(|e| (e.line, e.key.clone(), e.to_string())).collect();
    let expected = [
        (8, "runtime.thread_name", "\"${env:MISSING}\": expected the environment variable"),
        (9, "runtime.n_cores", "a placeholder always gives a text"),
        (11, "tracing.log_level", "\"${file:/missing}\": expected a readable file"),
        (11, "tracing.log_level", "expected one of"),
        (13, "tracing.opentelemetry.service_name", "expected `${env:NAME}` or `${file:/path}`"),
        (14, "tracing.opentelemetry.service_version", "expected `${env:NAME}`"),
        (15, "tracing.opentelemetry.environment", "expected one placeholder"),
    ];
    for ((line, key, message), found) in expected.iter().zip(&found) {
        assert_eq!((*line, *key), (found.0, found.1.as_str()), "{}", found.2);
        assert!(found.2.contains(message), "{}", found.2);
        assert!(!found.2.contains("12345678"), "{}", found.2);
    }
    assert_eq!(found.len(), expected.len(), "{found:?}");
}

#[test]
fn no_finding_shows_what_may_be_a_secret() {
    const SECRET: &str = "hunter2";
    for block in [
        format!("auth: {SECRET}"),
        format!("auth: {{basic: {SECRET}}}"),
        format!("auth: {{basic: {{username: a, password: [{SECRET}]}}}}"),
        format!("auth: {{bearer: {SECRET}}}"),
        format!("endpoint: \"http://u:{SECRET}@h:1\""),
        format!("endpoint: \"http://u:a/{SECRET}@h:1\""),
        format!("endpoint: \"u:{SECRET}@h:1\""),
        format!("proxy: {{url: \"http://u:{SECRET}@h:1\"}}"),
        format!("headers: {{a: \"{SECRET}\\n\"}}"),
        format!("headers: [{SECRET}]"),
        "endpoint: \"${env:SECRET}\"".to_owned(),
        "rate_limit: \"${env:SECRET}\"".to_owned(),
        "connect_timeout: \"${env:SECRET}\"".to_owned(),
    ] {
        let sources = Fixed::default().with_variable("SECRET", SECRET);
        let found = slim_config::parse("c.yaml", &with_client(&block), &sources);
        let found = found.expect_err(&block);
        assert!(!format!("{found} {found:?}").contains(SECRET), "{found}");
    }
}

#[test]
fn the_name_of_a_route_does_not_show_what_a_placeholder_stands_for() {
    let routes = "      routes: [{ name: \"${env:SECRET}\", via: \"http://a:1\" }]\n";
    let text = with_client("endpoint: \"http://a:1\"") + routes;
    for secret in ["hunter2", "org/ns/app/hunter2"] {
        let sources = Fixed::default().with_variable("SECRET", secret);
        let found = slim_config::parse("c.yaml", &text, &sources).expect_err("not a name");
        assert!(!format!("{found:?}").contains("hunter2"), "{found}");
        assert!(found.to_string().contains("that \"${env:SECRET}\" stands for"), "{found}");
    }
}
