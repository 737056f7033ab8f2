//! The log on a real Kafka, through librdkafka.
//!
//! What it is: one client per use (fetcher, producer, membership, administration), each configured here. What it is
//! not: it decides nothing; `error.rs` says what a client's code means, and the callers act on it.
//!
//! Invariants
//! - Every client reads committed, resets no offset by itself and commits nothing by itself.
//! - Settings of Sidestream's own correctness come after the user's properties and win over them.
//! - `unsafe` is in `native/` and `message.rs`, nowhere else.

pub mod admin;
pub mod error;
pub mod fetcher;
pub mod membership;
pub mod message;
pub mod native;
pub mod producer;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use self::admin::Admin;
use self::error::{Subject, translate};
use self::fetcher::KafkaFetcher;
use self::membership::{KafkaMembership, Lifetime, Memberships};
use self::native::consume::Consumer;
use self::native::group::Member;
use self::native::{Client, Kind, NativeError};
use self::producer::{Guarantee, KafkaProducer, Transaction};
use super::{
    CommittedOffset, Error, Fetcher, GroupDescription, Log, Membership, MembershipSettings, NewTopic, OffsetCommit,
    OffsetQuery, Producer, ProducerSettings, TopicDescription,
};
use crate::ids::{Offset, TopicName, TopicPartition};
use crate::limits;

/// How to reach a Kafka cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaSettings {
    /// `bootstrap.servers`: host:port, separated by commas.
    pub brokers: String,
    /// Any of librdkafka's properties: TLS, SASL, tuning. May hold secrets: never shown.
    pub properties: BTreeMap<String, String>,
    pub group_protocol: GroupProtocol,
    /// How many bytes one fetcher may hold that nobody has asked for yet.
    pub fetch_queue_bytes: usize,
}

/// `group.protocol`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupProtocol {
    /// Cooperative-sticky, assigned by a member.
    #[default]
    Classic,
    /// KIP-848, assigned by the broker.
    Consumer,
}

impl KafkaSettings {
    pub fn new(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            properties: BTreeMap::new(),
            group_protocol: GroupProtocol::default(),
            fetch_queue_bytes: limits::FETCH_QUEUE_BYTES,
        }
    }
}

impl fmt::Debug for KafkaSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSettings")
            .field("brokers", &self.brokers)
            .field("properties", &self.properties.keys().collect::<Vec<_>>())
            .field("group_protocol", &self.group_protocol)
            .field("fetch_queue_bytes", &self.fetch_queue_bytes)
            .finish()
    }
}

/// A Kafka cluster.
pub struct KafkaLog {
    settings: KafkaSettings,
    admin: Admin,
    /// Clients that ask for a group's offsets; they do not join it.
    offset_readers: Mutex<FxHashMap<String, Arc<Client>>>,
    /// Clients for what a group's coordinator is asked, while nobody uses them.
    group_askers: Mutex<Vec<Admin>>,
    memberships: Arc<Memberships>,
}

impl fmt::Debug for KafkaLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KafkaLog({:?})", self.settings)
    }
}

impl KafkaLog {
    /// Does not wait for the cluster; the only error is a wrong property.
    pub fn new(settings: KafkaSettings) -> Result<Self, Error> {
        let admin = admin_of(&settings)?;
        Ok(Self {
            settings,
            admin,
            offset_readers: Mutex::default(),
            group_askers: Mutex::default(),
            memberships: Arc::default(),
        })
    }

    fn fetcher_with(&self, properties: Properties) -> Result<Box<dyn Fetcher>, Error> {
        let properties = properties.consumer().fetching(&self.settings).finish();
        let client = Client::new(Kind::Consumer, &properties).map_err(|error| setting(&error))?;
        Ok(Box::new(KafkaFetcher::new(Consumer::new(client))))
    }

