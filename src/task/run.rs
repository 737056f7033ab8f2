//! What a task does: processing in time order, moving its watermark, and the two halves of a commit.

use std::time::Duration;

use super::facts::OffsetMetadata;
use super::input::Ready;
use super::reader::Rows;
use super::time::KEY;
use super::{Task, TaskInput};
use crate::ids::{EventTime, Offset, StoreId, TopicPartition};
use crate::log::{OffsetCommit, OutgoingRecord, Record};
use crate::metric;
use crate::operator::context::{Context, OpenStore};
use crate::operator::materialize::{self, Operation, Target};
use crate::operator::repartition::{self, Activity};
use crate::operator::state::NodeState;
use crate::operator::{Datum, Failure, Outbox, RecordError, aggregate, deliver, over, reject};
use crate::probe::{self, Mark, Rule};
use crate::row::Origin;
use crate::store::{ChangelogPosition, Run, StorePartition};
use crate::topology::plan::{Emit, OperatorPlan, ReaderKind};

/// How many stored rows are looked at for expiry in one commit.
const SWEEP_LIMIT: usize = 10_000;

/// What `process` came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The limit was reached; there is more.
    More,
    /// Nothing is queued that could be processed now.
    Drained,
    /// Records wait for other inputs, at most until then (monotonic clock).
    Waiting { until: Option<Duration> },
}

/// What a commit of this task writes to the backend, once the transaction has been committed.
#[derive(Clone, Debug, Default)]
pub struct Staged {
    pub rows: Vec<(StorePartition, Run)>,
    /// The offsets of all inputs: for the transaction, and for the backend.
    pub offsets: Vec<OffsetCommit>,
    /// Which store partition each changelog partition belongs to, with the changelog's topic id.
    pub changelogs: Vec<(TopicPartition, StorePartition, String)>,
    /// Of stores whose source topic is their changelog: the position follows from the offsets alone.
    pub positions: Vec<(StorePartition, ChangelogPosition)>,
}

impl Task {
    /// Processes up to `limit` queued records in the order of their event times.
    ///
    /// # Errors
    /// Anything but a record error, which is dealt with here: the worker must roll back.
    pub fn process(&mut self, limit: usize, outbox: &mut Outbox, now: Duration) -> Result<Progress, Failure> {
        let progress = self.process_queued(limit, outbox, now);
        for input in &mut self.inputs {
            let (records, bytes) = std::mem::take(&mut input.uncounted);
            input.records.add(records);
            input.bytes.add(bytes);
        }
        progress
    }

    fn process_queued(&mut self, limit: usize, outbox: &mut Outbox, now: Duration) -> Result<Progress, Failure> {
        let fetched_at = self.clock.wall_micros();
        let room_ahead = self.room_ahead();
        for _ in 0..limit {
            if let Some(most) = room_ahead {
                self.read_ahead(most, fetched_at)?;
            }
            let next = match self.choose(fetched_at, now) {
                Choice::Input(input) => input,
                Choice::Nothing => return Ok(Progress::Drained),
                Choice::Wait { until } => return Ok(Progress::Waiting { until }),
            };
            self.process_next(next, outbox)?;
        }
        Ok(Progress::More)
    }

    /// Which input's record comes next: the smallest event time, but not before inputs that may hold an earlier one.
    fn choose(&mut self, fetched_at: i64, now: Duration) -> Choice {
        let bootstrapping = self.inputs.iter().any(|input| input.input.is_bootstrapping());
        let mut best: Option<(EventTime, usize)> = None;
        let mut unknown = false;
        for (index, TaskInput { input, .. }) in self.inputs.iter_mut().enumerate() {
            // While a table is read for the first time, only tables that are read so go on.
            if bootstrapping && !input.is_bootstrapping() {
                continue;
            }
            match input.look(fetched_at) {
                Ready::Record(time) => {
                    if best.is_none_or(|(best, _)| time < best) {
                        best = Some((time, index));
                    }
                }
                Ready::AtEnd => {}
                Ready::Unknown => unknown = true,
            }
        }
        let Some((_, index)) = best else {
            self.waiting_since = None;
            return Choice::Nothing;
        };
        if unknown && !bootstrapping {
            let since = *self.waiting_since.get_or_insert(now);
            let until = self.sync_max_wait.map(|wait| since + wait);
            if until.is_none_or(|until| now < until) {
                return Choice::Wait { until };
            }
        } else {
            self.waiting_since = None;
        }
        Choice::Input(index)
    }

