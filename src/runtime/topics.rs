//! The plan's topics as the log has them: waits for the user's, creates and checks Sidestream's own.
//!
//! What it is: one attempt, [`prepare`], that either yields [`Facts`] or says what is missing or wrong. Whoever calls it
//! waits and calls again.
//! What it is not: it never changes a topic that exists.
//!
//! One attempt
//! 1. Describe source and output topics. Of missing output topics, where they are to be created, those that are also read
//!    are created at once.
//! 2. Work out the partition counts of internal topics, upstream before downstream.
//! 3. Describe internal topics, check those that exist, create what is missing in one request.
//! 4. Describe what was made, for its ids, and learn the facts.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::ids::TopicName;
use crate::log::{Cleanup, Error, Log, NewTopic, Timestamps, TopicDescription};
use crate::task::facts::{Facts, Unfit, changelog_topic, output_topics, source_topics};
use crate::topology::Plan;
use crate::topology::plan::{InternalTopic, InternalTopicKind};

/// Seven days: how long a changelog keeps tombstones (EXACTLY-ONCE rule 4), and how long dead letters are kept.
const SEVEN_DAYS_MS: &str = "604800000";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicSettings {
    /// Of internal topics; `None` is the broker's default.
    pub replication: Option<u16>,
    /// Whether output topics are created.
    pub create_outputs: bool,
}

#[derive(Clone, Debug)]
pub enum Prepared {
    Ready(Box<Facts>),
    /// Nothing to do but wait until somebody has changed something.
    Waiting(Vec<Obstacle>),
}

