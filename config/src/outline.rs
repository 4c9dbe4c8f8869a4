use std::fmt;

use crate::diagnostics::key_path;
use crate::tree::{Entry, Kind, Node};

/// What a file says, key by key and with the text that placeholders stand for, to be compared
/// with what it says later. Shows nothing of it, since some of it is secret. Without a file it is
/// empty.
#[derive(Clone, Default)]
pub struct Outline(Option<Node>);

impl Outline {
    pub(crate) fn new(root: Node) -> Self {
        Self(Some(root))
    }

    /// Paths of the keys whose values are others in `newer`, in the order of the files. Of a list
    /// that has become longer or shorter the path of the list.
    pub fn changes(&self, newer: &Self) -> Vec<String> {
        let mut changed = Vec::new();
        compare("", kind(self.0.as_ref()), kind(newer.0.as_ref()), &mut changed);
        changed
    }
}

impl fmt::Debug for Outline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outline").finish_non_exhaustive()
    }
}

/// Two are equal if they say the same, in whatever order and layout.
impl PartialEq for Outline {
    fn eq(&self, other: &Self) -> bool {
        self.changes(other).is_empty()
    }
}

/// A key without a value says nothing.
fn kind(node: Option<&Node>) -> Option<&Kind> {
    node.map(|node| &node.kind).filter(|kind| !matches!(kind, Kind::Null))
}

fn compare(path: &str, old: Option<&Kind>, new: Option<&Kind>, changed: &mut Vec<String>) {
    match (old, new) {
        (None, None) => {}
        (Some(Kind::Mapping(old)), None) => compare_mappings(path, old, &[], changed),
        (None, Some(Kind::Mapping(new))) => compare_mappings(path, &[], new, changed),
        (Some(Kind::Mapping(old)), Some(Kind::Mapping(new))) => {
            compare_mappings(path, old, new, changed);
        }
        (Some(Kind::List(old)), Some(Kind::List(new))) if old.len() == new.len() => {
            for (index, (old, new)) in old.iter().zip(new).enumerate() {
                let path = format!("{path}[{index}]");
                compare(&path, kind(Some(old)), kind(Some(new)), changed);
            }
        }
        (Some(Kind::Text(old)), Some(Kind::Text(new))) if old.text == new.text => {}
        (Some(Kind::Number(old)), Some(Kind::Number(new))) if old == new => {}
        (Some(Kind::Boolean(old)), Some(Kind::Boolean(new))) if old == new => {}
        _ => changed.push(path.to_owned()),
    }
}

fn compare_mappings(path: &str, old: &[Entry], new: &[Entry], changed: &mut Vec<String>) {
    let of = |entries: &[Entry], key: &str| entries.iter().position(|entry| entry.key == key);
    for entry in old {
        let other = of(new, &entry.key).map(|at| &new[at].value);
        let path = key_path(path, &entry.key);
        compare(&path, kind(Some(&entry.value)), kind(other), changed);
    }
    for entry in new.iter().filter(|entry| of(old, &entry.key).is_none()) {
        compare(&key_path(path, &entry.key), None, kind(Some(&entry.value)), changed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostics::Findings;
    use crate::tree;

    fn outline(text: &str) -> Outline {
        let findings = Findings::new("test");
        Outline(tree::parse(text, &findings).expect("YAML"))
    }

    fn changes(old: &str, new: &str) -> Vec<String> {
        outline(old).changes(&outline(new))
    }

    #[test]
    fn what_differs_is_named_by_its_path_and_nothing_else_is() {
        for (old, new, expected) in [
            ("", "", &[][..]),
            ("{ a: 1, b: x }", "b: x # the same\na: 1\n", &[]),
            ("{ a: ~, b: {} }", "{ c: { d: ~ } }", &[]),
            ("{ a: 1, b: 2, c: true }", "{ c: false, b: 2, a: 3 }", &["a", "c"]),
            ("a: 1", "a: '1'", &["a"]),
            ("a: 1", "b: { c: 2, d: [3] }", &["a", "b.c", "b.d"]),
            (
                "s: { x/0: { l: [{ e: 1, t: 2 }] } }",
                "s: { x/0: { l: [{ e: 1, t: 3 }] } }",
                &["s.x/0.l[0].t"],
            ),
            ("l: [1, 2]", "l: [2]", &["l"]),
            ("l: []", "l: [{ a: 1 }]", &["l"]),
            ("l: [{ a: 1 }, 2]", "l: [3, { b: 1 }]", &["l[0]", "l[1]"]),
        ] {
            assert_eq!(changes(old, new), expected, "{old} and {new}");
            assert_eq!(outline(old) == outline(new), expected.is_empty());
        }
    }

    #[test]
    fn what_a_placeholder_stands_for_is_compared_and_never_shown() {
        let source = |secret: &str| {
            let mut node = outline("a: x").0.expect("a tree");
            if let Kind::Mapping(entries) = &mut node.kind {
                entries[0].value.kind = Kind::text(secret);
            }
            Outline::new(node)
        };
        assert_eq!(source("one").changes(&source("two")), ["a"]);
        assert_eq!(format!("{:?}", source("one")), "Outline { .. }");
    }
}
