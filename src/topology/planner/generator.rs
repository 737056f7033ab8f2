//! `dev`: expressions that make up rows of a stream or table. And whether `tests` name what exists.

use std::sync::Arc;

use super::Planner;
use super::stage::SlotKind;
use crate::expression::{self, Expression, Scope};
use crate::format::Format;
use crate::ids::TopicName;
use crate::schema::Schema;
use crate::topology::diagnostic::{Code, Diagnostic, FileId, Severity, Span, nearest};
use crate::topology::document::{Expect, Generator, Given, TestCase};

/// Makes up records of one source.
#[derive(Clone, Debug)]
pub struct GeneratorPlan {
    /// The stream or table.
    pub source: Arc<str>,
    pub topic: TopicName,
    /// Records per second.
    pub rate: f64,
    /// Rows of the source, as its reader has them.
    pub schema: Schema,
    /// Slots of the key columns; the others are the value's.
    pub key: Vec<usize>,
    pub key_format: Format,
    pub value_format: Format,
    /// Slots and what fills them, in this order: an expression may read the slots before it. Others stay NULL.
    pub columns: Vec<(usize, Expression)>,
}

impl Planner<'_> {
    pub(super) fn generators(&mut self) -> Vec<GeneratorPlan> {
        let document = self.document;
        document.dev.iter().filter_map(|generator| self.generator(generator)).collect()
    }

    fn generator(&mut self, generator: &Generator) -> Option<GeneratorPlan> {
        let document = self.document;
        let name = &generator.source;
        let Some(def) = document.sources.iter().find(|source| source.name.text == name.text) else {
            let sources = document.sources.iter().map(|source| source.name.text.as_str());
            let help = nearest(&name.text, sources).map(|near| format!("did you mean `{near}`?"));
            let message = format!("there is no stream or table `{}`", name.text);
            self.error(Code::UnknownName, &name.span, message, help.as_deref());
            return None;
        };
        let stage = self.relations.get(&name.text).cloned().flatten()?;
        let schema = Schema::new(stage.columns());
        let mut scope = Scope { allow_now: true, allow_random: true, ..Scope::default() };
        let mut columns: Vec<(usize, Expression)> = Vec::new();
        let mut complete = true;
        for value in &generator.values {
            let slot = schema.position(&value.name.text).filter(|&slot| stage.slots[slot].kind == SlotKind::Visible);
            let Some(slot) = slot else {
                let names = stage.slots.iter().map(|slot| &*slot.column.name);
                let help = nearest(&value.name.text, names).map(|near| format!("did you mean `{near}`?"));
                let message = format!("`{}` has no column `{}`", name.text, value.name.text);
                self.error(Code::UnknownName, &value.name.span, message, help.as_deref());
                complete = false;
                continue;
            };
            let column = &schema.columns()[slot];
            let text = &value.expression;
            let compiled = expression::compile(&text.text, &scope);
            let compiled = self.checked(text, compiled).and_then(|compiled| {
                if compiled.ty == column.ty {
                    return Some(compiled);
                }
                let cast = expression::compile(&format!("CAST(({}) AS {})", text.text, column.ty), &scope);
                if cast.is_err() {
                    let message = format!("column `{}` is {}; this is {}", column.name, column.ty, compiled.ty);
                    self.error(Code::BadType, &text.span, message, None);
                }
                cast.ok()
            });
            match compiled {
                Some(expression) => columns.push((slot, expression)),
                None => complete = false,
            }
            scope.push_schema(None, &Schema::new([column.clone()]), slot);
        }
        for (slot, column) in schema.columns().iter().enumerate() {
            let given = generator.values.iter().any(|value| *value.name.text == *column.name);
            if !column.nullable && !given && stage.slots[slot].kind == SlotKind::Visible {
                let message = format!("column `{}` is NOT NULL and has no expression", column.name);
                self.error(Code::MissingKey, &name.span, message, None);
                complete = false;
            }
        }
        complete.then(|| GeneratorPlan {
            source: Arc::from(name.text.as_str()),
            topic: TopicName::new(def.topics.first().map_or("", |topic| &topic.text)),
            rate: generator.rate,
            key: stage.key.clone(),
            key_format: def.key.as_ref().map_or(Format::Bytes, |key| key.format.value),
            value_format: def.format.value,
            schema,
            columns,
        })
    }

    /// Names and columns in `tests`.
    pub(super) fn check_references_of_tests(&mut self) {
        let document = self.document;
        for test in &document.tests {
            for given in &test.given {
                if let Given::Records(records) = given {
                    self.check_given(test, records);
                }
            }
            for expect in &test.expect {
                if let Expect::Table { table, rows, span } = expect {
                    self.check_expected_table(test, &table.text, &table.span, rows, span);
                }
            }
        }
    }

    fn check_given(&mut self, test: &TestCase, records: &crate::topology::document::GivenRecords) {
        let document = self.document;
        let name = &records.source;
        let Some(def) = document.sources.iter().find(|source| source.name.text == name.text) else {
            let sources = document.sources.iter().map(|source| source.name.text.as_str());
            let help = nearest(&name.text, sources).map(|near| format!("did you mean `{near}`?"));
            let message = format!("there is no stream or table `{}`", name.text);
            self.test_error(test.file, &name.span, message, help);
            return;
        };
        let columns: Vec<&str> = def
            .key
            .iter()
            .flat_map(|key| &key.columns)
            .chain(&def.columns)
            .map(|column| &*column.column.name)
            .collect();
        if let Some(serde_json::Value::Object(row)) = &records.value {
            for column in row.keys().filter(|column| !columns.contains(&column.as_str())) {
                let help = nearest(column, columns.iter().copied()).map(|near| format!("did you mean `{near}`?"));
                let message = format!("`{}` has no column `{column}`", name.text);
                self.test_error(test.file, &records.span, message, help);
            }
        }
    }

    fn check_expected_table(
        &mut self,
        test: &TestCase,
        table: &str,
        table_span: &Span,
        rows: &[serde_json::Value],
        span: &Span,
    ) {
        let Some(plan) = self.tables.iter().find(|plan| *plan.name == *table) else {
            // A step that could not be planned is reported where it stands.
            if matches!(self.relations.get(table), Some(None)) {
                return;
            }
            let names = self.tables.iter().map(|plan| &*plan.name);
            let help = nearest(table, names).map(|near| format!("did you mean `{near}`?"));
            self.test_error(test.file, table_span, format!("there is no table `{table}`"), help);
            return;
        };
        let columns: Vec<String> =
            plan.schema.columns().iter().chain(plan.key.columns()).map(|column| column.name.to_string()).collect();
        for column in rows.iter().filter_map(serde_json::Value::as_object).flat_map(|row| row.keys()) {
            if !columns.contains(column) {
                let help = nearest(column, columns.iter().map(String::as_str));
                let help = help.map(|near| format!("did you mean `{near}`?"));
                self.test_error(test.file, span, format!("table `{table}` has no column `{column}`"), help);
            }
        }
    }

    fn test_error(&mut self, file: FileId, span: &Span, message: String, help: Option<String>) {
        let severity = Severity::Error;
        let span = span.clone();
        self.problems.push(Diagnostic { severity, code: Code::Test, message, path: String::new(), file, span, help });
    }
}
