//! Aggregates over small tables of rows.

use std::collections::VecDeque;
use std::ops::Range;

use proptest::prelude::*;

use super::*;
use crate::expression::tests::{origin, text_of};
use crate::expression::{OverSet, parse_columns};
use crate::value::Decimal;

fn scope() -> Scope {
    let columns = parse_columns("i INT, b BIGINT, d DOUBLE, dec DECIMAL(10,2), s STRING, j JSON").unwrap();
    let mut scope = Scope::default();
    scope.push_schema(Some("e"), &Schema::new(columns), 0);
    scope
}

fn row(i: i32, d: f64, s: &str) -> Row {
    let dec = Value::Decimal(Decimal::new(i128::from(i) * 50, 2));
    vec![Value::Int(i), Value::Bigint(i64::from(i)), Value::Double(d), dec, Value::string(s), Value::Null]
}

fn null_row() -> Row {
    vec![Value::Null; 6]
}

fn set(text: &str, retraction: Retraction) -> AggregateSet {
    AggregateSet::compile(&[("x", text)], &scope(), retraction).unwrap()
}

fn add(set: &AggregateSet, state: &mut Row, row: &[Value], time: i64) -> Result<(), EvalError> {
    set.add(state, &Env { row, origin: &origin() }, EventTime(time))
}

fn retract(set: &AggregateSet, state: &mut Row, row: &[Value], time: i64) {
    set.retract(state, &Env { row, origin: &origin() }, EventTime(time)).unwrap();
}

fn result(set: &AggregateSet, state: &[Value]) -> String {
    let mut into = Vec::new();
    match set.results(state, &mut into) {
        Ok(()) if into[0].is_null() => format!("NULL {}", set.columns()[0].ty),
        Ok(()) => format!("{} {}", text_of(&into[0], &set.columns()[0].ty), set.columns()[0].ty),
        Err(error) => format!("error: {error}"),
    }
}

/// Rows (1, 1.5, b), (3, -2, a), NULLs, (2, 4, c) at times 20, 10, 5, 30.
fn rows() -> [(Row, i64); 4] {
    [(row(1, 1.5, "b"), 20), (row(3, -2.0, "a"), 10), (null_row(), 5), (row(2, 4.0, "c"), 30)]
}

const CASES: [(&str, &str, &str); 21] = [
    ("COUNT(*)", "4 BIGINT", "0 BIGINT"),
    ("COUNT(s)", "3 BIGINT", "0 BIGINT"),
    ("COUNT(*) FILTER (WHERE i >= 2)", "2 BIGINT", "0 BIGINT"),
    ("SUM(i)", "6 BIGINT", "NULL BIGINT"),
    ("SUM(b + 1)", "9 BIGINT", "NULL BIGINT"),
    ("SUM(d)", "3.5 DOUBLE", "NULL DOUBLE"),
    ("SUM(dec)", "3.00 DECIMAL(38,2)", "NULL DECIMAL(38,2)"),
    ("SUM(i) FILTER (WHERE s = 'none')", "NULL BIGINT", "NULL BIGINT"),
    ("AVG(i)", "2 DOUBLE", "NULL DOUBLE"),
    ("AVG(d)", "1.1666666666666667 DOUBLE", "NULL DOUBLE"),
    ("AVG(dec)", "1.000000 DECIMAL(14,6)", "NULL DECIMAL(14,6)"),
    ("MIN(d)", "-2 DOUBLE", "NULL DOUBLE"),
    ("MAX(i)", "3 INT", "NULL INT"),
    ("MIN(s)", "a STRING", "NULL STRING"),
    ("MAX(s) FILTER (WHERE i < 3)", "c STRING", "NULL STRING"),
    ("FIRST(s)", "a STRING", "NULL STRING"),
    ("LAST(s)", "c STRING", "NULL STRING"),
    ("FIRST(i)", "3 INT", "NULL INT"),
    ("ARG_MAX(s, d)", "c STRING", "NULL STRING"),
    ("ARG_MIN(s, d)", "a STRING", "NULL STRING"),
    ("ARG_MAX(i, s)", "2 INT", "NULL INT"),
];

