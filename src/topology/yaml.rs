//! YAML as a tree in which every scalar knows where each of its bytes stands in the file.
//!
//! What it is: the tree of one document (anchors resolved, duplicate keys reported), with scalars kept as text, since
//! what a scalar means is decided by who reads it: `NO` is a string where a string is expected.
//! What it is not: it knows nothing of topologies, nor of `${...}` (see `substitute`).

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::diagnostic::{Code, Diagnostic, FileId, Severity, Span};

/// Deeper files are refused; nothing in the language is nested half as deep.
const MAX_DEPTH: usize = 64;
/// More nodes than this, aliases expanded, are refused.
const MAX_NODES: usize = 200_000;

#[derive(Clone, Debug)]
pub struct Node {
    pub span: Span,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub enum Kind {
    Scalar(Scalar),
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub key: Scalar,
    pub value: Node,
}

/// Text, and where it stands.
#[derive(Clone, Debug, Default)]
pub struct Scalar {
    pub text: String,
    /// Without quotes and not a block: may mean a number, a boolean or nothing.
    pub plain: bool,
    pub span: Span,
    places: Places,
}

/// From a byte of the text to a byte of the file.
#[derive(Clone, Debug)]
enum Places {
    /// The text stands in the file as it is, from this byte.
    From(usize),
    /// One byte of the file for each byte of the text.
    Each(Box<[u32]>),
}

impl Default for Places {
    fn default() -> Self {
        Self::From(0)
    }
}

impl Scalar {
    /// Where a part of the text stands in the file.
    pub fn place(&self, range: Span) -> Span {
        let start = self.place_of(range.start.min(self.text.len()));
        if range.is_empty() {
            return start..start;
        }
        let last = self.place_of(range.end.min(self.text.len()).saturating_sub(1));
        start..last.max(start) + 1
    }

    fn place_of(&self, byte: usize) -> usize {
        match &self.places {
            Places::From(start) => start + byte,
            Places::Each(places) => places.get(byte).map_or(self.span.end, |place| *place as usize),
        }
    }

    /// The same place with another text: `pieces` are texts with the bytes of the old text that they stand for.
    #[must_use]
    pub fn rewritten(&self, pieces: &[(Cow<'_, str>, Span)]) -> Self {
        let mut text = String::with_capacity(self.text.len());
        let mut places: Vec<u32> = Vec::with_capacity(self.text.len());
        for (piece, from) in pieces {
            let unchanged = self.text.get(from.clone()) == Some(piece);
            for offset in 0..piece.len() {
                let byte = if unchanged { from.start + offset } else { from.start };
                places.push(clamp(self.place_of(byte)));
            }
            text.push_str(piece);
        }
        Self { text, plain: self.plain, span: self.span.clone(), places: Places::Each(places.into()) }
    }

    /// Several texts as one, in the place of the list that holds them.
    pub fn join(parts: &[Self], separator: &str, span: Span) -> Self {
        let mut text = String::new();
        let mut places: Vec<u32> = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            if index > 0 {
                text.push_str(separator);
                places.extend(separator.bytes().map(|_| clamp(part.span.start)));
            }
            text.push_str(&part.text);
            places.extend((0..part.text.len()).map(|byte| clamp(part.place_of(byte))));
        }
        Self { text, plain: false, span, places: Places::Each(places.into()) }
    }

    /// Nothing was written, or `null` or `~`.
    pub fn is_null(&self) -> bool {
        self.plain && matches!(self.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }

    pub fn as_bool(&self) -> Option<bool> {
        if !self.plain {
            return None;
        }
        match self.text.as_str() {
            "true" | "True" | "TRUE" => Some(true),
            "false" | "False" | "FALSE" => Some(false),
            _ => None,
        }
    }
}

impl Node {
    pub fn as_scalar(&self) -> Option<&Scalar> {
        match &self.kind {
            Kind::Scalar(scalar) => Some(scalar),
            Kind::Sequence(_) | Kind::Mapping(_) => None,
        }
    }

    pub fn is_null(&self) -> bool {
        self.as_scalar().is_some_and(Scalar::is_null)
    }

    /// What it is, for messages.
    pub fn kind_name(&self) -> &'static str {
        match &self.kind {
            Kind::Scalar(scalar) if scalar.is_null() => "nothing",
            Kind::Scalar(_) => "a value",
            Kind::Sequence(_) => "a list",
            Kind::Mapping(_) => "a mapping",
        }
    }

    /// As JSON: plain scalars by YAML's core schema.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.kind {
            Kind::Scalar(scalar) => scalar_to_json(scalar),
            Kind::Sequence(items) => serde_json::Value::Array(items.iter().map(Self::to_json).collect()),
            Kind::Mapping(entries) => serde_json::Value::Object(
                entries.iter().map(|entry| (entry.key.text.clone(), entry.value.to_json())).collect(),
            ),
        }
    }

