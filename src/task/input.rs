//! One input of a task: fetched records waiting, the next of them decoded, and how far it has come.
//!
//! Invariants
//! - Records are taken in offset order, each once: what lies below `position` is not taken again, whatever is fetched.
//! - `position` is the offset that a commit now would name.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::reader::RowReader;
use crate::ids::{EventTime, Offset, Partition, TopicName, TopicPartition};
use crate::log::Record;
use crate::probe::{self, Mark, Rule};
use crate::row::Origin;
use crate::schema::Schema;
use crate::topology::plan::SourcePlan;

/// See the module.
#[derive(Debug)]
pub struct Input {
    pub partition: TopicPartition,
    queue: VecDeque<Record>,
    queued_bytes: usize,
    /// The next offset to process.
    position: Offset,
    /// The next offset that may be taken from the log.
    expected: Offset,
    /// Where the log ended when it was last seen to end.
    end: Option<Offset>,
    /// When a record last arrived, on the monotonic clock.
    last_arrival: Duration,
    pub readers: Vec<RowReader>,
    /// The next offset that has not been looked at ahead.
    ahead: Offset,
    /// The first of the queue, decoded.
    head: Option<EventTime>,
    pub origin: Origin,
    needs: Needs,
    /// Until the position has come this far, the streams beside it wait.
    bootstrap: Option<Offset>,
    /// The same, remembered for a rollback.
    bootstrap_end: Option<Offset>,
}

/// Fewer records are not worth a look ahead.
const FEWEST_AHEAD: usize = 32;

/// What must be known of each record beside its rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    pub key: bool,
    pub headers: bool,
}

impl Needs {
    /// The pseudo-columns of a record.
    fn of(self, record: &Record, fetched_at: i64, origin: &mut Origin) {
        origin.offset = record.offset;
        origin.time = record.timestamp;
        origin.fetched_at = fetched_at;
        keep(&mut origin.key, if self.key { record.key() } else { None });
        origin.headers = None;
        if self.headers {
            let headers = record.headers();
            origin.headers = (!headers.is_empty()).then(|| Arc::from(headers));
        }
    }
}

/// What an input can do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// Its next record has this event time.
    Record(EventTime),
    /// Everything that is in the log has been processed.
    AtEnd,
    /// There is more in the log than has been fetched, or it is not known yet.
    Unknown,
}

impl Input {
    pub fn new(
        plan: &SourcePlan,
        partition: Partition,
        position: Offset,
        bootstrap: Option<Offset>,
        needs: Needs,
        now: Duration,
        earlier: &[Schema],
    ) -> Self {
        let any_key = plan.readers.iter().any(|reader| reader.pseudo.key);
        let any_headers = plan.readers.iter().any(|reader| reader.pseudo.headers);
        Self {
            partition: TopicPartition { topic: plan.topic.clone(), partition },
            queue: VecDeque::new(),
            queued_bytes: 0,
            position,
            expected: position,
            end: None,
            last_arrival: now,
            readers: plan.readers.iter().map(|reader| RowReader::new(reader, earlier.to_vec())).collect(),
            ahead: position,
            head: None,
            origin: no_origin(&plan.topic, partition),
            needs: Needs { key: needs.key || any_key, headers: needs.headers || any_headers },
            bootstrap: bootstrap.filter(|end| position < *end),
            bootstrap_end: bootstrap,
        }
    }

    pub fn position(&self) -> Offset {
        self.position
    }

    /// Where to fetch from.
    pub fn expected(&self) -> Offset {
        self.expected
    }

    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Whether all that the log held when it was last looked at has been processed.
    pub fn is_at_end(&self) -> bool {
        self.queue.is_empty() && self.end.is_some_and(|end| end <= self.position)
    }

    pub fn last_arrival(&self) -> Duration {
        self.last_arrival
    }

    /// Whether streams must wait for this input.
    pub fn is_bootstrapping(&self) -> bool {
        self.bootstrap.is_some()
    }

    /// Where the first reading of this table ends, while it goes on.
    pub fn bootstrapping_to(&self) -> Option<Offset> {
        self.bootstrap
    }

