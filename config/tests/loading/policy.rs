//! Who may use which names: what is read, and what is refused.

use slim_config::{
    Loaded, NamePattern, Policy, PolicyMode, PrincipalPattern, Profile, TextPattern,
};

use crate::support::{Fixed, parse, with_server, with_top};

#[track_caller]
fn loaded(text: &str) -> Loaded {
    parse(text).unwrap_or_else(|found| panic!("{text}\n{found}"))
}

/// The warnings about `text` as keys and messages.
fn warned(text: &str) -> Vec<(String, String)> {
    let warnings = loaded(text).warnings;
    warnings.iter().map(|warning| (warning.key.clone(), warning.message.clone())).collect()
}

/// A file whose policy is enforced and has `rules`, in flow form without the brackets.
fn with_rules(rules: &str) -> String {
    with_top(&format!("policy:\n  mode: enforce\n  rules: [{rules}]"))
}

/// A file whose only rule lets everybody subscribe to `names`, in flow form.
fn with_names(names: &str) -> String {
    with_rules(&format!("{{principal: anyone, subscribe: {names}}}"))
}

fn names(list: &str) -> Vec<NamePattern> {
    loaded(&with_names(list)).config.policy.rules.remove(0).subscribe
}

fn principal(text: &str) -> PrincipalPattern {
    let rule = format!("{{principal: {text:?}, subscribe: [\"*\"]}}");
    loaded(&with_rules(&rule)).config.policy.rules.remove(0).principal
}

/// Asserts that `text` has one error, with `message` and `hint` among its words.
#[track_caller]
fn assert_error(text: &str, key: &str, message: &str, hint: &str) {
    let found = parse(text).expect_err(text);
    let [error] = found.errors().collect::<Vec<_>>()[..] else {
        panic!("{text}\n{found}");
    };
    assert_eq!(error.key, key, "{error}");
    assert!(error.message.contains(message), "{error}");
    let given = error.hint.as_deref().unwrap_or_default();
    assert!(given.contains(hint) && given.is_empty() == hint.is_empty(), "{error}");
}

#[test]
fn a_file_that_says_nothing_is_compatible_and_open() {
    let config = loaded(&with_top("")).config;
    assert_eq!((config.profile, config.policy), (Profile::Compat, Policy::default()));
    assert_eq!(loaded(&with_top("profile: compat")).config.policy.mode, PolicyMode::Open);
}

#[test]
fn who_may_publish_as_nothing_else_says_is_who_may_subscribe() {
    let names = |list: &str| names(&format!("[{list}]"));
    let rules = loaded(&with_rules(
        "{principal: anyone, subscribe: [a/b/c]}, {principal: nobody, publish: [a/*]}, \
         {principal: 'basic:x', subscribe: [a/b/c], publish: []}, \
         {principal: 'basic:y', subscribe: [a/b/c], publish: [a/b/c, '*']}",
    ))
    .config
    .policy
    .rules;
    let rules: Vec<_> = rules.into_iter().map(|rule| (rule.subscribe, rule.publish)).collect();
    assert_eq!(
        rules,
        [
            (names("a/b/c"), names("a/b/c")),
            (vec![], names("a/*")),
            (names("a/b/c"), vec![]),
            (names("a/b/c"), names("a/b/c, '*'")),
        ]
    );
}

#[test]
fn names_are_read_down_to_the_id_or_to_a_star() {
    let name = |text: &str| NamePattern::Name(text.parse().expect("a name"));
    assert_eq!(
        names("['*', org/*, ' org / ns / * ', org/ns/app, org/ns/app/7]"),
        [
            NamePattern::Everything,
            NamePattern::Organization("org".into()),
            NamePattern::Namespace(["org".into(), "ns".into()]),
            name("org/ns/app"),
            name("org/ns/app/7"),
        ]
    );
}

