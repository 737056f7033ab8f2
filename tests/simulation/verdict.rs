//! What is left when everything is over, and whether it is what the no-fault run has left.
//!
//! Equal means, in the order of what is compared (see `scenario` for why each is fixed):
//! - outputs per record and `final` ones: the same records per key in the same order, each once;
//! - `changes`: per key a strictly growing subsequence of the running result, with the same last value;
//! - dead letters and late records: the same, each once;
//! - tables: the same rows, each with one owner;
//! - committed offsets of the user's topics: the same;
//! - local state: exactly what its changelog says.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use sidestream::ids::{Partition, TopicName, TopicPartition};
use sidestream::log::Log;
use sidestream::log::memory::MemoryLog;
use sidestream::runtime::View;
use sidestream::runtime::view::ScanRequest;
use sidestream::store::{SharedBackend, StorePartition};
use sidestream::topology::Plan;

use super::pod;
use super::scenario::{self, Input, PARTITIONS};

/// Per record or once per window: compared in order.
const IN_ORDER: &[&str] = &["recent", "local", "enriched"];
/// Once per window, from several upstream partitions: compared without order.
const AS_SETS: &[&str] = &["items", "late"];
/// The latest per key and commit: the last value is compared.
const LAST: &[&str] = &["totals", "doubled", "busy", "stock", "homes"];
const TABLES: &[&str] = &["totals", "doubled", "local", "items", "stock", "homes", "accounts", "limits", "busy"];

type Sequences = BTreeMap<String, Vec<Value>>;

/// An instance that runs at the end.
pub struct Owner {
    pub plan: Arc<Plan>,
    pub view: Arc<View>,
    pub backend: SharedBackend,
}

#[derive(Debug, Default, PartialEq)]
pub struct Outcome {
    /// topic -> key -> values
    topics: BTreeMap<&'static str, Sequences>,
    dead_letters: Vec<String>,
    tables: BTreeMap<&'static str, Vec<String>>,
    committed: BTreeMap<String, Option<i64>>,
    /// What contradicts itself.
    wrong: Vec<String>,
}

impl Outcome {
    pub fn of(log: &MemoryLog, owners: &[Owner]) -> Self {
        let mut outcome = Self::default();
        for &topic in IN_ORDER.iter().chain(AS_SETS).chain(LAST) {
            outcome.topics.insert(topic, sequences(log, topic));
        }
        outcome.dead_letters = dead_letters(log);
        for &table in TABLES {
            match rows_of(table, owners) {
                Ok(rows) => drop(outcome.tables.insert(table, rows)),
                Err(problem) => outcome.wrong.push(problem),
            }
        }
        for topic in ["events", "orders", "accounts", "limits"] {
            for partition in (0..PARTITIONS).map(Partition) {
                let at = TopicPartition::new(topic, partition);
                let committed = log.committed("app", std::slice::from_ref(&at));
                let offset = committed.ok().and_then(|mut found| found.remove(0)).map(|found| found.offset.0);
                // How many closers there were is up to the schedule.
                let end = log.high_watermark(&at).unwrap().0;
                let offset = if topic == "events" { offset.map(|offset| offset - end) } else { offset };
                outcome.committed.insert(at.to_string(), offset);
            }
        }
        check_changelogs(log, owners, &mut outcome.wrong);
        outcome
    }

    /// What differs from the no-fault run, in words.
    pub fn differences(&self, expected: &Self, input: &Input) -> Vec<String> {
        let mut differences = self.wrong.clone();
        for topic in IN_ORDER {
            compare(topic, &self.topics[topic], &expected.topics[topic], &mut differences);
        }
        for topic in AS_SETS {
            compare(topic, &sorted(&self.topics[topic]), &sorted(&expected.topics[topic]), &mut differences);
        }
        for topic in LAST {
            compare(topic, &last(&self.topics[topic]), &last(&expected.topics[topic]), &mut differences);
        }
        check_totals(&self.topics["totals"], input, &mut differences);
        if self.dead_letters != expected.dead_letters {
            differences.push(format!("dead letters: {:?}, not {:?}", self.dead_letters, expected.dead_letters));
        }
        for table in TABLES {
            if self.tables.get(table) != expected.tables.get(table) {
                let (is, should) = (self.tables.get(table), expected.tables.get(table));
                differences.push(format!("table {table}: {is:?}, not {should:?}"));
            }
        }
        if self.committed != expected.committed {
            differences.push(format!("committed offsets: {:?}, not {:?}", self.committed, expected.committed));
        }
        differences
    }

    /// That the no-fault run itself makes sense.
    pub fn check_sense(&self, input: &Input) -> Vec<String> {
        let mut wrong = self.wrong.clone();
        check_totals(&self.topics["totals"], input, &mut wrong);
        for topic in IN_ORDER.iter().chain(AS_SETS).chain(LAST) {
            if self.topics[topic].is_empty() && *topic != "late" {
                wrong.push(format!("nothing came out of {topic}"));
            }
        }
        for (partition, offset) in &self.committed {
            if offset.is_none() {
                wrong.push(format!("{partition} has no committed offset"));
            }
        }
        wrong
    }
}

fn sequences(log: &MemoryLog, topic: &str) -> Sequences {
    let mut sequences = Sequences::new();
    for (partition, record) in log.topic_records(&TopicName::from(topic)).unwrap() {
        let key = String::from_utf8_lossy(record.key().unwrap_or_default()).into_owned();
        if key.contains(scenario::CLOSER) {
            continue;
        }
        let mut value: Value = record.value().map_or(Value::Null, |value| serde_json::from_slice(value).unwrap());
        if let Some(columns) = value.as_object_mut() {
            // The second version's own.
            columns.remove("large");
        }
        sequences.entry(format!("{key}@{partition}")).or_default().push(value);
    }
    sequences
}

