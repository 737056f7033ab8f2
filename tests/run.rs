//! `sidestream run` against a real Kafka: what it waits for, what it refuses, and what it loses nothing over.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::Duration;

use sidestream::ids::{Offset, Partition, TopicName, TopicPartition};
use sidestream::log::{FetchSlot, Fetched, Log as _};

use support::broker;
use support::eventually;
use support::shop::{PATIENCE, START_MS, Shop, send};

#[test]
fn missing_topics_are_named_and_waited_for() {
    let shop = Shop::new(broker::shared());
    let mut instance = shop.start(&shop.topology(""));
    let topics = ["orders", "copies", "counts"].map(|topic| shop.topic(topic));
    let detail = eventually("the missing topics in /readyz", PATIENCE, || {
        let (status, body) = instance.json("/readyz")?;
        assert_eq!(status, 503, "{body}");
        let text = body.to_string();
        topics.iter().all(|topic| text.contains(&format!("`{topic}` does not exist"))).then_some(text)
    });
    assert!(detail.contains("topic_missing") && detail.contains("--create-topics"), "{detail}");
    for topic in &topics {
        assert!(instance.log_text().contains(&format!("`{topic}` does not exist")), "{}", instance.log_text());
    }
    shop.create_topics();
    instance.wait_ready();
    assert!(instance.log_text().contains("condition cleared condition=\"topic_missing\""), "{}", instance.log_text());
    let mut feeder = shop.feeder();
    send(&mut feeder, 0..100);
    feeder.flush();
    eventually("the copies", PATIENCE, || (shop.copies().len() == 100).then_some(()));
    assert_eq!(instance.terminate(), 0, "{}", instance.log_text());
}

#[test]
fn a_dead_letter_has_the_original_key_and_bytes_and_says_where_it_was() {
    let shop = Shop::new(broker::shared());
    shop.create_topics();
    let mut instance = shop.start(&shop.topology(""));
    let mut feeder = shop.feeder();
    let bad = "{\"number\": \"\u{e4}\", \"rest\": [1,  2";
    feeder.send_to(Partition(0), "a", r#"{"number": 1}"#, START_MS);
    feeder.send_to(Partition(0), "b", bad, START_MS);
    feeder.send_to(Partition(0), "c", r#"{"number": 3}"#, START_MS);
    feeder.flush();
    instance.wait_ready();
    eventually("what is around it is copied", PATIENCE, || (shop.copies() == [1, 3]).then_some(()));

    let mut fetcher = shop.kafka.log.fetcher("test-dead-letters").unwrap();
    let dead_letters = TopicName::new(shop.topic("dead-letters"));
    fetcher.assign(FetchSlot(0), &TopicPartition::new(dead_letters, Partition(0)), Offset::ZERO).unwrap();
    let letter = eventually("the dead letter", PATIENCE, || {
        let mut events = Vec::new();
        fetcher.fetch(&mut events, 10, Duration::from_millis(50)).unwrap();
        events.into_iter().find_map(|event| match event {
            Fetched::Record(_, record) => Some(record),
            Fetched::End(..) | Fetched::Failed(..) => None,
        })
    });
    assert_eq!(letter.key(), Some(b"b".as_slice()));
    assert_eq!(letter.value(), Some(bad.as_bytes()));
    let header = |name: &str| {
        let headers = letter.headers();
        let header = headers.iter().find(|header| &*header.name == name);
        header.map(|header| String::from_utf8_lossy(header.value.as_deref().unwrap_or_default()).into_owned())
    };
    assert_eq!(header("sidestream.topic"), Some(shop.topic("orders")));
    assert_eq!(header("sidestream.partition").as_deref(), Some("0"));
    assert_eq!(header("sidestream.offset").as_deref(), Some("1"));
    assert!(header("sidestream.error.message").is_some_and(|message| message.contains("number")));
    let log = instance.log_text();
    let line = log.lines().find(|line| line.contains("records dead-lettered")).unwrap_or_default();
    let place = format!("{}-0 at offset 1", shop.topic("orders"));
    assert!(line.contains("WARN") && line.contains(&place) && line.contains("undecodable"), "{log}");
    assert_eq!(instance.terminate(), 0, "{}", instance.log_text());
}

#[test]
fn at_least_once_loses_nothing_over_a_kill() {
    let shop = Shop::new(broker::shared());
    shop.create_topics();
    let mut instance = shop.start(&shop.topology("guarantee: at_least_once"));
    instance.wait_ready();
    let mut feeder = shop.feeder();
    send(&mut feeder, 0..20_000);
    eventually("some copies", PATIENCE, || (!shop.copies().is_empty()).then_some(()));
    instance.kill();
    send(&mut feeder, 20_000..21_000);
    feeder.flush();
    instance.run();
    eventually("all copies", PATIENCE, || {
        let copies: BTreeSet<i64> = shop.copies().into_iter().collect();
        (copies.len() == 21_000).then_some(())
    });
    eventually("at least all counted", PATIENCE, || (shop.counted() >= 21_000).then_some(()));
    assert_eq!(instance.terminate(), 0, "{}", instance.log_text());
}

#[test]
fn the_state_of_another_application_is_refused_and_left_alone() {
    let shop = Shop::new(broker::shared());
    shop.create_topics();
    let mut instance = shop.start(&shop.topology(""));
    instance.wait_ready();
    assert_eq!(instance.terminate(), 0, "{}", instance.log_text());

    let other = Shop::new(broker::shared());
    other.create_topics();
    let output = Command::new(env!("CARGO_BIN_EXE_sidestream"))
        .arg("run")
        .arg(other.topology(""))
        .args(["--brokers", &other.kafka.brokers, "--http", "127.0.0.1:0", "--state-dir"])
        .arg(shop.state_directory())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&shop.name) && text.contains("--state-dir"), "{text}");

    instance.run();
    instance.wait_ready();
    assert_eq!(instance.terminate(), 0, "{}", instance.log_text());
}

