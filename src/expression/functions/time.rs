//! Functions and operators of dates, timestamps and intervals.

use jiff::tz::TimeZone;

use super::{failure, misuse};
use crate::expression::calendar::{self, MICROS_PER_DAY, MICROS_PER_HOUR, MICROS_PER_MINUTE};
use crate::expression::cast::double_to_integer;
use crate::expression::eval::{Eval, as_f64, as_i64, out_of_range};
use crate::schema::Type;
use crate::value::{Interval, Value};

/// A TIMESTAMP, or the midnight of a DATE.
fn instant(value: &Value) -> Option<i64> {
    match value {
        Value::Timestamp(micros) => Some(*micros),
        Value::Date(days) => Some(calendar::date_to_timestamp(*days)),
        _ => None,
    }
}

pub fn plus_interval(arguments: &[&Value]) -> Eval<Value> {
    let [at, Value::Interval(interval)] = arguments else { return misuse("+") };
    let Some(micros) = instant(at) else { return misuse("+") };
    calendar::add_interval(micros, *interval).map(Value::Timestamp)
}

pub fn interval_plus(arguments: &[&Value]) -> Eval<Value> {
    let [interval, at] = arguments else { return misuse("+") };
    plus_interval(&[at, interval])
}

pub fn minus_interval(arguments: &[&Value]) -> Eval<Value> {
    let [at, Value::Interval(interval)] = arguments else { return misuse("-") };
    plus_interval(&[at, &Value::Interval(calendar::negate(*interval)?)])
}

pub fn between(arguments: &[&Value]) -> Eval<Value> {
    let [later, earlier] = arguments else { return misuse("-") };
    match (instant(later), instant(earlier)) {
        (Some(later), Some(earlier)) => calendar::difference(later, earlier).map(Value::Interval),
        _ => misuse("-"),
    }
}

pub fn days_between(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Date(later), Value::Date(earlier)] = arguments else { return misuse("-") };
    later.checked_sub(*earlier).map(Value::Int).ok_or_else(|| out_of_range(Type::Int))
}

fn add_days(date: &Value, days: Option<i64>) -> Eval<Value> {
    let (Value::Date(date), Some(days)) = (date, days) else { return misuse("+") };
    let sum = i64::from(*date).checked_add(days).and_then(|sum| i32::try_from(sum).ok());
    let sum = sum.ok_or_else(|| out_of_range(Type::Date))?;
    // Within the calendar.
    calendar::date_of(sum).map_err(|_| out_of_range(Type::Date))?;
    Ok(Value::Date(sum))
}

pub fn plus_days(arguments: &[&Value]) -> Eval<Value> {
    let [date, days] = arguments else { return misuse("+") };
    add_days(date, as_i64(days))
}

pub fn days_plus(arguments: &[&Value]) -> Eval<Value> {
    let [days, date] = arguments else { return misuse("+") };
    add_days(date, as_i64(days))
}

pub fn minus_days(arguments: &[&Value]) -> Eval<Value> {
    let [date, days] = arguments else { return misuse("-") };
    let days = as_i64(days).and_then(i64::checked_neg).ok_or_else(|| out_of_range(Type::Date))?;
    add_days(date, Some(days))
}

pub fn add_intervals(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Interval(a), Value::Interval(b)] = arguments else { return misuse("+") };
    calendar::add_intervals(*a, *b).map(Value::Interval)
}

pub fn subtract_intervals(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Interval(a), Value::Interval(b)] = arguments else { return misuse("-") };
    calendar::add_intervals(*a, calendar::negate(*b)?).map(Value::Interval)
}

pub fn negate_interval(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Interval(interval)] = arguments else { return misuse("-") };
    calendar::negate(*interval).map(Value::Interval)
}

pub fn interval_times(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Interval(interval), factor] = arguments else { return misuse("*") };
    let Some(factor) = as_f64(factor) else { return misuse("*") };
    calendar::scale(*interval, factor).map(Value::Interval)
}

pub fn times_interval(arguments: &[&Value]) -> Eval<Value> {
    let [factor, interval] = arguments else { return misuse("*") };
    interval_times(&[interval, factor])
}

pub fn interval_over(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Interval(interval), divisor] = arguments else { return misuse("/") };
    match as_f64(divisor) {
        Some(0.0) => Err(Box::new(crate::expression::EvalError::DivisionByZero)),
        Some(divisor) => calendar::scale(*interval, 1.0 / divisor).map(Value::Interval),
        None => misuse("/"),
    }
}

pub fn date_bin(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Interval(stride), Value::Timestamp(at), Value::Timestamp(origin)] = arguments else {
        return misuse("DATE_BIN");
    };
    if stride.months != 0 {
        return failure("DATE_BIN", "a stride of months has no fixed length");
    }
    let stride = i64::from(stride.days).checked_mul(MICROS_PER_DAY).and_then(|days| days.checked_add(stride.micros));
    let stride = stride.filter(|stride| *stride > 0);
    let Some(stride) = stride else { return failure("DATE_BIN", "the stride must be positive") };
    let start = at
        .checked_sub(*origin)
        .and_then(|since| since.div_euclid(stride).checked_mul(stride))
        .and_then(|since| origin.checked_add(since));
    start.map(Value::Timestamp).ok_or_else(|| out_of_range(Type::Timestamp))
}

fn timestamp(micros: Option<i64>) -> Eval<Value> {
    let micros = micros.ok_or_else(|| out_of_range(Type::Timestamp))?;
    // Within the calendar.
    calendar::civil_of(micros, &TimeZone::UTC)?;
    Ok(Value::Timestamp(micros))
}

