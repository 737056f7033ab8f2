//! Functions of texts. Positions and lengths count characters, from 1.

use std::sync::Arc;

use base64::Engine as _;
use compact_str::CompactString;

use super::{failure, misuse};
use crate::expression::eval::{Eval, Implementation};
use crate::expression::pattern::{self, Matcher, Syntax};
use crate::value::Value;

/// The longest text that a function makes: a typing mistake shall not fill the memory.
const MAX_LENGTH: usize = 1 << 20;

fn string(text: impl AsRef<str>) -> Eval<Value> {
    Ok(Value::string(text))
}

fn int(number: usize) -> Eval<Value> {
    // A text is shorter than 2^31 characters.
    Ok(Value::Int(i32::try_from(number).unwrap_or(i32::MAX)))
}

fn characters(text: &str) -> i64 {
    let count = if text.is_ascii() { text.len() } else { text.chars().count() };
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The characters from `start` to `end`, from 0, cut to the text.
fn slice(text: &str, start: i64, end: i64) -> &str {
    let start = usize::try_from(start.max(0)).unwrap_or(usize::MAX);
    let end = usize::try_from(end.max(0)).unwrap_or(usize::MAX);
    if start >= end {
        return "";
    }
    if text.is_ascii() {
        return text.get(start.min(text.len())..end.min(text.len())).unwrap_or_default();
    }
    let mut offsets = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    let from = offsets.nth(start).unwrap_or(text.len());
    let to = offsets.nth(end - start - 1).unwrap_or(text.len());
    text.get(from..to).unwrap_or_default()
}

pub fn lower(arguments: &[&Value]) -> Eval<Value> {
    let [Value::String(text)] = arguments else { return misuse("LOWER") };
    string(text.to_lowercase())
}

pub fn upper(arguments: &[&Value]) -> Eval<Value> {
    let [Value::String(text)] = arguments else { return misuse("UPPER") };
    string(text.to_uppercase())
}

pub fn initcap(arguments: &[&Value]) -> Eval<Value> {
    let [Value::String(text)] = arguments else { return misuse("INITCAP") };
    let mut result = CompactString::with_capacity(text.len());
    let mut inside = false;
    for character in text.chars() {
        if inside {
            result.extend(character.to_lowercase());
        } else {
            result.extend(character.to_uppercase());
        }
        inside = character.is_alphanumeric();
    }
    Ok(Value::String(result))
}

pub fn length(arguments: &[&Value]) -> Eval<Value> {
    match arguments {
        [Value::String(text)] => int(text.chars().count()),
        [Value::Bytes(bytes)] => int(bytes.len()),
        _ => misuse("LENGTH"),
    }
}

pub fn byte_length(arguments: &[&Value]) -> Eval<Value> {
    match arguments {
        [Value::String(text)] => int(text.len()),
        [Value::Bytes(bytes)] => int(bytes.len()),
        _ => misuse("OCTET_LENGTH"),
    }
}

pub fn trim(arguments: &[&Value]) -> Eval<Value> {
    match arguments {
        [Value::String(text)] => string(text.trim_matches(' ')),
        [Value::String(text), Value::String(set)] => string(text.trim_matches(|character| set.contains(character))),
        _ => misuse("TRIM"),
    }
}

pub fn ltrim(arguments: &[&Value]) -> Eval<Value> {
    match arguments {
        [Value::String(text)] => string(text.trim_start_matches(' ')),
        [Value::String(text), Value::String(set)] => {
            string(text.trim_start_matches(|character| set.contains(character)))
        }
        _ => misuse("LTRIM"),
    }
}

pub fn rtrim(arguments: &[&Value]) -> Eval<Value> {
    match arguments {
        [Value::String(text)] => string(text.trim_end_matches(' ')),
        [Value::String(text), Value::String(set)] => string(text.trim_end_matches(|character| set.contains(character))),
        _ => misuse("RTRIM"),
    }
}

/// As PostgreSQL: a start before the text takes from the length.
pub fn substring(arguments: &[&Value]) -> Eval<Value> {
    match arguments {
        [Value::String(text), Value::Bigint(start)] => string(slice(text, start.saturating_sub(1), i64::MAX)),
        [Value::String(text), Value::Bigint(start), Value::Bigint(length)] => {
            if *length < 0 {
                return failure("SUBSTRING", "negative length");
            }
            let start = start.saturating_sub(1);
            string(slice(text, start, start.saturating_add(*length)))
        }
        _ => misuse("SUBSTRING"),
    }
}

pub fn substring_matching(arguments: &[&Value]) -> Eval<Value> {
    let [Value::String(text), Value::String(pattern)] = arguments else { return misuse("SUBSTRING") };
    let matcher = pattern::cached(Syntax::Regex, pattern)?;
    let Matcher::Regex(regex) = &*matcher else { return misuse("SUBSTRING") };
    let Some(captures) = regex.captures(text) else { return Ok(Value::Null) };
    let found = if captures.len() > 1 { captures.get(1) } else { captures.get(0) };
    Ok(found.map_or(Value::Null, |found| Value::string(found.as_str())))
}

pub fn overlay(arguments: &[&Value]) -> Eval<Value> {
    let (text, with, start, length) = match arguments {
        [Value::String(text), Value::String(with), Value::Bigint(start)] => (text, with, *start, characters(with)),
        [Value::String(text), Value::String(with), Value::Bigint(start), Value::Bigint(length)] => {
            (text, with, *start, *length)
        }
        _ => return misuse("OVERLAY"),
    };
    if start <= 0 {
        return failure("OVERLAY", "the start is counted from 1");
    }
    let before = slice(text, 0, start - 1);
    let after = slice(text, (start - 1).saturating_add(length), i64::MAX);
    string(format!("{before}{with}{after}"))
}

pub fn left(arguments: &[&Value]) -> Eval<Value> {
    let [Value::String(text), Value::Bigint(count)] = arguments else { return misuse("LEFT") };
    let end = if *count < 0 { characters(text).saturating_add(*count) } else { *count };
    string(slice(text, 0, end))
}

pub fn right(arguments: &[&Value]) -> Eval<Value> {
    let [Value::String(text), Value::Bigint(count)] = arguments else { return misuse("RIGHT") };
    let start = if *count < 0 { count.saturating_neg() } else { characters(text).saturating_sub(*count) };
    string(slice(text, start, i64::MAX))
}

pub fn position(arguments: &[&Value]) -> Eval<Value> {
    let [Value::String(part), Value::String(text)] = arguments else { return misuse("POSITION") };
    match text.find(part.as_str()) {
        Some(at) => int(text.get(..at).unwrap_or_default().chars().count() + 1),
        None => Ok(Value::Int(0)),
    }
}

pub fn strpos(arguments: &[&Value]) -> Eval<Value> {
    let [text, part] = arguments else { return misuse("STRPOS") };
    position(&[part, text])
}

pub fn replace(arguments: &[&Value]) -> Eval<Value> {
    let [Value::String(text), Value::String(from), Value::String(to)] = arguments else { return misuse("REPLACE") };
    if from.is_empty() {
        return string(text);
    }
    bounded("REPLACE", text.matches(from.as_str()).count().saturating_mul(to.len()).saturating_add(text.len()))?;
    string(text.replace(from.as_str(), to))
}

pub fn translate(arguments: &[&Value]) -> Eval<Value> {
    let [Value::String(text), Value::String(from), Value::String(to)] = arguments else { return misuse("TRANSLATE") };
    let to: Vec<char> = to.chars().collect();
    let translated = text.chars().filter_map(|character| match from.chars().position(|known| known == character) {
        Some(index) => to.get(index).copied(),
        None => Some(character),
    });
    Ok(Value::String(translated.collect()))
}

pub fn split_part(arguments: &[&Value]) -> Eval<Value> {
    let [Value::String(text), Value::String(separator), Value::Bigint(field)] = arguments else {
        return misuse("SPLIT_PART");
    };
    let index = usize::try_from(field.unsigned_abs()).unwrap_or(usize::MAX);
    if index == 0 {
        return failure("SPLIT_PART", "parts are counted from 1");
    }
    if separator.is_empty() {
        return string(if index == 1 { text.as_str() } else { "" });
    }
    let part = if *field > 0 {
        text.split(separator.as_str()).nth(index - 1)
    } else {
        text.rsplit(separator.as_str()).nth(index - 1)
    };
    string(part.unwrap_or_default())
}

pub fn concatenate(arguments: &[&Value]) -> Eval<Value> {
    let [Value::String(a), Value::String(b)] = arguments else { return misuse("||") };
    let mut text = CompactString::with_capacity(a.len() + b.len());
    text.push_str(a);
    text.push_str(b);
    Ok(Value::String(text))
}

pub fn concatenate_bytes(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Bytes(a), Value::Bytes(b)] = arguments else { return misuse("||") };
    Ok(Value::bytes([a.as_ref(), b.as_ref()].concat()))
}

