//! The write-back cache: rows of one store partition, over the committed ones in the backend.
//!
//! What it is: the only place where uncommitted rows exist. Reads go through it; writes stay in it until the commit has
//! been decided. Rows in use are decoded entries; those that were not used for a while leave for the packed part
//! (`store::packed`) and come back from it.
//! What it is not: it does not know what rows mean, and it writes nothing by itself.
//!
//! Invariants
//! - An entry that is not dirty, or packed, equals what the backend holds. No key is in both parts.
//! - The first change of a row after a commit keeps the row's image at that commit (EXACTLY-ONCE rule 15b).
//! - Only clean entries are evicted; a dirty entry lives until `committed` or `rollback`. The budget is for what is clean:
//!   how much is dirty bounds the transaction (EXACTLY-ONCE rule 15c), not the cache.

use std::collections::BTreeSet;
use std::hash::BuildHasher;
use std::ops::ControlFlow;

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;
use smallvec::SmallVec;

use super::packed::Packed;
use super::row::RowCodec;
use super::{Direction, Error, KeyRange, LookUps, Run, SharedBackend, StorePartition};
use crate::ids::EventTime;
use crate::probe::{self, Rule};
use crate::row::Row;
use crate::value::Value;

/// How many entries are worked on together: their rows lie apart in memory, and waiting for all of them takes little
/// longer than for one.
const TOGETHER: usize = 16;

/// How far the eviction hand moves for so many new entries; the rest is done when a commit has made dirty entries clean.
const EVICTION_STEPS: usize = 32 * TOGETHER;

/// Rows that are read at once; what they are read from is held meanwhile, a block for each at worst.
const READ_TOGETHER: usize = 128;

/// Rows that are read ahead are this part of the packed ones, whose order of leaving is rough.
const SHARE_AHEAD: usize = 16;
/// Taken for a packed row's size where there is none yet.
const UNKNOWN_ROW_BYTES: usize = 100;

/// Decoded rows have a quarter of the budget before they are packed. With less, state that would fit is packed and unpacked;
/// with more, few rows are cached, and far from the processor (docs/benchmarks.md).
const DECODED_SHARE: usize = 4;
/// They have less where rows come back from the packed part more often than they are found decoded. Then what is packed
/// was in use a moment ago, and need not come from memory first.
const DECODED_SHARE_SELDOM_FOUND: usize = 16;

/// Most keys are short, and reading one should not be a visit to yet another place.
type Key = SmallVec<[u8; 24]>;

/// A stored row: the value columns, and the highest event time that went into it.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    pub row: Row,
    pub time: EventTime,
}

/// A handle to an entry, valid until the next `committed`, `rollback` or look-up of another key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryId(usize);

/// What a dirty key looked like at the last commit, and what it looks like now.
#[derive(Clone, Copy, Debug)]
pub struct Dirty<'a> {
    pub key: &'a [u8],
    pub before: Option<&'a Stored>,
    pub after: Option<&'a Stored>,
}

/// How much reading the latest look-ups took.
#[derive(Clone, Copy, Debug, Default)]
struct Recent {
    asked: u32,
    /// Rows that were there but in the backend only, whether read one by one or ahead.
    read: u32,
    is_worth_it: bool,
}

impl Recent {
    /// So many look-ups are judged together.
    const COUNT: u32 = 1024;

    fn asked(&mut self) {
        self.asked += 1;
        if self.asked == Self::COUNT {
            *self = Self { is_worth_it: self.read > Self::COUNT / 8, ..Self::default() };
        }
    }
}

/// How many look-ups each part of the cache answered.
#[derive(Clone, Copy, Debug, Default)]
struct Answers {
    decoded: u32,
    packed: u32,
}

impl Answers {
    /// So many are judged together: some commits' worth.
    const COUNT: u32 = 16 * 1024;
}

#[derive(Debug)]
struct Entry {
    key: Key,
    current: Option<Stored>,
    /// The image at the last commit; only meaningful while dirty.
    before: Option<Stored>,
    state: State,
    /// Second chance for the eviction hand.
    referenced: bool,
    bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Vacant,
    Clean,
    Dirty,
    /// Dirty: deleted without having been read. There is a committed row, which `before` does not have.
    Erased,
}

