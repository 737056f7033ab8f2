//! Functions and operators of JSON.

use std::sync::Arc;

use serde_json::Value as Json;

use super::{failure, misuse};
use crate::expression::eval::Eval;
use crate::value::Value;

fn shared(json: &Json) -> Value {
    Value::Json(Arc::new(json.clone()))
}

/// A text without quotes; anything else as JSON; null as NULL.
fn text(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::String(text) => Value::string(text),
        other => Value::string(other.to_string()),
    }
}

fn at_index(json: &Json, index: i64) -> Option<&Json> {
    let elements = json.as_array()?;
    if index >= 0 {
        elements.get(usize::try_from(index).ok()?)
    } else {
        elements.get(elements.len().checked_sub(usize::try_from(index.unsigned_abs()).ok()?)?)
    }
}

fn find_field<'a>(arguments: &[&'a Value]) -> Eval<Option<&'a Json>> {
    let [Value::Json(json), Value::String(name)] = arguments else { return misuse("->") };
    Ok(json.as_object().and_then(|object| object.get(name.as_str())))
}

fn find_element<'a>(arguments: &[&'a Value]) -> Eval<Option<&'a Json>> {
    let [Value::Json(json), Value::Bigint(index)] = arguments else { return misuse("->") };
    Ok(at_index(json, *index))
}

pub fn field(arguments: &[&Value]) -> Eval<Value> {
    Ok(find_field(arguments)?.map_or(Value::Null, shared))
}

pub fn field_text(arguments: &[&Value]) -> Eval<Value> {
    Ok(find_field(arguments)?.map_or(Value::Null, text))
}

pub fn element(arguments: &[&Value]) -> Eval<Value> {
    Ok(find_element(arguments)?.map_or(Value::Null, shared))
}

pub fn element_text(arguments: &[&Value]) -> Eval<Value> {
    Ok(find_element(arguments)?.map_or(Value::Null, text))
}

/// A path is an array of names and indexes, or its text form `{a,0}`.
fn find_path<'a>(arguments: &[&'a Value]) -> Eval<Option<&'a Json>> {
    fn step<'a>(json: &'a Json, name: &str) -> Option<&'a Json> {
        match json {
            Json::Object(object) => object.get(name),
            Json::Array(_) => at_index(json, name.trim().parse().ok()?),
            _ => None,
        }
    }
    match arguments {
        [Value::Json(json), Value::Array(path)] => {
            let mut at: &Json = json;
            for name in path.iter() {
                let Value::String(name) = name else { return Ok(None) };
                let Some(next) = step(at, name) else { return Ok(None) };
                at = next;
            }
            Ok(Some(at))
        }
        [Value::Json(json), Value::String(path)] => {
            let Some(inside) = path.trim().strip_prefix('{').and_then(|path| path.strip_suffix('}')) else {
                return failure("#>", format!("a path is written '{{a,0}}', not '{path}'"));
            };
            let mut at: &Json = json;
            for name in inside.split(',').filter(|_| !inside.is_empty()) {
                let Some(next) = step(at, name.trim().trim_matches('"')) else { return Ok(None) };
                at = next;
            }
            Ok(Some(at))
        }
        _ => misuse("#>"),
    }
}

pub fn path(arguments: &[&Value]) -> Eval<Value> {
    Ok(find_path(arguments)?.map_or(Value::Null, shared))
}

pub fn path_text(arguments: &[&Value]) -> Eval<Value> {
    Ok(find_path(arguments)?.map_or(Value::Null, text))
}

/// SQL/JSON's simple paths: `$.a.b[0]."a name"`.
fn find<'a>(function: &'static str, arguments: &[&'a Value]) -> Eval<Option<&'a Json>> {
    let [Value::Json(json), Value::String(path)] = arguments else { return misuse(function) };
    let bad = || failure(function, format!("a path is written '$.a.b[0]', not '{path}'"));
    let Some(mut rest) = path.trim().strip_prefix('$') else { return bad() };
    let mut at: Option<&Json> = Some(json);
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let Some((index, after)) = after.split_once(']') else { return bad() };
            let Ok(index) = index.trim().parse::<i64>() else { return bad() };
            at = at.and_then(|json| at_index(json, index));
            rest = after;
        } else if let Some(after) = rest.strip_prefix(".\"") {
            let Some((name, after)) = after.split_once('"') else { return bad() };
            at = at.and_then(|json| json.get(name));
            rest = after;
        } else if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            let (name, after) = after.split_at(end);
            if name.is_empty() {
                return bad();
            }
            at = at.and_then(|json| json.get(name));
            rest = after;
        } else {
            return bad();
        }
    }
    Ok(at)
}

pub fn value(arguments: &[&Value]) -> Eval<Value> {
    Ok(match find("JSON_VALUE", arguments)? {
        Some(Json::Object(_) | Json::Array(_)) | None => Value::Null,
        Some(scalar) => text(scalar),
    })
}

pub fn query(arguments: &[&Value]) -> Eval<Value> {
    Ok(find("JSON_QUERY", arguments)?.map_or(Value::Null, shared))
}

pub fn exists(arguments: &[&Value]) -> Eval<Value> {
    Ok(Value::Boolean(find("JSON_EXISTS", arguments)?.is_some()))
}

pub fn type_of(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Json(json)] = arguments else { return misuse("JSON_TYPEOF") };
    Ok(Value::string(match &**json {
        Json::Null => "null",
        Json::Bool(_) => "boolean",
        Json::Number(_) => "number",
        Json::String(_) => "string",
        Json::Array(_) => "array",
        Json::Object(_) => "object",
    }))
}

pub fn array_length(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Json(json)] = arguments else { return misuse("JSON_ARRAY_LENGTH") };
    match json.as_array() {
        Some(elements) => Ok(Value::Int(i32::try_from(elements.len()).unwrap_or(i32::MAX))),
        None => failure("JSON_ARRAY_LENGTH", "of something that is not an array"),
    }
}

pub fn keys(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Json(json)] = arguments else { return misuse("JSON_KEYS") };
    match json.as_object() {
        Some(object) => Ok(Value::Array(object.keys().map(Value::string).collect())),
        None => failure("JSON_KEYS", "of something that is not an object"),
    }
}

/// A text as a JSON string.
pub fn text_to_json(arguments: &[&Value]) -> Eval<Value> {
    let [Value::String(text)] = arguments else { return misuse("TO_JSON") };
    Ok(Value::Json(Arc::new(Json::String(text.to_string()))))
}
