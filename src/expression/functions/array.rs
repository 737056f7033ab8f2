//! Functions and operators of arrays and maps. Positions count from 1.

use std::sync::Arc;

use compact_str::CompactString;

use super::misuse;
use crate::expression::eval::Eval;
use crate::expression::order::compare;
use crate::value::Value;

/// NULL is no element that equals anything.
fn equal(a: &Value, b: &Value) -> bool {
    !a.is_null() && !b.is_null() && compare(a, b).is_eq()
}

fn int(number: usize) -> Eval<Value> {
    Ok(Value::Int(i32::try_from(number).unwrap_or(i32::MAX)))
}

pub fn cardinality(arguments: &[&Value]) -> Eval<Value> {
    match arguments {
        [Value::Array(elements)] => int(elements.len()),
        [Value::Map(entries)] => int(entries.len()),
        _ => misuse("CARDINALITY"),
    }
}

/// As PostgreSQL: NULL of an empty array and of a dimension that it does not have.
pub fn length(arguments: &[&Value]) -> Eval<Value> {
    match arguments {
        [Value::Array(elements)] | [Value::Array(elements), Value::Bigint(1)] if !elements.is_empty() => {
            int(elements.len())
        }
        [Value::Array(_)] | [Value::Array(_), Value::Bigint(_)] => Ok(Value::Null),
        _ => misuse("ARRAY_LENGTH"),
    }
}

pub fn contains(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Array(elements), value] = arguments else { return misuse("ARRAY_CONTAINS") };
    Ok(Value::Boolean(elements.iter().any(|element| equal(element, value))))
}

pub fn position(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Array(elements), value] = arguments else { return misuse("ARRAY_POSITION") };
    elements.iter().position(|element| equal(element, value)).map_or(Ok(Value::Null), |index| int(index + 1))
}

/// A NULL array counts as empty.
pub fn append(arguments: &[&Value]) -> Eval<Value> {
    match arguments {
        [Value::Array(elements), value] => {
            Ok(Value::Array(elements.iter().cloned().chain([(*value).clone()]).collect()))
        }
        [Value::Null, value] => Ok(Value::Array(Arc::from([(*value).clone()]))),
        _ => misuse("ARRAY_APPEND"),
    }
}

pub fn prepend(arguments: &[&Value]) -> Eval<Value> {
    match arguments {
        [value, Value::Array(elements)] => {
            Ok(Value::Array([(*value).clone()].into_iter().chain(elements.iter().cloned()).collect()))
        }
        [value, Value::Null] => Ok(Value::Array(Arc::from([(*value).clone()]))),
        _ => misuse("ARRAY_PREPEND"),
    }
}

pub fn concatenate(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Array(a), Value::Array(b)] = arguments else { return misuse("ARRAY_CAT") };
    Ok(Value::Array(a.iter().chain(b.iter()).cloned().collect()))
}

pub fn remove(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Array(elements), value] = arguments else { return misuse("ARRAY_REMOVE") };
    Ok(Value::Array(elements.iter().filter(|element| !equal(element, value)).cloned().collect()))
}

pub fn distinct(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Array(elements)] = arguments else { return misuse("ARRAY_DISTINCT") };
    let mut order: Vec<usize> = (0..elements.len()).collect();
    order.sort_by(|a, b| compare(&elements[*a], &elements[*b]));
    order.dedup_by(|b, a| compare(&elements[*a], &elements[*b]).is_eq());
    order.sort_unstable();
    Ok(Value::Array(order.into_iter().map(|index| elements[index].clone()).collect()))
}

pub fn sort(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Array(elements)] = arguments else { return misuse("ARRAY_SORT") };
    let mut sorted = elements.to_vec();
    sorted.sort_by(compare);
    Ok(Value::Array(sorted.into()))
}

pub fn min(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Array(elements)] = arguments else { return misuse("ARRAY_MIN") };
    let values = elements.iter().filter(|element| !element.is_null());
    Ok(values.min_by(|a, b| compare(a, b)).cloned().unwrap_or(Value::Null))
}

pub fn max(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Array(elements)] = arguments else { return misuse("ARRAY_MAX") };
    let values = elements.iter().filter(|element| !element.is_null());
    Ok(values.max_by(|a, b| compare(a, b)).cloned().unwrap_or(Value::Null))
}

pub fn to_string(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Array(elements), Value::String(separator)] = arguments else { return misuse("ARRAY_TO_STRING") };
    let mut text = CompactString::default();
    let texts = elements.iter().filter_map(|element| match element {
        Value::String(text) => Some(text),
        _ => None,
    });
    for (index, part) in texts.enumerate() {
        if index > 0 {
            text.push_str(separator);
        }
        text.push_str(part);
    }
    Ok(Value::String(text))
}

pub fn from_string(arguments: &[&Value]) -> Eval<Value> {
    let [Value::String(text), Value::String(separator)] = arguments else { return misuse("STRING_TO_ARRAY") };
    if text.is_empty() {
        return Ok(Value::Array(Arc::from([])));
    }
    if separator.is_empty() {
        return Ok(Value::Array(Arc::from([Value::String(text.clone())])));
    }
    Ok(Value::Array(text.split(separator.as_str()).map(Value::string).collect()))
}

pub fn map_keys(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Map(entries)] = arguments else { return misuse("MAP_KEYS") };
    Ok(Value::Array(entries.keys().map(|key| Value::String(key.clone())).collect()))
}

pub fn map_values(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Map(entries)] = arguments else { return misuse("MAP_VALUES") };
    Ok(Value::Array(entries.values().cloned().collect()))
}
