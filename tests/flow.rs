//! Whole topologies over the embedded log, one turn at a time: what goes in, what must come out.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "support/flow.rs"]
mod harness;

use harness::{Flow, START, events};
use serde_json::{Value, json};
use sidestream::ids::{Partition, TopicName};
use sidestream::log::memory::End;
use sidestream::log::memory::faults::{Fault, Step};
use sidestream::log::partitioner::partition_of;
use sidestream::runtime::view::Condition;

#[test]
fn a_record_is_filtered_projected_and_written() {
    let mut flow = events(
        r"
steps:
  big:
    from: events
    where: value > 10
    select: user, value * 2 AS twice
    to: out
",
    );
    flow.send("events", "u1", json!({"item": "a", "value": 5, "at": START}));
    flow.send("events", "u2", json!({"item": "a", "value": 50, "at": START}));
    flow.settle();
    assert_eq!(flow.read("out"), [("u2".to_owned(), json!({"user": "u2", "twice": 100}))]);
}

#[test]
fn a_keyed_aggregate_writes_its_latest_value_once_per_commit() {
    let mut flow = events(
        r"
steps:
  totals:
    from: events
    group_by: user
    aggregate: {n: COUNT(*), total: SUM(value), highest: MAX(value)}
    ttl: none
    to: out
",
    );
    for value in [1, 2, 3] {
        flow.send("events", "u1", json!({"value": value, "at": START}));
    }
    flow.settle();
    flow.send("events", "u1", json!({"value": 10, "at": START}));
    flow.settle();
    let row = |n, total, highest| ("u1".to_owned(), json!({"user": "u1", "n": n, "total": total, "highest": highest}));
    assert_eq!(flow.read("out"), [row(3, 6, 3), row(4, 16, 10)]);
}

#[test]
fn a_repartitioned_window_is_final_once_and_a_late_record_goes_to_the_late_topic() {
    let mut flow = events(
        r"
steps:
  windows:
    from: events
    window: {type: tumbling, size: 10s}
    group_by: item
    aggregate: {n: COUNT(*)}
    emit: final
    late: {to: late}
    to: out
",
    );
    for (user, item, at) in [("u1", "a", 0), ("u2", "a", 1), ("u3", "b", 2), ("u1", "a", 11)] {
        flow.send("events", user, json!({"item": item, "value": 1, "at": START + at * 1000}));
    }
    flow.settle();
    flow.advance(START + 60_000);
    flow.send("events", "u9", json!({"item": "a", "value": 7, "at": START + 5000}));
    flow.settle();
    let mut rows: Vec<Value> = flow.read("out").into_iter().map(|(_, value)| value).collect();
    rows.sort_by_key(Value::to_string);
    let row = |item: &str, from: &str, to: &str, n: i64| json!({"item": item, "window_start": format!("2026-01-01T00:00:{from}Z"), "window_end": format!("2026-01-01T00:00:{to}Z"), "n": n});
    let mut expected = [row("a", "00", "10", 2), row("b", "00", "10", 1), row("a", "10", "20", 1)];
    expected.sort_by_key(Value::to_string);
    assert_eq!(rows, expected);
    let late = flow.read("late");
    assert_eq!(late.len(), 1);
    assert_eq!(late[0].1["item"], json!("a"));
    assert_eq!(late[0].1["value"], json!(7));
}

#[test]
fn a_stream_sees_the_table_as_it_is_now() {
    let mut flow = events(
        r#"
tables:
  accounts:
    topic: accounts
    key: {name: user, type: STRING}
    format: json
    columns: {home: STRING}
steps:
  enriched:
    from: events
    join: [{with: accounts, type: left, "on": events.user = accounts.user}]
    select: user, value, home
    to: out
"#,
    );
    flow.send("accounts", "u1", json!({"home": "US"}));
    flow.settle();
    flow.send("events", "u1", json!({"value": 1, "at": START}));
    flow.send("events", "u2", json!({"value": 2, "at": START}));
    flow.settle();
    flow.send_raw("accounts", Some(b"u1"), None);
    flow.settle();
    flow.send("events", "u1", json!({"value": 3, "at": START}));
    flow.settle();
    let mut rows = flow.read("out");
    rows.sort_by_key(|(_, value)| value["value"].as_i64());
    let homes: Vec<Value> = rows.into_iter().map(|(_, value)| value["home"].clone()).collect();
    assert_eq!(homes, [json!("US"), Value::Null, Value::Null]);
}

