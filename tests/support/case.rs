//! A keyed aggregate, an `over` step and a repartitioned windowed count on a real Kafka, and a model of what must come
//! out of them whatever happens on the way.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sidestream::ids::Partition;
use sidestream::log::Cleanup;
use sidestream::log::partitioner::partition_of;

use super::cluster::{Feeder, Instance, Kafka, Row};
use super::reader::TopicReader;
use super::watchdog::Watchdog;

pub const PARTITIONS: u32 = 4;
const USERS: u64 = 200;
const ITEMS: u64 = 20;
const WINDOW_MS: i64 = 10_000;
const START_MS: i64 = 1_767_225_600_000;
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The topics of one run, and what should be in them.
pub struct Case {
    pub kafka: Kafka,
    /// Where instances find Kafka.
    pub entrance: String,
    pub name: String,
    pub directory: tempfile::TempDir,
    pub topology: PathBuf,
    pub feeder: Feeder,
    pub random: fastrand::Rng,
    /// Per partition: the event time of its last record. Grows, so that nothing is late.
    pub clocks: Vec<i64>,
    pub model: Model,
    readers: [(Output, TopicReader); 3],
    watchdog: Watchdog,
}

#[derive(Clone, Copy, Debug)]
enum Output {
    Totals,
    Recent,
    Windows,
}

/// What must come out, less what has come out and was right: it stays small however long a run is.
#[derive(Default)]
pub struct Model {
    pub records: u64,
    /// user -> count, sum
    pub totals: BTreeMap<String, (u64, i64)>,
    users: BTreeMap<String, User>,
    /// (item, window start) -> count; those that have not come out.
    windows: BTreeMap<(String, i64), u64>,
}

/// One user's input, from the record on that an output has yet to speak of.
#[derive(Default)]
struct User {
    /// How many records came before `values`, and their sum.
    before: (u64, i64),
    values: VecDeque<i64>,
    /// The last count that `totals` told: it tells some of them.
    counted: u64,
    /// The rows of `recent`: one per record.
    recent: u64,
}

impl Case {
    pub fn new(brokers: String, name: &str) -> Self {
        Self::with_topics(brokers, name, &[])
    }

    /// With settings of the input and output topics.
    pub fn with_topics(brokers: String, name: &str, config: &[(&str, &str)]) -> Self {
        let kafka = Kafka::new(brokers.clone());
        let name = format!("{name}_{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
        for topic in ["events", "totals", "recent", "windows"] {
            kafka.create_with(&format!("{name}.{topic}"), PARTITIONS, Cleanup::Delete, config);
        }
        let mut directory = tempfile::tempdir().unwrap();
        directory.disable_cleanup(std::env::var_os("SIDESTREAM_TEST_KEEP").is_some());
        let topology = directory.path().join("topology.yaml");
        std::fs::write(&topology, topology_text(&name)).unwrap();
        let feeder = Feeder::new(&kafka, &format!("{name}.events"), PARTITIONS);
        let seed =
            std::env::var("SIDESTREAM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(fastrand::u64(..));
        eprintln!("{name}: SIDESTREAM_SEED={seed} {}", directory.path().display());
        let reader = |output: &str| TopicReader::new(&kafka, &format!("{name}.{output}"), PARTITIONS);
        let readers = [
            (Output::Totals, reader("totals")),
            (Output::Recent, reader("recent")),
            (Output::Windows, reader("windows")),
        ];
        let watchdog = Watchdog::start(&kafka, &name, &format!("{name}.events"), PARTITIONS);
        Self {
            kafka,
            entrance: brokers,
            name,
            directory,
            topology,
            feeder,
            random: fastrand::Rng::with_seed(seed),
            clocks: vec![START_MS; PARTITIONS as usize],
            model: Model::default(),
            readers,
            watchdog,
        }
    }

    pub fn start(&self, id: &str) -> Instance {
        self.start_with(id, &[])
    }

    /// With further arguments of `sidestream run`.
    pub fn start_with(&self, id: &str, more: &[&str]) -> Instance {
        let mut instance = self.instance(id, more);
        instance.run();
        instance
    }

    /// One that has not been started.
    pub fn instance(&self, id: &str, more: &[&str]) -> Instance {
        let id = format!("{}-{id}", self.name);
        Instance::new(&self.entrance, &self.topology, self.directory.path(), &id, more)
    }

    pub fn state_directory(&self, id: &str) -> PathBuf {
        self.directory.path().join(format!("state-{}-{id}", self.name))
    }

    /// Writes records and takes them into the model.
    pub fn feed(&mut self, count: usize) {
        self.watchdog.check();
        for _ in 0..count {
            let user = format!("user-{}", self.random.u64(..USERS));
            let item = format!("item-{}", self.random.u64(..ITEMS));
            let value = self.random.i64(-1000..1000);
            let clock = &mut self.clocks[partition_of(user.as_bytes(), PARTITIONS).0 as usize];
            *clock += self.random.i64(0..8);
            let at = *clock;
            let text = json!({"item": item, "value": value, "at": at}).to_string();
            self.feeder.send(&user, &text, at);
            let model = &mut self.model;
            model.records += 1;
            let total = model.totals.entry(user.clone()).or_default();
            *total = (total.0 + 1, total.1 + value);
            model.users.entry(user).or_default().values.push_back(value);
            *model.windows.entry((item, at - at.rem_euclid(WINDOW_MS))).or_default() += 1;
        }
        self.feeder.flush();
    }

    /// Moves event time on in every partition, so that all windows of the model close.
    pub fn close_windows(&mut self) {
        let end = self.clocks.iter().copied().max().unwrap() + 10 * WINDOW_MS;
        for partition in 0..PARTITIONS {
            let text = json!({"item": Value::Null, "value": 0, "at": end}).to_string();
            self.feeder.send_to(Partition(partition), &format!("closer-{partition}"), &text, end);
        }
        self.feeder.flush();
    }

    /// Later records come after the windows that have been closed.
    pub fn move_on(&mut self) {
        let furthest = self.clocks.iter().copied().max().unwrap() + 20 * WINDOW_MS;
        self.move_on_to(furthest);
    }

    /// Later records come after this time, in milliseconds.
    pub fn move_on_to(&mut self, time: i64) {
        self.clocks.fill(time);
    }

    /// Waits until everything has come out, and compares each row with the model.
    #[expect(clippy::disallowed_methods, reason = "a test polls with a deadline")]
    pub fn check(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.look();
            let missing = self.missing();
            if missing.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {}", missing.join(", "));
        }
    }

    /// Compares what has come out by now.
    pub fn look(&mut self) {
        self.watchdog.check();
        for (output, reader) in &mut self.readers {
            for row in reader.read() {
                self.model.take(*output, &row);
            }
        }
    }

    /// Who or what has not come out in full.
    fn missing(&self) -> Vec<String> {
        self.readers.iter().flat_map(|(output, _)| self.model.missing(*output)).collect()
    }
}

impl Model {
    fn take(&mut self, output: Output, row: &Row) {
        let key = row.key.as_deref().unwrap();
        let value = row.value.as_ref().unwrap();
        match output {
            Output::Windows => self.take_window(value),
            Output::Totals | Output::Recent if !key.starts_with("user-") => {}
            Output::Totals => {
                let user = self.users.get_mut(key).unwrap();
                // `changes`: a strictly growing subsequence of the running result.
                let n = value["n"].as_u64().unwrap();
                assert!(n > user.counted, "{key}: {n} after {}", user.counted);
                assert!(n <= user.fed(), "{key}: {n} of {} records", user.fed());
                let expected = json!({"user": key, "n": n, "total": user.sum(n)});
                assert_eq!(*value, expected, "{key}: these are not its first {n} records");
                user.counted = n;
                user.forget();
            }
            Output::Recent => {
                let user = self.users.get_mut(key).unwrap();
                // The count and sum over the last three records, for each record.
                let at = user.recent + 1;
                assert!(at <= user.fed(), "{key}: row {at} of `recent` for {} records: {value}", user.fed());
                let (from, last) = (at.saturating_sub(3), user.sum(at) - user.sum(at - 1));
                let sum = user.sum(at) - user.sum(from);
                assert_eq!(*value, json!({"user": key, "value": last, "n3": at - from, "sum3": sum}), "{key}");
                user.recent = at;
                user.forget();
            }
        }
    }

