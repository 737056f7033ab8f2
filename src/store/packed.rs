//! The packed part of a row cache: committed rows that are not in use, as bytes.
//!
//! ```text
//! index   hash of the key -> slot (4 bytes)
//! chunk   slots of one size:  | key length (2) | value length (2) | key | value |   next slot of the same size …
//! free    | FREE (2) | next free slot of the chunk (2) |
//! ```
//! What it is: where `store::cache` puts rows that leave its decoded part, at a third of their size there, so that more of
//! them need not be read from the backend again.
//! What it is not: it knows nothing of rows that are being changed, and a row that is taken out is gone from it. What does
//! not fit is forgotten: the backend has it.
//!
//! Invariants
//! - A key stands in it once at most.
//! - Chunks and index stay within the bytes that `put` and `shrink` were last told of. Room is made by emptying the chunk
//!   whose turn it is; holes of rows that were taken are filled again by rows of about their size.

use std::hash::BuildHasher;

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;

/// Sizes of slots are multiples of it.
const STEP: usize = 8;
const SMALLEST_SLOT: usize = 16;
const LARGEST_CHUNK: usize = 64 * 1024;
const SMALLEST_CHUNK: usize = 4 * 1024;
/// With fewer chunks, sizes would push each other out.
const FEWEST_CHUNKS: usize = 16;
/// Rows of more than a quarter of a chunk are not kept.
const FEWEST_SLOTS: usize = 4;
const HEADER: usize = 4;
/// In place of a key's length.
const FREE: u16 = u16::MAX;
/// What a key's place in the index takes, at the load that a growing table has on average.
const INDEX_BYTES: usize = 8;

/// Rows as bytes, found by key.
pub(super) struct Packed {
    index: HashTable<Slot>,
    hasher: FxBuildHasher,
    chunk_bytes: usize,
    chunks: Vec<Chunk>,
    /// Places in `chunks` that hold nothing.
    vacant: Vec<u32>,
    /// By size of slot.
    classes: Vec<Class>,
    /// The chunk that is emptied next.
    hand: usize,
}

/// A chunk's number, and the slot's in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot(u32);

impl Slot {
    /// A chunk has `LARGEST_CHUNK / SMALLEST_SLOT` slots at most.
    const BITS: u32 = 12;

    fn new(chunk: u32, number: u16) -> Self {
        Self(chunk << Self::BITS | u32::from(number))
    }

    fn chunk(self) -> usize {
        (self.0 >> Self::BITS) as usize
    }

    fn number(self) -> u16 {
        (self.0 & ((1 << Self::BITS) - 1)) as u16
    }
}

#[derive(Debug, Default)]
struct Chunk {
    bytes: Box<[u8]>,
    class: usize,
    /// Slots from here on were never used.
    fresh: u16,
    /// The first of the freed slots.
    freed: Option<u16>,
}

#[derive(Debug)]
struct Class {
    slot_bytes: usize,
    /// Chunks with a free slot.
    open: Vec<u32>,
}

