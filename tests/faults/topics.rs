//! Output topics that refuse a record, or are deleted under way.

use std::collections::BTreeSet;

use serde_json::json;
use sidestream::ids::TopicName;
use sidestream::log::{Cleanup, Log as _};

use crate::support::shop::{PARTITIONS, PATIENCE, START_MS, Shop, send};
use crate::support::{broker, eventually};

#[test]
fn a_record_too_large_for_the_output_topic_is_a_dead_letter_and_the_others_pass_at_full_speed() {
    let shop = Shop::new(broker::shared());
    shop.kafka.create(&shop.topic("orders"), PARTITIONS, Cleanup::Delete);
    shop.kafka.create(&shop.topic("counts"), PARTITIONS, Cleanup::Delete);
    shop.kafka.create_with(&shop.topic("copies"), PARTITIONS, Cleanup::Delete, &[("max.message.bytes", "2000")]);
    let mut instance = shop.start(&shop.topology_of("number: BIGINT NOT NULL, note: STRING", ""));
    instance.wait_ready();
    let mut feeder = shop.feeder();
    for number in 0..1_000 {
        let note = if number == 500 { "x".repeat(5_000) } else { "short".to_owned() };
        let text = json!({"number": number, "note": note}).to_string();
        feeder.send(&format!("customer-{}", number % 10), &text, START_MS + number);
    }
    feeder.flush();
    eventually("what is around it is copied", PATIENCE, || (shop.copies().len() == 999).then_some(()));
    assert_eq!(shop.copies().into_iter().collect::<BTreeSet<_>>(), (0..500).chain(501..1_000).collect());
    eventually("the other step counts all", PATIENCE, || (shop.counted() == 1_000).then_some(()));
    let dead_letters = shop.kafka.read_all(&shop.topic("dead-letters"));
    assert_eq!(dead_letters.len(), 1);
    assert_eq!(dead_letters[0].value.as_ref().unwrap()["number"], json!(500));
    let log = instance.log_text();
    let line = log.lines().find(|line| line.contains("records dead-lettered")).unwrap_or_default();
    assert!(line.contains("too_large") && line.contains("max.message.bytes 2000"), "{log}");
    // Many small records together are no large record.
    assert!(!log.contains("a record was refused"), "{log}");
    assert!((instance.metric("sidestream_commits_failed_total") - 0.0).abs() < 0.5, "{log}");
    assert_eq!(instance.terminate(), 0, "{}", instance.log_text());
}

#[test]
fn an_output_topic_deleted_under_way_is_named_and_waited_for() {
    let shop = Shop::new(broker::shared());
    shop.create_topics();
    let mut instance = shop.start(&shop.topology(""));
    instance.wait_ready();
    let mut feeder = shop.feeder();
    send(&mut feeder, 0..1_000);
    feeder.flush();
    eventually("the first copies", PATIENCE, || (shop.copies().len() == 1_000).then_some(()));
    let copies = TopicName::new(shop.topic("copies"));
    shop.kafka.log.delete_topics(std::slice::from_ref(&copies)).unwrap();
    send(&mut feeder, 1_000..2_000);
    feeder.flush();
    eventually("the missing topic in /readyz", PATIENCE, || {
        let (status, body) = instance.json("/readyz")?;
        assert_eq!(status, 200, "{body}");
        let degraded = body["degraded"].as_array().unwrap();
        let missing = degraded.iter().find(|note| note["code"] == "topic_missing")?;
        assert_eq!(missing["subject"], json!(shop.topic("copies")));
        missing["message"].as_str().unwrap().contains("the output topic is gone: create it again").then_some(())
    });
    send(&mut feeder, 2_000..3_000);
    feeder.flush();
    // With another number of partitions even.
    eventually("the topic can be made again", PATIENCE, || {
        shop.kafka.try_create(&shop.topic("copies"), PARTITIONS + 1).then_some(())
    });
    eventually("what came meanwhile is copied", PATIENCE, || (shop.copies().len() >= 2_000).then_some(()));
    let mut copied = shop.copies();
    copied.sort_unstable();
    assert_eq!(copied, (1_000..3_000).collect::<Vec<_>>());
    eventually("everything is counted", PATIENCE, || (shop.counted() == 3_000).then_some(()));
    eventually("/readyz is clear", PATIENCE, || instance.is_well().then_some(()));
    let told = instance.log_text().lines().filter(|line| line.contains("does not exist")).count();
    assert!(told <= 10, "told {told} times:\n{}", instance.log_text());
    assert_eq!(instance.terminate(), 0, "{}", instance.log_text());
}