#[test]
fn aggregates_take_rows_in_and_leave_nulls_out() {
    for (text, of_all, of_none) in CASES {
        for retraction in [Retraction::Never, Retraction::Needed] {
            let set = set(text, retraction);
            let mut state = set.empty();
            assert_eq!(result(&set, &state), of_none, "{text} of none");
            for (row, time) in rows() {
                add(&set, &mut state, &row, time).unwrap();
            }
            assert_eq!(result(&set, &state), of_all, "{text} {retraction:?}");
        }
    }
}

#[test]
fn a_row_taken_out_leaves_the_state_as_if_it_had_never_been() {
    for (text, _, _) in CASES {
        let set = set(text, Retraction::Needed);
        // Every order of taking out, each beside a state that never saw the row.
        for out in 0..4 {
            let (mut state, mut without) = (set.empty(), set.empty());
            for (index, (row, time)) in rows().iter().enumerate() {
                add(&set, &mut state, row, *time).unwrap();
                if index != out {
                    add(&set, &mut without, row, *time).unwrap();
                }
            }
            let (row, time) = &rows()[out];
            retract(&set, &mut state, row, *time);
            assert_eq!(state, without, "{text} without row {out}");
            for (index, (row, time)) in rows().iter().enumerate().rev() {
                if index != out {
                    retract(&set, &mut state, row, *time);
                }
            }
            assert_eq!(result(&set, &state), result(&set, &set.empty()), "{text} emptied");
        }
    }
}

#[test]
fn state_columns_are_named_by_the_result() {
    let calls = [("n", "COUNT(*)"), ("mean", "AVG(d)"), ("top", "ARG_MAX(s, i)"), ("total", "SUM(i)")];
    let names = |retraction| {
        let set = AggregateSet::compile(&calls, &scope(), retraction).unwrap();
        assert_eq!(set.empty().len(), set.state().len());
        let names: Vec<String> = set.state().columns().iter().map(ToString::to_string).collect();
        names.join(", ")
    };
    assert_eq!(
        names(Retraction::Never),
        "n BIGINT, mean.sum DOUBLE, mean.compensation DOUBLE, mean.count BIGINT, top STRING, top.by INT, total BIGINT"
    );
    assert_eq!(
        names(Retraction::Needed),
        "n BIGINT, mean.sum DOUBLE, mean.compensation DOUBLE, mean.count BIGINT, mean.nan BIGINT, mean.infinity BIGINT, \
         mean.negative_infinity BIGINT, top.values ARRAY<STRUCT<by INT NOT NULL, value STRING NOT NULL, count BIGINT NOT \
         NULL>>, total DECIMAL(38,0), total.count BIGINT"
    );
}

#[test]
fn nulls_in_the_state_count_as_its_empty_value() {
    for (text, of_all, of_none) in CASES {
        for retraction in [Retraction::Never, Retraction::Needed] {
            let set = set(text, retraction);
            let mut state = vec![Value::Null; set.state().len()];
            assert_eq!(result(&set, &state), of_none, "{text}");
            for (row, time) in rows() {
                add(&set, &mut state, &row, time).unwrap();
            }
            assert_eq!(result(&set, &state), of_all, "{text}");
        }
    }
}

#[test]
fn an_overflowing_sum_is_an_error_that_changes_nothing() {
    let calls = [("n", "COUNT(*)"), ("sum", "SUM(b)"), ("max", "MAX(b)")];
    let set = AggregateSet::compile(&calls, &scope(), Retraction::Never).unwrap();
    let mut state = set.empty();
    let mut large = row(1, 1.0, "x");
    large[1] = Value::Bigint(i64::MAX);
    add(&set, &mut state, &large, 1).unwrap();
    let before = state.clone();
    assert_eq!(add(&set, &mut state, &large, 2), Err(EvalError::OutOfRange { ty: crate::schema::Type::Bigint }));
    assert_eq!(state, before);
}

