//! FIRST and LAST over tables, whose rows change, go, and get other event times.

#[path = "support/flow.rs"]
mod harness;

use std::collections::BTreeMap;

use harness::{Flow, START, events};
use serde_json::{Value, json};

const ACCOUNTS: &str = r"
version: 1
name: app
tables:
  accounts:
    topic: accounts
    key: {name: user, type: STRING}
    columns: {plan: STRING, city: STRING, at: TIMESTAMP}
    timestamp: at
steps:
";

fn account(flow: &mut Flow, user: &str, plan: &str, city: &str, at: i64) {
    flow.send("accounts", user, json!({"plan": plan, "city": city, "at": START + at}));
    flow.settle();
}

/// The last row per key of a topic.
fn table(flow: &Flow, topic: &str) -> BTreeMap<String, Value> {
    let mut rows: BTreeMap<String, Value> = flow.read(topic).into_iter().collect();
    rows.retain(|_, row| !row.is_null());
    rows
}

const BY_PLAN: &str = r"
  by_plan:
    from: accounts
    group_by: plan
    aggregate: {earliest: FIRST(user), latest: LAST(user), city: LAST(city), n: COUNT(*)}
    ttl: none
    to: out
";

/// Earliest and latest of a plan; NULLs where nobody has it.
fn ends(flow: &Flow, plan: &str) -> [Value; 2] {
    let rows = table(flow, "out");
    ["earliest", "latest"].map(|column| rows.get(plan).map_or(Value::Null, |row| row[column].clone()))
}

#[test]
fn the_row_that_is_first_or_last_gives_way_to_the_next_when_it_moves_or_goes() {
    let mut flow = Flow::new(&format!("{ACCOUNTS}{BY_PLAN}"));
    account(&mut flow, "u2", "free", "x", 20);
    account(&mut flow, "u1", "free", "y", 10);
    account(&mut flow, "u3", "free", "z", 30);
    assert_eq!(ends(&flow, "free"), ["u1", "u3"], "by event time, not by arrival");
    account(&mut flow, "u3", "paid", "z", 40);
    assert_eq!(ends(&flow, "free"), ["u1", "u2"]);
    flow.send_raw("accounts", Some(b"u1"), None);
    flow.settle();
    assert_eq!(ends(&flow, "free"), ["u2", "u2"]);
    account(&mut flow, "u2", "paid", "x", 50);
    assert_eq!(ends(&flow, "free"), [Value::Null, Value::Null], "nobody is left");
    assert_eq!(ends(&flow, "paid"), ["u3", "u2"]);
}

#[test]
fn a_row_that_is_replaced_counts_with_the_time_of_what_replaced_it() {
    let mut flow = Flow::new(&format!("{ACCOUNTS}{BY_PLAN}"));
    account(&mut flow, "u1", "free", "x", 10);
    account(&mut flow, "u2", "free", "x", 20);
    account(&mut flow, "u1", "free", "y", 30);
    assert_eq!(ends(&flow, "free"), ["u2", "u1"]);
    // Even if that is an earlier one: the last to arrive is the row, as everywhere in a table.
    account(&mut flow, "u1", "free", "z", 5);
    assert_eq!(ends(&flow, "free"), ["u1", "u2"]);
    assert_eq!(table(&flow, "out")["free"]["n"], json!(2));
}

#[test]
fn each_change_of_a_row_within_its_group_is_one_result() {
    let mut flow = Flow::new(&format!("{ACCOUNTS}{BY_PLAN}    emit: each\n"));
    for (city, at) in [("x", 10), ("y", 20), ("z", 15)] {
        account(&mut flow, "u1", "free", city, at);
    }
    let rows: Vec<(Value, Value)> =
        flow.read("out").into_iter().map(|(_, row)| (row["city"].clone(), row["n"].clone())).collect();
    assert_eq!(rows, ["x", "y", "z"].map(|city| (json!(city), json!(1))));
}

