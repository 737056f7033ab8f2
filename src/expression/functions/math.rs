//! Functions of numbers. As PostgreSQL: what leaves the range of a type, or of a function, is an error.

use std::cmp::Ordering;

use super::{failure, misuse};
use crate::expression::EvalError;
use crate::expression::cast::double_to_integer;
use crate::expression::eval::{Eval, out_of_range};
use crate::expression::order::compare;
use crate::schema::Type;
use crate::value::{Decimal, Value};

/// Mean radius of the earth, km (IUGG R1).
const EARTH_RADIUS_KM: f64 = 6371.0088;

fn finite(result: f64, of: f64) -> Eval<Value> {
    if result.is_infinite() && of.is_finite() {
        return Err(out_of_range(Type::Double));
    }
    Ok(Value::Double(result))
}

fn decimal(number: Option<Decimal>, scale: u8) -> Eval<Value> {
    let ty = || Type::Decimal { precision: Decimal::MAX_PRECISION, scale };
    number.map(Value::Decimal).ok_or_else(|| out_of_range(ty()))
}

pub fn abs(arguments: &[&Value]) -> Eval<Value> {
    match arguments {
        [Value::Int(x)] => x.checked_abs().map(Value::Int).ok_or_else(|| out_of_range(Type::Int)),
        [Value::Bigint(x)] => x.checked_abs().map(Value::Bigint).ok_or_else(|| out_of_range(Type::Bigint)),
        [Value::Double(x)] => Ok(Value::Double(x.abs())),
        [Value::Decimal(x)] => Ok(Value::Decimal(if x.unscaled < 0 { x.negated() } else { *x })),
        _ => misuse("ABS"),
    }
}

pub fn sign(arguments: &[&Value]) -> Eval<Value> {
    let sign = match arguments {
        [Value::Int(x)] => x.cmp(&0),
        [Value::Bigint(x)] => x.cmp(&0),
        [Value::Double(x)] => x.partial_cmp(&0.0).unwrap_or(Ordering::Equal),
        [Value::Decimal(x)] => { x.unscaled }.cmp(&0),
        _ => return misuse("SIGN"),
    };
    Ok(Value::Int(match sign {
        Ordering::Less => -1,
        Ordering::Equal => 0,
        Ordering::Greater => 1,
    }))
}

pub fn ceil(arguments: &[&Value]) -> Eval<Value> {
    match arguments {
        [Value::Double(x)] => Ok(Value::Double(x.ceil())),
        [Value::Decimal(x)] => {
            let whole = x.truncated();
            let above = Decimal::new(whole, 0) < *x;
            decimal(Decimal::new(whole + i128::from(above), 0).rescaled(x.scale), x.scale)
        }
        [x @ (Value::Int(_) | Value::Bigint(_))] => Ok((*x).clone()),
        _ => misuse("CEIL"),
    }
}

pub fn floor(arguments: &[&Value]) -> Eval<Value> {
    match arguments {
        [Value::Double(x)] => Ok(Value::Double(x.floor())),
        [Value::Decimal(x)] => {
            let whole = x.truncated();
            let below = Decimal::new(whole, 0) > *x;
            decimal(Decimal::new(whole - i128::from(below), 0).rescaled(x.scale), x.scale)
        }
        [x @ (Value::Int(_) | Value::Bigint(_))] => Ok((*x).clone()),
        _ => misuse("FLOOR"),
    }
}

/// How `round` and `trunc` drop digits.
#[derive(Clone, Copy)]
enum Drop {
    Rounding,
    Cutting,
}

pub fn round(arguments: &[&Value]) -> Eval<Value> {
    drop_digits("ROUND", arguments, Drop::Rounding)
}

pub fn trunc(arguments: &[&Value]) -> Eval<Value> {
    drop_digits("TRUNC", arguments, Drop::Cutting)
}

