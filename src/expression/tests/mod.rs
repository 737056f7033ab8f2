//! Expressions as tables of cases: the text, and what it gives.

mod functions;
mod problems;
mod properties;
mod structure;

use std::sync::Arc;

use super::*;
use crate::ids::{EventTime, Offset, Partition, TopicName};
use crate::row::Header;
use crate::value::{Decimal, Interval};

/// Columns of every type, some NULL.
pub fn scope() -> (Scope, Vec<Value>) {
    let columns = parse_columns(
        "i INT, b BIGINT NOT NULL, d DOUBLE, dec DECIMAL(10,2), s STRING, by BYTES, t BOOLEAN, f BOOLEAN, n STRING, \
         ni BIGINT, nb BOOLEAN, day DATE, at TIMESTAMP, last_at TIMESTAMP, span INTERVAL, list ARRAY<BIGINT>, \
         tags MAP<STRING, STRING>, p STRUCT<a INT, q STRUCT<r STRING>>, j JSON, names ARRAY<STRING>, nan DOUBLE, \
         \"Full name\" STRING",
    )
    .unwrap();
    let json = serde_json::json!({"a": {"b": [1, "two", null]}, "n": 1.5, "t": true, "s": "text"});
    let tags = [("k".into(), Value::string("v"))].into_iter().collect();
    let row = vec![
        Value::Int(7),
        Value::Bigint(42),
        Value::Double(2.5),
        Value::Decimal(Decimal::new(12345, 2)),
        Value::string("héllo"),
        Value::bytes("bytes"),
        Value::Boolean(true),
        Value::Boolean(false),
        Value::Null,
        Value::Null,
        Value::Null,
        Value::Date(20_454),
        // 2026-01-02T03:04:05.678901Z
        Value::Timestamp(1_767_323_045_678_901),
        Value::Timestamp(1_767_319_445_678_901),
        Value::Interval(Interval { months: 0, days: 1, micros: 0 }),
        Value::Array(Arc::from([Value::Bigint(3), Value::Bigint(1), Value::Null])),
        Value::Map(Arc::new(tags)),
        Value::Struct(Arc::from([Value::Int(5), Value::Struct(Arc::from([Value::string("deep")]))])),
        Value::Json(Arc::new(json)),
        Value::Array(Arc::from([Value::string("x"), Value::string("y")])),
        Value::Double(f64::NAN),
        Value::string("Ada"),
    ];
    let mut scope = Scope { pseudo_columns: true, allow_now: true, ..Scope::default() };
    scope.push_schema(Some("e"), &Schema::new(columns), 0);
    (scope, row)
}

pub fn origin() -> Origin {
    let header = |name: &str, value: &str| Header { name: name.into(), value: Some(value.as_bytes().into()) };
    Origin {
        topic: TopicName::new("events"),
        partition: Partition(3),
        offset: Offset(99),
        key: Some(Arc::from(b"key".as_slice())),
        headers: Some(Arc::from([header("source", "old"), header("source", "web")])),
        time: EventTime(1_767_323_045_678),
        tombstone: false,
        fetched_at: 1_767_323_050_000_000,
    }
}

/// `value TYPE`, `error: ...` of evaluation, or `problem: ...` of compilation.
pub fn shown(text: &str) -> String {
    let (scope, row) = scope();
    let origin = origin();
    match compile(text, &scope) {
        Ok(expression) => match expression.eval(&Env { row: &row, origin: &origin }) {
            Ok(Value::Null) => {
                assert!(expression.nullable, "{text} is said not to be NULL");
                format!("NULL {}", expression.ty)
            }
            Ok(value) => {
                format!("{} {}", text_of(&value, &expression.ty), expression.ty)
            }
            Err(error) => format!("error: {error}"),
        },
        Err(problems) => {
            let shown: Vec<String> = problems
                .iter()
                .map(|problem| {
                    let at = text.get(problem.span.clone()).unwrap_or("(bad span)");
                    let help = problem.help.as_ref().map_or(String::new(), |help| format!(" [{help}]"));
                    format!("`{at}` {}{help}", problem.message)
                })
                .collect();
            format!("problem: {}", shown.join("; "))
        }
    }
}

/// As CAST(value AS STRING).
pub fn text_of(value: &Value, ty: &Type) -> String {
    cast::to_text(value, ty).map_or_else(|error| error.to_string(), Into::into)
}