    /// `steps.enriched.join[0].on`: the innermost node that holds the span.
    pub fn path_of(&self, span: &Span) -> String {
        let mut path = String::new();
        let mut node = self;
        'descend: loop {
            match &node.kind {
                Kind::Scalar(_) => return path,
                Kind::Sequence(items) => {
                    for (index, item) in items.iter().enumerate() {
                        if holds(&item.span, span) {
                            let _ = write!(path, "[{index}]");
                            node = item;
                            continue 'descend;
                        }
                    }
                    return path;
                }
                Kind::Mapping(entries) => {
                    for entry in entries {
                        let whole = entry.key.span.start..entry.value.span.end.max(entry.key.span.end);
                        if holds(&whole, span) {
                            if !path.is_empty() {
                                path.push('.');
                            }
                            path.push_str(&entry.key.text);
                            node = &entry.value;
                            continue 'descend;
                        }
                    }
                    return path;
                }
            }
        }
    }
}

fn holds(outer: &Span, inner: &Span) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

fn scalar_to_json(scalar: &Scalar) -> serde_json::Value {
    if scalar.is_null() {
        return serde_json::Value::Null;
    }
    if let Some(boolean) = scalar.as_bool() {
        return boolean.into();
    }
    let text = scalar.text.as_str();
    let numeric = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'))
        && text.bytes().any(|byte| byte.is_ascii_digit());
    if scalar.plain && numeric {
        if let Ok(integer) = text.parse::<i64>() {
            return integer.into();
        }
        if let Some(number) = text.parse::<f64>().ok().and_then(serde_json::Number::from_f64) {
            return number.into();
        }
    }
    text.into()
}

/// Reads one document. The tree is there unless the text is not YAML at all; duplicate keys and expressions that YAML
/// has split are reported, and the tree is repaired as well as it can be.
pub fn parse(text: &str, file: FileId) -> (Option<Node>, Vec<Diagnostic>) {
    let mut builder = Builder::new(text, file);
    let root = builder.document();
    (root, builder.problems)
}

struct Builder<'t> {
    text: &'t str,
    file: FileId,
    /// Byte of each character.
    bytes: Vec<usize>,
    problems: Vec<Diagnostic>,
}

/// A collection that is being filled.
enum Open {
    Sequence { start: usize, anchor: usize, items: Vec<Node> },
    Mapping { start: usize, anchor: usize, entries: Vec<Entry>, key: Option<Scalar> },
}

impl<'t> Builder<'t> {
    fn new(text: &'t str, file: FileId) -> Self {
        let bytes = text.char_indices().map(|(byte, _)| byte).chain([text.len()]).collect();
        Self { text, file, bytes, problems: Vec::new() }
    }

    fn byte(&self, character: usize) -> usize {
        self.bytes.get(character).copied().unwrap_or(self.text.len())
    }