fn drop_digits(function: &'static str, arguments: &[&Value], how: Drop) -> Eval<Value> {
    let (x, digits) = match arguments {
        [x] => (*x, 0),
        [x, Value::Bigint(digits)] => (*x, *digits),
        _ => return misuse(function),
    };
    match x {
        Value::Double(x) => Ok(Value::Double(double_digits(*x, digits, how))),
        Value::Decimal(x) => decimal(decimal_digits(*x, digits, how), x.scale),
        Value::Int(x) => match decimal_digits(Decimal::from(i64::from(*x)), digits, how).map(Decimal::truncated) {
            Some(number) => i32::try_from(number).map(Value::Int).map_err(|_| out_of_range(Type::Int)),
            None => Err(out_of_range(Type::Int)),
        },
        Value::Bigint(x) => match decimal_digits(Decimal::from(*x), digits, how).map(Decimal::truncated) {
            Some(number) => i64::try_from(number).map(Value::Bigint).map_err(|_| out_of_range(Type::Bigint)),
            None => Err(out_of_range(Type::Bigint)),
        },
        _ => misuse(function),
    }
}

/// By the number's decimal form where it has one of 38 digits, so that ROUND(2.675, 2) is what one reads; else by scaling.
fn double_digits(x: f64, digits: i64, how: Drop) -> f64 {
    if digits == 0 {
        return match how {
            Drop::Rounding => x.round_ties_even(),
            Drop::Cutting => x.trunc(),
        };
    }
    if !x.is_finite() || digits >= 17 {
        return x;
    }
    let exact: Option<Decimal> = format!("{x}").parse().ok();
    if let Some(result) = exact.and_then(|number| decimal_digits(number, digits, how)) {
        return result.to_f64();
    }
    if x.abs() < 1.0 {
        return 0.0;
    }
    x
}

/// At the scale of `x`.
fn decimal_digits(x: Decimal, digits: i64, how: Drop) -> Option<Decimal> {
    if digits >= i64::from(x.scale) {
        return Some(x);
    }
    // 10^-digits as a divisor of the unscaled number.
    let dropped = u32::try_from(i64::from(x.scale) - digits).ok()?;
    let Some(unit) = 10i128.checked_pow(dropped) else { return Some(Decimal::new(0, x.scale)) };
    let (whole, rest) = (x.unscaled / unit, x.unscaled % unit);
    let up = match how {
        Drop::Rounding if rest.abs() >= unit - rest.abs() => x.unscaled.signum(),
        Drop::Rounding | Drop::Cutting => 0,
    };
    let unscaled = (whole + up).checked_mul(unit)?;
    Decimal::new(unscaled, x.scale).rescaled(x.scale)
}

fn bits(arguments: &[&Value], int: impl Fn(i32, i32) -> i32, bigint: impl Fn(i64, i64) -> i64) -> Eval<Value> {
    match arguments {
        [Value::Int(a), Value::Int(b)] => Ok(Value::Int(int(*a, *b))),
        [Value::Bigint(a), Value::Bigint(b)] => Ok(Value::Bigint(bigint(*a, *b))),
        _ => misuse("bits"),
    }
}

pub fn bit_and(arguments: &[&Value]) -> Eval<Value> {
    bits(arguments, |a, b| a & b, |a, b| a & b)
}

pub fn bit_or(arguments: &[&Value]) -> Eval<Value> {
    bits(arguments, |a, b| a | b, |a, b| a | b)
}

pub fn bit_xor(arguments: &[&Value]) -> Eval<Value> {
    bits(arguments, |a, b| a ^ b, |a, b| a ^ b)
}

pub fn bit_not(arguments: &[&Value]) -> Eval<Value> {
    match arguments {
        [Value::Int(x)] => Ok(Value::Int(!x)),
        [Value::Bigint(x)] => Ok(Value::Bigint(!x)),
        _ => misuse("~"),
    }
}