    fn process_next(&mut self, index: usize, outbox: &mut Outbox) -> Result<(), Failure> {
        let Some(record) = self.inputs[index].input.take() else { return Ok(()) };
        self.dirty = true;
        self.processed_since_commit += 1;
        self.last_processed = Some((index, record.offset));
        self.inputs[index].uncounted.0 += 1;
        self.inputs[index].uncounted.1 += record.size() as u64;
        let refusal = self.poison.remove(&(index, record.offset));
        for number in 0..self.inputs[index].input.readers.len() {
            self.process_reader(index, number, &record, refusal.as_deref(), outbox)?;
        }
        self.advance(outbox)
    }

    /// Hands what one reader made of a record to its steps, and takes note of its time.
    fn process_reader(
        &mut self,
        index: usize,
        number: usize,
        record: &Record,
        refusal: Option<&str>,
        outbox: &mut Outbox,
    ) -> Result<(), Failure> {
        let Self { plan, inputs, stores, nodes, holds, time, acted_on, rows, table_key, counters, clock, id, .. } =
            self;
        let sub = &plan.sub_topologies[id.sub_topology.0 as usize];
        let input = &mut inputs[index].input;
        let reader = &input.readers[number];
        let reader_plan = reader.plan();
        input.origin.tombstone = matches!(reader.outcome(), Ok(Rows::Tombstone));
        input.origin.time = reader.time();
        let mut ctx = Context {
            plan: sub,
            store_plans: &plan.stores,
            partition: id.partition,
            stores,
            nodes,
            outbox,
            origin: &input.origin,
            record: Some(record),
            tie: tie(index, record.offset),
            watermark: *acted_on,
            holds,
            counters,
            clock: &**clock,
            rows,
        };
        if let Some(reason) = refusal {
            let error = RecordError::new(RecordError::REFUSED, format!("it leads to what was refused: {reason}"));
            return reject::source(&mut ctx, &reader_plan.name, reader_plan.on_error, &error);
        }
        let event_time = reader.time();
        match (reader.outcome(), reader.kind()) {
            (Err(error), _) => {
                reject::source(&mut ctx, &reader_plan.name, reader_plan.on_error, error)?;
                return Ok(());
            }
            (Ok(Rows::Watermark), _) => {}
            (Ok(Rows::Change { old, new, old_time }), _) => {
                let change = Datum::Change { old: old.as_deref(), new: new.as_deref(), old_time: *old_time };
                deliver(&mut ctx, &reader_plan.next, change, event_time)?;
            }
            (Ok(Rows::Retimed { old_time }), _) => {
                let retimed = Datum::Retimed { row: reader.row(), old_time: *old_time };
                deliver(&mut ctx, &reader_plan.next, retimed, event_time)?;
            }
            (Ok(rows), ReaderKind::Table { store }) => {
                let target = Target {
                    step: &reader_plan.name,
                    store: *store,
                    key: &reader_plan.key,
                    latest: None,
                    former_key: &[],
                    emit: Emit::Each,
                    ttl: None,
                    next: &reader_plan.next,
                };
                let operation = if *rows == Rows::Deletion { Operation::Delete } else { Operation::Upsert };
                materialize::apply(&mut ctx, target, table_key, reader.row(), operation, event_time)?;
            }
            (Ok(_), ReaderKind::Stream | ReaderKind::TableChanges) => {
                deliver(&mut ctx, &reader_plan.next, Datum::Record(reader.row()), event_time)?;
            }
        }
        match reader.progress() {
            Some(upstream) => time.hear(index, upstream.upstream.0, upstream.watermark, upstream.idle),
            None if matches!(reader.kind(), ReaderKind::Stream) => {
                let delay = i64::try_from(reader_plan.watermark.delay.as_millis()).unwrap_or(i64::MAX);
                time.observe(index, event_time, delay);
            }
            None => {}
        }
        Ok(())
    }

