//! What was learnt from the log about the plan's topics: partition counts, changelogs, who represents whom.
//!
//! What it is: plain data, made once at start by [`Facts::learn`] from topic descriptions, and never changed afterwards.
//! A topic that changes later makes new facts in a new life of the instance.
//! What it is not: it does no I/O; `runtime::topics` fetches the descriptions and creates what is missing.
//!
//! Invariants
//! - Every source, output and internal topic of the plan has a description.
//! - The topics that meet in a stateful step have the same number of partitions.
//! - `changelogs` is indexed by `StoreId`, `sub_topologies` by `SubTopologyId`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::{self, Write as _};

use xxhash_rust::xxh3::xxh3_64;

use crate::ids::{Offset, Partition, StoreId, SubTopologyId, TaskId, TopicName, TopicPartition};
use crate::log::{Cleanup, TopicDescription};
use crate::topology::Plan;
use crate::topology::plan::{ChangelogPlan, Edge, Late, OperatorPlan, ReaderKind, SinkPlan, SubTopology};

/// See the module.
#[derive(Clone, Debug)]
pub struct Facts {
    pub cluster_id: String,
    pub topics: HashMap<TopicName, TopicDescription>,
    /// Indexed by `StoreId`.
    pub changelogs: Vec<Changelog>,
    /// Indexed by `SubTopologyId`.
    pub sub_topologies: Vec<SubTopologyFacts>,
    /// Of the ownership map (EXACTLY-ONCE rule 8a): 16 hexadecimal digits.
    pub map_hash: String,
}

/// Where a store's changes are kept in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changelog {
    pub topic: TopicName,
    /// Kafka's id of that topic.
    pub topic_id: String,
    /// EXACTLY-ONCE rule 21: the source topic serves; nothing is produced to it.
    pub is_source: bool,
    /// `delete.retention.ms`: local state that was not used for half of it is not trusted (EXACTLY-ONCE rule 4).
    pub delete_retention_ms: i64,
    pub max_message_bytes: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubTopologyFacts {
    /// The topic that the group subscribes to for this sub-topology: the smallest name among those with most partitions.
    pub representative: TopicName,
    /// As many as the representative has partitions.
    pub tasks: u32,
}

/// Why the topics as they are cannot carry the plan. Somebody must change a topic or the topology.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("topic `{topic}` is not known")]
    Unknown { topic: TopicName },
    #[error(
        "step `{step}` needs topics with equally many partitions, but {}: give them the same number, or put `key_by` \
         with `partitions: {most}` before the step",
        counts(.topics)
    )]
    NotCoPartitioned { step: String, topics: Vec<(TopicName, u32)>, most: u32 },
}

fn counts(topics: &[(TopicName, u32)]) -> String {
    let mut text = String::new();
    for (index, (topic, partitions)) in topics.iter().enumerate() {
        if index > 0 {
            text.push_str(if index + 1 == topics.len() { " and " } else { ", " });
        }
        let _ = write!(text, "`{topic}` has {partitions}");
    }
    text
}

impl Facts {
    /// From the descriptions of all the plan's topics, internal ones included. Every reason why they do not fit, if any.
    pub fn learn(
        plan: &Plan,
        cluster_id: String,
        descriptions: impl IntoIterator<Item = TopicDescription>,
    ) -> Result<Self, Vec<Unfit>> {
        let topics: HashMap<TopicName, TopicDescription> =
            descriptions.into_iter().map(|description| (description.name.clone(), description)).collect();
        let mut unfit: Vec<Unfit> = Vec::new();
        for topic in plan_topics(plan) {
            if !topics.contains_key(&topic) {
                unfit.push(Unfit::Unknown { topic });
            }
        }
        if !unfit.is_empty() {
            return Err(unfit);
        }
        for sub_topology in &plan.sub_topologies {
            check_co_partitioning(sub_topology, &topics, &mut unfit);
        }
        let changelogs: Vec<Changelog> =
            plan.stores.iter().filter_map(|store| changelog_of(&store.changelog, &topics)).collect();
        let sub_topologies: Vec<SubTopologyFacts> =
            plan.sub_topologies.iter().filter_map(|sub_topology| representative_of(sub_topology, &topics)).collect();
        if !unfit.is_empty() {
            return Err(unfit);
        }
        debug_assert_eq!(changelogs.len(), plan.stores.len(), "every store has a known changelog");
        debug_assert_eq!(sub_topologies.len(), plan.sub_topologies.len(), "every sub-topology reads a topic");
        let map_hash = map_hash(plan, &sub_topologies, &topics);
        Ok(Self { cluster_id, topics, changelogs, sub_topologies, map_hash })
    }

