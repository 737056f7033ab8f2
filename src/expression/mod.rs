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

#![expect(clippy::unnecessary_box_returns, reason = "errors of evaluation are boxed: see eval::Eval")]

pub mod aggregate;
mod calendar;
mod cast;
mod check;
mod eval;
mod functions;
mod join;
pub mod order;
mod parse;
mod pattern;
mod select;
mod suggest;
mod type_syntax;
mod types;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

pub use aggregate::{AggregateSet, KeptRow, OverSet, Retraction, check_aggregate_syntax};
pub use join::{JoinCondition, compile_join};
pub use select::{SelectItem, compile_select};
pub use type_syntax::{parse_columns, parse_type};

use self::check::{Checker, Typed};
use self::eval::Node;

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
    pub kind: ProblemKind,
}

/// Who is to change something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// The user: it is wrong in every version.
    Mistake,
    /// It is in the language, and this version lacks it.
    NotSupported,
    /// It names a column whose type could not be read, which is said where the column is declared.
    SaidBefore,
}

impl Problem {
    pub fn new(span: Range<usize>, message: impl Into<String>, help: Option<String>) -> Self {
        Self { span, message: message.into(), help, kind: ProblemKind::Mistake }
    }

    pub fn not_supported(span: Range<usize>, what: &str) -> Self {
        let message = format!("{what}: not supported yet");
        Self { span, message, help: None, kind: ProblemKind::NotSupported }
    }
}

/// A column that expressions may name.
#[derive(Clone, Debug)]
pub struct ScopeColumn {
    /// `a` in `a.b`: a stream, table or alias.
    pub qualifier: Option<Arc<str>>,
    pub column: Column,
    pub slot: usize,
    /// Hidden columns are not part of `*` and are known only by their qualifier: the right sides of a join's equalities.
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

/// A compiled expression. Cheap to clone.
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
    node: Arc<Node>,
}

impl Expression {
    /// A bare column.
    pub fn column(slot: usize, column: &Column) -> Self {
        Self {
            ty: column.ty.clone(),
            nullable: column.nullable,
            slots: BTreeSet::from([slot]),
            pseudo: PseudoColumns::default(),
            volatile: false,
            text: Arc::clone(&column.name),
            node: Arc::new(Node::Column(slot)),
        }
    }

    /// `Some(slot)` where the expression is a bare column.
    pub fn as_column(&self) -> Option<usize> {
        match &*self.node {
            Node::Column(slot) => Some(*slot),
            _ => None,
        }
    }

    /// Whether it is the pseudo-column `_key` alone.
    pub fn is_record_key(&self) -> bool {
        matches!(&*self.node, Node::Pseudo(eval::Pseudo::Key))
    }

    /// `Some(value)` where the expression is a constant.
    pub fn as_literal(&self) -> Option<&Value> {
        match &*self.node {
            Node::Literal(value) => Some(value),
            _ => None,
        }
    }

    pub fn eval(&self, env: &Env<'_>) -> Result<Value, EvalError> {
        self.node.eval(env).map_err(|error| *error)
    }

    /// As [`Self::eval`], borrowed from the row where the value stands there.
    pub fn eval_ref<'a>(&'a self, env: &Env<'a>) -> Result<Cow<'a, Value>, EvalError> {
        self.node.eval_ref(env).map_err(|error| *error)
    }

    /// Of a BOOLEAN expression: whether it is true. NULL does not hold.
    pub fn holds(&self, env: &Env<'_>) -> Result<bool, EvalError> {
        match self.node.eval_bool(env) {
            Ok(value) => Ok(value == Some(true)),
            Err(error) => Err(*error),
        }
    }

    fn new(typed: Typed, volatile: bool, text: &str) -> Self {
        let (slots, pseudo) = typed.node.reads();
        Self {
            ty: typed.ty,
            nullable: typed.nullable,
            slots,
            pseudo,
            volatile,
            text: Arc::from(text),
            node: Arc::new(typed.node),
        }
    }
}

/// Compiles a scalar expression. All problems at once.
pub fn compile(text: &str, scope: &Scope) -> Result<Expression, Vec<Problem>> {
    compile_as(text, scope, |_, typed| Some(typed))
}

/// Compiles an expression that must be BOOLEAN.
pub fn compile_predicate(text: &str, scope: &Scope) -> Result<Expression, Vec<Problem>> {
    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the method itself is not general enough in lifetimes"
    )]
    compile_as(text, scope, |checker, typed| checker.as_condition(typed))
}

/// Compiles an expression to a type, where that needs no CAST: an INT to a BIGINT, a text literal to a TIMESTAMP.
pub fn compile_to(text: &str, scope: &Scope, ty: &Type) -> Result<Expression, Vec<Problem>> {
    compile_as(text, scope, |checker, typed| checker.coerce(typed, ty))
}

fn compile_as(
    text: &str,
    scope: &Scope,
    settle: impl FnOnce(&mut Checker<'_>, Typed) -> Option<Typed>,
) -> Result<Expression, Vec<Problem>> {
    let mut checker = Checker::new(text, scope);
    let syntax = parse::expression(checker.source)?;
    let typed = checker.check(&syntax);
    let typed = typed.and_then(|typed| settle(&mut checker, typed));
    match typed {
        Some(typed) if checker.problems.is_empty() => Ok(Expression::new(typed, checker.volatile, text)),
        _ => Err(checker.into_problems()),
    }
}

/// What is wrong with an expression whatever columns there are.
pub fn check_syntax(text: &str) -> Vec<Problem> {
    parse::expression(parse::Source::new(text)).err().unwrap_or_default()
}

/// What is wrong with a select list whatever columns there are.
pub fn check_select_syntax(text: &str) -> Vec<Problem> {
    parse::select_list(parse::Source::new(text)).err().unwrap_or_default()
}

/// Starts this thread's random generator anew: the same seed gives the same `RANDOM_*` values.
pub fn seed_random(seed: u64) {
    functions::random::seed(seed);
}

/// Every function by its signature, with what it does: for documentation and editors.
pub fn function_signatures() -> impl Iterator<Item = (&'static str, &'static str)> {
    functions::TABLE.iter().map(|function| (function.signature, function.does))
}
