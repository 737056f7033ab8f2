//! State to be restored: an application that has run and left a changelog, which is then made as long as one likes.
//!
//! The application itself makes its topics, its offsets and the layouts of its rows, from a little input. What is added to
//! its changelog are rows of that layout, as many keys as wanted, each in its partition.

use std::io::Write;
use std::time::{Duration, Instant};

use sidestream::log::Cleanup;
use sidestream::schema::Type;
use sidestream::store::key::encode_value;
use sidestream::value::Value;

use crate::client::{Consumer, Producer};
use crate::input::{self, PARTITIONS, Transaction, Transactions};
use crate::process::Process;
use crate::support::cluster::free_port;
use crate::support::eventually;
use crate::{Bench, Topics};

/// Of the input that the application has processed.
const SEED_RECORDS: u64 = 20_000;
const PATIENCE: Duration = Duration::from_secs(30);
/// Of the step, and so of the store.
pub const STORE: &str = "result";

/// An application with state in a changelog.
pub struct Application {
    pub name: String,
    pub topics: Topics,
    /// In the changelog, those of its own included.
    pub records: u64,
    /// Mean of key and value.
    pub record_bytes: f64,
    /// A topic of transactions, at first empty, that a sub-topology without state reads. From the start, since another
    /// topology would be another member of the group, beside one whose session has to end first.
    pub others: String,
    /// Of its HTTP.
    port: u16,
}

impl Application {
    /// Runs it over a little input, and ends it.
    pub fn new(bench: &Bench, purpose: &str) -> Self {
        let name = bench.name(&format!("bench.{purpose}"));
        let topics = bench.topics(&name, format!("{name}.in"));
        let changelog = format!("{name}-{STORE}-changelog");
        let others = format!("{name}.others");
        for topic in [&topics.input, &others] {
            bench.kafka.create(topic, Bench::partitions(), Cleanup::Delete);
        }
        input::fill_transactions(&bench.kafka.brokers, &topics.input, SEED_RECORDS);
        let topics = Topics { changelog, ..topics };
        let application = Self { name, topics, records: 0, record_bytes: 0.0, others, port: free_port() };
        let mut process = application.start(bench, &[]);
        eventually("the first rows", PATIENCE, || {
            process.assert_alive();
            bench.is_committed(&application.name, &application.topics.input).then_some(())
        });
        process.end();
        application
    }

    /// With no state on this machine.
    pub fn start(&self, bench: &Bench, arguments: &[&str]) -> Process {
        let _none_yet = std::fs::remove_dir_all(bench.directory.path().join(&self.name));
        self.start_again(bench, arguments)
    }

    /// With the state that it had.
    pub fn start_again(&self, bench: &Bench, arguments: &[&str]) -> Process {
        let directory = bench.directory.path().join(&self.name);
        std::fs::create_dir_all(&directory).unwrap();
        let topology = directory.join("topology.yaml");
        std::fs::write(&topology, self.topology()).unwrap();
        Process::product_at(self.port, &bench.kafka.brokers, &topology, &directory, &self.topics.input, arguments)
    }

    fn topology(&self) -> String {
        let Topics { input, output, .. } = &self.topics;
        format!(
            "version: 1
name: {name}
streams:
  transactions:
    topic: {input}
    key: {{name: account, type: STRING}}
    format: json
    columns: {{id: STRING, amount: DOUBLE, merchant: STRING, device: STRING, terminal: STRING}}
  others:
    topic: {others}
    key: {{name: account, type: STRING}}
    format: json
    columns: {{id: STRING, amount: DOUBLE, merchant: STRING}}
steps:
  pipe:
    from: others
    where: amount >= 100
    select: id, amount, merchant
    to: {output}
  {STORE}:
    from: transactions
    group_by: account
    aggregate:
      n: COUNT(*)
      total: SUM(amount)
      largest: MAX(amount)
      id: MAX(id)
      merchant: MAX(merchant)
      device: MAX(device)
      terminal: MAX(terminal)
    ttl: none
    to: {output}
",
            name = self.name,
            others = self.others,
        )
    }

