use std::hint::black_box;

use proptest::prelude::*;
use slim_config::System;
use slim_wire::{Id, Name, TextName};

use super::{Mode, Policy, Principal, View};

/// One rule as texts: principal, names to subscribe to, names to publish as.
type Texts<'a> = (&'a str, &'a [&'a str], &'a [&'a str]);

/// The policy of a file in `mode` with `rules`.
fn policy(mode: &str, rules: &[Texts<'_>]) -> Policy {
    let mut file = format!("policy:\n  mode: {mode}\n  rules:\n");
    for (principal, subscribe, publish) in rules {
        file += &format!(
            "    - {{ principal: {principal:?}, subscribe: {subscribe:?}, publish: {publish:?} }}\n"
        );
    }
    file += "services:\n  slim/0:\n    dataplane:\n      servers:\n";
    file += "        - { endpoint: \"127.0.0.1:1\", tls: { insecure: true } }\n";
    let loaded = slim_config::parse("c.yaml", &file, &System);
    let config = loaded.unwrap_or_else(|found| panic!("{file}\n{found}")).config;
    Policy::new(&config.policy)
}

fn name(text: &str) -> Name {
    text.parse::<TextName>().expect("a name").to_name()
}

fn basic(user: &str) -> Principal {
    Principal::Basic(user.into())
}

/// Those of `names` that `view` allows to subscribe to, and to publish as.
fn allowed<'a>(view: &View, names: &[&'a str]) -> [Vec<&'a str>; 2] {
    let all = || names.iter().copied();
    [
        all().filter(|text| view.may_subscribe(&name(text))).collect(),
        all().filter(|text| view.may_publish_as(&name(text))).collect(),
    ]
}

const NAMES: [&str; 7] = ["a/b/c", "a/b/c/7", "a/b/c/8", "a/b/d", "a/x/c", "x/b/c", "x/a/b/7"];

#[test]
fn a_rule_covers_names_from_its_depth_on() {
    for (pattern, expected) in [
        ("*", &NAMES[..]),
        ("a/*", &["a/b/c", "a/b/c/7", "a/b/c/8", "a/b/d", "a/x/c"]),
        ("a/b/*", &["a/b/c", "a/b/c/7", "a/b/c/8", "a/b/d"]),
        ("a/b/c", &["a/b/c", "a/b/c/7", "a/b/c/8"]),
        ("a/b/c/7", &["a/b/c/7"]),
        ("b/*", &[]),
    ] {
        let judged = policy("enforce", &[("anyone", &[pattern], &[])]);
        let [subscribe, publish] = allowed(&judged.view(&Principal::Nobody), &NAMES);
        assert_eq!(subscribe, expected, "{pattern}");
        assert!(publish.is_empty(), "{pattern}: {publish:?}");
    }
}

#[test]
fn subscribing_and_publishing_are_judged_apart() {
    let policy = policy("enforce", &[("basic:u", &["a/b/c"], &["a/b/d", "x/*"])]);
    assert_eq!(
        allowed(&policy.view(&basic("u")), &NAMES),
        [vec!["a/b/c", "a/b/c/7", "a/b/c/8"], vec!["a/b/d", "x/b/c", "x/a/b/7"]]
    );
}

#[test]
fn ids_wider_than_64_bits_are_ids_like_others() {
    let policy = policy("enforce", &[("anyone", &["a/b/c/7", "a/b/d"], &[])]);
    let view = policy.view(&Principal::Nobody);
    let wide = Id::new(7 + (1 << 64));
    assert!(!view.may_subscribe(&Name { id: wide, ..name("a/b/c") }));
    assert!(view.may_subscribe(&Name { id: wide, ..name("a/b/d") }));
}

