//! Aggregates over a frame of kept records, and LAG.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::call::{Call, Direction};
use super::compile::{self, Lag, Parsed};
use super::{AggregateSet, Retraction, change};
use crate::expression::eval::{Eval, Node};
use crate::expression::{Env, EvalError, Expression, Problem, Scope};
use crate::ids::EventTime;
use crate::row::{Origin, Row};
use crate::schema::Column;
use crate::value::Value;

/// What an `over` step keeps of a record.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptRow {
    pub time: EventTime,
    /// Distinguishes records of the same time: where it came from. Equal for the same record when it is read again.
    pub tie: u64,
    pub values: Row,
}

/// The aggregates and LAGs of one `over` specification. Cheap to clone.
#[derive(Clone, Debug)]
pub struct OverSet {
    columns: Arc<[Column]>,
    /// Its expressions are bare columns of the kept values.
    aggregates: AggregateSet,
    outputs: Arc<[Output]>,
    lag: usize,
}

#[derive(Clone, Debug)]
enum Output {
    /// The next of the aggregates.
    Aggregate,
    Lag {
        /// Index in the kept values.
        value: usize,
        n: usize,
        default: Default,
    },
}

#[derive(Clone, Debug)]
enum Default {
    Literal(Value),
    /// Index in the kept values of the current record.
    Kept(usize),
}

impl OverSet {
    /// `calls`: name and text of each, over input rows of `scope`. What must be kept of each record (arguments and
    /// filters) is appended to `kept`, shared with other specifications of the step, where it is not there yet.
    pub fn compile(
        calls: &[(&str, &str)],
        scope: &Scope,
        kept: &mut Vec<Expression>,
    ) -> Result<Self, Vec<(usize, Problem)>> {
        let mut columns = Vec::new();
        let mut aggregates = Vec::new();
        let mut outputs = Vec::new();
        let mut lag = 0;
        let mut problems = Vec::new();
        for (index, (name, text)) in calls.iter().enumerate() {
            match compile::aggregate(text, scope, Retraction::Never) {
                Ok(Parsed::Aggregate(call)) => {
                    columns.push(Column::new(name, call.result_type(), call.result_nullable()));
                    outputs.push(Output::Aggregate);
                    aggregates.push(((*name).to_owned(), over_kept(call, kept)));
                }
                Ok(Parsed::Lag(Lag { value, n, default, .. })) => {
                    let nullable = value.nullable || default.as_ref().is_none_or(|default| default.nullable);
                    columns.push(Column::new(name, value.ty.clone(), nullable));
                    lag = lag.max(n);
                    let default = match default {
                        None => Default::Literal(Value::Null),
                        Some(default) => match default.as_literal() {
                            Some(literal) => Default::Literal(literal.clone()),
                            None => Default::Kept(keep(&default, kept)),
                        },
                    };
                    outputs.push(Output::Lag { value: keep(&value, kept), n, default });
                }
                Err(more) => problems.extend(more.into_iter().map(|problem| (index, problem))),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let aggregates = AggregateSet::new(aggregates);
        Ok(Self { columns: columns.into(), aggregates, outputs: outputs.into(), lag })
    }

    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// How many records before the current one its LAGs look back.
    pub fn lag(&self) -> usize {
        self.lag
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
        let before = into.len();
        let appended = self.append(rows, frame, exclude_current.then_some(current), current, origin, into);
        appended.map_err(|error| {
            into.truncate(before);
            *error
        })
    }

    fn append(
        &self,
        rows: &VecDeque<KeptRow>,
        frame: Range<usize>,
        excluded: Option<usize>,
        current: usize,
        origin: &Origin,
        into: &mut Row,
    ) -> Eval<()> {
        let mut state = self.aggregates.empty();
        if !self.aggregates.calls.is_empty() {
            let frame = frame.start.min(rows.len())..frame.end.min(rows.len());
            for (index, row) in frame.clone().zip(rows.range(frame)) {
                if Some(index) != excluded {
                    let env = Env { row: &row.values, origin };
                    change(&self.aggregates.calls, &mut state, &env, row.time, Direction::In)?;
                }
            }
        }
        let mut calls = self.aggregates.calls.iter();
        for output in self.outputs.iter() {
            match output {
                Output::Aggregate => {
                    if let Some(call) = calls.next() {
                        into.push(call.result(&state)?);
                    }
                }
                Output::Lag { value, n, default } => {
                    let kept = |index: usize, slot: usize| {
                        rows.get(index).and_then(|row| row.values.get(slot)).cloned().unwrap_or(Value::Null)
                    };
                    into.push(match (current.checked_sub(*n), default) {
                        (Some(index), _) => kept(index, *value),
                        (None, Default::Literal(default)) => default.clone(),
                        (None, Default::Kept(slot)) => kept(current, *slot),
                    });
                }
            }
        }
        Ok(())
    }
}

/// The call with its expressions kept, reading them from there.
fn over_kept(call: Call, kept: &mut Vec<Expression>) -> Call {
    let mut read = |expression: Option<Expression>| {
        let expression = expression?;
        let slot = keep(&expression, kept);
        let column = Column::new(&expression.text, expression.ty.clone(), expression.nullable);
        Some(Expression::column(slot, &column))
    };
    let (argument, by, filter) = (read(call.argument), read(call.by), read(call.filter));
    Call { argument, by, filter, ..call }
}

/// Where an expression's value is kept. Expressions of one compiled form are kept once.
fn keep(expression: &Expression, kept: &mut Vec<Expression>) -> usize {
    let form = |node: &Node| format!("{node:?}");
    let own = form(&expression.node);
    let known = kept.iter().position(|other| other.ty == expression.ty && form(&other.node) == own);
    known.unwrap_or_else(|| {
        kept.push(expression.clone());
        kept.len() - 1
    })
}
