//! Brings the state of a task up to the end of its changelogs (EXACTLY-ONCE rules 1, 3, 4 and 21).
//!
//! What it is: [`decide`], the pure decision what local state is worth, and [`Restoration`], which is stepped with `turn`
//! until the stores of one task are complete. It ends with what `Task::open` needs: the positions to read on from.
//! What it is not: it waits for nothing by itself, retries nothing and knows no threads; it reads with a fetcher that it
//! is lent, one restoration at a time.
//!
//! The steps
//! 1. The committed offsets of the task's inputs (waits for pending transactions: `require_stable`).
//! 2. Per store the changelog's start and high watermark, *after* step 1, and with them the decision.
//! 3. What is not trusted is wiped.
//! 4. Changelogs are read, read-committed, until an end of partition *at or beyond* the high watermark of step 2. The
//!    first end is not enough: a committed offset can be visible while the last stable offset of the changelog still
//!    hides that very commit (KAFKA-10167).
//! 5. Rows are collected and written in runs, each with the position that it brings the store to, so that a restoration
//!    which is cut off goes on from there.
//!
//! Invariants
//! - A position is never ahead of the rows beside it.
//! - `written_at` of a position says how old the knowledge of the changelog's end is, not when the row was written: it
//!   decides whether tombstones may have been missed. Before the end is reached it is that of the state built upon.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::SharedClock;
use crate::ids::{Offset, TaskId, TopicPartition};
use crate::log::{self, CommittedOffset, FetchSlot, Fetched, Fetcher, OffsetQuery, Record, SharedLog};
use crate::metric::{self, Counter, Counters};
use crate::probe::{self, Mark, Rule};
use crate::store::run::{Run, RunsGuard};
use crate::store::{self, ChangelogPosition, SharedBackend, StorePartition, WriteBatch};
use crate::task;
use crate::task::facts::{Facts, OffsetMetadata};
use crate::task::layout::holds_rows;
use crate::task::source_rows::SourceRows;
use crate::topology::Plan;
use crate::topology::plan::{Guarantee, ReaderKind, Start, StoreKind};

/// How many fetched events are taken in a turn.
const FETCH_LIMIT: usize = 4096;
/// How many bytes are taken in a turn, by the size of the records before: between two turns others may go first. Where
/// records grow all of a sudden, what the fetcher holds (`limits::FETCH_QUEUE_BYTES`) is the bound.
const TURN_BYTES: usize = 1 << 20;
/// What records are taken for before any has been seen.
const UNSEEN_RECORD_BYTES: usize = 64 << 10;
/// What there is when nothing more comes is written as a run where it is more than this part of one, else as a commit is.
const WORTH_A_RUN: usize = 8;

// ---- the decision --------------------------------------------------------------------------------------------------

/// What local state of one store partition is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing was written since.
    UpToDate,
    /// Trusted; only what follows `from` is missing.
    Tail { from: Offset },
    /// Wipe, and read from the start of the log.
    Full { from: Offset, why: Distrust },
}

/// Why local state is not built upon.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    #[error("there is none")]
    Nothing,
    #[error("the changelog is another topic of the same name")]
    AnotherTopic,
    #[error("it was not used for so long that deletions may be gone from the changelog")]
    TooOld,
    #[error("the changelog no longer holds what follows it")]
    BeforeStart,
    #[error("it is ahead of the changelog")]
    BeyondEnd,
    #[error("its position in the changelog is out of range")]
    OutOfRange,
}

/// What to compare local state with.
#[derive(Clone, Copy, Debug)]
pub struct ChangelogNow<'a> {
    pub topic_id: &'a str,
    pub start: Offset,
    /// The high watermark; of a source that serves as changelog the committed offset, if that is lower.
    pub end: Offset,
    pub delete_retention_ms: i64,
}

