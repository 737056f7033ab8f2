//! The floor: the same work as two of the workloads, done by a bare loop over the Kafka client with no framework.
//!
//! What it is: what a processor cannot do without. A group member reads in batches; every 100 ms one transaction commits
//! outputs, changelog records and offsets, with the group's real metadata; the keyed one then writes its changed rows to
//! RocksDB in one batch.
//! What it is not: a processor. It does not restore, rebalance, roll back, handle a bad record, or know about time.
//!
//! It runs as a process of its own, so that its CPU time and memory are measured as the product's are, and prints how
//! many records it has processed.

use std::io::Write;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use serde::Deserialize;

use crate::client::{Consumer, Message, Producer, Topic};
use crate::input::PARTITIONS;
use crate::workload::{MINIMUM_AMOUNT, Topics};

const FETCH_LIMIT: usize = 4096;
const FETCH_WAIT: Duration = Duration::from_millis(2);
/// Between two lines of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(10);

/// What one floor program is told on its command line.
#[derive(Debug)]
pub struct Arguments {
    pub program: Program,
    pub brokers: String,
    pub topics: Topics,
    /// Consumer group and transactional id.
    pub application: String,
    /// How many there are.
    pub records: u64,
    pub commit_interval: Duration,
    pub state_dir: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Pipe,
    Keyed,
}

impl Program {
    pub fn name(self) -> &'static str {
        match self {
            Self::Pipe => "pipe",
            Self::Keyed => "keyed",
        }
    }
}

impl Arguments {
    pub fn to_command_line(&self) -> Vec<String> {
        let Topics { input, output, changelog } = &self.topics;
        let (records, interval) = (self.records.to_string(), self.commit_interval.as_millis().to_string());
        let Self { brokers, application, state_dir, .. } = self;
        let name = self.program.name();
        [name, brokers, input, output, changelog, application, &records, &interval, state_dir]
            .map(str::to_owned)
            .to_vec()
    }

    pub fn from_command_line(arguments: &[String]) -> Self {
        let [program, brokers, input, output, changelog, application, records, interval, state_dir] = arguments else {
            panic!("nine arguments, not {arguments:?}");
        };
        let program = if program == Program::Pipe.name() { Program::Pipe } else { Program::Keyed };
        let topics = Topics { input: input.clone(), output: output.clone(), changelog: changelog.clone() };
        Self {
            program,
            brokers: brokers.clone(),
            topics,
            application: application.clone(),
            records: records.parse().unwrap(),
            commit_interval: Duration::from_millis(interval.parse().unwrap()),
            state_dir: state_dir.clone(),
        }
    }
}

/// Processes all records, and then waits to be ended, so that what it used can be looked at.
pub fn run(arguments: &Arguments) {
    match arguments.program {
        Program::Pipe => process(arguments, &mut Pipe::default()),
        Program::Keyed => process(arguments, &mut Keyed::new(&arguments.state_dir)),
    }
    loop {
        std::thread::park();
    }
}

/// The loop that both share.
fn process(arguments: &Arguments, work: &mut impl Work) {
    let Arguments { brokers, topics, application, records, commit_interval, .. } = arguments;
    let producer = Producer::transactional(brokers, application);
    let outputs = Outputs {
        output: producer.topic(&topics.output),
        changelog: producer.topic(&topics.changelog),
        producer: &producer,
    };
    let mut member = Consumer::member(brokers, application, &topics.input);
    let mut positions = [-1; PARTITIONS];
    let mut open = false;
    let mut processed = 0;
    let mut committed_at = Instant::now();
    let mut reported_at = committed_at;
    while processed < *records || open {
        processed += member.take(FETCH_LIMIT, FETCH_WAIT, |message| {
            if !open {
                outputs.producer.begin();
                open = true;
            }
            positions[message.partition] = message.offset + 1;
            work.process(&message, &outputs);
        }) as u64;
        if open && (processed >= *records || committed_at.elapsed() >= *commit_interval) {
            work.flush(&outputs);
            producer.commit(&topics.input, &positions, &member);
            work.committed();
            open = false;
            committed_at = Instant::now();
        }
        if reported_at.elapsed() >= PROGRESS_INTERVAL {
            reported_at = Instant::now();
            // The last one is reported when it is committed.
            report(processed.min(records - 1));
        }
    }
    report(processed);
}

fn report(processed: u64) {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{processed}").unwrap();
    output.flush().unwrap();
}

struct Outputs<'a> {
    // The topics go before the producer, which outlives this.
    output: Topic,
    changelog: Topic,
    producer: &'a Producer,
}

