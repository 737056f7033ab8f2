//! The functions, a closed table: one entry each, with its signatures, what it does and how.
//!
//! To add a function, write its entry in [`TABLE`], its implementation in the file of its family, and a line in
//! `docs/functions.md` (a test compares them).
//!
//! Signatures: `[, x T]` is optional, `x T...` repeats. `T` is one type for all that say T, `NUMBER` any number, `ANY`
//! anything; a result `NUMBER` has the type of the first argument. `or NULL` says that the result may be NULL where no
//! argument is.

#![expect(clippy::unnecessary_wraps, reason = "every implementation has the type of the table")]

pub mod array;
pub mod hash;
pub mod json;
pub mod math;
pub mod random;
pub mod text;
pub mod time;

use std::sync::LazyLock;

use rustc_hash::FxHashMap;

use super::EvalError;
use super::eval::{Eval, Implementation};
use super::type_syntax;
use crate::schema::Type;

pub use text::hex_decode;

/// One entry of the table.
#[derive(Debug)]
pub struct Function {
    /// What it takes and returns, as the documentation shows it. Another form of the same function is another entry.
    pub signature: &'static str,
    /// What it does, in a sentence.
    pub does: &'static str,
    pub family: Family,
    pub body: Body,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Text,
    Math,
    Conditional,
    Time,
    Json,
    Array,
    Hash,
    Geography,
    Random,
    /// Not called by name, but by an operator or a syntax of its own.
    Operator,
}

#[derive(Clone, Copy, Debug)]
pub enum Body {
    /// NULL where an argument is NULL.
    Strict(Implementation),
    /// Sees NULLs.
    Lenient(Implementation),
    /// Built by the checker.
    Special(Special),
}

#[derive(Clone, Copy, Debug)]
pub enum Special {
    Now,
    Coalesce,
    NullIf,
    Extremum(Implementation),
    Concat,
    ConcatWs,
    ToJson,
    TryParseJson,
    DatePart,
    DateTrunc,
    RandomChoice,
}

macro_rules! functions {
    ($($family:ident { $($signature:literal, $does:literal, $kind:ident($body:expr);)* })*) => {
        pub const TABLE: &[Function] = &[
            $($(Function {
                signature: $signature,
                does: $does,
                family: Family::$family,
                body: Body::$kind($body),
            },)*)*
        ];
    };
}

