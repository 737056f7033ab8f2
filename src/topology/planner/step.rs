//! A step, clause by clause in the order in which they apply: from, join, where, key_by, the stateful clause, having,
//! select, as, to.

use std::sync::Arc;

use super::Planner;
use super::draft::NodeShape;
use super::stage::{Expiry, Now, Slot, SlotKind, Stage, TableOrigin, same_partitioning};
use crate::expression::{self, Expression};
use crate::schema::{Column, Schema, Type};
use crate::topology::diagnostic::{Code, Span};
use crate::topology::document::{AsDef, InputDef, KeyByDef, Scalar, StepDef, TtlDef};
use crate::topology::plan::{ChangelogPlan, Emit, MaterializePlan, OperatorPlan, Shape, StoreKind, TablePlan, Ttl};
use crate::topology::read::millis;

/// Whether the step only filters, selects and writes, so that `emit: final` is about the windows of its input.
fn forwards(def: &StepDef) -> bool {
    let as_table = matches!(def.shape.as_ref().map(|shape| &shape.value), Some(AsDef::Table { .. }));
    let keeps_state = as_table || def.group_by.is_some() || def.over.is_some() || !def.joins.is_empty();
    !keeps_state && def.key_by.is_none()
}

/// How rows become a table: see [`MaterializePlan`].
pub(super) struct Keep {
    pub latest: Option<Expression>,
    pub former_key: Vec<usize>,
    pub emit: Emit,
    pub ttl: Option<Ttl>,
}

