//! Two instances on a real Kafka, killed again and again: the results must equal a model computed here.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::json;
use sidestream::ids::{EventTime, Partition, TopicName};
use sidestream::limits;
use sidestream::log::{Log as _, OutgoingRecord, Producer, ProducerSettings};

use support::case::{Case, PARTITIONS, PATIENCE, pause};
use support::cluster::Instance;
use support::{broker, eventually};

const RECORDS: usize = 100_000;

#[test]
fn killed_instances_lose_and_double_nothing() {
    let mut case = Case::new(broker::shared(), "kill");
    let mut instances = [case.start("a"), case.start("b")];
    for instance in &mut instances {
        instance.wait_ready();
    }
    const KILLS_EACH: usize = 5;
    let mut victims: Vec<usize> = [0, 1].repeat(KILLS_EACH);
    case.random.shuffle(&mut victims);
    for victim in victims {
        case.feed(RECORDS / (2 * KILLS_EACH));
        let after = Duration::from_millis(case.random.u64(20..700));
        pause(after);
        instances[victim].kill();
        pause(Duration::from_millis(case.random.u64(0..300)));
        instances[victim].run();
    }
    case.close_windows();
    case.check();

    // Reads from either instance give the same rows.
    for instance in &mut instances {
        instance.wait_ready();
    }
    for (user, (count, sum)) in case.model.totals.iter().take(20) {
        for instance in &instances {
            let row = eventually("an answer over HTTP", PATIENCE, || {
                let (status, body) = instance.json(&format!("/v1/tables/totals/{user}"))?;
                (status == 200).then_some(body)
            });
            assert_eq!(row["row"]["n"], json!(count), "{user}: {row}");
            assert_eq!(row["row"]["total"], json!(sum), "{user}: {row}");
        }
    }

    // After SIGTERM and SIGKILL alike a restart restores only what was not in the local state.
    assert_eq!(instances[0].terminate(), 0);
    instances[1].kill();
    for instance in &mut instances {
        instance.run();
    }
    for instance in &mut instances {
        instance.wait_ready();
    }
    let restored: f64 = instances.iter().map(|instance| instance.metric("sidestream_restore_records_total")).sum();
    assert!(restored < 5_000.0, "{restored} records restored; only the tail was expected");

    // A fresh state directory restores in full, to the same rows.
    for instance in &mut instances {
        instance.kill();
    }
    for id in ["a", "b"] {
        std::fs::remove_dir_all(case.directory.path().join(format!("state-{}-{id}", case.name))).unwrap();
    }
    for instance in &mut instances {
        instance.run();
    }
    for instance in &mut instances {
        instance.wait_ready();
    }
    case.move_on();
    case.feed(1_000);
    case.close_windows();
    case.check();
}

#[test]
fn sigterm_and_scaling_lose_and_double_nothing() {
    let mut case = Case::new(broker::shared(), "scale");
    let mut first = case.start("a");
    first.wait_ready();
    case.feed(RECORDS / 5);
    let mut second = case.start("b");
    case.feed(RECORDS / 5);
    second.wait_ready();
    case.feed(RECORDS / 5);
    assert_eq!(first.terminate(), 0, "{}", first.log_text());
    case.feed(RECORDS / 5);
    first.run();
    case.feed(RECORDS / 5);
    first.wait_ready();
    assert_eq!(second.terminate(), 0, "{}", second.log_text());
    case.close_windows();
    case.check();
}

/// EXACTLY-ONCE rule 2d: what a killed instance owned is given away after its session, and its open transaction, which the
/// restoration of its tasks waits for, is ended after that one's time.
#[test]
#[expect(clippy::disallowed_methods, reason = "how long a fail-over takes is what is tested")]
fn a_killed_instance_is_replaced_within_its_sessions_and_its_transactions_time() {
    /// What the documentation says, and something for the restoration on a slow machine.
    const WORST: Duration = Duration::from_secs(20);
    const LEEWAY: Duration = Duration::from_secs(10);
    let mut case = Case::new(broker::shared(), "failover");
    let mut instances = [case.start("a"), case.start("b")];
    for instance in &mut instances {
        instance.wait_ready();
    }
    case.feed(2_000);
    instances[0].kill();
    let killed = Instant::now();
    // A kill finds it within a transaction or not: here it does, and every task has written in it.
    let _left_open = open_transaction(&case, "a", 0);
    case.feed(2_000);
    case.close_windows();
    case.check();
    let took = killed.elapsed();
    assert!(took <= WORST + LEEWAY, "{took:?}");
}

/// EXACTLY-ONCE rule 2b: what a third worker has left open would hold up the restoration for five minutes.
#[test]
fn a_start_with_fewer_workers_does_not_wait_for_the_transactions_of_former_ones() {
    let mut case = Case::new(broker::shared(), "fewer");
    let start = |case: &Case, workers| {
        let id = format!("{}-a", case.name);
        Instance::start(&case.kafka, &case.topology, case.directory.path(), &id, &["--workers", workers])
    };
    let mut instance = start(&case, "3");
    instance.wait_ready();
    case.feed(500);
    assert_eq!(instance.terminate(), 0, "{}", instance.log_text());
    let _left_open = long_transaction(&case, "a", 2);
    let mut instance = start(&case, "1");
    instance.wait_ready();
    case.feed(500);
    case.close_windows();
    case.check();
}

fn transactional_id(case: &Case, instance: &str, worker: u32) -> String {
    format!("{0}-{0}-{instance}-{worker}", case.name)
}

/// A table of either sub-topology.
const TABLES: [&str; 2] = ["totals", "windows"];

/// A transaction as this worker may have it open, over all partitions of two changelogs.
fn open_transaction(case: &Case, instance: &str, worker: u32) -> Box<dyn Producer> {
    let settings = ProducerSettings {
        name: "test".to_owned(),
        transactional_id: Some(transactional_id(case, instance, worker)),
        max_message_bytes: limits::DEFAULT_MAX_MESSAGE_BYTES,
        batch_bytes: limits::DEFAULT_MAX_MESSAGE_BYTES,
        queue_bytes: 1 << 20,
    };
    let mut producer = case.kafka.log.producer(&settings).unwrap();
    producer.init().unwrap();
    producer.begin().unwrap();
    for table in TABLES {
        let topic = producer.topic(&TopicName::new(format!("{}-{table}-changelog", case.name))).unwrap();
        for partition in (0..PARTITIONS).map(Partition) {
            let record = OutgoingRecord { key: Some(b"x"), value: Some(b"x"), timestamp: EventTime(1), headers: &[] };
            producer.send(topic, partition, record).unwrap();
        }
    }
    eventually("the records are in the log", PATIENCE, || {
        producer.poll(Duration::from_millis(20));
        (producer.queued_bytes() == 0).then_some(())
    });
    producer
}

/// As [`open_transaction`], but Kafka ends it only after five minutes.
fn long_transaction(case: &Case, instance: &str, worker: u32) -> BaseProducer {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &case.kafka.brokers)
        .set("transactional.id", transactional_id(case, instance, worker))
        .set("transaction.timeout.ms", "300000")
        .create()
        .unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    for table in TABLES {
        let topic = format!("{}-{table}-changelog", case.name);
        for partition in 0..PARTITIONS {
            let partition = i32::try_from(partition).unwrap();
            producer.send(BaseRecord::to(&topic).partition(partition).key("x").payload("x")).unwrap();
        }
    }
    producer.flush(PATIENCE).unwrap();
    producer
}
