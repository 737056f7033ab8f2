//! Decimal numbers as text, read exactly: from JSON's numbers and from SQL's digits. What it is not: arithmetic
//! (`crate::decimal`).
//!
//! Invariant: a number that the type cannot hold without rounding is refused, never rounded.

use crate::value::Decimal;

/// `digits * 10^exponent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digits {
    pub digits: i128,
    pub exponent: i32,
}

impl Digits {
    /// Of `[sign] digits [. digits] [e exponent]`, all of the text; `None` where it is anything else or longer than 38 digits
    /// that count.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let (negative, rest) = match bytes {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            _ => (false, bytes),
        };
        let mut digits = 0_i128;
        // Zeros that matter only if another digit follows.
        let mut pending_zeros = 0_u32;
        let mut exponent = 0_i32;
        let (mut seen_digit, mut seen_point) = (false, false);
        let mut rest = rest;
        loop {
            match rest {
                [digit @ b'0'..=b'9', after @ ..] => {
                    seen_digit = true;
                    if *digit == b'0' {
                        pending_zeros += u32::from(digits != 0);
                    } else {
                        let shift = 10_i128.checked_pow(pending_zeros + 1)?;
                        digits = digits.checked_mul(shift)?.checked_add(i128::from(digit - b'0'))?;
                        pending_zeros = 0;
                    }
                    exponent -= i32::from(seen_point);
                    rest = after;
                }
                [b'.', after @ ..] if !seen_point => {
                    seen_point = true;
                    rest = after;
                }
                [b'e' | b'E', after @ ..] if seen_digit => {
                    let written: i32 = std::str::from_utf8(after).ok()?.parse().ok()?;
                    exponent = exponent.checked_add(written)?;
                    break;
                }
                [] => break,
                _ => return None,
            }
        }
        if !seen_digit {
            return None;
        }
        exponent = exponent.checked_add(i32::try_from(pending_zeros).ok()?)?;
        Some(Self { digits: if negative { -digits } else { digits }, exponent })
    }

    /// As `DECIMAL(precision, scale)`; `None` where it does not fit exactly.
    pub fn decimal(self, precision: u8, scale: u8) -> Option<Decimal> {
        let unscaled = self.times_power_of_ten(i32::from(scale))?;
        if unscaled.unsigned_abs() >= 10_u128.checked_pow(u32::from(precision))? {
            return None;
        }
        Some(Decimal::new(unscaled, scale))
    }

    /// As an integer; `None` where it has a fraction or is too large.
    pub fn integer(self) -> Option<i64> {
        i64::try_from(self.times_power_of_ten(0)?).ok()
    }

    /// The integer part of `self * 10^power`, rounded down.
    pub fn times_power_of_ten_rounded_down(self, power: i32) -> Option<i128> {
        if self.digits == 0 {
            return Some(0);
        }
        let shift = self.exponent.checked_add(power)?;
        if shift >= 0 {
            return self.digits.checked_mul(10_i128.checked_pow(shift.unsigned_abs())?);
        }
        // Beyond 38 places nothing but the sign is left.
        let factor = 10_i128.checked_pow(shift.unsigned_abs()).unwrap_or(i128::MAX);
        Some(self.digits.div_euclid(factor))
    }

    /// `self * 10^power` as an integer, if it is one.
    pub fn times_power_of_ten(self, power: i32) -> Option<i128> {
        if self.digits == 0 {
            return Some(0);
        }
        let shift = self.exponent.checked_add(power)?;
        let factor = 10_i128.checked_pow(shift.unsigned_abs())?;
        if shift >= 0 {
            return self.digits.checked_mul(factor);
        }
        (self.digits % factor == 0).then(|| self.digits / factor)
    }
}

/// The decimal at another scale; `None` where that would round or overflow.
pub fn rescale(decimal: Decimal, scale: u8) -> Option<i128> {
    if decimal.scale == scale {
        return Some(decimal.unscaled);
    }
    Digits { digits: decimal.unscaled, exponent: -i32::from(decimal.scale) }.times_power_of_ten(i32::from(scale))
}

/// Appends the digits, with as many after the point as the scale says, or the decimal's own where those are more.
pub fn write_decimal(decimal: Decimal, scale: u8, into: &mut Vec<u8>) {
    let (unscaled, scale) = match rescale(decimal, scale) {
        Some(unscaled) => (unscaled, usize::from(scale)),
        None => (decimal.unscaled, usize::from(decimal.scale)),
    };
    if unscaled < 0 {
        into.push(b'-');
    }
    let mut number = itoa::Buffer::new();
    let digits = number.format(unscaled.unsigned_abs()).as_bytes();
    if scale == 0 {
        into.extend_from_slice(digits);
    } else if digits.len() > scale {
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        into.extend_from_slice(whole);
        into.push(b'.');
        into.extend_from_slice(fraction);
    } else {
        into.extend_from_slice(b"0.");
        into.extend(std::iter::repeat_n(b'0', scale - digits.len()));
        into.extend_from_slice(digits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_number_fits_a_decimal_only_without_rounding() {
        for (text, precision, scale, unscaled) in [
            ("12.5", 5, 2, Some(1250)),
            ("-12.50000", 5, 2, Some(-1250)),
            ("1e3", 5, 0, Some(1000)),
            ("1.25e-1", 4, 3, Some(125)),
            ("12.505", 5, 2, None),
            ("1000", 5, 2, None),
            ("999.99", 5, 2, Some(99_999)),
            ("0.000000000000000000000000000000000000000000000", 1, 0, Some(0)),
            ("100000000000000000000000000000000000000000000e-44", 1, 0, Some(1)),
            ("0e999999999", 1, 0, Some(0)),
            ("1e999999999", 38, 0, None),
            ("1e99999999999", 38, 0, None),
            (".5", 2, 1, Some(5)),
            ("5.", 2, 1, Some(50)),
            ("", 2, 1, None),
            ("-", 2, 1, None),
            (".", 2, 1, None),
            ("e5", 2, 1, None),
            ("1 ", 2, 1, None),
        ] {
            let decimal = Digits::parse(text).and_then(|digits| digits.decimal(precision, scale));
            assert_eq!(decimal.map(|decimal| decimal.unscaled), unscaled, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_decimal_reads_back_as_written(
            unscaled in -99_999_999_999_999_999_999_999_999_999_999_999_999_i128..=99_999_999_999_999_999_999_999_999_999_999_999_999,
            scale in 0_u8..=38,
        ) {
            let mut text = Vec::new();
            write_decimal(Decimal::new(unscaled, scale), scale, &mut text);
            let text = String::from_utf8(text).unwrap();
            let read = Digits::parse(&text).and_then(|digits| digits.decimal(38, scale)).unwrap();
            prop_assert_eq!((read.unscaled, read.scale), (unscaled, scale), "{}", text);
        }
    }
}
