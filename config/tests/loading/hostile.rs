//! Text that is meant to break the reader costs neither a panic nor much memory or time.

use std::path::Path;

use proptest::prelude::*;
use slim_config::{Diagnostics, Loaded};

use crate::support::{Fixed, parse, with_top};

/// A result without errors is a configuration, one without a configuration has errors, for a node
/// and for a controller.
fn check(text: &str) -> Result<Loaded, Diagnostics> {
    let sources = Fixed::default().with_variable("A", "${env:A}");
    match slim_config::controller::parse("c.yaml", text, &sources) {
        Ok(loaded) => assert_eq!(loaded.warnings.errors().count(), 0),
        Err(found) => assert!(found.errors().next().is_some(), "no error in\n{text}"),
    }
    let result = slim_config::parse("c.yaml", text, &sources);
    match &result {
        Ok(loaded) => assert_eq!(loaded.warnings.errors().count(), 0),
        Err(found) => assert!(found.errors().next().is_some(), "no error in\n{text}"),
    }
    result
}

fn examples() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let entries = folder.read_dir().expect("the folder");
    let mut texts: Vec<_> = entries
        .map(|entry| std::fs::read_to_string(entry.expect("an entry").path()).expect("a text"))
        .collect();
    texts.sort();
    texts
}

/// One edit of a text: where, how many characters go, and what comes instead.
fn edit() -> impl Strategy<Value = (prop::sample::Index, usize, String)> {
    let yaml = prop::sample::select(vec![
        "",
        " ",
        "  ",
        "\n",
        "\n- ",
        ": ",
        "{",
        "}",
        "[",
        "]",
        "&a ",
        "*a",
        "!x ",
        "\"",
        "'",
        "|\n",
        "#",
        "~",
        "-1",
        "1e999",
        "0x10",
        ".nan",
        "true",
        "${env:A}",
        "${file:x}",
        "\u{0}",
        "\u{feff}",
        "é",
        "\t",
        "---\n",
        "<<: ",
        "? ",
        "99999999999999999999s",
        "µs",
        "5 s",
        "@",
        "%YAML 1.2\n",
    ]);
    let text = prop_oneof![yaml.prop_map(str::to_owned), ".{0,4}"];
    (any::<prop::sample::Index>(), 0..24_usize, text)
}

/// One change of a line: which, and whether it is dropped, doubled, indented or misspelt.
fn change_lines(text: &str, changes: &[(prop::sample::Index, u8)]) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for (index, how) in changes {
        if lines.is_empty() {
            break;
        }
        let at = index.index(lines.len());
        match how {
            0 => drop(lines.remove(at)),
            1 => lines.insert(at, lines[at].clone()),
            2 => lines[at].insert_str(0, "  "),
            3 => lines[at] = lines[at].replacen(':', "x:", 1),
            _ => lines[at] = lines[at].replacen(": ", ": x", 1),
        }
    }
    lines.join("\n")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn edited_examples_never_panic(
        example in any::<prop::sample::Index>(), edits in prop::collection::vec(edit(), 1..6)
    ) {
        let mut text: Vec<char> = example.get(&examples()).chars().collect();
        for (at, length, with) in edits {
            let at = at.index(text.len() + 1);
            let end = (at + length).min(text.len());
            text.splice(at..end, with.chars());
        }
        let _ = check(&text.into_iter().collect::<String>());
    }

    #[test]
    fn examples_with_changed_lines_never_panic(
        example in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0..5_u8), 1..5)
    ) {
        let examples = examples();
        let example: &String = example.get(&examples);
        let _ = check(&change_lines(example, &changes));
    }

    #[test]
    fn any_text_never_panics(text in "\\PC{0,80}|[-:{}\\[\\]&*!|>'\"%@`#,? \n\ta1~]{0,80}") {
        let _ = check(&text);
    }

    #[test]
    fn any_scalar_anywhere_never_panics(text in ".{0,12}", line in 0..60_usize) {
        let example = &examples()[0];
        let mut lines: Vec<String> = example.lines().map(str::to_owned).collect();
        let line = line % lines.len();
        if let Some((key, _)) = lines[line].split_once(": ") {
            lines[line] = format!("{key}: {text:?}");
        }
        let _ = check(&lines.join("\n"));
    }
}

fn assert_refused(text: &str, message: &str) {
    let found = check(text).expect_err(message);
    assert!(found.to_string().contains(message), "{found}");
}

#[test]
fn deep_nesting_is_refused_in_every_notation() {
    for text in [
        "[".repeat(100_000),
        "{a: ".repeat(100_000),
        "- ".repeat(100_000),
        (0..500).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect(),
    ] {
        let found = check(&text).expect_err("too deep");
        assert_eq!(found.len(), 1, "{found}");
    }
}

#[test]
fn aliases_cannot_grow_without_bound() {
    let wide = |inner: &str| format!("[{}]", [inner; 10].join(", "));
    let mut text = format!("a0: &a0 {}\n", wide("x"));
    for level in 1..10 {
        text += &format!("a{level}: &a{level} {}\n", wide(&format!("*a{}", level - 1)));
    }
    assert_refused(&text, "expected anchors and aliases that stand for at most 1048576 bytes");

    let mut text = format!("a0: &a0 {}x{}\n", "[".repeat(30), "]".repeat(30));
    for level in 1..4 {
        let (open, close) = ("[".repeat(30), "]".repeat(30));
        text += &format!("a{level}: &a{level} {open}*a{}{close}\n", level - 1);
    }
    assert_refused(&text, "expected at most 64 levels of nesting");
    assert_refused("a: &a [*a]\n", "c.yaml:1:8: ");
}

#[test]
fn large_texts_and_endless_findings_are_bounded() {
    assert_refused(&"# comment\n".repeat(200_000), "expected at most 1048576 bytes, got 2000000");
    let text: String = (0..20_000).map(|n| format!("endpoint{n}: 1\n")).collect();
    let found = parse(&with_top(&text)).expect_err("unknown keys");
    assert_eq!(found.len(), 200);
    let long = "k".repeat(100_000);
    let found = parse(&with_top(&format!("{long}: 1"))).expect_err("an unknown key");
    assert!(found.to_string().len() < 1000, "{found}");
}
