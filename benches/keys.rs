//! What many keys cost, and a cache that holds few of them.

use std::cell::Cell;

use serde_json::{Value, json};
use sidestream::log::Cleanup;

use crate::client::Producer;
use crate::floor::Program;
use crate::input::{self, Transaction, Transactions};
use crate::process::Process;
use crate::restore::{self, Run};
use crate::workload::{Guarantee, Workload};
use crate::{Bench, FLOOR_COMMIT_INTERVAL, INPUT};

/// After every key has been there once.
const RECORDS: u64 = 1_200_000;

/// A number of keys and how much memory they are given.
#[derive(Clone, Copy, Debug)]
struct Case {
    name: &'static str,
    workload: Workload,
    input: Input,
    memory: &'static str,
    /// Instead of 25 % of the memory.
    row_cache: Option<&'static str>,
    /// Whether the keyed floor program runs over the same input.
    with_floor: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    /// So many keys, each once, and then [`RECORDS`] of any of them.
    Keys(u64),
    /// That of the workloads: 100,000 keys.
    Transactions,
}

const FEW: Case = Case {
    name: "10,000 keys",
    workload: Workload::Keyed,
    input: Input::Keys(10_000),
    memory: "512MB",
    row_cache: None,
    with_floor: true,
};
const MANY: Case = Case { name: "1,000,000 keys", input: Input::Keys(1_000_000), ..FEW };
/// Of `keyed` and `join`, a fifth of the look-ups finds its row in the cache; the share is printed.
const SMALL_CACHE: Case = Case {
    name: "keyed, a cache of a fifth",
    input: Input::Transactions,
    row_cache: Some("600KB"),
    with_floor: false,
    ..FEW
};
const SMALL_CACHE_TUMBLING: Case =
    Case { name: "tumbling, a cache of a fifth", workload: Workload::Tumbling, ..SMALL_CACHE };
const SMALL_CACHE_JOIN: Case =
    Case { name: "join, a cache of a fifth", workload: Workload::Join, row_cache: Some("1200KB"), ..SMALL_CACHE };
/// The least memory that is accepted, nearly: RocksDB's share is too small for its files as well.
const LITTLE_MEMORY: Case = Case { name: "1,000,000 keys, little memory", memory: "52MB", with_floor: false, ..MANY };

/// The share of look-ups that the row cache answered, from the beginning of the steady state on.
type Found = f64;

#[derive(Debug)]
pub struct Figures {
    /// With the keyed floor program over the same input, where all keys fit.
    runs: Vec<(Case, Run, Found, Option<Run>)>,
    /// Microseconds per record of the keyed floor program over the input of `keyed`.
    floor: Option<f64>,
}

/// `floor`: the CPU per record of the keyed floor program, where it was measured.
pub fn measure(bench: &Bench, floor: Option<f64>) -> Figures {
    let mut cases = Vec::new();
    if bench.is_chosen("million") {
        cases.extend([FEW, MANY]);
    }
    if bench.is_chosen("cache") {
        cases.extend([SMALL_CACHE, SMALL_CACHE_TUMBLING, SMALL_CACHE_JOIN, LITTLE_MEMORY]);
    }
    Figures { runs: cases.into_iter().map(|case| run(bench, case)).collect(), floor }
}

fn run(bench: &Bench, case: Case) -> (Case, Run, Found, Option<Run>) {
    eprintln!("many keys: {}", case.name);
    let application = bench.name(&format!("bench.keys.{}", case.name.replace([' ', ','], "")));
    let (input, records, from) = match case.input {
        Input::Keys(keys) => {
            let input = format!("{application}.in");
            bench.kafka.create(&input, Bench::partitions(), Cleanup::Delete);
            fill(&bench.kafka.brokers, &input, keys);
            (input, keys + RECORDS, keys + RECORDS / 10)
        }
        Input::Transactions => (bench.name(INPUT), bench.records, bench.records / 5),
    };
    let steady = (from as f64 / records as f64, 0.95);
    let topics = bench.topics(&application, input);
    let mut arguments = vec!["--memory", case.memory];
    arguments.extend(case.row_cache.iter().flat_map(|size| ["--row-cache", size]));
    let mut process = bench.start_with(case.workload, &application, Guarantee::ExactlyOnce, &topics, &arguments);
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
    std::fs::remove_dir_all(bench.directory.path().join(&application)).unwrap();
    let found = 1.0 - (missed - missed_before) as f64 / (all - all_before) as f64;
    let floor =
        case.with_floor.then(|| run_floor(bench, &format!("floor.{application}"), topics.input, records, steady));
    (case, run, found, floor)
}

fn run_floor(bench: &Bench, application: &str, input: String, records: u64, steady: (f64, f64)) -> Run {
    let topics = bench.topics(application, input);
    let mut process = bench.start_floor(Program::Keyed, application, topics, records, FLOOR_COMMIT_INTERVAL);
    let run = restore::follow(&mut process, records, steady, Process::processed, |_| true);
    drop(process);
    std::fs::remove_dir_all(bench.directory.path().join(application)).unwrap();
    run
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
    pub fn print(&self) {
        println!();
        println!("Many keys, and caches that hold few of them:");
        println!();
        println!(
            "| | records/s | us CPU/record | whole: records/s | us CPU/record | peak RSS MB | found in the cache | CPU of 10,000 keys | CPU of the keyed floor |"
        );
        println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|");
        let times =
            |part: f64, whole: Option<f64>| whole.map_or_else(String::new, |whole| format!("{:.1}x", part / whole));
        let cpu = |run: &Run| run.steady.cpu_micros_per_record();
        let few = self.runs.iter().find(|(case, ..)| case.name == FEW.name);
        for (case, run, found, floor) in &self.runs {
            if let Some(floor) = floor {
                let few = few.and_then(|(.., floor)| floor.as_ref());
                println!(
                    "| floor: {} {} | | {} | |",
                    case.name,
                    restore::columns(floor),
                    times(cpu(floor), few.map(cpu))
                );
            }
            let of_few = times(cpu(run), few.map(|(_, run, ..)| cpu(run)));
            let of_floor = times(cpu(run), floor.as_ref().map(cpu).or(self.floor));
            let (name, memory, columns) = (case.name, case.memory, restore::columns(run));
            println!("| {name} ({memory}) {columns} | {:.0} % | {of_few} | {of_floor} |", found * 100.0);
        }
    }

    pub fn json(&self) -> Value {
        let run = |(case, run, found, floor): &(Case, Run, Found, Option<Run>)| json!({"case": case.name, "memory": case.memory, "found": found, "run": restore::run_json(run), "floor": floor.as_ref().map(restore::run_json)});
        json!({"floor_cpu_us_per_record": self.floor, "runs": self.runs.iter().map(run).collect::<Vec<_>>()})
    }
}
