//! What a test expects, against what a run has left in topics and tables.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::super::output::Failure;
use super::super::record::{SinkReader, rules_of};
use super::compare::{Extent, Object, canonical, difference, text};
use super::session::Session;
use crate::format::json::row_to_json;
use crate::log::Record;
use crate::schema::Schema;
use crate::topology::Plan;
use crate::topology::diagnostic::Span;
use crate::topology::document::{Expect, ExpectTopic};
use crate::topology::plan::{OperatorPlan, Shape};

/// An expectation that was not met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miss {
    /// Of the expectation, in the test's file.
    pub span: Span,
    /// What it is about and what is different.
    pub lines: Vec<String>,
}

/// What a topic holds, in the form in which it is compared.
#[derive(Clone, Debug, Default, PartialEq)]
struct TopicContents {
    /// Values with their key columns, in the order of partition and offset.
    rows: Vec<Object>,
    /// Keys of records without a value.
    tombstones: Vec<Object>,
    /// Every record's key with its value, in order.
    records: Vec<(String, Option<String>)>,
}

/// All that is not as expected.
pub fn check(plan: &Plan, session: &Session, expected: &[Expect]) -> Result<Vec<Miss>, Failure> {
    let mut misses = Vec::new();
    for expectation in expected {
        match expectation {
            Expect::Topic(topic) => misses.extend(check_topic(plan, session, topic)),
            Expect::Table { table, rows, span } => {
                let lines = check_table(plan, session, &table.text, rows)?;
                misses.extend((!lines.is_empty()).then(|| Miss { span: span.clone(), lines }));
            }
            Expect::Nothing { topics, span } => {
                for topic in topics {
                    let lines = match contents(plan, session, &topic.text) {
                        Err(reason) => vec![reason],
                        Ok(contents) if contents.records.is_empty() => continue,
                        Ok(contents) => {
                            let mut lines = vec![format!(
                                "topic {}: expected nothing, found {} records",
                                topic.text,
                                contents.records.len()
                            )];
                            lines.extend(contents.rows.iter().map(|row| format!("  + unexpected  {}", text(row))));
                            lines
                        }
                    };
                    misses.push(Miss { span: span.clone(), lines });
                }
            }
        }
    }
    Ok(misses)
}

// ---- topics --------------------------------------------------------------------------------------------------------

fn check_topic(plan: &Plan, session: &Session, expected: &ExpectTopic) -> Option<Miss> {
    let name = &expected.topic.text;
    let lines = match contents(plan, session, name) {
        Ok(found) => topic_difference(plan, name, expected, &found),
        Err(reason) => vec![reason],
    };
    (!lines.is_empty()).then(|| Miss { span: expected.span.clone(), lines })
}

fn topic_difference(plan: &Plan, name: &str, expected: &ExpectTopic, found: &TopicContents) -> Vec<String> {
    let mut lines = Vec::new();
    let values = found.rows.len();
    if let Some(count) = expected.count
        && count != values as u64
    {
        lines.push(format!("topic {name}: expected {count} records, found {values}"));
        // Where rows are compared too, those lines say more.
        if expected.contains.is_empty() && expected.exactly.is_none() {
            lines.extend(found.rows.iter().map(|row| format!("    found       {}", text(row))));
        }
    }
    let rules = rules_of(plan, name);
    let schemas: Vec<&Schema> = rules.iter().flat_map(|rule| [&rule.value_schema, &rule.key_schema]).collect();
    if !expected.contains.is_empty() {
        lines.extend(rows_difference(
            &format!("topic {name}"),
            &expected.contains,
            &found.rows,
            Extent::Contains,
            &schemas,
        ));
    }
    if let Some(exactly) = &expected.exactly {
        lines.extend(rows_difference(&format!("topic {name}"), exactly, &found.rows, Extent::Exactly, &schemas));
    }
    if let Some(tombstones) = &expected.tombstones {
        let keys: Vec<&Schema> = rules.iter().map(|rule| &rule.key_schema).collect();
        let expected: Vec<Json> = tombstones.iter().map(|key| named_key(key, &keys)).collect();
        let what = format!("topic {name}, tombstones");
        lines.extend(rows_difference(&what, &expected, &found.tombstones, Extent::Exactly, &keys));
    }
    lines
}

