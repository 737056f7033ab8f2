//! Objects into slots, without a tree in between.
//!
//! The hot path of every topology: what a column's type asks for is resolved when the decoder is made, names are found by
//! prediction (`names`), and values that nobody reads are skipped in place.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::Fault;
use super::names::{Names, Place};
use super::scanner::{Number, Scanner};
use crate::format::DecodeError;
use crate::format::number::Digits;
use crate::format::time;
use crate::row::Row;
use crate::schema::{Column, Schema, Type};
use crate::value::Value;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Powers of ten that a DOUBLE holds exactly.
const EXACT_POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

#[derive(Debug)]
pub(in crate::format) struct JsonDecoder {
    object: Object,
    /// One more than the last slot that is written.
    width: usize,
}

impl JsonDecoder {
    pub fn new(schema: &Schema, used: &[bool], first_slot: usize) -> Self {
        let columns = schema.columns().iter().enumerate();
        let fields = columns
            .filter(|(index, _)| used.get(*index).copied().unwrap_or(false))
            .map(|(index, column)| Field::new(column, first_slot + index))
            .collect();
        Self { object: Object::new(fields), width: first_slot + schema.len() }
    }

    pub fn decode(&mut self, bytes: &[u8], into: &mut Row) -> Result<(), DecodeError> {
        if into.len() < self.width {
            into.resize(self.width, Value::Null);
        }
        self.read(bytes, into).map_err(Fault::into_error)
    }

    fn read(&mut self, bytes: &[u8], into: &mut [Value]) -> Result<(), Fault> {
        let mut scanner = Scanner::new(bytes)?;
        scanner.skip_space();
        if scanner.peek() != Some(b'{') {
            scanner.skip_value(0)?;
            return Err(Fault::malformed("the record is not an object".to_owned()));
        }
        self.object.read(&mut scanner, into, 0)?;
        scanner.end()
    }
}

/// The fields of an object that are read.
#[derive(Debug)]
struct Object {
    fields: Vec<Field>,
    names: Names,
    /// The fields that may not be NULL.
    required: Vec<usize>,
}

#[derive(Debug)]
struct Field {
    name: Arc<str>,
    slot: usize,
    nullable: bool,
    reader: Reader,
}

impl Field {
    fn new(column: &Column, slot: usize) -> Self {
        Self { name: column.name.clone(), slot, nullable: column.nullable, reader: Reader::new(&column.ty) }
    }
}

impl Object {
    fn new(fields: Vec<Field>) -> Self {
        let required = fields.iter().enumerate().filter(|(_, field)| !field.nullable).map(|(index, _)| index).collect();
        Self { fields, names: Names::new(), required }
    }

    /// Fills the fields' slots; the scanner stands at `{`.
    fn read(&mut self, scanner: &mut Scanner<'_>, slots: &mut [Value], depth: u32) -> Result<(), Fault> {
        let Self { fields, names, required } = self;
        for field in &*fields {
            slots[field.slot] = Value::Null;
        }
        scanner.expect(b'{')?;
        let depth = scanner.deeper(depth)?;
        let mut place = Place::START;
        let mut first = true;
        while scanner.next_field(&mut first)? {
            scanner.skip_space();
            let field = match names.likely(place) {
                Some((quoted, field, after)) if scanner.take_exactly(quoted) => {
                    place = after;
                    field
                }
                _ => {
                    let raw = scanner.raw_string()?;
                    let (field, after) = names.find(place, raw, |raw| resolve(fields, raw));
                    place = after;
                    scanner.expect(b':')?;
                    field
                }
            };
            let Some(field) = field.and_then(|field| fields.get_mut(field)) else {
                scanner.skip_value(depth)?;
                continue;
            };
            scanner.skip_space();
            field
                .reader
                .read(scanner, &mut slots[field.slot], depth)
                .map_err(|fault| fault.within(&step(&field.name)))?;
        }
        for field in required.iter().filter_map(|&index| fields.get(index)) {
            if slots[field.slot].is_null() {
                return Err(Fault::mismatch("missing or null, but NOT NULL".to_owned()).within(&step(&field.name)));
            }
        }
        Ok(())
    }
}

fn step(name: &str) -> String {
    format!(".{name}")
}

/// The field that a name as written means.
fn resolve(fields: &[Field], raw: &str) -> Option<usize> {
    // A name with a broken surrogate names no column.
    let name = super::scanner::unescape(raw).ok()?;
    fields.iter().position(|field| *field.name == *name)
}

/// What to do with a value, by type.
#[derive(Debug)]
enum Reader {
    Null,
    Boolean,
    Int,
    Bigint,
    Double,
    Decimal { precision: u8, scale: u8 },
    String,
    Bytes,
    Date,
    Timestamp,
    Interval,
    Array(Box<Reader>),
    Map(Box<Reader>),
    Struct(Box<Object>),
    Json,
}