/// The cache of one store partition.
pub struct Table {
    at: StorePartition,
    backend: SharedBackend,
    codec: RowCodec,
    index: HashTable<usize>,
    hasher: FxBuildHasher,
    entries: Vec<Entry>,
    vacant: Vec<usize>,
    dirty: Vec<usize>,
    /// For stores that are scanned.
    ordered: Option<Ordered>,
    hand: usize,
    /// Of all entries, and of those that are dirty, without their images at the last commit.
    bytes: usize,
    dirty_bytes: usize,
    /// For clean rows, decoded and packed ones together.
    budget_bytes: usize,
    /// From here on clean decoded rows are packed.
    decoded_bytes: usize,
    packed: Packed,
    answers: Answers,
    /// A row on its way there.
    scratch: Vec<u8>,
    look_ups: LookUps,
    recent: Recent,
    /// Where `expired` goes on.
    sweep_from: Vec<u8>,
}

/// Dirty keys in order. Made when a range is asked for, and then only of what has become dirty since the last time.
#[derive(Debug, Default)]
struct Ordered {
    keys: BTreeSet<Box<[u8]>>,
    /// How many of `Table::dirty` it has.
    taken: usize,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { at, index, dirty, bytes, .. } = self;
        write!(f, "Table({at:?}, {} rows cached, {} dirty, {bytes} bytes)", index.len(), dirty.len())
    }
}

/// What a look for old rows found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    pub keys: Vec<Box<[u8]>>,
    /// Whether the end of the table was reached.
    pub done: bool,
}

/// Whether a store's keys are scanned in ranges while uncommitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    ByKey,
    ByKeyAndRange,
}

impl Table {
    pub fn new(
        at: StorePartition,
        backend: SharedBackend,
        codec: RowCodec,
        access: Access,
        budget_bytes: usize,
    ) -> Self {
        let packed = Packed::new(budget_bytes);
        let decoded_bytes = budget_bytes / DECODED_SHARE;
        let decoded_bytes = if packed.fits(budget_bytes - decoded_bytes) { decoded_bytes } else { budget_bytes };
        Self {
            at,
            backend,
            codec,
            index: HashTable::new(),
            hasher: FxBuildHasher,
            entries: Vec::new(),
            vacant: Vec::new(),
            dirty: Vec::new(),
            ordered: (access == Access::ByKeyAndRange).then(Ordered::default),
            hand: 0,
            bytes: 0,
            dirty_bytes: 0,
            budget_bytes,
            decoded_bytes,
            packed,
            scratch: Vec::new(),
            look_ups: LookUps::default(),
            answers: Answers::default(),
            recent: Recent::default(),
            sweep_from: Vec::new(),
        }
    }

    pub fn at(&self) -> StorePartition {
        self.at
    }

    /// The entry of a key, read from the backend where it is not cached.
    pub fn entry(&mut self, key: &[u8]) -> Result<EntryId, Error> {
        self.look_ups.all += 1;
        self.recent.asked();
        let hash = self.hasher.hash_one(key);
        if let Some(id) = self.decoded(hash, key) {
            self.answers.decoded += 1;
            self.entries[id].referenced = true;
            if self.entries[id].state == State::Erased {
                self.entries[id].before = self.read(key)?;
                self.entries[id].state = State::Dirty;
            }
            return Ok(EntryId(id));
        }
        let codec = &self.codec;
        let current = match self.packed.take(hash, key, |bytes| decode(codec, bytes)) {
            Some(row) => {
                self.answers.packed += 1;
                Some(row?)
            }
            None => self.read(key)?,
        };
        self.make_room();
        Ok(EntryId(self.insert(hash, key, current)))
    }

    /// The committed row.
    fn read(&mut self, key: &[u8]) -> Result<Option<Stored>, Error> {
        self.look_ups.missed += 1;
        let (codec, mut found) = (&self.codec, None);
        self.backend.get(self.at, key, &mut |value| found = value.map(|bytes| decode(codec, bytes)))?;
        self.recent.read += u32::from(found.is_some());
        found.transpose()
    }