#[test]
fn principals_have_a_kind_and_a_text_or_what_it_begins_with() {
    let exact = |text: &str| TextPattern::Exact(text.into());
    let prefix = |text: &str| TextPattern::Prefix(text.into());
    for (text, expected) in [
        ("anyone", PrincipalPattern::Anyone),
        ("nobody", PrincipalPattern::Nobody),
        ("basic:robot", PrincipalPattern::Basic(exact("robot"))),
        ("token:https://issuer/a:b", PrincipalPattern::Token(exact("https://issuer/a:b"))),
        ("token:*", PrincipalPattern::Token(prefix(""))),
        ("certificate:O=Acme, CN=a b", PrincipalPattern::Certificate(exact("O=Acme, CN=a b"))),
        (
            "certificate:spiffe://example.org/agents/*",
            PrincipalPattern::Certificate(prefix("spiffe://example.org/agents/")),
        ),
        ("certificate:spiffe://*", PrincipalPattern::Certificate(prefix("spiffe://"))),
    ] {
        assert_eq!(principal(text), expected, "{text}");
    }
}

#[test]
fn names_that_are_none_are_refused_with_what_to_write() {
    let list = "policy.rules[0].subscribe";
    let last = "it is the last one";
    let long = format!("{}/*", "x".repeat(1025));
    for (name, message, hint) in [
        ("org", "got the text \"org\"", "add `/*`"),
        ("org/ns", "expected `org/namespace/app`", "add `/*`"),
        ("org/*/app", "expected `org/namespace/app`", last),
        ("org/*/*", "expected `org/namespace/app`", last),
        ("*/ns/app", "expected `org/namespace/app`", last),
        ("org/ns/ap*", "expected `org/namespace/app`", last),
        ("**", "expected `org/namespace/app`", last),
        ("org/ns/app/*", "expected `org/namespace/app`", "covers all its ids"),
        ("org/ns/app/ff", "with a decimal id", ""),
        ("org/ns/app/18446744073709551615", "with a decimal id", ""),
        ("org/ns/app/1/2", "expected `org/namespace/app`", ""),
        ("org/ns/app/1/*", "expected `org/namespace/app`", ""),
        ("/*", "expected `org/namespace/app`", ""),
        ("org//*", "expected `org/namespace/app`", ""),
        ("org/ /app", "expected `org/namespace/app`", ""),
        (&long, "organization of a name: expected at most 1024 bytes, got 1025", ""),
    ] {
        let key = format!("{list}[0]");
        assert_error(&with_names(&format!("[{name:?}]")), &key, message, hint);
    }
    let twice = with_names("[org/*, org/ns/app, ' org/ns / app']");
    assert_error(&twice, &format!("{list}[2]"), "expected each name once", "remove");
    assert_error(&with_names("org/*"), list, "expected a list", "");
}

#[test]
fn principals_that_are_none_are_refused_with_what_to_write() {
    for (text, message, hint) in [
        ("spiffe://example.org/a", "expected `certificate:`", "`certificate:spiffe://…`"),
        ("certifcate:a", "expected `certificate:`", "did you mean `certificate:`?"),
        ("Basic:a", "expected `certificate:`", "did you mean `basic:`?"),
        ("anybody", "expected `certificate:`", "did you mean `nobody`?"),
        ("anyone:x", "expected `certificate:`", "did you mean `anyone`?"),
        ("*", "expected `certificate:`", "write `anyone`"),
        ("node:7", "got the text \"node:7\"", ""),
        ("", "not empty", ""),
        ("basic:", "expected a text behind the kind", "`*` alone"),
        ("basic: a", "without spaces around", ""),
        ("basic:*a", "`*` at most once, as its last character", ""),
        ("basic:a**", "`*` at most once, as its last character", ""),
        ("certificate:spiffe://example.org*", "a whole trust domain", "write `/` before"),
        ("token:spiffe://exa*", "a whole trust domain", "write `/` before"),
    ] {
        let rule = format!("{{principal: {text:?}, subscribe: [\"*\"]}}");
        assert_error(&with_rules(&rule), "policy.rules[0].principal", message, hint);
    }
}

