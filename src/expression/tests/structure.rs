//! Arrays, maps, structs and JSON; select lists and joins.

use super::*;

#[test]
fn arrays_maps_and_structs() {
    check(&[
        ("list[1]", "3 BIGINT"),
        ("list[0]", "NULL BIGINT"),
        ("list[9]", "NULL BIGINT"),
        ("list[i - 5]", "1 BIGINT"),
        ("tags['k']", "v STRING"),
        ("tags['none']", "NULL STRING"),
        ("p.a", "5 INT"),
        ("p.q.r", "deep STRING"),
        ("e.p.q.r", "deep STRING"),
        ("(p).a + 1", "6 INT"),
        ("ARRAY[1, 2.5]", "[\"1.0\",\"2.5\"] ARRAY<DECIMAL(11,1)>"),
        ("ARRAY['a', n]", "[\"a\",null] ARRAY<STRING>"),
        ("ARRAY[1, 2] || 3", "[1,2,3] ARRAY<INT>"),
        ("ARRAY[1] || ARRAY[2]", "[1,2] ARRAY<INT>"),
        ("list || i", "[3,1,null,7] ARRAY<BIGINT>"),
        ("0 || list", "[0,3,1,null] ARRAY<BIGINT>"),
        ("CARDINALITY(list)", "3 INT"),
        ("CARDINALITY(tags)", "1 INT"),
        ("ARRAY_LENGTH(list, 1)", "3 INT"),
        ("ARRAY_CONTAINS(list, i)", "false BOOLEAN"),
        ("ARRAY_CONTAINS(names, 'y')", "true BOOLEAN"),
        ("ARRAY_POSITION(names, 'y')", "2 INT"),
        ("ARRAY_POSITION(names, 'z')", "NULL INT"),
        ("ARRAY_APPEND(names, 'z')", "[\"x\",\"y\",\"z\"] ARRAY<STRING>"),
        ("ARRAY_REMOVE(list, 1)", "[3,null] ARRAY<BIGINT>"),
        ("ARRAY_DISTINCT(ARRAY[2, 1, 2])", "[2,1] ARRAY<INT>"),
        ("ARRAY_SORT(list)", "[1,3,null] ARRAY<BIGINT>"),
        ("ARRAY_MIN(list)", "1 BIGINT"),
        ("ARRAY_MAX(names)", "y STRING"),
        ("ARRAY_TO_STRING(names, '+')", "x+y STRING"),
        ("STRING_TO_ARRAY('a,b', ',')", "[\"a\",\"b\"] ARRAY<STRING>"),
        ("MAP_KEYS(tags)", "[\"k\"] ARRAY<STRING>"),
        ("MAP_VALUES(tags)", "[\"v\"] ARRAY<STRING>"),
        ("ARRAY[1, 2] = ARRAY[1, 2]", "true BOOLEAN"),
        ("ARRAY[1, 2] < ARRAY[1, 3]", "true BOOLEAN"),
        ("p = p", "true BOOLEAN"),
        ("i[1]", "problem: `i` an INT has no elements"),
        ("p.b", "problem: `b` there is no field `b` [its fields are a, q]"),
        ("i.b", "problem: `b` an INT has no fields, so no `b`"),
        ("j.a", "problem: `a` a JSON has no fields, so no `a` [read JSON with -> and ->>: column ->> 'a']"),
        ("ARRAY[1, 'x']", "problem: `'x'` 'x' is not an INT"),
    ]);
}

