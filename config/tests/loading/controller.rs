//! Files of a controller: what loads, what it means, and what is refused.

use std::time::Duration;

use slim_config::controller::{ControllerConfig, Database, Loaded, Reconciler};
use slim_config::{
    Auth, Certificates, Diagnostics, Identity, LogLevel, Profile, ServerTls, System, TlsVersion,
};

use crate::examples::{folder, with_unknown_keys};
use crate::support::Fixed;

fn parse(text: &str) -> Result<Loaded, Diagnostics> {
    slim_config::controller::parse("c.yaml", text, &Fixed::default())
}

#[track_caller]
fn loaded(text: &str) -> Loaded {
    parse(text).unwrap_or_else(|found| panic!("{text}\n{found}"))
}

#[track_caller]
fn config(text: &str) -> ControllerConfig {
    loaded(text).config
}

/// The warnings about `text` as keys and messages.
fn warned(text: &str) -> Vec<(String, String)> {
    let warnings = loaded(text).warnings;
    warnings.iter().map(|warning| (warning.key.clone(), warning.message.clone())).collect()
}

/// Asserts that `found` has one error, with `message` and `hint` among its words.
#[track_caller]
fn assert_error(found: Result<Loaded, Diagnostics>, key: &str, message: &str, hint: &str) {
    let found = found.expect_err(message);
    let [error] = found.errors().collect::<Vec<_>>()[..] else {
        panic!("{found}");
    };
    assert_eq!(error.key, key, "{error}");
    assert!(error.message.contains(message), "{error}");
    let given = error.hint.as_deref().unwrap_or_default();
    assert!(given.contains(hint) && given.is_empty() == hint.is_empty(), "{error}");
}

fn example(name: &str) -> Loaded {
    let path = folder().join(name);
    slim_config::controller::load(&path).unwrap_or_else(|error| panic!("{error}"))
}

/// TLS of the files `/c` and `/k`.
fn tls(client_ca: Option<&str>) -> Option<ServerTls> {
    Some(ServerTls {
        identity: Identity::Files { certificate: "/c".into(), key: "/k".into() },
        client_ca: client_ca.map(|path| Certificates::File(path.into())),
        version: TlsVersion::Tls13,
    })
}

#[test]
fn a_controller_without_a_file_has_the_documented_ports() {
    let Loaded { config, warnings } = loaded("");
    assert!(warnings.is_empty(), "{warnings}");
    assert_eq!(config.northbound.address(), "localhost:50051");
    assert_eq!(config.southbound.address(), "localhost:50052");
    assert_eq!(config.log_level, LogLevel::Info);
    assert_eq!(config.reconciler, Reconciler::default());
    assert_eq!(config.database, Database::File("db/controlplane.redb".into()));
    assert_eq!((config.northbound.tls, config.northbound.auth), (None, Auth::None));
    assert_eq!(loaded("# nothing\n").config, loaded("northbound:\nlogging: {}\n").config);
}

#[test]
fn the_tutorial_means_the_same_however_it_is_indented() {
    let logging = |level: &str, by: &str| format!("{by}logging:\n{by}  level: {level}\n");
    let api = |name: &str, port: u16| format!("{name}:\n  httpHost: 0.0.0.0\n  httpPort: {port}\n");
    let mut seen = 0;
    for (first, reconciler, second) in ["  ", ""].into_iter().flat_map(|first| {
        ["", "  "].into_iter().flat_map(move |reconciler| {
            // Below `southbound`, below `reconciler`, or at the top.
            let below = format!("{reconciler}  ");
            ["  ".to_owned(), below, String::new()].map(|second| (first, reconciler, second))
        })
    }) {
        if first.is_empty() && second.is_empty() {
            // The same key twice.
            continue;
        }
        let mut text = api("northbound", 50051) + &logging("DEBUG", first);
        text += &api("southbound", 50052);
        text += "# number of node reconciler threads\n";
        text += &format!("{reconciler}reconciler:\n{reconciler}  threads: 3\n");
        text += &logging("INFO", &second);
        let Loaded { config, warnings } = loaded(&text);
        assert_eq!(config.northbound.address(), "0.0.0.0:50051", "{text}");
        assert_eq!(config.southbound.address(), "0.0.0.0:50052", "{text}");
        assert_eq!(config.reconciler.threads, 3, "{text}");
        let level = if first.is_empty() { LogLevel::Debug } else { LogLevel::Info };
        assert_eq!(config.log_level, level, "{text}");
        let [warning] = warnings.iter().collect::<Vec<_>>()[..] else {
            panic!("{text}\n{warnings}");
        };
        assert!(warning.message.contains("has no effect"), "{warning}");
        seen += 1;
    }
    assert_eq!(seen, 10);
}