impl Reader {
    fn new(ty: &Type) -> Self {
        match ty {
            Type::Null => Self::Null,
            Type::Boolean => Self::Boolean,
            Type::Int => Self::Int,
            Type::Bigint => Self::Bigint,
            Type::Double => Self::Double,
            Type::Decimal { precision, scale } => Self::Decimal { precision: *precision, scale: *scale },
            Type::String => Self::String,
            Type::Bytes => Self::Bytes,
            Type::Date => Self::Date,
            Type::Timestamp => Self::Timestamp,
            Type::Interval => Self::Interval,
            Type::Array(element) => Self::Array(Box::new(Self::new(element))),
            Type::Map(value) => Self::Map(Box::new(Self::new(value))),
            Type::Struct(columns) => {
                let fields = columns.iter().enumerate().map(|(slot, column)| Field::new(column, slot)).collect();
                Self::Struct(Box::new(Object::new(fields)))
            }
            Type::Json => Self::Json,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Null => "NULL",
            Self::Boolean => "BOOLEAN",
            Self::Int => "INT",
            Self::Bigint => "BIGINT",
            Self::Double => "DOUBLE",
            Self::Decimal { .. } => "DECIMAL",
            Self::String => "STRING",
            Self::Bytes => "BYTES (base64 text)",
            Self::Date => "DATE",
            Self::Timestamp => "TIMESTAMP (RFC 3339 or epoch milliseconds)",
            Self::Interval => "INTERVAL (ISO 8601)",
            Self::Array(_) => "ARRAY",
            Self::Map(_) => "MAP",
            Self::Struct(_) => "STRUCT",
            Self::Json => "JSON",
        }
    }

    /// The scanner stands at the value.
    fn read(&mut self, scanner: &mut Scanner<'_>, slot: &mut Value, depth: u32) -> Result<(), Fault> {
        let Some(first) = scanner.peek() else { return Err(scanner.unexpected("a value")) };
        // Written in place by each arm: a value that comes out of the match is copied byte by byte around its tag.
        match (&mut *self, first) {
            (_, b'n') => {
                scanner.literal("null")?;
                *slot = Value::Null;
            }
            (Self::String, b'"') => *slot = Value::String(scanner.string()?.into_compact()),
            (Self::Bigint, b'-' | b'0'..=b'9') => *slot = Value::Bigint(integer(&scanner.number()?, "BIGINT")?),
            (Self::Int, b'-' | b'0'..=b'9') => {
                let number = scanner.number()?;
                let value = integer(&number, "INT")?;
                *slot = Value::Int(i32::try_from(value).map_err(|_| out_of_range(&number, "INT"))?);
            }
            (Self::Double, b'-' | b'0'..=b'9') => *slot = Value::Double(double(&scanner.number()?)?),
            (Self::Boolean, b't') => {
                scanner.literal("true")?;
                *slot = Value::Boolean(true);
            }
            (Self::Boolean, b'f') => {
                scanner.literal("false")?;
                *slot = Value::Boolean(false);
            }
            (Self::Timestamp, b'"') => *slot = Value::Timestamp(self.parse(scanner, time::parse_timestamp)?),
            (Self::Timestamp, b'-' | b'0'..=b'9') => *slot = Value::Timestamp(epoch_millis(&scanner.number()?)?),
            (Self::Decimal { precision, scale }, b'"') => {
                let (precision, scale) = (*precision, *scale);
                let fitting = |text: &str| Digits::parse(text)?.decimal(precision, scale);
                let text = scanner.string()?;
                let decimal = fitting(text.as_str()).ok_or_else(|| not_a_decimal(text.as_str(), precision, scale))?;
                *slot = Value::Decimal(decimal);
            }
            (Self::Decimal { precision, scale }, b'-' | b'0'..=b'9') => {
                let number = scanner.number()?;
                let decimal = digits(&number).and_then(|digits| digits.decimal(*precision, *scale));
                *slot = Value::Decimal(decimal.ok_or_else(|| not_a_decimal(number.text, *precision, *scale))?);
            }
            (Self::Date, b'"') => *slot = Value::Date(self.parse(scanner, time::parse_date)?),
            (Self::Interval, b'"') => *slot = Value::Interval(self.parse(scanner, time::parse_interval)?),
            (Self::Bytes, b'"') => *slot = Value::bytes(self.parse(scanner, bytes)?),
            (Self::Array(element), b'[') => *slot = read_array(element, scanner, depth)?,
            (Self::Map(value), b'{') => *slot = read_map(value, scanner, depth)?,
            (Self::Struct(object), b'{') => {
                let mut slots = vec![Value::Null; object.fields.len()];
                object.read(scanner, &mut slots, depth)?;
                *slot = Value::Struct(Arc::from(slots));
            }
            (Self::Json, _) => {
                let start = scanner.position();
                scanner.skip_value(depth)?;
                let tree = serde_json::from_str(scanner.since(start));
                *slot = Value::Json(Arc::new(tree.map_err(|error| Fault::mismatch(error.to_string()))?));
            }
            (Self::Null, _) => return Err(Fault::mismatch("only null fits the type NULL".to_owned())),
            _ => {
                let found = scanner.kind();
                // Where it is no value at all, that is what is wrong.
                scanner.skip_value(depth)?;
                return Err(Fault::mismatch(format!("expected {}, found {found}", self.name())));
            }
        }
        Ok(())
    }

