//! Topics, records and running instances for tests on a real Kafka.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::types::RDKafkaErrorCode;
use sidestream::ids::{Offset, Partition, TopicName, TopicPartition};
use sidestream::log::kafka::{KafkaLog, KafkaSettings};
use sidestream::log::partitioner::partition_of;
use sidestream::log::{Cleanup, FetchSlot, Fetched, Log, NewTopic, Next, OffsetQuery, Record};

use super::eventually;

/// A client of the broker under test.
pub struct Kafka {
    pub brokers: String,
    pub log: Arc<KafkaLog>,
}

/// A record as read from a topic.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub partition: u32,
    pub offset: i64,
    pub timestamp: i64,
    pub key: Option<String>,
    pub value: Option<serde_json::Value>,
}

impl Row {
    /// Slots are numbered as the partitions are.
    pub fn of(slot: FetchSlot, record: &Record) -> Self {
        Self {
            partition: slot.0,
            offset: record.offset.0,
            timestamp: record.timestamp.0,
            key: record.key().map(|key| String::from_utf8_lossy(key).into_owned()),
            value: record.value().map(|value| serde_json::from_slice(value).unwrap_or_default()),
        }
    }
}

/// Whose records are kept, however old they say they are.
fn new_topic(name: &str, partitions: u32, cleanup: Cleanup, config: &[(&str, &str)]) -> NewTopic {
    let config = [&[("retention.ms", "-1")], config].concat();
    let config = config.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    NewTopic { name: TopicName::new(name), partitions, replication: None, cleanup, config }
}

impl Kafka {
    pub fn new(brokers: String) -> Self {
        let log = Arc::new(KafkaLog::new(KafkaSettings::new(brokers.clone())).unwrap());
        Self { brokers, log }
    }

    pub fn create(&self, name: &str, partitions: u32, cleanup: Cleanup) {
        self.create_with(name, partitions, cleanup, &[]);
    }

    /// With settings of the topic.
    pub fn create_with(&self, name: &str, partitions: u32, cleanup: Cleanup, config: &[(&str, &str)]) {
        self.log.create_topic(&new_topic(name, partitions, cleanup, config)).unwrap();
    }

    /// Whether the topic could be made: not while an earlier one of that name is being deleted.
    pub fn try_create(&self, name: &str, partitions: u32) -> bool {
        self.log.create_topic(&new_topic(name, partitions, Cleanup::Delete, &[])).is_ok()
    }

    /// All committed records of a topic now, in offset order per partition.
    pub fn read_all(&self, topic: &str) -> Vec<Row> {
        let name = TopicName::new(topic);
        // A topic that was made just now, or again, is known to some before the others.
        let described = || self.log.describe_topics(std::slice::from_ref(&name)).ok()?.remove(0);
        let description = eventually("the topic is described", Duration::from_mins(1), described);
        let partitions: Vec<TopicPartition> =
            (0..description.partitions).map(|number| TopicPartition::new(name.clone(), Partition(number))).collect();
        let ends = || self.log.offsets(OffsetQuery::End, &partitions).ok();
        let ends = eventually("the ends of the topic", Duration::from_mins(1), ends);
        let mut fetcher = self.log.fetcher("test-reader").unwrap();
        let mut open = 0;
        for (number, partition) in partitions.iter().enumerate() {
            if ends[number] > Offset::ZERO {
                fetcher.assign(FetchSlot(number as u32), partition, Offset::ZERO).unwrap();
                open += 1;
            }
        }
        let mut rows = Vec::new();
        let mut next = vec![Offset::ZERO; partitions.len()];
        let mut done = vec![false; partitions.len()];
        eventually("a topic read to its end", Duration::from_mins(1), || {
            let mut events = Vec::new();
            fetcher.fetch(&mut events, 100_000, Duration::from_millis(50)).unwrap();
            for event in events {
                match event {
                    Fetched::Record(slot, record) => {
                        next[slot.0 as usize] = Offset(record.offset.0 + 1);
                        rows.push(Row::of(slot, &record));
                    }
                    Fetched::End(slot, end) => done[slot.0 as usize] |= end >= ends[slot.0 as usize],
                    Fetched::Failed(slot, error) if error.next() == Next::Retry => {
                        let number = slot.0 as usize;
                        fetcher.assign(slot, &partitions[number], next[number]).unwrap();
                    }
                    Fetched::Failed(_, error) => panic!("{topic}: {error}"),
                }
            }
            (done.iter().filter(|done| **done).count() == open).then_some(())
        });
        rows
    }
}