/// EXACTLY-ONCE rule 4. `now` is in microseconds since the epoch.
pub fn decide(local: Option<&ChangelogPosition>, changelog: ChangelogNow<'_>, now: i64) -> Decision {
    let full = |why| Decision::Full { from: changelog.start, why };
    let Some(local) = local else { return full(Distrust::Nothing) };
    if local.topic_id != changelog.topic_id {
        return full(Distrust::AnotherTopic);
    }
    // Half: the rest is for the restoration itself and for clocks that disagree.
    let trusted_micros = changelog.delete_retention_ms.saturating_mul(1000) / 2;
    if now.saturating_sub(local.written_at) > trusted_micros && !probe::is_broken(Rule::OldStateTrusted) {
        return full(Distrust::TooOld);
    }
    if local.offset < changelog.start {
        return full(Distrust::BeforeStart);
    }
    if local.offset > changelog.end {
        return full(Distrust::BeyondEnd);
    }
    if local.offset == changelog.end { Decision::UpToDate } else { Decision::Tail { from: local.offset } }
}

// ---- where inputs begin --------------------------------------------------------------------------------------------

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Log(#[from] log::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The rows of a table cannot be told from its topic's records.
    #[error(transparent)]
    Table(#[from] task::Error),
    /// EXACTLY-ONCE rule 3b.
    #[error(
        "the group has no committed offset for {input}, but the local state goes up to offset {recorded}: reading from \
         the start would count twice. If the application is to begin anew, run `sidestream reset`"
    )]
    StateWithoutOffset { input: TopicPartition, recorded: Offset },
    /// The same, without any local state.
    #[error(
        "the group has no committed offsets for {task}, but there is state of it in {changelog} and the other changelogs: reading from the \
         start would count twice. Kafka forgets the offsets of a group that has been empty for long \
         (`offsets.retention.minutes`), and those of a topic that is deleted. If the application is to begin anew, stop all \
         instances and run `sidestream reset`"
    )]
    ChangelogWithoutOffset { task: TaskId, changelog: TopicPartition },
    /// The committed offset is one of a topic that is no more.
    #[error(
        "the topic {} was deleted and created again: the group's offset {offset} of partition {} is one of the former topic, \
         and says nothing about the records of this one. Stop all instances; to read it from its start and keep the state, \
         run `sidestream reset --offsets earliest`, to begin anew with everything `sidestream reset`",
        input.topic, input.partition
    )]
    InputReplaced { input: TopicPartition, offset: Offset },
    /// A topic between two steps is not the one that the committed offset is one of.
    #[error(
        "the topic {} between two steps was deleted and made anew, and what it held has not been processed: the group's \
         offset {offset} of partition {} is one of the former topic. Stop all instances and run `sidestream reset`: the \
         state is then computed anew from the sources",
        input.topic, input.partition
    )]
    RepartitionReplaced { input: TopicPartition, offset: Offset },
    /// The state up to the committed offsets was in a topic that is no more.
    #[error(
        "the changelog {changelog} of `{store}` was deleted and made anew: the state up to the group's offsets was in the \
         former topic, and going on would begin `{store}` empty in the middle of its input. Nothing was changed here. Stop \
         all instances; to compute everything anew from the sources run `sidestream reset`, to let that step alone begin \
         empty with the records that come run `sidestream reset --step STEP`"
    )]
    ChangelogReplaced { store: String, changelog: TopicPartition },
}

impl Error {
    /// Whether an operator has to decide, and trying again is of no use.
    pub fn is_final(&self) -> bool {
        match self {
            Self::StateWithoutOffset { .. }
            | Self::ChangelogWithoutOffset { .. }
            | Self::InputReplaced { .. }
            | Self::RepartitionReplaced { .. }
            | Self::ChangelogReplaced { .. } => true,
            Self::Log(_) | Self::Store(_) | Self::Table(_) => false,
        }
    }
}