    fn take_window(&mut self, value: &Value) {
        let start = value["window_start"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond();
        let expected = self.windows.remove(&(value["item"].as_str().unwrap().to_owned(), start));
        assert_eq!(expected, value["n"].as_u64(), "a window was emitted twice, or too early: {value}");
    }

    fn missing(&self, output: Output) -> Vec<String> {
        let users = |came: fn(&User) -> u64| {
            let missing = self.users.iter().filter(move |(_, user)| came(user) < user.fed());
            missing.map(move |(name, user)| format!("{output:?} of {name}: {} of {}", came(user), user.fed())).collect()
        };
        match output {
            Output::Totals => users(|user| user.counted),
            Output::Recent => users(|user| user.recent),
            Output::Windows => self.windows.keys().map(|window| format!("{output:?} of {window:?}")).collect(),
        }
    }
}

impl User {
    fn fed(&self) -> u64 {
        self.before.0 + self.values.len() as u64
    }

    /// Of the first `count` values.
    fn sum(&self, count: u64) -> i64 {
        let known = (count - self.before.0) as usize;
        self.before.1 + self.values.iter().take(known).sum::<i64>()
    }

    /// Drops the values that nothing that is still to come depends on.
    fn forget(&mut self) {
        while self.before.0 < self.counted.min(self.recent.saturating_sub(3)) {
            self.before = (self.before.0 + 1, self.before.1 + self.values.pop_front().unwrap());
        }
    }
}

fn topology_text(name: &str) -> String {
    format!(
        r"
version: 1
name: {name}
streams:
  events:
    topic: {name}.events
    key: {{name: user, type: STRING}}
    format: json
    columns: {{item: STRING, value: BIGINT NOT NULL, at: TIMESTAMP NOT NULL}}
    timestamp: at
steps:
  totals:
    from: events
    group_by: user
    aggregate: {{n: COUNT(*), total: SUM(value)}}
    ttl: none
    to: {name}.totals
  recent:
    from: events
    over:
      by: user
      rows: 3
      aggregate: {{n3: COUNT(*), sum3: SUM(value)}}
    ttl: none
    select: user, value, n3, sum3
    to: {name}.recent
  windows:
    from: events
    where: item IS NOT NULL
    window: {{type: tumbling, size: 10s}}
    group_by: item
    aggregate: {{n: COUNT(*)}}
    emit: final
    to: {name}.windows
"
    )
}

/// Lets the instances work for a random while: the moment of a kill is the test's input, not something waited for.
#[expect(clippy::disallowed_methods, reason = "a random moment is wanted")]
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}
