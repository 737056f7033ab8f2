//! A cursor over one JSON text (RFC 8259): recognises tokens in place and skips what nobody asked for.
//!
//! What it is not: it knows no types and builds no tree.
//!
//! Invariants
//! - The text is valid UTF-8 before the first token is looked at, so that a slice between two ASCII bytes is text.
//! - What is skipped is held to the same grammar as what is read.

use compact_str::CompactString;

use super::Fault;

/// Deeper nesting is refused: skipping recurses.
pub(super) const MAX_DEPTH: u32 = 128;

#[derive(Debug)]
pub(super) struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

/// The content of a string token.
pub(super) enum Text<'a> {
    Plain(&'a str),
    Unescaped(CompactString),
}

/// A number token, taken apart as far as it costs nothing.
pub(super) struct Number<'a> {
    pub text: &'a str,
    pub negative: bool,
    /// The digits without the point; meaningless unless `short`.
    pub digits: u64,
    /// At most 19 digits in all and an exponent of at most four.
    pub short: bool,
    /// Of ten, to be applied to `digits`.
    pub exponent: i32,
    /// Neither a point nor an exponent.
    pub integral: bool,
}

impl Text<'_> {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Plain(text) => text,
            Self::Unescaped(text) => text,
        }
    }

    pub fn into_compact(self) -> CompactString {
        match self {
            Self::Plain(text) => CompactString::new(text),
            Self::Unescaped(text) => text,
        }
    }
}

