use std::collections::{HashMap, HashSet};
use std::fmt;

use slim_wire::{Id, NameError, TextName};

use crate::diagnostics::nearest;
use crate::profile::Profile;
use crate::tree::Kind;
use crate::value::{Case, Value};

/// Who may use which names (`policy`, this node's own key). What several rules give to one
/// principal adds up; what no rule gives is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// `mode`: default `open`, with `profile: hardened` `enforce`. A file with rules has to say
    /// it, unless the profile does.
    pub mode: PolicyMode,
    /// `rules`: each is of another principal. Default none.
    pub rules: Vec<PolicyRule>,
}

/// What becomes of a subscription or message that no rule allows (`policy.mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PolicyMode {
    /// `open`, the default: nothing is judged, as documented for SLIM.
    #[default]
    Open,
    /// `observe`: it is counted and passes.
    Observe,
    /// `enforce`: it is refused.
    Enforce,
}

/// The word of the file.
impl fmt::Display for PolicyMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Observe => "observe",
            Self::Enforce => "enforce",
        })
    }
}

/// What one principal may do (`policy.rules`). At least one of the two lists has a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRule {
    /// `principal`: who; required.
    pub principal: PrincipalPattern,
    /// `subscribe`: names it may subscribe to, default none.
    pub subscribe: Vec<NamePattern>,
    /// `publish`: names it may publish as, default those of `subscribe`.
    pub publish: Vec<NamePattern>,
}

/// Whom a rule is about (`policy.rules[].principal`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PrincipalPattern {
    /// `anyone`: everybody, also who has not shown who it is.
    Anyone,
    /// `nobody`: who has not shown who it is.
    Nobody,
    /// `certificate:TEXT`: a client certificate by its SPIFFE id, without one by its DNS name,
    /// without either by `CN=` and the common name of its subject.
    Certificate(TextPattern),
    /// `basic:TEXT`: a user with a password.
    Basic(TextPattern),
    /// `token:TEXT`: subject of a JWT.
    Token(TextPattern),
}

/// One text, or all that begin alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TextPattern {
    /// This text, byte for byte.
    Exact(Box<str>),
    /// `TEXT*`: all texts that begin so, also longer ones with further `/`.
    Prefix(Box<str>),
}

/// Which names a rule is about (an item of `policy.rules[].subscribe` or `publish`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NamePattern {
    /// `*`: every name.
    Everything,
    /// `org/*`: every name of the organization.
    Organization(Box<str>),
    /// `org/namespace/*`: every name of the namespace.
    Namespace([Box<str>; 2]),
    /// `org/namespace/app`, which is every id of it and none, or `org/namespace/app/id`, which is
    /// that id only.
    Name(TextName),
}

const MODES: [(&str, PolicyMode); 3] = [
    ("open", PolicyMode::Open),
    ("observe", PolicyMode::Observe),
    ("enforce", PolicyMode::Enforce),
];

impl Policy {
    /// The policy of a file without one.
    pub(crate) fn of_profile(profile: Profile) -> Self {
        let mode = match profile {
            Profile::Compat => PolicyMode::Open,
            Profile::Hardened => PolicyMode::Enforce,
        };
        Self { mode, rules: Vec::new() }
    }
}

/// The `policy` block.
pub(crate) fn read(value: Value<'_>, profile: Profile) -> Option<Policy> {
    let default = Policy::of_profile(profile).mode;
    let mut section = value.section()?;
    let mode = section.optional("mode", |value| read_mode(value, profile));
    let rules = section.optional("rules", read_rules).unwrap_or_default();
    if let Some(list) = section.child("rules").filter(|_| !rules.is_empty()) {
        match mode {
            Some(PolicyMode::Open) => list.warn("has no effect: `mode` is `open`", None),
            // Rules without effect would leave a node open unnoticed.
            None if default == PolicyMode::Open && !section.has("mode") => {
                let hint = "write `enforce`, or `observe` to count what it would refuse";
                section.missing::<()>("mode", Some(hint.into()));
            }
            _ => {}
        }
    }
    section.finish();
    Some(Policy { mode: mode.unwrap_or(default), rules })
}

/// Warns about what a policy in `mode` does to a node, at the `policy` block or, without one, at
/// what stands for it.
pub(crate) fn warn(value: &Value<'_>, mode: PolicyMode) {
    if mode == PolicyMode::Enforce && has_no_items(value.field("rules")) {
        let hint = "add who may use which names to `policy.rules`";
        value.warn("without rules nobody may subscribe or publish", Some(hint));
    }
}

fn read_mode(value: Value<'_>, profile: Profile) -> Option<PolicyMode> {
    match (value.choice(&MODES, Case::Sensitive)?, profile) {
        (PolicyMode::Open, Profile::Hardened) => value.expected_with_hint(
            "`enforce` or `observe` with `profile: hardened`",
            "write `observe` to count what would be refused, and let it pass",
        ),
        (mode, _) => Some(mode),
    }
}

fn read_rules(value: Value<'_>) -> Option<Vec<PolicyRule>> {
    let mut lines = HashMap::new();
    value.each(|value| read_rule(&value, &mut lines))
}

