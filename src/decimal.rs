//! `DECIMAL(p,s)`: an exact number of at most 38 digits. The scale travels with the value; the type bounds both.
//!
//! Invariants
//! - A result either is exact, or rounded half away from zero at the scale asked for, or `None`: never wrapped.
//! - Intermediate products and quotients are computed in 256 bits.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// `unscaled * 10^-scale`.
// Packed to the alignment of other values: an i128 by itself would make every value of every row 16 bytes larger.
#[derive(Clone, Copy, Debug)]
#[repr(Rust, packed(8))]
pub struct Decimal {
    pub unscaled: i128,
    pub scale: u8,
}

impl Decimal {
    /// The most digits a DECIMAL may have.
    pub const MAX_PRECISION: u8 = 38;

    pub const ZERO: Self = Self::new(0, 0);

    pub const fn new(unscaled: i128, scale: u8) -> Self {
        Self { unscaled, scale }
    }

    /// Without trailing zeros after the point.
    #[must_use]
    pub fn normalised(self) -> Self {
        let Self { mut unscaled, mut scale } = self;
        while scale > 0 && unscaled % 10 == 0 {
            unscaled /= 10;
            scale -= 1;
        }
        Self { unscaled, scale }
    }

    /// How many digits it has, at least 1.
    pub fn digits(self) -> u8 {
        let mut digits = 1;
        let mut rest = self.unscaled.unsigned_abs() / 10;
        while rest > 0 {
            digits += 1;
            rest /= 10;
        }
        digits
    }

    /// The same number with `scale` digits after the point, rounded half away from zero; `None` where it then has more
    /// than 38 digits.
    pub fn rescaled(self, scale: u8) -> Option<Self> {
        let unscaled = if scale >= self.scale {
            self.unscaled.checked_mul(power_of_ten(scale - self.scale)?)?
        } else {
            let magnitude = match power_of_ten(self.scale - scale) {
                Some(divisor) => divide_rounding(self.unscaled.unsigned_abs(), divisor.unsigned_abs()),
                None => 0,
            };
            signed(magnitude, self.unscaled < 0)?
        };
        Self::new(unscaled, scale).bounded(Self::MAX_PRECISION)
    }

    /// As a `DECIMAL(precision, scale)`; `None` where it does not fit.
    pub fn fitted(self, precision: u8, scale: u8) -> Option<Self> {
        self.rescaled(scale)?.bounded(precision)
    }

    fn bounded(self, precision: u8) -> Option<Self> {
        let limit = power_of_ten(precision)?;
        (self.unscaled.unsigned_abs() < limit.unsigned_abs()).then_some(self)
    }

    /// The sum at `scale`.
    pub fn add(self, other: Self, scale: u8) -> Option<Self> {
        if self.scale == other.scale {
            return Self::new(self.unscaled.checked_add(other.unscaled)?, self.scale).rescaled(scale);
        }
        let common = self.scale.max(other.scale);
        let (a, b) = (self.rescaled(common)?, other.rescaled(common)?);
        Self::new(a.unscaled.checked_add(b.unscaled)?, common).rescaled(scale)
    }

    /// The difference at `scale`.
    pub fn subtract(self, other: Self, scale: u8) -> Option<Self> {
        self.add(other.negated(), scale)
    }

    #[must_use]
    pub fn negated(self) -> Self {
        // At most 38 digits: far from i128::MIN.
        Self::new(self.unscaled.wrapping_neg(), self.scale)
    }

    /// The product at `scale`.
    pub fn multiply(self, other: Self, scale: u8) -> Option<Self> {
        let full_scale = self.scale.checked_add(other.scale)?;
        if let Some(product) = self.unscaled.checked_mul(other.unscaled) {
            return Self::new(product, full_scale).rescaled(scale);
        }
        let product = Wide::multiply(self.unscaled.unsigned_abs(), other.unscaled.unsigned_abs());
        let drop = full_scale.checked_sub(scale)?;
        let magnitude = product.divide_by_power_of_ten(drop)?;
        Self::new(signed(magnitude, (self.unscaled < 0) != (other.unscaled < 0))?, scale).bounded(Self::MAX_PRECISION)
    }

