//! One aggregate: its state columns, how a row changes them, and its result.
//!
//! Where rows are only added, the state is the least that the result needs. Where they are also taken out, sums carry
//! their count (so that an emptied sum is NULL again) and NaN and the infinities apart, and MIN, MAX, FIRST, LAST and
//! ARG_* keep all their rows, sorted.

use std::cmp::Ordering;
use std::sync::Arc;

use super::Retraction;
use crate::expression::eval::{Eval, as_decimal, as_f64, as_i64, out_of_range};
use crate::expression::order::compare;
use crate::expression::{Env, Expression};
use crate::ids::EventTime;
use crate::schema::{Column, Type};
use crate::value::{Decimal, Value};

/// Which function over which type of argument.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// `COUNT(*)` or `COUNT(x)`.
    Count,
    SumInteger,
    SumDecimal {
        scale: u8,
    },
    SumDouble,
    /// A DOUBLE, from an exact sum.
    AverageInteger,
    AverageDecimal {
        sum_scale: u8,
        precision: u8,
        scale: u8,
    },
    AverageDouble,
    Extreme(End),
    /// FIRST and LAST.
    Edge(End),
    /// ARG_MIN and ARG_MAX.
    Argument(End),
}

/// Which end of the order wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Least,
    Greatest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    In,
    Out,
}