#[test]
fn a_failing_argument_changes_nothing() {
    let calls = [("n", "COUNT(*)"), ("ratio", "SUM(10 / i)")];
    let set = AggregateSet::compile(&calls, &scope(), Retraction::Never).unwrap();
    let mut state = set.empty();
    assert_eq!(add(&set, &mut state, &row(0, 1.0, "x"), 1), Err(EvalError::DivisionByZero));
    assert_eq!(state, set.empty());
}

#[test]
fn sums_of_doubles_are_compensated() {
    let set = set("SUM(d)", Retraction::Needed);
    let mut state = set.empty();
    for number in [1e100, 1.0, -1e100, 1.0] {
        add(&set, &mut state, &row(1, number, "x"), 1).unwrap();
    }
    assert_eq!(result(&set, &state), "2 DOUBLE");
}

#[test]
fn nan_and_the_infinities_leave_with_their_records() {
    let set = set("SUM(d)", Retraction::Needed);
    let mut state = set.empty();
    let values = [2.0, f64::INFINITY, f64::NAN, f64::NEG_INFINITY];
    for value in values {
        add(&set, &mut state, &row(1, value, "x"), 1).unwrap();
    }
    assert_eq!(result(&set, &state), "NaN DOUBLE");
    retract(&set, &mut state, &row(1, f64::NAN, "x"), 1);
    assert_eq!(result(&set, &state), "NaN DOUBLE", "both infinities are left");
    retract(&set, &mut state, &row(1, f64::INFINITY, "x"), 1);
    assert_eq!(result(&set, &state), "-Infinity DOUBLE");
    retract(&set, &mut state, &row(1, f64::NEG_INFINITY, "x"), 1);
    assert_eq!(result(&set, &state), "2 DOUBLE");
}

/// Two rows that differ in `s` alone.
#[track_caller]
fn of_equals(retraction: Retraction, order: [&str; 2], expect: [(&str, &str); 4]) {
    for (text, expect) in expect {
        let set = set(text, retraction);
        let mut state = set.empty();
        for text in order {
            add(&set, &mut state, &row(1, 0.0, text), 7).unwrap();
        }
        assert_eq!(result(&set, &state), format!("{expect} STRING"), "{text} {order:?}");
    }
}

#[test]
fn of_equal_records_of_a_stream_first_is_the_first_to_arrive_and_last_the_last() {
    for order in [["a", "b"], ["b", "a"]] {
        let [one, two] = order;
        let expect = [("FIRST(s)", one), ("LAST(s)", two), ("ARG_MAX(s, i)", one), ("ARG_MIN(s, i)", one)];
        of_equals(Retraction::Never, order, expect);
    }
}

#[test]
fn of_equal_rows_of_a_table_the_values_decide_whatever_the_order_of_arrival() {
    for order in [["a", "b"], ["b", "a"]] {
        let expect = [("FIRST(s)", "a"), ("LAST(s)", "b"), ("ARG_MAX(s, i)", "a"), ("ARG_MIN(s, i)", "a")];
        of_equals(Retraction::Needed, order, expect);
    }
}