    fn problem(&mut self, code: Code, span: Span, message: impl Into<String>, help: Option<&str>) {
        self.problems.push(Diagnostic {
            severity: Severity::Error,
            code,
            message: message.into(),
            path: String::new(),
            file: self.file,
            span,
            help: help.map(str::to_owned),
        });
    }

    fn document(&mut self) -> Option<Node> {
        let mut parser = Parser::new_from_str(self.text);
        let mut open: Vec<Open> = Vec::new();
        let mut anchors: HashMap<usize, Node> = HashMap::new();
        let mut root: Option<Node> = None;
        let mut nodes = 0_usize;
        while let Some(event) = parser.next_event() {
            let (event, span) = match event {
                Ok(event) => event,
                Err(error) => {
                    let at = self.byte(error.marker().index());
                    let flow = open.iter().any(|open| self.is_flow(open));
                    let help = flow.then_some(
                        "inside { } and [ ], YAML takes commas, colons and brackets for its own: quote the expression",
                    );
                    let end = self.text[at..].chars().next().map_or(at, |c| at + c.len_utf8());
                    self.problem(Code::Yaml, at..end, format!("not valid YAML: {}", error.info()), help);
                    return None;
                }
            };
            let start = self.byte(span.start.index());
            let end = self.byte(span.end.index());
            let done = match event {
                Event::Scalar(text, style, anchor, _tag) => {
                    let scalar = self.scalar(text.into_owned(), style, start, end);
                    // A key of a mapping is not a node of its own.
                    Some((Node { span: scalar.span.clone(), kind: Kind::Scalar(scalar) }, anchor))
                }
                Event::Alias(anchor) => {
                    let Some(node) = anchors.get(&anchor) else {
                        self.problem(Code::Yaml, start..end, "this anchor is not complete here", None);
                        return None;
                    };
                    nodes += count(node);
                    Some((node.clone(), 0))
                }
                Event::SequenceStart(anchor, _) => {
                    open.push(Open::Sequence { start, anchor, items: Vec::new() });
                    None
                }
                Event::MappingStart(anchor, _) => {
                    open.push(Open::Mapping { start, anchor, entries: Vec::new(), key: None });
                    None
                }
                Event::SequenceEnd | Event::MappingEnd => open.pop().map(|done| self.close(done, end)),
                Event::DocumentStart(_) if root.is_some() => {
                    self.problem(Code::Yaml, start..end.max(start), "a topology is one YAML document", None);
                    return root;
                }
                Event::DocumentStart(_)
                | Event::DocumentEnd
                | Event::Nothing
                | Event::StreamStart
                | Event::StreamEnd => None,
            };
            nodes += 1;
            if open.len() > MAX_DEPTH || nodes > MAX_NODES {
                self.problem(Code::Yaml, start..start, "nested too deeply, or too large", None);
                return None;
            }
            let Some((node, anchor)) = done else { continue };
            if anchor != 0 {
                anchors.insert(anchor, node.clone());
            }
            match open.last_mut() {
                None => root = Some(node),
                Some(Open::Sequence { items, .. }) => items.push(node),
                Some(Open::Mapping { entries, key, .. }) => match key.take() {
                    Some(key) => entries.push(Entry { key, value: node }),
                    None => match node.kind {
                        Kind::Scalar(scalar) => *key = Some(scalar),
                        Kind::Sequence(_) | Kind::Mapping(_) => {
                            let span = node.span;
                            self.problem(
                                Code::Yaml,
                                span,
                                "a key must be a plain word",
                                Some("`{...}` right after `-` or `:` is a mapping to YAML: quote it if it is text"),
                            );
                            return None;
                        }
                    },
                },
            }
        }
        root
    }

    fn is_flow(&self, open: &Open) -> bool {
        let (Open::Sequence { start, .. } | Open::Mapping { start, .. }) = open;
        matches!(self.text.as_bytes().get(*start), Some(b'{' | b'['))
    }

