//! How fast a program gets through the input, and at what cost.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::client::Consumer;
use crate::input::PARTITIONS;
use crate::process::Process;

const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_mins(1);
/// The steady state leaves out the start and the end: shares of all records.
const STEADY_FROM: f64 = 0.20;
const STEADY_TO: f64 = 0.95;

/// Measured of one program.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// From the start of the process to the commit of the last record.
    pub whole: Stretch,
    pub steady: Stretch,
    pub peak_resident_bytes: u64,
    /// From the start of the process until a consumer had the first committed result.
    pub first_result: Duration,
}

#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    pub records: u64,
    pub took: Duration,
    pub cpu: Duration,
}

impl Stretch {
    pub fn records_per_second(&self) -> f64 {
        self.records as f64 / self.took.as_secs_f64().max(f64::EPSILON)
    }

    pub fn cpu_micros_per_record(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / (self.records as f64).max(1.0)
    }

    fn between(from: &Sample, to: &Sample) -> Self {
        Self {
            records: to.records - from.records,
            took: to.at.saturating_sub(from.at),
            cpu: to.cpu.saturating_sub(from.cpu),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Duration,
    records: u64,
    cpu: Duration,
}

impl Sample {
    fn take(process: &Process) -> Self {
        let records = process.processed();
        Self { at: process.started.elapsed(), records, cpu: process.cpu() }
    }
}

/// Follows the program until it has committed all records, as `committed` says once they are processed.
pub fn measure(process: &mut Process, records: u64, output: Consumer, mut committed: impl FnMut() -> bool) -> Pace {
    let first = first_result(output);
    let mut samples = vec![Sample { at: Duration::ZERO, records: 0, cpu: Duration::ZERO }];
    let mut peak_resident_bytes = 0;
    let mut moved_at = Instant::now();
    loop {
        process.assert_alive();
        let sample = Sample::take(process);
        peak_resident_bytes = process.peak_resident_bytes().max(peak_resident_bytes);
        let before = samples.last().map_or(0, |sample| sample.records);
        if sample.records != before {
            moved_at = Instant::now();
        }
        let stands = moved_at.elapsed();
        assert!(stands < PATIENCE, "stands at {} of {records}\n{}", sample.records, process.log_tail());
        if sample.records >= records && committed() {
            samples.push(Sample { records: sample.records, ..Sample::take(process) });
            break;
        }
        if sample.records < records {
            samples.push(sample);
            pause(SAMPLE_INTERVAL);
        } else {
            pause(SAMPLE_INTERVAL / 20);
        }
    }
    let (start, end) = (samples[0], samples[samples.len() - 1]);
    let share = |share: f64| (records as f64 * share) as u64;
    let from = samples.iter().find(|sample| sample.records >= share(STEADY_FROM)).unwrap_or(&start);
    let to = samples.iter().rfind(|sample| sample.records <= share(STEADY_TO)).unwrap_or(&end);
    // Too short a run has no two samples in between.
    let (from, to) = if to.records > from.records { (from, to) } else { (&start, &end) };
    let first_result = first.recv_timeout(PATIENCE).expect("a result") - process.started;
    Pace {
        whole: Stretch::between(&start, &end),
        steady: Stretch::between(from, to),
        peak_resident_bytes,
        first_result,
    }
}

/// When the first record of the topic could be read.
fn first_result(mut output: Consumer) -> mpsc::Receiver<Instant> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let deadline = Instant::now() + PATIENCE * 2;
        while Instant::now() < deadline {
            if output.take(1, Duration::from_millis(100), |_| ()) > 0 {
                let _nobody_waits = sender.send(Instant::now());
                return;
            }
        }
    });
    receiver
}

/// Reads a program's output from its start.
pub fn reader(brokers: &str, topic: &str) -> Consumer {
    Consumer::reader(brokers, topic, i32::try_from(PARTITIONS).unwrap())
}

fn pause(duration: Duration) {
    std::thread::sleep(duration);
}