proptest! {
    /// The state follows from the rows that are in it, whatever came and went before.
    #[test]
    fn a_tables_aggregates_are_those_of_the_rows_that_are_left(
        changes in prop::collection::vec((0..3_i32, 0..3_usize, 0..3_i64, any::<bool>()), 0..40),
    ) {
        for text in ["FIRST(s)", "LAST(s)", "ARG_MIN(s, i)", "ARG_MAX(s, i)", "MIN(i)", "MAX(s)"] {
            let set = set(text, Retraction::Needed);
            let (mut state, mut left) = (set.empty(), Vec::new());
            for (i, s, time, enters) in &changes {
                let one = (row(*i, 0.0, ["a", "b", "c"][*s]), *time);
                if *enters {
                    add(&set, &mut state, &one.0, one.1).unwrap();
                    left.push(one);
                } else if let Some(at) = left.iter().position(|other| *other == one) {
                    left.swap_remove(at);
                    retract(&set, &mut state, &one.0, one.1);
                }
            }
            let mut anew = set.empty();
            for (row, time) in &left {
                add(&set, &mut anew, row, *time).unwrap();
            }
            prop_assert_eq!(&state, &anew, "{}", text);
            let s = |row: &Row| match &row[4] { Value::String(text) => text.to_string(), _ => String::new() };
            let i = |row: &Row| match &row[0] { Value::Int(number) => i64::from(*number), _ => 0 };
            let by_time = || left.iter().map(|(row, time)| (*time, s(row)));
            let by_i = || left.iter().map(|(row, _)| (i(row), s(row)));
            let expected = match text {
                "FIRST(s)" => by_time().min().map(|(_, s)| s),
                "LAST(s)" => by_time().max().map(|(_, s)| s),
                "ARG_MIN(s, i)" => by_i().min().map(|(_, s)| s),
                // The least of those with the greatest i.
                "ARG_MAX(s, i)" => {
                    let most = by_i().map(|(i, _)| i).max();
                    by_i().filter(|(i, _)| Some(*i) == most).map(|(_, s)| s).min()
                }
                "MIN(i)" => by_i().min().map(|(i, _)| i.to_string()),
                _ => by_i().map(|(_, s)| s).max(),
            };
            let shown = result(&set, &state);
            let (value, _) = shown.rsplit_once(' ').unwrap();
            prop_assert_eq!(value, expected.as_deref().unwrap_or("NULL"), "{}", text);
        }
    }
}

#[track_caller]
fn refused(text: &str, expect: &str) {
    let problems = AggregateSet::compile(&[("ok", "COUNT(*)"), ("x", text)], &scope(), Retraction::Never).unwrap_err();
    let shown: Vec<String> = problems
        .iter()
        .map(|(index, problem)| {
            assert_eq!(*index, 1);
            let help = problem.help.as_ref().map_or(String::new(), |help| format!(" [{help}]"));
            format!("`{}` {}{help}", text.get(problem.span.clone()).unwrap_or("?"), problem.message)
        })
        .collect();
    assert_eq!(shown.join("; "), expect, "{text}");
}

#[test]
fn a_mistaken_aggregate_says_what_to_write() {
    refused("CONUT(*)", "`CONUT` unknown aggregate `CONUT` [did you mean COUNT?]");
    refused("LAST_VALUE(i)", "`LAST_VALUE` unknown aggregate `LAST_VALUE` [write LAST(x)]");
    refused("STDDEV_POP(d)", "`STDDEV_POP` STDDEV_POP: not supported yet");
    refused("COLLECT_LIST(s, 10)", "`COLLECT_LIST` COLLECT_LIST: not supported yet");
    refused("COUNT(DISTINCT s)", "`COUNT` COUNT(DISTINCT ...): not supported yet");
    refused("SUM(s)", "`s` SUM takes a number, found a STRING [convert it: CAST(... AS DOUBLE)]");
    refused("MAX(j)", "`j` a JSON has no order");
    refused("SUM(i, b)", "`SUM(i, b)` expected SUM(x)");
    refused(
        "SUM(amout)",
        "`amout` unknown column `amout` [the columns are i, b, d, dec, s, j; a text stands in single quotes]",
    );
    refused(
        "SUM(i) / COUNT(*)",
        "`SUM(i) / COUNT` expected an aggregate, like COUNT(*) or SUM(x) [put one aggregate per name here, and compute \
         with the names in `select:` or `having:`]",
    );
    refused("COUNT(*) FILTER (WHERE i)", "`i` expected a condition (BOOLEAN), found an INT [compare it: x <> 0]");
    refused(
        "SUM(MAX(i))",
        "`MAX` MAX is an aggregate: it stands under `aggregate:` [write aggregate: {name: ...} with group_by or over, and use that name here]",
    );
    refused(
        "LAG(i)",
        "`LAG(i)` LAG looks at single records: it stands under `over:` only [use an `over:` step: {by: ..., aggregate: {last: LAG(x)}}]",
    );
}