/// What `Task::open` needs beside the restored stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Per source of the sub-topology, in its order: the next offset to read. Zero where the topic has no such
    /// partition (`Facts::inputs` says which).
    pub positions: Vec<Offset>,
    /// Per source: of a table that is opened for the first time and holds streams back, the end that it has now.
    pub bootstrap_ends: Vec<Option<Offset>>,
}

/// A record of a source topic that serves as changelog, as the row of the table: stored key and value bytes (`None`
/// deletes).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceChange {
    pub key: Box<[u8]>,
    pub value: Option<Box<[u8]>>,
}

// ---- the state machine ---------------------------------------------------------------------------------------------

/// What a restoration works with.
#[derive(Clone, Debug)]
pub struct Tools {
    pub log: SharedLog,
    pub plan: Arc<Plan>,
    pub facts: Arc<Facts>,
    pub backend: SharedBackend,
    pub clock: SharedClock,
    pub counters: Arc<Counters>,
}

/// How far a restoration has come, over all stores of the task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Changelog records applied.
    pub records: u64,
    pub bytes: u64,
    /// Offsets to pass in all, and passed so far.
    pub total: u64,
    pub done: u64,
    /// Since it began.
    pub elapsed: Duration,
}

impl Progress {
    /// At the pace so far; `None` before there is one.
    pub fn remaining(&self) -> Option<Duration> {
        if self.done == 0 || self.elapsed.is_zero() {
            return None;
        }
        let left = self.total.saturating_sub(self.done) as f64;
        Duration::try_from_secs_f64(self.elapsed.as_secs_f64() / self.done as f64 * left).ok()
    }
}

/// A changelog that has not been read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Awaited {
    pub changelog: TopicPartition,
    /// The next offset to apply.
    pub position: Offset,
    pub end: Offset,
}

/// See the module.
#[derive(Debug)]
pub struct Restoration {
    task: TaskId,
    tools: Tools,
    began: Duration,
    restored: Restored,
    /// The group knows none of its inputs.
    is_new: bool,
    stores: Vec<StoreRestoration>,
    fetched: Vec<Fetched>,
    /// The mean of the records that were fetched last.
    record_bytes: usize,
}

#[derive(Debug)]
struct StoreRestoration {
    at: StorePartition,
    changelog: TopicPartition,
    topic_id: String,
    /// Where the source topic serves as changelog.
    source_rows: Option<Box<SourceRows>>,
    extent: Extent,
    /// The next offset to apply.
    position: Offset,
    /// Where `position` was when it began.
    from: Offset,
    end: Offset,
    /// Of the state that is built upon.
    base_written_at: i64,
    reading: Reading,
    /// Read and not yet written.
    pending: Run,
    /// At which size it is written.
    run_bytes: usize,
    /// Held from the first run on, until the restoration is dropped: the store of another task may be next.
    runs: Option<RunsGuard>,
    records: u64,
    bytes: u64,
    /// Of these, what the metrics know.
    counted: (u64, u64),
    records_counter: Counter,
    bytes_counter: Counter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    None,
    Tail,
    Full,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    NotYet,
    Assigned,
    Finished,
}

/// Whether `turn` has to be called again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// With the number of events that were handled.
    More(usize),
    Done(Restored),
}

