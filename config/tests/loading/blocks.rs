//! Server and client blocks: what is wrong with one, and what is refused.

use crate::support::{parse, with_client, with_server};

/// What a block adds to a valid one, and of the only error: the key within the block, a part of
/// the message, and a part of the hint. A part that is empty is not compared.
const SERVERS: &str = r#"
endpoint: 46357, tls: {insecure: true} => .endpoint => a text, got the number => quotes
endpoint: "1.2.3.4", tls: {insecure: true} => .endpoint => "IP:port" => write 0.0.0.0:46357
endpoint: "http://0.0.0.0:1", tls: {insecure: true} => .endpoint => "IP:port" => write 0.0.0.0:1
endpoint: "a.example:9", tls: {insecure: true} => .endpoint => "IP:port" => write 0.0.0.0:9
endpoint: "localhost:9", tls: {insecure: true} => .endpoint => "IP:port" => write 127.0.0.1:9
tls: {insecure: true} => .endpoint => required =>
endpoint: "127.0.0.1:46359", tls: {insecure: true} => .endpoint => taken by `admin` => port
endpoint: "1.2.3.4:5" => .tls => required => `insecure: true` to serve without
@ => .tls => got none => `cert_file` and `key_file`
@ cert_file: a => .tls.key_file => required => two files
@ key_pem: a => .tls.cert_pem => required => two texts
@ cert_file: a, key_pem: b => .tls => got `cert_file`, `key_pem` =>
@ cert_file: a, key_file: b, cert_pem: c => .tls => got `cert_file`, `key_file`, `cert_pem` =>
@ cert_file: a, key_file: b, tls_version: "1.3" => .tls.tls_version => `tls1.2`, `tls1.3` => `tls1.3`?
@ cert_file: "-----BEGIN", key_file: b => .tls.cert_file => its content => PEM
@ cert_fil: a, key_file: b => .tls.cert_fil => unknown key => did you mean `cert_file`?
@ source: {type: file} => .tls.source => since 0.7 => use `cert_file` and `key_file`
@ insecure: true, client_ca_file: c => .tls => `insecure: true` leaves nobody => remove `insecure`
@ insecure: true, ca_source: {} => .tls.ca_source => since 0.7 => use `client_ca_file`
@ insecure: !x true => .tls.insecure => expected no tag => remove the tag
& max_frame_size: 16 => .max_frame_size => from 1 to 15 =>
& max_header_list_size: 16.5 => .max_header_list_size => a whole number =>
& keepalive: {time: 0s} => .keepalive.time => at least 100ms =>
& keepalive: {time: 400d} => .keepalive.time => one year =>
& keepalive: {time: 5 parsecs} => .keepalive.time => a duration => a unit
& quic: {mtu: 1100} => .quic.mtu => from 1200 to 65000 =>
& quic: {idle_timeout: "30"} => .quic.idle_timeout => a duration => `30s` or `30ms`
& quic: {congestion: bbr2} => .quic.congestion => one of `cubic`, `bbr` => did you mean `bbr`?
& quic: {exchange: maybe} => .quic.exchange => `true` or `false` =>
& quic: on => .quic => a mapping, got a text =>
& http2_only: 1 => .http2_only => `true` or `false` =>
& metadata: {a: [1, ~]} => .metadata.a[1] => got nothing =>
& auth: {type: basic, username: a} => .auth.type => since 0.7 => as key
& auth: {oidc: {}} => .auth.oidc => unknown key => keys known here: basic, jwt
& auth: {static_jwt: {}} => .auth.static_jwt => unknown key => keys known here: basic, jwt
& auth: basic => .auth => `none` or a mapping with one of `basic`, `jwt`, got a text =>
& auth: {jwt: {key: {autoresolve: true}}} => .auth.jwt => expected `claims.issuer` => name the issuer
& auth: {jwt: {key: {type: x}}} => .auth.jwt.key.type => since 0.7 => `decoding`
& routes: [] => .routes => unknown key => keys known here: endpoint, tls
"#;

/// As [`SERVERS`], for client blocks.
const CLIENTS: &str = r#"
endpoint: "host:46357" => .endpoint => `http://host:port` => put a scheme before it
endpoint: "unix:///tmp/x" => .endpoint => `http://host:port` => 
endpoint: "ws://host:1" => .endpoint => `http://host:port` => not supported yet
endpoint: "quic://host" => .endpoint => `quic://host:port` => a port from 1 to 65535
endpoint: "http://host:0" => .endpoint => `http://host:port` => a port from 1 to 65535
endpoint: "http://host:99999" => .endpoint => `http://host:port` =>
endpoint: "http://host:1/path" => .endpoint => `http://host:port` => remove what follows
endpoint: "http://u:p@host:1" => .endpoint => without user name => `auth.basic`
& rate_limit: "20" => .rate_limit => `count/seconds` =>
& rate_limit: "0/1" => .rate_limit => `count/seconds` =>
& rate_limit: 20 => .rate_limit => `count/seconds` =>
& compression: gzip => .compression => one of `Gzip` => did you mean `Gzip`?
& connect_timeout: 5 => .connect_timeout => a duration => `5s` or `5ms`
& request_timeout: "" => .request_timeout => a duration => a unit
& keepalive: {timeout: 0s} => .keepalive.timeout => above zero =>
& headers: {"a b": c} => .headers."a b" => HTTP header =>
& headers: {a: "b\n"} => .headers.a => printable ASCII =>
& headers: {a: 1} => .headers.a => a text, got a number => quotes
& tls: {ca_file: a, ca_pem: b} => .tls => got both => one of the two
& tls: {cert_file: a} => .tls.key_file => required => two files
& tls: {ca_source: {}} => .tls.ca_source => since 0.7 => use `ca_file` or `ca_pem`
& auth: {type: x} => .auth.type => since 0.7 => as key
& auth: {bearer: {}} => .auth.bearer.token => required =>
& auth: {static_jwt: {file: a, duration: 1h}} => .auth.static_jwt.duration => a whole number =>
& auth: {jwt: {key: {autoresolve: true}}} => .auth.jwt.key.autoresolve => unknown key => encoding
& proxy: {url: "socks://p"} => .proxy.url => `http://host:port` or `https://host:port` =>
& origin: host => .origin => `http://host:port` =>
& backoff: {} => .backoff => unknown key => keys known here
"#;