/// The plain value of a key of one column as an object.
fn named_key(key: &Json, schemas: &[&Schema]) -> Json {
    let name = schemas.iter().find_map(|schema| match schema.columns() {
        [column] => Some(column.name.to_string()),
        _ => None,
    });
    match name {
        Some(name) if !key.is_object() => Json::Object([(name, key.clone())].into_iter().collect()),
        Some(_) | None => key.clone(),
    }
}

fn contents(plan: &Plan, session: &Session, topic: &str) -> Result<TopicContents, String> {
    let records = session.topic(topic).ok_or_else(|| {
        let known: Vec<String> =
            crate::task::facts::output_topics(plan).iter().map(|topic| format!("`{topic}`")).collect();
        format!("there is no topic `{topic}`; the topology writes {}", known.join(", "))
    })?;
    let mut readers: Vec<SinkReader> = rules_of(plan, topic).into_iter().map(SinkReader::new).collect();
    let mut contents = TopicContents::default();
    for (_, record) in &records {
        let row = object(&mut readers, record);
        let key = String::from_utf8_lossy(record.key().unwrap_or_default()).into_owned();
        if record.value().is_some() {
            contents.records.push((key, Some(text(&row))));
            contents.rows.push(row);
        } else {
            contents.records.push((key, None));
            contents.tombstones.push(row);
        }
    }
    Ok(contents)
}

/// A record by the rule that wrote it; of topics without one (dead letters, late records) what its bytes say.
fn object(readers: &mut [SinkReader], record: &Record) -> Object {
    for reader in readers {
        if let Ok(object) = reader.object(record.key(), record.value()) {
            return object;
        }
    }
    match serde_json::from_slice(record.value().unwrap_or_default()) {
        Ok(Json::Object(object)) => object,
        Ok(other) => [("value".to_owned(), other)].into_iter().collect(),
        Err(_) => {
            let text = String::from_utf8_lossy(record.value().unwrap_or_default()).into_owned();
            [("value".to_owned(), Json::String(text))].into_iter().collect()
        }
    }
}

// ---- tables --------------------------------------------------------------------------------------------------------

fn check_table(plan: &Plan, session: &Session, name: &str, expected: &[Json]) -> Result<Vec<String>, Failure> {
    let Some(table) = plan.tables.iter().find(|table| &*table.name == name) else {
        let known: Vec<&str> = plan.tables.iter().map(|table| &*table.name).collect();
        return Ok(vec![format!("there is no table `{name}`; there are {}", known.join(", "))]);
    };
    let found = session.table(table)?;
    let actual: Vec<Object> = found.iter().map(|row| row_to_json(&row.row, &table.schema)).collect();
    let schemas = [&table.schema, &table.key];
    Ok(rows_difference(&format!("table {name}"), expected, &actual, Extent::Exactly, &schemas))
}

fn rows_difference(
    what: &str,
    expected: &[Json],
    actual: &[Object],
    extent: Extent,
    schemas: &[&Schema],
) -> Vec<String> {
    let expected: Result<Vec<Object>, String> = expected.iter().map(|row| canonical(row, schemas)).collect();
    let expected = match expected {
        Ok(expected) => expected,
        Err(reason) => return vec![format!("{what}: {reason}")],
    };
    let lines = difference(&expected, actual, extent);
    if lines.is_empty() {
        return lines;
    }
    let header = format!("{what}: expected {} rows, found {}", expected.len(), actual.len());
    std::iter::once(header).chain(lines.into_iter().map(|line| format!("  {line}"))).collect()
}

