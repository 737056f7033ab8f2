//! What this process takes from the machine, read from `/proc`.
//!
//! Where `/proc` is not there (not Linux), what cannot be read is left out rather than reported as zero.

use std::fs;

use super::metrics::Series;
use crate::metric::{Kind, Metric};

// The names that every Prometheus client library uses.
const CPU: Metric = Metric {
    name: "process.cpu",
    description: "User and system CPU time spent.",
    unit: "s",
    kind: Kind::Counter,
    labels: &[],
};
const RESIDENT: Metric = gauge("process.resident_memory", "By", "Memory that is resident.");
const PEAK_RESIDENT: Metric = gauge("process.peak_resident_memory", "By", "The most memory that was ever resident.");
const OPEN_FILES: Metric = gauge("process.open_fds", "{file}", "Files and sockets that are open.");
const THREADS: Metric = gauge("process.threads", "{thread}", "Threads that run.");

const fn gauge(name: &'static str, unit: &'static str, description: &'static str) -> Metric {
    Metric { name, description, unit, kind: Kind::Gauge, labels: &[] }
}

/// One reading.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessUsage {
    /// User and system time since the start.
    pub cpu_seconds: Option<f64>,
    pub resident_bytes: Option<u64>,
    /// The most that was ever resident.
    pub peak_resident_bytes: Option<u64>,
    pub open_files: Option<u64>,
    pub threads: Option<u64>,
}

impl ProcessUsage {
    /// Of this process, now.
    pub fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            cpu_seconds: fs::read_to_string("/proc/self/stat").ok().and_then(|stat| cpu_seconds(&stat)),
            resident_bytes: status_field(&status, "VmRSS:").map(|kilobytes| kilobytes * 1024),
            peak_resident_bytes: status_field(&status, "VmHWM:").map(|kilobytes| kilobytes * 1024),
            open_files: fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as u64),
            threads: status_field(&status, "Threads:"),
        }
    }

    /// For metrics.
    pub fn series(&self) -> Vec<Series> {
        let count = |value: Option<u64>| value.map(|value| value as f64);
        [
            (CPU, self.cpu_seconds),
            (RESIDENT, count(self.resident_bytes)),
            (PEAK_RESIDENT, count(self.peak_resident_bytes)),
            (OPEN_FILES, count(self.open_files)),
            (THREADS, count(self.threads)),
        ]
        .iter()
        .filter_map(|(metric, value)| value.map(|value| Series::number(metric, &[], value)))
        .collect()
    }
}

/// `/proc/PID/stat`, fields 14 and 15 (`man proc_pid_stat`). The second field is the name in parentheses, which may hold
/// spaces; what follows its last `)` begins with field 3.
fn cpu_seconds(stat: &str) -> Option<f64> {
    /// The kernel reports to user space in units of 1/100 s on every architecture (`USER_HZ`).
    const TICKS_PER_SECOND: f64 = 100.0;
    let (_, rest) = stat.rsplit_once(')')?;
    let mut times = rest.split_ascii_whitespace().skip(11);
    let user: u64 = times.next()?.parse().ok()?;
    let system: u64 = times.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

/// A number of `/proc/PID/status`, without its unit.
fn status_field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{ProcessUsage, RESIDENT, cpu_seconds};

    #[test]
    fn cpu_time_is_read_past_a_name_with_spaces_and_parentheses() {
        let stat = "12 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 1 0 100";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds("nothing of the kind"), None);
    }

    #[test]
    fn what_cannot_be_read_is_left_out_of_the_metrics() {
        let usage = ProcessUsage { resident_bytes: Some(4096), ..ProcessUsage::default() };
        let series = usage.series();
        assert_eq!(series.len(), 1);
        assert_eq!(series[0].metric, RESIDENT);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_resident_and_has_open_files() {
        let usage = ProcessUsage::read();
        assert!(usage.resident_bytes.unwrap() > 1_000_000);
        assert!(usage.peak_resident_bytes >= usage.resident_bytes);
        assert!(usage.open_files.unwrap() > 0);
        assert!(usage.threads.unwrap() > 0);
    }
}