fn assert_table(table: &str, valid: &str, base: &str, file: fn(&str) -> String) {
    for row in table.lines().filter(|row| !row.is_empty()) {
        let parts: Vec<_> = row.split("=>").map(str::trim).collect();
        let [block, key, message, hint] = parts[..] else {
            panic!("{row}");
        };
        let block = match (block.strip_prefix('&'), block.strip_prefix('@')) {
            (Some(rest), _) => format!("{valid}, {rest}"),
            (_, Some(tls)) => format!("endpoint: \"1.2.3.4:5\", tls: {{ {tls} }}"),
            _ => block.to_owned(),
        };
        let found = parse(&file(&block)).expect_err(row);
        let errors: Vec<_> = found.errors().collect();
        let [error] = errors[..] else {
            panic!("{row}\n{found}");
        };
        assert_eq!(error.key, format!("{base}{key}"), "{error}");
        assert!(error.message.contains(message), "{row}\n{error}");
        let given = error.hint.as_deref().unwrap_or_default();
        assert!(given.contains(hint), "{row}\n{error}");
    }
}

#[test]
fn errors_of_server_blocks() {
    let valid = "endpoint: \"1.2.3.4:5\", tls: {insecure: true}";
    let base = "services.slim/0.dataplane.servers[0]";
    assert_table(SERVERS, valid, base, with_server);
}

#[test]
fn errors_of_client_blocks() {
    let base = "services.slim/0.dataplane.clients[0]";
    assert_table(CLIENTS, "endpoint: \"http://h:1\"", base, with_client);
}

#[test]
fn clients_that_reach_the_same_place_are_refused() {
    let text = with_client("endpoint: \"http://h:80\"");
    let text = format!("{text}        - {{ endpoint: \"http://H/\" }}\n");
    let found = parse(&text).expect_err("the same endpoint");
    let error = found.errors().next().expect("one");
    assert_eq!(error.key, "services.slim/0.dataplane.clients[1].endpoint");
    assert!(error.message.contains("got http://h:80 again"), "{error}");
}

#[test]
fn what_a_server_asks_of_clients_is_read_or_refused() {
    const PLAIN: &str = "endpoint: \"1.2.3.4:5\", tls: {insecure: true}";
    let server = |block: &str| {
        let loaded = parse(&with_server(block)).unwrap_or_else(|found| panic!("{block}\n{found}"));
        (loaded.config.services[0].dataplane.servers[0].clone(), loaded.warnings)
    };
    for auth in [
        "{basic: {username: a, password: b}}",
        "{jwt: {claims: {audience: a}, key: {decoding: {algorithm: ES256, pem: k}}}}",
        "{jwt: {claims: {audience: [a]}, key: {decoding: {algorithm: ES256, format: jWKS, str: k}}}}",
        "{jwt: {claims: {issuer: \"https://i\"}, key: {autoresolve: true}}}",
    ] {
        let (server, warnings) = server(&format!("{PLAIN}, auth: {auth}"));
        assert_ne!(server.auth, slim_config::Auth::None, "{auth}");
        assert_eq!(warnings.len(), 0, "{warnings}");
    }
    let custom =
        "{jwt: {claims: {custom_claims: {a: b}}, key: {decoding: {algorithm: ES256, pem: k}}}}";
    let (_, warnings) = server(&format!("{PLAIN}, auth: {custom}"));
    assert!(warnings.to_string().contains("custom_claims` has no effect"), "{warnings}");
    for auth in [
        "{basic: {username: a}}",
        "{basic: {username: a, password: \"\"}}",
        "{basic: {username: a, password: b}, jwt: {key: {autoresolve: true}}}",
        "{jwt: {key: {autoresolve: false}}}",
        "{jwt: {key: {autoresolve: true}}}",
        "{jwt: {key: {encoding: {algorithm: ES256, str: k}}}}",
        "{jwt: {key: {decoding: {algorithm: ES255, str: k}}}}",
        "{jwt: {key: {decoding: {algorithm: ES256, str: k, file: f}}}}",
        "{jwt: {key: {decoding: {algorithm: ES256}}}}",
        "{jwt: {claims: {audience: 1}, key: {autoresolve: true}}}",
        "{}",
        "basic",
    ] {
        let refused = parse(&with_server(&format!("{PLAIN}, auth: {auth}")));
        assert!(refused.is_err(), "{auth}");
    }
    let tls = "tls: {cert_file: a, key_file: b, client_ca_file: c}";
    let (server, warnings) = server(&format!("endpoint: \"1.2.3.4:5\", {tls}"));
    assert!(server.tls.is_some_and(|tls| tls.client_ca.is_some()));
    assert_eq!(warnings.len(), 0, "{warnings}");
}