// ---- a run with a fault beside the run without -----------------------------------------------------------------------

/// What a run has left behind that no fault may change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remains {
    tables: BTreeMap<String, Vec<String>>,
    topics: BTreeMap<String, Vec<String>>,
}

/// Tables row by row. Of topics that a stream writes, every record; of those that a table writes, the last value per key,
/// since commits may fall elsewhere. Behind a repartition the order of upstream partitions is free: only tables count.
pub fn remains(plan: &Plan, session: &Session) -> Result<Remains, Failure> {
    let mut remains = Remains::default();
    for table in &plan.tables {
        let found = session.table(table)?;
        let mut rows: Vec<String> = found.iter().map(|row| text(&row_to_json(&row.row, &table.schema))).collect();
        rows.sort();
        remains.tables.insert(table.name.to_string(), rows);
    }
    for (topic, shape) in comparable_topics(plan) {
        let contents = contents(plan, session, &topic).map_err(Failure::new)?;
        let line = |key: &str, value: Option<&str>| format!("{key} {}", value.unwrap_or("deleted"));
        let mut records: Vec<String> = match shape {
            Shape::Stream => contents.records.iter().map(|(key, value)| line(key, value.as_deref())).collect(),
            Shape::Table => {
                let last: BTreeMap<&String, &Option<String>> =
                    contents.records.iter().map(|(key, value)| (key, value)).collect();
                last.into_iter().map(|(key, value)| line(key, value.as_deref())).collect()
            }
        };
        records.sort();
        remains.topics.insert(topic, records);
    }
    Ok(remains)
}

/// Topics that are written only by parts of the topology that read no repartition topic.
fn comparable_topics(plan: &Plan) -> BTreeMap<String, Shape> {
    let mut topics = BTreeMap::new();
    let mut free = BTreeSet::new();
    for part in &plan.sub_topologies {
        let ordered = part.sources.iter().all(|source| source.repartition.is_none());
        for node in &part.nodes {
            let OperatorPlan::Sink(sink) = &node.operator else { continue };
            for rule in &sink.rules {
                let topic = rule.topic.to_string();
                if !ordered {
                    free.insert(topic);
                } else if sink.input == Shape::Table {
                    topics.insert(topic, Shape::Table);
                } else {
                    topics.entry(topic).or_insert(Shape::Stream);
                }
            }
        }
    }
    topics.retain(|topic, _| !free.contains(topic));
    topics
}

impl Remains {
    /// How this run differs from the one without a fault; empty where it does not.
    pub fn differences(&self, clean: &Self) -> Vec<String> {
        let tables = self.tables.iter().map(|(name, rows)| (format!("table {name}"), rows, clean.tables.get(name)));
        let topics = self.topics.iter().map(|(name, rows)| (format!("topic {name}"), rows, clean.topics.get(name)));
        let mut lines = Vec::new();
        for (what, found, expected) in tables.chain(topics) {
            let none = Vec::new();
            let expected = expected.unwrap_or(&none);
            if found == expected {
                continue;
            }
            lines.push(format!("{what}: not as in the run without the fault"));
            lines.extend(beyond(expected, found).map(|row| format!("  - missing     {row}")));
            lines.extend(beyond(found, expected).map(|row| format!("  + unexpected  {row}")));
        }
        lines
    }
}

/// What `rows` has more often than `others`. Both are sorted.
fn beyond<'a>(rows: &'a [String], others: &[String]) -> impl Iterator<Item = &'a String> {
    let mut left: BTreeMap<&str, usize> = BTreeMap::new();
    for row in others {
        *left.entry(row).or_default() += 1;
    }
    let left: BTreeMap<String, usize> = left.into_iter().map(|(row, count)| (row.to_owned(), count)).collect();
    let mut left = left;
    rows.iter().filter(move |row| match left.get_mut(*row) {
        Some(count) if *count > 0 => {
            *count -= 1;
            false
        }
        Some(_) | None => true,
    })
}