/// Writes JSON records as any client would, outside of transactions. Nobody else writes to its topic meanwhile.
pub struct Feeder {
    producer: BaseProducer,
    topic: String,
    partitions: u32,
    log: Arc<KafkaLog>,
    written_to: Vec<TopicPartition>,
    /// Where the topic ends once everything has arrived: the sum over its partitions.
    end: i64,
}

/// How long brokers may take to accept a record: until a killed one's partitions have other leaders.
const ACCEPTED_WITHIN: Duration = Duration::from_mins(2);

impl Feeder {
    pub fn new(kafka: &Kafka, topic: &str, partitions: u32) -> Self {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", &kafka.brokers)
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", ACCEPTED_WITHIN.as_millis().to_string())
            .create()
            .unwrap();
        let partition = |number| TopicPartition::new(TopicName::new(topic), Partition(number));
        let written_to = (0..partitions).map(partition).collect();
        let mut feeder =
            Self { producer, topic: topic.to_owned(), partitions, log: Arc::clone(&kafka.log), written_to, end: 0 };
        feeder.end = feeder.ends();
        feeder
    }

    fn ends(&self) -> i64 {
        let ends = eventually("the ends of the input", Duration::from_mins(2), || {
            self.log.offsets(OffsetQuery::End, &self.written_to).ok()
        });
        ends.iter().map(|end| end.0).sum()
    }

    pub fn send(&mut self, key: &str, value: &str, timestamp_ms: i64) {
        self.send_to(partition_of(key.as_bytes(), self.partitions), key, value, timestamp_ms);
    }

    pub fn send_to(&mut self, partition: Partition, key: &str, value: &str, timestamp_ms: i64) {
        let partition = i32::try_from(partition.0).unwrap();
        let mut record =
            BaseRecord::to(&self.topic).partition(partition).key(key).payload(value).timestamp(timestamp_ms);
        while let Err((error, refused)) = self.producer.send(record) {
            assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull), "{error}");
            self.producer.poll(Duration::from_millis(10));
            record = refused;
        }
        self.end += 1;
    }

    /// Returns when the broker has everything, each record once.
    ///
    /// # Panics
    /// When it has not. What comes out without a record looks like a wrong result: the first row that tells of it has a sum
    /// that nobody expects.
    #[track_caller]
    pub fn flush(&mut self) {
        self.producer.flush(ACCEPTED_WITHIN).unwrap();
        assert_eq!(self.ends(), self.end, "the input itself is not what was sent");
    }
}

/// A running `sidestream run`, ended when dropped.
pub struct Instance {
    pub http_port: u16,
    arguments: Vec<String>,
    environment: Vec<(&'static str, PathBuf)>,
    log_file: PathBuf,
    child: Option<Child>,
}

impl Instance {
    /// `id` names the static member, the state directory below `directory` and the log file.
    pub fn start(kafka: &Kafka, topology: &Path, directory: &Path, id: &str, more: &[&str]) -> Self {
        Self::start_at(&kafka.brokers, topology, directory, id, more)
    }

    /// With another way to the brokers.
    pub fn start_at(brokers: &str, topology: &Path, directory: &Path, id: &str, more: &[&str]) -> Self {
        let mut instance = Self::new(brokers, topology, directory, id, more);
        instance.run();
        instance
    }