impl Packed {
    /// For about so many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        let chunk_bytes = (bytes / 64).clamp(SMALLEST_CHUNK, LARGEST_CHUNK) / STEP * STEP;
        let mut classes: Vec<Class> = Vec::new();
        let mut slot_bytes = SMALLEST_SLOT;
        while slot_bytes <= chunk_bytes / FEWEST_SLOTS {
            classes.push(Class { slot_bytes, open: Vec::new() });
            // An eighth more each time: a row wastes a sixteenth of its slot on average.
            slot_bytes += (slot_bytes / 8).next_multiple_of(STEP).max(STEP);
        }
        Self {
            index: HashTable::new(),
            hasher: FxBuildHasher,
            chunk_bytes,
            chunks: Vec::new(),
            vacant: Vec::new(),
            classes,
            hand: 0,
        }
    }

    /// Whether anything is kept within so many bytes.
    pub(super) fn fits(&self, budget_bytes: usize) -> bool {
        budget_bytes >= FEWEST_CHUNKS * self.chunk_bytes
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether it has a row of that key.
    pub(super) fn contains(&self, hash: u64, key: &[u8]) -> bool {
        self.index.find(hash, |&slot| parts(&self.chunks, &self.classes, slot).0 == key).is_some()
    }

    /// Takes a row out: `read` sees its bytes. `hash` is that of the key, here and below.
    pub(super) fn take<R>(&mut self, hash: u64, key: &[u8], read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let (chunks, classes) = (&self.chunks, &self.classes);
        let entry = self.index.find_entry(hash, |&slot| parts(chunks, classes, slot).0 == key).ok()?;
        let (slot, _) = entry.remove();
        let read = read(parts(&self.chunks, &self.classes, slot).1);
        self.free(slot);
        Some(read)
    }

    /// Takes a row in, whose key it does not hold, if that can be within `budget_bytes`.
    pub(super) fn put(&mut self, hash: u64, key: &[u8], value: &[u8], budget_bytes: usize) {
        debug_assert!(!self.contains(hash, key), "a row that is in use is not packed");
        let (Ok(key_length), Ok(value_length)) = (u16::try_from(key.len()), u16::try_from(value.len())) else { return };
        let length = HEADER + key.len() + value.len();
        let class = self.classes.partition_point(|class| class.slot_bytes < length);
        if class == self.classes.len() || !self.fits(budget_bytes) {
            return;
        }
        let slot = self.allocate(class, budget_bytes);
        let bytes = slot_bytes_mut(&mut self.chunks, &self.classes, slot);
        bytes[..2].copy_from_slice(&key_length.to_le_bytes());
        bytes[2..HEADER].copy_from_slice(&value_length.to_le_bytes());
        bytes[HEADER..HEADER + key.len()].copy_from_slice(key);
        bytes[HEADER + key.len()..length].copy_from_slice(value);
        let (chunks, classes, hasher) = (&self.chunks, &self.classes, &self.hasher);
        self.index.insert_unique(hash, slot, |&slot| hasher.hash_one(parts(chunks, classes, slot).0));
    }

    /// Gives memory back until it has no more than `budget_bytes`.
    pub(super) fn shrink(&mut self, budget_bytes: usize) {
        while self.bytes() > budget_bytes && self.chunks.len() > self.vacant.len() {
            let chunk = self.empty_next();
            self.chunks[chunk as usize] = Chunk::default();
            self.vacant.push(chunk);
        }
    }

    /// What it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        (self.chunks.len() - self.vacant.len()) * self.chunk_bytes + self.index.len() * INDEX_BYTES
    }

    fn allocate(&mut self, class: usize, budget_bytes: usize) -> Slot {
        let number = match self.classes[class].open.last() {
            Some(&number) => number,
            None => {
                let number = self.chunk(budget_bytes);
                let chunk = &mut self.chunks[number as usize];
                (chunk.class, chunk.fresh, chunk.freed) = (class, 0, None);
                self.classes[class].open.push(number);
                number
            }
        };
        let slot_bytes = self.classes[class].slot_bytes;
        let chunk = &mut self.chunks[number as usize];
        let slot = match chunk.freed {
            Some(freed) => {
                let at = usize::from(freed) * slot_bytes + 2;
                let next = u16_at(&chunk.bytes, at);
                chunk.freed = (next != FREE).then_some(next);
                freed
            }
            None => {
                chunk.fresh += 1;
                chunk.fresh - 1
            }
        };
        if chunk.freed.is_none() && (usize::from(chunk.fresh) + 1) * slot_bytes > chunk.bytes.len() {
            self.classes[class].open.pop();
        }
        Slot::new(number, slot)
    }

    /// A chunk without rows that belongs to no class.
    fn chunk(&mut self, budget_bytes: usize) -> u32 {
        self.shrink(budget_bytes);
        if self.bytes() + self.chunk_bytes > budget_bytes {
            return self.empty_next();
        }
        let bytes = vec![0; self.chunk_bytes].into_boxed_slice();
        if let Some(number) = self.vacant.pop() {
            self.chunks[number as usize].bytes = bytes;
            return number;
        }
        self.chunks.push(Chunk { bytes, ..Chunk::default() });
        u32::try_from(self.chunks.len() - 1).unwrap_or(u32::MAX)
    }

    /// Forgets the rows of the chunk whose turn it is.
    fn empty_next(&mut self) -> u32 {
        while {
            self.hand = (self.hand + 1) % self.chunks.len();
            self.chunks[self.hand].bytes.is_empty()
        } {}
        let number = u32::try_from(self.hand).unwrap_or(u32::MAX);
        let Chunk { class, fresh, .. } = self.chunks[self.hand];
        for slot in (0..fresh).map(|slot| Slot::new(number, slot)) {
            if u16_at(slot_bytes(&self.chunks, &self.classes, slot), 0) != FREE {
                let hash = self.hasher.hash_one(parts(&self.chunks, &self.classes, slot).0);
                if let Ok(entry) = self.index.find_entry(hash, |&other| other == slot) {
                    entry.remove();
                }
            }
        }
        self.classes[class].open.retain(|&open| open != number);
        number
    }

    fn free(&mut self, slot: Slot) {
        let next = self.chunks[slot.chunk()].freed.replace(slot.number());
        let bytes = slot_bytes_mut(&mut self.chunks, &self.classes, slot);
        bytes[..2].copy_from_slice(&FREE.to_le_bytes());
        bytes[2..HEADER].copy_from_slice(&next.unwrap_or(FREE).to_le_bytes());
        let chunk = &self.chunks[slot.chunk()];
        let class = &mut self.classes[chunk.class];
        let was_full = next.is_none() && (usize::from(chunk.fresh) + 1) * class.slot_bytes > chunk.bytes.len();
        if was_full {
            class.open.push(slot.0 >> Slot::BITS);
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn range_of(chunks: &[Chunk], classes: &[Class], slot: Slot) -> std::ops::Range<usize> {
    let size = classes[chunks[slot.chunk()].class].slot_bytes;
    let at = usize::from(slot.number()) * size;
    at..at + size
}

fn slot_bytes<'c>(chunks: &'c [Chunk], classes: &[Class], slot: Slot) -> &'c [u8] {
    &chunks[slot.chunk()].bytes[range_of(chunks, classes, slot)]
}