functions! {
    Text {
        "LOWER(text STRING) -> STRING", "In lower case.", Strict(text::lower);
        "UPPER(text STRING) -> STRING", "In upper case.", Strict(text::upper);
        "INITCAP(text STRING) -> STRING", "Each word with a capital.", Strict(text::initcap);
        "LENGTH(text STRING) -> INT", "Number of characters.", Strict(text::length);
        "LENGTH(bytes BYTES) -> INT", "Number of bytes.", Strict(text::byte_length);
        "CHAR_LENGTH(text STRING) -> INT", "Number of characters.", Strict(text::length);
        "OCTET_LENGTH(text STRING) -> INT", "Number of bytes in UTF-8.", Strict(text::byte_length);
        "TRIM(text STRING [, characters STRING]) -> STRING", "Without blanks, or the characters given, at both ends; also TRIM(BOTH 'x' FROM text).", Strict(text::trim);
        "LTRIM(text STRING [, characters STRING]) -> STRING", "Without blanks, or the characters given, at the start.", Strict(text::ltrim);
        "RTRIM(text STRING [, characters STRING]) -> STRING", "Without blanks, or the characters given, at the end.", Strict(text::rtrim);
        "BTRIM(text STRING [, characters STRING]) -> STRING", "As TRIM.", Strict(text::trim);
        "SUBSTRING(text STRING, start BIGINT [, length BIGINT]) -> STRING", "The part from the character at `start` (from 1); also SUBSTRING(text FROM 2 FOR 3).", Strict(text::substring);
        "SUBSTRING(text STRING, pattern STRING) -> STRING or NULL", "The part that matches a regular expression, or its first group.", Strict(text::substring_matching);
        "SUBSTR(text STRING, start BIGINT [, length BIGINT]) -> STRING", "As SUBSTRING.", Strict(text::substring);
        "OVERLAY(text STRING, with STRING, start BIGINT [, length BIGINT]) -> STRING", "With a part replaced; also OVERLAY(text PLACING x FROM 2 FOR 3).", Strict(text::overlay);
        "LEFT(text STRING, n BIGINT) -> STRING", "The first n characters; of negative n all but the last -n.", Strict(text::left);
        "RIGHT(text STRING, n BIGINT) -> STRING", "The last n characters; of negative n all but the first -n.", Strict(text::right);
        "POSITION(part STRING, text STRING) -> INT", "Where the part first stands, from 1; 0 where it does not; also POSITION(part IN text).", Strict(text::position);
        "STRPOS(text STRING, part STRING) -> INT", "As POSITION, the text first.", Strict(text::strpos);
        "REPLACE(text STRING, from STRING, to STRING) -> STRING", "With every occurrence replaced.", Strict(text::replace);
        "TRANSLATE(text STRING, from STRING, to STRING) -> STRING", "With each character of `from` replaced by the one at its place in `to`.", Strict(text::translate);
        "SPLIT_PART(text STRING, separator STRING, n BIGINT) -> STRING", "The n-th part (from 1, from the end if negative), or the empty text.", Strict(text::split_part);
        "CONCAT(value ANY...) -> STRING", "The texts of all values, NULLs left out.", Special(Special::Concat);
        "CONCAT_WS(separator STRING, value ANY...) -> STRING", "The texts of all values with a separator, NULLs left out.", Special(Special::ConcatWs);
        "LPAD(text STRING, length BIGINT [, fill STRING]) -> STRING", "Filled, or cut, to a length, on the left.", Strict(text::lpad);
        "RPAD(text STRING, length BIGINT [, fill STRING]) -> STRING", "Filled, or cut, to a length, on the right.", Strict(text::rpad);
        "REPEAT(text STRING, n BIGINT) -> STRING", "The text n times (at most 1 MB).", Strict(text::repeat);
        "REVERSE(text STRING) -> STRING", "The characters in reverse.", Strict(text::reverse);
        "STARTS_WITH(text STRING, start STRING) -> BOOLEAN", "Whether the text starts so.", Strict(text::starts_with);
        "ENDS_WITH(text STRING, end STRING) -> BOOLEAN", "Whether the text ends so.", Strict(text::ends_with);
        "CONTAINS(text STRING, part STRING) -> BOOLEAN", "Whether the part stands in the text.", Strict(text::contains);
        "ASCII(text STRING) -> INT", "Code point of the first character; 0 of the empty text.", Strict(text::ascii);
        "CHR(code BIGINT) -> STRING", "The character of a code point.", Strict(text::chr);
        "REGEXP_LIKE(text STRING, pattern STRING [, flags STRING]) -> BOOLEAN", "Whether a regular expression matches; flag i ignores case.", Strict(text::regexp_like);
        "REGEXP_MATCH(text STRING, pattern STRING [, flags STRING]) -> ARRAY<STRING> or NULL", "The groups of the first match, or the match itself; NULL without one.", Strict(text::regexp_match);
        "REGEXP_REPLACE(text STRING, pattern STRING, to STRING [, flags STRING]) -> STRING", "The first match replaced, with flag g all; \\1 stands for a group.", Strict(text::regexp_replace);
        "REGEXP_COUNT(text STRING, pattern STRING) -> INT", "How often a regular expression matches.", Strict(text::regexp_count);
        "ENCODE(bytes BYTES, format STRING) -> STRING", "As 'hex' or 'base64'.", Strict(text::encode);
        "DECODE(text STRING, format STRING) -> BYTES", "From 'hex' or 'base64'.", Strict(text::decode);
    }
    Math {
        "ABS(x NUMBER) -> NUMBER", "Without its sign.", Strict(math::abs);
        "SIGN(x NUMBER) -> INT", "-1, 0 or 1.", Strict(math::sign);
        "CEIL(x NUMBER) -> NUMBER", "The next whole number above.", Strict(math::ceil);
        "CEILING(x NUMBER) -> NUMBER", "As CEIL.", Strict(math::ceil);
        "FLOOR(x NUMBER) -> NUMBER", "The next whole number below.", Strict(math::floor);
        "ROUND(x NUMBER [, digits BIGINT]) -> NUMBER", "To digits after the point, halves away from zero; of DOUBLE without digits to the even neighbour.", Strict(math::round);
        "TRUNC(x NUMBER [, digits BIGINT]) -> NUMBER", "Cut to digits after the point.", Strict(math::trunc);
        "MOD(x INT, y INT) -> INT", "Remainder with the sign of x, as x % y.", Strict(math::modulo);
        "MOD(x BIGINT, y BIGINT) -> BIGINT", "Remainder with the sign of x, as x % y.", Strict(math::modulo);
        "DIV(x BIGINT, y BIGINT) -> BIGINT", "Whole quotient, cut toward zero.", Strict(math::div);
        "SQRT(x DOUBLE) -> DOUBLE", "Square root.", Strict(math::sqrt);
        "CBRT(x DOUBLE) -> DOUBLE", "Cube root.", Strict(math::cbrt);
        "POWER(x DOUBLE, y DOUBLE) -> DOUBLE", "x to the y, also x ^ y.", Strict(math::power);
        "POW(x DOUBLE, y DOUBLE) -> DOUBLE", "As POWER.", Strict(math::power);
        "EXP(x DOUBLE) -> DOUBLE", "e to the x.", Strict(math::exp);
        "LN(x DOUBLE) -> DOUBLE", "Natural logarithm.", Strict(math::ln);
        "LOG(x DOUBLE) -> DOUBLE", "Logarithm to base 10.", Strict(math::log10);
        "LOG(base DOUBLE, x DOUBLE) -> DOUBLE", "Logarithm to a base.", Strict(math::log);
        "LOG10(x DOUBLE) -> DOUBLE", "Logarithm to base 10.", Strict(math::log10);
        "LOG2(x DOUBLE) -> DOUBLE", "Logarithm to base 2.", Strict(math::log2);
        "PI() -> DOUBLE", "3.14159...", Strict(math::pi);
        "SIN(x DOUBLE) -> DOUBLE", "Sine, of radians.", Strict(math::sin);
        "COS(x DOUBLE) -> DOUBLE", "Cosine, of radians.", Strict(math::cos);
        "TAN(x DOUBLE) -> DOUBLE", "Tangent, of radians.", Strict(math::tan);
        "ASIN(x DOUBLE) -> DOUBLE", "Arc sine, in radians.", Strict(math::asin);
        "ACOS(x DOUBLE) -> DOUBLE", "Arc cosine, in radians.", Strict(math::acos);
        "ATAN(x DOUBLE) -> DOUBLE", "Arc tangent, in radians.", Strict(math::atan);
        "ATAN2(y DOUBLE, x DOUBLE) -> DOUBLE", "Angle of a point, in radians.", Strict(math::atan2);
        "DEGREES(x DOUBLE) -> DOUBLE", "Radians as degrees.", Strict(math::degrees);
        "RADIANS(x DOUBLE) -> DOUBLE", "Degrees as radians.", Strict(math::radians);
        "ISNAN(x DOUBLE) -> BOOLEAN", "Whether it is not a number.", Strict(math::is_nan);
        "WIDTH_BUCKET(x DOUBLE, low DOUBLE, high DOUBLE, count INT) -> INT", "Which of `count` equal buckets x falls into, from 1; 0 below, count + 1 above.", Strict(math::width_bucket);
    }
    Conditional {
        "COALESCE(value T...) -> T or NULL", "The first that is not NULL; later ones are not computed.", Special(Special::Coalesce);
        "NULLIF(a T, b T) -> T or NULL", "a, or NULL where it equals b.", Special(Special::NullIf);
        "GREATEST(value T...) -> T or NULL", "The greatest, NULLs left out.", Special(Special::Extremum(math::greatest));
        "LEAST(value T...) -> T or NULL", "The least, NULLs left out.", Special(Special::Extremum(math::least));
    }
    Time {
        "NOW() -> TIMESTAMP", "When the record was fetched; refused in on, group_by and key_by.", Special(Special::Now);
        "DATE_TRUNC(unit STRING, at TIMESTAMP [, zone STRING]) -> TIMESTAMP", "Start of the unit ('minute', 'hour', 'day', 'week', 'month' ...) that a time lies in, in UTC or a time zone.", Special(Special::DateTrunc);
        "DATE_PART(part STRING, at ANY) -> NUMBER", "As EXTRACT(part FROM at): BIGINT, of epoch, second, milliseconds and microseconds DOUBLE.", Special(Special::DatePart);
        "DATE_BIN(stride INTERVAL, at TIMESTAMP, origin TIMESTAMP) -> TIMESTAMP", "Start of the stride that a time lies in, counted from an origin.", Strict(time::date_bin);
        "TO_TIMESTAMP(seconds DOUBLE) -> TIMESTAMP", "From seconds since 1970.", Strict(time::to_timestamp);
        "TIMESTAMP_MS(milliseconds BIGINT) -> TIMESTAMP", "From milliseconds since 1970.", Strict(time::timestamp_ms);
        "EPOCH_MS(at TIMESTAMP) -> BIGINT", "Milliseconds since 1970, rounded down.", Strict(time::epoch_ms);
        "EPOCH_US(at TIMESTAMP) -> BIGINT", "Microseconds since 1970.", Strict(time::epoch_us);
        "MAKE_INTERVAL(years INT, months INT, weeks INT, days INT, hours INT, minutes INT, seconds DOUBLE) -> INTERVAL", "From its parts.", Strict(time::make_interval);
        "MAKE_DATE(year INT, month INT, day INT) -> DATE", "From its parts.", Strict(time::make_date);
        "MAKE_TIMESTAMP(year INT, month INT, day INT, hour INT, minute INT, second DOUBLE) -> TIMESTAMP", "From its parts, in UTC.", Strict(time::make_timestamp);
        "JUSTIFY_HOURS(x INTERVAL) -> INTERVAL", "With 24 hours as a day.", Strict(time::justify_hours);
        "FORMAT_TIMESTAMP(at TIMESTAMP, format STRING [, zone STRING]) -> STRING", "By strftime: '%Y-%m-%d %H:%M'.", Strict(time::format_timestamp);
    }
    Json {
        "JSON_VALUE(json JSON, path STRING) -> STRING or NULL", "The text, number or boolean at a path ('$.a.b[0]') as text; NULL where there is none.", Strict(json::value);
        "JSON_QUERY(json JSON, path STRING) -> JSON or NULL", "What stands at a path.", Strict(json::query);
        "JSON_EXISTS(json JSON, path STRING) -> BOOLEAN", "Whether anything stands at a path.", Strict(json::exists);
        "JSON_TYPEOF(json JSON) -> STRING", "object, array, string, number, boolean or null.", Strict(json::type_of);
        "JSON_ARRAY_LENGTH(json JSON) -> INT", "Number of elements.", Strict(json::array_length);
        "JSON_KEYS(json JSON) -> ARRAY<STRING>", "The names of an object's fields.", Strict(json::keys);
        "TO_JSON(value ANY) -> JSON", "A value as JSON.", Special(Special::ToJson);
        "PARSE_JSON(text STRING) -> JSON", "Text as JSON, as CAST(text AS JSON).", Special(Special::TryParseJson);
        "TRY_PARSE_JSON(text STRING) -> JSON or NULL", "Text as JSON; NULL where it is not.", Special(Special::TryParseJson);
    }
    Array {
        "CARDINALITY(array ARRAY<T>) -> INT", "Number of elements.", Strict(array::cardinality);
        "CARDINALITY(map MAP<STRING,T>) -> INT", "Number of entries.", Strict(array::cardinality);
        "ARRAY_LENGTH(array ARRAY<T> [, dimension BIGINT]) -> INT or NULL", "Number of elements; NULL of an empty array.", Strict(array::length);
        "ARRAY_CONTAINS(array ARRAY<T>, value T) -> BOOLEAN", "Whether an element equals the value.", Strict(array::contains);
        "ARRAY_POSITION(array ARRAY<T>, value T) -> INT or NULL", "Where the value first stands, from 1.", Strict(array::position);
        "ARRAY_APPEND(array ARRAY<T>, value T) -> ARRAY<T>", "With one element more at the end.", Lenient(array::append);
        "ARRAY_PREPEND(value T, array ARRAY<T>) -> ARRAY<T>", "With one element more at the start.", Lenient(array::prepend);
        "ARRAY_CAT(a ARRAY<T>, b ARRAY<T>) -> ARRAY<T>", "One after the other, as a || b.", Strict(array::concatenate);
        "ARRAY_REMOVE(array ARRAY<T>, value T) -> ARRAY<T>", "Without the elements that equal the value.", Strict(array::remove);
        "ARRAY_DISTINCT(array ARRAY<T>) -> ARRAY<T>", "Each value once, in order of first appearance.", Strict(array::distinct);
        "ARRAY_SORT(array ARRAY<T>) -> ARRAY<T>", "In ascending order, NULLs last.", Strict(array::sort);
        "ARRAY_MIN(array ARRAY<T>) -> T or NULL", "The least element, NULLs left out.", Strict(array::min);
        "ARRAY_MAX(array ARRAY<T>) -> T or NULL", "The greatest element, NULLs left out.", Strict(array::max);
        "ARRAY_TO_STRING(array ARRAY<STRING>, separator STRING) -> STRING", "The elements with a separator, NULLs left out.", Strict(array::to_string);
        "STRING_TO_ARRAY(text STRING, separator STRING) -> ARRAY<STRING>", "The parts between separators.", Strict(array::from_string);
        "MAP_KEYS(map MAP<STRING,T>) -> ARRAY<STRING>", "The keys, sorted.", Strict(array::map_keys);
        "MAP_VALUES(map MAP<STRING,T>) -> ARRAY<T>", "The values, in the order of their keys.", Strict(array::map_values);
    }
    Hash {
        "MD5(text STRING) -> STRING", "MD5 in hexadecimal.", Strict(hash::md5);
        "MD5(bytes BYTES) -> STRING", "MD5 in hexadecimal.", Strict(hash::md5);
        "SHA256(text STRING) -> STRING", "SHA-256 in hexadecimal.", Strict(hash::sha256);
        "SHA256(bytes BYTES) -> STRING", "SHA-256 in hexadecimal.", Strict(hash::sha256);
        "XXHASH64(text STRING) -> BIGINT", "xxHash, 64 bits, seed 0.", Strict(hash::xxhash64);
        "XXHASH64(bytes BYTES) -> BIGINT", "xxHash, 64 bits, seed 0.", Strict(hash::xxhash64);
        "MURMUR2(text STRING) -> INT", "Murmur2 as Kafka's default partitioner computes it.", Strict(hash::murmur2);
        "MURMUR2(bytes BYTES) -> INT", "Murmur2 as Kafka's default partitioner computes it.", Strict(hash::murmur2);
    }
    Geography {
        "GEO_DISTANCE(lat1 DOUBLE, lon1 DOUBLE, lat2 DOUBLE, lon2 DOUBLE) -> DOUBLE", "Distance of two points in km, on a sphere of 6371.0088 km (haversine).", Strict(math::geo_distance);
    }
    Random {
        "RANDOM_INT(from BIGINT, to BIGINT) -> BIGINT", "A whole number, both ends included.", Strict(random::int);
        "RANDOM_DOUBLE(from DOUBLE, to DOUBLE) -> DOUBLE", "A number from `from` up to, without, `to`.", Strict(random::double);
        "RANDOM_NORMAL(mean DOUBLE, deviation DOUBLE) -> DOUBLE", "Normally distributed.", Strict(random::normal);
        "RANDOM_LOGNORMAL(mu DOUBLE, sigma DOUBLE) -> DOUBLE", "e to the power of a normally distributed number.", Strict(random::lognormal);
        "RANDOM_CHOICE(value T...) -> T or NULL", "One of the values.", Special(Special::RandomChoice);
        "RANDOM_UUID() -> STRING", "A random UUID, version 4.", Strict(random::uuid);
    }
    Operator {
        "&(a INT, b INT) -> INT", "Bits that both have.", Strict(math::bit_and);
        "&(a BIGINT, b BIGINT) -> BIGINT", "Bits that both have.", Strict(math::bit_and);
        "|(a INT, b INT) -> INT", "Bits that either has.", Strict(math::bit_or);
        "|(a BIGINT, b BIGINT) -> BIGINT", "Bits that either has.", Strict(math::bit_or);
        "#(a INT, b INT) -> INT", "Bits that one of them has.", Strict(math::bit_xor);
        "#(a BIGINT, b BIGINT) -> BIGINT", "Bits that one of them has.", Strict(math::bit_xor);
        "<<(a INT, b INT) -> INT", "Bits moved to the left.", Strict(math::shift_left);
        "<<(a BIGINT, b INT) -> BIGINT", "Bits moved to the left.", Strict(math::shift_left);
        ">>(a INT, b INT) -> INT", "Bits moved to the right; the sign stays.", Strict(math::shift_right);
        ">>(a BIGINT, b INT) -> BIGINT", "Bits moved to the right; the sign stays.", Strict(math::shift_right);
        "~(a INT) -> INT", "All bits the other way round.", Strict(math::bit_not);
        "~(a BIGINT) -> BIGINT", "All bits the other way round.", Strict(math::bit_not);
        "->(json JSON, name STRING) -> JSON or NULL", "json -> 'name': an object's field.", Strict(json::field);
        "->(json JSON, index BIGINT) -> JSON or NULL", "json -> 0: an array's element, from 0, from the end if negative.", Strict(json::element);
        "->>(json JSON, name STRING) -> STRING or NULL", "json ->> 'name': an object's field as text.", Strict(json::field_text);
        "->>(json JSON, index BIGINT) -> STRING or NULL", "json ->> 0: an array's element as text.", Strict(json::element_text);
        "#>(json JSON, path ARRAY<STRING>) -> JSON or NULL", "json #> ARRAY['a', '0']: what stands at a path.", Strict(json::path);
        "#>(json JSON, path STRING) -> JSON or NULL", "json #> '{a,0}': what stands at a path.", Strict(json::path);
        "#>>(json JSON, path ARRAY<STRING>) -> STRING or NULL", "json #>> ARRAY['a', '0']: what stands at a path, as text.", Strict(json::path_text);
        "#>>(json JSON, path STRING) -> STRING or NULL", "json #>> '{a,0}': what stands at a path, as text.", Strict(json::path_text);
        "AT TIME ZONE(at TIMESTAMP, zone STRING) -> TIMESTAMP", "at AT TIME ZONE 'Europe/Berlin': what the clock shows there, for EXTRACT and formatting.", Strict(time::at_time_zone);
    }
}

