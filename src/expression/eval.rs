//! The compiled form of an expression and its evaluation.
//!
//! A tree of nodes whose operand types were settled when it was built: a node of integers asks its operands for integers
//! ([`Node::eval_i64`]), a comparison of text borrows both sides ([`Node::eval_ref`]). So predicates and arithmetic over
//! columns and literals copy no value and allocate nothing.
//!
//! Invariant: `check` builds only trees whose operands have the types that a node asks for. A value of another type is
//! read as NULL here, which no checked tree ever shows.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;

use compact_str::CompactString;
use jiff::tz::TimeZone;
use rustc_hash::FxHashSet;

use super::calendar::{self, Field};
use super::cast;
use super::order::{compare, compare_doubles};
use super::pattern::Matcher;
use super::{Env, EvalError, PseudoColumns};
use crate::schema::Type;
use crate::value::{Decimal, Value};

/// The error is boxed so that results travel in registers.
pub type Eval<T> = Result<T, Box<EvalError>>;

/// A function of the table in `functions`, over evaluated arguments.
pub type Implementation = fn(&[&Value]) -> Eval<Value>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integer {
    Int,
    Bigint,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    #[inline]
    pub fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

/// What both sides of a comparison are read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparable {
    /// INT, BIGINT; also DATE with DATE and TIMESTAMP with TIMESTAMP.
    Integer,
    Double,
    String,
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pseudo {
    Key,
    Timestamp,
    Topic,
    Partition,
    Offset,
    Tombstone,
    Now,
}

pub type Pair = Box<[Node; 2]>;

/// One step of a compiled expression.
#[derive(Clone, Debug)]
pub enum Node {
    Column(usize),
    Literal(Value),
    Pseudo(Pseudo),
    /// `_headers['name']`: the last header of that name, as text.
    Header(Box<Node>),

    ToBigint(Box<Node>),
    ToDouble(Box<Node>),
    ToDecimal {
        value: Box<Node>,
        scale: u8,
    },
    Cast {
        value: Box<Node>,
        types: Arc<(Type, Type)>,
        /// TRY_CAST: what does not convert is NULL.
        attempt: bool,
    },

    Integers {
        integer: Integer,
        op: Arithmetic,
        operands: Pair,
    },
    Doubles {
        op: Arithmetic,
        operands: Pair,
    },
    Decimals {
        op: Arithmetic,
        precision: u8,
        scale: u8,
        operands: Pair,
    },

    Compare {
        of: Comparable,
        op: Comparison,
        operands: Pair,
    },
    /// `IS DISTINCT FROM`, with `negated` `IS NOT DISTINCT FROM`.
    Distinct {
        negated: bool,
        operands: Pair,
    },
    And(Box<[Node]>),
    Or(Box<[Node]>),
    Not(Box<Node>),
    IsNull {
        value: Box<Node>,
        negated: bool,
    },
    /// `IS [NOT] TRUE` and `FALSE`.
    IsBoolean {
        value: Box<Node>,
        is: bool,
        negated: bool,
    },
    InStrings {
        value: Box<Node>,
        set: Arc<FxHashSet<CompactString>>,
        negated: bool,
    },
    InIntegers {
        value: Box<Node>,
        set: Arc<FxHashSet<i64>>,
        negated: bool,
    },
    InList {
        value: Box<Node>,
        list: Box<[Node]>,
        negated: bool,
    },
    /// `value op ANY (array)`, with `all` `value op ALL (array)`.
    Quantified {
        op: Comparison,
        all: bool,
        operands: Pair,
    },
    Matches {
        value: Box<Node>,
        matcher: Arc<Matcher>,
        negated: bool,
    },

    Case {
        branches: Box<[(Node, Node)]>,
        otherwise: Box<Node>,
    },
    /// `CASE operand WHEN ...`: the operand is evaluated once.
    CaseOf {
        operand: Box<Node>,
        branches: Box<[(Node, Node)]>,
        otherwise: Box<Node>,
    },
    Coalesce(Box<[Node]>),

    Field {
        value: Box<Node>,
        index: usize,
    },
    /// An array's element, from 1; outside of it NULL.
    Element(Pair),
    /// A map's value.
    Entry(Pair),
    Array(Box<[Node]>),
    /// `EXTRACT(field FROM value)`, as a whole number or a DOUBLE.
    Extract {
        field: Field,
        value: Box<Node>,
        whole: bool,
    },
    /// `DATE_TRUNC`.
    Truncate {
        field: Field,
        value: Box<Node>,
        zone: Option<Box<Node>>,
    },
    Call {
        name: &'static str,
        implementation: Implementation,
        /// Whether a NULL argument makes the result NULL without a call.
        strict: bool,
        arguments: Box<[Node]>,
    },
}

impl Node {
    pub fn is_literal(&self) -> bool {
        matches!(self, Self::Literal(_))
    }

    /// The value, borrowed from the row or the expression where it stands there.
    pub fn eval_ref<'a>(&'a self, env: &Env<'a>) -> Eval<Cow<'a, Value>> {
        match self {
            Self::Column(slot) => Ok(Cow::Borrowed(&env.row[*slot])),
            Self::Literal(value) => Ok(Cow::Borrowed(value)),
            Self::Field { value, index } => {
                let field = |value: &Value| match value {
                    Value::Struct(fields) => fields.get(*index).cloned().unwrap_or(Value::Null),
                    _ => Value::Null,
                };
                Ok(match value.eval_ref(env)? {
                    Cow::Borrowed(Value::Struct(fields)) => {
                        fields.get(*index).map_or(Cow::Owned(Value::Null), Cow::Borrowed)
                    }
                    value => Cow::Owned(field(&value)),
                })
            }
            Self::Coalesce(arguments) => {
                for argument in arguments {
                    let value = argument.eval_ref(env)?;
                    if !value.is_null() {
                        return Ok(value);
                    }
                }
                Ok(Cow::Owned(Value::Null))
            }
            Self::Case { branches, otherwise } => {
                for (condition, result) in branches {
                    if condition.eval_bool(env)? == Some(true) {
                        return result.eval_ref(env);
                    }
                }
                otherwise.eval_ref(env)
            }
            Self::CaseOf { operand, branches, otherwise } => {
                let operand = operand.operand_ref(env)?;
                if !operand.is_null() {
                    for (candidate, result) in branches {
                        let candidate = candidate.eval_ref(env)?;
                        if !candidate.is_null() && compare(&operand, &candidate).is_eq() {
                            return result.eval_ref(env);
                        }
                    }
                }
                otherwise.eval_ref(env)
            }
            _ => self.eval(env).map(Cow::Owned),
        }
    }

    /// The value itself.
    pub fn eval(&self, env: &Env<'_>) -> Eval<Value> {
        match self {
            Self::Column(_)
            | Self::Literal(_)
            | Self::Field { .. }
            | Self::Coalesce(_)
            | Self::Case { .. }
            | Self::CaseOf { .. } => self.eval_ref(env).map(Cow::into_owned),

            Self::Compare { .. }
            | Self::Distinct { .. }
            | Self::And(_)
            | Self::Or(_)
            | Self::Not(_)
            | Self::IsNull { .. }
            | Self::IsBoolean { .. }
            | Self::InStrings { .. }
            | Self::InIntegers { .. }
            | Self::InList { .. }
            | Self::Quantified { .. }
            | Self::Matches { .. } => Ok(self.eval_bool(env)?.map_or(Value::Null, Value::Boolean)),

            Self::Integers { integer: Integer::Int, .. } => match self.eval_i64(env)? {
                // `eval_i64` has checked the range.
                Some(number) => i32::try_from(number).map(Value::Int).map_err(|_| out_of_range(Type::Int)),
                None => Ok(Value::Null),
            },
            Self::Integers { .. } | Self::ToBigint(_) => Ok(self.eval_i64(env)?.map_or(Value::Null, Value::Bigint)),
            Self::Doubles { .. } | Self::ToDouble(_) => Ok(self.eval_f64(env)?.map_or(Value::Null, Value::Double)),
            Self::Decimals { .. } | Self::ToDecimal { .. } => {
                Ok(self.eval_decimal(env)?.map_or(Value::Null, Value::Decimal))
            }

            Self::Pseudo(pseudo) => Ok(pseudo_column(*pseudo, env)),
            Self::Header(name) => header(&*name.eval_ref(env)?, env),
            Self::Cast { value, types, attempt } => {
                let value = value.eval_ref(env)?;
                match cast::cast(&value, &types.0, &types.1) {
                    Err(_) if *attempt => Ok(Value::Null),
                    result => result,
                }
            }
            Self::Element(operands) => {
                let (array, index) = (operands[0].operand_ref(env)?, operands[1].operand_i64(env)?);
                Ok(match (&*array, index) {
                    (Value::Array(elements), Some(index)) => {
                        let index = index.checked_sub(1).and_then(|index| usize::try_from(index).ok());
                        index.and_then(|index| elements.get(index)).cloned().unwrap_or(Value::Null)
                    }
                    _ => Value::Null,
                })
            }
            Self::Entry(operands) => {
                let (map, key) = (operands[0].operand_ref(env)?, operands[1].operand_ref(env)?);
                Ok(match (&*map, &*key) {
                    (Value::Map(entries), Value::String(key)) => entries.get(key).cloned().unwrap_or(Value::Null),
                    _ => Value::Null,
                })
            }
            Self::Array(elements) => {
                let values: Eval<Arc<[Value]>> = elements.iter().map(|element| element.eval(env)).collect();
                values.map(Value::Array)
            }
            Self::Extract { field, value, whole } => extract(*field, &*value.eval_ref(env)?, *whole),
            Self::Truncate { field, value, zone } => {
                let Some(at) = value.eval_i64(env)? else { return Ok(Value::Null) };
                match zone {
                    None => truncate(*field, at, &TimeZone::UTC),
                    Some(zone) => match &*zone.eval_ref(env)? {
                        Value::String(zone) => truncate(*field, at, &calendar::time_zone(zone)?),
                        _ => Ok(Value::Null),
                    },
                }
            }
            Self::Call { implementation, strict, arguments, .. } => call(*implementation, *strict, arguments, env),
        }
    }

    /// Of a BOOLEAN node; `None` is NULL.
    pub fn eval_bool(&self, env: &Env<'_>) -> Eval<Option<bool>> {
        match self {
            Self::Compare { of, op, operands } => {
                let order = match of {
                    Comparable::Integer => match (operands[0].operand_i64(env)?, operands[1].operand_i64(env)?) {
                        (Some(a), Some(b)) => a.cmp(&b),
                        _ => return Ok(None),
                    },
                    Comparable::Double => match (operands[0].operand_f64(env)?, operands[1].operand_f64(env)?) {
                        (Some(a), Some(b)) => compare_doubles(a, b),
                        _ => return Ok(None),
                    },
                    Comparable::String => match (&*operands[0].operand_ref(env)?, &*operands[1].operand_ref(env)?) {
                        (Value::String(a), Value::String(b)) => {
                            if matches!(op, Comparison::Equal) {
                                return Ok(Some(a == b));
                            }
                            a.as_bytes().cmp(b.as_bytes())
                        }
                        _ => return Ok(None),
                    },
                    Comparable::Other => {
                        let (a, b) = (operands[0].operand_ref(env)?, operands[1].operand_ref(env)?);
                        if a.is_null() || b.is_null() {
                            return Ok(None);
                        }
                        compare(&a, &b)
                    }
                };
                Ok(Some(op.holds(order)))
            }
            Self::And(conjuncts) => {
                let mut unknown = false;
                for conjunct in conjuncts {
                    match conjunct.eval_bool(env)? {
                        Some(true) => {}
                        Some(false) => return Ok(Some(false)),
                        None => unknown = true,
                    }
                }
                Ok(if unknown { None } else { Some(true) })
            }
            Self::Or(disjuncts) => {
                let mut unknown = false;
                for disjunct in disjuncts {
                    match disjunct.eval_bool(env)? {
                        Some(true) => return Ok(Some(true)),
                        Some(false) => {}
                        None => unknown = true,
                    }
                }
                Ok(if unknown { None } else { Some(false) })
            }
            Self::Not(value) => Ok(value.eval_bool(env)?.map(|value| !value)),
            Self::IsNull { value, negated } => Ok(Some(value.operand_ref(env)?.is_null() != *negated)),
            Self::IsBoolean { value, is, negated } => Ok(Some((value.eval_bool(env)? == Some(*is)) != *negated)),
            Self::Distinct { negated, operands } => {
                let (a, b) = (operands[0].operand_ref(env)?, operands[1].operand_ref(env)?);
                Ok(Some(compare(&a, &b).is_ne() != *negated))
            }
            Self::InStrings { value, set, negated } => Ok(match &*value.eval_ref(env)? {
                Value::String(text) => Some(set.contains(text) != *negated),
                _ => None,
            }),
            Self::InIntegers { value, set, negated } => {
                Ok(value.eval_i64(env)?.map(|number| set.contains(&number) != *negated))
            }
            Self::InList { value, list, negated } => {
                let value = value.eval_ref(env)?;
                if value.is_null() {
                    return Ok(None);
                }
                let mut unknown = false;
                for candidate in list {
                    let candidate = candidate.eval_ref(env)?;
                    if candidate.is_null() {
                        unknown = true;
                    } else if compare(&value, &candidate).is_eq() {
                        return Ok(Some(!negated));
                    }
                }
                Ok(if unknown { None } else { Some(*negated) })
            }
            Self::Quantified { op, all, operands } => {
                let (value, array) = (operands[0].operand_ref(env)?, operands[1].operand_ref(env)?);
                Ok(quantified(*op, *all, &value, &array))
            }
            Self::Matches { value, matcher, negated } => Ok(match &*value.eval_ref(env)? {
                Value::String(text) => Some(matcher.matches(text) != *negated),
                _ => None,
            }),
            _ => Ok(match &*self.eval_ref(env)? {
                Value::Boolean(value) => Some(*value),
                _ => None,
            }),
        }
    }

    /// As [`Self::eval_i64`], without a call where the node is a column or a literal, as most operands are.
    #[inline]
    pub fn operand_i64(&self, env: &Env<'_>) -> Eval<Option<i64>> {
        match self {
            Self::Column(slot) => Ok(as_i64(&env.row[*slot])),
            Self::Literal(value) => Ok(as_i64(value)),
            _ => self.eval_i64(env),
        }
    }

    /// As [`Self::eval_f64`], without a call where the node is a column or a literal.
    #[inline]
    pub fn operand_f64(&self, env: &Env<'_>) -> Eval<Option<f64>> {
        match self {
            Self::Column(slot) => Ok(as_f64(&env.row[*slot])),
            Self::Literal(value) => Ok(as_f64(value)),
            _ => self.eval_f64(env),
        }
    }

    /// As [`Self::eval_ref`], without a call where the node is a column or a literal.
    #[inline]
    pub fn operand_ref<'a>(&'a self, env: &Env<'a>) -> Eval<Cow<'a, Value>> {
        match self {
            Self::Column(slot) => Ok(Cow::Borrowed(&env.row[*slot])),
            Self::Literal(value) => Ok(Cow::Borrowed(value)),
            _ => self.eval_ref(env),
        }
    }

    /// Of an integer node (also DATE and TIMESTAMP, as their numbers); `None` is NULL.
    pub fn eval_i64(&self, env: &Env<'_>) -> Eval<Option<i64>> {
        match self {
            Self::Column(slot) => Ok(as_i64(&env.row[*slot])),
            Self::Literal(value) => Ok(as_i64(value)),
            Self::ToBigint(value) => value.eval_i64(env),
            Self::Integers { integer, op, operands } => {
                match (operands[0].operand_i64(env)?, operands[1].operand_i64(env)?) {
                    (Some(a), Some(b)) => integers(*integer, *op, a, b).map(Some),
                    _ => Ok(None),
                }
            }
            _ => Ok(as_i64(&*self.eval_ref(env)?)),
        }
    }

    /// Of any number, as a DOUBLE; `None` is NULL.
    pub fn eval_f64(&self, env: &Env<'_>) -> Eval<Option<f64>> {
        match self {
            Self::Column(slot) => Ok(as_f64(&env.row[*slot])),
            Self::Literal(value) => Ok(as_f64(value)),
            Self::ToDouble(value) => value.eval_f64(env),
            Self::Doubles { op, operands } => match (operands[0].operand_f64(env)?, operands[1].operand_f64(env)?) {
                (Some(a), Some(b)) => doubles(*op, a, b).map(Some),
                _ => Ok(None),
            },
            Self::Integers { .. } => Ok(self.eval_i64(env)?.map(|number| number as f64)),
            _ => Ok(as_f64(&*self.eval_ref(env)?)),
        }
    }

    /// Of an exact number, as a DECIMAL; `None` is NULL.
    pub fn eval_decimal(&self, env: &Env<'_>) -> Eval<Option<Decimal>> {
        match self {
            Self::ToDecimal { value, scale } => {
                let Some(number) = value.eval_decimal(env)? else { return Ok(None) };
                number
                    .rescaled(*scale)
                    .map(Some)
                    .ok_or_else(|| out_of_range(Type::Decimal { precision: Decimal::MAX_PRECISION, scale: *scale }))
            }
            Self::Decimals { op, precision, scale, operands } => {
                match (operands[0].eval_decimal(env)?, operands[1].eval_decimal(env)?) {
                    (Some(a), Some(b)) => decimals(*op, a, b, *precision, *scale).map(Some),
                    _ => Ok(None),
                }
            }
            _ => Ok(as_decimal(&*self.eval_ref(env)?)),
        }
    }

    /// Calls `visit` with each node, itself first.
    pub fn walk(&self, visit: &mut impl FnMut(&Node)) {
        visit(self);
        match self {
            Self::Column(_) | Self::Literal(_) | Self::Pseudo(_) => {}
            Self::Header(value)
            | Self::ToBigint(value)
            | Self::ToDouble(value)
            | Self::ToDecimal { value, .. }
            | Self::Cast { value, .. }
            | Self::Not(value)
            | Self::IsNull { value, .. }
            | Self::IsBoolean { value, .. }
            | Self::InStrings { value, .. }
            | Self::InIntegers { value, .. }
            | Self::Matches { value, .. }
            | Self::Extract { value, .. }
            | Self::Field { value, .. } => value.walk(visit),
            Self::Truncate { value, zone, .. } => {
                value.walk(visit);
                if let Some(zone) = zone {
                    zone.walk(visit);
                }
            }
            Self::Integers { operands, .. }
            | Self::Doubles { operands, .. }
            | Self::Decimals { operands, .. }
            | Self::Compare { operands, .. }
            | Self::Distinct { operands, .. }
            | Self::Quantified { operands, .. }
            | Self::Element(operands)
            | Self::Entry(operands) => operands.iter().for_each(|operand| operand.walk(visit)),
            Self::And(nodes)
            | Self::Or(nodes)
            | Self::Coalesce(nodes)
            | Self::Array(nodes)
            | Self::Call { arguments: nodes, .. } => nodes.iter().for_each(|node| node.walk(visit)),
            Self::InList { value, list, .. } => {
                value.walk(visit);
                list.iter().for_each(|node| node.walk(visit));
            }
            Self::Case { branches, otherwise } => {
                for (condition, result) in branches {
                    condition.walk(visit);
                    result.walk(visit);
                }
                otherwise.walk(visit);
            }
            Self::CaseOf { operand, branches, otherwise } => {
                operand.walk(visit);
                for (condition, result) in branches {
                    condition.walk(visit);
                    result.walk(visit);
                }
                otherwise.walk(visit);
            }
        }
    }

    /// The slots and pseudo-columns that it reads.
    pub fn reads(&self) -> (BTreeSet<usize>, PseudoColumns) {
        let mut slots = BTreeSet::new();
        let mut pseudo = PseudoColumns::default();
        self.walk(&mut |node| match node {
            Self::Column(slot) => {
                slots.insert(*slot);
            }
            Self::Pseudo(Pseudo::Key) => pseudo.key = true,
            Self::Pseudo(_) => pseudo.record = true,
            Self::Header(_) => pseudo.headers = true,
            _ => {}
        });
        (slots, pseudo)
    }
}

pub fn out_of_range(ty: Type) -> Box<EvalError> {
    Box::new(EvalError::OutOfRange { ty })
}

#[inline]
pub fn as_i64(value: &Value) -> Option<i64> {
    match value {
        Value::Bigint(number) | Value::Timestamp(number) => Some(*number),
        Value::Int(number) | Value::Date(number) => Some(i64::from(*number)),
        _ => None,
    }
}

#[inline]
pub fn as_f64(value: &Value) -> Option<f64> {
    match value {
        Value::Double(number) => Some(*number),
        Value::Bigint(number) => Some(*number as f64),
        Value::Int(number) => Some(f64::from(*number)),
        Value::Decimal(number) => Some(number.to_f64()),
        _ => None,
    }
}

pub fn as_decimal(value: &Value) -> Option<Decimal> {
    match value {
        Value::Decimal(number) => Some(*number),
        Value::Bigint(number) => Some(Decimal::from(*number)),
        Value::Int(number) => Some(Decimal::from(i64::from(*number))),
        _ => None,
    }
}

#[inline]
fn integers(integer: Integer, op: Arithmetic, a: i64, b: i64) -> Eval<i64> {
    let ty = || match integer {
        Integer::Int => Type::Int,
        Integer::Bigint => Type::Bigint,
    };
    if b == 0 && matches!(op, Arithmetic::Divide | Arithmetic::Remainder) {
        return Err(Box::new(EvalError::DivisionByZero));
    }
    let result = match op {
        Arithmetic::Add => a.checked_add(b),
        Arithmetic::Subtract => a.checked_sub(b),
        Arithmetic::Multiply => a.checked_mul(b),
        Arithmetic::Divide => a.checked_div(b),
        // i64::MIN % -1 is 0, which `checked_rem` refuses.
        Arithmetic::Remainder => Some(a.wrapping_rem(b)),
    };
    match (result, integer) {
        (Some(number), Integer::Bigint) => Ok(number),
        (Some(number), Integer::Int) if i32::try_from(number).is_ok() => Ok(number),
        _ => Err(out_of_range(ty())),
    }
}

/// As PostgreSQL: a finite pair never gives an infinity, and dividing by zero is an error.
#[inline]
fn doubles(op: Arithmetic, a: f64, b: f64) -> Eval<f64> {
    let result = match op {
        Arithmetic::Add => a + b,
        Arithmetic::Subtract => a - b,
        Arithmetic::Multiply => a * b,
        Arithmetic::Divide | Arithmetic::Remainder if b == 0.0 && !a.is_nan() => {
            return Err(Box::new(EvalError::DivisionByZero));
        }
        Arithmetic::Divide => a / b,
        Arithmetic::Remainder => a % b,
    };
    if result.is_infinite() && a.is_finite() && b.is_finite() {
        return Err(out_of_range(Type::Double));
    }
    Ok(result)
}

fn decimals(op: Arithmetic, a: Decimal, b: Decimal, precision: u8, scale: u8) -> Eval<Decimal> {
    if b.is_zero() && matches!(op, Arithmetic::Divide | Arithmetic::Remainder) {
        return Err(Box::new(EvalError::DivisionByZero));
    }
    let result = match op {
        Arithmetic::Add => a.add(b, scale),
        Arithmetic::Subtract => a.subtract(b, scale),
        Arithmetic::Multiply => a.multiply(b, scale),
        Arithmetic::Divide => a.divide(b, scale),
        Arithmetic::Remainder => a.remainder(b, scale),
    };
    result
        .and_then(|number| number.fitted(precision, scale))
        .ok_or_else(|| out_of_range(Type::Decimal { precision, scale }))
}

fn quantified(op: Comparison, all: bool, value: &Value, array: &Value) -> Option<bool> {
    let Value::Array(elements) = array else { return None };
    let mut unknown = false;
    for element in elements.iter() {
        if value.is_null() || element.is_null() {
            unknown = true;
        } else if op.holds(compare(value, element)) != all {
            return Some(!all);
        }
    }
    if unknown { None } else { Some(all) }
}

fn pseudo_column(pseudo: Pseudo, env: &Env<'_>) -> Value {
    let origin = env.origin;
    match pseudo {
        Pseudo::Key => origin.key.as_ref().map_or(Value::Null, |key| Value::Bytes(Arc::clone(key))),
        Pseudo::Timestamp => Value::Timestamp(origin.time.micros()),
        Pseudo::Topic => Value::string(origin.topic.as_str()),
        Pseudo::Partition => Value::Int(origin.partition.as_i32()),
        Pseudo::Offset => Value::Bigint(origin.offset.0),
        Pseudo::Tombstone => Value::Boolean(origin.tombstone),
        Pseudo::Now => Value::Timestamp(origin.fetched_at),
    }
}

fn header(name: &Value, env: &Env<'_>) -> Eval<Value> {
    let (Value::String(name), Some(headers)) = (name, &env.origin.headers) else { return Ok(Value::Null) };
    let Some(header) = headers.iter().rev().find(|header| *header.name == **name) else { return Ok(Value::Null) };
    let Some(bytes) = &header.value else { return Ok(Value::Null) };
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Ok(Value::string(text));
    }
    let text = format!("header {name} is not UTF-8");
    Err(Box::new(EvalError::Invalid { ty: Type::String, text }))
}

