//! How fast a process without local state restores all of it, beside a bare read of the same changelog.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Bench;
use crate::changelog::{Application, STORE};
use crate::client::Consumer;
use crate::input::{self, PARTITIONS};
use crate::pace::Stretch;
use crate::process::Process;

/// Of the changelog: every key once, and half of them again.
const KEYS: u64 = 2_000_000;
const RECORDS: u64 = 3_000_000;
/// Of each round.
const NEIGHBOURS: u64 = 4_000_000;
const ROUNDS: usize = 2;
/// Less than this in the time of the measurement says nothing about others beside a restoration.
const LEAST_RESTORED: u64 = 200_000;
const LEAST_WINDOW: Duration = Duration::from_millis(500);
const SAMPLE_INTERVAL: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(120);

/// What was measured.
#[derive(Debug)]
pub struct Figures {
    records: u64,
    record_bytes: f64,
    bare_read: Run,
    restore: Run,
    neighbour: Neighbour,
}

#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Without the start of the process and the end of the log.
    pub steady: Stretch,
    /// From the start of the process until everything is done.
    pub whole: Stretch,
    pub peak_resident_bytes: u64,
}

/// A sub-topology without state that goes through a backlog, in records per second.
#[derive(Clone, Copy, Debug)]
struct Neighbour {
    alone: f64,
    beside_restore: f64,
    /// What the restoration came to meanwhile.
    restored: f64,
    took: Duration,
}

/// Shares of all records: the steady state of most.
pub const STEADY: (f64, f64) = (0.15, 0.90);

pub fn measure(bench: &Bench) -> Figures {
    eprintln!("restore: writing {RECORDS} records");
    let mut application = Application::new(bench, "restore");
    application.write_changelog(&bench.kafka.brokers, KEYS, RECORDS);
    eprintln!("restore: bare read");
    let bare_read = bare_read(bench, &application);
    eprintln!("restore: sidestream");
    let restore = restore(bench, &application);
    eprintln!("restore: beside others");
    let neighbour = neighbour(bench, &application);
    Figures { records: application.records, record_bytes: application.record_bytes, bare_read, restore, neighbour }
}

fn bare_read(bench: &Bench, application: &Application) -> Run {
    let directory = bench.directory.path().join(format!("{}.read", application.name));
    std::fs::create_dir_all(&directory).unwrap();
    let records = application.records;
    let arguments = ["read", &bench.kafka.brokers, &application.topics.changelog, &records.to_string()];
    let mut process = Process::own(&arguments.map(str::to_owned), &directory);
    follow(&mut process, records, STEADY, Process::processed, |_| true)
}

fn restore(bench: &Bench, application: &Application) -> Run {
    let mut process = application.start(bench, &[]);
    let run = follow(&mut process, application.records, STEADY, restored, Process::is_ready);
    process.end();
    run
}

fn restored(process: &Process) -> u64 {
    process.metric("sidestream_restore_records_total", &format!("store=\"{STORE}\""))
}

/// A part of a backlog with nothing to restore, and then a part beside a restoration; all of that more than once, since the
/// machine's pace changes from minute to minute.
///
/// # Panics
/// When a restoration has hardly moved in the time of its measurement: then there is no figure.
fn neighbour(bench: &Bench, application: &Application) -> Neighbour {
    let share = |share: f64| (NEIGHBOURS as f64 * share) as u64;
    let most = (application.records as f64 * 0.95) as u64;
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    let mut process = application.start_again(bench, &[]);
    for _ in 0..ROUNDS {
        // Everything is restored and read, and RocksDB has merged what it has.
        settle(&mut process);
        process.end();
        input::fill_transactions(&bench.kafka.brokers, &application.others, NEIGHBOURS);
        process = application.start_again(bench, &[]);
        let (from, to) = (share(0.04), share(0.30));
        alone.push(Window::measure(&mut process, application, |at| at.passed >= from, |at| at.passed >= to));
        process.end();
        process = application.start(bench, &[]);
        let begins = |at: &Look| at.passed >= share(0.02) && at.restored > 0;
        let ends = |at: &Look| at.passed >= share(0.60) || at.restored >= most;
        let window = Window::measure(&mut process, application, begins, ends);
        let restored = window.to.restored - window.from.restored;
        assert!(restored >= LEAST_RESTORED && window.took() >= LEAST_WINDOW, "nothing to see in {window:?}");
        let pace = |windows: &[Window]| per_second(windows, |at| at.passed);
        eprintln!("restore: others at {:.0}/s alone, {:.0}/s beside it", pace(&alone[beside.len()..]), pace(&[window]));
        beside.push(window);
    }
    process.end();
    Neighbour {
        alone: per_second(&alone, |at| at.passed),
        beside_restore: per_second(&beside, |at| at.passed),
        restored: per_second(&beside, |at| at.restored),
        took: beside.iter().map(Window::took).sum(),
    }
}