#[test]
fn the_example_of_the_tutorial_is_that_of_the_documents() {
    let Loaded { config, warnings } = example("controller-tutorial-0.6.yaml");
    let keys: Vec<_> = warnings.iter().map(|warning| &warning.key).collect();
    assert_eq!(keys, ["northbound.logging.level"]);
    let mut expected = loaded("").config;
    expected.northbound.host = "0.0.0.0".into();
    expected.southbound.host = "0.0.0.0".into();
    assert_eq!(config, expected);
    let text = std::fs::read_to_string(folder().join("controller-tutorial-0.6.yaml"));
    let text = text.expect("the file");
    let lines: Vec<_> = text.lines().skip(2).map(str::trim).filter(|l| !l.is_empty()).collect();
    assert_eq!(lines, TUTORIAL.lines().collect::<Vec<_>>());
}

/// The lines of the document, whose indentation is lost.
const TUTORIAL: &str = "northbound:
httpHost: 0.0.0.0
httpPort: 50051
logging:
level: DEBUG
southbound:
httpHost: 0.0.0.0
httpPort: 50052
# number of node reconciler threads
reconciler:
threads: 3
logging:
level: INFO";

#[test]
fn the_reference_shows_the_defaults_and_every_key() {
    let Loaded { config, warnings } = example("controller-reference.yaml");
    assert!(warnings.is_empty(), "{warnings}");
    assert_eq!(config, loaded("").config);
    let name = "controller-reference.yaml";
    let text = std::fs::read_to_string(folder().join(name)).expect("the file");
    let unknown = with_unknown_keys(&text);
    let errors = slim_config::controller::parse(name, &unknown, &System).expect_err("unknown keys");
    let mut places = 0;
    // The keys of a client block are shown by the node's reference.
    let own = errors.errors().filter(|error| !error.key.starts_with("opentelemetry.grpc"));
    for hint in own.filter_map(|error| error.hint.as_deref()) {
        let keys = hint.strip_prefix("keys known here: ").expect("no key is near");
        places += 1;
        for key in keys.split(", ") {
            let words = || text.split(|c: char| !c.is_alphanumeric() && c != '_');
            let of_clients = ["insecure_skip_verify", "include_system_ca_certs_pool"];
            let of_nodes = ["ca_file", "ca_pem", "reload_client_ca_file", "reload_interval"];
            let ineffective = of_clients.contains(&key) || of_nodes.contains(&key);
            assert!(ineffective || words().any(|word| word == key), "{key} is not shown");
        }
    }
    assert_eq!(places, 9);
}

#[test]
fn the_hardened_example_asks_both_sides() {
    let Loaded { config, warnings } = example("controller-hardened.yaml");
    assert!(warnings.is_empty(), "{warnings}");
    assert_eq!(config.profile, Profile::Hardened);
    assert!(matches!(config.northbound.auth, Auth::Jwt(_)));
    assert!(config.southbound.tls.is_some_and(|tls| tls.client_ca.is_some()));
}

#[test]
fn ports_are_numbers_or_texts() {
    for (port, expected) in [("50051", 50051), ("\"7\"", 7), ("'0'", 0), ("65535", 65535)] {
        let text = format!("northbound: {{ httpPort: {port} }}");
        assert_eq!(config(&text).northbound.port, expected, "{text}");
    }
    for port in ["65536", "-1", "\"\"", "\"http\"", "true", "[1]"] {
        let text = format!("northbound: {{ httpPort: {port} }}");
        assert_error(parse(&text), "northbound.httpPort", "a port from 0 to 65535", "");
    }
}