fn extract(field: Field, value: &Value, whole: bool) -> Eval<Value> {
    let number = match value {
        Value::Timestamp(micros) => calendar::extract(field, calendar::civil_of(*micros, &TimeZone::UTC)?)?,
        Value::Date(days) => {
            calendar::extract(field, calendar::civil_of(calendar::date_to_timestamp(*days), &TimeZone::UTC)?)?
        }
        Value::Interval(interval) => calendar::extract_interval(field, *interval)?,
        _ => return Ok(Value::Null),
    };
    if !whole {
        return Ok(Value::Double(number));
    }
    let number = cast::double_to_integer(number, &Type::Bigint)?;
    i64::try_from(number).map(Value::Bigint).map_err(|_| out_of_range(Type::Bigint))
}

fn truncate(field: Field, micros: i64, zone: &TimeZone) -> Eval<Value> {
    // Units of fixed length need no calendar in UTC.
    let unit = match field {
        Field::Day => Some(calendar::MICROS_PER_DAY),
        Field::Hour => Some(calendar::MICROS_PER_HOUR),
        Field::Minute => Some(calendar::MICROS_PER_MINUTE),
        Field::Second => Some(calendar::MICROS_PER_SECOND),
        _ => None,
    };
    if let Some(unit) = unit
        && *zone == TimeZone::UTC
    {
        let start = micros.div_euclid(unit).checked_mul(unit);
        return start.map(Value::Timestamp).ok_or_else(|| out_of_range(Type::Timestamp));
    }
    match calendar::truncate(field, calendar::civil_of(micros, zone)?)? {
        Some(start) => calendar::micros_of(start, zone).map(Value::Timestamp),
        None => Ok(Value::Null),
    }
}

