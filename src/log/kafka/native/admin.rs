//! Administrative requests, one call each: submit, wait for the event, copy the answer.

use std::ffi::{CString, c_char, c_int};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use rdkafka_sys::bindings as sys;
use rdkafka_sys::bindings::rd_kafka_admin_op_t as Operation;

use super::client::{Client, ERROR_TEXT_BYTES};
use super::code::text;
use super::consume::Queue;
use super::group::Event;
use super::partitions::{self, Entry, PartitionList};
use super::{Code, NativeError, c_string, timeout_ms};
use crate::ids::{Offset, TopicPartition};
use crate::log::NewTopic;

/// A topic as the cluster describes it.
#[derive(Clone, Debug)]
pub struct TopicFacts {
    pub id: String,
    pub partitions: u32,
}

/// An answer per name.
pub type Named<T> = Vec<(String, Result<T, NativeError>)>;
/// A topic's configuration, as names and values.
pub type Config = Vec<(String, String)>;

#[derive(Clone, Debug)]
pub struct MemberFacts {
    pub member_id: String,
    pub client_id: String,
    pub instance_id: Option<String>,
    pub assignment: Vec<TopicPartition>,
}

#[derive(Clone, Debug)]
pub struct GroupFacts {
    pub stable: bool,
    pub members: Vec<MemberFacts>,
}

unsafe extern "C" {
    fn rd_kafka_topic_result_error(result: *const sys::rd_kafka_topic_result_t) -> c_int;
    fn rd_kafka_ConfigResource_error(resource: *const sys::rd_kafka_ConfigResource_t) -> c_int;
}

/// One answer per name, in their order.
pub fn describe_topics(client: &Arc<Client>, names: &[&str], wait: Duration) -> Result<Named<TopicFacts>, NativeError> {
    let names = names.iter().map(|name| c_string(name)).collect::<Result<Vec<CString>, _>>()?;
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    // SAFETY: `pointers` has the stated length and its strings are alive for the call that copies them. Within
    // `request`: client, options and queue are alive; the answer belongs to the event and is copied while that lives.
    unsafe {
        let topics = sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        let event = request(
            client,
            Operation::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
            wait,
            |_| Ok(()),
            |options, queue| {
                sys::rd_kafka_DescribeTopics(client.raw(), topics, options, queue);
            },
        );
        sys::rd_kafka_TopicCollection_destroy(topics);
        let event = event?;
        let mut count = 0;
        let answer = sys::rd_kafka_event_DescribeTopics_result(event.raw());
        let list = sys::rd_kafka_DescribeTopics_result_topics(answer, &raw mut count);
        Ok(array(list, count)
            .map(|topic| {
                let name = text(sys::rd_kafka_TopicDescription_name(topic));
                if let Some(error) = NativeError::peek(sys::rd_kafka_TopicDescription_error(topic)) {
                    return (name, Err(error));
                }
                let mut partitions = 0;
                sys::rd_kafka_TopicDescription_partitions(topic, &raw mut partitions);
                let id = text(sys::rd_kafka_Uuid_base64str(sys::rd_kafka_TopicDescription_topic_id(topic)));
                (name, Ok(TopicFacts { id, partitions: u32::try_from(partitions).unwrap_or(u32::MAX) }))
            })
            .collect())
    }
}

