//! `to`: rules that choose topics, keys, values and headers.

use std::fmt::Write as _;

use super::Planner;
use super::draft::NodeShape;
use super::stage::{Now, SlotKind, Stage};
use crate::expression::{self, Expression, Scope};
use crate::format::{self, Format};
use crate::ids::TopicName;
use crate::schema::{Column, Schema, Type};
use crate::topology::diagnostic::Code;
use crate::topology::document::{At, Named, RuleDef, Scalar, StepDef};
use crate::topology::plan::{OperatorPlan, Shape, SinkPlan, SinkRule};

/// Name and value.
type Header = (Box<str>, Expression);

impl Planner<'_> {
    pub(super) fn output(&mut self, def: &StepDef, stage: &Stage, to: &At<Vec<RuleDef>>) {
        let rules: Vec<SinkRule> = to.value.iter().filter_map(|rule| self.rule(stage, rule)).collect();
        if let [only] = to.value.as_slice()
            && only.otherwise
        {
            let help = "leave `otherwise` out: there is no other rule";
            self.warn(Code::Output, &only.span, "`otherwise` is the only rule", Some(help));
        }
        let shape = NodeShape {
            step: Self::arc(&def.name.text),
            columns: stage.columns(),
            visible: stage.visible(),
            key: stage.key.clone(),
            output: stage.shape,
            on_error: def.on_error,
            span: to.span.clone(),
        };
        let operator = OperatorPlan::Sink(SinkPlan { rules, input: stage.shape });
        self.draft.add_node(&stage.producers, stage.region, operator, shape);
    }

    fn rule(&mut self, stage: &Stage, rule: &RuleDef) -> Option<SinkRule> {
        let scope = stage.scope(Now::Allowed);
        // Each is looked at before the first mistake ends it.
        let condition = rule.condition.as_ref().map(|text| {
            let compiled = expression::compile_predicate(&text.text, &scope);
            self.checked(text, compiled)
        });
        let key = if let Some(text) = &rule.key {
            self.list(text, &scope)
        } else {
            let expressions = stage.key.iter().map(|&slot| stage.column(slot)).collect();
            Some((expressions, stage.key_schema()))
        };
        let chosen = rule.value.as_ref().map(|text| self.list(text, &scope));
        let headers: Vec<Option<Header>> = rule.headers.iter().map(|header| self.header(header, &scope)).collect();
        let headers = headers.into_iter().collect::<Option<Vec<Header>>>()?;
        let condition = match condition {
            Some(condition) => Some(condition?),
            None => None,
        };
        let (key, key_schema) = key?;
        let key_format = self.key_format(rule, &key_schema)?;
        // A table's change may concern another row than the one that the record at hand brought.
        let key_passthrough = rule.key.is_none()
            && stage.shape == Shape::Stream
            && stage.record_key.is_some_and(|record| same_bytes(record, key_format, &key_schema));
        let (value, value_schema) = match chosen {
            Some(chosen) => chosen?,
            None => self.whole_row(stage, rule)?,
        };
        let value_format = rule.format.as_ref().map_or(Format::Json, |format| format.value);
        if let Err(reason) = format::supports(value_format, &value_schema) {
            let span = rule.format.as_ref().map_or(&rule.span, |format| &format.span);
            self.error(Code::Output, span, reason, Some("say which with `value: [column]`"));
            return None;
        }
        // Without the whole key of a table, a tombstone would delete other rows too.
        let identifies = stage.key.iter().all(|&slot| key.iter().any(|column| column.as_column() == Some(slot)));
        Some(SinkRule {
            topic: TopicName::new(&rule.topic.text),
            condition,
            otherwise: rule.otherwise,
            key,
            key_schema,
            key_format,
            key_is_own: rule.key.is_none(),
            key_passthrough,
            value,
            value_schema,
            value_format,
            headers,
            pass_headers: stage.headers,
            append_only: stage.shape == Shape::Table && !identifies,
        })
    }

    /// A header's value as text or bytes.
    fn header(&mut self, header: &Named, scope: &Scope) -> Option<Header> {
        let compiled = expression::compile(&header.expression.text, scope);
        let mut compiled = self.checked(&header.expression, compiled)?;
        if !matches!(compiled.ty, Type::String | Type::Bytes) {
            let text = format!("CAST(({}) AS STRING)", header.expression.text);
            let cast = expression::compile(&text, scope);
            compiled = self.checked(&header.expression, cast)?;
        }
        Some((header.name.text.as_str().into(), compiled))
    }

    fn list(&mut self, text: &Scalar, scope: &Scope) -> Option<(Vec<Expression>, Schema)> {
        let items = expression::compile_select(&text.text, scope);
        let items = self.checked(text, items)?;
        let columns: Vec<Column> = items
            .iter()
            .map(|item| Column::new(&item.name, item.expression.ty.clone(), item.expression.nullable))
            .collect();
        Some((items.into_iter().map(|item| item.expression).collect(), Schema::new(columns)))
    }

    fn key_format(&mut self, rule: &RuleDef, key: &Schema) -> Option<Format> {
        let Some(format) = &rule.key_format else { return Some(Format::of_key(key)) };
        if let Err(reason) = format::supports(format.value, key) {
            let help = "leave `key_format` out: one column is written as its plain value, several as JSON";
            self.error(Code::Output, &format.span, reason, Some(help));
            return None;
        }
        Some(format.value)
    }

    /// All columns; of a format for one value the only column beside the key.
    fn whole_row(&mut self, stage: &Stage, rule: &RuleDef) -> Option<(Vec<Expression>, Schema)> {
        let mut slots: Vec<usize> =
            (0..stage.slots.len()).filter(|&slot| stage.slots[slot].kind == SlotKind::Visible).collect();
        if let Some(format) = rule.format.as_ref().filter(|format| format.value != Format::Json) {
            slots.retain(|slot| !stage.key.contains(slot));
            if slots.len() != 1 {
                let mut help = "say which with `value: [column]`".to_owned();
                let names: Vec<&str> = slots.iter().map(|&slot| &*stage.slots[slot].column.name).collect();
                if !names.is_empty() {
                    let _ = write!(help, "; there are {}", names.join(", "));
                }
                let message = format!("format {} holds one value", format.value.name());
                self.error(Code::Output, &format.span, message, Some(&help));
                return None;
            }
        }
        let expressions = slots.iter().map(|&slot| stage.column(slot)).collect();
        Some((expressions, Schema::new(slots.iter().map(|&slot| stage.slots[slot].column.clone()))))
    }
}

/// Whether a key in one format has the bytes that the other would give it.
fn same_bytes(record: Format, wanted: Format, key: &Schema) -> bool {
    let plain = |format| matches!(format, Format::Kafka | Format::String | Format::Bytes);
    let text = matches!(key.columns(), [column] if matches!(column.ty, Type::String | Type::Bytes));
    record == wanted || (text && plain(record) && plain(wanted))
}
