//! Topics, offsets and groups, asked for or changed from outside of any of them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::error::{Subject, leader_is_stale, leaves_doubt, translate};
use super::native::admin::{self, TopicFacts};
use super::native::partitions::Entry;
use super::native::{Client, Code, NativeError, Topic, group};
use crate::ids::{Offset, Partition, TopicName, TopicPartition};
use crate::limits;
use crate::log::{
    Cleanup, CommittedOffset, Error, GroupDescription, GroupMember, NewTopic, Next, OffsetCommit, OffsetQuery,
    Timestamps, TopicDescription,
};

/// A leader that has not answered by then may be one no longer.
const LEADER_ANSWERS_WITHIN: Duration = Duration::from_secs(3);
/// The request itself gets less than the whole time, so that its own error comes before ours.
const WAIT: Duration = limits::LOG_REQUEST_TIMEOUT.saturating_sub(Duration::from_secs(1));
/// What asks for the log start and for the high watermark, in the protocol's ListOffsets.
const SPEC_START: i64 = -2;
const SPEC_END: i64 = -1;
/// Kafka's answer for a time behind all records. What is lower, librdkafka has put there before it asked.
const NO_RECORD_IS_THAT_LATE: i64 = -1;

#[derive(Debug)]
pub struct Admin {
    client: Arc<Client>,
}

impl Admin {
    pub fn new(client: Arc<Client>) -> Self {
        Self { client }
    }

    fn error(&self, error: &NativeError, subject: Subject<'_>) -> Error {
        translate(error, subject, self.client.problem().as_ref())
    }

    fn checked<T>(&self, result: Result<T, NativeError>) -> Result<T, Error> {
        let value = result.map_err(|error| self.error(&error, Subject::Cluster))?;
        self.client.forget_problem();
        Ok(value)
    }

    pub fn cluster_id(&self) -> Result<String, Error> {
        let id = self.client.cluster_id(WAIT);
        self.checked(id.ok_or_else(|| NativeError::new(Code::TIMED_OUT, "no broker told the cluster's id")))
    }

