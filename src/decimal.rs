//! `DECIMAL(p,s)`: an exact number of at most 38 digits. The scale travels with the value; the type bounds both.

/// `unscaled * 10^-scale`.
#[derive(Clone, Copy, Debug)]
pub struct Decimal {
    pub unscaled: i128,
    pub scale: u8,
}

impl Decimal {
    /// The most digits a DECIMAL may have.
    pub const MAX_PRECISION: u8 = 38;

    pub fn new(unscaled: i128, scale: u8) -> Self {
        Self { unscaled, scale }
    }
}

impl PartialEq for Decimal {
    /// By number: 1.0 equals 1.00.
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (self.normalised(), other.normalised());
        a.unscaled == b.unscaled && a.scale == b.scale
    }
}

impl Eq for Decimal {}

impl Decimal {
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
}