/// Why the topology cannot run on the topics as they are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    #[error("source topic `{topic}` does not exist; waiting for it")]
    SourceMissing { topic: TopicName },
    #[error("output topic `{topic}` does not exist; create it, or start with --create-topics")]
    OutputMissing { topic: TopicName },
    #[error("internal topic `{topic}` could not be created: {reason}")]
    NotCreated { topic: TopicName, reason: String },
    #[error(
        "internal topic `{topic}` has {found} partitions where the sources call for {expected}: restore the partition \
         count of the sources, or run `sidestream reset` and start again"
    )]
    PartitionCount { topic: TopicName, found: u32, expected: u32 },
    #[error("internal topic `{topic}` has cleanup.policy {found}, which would lose {what}: set it to {expected}")]
    CleanupPolicy { topic: TopicName, found: &'static str, expected: &'static str, what: &'static str },
    #[error(
        "internal topic `{topic}` has message.timestamp.type CreateTime, with which Kafka would refuse {what} whose time is \
         ahead of its clock: set it to LogAppendTime"
    )]
    Timestamps { topic: TopicName, what: &'static str },
    #[error("the partition count of internal topic `{topic}` depends on itself")]
    Unresolved { topic: TopicName },
    #[error(transparent)]
    Unfit(#[from] Unfit),
}

impl Obstacle {
    /// Whether a topic is absent, as opposed to wrong.
    pub fn is_missing(&self) -> bool {
        match self {
            Self::SourceMissing { .. } | Self::OutputMissing { .. } => true,
            Self::NotCreated { .. }
            | Self::PartitionCount { .. }
            | Self::CleanupPolicy { .. }
            | Self::Timestamps { .. }
            | Self::Unresolved { .. }
            | Self::Unfit(_) => false,
        }
    }

    /// The topic it is about.
    pub fn subject(&self) -> String {
        match self {
            Self::SourceMissing { topic }
            | Self::OutputMissing { topic }
            | Self::NotCreated { topic, .. }
            | Self::PartitionCount { topic, .. }
            | Self::CleanupPolicy { topic, .. }
            | Self::Timestamps { topic, .. }
            | Self::Unresolved { topic }
            | Self::Unfit(Unfit::Unknown { topic }) => topic.to_string(),
            Self::Unfit(Unfit::NotCoPartitioned { step, .. }) => step.clone(),
        }
    }
}

/// One attempt; see the module. An error is the log's: away, or refusing.
pub fn prepare(log: &dyn Log, plan: &Plan, settings: TopicSettings) -> Result<Prepared, Error> {
    let cluster_id = log.cluster_id()?;
    let internal: BTreeSet<TopicName> = plan.internal_topics.iter().map(|topic| topic.name.clone()).collect();
    let sources: BTreeSet<TopicName> =
        source_topics(plan).into_iter().filter(|topic| !internal.contains(topic)).collect();
    let outputs: BTreeSet<TopicName> =
        output_topics(plan).into_iter().filter(|topic| !internal.contains(topic)).collect();

    let mut known = HashMap::new();
    describe(log, sources.iter().chain(&outputs), &mut known)?;
    let mut obstacles: Vec<Obstacle> = Vec::new();
    for topic in &sources {
        // A topology may read what it writes: that one is an output, and may be made below.
        let will_be_made = settings.create_outputs && outputs.contains(topic);
        if !known.contains_key(topic) && !will_be_made {
            obstacles.push(Obstacle::SourceMissing { topic: topic.clone() });
        }
    }
    let mut missing = Vec::new();
    for topic in outputs.iter().filter(|topic| !known.contains_key(*topic)) {
        if !settings.create_outputs {
            if !sources.contains(topic) {
                obstacles.push(Obstacle::OutputMissing { topic: topic.clone() });
            }
        } else if let Some(partitions) =
            sources.iter().filter_map(|source| known.get(source)).map(|t| t.partitions).max()
        {
            missing.push(output_topic(topic, partitions, settings));
        }
    }
    // Only those that are read too have a say in the partition counts of others; the rest is made together with those.
    let (read, mut missing): (Vec<NewTopic>, Vec<NewTopic>) =
        missing.into_iter().partition(|topic| sources.contains(&topic.name));
    create(log, &read, &mut obstacles)?;
    if !obstacles.is_empty() {
        return Ok(Prepared::Waiting(obstacles));
    }
    describe(log, sources.iter(), &mut known)?;

    let counts = match internal_partitions(plan, &known) {
        Ok(counts) => counts,
        Err(obstacle) => return Ok(Prepared::Waiting(vec![obstacle])),
    };
    let needed: Vec<&InternalTopic> = needed_internal_topics(plan, &known);
    describe(log, needed.iter().map(|topic| &topic.name), &mut known)?;
    for topic in &needed {
        let expected = counts.get(&topic.name).copied().unwrap_or(1);
        match known.get(&topic.name) {
            Some(found) => check(topic, expected, found, &mut obstacles),
            None => missing.push(internal_topic(topic, expected, settings)),
        }
    }
    create(log, &missing, &mut obstacles)?;
    if !obstacles.is_empty() {
        return Ok(Prepared::Waiting(obstacles));
    }

    describe(log, outputs.iter().chain(needed.iter().map(|topic| &topic.name)), &mut known)?;
    match Facts::learn(plan, cluster_id, known.into_values()) {
        Ok(facts) => Ok(Prepared::Ready(Box::new(facts))),
        Err(unfit) => Ok(Prepared::Waiting(unfit.into_iter().map(Obstacle::Unfit).collect())),
    }
}

/// The internal topics that this plan needs on topics as they are: an own changelog is left out where the source serves.
fn needed_internal_topics<'a>(plan: &'a Plan, known: &HashMap<TopicName, TopicDescription>) -> Vec<&'a InternalTopic> {
    let changelogs: BTreeSet<TopicName> =
        plan.stores.iter().map(|store| changelog_topic(&store.changelog, known).0).collect();
    plan.internal_topics
        .iter()
        .filter(|topic| match topic.kind {
            InternalTopicKind::Changelog => changelogs.contains(&topic.name),
            InternalTopicKind::Repartition | InternalTopicKind::DeadLetters => true,
        })
        .collect()
}

/// The partition counts of the internal topics, given the user's topics.
///
/// A topic that goes by a sub-topology has as many as the largest of its other sources; those may be repartition topics
/// themselves, so upstream counts are worked out first.
fn internal_partitions(
    plan: &Plan,
    known: &HashMap<TopicName, TopicDescription>,
) -> Result<BTreeMap<TopicName, u32>, Obstacle> {
    let mut counts: BTreeMap<TopicName, u32> = BTreeMap::new();
    let mut open: Vec<&InternalTopic> = Vec::new();
    for topic in &plan.internal_topics {
        match (topic.partitions, topic.partitions_like) {
            (Some(partitions), _) => {
                counts.insert(topic.name.clone(), partitions);
            }
            (None, None) => {
                counts.insert(topic.name.clone(), 1);
            }
            (None, Some(_)) => open.push(topic),
        }
    }
    let count_of = |name: &TopicName, counts: &BTreeMap<TopicName, u32>| {
        known.get(name).map(|topic| topic.partitions).or_else(|| counts.get(name).copied())
    };
    while !open.is_empty() {
        let before = open.len();
        open.retain(|topic| {
            let Some(sub_topology) = topic.partitions_like.and_then(|id| plan.sub_topologies.get(id.0 as usize)) else {
                return true;
            };
            let mut others = sub_topology.sources.iter().filter(|source| source.topic != topic.name).peekable();
            if others.peek().is_none() {
                return true;
            }
            let resolved: Option<Vec<u32>> = others.map(|source| count_of(&source.topic, &counts)).collect();
            match resolved.and_then(|resolved| resolved.into_iter().max()) {
                Some(partitions) => {
                    counts.insert(topic.name.clone(), partitions);
                    false
                }
                None => true,
            }
        });
        if open.len() == before {
            // Two repartition topics that meet may wait for each other: take what is known of the others.
            let Some((index, partitions)) = open.iter().enumerate().find_map(|(index, topic)| {
                let sub_topology = plan.sub_topologies.get(topic.partitions_like?.0 as usize)?;
                let counted = sub_topology.sources.iter().filter_map(|source| count_of(&source.topic, &counts));
                Some((index, counted.max()?))
            }) else {
                return Err(Obstacle::Unresolved { topic: open[0].name.clone() });
            };
            let topic = open.remove(index);
            counts.insert(topic.name.clone(), partitions);
        }
    }
    Ok(counts)
}

