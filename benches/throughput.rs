//! `cargo bench --bench throughput`: the product on a real Kafka, beside bare client loops that do the same work.
//!
//! 1. A broker on this machine; one topic of transactions, one of accounts.
//! 2. One floor program uncounted, to warm the broker up; then the floor programs, and each workload with `sidestream
//!    run`: one after the other, each a process of its own that is alone with the broker, over the same input.
//! 3. Kafka Streams with the same topologies, where Java and Maven are: its results must be the product's.
//! 4. Latency of the pipe at a steady rate, exactly once and at least once.
//! 5. A restoration of all state, beside a bare read of the same changelog; two million keys with little memory; a million
//!    keys, and a cache of a fifth of them.
//! 6. What the product costs at rest and under light load.
//! 7. A table, and `bench.json` in the target directory.
//!
//! `SIDESTREAM_BENCH_RECORDS` (3000000) and `SIDESTREAM_BENCH` (a list of pipe, keyed, tumbling, join, streams, latency,
//! restore, memory, million, cache, idle) choose.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark that fails has no result")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it reports to whoever started it")]
#![expect(clippy::disallowed_methods, reason = "real time is what is measured")]
#![expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counters and shares")]

mod changelog;
mod client;
mod floor;
mod idle;
mod input;
mod keys;
mod latency;
mod memory;
mod pace;
mod process;
mod report;
mod restore;
mod results;
mod streams;
#[path = "../tests/support/mod.rs"]
mod support;
mod workload;

use std::time::Duration;

use sidestream::ids::{Offset, Partition, TopicName, TopicPartition};
use sidestream::log::{Cleanup, Log, OffsetQuery};

use floor::Program;
use input::PARTITIONS;
use pace::Pace;
use process::Process;
use report::Report;
use streams::Streams;
use support::cluster::Kafka;
use support::{broker, eventually};
use workload::{Guarantee, Topics, Workload};

const DEFAULT_RECORDS: u64 = 3_000_000;
/// Between two commits of a floor program: for pace as the product's, for latency what its adaptive ones come near to.
const FLOOR_COMMIT_INTERVAL: Duration = Duration::from_millis(100);
const FLOOR_COMMIT_INTERVAL_LATENCY: Duration = Duration::from_millis(20);
/// Everything that `SIDESTREAM_BENCH` chooses from.
const CHOICE: &str = "pipe,keyed,tumbling,join,streams,latency,restore,memory,million,cache,idle";
const INPUT: &str = "bench.transactions";
const ACCOUNTS: &str = "bench.accounts";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("read") => restore::read(&arguments[1..]),
        Some("floor") => floor::run(&floor::Arguments::from_command_line(&arguments[1..])),
        _ if arguments.iter().any(|argument| argument == "--bench") => Bench::new().run(),
        _ => println!("a benchmark, not a test: cargo bench --bench throughput"),
    }
}

/// One run of everything that is asked for.
struct Bench {
    kafka: Kafka,
    records: u64,
    chosen: Vec<String>,
    directory: tempfile::TempDir,
    /// Makes names of topics and applications that no other run on this broker has.
    run: String,
}

impl Bench {
    fn new() -> Self {
        let records = std::env::var("SIDESTREAM_BENCH_RECORDS").map_or(DEFAULT_RECORDS, |text| text.parse().unwrap());
        let chosen = std::env::var("SIDESTREAM_BENCH").unwrap_or_else(|_| CHOICE.to_owned());
        let chosen: Vec<String> = chosen.split(',').map(|name| name.trim().to_owned()).collect();
        let known = |name: &String| CHOICE.split(',').any(|known| known == name);
        assert!(chosen.iter().all(known), "SIDESTREAM_BENCH is a list of {CHOICE}");
        Self {
            kafka: Kafka::new(broker::shared_with(broker::Jvm::AsStartScript)),
            records,
            chosen,
            directory: tempfile::tempdir().unwrap(),
            run: uuid::Uuid::new_v4().simple().to_string()[..6].to_owned(),
        }
    }