/// The arguments are texts or NULL.
pub fn concat(arguments: &[&Value]) -> Eval<Value> {
    let mut text = CompactString::default();
    for argument in arguments {
        if let Value::String(part) = argument {
            text.push_str(part);
        }
    }
    Ok(Value::String(text))
}

pub fn concat_ws(arguments: &[&Value]) -> Eval<Value> {
    let [Value::String(separator), parts @ ..] = arguments else { return Ok(Value::Null) };
    let mut text = CompactString::default();
    let mut first = true;
    for part in parts {
        let Value::String(part) = part else { continue };
        if !first {
            text.push_str(separator);
        }
        text.push_str(part);
        first = false;
    }
    Ok(Value::String(text))
}

fn bounded(function: &'static str, length: usize) -> Eval<()> {
    if length > MAX_LENGTH {
        return failure(function, "the result would be longer than 1 MB");
    }
    Ok(())
}

/// The text cut to `length`, and the characters that are missing to it.
fn pad<'a>(function: &'static str, arguments: &[&'a Value]) -> Eval<(&'a str, String)> {
    let (text, length, fill) = match arguments {
        [Value::String(text), Value::Bigint(length)] => (text, *length, " "),
        [Value::String(text), Value::Bigint(length), Value::String(fill)] => (text, *length, fill.as_str()),
        _ => return misuse(function),
    };
    let missing = usize::try_from(length.saturating_sub(characters(text))).unwrap_or(0);
    bounded(function, missing)?;
    Ok((slice(text, 0, length), fill.chars().cycle().take(missing).collect()))
}