/// Adds those that are not known yet and exist.
fn describe<'a>(
    log: &dyn Log,
    names: impl Iterator<Item = &'a TopicName>,
    known: &mut HashMap<TopicName, TopicDescription>,
) -> Result<(), Error> {
    let names: Vec<TopicName> = names.filter(|name| !known.contains_key(*name)).cloned().collect();
    if names.is_empty() {
        return Ok(());
    }
    for description in log.describe_topics(&names)?.into_iter().flatten() {
        known.insert(description.name.clone(), description);
    }
    Ok(())
}

/// Creates topics, at once. What the log refuses for one of them is an obstacle; that the log is away is an error.
fn create(log: &dyn Log, topics: &[NewTopic], obstacles: &mut Vec<Obstacle>) -> Result<(), Error> {
    if topics.is_empty() {
        return Ok(());
    }
    for (topic, created) in topics.iter().zip(log.create_topics(topics)?) {
        match created {
            Ok(()) => tracing::info!(topic = %topic.name, partitions = topic.partitions, "topic created"),
            // Another instance was faster; the next attempt checks what it made.
            Err(Error::TopicExists { .. }) => {}
            Err(error @ (Error::TopicRefused { .. } | Error::NotAuthorised { .. })) => {
                obstacles.push(Obstacle::NotCreated { topic: topic.name.clone(), reason: error.to_string() });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn check(topic: &InternalTopic, expected: u32, found: &TopicDescription, obstacles: &mut Vec<Obstacle>) {
    let (policy, what) = match topic.kind {
        InternalTopicKind::Repartition => (Cleanup::Delete, "records between two steps"),
        InternalTopicKind::Changelog => (Cleanup::Compact, "state"),
        InternalTopicKind::DeadLetters => return,
    };
    if found.partitions != expected {
        obstacles.push(Obstacle::PartitionCount { topic: topic.name.clone(), found: found.partitions, expected });
    }
    if found.cleanup != policy {
        obstacles.push(Obstacle::CleanupPolicy {
            topic: topic.name.clone(),
            found: policy_name(found.cleanup),
            expected: policy_name(policy),
            what,
        });
    } else if found.timestamps != Timestamps::LogAppendTime {
        obstacles.push(Obstacle::Timestamps { topic: topic.name.clone(), what });
    }
}

fn policy_name(cleanup: Cleanup) -> &'static str {
    match cleanup {
        Cleanup::Delete => "delete",
        Cleanup::Compact => "compact",
        Cleanup::CompactDelete => "compact,delete",
    }
}

fn internal_topic(topic: &InternalTopic, partitions: u32, settings: TopicSettings) -> NewTopic {
    let (cleanup, config) = match topic.kind {
        // It is purged after commits instead.
        InternalTopicKind::Repartition => (Cleanup::Delete, ("retention.ms", "-1")),
        InternalTopicKind::Changelog => (Cleanup::Compact, ("delete.retention.ms", SEVEN_DAYS_MS)),
        InternalTopicKind::DeadLetters => (Cleanup::Delete, ("retention.ms", SEVEN_DAYS_MS)),
    };
    // Kafka refuses records that are ahead of its clock: rows of a host whose clock is wrong, records whose event time lies in
    // the future; and a dead letter may be older than the retention.
    let config = [config, ("message.timestamp.type", "LogAppendTime")];
    NewTopic {
        name: topic.name.clone(),
        partitions,
        replication: settings.replication,
        cleanup,
        config: config.into_iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
    }
}

fn output_topic(name: &TopicName, partitions: u32, settings: TopicSettings) -> NewTopic {
    NewTopic {
        name: name.clone(),
        partitions,
        replication: settings.replication,
        cleanup: Cleanup::Delete,
        config: Vec::new(),
    }
}
