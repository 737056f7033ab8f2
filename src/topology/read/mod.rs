//! YAML -> document: the form of every clause, and nothing else.
//!
//! Each clause is read by one function; unknown keys, wrong kinds of node and words that are not in the language are
//! reported here, and so is what the language has and this version does not. Reading goes on after a mistake: a clause
//! that cannot be read is left out, so that the others are still checked.

mod sink;
mod source;
mod step;
mod tests_section;

use std::time::Duration;

use super::diagnostic::{Code, Diagnostic, FileId, Severity, Span, nearest};
use super::document::{At, Document, Generator, Named, TestCase};
use super::plan::{Guarantee, OnError};
use super::yaml::{Entry, Kind, Node, Scalar};
use crate::format::Format;

/// Reads a topology's tree. `None` where not even the top level could be made out.
pub fn document(root: &Node, file: FileId, problems: &mut Vec<Diagnostic>) -> Option<Document> {
    Reader { file, problems, unreadable: Vec::new() }.document(root)
}

/// Reads the tree of a file of tests beside a topology: `tests:` alone, or a bare list.
pub fn test_file(root: &Node, file: FileId, problems: &mut Vec<Diagnostic>) -> Vec<TestCase> {
    let mut reader = Reader { file, problems, unreadable: Vec::new() };
    match &root.kind {
        Kind::Mapping(_) => {
            let Some(fields) = reader.fields(root, "a file of tests", &["tests"], &[]) else { return Vec::new() };
            fields.get("tests").map(|node| reader.tests(node)).unwrap_or_default()
        }
        Kind::Sequence(_) | Kind::Scalar(_) => reader.tests(root),
    }
}

struct Reader<'p> {
    file: FileId,
    problems: &'p mut Vec<Diagnostic>,
    /// Names of streams, tables and steps that could not be read.
    unreadable: Vec<String>,
}

/// The entries of a mapping whose keys are known.
struct Fields<'n> {
    entries: &'n [Entry],
    span: Span,
}

impl<'n> Fields<'n> {
    fn get(&self, key: &str) -> Option<&'n Node> {
        self.entries.iter().find(|entry| entry.key.text == key).map(|entry| &entry.value)
    }
}

