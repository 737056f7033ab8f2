//! Makes an application begin anew, or one of its steps: local state, internal topics, committed offsets.
//!
//! What it is: [`look`] says what would be removed, [`perform`] removes it. Nothing of the user's is touched: source and
//! output topics stay as they are.
//!
//! Order, so that a reset which is cut off can only be noticed, never be mistaken for a state: the group's offsets first
//! (state without offsets is refused, EXACTLY-ONCE rule 3b), or what they say about the changelogs of a step (3d), then
//! topics, then the directory.

use std::collections::BTreeSet;
use std::path::Path;

use crate::ids::{TopicName, TopicPartition};
use crate::log::{self, Log, OffsetCommit, TopicDescription};
use crate::store;
use crate::store::directory::{self, StateDirectory};
use crate::task::facts::{IdMark, OffsetMetadata, source_topics};
use crate::topology::Plan;
use crate::topology::plan::{ChangelogPlan, InternalTopicKind, store_of};

/// What is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope<'a> {
    Application,
    /// The stores of one step or table. It begins empty and goes on with the records that come; what it has read is not
    /// read again, since steps beside it share the offsets.
    Step(&'a str),
}

/// What a reset removes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// The consumer group, with its committed offsets.
    pub group: Option<String>,
    pub topics: Vec<TopicName>,
    /// Stores of this machine's state directory; empty means all of it.
    pub stores: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Log(#[from] log::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("the application is running ({members} members in its group): stop all instances first")]
    Running { members: usize },
    #[error("no source is called `{name}`; there are: {}", .known.join(", "))]
    NoSuchSource { name: String, known: Vec<String> },
    #[error("no step or table `{step}` keeps state; those that do: {}", .known.join(", "))]
    NoSuchStep { step: String, known: Vec<String> },
}

/// What a reset of that scope would remove; an error where it cannot be done now.
pub fn look(log: &dyn Log, plan: &Plan, scope: Scope<'_>) -> Result<Removal, Error> {
    let members = log.describe_group(&plan.name)?.members.len();
    if members > 0 {
        return Err(Error::Running { members });
    }
    let (group, stores, topics) = match scope {
        Scope::Application => {
            let topics: BTreeSet<TopicName> = plan.internal_topics.iter().map(|topic| topic.name.clone()).collect();
            (Some(plan.name.clone()), Vec::new(), topics)
        }
        Scope::Step(step) => {
            let (stores, topics) = of_step(plan, step)?;
            (None, stores, topics)
        }
    };
    let names: Vec<TopicName> = topics.into_iter().collect();
    let described = log.describe_topics(&names)?;
    let topics = described.into_iter().flatten().map(|topic| topic.name).collect();
    Ok(Removal { group, topics, stores })
}

/// Removes it. Doing it again is no error.
pub fn perform(log: &dyn Log, plan: &Plan, state_dir: &Path, removal: &Removal) -> Result<(), Error> {
    match &removal.group {
        Some(group) => log.delete_group(group)?,
        None => forget_changelogs(log, plan, &removal.stores)?,
    }
    if !removal.topics.is_empty() {
        log.delete_topics(&removal.topics)?;
    }
    if removal.stores.is_empty() {
        directory::destroy(state_dir)?;
    } else if directory::peek(state_dir)?.is_some() {
        let mut state = StateDirectory::open(state_dir, &plan.name)?;
        for store in &removal.stores {
            state.destroy_store(store)?;
        }
        // The plan that wrote them binds nobody any more: the step may come back as another one.
        let is_removed =
            |line: &&String| store_of(line).is_some_and(|name| removal.stores.iter().any(|store| store == name));
        let kept: Vec<String> = state.identity().plan.iter().filter(|line| !is_removed(line)).cloned().collect();
        state.keep_plan(&kept)?;
    }
    Ok(())
}

/// What stands beside the group's offsets no longer says which changelogs these stores had.
fn forget_changelogs(log: &dyn Log, plan: &Plan, stores: &[String]) -> Result<(), Error> {
    let forgotten: Vec<IdMark> = stores.iter().map(|store| IdMark::of(store)).collect();
    let topics: Vec<TopicName> = source_topics(plan).into_iter().collect();
    let described = log.describe_topics(&topics)?;
    let inputs: Vec<TopicPartition> = described.iter().flatten().flat_map(TopicDescription::all_partitions).collect();
    let committed = log.committed(&plan.name, &inputs)?;
    let offsets: Vec<OffsetCommit> = inputs
        .into_iter()
        .zip(committed)
        .filter_map(|(partition, committed)| {
            let committed = committed?;
            let mut metadata = OffsetMetadata::parse(&committed.metadata);
            let before = metadata.changelogs.len();
            metadata.changelogs.retain(|(store, _)| !forgotten.contains(store));
            let offset = committed.offset;
            (metadata.changelogs.len() < before).then(|| OffsetCommit {
                partition,
                offset,
                metadata: metadata.to_string(),
            })
        })
        .collect();
    if offsets.is_empty() { Ok(()) } else { Ok(log.set_offsets(&plan.name, &offsets)?) }
}

/// A step's stores are called after it: `<step>` or `<step>-<clause>...`.
fn of_step(plan: &Plan, step: &str) -> Result<(Vec<String>, BTreeSet<TopicName>), Error> {
    let belongs = |name: &str| name == step || name.strip_prefix(step).is_some_and(|rest| rest.starts_with('-'));
    let mut stores = Vec::new();
    let mut topics = BTreeSet::new();
    for store in plan.stores.iter().filter(|store| belongs(&store.name)) {
        stores.push(store.name.to_string());
        let (ChangelogPlan::Own(own) | ChangelogPlan::SourceIfCompacted { own, .. }) = &store.changelog;
        let is_ours = |topic: &&crate::topology::plan::InternalTopic| {
            topic.kind == InternalTopicKind::Changelog && topic.name == *own
        };
        topics.extend(plan.internal_topics.iter().filter(is_ours).map(|topic| topic.name.clone()));
    }
    if stores.is_empty() {
        let known = plan.stores.iter().map(|store| store.name.to_string()).collect();
        return Err(Error::NoSuchStep { step: step.to_string(), known });
    }
    Ok((stores, topics))
}