impl Restoration {
    /// Steps 1 to 3 of the module. `init` of all the instance's producers must have been run before.
    pub fn begin(task: TaskId, tools: Tools) -> Result<Self, Error> {
        let inputs = tools.facts.inputs(&tools.plan, task);
        let asked: Vec<TopicPartition> = inputs.iter().flatten().cloned().collect();
        let mut answers = tools.log.committed(&tools.plan.name, &asked)?.into_iter();
        let committed: Vec<Option<CommittedOffset>> =
            inputs.iter().map(|input| input.as_ref().and_then(|_| answers.next().flatten())).collect();

        check_topics(task, &tools, &inputs, &committed)?;
        let restored = starting_positions(task, &tools, &inputs, &committed)?;
        let sub_topology = &tools.plan.sub_topologies[task.sub_topology.0 as usize];
        let changelogs: Vec<TopicPartition> =
            sub_topology.stores.iter().map(|&store| tools.facts.changelog_partition(store, task.partition)).collect();
        let starts = query(&tools.log, OffsetQuery::Start, &changelogs)?;
        let ends = query(&tools.log, OffsetQuery::End, &changelogs)?;

        let now = tools.clock.wall_micros();
        let mut stores = Vec::with_capacity(changelogs.len());
        for (index, (&store, changelog)) in sub_topology.stores.iter().zip(changelogs).enumerate() {
            let at = StorePartition { store, partition: task.partition };
            let facts = tools.facts.changelog(store);
            let end = if facts.is_source && !probe::is_broken(Rule::SourceRestoredToEnd) {
                let source = sub_topology.sources.iter().position(|source| source.topic == facts.topic);
                // Nothing committed: everything is still to be read as input, and nothing is restored.
                let read = source.and_then(|source| committed[source].as_ref()).map(|committed| committed.offset);
                ends[index].min(read.unwrap_or(starts[index]))
            } else {
                ends[index]
            };
            let local = tools.backend.changelog_position(at)?;
            let decision = decide(
                local.as_ref(),
                ChangelogNow {
                    topic_id: &facts.topic_id,
                    start: starts[index],
                    end,
                    delete_retention_ms: facts.delete_retention_ms,
                },
                now,
            );
            let (extent, from, base_written_at) = match &decision {
                Decision::UpToDate => (Extent::None, end, now),
                Decision::Tail { from } => (Extent::Tail, *from, local.map_or(now, |local| local.written_at)),
                Decision::Full { from, why } => {
                    // Also where nothing is recorded: rows without a position are not known to be right.
                    if !probe::is_broken(Rule::NothingWiped) {
                        tools.backend.wipe(at)?;
                    }
                    let name = &*tools.plan.stores[store.index()].name;
                    if *why != Distrust::Nothing {
                        probe::reached(Mark::Distrusted);
                        tracing::warn!(task = %task, store = name, reason = %why, "local state is not used");
                    }
                    (Extent::Full, *from, now)
                }
            };
            let source_rows = if facts.is_source {
                SourceRows::of(&tools.plan, task.sub_topology, store, task.partition)?.map(Box::new)
            } else {
                None
            };
            let name = &*tools.plan.stores[store.index()].name;
            stores.push(StoreRestoration {
                at,
                changelog,
                topic_id: facts.topic_id.clone(),
                source_rows,
                extent,
                position: from,
                from,
                end,
                base_written_at,
                reading: Reading::NotYet,
                pending: Run::default(),
                run_bytes: tools.backend.run_bytes(),
                runs: None,
                records: 0,
                bytes: 0,
                counted: (0, 0),
                records_counter: tools.counters.counter(&metric::RECORDS_RESTORED, &[name, extent.name()]),
                bytes_counter: tools.counters.counter(&metric::BYTES_RESTORED, &[name, extent.name()]),
            });
        }
        let began = tools.clock.monotonic();
        let is_new = committed.iter().all(Option::is_none);
        Ok(Self {
            task,
            tools,
            began,
            restored,
            is_new,
            stores,
            fetched: Vec::new(),
            record_bytes: UNSEEN_RECORD_BYTES,
        })
    }

    pub fn task(&self) -> TaskId {
        self.task
    }

    pub fn progress(&self) -> Progress {
        let mut progress =
            Progress { elapsed: self.tools.clock.monotonic().saturating_sub(self.began), ..Progress::default() };
        for store in &self.stores {
            progress.records += store.records;
            progress.bytes += store.bytes;
            progress.total += distance(store.from, store.end);
            progress.done += match store.reading {
                Reading::Finished => distance(store.from, store.end),
                Reading::NotYet | Reading::Assigned => distance(store.from, store.position.min(store.end)),
            };
        }
        progress
    }

