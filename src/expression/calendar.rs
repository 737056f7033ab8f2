//! Dates, timestamps and intervals: arithmetic by the calendar, their text forms, and the fields of a date.
//!
//! A TIMESTAMP is an instant in UTC; a time zone only matters where one is named. Years -9999 to 9999, as jiff has them;
//! what leaves that range is an error, never a wrapped number.

use jiff::civil;
use jiff::tz::TimeZone;

use super::EvalError;
use super::eval::Eval;
use crate::schema::Type;
use crate::value::Interval;

pub const MICROS_PER_SECOND: i64 = 1_000_000;
pub const MICROS_PER_MINUTE: i64 = 60 * MICROS_PER_SECOND;
pub const MICROS_PER_HOUR: i64 = 60 * MICROS_PER_MINUTE;
pub const MICROS_PER_DAY: i64 = 24 * MICROS_PER_HOUR;

fn out_of_range(ty: Type) -> Box<EvalError> {
    Box::new(EvalError::OutOfRange { ty })
}

fn invalid(ty: Type, text: &str) -> Box<EvalError> {
    Box::new(EvalError::Invalid { ty, text: format!("'{text}'") })
}

/// The clock's reading in `zone`.
pub fn civil_of(micros: i64, zone: &TimeZone) -> Eval<civil::DateTime> {
    let instant = jiff::Timestamp::from_microsecond(micros).map_err(|_| out_of_range(Type::Timestamp))?;
    Ok(zone.to_datetime(instant))
}

/// The instant at which a clock in `zone` shows `datetime`.
pub fn micros_of(datetime: civil::DateTime, zone: &TimeZone) -> Eval<i64> {
    zone.to_timestamp(datetime).map(jiff::Timestamp::as_microsecond).map_err(|_| out_of_range(Type::Timestamp))
}

pub fn date_of(days: i32) -> Eval<civil::Date> {
    civil_of(date_to_timestamp(days), &TimeZone::UTC).map(civil::DateTime::date)
}

pub fn days_of(date: civil::Date) -> Eval<i32> {
    let micros = micros_of(date.to_datetime(civil::Time::midnight()), &TimeZone::UTC)?;
    timestamp_to_date(micros)
}

/// Midnight UTC. Saturates, far outside the calendar.
pub fn date_to_timestamp(days: i32) -> i64 {
    i64::from(days).saturating_mul(MICROS_PER_DAY)
}

pub fn timestamp_to_date(micros: i64) -> Eval<i32> {
    i32::try_from(micros.div_euclid(MICROS_PER_DAY)).map_err(|_| out_of_range(Type::Date))
}

/// A zone by its IANA name, or as an offset: `+02:00`.
pub fn time_zone(name: &str) -> Eval<TimeZone> {
    let unknown = || {
        let reason = format!("unknown time zone '{name}'");
        Box::new(EvalError::Function { function: "AT TIME ZONE", reason })
    };
    if name.eq_ignore_ascii_case("UTC") || name.eq_ignore_ascii_case("Z") {
        return Ok(TimeZone::UTC);
    }
    if let Some((sign, rest)) = name.strip_prefix('+').map(|rest| (1, rest)).or(name.strip_prefix('-').map(|r| (-1, r)))
    {
        let (hours, minutes) = rest.split_once(':').unwrap_or((rest, "0"));
        let (hours, minutes): (i32, i32) =
            hours.parse().ok().zip(minutes.parse().ok()).filter(|(h, m)| *h < 24 && *m < 60).ok_or_else(unknown)?;
        let offset = jiff::tz::Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).map_err(|_| unknown())?;
        return Ok(TimeZone::fixed(offset));
    }
    TimeZone::get(name).map_err(|_| unknown())
}

// ---- arithmetic ----------------------------------------------------------------------------------------------------

/// PostgreSQL's order: months by the calendar (the day is cut to the month's end), then days, then the rest.
pub fn add_interval(micros: i64, interval: Interval) -> Eval<i64> {
    let overflow = || out_of_range(Type::Timestamp);
    let mut at = micros;
    if interval.months != 0 {
        let span = jiff::Span::new().try_months(interval.months).map_err(|_| overflow())?;
        let moved = civil_of(at, &TimeZone::UTC)?.checked_add(span).map_err(|_| overflow())?;
        at = micros_of(moved, &TimeZone::UTC)?;
    }
    let days = i64::from(interval.days).checked_mul(MICROS_PER_DAY).ok_or_else(overflow)?;
    let sum = at.checked_add(days).and_then(|at| at.checked_add(interval.micros)).ok_or_else(overflow)?;
    jiff::Timestamp::from_microsecond(sum).map_err(|_| overflow())?;
    Ok(sum)
}