    pub fn describe_topics(&self, names: &[TopicName]) -> Result<Vec<Option<TopicDescription>>, Error> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let plain: Vec<&str> = names.iter().map(TopicName::as_str).collect();
        let mut facts: FxHashMap<String, Result<TopicFacts, NativeError>> =
            self.checked(admin::describe_topics(&self.client, &plain, WAIT))?.into_iter().collect();
        let mut found: Vec<Option<TopicFacts>> = Vec::with_capacity(names.len());
        for name in names {
            found.push(self.present(facts.remove(name.as_str()), name)?);
        }
        let existing: Vec<&str> =
            names.iter().zip(&found).filter(|(_, facts)| facts.is_some()).map(|(name, _)| name.as_str()).collect();
        let configs = if existing.is_empty() {
            Vec::new()
        } else {
            self.checked(admin::describe_configs(&self.client, &existing, WAIT))?
        };
        let mut configs = configs.into_iter();
        let mut described = Vec::with_capacity(names.len());
        for (name, facts) in names.iter().zip(found) {
            described.push(match facts {
                None => None,
                Some(facts) => {
                    let config = configs.next();
                    self.present(config, name)?.map(|config| describe(name, facts, &config))
                }
            });
        }
        Ok(described)
    }

    /// An unknown topic is an answer, not an error.
    fn present<T>(&self, answer: Option<Result<T, NativeError>>, name: &TopicName) -> Result<Option<T>, Error> {
        match answer {
            None => Ok(None),
            Some(Ok(facts)) => Ok(Some(facts)),
            Some(Err(error)) => match self.error(&error, Subject::Topic(name)) {
                Error::TopicMissing { .. } => Ok(None),
                other => Err(other),
            },
        }
    }

    /// Returns when the topics that were made are visible to describe, and their partitions are led.
    pub fn create_topics(&self, topics: &[NewTopic]) -> Result<Vec<Result<(), Error>>, Error> {
        let asked: Vec<(&NewTopic, &str)> = topics.iter().map(|topic| (topic, cleanup_policy(topic.cleanup))).collect();
        let created: Vec<Result<(), Error>> = self
            .checked(admin::create_topics(&self.client, &asked, WAIT))?
            .into_iter()
            .zip(topics)
            .map(|(result, topic)| result.map_err(|error| self.error(&error, Subject::Topic(&topic.name))))
            .collect();
        let made: Vec<&NewTopic> =
            topics.iter().zip(&created).filter(|(_, created)| created.is_ok()).map(|(topic, _)| topic).collect();
        let mut waited = Duration::ZERO;
        while let Some(reason) = self.unready(&made)? {
            if waited >= WAIT {
                return Err(Error::TimedOut { reason });
            }
            self.client.poll(POLL_STEP);
            waited += POLL_STEP;
        }
        Ok(created)
    }

    /// Why topics that were made cannot be used yet: the broker does not show one, or does not lead its partitions.
    fn unready(&self, made: &[&NewTopic]) -> Result<Option<String>, Error> {
        let names: Vec<TopicName> = made.iter().map(|topic| topic.name.clone()).collect();
        let described = self.describe_topics(&names)?;
        if let Some((unseen, _)) = names.iter().zip(described).find(|(_, described)| described.is_none()) {
            return Ok(Some(format!("topic `{unseen}` was created and is not visible")));
        }
        let partitions: Vec<TopicPartition> = made
            .iter()
            .flat_map(|topic| {
                (0..topic.partitions).map(|number| TopicPartition::new(topic.name.clone(), Partition(number)))
            })
            .collect();
        match self.list_offsets(SPEC_END, &partitions) {
            Err(error) if error.next() == Next::Retry || matches!(error, Error::TopicMissing { .. }) => {
                Ok(Some(error.to_string()))
            }
            // Whoever reads or writes them finds out.
            Ok(_) | Err(_) => Ok(None),
        }
    }

    pub fn delete_topics(&self, names: &[TopicName]) -> Result<(), Error> {
        if names.is_empty() {
            return Ok(());
        }
        let plain: Vec<&str> = names.iter().map(TopicName::as_str).collect();
        for (name, result) in self.checked(admin::delete_topics(&self.client, &plain, WAIT))? {
            let name = TopicName::new(name);
            match result.map_err(|error| self.error(&error, Subject::Topic(&name))) {
                Ok(()) | Err(Error::TopicMissing { .. }) => {}
                Err(other) => return Err(other),
            }
        }
        Ok(())
    }

    pub fn delete_records(&self, before: &[(TopicPartition, Offset)]) -> Result<(), Error> {
        if before.is_empty() {
            return Ok(());
        }
        let entries = self.checked(admin::delete_records(&self.client, before, WAIT))?;
        entries.iter().try_for_each(|entry| self.check(entry))
    }

    pub fn offsets(&self, query: OffsetQuery, partitions: &[TopicPartition]) -> Result<Vec<Offset>, Error> {
        let spec = match query {
            OffsetQuery::Start => SPEC_START,
            OffsetQuery::End => SPEC_END,
            OffsetQuery::At(time) if time.0 <= 0 => SPEC_START,
            OffsetQuery::At(time) => time.0,
        };
        let mut offsets = self.list_offsets(spec, partitions)?;
        // -1: no record is that late.
        let late: Vec<usize> = (0..offsets.len()).filter(|index| offsets[*index] < 0).collect();
        if !late.is_empty() {
            let rest: Vec<TopicPartition> = late.iter().map(|index| partitions[*index].clone()).collect();
            for (index, end) in late.into_iter().zip(self.list_offsets(SPEC_END, &rest)?) {
                offsets[index] = end;
            }
        }
        Ok(offsets.into_iter().map(Offset).collect())
    }

    fn list_offsets(&self, spec: i64, partitions: &[TopicPartition]) -> Result<Vec<i64>, Error> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let distinct = distinct(partitions);
        let ask = |wait| admin::list_offsets(&self.client, &distinct, spec, wait);
        let mut answer = ask(LEADER_ANSWERS_WITHIN);
        let stale = match &answer {
            Ok(entries) => {
                entries.iter().any(|entry| leader_is_stale(entry.code) || entry.offset < NO_RECORD_IS_THAT_LATE)
            }
            // A leader that is gone does not answer at all.
            Err(error) => leader_is_stale(error.code) || leaves_doubt(error.code),
        };
        if stale {
            // The admin client does not refresh by itself what it knows of leaders.
            self.refresh_leaders(partitions)?;
            answer = ask(WAIT);
        }
        let entries = self.checked(answer)?;
        let offsets = in_order(partitions, entries).map(|(partition, entry)| {
            let missing = || Error::TopicMissing { topic: partition.topic.clone() };
            let entry = entry.ok_or_else(missing)?;
            self.check(&entry)?;
            Ok(entry.offset)
        });
        let offsets: Vec<i64> = offsets.collect::<Result<_, Error>>()?;
        if let Some(unanswered) = unanswered(spec, &offsets) {
            // Where the request to one of several leaders fails, librdkafka tells of its partitions without an error. Taken for
            // "no record is that late", state would be restored from the end of its changelog, and be empty.
            let partition = &partitions[unanswered];
            return Err(Error::TimedOut { reason: format!("the offset asked for of {partition} is not known") });
        }
        Ok(offsets)
    }

    fn refresh_leaders(&self, partitions: &[TopicPartition]) -> Result<(), Error> {
        let topics: BTreeSet<&TopicName> = partitions.iter().map(|partition| &partition.topic).collect();
        for name in topics {
            let counted = Topic::new(&self.client, name.as_str()).and_then(|topic| topic.partition_count(WAIT));
            counted.map_err(|error| self.error(&error, Subject::Topic(name)))?;
        }
        Ok(())
    }

    pub fn describe_group(&self, group: &str) -> Result<GroupDescription, Error> {
        let facts = match admin::describe_group(&self.client, group, WAIT) {
            Err(error) if error.code == Code::GROUP_ID_NOT_FOUND => {
                return Ok(GroupDescription { members: Vec::new(), stable: false });
            }
            other => self.checked(other)?,
        };
        let members = facts.members.into_iter().map(|member| GroupMember {
            member_id: member.member_id,
            client_id: member.client_id,
            instance_id: member.instance_id,
            assignment: member.assignment,
        });
        Ok(GroupDescription { members: members.collect(), stable: facts.stable })
    }

    pub fn delete_group(&self, group: &str) -> Result<(), Error> {
        match admin::delete_group(&self.client, group, WAIT) {
            Err(error) if error.code == Code::GROUP_ID_NOT_FOUND => Ok(()),
            other => self.checked(other),
        }
    }

    fn check(&self, entry: &Entry) -> Result<(), Error> {
        let checked = entry.code.check();
        checked.map_err(|error| self.error(&error, Subject::Position(&entry.partition, Offset(entry.offset.max(0)))))
    }
}