    /// The quotient at `scale`; `None` where it does not fit or `other` is zero.
    pub fn divide(self, other: Self, scale: u8) -> Option<Self> {
        if other.unscaled == 0 {
            return None;
        }
        // self / other = (a / b) * 10^(other.scale - self.scale), wanted times 10^scale.
        let shift = i16::from(scale) + i16::from(other.scale) - i16::from(self.scale);
        let divisor = other.unscaled.unsigned_abs();
        let magnitude = if shift >= 0 {
            Wide::from(self.unscaled.unsigned_abs())
                .times_power_of_ten(shift.unsigned_abs())?
                .divide_rounding(divisor)?
        } else {
            let drop = u8::try_from(shift.unsigned_abs()).ok()?;
            match divisor.checked_mul(power_of_ten(drop)?.unsigned_abs()) {
                Some(divisor) => divide_rounding(self.unscaled.unsigned_abs(), divisor),
                None => 0,
            }
        };
        Self::new(signed(magnitude, (self.unscaled < 0) != (other.unscaled < 0))?, scale).bounded(Self::MAX_PRECISION)
    }

    /// The remainder of a division that truncates toward zero; its sign is that of `self`.
    pub fn remainder(self, other: Self, scale: u8) -> Option<Self> {
        if other.unscaled == 0 {
            return None;
        }
        let common = self.scale.max(other.scale);
        let (a, b) = (self.rescaled(common)?, other.rescaled(common)?);
        Self::new(a.unscaled.checked_rem(b.unscaled)?, common).rescaled(scale)
    }

    /// The nearest DOUBLE.
    pub fn to_f64(self) -> f64 {
        const EXACT: i128 = 1 << 53;
        if self.scale <= 22 && self.unscaled.abs() <= EXACT {
            // Both operands are exact, so the division is correctly rounded.
            return self.unscaled as f64 / 10f64.powi(i32::from(self.scale));
        }
        self.to_string().parse().unwrap_or(f64::NAN)
    }

    /// Of a finite number, by its shortest decimal form; rounded to `scale`.
    pub fn from_f64(number: f64, scale: u8) -> Option<Self> {
        if !number.is_finite() {
            return None;
        }
        parse(&format!("{number}"), Some(scale))
    }

    /// Without the digits after the point.
    pub fn truncated(self) -> i128 {
        power_of_ten(self.scale).map_or(0, |divisor| self.unscaled / divisor)
    }

    /// The whole number nearest to it, halves away from zero.
    pub fn rounded(self) -> Option<i128> {
        self.rescaled(0).map(|whole| whole.unscaled)
    }

    pub fn is_zero(self) -> bool {
        self.unscaled == 0
    }
}

impl PartialEq for Decimal {
    /// By number: 1.0 equals 1.00.
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Decimal {}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Decimal {
    /// By number, whatever the scales.
    fn cmp(&self, other: &Self) -> Ordering {
        if self.scale == other.scale {
            return { self.unscaled }.cmp(&{ other.unscaled });
        }
        let sign = self.unscaled.signum().cmp(&other.unscaled.signum());
        if sign != Ordering::Equal {
            return sign;
        }
        let (a, b) = (Wide::from(self.unscaled.unsigned_abs()), Wide::from(other.unscaled.unsigned_abs()));
        let difference = u16::from(self.scale.abs_diff(other.scale));
        // A scale is at most 38, so both fit 256 bits; where one does not, it is the larger.
        let by_size = if self.scale < other.scale {
            a.times_power_of_ten(difference).map_or(Ordering::Greater, |a| a.cmp(&b))
        } else {
            b.times_power_of_ten(difference).map_or(Ordering::Less, |b| a.cmp(&b))
        };
        if self.unscaled < 0 { by_size.reverse() } else { by_size }
    }
}

impl From<i64> for Decimal {
    fn from(whole: i64) -> Self {
        Self::new(i128::from(whole), 0)
    }
}

impl fmt::Display for Decimal {
    /// All digits of its scale: `1.50`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.unscaled.unsigned_abs().to_string();
        let scale = usize::from(self.scale);
        let sign = if self.unscaled < 0 { "-" } else { "" };
        if scale == 0 {
            return write!(f, "{sign}{digits}");
        }
        if digits.len() > scale {
            let (whole, fraction) = digits.split_at(digits.len() - scale);
            write!(f, "{sign}{whole}.{fraction}")
        } else {
            write!(f, "{sign}0.{digits:0>scale$}")
        }
    }
}

