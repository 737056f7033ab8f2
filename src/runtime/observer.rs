//! Looks at the log from time to time: is it there, how far behind are we, who answers for what, have topics changed or
//! gone, and what of our repartition topics has been processed and can go.
//!
//! What it is: polls that only inform the view, and findings ([`Finding`]) that the coordinator acts on.
//! What it is not: nothing that exactly-once rests on; it may be late, or fail, at any time.
//!
//! Invariant: the routing table is replaced only by one of a stable group (EXACTLY-ONCE rule 6; the last stable table is
//! kept while a rebalance runs).

use std::sync::Arc;
use std::time::Duration;

use crate::clock::SharedClock;
use crate::ids::{TopicName, TopicPartition};
use crate::log::{self, OffsetQuery, SharedLog};
use crate::metric;
use crate::runtime::group_map::{Agreement, agreement, endpoints, representatives};
use crate::runtime::view::{Condition, View};
use crate::task::Facts;
use crate::task::facts::{output_topics, source_topics};
use crate::topology::Plan;

const ENDS_EVERY: Duration = Duration::from_secs(2);
const ROUTES_EVERY: Duration = Duration::from_secs(3);
const TOPICS_EVERY: Duration = Duration::from_secs(30);
/// While a worker waits for something.
const TOPICS_EVERY_IN_TROUBLE: Duration = Duration::from_secs(3);
const PURGE_EVERY: Duration = Duration::from_secs(30);

/// A look that took so long without an answer: no coordinator moves for that long.
const SILENT_AFTER: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// These source topics have another partition count than at start, or are gone and came back with one.
    SourcesChanged(Vec<TopicName>),
    /// An output topic was made anew with another partition count than at start.
    OutputsChanged,
    /// A source topic, or a changelog, is another one of the same name: whether one can go on is decided as at a start.
    TopicsReplaced,
}

/// See the module.
#[derive(Debug)]
pub struct Observer {
    log: SharedLog,
    plan: Arc<Plan>,
    facts: Arc<Facts>,
    clock: SharedClock,
    view: Arc<View>,
    ends_at: Duration,
    routes_at: Duration,
    topics_at: Duration,
    purge_at: Duration,
    /// Looks in a row that did not get through.
    failures: u32,
}

impl Observer {
    pub fn new(log: SharedLog, plan: Arc<Plan>, facts: Arc<Facts>, clock: SharedClock, view: Arc<View>) -> Self {
        let now = clock.monotonic();
        let (topics_at, purge_at) = (now + TOPICS_EVERY, now + PURGE_EVERY);
        Self { log, plan, facts, clock, view, ends_at: now, routes_at: now, topics_at, purge_at, failures: 0 }
    }

    /// When it has something to do next, on the clock's monotonic time.
    pub fn due(&self) -> Duration {
        self.ends_at.min(self.routes_at).min(self.topics_at).min(self.purge_at)
    }

    /// Does what is due; returns at once if nothing is.
    pub fn turn(&mut self) -> Option<Finding> {
        let now = self.clock.monotonic();
        let mut finding = None;
        let mut reached: Result<bool, log::Error> = Ok(false);
        if now >= self.ends_at {
            self.ends_at = now + ENDS_EVERY;
            reached = self.look_at_ends();
            self.measure();
        }
        if now >= self.routes_at && reached.is_ok() {
            self.routes_at = now + ROUTES_EVERY;
            reached = self.look_at_group().map(|()| true);
        }
        let in_trouble = self.view.holds(Condition::WorkerWaiting) || self.view.holds(Condition::TopicMissing);
        if in_trouble {
            self.topics_at = self.topics_at.min(now + TOPICS_EVERY_IN_TROUBLE);
        }
        if now >= self.topics_at && reached.is_ok() {
            self.topics_at = now + if in_trouble { TOPICS_EVERY_IN_TROUBLE } else { TOPICS_EVERY };
            match self.look_at_topics() {
                Ok(found) => {
                    reached = Ok(true);
                    finding = found;
                }
                Err(error) => reached = Err(error),
            }
        }
        if now >= self.purge_at && reached.is_ok() {
            self.purge_at = now + PURGE_EVERY;
            reached = self.purge();
        }
        match reached {
            Ok(true) => {
                self.failures = 0;
                self.view.clear(Condition::KafkaUnreachable, "");
            }
            Ok(false) => {}
            Err(error @ (log::Error::Unreachable { .. } | log::Error::TimedOut { .. })) => {
                // A coordinator that moves answers the next time.
                self.failures += 1;
                let waited = self.clock.monotonic().saturating_sub(now);
                if self.failures >= 2 || waited >= SILENT_AFTER {
                    self.view.raise(Condition::KafkaUnreachable, "", &error.to_string());
                }
            }
            Err(error) => tracing::debug!(reason = %error, "the log could not be looked at"),
        }
        finding
    }

    /// Whether the log was asked at all.
    fn look_at_ends(&self) -> Result<bool, log::Error> {
        let inputs: Vec<TopicPartition> =
            self.view.tasks().iter().flat_map(|task| self.facts.inputs(&self.plan, task.id)).flatten().collect();
        if inputs.is_empty() {
            return Ok(false);
        }
        let asked = self.clock.monotonic();
        let ends = self.log.offsets(OffsetQuery::End, &inputs)?;
        self.view.set_ends(inputs.into_iter().zip(ends), asked);
        Ok(true)
    }