    /// The partition count of a topic of the plan; 0 for any other.
    pub fn partitions(&self, topic: &TopicName) -> u32 {
        self.topics.get(topic).map_or(0, |description| description.partitions)
    }

    pub fn has_partition(&self, at: &TopicPartition) -> bool {
        at.partition.0 < self.partitions(&at.topic)
    }

    /// `max.message.bytes` of a topic of the plan.
    pub fn max_message_bytes(&self, topic: &TopicName) -> Option<usize> {
        self.topics.get(topic).map(|description| description.max_message_bytes)
    }

    /// How many tasks a sub-topology has.
    pub fn tasks(&self, sub_topology: SubTopologyId) -> u32 {
        self.sub_topologies[sub_topology.0 as usize].tasks
    }

    pub fn representative(&self, sub_topology: SubTopologyId) -> &TopicName {
        &self.sub_topologies[sub_topology.0 as usize].representative
    }

    /// The representative's partition of a task: what the group assigns, and whose offset metadata says who owns it.
    pub fn representative_partition(&self, task: TaskId) -> TopicPartition {
        TopicPartition { topic: self.representative(task.sub_topology).clone(), partition: task.partition }
    }

    /// The task that the group means by a partition of a representative. `None` for a partition that the topic did not
    /// have when the facts were learnt.
    pub fn task_of(&self, assigned: &TopicPartition) -> Option<TaskId> {
        if !self.has_partition(assigned) {
            return None;
        }
        let index = self.sub_topologies.iter().position(|facts| facts.representative == assigned.topic)?;
        let sub_topology = SubTopologyId(u32::try_from(index).ok()?);
        Some(TaskId { sub_topology, partition: assigned.partition })
    }

    /// The representative topics of all sub-topologies: what the membership subscribes to.
    pub fn representatives(&self) -> Vec<TopicName> {
        let names: BTreeSet<&TopicName> = self.sub_topologies.iter().map(|facts| &facts.representative).collect();
        names.into_iter().cloned().collect()
    }

    pub fn changelog(&self, store: StoreId) -> &Changelog {
        &self.changelogs[store.index()]
    }

    /// A store partition's changelog partition.
    pub fn changelog_partition(&self, store: StoreId, partition: Partition) -> TopicPartition {
        TopicPartition { topic: self.changelog(store).topic.clone(), partition }
    }

    /// The id of a topic of the plan, in short.
    pub fn mark_of(&self, topic: &TopicName) -> Option<IdMark> {
        self.topics.get(topic).map(|description| IdMark::of(&description.id))
    }

    /// The stores of a sub-topology that have changelogs of their own, and these, for [`OffsetMetadata::changelogs`].
    pub fn changelog_marks(&self, plan: &Plan, sub_topology: SubTopologyId) -> Vec<(IdMark, IdMark)> {
        let stores = plan.sub_topologies[sub_topology.0 as usize].stores.iter();
        let own = stores.map(|&store| (store, self.changelog(store))).filter(|(_, changelog)| !changelog.is_source);
        own.map(|(store, changelog)| (IdMark::of(&plan.stores[store.index()].name), IdMark::of(&changelog.topic_id)))
            .collect()
    }