#[test]
fn two_rules_for_one_principal_are_refused_with_the_line_of_the_first() {
    let text = with_top(
        "policy:\n  mode: enforce\n  rules:\n    - {principal: 'basic:a', subscribe: [a/*]}\n    \
         - {principal: 'token:a', subscribe: [a/*]}\n    - {principal: 'basic:a', publish: [b/*]}",
    );
    let hint = "add its names to the rule of line 9";
    let message = "expected a principal that has no rule yet, got the text \"basic:a\"";
    assert_error(&text, "policy.rules[2].principal", message, hint);
}

#[test]
fn rules_are_complete_and_have_no_other_keys() {
    let rule = "policy.rules[0]";
    let none = "expected names in `subscribe` or `publish`, got none";
    for block in ["", "subscribe: []", "subscribe: ~", "publish: []", "subscribe: [], publish: []"]
    {
        let text = with_rules(&format!("{{principal: anyone, {block}}}"));
        assert_error(&text, rule, none, "or remove the rule");
    }
    for (block, key, message, hint) in [
        ("{subscribe: ['*']}", ".principal", "required, but not given", ""),
        ("{princpal: anyone, publish: ['*']}", ".princpal", "unknown key", "`principal`?"),
        ("{principal: anyone, subscibe: ['*']}", ".subscibe", "unknown key", "`subscribe`?"),
        ("{principal: anyone, names: ['*']}", ".names", "unknown key", "subscribe, publish"),
        ("anyone", "", "expected a mapping", ""),
    ] {
        assert_error(&with_rules(block), &format!("{rule}{key}"), message, hint);
    }
    assert_error(
        &with_top("policy: {mode: enforced, rules: []}"),
        "policy.mode",
        "one of `open`, `observe`, `enforce`",
        "did you mean `enforce`?",
    );
    assert_error(&with_top("profile: hard"), "profile", "one of `compat`, `hardened`", "hardened");
}

#[test]
fn rules_without_a_mode_are_refused_and_rules_of_an_open_node_are_a_warning() {
    let rules = "rules: [{principal: anyone, subscribe: ['*']}]";
    let text = with_top(&format!("policy: {{{rules}}}"));
    assert_error(&text, "policy.mode", "required, but not given", "`enforce`, or `observe`");
    let misspelt = format!("policy: {{mode: enforc, {rules}}}");
    let found = parse(&with_top(&misspelt)).expect_err("a misspelt mode");
    assert_eq!(found.len(), 1, "{found}");
    let open = warned(&with_top(&format!("policy: {{mode: open, {rules}}}")));
    let ineffective = "has no effect: `mode` is `open`";
    assert_eq!(open, [("policy.rules".to_owned(), ineffective.to_owned())]);
}

#[test]
fn a_node_that_refuses_everybody_is_a_warning() {
    let refuses = "without rules nobody may subscribe or publish";
    for (top, key) in [
        ("policy: {mode: enforce}", "policy"),
        ("profile: hardened", "profile"),
        ("profile: hardened\npolicy: {}", "policy"),
    ] {
        let text = with_top(top).replace("0.0.0.0", "127.0.0.1");
        assert_eq!(loaded(&text).config.policy.mode, PolicyMode::Enforce);
        let warned = warned(&text);
        assert!(warned.contains(&(key.to_owned(), refuses.to_owned())), "{warned:?}");
    }
    let observed = warned(&with_top("policy: {mode: observe}"));
    assert!(observed.iter().all(|(_, message)| message != refuses), "{observed:?}");
}