#[test]
fn what_several_rules_give_adds_up() {
    let policy = policy(
        "enforce",
        &[("anyone", &["a/x/*"], &[]), ("basic:*", &["a/b/d"], &[]), ("basic:u", &["x/*"], &[])],
    );
    let subscribe = |principal: &Principal| {
        let [subscribe, _] = allowed(&policy.view(principal), &NAMES);
        subscribe
    };
    assert_eq!(subscribe(&Principal::Nobody), ["a/x/c"]);
    assert_eq!(subscribe(&basic("v")), ["a/b/d", "a/x/c"]);
    assert_eq!(subscribe(&basic("u")), ["a/b/d", "a/x/c", "x/b/c", "x/a/b/7"]);
}

#[test]
fn rules_are_about_one_kind_of_principal() {
    let principals = [
        Principal::Nobody,
        Principal::Certificate("spiffe://t/a".into()),
        Principal::Certificate("spiffe://t/a/b".into()),
        Principal::Certificate("spiffe://t".into()),
        basic("spiffe://t/a"),
        Principal::Token("spiffe://t/a".into()),
        Principal::Token("".into()),
    ];
    for (rule, expected) in [
        ("anyone", &[0, 1, 2, 3, 4, 5, 6][..]),
        ("nobody", &[0]),
        ("certificate:spiffe://t/a", &[1]),
        ("certificate:spiffe://t/*", &[1, 2]),
        ("certificate:*", &[1, 2, 3]),
        ("basic:spiffe://t/a", &[4]),
        ("token:*", &[5, 6]),
        ("token:spiffe://t/A", &[]),
    ] {
        let policy = policy("enforce", &[(rule, &["a/b/c"], &[])]);
        let is_allowed = |index: &usize| {
            let view = policy.view(&principals[*index]);
            view.may_subscribe(&name("a/b/c"))
        };
        let found: Vec<usize> = (0..principals.len()).filter(is_allowed).collect();
        assert_eq!(found, expected, "{rule}");
    }
}

#[test]
fn a_policy_that_observes_judges_like_one_that_enforces_and_an_open_one_allows_all() {
    let rules: &[Texts<'_>] = &[("basic:u", &["a/b/c"], &["a/b/c"])];
    for (word, mode) in [("observe", Mode::Observe), ("enforce", Mode::Enforce)] {
        let policy = policy(word, rules);
        assert_eq!(policy.mode(), mode);
        let [view, other] = [basic("u"), basic("v")].map(|principal| policy.view(&principal));
        assert!(view.may_publish_as(&name("a/b/c/1")) && !view.may_publish_as(&name("a/b/d")));
        assert!(!other.may_publish_as(&name("a/b/c/1")));
    }
    for open in [policy("open", rules), Policy::default()] {
        assert_eq!(open.mode(), Mode::Open);
        assert!(matches!(open.view(&basic("v")), View::Everything));
    }
}

#[test]
fn a_view_without_bounds_is_known_as_one() {
    let is_everything = |rules: &[Texts<'_>]| {
        let view = policy("enforce", rules).view(&basic("u"));
        matches!(view, View::Everything)
    };
    assert!(is_everything(&[("basic:u", &["*"], &["*"])]));
    assert!(is_everything(&[("basic:u", &["*"], &[]), ("anyone", &["a/*"], &["*", "a/*"])]));
    assert!(!is_everything(&[("basic:u", &["*"], &["a/*"])]));
    assert!(!is_everything(&[("basic:v", &["*"], &["*"])]));
}

#[test]
fn judging_allocates_nothing_however_many_rules_there_are() {
    let texts: Vec<String> = (0..1_000).map(|n| format!("a/b/n{n}/{n}")).collect();
    let names: Vec<&str> =
        texts.iter().map(String::as_str).chain(["b/*", "c/d/*", "e/f/g"]).collect();
    let policy = policy("enforce", &[("anyone", &names, &names), ("basic:*", &["x/*"], &[])]);
    let principal = basic("u");
    let judged = [name("a/b/n999/999"), name("b/x/y"), name("e/f/g/1"), name("z/z/z/1")];

    let mut view = View::Everything;
    let made = allocation_counter::measure(|| view = policy.view(&principal));
    assert!(made.count_total > 0, "the counter counts nothing");
    let mut allowed = 0;
    let used = allocation_counter::measure(|| {
        for name in black_box(&judged) {
            allowed += usize::from(view.may_subscribe(name));
            allowed += usize::from(view.may_publish_as(name));
        }
    });
    assert_eq!((used.count_total, allowed), (0, 6));
}

/// Whether `pattern` covers `name`, both as texts.
fn covers(pattern: &str, name: &str) -> bool {
    let mut name = name.split('/');
    for part in pattern.split('/') {
        match (part, name.next()) {
            ("*", _) => return true,
            (part, Some(other)) if part == other => {}
            _ => return false,
        }
    }
    // What follows a name of three components is its id.
    true
}

/// Whether a rule about `pattern` is about `principal`, both as texts of a file.
fn is_about(pattern: &str, principal: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(begin) => principal.starts_with(begin),
        None => pattern == "anyone" || pattern == principal,
    }
}