    /// Ends at once where nothing has to be read; otherwise `turn` reads.
    pub fn finish_unread(&mut self) -> Result<Option<Restored>, Error> {
        if self.stores.iter().any(|store| store.position < store.end) {
            return Ok(None);
        }
        for index in 0..self.stores.len() {
            self.conclude(index)?;
        }
        Ok(Some(self.restored.clone()))
    }

    /// What is still being read, and how far that has come; `None` once everything is.
    pub fn waits_for(&self) -> Option<Awaited> {
        let store = self.stores.iter().find(|store| store.reading != Reading::Finished)?;
        Some(Awaited { changelog: store.changelog.clone(), position: store.position, end: store.end })
    }

    /// Steps 4 and 5: reads and applies what has arrived, waiting up to `wait` for it, up to [`FETCH_LIMIT`] events and
    /// about [`TURN_BYTES`]. The fetcher is this restoration's alone until it is done or given up with
    /// [`Restoration::abandon`].
    pub fn turn(&mut self, fetcher: &mut dyn Fetcher, wait: Duration) -> Result<Turn, Error> {
        for index in 0..self.stores.len() {
            if self.stores[index].reading == Reading::NotYet {
                self.start_reading(index, fetcher)?;
            }
        }
        if self.stores.iter().all(|store| store.reading == Reading::Finished) {
            return self.done();
        }
        let mut fetched = std::mem::take(&mut self.fetched);
        let outcome = self.fetch_and_apply(&mut fetched, fetcher, wait);
        fetched.clear();
        self.fetched = fetched;
        self.stores.iter_mut().for_each(StoreRestoration::count);
        let handled = outcome?;
        if self.stores.iter().all(|store| store.reading == Reading::Finished) {
            tracing::debug!(task = %self.task, records = self.progress().records, "task restored");
            return self.done();
        }
        Ok(Turn::More(handled))
    }

    fn done(&mut self) -> Result<Turn, Error> {
        // What a task commits first goes to its meta store, too, and in one transaction with its offsets.
        let Tools { plan, facts, log, backend, .. } = &self.tools;
        let is_meta = |store: &&StoreRestoration| plan.stores[store.at.store.index()].kind == StoreKind::Meta;
        if self.is_new
            && plan.guarantee == Guarantee::ExactlyOnce
            && let Some(meta) = self.stores.iter().find(is_meta)
            && holds_rows(&**backend, meta.at)?
        {
            let inputs: Vec<TopicPartition> = facts.inputs(plan, self.task).into_iter().flatten().collect();
            if log.committed(&plan.name, &inputs)?.iter().all(Option::is_none) {
                return Err(Error::ChangelogWithoutOffset { task: self.task, changelog: meta.changelog.clone() });
            }
            // Another owner's first commit came in between.
            *self = Self::begin(self.task, self.tools.clone())?;
            return Ok(Turn::More(0));
        }
        Ok(Turn::Done(self.restored.clone()))
    }

    /// What tells the stores that runs are coming: to be held for as long as more restorations follow.
    pub fn into_runs(self) -> impl Iterator<Item = RunsGuard> {
        self.stores.into_iter().filter_map(|store| store.runs)
    }

    /// Gives the fetcher back before the end. What was applied stays.
    pub fn abandon(self, fetcher: &mut dyn Fetcher) {
        for (index, store) in self.stores.iter().enumerate() {
            if store.reading == Reading::Assigned
                && let Err(error) = fetcher.unassign(slot(index))
            {
                tracing::debug!(task = %self.task, reason = %error, "restoration given up with an error");
            }
        }
    }

    fn start_reading(&mut self, index: usize, fetcher: &mut dyn Fetcher) -> Result<(), Error> {
        let store = &mut self.stores[index];
        if store.position >= store.end {
            return self.conclude(index);
        }
        fetcher.assign(slot(index), &store.changelog, store.position)?;
        store.reading = Reading::Assigned;
        Ok(())
    }

