//! SQL expressions: text -> checked, typed, compiled form -> values.
//!
//! What it is: PostgreSQL's expressions over the columns of a row and the pseudo-columns of its record, with SQL's
//! three-valued logic and SQL's errors. Pure: no I/O, no clock, no state beyond what a caller passes in.
//! What it is not: it knows nothing of steps, topics or YAML; positions in errors are byte ranges of the text given.
//!
//! Invariants
//! - Everything is typed at compile time; evaluating never finds a value of an unexpected type.
//! - Evaluating never panics and never yields a silent NULL: what cannot be computed is an [`EvalError`].
//! - Names are resolved to slots once; evaluation does no look-up by name and, for everyday expressions, no allocation.

pub mod aggregate;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

pub use aggregate::{AggregateSet, KeptRow, OverSet, Retraction};

use crate::row::Origin;
use crate::schema::{Column, Schema, Type};
use crate::value::Value;

/// What an expression sees when it is evaluated.
#[derive(Clone, Copy, Debug)]
pub struct Env<'a> {
    pub row: &'a [Value],
    pub origin: &'a Origin,
}

/// A mistake in the text of an expression, with where it is and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Bytes of the text.
    pub span: Range<usize>,
    pub message: String,
    pub help: Option<String>,
}

/// A column that expressions may name.
#[derive(Clone, Debug)]
pub struct ScopeColumn {
    /// `a` in `a.b`: a stream, table or alias.
    pub qualifier: Option<Arc<str>>,
    pub column: Column,
    pub slot: usize,
    /// Hidden columns are not named by `*` and cannot be referred to.
    pub hidden: bool,
}

/// Which names an expression may use, and what it may call.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    pub columns: Vec<ScopeColumn>,
    /// Whether `_key`, `_timestamp` and the like may be used.
    pub pseudo_columns: bool,
    /// `NOW()` is refused where a value must be the same on replay (`on`, `group_by`, `key_by`).
    pub allow_now: bool,
    /// The `RANDOM_*` functions of generated input.
    pub allow_random: bool,
}

impl Scope {
    /// The columns of one input under one name, slots from `first_slot`.
    pub fn push_schema(&mut self, qualifier: Option<&str>, schema: &Schema, first_slot: usize) {
        let qualifier: Option<Arc<str>> = qualifier.map(Arc::from);
        for (index, column) in schema.columns().iter().enumerate() {
            self.columns.push(ScopeColumn {
                qualifier: qualifier.clone(),
                column: column.clone(),
                slot: first_slot + index,
                hidden: false,
            });
        }
    }
}

/// Which pseudo-columns an expression reads, so that a task provides only those.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PseudoColumns {
    pub key: bool,
    pub headers: bool,
    /// Any of `_topic _partition _offset _timestamp _tombstone NOW()`.
    pub record: bool,
}

/// Why a value could not be computed for a record.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EvalError {
    #[error("division by zero")]
    DivisionByZero,
    #[error("{ty} out of range")]
    OutOfRange { ty: Type },
    #[error("invalid {ty}: {text}")]
    Invalid { ty: Type, text: String },
    #[error("{function}: {reason}")]
    Function { function: &'static str, reason: String },
}

/// A compiled expression.
#[derive(Clone, Debug)]
pub struct Expression {
    pub ty: Type,
    pub nullable: bool,
    /// Slots of the row that it reads.
    pub slots: BTreeSet<usize>,
    pub pseudo: PseudoColumns,
    /// Whether it calls `NOW()` or `RANDOM_*`.
    pub volatile: bool,
    /// As written.
    pub text: Arc<str>,
}

impl Expression {
    /// A bare column.
    pub fn column(slot: usize, column: &Column) -> Self {
        let _ = (slot, column);
        unimplemented!()
    }

    /// `Some(slot)` where the expression is a bare column.
    pub fn as_column(&self) -> Option<usize> {
        None
    }

    pub fn eval(&self, env: &Env<'_>) -> Result<Value, EvalError> {
        let _ = env;
        unimplemented!()
    }

    /// Of a BOOLEAN expression: whether it is true. NULL does not hold.
    pub fn holds(&self, env: &Env<'_>) -> Result<bool, EvalError> {
        let _ = env;
        unimplemented!()
    }
}

/// One column of a select list.
#[derive(Clone, Debug)]
pub struct SelectItem {
    pub name: Arc<str>,
    pub expression: Expression,
    /// Where it stands in the text (the whole `*` for a column that came from one).
    pub span: Range<usize>,
}

/// Compiles a scalar expression. All problems at once.
pub fn compile(text: &str, scope: &Scope) -> Result<Expression, Vec<Problem>> {
    let _ = (text, scope);
    unimplemented!()
}

/// Compiles an expression that must be BOOLEAN.
pub fn compile_predicate(text: &str, scope: &Scope) -> Result<Expression, Vec<Problem>> {
    let _ = (text, scope);
    unimplemented!()
}

/// Compiles a select list: `*`, `a.*`, `* EXCEPT (a, b)`, `expr AS name`, bare columns. A name that stands twice is a
/// problem. An expression that is neither a column nor a function call needs `AS`.
pub fn compile_select(text: &str, scope: &Scope) -> Result<Vec<SelectItem>, Vec<Problem>> {
    let _ = (text, scope);
    unimplemented!()
}

/// The `on` of a join, taken apart.
#[derive(Clone, Debug)]
pub struct JoinCondition {
    /// `left = right` conjuncts: the left over the left row, the right over the right row (slots from 0). At least one.
    pub equalities: Vec<(Expression, Expression)>,
    /// The other conjuncts, over both rows: left slots, then right slots.
    pub residual: Option<Expression>,
}

/// Compiles the `on` of a join. Both scopes number their slots from 0.
pub fn compile_join(text: &str, left: &Scope, right: &Scope) -> Result<JoinCondition, Vec<Problem>> {
    let _ = (text, left, right);
    unimplemented!()
}

/// Parses `BIGINT NOT NULL`, `STRUCT<a INT, b STRING>` and so on: the type, and whether it is nullable.
pub fn parse_type(text: &str) -> Result<(Type, bool), Problem> {
    let _ = text;
    unimplemented!()
}

/// Parses a DDL column list: `id BIGINT NOT NULL, p STRUCT<a INT, b STRING>`.
pub fn parse_columns(text: &str) -> Result<Vec<Column>, Vec<Problem>> {
    let _ = text;
    unimplemented!()
}