    /// Lets the nodes act on a watermark that has moved.
    fn advance(&mut self, outbox: &mut Outbox) -> Result<(), Failure> {
        let watermark = self.time.watermark();
        if watermark == self.acted_on {
            return Ok(());
        }
        let windows = std::mem::take(&mut self.windows);
        let result = windows.iter().try_for_each(|&window| {
            self.with_node(window.index(), outbox, |ctx, operator, node, state| match (operator, state) {
                (OperatorPlan::Aggregate(plan), NodeState::Aggregate(state)) => {
                    let watermark = watermark.saturating_sub(ctx.holds[node.id.index()]);
                    aggregate::advance(ctx, node, plan, state, watermark)
                }
                _ => Ok(()),
            })
        });
        self.windows = windows;
        // Only now may what is sent downstream say that nothing older follows.
        self.acted_on = watermark;
        result
    }

    /// Runs something on a node outside of any record.
    fn with_node<R>(
        &mut self,
        index: usize,
        outbox: &mut Outbox,
        run: impl FnOnce(
            &mut Context<'_>,
            &OperatorPlan,
            &crate::topology::plan::Node,
            &mut NodeState,
        ) -> Result<R, Failure>,
    ) -> Result<R, Failure> {
        let plan = self.plan.clone();
        let sub = &plan.sub_topologies[self.id.sub_topology.0 as usize];
        let node = &sub.nodes[index];
        let mut state = std::mem::take(&mut self.nodes[index]);
        let origin: &Origin = &self.empty_origin;
        let mut ctx = Context {
            plan: sub,
            store_plans: &plan.stores,
            partition: self.id.partition,
            stores: &mut self.stores,
            nodes: &mut self.nodes,
            outbox,
            origin,
            record: None,
            tie: 0,
            watermark: self.acted_on,
            holds: &self.holds,
            counters: &self.counters,
            clock: &*self.clock,
            rows: &mut self.rows,
        };
        let result = run(&mut ctx, &node.operator, node, &mut state);
        self.nodes[index] = state;
        result
    }

    /// What happens with the passing of time: inputs at their end for longer than `idle_timeout` become idle. Returns
    /// whether anything changed.
    ///
    /// A fetch that brings nothing does not say that there is nothing: the broker may be away. So `end_since` must know
    /// where an input ends, asked for at that (monotonic) time or later: after `idle_timeout` without a record it has been
    /// read so far (EXACTLY-ONCE rule 17a).
    pub fn tick(
        &mut self,
        outbox: &mut Outbox,
        now: Duration,
        end_since: &dyn Fn(&TopicPartition, Duration) -> Option<Offset>,
    ) -> Result<bool, Failure> {
        let mut changed = false;
        for index in 0..self.inputs.len() {
            let TaskInput { input, source, .. } = &self.inputs[index];
            let source = &self.sub().sources[*source];
            let quiet = now.saturating_sub(input.last_arrival());
            let timeout = source.readers.iter().map(|reader| reader.watermark.idle_timeout).max().unwrap_or_default();
            let due =
                source.repartition.is_none() && !self.time.is_idle(index) && input.is_at_end() && quiet >= timeout;
            let is_read = || {
                end_since(&input.partition, input.last_arrival().saturating_add(timeout))
                    .is_some_and(|end| end <= input.position())
            };
            if due && (is_read() || probe::is_broken(Rule::IdleWhileUnread)) {
                probe::reached(Mark::PartitionIdle);
                self.time.declare_idle(index);
                changed = true;
            }
        }
        if changed {
            self.dirty = true;
            self.advance(outbox)?;
        }
        if !self.dirty && self.owes_watermarks(outbox, now)? {
            self.dirty = true;
            changed = true;
        }
        Ok(changed)
    }

