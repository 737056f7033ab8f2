//! Reads the output topics as any other consumer would, for people to look at: records that are committed, and how long
//! after their event they could be read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;
use parking_lot::Mutex;
use serde_json::{Map, Value as Json};

use super::super::output::Failure;
use super::super::record::{SinkReader, rules_of};
use super::super::stop::Stop;
use super::share::Share;
use crate::clock::SharedClock;
use crate::ids::{Offset, Partition, TopicName, TopicPartition};
use crate::log::memory::MemoryLog;
use crate::log::{self, FetchSlot, Fetched, Fetcher, Log as _, OffsetQuery, Record};
use crate::topology::Plan;

/// Events that were read together.
const BATCH: usize = 2_000;
const WAIT: Duration = Duration::from_millis(20);
/// An event further back was not generated now: it says nothing about latency.
const LATENCY_LIMIT_MICROS: i64 = 10_000_000;

/// A record for the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub topic: TopicName,
    pub key: String,
    /// `None`: a deletion.
    pub value: Option<String>,
}

/// What the tap has seen.
#[derive(Clone, Debug, Default)]
pub struct Seen(Arc<Mutex<Counted>>);

#[derive(Debug, Default)]
struct Counted {
    records: u64,
    /// Microseconds, since they were last taken.
    latencies: Vec<i64>,
    /// Records beyond their topic's share of the screen.
    hidden: u64,
}

impl Seen {
    pub fn records(&self) -> u64 {
        self.0.lock().records
    }

    /// Median and 99th percentile of the latencies since the last call.
    pub fn take_latency(&self) -> Option<(Duration, Duration)> {
        let mut latencies = std::mem::take(&mut self.0.lock().latencies);
        latencies.sort_unstable();
        let at = |percent: usize| {
            let index = (latencies.len().saturating_sub(1)) * percent / 100;
            latencies.get(index).map(|micros| Duration::from_micros(u64::try_from(*micros).unwrap_or(0)))
        };
        at(50).zip(at(99))
    }

    /// How many records were not shown, since the last call.
    pub fn take_hidden(&self) -> u64 {
        std::mem::take(&mut self.0.lock().hidden)
    }
}

/// One topic.
struct Tapped {
    /// `None`: the record is shown as the text that it is.
    reader: Option<SinkReader>,
    share: Share,
}

/// See the module.
pub struct Tap {
    fetcher: Box<dyn Fetcher>,
    log: MemoryLog,
    /// By slot.
    partitions: Vec<TopicPartition>,
    topics: BTreeMap<TopicName, Tapped>,
    clock: SharedClock,
    seen: Seen,
    screen: Sender<Shown>,
}

impl std::fmt::Debug for Tap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tap").field("partitions", &self.partitions).finish_non_exhaustive()
    }
}

impl Tap {
    /// Over all partitions of the topics, which exist.
    pub fn new(
        log: &MemoryLog,
        plan: &Plan,
        topics: &[TopicName],
        clock: SharedClock,
        screen: Sender<Shown>,
    ) -> Result<Self, Failure> {
        let mut fetcher = log.fetcher("tap").map_err(Failure::new)?;
        let descriptions = log.describe_topics(topics).map_err(Failure::new)?;
        let mut partitions = Vec::new();
        let mut tapped = BTreeMap::new();
        for description in descriptions.into_iter().flatten() {
            let rule = rules_of(plan, description.name.as_str()).into_iter().next();
            let topic = Tapped { reader: rule.map(SinkReader::new), share: Share::among(topics.len()) };
            tapped.insert(description.name.clone(), topic);
            for number in 0..description.partitions {
                let slot = FetchSlot(u32::try_from(partitions.len()).unwrap_or(u32::MAX));
                let partition = TopicPartition::new(description.name.clone(), Partition(number));
                fetcher.assign(slot, &partition, Offset::ZERO).map_err(Failure::new)?;
                partitions.push(partition);
            }
        }
        Ok(Self { fetcher, log: log.clone(), partitions, topics: tapped, clock, seen: Seen::default(), screen })
    }

