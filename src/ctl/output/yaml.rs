use std::fmt::Write as _;

use serde_json::Value;

use super::escape::escape_json;

/// A value as YAML 1.2, in block style, with a line end.
pub(in crate::ctl) fn to_yaml(value: &Value) -> String {
    let mut yaml = String::new();
    match value {
        Value::Object(fields) if !fields.is_empty() => object(&mut yaml, value, 0),
        Value::Array(items) if !items.is_empty() => array(&mut yaml, items, 0),
        scalar => yaml = inline(scalar) + "\n",
    }
    yaml
}

fn object(yaml: &mut String, value: &Value, depth: usize) {
    for (index, (key, value)) in value.as_object().into_iter().flatten().enumerate() {
        // The first field of an item stands behind its dash.
        if index > 0 || !yaml.ends_with("- ") {
            yaml.extend(std::iter::repeat_n("  ", depth));
        }
        yaml.push_str(&text(key));
        yaml.push(':');
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                yaml.push('\n');
                object(yaml, value, depth + 1);
            }
            Value::Array(items) if !items.is_empty() => {
                yaml.push('\n');
                array(yaml, items, depth + 1);
            }
            scalar => writeln!(yaml, " {}", inline(scalar)).expect("a string takes all"),
        }
    }
}

fn array(yaml: &mut String, items: &[Value], depth: usize) {
    for item in items {
        if !yaml.ends_with("- ") {
            yaml.extend(std::iter::repeat_n("  ", depth));
        }
        yaml.push_str("- ");
        match item {
            Value::Object(fields) if !fields.is_empty() => object(yaml, item, depth + 1),
            Value::Array(items) if !items.is_empty() => array(yaml, items, depth + 1),
            scalar => writeln!(yaml, "{}", inline(scalar)).expect("a string takes all"),
        }
    }
}

/// A scalar, or a collection without content.
fn inline(value: &Value) -> String {
    match value {
        Value::String(string) => text(string),
        other => other.to_string(),
    }
}

/// A text without quotes where every reader takes it for one, else in those of JSON, which YAML
/// reads the same.
fn text(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '/' | '.' | '-');
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic());
    let words = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    if begins && text.chars().all(plain) && !words.contains(&text.to_ascii_lowercase().as_str()) {
        return text.to_owned();
    }
    escape_json(&Value::from(text).to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_stand_in_blocks_and_doubtful_texts_in_quotes() {
        let value = json!({
            "nodes": [
                { "id": "slim/0", "connections": [{ "endpoint": "a:1" }, {}], "ok": true },
                { "id": "no", "count": 3, "none": null },
            ],
            "names": ["7", "a b", "\u{1b}", ""],
            "nested": [[1, 2], []],
            "empty": [],
        });
        let expected = "\
empty: []
names:
  - \"7\"
  - \"a b\"
  - \"\\u001b\"
  - \"\"
nested:
  - - 1
    - 2
  - []
nodes:
  - connections:
      - endpoint: \"a:1\"
      - {}
    id: slim/0
    ok: true
  - count: 3
    id: \"no\"
    none: null
";
        assert_eq!(to_yaml(&value), expected);
        assert_eq!(to_yaml(&json!({})), "{}\n");
        assert_eq!(to_yaml(&json!("x")), "x\n");
    }
}
