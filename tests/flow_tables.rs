//! Tables over the embedded log: under a new key, and windows that are forwarded when they close.

#[path = "support/flow.rs"]
mod harness;

use std::collections::BTreeMap;

use harness::{Flow, START, events};
use serde_json::{Value, json};
use sidestream::ids::TopicName;

const ACCOUNTS: &str = r"
version: 1
name: app
streams:
  mails:
    topic: mails
    key: {name: id, type: STRING}
    columns: {address: STRING}
tables:
  accounts:
    topic: accounts
    key: {name: user, type: STRING}
    columns: {address: STRING, plan: STRING, at: TIMESTAMP}
    timestamp: at
";

fn accounts(steps: &str) -> Flow {
    Flow::new(&format!("{ACCOUNTS}{steps}"))
}

fn account(flow: &mut Flow, user: &str, address: &str, plan: &str, at: i64) {
    flow.send("accounts", user, json!({"address": address, "plan": plan, "at": START + at}));
    flow.settle();
}

/// What a reader of a compacted topic ends with.
fn table(flow: &Flow, topic: &str) -> BTreeMap<String, Value> {
    let mut rows = BTreeMap::new();
    for (key, value) in flow.read(topic) {
        if value.is_null() {
            rows.remove(&key)
        } else {
            rows.insert(key, value)
        };
    }
    rows
}

const BY_ADDRESS: &str = r"
steps:
  by_address:
    from: accounts
    key_by: address
    select: address, plan
    to: out
";

#[test]
fn a_row_under_a_new_key_moves_when_that_key_changes_and_goes_when_it_is_deleted() {
    let mut flow = accounts(BY_ADDRESS);
    account(&mut flow, "u1", "a", "free", 1);
    account(&mut flow, "u1", "a", "paid", 2);
    account(&mut flow, "u1", "b", "paid", 3);
    flow.send_raw("accounts", Some(b"u1"), None);
    flow.settle();
    let of = |address: &str| -> Vec<Value> {
        flow.read("out").into_iter().filter(|(key, _)| key == address).map(|(_, value)| value).collect()
    };
    let row = |address: &str, plan: &str| json!({"address": address, "plan": plan});
    assert_eq!(of("a"), [row("a", "free"), row("a", "paid"), Value::Null]);
    assert_eq!(of("b"), [row("b", "paid"), Value::Null]);
}

#[test]
fn a_deletion_does_not_take_the_row_that_another_has_put_under_the_key() {
    // Over enough keys, both orders of the two upstream partitions occur.
    let mut flow = accounts(BY_ADDRESS);
    for number in 0..20 {
        let address = format!("a{number}");
        account(&mut flow, &format!("old{number}"), &address, "old", 1);
        account(&mut flow, &format!("new{number}"), &address, "new", 2);
        if number % 2 == 0 {
            flow.send_raw("accounts", Some(format!("old{number}").as_bytes()), None);
        } else {
            account(&mut flow, &format!("old{number}"), "elsewhere", "old", 3);
        }
        flow.settle();
    }
    let rows = table(&flow, "out");
    for number in 0..20 {
        assert_eq!(rows[&format!("a{number}")]["plan"], json!("new"), "{rows:?}");
    }
}

#[test]
fn of_two_rows_under_one_new_key_the_one_with_the_later_event_time_is_kept_whichever_comes_first() {
    let mut flow = accounts(BY_ADDRESS);
    account(&mut flow, "u2", "a", "later", 20);
    account(&mut flow, "u1", "a", "earlier", 10);
    assert_eq!(table(&flow, "out")["a"]["plan"], json!("later"));
    flow.send_raw("accounts", Some(b"u1"), None);
    flow.settle();
    assert_eq!(table(&flow, "out")["a"]["plan"], json!("later"));
    account(&mut flow, "u3", "a", "latest", 30);
    assert_eq!(table(&flow, "out")["a"]["plan"], json!("latest"));
}

#[test]
fn a_row_whose_new_key_is_null_is_not_in_the_table() {
    let mut flow = accounts(BY_ADDRESS);
    account(&mut flow, "u1", "a", "free", 1);
    flow.send("accounts", "u1", json!({"plan": "free", "at": START + 2}));
    flow.settle();
    assert_eq!(flow.read("out").last(), Some(&("a".to_owned(), Value::Null)));
    assert_eq!(flow.read("app.dead-letters"), []);
}

