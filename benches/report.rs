//! What was measured, as a table and as JSON.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::floor::Program;
use crate::idle::Light;
use crate::input::{ACCOUNTS, PARTITIONS};
use crate::latency::{Latency, RATE};
use crate::pace::{Pace, Stretch};
use crate::support::broker;
use crate::workload::Workload;
use crate::{keys, memory, restore, streams};

#[derive(Debug, Default)]
pub struct Report {
    pub records: u64,
    pub record_bytes: f64,
    pub floors: Vec<(Program, Pace)>,
    pub paces: Vec<(Workload, Pace)>,
    /// With the number of keys whose last rows are the product's.
    pub peers: Vec<(Workload, Pace, usize)>,
    pub latencies: Vec<(&'static str, Latency)>,
    pub restore: Option<restore::Figures>,
    pub memory: Option<memory::Figures>,
    pub keys: Option<keys::Figures>,
    pub lights: Vec<Light>,
}

impl Report {
    fn floor_of(&self, workload: Workload) -> Option<&Pace> {
        self.floors.iter().find(|(program, _)| *program == workload.floor()).map(|(_, pace)| pace)
    }

    pub fn print(&self) {
        println!();
        println!(
            "{} records of {:.0} bytes, {PARTITIONS} partitions, {ACCOUNTS} keys, one worker, exactly once; {}",
            self.records,
            self.record_bytes,
            Machine::look().line()
        );
        self.print_paces();
        self.print_peers();
        self.print_latencies();
        if let Some(restore) = &self.restore {
            restore.print();
        }
        if let Some(memory) = &self.memory {
            memory.print();
        }
        if let Some(keys) = &self.keys {
            keys.print();
        }
        self.print_lights();
    }

    fn print_paces(&self) {
        if self.paces.is_empty() {
            return;
        }
        println!();
        println!(
            "| | records/s | us CPU/record | whole: records/s | us CPU/record | peak RSS MB | first result s | pace of floor | CPU of floor |"
        );
        println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|");
        for (program, pace) in &self.floors {
            println!("| floor: {} {} |", program.name(), columns(pace, None));
        }
        for (workload, pace) in &self.paces {
            println!("| {} {} |", workload.name(), columns(pace, self.floor_of(*workload)));
        }
        for (workload, pace, _) in &self.peers {
            println!("| {}: {} {} |", streams::NAME, workload.name(), columns(pace, self.floor_of(*workload)));
        }
    }

    fn print_latencies(&self) {
        if self.latencies.is_empty() {
            return;
        }
        println!();
        println!("Produce to committed, pipe at {RATE} records/s:");
        println!();
        println!("| | p50 ms | p90 ms | p99 ms | p99.9 ms | longest ms | results | commits/s | CPU of a core |");
        println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|");
        for (name, latency) in &self.latencies {
            println!(
                "| {name} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {} | {} | {:.0} % |",
                millis(latency.p50),
                millis(latency.p90),
                millis(latency.p99),
                millis(latency.p999),
                millis(latency.longest),
                latency.results,
                latency.commits_per_second.map_or_else(String::new, |commits| format!("{commits:.0}")),
                latency.cpu * 100.0
            );
        }
    }

    fn print_peers(&self) {
        if self.peers.is_empty() {
            return;
        }
        println!();
        println!(
            "| beside {} | pace | its CPU per record | whole: pace | its CPU per record | its peak RSS | same last rows |",
            streams::NAME
        );
        println!("|---|---:|---:|---:|---:|---:|---:|");
        for (workload, peer, keys) in &self.peers {
            let Some((_, pace)) = self.paces.iter().find(|(product, _)| product == workload) else { continue };
            let ratios = |ours: &Stretch, theirs: &Stretch| {
                let pace = ours.records_per_second() / theirs.records_per_second();
                let cpu = theirs.cpu_micros_per_record() / ours.cpu_micros_per_record();
                format!("{pace:.1}x | {cpu:.1}x")
            };
            let (steady, whole) = (ratios(&pace.steady, &peer.steady), ratios(&pace.whole, &peer.whole));
            let memory = peer.peak_resident_bytes as f64 / pace.peak_resident_bytes as f64;
            println!("| {} | {steady} | {whole} | {memory:.1}x | {keys} |", workload.name());
        }
    }

    fn print_lights(&self) {
        if self.lights.is_empty() {
            return;
        }
        println!();
        println!("Little or nothing to do, keyed, exactly once; all per second:");
        println!();
        println!(
            "| records | CPU of a core | wake-ups | transactions | markers | output and changelog rows | offsets | transaction log records |"
        );
        println!("|---|---:|---:|---:|---:|---:|---:|---:|");
        for light in &self.lights {
            let Light { rate, cpu, wake_ups, transactions, markers, rows, offsets, transaction_log } = light;
            println!(
                "| {rate} | {:.2} % | {wake_ups:.0} | {transactions:.1} | {markers:.1} | {rows:.1} | {offsets:.1} | {transaction_log:.1} |",
                cpu * 100.0
            );
        }
    }

    /// Writes `bench.json` to the target directory; returns its path.
    pub fn write(&self) -> PathBuf {
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from);
        fs::create_dir_all(&target).unwrap();
        let path = target.join("bench.json");
        fs::write(&path, serde_json::to_string_pretty(&self.json()).unwrap() + "\n").unwrap();
        path
    }