#[track_caller]
pub fn check(cases: &[(&str, &str)]) {
    let mut failures = Vec::new();
    for (text, expect) in cases {
        let actual = shown(text);
        if actual != *expect {
            failures.push(format!("  {text}\n    expected {expect}\n    actual   {actual}"));
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn columns_and_literals_have_their_types() {
    check(&[
        ("i", "7 INT"),
        ("e.b", "42 BIGINT"),
        ("\"Full name\"", "Ada STRING"),
        ("e.\"Full name\"", "Ada STRING"),
        ("at", "2026-01-02T03:04:05.678901Z TIMESTAMP"),
        ("day", "2026-01-01 DATE"),
        ("1", "1 INT"),
        ("3000000000", "3000000000 BIGINT"),
        ("-2147483648", "-2147483648 INT"),
        ("-9223372036854775808", "-9223372036854775808 BIGINT"),
        ("9223372036854775808", "9223372036854775808 DECIMAL(19,0)"),
        ("1.50", "1.50 DECIMAL(3,2)"),
        ("0.05", "0.05 DECIMAL(2,2)"),
        ("1e3", "1000 DOUBLE"),
        ("'it''s'", "it's STRING"),
        ("E'a\\nb'", "a\nb STRING"),
        ("CAST(X'00ff' AS STRING)", "error: invalid STRING: these bytes are not UTF-8; ENCODE(bytes, 'hex') shows any"),
        ("TRUE", "true BOOLEAN"),
        ("NULL", "NULL NULL"),
        ("DATE '2026-01-31'", "2026-01-31 DATE"),
        ("TIMESTAMP '2026-01-31 12:00:00+02'", "2026-01-31T10:00:00Z TIMESTAMP"),
        ("INTERVAL '1 day 2 hours'", "P1DT2H INTERVAL"),
        ("INTERVAL '5' MINUTE", "PT5M INTERVAL"),
        ("INTERVAL '90s'", "PT1M30S INTERVAL"),
        ("INTERVAL 'P1Y2M3DT4H5M6.5S'", "P1Y2M3DT4H5M6.5S INTERVAL"),
        ("INTERVAL '-1 day 01:30:00'", "P-1DT1H30M INTERVAL"),
    ]);
}

#[test]
fn pseudo_columns_come_from_the_record() {
    check(&[
        ("_topic || '/' || _partition || '/' || _offset", "events/3/99 STRING"),
        ("_key", "key BYTES"),
        ("CAST(_key AS STRING)", "key STRING"),
        ("_timestamp", "2026-01-02T03:04:05.678Z TIMESTAMP"),
        ("_tombstone", "false BOOLEAN"),
        ("_headers['source']", "web STRING"),
        ("_headers['none']", "NULL STRING"),
        ("NOW()", "2026-01-02T03:04:10Z TIMESTAMP"),
        ("_headers", "problem: `_headers` `_headers` is not a column by itself [name one: _headers['name']]"),
    ]);
}

#[test]
fn arithmetic_keeps_to_its_types() {
    check(&[
        ("i + 1", "8 INT"),
        ("i + b", "49 BIGINT"),
        ("i / 2", "3 INT"),
        ("-7 / 2", "-3 INT"),
        ("-7 % 3", "-1 INT"),
        ("i / 2.0", "3.500000 DECIMAL(17,6)"),
        ("d * 2", "5 DOUBLE"),
        ("d + 0.5", "3 DOUBLE"),
        ("d / 2", "1.25 DOUBLE"),
        ("1.5 + 1", "2.5 DECIMAL(3,1)"),
        ("dec * 2", "246.90 DECIMAL(11,2)"),
        ("dec + 0.005", "123.455 DECIMAL(12,3)"),
        ("dec - dec", "0.00 DECIMAL(11,2)"),
        ("dec % 10", "3.45 DECIMAL(4,2)"),
        ("-d", "-2.5 DOUBLE"),
        ("-dec", "-123.45 DECIMAL(10,2)"),
        ("2 ^ 10", "1024 DOUBLE"),
        ("i + NULL", "NULL INT"),
        ("ni + 1", "NULL BIGINT"),
        ("1 + 2 * 3 - 4", "3 INT"),
        ("2147483647 + i", "error: INT out of range"),
        ("2147483647 * 2", "error: INT out of range"),
        ("9223372036854775807 + b", "error: BIGINT out of range"),
        ("i / 0", "error: division by zero"),
        ("d / 0", "error: division by zero"),
        ("dec / 0", "error: division by zero"),
        ("i % 0", "error: division by zero"),
        ("d / NULLIF(d, 2.5)", "NULL DOUBLE"),
        ("1e308 * 10 * d", "error: DOUBLE out of range"),
        ("'5' + i", "12 INT"),
        ("s + 1", "problem: `s + 1` `+` does not go with a STRING and an INT [texts are joined with `||`]"),
        ("i * s", "problem: `i * s` `*` does not go with an INT and a STRING [convert the text: CAST(... AS INT)]"),
        (
            "at + 5",
            "problem: `at + 5` `+` does not go with a TIMESTAMP and an INT [say the unit: at + INTERVAL '5 minutes']",
        ),
    ]);
}

#[test]
fn comparisons_and_logic_know_three_values() {
    check(&[
        ("i = 7", "true BOOLEAN"),
        ("i <> 7", "false BOOLEAN"),
        ("i != 8", "true BOOLEAN"),
        ("i < b", "true BOOLEAN"),
        ("i < 7.5", "true BOOLEAN"),
        ("d >= 2.5", "true BOOLEAN"),
        ("d > i", "false BOOLEAN"),
        ("dec = 123.450", "true BOOLEAN"),
        ("s = 'héllo'", "true BOOLEAN"),
        ("s < 'i'", "true BOOLEAN"),
        ("n = 'x'", "NULL BOOLEAN"),
        ("i = NULL", "NULL BOOLEAN"),
        ("nan = nan", "true BOOLEAN"),
        ("nan > 1e300", "true BOOLEAN"),
        ("by = 'bytes'", "true BOOLEAN"),
        ("at > '2026-01-01'", "true BOOLEAN"),
        ("at > day", "true BOOLEAN"),
        ("at - last_at < INTERVAL '2 hours'", "true BOOLEAN"),
        ("span = INTERVAL '24 hours'", "true BOOLEAN"),
        ("t AND nb", "NULL BOOLEAN"),
        ("f AND nb", "false BOOLEAN"),
        ("t OR nb", "true BOOLEAN"),
        ("f OR nb", "NULL BOOLEAN"),
        ("NOT nb", "NULL BOOLEAN"),
        ("NOT t", "false BOOLEAN"),
        ("f AND 1 / 0 = 1", "false BOOLEAN"),
        ("nb IS NULL", "true BOOLEAN"),
        ("nb IS NOT NULL", "false BOOLEAN"),
        ("nb IS TRUE", "false BOOLEAN"),
        ("nb IS NOT TRUE", "true BOOLEAN"),
        ("f IS FALSE", "true BOOLEAN"),
        ("nb IS NOT FALSE", "true BOOLEAN"),
        ("nb IS UNKNOWN", "true BOOLEAN"),
        ("n IS DISTINCT FROM NULL", "false BOOLEAN"),
        ("n IS DISTINCT FROM 'x'", "true BOOLEAN"),
        ("i IS NOT DISTINCT FROM 7", "true BOOLEAN"),
        ("i BETWEEN 5 AND 7", "true BOOLEAN"),
        ("i NOT BETWEEN 5 AND 7", "false BOOLEAN"),
        ("ni BETWEEN 5 AND 7", "NULL BOOLEAN"),
        ("i BETWEEN 8 AND NULL", "false BOOLEAN"),
        ("i IN (1, 7)", "true BOOLEAN"),
        ("i NOT IN (1, 7)", "false BOOLEAN"),
        ("i IN (1, NULL)", "NULL BOOLEAN"),
        ("i IN (7, NULL)", "true BOOLEAN"),
        ("s IN ('a', 'héllo')", "true BOOLEAN"),
        ("n IN ('a')", "NULL BOOLEAN"),
        ("d IN (1, 2.5)", "true BOOLEAN"),
        ("at IN ('2026-01-02T03:04:05.678901Z')", "true BOOLEAN"),
        ("i = ANY(ARRAY[1, 7])", "true BOOLEAN"),
        ("3 = ANY(list)", "true BOOLEAN"),
        ("4 = ANY(list)", "NULL BOOLEAN"),
        ("0 < ALL(list)", "NULL BOOLEAN"),
        ("2 < ALL(list)", "false BOOLEAN"),
        ("s = 5", "problem: `s = 5` cannot compare a STRING and an INT [convert one side: CAST(... AS INT)]"),
        (
            "at > 'yesterday'",
            "problem: `'yesterday'` 'yesterday' is not a TIMESTAMP [for example TIMESTAMP '2026-01-31T12:00:00Z']",
        ),
        ("i AND t", "problem: `i` expected a condition (BOOLEAN), found an INT [compare it: x <> 0]"),
        (
            "j < j",
            "problem: `j < j` a JSON has no order: only = and <> compare it [take a text or number out of it: CAST(x ->> 'a' AS DOUBLE)]",
        ),
    ]);
}

#[test]
fn case_and_conditionals_choose() {
    check(&[
        ("CASE WHEN i > 5 THEN 'big' ELSE 'small' END", "big STRING"),
        ("CASE WHEN nb THEN 1 END", "NULL INT"),
        ("CASE i WHEN 1 THEN 'one' WHEN 7 THEN 'seven' END", "seven STRING"),
        ("CASE n WHEN NULL THEN 1 ELSE 2 END", "2 INT"),
        ("CASE WHEN t THEN 1 ELSE 2.5 END", "1.0 DECIMAL(11,1)"),
        ("CASE WHEN t THEN i ELSE d END", "7 DOUBLE"),
        ("CASE WHEN f THEN 1 / 0 ELSE 3 END", "3 INT"),
        ("COALESCE(n, 'x')", "x STRING"),
        ("COALESCE(ni, i, 5)", "7 BIGINT"),
        ("COALESCE(i, 1 / 0)", "7 INT"),
        ("COALESCE(n, NULL)", "NULL STRING"),
        ("NULLIF(i, 7)", "NULL INT"),
        ("NULLIF(i, 8)", "7 INT"),
        ("NULLIF(d, 0)", "2.5 DOUBLE"),
        ("GREATEST(1, b, NULL)", "42 BIGINT"),
        ("LEAST('b', 'a')", "a STRING"),
        ("GREATEST(d, i)", "7 DOUBLE"),
        ("LEAST(n, NULL)", "NULL STRING"),
        (
            "CASE WHEN i THEN 1 ELSE 'x' END",
            "problem: `i` expected a condition (BOOLEAN), found an INT [compare it: x <> 0]",
        ),
        (
            "CASE WHEN t THEN at ELSE s END",
            "problem: `at ELSE s` cannot return from one CASE a TIMESTAMP and a STRING [convert one side: CAST(... AS TIMESTAMP)]",
        ),
    ]);
}

#[test]
fn casts_convert_or_fail() {
    check(&[
        ("CAST('12' AS INT)", "12 INT"),
        ("' 12 '::BIGINT", "12 BIGINT"),
        ("CAST('1.5' AS DOUBLE)", "1.5 DOUBLE"),
        ("CAST('x' AS INT)", "error: invalid INT: 'x'"),
        ("TRY_CAST('x' AS INT)", "NULL INT"),
        ("TRY_CAST(s AS INT)", "NULL INT"),
        ("CAST('3000000000' AS INT)", "error: INT out of range"),
        ("CAST(d AS INT)", "2 INT"),
        ("CAST(3.5 AS INT)", "4 INT"),
        ("CAST(2.5 AS BIGINT)", "3 BIGINT"),
        ("CAST(nan AS INT)", "error: INT out of range"),
        ("CAST(1e300 AS BIGINT)", "error: BIGINT out of range"),
        ("CAST(d AS DECIMAL(5,1))", "2.5 DECIMAL(5,1)"),
        ("CAST(dec AS DECIMAL(4,2))", "error: DECIMAL(4,2) out of range"),
        ("CAST(dec AS DECIMAL(4,1))", "123.5 DECIMAL(4,1)"),
        ("CAST(d AS STRING)", "2.5 STRING"),
        ("CAST(1e15 AS STRING)", "1e+15 STRING"),
        ("CAST(0.00001::DOUBLE AS STRING)", "1e-05 STRING"),
        ("CAST(t AS STRING)", "true STRING"),
        ("CAST('yes' AS BOOLEAN)", "true BOOLEAN"),
        ("CAST(1 AS BOOLEAN)", "true BOOLEAN"),
        ("CAST(t AS INT)", "1 INT"),
        ("CAST('2026-01-01' AS TIMESTAMP)", "2026-01-01T00:00:00Z TIMESTAMP"),
        ("CAST(at AS DATE)", "2026-01-02 DATE"),
        ("CAST(day AS TIMESTAMP)", "2026-01-01T00:00:00Z TIMESTAMP"),
        ("CAST('1 day' AS INTERVAL)", "P1D INTERVAL"),
        ("CAST(s AS BYTES)", "héllo BYTES"),
        ("CAST(list AS ARRAY<STRING>)", "[\"3\",\"1\",null] ARRAY<STRING>"),
        ("CAST(p AS STRING)", "{\"a\":5,\"q\":{\"r\":\"deep\"}} STRING"),
        ("CAST(j ->> 'n' AS DOUBLE)", "1.5 DOUBLE"),
        ("CAST(j -> 'n' AS DOUBLE)", "1.5 DOUBLE"),
        ("CAST('{\"a\":1}' AS JSON) -> 'a'", "1 JSON"),
        (
            "CAST(at AS BIGINT)",
            "problem: `at` a TIMESTAMP cannot be converted to a BIGINT [say the unit: EXTRACT(EPOCH FROM at) or EPOCH_MS(at)]",
        ),
        ("i::text", "problem: `i` unknown type `TEXT` [write STRING]"),
    ]);
}
