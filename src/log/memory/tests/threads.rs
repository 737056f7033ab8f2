//! Waiting, and many threads at once.

use std::time::Duration;

use super::scene::{Process, SLOT, Scene, at, producer, text};
use crate::clock::{ManualClock, SystemClock};
use crate::ids::{Offset, Partition};
use crate::log::memory::MemoryLog;
use crate::log::{Cleanup, Fetched, Log, NewTopic};

fn log_with(topics: &[&str]) -> MemoryLog {
    let log = MemoryLog::new(SystemClock::shared());
    for name in topics {
        let name = (*name).into();
        let topic = NewTopic { name, partitions: 1, replication: None, cleanup: Cleanup::Delete, config: vec![] };
        log.create_topic(&topic).unwrap();
    }
    log
}

#[test]
fn a_waiting_fetch_returns_with_the_record_that_arrives() {
    let log = log_with(&["output"]);
    let mut fetcher = log.fetcher("reader").unwrap();
    fetcher.assign(SLOT, &at("output", 0), Offset(0)).unwrap();
    let mut fetched = Vec::new();
    fetcher.fetch(&mut fetched, 10, Duration::ZERO).unwrap();
    assert_eq!(fetched.len(), 1, "the end of an empty partition");
    std::thread::scope(|threads| {
        let reader = threads.spawn(|| {
            fetcher.fetch(&mut fetched, 10, Duration::from_mins(1)).unwrap();
            fetched.len()
        });
        log.append(&"output".into(), Partition(0), text("arrived")).unwrap();
        assert_eq!(reader.join().unwrap(), 3, "the record and the new end");
    });
}

#[test]
fn a_wait_ends_while_a_manual_clock_stands_still() {
    let scene = Scene::new();
    let mut reader = scene.reader(0);
    assert_eq!(reader.fetch(), ["<0>"]);
    let mut fetched = Vec::new();
    reader.fetcher.fetch(&mut fetched, 10, Duration::from_millis(30)).unwrap();
    assert!(fetched.is_empty());
}

#[test]
fn a_log_for_one_thread_waits_for_nobody() {
    let log = MemoryLog::for_one_thread(ManualClock::at(0), "cluster");
    let mut fetcher = log.fetcher("reader").unwrap();
    fetcher.fetch(&mut Vec::new(), 10, Duration::from_hours(1)).unwrap();
    assert_eq!(log.cluster_id().unwrap(), "cluster");
}

#[test]
fn a_reader_sees_whole_transactions_in_order_while_others_write() {
    const ROUNDS: usize = 200;
    let log = log_with(&["input", "output"]);
    let mut member = Process::start(&log, "member", None);
    member.settle();
    let metadata = member.membership.group().metadata().unwrap();
    let seen = std::thread::scope(|threads| {
        for writer in ["a", "b", "c"] {
            let (log, metadata) = (log.clone(), metadata.clone());
            threads.spawn(move || {
                let mut producer = producer(&log, writer);
                let topic = producer.topic(&"output".into()).unwrap();
                for round in 0..ROUNDS {
                    producer.begin().unwrap();
                    let value = format!("{writer}{round:03}");
                    producer.send(topic, Partition(0), text(&value)).unwrap();
                    producer.send(topic, Partition(0), text(&value)).unwrap();
                    if round % 4 == 3 {
                        producer.abort().unwrap();
                    } else {
                        producer.commit(&super::scene::offsets(1), &metadata).unwrap();
                    }
                }
            });
        }
        let mut fetcher = log.fetcher("reader").unwrap();
        fetcher.assign(SLOT, &at("output", 0), Offset(0)).unwrap();
        let mut fetched = Vec::new();
        // Two records and a control record for each of the rounds.
        let last = Offset(3 * 3 * i64::try_from(ROUNDS).unwrap());
        while !matches!(fetched.last(), Some(Fetched::End(_, end)) if *end == last) {
            fetcher.fetch(&mut fetched, 64, Duration::from_secs(1)).unwrap();
        }
        fetched
    });
    let values: Vec<String> = seen
        .iter()
        .filter_map(|event| if let Fetched::Record(_, record) = event { record.value() } else { None })
        .map(|value| String::from_utf8(value.to_vec()).unwrap())
        .collect();
    for writer in ["a", "b", "c"] {
        let of_writer: Vec<&String> = values.iter().filter(|value| value.starts_with(writer)).collect();
        let committed = (0..ROUNDS).filter(|round| round % 4 != 3);
        let expected: Vec<String> = committed.flat_map(|round| vec![format!("{writer}{round:03}"); 2]).collect();
        assert_eq!(of_writer, expected.iter().collect::<Vec<_>>());
    }
}
