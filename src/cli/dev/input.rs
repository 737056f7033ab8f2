//! Where the records of `dev` come from: the generators of the topology's `dev:` section, and files of JSON lines.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value as Json;

use super::super::output::Failure;
use super::super::record::{Bytes, SourceWriter, source_of};
use super::super::stop::Stop;
use crate::clock::SharedClock;
use crate::ids::{EventTime, Partition, TopicName};
use crate::log::OutgoingRecord;
use crate::log::memory::MemoryLog;
use crate::log::partitioner::partition_of;
use crate::topology::Plan;

/// What all inputs share: the log, how many records went in, and when it is enough.
#[derive(Clone, Debug)]
pub struct Intake {
    log: MemoryLog,
    clock: SharedClock,
    partitions: u32,
    appended: Arc<AtomicU64>,
    /// Stops everything when so many records went in.
    limit: Option<u64>,
    pub stop: Stop,
}

impl Intake {
    pub fn new(log: MemoryLog, clock: SharedClock, partitions: u32, limit: Option<u64>, stop: Stop) -> Self {
        Self { log, clock, partitions, appended: Arc::default(), limit, stop }
    }

    pub fn clock(&self) -> &SharedClock {
        &self.clock
    }

    pub fn appended(&self) -> u64 {
        self.appended.load(Ordering::Relaxed)
    }

    /// Whether as many records went in as were asked for.
    pub fn is_full(&self) -> bool {
        self.limit.is_some_and(|limit| self.appended() >= limit)
    }

    /// Appends a record, and says whether there may be more.
    pub fn append(&self, topic: &TopicName, bytes: &Bytes) -> Result<bool, Failure> {
        let number = self.appended.fetch_add(1, Ordering::Relaxed);
        if self.limit.is_some_and(|limit| number >= limit) {
            self.appended.fetch_sub(1, Ordering::Relaxed);
            return Ok(false);
        }
        let partition = match &bytes.key {
            Some(key) => partition_of(key, self.partitions),
            None => Partition(u32::try_from(number % u64::from(self.partitions.max(1))).unwrap_or(0)),
        };
        let record = OutgoingRecord {
            key: bytes.key.as_deref(),
            value: bytes.value.as_deref(),
            timestamp: EventTime::from_micros(self.clock.wall_micros()),
            headers: &[],
        };
        self.log.append(topic, partition, record).map_err(Failure::new)?;
        Ok(!self.stop.is_stopped())
    }
}

/// `--input NAME=FILE.jsonl`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputFile {
    pub source: String,
    pub path: PathBuf,
}

impl InputFile {
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((source, path)) if !source.is_empty() && !path.is_empty() => {
                Ok(Self { source: source.to_owned(), path: PathBuf::from(path) })
            }
            _ => Err("write NAME=FILE.jsonl, where NAME is a stream or table of the topology".to_owned()),
        }
    }

    /// Opens the file, so that a wrong path is an error before anything starts.
    pub fn open(&self, plan: &Plan) -> Result<FileReader, Failure> {
        let (source, reader) = source_of(plan, &self.source).ok_or_else(|| {
            Failure::new(format!("--input: the topology has no stream or table `{}`", self.source))
                .help(format!("it has {}", source_names(plan).join(", ")))
        })?;
        let unreadable = |error: std::io::Error| {
            Failure::new(format!("cannot read {}: {error}", self.path.display())).help("check the path after --input")
        };
        let file = File::open(&self.path).map_err(unreadable)?;
        let writer = SourceWriter::new(reader)
            .ok_or_else(|| Failure::new(format!("--input: `{}` is not read from a topic of yours", self.source)))?;
        Ok(FileReader { file: self.clone(), topic: source.topic.clone(), writer, lines: BufReader::new(file) })
    }
}

/// The streams and tables that are read from topics.
pub fn source_names(plan: &Plan) -> Vec<&str> {
    let sources = plan.sub_topologies.iter().flat_map(|part| &part.sources);
    let readers = sources.filter(|source| source.repartition.is_none()).flat_map(|source| &source.readers);
    readers.map(|reader| &*reader.name).collect()
}

/// A file of rows, one JSON object per line.
#[derive(Debug)]
pub struct FileReader {
    file: InputFile,
    topic: TopicName,
    writer: SourceWriter,
    lines: BufReader<File>,
}

impl FileReader {
    /// Appends all rows.
    pub fn run(self, intake: &Intake) -> Result<(), Failure> {
        let Self { file, topic, mut writer, lines } = self;
        let at = |line: usize| format!("{}:{}", file.path.display(), line + 1);
        for (number, line) in lines.lines().enumerate() {
            let line = line.map_err(|error| Failure::new(format!("{}: {error}", at(number))))?;
            if line.trim().is_empty() {
                continue;
            }
            let row: Json = serde_json::from_str(&line)
                .map_err(|error| Failure::new(format!("{}: {error}", at(number))).help("one JSON object per line"))?;
            let Json::Object(row) = row else {
                return Err(Failure::new(format!("{}: not a JSON object", at(number))).help("one JSON object per line"));
            };
            let bytes = writer.object(&row, None).map_err(|reason| {
                Failure::new(format!("{}: {reason}", at(number)))
                    .help(format!("rows of `{}` are expected", file.source))
            })?;
            if !intake.append(&topic, &bytes)? {
                break;
            }
        }
        Ok(())
    }
}

/// How many records of a generator are due, so that its rate holds over any time.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Records per second.
    rate: f64,
    started: Duration,
    made: u64,
}

impl Pace {
    pub fn new(rate: f64, started: Duration) -> Self {
        Self { rate, started, made: 0 }
    }

    /// How many records are due at `now` that were not counted before; at most `most`, and what could not be made in
    /// time is made later.
    pub fn due(&mut self, now: Duration, most: u64) -> u64 {
        let elapsed = now.saturating_sub(self.started).as_secs_f64();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates and times are not negative")]
        let should = (elapsed * self.rate) as u64;
        let due = should.saturating_sub(self.made).min(most);
        self.made += due;
        due
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{InputFile, Pace};

    #[test]
    fn a_pace_holds_its_rate_over_uneven_steps() {
        let mut pace = Pace::new(100.0, Duration::from_secs(5));
        let steps = [0, 3, 10, 500, 505, 1000];
        let made: u64 = steps.iter().map(|millis| pace.due(Duration::from_millis(5000 + millis), u64::MAX)).sum();
        assert_eq!(made, 100);
        assert_eq!(pace.due(Duration::from_millis(6000), u64::MAX), 0);
    }

    #[test]
    fn what_is_too_much_for_one_step_is_made_later() {
        let mut pace = Pace::new(1000.0, Duration::ZERO);
        assert_eq!([pace.due(Duration::from_secs(1), 600), pace.due(Duration::from_secs(1), 600)], [600, 400]);
    }

    #[test]
    fn an_input_names_a_source_and_a_file() {
        let input = InputFile::parse("transactions=a=b.jsonl").unwrap();
        assert_eq!((&*input.source, input.path.to_str()), ("transactions", Some("a=b.jsonl")));
        assert!(InputFile::parse("transactions").is_err());
        assert!(InputFile::parse("=x").is_err());
    }
}