impl Reader<'_> {
    fn error(&mut self, code: Code, span: &Span, message: impl Into<String>, help: Option<String>) {
        self.problems.push(Diagnostic {
            severity: Severity::Error,
            code,
            message: message.into(),
            path: String::new(),
            file: self.file,
            span: span.clone(),
            help,
        });
    }

    fn not_supported(&mut self, span: &Span, what: &str) {
        self.error(Code::NotSupported, span, format!("{what}: not supported yet"), None);
    }

    /// The mapping's entries, unknown keys reported. `later` are keys of the language that this version lacks.
    fn fields<'n>(&mut self, node: &'n Node, what: &str, known: &[&str], later: &[&str]) -> Option<Fields<'n>> {
        let Kind::Mapping(entries) = &node.kind else {
            let known = known.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
            let message = format!("{what} must be a mapping, not {}", node.kind_name());
            self.error(Code::BadValue, &node.span, message, Some(format!("its keys are {known}")));
            return None;
        };
        for entry in entries {
            let key = entry.key.text.as_str();
            if known.contains(&key) {
                continue;
            }
            if later.contains(&key) {
                self.not_supported(&entry.key.span, &format!("`{key}`"));
                continue;
            }
            let near = nearest(key, known.iter().chain(later).copied());
            let help = near.map_or_else(
                || format!("the keys of {what} are {}", known.join(", ")),
                |near| format!("did you mean `{near}`?"),
            );
            self.error(Code::UnknownKey, &entry.key.span, format!("`{key}` is not a key of {what}"), Some(help));
        }
        Some(Fields { entries, span: node.span.clone() })
    }

    fn required<'n>(&mut self, fields: &Fields<'n>, what: &str, key: &str) -> Option<&'n Node> {
        let node = fields.get(key);
        if node.is_none() {
            let span = first_line(&fields.span, fields.entries);
            self.error(Code::MissingKey, &span, format!("{what} needs `{key}`"), None);
        }
        node
    }

    /// Any scalar as text.
    fn text(&mut self, node: &Node, what: &str) -> Option<Scalar> {
        match &node.kind {
            Kind::Scalar(scalar) if !scalar.is_null() || scalar.text == "null" || scalar.text == "NULL" => {
                Some(scalar.clone())
            }
            _ => {
                let help = match node.kind {
                    Kind::Mapping(_) => Some("`{` starts a mapping in YAML: quote it if it is text".to_owned()),
                    Kind::Sequence(_) => Some("`[` and `- ` start a list in YAML: quote it if it is text".to_owned()),
                    Kind::Scalar(_) => None,
                };
                let message = format!("{what} must be text, not {}", node.kind_name());
                self.error(Code::BadValue, &node.span, message, help);
                None
            }
        }
    }

    /// A select list: text, or a list of its items.
    fn select_list(&mut self, node: &Node, what: &str) -> Option<Scalar> {
        let Kind::Sequence(items) = &node.kind else { return self.text(node, what) };
        let mut scalars = Vec::new();
        for item in items {
            scalars.push(self.text(item, &format!("an item of {what}"))?);
        }
        if scalars.is_empty() {
            self.error(Code::BadValue, &node.span, format!("{what} must not be empty"), None);
            return None;
        }
        Some(Scalar::join(&scalars, ", ", node.span.clone()))
    }

    fn boolean(&mut self, node: &Node, what: &str) -> Option<bool> {
        let value = node.as_scalar().and_then(Scalar::as_bool);
        if value.is_none() {
            self.error(Code::BadValue, &node.span, format!("{what} must be true or false"), None);
        }
        value
    }

    fn unsigned(&mut self, node: &Node, what: &str) -> Option<u64> {
        let value = node.as_scalar().and_then(|scalar| scalar.text.parse::<u64>().ok());
        if value.is_none() {
            self.error(Code::BadValue, &node.span, format!("{what} must be a whole number"), None);
        }
        value
    }

    /// A number from 1.
    fn count(&mut self, node: &Node, what: &str) -> Option<u32> {
        let number = self.unsigned(node, what)?;
        match u32::try_from(number) {
            Ok(number) if number > 0 => Some(number),
            _ => {
                self.error(Code::BadValue, &node.span, format!("{what} must be at least 1"), None);
                None
            }
        }
    }

    fn duration(&mut self, node: &Node, what: &str) -> Option<Duration> {
        let text = node.as_scalar().map_or("", |scalar| scalar.text.as_str());
        let duration = parse_duration(text);
        if duration.is_none() {
            let help = Some("a duration is a number and a unit: 250ms 30s 5m 1h 7d".to_owned());
            self.error(Code::BadValue, &node.span, format!("{what} must be a duration"), help);
        }
        duration
    }

    /// A duration that is not zero.
    fn span_of_time(&mut self, node: &Node, what: &str) -> Option<Duration> {
        let duration = self.duration(node, what)?;
        if duration.is_zero() {
            self.error(Code::BadValue, &node.span, format!("{what} must be longer than nothing"), None);
            return None;
        }
        Some(duration)
    }

    /// One of a set of words; `later` are words of the language that this version lacks.
    fn word<T: Copy>(&mut self, node: &Node, what: &str, words: &[(&str, T)], later: &[&str]) -> Option<T> {
        let text = node.as_scalar().map(|scalar| scalar.text.as_str());
        if let Some((_, value)) = words.iter().find(|(word, _)| Some(*word) == text) {
            return Some(*value);
        }
        if let Some(text) = text.filter(|text| later.contains(text)) {
            self.not_supported(&node.span, &format!("{what} `{text}`"));
            return None;
        }
        let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let near = text.and_then(|text| nearest(text, all.iter().copied().chain(later.iter().copied())));
        let help = near.map(|near| format!("did you mean `{near}`?"));
        self.error(Code::BadValue, &node.span, format!("{what} must be one of: {}", all.join(", ")), help);
        None
    }

    fn format(&mut self, node: &Node) -> Option<At<Format>> {
        let words =
            [("json", Format::Json), ("kafka", Format::Kafka), ("string", Format::String), ("bytes", Format::Bytes)];
        let value = self.word(node, "format", &words, &["avro", "protobuf", "json_schema", "csv"])?;
        Some(At { value, span: node.span.clone() })
    }

    fn on_error(&mut self, node: Option<&Node>) -> OnError {
        let words = [("dead_letter", OnError::DeadLetter), ("skip", OnError::Skip), ("fail", OnError::Fail)];
        node.and_then(|node| self.word(node, "on_error", &words, &[])).unwrap_or(OnError::DeadLetter)
    }

    /// `late: {to: TOPIC}`.
    fn late(&mut self, node: Option<&Node>) -> Option<Scalar> {
        let fields = self.fields(node?, "`late`", &["to"], &[])?;
        let to = self.required(&fields, "`late`", "to")?;
        self.topic(to)
    }

    /// The name of a topic.
    fn topic(&mut self, node: &Node) -> Option<Scalar> {
        let topic = self.text(node, "a topic")?;
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if topic.text.is_empty() || topic.text.len() > 249 || !topic.text.chars().all(legal) {
            let help = "Kafka allows letters, digits, `.`, `_` and `-`, and at most 249 of them".to_owned();
            let message = format!("`{}` cannot be the name of a topic", topic.text);
            self.error(Code::BadName, &topic.span, message, Some(help));
            return None;
        }
        Some(topic)
    }

    /// `{name: expression, ...}`.
    fn named(&mut self, node: &Node, what: &str) -> Option<Vec<Named>> {
        let Kind::Mapping(entries) = &node.kind else {
            let message = format!("{what} must be a mapping of names to expressions, not {}", node.kind_name());
            self.error(Code::BadValue, &node.span, message, None);
            return None;
        };
        let mut named = Vec::new();
        for entry in entries {
            if entry.value.is_null() && entry.value.as_scalar().is_some_and(|scalar| scalar.text.is_empty()) {
                let message = format!("`{}` has no expression", entry.key.text);
                let help =
                    "if it is a part of the expression before it, YAML split it at a comma: quote the expression";
                self.error(Code::YamlSplit, &entry.key.span, message, Some(help.to_owned()));
                continue;
            }
            if let Some(expression) = self.text(&entry.value, &format!("`{}`", entry.key.text)) {
                named.push(Named { name: entry.key.clone(), expression });
            }
        }
        Some(named)
    }

    /// The name of a stream, table or step.
    fn name(&mut self, name: &Scalar, what: &str) {
        let mut chars = name.text.chars();
        let legal = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && chars.all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !legal {
            let help = "a name starts with a letter or `_`, and has letters, digits and `_`".to_owned();
            self.error(Code::BadName, &name.span, format!("`{}` cannot be the name of {what}", name.text), Some(help));
        }
    }

    fn document(mut self, root: &Node) -> Option<Document> {
        let known = [
            "version",
            "name",
            "description",
            "guarantee",
            "time_zone",
            "streams",
            "tables",
            "steps",
            "rename",
            "tests",
            "dev",
        ];
        let fields = self.fields(root, "a topology", &known, &["models"])?;
        self.version(&fields);
        if let Some(node) = fields.get("time_zone") {
            let zone = self.text(node, "`time_zone`");
            if zone.is_some_and(|zone| zone.text != "UTC") {
                let help = "days of a zone are groups of `DATE_TRUNC('day', at, 'Europe/Berlin')`";
                let message = "a `time_zone` other than UTC: not supported yet";
                self.error(Code::NotSupported, &node.span, message, Some(help.to_owned()));
            }
        }
        let guarantees = [("exactly_once", Guarantee::ExactlyOnce), ("at_least_once", Guarantee::AtLeastOnce)];
        let guarantee = fields
            .get("guarantee")
            .and_then(|node| self.word(node, "guarantee", &guarantees, &[]))
            .unwrap_or(Guarantee::ExactlyOnce);
        let name = self.application(&fields);
        let description = fields
            .get("description")
            .and_then(|node| self.text(node, "`description`"))
            .map(|description| description.text);
        let sources = self.sources(&fields);
        let steps = fields.get("steps").map(|node| self.steps(node)).unwrap_or_default();
        let rename = fields.get("rename").and_then(|node| self.named(node, "`rename`")).unwrap_or_default();
        let rename = rename.into_iter().map(|entry| (entry.name, entry.expression)).collect();
        let tests = fields.get("tests").map(|node| self.tests(node)).unwrap_or_default();
        let dev = fields.get("dev").map(|node| self.generators(node)).unwrap_or_default();
        Some(Document {
            name: name?,
            description,
            guarantee,
            sources,
            steps,
            rename,
            tests,
            dev,
            unreadable: self.unreadable,
        })
    }

    fn version(&mut self, fields: &Fields<'_>) {
        let Some(node) = self.required(fields, "a topology", "version") else { return };
        if node.as_scalar().is_none_or(|scalar| scalar.text != "1") {
            self.error(
                Code::BadValue,
                &node.span,
                "the language's version is 1",
                Some("write `version: 1`".to_owned()),
            );
        }
    }

    fn application(&mut self, fields: &Fields<'_>) -> Option<Scalar> {
        let node = self.required(fields, "a topology", "name")?;
        let name = self.text(node, "`name`")?;
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_');
        if name.text.is_empty() || name.text.len() > 100 || !name.text.chars().all(legal) {
            let help = "it is the consumer group and the prefix of topics: letters, digits, `.` and `_`".to_owned();
            self.error(
                Code::BadName,
                &name.span,
                format!("`{}` cannot be the name of a topology", name.text),
                Some(help),
            );
        }
        Some(name)
    }

    fn generators(&mut self, node: &Node) -> Vec<Generator> {
        let Kind::Mapping(entries) = &node.kind else {
            let message = format!("`dev` must be a mapping of streams and tables, not {}", node.kind_name());
            self.error(Code::BadValue, &node.span, message, None);
            return Vec::new();
        };
        let mut generators = Vec::new();
        for entry in entries {
            let what = format!("`dev.{}`", entry.key.text);
            let Some(fields) = self.fields(&entry.value, &what, &["rate", "value"], &[]) else { continue };
            let rate = self.required(&fields, &what, "rate").and_then(|node| self.rate(node));
            let values = self.required(&fields, &what, "value").and_then(|node| self.named(node, "`value`"));
            if let (Some(rate), Some(values)) = (rate, values) {
                let span = entry.key.span.start..entry.value.span.end;
                generators.push(Generator { source: entry.key.clone(), rate, values, span });
            }
        }
        generators
    }

    fn rate(&mut self, node: &Node) -> Option<f64> {
        let rate = node.as_scalar().and_then(|scalar| scalar.text.parse::<f64>().ok());
        let rate = rate.filter(|rate| rate.is_finite() && *rate > 0.0);
        if rate.is_none() {
            self.error(Code::BadValue, &node.span, "`rate` must be a number of records per second", None);
        }
        rate
    }
}

/// A mapping's first line is enough to point at what is missing from it.
fn first_line(span: &Span, entries: &[Entry]) -> Span {
    entries.first().map_or(span.clone(), |entry| entry.key.span.clone())
}

/// `250ms 30s 5m 1h 7d`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().ok()?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    // A thousand years is more than anybody means, and far from any overflow.
    number.checked_mul(millis).filter(|millis| *millis < 1_000 * 366 * 86_400_000).map(Duration::from_millis)
}

/// Durations of the language stay far below the range of milliseconds.
pub fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_number_and_a_unit() {
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("7d"), Some(Duration::from_secs(7 * 86_400)));
        for wrong in ["", "5", "s", "5 s", "-5s", "1.5h", "5w", "99999999999999999999s", "9999999999999d"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }
}
