//! A task's event time: watermarks and idleness of its inputs, and what is stored of them (EXACTLY-ONCE rules 16, 17).
//!
//! - The watermark of a source partition is its highest event time less the source's delay; it never moves back.
//! - Of a repartition partition it is the least of what the upstream tasks have said; one that has said nothing yet holds
//!   it where it stands.
//! - The task's watermark is the least over its stream inputs that are not idle; tables hold none back. If all are idle
//!   it stays.
//!
//! Stored as one row of the task's meta store, by topic name, so that a changed topology finds what still concerns it.

use crate::ids::{EventTime, TopicName};
use crate::probe::{self, Rule};
use crate::store;

/// The key of the row in the meta store.
pub const KEY: &[u8] = b"time";

const VERSION: u8 = 1;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskTime {
    inputs: Vec<InputTime>,
    watermark: EventTime,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputTime {
    topic: TopicName,
    progress: Progress,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Progress {
    /// Does not hold the watermark back.
    Table,
    Source(Reported),
    /// One per upstream task.
    Upstream(Vec<Reported>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reported {
    watermark: EventTime,
    idle: bool,
}

impl Reported {
    const NOTHING: Self = Self { watermark: EventTime::MIN, idle: false };
}

/// What kind of input a source is, for its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputKind {
    Table,
    Source,
    Upstream { tasks: u32 },
}

impl TaskTime {
    pub fn new(inputs: impl IntoIterator<Item = (TopicName, InputKind)>) -> Self {
        let inputs = inputs
            .into_iter()
            .map(|(topic, kind)| InputTime {
                topic,
                progress: match kind {
                    InputKind::Table => Progress::Table,
                    InputKind::Source => Progress::Source(Reported::NOTHING),
                    InputKind::Upstream { tasks } => Progress::Upstream(vec![Reported::NOTHING; tasks as usize]),
                },
            })
            .collect();
        Self { inputs, watermark: EventTime::MIN }
    }

    pub fn watermark(&self) -> EventTime {
        self.watermark
    }

    /// A record of a source partition had this event time; `delay_ms` is the source's.
    pub fn observe(&mut self, input: usize, time: EventTime, delay_ms: i64) {
        if let Progress::Source(reported) = &mut self.inputs[input].progress {
            reported.watermark = reported.watermark.max(time.saturating_sub(delay_ms));
            reported.idle = false;
        }
        self.settle();
    }

    /// A record from an upstream task carried this.
    pub fn hear(&mut self, input: usize, upstream: u32, watermark: EventTime, idle: bool) {
        if let Progress::Upstream(tasks) = &mut self.inputs[input].progress
            && let Some(reported) = tasks.get_mut(upstream as usize)
        {
            reported.watermark = reported.watermark.max(watermark);
            reported.idle = idle;
        }
        self.settle();
    }

    /// The source partition's end has been reached and nothing has come for its `idle_timeout`.
    pub fn declare_idle(&mut self, input: usize) {
        if let Progress::Source(reported) = &mut self.inputs[input].progress {
            reported.idle = true;
        }
        self.settle();
    }

    pub fn is_idle(&self, input: usize) -> bool {
        match &self.inputs[input].progress {
            Progress::Table => true,
            Progress::Source(reported) => reported.idle,
            Progress::Upstream(tasks) => tasks.iter().all(|reported| reported.idle),
        }
    }

    /// Whether every stream input is idle.
    pub fn all_idle(&self) -> bool {
        let mut streams = self.inputs.iter().enumerate().filter(|(_, input)| input.progress != Progress::Table);
        streams.all(|(index, _)| self.is_idle(index))
    }

    /// The furthest that any source input has come.
    pub fn furthest(&self) -> EventTime {
        let reported = self.inputs.iter().filter_map(|input| match &input.progress {
            Progress::Source(reported) => Some(reported.watermark),
            Progress::Table | Progress::Upstream(_) => None,
        });
        reported.max().unwrap_or(EventTime::MIN)
    }

    /// Moves every source input to a time, as if a record of that time had been seen (tests).
    pub fn advance_to(&mut self, time: EventTime) {
        for input in &mut self.inputs {
            if let Progress::Source(reported) = &mut input.progress {
                reported.watermark = reported.watermark.max(time);
                reported.idle = false;
            }
        }
        self.settle();
    }

    fn settle(&mut self) {
        let least = self
            .inputs
            .iter()
            .filter_map(|input| match &input.progress {
                Progress::Table => None,
                Progress::Source(reported) => (!reported.idle).then_some(reported.watermark),
                Progress::Upstream(tasks) => {
                    let unheard = |reported: &Reported| reported.watermark == EventTime::MIN;
                    let ignored =
                        |reported: &Reported| probe::is_broken(Rule::UnheardUpstreamIgnored) && unheard(reported);
                    let live = tasks.iter().filter(|reported| !reported.idle && !ignored(reported));
                    live.map(|reported| reported.watermark).min()
                }
            })
            .min();
        if let Some(least) = least {
            self.watermark = self.watermark.max(least);
        }
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.watermark.0.to_be_bytes());
        for input in &self.inputs {
            let reports: &[Reported] = match &input.progress {
                Progress::Table => continue,
                Progress::Source(reported) => std::slice::from_ref(reported),
                Progress::Upstream(tasks) => tasks,
            };
            put_length(&mut bytes, input.topic.as_str().len());
            bytes.extend_from_slice(input.topic.as_str().as_bytes());
            put_length(&mut bytes, reports.len());
            for reported in reports {
                bytes.extend_from_slice(&reported.watermark.0.to_be_bytes());
                bytes.push(u8::from(reported.idle));
            }
        }
        bytes
    }

    /// Takes over what was stored, as far as it concerns these inputs.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<(), store::Error> {
        let mut reader = Reader { bytes };
        let version = reader.byte()?;
        if version != VERSION {
            return Err(store::Error::Encoding { what: "time state", reason: format!("unknown version {version}") });
        }
        self.watermark = EventTime(reader.integer()?);
        while !reader.bytes.is_empty() {
            let length = reader.length()?;
            let topic = String::from_utf8_lossy(reader.take(length)?).into_owned();
            let count = reader.length()?;
            let mut reports = Vec::with_capacity(count.min(4096));
            for _ in 0..count {
                reports.push(Reported { watermark: EventTime(reader.integer()?), idle: reader.byte()? != 0 });
            }
            let Some(input) = self.inputs.iter_mut().find(|input| input.topic.as_str() == topic) else { continue };
            match &mut input.progress {
                Progress::Table => {}
                Progress::Source(reported) => {
                    if let [stored] = reports[..] {
                        *reported = stored;
                    }
                }
                Progress::Upstream(tasks) => {
                    for (task, stored) in tasks.iter_mut().zip(reports) {
                        *task = stored;
                    }
                }
            }
        }
        Ok(())
    }
}

fn put_length(bytes: &mut Vec<u8>, length: usize) {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&length.to_be_bytes());
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], store::Error> {
        let (taken, rest) = self
            .bytes
            .split_at_checked(count)
            .ok_or_else(|| store::Error::Encoding { what: "time state", reason: "cut short".to_owned() })?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], store::Error> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn byte(&mut self) -> Result<u8, store::Error> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn integer(&mut self) -> Result<i64, store::Error> {
        self.array().map(i64::from_be_bytes)
    }

    fn length(&mut self) -> Result<usize, store::Error> {
        self.array().map(|bytes| u32::from_be_bytes(bytes) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(kinds: &[(&str, InputKind)]) -> TaskTime {
        TaskTime::new(kinds.iter().map(|(topic, kind)| (TopicName::from(*topic), *kind)))
    }

    #[test]
    fn the_watermark_is_the_least_over_the_stream_inputs() {
        let mut time = time(&[("a", InputKind::Source), ("b", InputKind::Source), ("accounts", InputKind::Table)]);
        time.observe(0, EventTime(1000), 100);
        assert_eq!(time.watermark(), EventTime::MIN, "b has not reported");
        time.observe(1, EventTime(500), 0);
        assert_eq!(time.watermark(), EventTime(500));
        time.observe(1, EventTime(2000), 0);
        assert_eq!(time.watermark(), EventTime(900));
    }

    #[test]
    fn an_idle_input_does_not_hold_the_watermark_and_all_idle_keeps_it() {
        let mut time = time(&[("a", InputKind::Source), ("b", InputKind::Source)]);
        time.observe(0, EventTime(1000), 0);
        time.declare_idle(1);
        assert_eq!(time.watermark(), EventTime(1000));
        time.declare_idle(0);
        assert!(time.all_idle());
        assert_eq!(time.watermark(), EventTime(1000));
        time.observe(1, EventTime(10), 0);
        assert_eq!(time.watermark(), EventTime(1000), "it never moves back");
    }

    #[test]
    fn an_upstream_task_that_has_said_nothing_holds_the_watermark() {
        let mut time = time(&[("r", InputKind::Upstream { tasks: 2 })]);
        time.hear(0, 0, EventTime(50), false);
        assert_eq!(time.watermark(), EventTime::MIN);
        time.hear(0, 1, EventTime(40), false);
        assert_eq!(time.watermark(), EventTime(40));
        time.hear(0, 1, EventTime(40), true);
        assert_eq!(time.watermark(), EventTime(50));
    }

    #[test]
    fn stored_time_is_found_again_by_topic() {
        let mut before = time(&[("a", InputKind::Source), ("r", InputKind::Upstream { tasks: 2 })]);
        before.observe(0, EventTime(7), 0);
        before.hear(1, 0, EventTime(9), false);
        before.hear(1, 1, EventTime(5), true);
        let mut after = time(&[("r", InputKind::Upstream { tasks: 2 }), ("a", InputKind::Source)]);
        after.restore(&before.encode()).unwrap();
        assert_eq!(after.watermark(), before.watermark());
        assert_eq!(after.inputs[0], before.inputs[1]);
        assert_eq!(after.inputs[1], before.inputs[0]);
        assert!(after.clone().restore(&before.encode()[..12]).is_err());
    }
}