#[test]
fn hosts_are_names_or_addresses() {
    for (host, address, loopback) in [
        ("localhost", "localhost:50051", true),
        ("LOCALHOST", "LOCALHOST:50051", true),
        ("0.0.0.0", "0.0.0.0:50051", false),
        ("127.0.0.2", "127.0.0.2:50051", true),
        ("\"::\"", "[::]:50051", false),
        ("\"[::1]\"", "[::1]:50051", true),
        ("\"::ffff:127.0.0.1\"", "[::ffff:127.0.0.1]:50051", true),
        ("control-plane.example", "control-plane.example:50051", false),
    ] {
        let api = config(&format!("northbound: {{ httpHost: {host} }}")).northbound;
        assert_eq!((api.address().as_str(), api.is_loopback()), (address, loopback));
    }
    let refused = |host: &str, hint: &str| {
        let found = parse(&format!("southbound: {{ httpHost: {host} }}"));
        assert_error(found, "southbound.httpHost", "an IP address or a host name", hint);
    };
    refused("\"\"", "0.0.0.0");
    refused("\"0.0.0.0:50051\"", "httpPort");
    refused("\"http://localhost\"", "without scheme");
    refused("\"[localhost]\"", "without scheme");
}

#[test]
fn unknown_keys_are_named_with_the_nearest() {
    assert_error(parse("northbond: {}"), "northbond", "unknown key", "did you mean `northbound`?");
    let text = "southbound:\n  httphost: 0.0.0.0\n";
    let found = parse(text).expect_err("an error");
    assert_eq!(
        found.to_string(),
        "c.yaml:2:3: southbound.httphost: unknown key\n  help: did you mean `httpHost`?"
    );
    let text = "database: { path: x }";
    assert_error(parse(text), "database.path", "unknown key", "keys known here: type, filePath");
    assert_error(parse("- a"), "", "a mapping", "");
}

#[test]
fn all_errors_are_reported_in_one_run() {
    let text = "\
northbound: { httpPort: x, logging: { level: loud }, reconciler: { threads: 0 } }
southbound: { tls: { certFile: /c }, auth: { oidc: {} } }
database: { type: sqlite }
reconciler: { maxRequeues: many }
";
    let found = parse(text).expect_err("errors");
    let keys: Vec<_> = found.errors().map(|error| error.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "northbound.httpPort",
            "northbound.logging.level",
            "northbound.reconciler.threads",
            "southbound.tls.keyFile",
            "southbound.tls.caFile",
            "southbound.auth.oidc",
            "database.type",
            "reconciler.maxRequeues",
        ]
    );
}

#[test]
fn tls_of_the_documented_form_asks_for_certificates() {
    let text = "northbound: { tls: { useSpiffe: false, certFile: /c, keyFile: /k, caFile: /a } }";
    assert_eq!(config(text).northbound.tls, tls(Some("/a")));
    assert_error(
        parse("northbound: { tls: { certFile: /c, keyFile: /k } }"),
        "northbound.tls.caFile",
        "required, but not given",
        "without that",
    );
    assert_error(
        parse("northbound: { tls: { certFile: /c, keyFile: /k, caFile: /a, ca_file: /a } }"),
        "northbound.tls.ca_file",
        "unknown key",
        "did you mean `caFile`?",
    );
}

#[test]
fn tls_of_the_nodes_form_can_do_without() {
    let text = "southbound: { tls: { cert_file: /c, key_file: /k } }";
    assert_eq!(config(text).southbound.tls, tls(None));
    let text = "southbound: { tls: { cert_file: /c, key_file: /k, client_ca_file: /a } }";
    assert_eq!(config(text).southbound.tls, tls(Some("/a")));
    assert_eq!(config("southbound: { tls: { insecure: true } }").southbound.tls, None);
    let empty = parse("southbound: { tls: {} }");
    assert_error(empty, "southbound.tls", "expected a certificate and a key", "cert_file");
}

