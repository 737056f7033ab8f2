//! One run of one test: an embedded log, instances that are turned by hand, a clock that moves only when told.
//!
//! How time passes: nothing happens by itself. Records are processed while the clock stands still, so that all of a
//! `given` entry is in one commit; then the clock is moved on until everything is committed, also behind repartition
//! topics. Idle partitions never count as idle here; `advance` says when event time moves on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::super::output::Failure;
use super::super::scratch::Scratch;
use super::given::GivenRecord;
use crate::clock::ManualClock;
use crate::ids::{EventTime, Partition, TopicName};
use crate::log::memory::MemoryLog;
use crate::log::memory::faults::{Fault as LogFault, Step};
use crate::log::partitioner::partition_of;
use crate::log::{Cleanup, Leave, Log as _, NewTopic, OutgoingRecord, Record};
use crate::metric::{self, SampleValue};
use crate::runtime::instance::{Instance, InstanceSettings, Lifetime};
use crate::runtime::topics::TopicSettings;
use crate::runtime::view::{FoundRow, Phase, ScanRequest, TaskState};
use crate::runtime::{View, state};
use crate::store::budget::{MemoryBudget, StateOnDisk};
use crate::task::facts::{output_topics, source_topics};
use crate::topology::Plan;
use crate::topology::document::Fault;
use crate::topology::plan::{ReaderKind, SubTopology, TablePlan};

/// What the clock moves by while everything is waited for.
const STEP: Duration = Duration::from_millis(100);
/// So many steps without anything to do mean that all is done: watermark records are sent at most once per second.
const QUIET_STEPS: u32 = 25;
/// A test that is not done after so many steps never will be.
const MOST_STEPS: u32 = 20_000;
const MEMORY_BYTES: u64 = 64 << 20;
/// Where tests begin: 2026-01-01T00:00:00Z, in microseconds.
const START_MICROS: i64 = 1_767_225_600_000_000;

/// See the module.
#[derive(Debug)]
pub struct Session {
    plan: Arc<Plan>,
    log: MemoryLog,
    clock: Arc<ManualClock>,
    partitions: u32,
    processes: Vec<Process>,
    fault: Option<Fault>,
    /// The highest event time that was seen or advanced to.
    reached: EventTime,
    /// Record timestamps where a test gives none.
    now: EventTime,
    next_partition: u32,
}

/// One instance with its own state directory.
#[derive(Debug)]
struct Process {
    name: &'static str,
    client: MemoryLog,
    instance: Instance,
    view: Arc<View>,
    directory: Arc<Scratch>,
}

impl Session {
    /// A fresh log with all topics, and one instance on it.
    pub fn start(plan: &Plan, partitions: u32, fault: Option<Fault>) -> Result<Self, Failure> {
        let mut plan = plan.clone();
        for reader in plan.sub_topologies.iter_mut().flat_map(|part| &mut part.sources).flat_map(|it| &mut it.readers) {
            reader.watermark.idle_timeout = Duration::MAX;
        }
        let clock = ManualClock::at(START_MICROS);
        let log = MemoryLog::with_cluster_id(clock.clone(), "test");
        let now = EventTime::from_micros(START_MICROS);
        let mut session = Self {
            plan: Arc::new(plan),
            log,
            clock,
            partitions,
            processes: Vec::new(),
            fault,
            reached: EventTime::MIN,
            now,
            next_partition: 0,
        };
        session.create_topics()?;
        if fault.is_some() {
            // One record at a time, so that the fault strikes where the test says.
            session.log.set_faults(Some(Box::new(|point| match point.step {
                Step::Fetch { .. } => LogFault::Short(1),
                _ => LogFault::None,
            })));
        }
        session.open("test-0", Arc::new(Scratch::new("test")?))?;
        session.settle()?;
        Ok(session)
    }

    fn create_topics(&self) -> Result<(), Failure> {
        let tables = table_topics(&self.plan);
        let internal: BTreeSet<TopicName> = self.plan.internal_topics.iter().map(|topic| topic.name.clone()).collect();
        let topics: BTreeSet<TopicName> =
            source_topics(&self.plan).into_iter().chain(output_topics(&self.plan)).collect();
        for name in topics.difference(&internal) {
            let cleanup = if tables.contains(name) { Cleanup::Compact } else { Cleanup::Delete };
            let topic = NewTopic {
                name: name.clone(),
                partitions: self.partitions,
                replication: None,
                cleanup,
                config: Vec::new(),
            };
            self.log.create_topic(&topic).map_err(Failure::new)?;
        }
        Ok(())
    }

