//! Expected rows against actual ones, and how their difference reads.
//!
//! An expected row names at least the columns to compare; what it leaves out may be anything. Each actual row answers for
//! at most one expected row.

use std::fmt::Write as _;

use serde_json::{Map, Value as Json};

use crate::format::json::{from_json, to_json};
use crate::schema::{Schema, Type};

pub type Object = Map<String, Json>;

/// Whether actual rows that nothing expects are a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Others may be there.
    Contains,
    /// No others.
    Exactly,
}

/// An expected row in the form in which actual rows are written, so that `1` and `1.0` of a DOUBLE, or two spellings of
/// a time, are the same. Columns that the schema does not know stay as they are.
pub fn canonical(expected: &Json, schemas: &[&Schema]) -> Result<Object, String> {
    let Json::Object(expected) = expected else {
        return Err(format!("a row is written as columns and values, not {expected}"));
    };
    expected
        .iter()
        .map(|(name, value)| {
            let column = schemas.iter().find_map(|schema| schema.column(name));
            let value = match column {
                Some(column) => {
                    let typed = from_json(&as_written(value, &column.ty), &column.ty);
                    to_json(&typed.map_err(|reason| format!("column `{name}`: {reason}"))?, &column.ty)
                }
                None => value.clone(),
            };
            Ok((name.clone(), value))
        })
        .collect()
}

/// YAML's numbers and booleans are text where a text is expected.
pub fn as_written(value: &Json, ty: &Type) -> Json {
    match (ty, value) {
        (Type::String, Json::Number(_) | Json::Bool(_)) => Json::String(value.to_string()),
        _ => value.clone(),
    }
}

/// The difference in words, one line each; empty where there is none.
pub fn difference(expected: &[Object], actual: &[Object], extent: Extent) -> Vec<String> {
    let pairs = pair(expected, actual);
    let taken = |index: usize| pairs.contains(&Some(index));
    let mut lines = Vec::new();
    let mut explained = Vec::new();
    for (row, paired) in expected.iter().zip(&pairs) {
        if paired.is_some() {
            continue;
        }
        lines.push(format!("- missing     {}", text(row)));
        let free = (0..actual.len()).filter(|index| !taken(*index) && !explained.contains(index));
        if let Some(nearest) = nearest(row, free, actual) {
            explained.push(nearest);
            lines.push(format!("  closest is  {}", text(&actual[nearest])));
            lines.push(format!("              {}", columns_that_differ(row, &actual[nearest])));
        }
    }
    if extent == Extent::Exactly {
        let others = (0..actual.len()).filter(|index| !taken(*index) && !explained.contains(index));
        lines.extend(others.map(|index| format!("+ unexpected  {}", text(&actual[index]))));
    }
    lines
}

/// For each expected row the actual row that answers for it: a maximum matching, by augmenting paths (Kuhn), since one
/// actual row may fit several expected ones.
fn pair(expected: &[Object], actual: &[Object]) -> Vec<Option<usize>> {
    let mut taken_by: Vec<Option<usize>> = vec![None; actual.len()];
    for index in 0..expected.len() {
        augment(index, expected, actual, &mut taken_by, &mut vec![false; actual.len()]);
    }
    let mut pairs = vec![None; expected.len()];
    for (actual, taken) in taken_by.iter().enumerate() {
        if let Some(expected) = taken {
            pairs[*expected] = Some(actual);
        }
    }
    pairs
}

fn augment(
    index: usize,
    expected: &[Object],
    actual: &[Object],
    taken_by: &mut [Option<usize>],
    seen: &mut [bool],
) -> bool {
    for (candidate, row) in actual.iter().enumerate() {
        if seen[candidate] || !fits(&expected[index], row) {
            continue;
        }
        seen[candidate] = true;
        let free = taken_by[candidate].is_none_or(|holder| augment(holder, expected, actual, taken_by, seen));
        if free {
            taken_by[candidate] = Some(index);
            return true;
        }
    }
    false
}

/// Whether the actual row has all that the expected one names.
pub fn fits(expected: &Object, actual: &Object) -> bool {
    expected.iter().all(|(name, value)| equal(value, actual.get(name).unwrap_or(&Json::Null)))
}