    /// Asks a group's coordinator, with a client that nobody else uses meanwhile and that does not outlive a failure.
    ///
    /// In librdkafka 2.12.1 a request to a coordinator that has timed out ends the process (`eonce->refcnt > 0`,
    /// librdkafka#4605, #5397) as soon as the broker is back, unless its client has been destroyed by then.
    fn ask_group<T>(&self, ask: impl FnOnce(&Admin) -> Result<T, Error>) -> Result<T, Error> {
        let idle = self.group_askers.lock().pop();
        let admin = match idle {
            Some(admin) => admin,
            None => admin_of(&self.settings)?,
        };
        let answer = ask(&admin)?;
        self.group_askers.lock().push(admin);
        Ok(answer)
    }

    fn offset_reader(&self, group: &str) -> Result<Arc<Client>, Error> {
        let mut readers = self.offset_readers.lock();
        if let Some(client) = readers.get(group) {
            return Ok(Arc::clone(client));
        }
        let properties = Properties::new(&self.settings, "offsets").consumer().fixed("group.id", group).finish();
        let client = Client::new(Kind::Consumer, &properties).map_err(|error| setting(&error))?;
        readers.insert(group.to_owned(), Arc::clone(&client));
        Ok(client)
    }
}

fn admin_of(settings: &KafkaSettings) -> Result<Admin, Error> {
    let properties = Properties::new(settings, "admin").consumer().finish();
    Ok(Admin::new(Client::new(Kind::Consumer, &properties).map_err(|error| setting(&error))?))
}

impl Log for KafkaLog {
    fn cluster_id(&self) -> Result<String, Error> {
        self.admin.cluster_id()
    }

    fn describe_topics(&self, names: &[TopicName]) -> Result<Vec<Option<TopicDescription>>, Error> {
        self.admin.describe_topics(names)
    }

    fn create_topics(&self, topics: &[NewTopic]) -> Result<Vec<Result<(), Error>>, Error> {
        self.admin.create_topics(topics)
    }

    fn delete_topics(&self, names: &[TopicName]) -> Result<(), Error> {
        self.admin.delete_topics(names)
    }

    fn delete_records(&self, before: &[(TopicPartition, Offset)]) -> Result<(), Error> {
        self.admin.delete_records(before)
    }

    fn committed(&self, group: &str, partitions: &[TopicPartition]) -> Result<Vec<Option<CommittedOffset>>, Error> {
        admin::committed(&*self.offset_reader(group)?, partitions)
    }

    fn offsets(&self, query: OffsetQuery, partitions: &[TopicPartition]) -> Result<Vec<Offset>, Error> {
        self.admin.offsets(query, partitions)
    }

    /// Makes the clients that will ask: they connect by themselves.
    fn expect_group(&self, group: &str) {
        let made = self.offset_reader(group).and_then(|_reader| admin_of(&self.settings));
        match made {
            Ok(admin) => self.group_askers.lock().push(admin),
            Err(error) => tracing::debug!(reason = %error, "a client is made when it is needed"),
        }
    }

    fn describe_group(&self, group: &str) -> Result<GroupDescription, Error> {
        self.ask_group(|admin| admin.describe_group(group))
    }

    fn delete_group(&self, group: &str) -> Result<(), Error> {
        self.ask_group(|admin| admin.delete_group(group))
    }

    /// Kafka takes a commit without a generation from anybody as long as the group is empty.
    fn set_offsets(&self, group: &str, offsets: &[OffsetCommit]) -> Result<(), Error> {
        admin::set_offsets(&self.offset_reader(group)?, offsets)
    }

    fn fetcher(&self, name: &str) -> Result<Box<dyn Fetcher>, Error> {
        self.fetcher_with(Properties::new(&self.settings, name))
    }

    fn fetcher_to_the_end(&self, name: &str) -> Result<Box<dyn Fetcher>, Error> {
        // An end is told by a fetch that brings nothing, which the broker answers after this time (500 ms by default).
        self.fetcher_with(Properties::new(&self.settings, name).default("fetch.wait.max.ms", "10"))
    }