#[test]
fn over_answers_from_kept_rows() {
    let calls = [
        ("n", "COUNT(*)"),
        ("sum", "SUM(d)"),
        ("big", "COUNT(*) FILTER (WHERE d > 1)"),
        ("before", "LAG(s)"),
        ("before2", "LAG(s, 2, 'none')"),
        ("own", "LAG(i, 3, i)"),
    ];
    let mut kept = Vec::new();
    let over = OverSet::compile(&calls, &scope(), &mut kept).unwrap();
    let again = OverSet::compile(&[("max", "MAX(d)")], &scope(), &mut kept).unwrap();
    let texts: Vec<&str> = kept.iter().map(|expression| &*expression.text).collect();
    assert_eq!(texts, ["d", "d > 1", "s", "i"], "what is kept is shared");
    assert_eq!((over.lag(), again.lag()), (3, 0));

    let input = [(row(1, 1.0, "a"), 10), (row(2, 2.0, "b"), 20), (row(3, 4.0, "c"), 30)];
    let keep = |row: &Row, time: i64| {
        let env = Env { row, origin: &origin() };
        let values = kept.iter().map(|expression| expression.eval(&env).unwrap()).collect();
        KeptRow { time: EventTime(time), tie: 0, values }
    };
    let rows: VecDeque<KeptRow> = input.iter().map(|(row, time)| keep(row, *time)).collect();
    let answer = |over: &OverSet, frame: Range<usize>, exclude: bool, current: usize| {
        let mut into = Vec::new();
        over.results(&rows, frame, exclude, current, &origin(), &mut into).unwrap();
        let values = into.iter().zip(over.columns());
        values
            .map(|(value, column)| if value.is_null() { "NULL".into() } else { text_of(value, &column.ty) })
            .collect::<Vec<_>>()
    };
    assert_eq!(answer(&over, 1..3, false, 2), ["2", "6", "2", "b", "a", "3"]);
    assert_eq!(answer(&over, 1..3, true, 2), ["1", "2", "1", "b", "a", "3"]);
    assert_eq!(answer(&over, 0..1, true, 0), ["0", "NULL", "0", "NULL", "none", "1"]);
    assert_eq!(answer(&again, 0..3, false, 0), ["4"]);
}

/// What is kept is a column of the stored rows, found by its name when the topology has changed.
#[test]
fn what_over_keeps_is_named_by_all_of_its_text_and_never_twice() {
    let mut kept = Vec::new();
    let calls = [
        ("a", "SUM(i)"),
        ("b", "SUM(CAST(i AS DOUBLE))"),
        ("c", "SUM(CAST( i  AS BIGINT))"),
        ("d", "MAX(TRIM(s))"),
        ("e", "MAX(i * 2) FILTER (WHERE b > 1)"),
        ("f", "LAG(b, 1, i)"),
        ("g", "MAX(CASE WHEN i > 1 THEN b END)"),
        ("h", "MAX(-i)"),
        ("i", "MAX(j->>'x')"),
    ];
    OverSet::compile(&calls, &scope(), &mut kept).unwrap();
    let names: Vec<&str> = kept.iter().map(|kept| &*kept.text).collect();
    let mut distinct = names.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), names.len(), "{names:?}");
    for name in ["i", "CAST(i AS DOUBLE)", "CAST(i AS BIGINT)", "i * 2", "b > 1", "b"] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
}