fn slot_bytes_mut<'c>(chunks: &'c mut [Chunk], classes: &[Class], slot: Slot) -> &'c mut [u8] {
    let range = range_of(chunks, classes, slot);
    &mut chunks[slot.chunk()].bytes[range]
}

/// Key and value of a slot in use.
fn parts<'c>(chunks: &'c [Chunk], classes: &[Class], slot: Slot) -> (&'c [u8], &'c [u8]) {
    let bytes = slot_bytes(chunks, classes, slot);
    let key_end = HEADER + usize::from(u16_at(bytes, 0));
    (&bytes[HEADER..key_end], &bytes[key_end..key_end + usize::from(u16_at(bytes, 2))])
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const BUDGET: usize = 1 << 20;

    fn hash(key: &[u8]) -> u64 {
        FxBuildHasher.hash_one(key)
    }

    fn put(packed: &mut Packed, key: &[u8], value: &[u8], budget_bytes: usize) {
        packed.put(hash(key), key, value, budget_bytes);
    }

    fn take(packed: &mut Packed, key: &[u8]) -> Option<Vec<u8>> {
        packed.take(hash(key), key, <[u8]>::to_vec)
    }

    #[derive(Clone, Debug)]
    enum Operation {
        Put(u16, usize),
        Take(u16),
        Shrink(usize),
    }

    fn operation() -> impl Strategy<Value = Operation> {
        prop_oneof![
            6 => (0..500_u16, prop_oneof![4 => 0..200_usize, 1 => 0..5_000_usize]).prop_map(|(key, length)| Operation::Put(key, length)),
            4 => (0..500_u16).prop_map(Operation::Take),
            1 => (0..BUDGET).prop_map(Operation::Shrink),
        ]
    }

    proptest! {
        /// What it gives is what was put, once; and it never takes more than it may.
        #[test]
        fn a_row_is_given_as_it_was_put_or_not_at_all(
            operations in proptest::collection::vec(operation(), 1..2_000),
            budget_bytes in prop_oneof![Just(0), Just(80_000), Just(BUDGET)],
        ) {
            let mut packed = Packed::new(budget_bytes);
            let mut model: HashMap<u16, Vec<u8>> = HashMap::new();
            for (number, operation) in operations.into_iter().enumerate() {
                match operation {
                    Operation::Put(key, length) => {
                        let bytes = key.to_be_bytes();
                        take(&mut packed, &bytes);
                        let value = vec![number.to_le_bytes()[0]; length];
                        put(&mut packed, &bytes, &value, budget_bytes);
                        model.insert(key, value);
                    }
                    Operation::Take(key) => {
                        if let Some(value) = take(&mut packed, &key.to_be_bytes()) {
                            prop_assert_eq!(Some(value), model.remove(&key));
                        }
                        prop_assert_eq!(take(&mut packed, &key.to_be_bytes()), None);
                    }
                    Operation::Shrink(bytes) => {
                        packed.shrink(bytes);
                        prop_assert!(packed.bytes() <= bytes);
                    }
                }
                // The index entry of the row that was just put.
                prop_assert!(packed.bytes() <= budget_bytes + INDEX_BYTES * packed.index.len());
            }
        }
    }

    #[test]
    fn what_fits_stays_whatever_is_taken_and_put_back() {
        let mut packed = Packed::new(BUDGET);
        let keys: Vec<[u8; 4]> = (0..8_000_u32).map(u32::to_be_bytes).collect();
        for key in &keys {
            put(&mut packed, key, &[7; 80], BUDGET);
        }
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..100_000 {
            let key = random.choice(&keys).unwrap();
            assert_eq!(take(&mut packed, key).as_deref(), Some(&[7; 80][..]));
            put(&mut packed, key, &[7; 80], BUDGET);
        }
    }

    #[test]
    fn rows_of_another_size_take_the_room_of_those_before() {
        let mut packed = Packed::new(BUDGET);
        for (from, length) in [(0, 40), (100_000, 300)] {
            for key in from..from + 50_000_u32 {
                put(&mut packed, &key.to_be_bytes(), &vec![1; length], BUDGET);
            }
        }
        let there = (100_000..150_000_u32).filter(|key| take(&mut packed, &key.to_be_bytes()).is_some()).count();
        assert!(there * 330 > BUDGET * 8 / 10, "{there} rows");
    }

    #[test]
    fn a_row_that_is_too_large_is_not_kept() {
        let mut packed = Packed::new(BUDGET);
        put(&mut packed, b"large", &vec![1; 70_000], BUDGET);
        put(&mut packed, b"half a chunk", &[1; BUDGET / 64 / 2], BUDGET);
        assert_eq!((take(&mut packed, b"large"), take(&mut packed, b"half a chunk")), (None, None));
    }
}