    /// Takes a fetched record; one that was taken before is dropped.
    pub fn offer(&mut self, record: Record, now: Duration) {
        if record.offset < self.expected && !probe::is_broken(Rule::DuplicateTaken) {
            probe::reached(Mark::DuplicateDropped);
            tracing::debug!(partition = %self.partition, offset = %record.offset, "duplicate fetch dropped");
            return;
        }
        self.expected = record.offset.next();
        self.end = None;
        self.last_arrival = now;
        self.queued_bytes += record.size();
        self.queue.push_back(record);
    }

    /// The reader has caught up with the log.
    pub fn reached_end(&mut self, end: Offset) {
        self.end = Some(end);
        self.expected = self.expected.max(end);
        self.pass_control_records();
    }

    /// What lies between the last record and the end are control records: they are done with.
    fn pass_control_records(&mut self) {
        if self.queue.is_empty()
            && let Some(end) = self.end
        {
            self.move_to(self.position.max(end));
        }
    }

    fn move_to(&mut self, position: Offset) {
        self.position = position;
        if self.bootstrap.is_some_and(|end| end <= position) {
            tracing::info!(partition = %self.partition, "table has been read to its end");
            self.bootstrap = None;
        }
    }

    /// Decodes the first record of the queue where that has not been done, and says what comes next.
    pub fn look(&mut self, fetched_at: i64) -> Ready {
        if let Some(time) = self.head {
            return Ready::Record(time);
        }
        let Some(record) = self.queue.front() else {
            return if self.is_at_end() { Ready::AtEnd } else { Ready::Unknown };
        };
        self.needs.of(record, fetched_at, &mut self.origin);
        let mut least: Option<EventTime> = None;
        for reader in &mut self.readers {
            let time = reader.read(record, &mut self.origin);
            least = Some(least.map_or(time, |least| least.min(time)));
        }
        let time = least.unwrap_or(record.timestamp);
        self.head = Some(time);
        Ready::Record(time)
    }

    /// Decodes records of the queue, at most so many, that have not been looked at ahead, once all that have are processed.
    pub fn look_ahead(&mut self, most: usize, fetched_at: i64, mut visit: impl FnMut(&RowReader, &Origin)) {
        if self.position < self.ahead || self.queue.len() < FEWEST_AHEAD {
            return;
        }
        // The readers are needed: what they hold of the first record is decoded again.
        self.head = None;
        for record in self.queue.iter().take(most) {
            self.needs.of(record, fetched_at, &mut self.origin);
            for reader in &mut self.readers {
                reader.read(record, &mut self.origin);
                visit(reader, &self.origin);
            }
            self.ahead = record.offset.next();
        }
    }

    /// Takes the decoded record off the queue. Its rows stay in the readers until the next `look`.
    pub fn take(&mut self) -> Option<Record> {
        self.head = None;
        let record = self.queue.pop_front()?;
        self.queued_bytes -= record.size();
        self.move_to(record.offset.next());
        self.pass_control_records();
        Some(record)
    }

    /// Goes back to an offset, forgetting everything fetched.
    pub fn rewind(&mut self, to: Offset) {
        self.queue.clear();
        self.queued_bytes = 0;
        self.head = None;
        self.position = to;
        self.expected = to;
        self.ahead = to;
        self.end = None;
        self.bootstrap = self.bootstrap_end.filter(|end| to < *end);
    }
}

/// Puts bytes where others were. The keys of a topic mostly have one length, so that the same memory serves them all.
fn keep(kept: &mut Option<Arc<[u8]>>, bytes: Option<&[u8]>) {
    match (bytes, kept.as_mut().and_then(Arc::get_mut)) {
        (Some(bytes), Some(room)) if bytes.len() == room.len() => room.copy_from_slice(bytes),
        _ => *kept = bytes.map(Arc::from),
    }
}

/// The pseudo-columns where no record is at hand.
pub fn no_origin(topic: &TopicName, partition: Partition) -> Origin {
    Origin {
        topic: topic.clone(),
        partition,
        offset: Offset::ZERO,
        key: None,
        headers: None,
        time: EventTime(0),
        tombstone: false,
        fetched_at: 0,
    }
}