    fn close(&mut self, done: Open, end: usize) -> (Node, usize) {
        let flow = self.is_flow(&done);
        match done {
            Open::Sequence { start, anchor, mut items } => {
                if flow {
                    self.join_split_items(&mut items);
                }
                let end = block_end(flow, end, items.last().map(|item| item.span.end));
                (Node { span: start..end.max(start), kind: Kind::Sequence(items) }, anchor)
            }
            Open::Mapping { start, anchor, mut entries, .. } => {
                if flow {
                    self.join_split_entries(&mut entries);
                }
                self.refuse_duplicates(&mut entries);
                let last = entries.last().map(|entry| entry.value.span.end.max(entry.key.span.end));
                let end = block_end(flow, end, last);
                (Node { span: start..end.max(start), kind: Kind::Mapping(entries) }, anchor)
            }
        }
    }

    fn refuse_duplicates(&mut self, entries: &mut Vec<Entry>) {
        let mut index = 0;
        while index < entries.len() {
            let (before, rest) = entries.split_at(index);
            let key = &rest[0].key;
            if let Some(first) = before.iter().find(|entry| entry.key.text == key.text) {
                let line = self.text[..first.key.span.start].matches('\n').count() + 1;
                let message = format!("`{}` stands twice; first in line {line}", key.text);
                self.problem(Code::DuplicateKey, key.span.clone(), message, None);
                entries.remove(index);
            } else {
                index += 1;
            }
        }
    }

    /// `{mean: COALESCE(a, b)}` is `mean: "COALESCE(a"` and `"b)": null` to YAML.
    fn join_split_entries(&mut self, entries: &mut Vec<Entry>) {
        let mut index = 0;
        while index + 1 < entries.len() {
            let joined = {
                let next = &entries[index + 1];
                match entries[index].value.as_scalar() {
                    Some(value) if value.plain && next.value.is_null() && unbalanced(&value.text) > 0 => {
                        Some(self.joined(value, &next.key))
                    }
                    _ => None,
                }
            };
            let Some(joined) = joined else {
                index += 1;
                continue;
            };
            entries[index].value = Node { span: joined.span.clone(), kind: Kind::Scalar(joined.clone()) };
            entries.remove(index + 1);
            if unbalanced(&joined.text) <= 0 {
                self.split(&joined, Some(&entries[index].key.text.clone()));
                index += 1;
            }
        }
    }

    /// The same in `[f(a, b)]`.
    fn join_split_items(&mut self, items: &mut Vec<Node>) {
        let mut index = 0;
        while index + 1 < items.len() {
            let joined = match (items[index].as_scalar(), items[index + 1].as_scalar()) {
                (Some(value), Some(next)) if value.plain && next.plain && unbalanced(&value.text) > 0 => {
                    Some(self.joined(value, next))
                }
                _ => None,
            };
            let Some(joined) = joined else {
                index += 1;
                continue;
            };
            items[index] = Node { span: joined.span.clone(), kind: Kind::Scalar(joined.clone()) };
            items.remove(index + 1);
            if unbalanced(&joined.text) <= 0 {
                self.split(&joined, None);
                index += 1;
            }
        }
    }

    fn joined(&self, first: &Scalar, second: &Scalar) -> Scalar {
        let span = first.span.start..second.span.end.max(first.span.end);
        Scalar {
            text: self.text.get(span.clone()).unwrap_or_default().to_owned(),
            plain: true,
            places: Places::From(span.start),
            span,
        }
    }

    fn split(&mut self, whole: &Scalar, key: Option<&str>) {
        let quoted = match key {
            Some(key) => format!("{key}: \"{}\"", whole.text),
            None => format!("\"{}\"", whole.text),
        };
        self.problem(
            Code::YamlSplit,
            whole.span.clone(),
            "YAML split this expression: quote it",
            Some(&format!("inside {{ }} and [ ] a comma ends a value; write {quoted}")),
        );
    }

