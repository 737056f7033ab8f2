//! What members of the group tell each other without talking: the ownership map's hash in the client id, the query endpoint
//! in the representative's offset metadata (EXACTLY-ONCE rules 6, 8 and 11b).
//!
//! Pure: names are made and read here, nothing is asked.

use std::collections::{BTreeMap, BTreeSet};

use xxhash_rust::xxh3::xxh3_64;

use crate::ids::{Partition, SubTopologyId, TaskId, TopicPartition};
use crate::log::{CommittedOffset, GroupDescription};
use crate::probe::{self, Mark, Rule};
use crate::task::Facts;
use crate::task::facts::OffsetMetadata;

const MAP: &str = ".map-";

/// The `client.id` of a member: who it is, and which map it runs.
pub fn client_id(instance_id: &str, map_hash: &str) -> String {
    format!("{instance_id}{MAP}{map_hash}")
}

/// The map that a member runs; `None` where it is not one of ours.
pub fn map_of(client_id: &str) -> Option<&str> {
    client_id.rsplit_once(MAP).map(|(_, hash)| hash)
}

/// The `group.instance.id` of a static member. A rejoin in a stable group keeps the old subscription and client id, so
/// another map or another address is another member.
pub fn group_instance_id(instance_id: &str, map_hash: &str, endpoint: &str) -> String {
    format!("{instance_id}.{:016x}", xxh3_64(format!("{map_hash}\n{endpoint}").as_bytes()))
}

/// Whether all members run one map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Agreement {
    All,
    /// With the client ids of those that run another.
    Conflict {
        others: Vec<String>,
    },
}

pub fn agreement(map_hash: &str, group: &GroupDescription) -> Agreement {
    let others: BTreeSet<&str> = group
        .members
        .iter()
        .map(|member| member.client_id.as_str())
        .filter(|client_id| map_of(client_id) != Some(map_hash))
        .collect();
    if others.is_empty() || probe::is_broken(Rule::OtherMapsIgnored) {
        Agreement::All
    } else {
        probe::reached(Mark::MapConflict);
        Agreement::Conflict { others: others.into_iter().map(str::to_string).collect() }
    }
}

impl Agreement {
    /// For people.
    pub fn message(&self) -> String {
        match self {
            Self::All => "all members of the group run the same topology".to_string(),
            Self::Conflict { others } => format!(
                "members of the group run another version of the topology, with other sources or partition counts ({}): \
                 stop all instances of the old version, then start the new one",
                others.join(", ")
            ),
        }
    }
}

/// The owners' endpoints by task, from the group's description and the committed offsets of the representatives.
///
/// `offsets` goes by [`representatives`]. A task whose partition nobody is assigned has no owner, whatever the metadata
/// still say; an endpoint is believed for the rest, since an owner writes it when it opens a task.
pub fn endpoints(
    facts: &Facts,
    group: &GroupDescription,
    offsets: &[(TaskId, Option<CommittedOffset>)],
) -> BTreeMap<TaskId, String> {
    let assigned: BTreeSet<&TopicPartition> = group.members.iter().flat_map(|member| &member.assignment).collect();
    offsets
        .iter()
        .filter(|(task, _)| assigned.contains(&facts.representative_partition(*task)))
        .filter_map(|(task, offset)| Some((*task, OffsetMetadata::parse(&offset.as_ref()?.metadata).endpoint?)))
        .collect()
}

/// Every task with the representative partition that stands for it, in order.
pub fn representatives(facts: &Facts) -> Vec<(TaskId, TopicPartition)> {
    let mut all = Vec::new();
    for (index, sub_topology) in facts.sub_topologies.iter().enumerate() {
        for partition in 0..sub_topology.tasks {
            let task = TaskId {
                sub_topology: SubTopologyId(u32::try_from(index).unwrap_or(u32::MAX)),
                partition: Partition(partition),
            };
            all.push((task, facts.representative_partition(task)));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::{Agreement, agreement, client_id, group_instance_id, map_of};
    use crate::log::{GroupDescription, GroupMember};

    fn group(client_ids: &[&str]) -> GroupDescription {
        let members = client_ids
            .iter()
            .map(|client_id| GroupMember {
                member_id: format!("{client_id}-member"),
                client_id: (*client_id).to_string(),
                instance_id: None,
                assignment: Vec::new(),
            })
            .collect();
        GroupDescription { members, stable: true }
    }

    #[test]
    fn the_map_is_read_back_from_the_client_id() {
        assert_eq!(map_of(&client_id("pod.map-like-0", "00ff")), Some("00ff"));
        assert_eq!(map_of("kafka-console-consumer"), None);
    }

    #[test]
    fn members_with_another_map_or_of_another_kind_are_a_conflict() {
        assert_eq!(agreement("aa", &group(&["x.map-aa", "y.map-aa"])), Agreement::All);
        assert_eq!(agreement("aa", &group(&[])), Agreement::All);
        let conflict = agreement("aa", &group(&["x.map-aa", "y.map-bb", "console"]));
        assert_eq!(conflict, Agreement::Conflict { others: vec!["console".into(), "y.map-bb".into()] });
    }

    #[test]
    fn a_changed_map_or_endpoint_is_another_static_member() {
        let first = group_instance_id("pod-0", "aa", "h:1");
        assert_eq!(first, group_instance_id("pod-0", "aa", "h:1"));
        assert_ne!(first, group_instance_id("pod-0", "bb", "h:1"));
        assert_ne!(first, group_instance_id("pod-0", "aa", "h:2"));
    }
}