/// How often a created topic is looked for.
const POLL_STEP: Duration = Duration::from_millis(5);

/// The group's committed offsets, asked by a client of that group: only such a client waits for pending transactional
/// offsets and survives a coordinator's move (librdkafka 2.12.1's admin request does neither; it dereferences a group
/// handle that an admin client lacks).
pub fn committed(client: &Client, partitions: &[TopicPartition]) -> Result<Vec<Option<CommittedOffset>>, Error> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let entries = group::committed(client, &distinct(partitions), WAIT).map_err(|error| {
        // The client asks again and again while a transaction holds the offsets, and says only that it was in vain.
        if error.code == Code::TIMED_OUT && client.is_answered(limits::LOG_REQUEST_TIMEOUT.saturating_sub(WAIT)) {
            return Error::OffsetsPending { partitions: partitions.to_vec() };
        }
        translate(&error, Subject::Cluster, client.problem().as_ref())
    })?;
    client.forget_problem();
    in_order(partitions, entries)
        .map(|(partition, entry)| {
            let Some(entry) = entry else { return Ok(None) };
            entry.code.check().map_err(|error| translate(&error, Subject::Topic(&partition.topic), None))?;
            let metadata = String::from_utf8_lossy(&entry.metadata).into_owned();
            Ok((entry.offset >= 0).then_some(CommittedOffset { offset: Offset(entry.offset), metadata }))
        })
        .collect()
}