trait Work {
    fn process(&mut self, message: &Message<'_>, outputs: &Outputs<'_>);
    /// Before the commit: what is to be in it.
    fn flush(&mut self, _outputs: &Outputs<'_>) {}
    /// After it.
    fn committed(&mut self) {}
}

#[derive(Deserialize)]
struct Projected<'a> {
    id: &'a str,
    amount: f64,
    merchant: &'a str,
}

/// Filter and project.
#[derive(Default)]
struct Pipe {
    value: Vec<u8>,
}

impl Work for Pipe {
    fn process(&mut self, message: &Message<'_>, outputs: &Outputs<'_>) {
        let row: Projected<'_> = serde_json::from_slice(message.value).unwrap();
        if row.amount < MINIMUM_AMOUNT {
            return;
        }
        let value = &mut self.value;
        value.clear();
        value.extend_from_slice(b"{\"id\":\"");
        value.extend_from_slice(row.id.as_bytes());
        value.extend_from_slice(b"\",\"amount\":");
        value.extend_from_slice(zmij::Buffer::new().format(row.amount).as_bytes());
        value.extend_from_slice(b",\"merchant\":\"");
        value.extend_from_slice(row.merchant.as_bytes());
        value.extend_from_slice(b"\"}");
        outputs.producer.send(&outputs.output, message.partition, message.key, value, message.timestamp);
    }
}

#[derive(Deserialize)]
struct Amount {
    amount: f64,
}

/// Count, sum and maximum per key.
struct Keyed {
    rows: Vec<Row>,
    by_key: FxHashMap<Box<[u8]>, u32>,
    dirty: Vec<u32>,
    value: Vec<u8>,
    batch: rocksdb::WriteBatch,
    database: rocksdb::DB,
}

struct Row {
    key: Box<[u8]>,
    partition: usize,
    timestamp: i64,
    count: u64,
    sum: f64,
    maximum: f64,
    dirty: bool,
}

impl Keyed {
    fn new(state_dir: &str) -> Self {
        Self {
            rows: Vec::new(),
            by_key: FxHashMap::default(),
            dirty: Vec::new(),
            value: Vec::new(),
            batch: rocksdb::WriteBatch::default(),
            database: rocksdb::DB::open_default(state_dir).unwrap(),
        }
    }
}

impl Work for Keyed {
    fn process(&mut self, message: &Message<'_>, _: &Outputs<'_>) {
        let amount = serde_json::from_slice::<Amount>(message.value).unwrap().amount;
        let index = if let Some(index) = self.by_key.get(message.key) {
            *index
        } else {
            let (index, key) = (u32::try_from(self.rows.len()).unwrap(), Box::<[u8]>::from(message.key));
            self.by_key.insert(key.clone(), index);
            let (partition, timestamp) = (message.partition, message.timestamp);
            self.rows.push(Row { key, partition, timestamp, count: 0, sum: 0.0, maximum: amount, dirty: false });
            index
        };
        let row = &mut self.rows[index as usize];
        row.count += 1;
        row.sum += amount;
        row.maximum = row.maximum.max(amount);
        row.timestamp = row.timestamp.max(message.timestamp);
        if !row.dirty {
            row.dirty = true;
            self.dirty.push(index);
        }
    }

    fn flush(&mut self, outputs: &Outputs<'_>) {
        let mut numbers = (itoa::Buffer::new(), zmij::Buffer::new());
        for index in self.dirty.drain(..) {
            let row = &mut self.rows[index as usize];
            row.dirty = false;
            let mut stored = [0; 24];
            stored[..8].copy_from_slice(&row.count.to_le_bytes());
            stored[8..16].copy_from_slice(&row.sum.to_le_bytes());
            stored[16..].copy_from_slice(&row.maximum.to_le_bytes());
            self.batch.put(&row.key, stored);
            outputs.producer.send(&outputs.changelog, row.partition, &row.key, &stored, row.timestamp);
            let value = &mut self.value;
            value.clear();
            value.extend_from_slice(b"{\"account\":\"");
            value.extend_from_slice(&row.key);
            value.extend_from_slice(b"\",\"n\":");
            value.extend_from_slice(numbers.0.format(row.count).as_bytes());
            value.extend_from_slice(b",\"total\":");
            value.extend_from_slice(numbers.1.format(row.sum).as_bytes());
            value.extend_from_slice(b",\"largest\":");
            value.extend_from_slice(numbers.1.format(row.maximum).as_bytes());
            value.push(b'}');
            outputs.producer.send(&outputs.output, row.partition, &row.key, value, row.timestamp);
        }
    }

    fn committed(&mut self) {
        self.database.write(std::mem::take(&mut self.batch)).unwrap();
    }
}
