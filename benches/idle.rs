//! What the product costs while there is little or nothing to do: CPU and wake-ups of its own, and what its
//! transactions ask of the broker.

use std::time::{Duration, Instant};

use sidestream::ids::{Partition, TopicName, TopicPartition};
use sidestream::log::{Log, OffsetQuery};

use crate::client::Producer;
use crate::input::{Transactions, partition};
use crate::process::Process;
use crate::support::cluster::Kafka;

/// Records per second; nothing first.
pub const RATES: [u32; 4] = [0, 1, 10, 100];
/// After the start, until nothing more is done because of it.
const SETTLING: Duration = Duration::from_secs(3);
const MEASURED_IDLE: Duration = Duration::from_secs(20);
const MEASURED: Duration = Duration::from_secs(10);
/// Longer than a commit takes, so that the last one has ended.
const GRACE: Duration = Duration::from_millis(500);
const OFFSETS_TOPIC: &str = "__consumer_offsets";
const TRANSACTIONS_TOPIC: &str = "__transaction_state";

/// All per second.
#[derive(Clone, Copy, Debug)]
pub struct Light {
    pub rate: u32,
    /// Share of one core.
    pub cpu: f64,
    /// Of any of its threads, from waiting.
    pub wake_ups: f64,
    pub transactions: f64,
    /// Control records: one per transaction and partition that it touched, the group's offsets among them.
    pub markers: f64,
    /// Rows of outputs and changelogs.
    pub rows: f64,
    /// Offsets committed.
    pub offsets: f64,
    /// Records of the transaction coordinator's own log.
    pub transaction_log: f64,
}

/// At each of [`RATES`] in turn. The program is ready.
pub fn measure(process: &mut Process, kafka: &Kafka, input: &str) -> Vec<Light> {
    std::thread::sleep(SETTLING);
    let mut feeder =
        Feeder { producer: Producer::plain(&kafka.brokers, "0"), transactions: Transactions::new(), sent: 0 };
    RATES.iter().map(|&rate| measure_at(rate, process, kafka, input, &mut feeder)).collect()
}

fn measure_at(rate: u32, process: &mut Process, kafka: &Kafka, input: &str, feeder: &mut Feeder) -> Light {
    if rate > 0 {
        // Rows, topics and transactions of the first records.
        feeder.feed(input, rate.max(10), Duration::from_secs(1));
        std::thread::sleep(GRACE);
    }
    let before = Counts::look(process, kafka);
    let (cpu, wake_ups, since) = (process.cpu(), process.wake_ups(), Instant::now());
    if rate > 0 {
        feeder.feed(input, rate, MEASURED);
        std::thread::sleep(GRACE);
    } else {
        std::thread::sleep(MEASURED_IDLE);
    }
    let took = since.elapsed().as_secs_f64();
    let (cpu, wake_ups) =
        (process.cpu().saturating_sub(cpu).as_secs_f64(), process.wake_ups().saturating_sub(wake_ups));
    process.assert_alive();
    let after = Counts::look(process, kafka);
    // Markers are not counted in the grace in which nothing is sent.
    let sending = if rate > 0 { MEASURED.as_secs_f64() } else { took };
    let per_second = |count: u64| count as f64 / sending;
    let transactions = after.transactions - before.transactions;
    let rows = after.rows - before.rows;
    Light {
        rate,
        cpu: cpu / took,
        wake_ups: wake_ups as f64 / took,
        transactions: per_second(transactions),
        // All of a group's offsets are in one partition.
        markers: per_second((after.records - before.records).saturating_sub(rows) + transactions),
        rows: per_second(rows),
        offsets: per_second((after.offsets - before.offsets).saturating_sub(transactions)),
        transaction_log: per_second(after.transaction_log - before.transaction_log),
    }
}

/// How far everything is that grows with commits.
struct Counts {
    transactions: u64,
    /// As the program counts what it writes.
    rows: u64,
    /// In the topics that it has written to, as the broker counts: markers take offsets too.
    records: u64,
    offsets: u64,
    transaction_log: u64,
}

impl Counts {
    fn look(process: &Process, kafka: &Kafka) -> Self {
        let written = process.series("sidestream_records_written_total");
        let topic =
            |labels: &str| labels.split_once("topic=\"").and_then(|(_, rest)| Some(rest.split_once('"')?.0.to_owned()));
        Self {
            transactions: process.metric("sidestream_commits_total", ""),
            rows: written.iter().map(|(_, count)| count).sum(),
            records: written.iter().filter_map(|(labels, _)| topic(labels)).map(|topic| length(kafka, &topic)).sum(),
            offsets: length(kafka, OFFSETS_TOPIC),
            transaction_log: length(kafka, TRANSACTIONS_TOPIC),
        }
    }
}

/// The sum of a topic's end offsets.
fn length(kafka: &Kafka, topic: &str) -> u64 {
    let name = TopicName::new(topic);
    let description = kafka.log.describe_topics(std::slice::from_ref(&name)).unwrap().remove(0);
    let partitions: Vec<TopicPartition> = (0..description.map_or(0, |topic| topic.partitions))
        .map(|number| TopicPartition::new(name.clone(), Partition(number)))
        .collect();
    let ends = kafka.log.offsets(OffsetQuery::End, &partitions).unwrap();
    ends.iter().map(|end| u64::try_from(end.0).unwrap()).sum()
}

struct Feeder {
    producer: Producer,
    transactions: Transactions,
    sent: u64,
}

impl Feeder {
    /// One record after the other, at equal distances.
    fn feed(&mut self, input: &str, rate: u32, length: Duration) {
        let topic = self.producer.topic(input);
        let epoch = Instant::now();
        let period = Duration::from_secs(1) / rate;
        let mut due = Duration::ZERO;
        while due < length {
            std::thread::sleep(due.saturating_sub(epoch.elapsed()));
            let transaction = self.transactions.next(self.sent);
            let (key, value) = (transaction.account.as_bytes(), transaction.value.as_bytes());
            self.producer.send(&topic, partition(&transaction.account), key, value, transaction.at_ms);
            self.sent += 1;
            due += period;
        }
        self.producer.flush();
    }
}