    fn producer(&self, settings: &ProducerSettings) -> Result<Box<dyn Producer>, Error> {
        let properties = Properties::new(&self.settings, &settings.name).producing(settings).finish();
        let guarantee = match settings.transactional_id {
            Some(_) => Guarantee::ExactlyOnce(Transaction::None),
            None => Guarantee::AtLeastOnce(Arc::clone(&self.memberships)),
        };
        let producer = KafkaProducer::new(properties, guarantee).map_err(|error| setting(&error))?;
        Ok(Box::new(producer))
    }

    fn join(&self, settings: &MembershipSettings) -> Result<Box<dyn Membership>, Error> {
        let properties = Properties::new(&self.settings, &settings.client_id)
            .consumer()
            .joining(settings, self.settings.group_protocol)
            .finish();
        let topics = settings.topics.iter().map(TopicName::as_str);
        let member = Member::join(&properties, topics).map_err(|error| setting(&error))?;
        let lifetime = if settings.instance_id.is_some() { Lifetime::Static } else { Lifetime::Dynamic };
        let membership = KafkaMembership::new(member, lifetime);
        self.memberships.add(membership.handle());
        Ok(Box::new(membership))
    }
}

/// A client that cannot be made has a wrong property.
fn setting(error: &NativeError) -> Error {
    match translate(error, Subject::Cluster, None) {
        setting @ Error::Setting { .. } => setting,
        other => Error::Setting { reason: other.to_string() },
    }
}

/// What librdkafka puts into one batch unless told otherwise.
const BATCH_BYTES: usize = 1_000_000;

/// A client's properties: defaults that the user may change, the user's, and those that must hold.
#[derive(Debug)]
struct Properties {
    defaults: Vec<(String, String)>,
    user: Vec<(String, String)>,
    fixed: Vec<(String, String)>,
}

impl Properties {
    fn new(settings: &KafkaSettings, client_id: &str) -> Self {
        let user = settings.properties.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        Self { defaults: Vec::new(), user, fixed: Vec::new() }
            .fixed("bootstrap.servers", &settings.brokers)
            .fixed("client.id", client_id)
            // Doubled with each failure. Half of it is also how long a new client waits between the broker that it was
            // told and the one that it learns of.
            .default("reconnect.backoff.ms", "20")
            .default("reconnect.backoff.max.ms", "2000")
            .default("retry.backoff.max.ms", "100")
            .default("retry.backoff.ms", "5")
    }

    fn default(mut self, name: &str, value: impl ToString) -> Self {
        self.defaults.push((name.to_owned(), value.to_string()));
        self
    }

    fn fixed(mut self, name: &str, value: impl ToString) -> Self {
        self.fixed.push((name.to_owned(), value.to_string()));
        self
    }

    fn fixed_if(self, holds: bool, name: &str, value: impl ToString) -> Self {
        if holds { self.fixed(name, value) } else { self }
    }

    fn consumer(self) -> Self {
        self.fixed("isolation.level", "read_committed")
            .fixed("auto.offset.reset", "error")
            .fixed("enable.auto.commit", "false")
            .fixed("enable.auto.offset.store", "false")
    }

    fn fetching(self, settings: &KafkaSettings) -> Self {
        self.default("fetch.queue.backoff.ms", "10")
            .default("queued.min.messages", limits::FETCH_QUEUE_RECORDS)
            .default("queued.max.messages.kbytes", (settings.fetch_queue_bytes / 1024).max(1))
            .default("fetch.max.bytes", settings.fetch_queue_bytes.max(limits::DEFAULT_MAX_MESSAGE_BYTES))
            // A topic is made and seen before it is read: unknown means missing, and is told soon.
            .default("topic.metadata.propagation.max.ms", "5000")
            .fixed("enable.partition.eof", "true")
    }

