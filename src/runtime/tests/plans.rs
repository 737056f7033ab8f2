//! Small plans and a small world for the runtime's tests.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::ManualClock;
use crate::expression::PseudoColumns;
use crate::format::Format;
use crate::ids::{Partition, StoreId, SubTopologyId, TopicName, TopicPartition};
use crate::log::memory::MemoryLog;
use crate::log::{Cleanup, Leave, Log, NewTopic};
use crate::runtime::topics::TopicSettings;
use crate::runtime::view::View;
use crate::runtime::{Instance, InstanceSettings, Lifetime};
use crate::schema::{Column, Schema, Type};
use crate::store::SharedBackend;
use crate::store::budget::{MemoryBudget, StateOnDisk};
use crate::store::memory::Memory;
use crate::topology::Plan;
use crate::topology::plan::{
    BackendKind, ChangelogPlan, Encoding, Fingerprint, Guarantee, InternalTopic, InternalTopicKind, OnError, Reader,
    ReaderKind, SourcePlan, Start, StoreKind, StorePlan, SubTopology, WatermarkPlan,
};

pub const NOW_MICROS: i64 = 1_760_000_000_000_000;

/// A source of JSON records with a STRING key and one STRING column.
pub fn source(topic: &str, kind: ReaderKind) -> SourcePlan {
    SourcePlan {
        topic: topic.into(),
        readers: vec![Reader {
            name: topic.into(),
            encoding: Encoding::Declared { key: Format::String, value: Format::Json },
            schema: Schema::new([Column::new("id", Type::String, true), Column::new("name", Type::String, true)]),
            visible: 2,
            key: vec![0],
            used: vec![true, true],
            pseudo: PseudoColumns::default(),
            timestamp: None,
            watermark: WatermarkPlan { delay: Duration::ZERO, idle_timeout: Duration::from_secs(30), max_ahead: None },
            on_error: OnError::DeadLetter,
            kind,
            next: Vec::new(),
        }],
        start: Start::Earliest,
        bootstrap: false,
        repartition: None,
    }
}

/// A stream over `events` that goes nowhere, and a table over `accounts` in a sub-topology of its own.
pub fn plan() -> Plan {
    plan_over(&["events"])
}

/// As [`plan`], with other streams.
pub fn plan_over(streams: &[&str]) -> Plan {
    let mut sub_topologies = vec![SubTopology {
        id: SubTopologyId(0),
        name: "accounts".into(),
        sources: vec![source("accounts", ReaderKind::Table { store: StoreId(0) })],
        nodes: Vec::new(),
        stores: vec![StoreId(0)],
        stateful: true,
    }];
    for (index, stream) in streams.iter().enumerate() {
        sub_topologies.push(SubTopology {
            id: SubTopologyId(u32::try_from(index + 1).unwrap()),
            name: (*stream).into(),
            sources: vec![source(stream, ReaderKind::Stream)],
            nodes: Vec::new(),
            stores: Vec::new(),
            stateful: false,
        });
    }
    Plan {
        name: "app".into(),
        description: None,
        guarantee: Guarantee::ExactlyOnce,
        sub_topologies,
        stores: vec![StorePlan {
            id: StoreId(0),
            name: "accounts".into(),
            kind: StoreKind::KeyValue,
            key: Schema::new([Column::new("id", Type::String, true)]),
            value: Schema::new([Column::new("name", Type::String, true)]),
            backend: BackendKind::Memory,
            changelog: ChangelogPlan::SourceIfCompacted {
                source: "accounts".into(),
                own: "app-accounts-changelog".into(),
            },
            sub_topology: SubTopologyId(0),
        }],
        tables: Vec::new(),
        internal_topics: vec![
            InternalTopic {
                name: "app-accounts-changelog".into(),
                kind: InternalTopicKind::Changelog,
                partitions: None,
                partitions_like: Some(SubTopologyId(0)),
            },
            InternalTopic {
                name: "app.dead-letters".into(),
                kind: InternalTopicKind::DeadLetters,
                partitions: Some(1),
                partitions_like: None,
            },
        ],
        dead_letters: "app.dead-letters".into(),
        fingerprint: Fingerprint::default(),
    }
}