/// The configuration of each topic, as name and value, in the order of the names.
pub fn describe_configs(
    client: &Arc<Client>,
    names: &[&str],
    wait: Duration,
) -> Result<Vec<Result<Config, NativeError>>, NativeError> {
    let kind = sys::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC;
    let names = names.iter().map(|name| c_string(name)).collect::<Result<Vec<CString>, _>>()?;
    // SAFETY: resources are ours and freed after the call that copies them; the rest as in `describe_topics`.
    unsafe {
        let mut resources: Vec<_> =
            names.iter().map(|name| sys::rd_kafka_ConfigResource_new(kind, name.as_ptr())).collect();
        let event = request(
            client,
            Operation::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS,
            wait,
            |_| Ok(()),
            |options, queue| {
                sys::rd_kafka_DescribeConfigs(client.raw(), resources.as_mut_ptr(), resources.len(), options, queue);
            },
        );
        for resource in resources {
            sys::rd_kafka_ConfigResource_destroy(resource);
        }
        let event = event?;
        let mut count = 0;
        let answer = sys::rd_kafka_event_DescribeConfigs_result(event.raw());
        let list = sys::rd_kafka_DescribeConfigs_result_resources(answer, &raw mut count);
        let mut found: Named<Config> = array(list, count)
            .map(|resource| {
                let name = text(sys::rd_kafka_ConfigResource_name(resource));
                let code = Code(rd_kafka_ConfigResource_error(resource));
                if code.is_error() {
                    let reason = text(sys::rd_kafka_ConfigResource_error_string(resource));
                    return (name, Err(NativeError::new(code, reason)));
                }
                let mut entries = 0;
                let list = sys::rd_kafka_ConfigResource_configs(resource, &raw mut entries);
                let entries = array(list, entries).map(|entry| {
                    (text(sys::rd_kafka_ConfigEntry_name(entry)), text(sys::rd_kafka_ConfigEntry_value(entry)))
                });
                (name, Ok(entries.collect()))
            })
            .collect();
        let missing = || Err(NativeError::from_code(Code::UNKNOWN_TOPIC_OR_PARTITION));
        Ok(names
            .iter()
            .map(|name| {
                let name = name.to_string_lossy();
                let index = found.iter().position(|(found, _)| *found == name);
                index.map_or_else(missing, |index| found.swap_remove(index).1)
            })
            .collect())
    }
}

/// A topic to be made, as librdkafka wants it.
struct NewTopicRequest(*mut sys::rd_kafka_NewTopic_t);

impl NewTopicRequest {
    fn new(topic: &NewTopic, cleanup: &str) -> Result<Self, NativeError> {
        let name = c_string(topic.name.as_str())?;
        let mut config = vec![(c_string("cleanup.policy")?, c_string(cleanup)?)];
        for (key, value) in &topic.config {
            config.push((c_string(key)?, c_string(value)?));
        }
        let mut error = [0 as c_char; ERROR_TEXT_BYTES];
        let partitions = c_int::try_from(topic.partitions).unwrap_or(c_int::MAX);
        let replication = topic.replication.map_or(-1, c_int::from);
        // SAFETY: strings are alive for the calls that copy them; the buffer has the stated length.
        unsafe {
            let new =
                sys::rd_kafka_NewTopic_new(name.as_ptr(), partitions, replication, error.as_mut_ptr(), error.len());
            if new.is_null() {
                return Err(NativeError::new(Code::INVALID_ARG, text(error.as_ptr())));
            }
            for (key, value) in &config {
                // Refused only for null arguments.
                sys::rd_kafka_NewTopic_set_config(new, key.as_ptr(), value.as_ptr());
            }
            Ok(Self(new))
        }
    }
}

impl Drop for NewTopicRequest {
    fn drop(&mut self) {
        // SAFETY: ours, and freed once; a request has copied it.
        unsafe { sys::rd_kafka_NewTopic_destroy(self.0) };
    }
}