fn sorted(sequences: &Sequences) -> Sequences {
    let mut sequences = sequences.clone();
    for values in sequences.values_mut() {
        values.sort_by_key(ToString::to_string);
    }
    sequences
}

fn last(sequences: &Sequences) -> Sequences {
    let last = sequences.iter().filter_map(|(key, values)| Some((key.clone(), vec![values.last()?.clone()])));
    last.filter(|(_, values)| values[0] != Value::Null).collect()
}

fn compare(topic: &str, is: &Sequences, should: &Sequences, differences: &mut Vec<String>) {
    let keys: std::collections::BTreeSet<&String> = is.keys().chain(should.keys()).collect();
    for key in keys {
        let (is, should) = (is.get(key), should.get(key));
        if is != should {
            let text = |values: Option<&Vec<Value>>| {
                values.map_or("nothing".to_owned(), |values| {
                    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
                })
            };
            differences.push(format!("{topic} {key}:\n      {}\n  not {}", text(is), text(should)));
        }
    }
}

/// Per user a strictly growing subsequence of the running totals, worked out here.
fn check_totals(totals: &Sequences, input: &Input, wrong: &mut Vec<String>) {
    let mut running: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for given in input.epochs.iter().flatten() {
        let value = given.value.as_deref().and_then(|value| serde_json::from_str::<Value>(value).ok());
        let Some(value) = value else { continue };
        if given.key == scenario::POISON {
            continue;
        }
        let sums = running.entry(format!("{}@{}", given.key, given.partition)).or_default();
        let before = sums.last().copied().unwrap_or_default();
        sums.push(before + value["value"].as_i64().unwrap());
    }
    for (user, sums) in &running {
        let mut before = 0;
        for value in totals.get(user).map_or(&[][..], |values| values) {
            let count = value["n"].as_u64().unwrap_or_default();
            let sum = usize::try_from(count).ok().and_then(|count| sums.get(count.checked_sub(1)?));
            if count <= before || sum.copied() != value["total"].as_i64() {
                wrong.push(format!("totals {user}: {value} after {before} records, of the running sums {sums:?}"));
            }
            before = count;
        }
        if before != sums.len() as u64 {
            wrong.push(format!("totals {user}: ends at {before} of {} records", sums.len()));
        }
    }
}

/// Where each came from and why, sorted.
fn dead_letters(log: &MemoryLog) -> Vec<String> {
    let Ok(records) = log.topic_records(&TopicName::from("app.dead-letters")) else { return Vec::new() };
    let mut letters: Vec<String> = records
        .iter()
        .map(|(_, record)| {
            let headers = record.headers();
            let of = |name: &str| {
                let header = headers.iter().find(|header| &*header.name == name);
                let value = header.and_then(|header| header.value.as_deref()).unwrap_or_default();
                String::from_utf8_lossy(value).into_owned()
            };
            let key = String::from_utf8_lossy(record.key().unwrap_or_default()).into_owned();
            let value = String::from_utf8_lossy(record.value().unwrap_or_default()).into_owned();
            // The code may be another one: a record that cannot be read is also refused while dead letters are.
            let step = of("sidestream.step");
            format!("{step} {}-{} {key} {value}", of("sidestream.topic"), of("sidestream.partition"))
        })
        .collect();
    letters.sort();
    letters
}

fn rows_of(table: &str, owners: &[Owner]) -> Result<Vec<String>, String> {
    let mut rows = Vec::new();
    for Owner { view, .. } in owners {
        let plan = view.table(table).map_err(|error| format!("table {table}: {error}"))?;
        let found = view
            .scan(plan, &ScanRequest { limit: 10_000, ..ScanRequest::default() })
            .map_err(|error| format!("table {table}: {error}"))?;
        let large = plan.schema.columns().iter().position(|column| &*column.name == "large");
        rows.extend(found.into_iter().map(|row| {
            let mut columns = row.row.clone();
            if let Some(large) = large {
                columns.remove(large);
            }
            format!("{:?} {columns:?} in {}", row.key, row.partition)
        }));
    }
    rows.retain(|row| !row.contains(scenario::CLOSER));
    rows.sort();
    Ok(rows)
}

/// The rows of every owned store partition are the latest per key of its changelog.
fn check_changelogs(log: &MemoryLog, owners: &[Owner], wrong: &mut Vec<String>) {
    for Owner { plan, view, backend } in owners {
        let Some(facts) = view.facts() else { continue };
        for task in view.tasks() {
            for &store in &plan.sub_topologies[task.id.sub_topology.0 as usize].stores {
                if facts.changelog(store).is_source {
                    continue;
                }
                let partition = task.id.partition;
                let mut latest = BTreeMap::new();
                for record in log.records(&facts.changelog_partition(store, partition)).unwrap() {
                    let key = record.key().unwrap_or_default().to_vec();
                    match record.value() {
                        Some(value) => drop(latest.insert(key, value.to_vec())),
                        None => drop(latest.remove(&key)),
                    }
                }
                let stored: BTreeMap<_, _> =
                    pod::rows(&**backend, StorePartition { store, partition }).into_iter().collect();
                if stored != latest {
                    let name = &plan.stores[store.index()].name;
                    let (stored, latest) = (stored.len(), latest.len());
                    wrong.push(format!(
                        "state of {name} in {partition} is not what its changelog says ({stored} rows, {latest} there)"
                    ));
                }
            }
        }
    }
}
