//! The write-back cache of a list store: per key, rows in the order of (event time, tie).
//!
//! Each row is an entry of its own in the backend, under the key followed by time and tie, so that an arrival writes one
//! row however long the list is. In memory a key's rows are one ordered list.
//!
//! Invariants
//! - A loaded list is complete: all rows of the key, committed and uncommitted.
//! - A row is identified by (time, tie): the same record read again is the same row.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use rustc_hash::FxHashMap;

use super::cache::row_bytes;
use super::key::{prefix_end, push_list_position, split_list_key};
use super::row::RowCodec;
use super::{Direction, Error, KeyRange, LookUps, SharedBackend, StorePartition};
use crate::expression::KeptRow;
use crate::ids::EventTime;

#[derive(Debug, Default)]
struct List {
    rows: VecDeque<KeptRow>,
    /// Rows added and removed since the last commit, by (time, tie). A row may stand in it more than once.
    touched: Vec<(EventTime, u64)>,
    bytes: usize,
    referenced: bool,
}

/// The lists of one store partition.
#[derive(Debug)]
pub struct ListTable {
    at: StorePartition,
    backend: SharedBackend,
    codec: RowCodec,
    lists: FxHashMap<Box<[u8]>, List>,
    dirty: Vec<Box<[u8]>>,
    dirty_rows: usize,
    bytes: usize,
    budget_bytes: usize,
    look_ups: LookUps,
    sweep_from: Vec<u8>,
}

/// Where an arriving row went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    At(usize),
    /// The same record had been taken in before.
    Already(usize),
}

impl ListTable {
    pub fn new(at: StorePartition, backend: SharedBackend, codec: RowCodec, budget_bytes: usize) -> Self {
        Self {
            at,
            backend,
            codec,
            lists: FxHashMap::default(),
            dirty: Vec::new(),
            dirty_rows: 0,
            bytes: 0,
            budget_bytes,
            look_ups: LookUps::default(),
            sweep_from: Vec::new(),
        }
    }

    pub fn at(&self) -> StorePartition {
        self.at
    }

    /// All rows of a key.
    pub fn rows(&mut self, key: &[u8]) -> Result<&VecDeque<KeptRow>, Error> {
        Ok(&self.load(key)?.rows)
    }

    /// Takes a row into its place.
    pub fn insert(&mut self, key: &[u8], row: KeptRow) -> Result<Inserted, Error> {
        let list = self.load(key)?;
        let at = list.rows.partition_point(|other| (other.time, other.tie) < (row.time, row.tie));
        if list.rows.get(at).is_some_and(|other| (other.time, other.tie) == (row.time, row.tie)) {
            return Ok(Inserted::Already(at));
        }
        let bytes = size_of::<KeptRow>() + row_bytes(&row.values);
        let first_touch = list.touched.is_empty();
        list.touched.push((row.time, row.tie));
        list.bytes += bytes;
        list.rows.insert(at, row);
        self.bytes += bytes;
        self.touched(key, first_touch, 1);
        Ok(Inserted::At(at))
    }

    /// Takes out a row that was just inserted (its step failed).
    pub fn remove(&mut self, key: &[u8], at: usize) -> Result<(), Error> {
        let list = self.load(key)?;
        if let Some(row) = list.rows.remove(at) {
            let first_touch = list.touched.is_empty();
            list.touched.push((row.time, row.tie));
            self.touched(key, first_touch, 1);
        }
        Ok(())
    }

    /// Removes the rows at or before `until`, but keeps the last `keep`.
    pub fn expire(&mut self, key: &[u8], until: EventTime, keep: usize) -> Result<usize, Error> {
        let list = self.load(key)?;
        let first_touch = list.touched.is_empty();
        let mut removed = 0;
        while list.rows.len() > keep
            && let Some(row) = list.rows.front()
            && row.time <= until
        {
            list.touched.push((row.time, row.tie));
            list.rows.pop_front();
            removed += 1;
        }
        if removed > 0 {
            self.touched(key, first_touch, removed);
        }
        Ok(removed)
    }

    /// Expires rows of keys that nothing arrives for any more, at most `limit` rows at a time; comes round to every key.
    pub fn sweep(&mut self, until: EventTime, limit: usize) -> Result<(), Error> {
        let from = std::mem::take(&mut self.sweep_from);
        let mut due: Vec<Box<[u8]>> = Vec::new();
        let mut seen = 0;
        let mut last = Vec::new();
        self.backend.scan(self.at, KeyRange { from: &from, to: None }, Direction::Forward, &mut |entry, _| {
            seen += 1;
            if let Ok((key, time, _)) = split_list_key(entry)
                && time <= until
                && due.last().is_none_or(|last| **last != *key)
            {
                due.push(Box::from(key));
            }
            if seen < limit {
                return ControlFlow::Continue(());
            }
            last.extend_from_slice(entry);
            last.push(0);
            ControlFlow::Break(())
        })?;
        self.sweep_from = last;
        for key in due {
            self.expire(&key, until, 0)?;
        }
        Ok(())
    }

    /// Removes all rows of a key, if the last of them is not later than `until`. Whether there were any.
    pub fn forget(&mut self, key: &[u8], until: EventTime) -> Result<bool, Error> {
        let list = self.load(key)?;
        let is_over = list.rows.back().is_some_and(|last| last.time <= until);
        Ok(is_over && self.expire(key, until, 0)? > 0)
    }