    /// Adds `records` to the changelog: every one of `keys` once, in no order, and then some of them again, at random.
    pub fn write_changelog(&mut self, brokers: &str, keys: u64, records: u64) {
        let (template, own) = self.look(brokers);
        let producer = Producer::plain(brokers, "20");
        let topic = producer.topic(&self.topics.changelog);
        let mut random = fastrand::Rng::with_seed(2);
        let (mut account, mut key, mut value) = (Vec::new(), Vec::new(), template.clone());
        let at = Places::of(&template);
        let mut bytes = 0;
        for number in 0..records {
            // A step that has no divisor in common with any number of keys visits each once.
            const STEP: u64 = 7_368_787;
            let chosen = if number < keys { number * STEP % keys } else { random.u64(..keys) };
            write_key(&mut account, chosen);
            key.clear();
            let text = Value::String(std::str::from_utf8(&account).unwrap().into());
            encode_value(&text, &Type::String, &mut key).unwrap();
            at.fill(&mut value, number, &mut random);
            bytes += key.len() + value.len();
            producer.send(&topic, input::partition(&account), &key, &value, 0);
        }
        producer.flush();
        self.records = own + records;
        self.record_bytes = bytes as f64 / records as f64;
    }

    /// Adds input for keys of the changelog, at random.
    pub fn write_input(&self, brokers: &str, keys: u64, records: u64) {
        let producer = Producer::plain(brokers, "20");
        let topic = producer.topic(&self.topics.input);
        let mut random = fastrand::Rng::with_seed(3);
        let (mut account, mut transactions) = (Vec::new(), Transactions::new());
        for id in 0..records {
            let Transaction { value, at_ms, .. } = transactions.next(id);
            write_key(&mut account, random.u64(..keys));
            producer.send(&topic, input::partition(&account), &account, value.as_bytes(), *at_ms);
        }
        producer.flush();
    }

    /// One row of the application's own, and how many there are.
    fn look(&self, brokers: &str) -> (Vec<u8>, u64) {
        let partitions = i32::try_from(PARTITIONS).unwrap();
        let mut reader = Consumer::reader(brokers, &self.topics.changelog, partitions);
        let (mut template, mut count) = (Vec::new(), 0);
        let deadline = Instant::now() + PATIENCE;
        let mut quiet_since = Instant::now();
        while Instant::now() < deadline && (count == 0 || quiet_since.elapsed() < Duration::from_millis(300)) {
            let taken = reader.take(4096, Duration::from_millis(20), |message| template = message.value.to_vec());
            if taken > 0 {
                count += taken as u64;
                quiet_since = Instant::now();
            }
        }
        assert!(!template.is_empty(), "{} has no rows", self.topics.changelog);
        (template, count)
    }
}

fn write_key(into: &mut Vec<u8>, number: u64) {
    into.clear();
    write!(into, "key-{number:09}").unwrap();
}

/// Where digits stand in a row that differ from row to row: equal rows would be compressed to nothing.
struct Places {
    id: usize,
    merchant: usize,
    terminal: usize,
}

impl Places {
    fn of(row: &[u8]) -> Self {
        let after = |text: &[u8]| row.windows(text.len()).position(|window| window == text).unwrap() + text.len();
        Self { id: after(b"t-"), merchant: after(b"merchant-"), terminal: after(b"pos-") }
    }

    fn fill(&self, row: &mut [u8], number: u64, random: &mut fastrand::Rng) {
        write!(&mut row[self.id..], "{number:010}").unwrap();
        write!(&mut row[self.merchant..], "{:04}", random.u32(..10_000)).unwrap();
        write!(&mut row[self.terminal..], "{:05}", random.u32(..100_000)).unwrap();
    }
}