/// All in one request, each with its `cleanup.policy`. One result per topic, in their order.
pub fn create_topics(
    client: &Arc<Client>,
    topics: &[(&NewTopic, &str)],
    wait: Duration,
) -> Result<Vec<Result<(), NativeError>>, NativeError> {
    let made: Vec<Result<NewTopicRequest, NativeError>> =
        topics.iter().map(|(topic, cleanup)| NewTopicRequest::new(topic, cleanup)).collect();
    let mut asked: Vec<_> = made.iter().flatten().map(|new| new.0).collect();
    let mut answers: Named<()> = if asked.is_empty() {
        Vec::new()
    } else {
        // SAFETY: the new-topic objects live in `made` beyond the call that copies them; the rest as in `describe_topics`.
        unsafe {
            let event = request(
                client,
                Operation::RD_KAFKA_ADMIN_OP_CREATETOPICS,
                wait,
                |_| Ok(()),
                |options, queue| {
                    sys::rd_kafka_CreateTopics(client.raw(), asked.as_mut_ptr(), asked.len(), options, queue);
                },
            )?;
            let mut count = 0;
            let answer = sys::rd_kafka_event_CreateTopics_result(event.raw());
            let list = sys::rd_kafka_CreateTopics_result_topics(answer, &raw mut count);
            array(list, count)
                .map(|result| (text(sys::rd_kafka_topic_result_name(result)), topic_result(result)))
                .collect()
        }
    };
    let result = |((topic, _), made): (&(&NewTopic, &str), Result<NewTopicRequest, NativeError>)| {
        made?;
        let index = answers.iter().position(|(name, _)| name == topic.name.as_str());
        let missing = || Err(NativeError::from_code(Code::UNKNOWN_TOPIC_OR_PARTITION));
        index.map_or_else(missing, |index| answers.swap_remove(index).1)
    };
    Ok(topics.iter().zip(made).map(result).collect())
}

/// One result per name, in no particular order.
pub fn delete_topics(client: &Arc<Client>, names: &[&str], wait: Duration) -> Result<Named<()>, NativeError> {
    let names = names.iter().map(|name| c_string(name)).collect::<Result<Vec<CString>, _>>()?;
    // SAFETY: as in `describe_configs`.
    unsafe {
        let mut topics: Vec<_> = names.iter().map(|name| sys::rd_kafka_DeleteTopic_new(name.as_ptr())).collect();
        let event = request(
            client,
            Operation::RD_KAFKA_ADMIN_OP_DELETETOPICS,
            wait,
            |_| Ok(()),
            |options, queue| {
                sys::rd_kafka_DeleteTopics(client.raw(), topics.as_mut_ptr(), topics.len(), options, queue);
            },
        );
        for topic in topics {
            sys::rd_kafka_DeleteTopic_destroy(topic);
        }
        let event = event?;
        let mut count = 0;
        let answer = sys::rd_kafka_event_DeleteTopics_result(event.raw());
        let list = sys::rd_kafka_DeleteTopics_result_topics(answer, &raw mut count);
        Ok(array(list, count)
            .map(|result| (text(sys::rd_kafka_topic_result_name(result)), topic_result(result)))
            .collect())
    }
}

/// Deletes the records before the offsets. One entry per partition, with its code.
pub fn delete_records(
    client: &Arc<Client>,
    before: &[(TopicPartition, Offset)],
    wait: Duration,
) -> Result<Vec<Entry>, NativeError> {
    let list = PartitionList::new(before.iter().map(|(partition, _)| partition), |index| {
        before.get(index).map(|(_, offset)| offset.0)
    })?;
    // SAFETY: as in `describe_configs`.
    unsafe {
        let mut records = [sys::rd_kafka_DeleteRecords_new(list.raw())];
        let event = request(
            client,
            Operation::RD_KAFKA_ADMIN_OP_DELETERECORDS,
            wait,
            |_| Ok(()),
            |options, queue| {
                sys::rd_kafka_DeleteRecords(client.raw(), records.as_mut_ptr(), records.len(), options, queue);
            },
        );
        sys::rd_kafka_DeleteRecords_destroy(records[0]);
        let event = event?;
        let answer = sys::rd_kafka_event_DeleteRecords_result(event.raw());
        Ok(partitions::read(sys::rd_kafka_DeleteRecords_result_offsets(answer)))
    }
}