/// Events by a column of theirs, aggregated by the step `totals`.
pub fn totals(aggregate: &str, group_by: &str) -> Plan {
    let text = format!(
        "version: 1\nname: app\nstreams:\n  events: {{topic: events, key: {{name: id, type: STRING}}, columns: {{amount: \
         DOUBLE, city: STRING}}}}\nsteps:\n  totals: {{from: events, group_by: {group_by}, aggregate: {{{aggregate}}}, ttl: \
         none}}\n"
    );
    crate::topology::load_text("app.yaml", &text, None, &|_| None).unwrap().plan
}

/// A log with a clock that is moved by hand.
pub struct World {
    pub clock: Arc<ManualClock>,
    pub log: MemoryLog,
}

impl World {
    /// `events` and `accounts` exist, with four partitions; `accounts` is not compacted.
    pub fn new() -> Self {
        let world = Self::empty();
        world.create("events", 4, Cleanup::Delete);
        world.create("accounts", 4, Cleanup::Delete);
        world
    }

    pub fn empty() -> Self {
        let clock = ManualClock::at(NOW_MICROS);
        let log = MemoryLog::with_cluster_id(clock.clone(), "cluster");
        Self { clock, log }
    }

    pub fn create(&self, name: &str, partitions: u32, cleanup: Cleanup) {
        self.create_with(name, partitions, cleanup, &[]);
    }

    pub fn create_with(&self, name: &str, partitions: u32, cleanup: Cleanup, config: &[(&str, &str)]) {
        let config = config.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        self.log.create_topic(&NewTopic { name: name.into(), partitions, replication: None, cleanup, config }).unwrap();
    }

    pub fn partitions_of(&self, name: &str) -> Option<u32> {
        let described = self.log.describe_topics(&[TopicName::new(name)]).unwrap();
        described[0].as_ref().map(|topic| topic.partitions)
    }

    /// An instance with a client of its own.
    pub fn instance(&self, name: &str) -> (Instance, MemoryLog) {
        self.instance_with(name, plan(), Arc::new(Memory::new()), Lifetime::Dynamic)
    }

    pub fn instance_with(
        &self,
        name: &str,
        plan: Plan,
        backend: SharedBackend,
        membership: Lifetime,
    ) -> (Instance, MemoryLog) {
        let client = self.log.client(name);
        let settings = self.settings(name, plan, backend, membership, &client);
        (Instance::new(settings), client)
    }

    pub fn settings(
        &self,
        name: &str,
        plan: Plan,
        backend: SharedBackend,
        membership: Lifetime,
        client: &MemoryLog,
    ) -> InstanceSettings {
        let plan = Arc::new(plan);
        InstanceSettings {
            view: View::new(Arc::clone(&plan), self.clock.clone()),
            plan,
            log: client.shared(),
            backend,
            directory: None,
            clock: self.clock.clone(),
            instance_id: name.to_string(),
            membership,
            endpoint: format!("{name}:8088"),
            workers: 2,
            budget: MemoryBudget::split(256 << 20, 2, StateOnDisk::None).unwrap(),
            commit_interval: Duration::from_millis(100),
            sync_max_wait: Some(Duration::from_millis(100)),
            topics: TopicSettings::default(),
            on_stop: Leave::Now,
            shutdown_timeout: Duration::from_secs(5),
        }
    }

    /// Turns the instances, ten milliseconds at a time, until the condition holds.
    pub fn turn_until(&self, instances: &mut [&mut Instance], mut holds: impl FnMut(&[&mut Instance]) -> bool) {
        for _ in 0..6_000 {
            if holds(instances) {
                return;
            }
            for instance in instances.iter_mut() {
                instance.turn().unwrap();
            }
            self.clock.advance(Duration::from_millis(10));
        }
        let states: Vec<String> = instances.iter().map(|instance| describe(instance)).collect();
        panic!("it did not come to that within a minute: {states:#?}");
    }
}

pub fn describe(instance: &Instance) -> String {
    format!("{:?} {:?}", instance.view().readiness(), instance.view().tasks())
}

pub fn at(topic: &str, partition: u32) -> TopicPartition {
    TopicPartition::new(topic, Partition(partition))
}