    /// The input partitions of a task in the order of its sub-topology's sources; `None` where that topic has fewer
    /// partitions than the representative.
    pub fn inputs(&self, plan: &Plan, task: TaskId) -> Vec<Option<TopicPartition>> {
        plan.sub_topologies[task.sub_topology.0 as usize]
            .sources
            .iter()
            .map(|source| {
                let at = TopicPartition { topic: source.topic.clone(), partition: task.partition };
                self.has_partition(&at).then_some(at)
            })
            .collect()
    }
}

/// The topics that a source of the plan reads, once each; those of the plan's own repartition topics included.
pub fn source_topics(plan: &Plan) -> BTreeSet<TopicName> {
    plan.sub_topologies.iter().flat_map(|sub| sub.sources.iter().map(|source| source.topic.clone())).collect()
}

/// The topics that steps write for the user: sinks and `late`.
pub fn output_topics(plan: &Plan) -> BTreeSet<TopicName> {
    let mut topics = BTreeSet::new();
    for node in plan.sub_topologies.iter().flat_map(|sub| &sub.nodes) {
        match &node.operator {
            OperatorPlan::Sink(SinkPlan { rules, .. }) => topics.extend(rules.iter().map(|rule| rule.topic.clone())),
            OperatorPlan::Aggregate(aggregate) => {
                if let Late::To(topic) = &aggregate.late {
                    topics.insert(topic.clone());
                }
            }
            OperatorPlan::Filter(_)
            | OperatorPlan::Project(_)
            | OperatorPlan::StreamTableJoin(_)
            | OperatorPlan::Materialize(_)
            | OperatorPlan::Over(_)
            | OperatorPlan::ToStream
            | OperatorPlan::Repartition(_) => {}
        }
    }
    topics
}

/// The changelog of a store, once its candidates are described.
///
/// Rule 21: the source topic serves where it is compacted (and nothing else removes its records); a store kept in memory
/// follows the same rule.
pub(crate) fn changelog_of(
    changelog: &ChangelogPlan,
    topics: &HashMap<TopicName, TopicDescription>,
) -> Option<Changelog> {
    let (name, is_source) = changelog_topic(changelog, topics);
    let description = topics.get(&name)?;
    Some(Changelog {
        topic: name,
        topic_id: description.id.clone(),
        is_source,
        delete_retention_ms: description.delete_retention_ms,
        max_message_bytes: description.max_message_bytes,
    })
}

/// The name of a store's changelog and whether it is the source topic itself.
pub(crate) fn changelog_topic(
    changelog: &ChangelogPlan,
    topics: &HashMap<TopicName, TopicDescription>,
) -> (TopicName, bool) {
    match changelog {
        ChangelogPlan::Own(topic) => (topic.clone(), false),
        ChangelogPlan::SourceIfCompacted { source, own } => match topics.get(source).map(|topic| topic.cleanup) {
            Some(Cleanup::Compact) => (source.clone(), true),
            Some(Cleanup::Delete | Cleanup::CompactDelete) | None => (own.clone(), false),
        },
    }
}

/// What stands beside a committed offset.
///
/// As text: `HOST:PORT`, then in this order and each where it is known `;bootstrap=OFFSET`, `;topic=MARK` and
/// `;state=MARKMARK,...` (store and changelog). What is not understood is left out: another tool, or another version, may
/// have committed the offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OffsetMetadata {
    /// Who answers for the task's state (of representatives, EXACTLY-ONCE rule 6).
    pub endpoint: Option<String>,
    /// How far a table is read before the streams beside it go on, until it has been: so that a restart remembers.
    pub bootstrap_end: Option<Offset>,
    /// The topic that the offset is one of, by its id.
    pub topic: Option<IdMark>,
    /// The changelogs that hold the task's state up to this offset (of representatives): each store's name, and its
    /// changelog's id.
    pub changelogs: Vec<(IdMark, IdMark)>,
}

