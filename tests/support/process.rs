//! What a process takes from the machine, and whether it takes more and more.

use std::fs;
use std::time::Duration;

/// Memory and file descriptors of a process at a time.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub at: Duration,
    pub rss_bytes: f64,
    pub descriptors: f64,
}

impl Sample {
    pub fn of(pid: u32, at: Duration) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kilobytes: f64 = rss.trim().trim_end_matches("kB").trim().parse().unwrap();
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as f64;
        Self { at, rss_bytes: kilobytes * 1024.0, descriptors }
    }
}

/// The growth over all of the time sampled, by least squares; 0 for fewer than three samples.
pub fn growth(samples: &[Sample], value: impl Fn(&Sample) -> f64) -> f64 {
    let count = samples.len() as f64;
    if samples.len() < 3 {
        return 0.0;
    }
    let mean_time = samples.iter().map(|sample| sample.at.as_secs_f64()).sum::<f64>() / count;
    let mean = samples.iter().map(&value).sum::<f64>() / count;
    let offset = |sample: &Sample| sample.at.as_secs_f64() - mean_time;
    let covariance: f64 = samples.iter().map(|sample| offset(sample) * (value(sample) - mean)).sum();
    let variance: f64 = samples.iter().map(|sample| offset(sample).powi(2)).sum();
    let slope = if variance > 0.0 { covariance / variance } else { 0.0 };
    slope * samples[samples.len() - 1].at.saturating_sub(samples[0].at).as_secs_f64()
}