    fn run(&self) {
        let mut report = Report { records: self.records, ..Report::default() };
        let workloads: Vec<Workload> =
            Workload::ALL.into_iter().filter(|workload| self.is_chosen(workload.name())).collect();
        let with_small_caches = self.is_chosen("cache");
        if !workloads.is_empty() || with_small_caches {
            report.record_bytes = self.fill(workloads.contains(&Workload::Join) || with_small_caches);
        }
        if !workloads.is_empty() {
            // A broker that has just started makes its own topics and compiles its code first.
            eprintln!("warming up");
            self.measure_floor(Program::Pipe, "warm-up");
        }
        for program in [Program::Pipe, Program::Keyed] {
            if workloads.iter().any(|workload| workload.floor() == program) {
                eprintln!("floor: {}", program.name());
                report.floors.push((program, self.measure_floor(program, "floor")));
            }
        }
        for &workload in &workloads {
            eprintln!("sidestream: {}", workload.name());
            report.paces.push((workload, self.measure_product(workload)));
        }
        if self.is_chosen("streams") {
            self.measure_peer(&workloads, &mut report);
        }
        if self.is_chosen("latency") {
            eprintln!("latency: floor");
            report.latencies.push(("floor: pipe, exactly once, a commit every 20 ms", self.measure_floor_latency()));
            for guarantee in [Guarantee::ExactlyOnce, Guarantee::AtLeastOnce] {
                eprintln!("latency: {}", guarantee.name());
                report.latencies.push((guarantee.name(), self.measure_latency(guarantee)));
            }
        }
        if self.is_chosen("restore") {
            report.restore = Some(restore::measure(self));
        }
        if self.is_chosen("memory") {
            report.memory = Some(memory::measure(self));
        }
        if self.is_chosen("million") || self.is_chosen("cache") {
            let keyed = report.floors.iter().find(|(program, _)| *program == Program::Keyed);
            let floor = keyed.map(|(_, pace)| pace.steady.cpu_micros_per_record());
            report.keys = Some(keys::measure(self, floor));
        }
        if self.is_chosen("idle") {
            eprintln!("at rest and under light load");
            report.lights = self.measure_light();
        }
        report.print();
        println!("\nwritten to {}", report.write().display());
    }

    fn is_chosen(&self, name: &str) -> bool {
        self.chosen.iter().any(|chosen| chosen == name)
    }

    fn partitions() -> u32 {
        u32::try_from(PARTITIONS).unwrap()
    }

    fn name(&self, name: &str) -> String {
        format!("{name}.{}", self.run)
    }

    /// The name of the application that runs the workload.
    fn product(&self, workload: Workload) -> String {
        self.name(&format!("bench.{}", workload.name()))
    }

    fn fill(&self, with_accounts: bool) -> f64 {
        eprintln!("writing {} records", self.records);
        let input = self.name(INPUT);
        self.kafka.create(&input, Self::partitions(), Cleanup::Delete);
        if with_accounts {
            let accounts = self.name(ACCOUNTS);
            self.kafka.create(&accounts, Self::partitions(), Cleanup::Compact);
            input::fill_accounts(&self.kafka.brokers, &accounts);
        }
        input::fill_transactions(&self.kafka.brokers, &input, self.records)
    }

    /// Makes the output topics.
    fn topics(&self, application: &str, input: String) -> Topics {
        let topics =
            Topics { input, output: format!("{application}.out"), changelog: format!("{application}.changelog") };
        self.kafka.create(&topics.output, Self::partitions(), Cleanup::Delete);
        topics
    }

    fn measure_floor(&self, program: Program, purpose: &str) -> Pace {
        let application = self.name(&format!("{purpose}.{}", program.name()));
        let topics = self.topics(&application, self.name(INPUT));
        let output = pace::reader(&self.kafka.brokers, &topics.output);
        let mut process = self.start_floor(program, &application, topics, self.records, FLOOR_COMMIT_INTERVAL);
        let pace = pace::measure(&mut process, self.records, output, || true);
        std::fs::remove_dir_all(self.directory.path().join(application)).unwrap();
        pace
    }

    fn start_floor(
        &self,
        program: Program,
        application: &str,
        topics: Topics,
        records: u64,
        commit_interval: Duration,
    ) -> Process {
        self.kafka.create(&topics.changelog, Self::partitions(), Cleanup::Compact);
        let directory = self.directory.path().join(application);
        std::fs::create_dir_all(&directory).unwrap();
        let arguments = floor::Arguments {
            program,
            brokers: self.kafka.brokers.clone(),
            topics,
            application: application.to_owned(),
            records,
            commit_interval,
            state_dir: directory.join("state").display().to_string(),
        };
        Process::floor(&arguments.to_command_line(), &directory)
    }

    fn measure_product(&self, workload: Workload) -> Pace {
        let application = self.product(workload);
        let topics = self.topics(&application, self.name(INPUT));
        let mut process = self.start(workload, &application, Guarantee::ExactlyOnce, &topics);
        let output = pace::reader(&self.kafka.brokers, &topics.output);
        let pace = pace::measure(&mut process, self.records, output, || self.is_committed(&application, &topics.input));
        process.end();
        std::fs::remove_dir_all(self.directory.path().join(application)).unwrap();
        pace
    }