#[test]
fn a_stream_joins_a_table_by_its_new_key() {
    let mut flow = accounts(
        r#"
steps:
  by_address:
    from: accounts
    where: plan <> 'closed'
    key_by: LOWER(address) AS mailbox
    select: user AS owner, plan
  owned:
    from: mails
    join: [{with: by_address, type: left, "on": mails.address = by_address.mailbox}]
    select: id, owner, plan
    to: out
"#,
    );
    account(&mut flow, "u1", "A", "free", 1);
    account(&mut flow, "u2", "B", "closed", 1);
    for (id, address) in [("m1", "a"), ("m2", "b")] {
        flow.send("mails", id, json!({"address": address}));
        flow.settle();
    }
    account(&mut flow, "u1", "C", "paid", 2);
    for (id, address) in [("m3", "a"), ("m4", "c")] {
        flow.send("mails", id, json!({"address": address}));
        flow.settle();
    }
    let owners: BTreeMap<String, Value> = flow
        .read("out")
        .into_iter()
        .map(|(_, row)| (row["id"].as_str().unwrap().to_owned(), row["owner"].clone()))
        .collect();
    let expected = [("m1", json!("u1")), ("m2", Value::Null), ("m3", Value::Null), ("m4", json!("u1"))];
    assert_eq!(owners, expected.map(|(id, owner)| (id.to_owned(), owner)).into());
}

#[test]
fn a_table_under_a_new_key_can_be_grouped_and_read_as_changes() {
    let mut flow = accounts(
        r"
steps:
  by_address: {from: accounts, key_by: address}
  plans: {from: by_address, group_by: plan, aggregate: {n: COUNT(*)}, ttl: none, to: plans}
  moves: {from: by_address, as: stream, select: 'address, user, _op', to: moves}
",
    );
    account(&mut flow, "u1", "a", "free", 1);
    account(&mut flow, "u2", "a", "paid", 2);
    account(&mut flow, "u2", "b", "paid", 3);
    let counts: BTreeMap<String, Value> =
        table(&flow, "plans").into_iter().map(|(plan, row)| (plan, row["n"].clone())).collect();
    assert_eq!(counts, [("paid".to_owned(), json!(1))].into());
    let of_a: Vec<(Value, Value)> = flow
        .read("moves")
        .into_iter()
        .filter(|(_, row)| row["address"] == json!("a"))
        .map(|(_, row)| (row["user"].clone(), row["_op"].clone()))
        .collect();
    let expected = [("u1", "insert"), ("u2", "update"), ("u2", "delete")];
    assert_eq!(of_a, expected.map(|(user, op)| (json!(user), json!(op))));
}

#[test]
fn a_row_of_a_table_that_cannot_be_computed_counts_as_absent_for_a_join() {
    let mut flow = accounts(
        r#"
steps:
  shares: {from: accounts, select: 'user, 100 / CAST(plan AS INT) AS share'}
  shared:
    from: mails
    join: [{with: shares, type: left, "on": mails.id = shares.user}]
    select: id, share
    to: out
"#,
    );
    account(&mut flow, "u1", "a", "4", 1);
    account(&mut flow, "u2", "a", "0", 1);
    for id in ["u1", "u2"] {
        flow.send("mails", id, json!({"address": "a"}));
        flow.settle();
    }
    let rows = table(&flow, "out");
    assert_eq!(rows["u1"], json!({"id": "u1", "share": 25}));
    assert_eq!(rows["u2"], json!({"id": "u2", "share": null}));
    let letters = flow.log.topic_records(&TopicName::from("app.dead-letters")).unwrap();
    assert_eq!(letters.len(), 1, "the account is a bad record, the mail is none");
}

const WINDOWS: &str = r"
steps:
  windows:
    from: events
    window: {type: tumbling, size: 10s}
    group_by: item
    aggregate: {n: COUNT(*)}
    having: n > 1
    to: running
  closed:
    from: windows
    having: item <> 'c'
    select: item, n * 10 AS tens
    emit: final
    to: out
  changes: {from: windows, emit: final, as: stream, select: 'item, n, _op', to: changes}
";