/// The offset for a timestamp, or -1 where no record is that late; `RD_KAFKA_OFFSET_BEGINNING` (-2) and
/// `RD_KAFKA_OFFSET_END` (-1) ask for the log start and the high watermark. In no particular order.
pub fn list_offsets(
    client: &Arc<Client>,
    partitions: &[TopicPartition],
    spec: i64,
    wait: Duration,
) -> Result<Vec<Entry>, NativeError> {
    let list = PartitionList::new(partitions, |_| Some(spec))?;
    // SAFETY: as in `describe_configs`.
    unsafe {
        let event = request(
            client,
            Operation::RD_KAFKA_ADMIN_OP_LISTOFFSETS,
            wait,
            |options| {
                let level = sys::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED;
                NativeError::take(sys::rd_kafka_AdminOptions_set_isolation_level(options, level))
            },
            |options, queue| sys::rd_kafka_ListOffsets(client.raw(), list.raw(), options, queue),
        )?;
        let mut count = 0;
        let answer = sys::rd_kafka_event_ListOffsets_result(event.raw());
        let infos = sys::rd_kafka_ListOffsets_result_infos(answer, &raw mut count);
        Ok(array(infos, count)
            .map(|info| partitions::read_entry(sys::rd_kafka_ListOffsetsResultInfo_topic_partition(info)))
            .collect())
    }
}

pub fn describe_group(client: &Arc<Client>, group: &str, wait: Duration) -> Result<GroupFacts, NativeError> {
    let group = c_string(group)?;
    let mut groups = [group.as_ptr()];
    // SAFETY: as in `describe_topics`.
    unsafe {
        let operation = Operation::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS;
        let event = request(
            client,
            operation,
            wait,
            |_| Ok(()),
            |options, queue| {
                sys::rd_kafka_DescribeConsumerGroups(client.raw(), groups.as_mut_ptr(), groups.len(), options, queue);
            },
        )?;
        let mut count = 0;
        let answer = sys::rd_kafka_event_DescribeConsumerGroups_result(event.raw());
        let list = sys::rd_kafka_DescribeConsumerGroups_result_groups(answer, &raw mut count);
        let Some(group) = array(list, count).next() else {
            return Err(NativeError::from_code(Code::GROUP_ID_NOT_FOUND));
        };
        if let Some(error) = NativeError::peek(sys::rd_kafka_ConsumerGroupDescription_error(group)) {
            return Err(error);
        }
        let stable = sys::rd_kafka_consumer_group_state_t::RD_KAFKA_CONSUMER_GROUP_STATE_STABLE;
        let members = sys::rd_kafka_ConsumerGroupDescription_member_count(group);
        Ok(GroupFacts {
            stable: sys::rd_kafka_ConsumerGroupDescription_state(group) == stable,
            members: (0..members)
                .map(|index| member(sys::rd_kafka_ConsumerGroupDescription_member(group, index)))
                .collect(),
        })
    }
}

pub fn delete_group(client: &Arc<Client>, group: &str, wait: Duration) -> Result<(), NativeError> {
    let group = c_string(group)?;
    // SAFETY: as in `describe_configs`.
    unsafe {
        let mut groups = [sys::rd_kafka_DeleteGroup_new(group.as_ptr())];
        let event = request(
            client,
            Operation::RD_KAFKA_ADMIN_OP_DELETEGROUPS,
            wait,
            |_| Ok(()),
            |options, queue| {
                sys::rd_kafka_DeleteGroups(client.raw(), groups.as_mut_ptr(), groups.len(), options, queue);
            },
        );
        sys::rd_kafka_DeleteGroup_destroy(groups[0]);
        let event = event?;
        let mut count = 0;
        let answer = sys::rd_kafka_event_DeleteGroups_result(event.raw());
        let list = sys::rd_kafka_DeleteGroups_result_groups(answer, &raw mut count);
        array(list, count).try_for_each(|result| match NativeError::peek(sys::rd_kafka_group_result_error(result)) {
            Some(error) => Err(error),
            None => Ok(()),
        })
    }
}

