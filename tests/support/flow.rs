//! A topology over the embedded log, one turn at a time, on a clock that moves when it is told.
#![allow(dead_code, clippy::unwrap_used, clippy::panic, reason = "each test binary uses a part of it")]

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use sidestream::clock::ManualClock;
use sidestream::ids::{EventTime, TopicName};
use sidestream::log::memory::MemoryLog;
use sidestream::log::partitioner::partition_of;
use sidestream::log::{Cleanup, Log, NewTopic, OutgoingRecord};
use sidestream::metric::{Metric, Sample, SampleValue};
use sidestream::runtime::topics::TopicSettings;
use sidestream::runtime::view::{Condition, Phase};
use sidestream::runtime::{Instance, InstanceSettings, Lifetime, View};
use sidestream::store::budget::{MemoryBudget, StateOnDisk};
use sidestream::store::memory::Memory;
use sidestream::task::facts;
use sidestream::topology;

pub const START: i64 = 1_767_225_600_000;
const PARTITIONS: u32 = 2;

pub struct Flow {
    clock: Arc<ManualClock>,
    pub log: MemoryLog,
    instance: Instance,
}

impl Flow {
    pub fn new(yaml: &str) -> Self {
        Self::with_budget(yaml, MemoryBudget::split(256 << 20, 1, StateOnDisk::None).unwrap())
    }

    pub fn with_budget(yaml: &str, budget: MemoryBudget) -> Self {
        let loaded = match topology::load_text("topology.yaml", yaml, None, &|_| None) {
            Ok(loaded) => loaded,
            Err(diagnostics) => panic!("{diagnostics:?}"),
        };
        let plan = Arc::new(loaded.plan);
        let clock = ManualClock::at(START * 1000);
        let log = MemoryLog::new(clock.clone());
        for topic in facts::source_topics(&plan).into_iter().chain(facts::output_topics(&plan)) {
            if plan.internal_topics.iter().any(|internal| internal.name == topic) {
                continue;
            }
            let _exists = log.create_topic(&NewTopic {
                name: topic,
                partitions: PARTITIONS,
                replication: None,
                cleanup: Cleanup::Delete,
                config: vec![],
            });
        }
        let view = View::new(plan.clone(), clock.clone());
        let instance = Instance::new(InstanceSettings {
            plan,
            log: log.shared(),
            backend: Arc::new(Memory::new()),
            directory: None,
            clock: clock.clone(),
            view,
            instance_id: "test".to_owned(),
            membership: Lifetime::Dynamic,
            endpoint: String::new(),
            workers: 1,
            budget,
            commit_interval: Duration::from_millis(100),
            sync_max_wait: None,
            topics: TopicSettings::default(),
            on_stop: sidestream::log::Leave::Now,
            shutdown_timeout: Duration::from_secs(5),
        });
        let mut flow = Self { clock, log, instance };
        flow.settle();
        assert_eq!(flow.instance.view().phase(), Phase::Running, "{:?}", flow.instance.view().readiness());
        flow
    }

    /// Turns until nothing more happens for two seconds of the clock.
    pub fn settle(&mut self) {
        let mut quiet = 0;
        for _ in 0..100_000 {
            if self.instance.turn().unwrap() {
                quiet = 0;
                continue;
            }
            self.clock.advance(Duration::from_millis(20));
            quiet += 1;
            if quiet > 100 {
                return;
            }
        }
        panic!("it never comes to rest: {:?}", self.instance.view().readiness());
    }

    /// Turns for that long on the clock.
    pub fn wait(&mut self, millis: u64) {
        for _ in 0..millis / 20 {
            self.instance.turn().unwrap();
            self.clock.advance(Duration::from_millis(20));
        }
    }

    /// Sets the wall clock forward or back; no time passes.
    pub fn jump_wall(&self, hours: i64) {
        self.clock.jump_wall(hours * 3_600_000_000);
    }

    /// A counter's value, all labels together.
    pub fn count(&self, metric: &Metric) -> u64 {
        let samples = self.instance.view().counters.samples();
        let count = |sample: &Sample| match sample.value {
            SampleValue::Counter(count) if sample.metric.name == metric.name => count,
            _ => 0,
        };
        samples.iter().map(count).sum()
    }

    pub fn stop(&mut self) {
        self.instance.stop();
    }

    pub fn holds(&self, condition: Condition) -> bool {
        self.instance.view().holds(condition)
    }

    pub fn send(&self, topic: &str, key: &str, value: Value) {
        self.send_raw(topic, Some(key.as_bytes()), Some(value.to_string().as_bytes()));
    }

    pub fn send_raw(&self, topic: &str, key: Option<&[u8]>, value: Option<&[u8]>) {
        let partition = partition_of(key.unwrap_or_default(), PARTITIONS);
        let record = OutgoingRecord { key, value, timestamp: EventTime(START), headers: &[] };
        self.log.append(&TopicName::from(topic), partition, record).unwrap();
    }

    pub fn advance(&mut self, to: i64) {
        for worker in self.instance.workers() {
            worker.advance_event_time(EventTime(to)).unwrap();
        }
        self.settle();
    }

    /// Key and value of all records of a topic.
    pub fn read(&self, topic: &str) -> Vec<(String, Value)> {
        let records = self.log.topic_records(&TopicName::from(topic)).unwrap();
        records
            .into_iter()
            .map(|(_, record)| {
                let key = String::from_utf8_lossy(record.key().unwrap_or_default()).into_owned();
                let value = record.value().map_or(Value::Null, |value| serde_json::from_slice(value).unwrap());
                (key, value)
            })
            .collect()
    }
}

pub const EVENTS: &str = r"
version: 1
name: app
streams:
  events:
    topic: events
    key: {name: user, type: STRING}
    format: json
    columns: {item: STRING, value: BIGINT, at: TIMESTAMP}
    timestamp: at
";

pub fn events(steps: &str) -> Flow {
    Flow::new(&format!("{EVENTS}{steps}"))
}
