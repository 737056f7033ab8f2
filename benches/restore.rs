//! How fast a process without local state restores all of it, beside a bare read of the same changelog.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Bench;
use crate::changelog::{Application, STORE};
use crate::client::Consumer;
use crate::input::PARTITIONS;
use crate::pace::Stretch;
use crate::process::Process;

/// Of the changelog: every key once, and half of them again.
const KEYS: u64 = 2_000_000;
const RECORDS: u64 = 3_000_000;
const SAMPLE_INTERVAL: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(120);

/// What was measured.
#[derive(Debug)]
pub struct Figures {
    records: u64,
    record_bytes: f64,
    bare_read: Run,
    restore: Run,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    /// Without the start of the process and the end of the log.
    steady: Stretch,
    /// From the start of the process to the last record or, of the product, until it is ready.
    whole: Stretch,
    peak_resident_bytes: u64,
}

pub fn measure(bench: &Bench) -> Figures {
    eprintln!("restore: writing {RECORDS} records");
    let mut application = Application::new(bench, "restore");
    application.write_changelog(&bench.kafka.brokers, KEYS, RECORDS);
    eprintln!("restore: bare read");
    let bare_read = bare_read(bench, &application);
    eprintln!("restore: sidestream");
    let restore = restore(bench, &application);
    Figures { records: application.records, record_bytes: application.record_bytes, bare_read, restore }
}

fn bare_read(bench: &Bench, application: &Application) -> Run {
    let directory = bench.directory.path().join(format!("{}.read", application.name));
    std::fs::create_dir_all(&directory).unwrap();
    let records = application.records;
    let arguments = ["read", &bench.kafka.brokers, &application.topics.changelog, &records.to_string()];
    let mut process = Process::own(&arguments.map(str::to_owned), &directory);
    follow(&mut process, records, Process::processed, |_| true)
}

fn restore(bench: &Bench, application: &Application) -> Run {
    let mut process = application.start(bench, &[]);
    let label = format!("store=\"{STORE}\"");
    let restored = |process: &Process| process.metric("sidestream_restore_records_total", &label);
    let run = follow(&mut process, application.records, restored, Process::is_ready);
    process.end();
    run
}

/// Samples a process until it is through.
fn follow(
    process: &mut Process,
    records: u64,
    passed: impl Fn(&Process) -> u64,
    done: impl Fn(&Process) -> bool,
) -> Run {
    /// Shares of all records.
    const STEADY: (f64, f64) = (0.15, 0.90);
    let begun = Instant::now();
    let mut samples = vec![(Duration::ZERO, 0, Duration::ZERO)];
    loop {
        process.assert_alive();
        let count = passed(process);
        samples.push((process.started.elapsed(), count, process.cpu()));
        if count >= records && done(process) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "stands at {count} of {records}\n{}", process.log_tail());
        std::thread::sleep(SAMPLE_INTERVAL);
    }
    let last = (process.started.elapsed(), records, process.cpu());
    let share = |share: f64| (records as f64 * share) as u64;
    let between = |from: (Duration, u64, Duration), to: (Duration, u64, Duration)| Stretch {
        records: to.1 - from.1,
        took: to.0.saturating_sub(from.0),
        cpu: to.2.saturating_sub(from.2),
    };
    let from = samples.iter().copied().find(|sample| sample.1 >= share(STEADY.0)).unwrap();
    let to = samples.iter().copied().rfind(|sample| sample.1 <= share(STEADY.1)).unwrap();
    let steady = if to.1 > from.1 { between(from, to) } else { between(samples[0], last) };
    Run { steady, whole: between(samples[0], last), peak_resident_bytes: process.peak_resident_bytes() }
}

/// The program beside it: reads a topic and does nothing with it.
pub fn read(arguments: &[String]) {
    let [brokers, topic, records] = arguments else { panic!("three arguments, not {arguments:?}") };
    let records: u64 = records.parse().unwrap();
    let mut reader = Consumer::reader(brokers, topic, i32::try_from(PARTITIONS).unwrap());
    let (mut count, mut bytes) = (0, 0);
    while count < records {
        count += reader.take(4096, Duration::from_millis(5), |message| bytes += message.key.len() + message.value.len())
            as u64;
        let mut output = std::io::stdout().lock();
        writeln!(output, "{count}").unwrap();
        output.flush().unwrap();
    }
    assert!(bytes > 0);
    loop {
        std::thread::park();
    }
}

impl Figures {
    pub fn print(&self) {
        println!();
        println!("Restoring {} changelog records of {:.0} bytes, {KEYS} keys:", self.records, self.record_bytes);
        println!();
        println!(
            "| | records/s | us CPU/record | whole: records/s | us CPU/record | peak RSS MB | share of the bare read |"
        );
        println!("|---|---:|---:|---:|---:|---:|---:|");
        println!("| bare read {} | |", columns(&self.bare_read));
        println!("| restore {} | {:.0} % |", columns(&self.restore), self.share() * 100.0);
    }

    fn share(&self) -> f64 {
        self.restore.steady.records_per_second() / self.bare_read.steady.records_per_second()
    }

    pub fn json(&self) -> Value {
        json!({
            "records": self.records,
            "record_bytes": self.record_bytes,
            "keys": KEYS,
            "bare_read": run_json(&self.bare_read),
            "restore": run_json(&self.restore),
            "share_of_bare_read": self.share(),
        })
    }
}

fn columns(run: &Run) -> String {
    let stretch =
        |stretch: &Stretch| format!("| {:.0} | {:.2}", stretch.records_per_second(), stretch.cpu_micros_per_record());
    format!("{} {} | {:.0}", stretch(&run.steady), stretch(&run.whole), run.peak_resident_bytes as f64 / 1e6)
}

fn run_json(run: &Run) -> Value {
    let stretch = |stretch: &Stretch| {
        json!({
            "records_per_second": stretch.records_per_second(),
            "cpu_us_per_record": stretch.cpu_micros_per_record(),
            "seconds": stretch.took.as_secs_f64(),
        })
    };
    json!({
        "steady": stretch(&run.steady),
        "whole": stretch(&run.whole),
        "peak_rss_bytes": run.peak_resident_bytes,
    })
}
