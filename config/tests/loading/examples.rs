//! Every file of `examples/` loads, and says what it should.

use std::path::{Path, PathBuf};

use slim_config::{
    Auth, Config, Identity, Loaded, LogLevel, NamePattern, PolicyMode, PrincipalPattern, Profile,
    Quic, Secret, System, TextPattern, TokenSource,
};

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

fn loaded(name: &str) -> Loaded {
    slim_config::load(&folder().join(name)).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn every_example_loads() {
    let mut count = 0;
    for entry in folder().read_dir().expect("the folder") {
        let path = entry.expect("an entry").path();
        let is_controller = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"controller-"));
        let error = match is_controller {
            true => slim_config::controller::load(&path).err(),
            false => slim_config::load(&path).err(),
        };
        if let Some(error) = error {
            panic!("{error}");
        }
        count += 1;
    }
    assert!(count >= 9, "{count}");
}

#[test]
fn the_tutorials_load_without_a_warning_and_mean_the_same() {
    let [old, new] = ["tutorial-0.5.yaml", "tutorial-0.6.yaml"].map(loaded);
    for loaded in [&old, &new] {
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    }
    assert_eq!(old.config, new.config);
    let mut expected = Config::embedded("0.0.0.0:46357".parse().expect("an address"));
    expected.tracing.display_thread_ids = true;
    expected.runtime.thread_name = "slim-data-plane".into();
    assert_eq!(new.config, expected);
}

#[test]
fn the_controller_tutorial_loads_without_a_warning() {
    let Loaded { config, warnings, .. } = loaded("tutorial-0.6-controller.yaml");
    assert!(warnings.is_empty(), "{warnings}");
    let controller = &config.services[0].controller;
    let endpoint = controller.clients[0].endpoint.to_string();
    assert_eq!(endpoint, "http://host.docker.internal:50052");
    assert_eq!(controller.clients[0].tls, None);
    let secret = TokenSource::SharedSecret(Secret::new("secret"));
    assert_eq!(controller.token_provider, secret);
}

#[test]
fn a_server_that_asks_who_its_clients_are_loads_without_a_warning() {
    let Loaded { config, warnings, .. } = loaded("auth.yaml");
    assert!(warnings.is_empty(), "{warnings}");
    let server = &config.services[0].dataplane.servers[0];
    assert!(server.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()));
    assert!(matches!(server.auth, Auth::Jwt(_)));
}

#[test]
fn a_server_with_certificate_files_has_tls() {
    let Loaded { config, warnings, .. } = loaded("tls.yaml");
    assert!(warnings.is_empty(), "{warnings}");
    let tls = config.services[0].dataplane.servers[0].tls.as_ref();
    let identity = &tls.expect("TLS").identity;
    assert_eq!(
        *identity,
        Identity::Files {
            certificate: "/etc/slim/server.crt".into(),
            key: "/etc/slim/server.key".into(),
        }
    );
}

#[test]
fn a_hardened_node_names_who_may_use_what() {
    let Loaded { config, warnings, .. } = loaded("hardened.yaml");
    assert!(warnings.is_empty(), "{warnings}");
    assert_eq!((config.profile, config.policy.mode), (Profile::Hardened, PolicyMode::Enforce));
    let [agents, console, sensor, nobody] = &config.policy.rules[..] else {
        panic!("{:?}", config.policy);
    };
    let begin = "spiffe://acme.example/agents/";
    let certificate = PrincipalPattern::Certificate(TextPattern::Prefix(begin.into()));
    assert_eq!(agents.principal, certificate);
    assert_eq!(agents.publish, [NamePattern::Namespace(["acme".into(), "agents".into()])]);
    assert_eq!(agents.subscribe.len(), 2);
    assert_eq!(console.principal, PrincipalPattern::Token(TextPattern::Exact("console".into())));
    let name = "acme/operations/console".parse().expect("a name");
    assert_eq!(console.publish, [NamePattern::Name(name)]);
    assert!(sensor.subscribe.is_empty());
    assert_eq!(nobody.principal, PrincipalPattern::Nobody);
}