/// Stands for a topic's id, or a store's name, where there is little room: one in four thousand million others has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdMark(u32);

impl IdMark {
    pub fn of(text: &str) -> Self {
        let [.., a, b, c, d] = xxh3_64(text.as_bytes()).to_be_bytes();
        Self(u32::from_be_bytes([a, b, c, d]))
    }

    fn parse(text: &str) -> Option<Self> {
        u32::from_str_radix(text, 16).ok().map(Self)
    }
}

impl fmt::Display for IdMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Display for OffsetMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.endpoint.as_deref().unwrap_or_default())?;
        if let Some(end) = self.bootstrap_end {
            write!(f, ";bootstrap={end}")?;
        }
        if let Some(topic) = self.topic {
            write!(f, ";topic={topic}")?;
        }
        for (index, (store, changelog)) in self.changelogs.iter().enumerate() {
            f.write_str(if index == 0 { ";state=" } else { "," })?;
            write!(f, "{store}{changelog}")?;
        }
        Ok(())
    }
}

impl OffsetMetadata {
    pub fn parse(text: &str) -> Self {
        let mut parts = text.split(';');
        let endpoint = parts.next().filter(|endpoint| !endpoint.is_empty()).map(str::to_owned);
        let mut metadata = Self { endpoint, ..Self::default() };
        for part in parts {
            match part.split_once('=') {
                Some(("bootstrap", end)) => metadata.bootstrap_end = end.parse().ok().map(Offset),
                Some(("topic", mark)) => metadata.topic = IdMark::parse(mark),
                Some(("state", pairs)) => {
                    let pair = |pair: &str| Some((IdMark::parse(pair.get(..8)?)?, IdMark::parse(pair.get(8..)?)?));
                    metadata.changelogs = pairs.split(',').filter_map(pair).collect();
                }
                Some(_) | None => {}
            }
        }
        metadata
    }

    /// Whether the offset is one of another topic than this, of the same name.
    pub fn is_of_another_topic(&self, id: &str) -> bool {
        self.topic.is_some_and(|topic| topic != IdMark::of(id))
    }

    /// Whether the store's changelog was another topic than this.
    pub fn had_another_changelog(&self, store: &str, id: &str) -> bool {
        let store = IdMark::of(store);
        self.changelogs.iter().any(|(known, changelog)| *known == store && *changelog != IdMark::of(id))
    }
}

fn plan_topics(plan: &Plan) -> BTreeSet<TopicName> {
    let mut topics = source_topics(plan);
    topics.extend(output_topics(plan));
    topics.insert(plan.dead_letters.clone());
    topics
}

/// Rule 8a: the smallest name among the topics with most partitions.
fn representative_of(
    sub_topology: &SubTopology,
    topics: &HashMap<TopicName, TopicDescription>,
) -> Option<SubTopologyFacts> {
    let most =
        sub_topology.sources.iter().filter_map(|source| topics.get(&source.topic)).map(|t| t.partitions).max()?;
    let representative = sub_topology
        .sources
        .iter()
        .filter(|source| topics.get(&source.topic).is_some_and(|topic| topic.partitions == most))
        .map(|source| source.topic.clone())
        .min()?;
    Some(SubTopologyFacts { representative, tasks: most })
}

/// The hash of source topic -> (representative, partition count). A sub-topology is known by its representative, since
/// its index is a matter of one version of the file.
fn map_hash(plan: &Plan, facts: &[SubTopologyFacts], topics: &HashMap<TopicName, TopicDescription>) -> String {
    let mut map: BTreeMap<&TopicName, (&TopicName, u32)> = BTreeMap::new();
    for (sub_topology, facts) in plan.sub_topologies.iter().zip(facts) {
        for source in &sub_topology.sources {
            let partitions = topics.get(&source.topic).map_or(0, |topic| topic.partitions);
            map.insert(&source.topic, (&facts.representative, partitions));
        }
    }
    let mut text = String::new();
    for (topic, (representative, partitions)) in map {
        let _ = writeln!(text, "{topic}\t{representative}\t{partitions}");
    }
    format!("{:016x}", xxh3_64(text.as_bytes()))
}