// ---- signatures ----------------------------------------------------------------------------------------------------

/// A signature, read from its text.
#[derive(Debug)]
pub struct Signature {
    pub text: &'static str,
    pub name: &'static str,
    parameters: Vec<Pattern>,
    required: usize,
    repeats: bool,
    pub returns: Pattern,
    /// `or NULL`.
    pub nullable: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Pattern {
    Exact(Type),
    T,
    ArrayT,
    MapT,
    Number,
    Decimal,
    Any,
}

impl Signature {
    pub fn takes(&self, count: usize) -> bool {
        count >= self.required && (self.repeats || count <= self.parameters.len())
    }

    /// Of the argument at `index`, from 0. The last parameter may repeat.
    pub fn pattern(&self, index: usize) -> &Pattern {
        static ANY: Pattern = Pattern::Any;
        self.parameters.get(index).or(self.parameters.last()).unwrap_or(&ANY)
    }

    /// `None` where the text is not a signature, which a test excludes for the table.
    fn parse(text: &'static str) -> Option<Self> {
        let (name, rest) = text.split_once('(')?;
        let (parameters, returns) = rest.rsplit_once(") -> ")?;
        let (returns, nullable) = returns.strip_suffix(" or NULL").map_or((returns, false), |rest| (rest, true));
        let (fixed, optional) = match parameters.split_once('[') {
            Some((fixed, optional)) => (fixed.trim_end(), optional.strip_prefix(", ")?.strip_suffix(']')?),
            None => (parameters, ""),
        };
        let repeats = fixed.ends_with("...");
        let fixed = Self::patterns(fixed.trim_end_matches("..."))?;
        let optional = Self::patterns(optional)?;
        let required = fixed.len();
        let parameters = fixed.into_iter().chain(optional).collect();
        Some(Self { text, name, parameters, required, repeats, returns: Pattern::parse(returns)?, nullable })
    }