    /// One that `run` starts, with an environment if need be.
    pub fn new(brokers: &str, topology: &Path, directory: &Path, id: &str, more: &[&str]) -> Self {
        let http_port = free_port();
        let mut arguments: Vec<String> = vec![
            "run".to_owned(),
            topology.display().to_string(),
            "--brokers".to_owned(),
            brokers.to_owned(),
            "--state-dir".to_owned(),
            directory.join(format!("state-{id}")).display().to_string(),
            "--instance-id".to_owned(),
            id.to_owned(),
            "--http".to_owned(),
            format!("127.0.0.1:{http_port}"),
            "--log-format".to_owned(),
            "text".to_owned(),
        ];
        arguments.extend(more.iter().map(|&argument| argument.to_owned()));
        let log_file = directory.join(format!("{id}.log"));
        Self { http_port, arguments, environment: Vec::new(), log_file, child: None }
    }

    /// What is in the process's environment beside the test's own.
    pub fn with_environment(mut self, environment: impl IntoIterator<Item = (&'static str, PathBuf)>) -> Self {
        self.environment.extend(environment);
        self
    }

    /// Starts the process (again), with the same arguments.
    pub fn run(&mut self) {
        assert!(self.child.is_none(), "runs already");
        let log = File::options().create(true).append(true).open(&self.log_file).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_sidestream"))
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGTERM; returns the exit code.
    pub fn terminate(&mut self) -> i32 {
        let mut child = self.child.take().unwrap();
        let status = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        assert!(status.success());
        eventually("exit after SIGTERM", Duration::from_secs(30), || child.try_wait().unwrap()).code().unwrap_or(-1)
    }

    /// Waits until the process has ended by itself; returns the exit code.
    pub fn wait_for_exit(&mut self) -> i32 {
        let mut child = self.child.take().unwrap();
        let status = eventually("the process ends", Duration::from_mins(1), || child.try_wait().unwrap());
        status.code().unwrap_or(-1)
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Such as `-STOP` and `-CONT`.
    pub fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// Status and body of a GET.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.http_port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut response = String::new();
        stream.read_to_string(&mut response).ok()?;
        let status = response.split(' ').nth(1)?.parse().ok()?;
        let body = response.split_once("\r\n\r\n")?.1.to_owned();
        Some((status, body))
    }

    pub fn json(&self, path: &str) -> Option<(u16, serde_json::Value)> {
        let (status, body) = self.get(path)?;
        Some((status, serde_json::from_str(&body).ok()?))
    }

    /// Whether `/readyz` is clear: ready, and nothing to tell.
    pub fn is_well(&self) -> bool {
        self.get("/readyz").is_some_and(|(_, body)| body == r#"{"ready":true,"degraded":[]}"#)
    }

    pub fn wait_ready(&mut self) {
        let log_file = self.log_file.clone();
        eventually(&format!("readiness; see {}", log_file.display()), Duration::from_mins(1), || {
            assert!(self.is_running(), "it has ended:\n{}", std::fs::read_to_string(&log_file).unwrap_or_default());
            self.get("/readyz").filter(|(status, _)| *status == 200).map(|_| ())
        });
    }

    /// The sum over all series of a metric, as `/metrics` shows it.
    pub fn metric(&self, name: &str) -> f64 {
        let Some((200, body)) = self.get("/metrics") else { return 0.0 };
        body.lines()
            .filter(|line| line.split(['{', ' ']).next() == Some(name))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log_file).unwrap_or_default()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let readiness = if std::thread::panicking() { self.get("/readyz") } else { None };
        self.kill();
        if std::thread::panicking() {
            eprintln!("---- /readyz: {readiness:?}");
            let text = self.log_text();
            let from = text.len().saturating_sub(6000);
            let from = (from..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            eprintln!("---- {} ----\n{}", self.log_file.display(), &text[from..]);
        }
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// The last value per key, without deleted ones.
pub fn latest(rows: &[Row]) -> BTreeMap<String, serde_json::Value> {
    let mut latest = BTreeMap::new();
    for row in rows {
        let key = row.key.clone().unwrap_or_default();
        match &row.value {
            Some(value) => latest.insert(key, value.clone()),
            None => latest.remove(&key),
        };
    }
    latest
}
