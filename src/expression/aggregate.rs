//! Aggregates: `COUNT SUM AVG MIN MAX FIRST LAST ARG_MIN ARG_MAX`, each with `FILTER`, and `LAG` within `over`.
//!
//! The state of a set of aggregates is a plain row of values with a schema of its own, named by the result column
//! (`mean.sum`, `mean.count`), so that it can be stored, versioned by column name, and restored.
//!
//! Invariants
//! - `add` and `retract` change the state wholly or, on an error, not at all.
//! - For a table's aggregates, `retract` of a row that was added leaves the state as if it had never been.

use std::collections::VecDeque;
use std::ops::Range;

use super::{Env, EvalError, Expression, Problem, Scope};
use crate::ids::EventTime;
use crate::row::{Origin, Row};
use crate::schema::{Column, Schema};
use crate::value::Value;

/// Whether rows are only added, or also taken away again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retraction {
    Never,
    Needed,
}

/// The aggregates of one `aggregate:` clause.
#[derive(Clone, Debug)]
pub struct AggregateSet {
    columns: Vec<Column>,
    state: Schema,
}

impl AggregateSet {
    /// `calls`: name and text of each. A problem carries the index of its call.
    pub fn compile(
        calls: &[(&str, &str)],
        scope: &Scope,
        retraction: Retraction,
    ) -> Result<Self, Vec<(usize, Problem)>> {
        let _ = (calls, scope, retraction);
        unimplemented!()
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
        std::iter::empty()
    }

    /// The state before any row, one value per state column.
    pub fn empty(&self) -> Row {
        unimplemented!()
    }

    /// Takes a row in. Rows of equal time are in the order of their arrival.
    pub fn add(&self, state: &mut [Value], env: &Env<'_>, time: EventTime) -> Result<(), EvalError> {
        let _ = (state, env, time);
        unimplemented!()
    }

    /// Takes a row out again (tables). Only for a set compiled with `Retraction::Needed`.
    pub fn retract(&self, state: &mut [Value], env: &Env<'_>, time: EventTime) -> Result<(), EvalError> {
        let _ = (state, env, time);
        unimplemented!()
    }

    /// Appends the results.
    pub fn results(&self, state: &[Value], into: &mut Row) -> Result<(), EvalError> {
        let _ = (state, into);
        unimplemented!()
    }
}

/// What an `over` step keeps of a record.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptRow {
    pub time: EventTime,
    /// Distinguishes records of the same time: where it came from. Equal for the same record when it is read again.
    pub tie: u64,
    pub values: Row,
}

/// The aggregates and LAGs of one `over` specification.
#[derive(Clone, Debug)]
pub struct OverSet {
    columns: Vec<Column>,
}

impl OverSet {
    /// `calls`: name and text of each, over input rows of `scope`. What must be kept of each record (arguments and
    /// filters) is appended to `kept`, shared with other specifications of the step, where it is not there yet.
    pub fn compile(
        calls: &[(&str, &str)],
        scope: &Scope,
        kept: &mut Vec<Expression>,
    ) -> Result<Self, Vec<(usize, Problem)>> {
        let _ = (calls, scope, kept);
        unimplemented!()
    }

    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// How many records before the current one its LAGs look back.
    pub fn lag(&self) -> usize {
        0
    }

    /// Appends the results for the record at `current` of `rows` (all that is kept of the key, by event time), over the
    /// rows of `frame` (indexes; it may or may not contain `current`).
    pub fn results(
        &self,
        rows: &VecDeque<KeptRow>,
        frame: Range<usize>,
        exclude_current: bool,
        current: usize,
        origin: &Origin,
        into: &mut Row,
    ) -> Result<(), EvalError> {
        let _ = (rows, frame, exclude_current, current, origin, into);
        unimplemented!()
    }
}

/// Whether a function's name is that of an aggregate, supported or not.
pub fn is_aggregate(name: &str) -> bool {
    matches!(name, "COUNT" | "SUM" | "AVG" | "MIN" | "MAX" | "FIRST" | "LAST" | "LAG")
}