#[test]
fn over_answers_every_record_with_what_came_before() {
    let mut flow = events(
        r"
steps:
  features:
    from: events
    over:
      by: user
      range: 10s
      aggregate: {n: COUNT(*), total: SUM(value), before: LAG(value)}
    ttl: none
    select: user, value, n, total, before
    to: out
",
    );
    for (value, at) in [(1, 0), (2, 5), (4, 12), (8, 40)] {
        flow.send("events", "u1", json!({"value": value, "at": START + at * 1000}));
        flow.settle();
    }
    let rows: Vec<Value> = flow.read("out").into_iter().map(|(_, value)| value).collect();
    let row = |value: i64, n: i64, total: i64, before: Value| json!({"user": "u1", "value": value, "n": n, "total": total, "before": before});
    let expected = [row(1, 1, 1, Value::Null), row(2, 2, 3, json!(1)), row(4, 2, 6, json!(2)), row(8, 1, 8, json!(4))];
    assert_eq!(rows, expected);
}

#[test]
fn the_one_group_of_everything_has_a_key_of_its_own() {
    let mut flow = events(
        r"
steps:
  overall: {from: events, group_by: [], aggregate: {n: COUNT(*), total: SUM(value)}, to: {topic: out, where: total < 5}}
",
    );
    for value in [1, 2, 9] {
        flow.send("events", "u1", json!({"value": value, "at": START}));
        flow.settle();
    }
    let row = |n: i64, total: i64| ("{}".to_owned(), json!({"n": n, "total": total}));
    assert_eq!(flow.read("out"), [row(1, 1), row(2, 3), ("{}".to_owned(), Value::Null)], "in one partition, in order");
}

#[test]
fn a_row_whose_single_new_key_is_null_is_left_out_and_counted_not_dead_lettered() {
    let mut flow = events(
        r"
steps:
  by_item: {from: events, key_by: item, select: value, to: out}
  by_both: {from: events, key_by: 'item, value', select: user, to: both}
",
    );
    for item in [json!("a"), Value::Null] {
        flow.send("events", "u1", json!({"item": item, "value": 1, "at": START}));
    }
    flow.settle();
    assert_eq!(flow.read("out"), [("a".to_owned(), json!({"value": 1}))]);
    assert_eq!(flow.read("both").len(), 2, "NULLs within several columns are values");
    assert_eq!(flow.read("app.dead-letters"), []);
}

#[test]
fn over_without_a_bound_answers_over_all_records_up_to_each() {
    for frame in ["range: unbounded", "rows: unbounded"] {
        let mut flow = events(&format!(
            r"
steps:
  features:
    from: events
    over:
      - {{by: user, {frame}, aggregate: {{n: COUNT(*), total: SUM(value), first: FIRST(value)}}}}
      - {{{frame}, exclude_current: true, aggregate: {{others: COUNT(*)}}}}
    ttl: none
    select: value, n, total, first, others
    to: out
"
        ));
        // The last one is two days late, and counts what was before it.
        for (value, day) in [(1, 0), (2, 5), (4, 400), (8, 398), (16, 401)] {
            flow.send("events", "u1", json!({"value": value, "at": START + day * 86_400_000}));
            flow.settle();
        }
        let rows: Vec<Value> = flow.read("out").into_iter().map(|(_, value)| value).collect();
        let row = |value: i64, n: i64, total: i64| json!({"value": value, "n": n, "total": total, "first": 1, "others": n - 1});
        assert_eq!(rows, [row(1, 1, 1), row(2, 2, 3), row(4, 3, 7), row(8, 3, 11), row(16, 5, 31)], "{frame}");
    }
}