    fn scalar(&self, text: String, style: ScalarStyle, start: usize, end: usize) -> Scalar {
        let raw = self.text.get(start..end).unwrap_or_default();
        let plain = style == ScalarStyle::Plain;
        let places = match style {
            ScalarStyle::Plain if raw.starts_with(text.as_str()) => Places::From(start),
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted
                if raw.get(1..).is_some_and(|raw| raw.starts_with(text.as_str())) =>
            {
                Places::From(start + 1)
            }
            _ => Places::Each(align(&text, raw, style, start)),
        };
        let end = if plain { start + raw.trim_end().len() } else { start + raw.trim_end_matches(['\n', ' ']).len() };
        Scalar { text, plain, span: start..end, places }
    }
}

/// A block ends where its last member does, not where the parser noticed.
fn block_end(flow: bool, parser: usize, last: Option<usize>) -> usize {
    if flow { parser } else { last.unwrap_or(parser) }
}

fn count(node: &Node) -> usize {
    1 + match &node.kind {
        Kind::Scalar(_) => 0,
        Kind::Sequence(items) => items.iter().map(count).sum(),
        Kind::Mapping(entries) => entries.iter().map(|entry| 1 + count(&entry.value)).sum(),
    }
}

/// Opening less closing parentheses and brackets, outside of SQL's quotes.
pub fn unbalanced(text: &str) -> i32 {
    let mut depth = 0;
    let mut quote: Option<char> = None;
    for c in text.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None => match c {
                '\'' | '"' => quote = Some(c),
                '(' | '[' => depth += 1,
                ')' | ']' => depth -= 1,
                _ => {}
            },
        }
    }
    if quote.is_some() { depth.max(1) } else { depth }
}

/// For each byte of a decoded scalar the byte of the file that it came from. Exact for what people write; where folding
/// makes it doubtful it stays within the scalar.
fn align(text: &str, raw: &str, style: ScalarStyle, start: usize) -> Box<[u32]> {
    let raw_chars: Vec<(usize, char)> = raw.char_indices().collect();
    let mut at = match style {
        ScalarStyle::Plain => 0,
        ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => 1,
        // The header (`|`, `>-`) ends with its line.
        ScalarStyle::Literal | ScalarStyle::Folded => {
            if raw.starts_with(['|', '>']) {
                raw_chars.iter().position(|(_, c)| *c == '\n').map_or(0, |newline| newline + 1)
            } else {
                0
            }
        }
    };
    let mut places = Vec::with_capacity(text.len());
    for c in text.chars() {
        let mut place = raw_chars.get(at).map_or(raw.len(), |(byte, _)| *byte);
        match raw_chars.get(at).map(|(_, raw)| *raw) {
            Some('\\') if style == ScalarStyle::DoubleQuoted => {
                let escape = raw_chars.get(at + 1).map_or('\\', |(_, c)| *c);
                at += match escape {
                    'x' => 4,
                    'u' => 6,
                    'U' => 10,
                    _ => 2,
                };
            }
            Some('\'') if style == ScalarStyle::SingleQuoted && c == '\'' => at += 2,
            Some(raw_char) if raw_char == c && !c.is_whitespace() => at += 1,
            Some(raw_char) => {
                if c.is_whitespace() && raw_char.is_whitespace() {
                    // One blank, or a fold: a line break with the blanks around it.
                    let fold = raw_chars[at..].iter().take_while(|(_, c)| c.is_whitespace());
                    let run: Vec<char> = fold.map(|(_, c)| *c).collect();
                    at += if run.contains(&'\n') { run.len() } else { 1 };
                } else if c.is_whitespace() {
                    // Taken by the line break before it.
                } else if let Some(skip) = raw_chars[at..].iter().position(|(_, raw)| *raw == c) {
                    // Indentation.
                    at += skip;
                    place = raw_chars[at].0;
                    at += 1;
                }
            }
            None => {}
        }
        for _ in 0..c.len_utf8() {
            places.push(clamp(start + place));
        }
    }
    places.into()
}