pub fn lpad(arguments: &[&Value]) -> Eval<Value> {
    let (text, fill) = pad("LPAD", arguments)?;
    string(fill + text)
}

pub fn rpad(arguments: &[&Value]) -> Eval<Value> {
    let (text, fill) = pad("RPAD", arguments)?;
    string(text.to_owned() + &fill)
}

pub fn repeat(arguments: &[&Value]) -> Eval<Value> {
    let [Value::String(text), Value::Bigint(count)] = arguments else { return misuse("REPEAT") };
    let count = usize::try_from(*count).unwrap_or(0);
    bounded("REPEAT", count.saturating_mul(text.len()))?;
    string(text.repeat(count))
}

pub fn reverse(arguments: &[&Value]) -> Eval<Value> {
    let [Value::String(text)] = arguments else { return misuse("REVERSE") };
    Ok(Value::String(text.chars().rev().collect()))
}

pub fn starts_with(arguments: &[&Value]) -> Eval<Value> {
    let [Value::String(text), Value::String(start)] = arguments else { return misuse("STARTS_WITH") };
    Ok(Value::Boolean(text.starts_with(start.as_str())))
}

pub fn ends_with(arguments: &[&Value]) -> Eval<Value> {
    let [Value::String(text), Value::String(end)] = arguments else { return misuse("ENDS_WITH") };
    Ok(Value::Boolean(text.ends_with(end.as_str())))
}

pub fn contains(arguments: &[&Value]) -> Eval<Value> {
    let [Value::String(text), Value::String(part)] = arguments else { return misuse("CONTAINS") };
    Ok(Value::Boolean(text.contains(part.as_str())))
}

pub fn ascii(arguments: &[&Value]) -> Eval<Value> {
    let [Value::String(text)] = arguments else { return misuse("ASCII") };
    let code = text.chars().next().map_or(0, u32::from);
    // Code points end at 0x10FFFF.
    Ok(Value::Int(i32::try_from(code).unwrap_or(0)))
}

pub fn chr(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Bigint(code)] = arguments else { return misuse("CHR") };
    match u32::try_from(*code).ok().and_then(char::from_u32) {
        Some(character) if character != '\0' => string(character.encode_utf8(&mut [0; 4])),
        _ => failure("CHR", format!("{code} is no character")),
    }
}

// ---- patterns ------------------------------------------------------------------------------------------------------

/// `text LIKE pattern` and the like, where the pattern is not a literal.
pub fn matches(syntax: Syntax) -> Implementation {
    fn matches_as(syntax: Syntax, arguments: &[&Value]) -> Eval<Value> {
        let [Value::String(text), Value::String(pattern)] = arguments else { return misuse(syntax.name()) };
        Ok(Value::Boolean(pattern::cached(syntax, pattern)?.matches(text)))
    }
    match syntax {
        Syntax::Like => |arguments| matches_as(Syntax::Like, arguments),
        Syntax::ILike => |arguments| matches_as(Syntax::ILike, arguments),
        Syntax::Similar => |arguments| matches_as(Syntax::Similar, arguments),
        Syntax::Regex => |arguments| matches_as(Syntax::Regex, arguments),
        Syntax::RegexIgnoringCase => |arguments| matches_as(Syntax::RegexIgnoringCase, arguments),
    }
}