#[test]
fn a_hardened_node_observes_if_told_so_and_is_never_open() {
    let hardened = |policy: &str| {
        with_top(&format!("profile: hardened\npolicy: {{{policy}}}")).replace("0.0.0.0", "[::1]")
    };
    let rule = "rules: [{principal: anyone, subscribe: ['*']}]";
    let mode = |policy: &str| loaded(&hardened(policy)).config.policy.mode;
    assert_eq!(mode(rule), PolicyMode::Enforce);
    assert_eq!(mode(&format!("mode: observe, {rule}")), PolicyMode::Observe);
    assert_error(
        &hardened(&format!("mode: open, {rule}")),
        "policy.mode",
        "`enforce` or `observe` with `profile: hardened`, got the text \"open\"",
        "write `observe`",
    );
}

/// The errors about servers of a hardened file that can only be found in one, as keys.
fn hardened_errors(server: &str) -> Vec<String> {
    match parse(&format!("profile: hardened\n{}", with_server(server))) {
        Ok(_) => Vec::new(),
        Err(found) => {
            let errors = found.errors().filter(|error| error.message.contains("hardened"));
            errors.map(|error| error.key.clone()).collect()
        }
    }
}

#[test]
fn a_hardened_server_that_others_reach_has_tls_and_asks_its_clients() {
    let tls = "services.slim/0.dataplane.servers[0].tls";
    let (insecure, client_ca) = (format!("{tls}.insecure"), format!("{tls}.client_ca_file"));
    let plain = "tls: {insecure: true}";
    let certificate = "cert_file: c, key_file: k";
    for (endpoint, rest, expected) in [
        ("0.0.0.0:1", plain, vec![&insecure, &client_ca]),
        ("[::]:1", plain, vec![&insecure, &client_ca]),
        (
            "10.0.0.1:1",
            "auth: {basic: {username: u, password: p}}, tls: {insecure: true}",
            vec![&insecure],
        ),
        ("10.0.0.1:1", &format!("tls: {{{certificate}}}"), vec![&client_ca]),
        (
            "10.0.0.1:1",
            &format!("auth: none, tls: {{{certificate}, client_ca_pem: ~}}"),
            vec![&client_ca],
        ),
        (
            "10.0.0.1:1",
            &format!("tls: {{{certificate}, insecure: true}}"),
            vec![&client_ca, &insecure],
        ),
        ("10.0.0.1:1", &format!("tls: {{{certificate}, client_ca_file: a}}"), vec![]),
        ("10.0.0.1:1", &format!("tls: {{{certificate}, client_ca_pem: a}}"), vec![]),
        (
            "10.0.0.1:1",
            &format!("tls: {{{certificate}}}, auth: {{jwt: {{key: {{autoresolve: true}}}}}}"),
            vec![],
        ),
        ("127.0.0.1:1", plain, vec![]),
        ("127.3.2.1:1", plain, vec![]),
        ("[::1]:1", plain, vec![]),
        ("[::ffff:127.0.0.1]:1", plain, vec![]),
    ] {
        let server = format!("endpoint: \"{endpoint}\", {rest}");
        let mut found = hardened_errors(&server);
        let mut expected: Vec<_> = expected.into_iter().cloned().collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{server}");
    }
}

#[test]
fn servers_of_the_controller_are_held_to_the_same() {
    let text = with_top("    controller: {servers: [{endpoint: \"0.0.0.0:2\", tls: {insecure: true}, auth: {basic: {username: u, password: p}}}]}\nprofile: hardened")
        .replace("0.0.0.0:46357", "127.0.0.1:46357");
    let key = "services.slim/0.controller.servers[0].tls.insecure";
    assert_error(&text, key, "not with `profile: hardened`", "or listen on 127.0.0.1");
}

/// The errors of a hardened file with this block under `controller`, as keys.
fn hardened_controller_errors(block: &str) -> Vec<String> {
    let text = with_top(&format!("    controller: {block}\nprofile: hardened"))
        .replace("0.0.0.0:46357", "127.0.0.1:46357");
    match parse(&text) {
        Ok(_) => Vec::new(),
        Err(found) => found.errors().map(|error| error.key.clone()).collect(),
    }
}