#[test]
fn json_paths() {
    check(&[
        ("j -> 'a'", "{\"b\":[1,\"two\",null]} JSON"),
        ("j -> 'a' -> 'b' -> 1", "\"two\" JSON"),
        ("j -> 'a' -> 'b' ->> 1", "two STRING"),
        ("j -> 'a' -> 'b' ->> -2", "two STRING"),
        ("j -> 'a' -> 'b' -> 2", "null JSON"),
        ("j -> 'a' -> 'b' ->> 2", "NULL STRING"),
        ("j ->> 'none'", "NULL STRING"),
        ("j ->> 's'", "text STRING"),
        ("j['a']['b'][1]", "\"two\" JSON"),
        ("j #> '{a,b,0}'", "1 JSON"),
        ("j #>> '{a,b,1}'", "two STRING"),
        ("j #>> ARRAY['a', 'b', '0']", "1 STRING"),
        ("j ->> 's' = 'text'", "true BOOLEAN"),
        ("(j ->> 'n')::DOUBLE > 1", "true BOOLEAN"),
        ("JSON_VALUE(j, '$.a.b[1]')", "two STRING"),
        ("JSON_VALUE(j, '$.a')", "NULL STRING"),
        ("JSON_QUERY(j, '$.a.b')", "[1,\"two\",null] JSON"),
        ("JSON_EXISTS(j, '$.a.c')", "false BOOLEAN"),
        ("JSON_VALUE(j, 'a')", "error: JSON_VALUE: a path is written '$.a.b[0]', not 'a'"),
        ("JSON_TYPEOF(j -> 't')", "boolean STRING"),
        ("JSON_ARRAY_LENGTH(j -> 'a' -> 'b')", "3 INT"),
        ("JSON_ARRAY_LENGTH(j)", "error: JSON_ARRAY_LENGTH: of something that is not an array"),
        ("JSON_KEYS(j -> 'a')", "[\"b\"] ARRAY<STRING>"),
        ("TO_JSON(p)", "{\"a\":5,\"q\":{\"r\":\"deep\"}} JSON"),
        ("TO_JSON('a')", "\"a\" JSON"),
        ("PARSE_JSON('[1]') -> 0", "1 JSON"),
        ("TRY_PARSE_JSON('[1')", "NULL JSON"),
        ("CAST('[1' AS JSON)", "error: invalid JSON: '[1'"),
        ("CAST(j -> 'a' -> 'b' -> 0 AS INT)", "1 INT"),
        ("CAST(j -> 's' AS INT)", "error: invalid INT: '\"text\"'"),
        ("CAST(PARSE_JSON('[1, 2]') AS ARRAY<BIGINT>)", "[1,2] ARRAY<BIGINT>"),
        ("j = '{\"a\": 1}'", "false BOOLEAN"),
    ]);
}

// ---- select lists --------------------------------------------------------------------------------------------------

fn two_inputs() -> Scope {
    let mut scope = Scope { pseudo_columns: true, ..Scope::default() };
    scope.push_schema(Some("a"), &Schema::new(parse_columns("id BIGINT, x INT, p STRUCT<q STRING>").unwrap()), 0);
    scope.push_schema(Some("b"), &Schema::new(parse_columns("id INT, y STRING").unwrap()), 3);
    scope.columns.push(ScopeColumn {
        qualifier: Some("b".into()),
        column: Column::new("_key", Type::Bytes, true),
        slot: 5,
        hidden: true,
    });
    scope
}

fn selected(text: &str) -> String {
    match compile_select(text, &two_inputs()) {
        Ok(items) => {
            let item = |item: &SelectItem| {
                let from = item.expression.as_column().map_or(String::new(), |slot| format!("#{slot}"));
                format!("{} {}{from} `{}`", item.name, item.expression.ty, &text[item.span.clone()])
            };
            items.iter().map(item).collect::<Vec<_>>().join(", ")
        }
        Err(problems) => super::problems::listed(text, &problems),
    }
}

#[track_caller]
fn select(text: &str, expect: &str) {
    assert_eq!(selected(text), expect, "{text}");
}

#[test]
fn select_lists_name_their_columns() {
    select("a.id, y AS why", "id BIGINT#0 `a.id`, why STRING#4 `y AS why`");
    select("a.*", "id BIGINT#0 `a`, x INT#1 `a`, p STRUCT<q STRING>#2 `a`");
    select("* EXCEPT (id)", "x INT#1 `*`, p STRUCT<q STRING>#2 `*`, y STRING#4 `*`");
    select("* EXCEPT (id, x, p), x + 1 AS x", "y STRING#4 `*`, x INT `x + 1 AS x`");
    select("b.* EXCEPT (y)", "id INT#3 `b`");
    select("LOWER(y), p.q, COALESCE(x, 0)", "lower STRING `LOWER(y)`, q STRING `p.q`, coalesce INT `COALESCE(x, 0)`");
    select("x AS \"Full name\", _offset", "Full name INT#1 `x AS \"Full name\"`, _offset BIGINT `_offset`");
    select("CASE WHEN x > 1 THEN 'a' END AS c", "c STRING `CASE WHEN x > 1 THEN 'a' END AS c`");
}

#[test]
fn the_select_of_a_fraud_feature_compiles() {
    let columns = "amount DOUBLE, lat DOUBLE, lon DOUBLE, at TIMESTAMP, mean_1h DOUBLE, last_at TIMESTAMP, \
                   last_lat DOUBLE, last_lon DOUBLE";
    let mut scope = Scope::default();
    scope.push_schema(None, &Schema::new(parse_columns(columns).unwrap()), 0);
    let text = "*, at - last_at AS since_last, GEO_DISTANCE(lat, lon, last_lat, last_lon) AS km, \
                amount / NULLIF(mean_1h, 0) AS ratio";
    let items = compile_select(text, &scope).unwrap();
    let added: Vec<String> = items[8..].iter().map(|item| format!("{} {}", item.name, item.expression.ty)).collect();
    assert_eq!(added, ["since_last INTERVAL", "km DOUBLE", "ratio DOUBLE"]);
    // Of the first record of a key nothing is known before it.
    let mut row = vec![Value::Double(5.0); 3];
    row.extend([Value::Timestamp(0), Value::Double(0.0), Value::Null, Value::Null, Value::Null]);
    let values = items[8..].iter().map(|item| item.expression.eval(&Env { row: &row, origin: &origin() }).unwrap());
    assert_eq!(values.collect::<Vec<_>>(), [Value::Null, Value::Null, Value::Null]);
}