#[test]
fn an_outage_of_kafka_is_waited_out_and_told_once() {
    let mut broker = broker::Broker::start();
    let shop = Shop::new(broker.brokers());
    shop.create_topics();
    let mut instance = shop.start(&shop.topology(""));
    instance.wait_ready();
    let mut feeder = shop.feeder();
    send(&mut feeder, 0..1_000);
    feeder.flush();
    // Not under load: a single node that stops while it completes a transaction can forget to end it
    // (docs/operations.md). tests/soak.rs does that to a cluster.
    eventually("all copies", PATIENCE, || (shop.copies().len() == 1_000 && shop.counted() == 1_000).then_some(()));
    broker.stop();
    eventually("the loss of Kafka in /readyz", PATIENCE, || {
        let (_, body) = instance.json("/readyz")?;
        body.to_string().contains("kafka_unreachable").then_some(())
    });
    assert!(instance.is_running(), "{}", instance.log_text());
    assert!(instance.log_text().contains("condition=\"kafka_unreachable\""), "{}", instance.log_text());
    broker.run();
    let mut feeder = shop.feeder();
    send(&mut feeder, 1_000..2_000);
    feeder.flush();
    let copies = eventually("the copies of what came after", PATIENCE, || {
        let copies = shop.copies();
        (copies.len() >= 2_000).then_some(copies)
    });
    assert_eq!(copies.len(), 2_000, "copied twice");
    assert_eq!(copies.into_iter().collect::<BTreeSet<_>>(), (0..2_000).collect());
    eventually("all counts", PATIENCE, || (shop.counted() == 2_000).then_some(()));
    let lines = instance.log_text().lines().count();
    assert!(lines < 100, "an outage is told in {lines} lines");
    assert_eq!(instance.terminate(), 0, "{}", instance.log_text());
}