#[test]
fn the_reference_shows_the_defaults() {
    let Loaded { config, warnings, .. } = loaded("reference.yaml");
    let keys: Vec<_> = warnings.iter().map(|warning| warning.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "policy.rules",
            "services.slim/0.dataplane.clients[0].rate_limit",
            "services.slim/0.dataplane.clients[0].proxy",
            "services.slim/0.dataplane.clients[0].request_timeout",
            "services.slim/0.dataplane.clients[0].buffer_size",
        ]
    );
    let default = Config::embedded("0.0.0.0:46357".parse().expect("an address"));
    assert_eq!(config.tracing, default.tracing);
    assert_eq!(config.tracing.log_level, LogLevel::Info);
    assert_eq!(config.runtime, default.runtime);
    assert_eq!(config.limits, default.limits);
    assert_eq!(config.admin, default.admin);
    assert_eq!(config.profile, default.profile);
    assert_eq!(config.policy.mode, default.policy.mode);
    let (service, default) = (&config.services[0], &default.services[0]);
    assert_eq!(service.node_id, default.node_id);
    let (server, default) = (&service.dataplane.servers[0], &default.dataplane.servers[0]);
    assert_eq!(server.keepalive, default.keepalive);
    assert_eq!(Quic { exchange: None, ..server.quic }, default.quic);
    assert!(server.quic.exchanges(config.profile) && default.quic.exchanges(config.profile));
    assert_eq!(server.auth, Auth::None);
    assert_eq!(service.dataplane.routes[0].via, service.dataplane.clients[0].endpoint);
}

/// Keys that are read so that files which have them load, but do nothing; the reference leaves
/// them out.
const INEFFECTIVE: &[&str] = &[
    "ca_file",
    "ca_pem",
    "client_ca_file",
    "client_ca_pem",
    "compression",
    "connection_timeout",
    "filter",
    "http2_only",
    "max_connection_age_grace",
    "max_connection_idle",
    "permit_without_stream",
    "read_buffer_size",
    "reload_client_ca_file",
    "reload_interval",
    "token_verifier",
    "write_buffer_size",
];

/// `text` with a key that is not known before the first key of every mapping.
pub(crate) fn with_unknown_keys(text: &str) -> String {
    let mut out = String::new();
    let mut last_column = None;
    for line in text.lines() {
        let content = line.trim_start();
        if content.starts_with('#') || content.is_empty() {
            continue;
        }
        let item = content.starts_with("- ");
        let column = line.len() - content.len() + if item { 2 } else { 0 };
        if item || last_column.is_none_or(|last| last < column) {
            out += &format!("{}zzzzzzzzzzzz: 1\n", &line[..column]);
            out += &format!("{}{}\n", " ".repeat(column), &line[column..]);
        } else {
            out += &format!("{line}\n");
        }
        last_column = Some(column);
    }
    out
}

#[test]
fn the_reference_shows_every_key_that_has_an_effect() {
    let text = std::fs::read_to_string(folder().join("reference.yaml")).expect("the file");
    let text_with_unknown = with_unknown_keys(&text);
    let errors = slim_config::parse("reference.yaml", &text_with_unknown, &System);
    let errors = errors.expect_err("unknown keys");
    let mut places = 0;
    for hint in errors.errors().filter_map(|error| error.hint.as_deref()) {
        let Some(keys) = hint.strip_prefix("keys known here: ") else {
            continue;
        };
        places += 1;
        for key in keys.split(", ") {
            let shown = text.contains(&format!("{key}:"))
                || text.lines().any(|line| {
                    let is_comment = line.trim_start().starts_with('#');
                    is_comment && line.split_whitespace().any(|w| w.trim_matches([',', ';']) == key)
                });
            assert!(shown || INEFFECTIVE.contains(&key), "{key} is not shown");
        }
    }
    assert!(places > 20, "{places}");
}