    pub fn seen(&self) -> Seen {
        self.seen.clone()
    }

    /// Reads until it is time to stop, and then what is left.
    pub fn run(mut self, stop: &Stop) -> Result<(), Failure> {
        let mut events = Vec::with_capacity(BATCH);
        loop {
            let stopped = stop.is_stopped();
            self.fetcher.fetch(&mut events, BATCH, WAIT).map_err(Failure::new)?;
            let mut records = 0;
            for event in events.drain(..) {
                match event {
                    Fetched::Record(slot, record) => {
                        records += 1;
                        self.take(slot, &record);
                    }
                    Fetched::End(..) => {}
                    Fetched::Failed(slot, error) => self.go_on(slot, &error)?,
                }
            }
            if stopped && records == 0 {
                return Ok(());
            }
        }
    }

    /// Where old records were forgotten before they were read: on with the oldest that is left.
    fn go_on(&mut self, slot: FetchSlot, error: &log::Error) -> Result<(), Failure> {
        let at = self.partitions.get(slot.0 as usize).filter(|_| error.next() == log::Next::Reposition);
        let Some(partition) = at else { return Err(Failure::new(error)) };
        let start = self.log.offsets(OffsetQuery::Start, std::slice::from_ref(partition)).map_err(Failure::new)?;
        let start = start.first().copied().unwrap_or_default();
        self.fetcher.assign(slot, partition, start).map_err(Failure::new)
    }

    fn take(&mut self, slot: FetchSlot, record: &Record) {
        let Some(TopicPartition { topic, .. }) = self.partitions.get(slot.0 as usize) else { return };
        let latency = self.clock.wall_micros() - record.timestamp.micros();
        let Some(tapped) = self.topics.get_mut(topic) else { return };
        let shown = tapped.share.take(self.clock.monotonic()).then(|| Shown {
            topic: topic.clone(),
            key: key_text(tapped.reader.as_mut(), record),
            value: value_text(tapped.reader.as_mut(), record),
        });
        let sent = shown.is_some_and(|shown| self.screen.try_send(shown).is_ok());
        let mut seen = self.seen.0.lock();
        seen.records += 1;
        seen.hidden += u64::from(!sent);
        if (0..LATENCY_LIMIT_MICROS).contains(&latency) {
            seen.latencies.push(latency);
        }
    }
}

fn key_text(reader: Option<&mut SinkReader>, record: &Record) -> String {
    let Some(bytes) = record.key() else { return "-".to_owned() };
    let decoded = reader.and_then(|reader| reader.object(Some(bytes), None).ok()).filter(|object| !object.is_empty());
    match decoded {
        Some(object) => object.values().map(as_text).collect::<Vec<_>>().join(" "),
        None => String::from_utf8_lossy(bytes).into_owned(),
    }
}

fn value_text(reader: Option<&mut SinkReader>, record: &Record) -> Option<String> {
    let bytes = record.value()?;
    let reason = record.headers().iter().find(|header| &*header.name == "sidestream.error.message").map(|header| {
        let reason = String::from_utf8_lossy(header.value.as_deref().unwrap_or_default()).into_owned();
        format!("{reason}: ")
    });
    let text = match (std::str::from_utf8(bytes), reader) {
        (Ok(text), _) => text.to_owned(),
        (Err(_), Some(reader)) => {
            reader.object(None, Some(bytes)).map_or_else(|_| format!("{} bytes", bytes.len()), |object| plain(&object))
        }
        (Err(_), None) => format!("{} bytes", bytes.len()),
    };
    Some(format!("{}{text}", reason.unwrap_or_default()))
}

/// One column as its value, several as an object.
fn plain(object: &Map<String, Json>) -> String {
    let mut values = object.values();
    match (values.next(), values.next()) {
        (Some(value), None) => as_text(value),
        _ => Json::Object(object.clone()).to_string(),
    }
}

fn as_text(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