    /// The share of a turn. Returns how many events there were.
    fn fetch_and_apply(
        &mut self,
        fetched: &mut Vec<Fetched>,
        fetcher: &mut dyn Fetcher,
        mut wait: Duration,
    ) -> Result<usize, Error> {
        let (mut handled, mut bytes) = (0, 0);
        while handled < FETCH_LIMIT && bytes < TURN_BYTES {
            let room = (TURN_BYTES - bytes) / self.record_bytes;
            let limit = room.clamp(1, FETCH_LIMIT - handled);
            fetcher.fetch(fetched, limit, wait)?;
            let count = fetched.len();
            let sizes = fetched.iter().filter_map(|event| match event {
                Fetched::Record(_, record) => Some(record.size()),
                Fetched::End(..) | Fetched::Failed(..) => None,
            });
            let (records, size) = sizes.fold((0, 0), |(records, size), one| (records + 1, size + one));
            if let Some(mean) = size.checked_div(records) {
                self.record_bytes = mean.max(1);
            }
            handled += count;
            bytes += size;
            self.apply_all(fetched, fetcher)?;
            if count < limit {
                break;
            }
            wait = Duration::ZERO;
        }
        if handled == 0 {
            // Whatever is waited for, it may take long.
            self.write_pending()?;
        }
        Ok(handled)
    }

    fn apply_all(&mut self, fetched: &mut Vec<Fetched>, fetcher: &mut dyn Fetcher) -> Result<(), Error> {
        for event in fetched.drain(..) {
            match event {
                Fetched::Record(slot, record) => self.apply(slot, &record, fetcher)?,
                Fetched::End(slot, at) => {
                    let Some(index) = self.reading(slot) else { continue };
                    let store = &mut self.stores[index];
                    let reached = if store.source_rows.is_some() { at.min(store.end) } else { at };
                    store.position = store.position.max(reached);
                    if at < store.end {
                        probe::reached(Mark::MarkerLate);
                    }
                    if at >= store.end || probe::is_broken(Rule::RestoreStopsAtFirstEnd) {
                        self.finish(index, fetcher)?;
                    }
                }
                Fetched::Failed(slot, log::Error::OffsetOutOfRange { .. }) => {
                    let Some(index) = self.reading(slot) else { continue };
                    self.begin_again(index, fetcher)?;
                }
                Fetched::Failed(slot, error) => {
                    if self.reading(slot).is_some() {
                        return Err(error.into());
                    }
                }
            }
        }
        Ok(())
    }

    fn write_pending(&mut self) -> Result<(), Error> {
        for index in 0..self.stores.len() {
            if self.stores[index].reading == Reading::Assigned && !self.stores[index].pending.is_empty() {
                self.write(index)?;
            }
        }
        Ok(())
    }

    fn apply(&mut self, slot: FetchSlot, record: &Record, fetcher: &mut dyn Fetcher) -> Result<(), Error> {
        let Some(index) = self.reading(slot) else { return Ok(()) };
        let store = &mut self.stores[index];
        if store.source_rows.is_some() && record.offset >= store.end {
            // It has not been processed yet: it comes again, as input.
            store.position = store.end;
            return self.finish(index, fetcher);
        }
        match &mut store.source_rows {
            Some(rows) => {
                if let Some(SourceChange { key, value }) = rows.change(record) {
                    store.pending.push(&key, value.as_deref());
                }
            }
            None => {
                if let Some(key) = record.key() {
                    store.pending.push(key, record.value());
                }
            }
        }
        store.position = record.offset.next();
        store.records += 1;
        store.bytes += record.size() as u64;
        if store.source_rows.is_some() && store.position >= store.end {
            return self.finish(index, fetcher);
        }
        if store.pending.bytes() >= store.run_bytes { self.write(index) } else { Ok(()) }
    }