/// The topics that meet in one stateful node must have equally many partitions, or one key lives in two tasks.
fn check_co_partitioning(
    sub_topology: &SubTopology,
    topics: &HashMap<TopicName, TopicDescription>,
    unfit: &mut Vec<Unfit>,
) {
    let reaching = reaching_sources(sub_topology);
    for (node, sources) in sub_topology.nodes.iter().zip(&reaching) {
        let meets = match &node.operator {
            OperatorPlan::StreamTableJoin(_)
            | OperatorPlan::Materialize(_)
            | OperatorPlan::Aggregate(_)
            | OperatorPlan::Over(_) => true,
            OperatorPlan::Filter(_)
            | OperatorPlan::Project(_)
            | OperatorPlan::ToStream
            | OperatorPlan::Repartition(_)
            | OperatorPlan::Sink(_) => false,
        };
        if !meets {
            continue;
        }
        let counted: BTreeMap<TopicName, u32> = sources
            .iter()
            .map(|&source| sub_topology.sources[source].topic.clone())
            .map(|topic| (topic.clone(), topics.get(&topic).map_or(0, |description| description.partitions)))
            .collect();
        let distinct: BTreeSet<u32> = counted.values().copied().collect();
        if let (true, Some(&most)) = (distinct.len() > 1, distinct.last()) {
            let problem =
                Unfit::NotCoPartitioned { step: node.step.to_string(), topics: counted.into_iter().collect(), most };
            if !unfit.contains(&problem) {
                unfit.push(problem);
            }
        }
    }
}

/// Per node, the indices of the sources whose records reach it, directly or through a table that it looks up.
fn reaching_sources(sub_topology: &SubTopology) -> Vec<BTreeSet<usize>> {
    let mut reaching: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); sub_topology.nodes.len()];
    let mut filling: HashMap<StoreId, BTreeSet<usize>> = HashMap::new();
    for (index, source) in sub_topology.sources.iter().enumerate() {
        for reader in &source.readers {
            if let ReaderKind::Table { store } = reader.kind {
                filling.entry(store).or_default().insert(index);
            }
            for Edge { to, .. } in &reader.next {
                reaching[to.index()].insert(index);
            }
        }
    }
    // Nodes are in topological order, but a join may stand before the node that fills the table it looks up: go over
    // them until nothing is added.
    loop {
        let before: usize = reaching.iter().map(BTreeSet::len).sum();
        for (index, node) in sub_topology.nodes.iter().enumerate() {
            if let OperatorPlan::StreamTableJoin(join) = &node.operator
                && let Some(sources) = filling.get(&join.store)
            {
                reaching[index].extend(sources.iter().copied());
            }
            let sources = reaching[index].clone();
            match &node.operator {
                OperatorPlan::Materialize(plan) => filling.entry(plan.store).or_default().extend(&sources),
                OperatorPlan::Aggregate(plan) => filling.entry(plan.store).or_default().extend(&sources),
                OperatorPlan::Over(plan) => filling.entry(plan.store).or_default().extend(&sources),
                OperatorPlan::Filter(_)
                | OperatorPlan::Project(_)
                | OperatorPlan::StreamTableJoin(_)
                | OperatorPlan::ToStream
                | OperatorPlan::Repartition(_)
                | OperatorPlan::Sink(_) => {}
            }
            for edge in node.edges() {
                reaching[edge.to.index()].extend(sources.iter().copied());
            }
        }
        if reaching.iter().map(BTreeSet::len).sum::<usize>() == before {
            return reaching;
        }
    }
}

#[cfg(test)]
mod tests;