/// As PostgreSQL on common machines: by `n` modulo the width.
fn shifted(arguments: &[&Value], int: impl Fn(i32, u32) -> i32, bigint: impl Fn(i64, u32) -> i64) -> Eval<Value> {
    match arguments {
        [Value::Int(x), Value::Int(n)] => Ok(Value::Int(int(*x, n.cast_unsigned()))),
        [Value::Bigint(x), Value::Int(n)] => Ok(Value::Bigint(bigint(*x, n.cast_unsigned()))),
        _ => misuse("shift"),
    }
}

pub fn shift_left(arguments: &[&Value]) -> Eval<Value> {
    shifted(arguments, i32::wrapping_shl, i64::wrapping_shl)
}

pub fn shift_right(arguments: &[&Value]) -> Eval<Value> {
    shifted(arguments, i32::wrapping_shr, i64::wrapping_shr)
}

pub fn modulo(arguments: &[&Value]) -> Eval<Value> {
    match arguments {
        [_, Value::Int(0) | Value::Bigint(0)] => Err(Box::new(EvalError::DivisionByZero)),
        [Value::Int(x), Value::Int(y)] => Ok(Value::Int(x.wrapping_rem(*y))),
        [Value::Bigint(x), Value::Bigint(y)] => Ok(Value::Bigint(x.wrapping_rem(*y))),
        _ => misuse("MOD"),
    }
}

pub fn div(arguments: &[&Value]) -> Eval<Value> {
    match arguments {
        [_, Value::Bigint(0)] => Err(Box::new(EvalError::DivisionByZero)),
        [Value::Bigint(x), Value::Bigint(y)] => {
            x.checked_div(*y).map(Value::Bigint).ok_or_else(|| out_of_range(Type::Bigint))
        }
        _ => misuse("DIV"),
    }
}

pub fn sqrt(arguments: &[&Value]) -> Eval<Value> {
    match arguments {
        [Value::Double(x)] if *x < 0.0 => failure("SQRT", "of a negative number"),
        [Value::Double(x)] => Ok(Value::Double(x.sqrt())),
        _ => misuse("SQRT"),
    }
}

pub fn power(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Double(x), Value::Double(y)] = arguments else { return misuse("POWER") };
    if *x == 0.0 && *y < 0.0 {
        return failure("POWER", "zero to a negative power");
    }
    if *x < 0.0 && x.is_finite() && y.is_finite() && y.fract() != 0.0 {
        return failure("POWER", "a negative number to a broken power");
    }
    let result = x.powf(*y);
    finite(result, if y.is_finite() { *x } else { *y })
}

pub fn exp(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Double(x)] = arguments else { return misuse("EXP") };
    finite(x.exp(), *x)
}

fn logarithm(function: &'static str, x: f64, of: impl Fn(f64) -> f64) -> Eval<f64> {
    if x <= 0.0 {
        return failure(function, if x == 0.0 { "of zero" } else { "of a negative number" });
    }
    Ok(of(x))
}

pub fn ln(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Double(x)] = arguments else { return misuse("LN") };
    logarithm("LN", *x, f64::ln).map(Value::Double)
}

pub fn log10(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Double(x)] = arguments else { return misuse("LOG") };
    logarithm("LOG", *x, f64::log10).map(Value::Double)
}

pub fn log2(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Double(x)] = arguments else { return misuse("LOG2") };
    logarithm("LOG2", *x, f64::log2).map(Value::Double)
}

pub fn log(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Double(base), Value::Double(x)] = arguments else { return misuse("LOG") };
    let base = logarithm("LOG", *base, f64::ln)?;
    let x = logarithm("LOG", *x, f64::ln)?;
    if base == 0.0 {
        return Err(Box::new(EvalError::DivisionByZero));
    }
    Ok(Value::Double(x / base))
}

pub fn pi(_arguments: &[&Value]) -> Eval<Value> {
    Ok(Value::Double(std::f64::consts::PI))
}

