//! What many keys cost, and a cache that holds few of them: `keyed`, once every key is there.

use std::cell::Cell;

use serde_json::{Value, json};
use sidestream::log::Cleanup;

use crate::Bench;
use crate::client::Producer;
use crate::input::{self, Transaction, Transactions};
use crate::process::Process;
use crate::restore::{self, Run};
use crate::workload::{Guarantee, Workload};

/// After every key has been there once.
const RECORDS: u64 = 1_200_000;

/// A number of keys and how much memory they are given.
#[derive(Clone, Copy, Debug)]
struct Case {
    name: &'static str,
    keys: u64,
    memory: &'static str,
    /// Instead of 25 % of the memory.
    row_cache: Option<&'static str>,
}

const FEW: Case = Case { name: "10,000 keys", keys: 10_000, memory: "512MB", row_cache: None };
const MANY: Case = Case { name: "1,000,000 keys", keys: 1_000_000, memory: "512MB", row_cache: None };
/// About a fifth of the look-ups find their row in the cache; the share is printed.
const SMALL_CACHE: Case =
    Case { name: "100,000 keys, a cache of a fifth", keys: 100_000, memory: "512MB", row_cache: Some("600KB") };
/// The least memory that is accepted, nearly: RocksDB's share is too small for its files as well.
const LITTLE_MEMORY: Case =
    Case { name: "1,000,000 keys, little memory", keys: 1_000_000, memory: "52MB", row_cache: None };

/// The share of look-ups that the row cache answered, from the beginning of the steady state on.
type Found = f64;

#[derive(Debug)]
pub struct Figures {
    runs: Vec<(Case, Run, Found)>,
    /// Microseconds per record.
    floor: Option<f64>,
}

/// `floor`: the CPU per record of the keyed floor program, where it was measured.
pub fn measure(bench: &Bench, floor: Option<f64>) -> Figures {
    let mut cases = Vec::new();
    if bench.is_chosen("million") {
        cases.extend([FEW, MANY]);
    }
    if bench.is_chosen("cache") {
        cases.extend([SMALL_CACHE, LITTLE_MEMORY]);
    }
    let run = |case| {
        let (run, found) = run(bench, case);
        (case, run, found)
    };
    Figures { runs: cases.into_iter().map(run).collect(), floor }
}

fn run(bench: &Bench, case: Case) -> (Run, Found) {
    eprintln!("keyed: {}", case.name);
    let application = bench.name(&format!("bench.keyed.{}.{}", case.keys, case.memory));
    let topics = bench.topics(&application, format!("{application}.in"));
    bench.kafka.create(&topics.input, Bench::partitions(), Cleanup::Delete);
    fill(&bench.kafka.brokers, &topics.input, case.keys);
    let directory = bench.directory.path().join(&application);
    std::fs::create_dir_all(&directory).unwrap();
    let topology = directory.join("topology.yaml");
    std::fs::write(&topology, Workload::Keyed.topology(&application, Guarantee::ExactlyOnce, &topics, "")).unwrap();
    let mut arguments = vec!["--memory", case.memory];
    arguments.extend(case.row_cache.iter().flat_map(|size| ["--row-cache", size]));
    let mut process = Process::product_with(&bench.kafka.brokers, &topology, &directory, &topics.input, &arguments);
    let records = case.keys + RECORDS;
    let from = case.keys + RECORDS / 10;
    let steady = (from as f64 / records as f64, 0.95);
    let look_ups = |process: &Process| {
        ["sidestream_state_reads_total", "sidestream_state_reads_missed_total"].map(|name| process.metric(name, ""))
    };
    let before = Cell::new(None);
    let passed = |process: &Process| {
        let count = process.processed();
        if count >= from && before.get().is_none() {
            before.set(Some(look_ups(process)));
        }
        count
    };
    let committed = |_: &Process| bench.is_committed(&application, &topics.input);
    let run = restore::follow(&mut process, records, steady, passed, committed);
    let [all, missed] = look_ups(&process);
    let [all_before, missed_before] = before.get().unwrap();
    process.end();
    std::fs::remove_dir_all(directory).unwrap();
    (run, 1.0 - (missed - missed_before) as f64 / (all - all_before) as f64)
}

/// Every key once, and then any of them.
fn fill(brokers: &str, topic: &str, keys: u64) {
    let producer = Producer::plain(brokers, "20");
    let topic = producer.topic(topic);
    let mut random = fastrand::Rng::with_seed(4);
    let mut transactions = Transactions::new();
    for id in 0..keys + RECORDS {
        let key = if id < keys { id } else { random.u64(..keys) };
        let Transaction { value, at_ms, .. } = transactions.next(id);
        let account = format!("acct-{key:07}");
        producer.send(&topic, input::partition(&account), account.as_bytes(), value.as_bytes(), *at_ms);
    }
    producer.flush();
}

impl Figures {
    fn cpu(&self, name: &str) -> Option<f64> {
        let run = self.runs.iter().find(|(case, ..)| case.name == name)?;
        Some(run.1.steady.cpu_micros_per_record())
    }

    pub fn print(&self) {
        println!();
        println!("Keyed, {RECORDS} records for keys that are all there:");
        println!();
        println!(
            "| | records/s | us CPU/record | whole: records/s | us CPU/record | peak RSS MB | found in the cache | CPU of 10,000 keys | CPU of the keyed floor |"
        );
        println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|");
        let times =
            |part: f64, whole: Option<f64>| whole.map_or_else(String::new, |whole| format!("{:.1}x", part / whole));
        for (case, run, found) in &self.runs {
            let cpu = run.steady.cpu_micros_per_record();
            let (few, floor) = (times(cpu, self.cpu(FEW.name)), times(cpu, self.floor));
            let (name, memory, columns) = (case.name, case.memory, restore::columns(run));
            println!("| {name} ({memory}) {columns} | {:.0} % | {few} | {floor} |", found * 100.0);
        }
    }

    pub fn json(&self) -> Value {
        let run = |(case, run, found): &(Case, Run, Found)| json!({"keys": case.keys, "memory": case.memory, "found": found, "run": restore::run_json(run)});
        json!({"floor_cpu_us_per_record": self.floor, "runs": self.runs.iter().map(run).collect::<Vec<_>>()})
    }
}