#[test]
fn select_lists_refuse_what_has_no_one_name() {
    select(
        "*",
        "`*` column `id` stands twice [give one of them another name with AS, or leave it out with * EXCEPT (...)]",
    );
    select(
        "x, y AS x",
        "`y AS x` column `x` stands twice [give one of them another name with AS, or leave it out with * EXCEPT (...)]",
    );
    select("x + 1", "`x + 1` this expression needs a name [write it as: expression AS name]");
    select("x y", "`y` `y` stands beside an expression [write `AS y`, or a comma before it]");
    select("* EXCEPT (idd)", "`idd` EXCEPT names `idd`, which is no column here [did you mean id?]");
    select("c.*", "`c` unknown input `c`");
    select("NULL AS z", "`NULL` a bare NULL has no type [say its type: CAST(NULL AS STRING)]");
    select("id", "`id` `id` is ambiguous [write a.id or b.id]");
    select(
        "idd AS a, LOWR(y) AS b",
        "`idd` unknown column `idd` [did you mean id?]; `LOWR` unknown function `LOWR` [did you mean LOWER?]",
    );
    select("a, x", "`a` `a` is an input, not a column [name one of its columns: a.column]");
}

// ---- joins ---------------------------------------------------------------------------------------------------------

fn sides() -> (Scope, Scope) {
    let (mut left, mut right) = (Scope::default(), Scope::default());
    left.push_schema(Some("o"), &Schema::new(parse_columns("id STRING, account BIGINT, amount DOUBLE").unwrap()), 0);
    right.push_schema(Some("a"), &Schema::new(parse_columns("account INT, home STRING, floor DOUBLE").unwrap()), 0);
    (left, right)
}

fn joined(text: &str) -> String {
    let (left, right) = sides();
    match compile_join(text, &left, &right) {
        Ok(condition) => {
            let side = |expression: &Expression| format!("{}:{}{:?}", expression.text, expression.ty, expression.slots);
            let mut parts: Vec<String> =
                condition.equalities.iter().map(|(a, b)| format!("{} = {}", side(a), side(b))).collect();
            parts.extend(condition.residual.iter().map(|residual| format!("and {:?}", residual.slots)));
            parts.join(", ")
        }
        Err(problems) => super::problems::listed(text, &problems),
    }
}

#[track_caller]
fn join(text: &str, expect: &str) {
    assert_eq!(joined(text), expect, "{text}");
}

#[test]
fn joins_come_apart_into_equalities_and_the_rest() {
    join("o.id = a.home", "o.id:STRING{0} = a.home:STRING{1}");
    join("a.home = o.id", "o.id:STRING{0} = a.home:STRING{1}");
    join("o.account = a.account", "o.account:BIGINT{1} = a.account:BIGINT{0}");
    join("LOWER(id) = home AND amount > floor", "LOWER(id):STRING{0} = home:STRING{1}, and {2, 5}");
    join(
        "(id = home AND o.account = a.account) AND amount > 3",
        "id:STRING{0} = home:STRING{1}, o.account:BIGINT{1} = a.account:BIGINT{0}, and {2}",
    );
    let (left, right) = sides();
    let condition = compile_join("id = home AND amount > floor AND amount > 0", &left, &right).unwrap();
    let row = [1.0, 5.0].map(Value::Double);
    let both = [Value::Null, Value::Null, row[1].clone(), Value::Null, Value::Null, row[0].clone()];
    assert!(condition.residual.unwrap().holds(&Env { row: &both, origin: &origin() }).unwrap());
}

#[test]
fn a_join_needs_an_equality_between_its_sides() {
    join(
        "amount > floor",
        "`amount > floor` a join needs an equality between its two sides [write an equality between a column of each side: a.id = b.id]",
    );
    join("account = home", "`account` `account` is ambiguous [write o.account or a.account]");
    join(
        "o.id = a.floor",
        "`o.id = a.floor` cannot compare a STRING and a DOUBLE [convert one side: CAST(... AS DOUBLE)]",
    );
    join("o.id = a.hom", "`hom` `a` has no column `hom` [did you mean a.home?]");
    join("o.id = a.home AND b.x = 1", "`b` unknown input or column `b` [the inputs are o, a]");
}