fn principal(text: &str) -> Principal {
    match text.split_once(':') {
        Some(("certificate", name)) => Principal::Certificate(name.into()),
        Some(("basic", user)) => Principal::Basic(user.into()),
        Some(("token", subject)) => Principal::Token(subject.into()),
        _ => Principal::Nobody,
    }
}

fn any_name() -> impl Strategy<Value = String> {
    "[ab]/[ab]/[ab](/[01])?"
}

fn any_pattern() -> impl Strategy<Value = String> {
    prop_oneof![
        1 => Just("*".to_owned()),
        4 => "[ab]/\\*",
        4 => "[ab]/[ab]/\\*",
        8 => any_name(),
    ]
}

fn any_principal() -> impl Strategy<Value = String> {
    prop_oneof![1 => Just("nobody".to_owned()), 6 => "(certificate|basic|token):[ab]{1,2}"]
}

fn any_principal_pattern() -> impl Strategy<Value = String> {
    let prefix = "(certificate|basic|token):[ab]{0,2}\\*";
    prop_oneof![1 => Just("anyone".to_owned()), 4 => any_principal(), 4 => prefix]
}

/// Rules by their principals, each with at least one name to subscribe to.
fn any_rules() -> impl Strategy<Value = Vec<(String, [Vec<String>; 2])>> {
    let names = |least| prop::collection::btree_set(any_pattern(), least..4);
    let names = (names(1), names(0)).prop_map(|(subscribe, publish)| {
        [subscribe, publish].map(|names| names.into_iter().collect())
    });
    prop::collection::btree_map(any_principal_pattern(), names, 0..5)
        .prop_map(|rules| rules.into_iter().collect())
}

proptest! {
    #[test]
    fn a_view_agrees_with_the_texts_of_the_rules(
        rules in any_rules(),
        who in any_principal(),
        names in prop::collection::vec(any_name(), 1..8),
    ) {
        let lists: Vec<_> = rules
            .iter()
            .map(|(_, lists)| lists.each_ref().map(|l| l.iter().map(String::as_str).collect::<Vec<_>>()))
            .collect();
        let texts: Vec<Texts<'_>> = rules
            .iter()
            .zip(&lists)
            .map(|((principal, _), [subscribe, publish])| (&**principal, &**subscribe, &**publish))
            .collect();
        let view = policy("enforce", &texts).view(&principal(&who));
        for text in &names {
            let expected = |list: usize| {
                let mut meant = rules.iter().filter(|(pattern, _)| is_about(pattern, &who));
                meant.any(|(_, lists)| lists[list].iter().any(|pattern| covers(pattern, text)))
            };
            prop_assert_eq!(view.may_subscribe(&name(text)), expected(0), "{}", text);
            prop_assert_eq!(view.may_publish_as(&name(text)), expected(1), "{}", text);
        }
    }
}