pub fn to_timestamp(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Double(seconds)] = arguments else { return misuse("TO_TIMESTAMP") };
    let micros = double_to_integer((seconds * 1e6).round(), &Type::Timestamp)?;
    timestamp(i64::try_from(micros).ok())
}

pub fn timestamp_ms(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Bigint(millis)] = arguments else { return misuse("TIMESTAMP_MS") };
    timestamp(millis.checked_mul(1000))
}

pub fn epoch_ms(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Timestamp(micros)] = arguments else { return misuse("EPOCH_MS") };
    Ok(Value::Bigint(micros.div_euclid(1000)))
}

pub fn epoch_us(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Timestamp(micros)] = arguments else { return misuse("EPOCH_US") };
    Ok(Value::Bigint(*micros))
}

fn whole_seconds(function: &'static str, seconds: f64) -> Eval<i64> {
    let micros = double_to_integer((seconds * 1e6).round(), &Type::Interval)?;
    match i64::try_from(micros) {
        Ok(micros) => Ok(micros),
        Err(_) => failure(function, "too many seconds"),
    }
}

pub fn make_interval(arguments: &[&Value]) -> Eval<Value> {
    let [
        Value::Int(years),
        Value::Int(months),
        Value::Int(weeks),
        Value::Int(days),
        Value::Int(hours),
        Value::Int(minutes),
        Value::Double(seconds),
    ] = arguments
    else {
        return misuse("MAKE_INTERVAL");
    };
    let overflow = || out_of_range(Type::Interval);
    let months = years.checked_mul(12).and_then(|all| all.checked_add(*months)).ok_or_else(overflow)?;
    let days = weeks.checked_mul(7).and_then(|all| all.checked_add(*days)).ok_or_else(overflow)?;
    let clock = i64::from(*hours) * MICROS_PER_HOUR + i64::from(*minutes) * MICROS_PER_MINUTE;
    let micros = clock.checked_add(whole_seconds("MAKE_INTERVAL", *seconds)?).ok_or_else(overflow)?;
    Ok(Value::Interval(Interval { months, days, micros }))
}

fn date(function: &'static str, year: i32, month: i32, day: i32) -> Eval<jiff::civil::Date> {
    let parts = i16::try_from(year).ok().zip(i8::try_from(month).ok()).zip(i8::try_from(day).ok());
    let date = parts.and_then(|((year, month), day)| jiff::civil::Date::new(year, month, day).ok());
    date.map_or_else(|| failure(function, format!("there is no date {year}-{month}-{day}")), Ok)
}

pub fn make_date(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Int(year), Value::Int(month), Value::Int(day)] = arguments else { return misuse("MAKE_DATE") };
    calendar::days_of(date("MAKE_DATE", *year, *month, *day)?).map(Value::Date)
}

pub fn make_timestamp(arguments: &[&Value]) -> Eval<Value> {
    const NAME: &str = "MAKE_TIMESTAMP";
    let [
        Value::Int(year),
        Value::Int(month),
        Value::Int(day),
        Value::Int(hour),
        Value::Int(minute),
        Value::Double(second),
    ] = arguments
    else {
        return misuse(NAME);
    };
    let date = date(NAME, *year, *month, *day)?;
    if !(0..24).contains(hour) || !(0..60).contains(minute) || !(0.0..60.0).contains(second) {
        return failure(NAME, format!("there is no time {hour}:{minute}:{second}"));
    }
    let midnight = calendar::date_to_timestamp(calendar::days_of(date)?);
    let clock = i64::from(*hour) * MICROS_PER_HOUR + i64::from(*minute) * MICROS_PER_MINUTE;
    timestamp(midnight.checked_add(clock).and_then(|at| at.checked_add(whole_seconds(NAME, *second).ok()?)))
}

pub fn justify_hours(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Interval(interval)] = arguments else { return misuse("JUSTIFY_HOURS") };
    let overflow = || out_of_range(Type::Interval);
    let days = i32::try_from(interval.micros / MICROS_PER_DAY).map_err(|_| overflow())?;
    let mut justified = Interval {
        months: interval.months,
        days: interval.days.checked_add(days).ok_or_else(overflow)?,
        micros: interval.micros % MICROS_PER_DAY,
    };
    // One sign for both.
    if justified.days > 0 && justified.micros < 0 {
        justified.days -= 1;
        justified.micros += MICROS_PER_DAY;
    } else if justified.days < 0 && justified.micros > 0 {
        justified.days += 1;
        justified.micros -= MICROS_PER_DAY;
    }
    Ok(Value::Interval(justified))
}

pub fn at_time_zone(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Timestamp(at), Value::String(zone)] = arguments else { return misuse("AT TIME ZONE") };
    let reading = calendar::civil_of(*at, &calendar::time_zone(zone)?)?;
    calendar::micros_of(reading, &TimeZone::UTC).map(Value::Timestamp)
}

pub fn format_timestamp(arguments: &[&Value]) -> Eval<Value> {
    const NAME: &str = "FORMAT_TIMESTAMP";
    let (at, format, zone) = match arguments {
        [Value::Timestamp(at), Value::String(format)] => (*at, format, TimeZone::UTC),
        [Value::Timestamp(at), Value::String(format), Value::String(zone)] => (*at, format, calendar::time_zone(zone)?),
        _ => return misuse(NAME),
    };
    let instant = jiff::Timestamp::from_microsecond(at).map_err(|_| out_of_range(Type::Timestamp))?;
    match jiff::fmt::strtime::format(format.as_str(), &instant.to_zoned(zone)) {
        Ok(text) => Ok(Value::string(text)),
        Err(error) => failure(NAME, error.to_string()),
    }
}
