//! Dates, instants and intervals as text: ISO 8601, RFC 3339, and nothing of time zones beyond an offset.
//!
//! What it is: reading and writing the text forms that JSON and keys use, over the proleptic Gregorian calendar, fast
//! enough for every record. What it is not: a calendar library; arithmetic and zones belong to `expression`.
//!
//! Invariants
//! - Every value of the type can be written, and what is written reads back as the same value.
//! - A year outside 0000 to 9999 is written with a sign and at least six digits (ISO 8601's expanded form).
//!
//! The day count follows Howard Hinnant, "chrono-compatible low-level date algorithms".

use crate::value::Interval;

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// Microseconds since the epoch of an RFC 3339 instant. A leap second counts as the second before it; digits of the
/// fraction beyond microseconds are cut.
pub fn parse_timestamp(text: &str) -> Option<i64> {
    let (days, rest) = split_date(text.as_bytes())?;
    let [b'T' | b't' | b' ', rest @ ..] = rest else { return None };
    let [h1, h0, b':', m1, m0, b':', s1, s0, rest @ ..] = rest else { return None };
    let (hour, minute, second) = (two_digits(*h1, *h0)?, two_digits(*m1, *m0)?, two_digits(*s1, *s0)?);
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction_micros, rest) = split_fraction(rest)?;
    let offset_seconds = parse_offset(rest)?;
    let seconds = days * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second.min(59) - offset_seconds;
    i64::try_from(i128::from(seconds) * i128::from(MICROS_PER_SECOND) + i128::from(fraction_micros)).ok()
}

/// Days since the epoch of `YYYY-MM-DD`.
pub fn parse_date(text: &str) -> Option<i32> {
    let (days, rest) = split_date(text.as_bytes())?;
    if !rest.is_empty() {
        return None;
    }
    i32::try_from(days).ok()
}

/// An ISO 8601 duration, `P1Y2M3DT4H5M6.789S`. Each number may have a sign, as may the whole; a fraction only the seconds.
pub fn parse_interval(text: &str) -> Option<Interval> {
    let (sign, rest) = split_sign(text.as_bytes());
    let [b'P' | b'p', rest @ ..] = rest else { return None };
    let (mut months, mut days, mut micros) = (0_i128, 0_i128, 0_i128);
    let mut rest = rest;
    let mut last_unit = 0;
    let mut in_time = false;
    while let Some(&first) = rest.first() {
        if first.eq_ignore_ascii_case(&b'T') {
            if in_time || rest.len() == 1 {
                return None;
            }
            in_time = true;
            rest = &rest[1..];
            continue;
        }
        let (own_sign, after_sign) = split_sign(rest);
        let (number, after_number) = split_digits(after_sign)?;
        let (fraction_micros, after_fraction) = split_fraction(after_number)?;
        let [unit, after_unit @ ..] = after_fraction else { return None };
        let amount = i128::from(sign * own_sign) * i128::from(number);
        let rank = match (in_time, unit.to_ascii_uppercase()) {
            (false, b'Y') => {
                months += amount * 12;
                1
            }
            (false, b'M') => {
                months += amount;
                2
            }
            (false, b'W') => {
                days += amount * 7;
                3
            }
            (false, b'D') => {
                days += amount;
                4
            }
            (true, b'H') => {
                micros += amount * 3_600_000_000;
                5
            }
            (true, b'M') => {
                micros += amount * 60_000_000;
                6
            }
            (true, b'S') => {
                micros += amount * 1_000_000 + i128::from(sign * own_sign * fraction_micros);
                7
            }
            _ => return None,
        };
        let has_fraction = after_fraction.len() != after_number.len();
        if rank <= last_unit || (has_fraction && rank != 7) {
            return None;
        }
        last_unit = rank;
        rest = after_unit;
    }
    if last_unit == 0 {
        return None;
    }
    Some(Interval {
        months: i32::try_from(months).ok()?,
        days: i32::try_from(days).ok()?,
        micros: i64::try_from(micros).ok()?,
    })
}

/// Appends `2026-01-31T12:00:00.5Z`: UTC, as many digits of the fraction as are needed.
pub fn write_timestamp(micros: i64, into: &mut Vec<u8>) {
    let seconds = micros.div_euclid(MICROS_PER_SECOND);
    let fraction_micros = micros.rem_euclid(MICROS_PER_SECOND);
    let second_of_day = seconds.rem_euclid(SECONDS_PER_DAY);
    write_days(seconds.div_euclid(SECONDS_PER_DAY), into);
    let [h0, h1] = in_two_digits(second_of_day / 3600);
    let [m0, m1] = in_two_digits(second_of_day / 60 % 60);
    let [s0, s1] = in_two_digits(second_of_day % 60);
    into.extend_from_slice(&[b'T', h0, h1, b':', m0, m1, b':', s0, s1]);
    write_fraction(fraction_micros, into);
    into.push(b'Z');
}