#[test]
fn a_hardened_node_is_managed_only_by_those_who_show_who_they_are_even_from_its_own_machine() {
    let controller = "services.slim/0.controller.servers[0]";
    let (insecure, auth) = (format!("{controller}.tls.insecure"), format!("{controller}.auth"));
    let password = "auth: {basic: {username: u, password: p}}";
    let certificate = "cert_file: c, key_file: k";
    for (server, expected) in [
        ("endpoint: \"127.0.0.1:2\", tls: {insecure: true}".to_owned(), vec![&auth]),
        ("endpoint: \"[::1]:2\", auth: none, tls: {insecure: true}".to_owned(), vec![&auth]),
        (format!("endpoint: \"127.0.0.1:2\", tls: {{{certificate}}}"), vec![&auth]),
        (format!("endpoint: \"127.0.0.1:2\", tls: {{insecure: true}}, {password}"), vec![]),
        (format!("endpoint: \"127.0.0.1:2\", tls: {{{certificate}, client_ca_file: a}}"), vec![]),
        ("endpoint: \"0.0.0.0:2\", tls: {insecure: true}".to_owned(), vec![&auth, &insecure]),
        (format!("endpoint: \"0.0.0.0:2\", tls: {{{certificate}}}, {password}"), vec![]),
    ] {
        let mut found = hardened_controller_errors(&format!("{{servers: [{{{server}}}]}}"));
        found.sort();
        let expected: Vec<_> = expected.into_iter().cloned().collect();
        assert_eq!(found, expected, "{server}");
    }
}

#[test]
fn a_hardened_node_reaches_controllers_on_other_machines_over_tls_that_is_checked() {
    let tls = "services.slim/0.controller.clients[0].tls";
    let (insecure, unchecked) = (format!("{tls}.insecure"), format!("{tls}.insecure_skip_verify"));
    for (endpoint, tls, expected) in [
        ("http://controller.example:1", "tls: {insecure: true}", vec![&insecure]),
        ("https://10.0.0.1:1", "tls: {insecure: true}", vec![&insecure]),
        ("http://[2001:db8::1]:1", "tls: {insecure: true}", vec![&insecure]),
        ("http://localhost.example:1", "tls: {insecure: true}", vec![&insecure]),
        ("https://10.0.0.1:1", "tls: {insecure_skip_verify: true}", vec![&unchecked]),
        ("http://10.0.0.1:1", "tls: {insecure: true, ca_file: a}", vec![]),
        ("https://10.0.0.1:1", "tls: {ca_file: a}", vec![]),
        ("https://controller.example:1", "tls: {}", vec![]),
        ("https://controller.example:1", "connect_timeout: 1s", vec![]),
        ("http://localhost:1", "tls: {insecure: true}", vec![]),
        ("http://LOCALHOST:1", "tls: {insecure: true}", vec![]),
        ("http://127.3.2.1:1", "tls: {insecure: true}", vec![]),
        ("http://[::1]:1", "tls: {insecure: true}", vec![]),
    ] {
        let clients = format!("{{clients: [{{endpoint: \"{endpoint}\", {tls}}}]}}");
        let expected: Vec<_> = expected.into_iter().cloned().collect();
        assert_eq!(hardened_controller_errors(&clients), expected, "{clients}");
    }
}

#[test]
fn no_finding_shows_what_a_placeholder_stands_for() {
    const SECRET: &str = "hunter2/*/x";
    for rules in [
        "{principal: '${env:A}', subscribe: ['*']}",
        "{principal: anyone, subscribe: ['${env:A}']}",
        "{principal: 'basic:a', publish: ['${env:A}', '*', '${env:A}']}",
    ] {
        let sources = Fixed::default().with_variable("A", SECRET);
        let found = slim_config::parse("c.yaml", &with_rules(rules), &sources).expect_err(rules);
        assert!(!format!("{found:?}").contains("hunter2"), "{found}");
    }
}