    /// How many rows `read_ahead` may be asked for at a time without pushing out what it has just read, or much of the rest.
    /// None where too few look-ups had to read a row for that to be worth what it takes to know their keys.
    pub fn room_ahead(&self) -> Option<usize> {
        let is_worth_it = self.recent.is_worth_it && self.packed.fits(self.packed_bytes());
        is_worth_it.then(|| {
            let average = self.packed.bytes().checked_div(self.packed.len()).unwrap_or(UNKNOWN_ROW_BYTES);
            self.packed_bytes() / average.max(1) / SHARE_AHEAD
        })
    }

    /// Reads rows that are about to be looked up, many at once: what is not cached of these keys, whose values are ignored.
    pub fn read_ahead(&mut self, keys: &mut Run) -> Result<(), Error> {
        let mut wanted = Vec::with_capacity(keys.len());
        for (key, _) in keys.sorted() {
            let hash = self.hasher.hash_one(key);
            if self.decoded(hash, key).is_none() && !self.packed.contains(hash, key) {
                wanted.push(key);
            }
        }
        self.look_ups.missed += wanted.len() as u64;
        self.look_ups.ahead += wanted.len() as u64;
        let mut absent: Vec<&[u8]> = Vec::new();
        for keys in wanted.chunks(READ_TOGETHER) {
            let packed_bytes = self.packed_bytes();
            let (packed, hasher, read) = (&mut self.packed, &self.hasher, &mut self.recent.read);
            self.backend.multi_get(self.at, keys, &mut |index, value| match value {
                Some(value) => {
                    packed.put(hasher.hash_one(keys[index]), keys[index], value, packed_bytes);
                    *read += 1;
                }
                None => absent.push(keys[index]),
            })?;
        }
        for key in absent {
            self.make_room();
            self.insert(self.hasher.hash_one(key), key, None);
        }
        Ok(())
    }

    /// The row of a key.
    pub fn get(&mut self, key: &[u8]) -> Result<Option<&Stored>, Error> {
        let id = self.entry(key)?;
        Ok(self.stored(id))
    }

    pub fn stored(&self, id: EntryId) -> Option<&Stored> {
        self.entries[id.0].current.as_ref()
    }

    /// The row to be changed in place: marked dirty, made from `empty` where there is none. The caller must leave it
    /// unchanged if its change fails.
    pub fn change(&mut self, id: EntryId, empty: impl FnOnce() -> Row) -> &mut Stored {
        self.mark_dirty(id);
        self.entries[id.0].current.get_or_insert_with(|| Stored { row: empty(), time: EventTime::MIN })
    }

    pub fn put(&mut self, id: EntryId, stored: Stored) {
        self.mark_dirty(id);
        self.entries[id.0].current = Some(stored);
        self.weigh_dirty(id.0);
    }

    pub fn delete(&mut self, id: EntryId) {
        if self.entries[id.0].current.is_some() {
            self.mark_dirty(id);
            self.entries[id.0].current = None;
        }
    }

    /// Deletes a row that is known to exist, without reading it from the backend.
    pub fn erase(&mut self, key: &[u8]) -> Result<(), Error> {
        let hash = self.hasher.hash_one(key);
        if self.decoded(hash, key).is_some() {
            let id = self.entry(key)?;
            self.delete(id);
            return Ok(());
        }
        // Read or not, the packed row is gone.
        self.packed.take(hash, key, |_| ());
        let id = self.insert(hash, key, None);
        self.entries[id].state = State::Erased;
        self.dirty_bytes += self.entries[id].bytes;
        self.dirty.push(id);
        Ok(())
    }

