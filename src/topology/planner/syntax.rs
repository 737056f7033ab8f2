//! The expressions of a step that could not be planned: what is wrong with their text alone.
//!
//! What it is: so that a mistake in one clause does not hide those in the others until it is gone.
//! What it is not: it knows no columns. A mistake that planning has reported already is not said twice.

use super::Planner;
use crate::expression::{self, Problem};
use crate::topology::document::{GroupByDef, Named, Scalar, StepDef};

impl Planner<'_> {
    pub(super) fn syntax(&mut self, def: &StepDef) {
        let rules = || def.to.iter().flat_map(|to| &to.value);
        let conditions = def.joins.iter().map(|join| &join.on).chain(&def.filter).chain(&def.having);
        let headers = rules().flat_map(|rule| &rule.headers).map(|header| &header.expression);
        let conditions = conditions.chain(rules().filter_map(|rule| rule.condition.as_ref())).chain(headers);
        for text in conditions {
            self.syntax_of(text, expression::check_syntax);
        }
        let group = def.group_by.as_ref().and_then(|group| match group {
            GroupByDef::By(text) => Some(text),
            GroupByDef::Global(_) => None,
        });
        let by = def.key_by.iter().map(|key_by| &key_by.by).chain(group);
        let lists = by.chain(def.over.iter().filter_map(|over| over.by.as_ref())).chain(&def.select);
        for text in lists.chain(rules().flat_map(|rule| rule.key.iter().chain(&rule.value))) {
            self.syntax_of(text, expression::check_select_syntax);
        }
        let calls = def.aggregate.iter().flat_map(|calls| &calls.value);
        let over = def.over.iter().flat_map(|over| &over.specs).flat_map(|spec| &spec.aggregate);
        for Named { expression: text, .. } in calls.chain(over) {
            self.syntax_of(text, expression::check_aggregate_syntax);
        }
    }

    fn syntax_of(&mut self, text: &Scalar, check: fn(&str) -> Vec<Problem>) {
        let problems = check(&text.text);
        if !problems.is_empty() {
            self.sql(text, problems);
        }
    }
}