/// Returns when the client is connected to a broker that it has learnt of, and has had an answer from it. The address that
/// the client was given does not count: librdkafka drops it for the broker that it turns out to be.
pub fn reach(client: &Arc<Client>, wait: Duration) -> Result<(), NativeError> {
    // SAFETY: as in `describe_topics`; of the answer only its arrival is of interest.
    let answered = unsafe {
        request(
            client,
            Operation::RD_KAFKA_ADMIN_OP_DESCRIBECLUSTER,
            wait,
            |_| Ok(()),
            |options, queue| sys::rd_kafka_DescribeCluster(client.raw(), options, queue),
        )
    };
    answered.map(|_event| ())
}

/// Submits a request and waits for its event, which carries no request-level error.
///
/// # Safety
/// `submit` must make exactly one admin call with the options and the queue given, which are alive for it.
unsafe fn request(
    client: &Arc<Client>,
    operation: Operation,
    wait: Duration,
    configure: impl FnOnce(*mut sys::rd_kafka_AdminOptions_t) -> Result<(), NativeError>,
    submit: impl FnOnce(*mut sys::rd_kafka_AdminOptions_t, *mut sys::rd_kafka_queue_t),
) -> Result<Event, NativeError> {
    let queue = Queue::new(client);
    let mut error = [0 as c_char; ERROR_TEXT_BYTES];
    // SAFETY: the options are ours and freed after the call that copies them; the event is ours.
    unsafe {
        let options = sys::rd_kafka_AdminOptions_new(client.raw(), operation);
        // Refused only for operations without the option, or out of range; the wait below bounds the call anyway.
        sys::rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms(wait), error.as_mut_ptr(), error.len());
        let configured = configure(options);
        if configured.is_ok() {
            submit(options, queue.raw());
        }
        sys::rd_kafka_AdminOptions_destroy(options);
        configured?;
        let late = || NativeError::new(Code::TIMED_OUT, "the request was not answered");
        let event = Event::take(sys::rd_kafka_queue_poll(queue.raw(), timeout_ms(wait))).ok_or_else(late)?;
        let error = event.error();
        if error.code.is_error() { Err(error) } else { Ok(event) }
    }
}

/// # Safety
/// `result` is alive.
unsafe fn topic_result(result: *const sys::rd_kafka_topic_result_t) -> Result<(), NativeError> {
    // SAFETY: the caller's promise; the text is copied.
    unsafe {
        let code = Code(rd_kafka_topic_result_error(result));
        if !code.is_error() {
            return Ok(());
        }
        let reason = sys::rd_kafka_topic_result_error_string(result);
        Err(if reason.is_null() { NativeError::from_code(code) } else { NativeError::new(code, text(reason)) })
    }
}

/// # Safety
/// `member` is alive.
unsafe fn member(member: *const sys::rd_kafka_MemberDescription_t) -> MemberFacts {
    // SAFETY: the caller's promise; strings and partitions belong to the member and are copied.
    unsafe {
        let instance = sys::rd_kafka_MemberDescription_group_instance_id(member);
        let assignment = sys::rd_kafka_MemberDescription_assignment(member);
        let assigned = if assignment.is_null() {
            Vec::new()
        } else {
            partitions::read(sys::rd_kafka_MemberAssignment_partitions(assignment))
        };
        MemberFacts {
            member_id: text(sys::rd_kafka_MemberDescription_consumer_id(member)),
            client_id: text(sys::rd_kafka_MemberDescription_client_id(member)),
            instance_id: (!instance.is_null()).then(|| text(instance)),
            assignment: assigned.into_iter().map(|entry| entry.partition).collect(),
        }
    }
}

/// The elements of one of librdkafka's arrays of pointers.
///
/// # Safety
/// `list` is null or has `count` elements that are alive while the iterator is used.
unsafe fn array<T>(list: *mut *const T, count: usize) -> impl Iterator<Item = *const T> {
    let count = if list.is_null() { 0 } else { count };
    // SAFETY: within the array by the caller's promise.
    (0..count).map(move |index| unsafe { ptr::read(list.add(index)) })
}