    /// The keys that exist in `from <= key < to`, uncommitted changes included, in order; at most `limit`.
    pub fn keys(&mut self, range: KeyRange<'_>, limit: usize) -> Result<Vec<Box<[u8]>>, Error> {
        if let Some(Ordered { keys, taken }) = &mut self.ordered {
            let new = self.dirty.get(*taken..).unwrap_or_default();
            keys.extend(new.iter().map(|&id| Box::from(&*self.entries[id].key)));
            *taken = self.dirty.len();
        }
        let Some(ordered) = &self.ordered else {
            debug_assert!(false, "only stores opened for ranges are scanned");
            return Ok(Vec::new());
        };
        let mut keys: BTreeSet<Box<[u8]>> = ordered
            .keys
            .range::<[u8], _>((std::ops::Bound::Included(range.from), bound(range.to)))
            .filter(|key| self.cached(key).is_some_and(|entry| entry.current.is_some()))
            .take(limit)
            .cloned()
            .collect();
        let mut committed = 0;
        self.backend.scan(self.at, range, Direction::Forward, &mut |key, _| {
            if self.cached(key).is_none_or(|entry| entry.current.is_some()) {
                keys.insert(Box::from(key));
                committed += 1;
            }
            if committed < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(keys.into_iter().take(limit).collect())
    }

    pub fn dirty_len(&self) -> usize {
        self.dirty.len()
    }

    /// The dirty key with that number, in the order in which keys became dirty.
    pub fn dirty(&self, number: usize) -> Dirty<'_> {
        await_rows(&self.entries, &self.dirty, number);
        let entry = &self.entries[self.dirty[number]];
        let before = entry.before.as_ref().filter(|_| !probe::is_broken(Rule::ImageForgotten));
        Dirty { key: &entry.key, before, after: entry.current.as_ref() }
    }

    /// Calls `write` with each dirty key and its encoded row (`None`: deleted). Keys that were made and unmade since the
    /// last commit are left out.
    pub fn stage<E: From<Error>>(&self, mut write: impl FnMut(&[u8], Option<&[u8]>) -> Result<(), E>) -> Result<(), E> {
        let mut buffer = Vec::with_capacity(256);
        for (number, &id) in self.dirty.iter().enumerate() {
            await_rows(&self.entries, &self.dirty, number);
            let entry = &self.entries[id];
            match (&entry.current, &entry.before) {
                (Some(stored), _) => {
                    buffer.clear();
                    self.codec.encode(&stored.row, Some(stored.time), &mut buffer)?;
                    write(&entry.key, Some(&buffer))?;
                }
                (None, Some(_)) => write(&entry.key, None)?,
                (None, None) if entry.state == State::Erased => write(&entry.key, None)?,
                (None, None) => {}
            }
        }
        Ok(())
    }

    /// The commit has been written: what is cached is now the committed state.
    pub fn committed(&mut self) {
        let dirty = std::mem::take(&mut self.dirty);
        for (number, &id) in dirty.iter().enumerate() {
            await_rows(&self.entries, &dirty, number);
            let entry = &mut self.entries[id];
            (entry.state, entry.before) = (State::Clean, None);
            self.weigh_dirty(id);
        }
        self.nothing_is_dirty();
        self.evict(usize::MAX);
    }

    /// Forgets every change since the last commit.
    pub fn rollback(&mut self) {
        for id in std::mem::take(&mut self.dirty) {
            let entry = &mut self.entries[id];
            entry.current = entry.before.take();
            let state = std::mem::replace(&mut entry.state, State::Clean);
            self.weigh_dirty(id);
            match state {
                State::Erased => drop(self.remove(id)),
                State::Vacant | State::Clean | State::Dirty => {}
            }
        }
        self.nothing_is_dirty();
    }

    /// Committed keys whose row's time is at or before `until`: at most `limit` rows are looked at, going on where the
    /// last call ended.
    pub fn expired(&mut self, until: EventTime, limit: usize) -> Result<Expired, Error> {
        let from = std::mem::take(&mut self.sweep_from);
        let (mut keys, mut seen, mut next, mut failed) = (Vec::new(), 0, Vec::new(), None);
        let codec = &self.codec;
        self.backend.scan(self.at, KeyRange { from: &from, to: None }, Direction::Forward, &mut |key, value| {
            match decode(codec, value) {
                Ok(stored) if stored.time <= until => keys.push(Box::from(key)),
                Ok(_) => {}
                Err(error) => {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
            }
            seen += 1;
            if seen < limit {
                return ControlFlow::Continue(());
            }
            next.extend_from_slice(key);
            next.push(0);
            ControlFlow::Break(())
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        let done = next.is_empty();
        self.sweep_from = next;
        Ok(Expired { keys, done })
    }

    /// Bytes of the dirty rows and their images at the last commit, roughly.
    pub fn dirty_bytes(&self) -> usize {
        self.dirty_bytes * 2
    }

    /// Since this was last asked.
    pub fn take_look_ups(&mut self) -> LookUps {
        std::mem::take(&mut self.look_ups)
    }

    fn nothing_is_dirty(&mut self) {
        self.dirty_bytes = 0;
        if let Some(ordered) = &mut self.ordered {
            ordered.keys.clear();
            ordered.taken = 0;
        }
    }

    fn cached(&self, key: &[u8]) -> Option<&Entry> {
        self.decoded(self.hasher.hash_one(key), key).map(|id| &self.entries[id])
    }

    /// The decoded entry of a key, whose hash that is.
    fn decoded(&self, hash: u64, key: &[u8]) -> Option<usize> {
        self.index.find(hash, |&id| &*self.entries[id].key == key).copied()
    }

    /// Of an entry, on average.
    fn entry_bytes(&self) -> usize {
        self.bytes.checked_div(self.index.len()).unwrap_or(0)
    }

    /// What packed rows may take beside the decoded ones.
    fn packed_bytes(&self) -> usize {
        self.budget_bytes - self.decoded_bytes
    }

    /// By how much the decoded rows are more than they may be.
    fn excess_bytes(&self) -> usize {
        self.bytes.saturating_sub(self.dirty_bytes + self.decoded_bytes)
    }

    fn insert(&mut self, hash: u64, key: &[u8], current: Option<Stored>) -> usize {
        let bytes = entry_bytes(key, current.as_ref());
        self.bytes += bytes;
        let entry =
            Entry { key: Key::from_slice(key), current, before: None, state: State::Clean, referenced: false, bytes };
        let id = match self.vacant.pop() {
            Some(id) => {
                self.entries[id] = entry;
                id
            }
            None => {
                self.entries.push(entry);
                self.entries.len() - 1
            }
        };
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.index.insert_unique(hash, id, |&id| hasher.hash_one(&*entries[id].key));
        id
    }

    fn mark_dirty(&mut self, id: EntryId) {
        let entry = &mut self.entries[id.0];
        if entry.state != State::Clean {
            return;
        }
        entry.state = State::Dirty;
        entry.before.clone_from(&entry.current);
        self.dirty_bytes += entry.bytes;
        self.dirty.push(id.0);
    }

    /// Counts the bytes of an entry anew that is among the dirty ones.
    fn weigh_dirty(&mut self, id: usize) {
        let entry = &mut self.entries[id];
        let bytes = entry_bytes(&entry.key, entry.current.as_ref());
        let counted = std::mem::replace(&mut entry.bytes, bytes);
        self.bytes = self.bytes - counted + bytes;
        self.dirty_bytes = self.dirty_bytes - counted + bytes;
    }

    /// Makes room for more entries, some at a time.
    fn make_room(&mut self) {
        if self.answers.decoded + self.answers.packed >= Answers::COUNT {
            self.adapt();
        }
        if self.excess_bytes() > self.entry_bytes() * TOGETHER {
            self.evict(EVICTION_STEPS);
        }
    }

    /// Sets the size of the decoded part by what it has been good for.
    fn adapt(&mut self) {
        let Answers { decoded, packed } = std::mem::take(&mut self.answers);
        let [most, least] = [DECODED_SHARE, DECODED_SHARE_SELDOM_FOUND].map(|share| self.budget_bytes / share);
        if self.decoded_bytes == least && self.entry_bytes() * (self.index.len() + self.packed.len()) <= most {
            self.decoded_bytes = most;
            self.packed.shrink(self.packed_bytes());
        } else if self.decoded_bytes == most && packed > decoded {
            self.decoded_bytes = least;
        }
    }

    /// The clock algorithm over clean entries, at most so many steps.
    fn evict(&mut self, steps: usize) {
        let mut steps = steps.min(2 * self.entries.len());
        let mut leaving = Vec::with_capacity(TOGETHER);
        while self.excess_bytes() > 0 && steps > 0 && self.dirty.len() < self.index.len() {
            let (excess, mut bytes) = (self.excess_bytes(), 0);
            // Not all the way round: an entry leaves once.
            for _ in 0..steps.min(self.entries.len()) {
                if leaving.len() == TOGETHER || bytes >= excess {
                    break;
                }
                steps -= 1;
                self.hand = (self.hand + 1) % self.entries.len();
                let entry = &mut self.entries[self.hand];
                if entry.state == State::Clean && !std::mem::take(&mut entry.referenced) {
                    bytes += entry.bytes;
                    leaving.push(self.hand);
                }
            }
            await_rows(&self.entries, &leaving, 0);
            leaving.drain(..).for_each(|id| self.pack(id));
        }
    }

    /// Moves a clean entry to the packed part.
    fn pack(&mut self, id: usize) {
        let (hash, key, current) = self.remove(id);
        if let Some(stored) = current {
            self.scratch.clear();
            // A row that cannot be encoded is not packed, but no such row is clean.
            if self.codec.encode(&stored.row, Some(stored.time), &mut self.scratch).is_ok() {
                let packed_bytes = self.packed_bytes();
                self.packed.put(hash, &key, &self.scratch, packed_bytes);
            }
        }
    }

    /// Takes an entry out: its key's hash, its key, and its row.
    fn remove(&mut self, id: usize) -> (u64, Key, Option<Stored>) {
        let hash = self.hasher.hash_one(&*self.entries[id].key);
        if let Ok(found) = self.index.find_entry(hash, |&other| other == id) {
            found.remove();
        }
        let entry = &mut self.entries[id];
        self.bytes -= entry.bytes;
        (entry.state, entry.bytes) = (State::Vacant, 0);
        let (key, current) = (std::mem::take(&mut entry.key), entry.current.take());
        self.vacant.push(id);
        (hash, key, current)
    }
}

/// Where the next of these entries begin to be worked on, every [`TOGETHER`]: waits until their rows have come from memory,
/// for all of them at once.
fn await_rows(entries: &[Entry], ids: &[usize], number: usize) {
    if !number.is_multiple_of(TOGETHER) {
        return;
    }
    let is_null =
        |stored: &Option<Stored>| stored.as_ref().is_some_and(|stored| stored.row.first().is_some_and(Value::is_null));
    let seen = ids[number..].iter().take(TOGETHER).fold(0_usize, |seen, &id| {
        let Entry { current, before, .. } = &entries[id];
        seen + usize::from(is_null(current)) + usize::from(is_null(before))
    });
    std::hint::black_box(seen);
}

fn decode(codec: &RowCodec, bytes: &[u8]) -> Result<Stored, Error> {
    let (row, time) = codec.decode(bytes)?;
    Ok(Stored { row, time: time.unwrap_or(EventTime::MIN) })
}

fn bound(to: Option<&[u8]>) -> std::ops::Bound<&[u8]> {
    to.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded)
}

/// What an entry costs: its parts and, roughly, its place in the index.
fn entry_bytes(key: &[u8], stored: Option<&Stored>) -> usize {
    const OVERHEAD: usize = size_of::<Entry>() + 16;
    OVERHEAD + key.len() + stored.map_or(0, |stored| row_bytes(&stored.row))
}

/// The heap bytes of a row, roughly.
pub fn row_bytes(row: &[Value]) -> usize {
    size_of_val(row)
        + row
            .iter()
            .map(|value| match value {
                Value::String(text) if text.is_heap_allocated() => text.len(),
                Value::Bytes(bytes) => bytes.len(),
                Value::Array(values) | Value::Struct(values) => row_bytes(values),
                Value::Map(map) => map.values().map(|value| 48 + row_bytes(std::slice::from_ref(value))).sum(),
                Value::Json(_) => 256,
                _ => 0,
            })
            .sum::<usize>()
}

#[cfg(test)]
mod tests;