    /// Moves the event time of all sources to `time`, as records of that time would (tests).
    pub fn advance_event_time(&mut self, time: EventTime, outbox: &mut Outbox) -> Result<(), Failure> {
        self.time.advance_to(time);
        self.dirty = true;
        self.advance(outbox)
    }

    fn repartitions(&self) -> Vec<usize> {
        let nodes = self.sub().nodes.iter().enumerate();
        nodes
            .filter(|(_, node)| matches!(node.operator, OperatorPlan::Repartition(_)))
            .map(|(index, _)| index)
            .collect()
    }

    fn activity(&self) -> Activity {
        if self.time.all_idle() { Activity::Idle } else { Activity::Active }
    }

    /// Whether a repartition topic has yet to hear of this task's watermark.
    fn owes_watermarks(&mut self, outbox: &mut Outbox, now: Duration) -> Result<bool, Failure> {
        let (activity, now_ms) = (self.activity(), millis(now));
        for index in self.repartitions() {
            let owes = self.with_node(index, outbox, |ctx, operator, node, state| match (operator, state) {
                (OperatorPlan::Repartition(plan), NodeState::Repartition(state)) => {
                    Ok(repartition::due(ctx, node, plan, state, activity, now_ms).next().is_some())
                }
                _ => Ok(false),
            })?;
            if owes {
                return Ok(true);
            }
        }
        Ok(false)
    }

    // ---- commit ------------------------------------------------------------------------------------------------------

    /// Emits what is due downstream and to the changelogs, and says what the commit must write.
    ///
    /// 1. Tables flush in topological order, so that what one emits is in the flush of the next (rule 15a).
    /// 2. Watermarks for repartition partitions that have had no data.
    /// 3. Every dirty row goes to its changelog, once; then the time state.
    pub fn flush(&mut self, outbox: &mut Outbox, endpoint: &str, now: Duration) -> Result<Staged, Failure> {
        let sweep = self.sweep_due();
        let mut swept = true;
        let count = self.nodes.len();
        for place in 0..count {
            let index = if probe::is_broken(Rule::FlushedUpstreamLast) { count - 1 - place } else { place };
            swept &= self.with_node(index, outbox, |ctx, operator, node, state| {
                let mut done = true;
                if let (true, Some((store, ttl, emit))) = (sweep, materialize::ttl_of(operator)) {
                    done = materialize::expire(ctx, node, store, ttl, emit, SWEEP_LIMIT)?;
                }
                match operator {
                    OperatorPlan::Aggregate(plan) => {
                        aggregate::flush(ctx, node, plan)?;
                        if let NodeState::Aggregate(state) = state {
                            aggregate::expire_windows(ctx, plan, state)?;
                        }
                    }
                    OperatorPlan::Materialize(plan) => materialize::flush(ctx, node, plan)?,
                    OperatorPlan::Over(plan) => over::flush(ctx, node, plan)?,
                    OperatorPlan::Filter(_)
                    | OperatorPlan::Project(_)
                    | OperatorPlan::StreamTableJoin(_)
                    | OperatorPlan::ToStream
                    | OperatorPlan::Repartition(_)
                    | OperatorPlan::Sink(_) => {}
                }
                Ok(done)
            })?;
        }
        if sweep && swept {
            self.swept_at = self.time.watermark();
        }
        let (activity, now_ms) = (self.activity(), millis(now));
        for index in self.repartitions() {
            self.with_node(index, outbox, |ctx, operator, node, state| match (operator, state) {
                (OperatorPlan::Repartition(plan), NodeState::Repartition(state)) => {
                    repartition::send_watermarks(ctx, node, plan, state, activity, now_ms).map(drop)
                }
                _ => Ok(()),
            })?;
        }
        let mut staged = Staged::default();
        self.staged_rows.clear();
        self.stage_stores(outbox, &mut staged)?;
        self.stage_meta(outbox, &mut staged)?;
        let representative = self.facts.representative_partition(self.id);
        staged.offsets = self
            .inputs
            .iter()
            .map(|TaskInput { input, .. }| {
                let mut metadata = OffsetMetadata {
                    bootstrap_end: input.bootstrapping_to(),
                    topic: self.facts.mark_of(&input.partition.topic),
                    ..OffsetMetadata::default()
                };
                if input.partition == representative {
                    metadata.endpoint = Some(endpoint.to_owned());
                    metadata.changelogs = self.facts.changelog_marks(&self.plan, self.id.sub_topology);
                }
                OffsetCommit {
                    partition: input.partition.clone(),
                    offset: if probe::is_broken(Rule::FetchedIsCommitted) {
                        input.expected()
                    } else {
                        input.position()
                    },
                    metadata: metadata.to_string(),
                }
            })
            .collect();
        Ok(staged)
    }