/// Appends `2026-01-31`.
pub fn write_date(days: i32, into: &mut Vec<u8>) {
    write_days(i64::from(days), into);
}

/// Appends the ISO 8601 form; `PT0S` is nothing.
pub fn write_interval(interval: Interval, into: &mut Vec<u8>) {
    let Interval { months, days, micros } = interval;
    if interval == Interval::default() {
        into.extend_from_slice(b"PT0S");
        return;
    }
    let mut number = itoa::Buffer::new();
    let mut part = |amount: i64, unit: u8, into: &mut Vec<u8>| {
        if amount != 0 {
            into.extend_from_slice(number.format(amount).as_bytes());
            into.push(unit);
        }
    };
    into.push(b'P');
    part(i64::from(months / 12), b'Y', into);
    part(i64::from(months % 12), b'M', into);
    part(i64::from(days), b'D', into);
    if micros == 0 {
        return;
    }
    into.push(b'T');
    part(micros / 3_600_000_000, b'H', into);
    part(micros / 60_000_000 % 60, b'M', into);
    let second_micros = micros % 60_000_000;
    if second_micros % MICROS_PER_SECOND == 0 {
        part(second_micros / MICROS_PER_SECOND, b'S', into);
        return;
    }
    if second_micros < 0 {
        into.push(b'-');
    }
    let second_micros = second_micros.abs();
    into.extend_from_slice(itoa::Buffer::new().format(second_micros / MICROS_PER_SECOND).as_bytes());
    write_fraction(second_micros % MICROS_PER_SECOND, into);
    into.push(b'S');
}

/// The days since the epoch of a leading date, and what follows it.
fn split_date(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let (year, rest) = match bytes {
        [b'+' | b'-', ..] => {
            let (sign, rest) = split_sign(bytes);
            let (year, after) = split_digits(rest)?;
            let digits = rest.len() - after.len();
            if !(4..=7).contains(&digits) {
                return None;
            }
            (sign * i64::try_from(year).ok()?, after)
        }
        [a, b, c, d, rest @ ..] => (two_digits(*a, *b)? * 100 + two_digits(*c, *d)?, rest),
        _ => return None,
    };
    let [b'-', m1, m0, b'-', d1, d0, rest @ ..] = rest else { return None };
    let (month, day) = (two_digits(*m1, *m0)?, two_digits(*d1, *d0)?);
    if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    Some((days_from_civil(year, month, day), rest))
}

/// The microseconds of a leading `.` and digits; 0 where there is none.
fn split_fraction(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let [b'.', rest @ ..] = bytes else { return Some((0, bytes)) };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 {
        return None;
    }
    let (fraction, rest) = rest.split_at(digits);
    let mut micros = 0;
    for place in 0..6 {
        micros = micros * 10 + fraction.get(place).map_or(0, |digit| i64::from(digit - b'0'));
    }
    Some((micros, rest))
}

/// The seconds of `Z`, `+HH:MM`, `+HHMM` or `+HH`, which must be all that is left.
fn parse_offset(bytes: &[u8]) -> Option<i64> {
    let (sign, hour, minute) = match bytes {
        [b'Z' | b'z'] => return Some(0),
        [sign @ (b'+' | b'-'), h1, h0, b':', m1, m0] | [sign @ (b'+' | b'-'), h1, h0, m1, m0] => {
            (sign, two_digits(*h1, *h0)?, two_digits(*m1, *m0)?)
        }
        [sign @ (b'+' | b'-'), h1, h0] => (sign, two_digits(*h1, *h0)?, 0),
        _ => return None,
    };
    if hour > 23 || minute > 59 {
        return None;
    }
    let seconds = hour * 3600 + minute * 60;
    Some(if *sign == b'-' { -seconds } else { seconds })
}

fn split_sign(bytes: &[u8]) -> (i64, &[u8]) {
    match bytes {
        [b'-', rest @ ..] => (-1, rest),
        [b'+', rest @ ..] => (1, rest),
        _ => (1, bytes),
    }
}

fn split_digits(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 {
        return None;
    }
    let (number, rest) = bytes.split_at(digits);
    let mut value = 0_u64;
    for digit in number {
        value = value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
    }
    Some((value, rest))
}

