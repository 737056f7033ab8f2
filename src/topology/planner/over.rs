//! `over`: every record, with aggregates of its key as of that record.

use std::sync::Arc;

use super::Planner;
use super::stage::{Now, Slot, SlotKind, Stage};
use crate::expression::{self, OverSet};
use crate::schema::{Column, Schema};
use crate::topology::diagnostic::Code;
use crate::topology::document::{OverDef, StepDef};
use crate::topology::plan::{ChangelogPlan, Frame, OperatorPlan, OverPlan, OverSpec, Shape, StoreKind};
use crate::topology::read::millis;

impl Planner<'_> {
    pub(super) fn over(&mut self, def: &StepDef, stage: Stage, over: &OverDef) -> Option<Stage> {
        if stage.shape == Shape::Table {
            let help = "read the table's changes with `as: stream` in a step of its own";
            self.error(Code::Clause, &over.span, "`over` needs a stream", Some(help));
            return None;
        }
        let stage = match &over.by {
            Some(by) => {
                let items = expression::compile_select(&by.text, &stage.scope(Now::Refused));
                let Some(items) = self.checked(by, items) else {
                    let scope = stage.scope(Now::Allowed);
                    for spec in &over.specs {
                        self.aggregates(&spec.aggregate, &scope, |calls, scope| {
                            OverSet::compile(calls, scope, &mut Vec::new())
                        });
                    }
                    return None;
                };
                self.grouped(def, stage, items).0
            }
            None if stage.partitioning.is_none() => self.repartition_by_key(def, stage),
            None => stage,
        };

        let scope = stage.scope(Now::Allowed);
        let mut kept = Vec::new();
        let mut specs = Vec::new();
        let mut results: Vec<Column> = Vec::new();
        let mut complete = true;
        for spec in &over.specs {
            let set =
                self.aggregates(&spec.aggregate, &scope, |calls, scope| OverSet::compile(calls, scope, &mut kept));
            let Some(set) = set else {
                complete = false;
                continue;
            };
            for (call, column) in spec.aggregate.iter().zip(set.columns()) {
                let taken =
                    stage.slots.iter().any(|slot| slot.kind == SlotKind::Visible && slot.column.name == column.name)
                        || results.iter().any(|other| other.name == column.name);
                if taken {
                    let message = format!("there is a column `{}` already", column.name);
                    self.error(Code::DuplicateName, &call.name.span, message, None);
                    complete = false;
                }
            }
            results.extend(set.columns().iter().cloned());
            specs.push(OverSpec { frame: spec.frame, exclude_current: spec.exclude_current, set: Arc::new(set) });
        }
        if !complete {
            return None;
        }
        let keeps_all = specs.iter().any(|spec| spec.frame == Frame::Unbounded);
        let keeps_rows = specs.iter().any(|spec| spec.set.lag() > 0 || matches!(spec.frame, Frame::Rows { .. }));
        if keeps_all && def.ttl.is_none() {
            self.warn_unbounded(def, "every record that ever came");
        } else if keeps_rows && def.ttl.is_none() {
            self.warn_unbounded(def, "the last records of every key that ever came");
        }
        let longest = specs.iter().map(|spec| match spec.frame {
            Frame::Range { ms } => ms,
            Frame::Rows { .. } | Frame::Unbounded => 0,
        });
        let grace_ms = longest.max().unwrap_or(0).saturating_add(millis(over.grace));

        let name = format!("{}-over", self.storage_name(&def.name.text));
        let value = Schema::new(kept.iter().map(|kept| Column::new(&kept.text, kept.ty.clone(), kept.nullable)));
        let changelog = ChangelogPlan::Own(self.changelog_topic(&name));
        let store = self.draft.add_store(&name, StoreKind::List, stage.key_schema(), value, changelog, stage.region);
        let by = stage.key.iter().map(|&slot| stage.column(slot)).collect();
        let mut stage = stage;
        stage.headers = false;
        stage.slots.extend(results.into_iter().map(Slot::visible));
        let ttl_ms = Self::ttl(def).map(|ttl| ttl.after_ms);
        let plan = OverPlan { store, by, kept, specs, grace_ms, ttl_ms };
        Some(self.add(def, stage, OperatorPlan::Over(plan)))
    }
}