    /// Starts a process on a state directory.
    fn open(&mut self, name: &'static str, directory: Arc<Scratch>) -> Result<(), Failure> {
        let budget = MemoryBudget::split(MEMORY_BYTES, 1, StateOnDisk::RocksDb).map_err(Failure::new)?;
        let state = state::open(directory.path(), &self.plan, budget.rocksdb).map_err(Failure::new)?;
        let view = View::new(self.plan.clone(), self.clock.clone());
        let client = self.log.client(name);
        let instance = Instance::new(InstanceSettings {
            plan: self.plan.clone(),
            log: client.shared(),
            backend: state.backend,
            directory: Some(state.directory),
            clock: self.clock.clone(),
            view: view.clone(),
            instance_id: name.to_owned(),
            // A process that comes back with its id takes its place again at once.
            membership: Lifetime::Static,
            endpoint: String::new(),
            workers: 1,
            budget,
            commit_interval: STEP,
            // Inputs are merged in time order however they arrive.
            sync_max_wait: None,
            topics: TopicSettings { replication: None, create_outputs: false },
            on_stop: Leave::Now,
            shutdown_timeout: Duration::from_secs(10),
        });
        self.processes.push(Process { name, client, instance, view, directory });
        Ok(())
    }

    // ---- what tests ask for ----------------------------------------------------------------------------------------

    /// Record timestamps where a test gives none.
    pub fn now(&self) -> EventTime {
        self.now
    }

    /// Appends the records, processes them, and commits.
    pub fn give(&mut self, records: &[GivenRecord]) -> Result<(), Failure> {
        for record in records {
            let partition = match (record.partition, &record.bytes.key) {
                (Some(partition), _) if partition < self.partitions => Partition(partition),
                (Some(partition), _) => {
                    let partitions = self.partitions;
                    let message = format!("there is no partition {partition}; topics have {partitions}");
                    return Err(Failure::new(message).help("`partitions:` of the test says how many there are"));
                }
                (None, Some(key)) => partition_of(key, self.partitions),
                (None, None) => {
                    self.next_partition = (self.next_partition + 1) % self.partitions;
                    Partition(self.next_partition)
                }
            };
            let outgoing = OutgoingRecord {
                key: record.bytes.key.as_deref(),
                value: record.bytes.value.as_deref(),
                timestamp: record.timestamp,
                headers: &record.headers,
            };
            self.log.append(&record.topic, partition, outgoing).map_err(Failure::new)?;
            self.reached = self.reached.max(record.event_time);
            self.now = self.now.max(record.timestamp);
        }
        // They are read no earlier than they were produced.
        self.clock.advance_wall_to(self.now.micros());
        self.settle()
    }

    /// Moves the event time of all partitions on, from the highest that was seen.
    pub fn advance(&mut self, by: Duration) -> Result<(), Failure> {
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        let watermarks =
            self.processes.iter().flat_map(|process| process.view.tasks()).filter_map(|task| task.watermark);
        let reached = watermarks.max().unwrap_or(EventTime::MIN).max(self.reached);
        let from = if reached == EventTime::MIN { self.now } else { reached };
        self.reached = from.saturating_add(by);
        self.now = self.now.saturating_add(by);
        self.clock.advance_wall_to(self.now.micros());
        for process in &mut self.processes {
            for worker in process.instance.workers() {
                worker.advance_event_time(self.reached).map_err(Failure::new)?;
            }
        }
        self.settle()
    }

    /// Whether the fault of this run has not come yet.
    pub fn awaits_fault(&self) -> bool {
        self.fault.is_some()
    }

    /// All committed records of a topic; `None` where there is no such topic.
    pub fn topic(&self, topic: &str) -> Option<Vec<(Partition, Record)>> {
        self.log.topic_records(&TopicName::new(topic)).ok()
    }

    /// All rows of a table, over all instances.
    pub fn table(&self, table: &TablePlan) -> Result<Vec<FoundRow>, Failure> {
        let mut rows = Vec::new();
        for process in &self.processes {
            let mut request = ScanRequest { limit: 1000, ..ScanRequest::default() };
            loop {
                let page = process.view.scan(table, &request).map_err(Failure::new)?;
                request.after = page.last().map(|row| row.encoded_key.clone());
                let more = page.len() == request.limit;
                rows.extend(page);
                if !more {
                    break;
                }
            }
        }
        Ok(rows)
    }

    // ---- running ---------------------------------------------------------------------------------------------------