#[test]
fn over_forgets_a_key_after_its_ttl_and_leaves_nothing_of_it() {
    let mut flow = events(
        r"
steps:
  features:
    from: events
    over: {by: user, range: unbounded, aggregate: {n: COUNT(*), before: LAG(value)}}
    ttl: 2h
    select: user, value, n, before
    to: out
",
    );
    const HOUR: i64 = 3_600_000;
    let send = |flow: &mut Flow, user: &str, value: i64, at: i64| {
        flow.send("events", user, json!({"value": value, "at": START + at}));
        flow.settle();
    };
    for number in 0..6 {
        send(&mut flow, "u1", number, number * HOUR / 10);
        send(&mut flow, "u2", number, number * HOUR);
    }
    flow.advance(START + 5 * HOUR);
    let mut left = std::collections::BTreeMap::new();
    for (_, record) in flow.log.topic_records(&TopicName::from("app-features-over-changelog")).unwrap() {
        left.insert(record.key().unwrap().to_vec(), record.value().is_some());
    }
    assert_eq!(left.len(), 12);
    assert_eq!(left.values().filter(|is_there| **is_there).count(), 6, "nothing of u1, everything of u2");
    send(&mut flow, "u1", 7, 5 * HOUR);
    send(&mut flow, "u2", 7, 6 * HOUR);
    let last = |user: &str| {
        let of_user = |(_, row): &(String, Value)| row["user"] == json!(user);
        let row = flow.read("out").into_iter().rfind(of_user).unwrap().1;
        (row["n"].clone(), row["before"].clone())
    };
    assert_eq!(last("u1"), (json!(1), Value::Null), "it begins anew");
    assert_eq!(last("u2"), (json!(7), json!(5)));
}

#[test]
fn a_bad_record_is_dead_lettered_with_its_bytes_and_the_others_go_on() {
    let mut flow = events(
        r"
steps:
  all:
    from: events
    select: user, 100 / value AS share
    to: out
",
    );
    flow.send_raw("events", Some(b"u1"), Some(b"not json"));
    flow.send("events", "u1", json!({"value": 0, "at": START}));
    flow.send("events", "u1", json!({"value": 20, "at": START}));
    flow.settle();
    assert_eq!(flow.read("out"), [("u1".to_owned(), json!({"user": "u1", "share": 5}))]);
    let letters = flow.log.topic_records(&TopicName::from("app.dead-letters")).unwrap();
    assert_eq!(letters.len(), 2);
    let (_, first) = &letters[0];
    assert_eq!(first.value(), Some(&b"not json"[..]));
    let header = |name: &str| {
        let headers = first.headers();
        let header = headers.iter().find(|header| &*header.name == name).expect("header");
        String::from_utf8(header.value.clone().unwrap().into_vec()).unwrap()
    };
    assert_eq!(header("sidestream.topic"), "events");
    assert_eq!(header("sidestream.error.code"), "undecodable");
    assert_eq!(header("sidestream.step"), "events");
}

#[test]
fn the_dead_letter_of_a_record_whose_result_is_refused_says_by_whom_and_why() {
    let mut flow = events(
        r"
steps:
  all:
    from: events
    select: user, value
    to: out
",
    );
    flow.log.set_faults(Some(Box::new(|point| match point.step {
        Step::Send { topic, key: Some(b"u2"), .. } if topic.as_str() == "out" => Fault::Refuse,
        _ => Fault::None,
    })));
    for user in ["u1", "u2", "u3"] {
        flow.send("events", user, json!({"value": 1, "at": START}));
    }
    flow.settle();
    let mut users: Vec<String> = flow.read("out").into_iter().map(|(user, _)| user).collect();
    users.sort_unstable();
    assert_eq!(users, ["u1", "u3"]);
    let letters = flow.log.topic_records(&TopicName::from("app.dead-letters")).unwrap();
    let [(_, letter)] = &letters[..] else { panic!("{letters:?}") };
    assert_eq!(letter.key(), Some(&b"u2"[..]));
    let headers = letter.headers();
    let message = headers.iter().find(|header| &*header.name == "sidestream.error.message").unwrap();
    let message = String::from_utf8_lossy(message.value.as_deref().unwrap());
    assert!(message.contains("`out`") && message.contains("refused by a fault"), "{message}");
}

#[test]
fn a_table_writes_a_tombstone_where_a_row_no_longer_holds() {
    let mut flow = events(
        r"
steps:
  last:
    from: events
    as: table
    ttl: none
  cheap:
    from: last
    where: value < 10
    to: out
",
    );
    flow.send("events", "u1", json!({"item": "a", "value": 5, "at": START}));
    flow.settle();
    flow.send("events", "u1", json!({"item": "a", "value": 50, "at": START}));
    flow.settle();
    let rows = flow.read("out");
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert_eq!(rows[0].1["value"], json!(5));
    assert_eq!(rows[1], ("u1".to_owned(), Value::Null));
}

