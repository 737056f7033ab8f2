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

/// By how much the median of the last third is above that of the first: whatever comes and goes in between does not count.
pub fn growth(samples: &[Sample], value: impl Fn(&Sample) -> f64) -> f64 {
    let third = samples.len() / 3;
    let median = |samples: &[Sample]| {
        let mut values: Vec<f64> = samples.iter().map(&value).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    median(&samples[samples.len() - third..]) - median(&samples[..third])
}