    fn patterns(list: &str) -> Option<Vec<Pattern>> {
        let parts = list.split(", ").filter(|part| !part.is_empty());
        parts.map(|part| Pattern::parse(part.split_once(' ')?.1)).collect()
    }
}

impl Pattern {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "T" => Self::T,
            "ARRAY<T>" => Self::ArrayT,
            "MAP<STRING,T>" => Self::MapT,
            "NUMBER" => Self::Number,
            "DECIMAL" => Self::Decimal,
            "ANY" => Self::Any,
            other => Self::Exact(type_syntax::parse_type(other).ok()?.0),
        })
    }
}

type Overload = (Signature, &'static Function);

static BY_NAME: LazyLock<FxHashMap<&'static str, Vec<Overload>>> = LazyLock::new(|| {
    let mut by_name: FxHashMap<&'static str, Vec<Overload>> = FxHashMap::default();
    for function in TABLE {
        if let Some(signature) = Signature::parse(function.signature) {
            by_name.entry(signature.name).or_default().push((signature, function));
        }
    }
    by_name
});

/// The function's name as the table has it.
pub fn find(name: &str) -> Option<&'static str> {
    let (known, overloads) = BY_NAME.get_key_value(name)?;
    let callable = overloads.iter().all(|(_, function)| function.family != Family::Operator);
    callable.then_some(*known)
}

