//! What every schedule runs: one topology, and input drawn from a seed.
//!
//! The topology has one step of each kind that commits differently: totals, a table of them and a filter over them
//! (`changes`, tombstones), a list per record (`over`), windows that close by the time of one source (with late records) and behind a repartition
//! topic (by the time of all its upstream tasks, idle ones left out), a stream joined with a table that has its own
//! changelog and with one whose topic is its changelog, and a table grouped anew (old images subtracted).
//!
//! What makes the no-fault run the only right answer:
//! - `events` are alone in their sub-topology, so their order is fixed, whatever their times.
//! - The topics of the join are complete before the first instance starts, and are merged by time without limit.
//! - Event time has two epochs, each shorter than the grace of the windows behind the repartition topic, so that nothing of
//!   an epoch makes something of it late there, whichever partition is idle in the meantime.
//! - Between the epochs stands a gap, and only one partition is told of it ([`closer`]): the other one's windows close
//!   because it goes idle, whenever that is. It is told only when the other one cannot have been idle before its last
//!   record came (or has committed all of them): unread data is never idle, but who is idle may get new data.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use sidestream::ids::Partition;
use sidestream::log::partitioner::partition_of;
use sidestream::topology::{self, Plan};

pub const PARTITIONS: u32 = 2;
/// 2026-01-01T00:00:00Z.
pub const START_MS: i64 = 1_767_225_600_000;
pub const IDLE_TIMEOUT: Duration = Duration::from_mins(2);
/// The user of records that only move event time on. Left out of every comparison.
pub const CLOSER: &str = "closer";
/// The user whose records the topic `recent` refuses.
pub const POISON: &str = "poison";
const EPOCH_MS: i64 = 2 * 3_600_000;

/// Which version of the topology an instance runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    First,
    /// With one aggregate more in a store that exists. Runs beside the first.
    Second,
    /// With one source more, and so with another ownership map: the topic that represents the join is another one. Must
    /// not run beside the others.
    Third,
}

impl Version {
    /// Whether both have the same ownership map.
    pub fn agrees_with(self, other: Self) -> bool {
        (self == Self::Third) == (other == Self::Third)
    }
}

#[derive(Clone, Debug)]
pub struct Scenario {
    first: Arc<Plan>,
    second: Arc<Plan>,
    third: Arc<Plan>,
}

/// A record of a user's topic.
#[derive(Clone, Debug)]
pub struct Given {
    pub topic: &'static str,
    pub partition: Partition,
    pub key: String,
    pub value: Option<String>,
    pub at: i64,
}

/// What is read from the topics.
#[derive(Clone, Debug, Default)]
pub struct Input {
    /// In the log before anything starts.
    pub before: Vec<Given>,
    /// Written while the schedule runs: one list per epoch.
    pub epochs: [Vec<Given>; 2],
}

impl Scenario {
    pub fn new() -> Self {
        Self { first: plan(Version::First), second: plan(Version::Second), third: plan(Version::Third) }
    }

    pub fn plan(&self, version: Version) -> &Arc<Plan> {
        match version {
            Version::First => &self.first,
            Version::Second => &self.second,
            Version::Third => &self.third,
        }
    }
}

/// How many different inputs there are: the no-fault run is made once for each.
pub const INPUTS: u64 = 24;

impl Input {
    pub fn of(number: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(number);
        let users: Vec<String> = (0..random.u32(3..7)).map(|user| format!("user-{user}")).collect();
        let mut input = Self { before: joined(&users, &mut random), ..Self::default() };
        for (epoch, events) in input.epochs.iter_mut().enumerate() {
            let base = START_MS + i64::try_from(epoch).unwrap() * EPOCH_MS;
            *events = epoch_of(base, &users, &mut random);
        }
        input
    }
}

/// A record that moves the event time of one partition on, and does nothing else.
pub fn closer(after_epoch: usize, number: i64) -> Given {
    let at = START_MS + i64::try_from(after_epoch).unwrap() * EPOCH_MS + EPOCH_MS / 2 + number;
    let value = json!({"item": null, "value": 0, "at": at}).to_string();
    Given { topic: "events", partition: Partition(0), key: CLOSER.to_owned(), value: Some(value), at }
}

fn epoch_of(base: i64, users: &[String], random: &mut fastrand::Rng) -> Vec<Given> {
    let mut time = base;
    (0..random.usize(15..40))
        .map(|_| {
            time += random.i64(0..8000);
            // Out of order by up to 20 seconds: late for the windows of its user, never for those of its item.
            let at = if random.u32(..4) == 0 { (time - random.i64(0..20_000)).max(base) } else { time };
            let mut user = random.choice(users).unwrap().clone();
            let item = (random.u32(..8) > 0).then(|| format!("item-{}", random.u32(..3)));
            let mut value = json!({"item": item, "value": random.i64(-50..100), "at": at}).to_string();
            match random.u32(..60) {
                0 => POISON.clone_into(&mut user),
                1 => "not json".clone_into(&mut value),
                _ => {}
            }
            let partition = partition_of(user.as_bytes(), PARTITIONS);
            Given { topic: "events", partition, key: user, value: Some(value), at }
        })
        .collect()
}