#[test]
fn certificates_of_an_agent_are_refused_in_words() {
    let text = "southbound: { tls: { useSpiffe: true }, spire: { socketPath: unix:///run/a } }";
    let message = "certificates of a SPIRE agent are not supported";
    assert_error(parse(text), "southbound.tls.useSpiffe", message, "`certFile`");
    let text = "southbound: { spire: { socketPath: unix:///run/a } }";
    let message = "has no effect: certificates are read from files".to_owned();
    assert_eq!(warned(text), [("southbound.spire".to_owned(), message)]);
}

#[test]
fn auth_is_that_of_a_node() {
    let text = "northbound: { auth: { basic: { username: u, password: p } } }";
    assert!(matches!(config(text).northbound.auth, Auth::Basic { .. }));
    let [(key, message)] = &warned(text)[..] else { panic!("one warning") };
    assert_eq!(key, "northbound.auth");
    assert!(message.contains("there is no TLS"), "{message}");
    assert_eq!(config("southbound: { auth: none }").southbound.auth, Auth::None);
}

#[test]
fn levels_have_the_words_of_the_release() {
    for (word, level) in [
        ("TRACE", LogLevel::Trace),
        ("Debug", LogLevel::Debug),
        ("info", LogLevel::Info),
        ("Warn", LogLevel::Warn),
        ("ERROR", LogLevel::Error),
        ("fatal", LogLevel::Error),
        ("Panic", LogLevel::Error),
    ] {
        assert_eq!(config(&format!("logging: {{ level: {word} }}")).log_level, level);
    }
    assert_error(parse("logging: { level: inf }"), "logging.level", "one of", "`info`");
}

#[test]
fn of_several_blocks_the_outermost_decides() {
    let text = "northbound: { logging: { level: warn }, reconciler: { threads: 9 } }";
    let northbound = config(text);
    assert_eq!((northbound.log_level, northbound.reconciler.threads), (LogLevel::Warn, 9));
    assert!(warned(text).is_empty());
    let text = format!("{text}\nsouthbound: {{ logging: {{ level: warn }} }}\n");
    assert!(warned(&text).is_empty(), "they agree");
    let text = format!("{text}reconciler: {{ threads: 4, logging: {{ level: error }} }}\n");
    let top = config(&text);
    assert_eq!((top.log_level, top.reconciler.threads), (LogLevel::Error, 4));
    let by_level = "has no effect: `reconciler.logging.level` decides";
    let expected = [
        ("northbound.logging.level", by_level),
        ("northbound.reconciler", "has no effect: `reconciler` decides"),
        ("southbound.logging.level", by_level),
    ];
    let expected = expected.map(|(key, message)| (key.to_owned(), message.to_owned()));
    assert_eq!(warned(&text), expected);
}

#[test]
fn nodes_are_swept_and_forgotten_as_often_as_told() {
    let text = "reconciler: { sweepPeriod: 5s, forgetNodesAfter: 1d }";
    let read = config(text).reconciler;
    assert_eq!(read.sweep, Duration::from_secs(5));
    assert_eq!(read.forget_nodes_after, Some(Duration::from_secs(24 * 60 * 60)));
    let warnings = warned("reconciler: { maxRequeues: 0 }");
    assert_eq!(warnings[0].0, "reconciler.maxRequeues");
}

#[test]
fn the_later_name_of_threads_is_read() {
    let later = config("reconciler: { maxNumOfParallelReconciles: 1000 }");
    assert_eq!(later.reconciler, Reconciler { threads: 1000, ..Reconciler::default() });
    let both = "reconciler: { threads: 2, maxNumOfParallelReconciles: 1000 }";
    assert_eq!(config(both).reconciler.threads, 2);
    let message = "has no effect: `threads` decides".to_owned();
    assert_eq!(warned(both), [("reconciler.maxNumOfParallelReconciles".to_owned(), message)]);
}