    /// Whether the watermark has moved far enough since the last look for expired rows.
    fn sweep_due(&self) -> bool {
        let shortest =
            self.sub().nodes.iter().filter_map(|node| materialize::ttl_of(&node.operator)).map(|ttl| ttl.1.after_ms);
        let watermark = self.time.watermark();
        shortest.min().is_some_and(|ttl| {
            watermark != EventTime::MIN
                && (self.swept_at == EventTime::MIN || watermark.0.saturating_sub(self.swept_at.0) >= ttl / 16)
        })
    }

    fn stage_stores(&mut self, outbox: &mut Outbox, staged: &mut Staged) -> Result<(), Failure> {
        let timestamp = EventTime(self.clock.wall_micros() / 1000);
        for &store in &self.plan.sub_topologies[self.id.sub_topology.0 as usize].stores {
            let Some(open) = &self.stores.open[store.index()] else { continue };
            let at = StorePartition { store, partition: self.id.partition };
            let changelog = self.facts.changelog(store);
            let topic = (!changelog.is_source).then(|| outbox.topic(&changelog.topic));
            let mut run = Run::default();
            let mut write = |key: &[u8], value: Option<&[u8]>| -> Result<(), Failure> {
                if let Some(topic) = topic {
                    let record = OutgoingRecord { key: Some(key), value, timestamp, headers: &[] };
                    outbox.send(topic, self.id.partition, record)?;
                }
                run.push(key, value);
                Ok(())
            };
            match open {
                OpenStore::Table(table) => table.stage(&mut write)?,
                OpenStore::List(list) => list.stage(&mut write)?,
            }
            let partition = self.facts.changelog_partition(store, self.id.partition);
            if changelog.is_source {
                let input = self.inputs.iter().find(|input| input.input.partition == partition);
                if let Some(TaskInput { input, .. }) = input {
                    let written_at = self.clock.wall_micros();
                    let topic_id = changelog.topic_id.clone();
                    let position = ChangelogPosition { topic_id, offset: input.position(), written_at };
                    staged.positions.push((at, position));
                }
            } else if !run.is_empty() {
                staged.changelogs.push((partition, at, changelog.topic_id.clone()));
            }
            if !run.is_empty() {
                self.staged_rows.push((store, run.len() as u64));
                staged.rows.push((at, run));
            }
        }
        Ok(())
    }

    /// The task's time state and new layouts (EXACTLY-ONCE rule 16).
    fn stage_meta(&mut self, outbox: &mut Outbox, staged: &mut Staged) -> Result<(), Failure> {
        let Some(store) = self.meta else { return Ok(()) };
        let time = self.time.encode();
        let mut rows: Vec<(Vec<u8>, Vec<u8>)> =
            self.layouts.iter().map(|layout| (layout.key.clone(), layout.value.clone())).collect();
        if self.stored_time.as_ref() != Some(&time) {
            rows.push((KEY.to_vec(), time.clone()));
        }
        self.staged_time = Some(time);
        if rows.is_empty() {
            return Ok(());
        }
        let (at, changelog) = (StorePartition { store, partition: self.id.partition }, self.facts.changelog(store));
        let topic = outbox.topic(&changelog.topic);
        let mut run = Run::default();
        let timestamp = EventTime(self.clock.wall_micros() / 1000);
        for (key, value) in rows {
            let record = OutgoingRecord { key: Some(&key), value: Some(&value), timestamp, headers: &[] };
            outbox.send(topic, self.id.partition, record)?;
            run.push(&key, Some(&value));
        }
        staged.rows.push((at, run));
        let partition = self.facts.changelog_partition(store, self.id.partition);
        staged.changelogs.push((partition, at, changelog.topic_id.clone()));
        Ok(())
    }