/// The forms of a function or operator.
pub fn overloads(name: &str) -> &'static [Overload] {
    BY_NAME.get(name).map_or(&[], Vec::as_slice)
}

pub fn names() -> impl Iterator<Item = &'static str> {
    TABLE
        .iter()
        .filter(|function| function.family != Family::Operator)
        .filter_map(|function| function.signature.split_once('('))
        .map(|(name, _)| name)
}

/// Whether it gives another value at each call.
pub fn is_random(name: &str) -> bool {
    name.starts_with("RANDOM_")
}

/// What to write for functions of other databases.
pub fn habit(name: &str) -> Option<&'static str> {
    Some(match name {
        "IF" | "IIF" => "write CASE WHEN condition THEN a ELSE b END",
        "IFNULL" | "NVL" | "ISNULL" => "write COALESCE(a, b)",
        "LEN" => "write LENGTH(text)",
        "UNIX_TIMESTAMP" => "write EXTRACT(EPOCH FROM at)",
        "FROM_UNIXTIME" => "write TO_TIMESTAMP(seconds)",
        "DATEDIFF" | "DATE_DIFF" | "TIMESTAMPDIFF" => "subtract: EXTRACT(EPOCH FROM a - b) is the seconds between",
        "DATE_ADD" | "DATEADD" | "TIMESTAMPADD" => "add: at + INTERVAL '5 minutes'",
        "INSTR" | "CHARINDEX" => "write POSITION(part IN text)",
        "TO_CHAR" | "DATE_FORMAT" => "write FORMAT_TIMESTAMP(at, '%Y-%m-%d')",
        "SIZE" | "ARRAY_SIZE" => "write CARDINALITY(array)",
        "RANDOM" | "RAND" => "a replay must give the same result; in `dev:` write RANDOM_DOUBLE(0, 1)",
        "SAFE_CAST" => "write TRY_CAST(x AS TYPE)",
        "GET_JSON_OBJECT" | "JSON_EXTRACT" => "write json ->> 'name' or JSON_VALUE(json, '$.a.b')",
        _ => return None,
    })
}

/// An error of a function's own.
pub fn failure<T>(function: &'static str, reason: impl Into<String>) -> Eval<T> {
    Err(Box::new(EvalError::Function { function, reason: reason.into() }))
}

/// Called with arguments that the checker does not let through.
pub fn misuse<T>(function: &'static str) -> Eval<T> {
    failure(function, "does not take these arguments")
}