fn two_digits(tens: u8, ones: u8) -> Option<i64> {
    if tens.is_ascii_digit() && ones.is_ascii_digit() {
        Some(i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
    } else {
        None
    }
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March, so that the leap day is the last of its year.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

fn write_days(days: i64, into: &mut Vec<u8>) {
    let (year, month, day) = civil_from_days(days);
    let ([m0, m1], [d0, d1]) = (in_two_digits(month), in_two_digits(day));
    if (0..=9999).contains(&year) {
        // One piece: a buffer looks at its size with every push.
        let ([c0, c1], [y0, y1]) = (in_two_digits(year / 100), in_two_digits(year % 100));
        into.extend_from_slice(&[c0, c1, y0, y1, b'-', m0, m1, b'-', d0, d1]);
    } else {
        into.push(if year < 0 { b'-' } else { b'+' });
        let mut number = itoa::Buffer::new();
        let digits = number.format(year.unsigned_abs()).as_bytes();
        into.extend(std::iter::repeat_n(b'0', 6_usize.saturating_sub(digits.len())));
        into.extend_from_slice(digits);
        into.extend_from_slice(&[b'-', m0, m1, b'-', d0, d1]);
    }
}

/// `number` is below 100.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "both are single digits")]
fn in_two_digits(number: i64) -> [u8; 2] {
    let number = number as u8;
    [b'0' + number / 10, b'0' + number % 10]
}

fn write_fraction(micros: i64, into: &mut Vec<u8>) {
    if micros == 0 {
        return;
    }
    into.push(b'.');
    for pair in [micros / 10_000, micros / 100 % 100, micros % 100] {
        into.extend_from_slice(&in_two_digits(pair));
    }
    while into.last() == Some(&b'0') {
        into.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut bytes = Vec::new();
        write(&mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn instants_of_rfc_3339_are_read_to_the_microsecond() {
        for (text, micros) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2026-01-01T00:00:00Z", Some(1_767_225_600_000_000)),
            ("2026-01-01T00:00:00.123456789Z", Some(1_767_225_600_123_456)),
            ("2026-01-01t01:30:00.5+01:30", Some(1_767_225_600_500_000)),
            ("2025-12-31 22:00:00-02", Some(1_767_225_600_000_000)),
            ("1969-12-31T23:59:59.999999Z", Some(-1)),
            ("2024-02-29T00:00:00Z", Some(1_709_164_800_000_000)),
            ("2016-12-31T23:59:60Z", Some(1_483_228_799_000_000)),
            ("2023-02-29T00:00:00Z", None),
            ("2026-01-01T00:00:00", None),
            ("2026-01-01", None),
            ("2026-1-1T00:00:00Z", None),
            ("2026-01-01T24:00:00Z", None),
            ("2026-01-01T00:00:00.Z", None),
            ("2026-01-01T00:00:00Z ", None),
            ("", None),
        ] {
            assert_eq!(parse_timestamp(text), micros, "{text}");
        }
    }

    #[test]
    fn intervals_are_iso_8601_durations() {
        let interval = |months, days, micros| Some(Interval { months, days, micros });
        for (text, expected) in [
            ("P1Y2M3DT4H5M6.789S", interval(14, 3, 14_706_789_000)),
            ("PT0S", interval(0, 0, 0)),
            ("P-1Y", interval(-12, 0, 0)),
            ("-P1DT1S", interval(0, -1, -1_000_000)),
            ("P2W", interval(0, 14, 0)),
            ("PT-0.5S", interval(0, 0, -500_000)),
            ("P", None),
            ("PT", None),
            ("P1DT", None),
            ("P1D1Y", None),
            ("P1.5D", None),
            ("1D", None),
            ("P99999999999Y", None),
        ] {
            assert_eq!(parse_interval(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_instant_reads_back_as_written(micros: i64) {
            prop_assert_eq!(parse_timestamp(&written(|into| write_timestamp(micros, into))), Some(micros));
        }

        #[test]
        fn every_date_reads_back_as_written(days: i32) {
            prop_assert_eq!(parse_date(&written(|into| write_date(days, into))), Some(days));
        }

        #[test]
        fn every_interval_reads_back_as_written(months: i32, days: i32, micros: i64) {
            let interval = Interval { months, days, micros };
            prop_assert_eq!(parse_interval(&written(|into| write_interval(interval, into))), Some(interval));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[-+PYMDTHS0-9:.Zz ]{0,40}") {
            let _ = (parse_timestamp(&text), parse_date(&text), parse_interval(&text));
        }
    }

    #[test]
    fn the_ends_of_the_ranges_read_back() {
        for micros in [i64::MIN, i64::MAX] {
            assert_eq!(parse_timestamp(&written(|into| write_timestamp(micros, into))), Some(micros));
        }
        for days in [i32::MIN, i32::MAX] {
            assert_eq!(parse_date(&written(|into| write_date(days, into))), Some(days));
        }
        let interval = Interval { months: i32::MIN, days: i32::MIN, micros: i64::MIN };
        assert_eq!(parse_interval(&written(|into| write_interval(interval, into))), Some(interval));
        assert_eq!(written(|into| write_timestamp(1_500_000, into)), "1970-01-01T00:00:01.5Z");
    }
}