/// In days and the rest, of one sign.
pub fn difference(later: i64, earlier: i64) -> Eval<Interval> {
    let micros = later.checked_sub(earlier).ok_or_else(|| out_of_range(Type::Interval))?;
    let days = i32::try_from(micros / MICROS_PER_DAY).map_err(|_| out_of_range(Type::Interval))?;
    Ok(Interval { months: 0, days, micros: micros % MICROS_PER_DAY })
}

pub fn negate(interval: Interval) -> Eval<Interval> {
    let parts = interval.months.checked_neg().zip(interval.days.checked_neg()).zip(interval.micros.checked_neg());
    let ((months, days), micros) = parts.ok_or_else(|| out_of_range(Type::Interval))?;
    Ok(Interval { months, days, micros })
}

pub fn add_intervals(a: Interval, b: Interval) -> Eval<Interval> {
    let parts = a.months.checked_add(b.months).zip(a.days.checked_add(b.days)).zip(a.micros.checked_add(b.micros));
    let ((months, days), micros) = parts.ok_or_else(|| out_of_range(Type::Interval))?;
    Ok(Interval { months, days, micros })
}

/// As PostgreSQL: the fraction of a month becomes days (30 to the month), that of a day time.
pub fn scale(interval: Interval, factor: f64) -> Eval<Interval> {
    let months = f64::from(interval.months) * factor;
    let days = f64::from(interval.days) * factor + months.fract() * 30.0;
    // Rounded to a microsecond of a day, so that 0.1 * 10 days are whole.
    let days = (days * MICROS_PER_DAY as f64).round() / MICROS_PER_DAY as f64;
    let micros = interval.micros as f64 * factor + days.fract() * MICROS_PER_DAY as f64;
    Ok(Interval { months: to_i32(months.trunc())?, days: to_i32(days.trunc())?, micros: to_i64(micros.round())? })
}

fn to_i32(number: f64) -> Eval<i32> {
    i32::try_from(to_i64(number)?).map_err(|_| out_of_range(Type::Interval))
}

fn to_i64(number: f64) -> Eval<i64> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if !(-LIMIT..LIMIT).contains(&number) {
        return Err(out_of_range(Type::Interval));
    }
    #[expect(clippy::cast_possible_truncation, reason = "checked against the range above")]
    Ok(number as i64)
}

// ---- fields --------------------------------------------------------------------------------------------------------

/// A part of a timestamp or interval, or a unit to truncate to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Millennium,
    Century,
    Decade,
    Year,
    IsoYear,
    Quarter,
    Month,
    Week,
    Day,
    DayOfYear,
    DayOfWeek,
    IsoDayOfWeek,
    Hour,
    Minute,
    Second,
    Millisecond,
    Microsecond,
    Epoch,
}

impl Field {
    pub const NAMES: [(&'static str, Self); 18] = [
        ("millennium", Self::Millennium),
        ("century", Self::Century),
        ("decade", Self::Decade),
        ("year", Self::Year),
        ("isoyear", Self::IsoYear),
        ("quarter", Self::Quarter),
        ("month", Self::Month),
        ("week", Self::Week),
        ("day", Self::Day),
        ("doy", Self::DayOfYear),
        ("dow", Self::DayOfWeek),
        ("isodow", Self::IsoDayOfWeek),
        ("hour", Self::Hour),
        ("minute", Self::Minute),
        ("second", Self::Second),
        ("milliseconds", Self::Millisecond),
        ("microseconds", Self::Microsecond),
        ("epoch", Self::Epoch),
    ];

    /// By its name, singular or plural, in any case.
    pub fn parse(name: &str) -> Option<Self> {
        let name = name.to_lowercase();
        let find = |name: &str| Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, field)| *field);
        find(&name).or_else(|| find(name.trim_end_matches('s'))).or_else(|| find(&format!("{name}s")))
    }
}