impl<'a> Scanner<'a> {
    pub fn new(bytes: &'a [u8]) -> Result<Self, Fault> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Self { text, bytes, at: 0 }),
            Err(error) => Err(Fault::malformed(format!("not UTF-8 at byte {}", error.valid_up_to()))),
        }
    }

    #[inline]
    pub fn position(&self) -> usize {
        self.at
    }

    /// The text from a position that [`Self::position`] gave to the current one.
    pub fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    #[inline]
    pub fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline]
    pub fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// Goes past `byte` if it is next, after white space.
    #[inline]
    pub fn take(&mut self, byte: u8) -> bool {
        if self.peek() != Some(byte) {
            self.skip_space();
            if self.peek() != Some(byte) {
                return false;
            }
        }
        self.at += 1;
        true
    }

    /// Goes past these very bytes if they are next.
    #[inline]
    pub fn take_exactly(&mut self, expected: &[u8]) -> bool {
        let found = self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(expected));
        if found {
            self.at += expected.len();
        }
        found
    }

    #[inline]
    pub fn expect(&mut self, byte: u8) -> Result<(), Fault> {
        if self.take(byte) { Ok(()) } else { Err(self.unexpected(&format!("`{}`", char::from(byte)))) }
    }

    /// Goes past `null`, `true` or `false`.
    #[inline]
    pub fn literal(&mut self, word: &'static str) -> Result<(), Fault> {
        if self.take_exactly(word.as_bytes()) { Ok(()) } else { Err(self.unexpected("a value")) }
    }

    /// Nothing but white space is left.
    pub fn end(&mut self) -> Result<(), Fault> {
        self.skip_space();
        if self.at == self.bytes.len() { Ok(()) } else { Err(self.unexpected("the end")) }
    }

    #[cold]
    pub fn unexpected(&self, wanted: &str) -> Fault {
        let at = self.at;
        Fault::malformed(match self.text.get(at..).and_then(|rest| rest.chars().next()) {
            Some(found) => format!("expected {wanted} at byte {at}, found `{}`", found.escape_debug()),
            None => format!("expected {wanted} at byte {at}, found the end"),
        })
    }

    /// What kind of value is next, for messages.
    #[cold]
    pub fn kind(&self) -> &'static str {
        match self.peek() {
            Some(b'"') => "a string",
            Some(b'{') => "an object",
            Some(b'[') => "an array",
            Some(b't' | b'f') => "a boolean",
            Some(b'n') => "null",
            Some(b'-' | b'0'..=b'9') => "a number",
            _ => "no value",
        }
    }

    // ---- strings ---------------------------------------------------------------------------------------------------

    /// The bytes of a string token without its quotes, escapes checked but left as they are.
    pub fn raw_string(&mut self) -> Result<&'a str, Fault> {
        self.string_token().map(|(raw, _)| raw)
    }

    pub fn string(&mut self) -> Result<Text<'a>, Fault> {
        let (raw, escaped) = self.string_token()?;
        if escaped { unescape(raw).map(Text::Unescaped) } else { Ok(Text::Plain(raw)) }
    }

    /// The content, and whether it has escapes.
    #[inline]
    fn string_token(&mut self) -> Result<(&'a str, bool), Fault> {
        if self.peek() != Some(b'"') {
            return Err(self.unexpected("a string"));
        }
        self.at += 1;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at += plain_length(self.bytes.get(self.at..).unwrap_or_default());
            match self.peek() {
                Some(b'"') => {
                    let content = self.text.get(start..self.at).unwrap_or_default();
                    self.at += 1;
                    return Ok((content, escaped));
                }
                Some(b'\\') => {
                    escaped = true;
                    self.skip_escape()?;
                }
                Some(_) => return Err(self.unexpected("no control character in a string")),
                None => return Err(self.unexpected("`\"`")),
            }
        }
    }

    fn skip_escape(&mut self) -> Result<(), Fault> {
        let escape = self.bytes.get(self.at + 1..).unwrap_or_default();
        self.at += match escape {
            [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            [b'u', a, b, c, d, ..] if [a, b, c, d].iter().all(|digit| digit.is_ascii_hexdigit()) => 6,
            _ => return Err(Fault::malformed(format!("unknown escape at byte {}", self.at))),
        };
        Ok(())
    }

    // ---- numbers ---------------------------------------------------------------------------------------------------

    #[inline]
    pub fn number(&mut self) -> Result<Number<'a>, Fault> {
        let start = self.at;
        let negative = self.peek() == Some(b'-');
        self.at += usize::from(negative);
        let first_digit = self.at;
        let mut digits = self.digits(0);
        let whole = self.at - first_digit;
        if whole == 0 || (whole > 1 && self.bytes.get(first_digit) == Some(&b'0')) {
            return Err(self.unexpected("a number"));
        }
        let mut count = whole;
        let mut exponent = 0_i32;
        let mut short = true;
        let mut integral = true;
        if self.peek() == Some(b'.') {
            integral = false;
            self.at += 1;
            let fraction_start = self.at;
            digits = self.digits(digits);
            let fraction = self.at - fraction_start;
            if fraction == 0 {
                return Err(self.unexpected("a digit"));
            }
            count += fraction;
            exponent = i32::try_from(fraction).map_or(0, |fraction| -fraction);
        }
        if let Some(b'e' | b'E') = self.peek() {
            integral = false;
            self.at += 1;
            let down = self.peek() == Some(b'-');
            self.at += usize::from(matches!(self.peek(), Some(b'-' | b'+')));
            let exponent_start = self.at;
            let written = self.digits(0);
            let length = self.at - exponent_start;
            if length == 0 {
                return Err(self.unexpected("a digit"));
            }
            short = length <= 4;
            let written = i32::try_from(written).unwrap_or(0);
            exponent = exponent.wrapping_add(if down { -written } else { written });
        }
        Ok(Number { text: self.since(start), negative, digits, short: short && count <= 19, exponent, integral })
    }

    /// Goes past digits and adds them to `value`, which is meaningless beyond 19 of them.
    #[inline]
    fn digits(&mut self, mut value: u64) -> u64 {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let mut count = 0;
        for byte in rest {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
            count += 1;
        }
        self.at += count;
        value
    }

    // ---- whole values ----------------------------------------------------------------------------------------------

    /// Goes past one value, which is next after white space.
    pub fn skip_value(&mut self, depth: u32) -> Result<(), Fault> {
        self.skip_space();
        match self.peek() {
            Some(b'"') => self.skip_string(),
            Some(b'-' | b'0'..=b'9') => self.skip_number(),
            Some(b'{') => {
                self.at += 1;
                let mut first = true;
                while self.next_field(&mut first)? {
                    self.skip_space();
                    self.string_token()?;
                    self.expect(b':')?;
                    self.skip_value(self.deeper(depth)?)?;
                }
                Ok(())
            }
            Some(b'[') => {
                self.at += 1;
                let mut first = true;
                while self.next_element(&mut first)? {
                    self.skip_value(self.deeper(depth)?)?;
                }
                Ok(())
            }
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            _ => Err(self.unexpected("a value")),
        }
    }

    /// Nearly every string ends at the first byte that is special.
    #[inline]
    fn skip_string(&mut self) -> Result<(), Fault> {
        let content = self.bytes.get(self.at + 1..).unwrap_or_default();
        let length = plain_length(content);
        if content.get(length) == Some(&b'"') {
            self.at += length + 2;
            return Ok(());
        }
        self.string_token().map(|_| ())
    }

    /// Nearly every number is digits, or digits, a point and digits.
    #[inline]
    fn skip_number(&mut self) -> Result<(), Fault> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let after = |from: usize| {
            let digits = rest.get(from..).unwrap_or_default().iter().take_while(|byte| byte.is_ascii_digit()).count();
            (digits, rest.get(from + digits).copied())
        };
        let (whole, mut next) = after(0);
        let mut length = whole;
        let mut is_plain = whole == 1 || (whole > 1 && rest.first() != Some(&b'0'));
        if next == Some(b'.') {
            let (fraction, end) = after(whole + 1);
            is_plain &= fraction > 0;
            (length, next) = (whole + 1 + fraction, end);
        }
        if is_plain && !matches!(next, Some(b'e' | b'E')) {
            self.at += length;
            return Ok(());
        }
        self.number().map(|_| ())
    }

    pub fn deeper(&self, depth: u32) -> Result<u32, Fault> {
        if depth < MAX_DEPTH {
            Ok(depth + 1)
        } else {
            Err(Fault::malformed(format!("nested more than {MAX_DEPTH} deep at byte {}", self.at)))
        }
    }

    /// Whether another field of an object follows; `first` is of the caller's loop.
    #[inline]
    pub fn next_field(&mut self, first: &mut bool) -> Result<bool, Fault> {
        self.next_item(first, b'}', "`,` or `}`")
    }

    /// Whether another element of an array follows; `first` is of the caller's loop.
    #[inline]
    pub fn next_element(&mut self, first: &mut bool) -> Result<bool, Fault> {
        self.next_item(first, b']', "`,` or `]`")
    }

    #[inline]
    fn next_item(&mut self, first: &mut bool, close: u8, wanted: &'static str) -> Result<bool, Fault> {
        if *first {
            *first = false;
            return Ok(!self.take(close));
        }
        if self.take(b',') {
            return Ok(true);
        }
        if self.take(close) { Ok(false) } else { Err(self.unexpected(wanted)) }
    }
}

