//! `sidestream.yaml`: strict keys, `${NAME}`, `${NAME:default}` and `${file:PATH}` in values.

use std::collections::BTreeMap;
use std::fmt;

use crate::topology::diagnostic::FileId;
use crate::topology::yaml::{self, Entry, Kind, Node, Scalar};

use super::{Environment, KEYS, Origin, SettingError};

/// From 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// What the file says.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    pub values: BTreeMap<&'static str, (Position, String)>,
    pub kafka: BTreeMap<String, (Position, String)>,
}

struct Reader<'a> {
    text: &'a str,
    environment: &'a Environment,
    errors: &'a mut Vec<SettingError>,
    contents: Contents,
}

pub fn read(text: &str, environment: &Environment, errors: &mut Vec<SettingError>) -> Contents {
    let (node, diagnostics) = yaml::parse(text, FileId::default());
    let mut reader = Reader { text, environment, errors, contents: Contents::default() };
    for diagnostic in diagnostics {
        let byte = diagnostic.span.start;
        reader.error(byte, diagnostic.message, diagnostic.help);
    }
    if let Some(node) = node.filter(|node| !node.is_null()) {
        reader.settings(&node);
    }
    reader.contents
}

impl Reader<'_> {
    fn settings(&mut self, root: &Node) {
        let Kind::Mapping(entries) = &root.kind else {
            self.error(root.span.start, format!("settings are a mapping, not {}", root.kind_name()), None);
            return;
        };
        for entry in entries {
            match (entry.key.text.as_str(), &entry.value.kind) {
                ("kafka", Kind::Mapping(_)) => self.properties("", &entry.value),
                ("log", Kind::Mapping(inner)) => {
                    for Entry { key, value } in inner {
                        self.setting(key, &format!("log.{}", key.text), value);
                    }
                }
                (name, _) => match name.strip_prefix("kafka.") {
                    Some(property) => self.property(property.to_string(), &entry.value),
                    None => self.setting(&entry.key, name, &entry.value),
                },
            }
        }
    }

    fn setting(&mut self, key: &Scalar, name: &str, value: &Node) {
        let Some(known) = KEYS.iter().find(|known| known.name == name) else {
            let names = KEYS.iter().map(|known| known.name).chain(["kafka", "log"]);
            let nearest = names.max_by(|a, b| strsim::jaro(a, name).total_cmp(&strsim::jaro(b, name)));
            let help = nearest
                .filter(|nearest| strsim::jaro(nearest, name) > 0.7)
                .map(|nearest| format!("did you mean `{nearest}`?"));
            self.error(key.span.start, format!("there is no setting `{name}`"), help);
            return;
        };
        if let Some(text) = self.scalar(name, value) {
            let position = self.position(value.span.start);
            self.contents.values.insert(known.name, (position, text));
        }
    }

    /// Dotted names may be written as nested mappings.
    fn properties(&mut self, prefix: &str, node: &Node) {
        let Kind::Mapping(entries) = &node.kind else {
            return;
        };
        for Entry { key, value } in entries {
            let name = if prefix.is_empty() { key.text.clone() } else { format!("{prefix}.{}", key.text) };
            match value.kind {
                Kind::Mapping(_) => self.properties(&name, value),
                Kind::Scalar(_) | Kind::Sequence(_) => self.property(name, value),
            }
        }
    }

    fn property(&mut self, name: String, value: &Node) {
        if let Some(text) = self.scalar(&format!("kafka.{name}"), value) {
            let position = self.position(value.span.start);
            self.contents.kafka.insert(name, (position, text));
        }
    }

    fn scalar(&mut self, name: &str, value: &Node) -> Option<String> {
        let Some(scalar) = value.as_scalar().filter(|scalar| !scalar.is_null()) else {
            self.error(value.span.start, format!("`{name}` must be a value, not {}", value.kind_name()), None);
            return None;
        };
        match substitute(&scalar.text, self.environment) {
            Ok(text) => Some(text),
            Err(problem) => {
                self.error(value.span.start, format!("`{name}`: {problem}"), None);
                None
            }
        }
    }

    fn error(&mut self, byte: usize, problem: String, help: Option<String>) {
        let origin = Origin::File(self.position(byte));
        self.errors.push(SettingError { origin, problem, help });
    }

    fn position(&self, byte: usize) -> Position {
        let before = self.text.get(..byte).unwrap_or(self.text);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
        Position { line, column }
    }
}

/// `$${` stands for `${`.
fn substitute(text: &str, environment: &Environment) -> Result<String, String> {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        if rest[..start].ends_with('$') {
            result.push_str(&rest[..start - 1]);
            result.push_str("${");
            rest = &rest[start + 2..];
            continue;
        }
        result.push_str(&rest[..start]);
        let Some(end) = rest[start..].find('}') else {
            return Err("a `${` has no `}`".to_string());
        };
        let inside = &rest[start + 2..start + end];
        result.push_str(&value_of(inside, environment)?);
        rest = &rest[start + end + 1..];
    }
    result.push_str(rest);
    Ok(result)
}

fn value_of(inside: &str, environment: &Environment) -> Result<String, String> {
    if let Some(path) = inside.strip_prefix("file:") {
        let text = std::fs::read_to_string(path).map_err(|error| format!("`{path}` cannot be read: {error}"))?;
        // Mounted secrets tend to end in a newline that is no part of them.
        return Ok(text.trim_end_matches(['\n', '\r']).to_string());
    }
    let (name, default) = match inside.split_once(':') {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    match environment.get(name).or(default) {
        Some(value) => Ok(value.to_string()),
        None => Err(format!("the environment variable `{name}` is not set")),
    }
}