    fn json(&self) -> Value {
        let floors: Vec<Value> = self.floors.iter().map(|(program, pace)| pace_json(program.name(), pace)).collect();
        let workloads: Vec<Value> = self
            .paces
            .iter()
            .map(|(workload, pace)| {
                let mut row = pace_json(workload.name(), pace);
                if let Some(floor) = self.floor_of(*workload) {
                    row["floor"] = json!(workload.floor().name());
                    row["pace_ratio"] = json!(pace_ratio(pace, floor));
                    row["cpu_ratio"] = json!(cpu_ratio(pace, floor));
                }
                row
            })
            .collect();
        let peers: Vec<Value> = self.peers.iter().map(|(workload, pace, _)| pace_json(workload.name(), pace)).collect();
        let latencies: Vec<Value> = self
            .latencies
            .iter()
            .map(|(name, latency)| {
                json!({
                    "name": name,
                    "records_per_second": RATE,
                    "results": latency.results,
                    "p50_ms": millis(latency.p50),
                    "p90_ms": millis(latency.p90),
                    "p99_ms": millis(latency.p99),
                    "p999_ms": millis(latency.p999),
                    "longest_ms": millis(latency.longest),
                    "commits_per_second": latency.commits_per_second,
                    "cpu_of_a_core": latency.cpu,
                })
            })
            .collect();
        let lights: Vec<Value> = self
            .lights
            .iter()
            .map(|light| {
                json!({
                    "records_per_second": light.rate,
                    "cpu_of_a_core": light.cpu,
                    "wake_ups_per_second": light.wake_ups,
                    "transactions_per_second": light.transactions,
                    "markers_per_second": light.markers,
                    "rows_per_second": light.rows,
                    "offsets_per_second": light.offsets,
                    "transaction_log_records_per_second": light.transaction_log,
                })
            })
            .collect();
        let machine = Machine::look();
        json!({
            "at": jiff::Timestamp::now().to_string(),
            "version": env!("CARGO_PKG_VERSION"),
            "kafka": machine.kafka,
            "cores": machine.cores,
            "memory_bytes": machine.memory_bytes,
            "load_average": machine.load,
            "records": self.records,
            "record_bytes": self.record_bytes,
            "partitions": PARTITIONS,
            "keys": ACCOUNTS,
            "floors": floors,
            "workloads": workloads,
            "peer": streams::NAME,
            "peers": peers,
            "latencies": latencies,
            "restore": self.restore.as_ref().map(restore::Figures::json),
            "memory": self.memory.as_ref().map(memory::Figures::json),
            "many_keys": self.keys.as_ref().map(keys::Figures::json),
            "light_loads": lights,
        })
    }
}

fn columns(pace: &Pace, floor: Option<&Pace>) -> String {
    let stretch =
        |stretch: &Stretch| format!("| {:.0} | {:.2}", stretch.records_per_second(), stretch.cpu_micros_per_record());
    let ratios = floor.map_or("| | ".to_owned(), |floor| {
        format!("| {:.0} % | {:.1}x", pace_ratio(pace, floor) * 100.0, cpu_ratio(pace, floor))
    });
    let (steady, whole) = (stretch(&pace.steady), stretch(&pace.whole));
    let megabytes = pace.peak_resident_bytes as f64 / 1e6;
    format!("{steady} {whole} | {megabytes:.0} | {:.2} {ratios}", pace.first_result.as_secs_f64())
}

fn pace_json(name: &str, pace: &Pace) -> Value {
    let stretch = |stretch: &Stretch| {
        json!({
            "records": stretch.records,
            "seconds": stretch.took.as_secs_f64(),
            "records_per_second": stretch.records_per_second(),
            "cpu_us_per_record": stretch.cpu_micros_per_record(),
        })
    };
    json!({
        "name": name,
        "steady": stretch(&pace.steady),
        "whole": stretch(&pace.whole),
        "peak_rss_bytes": pace.peak_resident_bytes,
        "first_result_seconds": pace.first_result.as_secs_f64(),
    })
}

/// In the steady state.
fn pace_ratio(pace: &Pace, floor: &Pace) -> f64 {
    pace.steady.records_per_second() / floor.steady.records_per_second()
}

fn cpu_ratio(pace: &Pace, floor: &Pace) -> f64 {
    pace.steady.cpu_micros_per_record() / floor.steady.cpu_micros_per_record()
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

struct Machine {
    cores: usize,
    memory_bytes: u64,
    /// Of one, five and fifteen minutes; the benchmark's own load is part of it.
    load: String,
    kafka: String,
}

impl Machine {
    fn look() -> Self {
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kilobytes = memory.lines().next().and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Self {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_bytes: kilobytes.unwrap_or(0) * 1024,
            load: load.split(' ').take(3).collect::<Vec<_>>().join(" "),
            kafka: std::env::var("SIDESTREAM_TEST_BROKERS")
                .map_or_else(|_| broker::VERSION.to_owned(), |brokers| format!("at {brokers}")),
        }
    }

    fn line(&self) -> String {
        format!(
            "{} cores, {:.0} GB, load {}, Kafka {} on the same machine",
            self.cores,
            self.memory_bytes as f64 / 1e9,
            self.load,
            self.kafka
        )
    }
}