#[test]
fn closed_windows_are_forwarded_once_while_the_window_itself_passes_on_every_change() {
    let mut flow = events(WINDOWS);
    for (item, at) in [("a", 0), ("a", 1), ("b", 2), ("c", 3), ("c", 4), ("a", 5), ("a", 12), ("a", 13)] {
        flow.send("events", "u1", json!({"item": item, "value": 1, "at": START + at * 1000}));
        flow.settle();
    }
    let of_a = flow.read("running").into_iter().map(|(_, row)| row).filter(|row| row["item"] == json!("a"));
    let counts: Vec<Value> = of_a.map(|row| row["n"].clone()).collect();
    assert_eq!(counts, [json!(2), json!(3), json!(2)], "every change, and the next window");
    let running = flow.read("running");
    flow.advance(START + 60_000);
    let closed: Vec<Value> = flow.read("out").into_iter().map(|(_, row)| row).collect();
    assert_eq!(closed, [json!({"item": "a", "tens": 30}), json!({"item": "a", "tens": 20})]);
    assert_eq!(flow.read("running"), running, "closing changes nothing");
    let mut changes: Vec<(Value, Value)> =
        flow.read("changes").into_iter().map(|(_, row)| (row["item"].clone(), row["n"].clone())).collect();
    changes.sort_by_key(|row| format!("{row:?}"));
    assert_eq!(changes, [("a", 2), ("a", 3), ("c", 2)].map(|(item, n)| (json!(item), json!(n))));
}

#[test]
fn a_step_that_groups_forwarded_windows_comes_after_they_have_closed() {
    let mut flow = events(
        r"
steps:
  per_item: {from: events, window: {type: tumbling, size: 10s, grace: 1s}, group_by: item, aggregate: {n: COUNT(*)}}
  closed: {from: per_item, emit: final, as: stream}
  overall:
    from: closed
    window: {type: tumbling, size: 10s}
    group_by: []
    aggregate: {items: COUNT(*), n: SUM(n)}
    emit: final
    late: {to: late}
    to: out
",
    );
    for (user, item) in [("u1", "a"), ("u2", "b"), ("u3", "c"), ("u4", "a")] {
        flow.send("events", user, json!({"item": item, "value": 1, "at": START}));
    }
    flow.settle();
    flow.advance(START + 3_600_000);
    let rows: Vec<(Value, Value)> =
        flow.read("out").into_iter().map(|(_, row)| (row["items"].clone(), row["n"].clone())).collect();
    assert_eq!(rows, [(json!(3), json!(4))]);
    assert_eq!(flow.read("late"), []);
}

#[test]
fn a_stream_without_a_declared_key_is_grouped_by_its_records_keys() {
    let mut flow = Flow::new(
        r"
version: 1
name: app
streams:
  clicks: {topic: clicks, columns: {page: STRING}}
steps:
  per_key: {from: clicks, group_by: _key AS owner, aggregate: {n: COUNT(*)}, ttl: none, to: {topic: out, value: n}}
",
    );
    for key in ["u1", "u2", "u1"] {
        flow.send("clicks", key, json!({"page": "p"}));
        flow.settle();
    }
    let counts = table(&flow, "out");
    assert_eq!(counts, [("u1", 2), ("u2", 1)].map(|(key, n)| (key.to_owned(), json!({"n": n}))).into());
}

/// What is in a group leaves it again, whether its result could be computed meanwhile or not.
#[test]
fn a_row_that_makes_a_sum_overflow_leaves_it_as_it_was() {
    for emit in ["each", "changes"] {
        let mut flow = Flow::new(&format!(
            r"
version: 1
name: app
tables:
  accounts: {{topic: accounts, key: {{name: id, type: STRING}}, columns: {{city: STRING, value: BIGINT}}}}
steps:
  sums: {{from: accounts, group_by: city, aggregate: {{total: SUM(value), n: COUNT(*)}}, emit: {emit}, ttl: none, to: out}}
"
        ));
        let mut set = |id: &str, value: Value| {
            flow.send("accounts", id, json!({"city": "Rome", "value": value}));
            flow.settle();
            flow.read("out").last().map(|(_, row)| (row["total"].clone(), row["n"].clone())).unwrap()
        };
        assert_eq!(set("a", json!(i64::MAX)), (json!(i64::MAX), json!(1)));
        // There is no such BIGINT: the group has no result now.
        assert_eq!(set("b", json!(10)), (Value::Null, Value::Null), "{emit}");
        assert_eq!(set("c", json!(-4)), (Value::Null, Value::Null), "{emit}");
        assert_eq!(set("b", json!(3)), (json!(i64::MAX - 1), json!(3)), "{emit}");
        assert_eq!(set("b", json!(10)), (Value::Null, Value::Null), "{emit}");
        assert_eq!(set("b", json!(0)), (json!(i64::MAX - 4), json!(3)), "{emit}");
    }
}
