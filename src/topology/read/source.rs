//! `streams` and `tables`.

use std::time::Duration;

use super::super::diagnostic::{Code, Span};
use super::super::document::{At, ColumnDef, KeyDef, SourceDef, SourceKind};
use super::super::plan::{Start, WatermarkPlan};
use super::super::yaml::{Entry, Kind, Node, Scalar};
use super::{Fields, Reader};
use crate::expression::{parse_columns, parse_type};
use crate::format::Format;
use crate::ids::EventTime;
use crate::schema::{Column, Type};

const STREAM_KEYS: &[&str] =
    &["topic", "topics", "key", "format", "columns", "timestamp", "watermark", "late", "on_error", "start"];
const TABLE_KEYS: &[&str] =
    &["topic", "key", "format", "columns", "timestamp", "watermark", "on_error", "bootstrap", "query"];
const LATER: &[&str] = &["schema", "subject", "global", "history", "envelope"];

impl Reader<'_> {
    pub(super) fn sources(&mut self, fields: &Fields<'_>) -> Vec<SourceDef> {
        let mut sources = Vec::new();
        for (section, kind) in [("streams", SourceKind::Stream), ("tables", SourceKind::Table)] {
            let Some(node) = fields.get(section) else { continue };
            let Kind::Mapping(entries) = &node.kind else {
                let message = format!("`{section}` must be a mapping of names, not {}", node.kind_name());
                self.error(Code::BadValue, &node.span, message, None);
                continue;
            };
            for entry in entries {
                match self.source(kind, entry) {
                    Some(source) => sources.push(source),
                    None => self.unreadable.push(entry.key.text.clone()),
                }
            }
        }
        sources
    }

    fn source(&mut self, kind: SourceKind, entry: &Entry) -> Option<SourceDef> {
        let (what, keys) = match kind {
            SourceKind::Stream => ("a stream", STREAM_KEYS),
            SourceKind::Table => ("a table", TABLE_KEYS),
        };
        self.name(&entry.key, what);
        let fields = self.fields(&entry.value, what, keys, LATER)?;
        let topics = self.topics(&fields, what);
        let format = fields
            .get("format")
            .map_or(Some(At { value: Format::Json, span: entry.key.span.clone() }), |node| self.format(node));
        let key = fields.get("key").and_then(|node| self.key(node));
        let columns = fields.get("columns").map(|node| self.columns(node));
        if columns.is_none() && !fields.entries.iter().any(|entry| LATER.contains(&entry.key.text.as_str())) {
            let span = entry.key.span.clone();
            let help = Some("for example `columns: {id: STRING, amount: DOUBLE NOT NULL}`".to_owned());
            self.error(Code::MissingKey, &span, format!("{what} needs `columns`"), help);
        }
        let timestamp = fields.get("timestamp").and_then(|node| self.text(node, "`timestamp`"));
        let watermark = self.watermark(fields.get("watermark"));
        let late = self.late(fields.get("late"));
        let on_error = self.on_error(fields.get("on_error"));
        let start = fields
            .get("start")
            .and_then(|node| self.start(node))
            .unwrap_or(At { value: Start::Earliest, span: entry.key.span.clone() });
        let bootstrap = fields.get("bootstrap").and_then(|node| self.boolean(node, "`bootstrap`")).unwrap_or(true);
        let query = fields.get("query").and_then(|node| self.boolean(node, "`query`")).unwrap_or(true);
        Some(SourceDef {
            kind,
            name: entry.key.clone(),
            topics,
            key,
            format: format?,
            columns: columns.unwrap_or_default(),
            timestamp,
            watermark,
            late,
            on_error,
            start,
            bootstrap,
            query,
        })
    }

    fn topics(&mut self, fields: &Fields<'_>, what: &str) -> Vec<Scalar> {
        if let Some(node) = fields.get("topics") {
            if let Some(second) = fields.get("topic") {
                let help = Some("put all of them in `topics: [a, b]`".to_owned());
                self.error(Code::Clause, &second.span, "`topic` beside `topics`", help);
            }
            let Kind::Sequence(items) = &node.kind else {
                let message = format!("`topics` must be a list, not {}", node.kind_name());
                self.error(Code::BadValue, &node.span, message, None);
                return Vec::new();
            };
            let mut topics: Vec<Scalar> = Vec::new();
            for item in items {
                let Some(topic) = self.topic(item) else { continue };
                if topics.iter().any(|before| before.text == topic.text) {
                    let message = format!("topic `{}` stands twice", topic.text);
                    self.error(Code::DuplicateName, &topic.span, message, None);
                } else {
                    topics.push(topic);
                }
            }
            return topics;
        }
        self.required(fields, what, "topic").and_then(|node| self.topic(node)).into_iter().collect()
    }

    /// `{name: account, type: STRING}` or `{columns: {id: BIGINT}, format: json}`.
    fn key(&mut self, node: &Node) -> Option<KeyDef> {
        let fields = self.fields(node, "`key`", &["name", "type", "columns", "format"], &[])?;
        let named = fields.get("name").is_some() || fields.get("type").is_some();
        let columns = if let Some(columns) = fields.get("columns") {
            if named {
                let help = Some("one column is `{name, type}`, a struct is `{columns, format: json}`".to_owned());
                self.error(Code::Clause, &node.span, "`key` has both `columns` and `name`", help);
            }
            let defs = self.columns(columns);
            if defs.is_empty() {
                self.error(Code::BadValue, &columns.span, "a key needs at least one column", None);
                return None;
            }
            defs
        } else {
            let name = self.required(&fields, "`key`", "name").and_then(|node| self.text(node, "`name`"));
            let ty = self.required(&fields, "`key`", "type").and_then(|node| self.text(node, "`type`"));
            let (name, ty) = (name?, ty?);
            vec![self.column(&name, &ty)]
        };
        let format = match fields.get("format") {
            Some(node) => self.format(node)?,
            None if fields.get("columns").is_some() => At { value: Format::Json, span: node.span.clone() },
            None => At { value: Format::Kafka, span: node.span.clone() },
        };
        Some(KeyDef { format, columns })
    }

    /// A mapping of names to types, or one DDL text.
    fn columns(&mut self, node: &Node) -> Vec<ColumnDef> {
        let columns = match &node.kind {
            Kind::Scalar(text) if !text.is_null() => match parse_columns(&text.text) {
                Ok(columns) => {
                    columns.into_iter().map(|column| ColumnDef { span: text.span.clone(), column }).collect()
                }
                Err(problems) => {
                    for problem in problems {
                        self.error(Code::Sql, &text.place(problem.span), problem.message, problem.help);
                    }
                    Vec::new()
                }
            },
            Kind::Mapping(entries) => {
                let mut columns = Vec::new();
                for Entry { key, value } in entries {
                    if let Some(ty) = self.text(value, &format!("the type of column `{}`", key.text)) {
                        columns.push(self.column(key, &ty));
                    }
                }
                columns
            }
            Kind::Scalar(_) => Vec::new(),
            Kind::Sequence(_) => {
                let help = Some("write `columns: {id: STRING, amount: DOUBLE}`".to_owned());
                self.error(Code::BadValue, &node.span, "`columns` must be a mapping of names to types", help);
                Vec::new()
            }
        };
        self.unique(columns)
    }

    fn unique(&mut self, columns: Vec<ColumnDef>) -> Vec<ColumnDef> {
        let mut kept: Vec<ColumnDef> = Vec::new();
        for def in columns {
            if kept.iter().any(|before| before.column.name == def.column.name) {
                let message = format!("column `{}` stands twice", def.column.name);
                self.error(Code::DuplicateName, &def.span, message, None);
            } else {
                kept.push(def);
            }
        }
        kept
    }

    /// A column whose type cannot be read has the type NULL, which no other column has: whoever names it is not told that
    /// there is no such column.
    fn column(&mut self, name: &Scalar, ty: &Scalar) -> ColumnDef {
        let (ty, nullable) = parse_type(&ty.text).unwrap_or_else(|problem| {
            self.error(Code::BadType, &ty.place(problem.span), problem.message, problem.help);
            (Type::Null, true)
        });
        ColumnDef { column: Column::new(&name.text, ty, nullable), span: name.span.clone() }
    }

    fn watermark(&mut self, node: Option<&Node>) -> WatermarkPlan {
        let mut plan = WatermarkPlan { delay: Duration::ZERO, idle_timeout: Duration::from_secs(30), max_ahead: None };
        let keys = ["delay", "idle_timeout", "max_ahead"];
        let Some(fields) = node.and_then(|node| self.fields(node, "`watermark`", &keys, &["advance"])) else {
            return plan;
        };
        if let Some(delay) = fields.get("delay").and_then(|node| self.duration(node, "`delay`")) {
            plan.delay = delay;
        }
        if let Some(timeout) = fields.get("idle_timeout").and_then(|node| self.span_of_time(node, "`idle_timeout`")) {
            plan.idle_timeout = timeout;
        }
        if let Some(node) = fields.get("max_ahead") {
            let off = node.as_scalar().is_some_and(|scalar| scalar.text == "off");
            plan.max_ahead = if off { None } else { self.duration(node, "`max_ahead`") };
        }
        plan
    }

    fn start(&mut self, node: &Node) -> Option<At<Start>> {
        let text = self.text(node, "`start`")?;
        let span: Span = text.span.clone();
        let value = match text.text.as_str() {
            "earliest" => Start::Earliest,
            "latest" => Start::Latest,
            other => {
                if let Ok(at) = other.parse::<jiff::Timestamp>() {
                    Start::At(EventTime(at.as_millisecond()))
                } else {
                    let help = Some("a timestamp is written 2026-01-01T00:00:00Z".to_owned());
                    let message = "`start` must be earliest, latest or a timestamp";
                    self.error(Code::BadValue, &span, message, help);
                    return None;
                }
            }
        };
        Some(At { value, span })
    }
}