    fn joining(self, settings: &MembershipSettings, protocol: GroupProtocol) -> Self {
        let joining = self
            .fixed("group.id", &settings.group)
            .fixed("max.poll.interval.ms", settings.max_poll_interval.as_millis())
            // The one fetch that may start before its partition is paused.
            .fixed("queued.min.messages", "1")
            .fixed("max.partition.fetch.bytes", "1");
        match protocol {
            GroupProtocol::Classic => {
                let classic = joining
                    .fixed("partition.assignment.strategy", "cooperative-sticky")
                    .fixed("session.timeout.ms", settings.session_timeout.as_millis())
                    .fixed("heartbeat.interval.ms", settings.heartbeat_interval.as_millis());
                match &settings.instance_id {
                    Some(instance_id) => classic.fixed("group.instance.id", instance_id),
                    None => classic,
                }
            }
            // The broker sets session and heartbeat; static members are not for this protocol (EXACTLY-ONCE 11e).
            GroupProtocol::Consumer => joining.fixed("group.protocol", "consumer"),
        }
    }

    fn producing(self, settings: &ProducerSettings) -> Self {
        // A transaction's records are seen at its commit, which does not wait for stragglers; without one, a record is
        // seen when it is sent. Batches form all the same, while earlier ones are under way.
        let linger_ms = if settings.transactional_id.is_some() { 5 } else { 0 };
        let producing = self
            .default("linger.ms", linger_ms)
            // Every commit waits for the one before it at the coordinator, by retrying.
            .default("retry.backoff.ms", "2")
            .default("retry.backoff.max.ms", "20")
            .default("queue.buffering.max.kbytes", (settings.queue_bytes / 1024).max(1))
            .fixed("message.max.bytes", settings.max_message_bytes)
            // The client fills batches for all topics alike: one that is more than a topic takes would be refused, however
            // small its records are.
            .default("batch.size", BATCH_BYTES)
            .fixed_if(settings.batch_bytes < BATCH_BYTES, "batch.size", settings.batch_bytes)
            .fixed("enable.idempotence", "true")
            .fixed("acks", "all")
            .fixed("message.timeout.ms", limits::TRANSACTION_TIMEOUT.as_millis());
        match &settings.transactional_id {
            Some(id) => producing
                .fixed("transactional.id", id)
                .fixed("transaction.timeout.ms", limits::TRANSACTION_TIMEOUT.as_millis()),
            None => producing,
        }
    }

    /// Later ones win.
    fn finish(self) -> Vec<(String, String)> {
        self.defaults.into_iter().chain(self.user).chain(self.fixed).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Next;

    #[test]
    fn settings_never_show_a_propertys_value() {
        let mut settings = KafkaSettings::new("localhost:9092");
        settings.properties.insert("sasl.password".to_owned(), "hunter2".to_owned());
        let shown = format!("{settings:?}");
        assert!(shown.contains("sasl.password") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn an_unknown_property_is_a_mistake_in_the_settings() {
        let mut settings = KafkaSettings::new("localhost:9092");
        settings.properties.insert("no.such.property".to_owned(), "1".to_owned());
        let error = KafkaLog::new(settings).unwrap_err();
        assert_eq!(error.next(), Next::Stop);
        assert!(error.to_string().contains("no.such.property"), "{error}");
    }

    #[test]
    fn what_correctness_needs_wins_over_a_users_property() {
        let mut settings = KafkaSettings::new("localhost:9092");
        settings.properties.insert("isolation.level".to_owned(), "read_uncommitted".to_owned());
        settings.properties.insert("auto.offset.reset".to_owned(), "earliest".to_owned());
        let properties = Properties::new(&settings, "x").consumer().finish();
        let last = |name: &str| properties.iter().rfind(|(known, _)| known == name).map(|(_, value)| value.as_str());
        assert_eq!(last("isolation.level"), Some("read_committed"));
        assert_eq!(last("auto.offset.reset"), Some("error"));
    }
}