    /// The store that a slot stands for, if it is still being read.
    fn reading(&self, slot: FetchSlot) -> Option<usize> {
        let index = slot.0 as usize;
        self.stores.get(index).filter(|store| store.reading == Reading::Assigned).map(|_| index)
    }

    /// Rule 3c: the position is gone from the changelog, so what follows it cannot be known.
    fn begin_again(&mut self, index: usize, fetcher: &mut dyn Fetcher) -> Result<(), Error> {
        let store = &mut self.stores[index];
        let name = &*self.tools.plan.stores[store.at.store.index()].name;
        tracing::warn!(task = %self.task, store = name, reason = %Distrust::OutOfRange, "local state is not used");
        let start = query(&self.tools.log, OffsetQuery::Start, std::slice::from_ref(&store.changelog))?[0];
        store.pending.clear();
        store.count();
        self.tools.backend.wipe(store.at)?;
        store.extent = Extent::Full;
        store.records_counter = self.tools.counters.counter(&metric::RECORDS_RESTORED, &[name, store.extent.name()]);
        store.bytes_counter = self.tools.counters.counter(&metric::BYTES_RESTORED, &[name, store.extent.name()]);
        store.base_written_at = self.tools.clock.wall_micros();
        store.position = start;
        store.from = start;
        fetcher.assign(slot(index), &store.changelog, start)?;
        Ok(())
    }

    fn write(&mut self, index: usize) -> Result<(), Error> {
        let store = &mut self.stores[index];
        Ok(store.write(&self.tools.backend, store.base_written_at)?)
    }

    fn finish(&mut self, index: usize, fetcher: &mut dyn Fetcher) -> Result<(), Error> {
        fetcher.unassign(slot(index))?;
        self.conclude(index)
    }

    /// Writes what is left with the position that the store now has.
    fn conclude(&mut self, index: usize) -> Result<(), Error> {
        let now = self.tools.clock.wall_micros();
        let store = &mut self.stores[index];
        store.write(&self.tools.backend, now)?;
        store.pending = Run::default();
        store.count();
        store.reading = Reading::Finished;
        if store.records > 0 {
            probe::reached(if store.extent == Extent::Full { Mark::RestoredInFull } else { Mark::RestoredTail });
        }
        let name = &*self.tools.plan.stores[store.at.store.index()].name;
        self.tools.counters.counter(&metric::RESTORATIONS, &[store.extent.name()]).add(1);
        if store.records > 0 {
            tracing::info!(
                task = %self.task,
                store = name,
                extent = store.extent.name(),
                records = store.records,
                bytes = store.bytes,
                "store restored"
            );
        }
        Ok(())
    }
}

impl StoreRestoration {
    /// Brings the metrics up to what has been applied.
    fn count(&mut self) {
        self.records_counter.add(self.records - self.counted.0);
        self.bytes_counter.add(self.bytes - self.counted.1);
        self.counted = (self.records, self.bytes);
    }

    /// Writes what has been read so far.
    fn write(&mut self, backend: &SharedBackend, written_at: i64) -> Result<(), store::Error> {
        let position = self.position_at(written_at);
        if self.pending.bytes() > self.run_bytes / WORTH_A_RUN {
            self.runs.get_or_insert_with(|| RunsGuard::new(backend, self.at.store));
            backend.write_run(self.at, &mut self.pending, position)?;
        } else {
            let (rows, positions) = (vec![(self.at, std::mem::take(&mut self.pending))], vec![(self.at, position)]);
            backend.write(WriteBatch { rows, positions, inputs: Vec::new() })?;
        }
        self.pending.clear();
        Ok(())
    }

    fn position_at(&self, written_at: i64) -> ChangelogPosition {
        ChangelogPosition { topic_id: self.topic_id.clone(), offset: self.position, written_at }
    }
}