/// Orders, accounts and limits in strictly growing time.
fn joined(users: &[String], random: &mut fastrand::Rng) -> Vec<Given> {
    (0..random.i64(15..40))
        .map(|number| {
            let at = START_MS + number * 10;
            let user = random.choice(users).unwrap().clone();
            let deletion = random.u32(..6) == 0;
            let (topic, value) = match random.u32(..4) {
                0 => (
                    "accounts",
                    json!({"home": format!("home-{}", random.u32(..3)), "size": random.i64(1..9), "at": at}),
                ),
                1 => ("limits", json!({"most": random.i64(1..9), "at": at})),
                _ => ("orders", json!({"amount": random.i64(1..99), "at": at})),
            };
            let value = (topic == "orders" || !deletion).then(|| value.to_string());
            Given { topic, partition: partition_of(user.as_bytes(), PARTITIONS), key: user, value, at }
        })
        .collect()
}

fn plan(version: Version) -> Arc<Plan> {
    let (aggregate, stream, name) = match version {
        Version::First => ("", "", ""),
        Version::Second => (", large: COUNT(*) FILTER (WHERE value > 50)", "", ""),
        Version::Third => ("", MORE, ", more"),
    };
    let text = TOPOLOGY.replace("AGGREGATE", aggregate).replace("STREAM", stream).replace("NAME", name);
    match topology::load_text("simulation.yaml", &text, None, &|_| None) {
        Ok(loaded) => Arc::new(loaded.plan),
        Err(diagnostics) => panic!("{diagnostics:?}"),
    }
}

const TOPOLOGY: &str = r#"
version: 1
name: app
streams:
  events:
    topic: events
    key: {name: user, type: STRING}
    format: json
    columns: {item: STRING, value: BIGINT NOT NULL, at: TIMESTAMP NOT NULL}
    timestamp: at
    watermark: {delay: 0s, idle_timeout: 2m}
  orders:
    topic: orders
    key: {name: user, type: STRING}
    format: json
    columns: {amount: BIGINT NOT NULL, at: TIMESTAMP NOT NULL}
    timestamp: at
  few:
    topic: a-few
    key: {name: user, type: STRING}
    format: json
    columns: {amount: BIGINT NOT NULL, at: TIMESTAMP NOT NULL}
    timestamp: at
STREAM
tables:
  accounts:
    topic: accounts
    key: {name: user, type: STRING}
    format: json
    columns: {home: STRING, size: BIGINT, at: TIMESTAMP}
    timestamp: at
  limits:
    topic: limits
    key: {name: user, type: STRING}
    format: json
    columns: {most: BIGINT, at: TIMESTAMP}
    timestamp: at
    bootstrap: false
steps:
  totals:
    from: events
    group_by: user
    aggregate: {n: COUNT(*), total: SUM(value)AGGREGATE}
    ttl: none
    to: totals
  doubled:
    from: totals
    group_by: user
    aggregate: {n: SUM(n), total: SUM(2 * total)}
    ttl: none
    to: doubled
  busy:
    from: totals
    where: total > 60
    select: user, n, total
    to: busy
  recent:
    from: events
    over: {by: user, rows: 3, aggregate: {n3: COUNT(*), sum3: SUM(value)}}
    ttl: none
    select: user, value, n3, sum3
    to: recent
  local:
    from: events
    window: {type: tumbling, size: 10s, grace: 2s}
    group_by: user
    aggregate: {n: COUNT(*), total: SUM(value)}
    emit: final
    retention: 30m
    late: {to: late}
    to: local
  items:
    from: events
    where: item IS NOT NULL
    window: {type: tumbling, size: 10s, grace: 10m}
    group_by: item
    aggregate: {n: COUNT(*), total: SUM(value), least: MIN(value)}
    emit: final
    to: items
  stock:
    from: events
    where: item IS NOT NULL
    group_by: item
    aggregate: {n: COUNT(*), total: SUM(value)}
    ttl: none
    to: stock
  enriched:
    from: orders
    join:
      - {with: accounts, type: left, "on": orders.user = accounts.user}
      - {with: limits, type: left, "on": orders.user = limits.user}
    select: user, amount, home, most
    to: enriched
  homes:
    from: accounts
    group_by: home
    aggregate: {n: COUNT(*), size: SUM(size)}
    ttl: none
    to: homes
  huge:
    from: [orders, fewNAME]
    where: amount > 1000000
    to: huge
"#;

const MORE: &str = "
  more:
    topic: a-more
    key: {name: user, type: STRING}
    format: json
    columns: {amount: BIGINT NOT NULL, at: TIMESTAMP NOT NULL}
    timestamp: at
";