    /// The staged rows are in the backend: they are the state now.
    pub fn committed(&mut self, staged: &Staged) {
        for store in self.stores.open.iter_mut().flatten() {
            match store {
                OpenStore::Table(table) => table.committed(),
                OpenStore::List(list) => list.committed(),
            }
        }
        for (input, offset) in self.inputs.iter_mut().zip(&staged.offsets) {
            input.committed = offset.offset;
        }
        self.committed_time = self.time.clone();
        if let Some(time) = self.staged_time.take() {
            self.stored_time = Some(time);
        }
        self.layouts.clear();
        self.count_state();
        self.dirty = false;
        self.processed_since_commit = 0;
    }

    fn count_state(&mut self) {
        let counter = |metric, store: StoreId| self.counters.counter(metric, &[&self.plan.stores[store.index()].name]);
        for (store, rows) in self.staged_rows.drain(..) {
            counter(&metric::STATE_ROWS_WRITTEN, store).add(rows);
        }
        for &store in &self.plan.sub_topologies[self.id.sub_topology.0 as usize].stores {
            let look_ups = match &mut self.stores.open[store.index()] {
                Some(OpenStore::Table(table)) => table.take_look_ups(),
                Some(OpenStore::List(list)) => list.take_look_ups(),
                None => continue,
            };
            counter(&metric::STATE_READS, store).add(look_ups.all);
            counter(&metric::STATE_READS_MISSED, store).add(look_ups.missed);
            counter(&metric::STATE_READS_AHEAD, store).add(look_ups.ahead);
        }
    }

    /// Forgets everything since the last commit; fetching goes on from what [`Task::inputs`] says.
    pub fn rollback(&mut self) {
        for store in self.stores.open.iter_mut().flatten() {
            match store {
                _ if probe::is_broken(Rule::RollbackKeepsRows) => {}
                OpenStore::Table(table) => table.rollback(),
                OpenStore::List(list) => list.rollback(),
            }
        }
        for input in &mut self.inputs {
            let position = input.input.position();
            let keeps = probe::is_broken(Rule::RollbackKeepsPosition);
            input.input.rewind(if keeps { position } else { input.committed });
        }
        if !probe::is_broken(Rule::RollbackKeepsTime) {
            self.time = self.committed_time.clone();
        }
        self.acted_on = self.time.watermark();
        let (time, holds) = (&self.time, &self.holds);
        let plan = self.plan.clone();
        let sub = &plan.sub_topologies[self.id.sub_topology.0 as usize];
        self.nodes = NodeState::of(sub, |node| time.watermark().saturating_sub(holds[node]));
        self.waiting_since = None;
        self.staged_time = None;
        self.dirty = true;
        self.processed_since_commit = 0;
    }

    /// Rows changed since the last commit, and roughly their bytes.
    pub fn dirty_rows(&self) -> (usize, usize) {
        let open = self.stores.open.iter().flatten();
        open.map(|store| match store {
            OpenStore::Table(table) => (table.dirty_len(), table.dirty_bytes()),
            OpenStore::List(list) => (list.dirty_len(), list.dirty_len() * 128),
        })
        .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }
}

#[derive(Clone, Copy, Debug)]
enum Choice {
    Input(usize),
    Nothing,
    Wait { until: Option<Duration> },
}

/// Where a record came from, as one number: equal for the same record, growing with the offset.
fn tie(input: usize, offset: Offset) -> u64 {
    const OFFSET_BITS: u32 = 56;
    ((input as u64) << OFFSET_BITS) | (offset.0.cast_unsigned() & ((1 << OFFSET_BITS) - 1))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
