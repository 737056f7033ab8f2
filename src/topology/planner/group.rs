//! `window`, `group_by`, `aggregate`: a table keyed by the group columns and `window_start`.
//!
//! Where the groups are the input's key, each group's rows lie in one task already; otherwise they are repartitioned
//! under the step's name.

use std::sync::Arc;

use super::Planner;
use super::draft::{DraftNode, NodeShape, Producer};
use super::repartition::NewKey;
use super::source::RECORD_KEY;
use super::stage::{Expiry, Now, Slot, Stage, TableOrigin};
use crate::expression::{self, AggregateSet, Expression, Problem, Retraction, Scope, SelectItem};
use crate::ids::TopicName;
use crate::schema::{Column, Schema, Type};
use crate::topology::diagnostic::{Code, Span};
use crate::topology::document::{GroupByDef, Named, StepDef};
use crate::topology::plan::{
    AggregatePlan, ChangelogPlan, Emit, GROUP_SIZE, Late, OperatorPlan, Shape, StoreKind, WindowPlan,
};
use crate::topology::read::millis;

const DAY_MS: i64 = 86_400_000;

impl Planner<'_> {
    pub(super) fn group(&mut self, def: &StepDef, stage: Stage, group_by: &GroupByDef) -> Option<Stage> {
        let calls = def.aggregate.as_ref()?;
        let items = match group_by {
            GroupByDef::Global(_) => Vec::new(),
            GroupByDef::By(text) => {
                let items = expression::compile_select(&text.text, &stage.scope(Now::Refused));
                let Some(items) = self.checked(text, items) else {
                    let scope = stage.scope(Now::Refused);
                    self.aggregates(&calls.value, &scope, |calls, scope| {
                        AggregateSet::compile(calls, scope, Retraction::Never)
                    });
                    return None;
                };
                items
            }
        };
        if let (Some(window), Shape::Table) = (&def.window, stage.shape) {
            let help = "read the table's changes with `as: stream` in a step of its own";
            self.error(Code::Clause, &window.span, "a `window` needs a stream", Some(help));
            return None;
        }
        if stage.expires_in_silence() {
            let span = match group_by {
                GroupByDef::Global(span) => span,
                GroupByDef::By(text) => &text.span,
            };
            let message = "`group_by` on a table whose `ttl` says `downstream: keep`: a key that comes back after it has \
                           expired would be counted twice";
            let help = "leave `downstream: keep` out there: an expired row then leaves its group";
            self.error(Code::Clause, span, message, Some(help));
            return None;
        }
        let names: Vec<Arc<str>> = items.iter().map(|item| item.name.clone()).collect();
        let (stage, group) = self.grouped(def, stage, items);
        let retraction = match stage.shape {
            Shape::Stream => Retraction::Never,
            Shape::Table => Retraction::Needed,
        };
        let set = self.aggregates(&calls.value, &stage.scope(Now::Refused), |calls, scope| {
            AggregateSet::compile(calls, scope, retraction)
        })?;

        let mut columns: Vec<Column> = Vec::new();
        for (name, expression) in names.iter().zip(&group) {
            // A NULL in a single group column drops the record.
            columns.push(Column::new(name, expression.ty.clone(), expression.nullable && group.len() > 1));
        }
        let key_schema = Schema::new(columns.iter().cloned());
        if def.window.is_some() {
            columns.push(Column::new("window_start", Type::Timestamp, false));
            columns.push(Column::new("window_end", Type::Timestamp, false));
        }
        for call in &calls.value {
            if columns.iter().any(|column| *column.name == *call.name.text) {
                let message = format!("`{}` is the name of a group or window column already", call.name.text);
                self.error(Code::DuplicateName, &call.name.span, message, None);
                return None;
            }
        }
        columns.extend(set.columns().iter().cloned());

        let window = def.window.as_ref().map(|window| {
            let (size_ms, grace_ms) = (millis(window.size), millis(window.grace));
            WindowPlan {
                size_ms,
                offset_ms: millis(window.offset) % size_ms,
                grace_ms,
                retention_ms: def
                    .retention
                    .as_ref()
                    .map_or(size_ms.saturating_add(grace_ms).saturating_add(DAY_MS), |retention| {
                        millis(retention.value)
                    }),
            }
        });
        if window.is_none() && def.ttl.is_none() && !group.is_empty() {
            self.warn_unbounded(def, "every group that ever came");
        }
        if let Some(keep) = def.keep_empty.as_ref().filter(|keep| keep.value && stage.shape == Shape::Stream) {
            let help = "only a table's rows are taken out of a group again";
            self.error(Code::Clause, &keep.span, "`keep_empty` on groups of a stream", Some(help));
        }
        let name = self.storage_name(&def.name.text);
        let mut state: Vec<Column> = set.state().columns().to_vec();
        if stage.shape == Shape::Table {
            state.push(Column::new(GROUP_SIZE, Type::Bigint, false));
        }
        let kind = if window.is_some() { StoreKind::Window } else { StoreKind::KeyValue };
        let changelog = ChangelogPlan::Own(self.changelog_topic(&name));
        let store = self.draft.add_store(&name, kind, key_schema, Schema::new(state), changelog, stage.region);
        let late = def.late.as_ref().map(|topic| TopicName::new(&topic.text)).or_else(|| stage.late.clone());
        let emit = def.emit.as_ref().map_or(Emit::Changes, |emit| emit.value);
        let plan = AggregatePlan {
            store,
            input: stage.shape,
            window,
            aggregates: Arc::new(set),
            emit,
            ttl: Self::ttl(def),
            keep_empty: def.keep_empty.as_ref().is_some_and(|keep| keep.value),
            closed: Vec::new(),
            late: late.filter(|_| window.is_some()).map_or(Late::Drop, Late::To),
            group,
        };

        let mut key: Vec<usize> = (0..plan.group.len()).collect();
        if window.is_some() {
            key.push(plan.group.len());
        }
        let operator = OperatorPlan::Aggregate(plan);
        let mut grouped = stage;
        grouped.slots = columns.into_iter().map(Slot::visible).collect();
        grouped.key = key;
        grouped.shape = Shape::Table;
        grouped.partitions = None;
        grouped.record_key = None;
        grouped.headers = false;
        grouped.pseudo_columns = false;
        grouped.late = None;
        grouped.emit = emit;
        grouped.windowed = window.is_some();
        grouped.expiry = Expiry::of(Self::ttl(def));
        grouped.table = Some(TableOrigin { store, view: vec![operator.clone()] });
        Some(self.add(def, grouped, operator))
    }

    /// The stage with each group in one task, and the group columns over it.
    pub(super) fn grouped(&mut self, def: &StepDef, stage: Stage, items: Vec<SelectItem>) -> (Stage, Vec<Expression>) {
        let mut items = items;
        // The key of a stream that declares none: a hidden column, named as what every record has.
        if let ([key], Some(_)) = (&stage.key[..], stage.record_key)
            && *stage.slots[*key].column.name == *RECORD_KEY
        {
            let named = items.iter_mut().filter(|item| item.expression.is_record_key());
            named.for_each(|item| item.expression = stage.column(*key));
        }
        let lying = if stage.windowed { stage.key.len().saturating_sub(1) } else { stage.key.len() };
        let is_key =
            items.iter().map(|item| item.expression.as_column()).eq(stage.key[..lying].iter().map(|&slot| Some(slot)));
        if is_key && stage.partitioning.is_some() && !items.is_empty() {
            let group = items.into_iter().map(|item| item.expression).collect();
            return (stage, group);
        }
        let partitions = if items.is_empty() { Some(1) } else { stage.partitions };
        let columns = items.into_iter().map(|item| (item.name.to_string(), item.expression)).collect();
        let mut stage = self.repartition(def, stage, NewKey { columns, beside: None, clause: None, partitions });
        stage.windowed = false;
        let group = stage.key.iter().map(|&slot| stage.column(slot)).collect();
        (stage, group)
    }

    /// The rows of a windowed table as its windows close: a second way out of the same aggregate, through the same filters
    /// and projections.
    pub(super) fn closed_windows(&mut self, stage: Stage, span: &Span) -> Option<Stage> {
        if stage.shape != Shape::Table || !stage.windowed {
            let help = "it passes on the closed windows of the step in `from`, which must have a `window`";
            self.error(Code::Clause, span, "`emit: final` needs a `window`", Some(help));
            return None;
        }
        if stage.emit == Emit::Final {
            return Some(stage);
        }
        // From the last node back to the aggregate: a windowed table has one way, as tables are not united.
        let mut way = Vec::new();
        let [Producer::Node(mut at)] = stage.producers[..] else { return Some(stage) };
        while !matches!(self.draft.nodes[at].node.operator, OperatorPlan::Aggregate(_)) {
            way.push(at);
            at = self.draft.nodes.iter().position(|node| node.next.iter().any(|(to, _)| *to == at))?;
        }
        let mut stage = stage;
        stage.emit = Emit::Final;
        stage.producers = vec![Producer::Closed(at)];
        for at in way.into_iter().rev() {
            let DraftNode { node, span, .. } = &self.draft.nodes[at];
            let shape = NodeShape {
                step: node.step.clone(),
                columns: node.schema.columns().to_vec(),
                visible: node.visible,
                key: node.key.clone(),
                output: node.output,
                on_error: node.on_error,
                span: span.clone(),
            };
            let operator = node.operator.clone();
            stage.producers = vec![self.draft.add_node(&stage.producers, stage.region, operator, shape)];
        }
        Some(stage)
    }

    /// Compiles the calls of an `aggregate` clause; mistakes are reported at theirs.
    pub(super) fn aggregates<T>(
        &mut self,
        calls: &[Named],
        scope: &Scope,
        compile: impl FnOnce(&[(&str, &str)], &Scope) -> Result<T, Vec<(usize, Problem)>>,
    ) -> Option<T> {
        let texts: Vec<(&str, &str)> =
            calls.iter().map(|call| (call.name.text.as_str(), call.expression.text.as_str())).collect();
        match compile(&texts, scope) {
            Ok(set) => Some(set),
            Err(problems) => {
                for (index, problem) in problems {
                    if let Some(call) = calls.get(index) {
                        self.sql(&call.expression, vec![problem]);
                    }
                }
                None
            }
        }
    }
}