    /// Forgets keys that nothing arrives for any more, looking at no more than `limit` rows at a time; comes round to every
    /// key. Returns how many were forgotten.
    pub fn sweep_keys(&mut self, until: EventTime, limit: usize) -> Result<usize, Error> {
        let from = std::mem::take(&mut self.sweep_from);
        let mut due: Vec<Box<[u8]>> = Vec::new();
        // The row looked at before: the last of its key, if another key follows.
        let mut before: Option<(Box<[u8]>, EventTime)> = None;
        let (mut seen, mut next) = (0, Vec::new());
        self.backend.scan(self.at, KeyRange { from: &from, to: None }, Direction::Forward, &mut |entry, _| {
            seen += 1;
            if let Ok((key, time, _)) = split_list_key(entry) {
                match &mut before {
                    Some((last, at)) if **last == *key => *at = time,
                    _ => {
                        let key_before = before.replace((Box::from(key), time));
                        due.extend(key_before.filter(|(_, last)| *last <= until).map(|(key, _)| key));
                    }
                }
            }
            if seen < limit.max(2) {
                return ControlFlow::Continue(());
            }
            // It is looked at again: whether it is its key's last is not known yet.
            next.extend_from_slice(entry);
            ControlFlow::Break(())
        })?;
        if next.is_empty() {
            due.extend(before.filter(|(_, last)| *last <= until).map(|(key, _)| key));
        }
        self.sweep_from = next;
        let mut forgotten = 0;
        for key in due {
            forgotten += usize::from(self.forget(&key, until)?);
        }
        Ok(forgotten)
    }

    /// Calls `write` with each changed entry and its encoded row (`None`: deleted).
    pub fn stage<E: From<Error>>(&self, mut write: impl FnMut(&[u8], Option<&[u8]>) -> Result<(), E>) -> Result<(), E> {
        let (mut entry_key, mut buffer) = (Vec::new(), Vec::new());
        for key in &self.dirty {
            let Some(list) = self.lists.get(key) else { continue };
            for &(time, tie) in &list.touched {
                entry_key.clear();
                entry_key.extend_from_slice(key);
                push_list_position(time, tie, &mut entry_key);
                match list.rows.binary_search_by_key(&(time, tie), |row| (row.time, row.tie)) {
                    Ok(at) => {
                        buffer.clear();
                        self.codec.encode(&list.rows[at].values, None, &mut buffer)?;
                        write(&entry_key, Some(&buffer))?;
                    }
                    Err(_) => write(&entry_key, None)?,
                }
            }
        }
        Ok(())
    }

    /// Of lists, since this was last asked.
    pub fn take_look_ups(&mut self) -> LookUps {
        std::mem::take(&mut self.look_ups)
    }

    pub fn dirty_len(&self) -> usize {
        self.dirty_rows
    }

    /// The commit has been written: what is cached is now the committed state.
    pub fn committed(&mut self) {
        for key in std::mem::take(&mut self.dirty) {
            if let Some(list) = self.lists.get_mut(&key) {
                list.touched.clear();
                let bytes: usize = list.rows.iter().map(|row| size_of::<KeptRow>() + row_bytes(&row.values)).sum();
                self.bytes = (self.bytes + bytes).saturating_sub(list.bytes);
                list.bytes = bytes;
            }
        }
        self.dirty_rows = 0;
        if self.bytes > self.budget_bytes {
            self.evict();
        }
    }

    /// Forgets every change since the last commit.
    pub fn rollback(&mut self) {
        for key in std::mem::take(&mut self.dirty) {
            if let Some(list) = self.lists.remove(&key) {
                self.bytes = self.bytes.saturating_sub(list.bytes);
            }
        }
        self.dirty_rows = 0;
    }

    fn touched(&mut self, key: &[u8], first: bool, rows: usize) {
        if first {
            self.dirty.push(Box::from(key));
        }
        self.dirty_rows += rows;
    }

    fn load(&mut self, key: &[u8]) -> Result<&mut List, Error> {
        self.look_ups.all += 1;
        if !self.lists.contains_key(key) {
            self.look_ups.missed += 1;
            let list = self.read(key)?;
            self.bytes += list.bytes;
            self.lists.insert(Box::from(key), list);
        }
        // Just inserted where it was not there.
        let Some(list) = self.lists.get_mut(key) else {
            return Err(Error::Encoding { what: "list", reason: "vanished while it was loaded".to_owned() });
        };
        list.referenced = true;
        Ok(list)
    }

    fn read(&self, key: &[u8]) -> Result<List, Error> {
        let mut list = List::default();
        let mut failed = None;
        let to = prefix_end(key);
        let range = KeyRange { from: key, to: to.as_deref() };
        self.backend.scan(self.at, range, Direction::Forward, &mut |entry, value| {
            let row = split_list_key(entry)
                .and_then(|(_, time, tie)| Ok(KeptRow { time, tie, values: self.codec.decode(value)?.0 }));
            match row {
                Ok(row) => {
                    list.bytes += size_of::<KeptRow>() + row_bytes(&row.values);
                    list.rows.push_back(row);
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        failed.map_or(Ok(list), Err)
    }

    /// Drops clean lists that were not used since the last eviction, and then any clean ones.
    fn evict(&mut self) {
        for only_unused in [true, false] {
            let (bytes, budget) = (&mut self.bytes, self.budget_bytes);
            self.lists.retain(|_, list| {
                let keep = *bytes <= budget || !list.touched.is_empty() || (only_unused && list.referenced);
                if !keep {
                    *bytes = bytes.saturating_sub(list.bytes);
                }
                list.referenced = false;
                keep
            });
        }
    }
}