/// Numbers by value, DOUBLE results up to rounding; everything else exactly.
pub fn equal(expected: &Json, actual: &Json) -> bool {
    const RELATIVE_ERROR: f64 = 1e-9;
    match (expected, actual) {
        (Json::Number(left), Json::Number(right)) => {
            if let (Some(left), Some(right)) = (left.as_i64(), right.as_i64()) {
                return left == right;
            }
            let (Some(left), Some(right)) = (left.as_f64(), right.as_f64()) else { return left == right };
            (left - right).abs() <= RELATIVE_ERROR * left.abs().max(right.abs())
        }
        (Json::Array(left), Json::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| equal(left, right))
        }
        (Json::Object(left), Json::Object(right)) => fits(left, right),
        _ => expected == actual,
    }
}

/// The row with most equal columns, if any is equal at all.
fn nearest(expected: &Object, candidates: impl Iterator<Item = usize>, actual: &[Object]) -> Option<usize> {
    let score = |index: usize| {
        let row = &actual[index];
        expected.iter().filter(|(name, value)| row.get(*name).is_some_and(|found| equal(value, found))).count()
    };
    candidates
        .map(|index| (score(index), index))
        .filter(|(score, _)| *score > 0)
        .max_by_key(|(score, index)| (*score, usize::MAX - index))
        .map(|(_, index)| index)
}

fn columns_that_differ(expected: &Object, actual: &Object) -> String {
    let mut line = String::new();
    for (name, value) in expected {
        let found = actual.get(name);
        if found.is_some_and(|found| equal(value, found)) {
            continue;
        }
        let separator = if line.is_empty() { "" } else { "; " };
        let found = found.map_or_else(|| "no such column".to_owned(), ToString::to_string);
        // Writing to a String cannot fail.
        let _written = write!(line, "{separator}{name}: expected {value}, found {found}");
    }
    line
}

pub fn text(row: &Object) -> String {
    Json::Object(row.clone()).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::{Extent, Object, canonical, difference};
    use crate::schema::{Column, Schema, Type};

    fn rows(rows: Json) -> Vec<Object> {
        serde_json::from_value(rows).unwrap()
    }

    #[test]
    fn columns_that_are_not_named_may_be_anything() {
        let actual = rows(json!([{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]));
        assert!(difference(&rows(json!([{"a": 2}])), &actual, Extent::Contains).is_empty());
        assert!(difference(&rows(json!([{"b": "y"}, {"b": "x"}])), &actual, Extent::Exactly).is_empty());
    }

    #[test]
    fn each_row_answers_for_one_expected_row_whatever_their_order() {
        let actual = rows(json!([{"a": 1, "b": 1}, {"a": 1, "b": 2}]));
        // The first expected row fits both; it must leave the right one for the second.
        assert!(difference(&rows(json!([{"a": 1}, {"a": 1, "b": 1}])), &actual, Extent::Exactly).is_empty());
        assert!(!difference(&rows(json!([{"b": 1}, {"b": 1}])), &actual, Extent::Contains).is_empty());
    }

    #[test]
    fn a_difference_names_the_columns_of_the_closest_row() {
        let actual = rows(json!([{"account": "c1", "n": 11}, {"account": "c9", "n": 1}]));
        let lines = difference(&rows(json!([{"account": "c1", "n": 12}])), &actual, Extent::Exactly);
        insta::assert_snapshot!(lines.join("\n"), @r#"
        - missing     {"account":"c1","n":12}
          closest is  {"account":"c1","n":11}
                      n: expected 12, found 11
        + unexpected  {"account":"c9","n":1}
        "#);
    }

    #[test]
    fn expected_values_are_compared_by_their_column_type() {
        let schema = Schema::new([
            Column::new("total", Type::Double, true),
            Column::new("at", Type::Timestamp, true),
            Column::new("id", Type::String, true),
            Column::new("price", Type::Decimal { precision: 10, scale: 2 }, true),
        ]);
        let expected = json!({"total": 240, "at": "2026-01-01T01:00:00+01:00", "id": 7, "price": 1.5});
        let expected = canonical(&expected, &[&schema]).unwrap();
        let actual = rows(json!([{"total": 240.0, "at": "2026-01-01T00:00:00Z", "id": "7", "price": "1.50"}]));
        assert_eq!(difference(&[expected], &actual, Extent::Exactly), Vec::<String>::new());
        let error = canonical(&json!({"total": "much"}), &[&schema]).unwrap_err();
        assert!(error.starts_with("column `total`"), "{error}");
    }
}
