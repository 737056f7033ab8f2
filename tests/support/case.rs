//! A keyed aggregate, an `over` step and a repartitioned windowed count on a real Kafka, and a model of what must come
//! out of them whatever happens on the way.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use sidestream::ids::Partition;
use sidestream::log::Cleanup;
use sidestream::log::partitioner::partition_of;

use super::cluster::{Feeder, Instance, Kafka, Row, latest};
use super::eventually;

const PARTITIONS: u32 = 4;
const USERS: u64 = 200;
const ITEMS: u64 = 20;
const WINDOW_MS: i64 = 10_000;
const START_MS: i64 = 1_767_225_600_000;
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The topics of one run, and what should be in them.
pub struct Case {
    pub kafka: Kafka,
    pub name: String,
    pub directory: tempfile::TempDir,
    pub topology: PathBuf,
    pub feeder: Feeder,
    pub random: fastrand::Rng,
    /// Per partition: the event time of its last record. Grows, so that nothing is late.
    pub clocks: Vec<i64>,
    pub model: Model,
}

#[derive(Default)]
pub struct Model {
    pub records: u64,
    /// user -> count, sum
    pub totals: BTreeMap<String, (u64, i64)>,
    /// user -> the values in order
    pub values: BTreeMap<String, Vec<i64>>,
    /// (item, window start) -> count
    pub windows: BTreeMap<(String, i64), u64>,
}

impl Case {
    pub fn new(brokers: String, name: &str) -> Self {
        let kafka = Kafka::new(brokers);
        let name = format!("{name}_{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
        kafka.create(&format!("{name}.events"), PARTITIONS, Cleanup::Delete);
        for output in ["totals", "recent", "windows"] {
            kafka.create(&format!("{name}.{output}"), PARTITIONS, Cleanup::Delete);
        }
        let directory = tempfile::tempdir().unwrap();
        let topology = directory.path().join("topology.yaml");
        std::fs::write(&topology, topology_text(&name)).unwrap();
        let feeder = Feeder::new(&kafka, &format!("{name}.events"), PARTITIONS);
        let seed =
            std::env::var("SIDESTREAM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(fastrand::u64(..));
        eprintln!("{name}: SIDESTREAM_SEED={seed}");
        Self {
            kafka,
            name,
            directory,
            topology,
            feeder,
            random: fastrand::Rng::with_seed(seed),
            clocks: vec![START_MS; PARTITIONS as usize],
            model: Model::default(),
        }
    }

    pub fn start(&self, id: &str) -> Instance {
        Instance::start(&self.kafka, &self.topology, self.directory.path(), &format!("{}-{id}", self.name), &[])
    }

    /// Writes records and takes them into the model.
    pub fn feed(&mut self, count: usize) {
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
            model.values.entry(user).or_default().push(value);
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
        self.clocks.fill(furthest);
    }

    pub fn read(&self, output: &str) -> Vec<Row> {
        self.kafka.read_all(&format!("{}.{output}", self.name))
    }

    /// Waits until everything has come out, and compares.
    pub fn check(&self) {
        let model = &self.model;
        eventually("one `recent` row per input record", PATIENCE, || {
            let rows = of_users(self.read("recent"));
            assert!(rows.len() as u64 <= model.records, "{} rows for {} records", rows.len(), model.records);
            (rows.len() as u64 == model.records).then_some(())
        });
        eventually("one final row per window", PATIENCE, || {
            let rows = self.read("windows");
            assert!(rows.len() <= model.windows.len(), "{} rows for {} windows", rows.len(), model.windows.len());
            (rows.len() == model.windows.len()).then_some(())
        });
        eventually("the totals", PATIENCE, || {
            let counted: u64 =
                of_users_latest(&self.read("totals")).values().map(|row| row["n"].as_u64().unwrap()).sum();
            (counted == model.records).then_some(())
        });
        self.check_totals();
        self.check_recent();
        self.check_windows();
    }

    fn check_totals(&self) {
        let rows = self.read("totals");
        let last = of_users_latest(&rows);
        assert_eq!(last.len(), self.model.totals.len());
        for (user, (count, sum)) in &self.model.totals {
            assert_eq!(last[user], json!({"user": user, "n": count, "total": sum}), "{user}");
        }
        // `changes`: a strictly growing subsequence of the running result.
        let mut before: BTreeMap<String, u64> = BTreeMap::new();
        for row in rows {
            let (user, value) = (row.key.unwrap(), row.value.unwrap());
            let n = value["n"].as_u64().unwrap();
            let previous = before.insert(user.clone(), n).unwrap_or(0);
            assert!(n > previous, "{user}: {n} after {previous}");
            if let Some(values) = self.model.values.get(&user) {
                let running: i64 = values[..n as usize].iter().sum();
                assert_eq!(value["total"], json!(running), "{user} after {n} records");
            }
        }
    }

    /// Per user: the count and sum over the last three records, for each record.
    fn check_recent(&self) {
        let mut by_user: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for row in of_users(self.read("recent")) {
            by_user.entry(row.key.unwrap()).or_default().push(row.value.unwrap());
        }
        for (user, values) in &self.model.values {
            let expected: Vec<Value> = (0..values.len())
                .map(|at| {
                    let last = &values[at.saturating_sub(2)..=at];
                    json!({"user": user, "value": values[at], "n3": last.len(), "sum3": last.iter().sum::<i64>()})
                })
                .collect();
            assert_eq!(by_user.get(user).map_or(&[][..], |rows| rows), expected, "{user}");
        }
    }

    fn check_windows(&self) {
        let mut seen: BTreeMap<(String, i64), u64> = BTreeMap::new();
        for row in self.read("windows") {
            let value = row.value.unwrap();
            let start = parse_time(value["window_start"].as_str().unwrap());
            let before = seen.insert((value["item"].as_str().unwrap().to_owned(), start), value["n"].as_u64().unwrap());
            assert_eq!(before, None, "a window was emitted twice: {value}");
        }
        assert_eq!(seen, self.model.windows);
    }
}

fn of_users(rows: Vec<Row>) -> Vec<Row> {
    rows.into_iter().filter(|row| row.key.as_ref().is_some_and(|key| key.starts_with("user-"))).collect()
}

fn of_users_latest(rows: &[Row]) -> BTreeMap<String, Value> {
    let mut last = latest(rows);
    last.retain(|key, _| key.starts_with("user-"));
    last
}

fn parse_time(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().unwrap().as_millisecond()
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