macro_rules! of_one_double {
    ($($name:ident $sql:literal $body:expr;)*) => {
        $(pub fn $name(arguments: &[&Value]) -> Eval<Value> {
            let [Value::Double(x)] = arguments else { return misuse($sql) };
            let body: fn(f64) -> f64 = $body;
            Ok(Value::Double(body(*x)))
        })*
    };
}

of_one_double! {
    cbrt "CBRT" f64::cbrt;
    sin "SIN" f64::sin;
    cos "COS" f64::cos;
    tan "TAN" f64::tan;
    atan "ATAN" f64::atan;
    degrees "DEGREES" f64::to_degrees;
    radians "RADIANS" f64::to_radians;
}

fn arc(function: &'static str, arguments: &[&Value], of: fn(f64) -> f64) -> Eval<Value> {
    match arguments {
        [Value::Double(x)] if x.abs() > 1.0 => failure(function, "of a number outside of -1 to 1"),
        [Value::Double(x)] => Ok(Value::Double(of(*x))),
        _ => misuse(function),
    }
}

pub fn asin(arguments: &[&Value]) -> Eval<Value> {
    arc("ASIN", arguments, f64::asin)
}

pub fn acos(arguments: &[&Value]) -> Eval<Value> {
    arc("ACOS", arguments, f64::acos)
}

pub fn atan2(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Double(y), Value::Double(x)] = arguments else { return misuse("ATAN2") };
    Ok(Value::Double(y.atan2(*x)))
}

pub fn is_nan(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Double(x)] = arguments else { return misuse("ISNAN") };
    Ok(Value::Boolean(x.is_nan()))
}

pub fn width_bucket(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Double(x), Value::Double(low), Value::Double(high), Value::Int(count)] = arguments else {
        return misuse("WIDTH_BUCKET");
    };
    if *count <= 0 || low >= high || !low.is_finite() || !high.is_finite() || x.is_nan() {
        return failure("WIDTH_BUCKET", "needs low < high, a positive count and a number");
    }
    if x < low {
        return Ok(Value::Int(0));
    }
    if x >= high {
        return count.checked_add(1).map(Value::Int).ok_or_else(|| out_of_range(Type::Int));
    }
    let bucket = double_to_integer(((x - low) / (high - low) * f64::from(*count)).floor(), &Type::Int)? + 1;
    i32::try_from(bucket).map(|bucket| Value::Int(bucket.min(*count))).map_err(|_| out_of_range(Type::Int))
}

/// NULLs are left out.
pub fn greatest(arguments: &[&Value]) -> Eval<Value> {
    let values = arguments.iter().filter(|value| !value.is_null());
    Ok(values.max_by(|a, b| compare(a, b)).map_or(Value::Null, |value| (*value).clone()))
}

/// NULLs are left out.
pub fn least(arguments: &[&Value]) -> Eval<Value> {
    let values = arguments.iter().filter(|value| !value.is_null());
    Ok(values.min_by(|a, b| compare(a, b)).map_or(Value::Null, |value| (*value).clone()))
}

/// The haversine formula, which keeps its digits at small distances.
pub fn geo_distance(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Double(lat1), Value::Double(lon1), Value::Double(lat2), Value::Double(lon2)] = arguments else {
        return misuse("GEO_DISTANCE");
    };
    if lat1.abs() > 90.0 || lat2.abs() > 90.0 {
        return failure("GEO_DISTANCE", "a latitude lies between -90 and 90");
    }
    let (phi1, phi2) = (lat1.to_radians(), lat2.to_radians());
    let (half_phi, half_lambda) = ((phi2 - phi1) / 2.0, (lon2 - lon1).to_radians() / 2.0);
    let a = half_phi.sin().powi(2) + phi1.cos() * phi2.cos() * half_lambda.sin().powi(2);
    Ok(Value::Double(2.0 * EARTH_RADIUS_KM * a.clamp(0.0, 1.0).sqrt().asin()))
}
