//! The text of a file as a tree that knows the position of every key and value.
//!
//! Hostile text costs bounded memory and stack: size, nesting and what aliases expand to are
//! limited here.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

use crate::diagnostics::{Findings, Position, key_path, shown};

/// Largest text that is read, in bytes. A node's file has a few kilobytes; one with hundreds of
/// routes stays far below.
pub(crate) const TEXT_BYTES: usize = 1024 * 1024;

/// Deepest nesting. The documented structure needs twelve levels outside of free maps.
const DEPTH: usize = 64;

/// How much text and how many values all anchors and aliases of a file together may stand for.
const ALIAS_WEIGHT: usize = 1024 * 1024;

/// A value and where it begins.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) at: Position,
    pub(crate) kind: Kind,
}

/// A value; plain scalars are told apart as YAML 1.2 does.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Null,
    Boolean(bool),
    /// A number as it was written.
    Number(String),
    Text(Text),
    List(Vec<Node>),
    Mapping(Vec<Entry>),
}

/// A text value.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    pub(crate) text: String,
    /// The placeholder that this text replaced.
    pub(crate) placeholder: Option<String>,
}

/// A key of a mapping and its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_at: Position,
    pub(crate) value: Node,
}

impl Node {
    /// The kind of value, without anything of its content.
    pub(crate) fn kind_name(&self) -> &'static str {
        match &self.kind {
            Kind::Null => "nothing",
            Kind::Boolean(_) => "a boolean",
            Kind::Number(_) => "a number",
            Kind::Text(_) => "a text",
            Kind::List(_) => "a list",
            Kind::Mapping(_) => "a mapping",
        }
    }

    /// The value for a message; a placeholder stands for its text.
    pub(crate) fn describe(&self) -> String {
        match &self.kind {
            Kind::Boolean(value) => format!("the boolean `{value}`"),
            Kind::Number(number) => format!("the number `{number}`"),
            Kind::Text(Text { placeholder: Some(placeholder), .. }) => {
                format!("the text that {} stands for", shown(placeholder))
            }
            Kind::Text(Text { text, .. }) => format!("the text {}", shown(text)),
            _ => self.kind_name().to_owned(),
        }
    }

    /// Text and values in this tree, and its height.
    fn measure(&self) -> (usize, usize) {
        let children: &mut dyn Iterator<Item = (usize, usize)> = match &self.kind {
            Kind::List(items) => &mut items.iter().map(Self::measure),
            Kind::Mapping(entries) => &mut entries.iter().map(|entry| {
                let (weight, height) = entry.value.measure();
                (weight + entry.key.len(), height)
            }),
            Kind::Text(text) => return (text.text.len() + 1, 1),
            Kind::Null | Kind::Boolean(_) | Kind::Number(_) => return (1, 1),
        };
        let (weight, height) = children
            .fold((1, 0), |(weight, height), child| (weight + child.0, height.max(child.1)));
        (weight, height + 1)
    }
}

/// The single document of `text`, or `Some(None)` if there is none. What is wrong goes to
/// `findings`; `None` if there is no tree because of it.
pub(crate) fn parse(text: &str, findings: &Findings) -> Option<Option<Node>> {
    if text.len() > TEXT_BYTES {
        let message = format!("expected at most {TEXT_BYTES} bytes, got {}", text.len());
        findings.error(Position::START, "", message, None);
        return None;
    }
    let mut options = granit_parser::Options::default();
    options.set_emit_comments(false);
    options.flow_nesting_limit = DEPTH;
    options.block_nesting_limit = DEPTH;
    let mut builder = Builder {
        parser: Parser::new_from_str_with_options(text, options),
        findings,
        anchors: HashMap::new(),
        alias_weight: 0,
    };
    match builder.document() {
        Ok(root) => Some(root),
        Err(Stop { at, message, hint }) => {
            findings.error(at, "", message, hint);
            None
        }
    }
}

/// Why no tree can be built.
struct Stop {
    at: Position,
    message: String,
    hint: Option<String>,
}

impl From<ScanError> for Stop {
    fn from(error: ScanError) -> Self {
        let marker = error.marker();
        Self {
            at: Position { line: marker.line().max(1), column: marker.col() + 1 },
            message: format!("not valid YAML: {}", error.info()),
            hint: None,
        }
    }
}

struct Builder<'a> {
    parser: Parser<'a, StrInput<'a>>,
    findings: &'a Findings,
    anchors: HashMap<usize, Node>,
    alias_weight: usize,
}

impl<'a> Builder<'a> {
    fn document(&mut self) -> Result<Option<Node>, Stop> {
        let mut root = None;
        while let Some((event, span)) = self.next()? {
            match event {
                Event::StreamStart | Event::DocumentEnd => {}
                Event::StreamEnd => break,
                Event::DocumentStart(..) if root.is_some() => {
                    return Err(Stop {
                        at: start(span),
                        message: "expected one document, got a second one".into(),
                        hint: Some("remove the line `---` and join the two".into()),
                    });
                }
                Event::DocumentStart(..) => {}
                event => root = Some(self.node(event, span, "", 1)?),
            }
        }
        Ok(root)
    }

    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>, Stop> {
        Ok(self.parser.next_event().transpose()?)
    }

