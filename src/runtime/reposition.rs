//! Lets inputs go on whose committed offset is out of range (EXACTLY-ONCE rule 3c) or one of a former topic of that name
//! (3d), and keeps the state.
//!
//! What it is: [`look`] says which committed offsets the topics no longer hold and where they would be moved,
//! [`perform`] moves them. Others stay: an input that can go on where it stands must, or its records count twice or not at
//! all.
//! What it is not: it touches neither state nor topics. What was lost between the offsets stays lost; that is what
//! somebody has to agree to.

use super::reset::Error;
use crate::ids::{Offset, TopicPartition};
use crate::log::{Log, OffsetCommit, OffsetQuery};
use crate::task::facts::OffsetMetadata;
use crate::topology::Plan;

/// Where an input goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// At the oldest record that is left.
    Earliest,
    /// Behind the newest record.
    Latest,
}

/// An input whose committed offset is out of range, or one of another topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    pub input: TopicPartition,
    /// The committed offset.
    pub from: Offset,
    pub to: Offset,
    /// What is to stand beside the committed offset: what did, but for the topic that it is one of, which is learnt anew.
    metadata: String,
}

/// The moves that are needed, of one source (by its name or topic) or of all; none where every committed offset is in
/// range.
pub fn look(log: &dyn Log, plan: &Plan, edge: Edge, source: Option<&str>) -> Result<Vec<Move>, Error> {
    let members = log.describe_group(&plan.name)?.members.len();
    if members > 0 {
        return Err(Error::Running { members });
    }
    let sources = || plan.sub_topologies.iter().flat_map(|sub| &sub.sources);
    let is_meant = |wanted: &str, found: &&crate::topology::plan::SourcePlan| {
        found.topic.as_str() == wanted || found.readers.iter().any(|reader| &*reader.name == wanted)
    };
    let topics: Vec<_> = sources()
        .filter(|found| source.is_none_or(|wanted| is_meant(wanted, found)))
        .map(|found| found.topic.clone())
        .collect();
    if let (Some(source), true) = (source, topics.is_empty()) {
        let readers = sources().filter(|found| found.repartition.is_none()).flat_map(|found| &found.readers);
        let known = readers.map(|reader| reader.name.to_string()).collect();
        return Err(Error::NoSuchSource { name: source.to_owned(), known });
    }
    let described = log.describe_topics(&topics)?;
    let (inputs, ids): (Vec<TopicPartition>, Vec<&str>) = described
        .iter()
        .flatten()
        .flat_map(|topic| topic.all_partitions().map(|partition| (partition, &*topic.id)))
        .unzip();
    let committed = log.committed(&plan.name, &inputs)?;
    let starts = log.offsets(OffsetQuery::Start, &inputs)?;
    let ends = log.offsets(OffsetQuery::End, &inputs)?;
    let ranges = starts.into_iter().zip(ends);
    let inputs = inputs.into_iter().zip(ids);
    let moves = inputs.zip(committed).zip(ranges).filter_map(|(((input, id), committed), (start, end))| {
        let committed = committed?;
        let metadata = OffsetMetadata::parse(&committed.metadata);
        let is_in_range = (start..=end).contains(&committed.offset);
        if is_in_range && !metadata.is_of_another_topic(id) {
            return None;
        }
        let to = match edge {
            Edge::Earliest => start,
            Edge::Latest => end,
        };
        let metadata = OffsetMetadata { topic: None, ..metadata }.to_string();
        Some(Move { input, from: committed.offset, to, metadata })
    });
    Ok(moves.collect())
}

/// Moves them. Doing it again is no error.
pub fn perform(log: &dyn Log, plan: &Plan, moves: &[Move]) -> Result<(), Error> {
    let offsets: Vec<OffsetCommit> = moves
        .iter()
        .map(|at| OffsetCommit { partition: at.input.clone(), offset: at.to, metadata: at.metadata.clone() })
        .collect();
    Ok(log.set_offsets(&plan.name, &offsets)?)
}