impl Direction {
    fn sign(self) -> i64 {
        match self {
            Self::In => 1,
            Self::Out => -1,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Call {
    pub kind: Kind,
    /// `None` for `COUNT(*)`.
    pub argument: Option<Expression>,
    /// Of ARG_MIN and ARG_MAX.
    pub by: Option<Expression>,
    pub filter: Option<Expression>,
    pub retraction: Retraction,
    /// Where its state columns begin.
    pub first: usize,
}

/// New values for the first columns of a call's state, or for two of them.
pub enum Change {
    Keep,
    One(Value),
    Two(Value, Value),
    Three(Value, Value, Value),
    Scattered([(usize, Value); 2]),
}

/// Offsets in the state of a DOUBLE sum with retraction: sum, compensation, count, then these.
const NAN: usize = 3;
const INFINITY: usize = 4;
const NEGATIVE_INFINITY: usize = 5;
const COUNT: usize = 2;

impl Call {
    /// Its name in capitals.
    pub fn function(&self) -> &'static str {
        match &self.kind {
            Kind::Count => "COUNT",
            Kind::SumInteger | Kind::SumDecimal { .. } | Kind::SumDouble => "SUM",
            Kind::AverageInteger | Kind::AverageDecimal { .. } | Kind::AverageDouble => "AVG",
            Kind::Extreme(End::Least) => "MIN",
            Kind::Extreme(End::Greatest) => "MAX",
            Kind::Edge(End::Least) => "FIRST",
            Kind::Edge(End::Greatest) => "LAST",
            Kind::Argument(End::Least) => "ARG_MIN",
            Kind::Argument(End::Greatest) => "ARG_MAX",
        }
    }

    /// Whether it goes by event time alone.
    pub fn is_by_event_time(&self) -> bool {
        matches!(self.kind, Kind::Edge(_))
    }

    fn retracts(&self) -> bool {
        self.retraction == Retraction::Needed
    }

    fn argument_type(&self) -> Type {
        self.argument.as_ref().map_or(Type::Null, |argument| argument.ty.clone())
    }

    pub fn expressions(&self) -> impl Iterator<Item = &Expression> {
        self.argument.iter().chain(&self.by).chain(&self.filter)
    }

    pub fn result_type(&self) -> Type {
        match &self.kind {
            Kind::Count | Kind::SumInteger => Type::Bigint,
            Kind::SumDecimal { scale } => decimal_sum(*scale),
            Kind::SumDouble | Kind::AverageInteger | Kind::AverageDouble => Type::Double,
            Kind::AverageDecimal { precision, scale, .. } => Type::Decimal { precision: *precision, scale: *scale },
            Kind::Extreme(_) | Kind::Edge(_) | Kind::Argument(_) => self.argument_type(),
        }
    }

    pub fn result_nullable(&self) -> bool {
        self.kind != Kind::Count
    }

    /// Part of the name (the empty part is the bare result name), type and empty value of each state column.
    pub fn state_columns(&self) -> Vec<(&'static str, Type, Value)> {
        let zero = || Value::Bigint(0);
        let mut columns = match &self.kind {
            Kind::Count => vec![("", Type::Bigint, zero())],
            // So wide that no row fails to enter, since what did not enter could not be told from what did when it leaves.
            Kind::SumInteger if self.retracts() => vec![("", decimal_sum(0), Value::Null)],
            Kind::SumInteger => vec![("", Type::Bigint, Value::Null)],
            Kind::SumDecimal { scale } => vec![("", decimal_sum(*scale), Value::Null)],
            Kind::SumDouble => vec![("", Type::Double, Value::Null), ("compensation", Type::Double, Value::Null)],
            Kind::AverageInteger => vec![("sum", decimal_sum(0), Value::Null), ("count", Type::Bigint, zero())],
            Kind::AverageDecimal { sum_scale, .. } => {
                vec![("sum", decimal_sum(*sum_scale), Value::Null), ("count", Type::Bigint, zero())]
            }
            Kind::AverageDouble => vec![
                ("sum", Type::Double, Value::Null),
                ("compensation", Type::Double, Value::Null),
                ("count", Type::Bigint, zero()),
            ],
            Kind::Extreme(_) if self.retracts() => {
                return vec![("values", entries(&[("value", self.argument_type())]), Value::Null)];
            }
            Kind::Edge(_) if self.retracts() => {
                let fields = [("time", Type::Bigint), ("value", self.argument_type())];
                return vec![("values", entries(&fields), Value::Null)];
            }
            Kind::Argument(_) if self.retracts() => {
                let fields = [("by", self.by_type()), ("value", self.argument_type())];
                return vec![("values", entries(&fields), Value::Null)];
            }
            Kind::Extreme(_) => vec![("", self.argument_type(), Value::Null)],
            Kind::Edge(_) => vec![("", self.argument_type(), Value::Null), ("time", Type::Bigint, Value::Null)],
            Kind::Argument(_) => vec![("", self.argument_type(), Value::Null), ("by", self.by_type(), Value::Null)],
        };
        if self.retracts() {
            if matches!(self.kind, Kind::SumInteger | Kind::SumDecimal { .. } | Kind::SumDouble) {
                columns.push(("count", Type::Bigint, zero()));
            }
            if matches!(self.kind, Kind::SumDouble | Kind::AverageDouble) {
                columns.push(("nan", Type::Bigint, zero()));
                columns.push(("infinity", Type::Bigint, zero()));
                columns.push(("negative_infinity", Type::Bigint, zero()));
            }
        }
        columns
    }

    fn by_type(&self) -> Type {
        self.by.as_ref().map_or(Type::Null, |by| by.ty.clone())
    }

    // ---- changes ---------------------------------------------------------------------------------------------------

    /// What a row changes; the state is not touched yet.
    pub fn change(&self, state: &[Value], env: &Env<'_>, time: EventTime, direction: Direction) -> Eval<Change> {
        if let Some(filter) = &self.filter
            && filter.node.eval_bool(env)? != Some(true)
        {
            return Ok(Change::Keep);
        }
        let own = state.get(self.first..).unwrap_or_default();
        let Some(argument) = &self.argument else { return Ok(count(own, direction)) };
        match &self.kind {
            Kind::Count => {
                let skipped = argument.node.operand_ref(env)?.is_null();
                Ok(if skipped { Change::Keep } else { count(own, direction) })
            }
            Kind::SumInteger => match argument.node.operand_i64(env)? {
                Some(number) if self.retracts() => self.sum_decimal(own, Decimal::from(number), 0, direction),
                Some(number) => sum_integer(own, number),
                None => Ok(Change::Keep),
            },
            Kind::SumDecimal { scale } => match argument.node.eval_decimal(env)? {
                Some(number) => self.sum_decimal(own, number, *scale, direction),
                None => Ok(Change::Keep),
            },
            Kind::AverageInteger => match argument.node.operand_i64(env)? {
                Some(number) => self.sum_decimal(own, Decimal::from(number), 0, direction),
                None => Ok(Change::Keep),
            },
            Kind::AverageDecimal { sum_scale, .. } => match argument.node.eval_decimal(env)? {
                Some(number) => self.sum_decimal(own, number, *sum_scale, direction),
                None => Ok(Change::Keep),
            },
            Kind::SumDouble | Kind::AverageDouble => match argument.node.operand_f64(env)? {
                Some(number) => self.sum_double(own, number, direction),
                None => Ok(Change::Keep),
            },
            Kind::Extreme(end) => {
                let value = argument.node.operand_ref(env)?;
                if value.is_null() {
                    return Ok(Change::Keep);
                }
                if self.retracts() {
                    return Ok(in_entries(own, &[&value], direction));
                }
                let wins = own[0].is_null() || end.wins(compare(&value, &own[0]));
                Ok(if wins { Change::One(value.into_owned()) } else { Change::Keep })
            }
            Kind::Edge(end) => {
                let value = argument.node.operand_ref(env)?;
                if value.is_null() {
                    return Ok(Change::Keep);
                }
                if self.retracts() {
                    return Ok(in_entries(own, &[&Value::Bigint(time.0), &value], direction));
                }
                let wins = as_i64(&own[1]).is_none_or(|current| match end {
                    End::Least => time.0 < current,
                    End::Greatest => time.0 >= current,
                });
                let time = Value::Bigint(time.0);
                Ok(if wins { Change::Two(value.into_owned(), time) } else { Change::Keep })
            }
            Kind::Argument(end) => {
                let value = argument.node.operand_ref(env)?;
                let Some(by) = &self.by else { return Ok(Change::Keep) };
                let by = by.node.eval_ref(env)?;
                if value.is_null() || by.is_null() {
                    return Ok(Change::Keep);
                }
                if self.retracts() {
                    return Ok(in_entries(own, &[&by, &value], direction));
                }
                let wins = own[1].is_null() || end.wins(compare(&by, &own[1]));
                Ok(if wins { Change::Two(value.into_owned(), by.into_owned()) } else { Change::Keep })
            }
        }
    }

    /// Writes what [`Self::change`] computed.
    pub fn write(&self, state: &mut [Value], change: Change) {
        let own = state.get_mut(self.first..).unwrap_or_default();
        match change {
            Change::Keep => {}
            Change::One(a) => own[0] = a,
            Change::Two(a, b) => (own[0], own[1]) = (a, b),
            Change::Three(a, b, c) => (own[0], own[1], own[2]) = (a, b, c),
            Change::Scattered(values) => {
                for (index, value) in values {
                    own[index] = value;
                }
            }
        }
    }

    /// Sum, and the count where there is one.
    fn sum_decimal(&self, own: &[Value], number: Decimal, scale: u8, direction: Direction) -> Eval<Change> {
        let overflow = || out_of_range(decimal_sum(scale));
        let sum = as_decimal(&own[0]).unwrap_or(Decimal::new(0, scale));
        let changed = match direction {
            Direction::In => sum.add(number, scale),
            Direction::Out => sum.subtract(number, scale),
        };
        let counts = self.retracts() || !matches!(self.kind, Kind::SumDecimal { .. });
        if !counts {
            return Ok(Change::One(Value::Decimal(changed.ok_or_else(overflow)?)));
        }
        let Some(count) = counted(&own[1], direction) else { return Ok(Change::Keep) };
        if count == 0 {
            return Ok(Change::Two(Value::Null, Value::Bigint(0)));
        }
        Ok(Change::Two(Value::Decimal(changed.ok_or_else(overflow)?), Value::Bigint(count)))
    }

    fn sum_double(&self, own: &[Value], number: f64, direction: Direction) -> Eval<Change> {
        let (sum, compensation) = (as_f64(&own[0]).unwrap_or(0.0), as_f64(&own[1]).unwrap_or(0.0));
        let count = if self.retracts() || self.kind == Kind::AverageDouble {
            let Some(count) = counted(&own[COUNT], direction) else { return Ok(Change::Keep) };
            Some(count)
        } else {
            None
        };
        if self.retracts() && !number.is_finite() {
            let apart = match number {
                number if number.is_nan() => NAN,
                number if number > 0.0 => INFINITY,
                _ => NEGATIVE_INFINITY,
            };
            let others = as_i64(&own[apart]).unwrap_or(0).saturating_add(direction.sign()).max(0);
            let count = Value::Bigint(count.unwrap_or(0));
            return Ok(Change::Scattered([(COUNT, count), (apart, Value::Bigint(others))]));
        }
        let number = if direction == Direction::Out { -number } else { number };
        let (mut total, mut compensation) = neumaier(sum, compensation, number);
        if total.is_infinite() && sum.is_finite() && number.is_finite() {
            return Err(out_of_range(Type::Double));
        }
        if count == Some(0) {
            // What rounding left behind does not outlive the last row.
            (total, compensation) = (0.0, 0.0);
        }
        let (total, compensation) = (Value::Double(total), Value::Double(compensation));
        Ok(match count {
            Some(count) => Change::Three(total, compensation, Value::Bigint(count)),
            None => Change::Two(total, compensation),
        })
    }

    // ---- results ---------------------------------------------------------------------------------------------------

    pub fn result(&self, state: &[Value]) -> Eval<Value> {
        let own = state.get(self.first..).unwrap_or_default();
        Ok(match &self.kind {
            Kind::Count => Value::Bigint(as_i64(&own[0]).unwrap_or(0)),
            Kind::SumInteger if self.retracts() => match as_decimal(&own[0]) {
                Some(sum) => {
                    Value::Bigint(i64::try_from(sum.unscaled).map_err(|_too_large| out_of_range(Type::Bigint))?)
                }
                None => Value::Null,
            },
            Kind::SumInteger | Kind::SumDecimal { .. } => own[0].clone(),
            Kind::SumDouble => self.double_sum(own)?.map_or(Value::Null, Value::Double),
            Kind::AverageDouble => match (self.double_sum(own)?, as_i64(&own[COUNT])) {
                (Some(sum), Some(count)) if count > 0 => Value::Double(sum / count as f64),
                _ => Value::Null,
            },
            Kind::AverageInteger => match (as_decimal(&own[0]), as_i64(&own[1])) {
                (Some(sum), Some(count)) if count > 0 => Value::Double(sum.unscaled as f64 / count as f64),
                _ => Value::Null,
            },
            Kind::AverageDecimal { precision, scale, .. } => match (as_decimal(&own[0]), as_i64(&own[1])) {
                (Some(sum), Some(count)) if count > 0 => {
                    let mean =
                        sum.divide(Decimal::from(count), *scale).and_then(|mean| mean.fitted(*precision, *scale));
                    let ty = || Type::Decimal { precision: *precision, scale: *scale };
                    Value::Decimal(mean.ok_or_else(|| out_of_range(ty()))?)
                }
                _ => Value::Null,
            },
            Kind::Extreme(end) | Kind::Edge(end) | Kind::Argument(end) if self.retracts() => {
                let Value::Array(entries) = &own[0] else { return Ok(Value::Null) };
                let position = match (&self.kind, end) {
                    (_, End::Least) => 0,
                    // The least of those with the greatest `by`.
                    (Kind::Argument(_), End::Greatest) => first_of_last_run(entries),
                    (_, End::Greatest) => entries.len().saturating_sub(1),
                };
                match entries.get(position) {
                    Some(Value::Struct(fields)) => match &self.kind {
                        Kind::Extreme(_) => fields[0].clone(),
                        _ => fields[1].clone(),
                    },
                    _ => Value::Null,
                }
            }
            Kind::Extreme(_) | Kind::Edge(_) | Kind::Argument(_) => own[0].clone(),
        })
    }

    /// `None` of no rows.
    fn double_sum(&self, own: &[Value]) -> Eval<Option<f64>> {
        let counts = self.retracts() || self.kind == Kind::AverageDouble;
        if counts && as_i64(&own[COUNT]).unwrap_or(0) == 0 {
            return Ok(None);
        }
        let sum = match as_f64(&own[0]) {
            Some(sum) => sum,
            None if self.retracts() => 0.0,
            None => return Ok(None),
        };
        if self.retracts() {
            let present = |offset: usize| as_i64(&own[offset]).unwrap_or(0) > 0;
            match (present(NAN), present(INFINITY), present(NEGATIVE_INFINITY)) {
                (true, ..) | (_, true, true) => return Ok(Some(f64::NAN)),
                (_, true, false) => return Ok(Some(f64::INFINITY)),
                (_, false, true) => return Ok(Some(f64::NEG_INFINITY)),
                (false, false, false) => {}
            }
        }
        if !sum.is_finite() {
            return Ok(Some(sum));
        }
        let total = sum + as_f64(&own[1]).unwrap_or(0.0);
        if total.is_infinite() { Err(out_of_range(Type::Double)) } else { Ok(Some(total)) }
    }
}

impl End {
    fn wins(self, order: Ordering) -> bool {
        match self {
            Self::Least => order.is_lt(),
            Self::Greatest => order.is_gt(),
        }
    }
}

fn sum_integer(own: &[Value], number: i64) -> Eval<Change> {
    let sum = as_i64(&own[0]).unwrap_or(0).checked_add(number);
    Ok(Change::One(Value::Bigint(sum.ok_or_else(|| out_of_range(Type::Bigint))?)))
}

fn decimal_sum(scale: u8) -> Type {
    Type::Decimal { precision: Decimal::MAX_PRECISION, scale }
}

fn count(own: &[Value], direction: Direction) -> Change {
    let counted = as_i64(&own[0]).unwrap_or(0).saturating_add(direction.sign());
    Change::One(Value::Bigint(counted.max(0)))
}

/// The count after the row; `None` where a row is taken out of nothing: it came before this aggregate was added.
fn counted(count: &Value, direction: Direction) -> Option<i64> {
    let count = as_i64(count).unwrap_or(0).saturating_add(direction.sign());
    (count >= 0).then_some(count)
}

/// Kahan's compensated sum as improved by Neumaier: (sum, compensation).
fn neumaier(sum: f64, compensation: f64, number: f64) -> (f64, f64) {
    let total = sum + number;
    if !total.is_finite() {
        return (total, 0.0);
    }
    let lost = if sum.abs() >= number.abs() { (sum - total) + number } else { (number - total) + sum };
    (total, compensation + lost)
}

// ---- sorted entries ------------------------------------------------------------------------------------------------

/// `ARRAY<STRUCT<..., count BIGINT>>`.
fn entries(fields: &[(&str, Type)]) -> Type {
    let fields = fields.iter().map(|(name, ty)| Column::new(name, ty.clone(), false));
    let fields = fields.chain([Column::new("count", Type::Bigint, false)]);
    Type::Array(Arc::new(Type::Struct(fields.collect())))
}

/// Sorted by their fields; equal ones are one entry with a count. So the state follows from the rows that are in it, whatever
/// the order in which they came: changes of a table reach a group from several tasks, in no order between them.
fn in_entries(own: &[Value], fields: &[&Value], direction: Direction) -> Change {
    let current: &[Value] = match &own[0] {
        Value::Array(entries) => entries,
        _ => &[],
    };
    let key = |entry: &Value| match entry {
        Value::Struct(entry) => {
            let pairs = entry.iter().zip(fields);
            pairs.map(|(a, b)| compare(a, b)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
        }
        _ => Ordering::Less,
    };
    let at = current.partition_point(|entry| key(entry).is_lt());
    let known = current.get(at).filter(|entry| key(entry).is_eq());
    let make = |count: i64| {
        let values = fields.iter().map(|field| (*field).clone()).chain([Value::Bigint(count)]);
        Value::Struct(values.collect())
    };
    let replace = |from: usize, to: usize, with: Option<Value>| {
        let values = current[..from].iter().cloned().chain(with).chain(current[to..].iter().cloned());
        let values: Arc<[Value]> = values.collect();
        Change::One(if values.is_empty() { Value::Null } else { Value::Array(values) })
    };
    let count_of = |entry: &Value| match entry {
        Value::Struct(entry) => entry.last().and_then(as_i64).unwrap_or(1),
        _ => 1,
    };
    match (direction, known.map(count_of)) {
        (Direction::In, Some(count)) => replace(at, at + 1, Some(make(count.saturating_add(1)))),
        (Direction::In, None) => replace(at, at, Some(make(1))),
        (Direction::Out, Some(count)) if count > 1 => replace(at, at + 1, Some(make(count - 1))),
        (Direction::Out, Some(_)) => replace(at, at + 1, None),
        // A row from before this aggregate was added.
        (Direction::Out, None) => Change::Keep,
    }
}

fn first_of_last_run(entries: &[Value]) -> usize {
    let Some(Value::Struct(last)) = entries.last() else { return 0 };
    entries.partition_point(|entry| match entry {
        Value::Struct(entry) => compare(&entry[0], &last[0]).is_lt(),
        _ => true,
    })
}