/// `EXTRACT(field FROM timestamp)`; `datetime` is the clock's reading.
pub fn extract(field: Field, datetime: civil::DateTime) -> Eval<f64> {
    let (date, time) = (datetime.date(), datetime.time());
    let seconds = f64::from(time.second()) + f64::from(time.subsec_nanosecond() / 1000) / 1e6;
    let year = i32::from(date.year());
    Ok(match field {
        Field::Millennium => f64::from((year - 1).div_euclid(1000) + 1),
        Field::Century => f64::from((year - 1).div_euclid(100) + 1),
        Field::Decade => f64::from(year.div_euclid(10)),
        Field::Year => f64::from(year),
        Field::IsoYear => f64::from(date.iso_week_date().year()),
        Field::Quarter => f64::from((date.month() - 1) / 3 + 1),
        Field::Month => f64::from(date.month()),
        Field::Week => f64::from(date.iso_week_date().week()),
        Field::Day => f64::from(date.day()),
        Field::DayOfYear => f64::from(date.day_of_year()),
        Field::DayOfWeek => f64::from(date.weekday().to_sunday_zero_offset()),
        Field::IsoDayOfWeek => f64::from(date.weekday().to_monday_one_offset()),
        Field::Hour => f64::from(time.hour()),
        Field::Minute => f64::from(time.minute()),
        Field::Second => seconds,
        Field::Millisecond => seconds * 1e3,
        Field::Microsecond => seconds * 1e6,
        Field::Epoch => micros_of(datetime, &TimeZone::UTC)? as f64 / 1e6,
    })
}

/// `EXTRACT(field FROM interval)`.
pub fn extract_interval(field: Field, interval: Interval) -> Eval<f64> {
    let of_minute = interval.micros % MICROS_PER_MINUTE;
    let years = interval.months / 12;
    Ok(match field {
        Field::Millennium => f64::from(years / 1000),
        Field::Century => f64::from(years / 100),
        Field::Decade => f64::from(years / 10),
        Field::Year => f64::from(years),
        Field::Quarter => f64::from(interval.months % 12 / 3 + 1),
        Field::Month => f64::from(interval.months % 12),
        Field::Day => f64::from(interval.days),
        Field::Hour => (interval.micros / MICROS_PER_HOUR) as f64,
        Field::Minute => (interval.micros % MICROS_PER_HOUR / MICROS_PER_MINUTE) as f64,
        Field::Second => of_minute as f64 / 1e6,
        Field::Millisecond => of_minute as f64 / 1e3,
        Field::Microsecond => of_minute as f64,
        Field::Epoch => interval_seconds(interval),
        Field::IsoYear | Field::Week | Field::DayOfYear | Field::DayOfWeek | Field::IsoDayOfWeek => {
            let reason = "an INTERVAL has no such field".to_owned();
            return Err(Box::new(EvalError::Function { function: "EXTRACT", reason }));
        }
    })
}

/// PostgreSQL's `EPOCH` of an interval: 365.25 days to the year, 30 to the month.
pub fn interval_seconds(interval: Interval) -> f64 {
    let days =
        f64::from(interval.months / 12) * 365.25 + f64::from(interval.months % 12) * 30.0 + f64::from(interval.days);
    days * 86_400.0 + interval.micros as f64 / 1e6
}

/// `DATE_TRUNC`: the start of the unit that `datetime` lies in. `None` for what is not a unit.
pub fn truncate(field: Field, datetime: civil::DateTime) -> Eval<Option<civil::DateTime>> {
    let (date, time) = (datetime.date(), datetime.time());
    let overflow = || out_of_range(Type::Timestamp);
    let day = |year: i32, month: i8| -> Eval<civil::DateTime> {
        let year = i16::try_from(year).map_err(|_| overflow())?;
        Ok(civil::Date::new(year, month, 1).map_err(|_| overflow())?.to_datetime(civil::Time::midnight()))
    };
    let year = i32::from(date.year());
    let at = |hour: i8, minute: i8, second: i8, nanos: i32| -> Eval<civil::DateTime> {
        Ok(date.to_datetime(civil::Time::new(hour, minute, second, nanos).map_err(|_| overflow())?))
    };
    let truncated = match field {
        Field::Millennium => day((year - 1).div_euclid(1000) * 1000 + 1, 1)?,
        Field::Century => day((year - 1).div_euclid(100) * 100 + 1, 1)?,
        Field::Decade => day(year.div_euclid(10) * 10, 1)?,
        Field::Year => day(year, 1)?,
        Field::Quarter => day(year, (date.month() - 1) / 3 * 3 + 1)?,
        Field::Month => day(year, date.month())?,
        Field::Week => {
            let back = jiff::Span::new().days(date.weekday().to_monday_zero_offset());
            date.checked_sub(back).map_err(|_| overflow())?.to_datetime(civil::Time::midnight())
        }
        Field::Day => at(0, 0, 0, 0)?,
        Field::Hour => at(time.hour(), 0, 0, 0)?,
        Field::Minute => at(time.hour(), time.minute(), 0, 0)?,
        Field::Second => at(time.hour(), time.minute(), time.second(), 0)?,
        Field::Millisecond => {
            at(time.hour(), time.minute(), time.second(), time.subsec_nanosecond() / 1_000_000 * 1_000_000)?
        }
        Field::Microsecond => datetime,
        Field::IsoYear | Field::DayOfYear | Field::DayOfWeek | Field::IsoDayOfWeek | Field::Epoch => return Ok(None),
    };
    Ok(Some(truncated))
}