#[test]
fn final_rows_of_one_close_are_not_late_for_the_step_behind_a_repartition() {
    let mut flow = events(
        r"
steps:
  per_item:
    from: events
    window: {type: tumbling, size: 10s}
    group_by: item
    aggregate: {n: COUNT(*)}
    emit: final
  closed:
    from: per_item
    as: stream
  overall:
    from: closed
    window: {type: tumbling, size: 10s}
    group_by: []
    aggregate: {items: COUNT(*), n: SUM(n)}
    emit: final
    to: out
",
    );
    for (user, item) in [("u1", "a"), ("u2", "b"), ("u3", "c"), ("u4", "a"), ("u5", "d")] {
        flow.send("events", user, json!({"item": item, "value": 1, "at": START}));
    }
    flow.settle();
    flow.advance(START + 3_600_000);
    let rows: Vec<Value> = flow.read("out").into_iter().map(|(_, value)| value).collect();
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!((&rows[0]["items"], &rows[0]["n"]), (&json!(4), &json!(5)));
}

#[test]
fn a_window_that_expires_within_one_commit_still_writes_its_last_value() {
    let mut flow = events(
        r"
steps:
  windows:
    from: events
    window: {type: tumbling, size: 10s}
    group_by: user
    aggregate: {n: COUNT(*)}
    retention: 1m
    to: out
",
    );
    for at in [0, 86_400_000, 2 * 86_400_000] {
        flow.send("events", "u1", json!({"value": 1, "at": START + at}));
    }
    flow.settle();
    let counts: Vec<Value> = flow.read("out").into_iter().map(|(_, value)| value["n"].clone()).collect();
    assert_eq!(counts, [json!(1), json!(1), json!(1)]);
}

#[test]
fn a_tombstone_deletes_behind_a_repartition_too() {
    let mut flow = events(
        r"
steps:
  by_item:
    from: events
    key_by: user || '!' AS owner
    select: owner, item, value
  last:
    from: by_item
    as: table
    ttl: none
    to: out
",
    );
    flow.send("events", "u1", json!({"item": "a", "value": 5, "at": START}));
    flow.settle();
    flow.send_raw("events", Some(b"u1"), None);
    flow.settle();
    let rows = flow.read("out");
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert_eq!(rows[0].1["value"], json!(5));
    assert_eq!(rows[1], ("u1!".to_owned(), Value::Null));
}

#[test]
fn an_aggregate_of_a_table_takes_the_old_row_out() {
    let mut flow = events(
        r"
steps:
  last:
    from: events
    as: table
    ttl: none
  per_item:
    from: last
    group_by: item
    aggregate: {users: COUNT(*), total: SUM(value), highest: MAX(value)}
    ttl: none
    to: out
",
    );
    let latest = |flow: &Flow| {
        let mut rows = std::collections::BTreeMap::new();
        for (key, value) in flow.read("out") {
            rows.insert(key, value);
        }
        rows
    };
    flow.send("events", "u1", json!({"item": "a", "value": 5, "at": START}));
    flow.send("events", "u2", json!({"item": "a", "value": 7, "at": START}));
    flow.settle();
    let row = |item: &str, users: i64, total: i64, highest: i64| json!({"item": item, "users": users, "total": total, "highest": highest});
    assert_eq!(latest(&flow)["a"], row("a", 2, 12, 7));
    flow.send("events", "u2", json!({"item": "b", "value": 1, "at": START}));
    flow.settle();
    assert_eq!(latest(&flow)["a"], row("a", 1, 5, 5));
    assert_eq!(latest(&flow)["b"], row("b", 1, 1, 1));
    flow.send_raw("events", Some(b"u1"), None);
    flow.settle();
    assert_eq!(latest(&flow)["a"], Value::Null, "an emptied group is deleted");
}

#[test]
fn a_row_whose_ttl_has_passed_is_deleted_and_the_next_starts_anew() {
    let mut flow = events(
        r"
steps:
  totals:
    from: events
    group_by: user
    aggregate: {n: COUNT(*)}
    ttl: 1h
    to: out
",
    );
    flow.send("events", "u1", json!({"value": 1, "at": START}));
    flow.settle();
    flow.advance(START + 2 * 3_600_000);
    assert_eq!(flow.read("out").last(), Some(&("u1".to_owned(), Value::Null)));
    flow.send("events", "u1", json!({"value": 1, "at": START + 2 * 3_600_000}));
    flow.settle();
    assert_eq!(flow.read("out").last().map(|(_, value)| value["n"].clone()), Some(json!(1)));
}