impl Planner<'_> {
    pub(super) fn step(&mut self, def: &StepDef) -> Option<Stage> {
        if !def.incomplete {
            self.check_clauses(def);
        }
        let mut stage = self.inputs(def)?;
        if let Some(emit) = def.emit.as_ref().filter(|emit| emit.value == Emit::Final && forwards(def)) {
            stage = self.closed_windows(stage, &emit.span)?;
        }
        if let Some(shape) = &def.shape
            && matches!(shape.value, AsDef::Stream)
        {
            stage = self.changes(def, stage, &shape.span)?;
        }
        for join in &def.joins {
            stage = self.join(def, stage, join)?;
        }
        if let Some(condition) = &def.filter {
            stage = self.filter(def, stage, condition);
        }
        if let Some(key_by) = &def.key_by {
            stage = self.key_by(def, stage, key_by)?;
        }
        if let Some(over) = &def.over {
            stage = self.over(def, stage, over)?;
        } else if let Some(group_by) = &def.group_by {
            stage = self.group(def, stage, group_by)?;
        }
        if let Some(condition) = &def.having {
            stage = self.filter(def, stage, condition);
        }
        stage = match &def.select {
            Some(select) => self.select(def, stage, select)?,
            None => self.all_columns(def, stage)?,
        };
        if let Some(shape) = &def.shape
            && let AsDef::Table { latest } = &shape.value
        {
            stage = self.materialize(def, stage, latest.as_ref(), &shape.span)?;
        }
        let keyed_ahead = self.keyed_ahead.contains(&def.name.text);
        if stage.partitioning.is_none() && stage.shape == Shape::Stream && keyed_ahead && def.key_by.is_some() {
            stage = self.repartition_by_key(def, stage);
        }
        if let Some(to) = &def.to {
            self.output(def, &stage, to);
        }
        self.register_table(def, &stage);
        for slot in &mut stage.slots {
            slot.qualifier = None;
        }
        // Its columns may be others once it can be read.
        (!def.incomplete).then_some(stage)
    }

    /// Clauses that do not go together, whatever flows.
    fn check_clauses(&mut self, def: &StepDef) {
        if let (Some(over), Some(_)) = (&def.over, &def.group_by) {
            let help = "a step has one stateful clause: make two steps";
            self.error(Code::Clause, &over.span, "`over` beside `group_by`", Some(help));
        }
        match (&def.group_by, &def.aggregate) {
            (None, Some(aggregate)) if def.over.is_none() => {
                let help = "`group_by: column`, or `group_by: []` for one group of everything";
                self.error(Code::Clause, &aggregate.span, "`aggregate` needs `group_by`", Some(help));
            }
            (None, Some(aggregate)) => {
                let help = "put these into `over: {aggregate: {...}}`";
                self.error(Code::Clause, &aggregate.span, "`aggregate` beside `over`", Some(help));
            }
            (Some(_), None) => {
                let help = "for example `aggregate: {n: COUNT(*)}`";
                self.error(Code::Clause, &def.name.span, "`group_by` needs `aggregate`", Some(help));
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
        let grouped = def.group_by.is_some();
        if let Some(window) = def.window.as_ref().filter(|_| !grouped) {
            self.error(Code::Clause, &window.span, "`window` needs `group_by` and `aggregate`", None);
        }
        let has_result = grouped || def.over.is_some() || (def.emit.is_some() && forwards(def));
        if let Some(having) = def.having.as_ref().filter(|_| !has_result) {
            let help = "without `group_by` or `over` a condition is `where`";
            self.error(Code::Clause, &having.span, "`having` without a stateful clause", Some(help));
        }
        let as_table = matches!(def.shape.as_ref().map(|shape| &shape.value), Some(AsDef::Table { .. }));
        if let Some(emit) = &def.emit {
            let forwards = emit.value == Emit::Final && forwards(def);
            if forwards {
                // Whether the input has windows is known only later.
            } else if !grouped && !as_table {
                self.error(Code::Clause, &emit.span, "`emit` needs `group_by` or `as: table`", None);
            } else if emit.value == Emit::Final && def.window.is_none() {
                let help = "only a window closes; use `changes` or `each`";
                self.error(Code::Clause, &emit.span, "`emit: final` needs a `window`", Some(help));
            }
        }
        if let Some(retention) = &def.retention {
            match &def.window {
                None => self.error(Code::Clause, &retention.span, "`retention` needs a `window`", Some("use `ttl`")),
                Some(window) if retention.value < window.grace => {
                    let help = "a window must be kept at least until it closes";
                    self.error(Code::Clause, &retention.span, "`retention` is shorter than `grace`", Some(help));
                }
                Some(_) => {}
            }
        }
        if let Some(late) = def.late.as_ref().filter(|_| def.window.is_none()) {
            self.error(Code::Clause, &late.span, "`late` needs a `window`: nothing else is late", None);
        }
        if let Some(ttl) = &def.ttl {
            if def.window.is_some() {
                let help = "closed windows are deleted after `retention`";
                self.error(Code::Clause, &ttl.span, "`ttl` beside `window`", Some(help));
            } else if !grouped && !as_table && def.over.is_none() {
                self.error(Code::Clause, &ttl.span, "`ttl` on a step that keeps no state", None);
            }
        }
    }

    // ---- from --------------------------------------------------------------------------------------------------------

    fn inputs(&mut self, def: &StepDef) -> Option<Stage> {
        let mut stages = Vec::new();
        for (index, input) in def.from.iter().enumerate() {
            let twice = def.from[..index].iter().any(|before| before.name.value == input.name.value);
            if twice {
                let message = format!("`{}` stands twice", input.name.value);
                self.error(Code::DuplicateName, &input.name.span, message, None);
            }
            stages.push((input, self.relation(&input.name.value, &input.name.span)));
        }
        if stages.len() == 1 {
            let (input, stage) = stages.pop()?;
            let mut stage = stage?;
            let name = input.alias.as_ref().unwrap_or(&input.name);
            let qualifier: Arc<str> = Arc::from(name.value.as_str());
            for slot in &mut stage.slots {
                slot.qualifier = Some(qualifier.clone());
            }
            return Some(stage);
        }
        // All have the same columns, so that one that is known tells those of the union.
        let known = stages.into_iter().filter_map(|(input, stage)| Some((input, stage?))).collect();
        self.union(def, known)
    }

    /// Several inputs of the same columns and keys.
    fn union(&mut self, def: &StepDef, inputs: Vec<(&InputDef, Stage)>) -> Option<Stage> {
        let (_, first) = inputs.first()?;
        let mut union = first.clone();
        union.producers.clear();
        if let Some((input, _)) = inputs.iter().find(|(_, stage)| stage.shape == Shape::Table) {
            let message = "a table cannot be united with others: a key that two of them hold would have two rows";
            let help = "read each table with `as: stream` in a step of its own and unite those; `as: table` behind the union keeps the latest row per key";
            self.error(Code::Clause, &input.name.span, message, Some(help));
            return None;
        }
        let mut fits = true;
        for (input, stage) in &inputs {
            fits &= self.check_same_columns(input, &union, stage);
        }
        if !fits {
            return None;
        }
        for slot in &mut union.slots {
            slot.qualifier = None;
        }
        for (_, stage) in &inputs {
            for slot in &mut union.slots {
                let same = stage.slots.iter().find(|other| other.column.name == slot.column.name);
                slot.column.nullable |= same.is_some_and(|other| other.column.nullable);
            }
        }
        for (_, stage) in inputs {
            let stage = self.in_order_of(def, stage, &union);
            union.region = self.draft.unite(union.region, stage.region);
            union.record_key = union.record_key.filter(|format| stage.record_key == Some(*format));
            union.headers &= stage.headers;
            union.pseudo_columns &= stage.pseudo_columns;
            let same = match (&union.partitioning, &stage.partitioning) {
                (Some(a), Some(b)) => same_partitioning(a, b),
                _ => false,
            };
            if !same {
                union.partitioning = None;
            }
            if union.late != stage.late {
                if let Some(window) = def.window.as_ref().filter(|_| def.late.is_none()) {
                    let help = "say `late: {to: TOPIC}` on this step";
                    let message = "the inputs have different `late` topics";
                    self.error(Code::Clause, &window.span, message, Some(help));
                }
                union.late = None;
            }
            union.producers.extend(stage.producers);
        }
        Some(union)
    }

    fn check_same_columns(&mut self, input: &InputDef, first: &Stage, stage: &Stage) -> bool {
        let name = &input.name.value;
        let (wanted, found) = (first.visible_schema(), stage.visible_schema());
        for column in wanted.columns() {
            let problem = match found.column(&column.name) {
                None => format!("`{name}` lacks the column `{}` of the first input", column.name),
                Some(other) if other.ty != column.ty => {
                    format!(
                        "column `{}` is {} in `{name}`, and {} in the first input",
                        column.name, other.ty, column.ty
                    )
                }
                Some(_) => continue,
            };
            self.error(Code::BadType, &input.name.span, problem, Some("the inputs of a union have the same columns"));
            return false;
        }
        if let Some(extra) = found.columns().iter().find(|column| wanted.column(&column.name).is_none()) {
            let message = format!("`{name}` has a column `{}` that the first input lacks", extra.name);
            self.error(Code::BadType, &input.name.span, message, Some("the inputs of a union have the same columns"));
            return false;
        }
        let keys = |stage: &Stage| -> Vec<(Arc<str>, Type)> {
            let schema = stage.key_schema();
            schema.columns().iter().map(|column| (column.name.clone(), column.ty.clone())).collect()
        };
        if keys(first) != keys(stage) {
            let message = format!("`{name}` has another key than the first input");
            self.error(Code::Key, &input.name.span, message, Some("give both the same with `key_by` in steps before"));
            return false;
        }
        true
    }

    /// The stage with its slots in the order of another's.
    fn in_order_of(&mut self, def: &StepDef, stage: Stage, order: &Stage) -> Stage {
        let same = stage.slots.len() == order.slots.len()
            && stage.slots.iter().zip(&order.slots).all(|(a, b)| a.column.name == b.column.name && a.kind == b.kind);
        if same && stage.key == order.key {
            return stage;
        }
        let expressions = order
            .slots
            .iter()
            .filter_map(|slot| {
                let same = |other: &Slot| other.column.name == slot.column.name && other.kind == slot.kind;
                stage.slots.iter().position(same).map(|at| stage.column(at))
            })
            .collect();
        let (slots, key) = (order.slots.clone(), order.key.clone());
        self.project(def, stage, expressions, slots, key)
    }

    /// `as: stream`: a table's changes as records.
    fn changes(&mut self, def: &StepDef, stage: Stage, span: &Span) -> Option<Stage> {
        if stage.shape != Shape::Table {
            let help = "`as: stream` reads a table's changes; this input is a stream";
            self.error(Code::Clause, span, "`as: stream` on a stream", Some(help));
            return None;
        }
        if stage.emit == Emit::Changes {
            let help = "give the step that makes the table `emit: each` or `emit: final`";
            let message = "`as: stream` needs every change, but the table passes on only the latest per commit";
            self.error(Code::Clause, span, message, Some(help));
            return None;
        }
        let mut stage = stage;
        let at = stage.visible();
        let op = Column::new("_op", Type::String, false);
        let qualifier = stage.slots.first().and_then(|slot| slot.qualifier.clone());
        stage.slots.insert(at, Slot { qualifier, column: op, kind: SlotKind::Visible });
        for slot in stage.key.iter_mut().filter(|slot| **slot >= at) {
            *slot += 1;
        }
        stage.shape = Shape::Stream;
        stage.table = None;
        if std::mem::take(&mut stage.windowed) {
            // Rows lie by their group, but the key has the window too.
            stage.partitioning = None;
        }
        Some(self.add(def, stage, OperatorPlan::ToStream))
    }

    // ---- where, key_by, select -----------------------------------------------------------------------------------------

    fn filter(&mut self, def: &StepDef, stage: Stage, condition: &Scalar) -> Stage {
        let compiled = expression::compile_predicate(&condition.text, &stage.scope(Now::Allowed));
        let Some(compiled) = self.checked(condition, compiled) else { return stage };
        let operator = OperatorPlan::Filter(compiled);
        let mut stage = self.add(def, stage, operator.clone());
        if let Some(table) = &mut stage.table {
            table.view.push(operator);
        }
        stage
    }

    fn key_by(&mut self, def: &StepDef, stage: Stage, key_by: &KeyByDef) -> Option<Stage> {
        if stage.shape == Shape::Table && stage.windowed {
            let message = "`key_by` on a windowed table: windows expire silently, so under another key their rows would stay for ever";
            let help = "group it by the new key and `window_start`, or say `key_by` on its changes (`as: stream`)";
            self.error(Code::Clause, &key_by.by.span, message, Some(help));
            return None;
        }
        if stage.expires_in_silence() {
            let message = "`key_by` on a table whose `ttl` says `downstream: keep`: a key that comes back with another row \
                           after it has expired would stand under both";
            let help = "leave `downstream: keep` out there: an expired row is then deleted under its new key too";
            self.error(Code::Clause, &key_by.by.span, message, Some(help));
            return None;
        }
        if stage.shape == Shape::Table && def.group_by.is_some() {
            let help = "a group of a table needs no `key_by` before it; a table under a new key is a step of its own";
            self.error(Code::Clause, &key_by.by.span, "`key_by` beside `group_by` on a table", Some(help));
            return None;
        }
        let items = expression::compile_select(&key_by.by.text, &stage.scope(Now::Refused));
        let items = self.checked(&key_by.by, items)?;
        let mut stage = stage;
        let former_key = stage.key.clone();
        let mut expressions = stage.identity();
        let mut slots = stage.slots.clone();
        let mut key = Vec::new();
        for item in items {
            let column = item.expression.as_column().filter(|&slot| stage.slots[slot].column.name == item.name);
            if let Some(slot) = column {
                key.push(slot);
                continue;
            }
            if slots.iter().any(|slot| slot.kind == SlotKind::Visible && slot.column.name == item.name) {
                let message = format!("there is a column `{}` already", item.name);
                self.error(Code::DuplicateName, &key_by.by.place(item.span), message, Some("name it anew with AS"));
                return None;
            }
            let column = Column::new(&item.name, item.expression.ty.clone(), item.expression.nullable);
            // Before the hidden ones, so that those stay last.
            key.push(slots.len());
            slots.push(Slot::visible(column));
            expressions.push(item.expression);
        }
        if key == stage.key && stage.partitioning.is_some() && key_by.partitions.is_none() {
            return Some(stage);
        }
        if slots.len() > stage.slots.len() {
            stage = self.project(def, stage, expressions, slots, key);
        } else {
            stage.key = key;
        }
        stage.partitioning = None;
        stage.partitions = key_by.partitions;
        stage.record_key = None;
        if stage.shape == Shape::Table {
            // Deleted where they were, put where they belong now.
            let moved = self.repartition_by_key(def, stage);
            let emit = moved.emit;
            return Some(self.kept(def, moved, Keep { latest: None, former_key, emit, ttl: None }));
        }
        Some(stage)
    }

    fn select(&mut self, def: &StepDef, stage: Stage, select: &Scalar) -> Option<Stage> {
        let items = expression::compile_select(&select.text, &stage.scope(Now::Allowed));
        let items = self.checked(select, items)?;
        let mut slots = Vec::new();
        let mut expressions = Vec::new();
        for item in items {
            let column = Column::new(&item.name, item.expression.ty.clone(), item.expression.nullable);
            slots.push(Slot::visible(column));
            expressions.push(item.expression);
        }
        Some(self.keep_key(def, stage, expressions, slots))
    }

    /// Without `select`: all columns less the right sides of joins, each under its own name.
    fn all_columns(&mut self, def: &StepDef, stage: Stage) -> Option<Stage> {
        let visible: Vec<usize> =
            (0..stage.slots.len()).filter(|&slot| stage.slots[slot].kind == SlotKind::Visible).collect();
        for (index, &slot) in visible.iter().enumerate() {
            let name = &stage.slots[slot].column.name;
            let twin = visible[..index].iter().find(|&&before| stage.slots[before].column.name == *name);
            if let Some(&twin) = twin {
                let (a, b) = (stage.slots[twin].full_name(), stage.slots[slot].full_name());
                let message = format!("two columns would be called `{name}`: {a} and {b}");
                let help = format!("say which with `select`, for example `select: \"*, {b} AS other_{name}\"`");
                let help = if help.contains("*,") {
                    format!("say which with `select`, naming one of them anew: `{b} AS other_{name}`")
                } else {
                    help
                };
                self.error(Code::DuplicateName, &def.name.span, message, Some(&help));
                return None;
            }
        }
        if stage.is_tidy() {
            return Some(stage);
        }
        let expressions = visible.iter().map(|&slot| stage.column(slot)).collect();
        let slots = visible.iter().map(|&slot| Slot::visible(stage.slots[slot].column.clone())).collect();
        Some(self.keep_key(def, stage, expressions, slots))
    }

    /// A projection; key columns that are not in it are kept as hidden slots.
    fn keep_key(
        &mut self,
        def: &StepDef,
        stage: Stage,
        mut expressions: Vec<Expression>,
        mut slots: Vec<Slot>,
    ) -> Stage {
        let mut key = Vec::new();
        for &slot in &stage.key {
            let kept = expressions.iter().position(|expression| expression.as_column() == Some(slot));
            key.push(kept.unwrap_or_else(|| {
                expressions.push(stage.column(slot));
                let column = stage.slots[slot].column.clone();
                slots.push(Slot { qualifier: None, column, kind: SlotKind::Hidden });
                slots.len() - 1
            }));
        }
        let unchanged = expressions.len() == stage.slots.len()
            && expressions.iter().enumerate().all(|(index, expression)| expression.as_column() == Some(index))
            && slots.iter().zip(&stage.slots).all(|(a, b)| a.column.name == b.column.name);
        if unchanged && stage.is_tidy() {
            return stage;
        }
        self.project(def, stage, expressions, slots, key)
    }

    // ---- as: table ---------------------------------------------------------------------------------------------------

    fn materialize(&mut self, def: &StepDef, stage: Stage, latest: Option<&Scalar>, span: &Span) -> Option<Stage> {
        if stage.shape == Shape::Table {
            self.error(Code::Clause, span, "`as: table` on what is a table already", Some("leave it out"));
            return Some(stage);
        }
        let stage = if stage.partitioning.is_none() { self.repartition_by_key(def, stage) } else { stage };
        let latest = match latest {
            Some(text) => {
                let compiled = expression::compile(&text.text, &stage.scope(Now::Refused));
                Some(self.checked(text, compiled)?)
            }
            None => None,
        };
        let ttl = Self::ttl(def);
        if def.ttl.is_none() {
            self.warn_unbounded(def, "every key that ever came");
        }
        let emit = def.emit.as_ref().map_or(Emit::Changes, |emit| emit.value);
        let keep = Keep { latest, former_key: Vec::new(), emit, ttl };
        Some(self.kept(def, stage, keep))
    }

    /// The stage's rows as a table of the step, one per key.
    pub(super) fn kept(&mut self, def: &StepDef, stage: Stage, keep: Keep) -> Stage {
        let Keep { latest, former_key, emit, ttl } = keep;
        let name = self.storage_name(&def.name.text);
        let rest = (0..stage.slots.len()).filter(|slot| !stage.key.contains(slot));
        let value = Schema::new(rest.map(|slot| stage.slots[slot].column.clone()));
        let changelog = ChangelogPlan::Own(self.changelog_topic(&name));
        let store =
            self.draft.add_store(&name, StoreKind::KeyValue, stage.key_schema(), value, changelog, stage.region);
        let plan = MaterializePlan { store, key: stage.key.clone(), latest, former_key, emit, ttl };
        let operator = OperatorPlan::Materialize(plan);
        let mut stage = stage;
        stage.shape = Shape::Table;
        stage.emit = emit;
        stage.expiry = Expiry::of(ttl);
        stage.record_key = None;
        stage.headers = false;
        stage.pseudo_columns = false;
        stage.table = Some(TableOrigin { store, view: vec![operator.clone()] });
        self.add(def, stage, operator)
    }

    pub(super) fn ttl(def: &StepDef) -> Option<Ttl> {
        match def.ttl.as_ref().map(|ttl| ttl.value) {
            Some(TtlDef::After { after, downstream }) => Some(Ttl { after_ms: millis(after), downstream }),
            Some(TtlDef::Forever) | None => None,
        }
    }

    pub(super) fn warn_unbounded(&mut self, def: &StepDef, what: &str) {
        let message = format!("the state of `{}` grows without bound: it keeps {what}", def.name.text);
        let help = "say `ttl: 30d`, or `ttl: none` if that is meant";
        self.warn(Code::UnboundedState, &def.name.span, message, Some(help));
    }

    fn register_table(&mut self, def: &StepDef, stage: &Stage) {
        let Some(table) = stage.table.as_ref().filter(|_| stage.shape == Shape::Table) else { return };
        self.tables.push(TablePlan {
            name: Self::arc(&def.name.text),
            store: table.store,
            key: stage.key_schema(),
            schema: stage.visible_schema(),
            view: table.view.clone(),
            queryable: def.query,
            windowed: stage.windowed,
            partitioning: stage.partitioning.clone(),
        });
    }

    // ---- nodes -------------------------------------------------------------------------------------------------------

    /// Adds a node whose output is the stage.
    pub(super) fn add(&mut self, def: &StepDef, mut stage: Stage, operator: OperatorPlan) -> Stage {
        let shape = NodeShape {
            step: Self::arc(&def.name.text),
            columns: stage.columns(),
            visible: stage.visible(),
            key: stage.key.clone(),
            output: stage.shape,
            on_error: def.on_error,
            span: def.name.span.clone(),
        };
        let node = self.draft.add_node(&stage.producers, stage.region, operator, shape);
        stage.producers = vec![node];
        stage
    }

    pub(super) fn project(
        &mut self,
        def: &StepDef,
        mut stage: Stage,
        expressions: Vec<Expression>,
        slots: Vec<Slot>,
        key: Vec<usize>,
    ) -> Stage {
        debug_assert_eq!(expressions.len(), slots.len(), "one expression per slot");
        stage.slots = slots;
        stage.key = key;
        let operator = OperatorPlan::Project(expressions);
        let mut stage = self.add(def, stage, operator.clone());
        if let Some(table) = &mut stage.table {
            table.view.push(operator);
        }
        stage
    }
}