    /// Lets everything happen that is under way, and commits it.
    fn settle(&mut self) -> Result<(), Failure> {
        let mut quiet = 0;
        for _step in 0..MOST_STEPS {
            let busy = self.process()?;
            quiet = if busy || !self.is_settled() { 0 } else { quiet + 1 };
            if quiet >= QUIET_STEPS {
                return Ok(());
            }
            self.clock.advance(STEP);
        }
        Err(Failure::new(format!("the topology does not come to rest: {}", self.trouble())))
    }

    /// Turns all instances until none has anything to do, with the clock standing still. Whether anything was done.
    fn process(&mut self) -> Result<bool, Failure> {
        let mut any = false;
        for _turn in 0..1_000_000_u32 {
            let mut busy = false;
            for process in &mut self.processes {
                busy |= process.instance.turn().map_err(Failure::new)?;
            }
            self.strike()?;
            if !busy {
                return Ok(any);
            }
            any = true;
        }
        Err(Failure::new(format!("the topology never comes to rest: {}", self.trouble())))
    }

    /// Whether all tasks run and everything that was read is committed.
    fn is_settled(&self) -> bool {
        let tasks: usize = self.processes.iter().map(|process| process.view.tasks().len()).sum();
        let facts = self.processes.first().and_then(|process| process.view.facts());
        let expected = facts.map_or(usize::MAX, |facts| {
            self.plan.sub_topologies.iter().map(|part| facts.tasks(part.id) as usize).sum()
        });
        tasks == expected
            && self.processes.iter().all(|process| {
                process.view.phase() == Phase::Running
                    && process.view.tasks().iter().all(|task| !matches!(task.state, TaskState::Restoring(_)))
            })
    }

    fn trouble(&self) -> String {
        let notes = self.processes.iter().flat_map(|process| {
            let readiness = process.view.readiness();
            readiness.reasons.into_iter().chain(readiness.degraded).map(|note| note.message)
        });
        let notes: Vec<String> = notes.collect();
        if notes.is_empty() { "nothing is known to be wrong".to_owned() } else { notes.join("; ") }
    }

    // ---- faults ----------------------------------------------------------------------------------------------------

    /// Does the fault when its moment has come.
    fn strike(&mut self) -> Result<(), Failure> {
        let Some(fault) = self.fault else { return Ok(()) };
        let (Fault::CrashAfter(after) | Fault::RebalanceAfter(after) | Fault::DuplicateFetchAt(after)) = fault;
        if self.records_read() < after {
            return Ok(());
        }
        self.fault = None;
        self.log.set_faults(None);
        match fault {
            Fault::CrashAfter(_) => self.crash(),
            Fault::RebalanceAfter(_) => self.open("test-1", Arc::new(Scratch::new("test")?)),
            Fault::DuplicateFetchAt(_) => {
                // Once per partition, since nothing comes twice where nothing has come before.
                let mut struck = BTreeSet::new();
                self.log.set_faults(Some(Box::new(move |point| match point.step {
                    Step::Fetch { partition, .. } if struck.insert(partition.clone()) => LogFault::Duplicate(1),
                    _ => LogFault::None,
                })));
                Ok(())
            }
        }
    }

    /// Ends the first process as SIGKILL would, and starts it again on what it left.
    fn crash(&mut self) -> Result<(), Failure> {
        let Process { name, client, instance, view, directory } = self.processes.remove(0);
        client.kill();
        drop(instance);
        drop(view);
        self.open(name, directory)
    }

    /// Records of the user's source topics that were processed.
    fn records_read(&self) -> u64 {
        let sources = source_topics(&self.plan);
        let samples = self.processes.iter().flat_map(|process| process.view.counters.samples());
        samples
            .filter(|sample| sample.metric == metric::RECORDS_READ)
            .filter(|sample| sample.labels.first().is_some_and(|topic| sources.contains(&TopicName::new(topic))))
            .map(|sample| match sample.value {
                SampleValue::Counter(count) => count,
                SampleValue::Gauge(_) | SampleValue::Histogram(_) => 0,
            })
            .sum()
    }
}

/// The topics that tables are read from.
pub fn table_topics(plan: &Plan) -> BTreeSet<TopicName> {
    let sources = plan.sub_topologies.iter().flat_map(|part: &SubTopology| &part.sources);
    let of_tables =
        sources.filter(|source| source.readers.iter().all(|reader| matches!(reader.kind, ReaderKind::Table { .. })));
    of_tables.map(|source| source.topic.clone()).collect()
}