#[test]
fn a_database_is_a_file_or_none() {
    let database = |block: &str| parse(&format!("database: {block}"));
    let of = |block: &str| database(block).expect(block).config.database;
    assert_eq!(of("{ filePath: /var/x.db }"), Database::File("/var/x.db".into()));
    assert_eq!(of("{ type: file, filePath: x }"), Database::File("x".into()));
    assert_eq!(of("{}"), Database::default());
    assert_eq!(of("{ type: in_memory }"), Database::InMemory);
    let both = database("{ type: in_memory, filePath: x }");
    assert_error(both, "database", "leaves nothing to keep", "one of the two");
    assert_error(database("{ type: sqlite }"), "database.type", "`file`, `in_memory`", "");
}

#[test]
fn two_apis_need_two_addresses() {
    let text = "southbound: { httpPort: 50051 }";
    let message = "expected an address of its own";
    assert_error(parse(text), "southbound.httpPort", message, "another port");
    let free = "northbound: { httpPort: 0 }\nsouthbound: { httpPort: 0 }\n";
    assert_eq!(config(free).southbound.port, 0);
}

#[test]
fn variables_come_before_the_file() {
    let text = "northbound: { httpHost: 127.0.0.1, httpPort: 1 }\nlogging: { level: warn }\n";
    let parse = |sources: Fixed| slim_config::controller::parse("c.yaml", text, &sources);
    let sources = Fixed::default()
        .with_variable("NB_API_HTTP_HOST", "0.0.0.0")
        .with_variable("NB_API_HTTP_PORT", "2")
        .with_variable("SB_API_HTTP_HOST", "::1")
        .with_variable("SB_API_HTTP_PORT", "")
        .with_variable("API_LOG_LEVEL", "Debug");
    let config = parse(sources).expect("a configuration").config;
    assert_eq!(config.northbound.address(), "0.0.0.0:2");
    assert_eq!(config.southbound.address(), "[::1]:50052");
    assert_eq!(config.log_level, LogLevel::Debug);

    let wrong = Fixed::default()
        .with_variable("SB_API_HTTP_PORT", "many")
        .with_variable("API_LOG_LEVEL", "loud");
    let found = parse(wrong).expect_err("two errors");
    let errors: Vec<_> = found.errors().map(|e| (&*e.file, e.key.as_str())).collect();
    assert_eq!(errors, [("environment", "SB_API_HTTP_PORT"), ("environment", "API_LOG_LEVEL")]);
    assert!(found.to_string().contains("got the text \"many\""), "{found}");
}

#[test]
fn placeholders_are_replaced_and_not_shown() {
    let sources = Fixed::default().with_variable("PORT", "7").with_variable("HOST", "s3cret host");
    let text = "southbound: { httpHost: 127.0.0.1, httpPort: \"${env:PORT}\" }";
    let loaded = slim_config::controller::parse("c.yaml", text, &sources).expect("a port");
    assert_eq!(loaded.config.southbound.port, 7);
    let text = "southbound: { httpHost: \"${env:HOST}\" }";
    let found = slim_config::controller::parse("c.yaml", text, &sources).expect_err("a host");
    assert!(!found.to_string().contains("s3cret"), "{found}");
}

#[test]
fn a_hardened_controller_is_open_to_nobody_from_outside() {
    let hardened = |rest: &str| parse(&format!("profile: hardened\n{rest}"));
    assert_eq!(hardened("").expect("loopback").config.profile, Profile::Hardened);
    let plain = hardened("northbound: { httpHost: 0.0.0.0 }");
    assert_error(plain, "northbound.tls", "`profile: hardened`", "cert_file");
    let nobody =
        hardened("southbound: { httpHost: 0.0.0.0, tls: { cert_file: /c, key_file: /k } }");
    let key = "southbound.tls.client_ca_file";
    assert_error(nobody, key, "neither it nor `auth` is given", "signs");
    let sources = Fixed::default().with_variable("SB_API_HTTP_HOST", "::");
    let moved = slim_config::controller::parse("c.yaml", "profile: hardened", &sources);
    assert_error(moved, "southbound.tls", "other machines reach", "localhost");
}