/// Not a number of at most 38 digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a decimal number of at most 38 digits")]
pub struct ParseDecimalError;

impl FromStr for Decimal {
    type Err = ParseDecimalError;

    /// `-1.50` has scale 2; `1e3` has scale 0.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text, None).ok_or(ParseDecimalError)
    }
}

/// With `scale`, rounded to it: more digits may follow the point than fit.
fn parse(text: &str, scale: Option<u8>) -> Option<Decimal> {
    let (negative, unsigned) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], unsigned[at + 1..].parse::<i32>().ok()?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    if !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let own_scale = i32::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
    let kept_scale = scale.map_or(own_scale.max(0), i32::from);
    // Digits behind the kept scale are dropped; the first of them rounds.
    let all = whole.len() + fraction.len();
    let drop = usize::try_from(own_scale.saturating_sub(kept_scale)).unwrap_or(0);
    let mut magnitude: u128 = 0;
    let mut digits = whole.bytes().chain(fraction.bytes());
    for digit in digits.by_ref().take(all.saturating_sub(drop)) {
        magnitude = magnitude.checked_mul(10)?.checked_add(u128::from(digit - b'0'))?;
    }
    if drop > 0 && drop <= all && digits.next().is_some_and(|digit| digit >= b'5') {
        magnitude = magnitude.checked_add(1)?;
    }
    if kept_scale > own_scale && magnitude != 0 {
        let factor = power_of_ten(u8::try_from(kept_scale - own_scale).ok()?)?;
        magnitude = magnitude.checked_mul(factor.unsigned_abs())?;
    }
    let scale = u8::try_from(kept_scale).ok().filter(|scale| *scale <= Decimal::MAX_PRECISION)?;
    Decimal::new(signed(magnitude, negative)?, scale).bounded(Decimal::MAX_PRECISION)
}

/// `10^exponent` where that fits.
fn power_of_ten(exponent: u8) -> Option<i128> {
    10i128.checked_pow(u32::from(exponent))
}

fn signed(magnitude: u128, negative: bool) -> Option<i128> {
    let value = i128::try_from(magnitude).ok()?;
    Some(if negative { -value } else { value })
}

fn divide_rounding(dividend: u128, divisor: u128) -> u128 {
    let (quotient, remainder) = (dividend / divisor, dividend % divisor);
    quotient + u128::from(remainder >= divisor - remainder)
}

/// An unsigned number of 256 bits: just what products and quotients of 38 digits need.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Wide {
    high: u128,
    low: u128,
}

impl From<u128> for Wide {
    fn from(low: u128) -> Self {
        Self { high: 0, low }
    }
}

impl Wide {
    /// Schoolbook multiplication in 64-bit halves.
    fn multiply(a: u128, b: u128) -> Self {
        const MASK: u128 = u64::MAX as u128;
        let (a_high, a_low) = (a >> 64, a & MASK);
        let (b_high, b_low) = (b >> 64, b & MASK);
        let low = a_low * b_low;
        let middle = a_high * b_low + (low >> 64);
        let middle_low = (middle & MASK) + a_low * b_high;
        Self { high: a_high * b_high + (middle >> 64) + (middle_low >> 64), low: (middle_low << 64) | (low & MASK) }
    }

    fn times_power_of_ten(self, mut exponent: u16) -> Option<Self> {
        let mut product = self;
        while exponent > 0 {
            let step = exponent.min(38);
            let factor = power_of_ten(u8::try_from(step).ok()?)?.unsigned_abs();
            let low = Self::multiply(product.low, factor);
            let high = product.high.checked_mul(factor)?;
            product = Self { high: high.checked_add(low.high)?, low: low.low };
            exponent -= step;
        }
        Some(product)
    }

    fn divide_by_power_of_ten(self, exponent: u8) -> Option<u128> {
        match power_of_ten(exponent.min(38)) {
            Some(divisor) if exponent <= 38 => self.divide_rounding(divisor.unsigned_abs()),
            // The first division must not round: it keeps one digit more than the last one drops.
            _ => {
                let (quotient, _) = self.divide(power_of_ten(38)?.unsigned_abs())?;
                let rest = power_of_ten(exponent - 38)?;
                Some(divide_rounding(quotient, rest.unsigned_abs()))
            }
        }
    }

