//! How types meet: the common type of two operands, implicit conversions, and the digits of DECIMAL results.

use std::sync::Arc;

use crate::schema::Type;
use crate::value::Decimal;

/// A DECIMAL result keeps at least this many digits after the point where 38 do not suffice for all.
const LEAST_SCALE: u8 = 6;

pub fn is_number(ty: &Type) -> bool {
    matches!(ty, Type::Int | Type::Bigint | Type::Double | Type::Decimal { .. })
}

pub fn is_integer(ty: &Type) -> bool {
    matches!(ty, Type::Int | Type::Bigint)
}

/// The digits that a number needs as a DECIMAL.
pub fn digits(ty: &Type) -> Option<(u8, u8)> {
    match ty {
        Type::Int => Some((10, 0)),
        Type::Bigint => Some((19, 0)),
        Type::Decimal { precision, scale } => Some((*precision, *scale)),
        _ => None,
    }
}

/// The type that both convert to without being asked.
pub fn common(a: &Type, b: &Type) -> Option<Type> {
    if a == b {
        return Some(a.clone());
    }
    match (a, b) {
        (Type::Null, other) | (other, Type::Null) => Some(other.clone()),
        (Type::Double, other) | (other, Type::Double) if is_number(other) => Some(Type::Double),
        (Type::Int, Type::Bigint) | (Type::Bigint, Type::Int) => Some(Type::Bigint),
        (Type::Decimal { .. }, other) | (other, Type::Decimal { .. }) if is_number(other) => {
            let ((a_precision, a_scale), (b_precision, b_scale)) = (digits(a)?, digits(b)?);
            let scale = a_scale.max(b_scale);
            let whole = (a_precision - a_scale).max(b_precision - b_scale);
            Some(bounded(whole, scale))
        }
        (Type::Date, Type::Timestamp) | (Type::Timestamp, Type::Date) => Some(Type::Timestamp),
        (Type::Array(a), Type::Array(b)) => common(a, b).map(|element| Type::Array(Arc::new(element))),
        (Type::Map(a), Type::Map(b)) => common(a, b).map(|value| Type::Map(Arc::new(value))),
        _ => None,
    }
}

/// Whether `from` becomes `to` without being asked.
pub fn converts(from: &Type, to: &Type) -> bool {
    match (from, to) {
        (Type::Decimal { .. }, Type::Decimal { .. }) => true,
        (Type::Int | Type::Bigint, Type::Decimal { .. }) => true,
        _ => common(from, to).as_ref() == Some(to),
    }
}

/// A DECIMAL with `whole` digits before the point, cut to 38 digits in all as SQL Server and Spark do.
fn bounded(whole: u8, scale: u8) -> Type {
    let max = Decimal::MAX_PRECISION;
    let precision = whole.saturating_add(scale);
    if precision <= max {
        return Type::Decimal { precision: precision.max(1), scale };
    }
    let kept = max.saturating_sub(whole).max(scale.min(LEAST_SCALE));
    Type::Decimal { precision: max, scale: kept.min(scale) }
}

/// The type of `a op b` over DECIMAL(p,s) operands.
pub fn decimal_result(op: super::eval::Arithmetic, a: (u8, u8), b: (u8, u8)) -> Type {
    use super::eval::Arithmetic;
    let ((a_precision, a_scale), (b_precision, b_scale)) = (a, b);
    let (a_whole, b_whole) = (a_precision - a_scale, b_precision - b_scale);
    match op {
        Arithmetic::Add | Arithmetic::Subtract => bounded(a_whole.max(b_whole) + 1, a_scale.max(b_scale)),
        Arithmetic::Multiply => bounded(a_whole + b_whole, a_scale + b_scale),
        Arithmetic::Divide => {
            let scale = LEAST_SCALE.max(a_scale.saturating_add(b_precision).saturating_add(1));
            bounded(a_whole.saturating_add(b_scale), scale)
        }
        Arithmetic::Remainder => bounded(a_whole.min(b_whole), a_scale.max(b_scale)),
    }
}

/// `an INT`, `a STRING`.
pub fn with_article(ty: &Type) -> String {
    let text = ty.to_string();
    let article = if text.starts_with(['A', 'E', 'I', 'O', 'U']) { "an" } else { "a" };
    format!("{article} {text}")
}