    fn measure(&self) {
        let counters = &self.view.counters;
        counters.losses.tell(self.clock.monotonic());
        counters.clear(&metric::LAG);
        for lag in self.view.lag() {
            if let Some(records) = lag.lag {
                let partition = lag.input.partition.to_string();
                let gauge = counters.gauge(&metric::LAG, &[lag.input.topic.as_str(), &partition]);
                gauge.set(i64::try_from(records).unwrap_or(i64::MAX));
            }
        }
        if let Some(backend) = self.view.backend() {
            let usage = backend.usage();
            counters.gauge(&metric::STATE_MEMORY, &[]).set(i64::try_from(usage.memory_bytes).unwrap_or(i64::MAX));
            counters.gauge(&metric::STATE_DISK, &[]).set(i64::try_from(usage.disk_bytes).unwrap_or(i64::MAX));
        }
        counters.gauge(&metric::READY, &[]).set(i64::from(self.view.readiness().ready));
    }

    fn look_at_group(&self) -> Result<(), log::Error> {
        let group = self.log.describe_group(&self.plan.name)?;
        if group.members.is_empty() {
            self.view.clear(Condition::Rebalancing, "");
            return Ok(());
        }
        if !group.stable {
            self.view.raise(Condition::Rebalancing, "", "the group is rebalancing");
            return Ok(());
        }
        self.view.clear(Condition::Rebalancing, "");
        match agreement(&self.facts.map_hash, &group) {
            Agreement::All => self.view.clear(Condition::MapConflict, ""),
            conflict @ Agreement::Conflict { .. } => {
                self.view.raise(Condition::MapConflict, "", &conflict.message());
            }
        }
        let (tasks, partitions): (Vec<_>, Vec<_>) = representatives(&self.facts).into_iter().unzip();
        let offsets = self.log.committed(&self.plan.name, &partitions)?;
        let offsets: Vec<_> = tasks.into_iter().zip(offsets).collect();
        self.view.set_endpoints(endpoints(&self.facts, &group, &offsets));
        Ok(())
    }

    /// Deletes the committed part of this instance's repartition partitions: nobody else reads them.
    fn purge(&self) -> Result<bool, log::Error> {
        let repartition: Vec<&TopicName> = self
            .plan
            .sub_topologies
            .iter()
            .flat_map(|sub| &sub.sources)
            .filter(|source| source.repartition.is_some())
            .map(|source| &source.topic)
            .collect();
        let committed: Vec<_> = self
            .view
            .lag()
            .into_iter()
            .filter(|lag| repartition.contains(&&lag.input.topic))
            .filter_map(|lag| lag.committed.map(|committed| (lag.input, committed)))
            .collect();
        if committed.is_empty() {
            return Ok(false);
        }
        self.log.delete_records(&committed)?;
        Ok(true)
    }

    /// Says which topics are gone. Returns what has another partition count.
    fn look_at_topics(&self) -> Result<Option<Finding>, log::Error> {
        let sources = source_topics(&self.plan);
        let outputs = output_topics(&self.plan);
        let mut topics: Vec<TopicName> = self.facts.topics.keys().cloned().collect();
        topics.sort();
        let described = self.log.describe_topics(&topics)?;
        let mut changed_sources = Vec::new();
        let mut changed_outputs = false;
        let mut replaced = false;
        for (topic, description) in topics.into_iter().zip(described) {
            let known = self.facts.partitions(&topic);
            let Some(found) = description else {
                let internal = self.plan.internal_topics.iter().any(|internal| internal.name == topic);
                let message = missing(known, internal, sources.contains(&topic));
                self.view.raise(Condition::TopicMissing, topic.as_str(), &message);
                continue;
            };
            self.view.clear(Condition::TopicMissing, topic.as_str());
            let id = self.facts.topics.get(&topic).map(|topic| &topic.id);
            if id != Some(&found.id) && (sources.contains(&topic) || self.is_changelog(&topic)) {
                replaced = true;
            }
            if found.partitions != known {
                if sources.contains(&topic) {
                    changed_sources.push(topic);
                } else {
                    changed_outputs |= outputs.contains(&topic);
                }
            }
        }
        if replaced {
            return Ok(Some(Finding::TopicsReplaced));
        }
        if !changed_sources.is_empty() {
            return Ok(Some(Finding::SourcesChanged(changed_sources)));
        }
        Ok(changed_outputs.then_some(Finding::OutputsChanged))
    }

    fn is_changelog(&self, topic: &TopicName) -> bool {
        self.facts.changelogs.iter().any(|changelog| changelog.topic == *topic)
    }
}

/// What to do about a topic that was there at the start.
fn missing(partitions: u32, internal: bool, source: bool) -> String {
    if internal {
        "this topic of Sidestream's own is gone, and with it what it held: nothing that is written to it is committed. Stop \
         all instances, run `sidestream reset` and start again: the state is then computed anew from the sources"
            .to_owned()
    } else if source {
        format!(
            "the source topic is gone: create it again, with {partitions} partitions; positions in it are of the old one, so \
             stop all instances and run `sidestream reset --offsets earliest`"
        )
    } else {
        format!(
            "the output topic is gone: create it again (it had {partitions} partitions). What is to be written to it waits in \
             the sources, and nothing else of those tasks is committed meanwhile"
        )
    }
}
