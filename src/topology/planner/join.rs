//! `join`: a stream with a table, as the table is now.
//!
//! The table is looked up by its whole key. Where the stream's rows do not lie beside the table's (another key, or the
//! same in another format), they are repartitioned by the left sides of `on`, and that is the key of the result.

use std::sync::Arc;

use super::Planner;
use super::repartition::NewKey;
use super::stage::{Now, Slot, SlotKind, Stage, same_partitioning};
use crate::expression::{self, Expression};
use crate::topology::diagnostic::Code;
use crate::topology::document::{JoinDef, StepDef};
use crate::topology::plan::{JoinKind, OperatorPlan, Shape, StreamTableJoinPlan};

impl Planner<'_> {
    pub(super) fn join(&mut self, def: &StepDef, left: Stage, join: &JoinDef) -> Option<Stage> {
        let alias = join.alias.as_ref().unwrap_or(&join.with);
        if left.slots.iter().any(|slot| slot.qualifier.as_deref() == Some(alias.text.as_str())) {
            let message = format!("`{}` names two inputs of this step", alias.text);
            self.error(Code::DuplicateName, &alias.span, message, Some("give one another name with `as`"));
            return None;
        }
        let mut right = self.relation(&join.with.text, &join.with.span)?;
        let qualifier: Arc<str> = Arc::from(alias.text.as_str());
        for slot in &mut right.slots {
            slot.qualifier = Some(qualifier.clone());
        }
        // A key column that a `select` dropped can still be joined on, by its qualifier.
        for &slot in &right.key {
            if right.slots[slot].kind == SlotKind::Hidden {
                right.slots[slot].kind = SlotKind::Equality;
            }
        }
        let table = match (left.shape, right.shape) {
            (Shape::Stream, Shape::Table) => right.table.clone()?,
            (Shape::Stream, Shape::Stream) => {
                let help = "make the right side a table with `as: table` in a step of its own";
                self.not_supported(&join.with.span, "a join of two streams", Some(help));
                return None;
            }
            (Shape::Table, Shape::Table) => {
                self.not_supported(&join.with.span, "a join of two tables", None);
                return None;
            }
            (Shape::Table, Shape::Stream) => {
                let help = "read the stream in `from`, and join the table";
                self.error(Code::Join, &join.with.span, "a table cannot be joined with a stream", Some(help));
                return None;
            }
        };
        if right.windowed {
            self.not_supported(&join.with.span, "a join with a windowed table", None);
            return None;
        }

        let on = expression::compile_join(&join.on.text, &left.scope(Now::Refused), &right.scope(Now::Refused));
        let planned = self.checked(&join.on, on).and_then(|on| {
            let mut equalities = on.equalities;
            let key = self.key_of_table(join, &right, &mut equalities)?;
            Some((key, on.residual, equalities))
        });
        let Some((key, residual, equalities)) = planned else {
            // Its columns are known all the same: what names them can be checked.
            for &slot in &right.key {
                right.slots[slot].kind = SlotKind::Equality;
            }
            let mut joined = left;
            joined.slots.extend(right.slots);
            return Some(joined);
        };
        let residual = residual.is_some() || !equalities.is_empty();

        let is_present_key = key.iter().map(Expression::as_column).eq(left.key.iter().map(|&slot| Some(slot)));
        let lies_beside = match (&left.partitioning, &right.partitioning) {
            (Some(left), Some(right)) => same_partitioning(left, right),
            _ => false,
        };
        let (left, key) = if is_present_key && lies_beside {
            (left, key)
        } else {
            let names = right.key.iter().map(|&slot| right.slots[slot].column.name.to_string());
            let new = NewKey {
                columns: names.zip(key).collect(),
                beside: right.partitioning.clone(),
                clause: Some(format!("join-{}", alias.text)),
                partitions: None,
            };
            let left = self.repartition(def, left, new);
            let key = left.key.iter().map(|&slot| left.column(slot)).collect();
            (left, key)
        };

        let width = left.slots.len();
        let table_columns = right.slots.len();
        let mut joined = left;
        joined.region = self.draft.unite(joined.region, right.region);
        joined.slots.extend(right.slots.iter().map(|slot| {
            let mut slot: Slot = slot.clone();
            slot.column.nullable |= join.kind == JoinKind::Left;
            slot
        }));
        let condition = if residual {
            // The whole `on`: its equalities hold of what was found, so they cost little and change nothing.
            let compiled = expression::compile_predicate(&join.on.text, &joined.scope(Now::Refused));
            Some(self.checked(&join.on, compiled)?)
        } else {
            None
        };
        for &slot in &right.key {
            if joined.slots[width + slot].kind == SlotKind::Visible {
                joined.slots[width + slot].kind = SlotKind::Equality;
            }
        }
        let plan = StreamTableJoinPlan {
            kind: join.kind,
            store: table.store,
            key,
            condition,
            view: table.view,
            table_columns,
        };
        Some(self.add(def, joined, OperatorPlan::StreamTableJoin(plan)))
    }

    /// The left sides that make up the table's key, in its order. What is left of the equalities are conditions.
    fn key_of_table(
        &mut self,
        join: &JoinDef,
        right: &Stage,
        equalities: &mut Vec<(Expression, Expression)>,
    ) -> Option<Vec<Expression>> {
        let mut key = Vec::new();
        for &slot in &right.key {
            let Some(at) = equalities.iter().position(|(_, side)| side.as_column() == Some(slot)) else {
                let column = &right.slots[slot].column;
                let other_type = equalities.iter().find(|(_, side)| side.slots.iter().eq([&slot]));
                let (message, help) = match other_type {
                    Some((left, _)) => (
                        format!("`on` must compare the key `{}` itself, which is {}", column.name, column.ty),
                        format!("cast the stream's side: CAST({} AS {})", left.text, column.ty),
                    ),
                    None => (
                        format!("`on` does not compare the key of `{}`, `{}`", join.with.text, column.name),
                        "a stream finds a table's row by the table's key; for another column, group or key the table \
                         by it in a step of its own"
                            .to_owned(),
                    ),
                };
                self.error(Code::Join, &join.on.span, message, Some(&help));
                return None;
            };
            key.push(equalities.remove(at).0);
        }
        Some(key)
    }
}