#[test]
fn a_row_that_is_as_before_but_later_moves_in_the_order_of_time_and_is_not_written_again() {
    for emit in ["changes", "each"] {
        let mut flow = events(&format!(
            r"
steps:
  highest: {{from: events, group_by: user, aggregate: {{top: MAX(value)}}, ttl: none, emit: {emit}, to: highest}}
  renamed: {{from: highest, where: top > 0, select: 'user AS who, top'}}
  overall: {{from: renamed, group_by: top > 0 AS some, aggregate: {{latest: LAST(who), n: COUNT(*)}}, ttl: none, to: out}}
"
        ));
        for (user, value, at) in [("u1", 5, 1), ("u2", 7, 2), ("u1", 4, 3)] {
            flow.send("events", user, json!({"item": "i", "value": value, "at": START + at}));
            flow.settle();
        }
        let latest: Vec<Value> = flow.read("out").into_iter().map(|(_, row)| row["latest"].clone()).collect();
        assert_eq!(latest, ["u1", "u2", "u1"], "emit: {emit}");
        assert_eq!(flow.read("out").last().unwrap().1["n"], json!(2));
        if emit == "changes" {
            assert_eq!(flow.read("highest").len(), 2, "what has not changed is not written");
        }
        flow.send("events", "u2", json!({"item": "i", "value": 9, "at": START + 4}));
        flow.settle();
        assert_eq!(flow.read("out").last().unwrap().1, json!({"some": true, "latest": "u2", "n": 2}));
    }
}

#[test]
fn a_group_of_a_table_outlives_its_ttl_while_its_rows_have_events() {
    let mut flow = events(
        r"
steps:
  highest: {from: events, group_by: user, aggregate: {top: MAX(value)}, ttl: none}
  tops: {from: highest, group_by: top, aggregate: {n: COUNT(*)}, ttl: 1h, to: out}
",
    );
    for hours in 0..4 {
        flow.send("events", "u1", json!({"item": "i", "value": 5, "at": START + hours * 1_800_000}));
        flow.send("events", "u2", json!({"item": "i", "value": 6, "at": START + hours}));
        flow.settle();
    }
    flow.advance(START + 3 * 1_800_000);
    let rows: Vec<Value> = table(&flow, "out").into_values().collect();
    assert_eq!(rows, [json!({"top": 5, "n": 1})], "the group of u2 has had no event for an hour");
}

/// A small generator of its own: the sequence must not change with a library.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

#[test]
fn after_any_changes_the_groups_are_those_of_the_rows_that_are_left() {
    for emit in ["changes", "each"] {
        for seed in 0..6 {
            agrees_with_the_rows(emit, seed);
        }
    }
}

#[track_caller]
fn agrees_with_the_rows(emit: &str, seed: u64) {
    let mut flow = Flow::new(&format!("{ACCOUNTS}{BY_PLAN}    emit: {emit}\n"));
    let mut dice = Dice(seed);
    // (plan, city, at) per user.
    let mut rows: BTreeMap<String, (String, String, i64)> = BTreeMap::new();
    for step in 0..60 {
        let user = format!("u{}", dice.roll(6));
        if dice.roll(5) == 0 {
            flow.send_raw("accounts", Some(user.as_bytes()), None);
            rows.remove(&user);
        } else {
            let (plan, city, at) =
                (format!("p{}", dice.roll(2)), format!("c{}", dice.roll(3)), dice.roll(8).cast_signed());
            flow.send("accounts", &user, json!({"plan": plan, "city": city, "at": START + at}));
            rows.insert(user, (plan, city, at));
        }
        // Several changes in a commit, and one.
        if dice.roll(2) == 0 || step == 59 {
            flow.settle();
            let mut expected: BTreeMap<String, Value> = BTreeMap::new();
            for plan in ["p0", "p1"] {
                let of_plan = || rows.iter().filter(|(_, row)| row.0 == plan);
                let Some((earliest, _)) = of_plan().min_by_key(|(user, row)| (row.2, *user)) else { continue };
                let Some((latest, _)) = of_plan().max_by_key(|(user, row)| (row.2, *user)) else { continue };
                let city = of_plan().map(|(_, row)| (row.2, &row.1)).max().map(|(_, city)| city);
                let n = of_plan().count();
                let row = json!({"plan": plan, "earliest": earliest, "latest": latest, "city": city, "n": n});
                expected.insert(plan.to_owned(), row);
            }
            assert_eq!(table(&flow, "out"), expected, "emit: {emit}, seed {seed}, step {step}");
        }
    }
}
