//! Aggregates: `COUNT SUM AVG MIN MAX FIRST LAST ARG_MIN ARG_MAX`, each with `FILTER`, and `LAG` within `over`.
//!
//! The state of a set of aggregates is a plain row of values with a schema of its own, named by the result column
//! (`mean.sum`, `mean.count`), so that it can be stored, versioned by column name, and restored.
//!
//! Rules for all of them: rows whose argument is NULL are left out (only `COUNT(*)` counts them), and so are rows for which
//! `FILTER` is not true. Of no rows COUNT is 0 and everything else NULL.
//!
//! Invariants
//! - `add` and `retract` change the state wholly or, on an error, not at all.
//! - For a table's aggregates, `retract` of a row that was added leaves the state as if it had never been.
//! - Adding to COUNT, SUM, AVG, MIN and MAX over numbers allocates nothing where rows are only added.

mod call;
mod compile;
mod over;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use compile::{check_aggregate_syntax, is_aggregate, signatures};
pub use over::{KeptRow, OverSet};

use self::call::{Call, Direction};
use super::eval::Eval;
use super::{Env, EvalError, Expression, Problem, Scope};
use crate::ids::EventTime;
use crate::row::Row;
use crate::schema::{Column, Schema};
use crate::value::Value;

/// Whether rows are only added, or also taken away again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retraction {
    Never,
    Needed,
}

/// The aggregates of one `aggregate:` clause. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AggregateSet {
    calls: Arc<[Call]>,
    columns: Arc<[Column]>,
    state: Schema,
    empty: Arc<[Value]>,
}

impl AggregateSet {
    /// `calls`: name and text of each. A problem carries the index of its call.
    pub fn compile(
        calls: &[(&str, &str)],
        scope: &Scope,
        retraction: Retraction,
    ) -> Result<Self, Vec<(usize, Problem)>> {
        compile::set(calls, scope, retraction)
    }

    fn new(named: Vec<(String, Call)>) -> Self {
        let mut columns = Vec::new();
        let mut state = Vec::new();
        let mut empty = Vec::new();
        let mut calls = Vec::new();
        for (name, mut call) in named {
            columns.push(Column::new(&name, call.result_type(), call.result_nullable()));
            call.first = state.len();
            for (part, ty, value) in call.state_columns() {
                let name = if part.is_empty() { name.clone() } else { format!("{name}.{part}") };
                state.push(Column::new(name, ty, true));
                empty.push(value);
            }
            calls.push(call);
        }
        Self { calls: calls.into(), columns: columns.into(), state: Schema::new(state), empty: empty.into() }
    }

    /// Whether a result depends on the rows' event times (`FIRST`, `LAST`).
    pub fn goes_by_event_time(&self) -> bool {
        self.calls.iter().any(Call::is_by_event_time)
    }

    /// Name and function of each result column, in their order: what the state of one means nothing to another.
    pub fn functions(&self) -> impl Iterator<Item = (&str, &'static str)> {
        self.columns.iter().zip(self.calls.iter()).map(|(column, call)| (&*column.name, call.function()))
    }

    /// The result columns.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The columns of the state.
    pub fn state(&self) -> &Schema {
        &self.state
    }

    /// The expressions that it evaluates over input rows (arguments and filters).
    pub fn expressions(&self) -> impl Iterator<Item = &Expression> {
        self.calls.iter().flat_map(Call::expressions)
    }

    /// The state before any row, one value per state column.
    pub fn empty(&self) -> Row {
        self.empty.to_vec()
    }

    /// Takes a row in. Rows of equal time are in the order of their arrival.
    pub fn add(&self, state: &mut [Value], env: &Env<'_>, time: EventTime) -> Result<(), EvalError> {
        change(&self.calls, state, env, time, Direction::In).map_err(|error| *error)
    }

    /// Takes a row out again (tables). Only for a set compiled with `Retraction::Needed`.
    pub fn retract(&self, state: &mut [Value], env: &Env<'_>, time: EventTime) -> Result<(), EvalError> {
        change(&self.calls, state, env, time, Direction::Out).map_err(|error| *error)
    }

    /// Appends the results.
    pub fn results(&self, state: &[Value], into: &mut Row) -> Result<(), EvalError> {
        let before = into.len();
        for call in self.calls.iter() {
            match call.result(state) {
                Ok(value) => into.push(value),
                Err(error) => {
                    into.truncate(before);
                    return Err(*error);
                }
            }
        }
        Ok(())
    }
}

/// Computes the change of each call before the first is written: the recursion holds them on the stack.
fn change(calls: &[Call], state: &mut [Value], env: &Env<'_>, time: EventTime, direction: Direction) -> Eval<()> {
    let Some((call, rest)) = calls.split_first() else { return Ok(()) };
    let changed = call.change(state, env, time, direction)?;
    change(rest, state, env, time, direction)?;
    call.write(state, changed);
    Ok(())
}
