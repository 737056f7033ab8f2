//! A program under measurement: a process of its own, whose CPU time, memory and progress are looked at from outside.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::support::cluster::free_port;
use crate::support::eventually;

/// The kernel's unit of CPU time, `USER_HZ`: 100 per second on Linux.
const CPU_TICK: Duration = Duration::from_millis(10);

pub struct Process {
    pub started: Instant,
    child: Child,
    progress: Progress,
    log_file: PathBuf,
}

enum Progress {
    /// The product: the counter of the topic at `/metrics`.
    Metrics { port: u16, topic: String },
    /// A floor program or the peer: what it prints.
    Lines(Arc<AtomicU64>),
}

impl Process {
    /// The product, with one worker and more on its command line.
    pub fn product(brokers: &str, topology: &Path, directory: &Path, input: &str, more: &[&str]) -> Self {
        Self::product_at(free_port(), brokers, topology, directory, input, more)
    }

    /// The same at an address that it keeps: with another one a static member would be another member of the group, and
    /// wait for the end of its own earlier session.
    pub fn product_at(port: u16, brokers: &str, topology: &Path, directory: &Path, input: &str, more: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sidestream"));
        command
            .arg("run")
            .arg(topology)
            .args(["--brokers", brokers, "--workers", "1", "--create-topics", "--instance-id", "bench"])
            .args(["--log-format", "text", "--http", &format!("127.0.0.1:{port}"), "--state-dir"])
            .arg(directory.join("state"))
            .args(more);
        let log_file = directory.join("log");
        command.stdout(File::create(&log_file).unwrap());
        let progress = Progress::Metrics { port, topic: format!("topic=\"{input}\"") };
        Self::start(command, progress, log_file)
    }

    /// This executable as a floor program.
    pub fn floor(arguments: &[String], directory: &Path) -> Self {
        Self::own(&[&["floor".to_owned()], arguments].concat(), directory)
    }

    /// This executable as a program that prints how far it has come.
    pub fn own(arguments: &[String], directory: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(arguments);
        Self::printing(command, directory)
    }

    /// A program that prints how far it has come.
    pub fn printing(mut command: Command, directory: &Path) -> Self {
        command.stdout(Stdio::piped());
        let count = Arc::new(AtomicU64::new(0));
        let mut process = Self::start(command, Progress::Lines(Arc::clone(&count)), directory.join("log"));
        let output = BufReader::new(process.child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                count.store(line.parse().unwrap(), Ordering::Relaxed);
            }
        });
        process
    }

    fn start(mut command: Command, progress: Progress, log_file: PathBuf) -> Self {
        let log = File::options().create(true).append(true).open(&log_file).unwrap();
        let started = Instant::now();
        let child = command.stdin(Stdio::null()).stderr(log).spawn().unwrap();
        Self { started, child, progress, log_file }
    }

    /// Records of the input that have been processed.
    pub fn processed(&self) -> u64 {
        match &self.progress {
            Progress::Metrics { topic, .. } => self.metric("sidestream_records_read_total", topic),
            Progress::Lines(count) => count.load(Ordering::Relaxed),
        }
    }

    /// The sum of a metric's series that have this label; 0 for a program without metrics.
    pub fn metric(&self, name: &str, label: &str) -> u64 {
        self.series(name).iter().filter(|(labels, _)| labels.contains(label)).map(|(_, value)| value).sum()
    }

    /// A metric's series: labels as text, and value. None of a program without metrics.
    pub fn series(&self, name: &str) -> Vec<(String, u64)> {
        let Progress::Metrics { port, .. } = self.progress else { return Vec::new() };
        let body = get(port, "/metrics").unwrap_or_default();
        let series = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            let (found, labels) = series.split_once('{').unwrap_or((series, ""));
            (found == name).then_some((labels.to_owned(), value.parse::<f64>().ok()? as u64))
        };
        body.lines().filter_map(series).collect()
    }

    pub fn is_ready(&self) -> bool {
        let Progress::Metrics { port, .. } = self.progress else { return true };
        get(port, "/readyz").is_some()
    }

    /// Of all its threads, in user and kernel mode.
    pub fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        // The second field is the command in parentheses; user and system time are the 14th and 15th.
        let after_command = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let ticks: u32 = after_command.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u32>().ok()).sum();
        CPU_TICK * ticks
    }

    /// How often any of its threads has begun to wait.
    pub fn wake_ups(&self) -> u64 {
        let threads = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let of_thread = |path: PathBuf| {
            let status = fs::read_to_string(path.join("status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
            line.trim().parse::<u64>().ok()
        };
        threads.map_while(Result::ok).filter_map(|thread| of_thread(thread.path())).sum()
    }

    pub fn peak_resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
    }

    /// # Panics
    /// When it has ended by itself.
    pub fn assert_alive(&mut self) {
        let ended = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "it has ended: {ended:?}\n{}", self.log_tail());
    }

    pub fn log_tail(&self) -> String {
        let text = fs::read_to_string(&self.log_file).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// As an operator would.
    pub fn end(mut self) {
        let _gone_already = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let status = eventually("the end of the program", Duration::from_secs(30), || self.child.try_wait().unwrap());
        if !status.success() {
            eprintln!("ended with {status}:\n{}", self.log_tail());
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// The body of an answer with status 200.
fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut response = String::new();
    stream.read_to_string(&mut response).ok()?;
    let (head, body) = response.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| body.to_owned())
}