// ---- text ----------------------------------------------------------------------------------------------------------

/// RFC 3339, as far as the fraction goes: `2026-01-01T00:00:00.5Z`.
pub fn timestamp_text(micros: i64) -> Eval<String> {
    jiff::Timestamp::from_microsecond(micros)
        .map(|instant| instant.to_string())
        .map_err(|_| out_of_range(Type::Timestamp))
}

pub fn date_text(days: i32) -> Eval<String> {
    date_of(days).map(|date| date.to_string())
}

/// RFC 3339, or PostgreSQL's form with a blank; without an offset it is UTC, without a time midnight.
pub fn parse_timestamp(text: &str) -> Eval<i64> {
    let trimmed = text.trim();
    // Dates of eight digits and other forms without separators are more often numbers by mistake.
    if !trimmed.get(1..).is_some_and(|rest| rest.contains('-')) {
        return Err(invalid(Type::Timestamp, text));
    }
    if let Ok(instant) = trimmed.parse::<jiff::Timestamp>() {
        return Ok(instant.as_microsecond());
    }
    if let Ok(datetime) = trimmed.parse::<civil::DateTime>() {
        return micros_of(datetime, &TimeZone::UTC);
    }
    Err(invalid(Type::Timestamp, text))
}

pub fn parse_date(text: &str) -> Eval<i32> {
    let trimmed = text.trim();
    if !trimmed.get(1..).is_some_and(|rest| rest.contains('-')) {
        return Err(invalid(Type::Date, text));
    }
    days_of(trimmed.parse::<civil::Date>().map_err(|_| invalid(Type::Date, text))?)
}

/// ISO 8601, as LANGUAGE.md wants it: `P1Y2M3DT4H5M6.5S`; a negative part carries its own sign.
pub fn interval_text(interval: Interval) -> String {
    use std::fmt::Write as _;
    let mut text = String::from("P");
    let mut part = |number: i64, unit: char| {
        if number != 0 {
            // Writing to a string does not fail.
            let _ = write!(text, "{number}{unit}");
        }
    };
    part(i64::from(interval.months / 12), 'Y');
    part(i64::from(interval.months % 12), 'M');
    part(i64::from(interval.days), 'D');
    if interval.micros != 0 {
        text.push('T');
        let mut part = |number: i64, unit: char| {
            if number != 0 {
                let _ = write!(text, "{number}{unit}");
            }
        };
        part(interval.micros / MICROS_PER_HOUR, 'H');
        part(interval.micros % MICROS_PER_HOUR / MICROS_PER_MINUTE, 'M');
        let micros = interval.micros % MICROS_PER_MINUTE;
        if micros != 0 {
            let sign = if micros < 0 { "-" } else { "" };
            let (seconds, fraction) = (micros.unsigned_abs() / 1_000_000, micros.unsigned_abs() % 1_000_000);
            let _ = write!(text, "{sign}{seconds}");
            if fraction != 0 {
                let digits = format!("{fraction:06}");
                let _ = write!(text, ".{}", digits.trim_end_matches('0'));
            }
            text.push('S');
        }
    }
    if text == "P" { "PT0S".to_owned() } else { text }
}