    fn measure_peer(&self, workloads: &[Workload], report: &mut Report) {
        let streams = match Streams::build() {
            Ok(streams) => streams,
            Err(reason) => {
                println!("{} is left out: {reason}", streams::NAME);
                return;
            }
        };
        for &workload in workloads.iter().filter(|workload| Streams::has(**workload)) {
            eprintln!("{}: {}", streams::NAME, workload.name());
            let application = self.name(&format!("streams.{}", workload.name()));
            let topics = self.topics(&application, self.name(INPUT));
            let directory = self.directory.path().join(&application);
            std::fs::create_dir_all(&directory).unwrap();
            let mut process = streams.start(workload, &self.kafka.brokers, &topics, &application, &directory);
            let output = pace::reader(&self.kafka.brokers, &topics.output);
            let committed = || self.is_committed(&application, &topics.input);
            let pace = pace::measure(&mut process, self.records, output, committed);
            drop(process);
            std::fs::remove_dir_all(directory).unwrap();
            let products = format!("{}.out", self.product(workload));
            let keys = results::assert_equal(&self.kafka, &products, &topics.output, Self::partitions());
            report.peers.push((workload, pace, keys));
        }
    }

    fn measure_latency(&self, guarantee: Guarantee) -> latency::Latency {
        let application = self.name(&format!("bench.latency.{}", guarantee.name()));
        let topics = self.topics(&application, format!("{application}.in"));
        self.kafka.create(&topics.input, Self::partitions(), Cleanup::Delete);
        let mut process = self.start(Workload::Pipe, &application, guarantee, &topics);
        eventually("readiness", Duration::from_secs(30), || {
            process.assert_alive();
            process.is_ready().then_some(())
        });
        let output = pace::reader(&self.kafka.brokers, &topics.output);
        let latency = latency::measure(&mut process, &self.kafka.brokers, &topics.input, output);
        process.end();
        latency
    }

    fn measure_light(&self) -> Vec<idle::Light> {
        let application = self.name("bench.idle");
        let topics = self.topics(&application, format!("{application}.in"));
        self.kafka.create(&topics.input, Self::partitions(), Cleanup::Delete);
        let mut process = self.start(Workload::Keyed, &application, Guarantee::ExactlyOnce, &topics);
        eventually("readiness", Duration::from_secs(30), || {
            process.assert_alive();
            process.is_ready().then_some(())
        });
        let lights = idle::measure(&mut process, &self.kafka, &topics.input);
        process.end();
        lights
    }

    fn measure_floor_latency(&self) -> latency::Latency {
        let application = self.name("floor.latency");
        let topics = self.topics(&application, format!("{application}.in"));
        self.kafka.create(&topics.input, Self::partitions(), Cleanup::Delete);
        let (input, output) = (topics.input.clone(), pace::reader(&self.kafka.brokers, &topics.output));
        let interval = FLOOR_COMMIT_INTERVAL_LATENCY;
        let mut process = self.start_floor(Program::Pipe, &application, topics, u64::MAX, interval);
        latency::measure(&mut process, &self.kafka.brokers, &input, output)
    }

    fn start(&self, workload: Workload, application: &str, guarantee: Guarantee, topics: &Topics) -> Process {
        self.start_with(workload, application, guarantee, topics, &[])
    }

    fn start_with(
        &self,
        workload: Workload,
        application: &str,
        guarantee: Guarantee,
        topics: &Topics,
        arguments: &[&str],
    ) -> Process {
        let directory = self.directory.path().join(application);
        std::fs::create_dir_all(&directory).unwrap();
        let topology = directory.join("topology.yaml");
        let text = workload.topology(application, guarantee, topics, &self.name(ACCOUNTS));
        std::fs::write(&topology, text).unwrap();
        Process::product(&self.kafka.brokers, &topology, &directory, &topics.input, arguments)
    }

    /// Whether the application's offsets are at the end of the topic.
    fn is_committed(&self, application: &str, topic: &str) -> bool {
        let partitions: Vec<TopicPartition> = (0..Self::partitions())
            .map(|number| TopicPartition::new(TopicName::new(topic), Partition(number)))
            .collect();
        let ends = self.kafka.log.offsets(OffsetQuery::End, &partitions).unwrap();
        let Ok(committed) = self.kafka.log.committed(application, &partitions) else { return false };
        let offset = |committed: Option<sidestream::log::CommittedOffset>| committed.map_or(Offset::ZERO, |c| c.offset);
        committed.into_iter().map(offset).eq(ends)
    }
}