/// Text, pattern and flags of a REGEXP function whose flags begin at `flags_at`.
fn regexp(function: &'static str, pattern: &Value, flags: Option<&&Value>) -> Eval<(Arc<Matcher>, bool)> {
    let Value::String(pattern) = pattern else { return misuse(function) };
    let flags = match flags {
        None => "",
        Some(Value::String(flags)) => flags.as_str(),
        Some(_) => return misuse(function),
    };
    if let Some(unknown) = flags.chars().find(|flag| !matches!(flag, 'i' | 'g' | 'c')) {
        return failure(function, format!("unknown flag '{unknown}': there are i (ignore case) and g (all)"));
    }
    Ok((pattern::cached_regex(pattern, flags)?, flags.contains('g')))
}

pub fn regexp_like(arguments: &[&Value]) -> Eval<Value> {
    let [Value::String(text), pattern, flags @ ..] = arguments else { return misuse("REGEXP_LIKE") };
    let (matcher, _) = regexp("REGEXP_LIKE", pattern, flags.first())?;
    Ok(Value::Boolean(matcher.matches(text)))
}

pub fn regexp_match(arguments: &[&Value]) -> Eval<Value> {
    let [Value::String(text), pattern, flags @ ..] = arguments else { return misuse("REGEXP_MATCH") };
    let (matcher, _) = regexp("REGEXP_MATCH", pattern, flags.first())?;
    let Matcher::Regex(regex) = &*matcher else { return misuse("REGEXP_MATCH") };
    let Some(captures) = regex.captures(text) else { return Ok(Value::Null) };
    let skipped = usize::from(captures.len() > 1);
    let groups = captures.iter().skip(skipped);
    let groups = groups.map(|group| group.map_or(Value::Null, |group| Value::string(group.as_str())));
    Ok(Value::Array(groups.collect()))
}

pub fn regexp_replace(arguments: &[&Value]) -> Eval<Value> {
    let [Value::String(text), pattern, Value::String(to), flags @ ..] = arguments else {
        return misuse("REGEXP_REPLACE");
    };
    let (matcher, all) = regexp("REGEXP_REPLACE", pattern, flags.first())?;
    let Matcher::Regex(regex) = &*matcher else { return misuse("REGEXP_REPLACE") };
    let replacement = Replacement(to);
    let result = if all { regex.replace_all(text, replacement) } else { regex.replace(text, replacement) };
    bounded("REGEXP_REPLACE", result.len())?;
    string(result)
}

/// PostgreSQL's `\1` and `\&`.
struct Replacement<'a>(&'a str);

impl regex::Replacer for Replacement<'_> {
    fn replace_append(&mut self, captures: &regex::Captures<'_>, into: &mut String) {
        let mut characters = self.0.chars();
        while let Some(character) = characters.next() {
            if character != '\\' {
                into.push(character);
                continue;
            }
            let group = |index: usize| captures.get(index).map_or("", |group| group.as_str());
            match characters.next() {
                Some('&') => into.push_str(group(0)),
                Some(digit) if digit.is_ascii_digit() => {
                    into.push_str(group(digit.to_digit(10).map_or(0, |digit| digit as usize)));
                }
                Some(other) => into.push(other),
                None => into.push('\\'),
            }
        }
    }
}

pub fn regexp_count(arguments: &[&Value]) -> Eval<Value> {
    let [Value::String(text), pattern] = arguments else { return misuse("REGEXP_COUNT") };
    let (matcher, _) = regexp("REGEXP_COUNT", pattern, None)?;
    let Matcher::Regex(regex) = &*matcher else { return misuse("REGEXP_COUNT") };
    int(regex.find_iter(text).count())
}

// ---- bytes ---------------------------------------------------------------------------------------------------------

pub fn encode(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Bytes(bytes), Value::String(format)] = arguments else { return misuse("ENCODE") };
    match format.to_lowercase().as_str() {
        "hex" => string(hex_encode(bytes)),
        "base64" => string(base64::engine::general_purpose::STANDARD.encode(bytes)),
        _ => failure("ENCODE", format!("unknown format '{format}': there are 'hex' and 'base64'")),
    }
}

pub fn decode(arguments: &[&Value]) -> Eval<Value> {
    let [Value::String(text), Value::String(format)] = arguments else { return misuse("DECODE") };
    let bytes = match format.to_lowercase().as_str() {
        "hex" => hex_decode(text),
        "base64" => base64::engine::general_purpose::STANDARD.decode(text.as_bytes()).ok(),
        _ => return failure("DECODE", format!("unknown format '{format}': there are 'hex' and 'base64'")),
    };
    match bytes {
        Some(bytes) => Ok(Value::bytes(bytes)),
        None => failure("DECODE", format!("the text is not {format}")),
    }
}

pub fn hex_encode(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]).collect()
}

/// `None` where the text is not pairs of hexadecimal digits.
pub fn hex_decode(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}