    fn parse<T>(&self, scanner: &mut Scanner<'_>, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, Fault> {
        let text = scanner.string()?;
        parse(text.as_str()).ok_or_else(|| Fault::mismatch(format!("`{}` is not a {}", text.as_str(), self.name())))
    }
}

/// Of base64 text, padded or not.
pub(super) fn bytes(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text).ok()
}

fn read_array(reader: &mut Reader, scanner: &mut Scanner<'_>, depth: u32) -> Result<Value, Fault> {
    scanner.expect(b'[')?;
    let depth = scanner.deeper(depth)?;
    let mut elements = Vec::new();
    let mut first = true;
    while scanner.next_element(&mut first)? {
        scanner.skip_space();
        let mut element = Value::Null;
        reader.read(scanner, &mut element, depth).map_err(|fault| fault.within(&format!("[{}]", elements.len())))?;
        elements.push(element);
    }
    Ok(Value::Array(Arc::from(elements)))
}

fn read_map(reader: &mut Reader, scanner: &mut Scanner<'_>, depth: u32) -> Result<Value, Fault> {
    scanner.expect(b'{')?;
    let depth = scanner.deeper(depth)?;
    let mut entries = BTreeMap::new();
    let mut first = true;
    while scanner.next_field(&mut first)? {
        scanner.skip_space();
        let key = scanner.string()?.into_compact();
        scanner.expect(b':')?;
        scanner.skip_space();
        let mut value = Value::Null;
        reader.read(scanner, &mut value, depth).map_err(|fault| fault.within(&format!("['{key}']")))?;
        entries.insert(key, value);
    }
    Ok(Value::Map(Arc::new(entries)))
}

fn digits(number: &Number<'_>) -> Option<Digits> {
    if !number.short {
        return Digits::parse(number.text);
    }
    let digits = i128::from(number.digits);
    Some(Digits { digits: if number.negative { -digits } else { digits }, exponent: number.exponent })
}

#[inline]
fn integer(number: &Number<'_>, ty: &'static str) -> Result<i64, Fault> {
    if number.integral && number.short {
        let value =
            if number.negative { 0_i64.checked_sub_unsigned(number.digits) } else { number.digits.try_into().ok() };
        return value.ok_or_else(|| out_of_range(number, ty));
    }
    let Some(digits) = digits(number) else { return Err(out_of_range(number, ty)) };
    // 1.0 and 1e3 are integers too: some writers spell all numbers like that.
    digits.integer().ok_or_else(|| {
        if number.integral {
            return out_of_range(number, ty);
        }
        Fault::mismatch(format!("{} is not an integer in the range of {ty}", number.text))
    })
}

/// Clinger's fast path: digits and power are exact, so that the one operation rounds correctly.
#[inline]
fn double(number: &Number<'_>) -> Result<f64, Fault> {
    if number.short
        && number.digits <= 1 << 53
        && let Some(power) = EXACT_POWERS.get(number.exponent.unsigned_abs() as usize)
    {
        let digits = number.digits as f64;
        let value = if number.exponent < 0 { digits / power } else { digits * power };
        return Ok(if number.negative { -value } else { value });
    }
    match number.text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        _ => Err(out_of_range(number, "DOUBLE")),
    }
}

/// Microseconds of a number of milliseconds, whose fraction is cut below microseconds.
fn epoch_millis(number: &Number<'_>) -> Result<i64, Fault> {
    if number.integral && number.short {
        let micros = integer(number, "TIMESTAMP")?.checked_mul(1000);
        return micros.ok_or_else(|| out_of_range(number, "TIMESTAMP"));
    }
    let micros = digits(number).and_then(|digits| digits.times_power_of_ten_rounded_down(3));
    micros.and_then(|micros| i64::try_from(micros).ok()).ok_or_else(|| out_of_range(number, "TIMESTAMP"))
}

#[cold]
fn out_of_range(number: &Number<'_>, ty: &'static str) -> Fault {
    Fault::mismatch(format!("{} is out of the range of {ty}", number.text))
}

#[cold]
fn not_a_decimal(text: &str, precision: u8, scale: u8) -> Fault {
    Fault::mismatch(format!("`{text}` does not fit DECIMAL({precision},{scale})"))
}