#[test]
fn late_records_that_are_dropped_are_told_in_the_log_once_with_their_number_and_place() {
    let mut flow = events(
        r"
steps:
  minutes:
    from: events
    window: {type: tumbling, size: 1m}
    group_by: user
    aggregate: {n: COUNT(*)}
    emit: final
",
    );
    let log = log_of(|| {
        flow.send("events", "u1", json!({"item": "a", "value": 1, "at": START + 600_000}));
        flow.settle();
        for _ in 0..3 {
            flow.send("events", "u1", json!({"item": "a", "value": 1, "at": START}));
        }
        flow.settle();
        flow.wait(30_000);
    });
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("late records dropped")).collect();
    let [first, rest] = lines[..] else { panic!("{log}") };
    assert!(first.contains("WARN") && first.contains("step=\"minutes\"") && first.contains("records=1"), "{first}");
    assert!(first.contains("at offset 1") && rest.contains("at offset 3") && rest.contains("records=2"), "{log}");
}

/// What is logged meanwhile, from `warn` on.
fn log_of(act: impl FnOnce()) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_owned();
    let writer = move || std::fs::File::options().append(true).open(&path).unwrap();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_ansi(false).with_writer(writer).finish();
    tracing::subscriber::with_default(subscriber, act);
    std::fs::read_to_string(file.path()).unwrap()
}

/// Two streams, of which the one with the smaller times goes idle: the window closes without any record.
const CLOSED_BY_TIME: &str = r"
  others:
    topic: others
    key: {name: user, type: STRING}
    format: json
    columns: {item: STRING, value: BIGINT, at: TIMESTAMP}
    timestamp: at
steps:
  windows:
    from: [events, others]
    window: {type: tumbling, size: 10s}
    group_by: user
    aggregate: {n: COUNT(*)}
    emit: final
    to: windows
";

/// `refusals`: how often the output topic refuses what the closed window leads to.
fn closed_by_time(refusals: usize) -> Flow {
    let mut flow = events(CLOSED_BY_TIME);
    flow.send("others", "u", json!({"item": "a", "value": 1, "at": START}));
    flow.settle();
    flow.wait(20_000);
    flow.send("events", "u", json!({"item": "a", "value": 1, "at": START + 3_600_000}));
    flow.settle();
    assert_eq!(flow.read("windows").len(), 0);
    let mut left = refusals;
    flow.log.set_faults(Some(Box::new(move |point| match point.step {
        Step::Send { topic, .. } if topic.as_str() == "windows" && left > 0 => {
            left -= 1;
            Fault::Refuse
        }
        _ => Fault::None,
    })));
    flow.wait(40_000);
    flow
}

#[test]
fn what_time_alone_leads_to_is_tried_again_when_it_is_refused() {
    let flow = closed_by_time(1);
    assert_eq!(flow.read("windows").len(), 1);
    assert!(!flow.holds(Condition::TaskParked));
}

#[test]
fn a_task_whose_windows_are_refused_with_no_record_to_blame_is_parked() {
    let flow = closed_by_time(usize::MAX);
    assert_eq!(flow.read("windows").len(), 0);
    assert!(flow.holds(Condition::TaskParked));
}

#[test]
fn a_partition_that_cannot_be_fetched_is_not_idle_while_it_has_unread_records() {
    let mut flow = events(CLOSED_BY_TIME);
    flow.send("others", "u", json!({"item": "a", "value": 1, "at": START}));
    flow.settle();
    flow.log.set_faults(Some(Box::new(|point| match point.step {
        Step::Fetch { partition, .. } if partition.topic.as_str() == "others" => Fault::Delay,
        _ => Fault::None,
    })));
    flow.send("others", "u", json!({"item": "a", "value": 1, "at": START + 1000}));
    flow.wait(20_000);
    flow.send("events", "u", json!({"item": "a", "value": 1, "at": START + 3_600_000}));
    flow.wait(60_000);
    assert_eq!(flow.read("windows").len(), 0);
    flow.log.set_faults(None);
    flow.wait(20_000);
    flow.send("events", "u", json!({"item": "a", "value": 1, "at": START + 3_600_001}));
    flow.wait(20_000);
    let [(_, window)] = &flow.read("windows")[..] else { panic!("{:?}", flow.read("windows")) };
    assert_eq!(window["n"], json!(2));
}

