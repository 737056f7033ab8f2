//! `sidestream reset` against a real Kafka: what it clears, what it leaves, and what a run afterwards makes of it.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use sidestream::ids::{Offset, Partition, TopicName, TopicPartition};
use sidestream::log::{Log as _, OffsetQuery};

use support::cluster::{Feeder, Instance};
use support::shop::{PARTITIONS, PATIENCE, Shop, send};
use support::{broker, eventually};

/// A shop with a second step that keeps state.
fn shop() -> (Shop, PathBuf) {
    let shop = Shop::new(broker::shared());
    shop.create_topics();
    let path = shop.topology("");
    let sums = "  sums:\n    from: orders\n    group_by: customer\n    aggregate: {total: SUM(number), n: COUNT(*)}\n    ttl: none\n";
    std::fs::write(&path, format!("{}{sums}", std::fs::read_to_string(&path).unwrap())).unwrap();
    (shop, path)
}

/// Runs the command until the last instance has left the group, and returns what it printed.
fn reset(shop: &Shop, topology: &PathBuf, more: &[&str]) -> String {
    eventually("the reset", PATIENCE, || {
        let output = Command::new(env!("CARGO_BIN_EXE_sidestream"))
            .arg("reset")
            .arg(topology)
            .args(["--yes", "--brokers", &shop.kafka.brokers, "--state-dir"])
            .arg(shop.state_directory())
            .args(more)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        if error.contains("stop all instances first") {
            return None;
        }
        assert_eq!(output.status.code(), Some(0), "{error}");
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    })
}

/// How many orders a step has taken in, over all customers, once it is `expected`.
fn wait_for_count(instance: &Instance, table: &str, expected: i64) {
    eventually(&format!("{expected} orders in `{table}`"), PATIENCE, || {
        let (status, answer) = instance.json(&format!("/v1/tables/{table}"))?;
        let rows = answer["rows"].as_array().filter(|_| status == 200)?;
        let count: i64 = rows.iter().filter_map(|row| row["row"]["n"].as_i64()).sum();
        assert!(count <= expected, "{count} in `{table}`: {answer}");
        (count == expected).then_some(())
    });
}

fn sum_of(instance: &Instance, customer: &str) -> Value {
    instance.json(&format!("/v1/tables/sums/{customer}")).unwrap().1["row"]["total"].clone()
}

fn topic_id(shop: &Shop, topic: &str) -> Option<String> {
    let described = shop.kafka.log.describe_topics(&[TopicName::new(topic)]).unwrap();
    described.into_iter().next().flatten().map(|topic| topic.id)
}

/// A shop whose instance has processed a hundred orders, and stopped.
fn after_a_hundred() -> (Shop, PathBuf, Feeder, Instance) {
    let (shop, topology) = shop();
    let mut instance = shop.start(&topology);
    let mut feeder = shop.feeder();
    send(&mut feeder, 0..100);
    feeder.flush();
    instance.wait_ready();
    wait_for_count(&instance, "counts", 100);
    assert_eq!(instance.terminate(), 0, "{}", instance.log_text());
    (shop, topology, feeder, instance)
}

#[test]
fn a_reset_application_begins_anew_and_comes_to_the_same_results() {
    let (shop, topology, _, mut instance) = after_a_hundred();

    let printed = reset(&shop, &topology, &[]);
    let changelog = format!("{}-counts-changelog", shop.name);
    for part in [&shop.state_directory().display().to_string(), &format!("group `{}`", shop.name), &changelog] {
        assert!(printed.contains(part), "{part} in {printed}");
    }
    assert!(!shop.state_directory().exists());
    eventually("the changelog is gone", PATIENCE, || topic_id(&shop, &changelog).is_none().then_some(()));
    let inputs: Vec<_> = (0..PARTITIONS)
        .map(|number| TopicPartition::new(TopicName::new(shop.topic("orders")), Partition(number)))
        .collect();
    assert!(shop.kafka.log.committed(&shop.name, &inputs).unwrap().iter().all(Option::is_none));
    assert_eq!(shop.copies().len(), 100, "output topics stay");

    instance.run();
    instance.wait_ready();
    wait_for_count(&instance, "counts", 100);
    wait_for_count(&instance, "sums", 100);
    eventually("everything is written again", PATIENCE, || (shop.copies().len() == 200).then_some(()));
    assert_eq!(shop.counted(), 100);
    assert_eq!(instance.terminate(), 0, "{}", instance.log_text());
}

#[test]
fn a_reset_step_begins_empty_and_the_others_go_on() {
    let (shop, topology) = shop();
    let mut instance = shop.start(&topology);
    let mut feeder = shop.feeder();
    send(&mut feeder, 0..100);
    feeder.flush();
    instance.wait_ready();
    wait_for_count(&instance, "counts", 100);
    wait_for_count(&instance, "sums", 100);
    assert_eq!(instance.terminate(), 0, "{}", instance.log_text());

    // Another column under the same name is refused before, and accepted afterwards.
    let changed = std::fs::read_to_string(&topology).unwrap().replace("{n: COUNT(*)}", "{n: MAX(number)}");
    std::fs::write(&topology, changed).unwrap();
    instance.run();
    eventually("the end of a run that would misread", PATIENCE, || (!instance.is_running()).then_some(()));
    let log = instance.log_text();
    assert!(log.contains("holds a COUNT and would be read as a MAX") && log.contains("reset --step counts"), "{log}");
    instance.kill();

    let changelog = |step: &str| topic_id(&shop, &format!("{}-{step}-changelog", shop.name));
    let (counts, sums) = (changelog("counts"), changelog("sums"));
    let printed = reset(&shop, &topology, &["--step", "counts"]);
    assert!(printed.contains("counts") && !printed.contains("sums") && !printed.contains("group"), "{printed}");
    eventually("the changelog is gone", PATIENCE, || changelog("counts").is_none().then_some(()));

    instance.run();
    send(&mut feeder, 100..150);
    feeder.flush();
    instance.wait_ready();
    wait_for_count(&instance, "sums", 150);
    assert_eq!(sum_of(&instance, "customer-3"), json!((0..15).map(|n| 3 + 10 * n).sum::<i64>()));
    assert_ne!(changelog("counts"), counts);
    assert_eq!(changelog("sums"), sums);
    let (_, row) = instance.json("/v1/tables/counts/customer-3").unwrap();
    assert_eq!(row["row"]["n"], json!(143), "the greatest since the reset");
    eventually("the copies", PATIENCE, || (shop.copies().len() == 150).then_some(()));
    assert_eq!(instance.terminate(), 0, "{}", instance.log_text());
}