    fn divide_rounding(self, divisor: u128) -> Option<u128> {
        let (quotient, remainder) = self.divide(divisor)?;
        quotient.checked_add(u128::from(remainder >= divisor - remainder))
    }

    /// Long division, bit by bit; `None` where the quotient has more than 128 bits.
    fn divide(self, divisor: u128) -> Option<(u128, u128)> {
        if self.high == 0 {
            return Some((self.low / divisor, self.low % divisor));
        }
        if self.high >= divisor {
            return None;
        }
        let (mut remainder, mut quotient) = (self.high, 0u128);
        for bit in (0..128).rev() {
            let carry = remainder >> 127;
            remainder = (remainder << 1) | ((self.low >> bit) & 1);
            quotient <<= 1;
            if carry == 1 || remainder >= divisor {
                remainder = remainder.wrapping_sub(divisor);
                quotient |= 1;
            }
        }
        Some((quotient, remainder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    #[test]
    fn text_keeps_its_scale() {
        for text in ["0", "1.50", "-0.05", "12345678901234567890123456789012345678", "0.00000000000000000001"] {
            assert_eq!(decimal(text).to_string(), text);
        }
        assert_eq!(decimal("1e3").to_string(), "1000");
        assert_eq!(decimal("12.5e-2").to_string(), "0.125");
        assert_eq!(decimal("+.5").to_string(), "0.5");
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["", "-", ".", "1.2.3", "1x", "e3", "123456789012345678901234567890123456789", " 1"] {
            assert_eq!(text.parse::<Decimal>(), Err(ParseDecimalError), "{text}");
        }
    }

    #[test]
    fn numbers_compare_whatever_their_scale() {
        assert_eq!(decimal("1.0"), decimal("1.00"));
        assert!(decimal("-1.5") < decimal("-1.49"));
        assert!(
            decimal("99999999999999999999999999999999999999") > decimal("0.00000000000000000000000000000000000001")
        );
        assert!(decimal("-2") < decimal("0.1"));
    }

    #[test]
    fn rounding_is_half_away_from_zero() {
        assert_eq!(decimal("2.345").rescaled(2).unwrap().to_string(), "2.35");
        assert_eq!(decimal("-2.345").rescaled(2).unwrap().to_string(), "-2.35");
        assert_eq!(decimal("0.5").rounded(), Some(1));
        assert_eq!(Decimal::from_f64(0.1, 2).unwrap().to_string(), "0.10");
        assert_eq!(Decimal::from_f64(1e-9, 2).unwrap().to_string(), "0.00");
        assert_eq!(Decimal::from_f64(1e21, 0).unwrap().to_string(), "1000000000000000000000");
    }

    #[test]
    fn products_and_quotients_of_38_digits_are_exact_or_refused() {
        let big = decimal("9999999999999999999.9999999999999999999");
        assert_eq!(big.multiply(decimal("1.0000000000000000000"), 19), Some(big));
        assert_eq!(big.multiply(big, 19), None);
        assert_eq!(big.multiply(big, 0).unwrap().to_string(), "99999999999999999999999999999999999998");
        assert_eq!(big.multiply(decimal("10.000"), 19), None, "it has 39 digits");
        assert_eq!(
            big.multiply(decimal("0.5000000000000000000"), 19).unwrap().to_string(),
            "5000000000000000000.0000000000000000000"
        );
        assert_eq!(decimal("1").divide(decimal("3"), 6).unwrap().to_string(), "0.333333");
        assert_eq!(decimal("2").divide(decimal("3"), 6).unwrap().to_string(), "0.666667");
        assert_eq!(decimal("1").divide(decimal("0"), 6), None);
        assert_eq!(decimal("-7.5").remainder(decimal("2"), 1).unwrap().to_string(), "-1.5");
        assert_eq!(big.divide(decimal("0.0000000000000000001"), 0).unwrap().digits(), 38);
        assert_eq!(big.divide(decimal("0.00000000000000000001"), 0), None);
    }
}