    /// The node that begins with `event`, at `path`.
    fn node(
        &mut self,
        event: Event<'a>,
        span: Span,
        path: &str,
        depth: usize,
    ) -> Result<Node, Stop> {
        let at = start(span);
        if depth > DEPTH {
            return Err(too_deep(at));
        }
        let (kind, anchor) = match event {
            Event::Alias(id) => return self.alias(id, at, depth),
            Event::Scalar(text, style, anchor, tag) => {
                let forced_text = self.reads_as_text(tag.as_deref(), at, path);
                let plain = style == ScalarStyle::Plain && !forced_text;
                let kind = if plain { plain_scalar(&text) } else { Kind::text(&text) };
                (kind, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.reads_as_text(tag.as_deref(), at, path);
                (self.list(path, depth)?, anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.reads_as_text(tag.as_deref(), at, path);
                (self.mapping(path, depth)?, anchor)
            }
            _ => (Kind::Null, 0),
        };
        let node = Node { at, kind };
        if anchor != 0 {
            let (weight, _) = node.measure();
            self.spend(weight, at)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, path: &str, depth: usize) -> Result<Kind, Stop> {
        let mut items = Vec::new();
        while let Some((event, span)) = self.next()? {
            if event == Event::SequenceEnd {
                break;
            }
            let path = format!("{path}[{}]", items.len());
            items.push(self.node(event, span, &path, depth + 1)?);
        }
        Ok(Kind::List(items))
    }

    fn mapping(&mut self, path: &str, depth: usize) -> Result<Kind, Stop> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen: HashMap<String, Position> = HashMap::new();
        while let Some((event, span)) = self.next()? {
            if event == Event::MappingEnd {
                break;
            }
            let key_at = start(span);
            let key = self.key(event, span, path, depth)?;
            let path = key_path(path, key.as_deref().unwrap_or("?"));
            let Some((event, span)) = self.next()? else {
                break;
            };
            let value = self.node(event, span, &path, depth + 1)?;
            let Some(key) = key else { continue };
            if let Some(first) = seen.get(&key) {
                let message = format!("duplicate key, first given in line {}", first.line);
                let hint = Some("remove one of the two".to_owned());
                self.findings.error(key_at, &path, message, hint);
            } else {
                seen.insert(key.clone(), key_at);
                entries.push(Entry { key, key_at, value });
            }
        }
        Ok(Kind::Mapping(entries))
    }

    /// The key that begins with `event`; `None`, and reported, if it is not a scalar.
    fn key(
        &mut self,
        event: Event<'a>,
        span: Span,
        path: &str,
        depth: usize,
    ) -> Result<Option<String>, Stop> {
        if let Event::Scalar(text, ..) = &event {
            let text = text.to_string();
            self.node(event, span, path, depth + 1)?;
            return Ok(Some(text));
        }
        let node = self.node(event, span, path, depth + 1)?;
        if let Kind::Text(text) = node.kind {
            return Ok(Some(text.text));
        }
        let message = format!("expected a text as key, got {}", node.kind_name());
        self.findings.error(node.at, path, message, None);
        Ok(None)
    }

    /// A copy of what the alias stands for; errors inside it point at the anchor's text.
    fn alias(&mut self, id: usize, at: Position, depth: usize) -> Result<Node, Stop> {
        let Some(target) = self.anchors.get(&id) else {
            return Err(Stop {
                at,
                message: "expected an anchor that ends before its alias".into(),
                hint: None,
            });
        };
        let (weight, height) = target.measure();
        if depth + height > DEPTH {
            return Err(too_deep(at));
        }
        let kind = target.kind.clone();
        self.spend(weight, at)?;
        Ok(Node { at, kind })
    }

    fn spend(&mut self, weight: usize, at: Position) -> Result<(), Stop> {
        self.alias_weight += weight;
        if self.alias_weight <= ALIAS_WEIGHT {
            return Ok(());
        }
        Err(Stop {
            at,
            message: format!(
                "expected anchors and aliases that stand for at most {ALIAS_WEIGHT} bytes"
            ),
            hint: Some("write the values out".into()),
        })
    }

    /// Whether `tag` makes a scalar a text. Tags with another meaning are reported.
    fn reads_as_text(&self, tag: Option<&Tag>, at: Position, path: &str) -> bool {
        let Some(tag) = tag else { return false };
        if tag.is_yaml_core_schema_tag("str") || tag.original() == "!" {
            return true;
        }
        if !tag.is_yaml_core_schema() {
            let message = format!("expected no tag, got {}", shown(&tag.original()));
            let hint = Some("remove the tag".to_owned());
            self.findings.error(at, path, message, hint);
        }
        false
    }
}

fn start(span: Span) -> Position {
    Position { line: span.start.line().max(1), column: span.start.col() + 1 }
}

fn too_deep(at: Position) -> Stop {
    Stop { at, message: format!("expected at most {DEPTH} levels of nesting"), hint: None }
}

impl Kind {
    pub(crate) fn text(text: &str) -> Self {
        Self::Text(Text { text: text.to_owned(), placeholder: None })
    }
}

fn plain_scalar(text: &str) -> Kind {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
        "true" | "True" | "TRUE" => Kind::Boolean(true),
        "false" | "False" | "FALSE" => Kind::Boolean(false),
        _ if is_number(text) => Kind::Number(text.to_owned()),
        _ => Kind::text(text),
    }
}

/// Whether a plain scalar is a number. Digits after a leading zero are text, as the released
/// nodes read them.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let leading_zero = digits.len() > 1 && digits.bytes().all(|b| b.is_ascii_digit());
    match digits.as_bytes() {
        [b'0', ..] if leading_zero => false,
        [b'0'..=b'9', ..] | [b'.', b'0'..=b'9', ..] => digits.parse::<f64>().is_ok(),
        _ => matches!(digits, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN"),
    }
}