/// A rule. `lines` says where the principals of earlier rules stand.
fn read_rule(
    value: &Value<'_>,
    lines: &mut HashMap<PrincipalPattern, usize>,
) -> Option<PolicyRule> {
    let mut section = value.section()?;
    let principal = section.required("principal", |value| {
        let principal = read_principal(&value)?;
        if let Some(line) = lines.get(&principal) {
            let hint = format!("add its names to the rule of line {line}");
            return value.expected_with_hint("a principal that has no rule yet", &hint);
        }
        lines.insert(principal.clone(), value.at().line);
        Some(principal)
    });
    let subscribe = section.optional("subscribe", read_names);
    let publish = section.optional("publish", read_names);
    let without_names = ["subscribe", "publish"].iter().all(|key| has_no_items(value.field(key)));
    // A key that is misspelt is the better finding.
    if without_names && !section.has_unknown() {
        let hint = "add what it may use, such as `subscribe: [\"org/ns/*\"]`, or remove the rule";
        value.fail::<()>("expected names in `subscribe` or `publish`, got none", Some(hint.into()));
    }
    section.finish();
    let subscribe = subscribe.unwrap_or_default();
    let publish = publish.unwrap_or_else(|| subscribe.clone());
    Some(PolicyRule { principal: principal?, subscribe, publish })
}

fn has_no_items(list: Option<Value<'_>>) -> bool {
    list.is_none_or(|list| match &list.node.kind {
        Kind::Null => true,
        Kind::List(items) => items.is_empty(),
        _ => false,
    })
}

fn read_principal(value: &Value<'_>) -> Option<PrincipalPattern> {
    const WORDS: [&str; 5] = ["certificate:", "basic:", "token:", "anyone", "nobody"];
    const WHAT: &str = "`certificate:`, `basic:` or `token:` with a text, `anyone` or `nobody`";
    let text = value.filled_text()?;
    let (word, rest) = text.split_at(text.find(':').map_or(text.len(), |colon| colon + 1));
    match word {
        "anyone" => Some(PrincipalPattern::Anyone),
        "nobody" => Some(PrincipalPattern::Nobody),
        "certificate:" => read_pattern(value, rest).map(PrincipalPattern::Certificate),
        "basic:" => read_pattern(value, rest).map(PrincipalPattern::Basic),
        "token:" => read_pattern(value, rest).map(PrincipalPattern::Token),
        "spiffe:" => value.expected_with_hint(
            WHAT,
            "write `certificate:spiffe://…`, or `token:spiffe://…` for the subject of a token",
        ),
        "*" => value.expected_with_hint(WHAT, "write `anyone`, which is also who is not known"),
        _ => match nearest(word, WORDS) {
            Some(meant) => value.expected_with_hint(WHAT, &format!("did you mean `{meant}`?")),
            None => value.expected(WHAT),
        },
    }
}

/// What stands behind the kind of a principal.
fn read_pattern(value: &Value<'_>, text: &str) -> Option<TextPattern> {
    if text.is_empty() {
        let hint = "`*` alone stands for every text";
        return value.expected_with_hint("a text behind the kind of principal", hint);
    }
    if text.trim() != text {
        return value.expected("a principal without spaces around its text");
    }
    let (begin, is_prefix) = match text.strip_suffix('*') {
        Some(begin) => (begin, true),
        None => (text, false),
    };
    if begin.contains('*') {
        return value.expected("a principal with `*` at most once, as its last character");
    }
    if is_prefix && has_partial_trust_domain(begin) {
        let hint = "write `/` before the `*`, or other trust domains that begin alike match too";
        return value.expected_with_hint("a whole trust domain", hint);
    }
    Some(match is_prefix {
        true => TextPattern::Prefix(begin.into()),
        false => TextPattern::Exact(begin.into()),
    })
}

fn has_partial_trust_domain(begin: &str) -> bool {
    let domain = begin.strip_prefix("spiffe://");
    domain.is_some_and(|domain| !domain.is_empty() && !domain.contains('/'))
}

fn read_names(value: Value<'_>) -> Option<Vec<NamePattern>> {
    let mut seen = HashSet::new();
    value.each(|value| {
        let name = read_name(&value)?;
        if !seen.insert(name.clone()) {
            return value.expected_with_hint("each name once", "remove one of the two");
        }
        Some(name)
    })
}

fn read_name(value: &Value<'_>) -> Option<NamePattern> {
    const WHAT: &str = "`org/namespace/app`, with a decimal id or without, `org/namespace/*`, \
                        `org/*` or `*`";
    let text = value.text()?;
    let parts: Vec<&str> = text.split('/').map(str::trim).collect();
    let stars = parts.iter().filter(|part| part.contains('*')).count();
    let ends_in_star = parts.last() == Some(&"*");
    if stars > 1 || (stars == 1 && !ends_in_star) {
        let hint = "`*` stands for all further components, so it is the last one";
        return value.expected_with_hint(WHAT, hint);
    }
    let pattern = match parts[..] {
        ["*"] => Ok(NamePattern::Everything),
        [org, "*"] if !org.is_empty() => {
            TextName::new([org, "", ""], Id::ANY).map(|_| NamePattern::Organization(org.into()))
        }
        [org, namespace, "*"] if !org.is_empty() && !namespace.is_empty() => {
            TextName::new([org, namespace, ""], Id::ANY)
                .map(|_| NamePattern::Namespace([org.into(), namespace.into()]))
        }
        [_, _, _, "*"] => {
            let hint = "remove `/*`: a name without an id covers all its ids";
            return value.expected_with_hint(WHAT, hint);
        }
        _ => text.parse().map(NamePattern::Name),
    };
    match pattern {
        Ok(pattern) => Some(pattern),
        Err(error @ NameError::TooLong { .. }) => value.fail(error.to_string(), None),
        Err(_) if parts.len() < 3 && !ends_in_star => {
            value.expected_with_hint(WHAT, "add `/*` to cover all names below")
        }
        Err(_) => value.expected(WHAT),
    }
}