/// Waits until the process is ready and has nothing more to do.
fn settle(process: &mut Process) {
    const LOOK_INTERVAL: Duration = Duration::from_millis(500);
    let begun = Instant::now();
    let mut before = process.cpu();
    loop {
        process.assert_alive();
        std::thread::sleep(LOOK_INTERVAL);
        let cpu = process.cpu();
        if process.is_ready() && cpu.saturating_sub(before) < LOOK_INTERVAL / 10 {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "it does not come to rest\n{}", process.log_tail());
        before = cpu;
    }
}

#[derive(Clone, Copy, Debug)]
struct Look {
    at: Instant,
    /// Records of the neighbour.
    passed: u64,
    restored: u64,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    from: Look,
    to: Look,
}

impl Window {
    fn measure(
        process: &mut Process,
        application: &Application,
        begins: impl Fn(&Look) -> bool,
        ends: impl Fn(&Look) -> bool,
    ) -> Self {
        let label = format!("topic=\"{}\"", application.others);
        let begun = Instant::now();
        let mut until = |holds: &dyn Fn(&Look) -> bool| loop {
            process.assert_alive();
            let passed = process.metric("sidestream_records_read_total", &label);
            let look = Look { at: Instant::now(), passed, restored: restored(process) };
            if holds(&look) {
                return look;
            }
            assert!(begun.elapsed() < PATIENCE, "stands at {look:?}\n{}", process.log_tail());
            std::thread::sleep(SAMPLE_INTERVAL);
        };
        let from = until(&begins);
        Self { from, to: until(&ends) }
    }

    fn took(&self) -> Duration {
        self.to.at - self.from.at
    }
}

fn per_second(windows: &[Window], count: impl Fn(&Look) -> u64) -> f64 {
    let counted: u64 = windows.iter().map(|window| count(&window.to) - count(&window.from)).sum();
    counted as f64 / windows.iter().map(Window::took).sum::<Duration>().as_secs_f64()
}

/// Samples a process until it is through.
pub fn follow(
    process: &mut Process,
    records: u64,
    steady: (f64, f64),
    passed: impl Fn(&Process) -> u64,
    done: impl Fn(&Process) -> bool,
) -> Run {
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
    let from = samples.iter().copied().find(|sample| sample.1 >= share(steady.0)).unwrap();
    let to = samples.iter().copied().rfind(|sample| sample.1 <= share(steady.1)).unwrap();
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
        let Neighbour { alone, beside_restore, restored, took } = self.neighbour;
        println!();
        println!(
            "A pipe beside it: {alone:.0} records/s alone, {beside_restore:.0} ({:.0} %) for {:.1} s in which {restored:.0} records/s are restored",
            beside_restore / alone * 100.0,
            took.as_secs_f64()
        );
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
            "neighbour": {
                "alone_records_per_second": self.neighbour.alone,
                "beside_restore_records_per_second": self.neighbour.beside_restore,
                "restored_records_per_second": self.neighbour.restored,
                "beside_restore_seconds": self.neighbour.took.as_secs_f64(),
            },
        })
    }
}

pub fn columns(run: &Run) -> String {
    let stretch =
        |stretch: &Stretch| format!("| {:.0} | {:.2}", stretch.records_per_second(), stretch.cpu_micros_per_record());
    format!("{} {} | {:.0}", stretch(&run.steady), stretch(&run.whole), run.peak_resident_bytes as f64 / 1e6)
}

pub fn run_json(run: &Run) -> Value {
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