fn call(implementation: Implementation, strict: bool, arguments: &[Node], env: &Env<'_>) -> Eval<Value> {
    match arguments {
        [] => implementation(&[]),
        [a] => {
            let a = a.operand_ref(env)?;
            if strict && a.is_null() {
                return Ok(Value::Null);
            }
            implementation(&[&a])
        }
        [a, b] => {
            let (a, b) = (a.operand_ref(env)?, b.operand_ref(env)?);
            if strict && (a.is_null() || b.is_null()) {
                return Ok(Value::Null);
            }
            implementation(&[&a, &b])
        }
        [a, b, c] => {
            let (a, b, c) = (a.operand_ref(env)?, b.operand_ref(env)?, c.operand_ref(env)?);
            if strict && (a.is_null() || b.is_null() || c.is_null()) {
                return Ok(Value::Null);
            }
            implementation(&[&a, &b, &c])
        }
        [a, b, c, d] => {
            let (a, b, c, d) = (a.operand_ref(env)?, b.operand_ref(env)?, c.operand_ref(env)?, d.operand_ref(env)?);
            if strict && (a.is_null() || b.is_null() || c.is_null() || d.is_null()) {
                return Ok(Value::Null);
            }
            implementation(&[&a, &b, &c, &d])
        }
        many => {
            let values: Vec<Cow<'_, Value>> = many.iter().map(|node| node.eval_ref(env)).collect::<Eval<_>>()?;
            if strict && values.iter().any(|value| value.is_null()) {
                return Ok(Value::Null);
            }
            let values: Vec<&Value> = values.iter().map(AsRef::as_ref).collect();
            implementation(&values)
        }
    }
}