fn clamp(byte: usize) -> u32 {
    u32::try_from(byte).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> Node {
        let (node, problems) = parse(text, FileId(0));
        assert!(problems.is_empty(), "{problems:?}");
        node.unwrap()
    }

    fn value<'n>(node: &'n Node, key: &str) -> &'n Node {
        match &node.kind {
            Kind::Mapping(entries) => &entries.iter().find(|entry| entry.key.text == key).unwrap().value,
            _ => panic!("not a mapping"),
        }
    }

    /// Each word of the scalar must be found where it is said to stand.
    fn check_places(text: &str) {
        let root = tree(text);
        let scalar = value(&root, "a").as_scalar().unwrap().clone();
        let mut from = 0;
        for word in scalar.text.split_whitespace() {
            let at = scalar.text[from..].find(word).unwrap() + from;
            from = at + word.len();
            let place = scalar.place(at..from);
            assert_eq!(&text[place], word, "in {text:?}");
        }
    }

    #[test]
    fn every_word_of_a_scalar_is_found_in_the_file() {
        check_places("a: x > 1 AND y\nb: 2\n");
        check_places("a: 'x > 1 AND y'\n");
        check_places("a: \"x > 1 AND y\" # why\n");
        check_places("{a: x > 1 AND y, b: 2}\n");
        check_places("ö: ü\na: x > ö AND y\n");
        check_places("a: |\n  x > 1\n  AND y\n   OR z\nb: 2\n");
        check_places("a: >\n  x > 1\n  AND y\n");
        check_places("a: >-\n    x > 1\n    AND y\n");
        check_places("a: x > 1\n  AND y\n");
        check_places("a: \"x > 1\n  AND y\"\n");
    }

    #[test]
    fn quotes_and_escapes_are_counted() {
        let text = "a: 'it''s x'\n";
        let root = tree(text);
        let scalar = value(&root, "a").as_scalar().unwrap();
        assert_eq!(scalar.text, "it's x");
        assert_eq!(&text[scalar.place(5..6)], "x");
        let text = "a: \"\\\"q\\\" = x\"\n";
        let root = tree(text);
        let scalar = value(&root, "a").as_scalar().unwrap();
        assert_eq!(scalar.text, "\"q\" = x");
        assert_eq!(&text[scalar.place(6..7)], "x");
    }

    #[test]
    fn a_span_is_named_by_its_path() {
        let text = "steps:\n  s:\n    join:\n      - {with: a, \"on\": x = y}\n";
        let root = tree(text);
        let at = text.find("x = y").unwrap();
        assert_eq!(root.path_of(&(at..at + 5)), "steps.s.join[0].on");
    }

    #[test]
    fn a_duplicate_key_is_reported_with_its_first_place() {
        let (_, problems) = parse("a: 1\nb: 2\na: 3\n", FileId(0));
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].message, "`a` stands twice; first in line 1");
        assert_eq!(problems[0].span, 10..11);
    }

    #[test]
    fn a_split_expression_is_reported_and_repaired() {
        let text = "{n: COUNT(*), mean: COALESCE(a, b, c), last: 1}";
        let (node, problems) = parse(text, FileId(0));
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].code, Code::YamlSplit);
        assert_eq!(&text[problems[0].span.clone()], "COALESCE(a, b, c)");
        assert_eq!(value(&node.unwrap(), "last").as_scalar().unwrap().text, "1");
        let (_, problems) = parse("[a, f(b, c), d]", FileId(0));
        assert_eq!(problems.len(), 1);
    }

    #[test]
    fn an_anchor_may_be_used_again() {
        let root = tree("x: &cols {a: INT}\ny: *cols\n");
        assert_eq!(value(value(&root, "y"), "a").as_scalar().unwrap().text, "INT");
    }

    #[test]
    fn text_that_is_not_yaml_is_one_problem() {
        let (node, problems) = parse("a: {b: [1}\n", FileId(0));
        assert!(node.is_none());
        assert_eq!(problems.len(), 1);
        assert!(problems[0].help.is_some());
    }
}
