//! Who gets which partition: sticky, balanced over the sum of partitions, in the two rounds of the cooperative protocol
//! (KIP-429).
//!
//! 1. A partition stays with the member that owns it and subscribes to its topic.
//! 2. A partition without an owner goes to the member with the fewest, of those that subscribe to its topic.
//! 3. While some member could take a partition from one that has at least two more, it does.
//! 4. What would move from one living owner to another is given to nobody: its owner sees it missing, gives it up and
//!    joins again, and the next round finds it without an owner.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{Partition, TopicName, TopicPartition};

/// A member as the assignor sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subscriber<'a> {
    pub topics: &'a BTreeSet<TopicName>,
    pub owned: &'a BTreeSet<TopicPartition>,
}

/// One set per subscriber, in their order, which also decides between equals.
pub(super) fn assign(
    subscribers: &[Subscriber<'_>],
    partition_count: impl Fn(&TopicName) -> u32,
) -> Vec<BTreeSet<TopicPartition>> {
    let topics: BTreeSet<&TopicName> = subscribers.iter().flat_map(|subscriber| subscriber.topics).collect();
    let mut owners: BTreeMap<TopicPartition, usize> = BTreeMap::new();
    let mut target: Vec<BTreeSet<TopicPartition>> = vec![BTreeSet::new(); subscribers.len()];
    let mut free = Vec::new();
    for topic in topics {
        for partition in (0..partition_count(topic)).map(Partition) {
            let partition = TopicPartition { topic: topic.clone(), partition };
            let owns = |member: &Subscriber<'_>| member.owned.contains(&partition) && member.topics.contains(topic);
            match subscribers.iter().position(owns) {
                Some(owner) => {
                    target[owner].insert(partition.clone());
                    owners.insert(partition, owner);
                }
                None => free.push(partition),
            }
        }
    }
    for partition in free {
        if let Some(member) = least_loaded(subscribers, &target, &partition.topic) {
            target[member].insert(partition);
        }
    }
    while let Some((from, to, partition)) = better_place(subscribers, &target) {
        target[from].remove(&partition);
        target[to].insert(partition);
    }
    for (member, partitions) in target.iter_mut().enumerate() {
        partitions.retain(|partition| owners.get(partition).is_none_or(|owner| *owner == member));
    }
    target
}

fn least_loaded(
    subscribers: &[Subscriber<'_>],
    target: &[BTreeSet<TopicPartition>],
    topic: &TopicName,
) -> Option<usize> {
    let takes = |member: &usize| subscribers[*member].topics.contains(topic);
    (0..subscribers.len()).filter(takes).min_by_key(|member| target[*member].len())
}

/// A move that makes the loads more equal. Each one lowers the sum of their squares, so that they come to an end.
fn better_place(
    subscribers: &[Subscriber<'_>],
    target: &[BTreeSet<TopicPartition>],
) -> Option<(usize, usize, TopicPartition)> {
    let mut by_load: Vec<usize> = (0..target.len()).collect();
    by_load.sort_by_key(|member| std::cmp::Reverse(target[*member].len()));
    by_load.into_iter().find_map(|from| {
        target[from].iter().rev().find_map(|partition| {
            let to = least_loaded(subscribers, target, &partition.topic)?;
            (target[to].len() + 2 <= target[from].len()).then(|| (from, to, partition.clone()))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(names: &[&str]) -> BTreeSet<TopicName> {
        names.iter().map(TopicName::new).collect()
    }

    fn set(partitions: &[(&str, u32)]) -> BTreeSet<TopicPartition> {
        partitions.iter().map(|(topic, number)| TopicPartition::new(*topic, Partition(*number))).collect()
    }

    #[test]
    fn a_new_member_gets_what_an_old_one_gave_up_in_the_second_round() {
        let a = topics(&["a"]);
        let all = set(&[("a", 0), ("a", 1), ("a", 2), ("a", 3)]);
        let none = set(&[]);
        let first = assign(&[Subscriber { topics: &a, owned: &all }, Subscriber { topics: &a, owned: &none }], |_| 4);
        assert_eq!(first, [set(&[("a", 0), ("a", 1)]), none.clone()]);
        let second =
            assign(&[Subscriber { topics: &a, owned: &first[0] }, Subscriber { topics: &a, owned: &none }], |_| 4);
        assert_eq!(second, [set(&[("a", 0), ("a", 1)]), set(&[("a", 2), ("a", 3)])]);
    }

    #[test]
    fn nothing_moves_between_members_with_an_even_load() {
        let a = topics(&["a", "b"]);
        let (one, two) = (set(&[("a", 0), ("b", 0)]), set(&[("a", 1)]));
        let got = assign(&[Subscriber { topics: &a, owned: &one }, Subscriber { topics: &a, owned: &two }], |topic| {
            if topic.as_str() == "a" { 2 } else { 1 }
        });
        assert_eq!(got, [one, two]);
    }

    #[test]
    fn a_member_gets_only_partitions_of_topics_that_it_subscribes_to() {
        let (a, b) = (topics(&["a"]), topics(&["b"]));
        let none = set(&[]);
        let got =
            assign(&[Subscriber { topics: &a, owned: &none }, Subscriber { topics: &b, owned: &none }], |topic| {
                if topic.as_str() == "a" { 3 } else { 0 }
            });
        assert_eq!(got, [set(&[("a", 0), ("a", 1), ("a", 2)]), none]);
    }
}