/// PostgreSQL's forms (`1 day 02:30:00`, `90 minutes`, `1.5 hours ago`), durations (`10m`, `250ms`) and ISO 8601.
pub fn parse_interval(text: &str) -> Eval<Interval> {
    let error = || invalid(Type::Interval, text);
    let trimmed = text.trim();
    let mut total = Interval::default();
    if let Some(iso) = trimmed.strip_prefix(['P', 'p']) {
        parse_iso_interval(iso, &mut total).ok_or_else(error)?;
        return Ok(total);
    }
    let (body, ago) = match trimmed.strip_suffix("ago") {
        Some(body) => (body.trim_end(), true),
        None => (trimmed, false),
    };
    if body.is_empty() {
        return Err(error());
    }
    let mut rest = body;
    while !rest.is_empty() {
        let number_end = rest
            .find(|character: char| !(character.is_ascii_digit() || matches!(character, '.' | '-' | '+' | ':')))
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(number_end);
        if number.contains(':') {
            add_clock(&mut total, number).ok_or_else(error)?;
            rest = after.trim_start();
            continue;
        }
        let after = after.trim_start();
        let unit_end = after.find(|character: char| !character.is_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        add_unit(&mut total, number.parse().map_err(|_| error())?, unit).ok_or_else(error)?;
        rest = after.trim_start();
    }
    if ago { negate(total) } else { Ok(total) }
}

/// `INTERVAL '5' MINUTE`: a bare number takes the unit that follows.
pub fn parse_interval_in(text: &str, unit: &str) -> Eval<Interval> {
    let mut total = Interval::default();
    match text.trim().parse::<f64>() {
        Ok(number) => {
            add_unit(&mut total, number, unit).ok_or_else(|| invalid(Type::Interval, text))?;
            Ok(total)
        }
        Err(_) => parse_interval(text),
    }
}

fn add_clock(total: &mut Interval, text: &str) -> Option<()> {
    let (negative, unsigned) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let mut parts = unsigned.trim_start_matches('+').split(':');
    let hours: f64 = parts.next()?.parse().ok()?;
    let minutes: f64 = parts.next()?.parse().ok()?;
    let seconds: f64 = parts.next().map_or(Some(0.0), |seconds| seconds.parse().ok())?;
    if parts.next().is_some() || minutes >= 60.0 || seconds >= 60.0 {
        return None;
    }
    let micros = to_i64(((hours * 60.0 + minutes) * 60.0 + seconds) * 1e6).ok()?;
    total.micros = total.micros.checked_add(if negative { -micros } else { micros })?;
    Some(())
}

fn add_unit(total: &mut Interval, number: f64, unit: &str) -> Option<()> {
    let (months, days, micros) = match unit.to_lowercase().as_str() {
        "year" | "years" | "y" | "yr" | "yrs" => (12.0, 0.0, 0.0),
        "quarter" | "quarters" => (3.0, 0.0, 0.0),
        "month" | "months" | "mon" | "mons" => (1.0, 0.0, 0.0),
        "week" | "weeks" | "w" => (0.0, 7.0, 0.0),
        "day" | "days" | "d" => (0.0, 1.0, 0.0),
        "hour" | "hours" | "h" | "hr" | "hrs" => (0.0, 0.0, 3600e6),
        "minute" | "minutes" | "m" | "min" | "mins" => (0.0, 0.0, 60e6),
        "second" | "seconds" | "s" | "sec" | "secs" | "" => (0.0, 0.0, 1e6),
        "millisecond" | "milliseconds" | "ms" | "msec" | "msecs" => (0.0, 0.0, 1e3),
        "microsecond" | "microseconds" | "us" | "usec" | "usecs" => (0.0, 0.0, 1.0),
        _ => return None,
    };
    let months = number * months;
    let days = number * days + months.fract() * 30.0;
    let micros = number * micros + days.fract() * MICROS_PER_DAY as f64;
    let part = Interval {
        months: to_i32(months.trunc()).ok()?,
        days: to_i32(days.trunc()).ok()?,
        micros: to_i64(micros.round()).ok()?,
    };
    *total = add_intervals(*total, part).ok()?;
    Some(())
}

fn parse_iso_interval(text: &str, total: &mut Interval) -> Option<()> {
    if text.is_empty() {
        return None;
    }
    let (date, time) = match text.find(['T', 't']) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, ""),
    };
    for (part, units) in [(date, ["Y", "M", "W", "D"].as_slice()), (time, ["H", "M", "S"].as_slice())] {
        let mut rest = part;
        while !rest.is_empty() {
            let end = rest.find(|character: char| character.is_ascii_alphabetic())?;
            let number: f64 = rest[..end].parse().ok()?;
            let unit = rest[end..=end].to_ascii_uppercase();
            if !units.contains(&unit.as_str()) {
                return None;
            }
            let unit = match (unit.as_str(), units.len()) {
                ("M", 4) => "month",
                ("M", _) => "minute",
                (unit, _) => unit,
            };
            add_unit(total, number, unit)?;
            rest = &rest[end + 1..];
        }
    }
    Some(())
}