/// Commits offsets of an empty group, as a client of that group that is no member.
pub fn set_offsets(client: &Arc<Client>, offsets: &[OffsetCommit]) -> Result<(), Error> {
    if offsets.is_empty() {
        return Ok(());
    }
    group::commit(client, offsets, WAIT)
        .map_err(|error| translate(&error, Subject::Cluster, client.problem().as_ref()))?;
    client.forget_problem();
    Ok(())
}

/// Each partition asked for, in that order, with its answer.
fn in_order(
    partitions: &[TopicPartition],
    entries: Vec<Entry>,
) -> impl Iterator<Item = (&TopicPartition, Option<Entry>)> {
    let answers: FxHashMap<TopicPartition, Entry> =
        entries.into_iter().map(|entry| (entry.partition.clone(), entry)).collect();
    partitions.iter().map(move |partition| (partition, answers.get(partition).cloned()))
}

/// Kafka refuses a request that names a partition twice.
fn distinct(partitions: &[TopicPartition]) -> Vec<TopicPartition> {
    partitions.iter().collect::<BTreeSet<_>>().into_iter().cloned().collect()
}

fn cleanup_policy(cleanup: Cleanup) -> &'static str {
    match cleanup {
        Cleanup::Delete => "delete",
        Cleanup::Compact => "compact",
        Cleanup::CompactDelete => "compact,delete",
    }
}

fn describe(name: &TopicName, facts: TopicFacts, config: &[(String, String)]) -> TopicDescription {
    let value = |key: &str| config.iter().find(|(name, _)| name == key).map_or("", |(_, value)| value.as_str());
    let policy = value("cleanup.policy");
    let cleanup = match (policy.contains("compact"), policy.contains("delete")) {
        (true, true) => Cleanup::CompactDelete,
        (true, false) => Cleanup::Compact,
        (false, _) => Cleanup::Delete,
    };
    TopicDescription {
        name: name.clone(),
        id: facts.id,
        partitions: facts.partitions,
        cleanup,
        max_message_bytes: value("max.message.bytes").parse().unwrap_or(limits::DEFAULT_MAX_MESSAGE_BYTES),
        delete_retention_ms: value("delete.retention.ms").parse().unwrap_or(limits::DEFAULT_DELETE_RETENTION_MS),
        timestamps: match value("message.timestamp.type") {
            "LogAppendTime" => Timestamps::LogAppendTime,
            _ => Timestamps::CreateTime,
        },
    }
}

/// The first partition that was not answered for. A start and an end every partition has.
fn unanswered(spec: i64, offsets: &[i64]) -> Option<usize> {
    let always_there = spec == SPEC_START || spec == SPEC_END;
    offsets.iter().position(|&offset| offset < 0 && (always_there || offset != NO_RECORD_IS_THAT_LATE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_whose_start_or_end_is_not_answered_is_not_taken_for_one_that_ends_there() {
        assert_eq!(unanswered(SPEC_START, &[0, 7, -1001, -1001]), Some(2));
        assert_eq!(unanswered(SPEC_END, &[-1]), Some(0));
        assert_eq!(unanswered(SPEC_START, &[0, 7]), None);
        // No record is that late.
        assert_eq!(unanswered(1_767_225_600_000, &[-1, 3]), None);
        assert_eq!(unanswered(1_767_225_600_000, &[3, -1001]), Some(1));
    }

    #[test]
    fn a_topics_configuration_is_read_by_name() {
        let facts = TopicFacts { id: "x".to_owned(), partitions: 3 };
        let config = [("cleanup.policy", "compact,delete"), ("max.message.bytes", "77"), ("delete.retention.ms", "88")];
        let config = config.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let described = describe(&TopicName::new("t"), facts, &config);
        assert_eq!(described.cleanup, Cleanup::CompactDelete);
        assert_eq!((described.max_message_bytes, described.delete_retention_ms, described.partitions), (77, 88, 3));
    }
}