impl Extent {
    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Tail => "tail",
            Self::Full => "full",
        }
    }
}

fn slot(index: usize) -> FetchSlot {
    FetchSlot(u32::try_from(index).unwrap_or(u32::MAX))
}

fn distance(from: Offset, to: Offset) -> u64 {
    u64::try_from(to.0.saturating_sub(from.0)).unwrap_or(0)
}

fn query(log: &SharedLog, query: OffsetQuery, partitions: &[TopicPartition]) -> Result<Vec<Offset>, log::Error> {
    if partitions.is_empty() { Ok(Vec::new()) } else { log.offsets(query, partitions) }
}

/// Rule 3d: offsets and state are of the topics that there are, not of former ones of the same names.
fn check_topics(
    task: TaskId,
    tools: &Tools,
    inputs: &[Option<TopicPartition>],
    committed: &[Option<CommittedOffset>],
) -> Result<(), Error> {
    let Tools { plan, facts, .. } = tools;
    let sub_topology = &plan.sub_topologies[task.sub_topology.0 as usize];
    for ((source, input), committed) in sub_topology.sources.iter().zip(inputs).zip(committed) {
        let (Some(input), Some(committed)) = (input, committed) else { continue };
        let (input, offset) = (input.clone(), committed.offset);
        let metadata = OffsetMetadata::parse(&committed.metadata);
        let id = facts.topics.get(&input.topic).map_or("", |topic| &topic.id);
        if metadata.is_of_another_topic(id) {
            return Err(match source.repartition {
                Some(_) => Error::RepartitionReplaced { input, offset },
                None => Error::InputReplaced { input, offset },
            });
        }
        for &store in &sub_topology.stores {
            let name = &*plan.stores[store.index()].name;
            let changelog = facts.changelog(store);
            if !changelog.is_source && metadata.had_another_changelog(name, &changelog.topic_id) {
                return Err(Error::ChangelogReplaced {
                    store: name.to_owned(),
                    changelog: facts.changelog_partition(store, task.partition),
                });
            }
        }
    }
    Ok(())
}

/// Rule 3b: an input without a committed offset starts where its source says, unless local state knows better.
fn starting_positions(
    task: TaskId,
    tools: &Tools,
    inputs: &[Option<TopicPartition>],
    committed: &[Option<CommittedOffset>],
) -> Result<Restored, Error> {
    let sub_topology = &tools.plan.sub_topologies[task.sub_topology.0 as usize];
    let mut positions = Vec::with_capacity(inputs.len());
    let mut bootstrap_ends = Vec::with_capacity(inputs.len());
    for ((source, input), committed) in sub_topology.sources.iter().zip(inputs).zip(committed) {
        let Some(input) = input else {
            positions.push(Offset::ZERO);
            bootstrap_ends.push(None);
            continue;
        };
        if let Some(committed) = committed {
            positions.push(committed.offset);
            bootstrap_ends.push(OffsetMetadata::parse(&committed.metadata).bootstrap_end);
            continue;
        }
        if let Some(recorded) = tools.backend.input_offset(input)? {
            return Err(Error::StateWithoutOffset { input: input.clone(), recorded });
        }
        let start = match source.start {
            Start::Earliest => OffsetQuery::Start,
            Start::Latest => OffsetQuery::End,
            Start::At(time) => OffsetQuery::At(time),
        };
        let position = query(&tools.log, start, std::slice::from_ref(input))?[0];
        let is_table = source.readers.iter().any(|reader| matches!(reader.kind, ReaderKind::Table { .. }));
        let bootstrap_end = if source.bootstrap && is_table {
            Some(query(&tools.log, OffsetQuery::End, std::slice::from_ref(input))?[0])
        } else {
            None
        };
        positions.push(position);
        bootstrap_ends.push(bootstrap_end);
    }
    Ok(Restored { positions, bootstrap_ends })
}