/// How many leading bytes are neither a quote, a backslash nor a control character. Eight at a time: the lowest marked
/// bit of each mask is exact (Bit Twiddling Hacks, "determine if a word has a byte less than n").
#[inline]
pub(super) fn plain_length(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);
    let (words, tail) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let quote = word ^ (ONES * u64::from(b'"'));
        let backslash = word ^ (ONES * u64::from(b'\\'));
        let marked = (quote.wrapping_sub(ONES) & !quote)
            | (backslash.wrapping_sub(ONES) & !backslash)
            | (word.wrapping_sub(ONES * 0x20) & !word);
        let marked = marked & HIGHS;
        if marked != 0 {
            return index * 8 + (marked.trailing_zeros() / 8) as usize;
        }
    }
    let plain = tail.iter().take_while(|&&byte| byte != b'"' && byte != b'\\' && byte >= 0x20).count();
    words.len() * 8 + plain
}

/// Of a string whose escapes have been checked; only surrogates can still be wrong.
pub(super) fn unescape(raw: &str) -> Result<CompactString, Fault> {
    let mut text = CompactString::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((before, escape)) = rest.split_once('\\') {
        text.push_str(before);
        let (character, length) = match escape.as_bytes().first() {
            Some(b'b') => ('\u{8}', 1),
            Some(b'f') => ('\u{c}', 1),
            Some(b'n') => ('\n', 1),
            Some(b'r') => ('\r', 1),
            Some(b't') => ('\t', 1),
            Some(b'u') => unescape_unicode(escape)?,
            Some(&byte) => (char::from(byte), 1),
            None => return Err(Fault::malformed("a string ends within an escape".to_owned())),
        };
        text.push(character);
        rest = escape.get(length..).unwrap_or_default();
    }
    text.push_str(rest);
    Ok(text)
}

/// Of `uXXXX...`: the character, of two escapes where it is beyond the basic plane, and their length.
fn unescape_unicode(escape: &str) -> Result<(char, usize), Fault> {
    let unit = |from: usize| escape.get(from..from + 4).and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let first = unit(1);
    let character = match first {
        Some(high @ 0xD800..=0xDBFF) => match (escape.get(5..7), unit(7)) {
            (Some("\\u"), Some(low @ 0xDC00..=0xDFFF)) => {
                return char::from_u32(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))
                    .map(|character| (character, 11))
                    .ok_or_else(|| Fault::malformed("a surrogate without its pair".to_owned()));
            }
            _ => None,
        },
        other => other.and_then(char::from_u32),
    };
    character.map(|character| (character, 5)).ok_or_else(|| Fault::malformed("a surrogate without its pair".to_owned()))
}
