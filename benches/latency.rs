//! From the moment at which a record is handed to a producer to the moment at which a read-committed consumer has its
//! result, both in this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::client::{Consumer, Producer};
use crate::input::{PARTITIONS, Transactions};
use crate::process::Process;

pub const RATE: u64 = 2000;
const WARM_UP: Duration = Duration::from_secs(4);
const MEASURED: Duration = Duration::from_secs(12);
/// How long results may take to arrive after the last record.
const GRACE: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug)]
pub struct Latency {
    pub results: usize,
    pub p50: Duration,
    pub p90: Duration,
    pub p99: Duration,
    pub p999: Duration,
    pub longest: Duration,
    /// None of a program that does not tell.
    pub commits_per_second: Option<f64>,
    /// Share of one core.
    pub cpu: f64,
}

/// Feeds the program, which is ready, at a steady rate.
pub fn measure(process: &mut Process, brokers: &str, input: &str, output: Consumer) -> Latency {
    let epoch = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    let reader = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || read(output, epoch, &stop)
    });
    let producer = Producer::plain(brokers, "0");
    let topic = producer.topic(input);
    let mut transactions = Transactions::new();
    let period = Duration::from_secs(1) / u32::try_from(RATE).unwrap();
    let (mut due, mut number) = (Duration::ZERO, 0);
    let mut before = None;
    while due < WARM_UP + MEASURED {
        if due >= WARM_UP && before.is_none() {
            before = Some((process.metric("sidestream_commits_total", ""), process.cpu(), Instant::now()));
            // Looking took a while; the rate goes on from here.
            due = epoch.elapsed();
        }
        std::thread::sleep(due.saturating_sub(epoch.elapsed()));
        let now = u64::try_from(epoch.elapsed().as_micros()).unwrap();
        let transaction = transactions.next(now);
        let (key, value) = (transaction.account.as_bytes(), transaction.value.as_bytes());
        producer.send(&topic, number % PARTITIONS, key, value, transaction.at_ms);
        number += 1;
        due += period;
    }
    let (commits, cpu, since) = before.unwrap();
    let took = since.elapsed().as_secs_f64();
    let cpu = process.cpu().saturating_sub(cpu).as_secs_f64() / took;
    let commits = process.metric("sidestream_commits_total", "") - commits;
    producer.flush();
    std::thread::sleep(GRACE);
    process.assert_alive();
    stop.store(true, Ordering::Relaxed);
    let mut latencies = reader.join().unwrap();
    assert!(!latencies.is_empty(), "no result arrived\n{}", process.log_tail());
    latencies.sort_unstable();
    let quantile = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    Latency {
        results: latencies.len(),
        p50: quantile(0.50),
        p90: quantile(0.90),
        p99: quantile(0.99),
        p999: quantile(0.999),
        longest: quantile(1.0),
        commits_per_second: (commits > 0).then(|| commits as f64 / took),
        cpu,
    }
}

/// Latencies of what was sent after the warm-up.
fn read(mut output: Consumer, epoch: Instant, stop: &AtomicBool) -> Vec<Duration> {
    let mut latencies = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let mut each = |sent: Duration| {
            if sent >= WARM_UP {
                latencies.push(epoch.elapsed().saturating_sub(sent));
            }
        };
        if output.take(1, Duration::from_millis(100), |message| each(sent(message.value))) > 0 {
            output.take(4096, Duration::ZERO, |message| each(sent(message.value)));
        }
    }
    latencies
}

/// The id of a transaction is when it was sent, in microseconds.
fn sent(value: &[u8]) -> Duration {
    let row: serde_json::Value = serde_json::from_slice(value).unwrap();
    let id = row["id"].as_str().and_then(|id| id.strip_prefix("t-")).unwrap();
    Duration::from_micros(id.parse().unwrap())
}
