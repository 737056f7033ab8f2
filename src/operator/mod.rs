//! What happens to a record: one file per operator, each a function over a plan, its own small state, and a context.
//!
//! Rows are passed down by reference, depth first: a record has left the last operator before the next one is looked at.
//! To add an operator: a variant of `topology::plan::OperatorPlan`, a file here with its `process`, a line in [`run`], and
//! what it keeps in [`state::NodeState`].
//!
//! Invariants
//! - An operator evaluates everything that can fail on a record before it changes state or passes anything on.
//! - A record error concerns one step only: the other readers of the same record go on.
//! - Nothing leaves but through the [`Outbox`].

pub mod aggregate;
pub mod ahead;
pub mod context;
pub mod join;
pub mod materialize;
pub mod outbox;
pub mod over;
pub mod project;
pub mod reject;
pub mod repartition;
pub mod sink;
pub mod state;
pub mod view;

pub use context::Context;
pub use outbox::Outbox;
pub use reject::RecordError;

use crate::ids::EventTime;
use crate::topology::plan::{Edge, Node, OperatorPlan};
use crate::value::Value;
use crate::{log, store};
use state::NodeState;

/// What flows along an edge.
#[derive(Clone, Copy, Debug)]
pub enum Datum<'a> {
    /// A row of a stream.
    Record(&'a [Value]),
    /// A change of a table's row. At least one image is there; `old_time` is the event time that the old one was passed on
    /// with.
    Change { old: Option<&'a [Value]>, new: Option<&'a [Value]>, old_time: EventTime },
    /// A table's row has got a later event time and nothing else. Only nodes that are `retimed` hear of it.
    Retimed { row: &'a [Value], old_time: EventTime },
}

impl<'a> Datum<'a> {
    /// The row that a person would look at: the new one, else the one that was deleted.
    pub fn row(self) -> &'a [Value] {
        match self {
            Self::Record(row)
            | Self::Retimed { row, .. }
            | Self::Change { new: Some(row), .. }
            | Self::Change { old: Some(row), new: None, .. } => row,
            Self::Change { old: None, new: None, .. } => &[],
        }
    }
}

/// Why processing cannot simply go on.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// This record cannot be processed by this step; what happens is the step's `on_error`.
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Log(#[from] log::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
    /// `on_error: fail`: roll back and end the process with this message.
    #[error("{message}")]
    Stop { message: String },
}

/// Of a table's old row: one that cannot be processed was never passed on, so there is nothing to take back.
fn absent_if_failed<T: Default>(result: Result<T, Failure>) -> Result<T, Failure> {
    match result {
        Err(Failure::Record(_)) => Ok(T::default()),
        other => other,
    }
}

/// Hands on what became of a table's row since it was passed on last: each image with its event time.
fn changed(
    ctx: &mut Context<'_>,
    node: &Node,
    (old, old_time): (Option<&[Value]>, EventTime),
    (new, time): (Option<&[Value]>, EventTime),
) -> Result<(), Failure> {
    match (old, new) {
        (None, None) => Ok(()),
        (Some(old), Some(new)) if old == new => {
            if old_time == time {
                return Ok(());
            }
            deliver(ctx, &node.next, Datum::Retimed { row: new, old_time }, time)
        }
        (old, new) => deliver(ctx, &node.next, Datum::Change { old, new, old_time }, time),
    }
}

/// Hands a datum to every node behind the edges.
pub fn deliver(ctx: &mut Context<'_>, edges: &[Edge], datum: Datum<'_>, time: EventTime) -> Result<(), Failure> {
    for edge in edges {
        let plan = ctx.plan;
        let node = &plan.nodes[edge.to.index()];
        if matches!(datum, Datum::Retimed { .. }) && !node.retimed {
            continue;
        }
        match run(ctx, edge.to.index(), node, datum, time) {
            Ok(()) => {}
            Err(Failure::Record(error)) => reject::step(ctx, node, datum, time, &error)?,
            Err(failure) => return Err(failure),
        }
    }
    Ok(())
}

/// Runs one node. Its state, where it has any, is lent to it for the duration; an operator is never entered twice at a
/// time, since edges lead forward only.
fn run(ctx: &mut Context<'_>, index: usize, node: &Node, datum: Datum<'_>, time: EventTime) -> Result<(), Failure> {
    match &node.operator {
        OperatorPlan::Filter(condition) => return project::filter(ctx, node, condition, datum, time),
        OperatorPlan::Project(expressions) => return project::project(ctx, node, expressions, datum, time),
        OperatorPlan::ToStream => return project::to_stream(ctx, node, datum, time),
        OperatorPlan::StreamTableJoin(_)
        | OperatorPlan::Materialize(_)
        | OperatorPlan::Aggregate(_)
        | OperatorPlan::Over(_)
        | OperatorPlan::Repartition(_)
        | OperatorPlan::Sink(_) => {}
    }
    let mut state = std::mem::take(&mut ctx.nodes[index]);
    let result = match (&node.operator, &mut state) {
        (OperatorPlan::StreamTableJoin(plan), NodeState::Join(state)) => {
            join::process(ctx, node, plan, state, datum, time)
        }
        (OperatorPlan::Materialize(plan), NodeState::Materialize(state)) => {
            materialize::process(ctx, node, plan, state, datum, time)
        }
        (OperatorPlan::Aggregate(plan), NodeState::Aggregate(state)) => {
            aggregate::process(ctx, node, plan, state, datum, time)
        }
        (OperatorPlan::Over(plan), NodeState::Over(state)) => over::process(ctx, node, plan, state, datum, time),
        (OperatorPlan::Repartition(plan), NodeState::Repartition(state)) => {
            repartition::process(ctx, node, plan, state, datum, time)
        }
        (OperatorPlan::Sink(plan), NodeState::Sink(state)) => sink::process(ctx, node, plan, state, datum, time),
        (operator, state) => {
            debug_assert!(false, "{operator:?} does not go with {state:?}");
            Ok(())
        }
    };
    ctx.nodes[index] = state;
    result
}