#[test]
fn an_input_that_is_out_of_range_goes_on_at_the_oldest_record_with_its_state() {
    let (shop, topology, mut feeder, mut instance) = after_a_hundred();

    // Of one partition everything is deleted before it has been read, but for the last record.
    let inputs = [0, 1].map(|number| TopicPartition::new(TopicName::new(shop.topic("orders")), Partition(number)));
    let before = shop.kafka.log.offsets(OffsetQuery::End, &inputs).unwrap();
    send(&mut feeder, 100..200);
    feeder.flush();
    let ends = shop.kafka.log.offsets(OffsetQuery::End, &inputs).unwrap();
    let last = Offset(ends[0].0 - 1);
    shop.kafka.log.delete_records(&[(inputs[0].clone(), last)]).unwrap();
    let left = 1 + ends[1].0 - before[1].0;

    instance.run();
    let note = eventually("the parked task in /readyz", PATIENCE, || {
        let (status, body) = instance.json("/readyz")?;
        let notes = body["degraded"].as_array().filter(|_| status == 200)?;
        notes.iter().find(|note| note["code"] == "task_parked").cloned()
    });
    let message = note["message"].as_str().unwrap();
    assert!(message.contains("out of range") && message.contains("reset --offsets earliest"), "{message}");
    let log = instance.log_text();
    assert_eq!(log.lines().filter(|line| line.contains("out of range")).count(), 1, "{log}");
    // The other partition goes on.
    wait_for_count(&instance, "counts", 100 + left - 1);
    assert_eq!(instance.terminate(), 0, "{}", instance.log_text());

    let printed = reset(&shop, &topology, &["--offsets", "earliest", "--source", "orders"]);
    assert!(printed.contains(&format!("{}: from {} to {last}", inputs[0], before[0])), "{printed}");
    assert!(!printed.contains(&inputs[1].to_string()), "it is in range: {printed}");
    let again = reset(&shop, &topology, &["--offsets", "latest"]);
    assert!(again.contains("nothing to move"), "{again}");

    instance.run();
    instance.wait_ready();
    wait_for_count(&instance, "counts", 100 + left);
    wait_for_count(&instance, "sums", 100 + left);
    let copies = shop.copies();
    assert_eq!(copies.iter().collect::<BTreeSet<_>>().len(), copies.len(), "nothing twice");
    assert_eq!(copies.len(), usize::try_from(100 + left).unwrap());
    assert_eq!(instance.terminate(), 0, "{}", instance.log_text());
}

#[test]
fn a_changelog_or_a_source_that_was_made_anew_while_nobody_ran_is_refused_and_says_what_to_do() {
    let (shop, topology, mut feeder, mut instance) = after_a_hundred();

    let changelog = format!("{}-counts-changelog", shop.name);
    shop.kafka.log.delete_topics(&[TopicName::new(&*changelog)]).unwrap();
    eventually("the changelog is gone", PATIENCE, || topic_id(&shop, &changelog).is_none().then_some(()));
    let refuses = |instance: &mut Instance, parts: &[&str]| {
        let before = instance.log_text().len();
        instance.run();
        assert_eq!(instance.wait_for_exit(), 1);
        let log = instance.log_text().split_off(before);
        assert!(parts.iter().all(|part| log.contains(part)), "{parts:?} in {log}");
    };
    refuses(&mut instance, &[&changelog, "deleted and made anew", "sidestream reset --step"]);
    // A new machine knows it from what is committed.
    std::fs::remove_dir_all(shop.state_directory()).unwrap();
    refuses(&mut instance, &[&changelog, "deleted and made anew", "sidestream reset --step"]);

    reset(&shop, &topology, &["--step", "counts"]);
    instance.run();
    instance.wait_ready();
    send(&mut feeder, 100..150);
    feeder.flush();
    wait_for_count(&instance, "counts", 50);
    wait_for_count(&instance, "sums", 150);
    assert_eq!(instance.terminate(), 0, "{}", instance.log_text());

    // Kafka forgets the offsets of a topic that is deleted, sooner or later.
    drop(feeder);
    let orders = shop.topic("orders");
    shop.kafka.log.delete_topics(&[TopicName::new(&*orders)]).unwrap();
    eventually("the source is made again", PATIENCE, || shop.kafka.try_create(&orders, PARTITIONS).then_some(()));
    let mut feeder = shop.feeder();
    send(&mut feeder, 0..300);
    feeder.flush();
    refuses(&mut instance, &["sidestream reset"]);
    std::fs::remove_dir_all(shop.state_directory()).unwrap();
    refuses(&mut instance, &["sidestream reset"]);
    reset(&shop, &topology, &[]);
    instance.run();
    instance.wait_ready();
    wait_for_count(&instance, "counts", 300);
    wait_for_count(&instance, "sums", 300);
    assert_eq!(instance.terminate(), 0, "{}", instance.log_text());
}