/// The commit is aborted, the abort does not get through, and no new producer can be made: what the old one has sent lies in
/// a transaction that is still open, while the task stands before its record again.
#[test]
fn a_producer_that_is_given_up_commits_nothing_any_more() {
    let mut flow = events("steps:\n  all: {from: events, select: user, to: out}\n");
    let mut aborted = false;
    flow.log.set_faults(Some(Box::new(move |point| match point.step {
        Step::BeforeOffsets(_) if !aborted => {
            aborted = true;
            Fault::Abort
        }
        Step::BeforeEnd(_, End::Abort) | Step::Init(_) => Fault::Unreachable,
        _ => Fault::None,
    })));
    flow.send("events", "u", json!({"item": "a", "value": 1, "at": START}));
    flow.settle();
    flow.stop();
    assert_eq!(flow.read("out"), [], "it would come again with the next process");
}

/// EXACTLY-ONCE rule 17c: a partition behind a repartition that gets no data is told of the time, but not of every step of
/// it.
#[test]
fn a_watermark_of_its_own_is_sent_after_the_least_advance_and_the_least_interval() {
    let mut flow = events(
        r"
steps:
  per_item:
    from: events
    window: {type: tumbling, size: 10s}
    group_by: item
    aggregate: {n: COUNT(*)}
    emit: final
",
    );
    let other = Partition(1 - partition_of(b"x", 2).0);
    let sent = |flow: &Flow| {
        let records = flow.log.topic_records(&TopicName::from("app-per_item-repartition")).unwrap();
        let (data, watermarks): (Vec<_>, Vec<_>) = records.into_iter().partition(|(_, record)| record.key().is_some());
        assert!(data.iter().all(|(partition, _)| *partition != other));
        watermarks.iter().filter(|(partition, _)| *partition == other).count()
    };
    let after = |flow: &mut Flow, at: i64, wait_ms: u64| {
        flow.send("events", "u1", json!({"item": "x", "value": 1, "at": START + at}));
        flow.wait(wait_ms);
        sent(flow)
    };
    assert_eq!(after(&mut flow, 0, 2_000), 1);
    assert_eq!(after(&mut flow, 99, 2_000), 1, "too small an advance");
    assert_eq!(after(&mut flow, 100, 400), 2);
    assert_eq!(after(&mut flow, 5_000, 200), 2, "a second has not passed");
    assert_eq!(after(&mut flow, 6_000, 200), 2);
    flow.wait(1_000);
    assert_eq!(sent(&flow), 3, "one for all that has come meanwhile");
}

/// Event time comes from the records, and what waits is measured on the clock that does not jump.
#[test]
fn a_wall_clock_that_jumps_by_years_changes_no_result() {
    let topology = r"
steps:
  totals:
    from: events
    group_by: user
    aggregate: {n: COUNT(*), total: SUM(value)}
    ttl: none
    to: totals
  windows:
    from: events
    window: {type: tumbling, size: 10s}
    group_by: item
    aggregate: {n: COUNT(*)}
    emit: final
    to: windows
";
    const YEAR_IN_HOURS: i64 = 365 * 24;
    let run = |jumps: [i64; 6]| {
        let mut flow = events(topology);
        for (round, jump) in (0..).zip(jumps) {
            for user in ["u1", "u2", "u3"] {
                flow.send("events", user, json!({"item": "a", "value": round, "at": START + round * 4_000}));
            }
            flow.jump_wall(jump);
            flow.settle();
        }
        flow.advance(START + 600_000);
        let mut results = [flow.read("totals"), flow.read("windows")].concat();
        results.sort_by_key(|(key, value)| format!("{key} {value}"));
        results
    };
    let undisturbed = run([0; 6]);
    assert_eq!(undisturbed.len(), 3 * 6 + 3, "{undisturbed:?}");
    assert_eq!(run([0, YEAR_IN_HOURS, -2 * YEAR_IN_HOURS, 24, -1, YEAR_IN_HOURS]), undisturbed);
}
