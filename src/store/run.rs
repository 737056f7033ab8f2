//! Rows of one store partition that are to be written, in one piece of memory: what a commit changes, or what a restoration
//! has read.
//!
//! What it is: keys and values one behind the other as they came, and on demand in the order of their keys. A backend that
//! keeps sorted files makes one of a restoration's run, without its write buffers and their log in between.
//! What it is not: it bounds nothing; a restoration writes it when it has grown to what `Backend::run_bytes` says.
//!
//! Invariant: of several rows of a key the last one counts.

use super::SharedBackend;
use crate::ids::StoreId;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Run {
    bytes: Vec<u8>,
    rows: Vec<Place>,
}

/// Where a row lies: its key, and behind it the value.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// What tells most keys apart without looking at them; filled in to sort.
    head: u64,
    start: usize,
    key: u32,
    /// `None` deletes.
    value: Option<u32>,
}

impl Run {
    /// The latest row of a key; `None` deletes.
    pub fn push(&mut self, key: &[u8], value: Option<&[u8]>) {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        debug_assert!(length(key) < u32::MAX, "Kafka's records are smaller");
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value.unwrap_or_default());
        self.rows.push(Place { head: 0, start, key: length(key), value: value.map(length) });
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How many rows were pushed.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Of memory.
    pub fn bytes(&self) -> usize {
        self.bytes.len() + self.rows.len() * size_of::<Place>()
    }

    /// Empties it. Its memory is kept for the next rows.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.rows.clear();
    }

    /// In the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.rows.iter().map(|place| (self.key(place), self.value(place)))
    }

    /// Every key once, in order, with its last value.
    ///
    /// Keys of a store begin alike: those of one table with the same tag, those of one producer often with the same
    /// letters. So the eight bytes behind what all have in common are compared first, beside one another in memory.
    pub fn sorted(&mut self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let common = self.common_prefix();
        let bytes = &self.bytes;
        let key = |place: &Place| &bytes[place.start..place.start + place.key as usize];
        for place in &mut self.rows {
            let rest = &key(place)[common..];
            place.head = rest.first_chunk().map_or_else(|| short_head(rest), |head| u64::from_be_bytes(*head));
        }
        // Of one key the last row goes first, and is the one that is kept.
        self.rows.reverse();
        self.rows.sort_by(|a, b| a.head.cmp(&b.head).then_with(|| key(a).cmp(key(b))));
        self.rows.dedup_by(|earlier, last| earlier.head == last.head && key(earlier) == key(last));
        let run = &*self;
        run.rows.iter().map(|place| (run.key(place), run.value(place)))
    }

    fn key(&self, place: &Place) -> &[u8] {
        &self.bytes[place.start..place.start + place.key as usize]
    }

    fn value(&self, place: &Place) -> Option<&[u8]> {
        let start = place.start + place.key as usize;
        place.value.map(|length| &self.bytes[start..start + length as usize])
    }

    /// How many bytes all keys begin with.
    fn common_prefix(&self) -> usize {
        let Some(first) = self.rows.first() else { return 0 };
        let first = self.key(first);
        self.rows.iter().fold(first.len(), |common, place| {
            let key = self.key(place);
            if key.starts_with(&first[..common]) {
                return common;
            }
            first.iter().zip(key).take_while(|(a, b)| a == b).count()
        })
    }
}

/// Filled up with zeros: it may equal that of a longer one, but never comes after it.
fn short_head(rest: &[u8]) -> u64 {
    let mut head = [0; 8];
    head[..rest.len()].copy_from_slice(rest);
    u64::from_be_bytes(head)
}

/// Held by a restoration that writes runs, so that the store is told of their end whatever becomes of it.
#[derive(Debug)]
pub struct RunsGuard {
    backend: SharedBackend,
    store: StoreId,
}

impl RunsGuard {
    pub fn new(backend: &SharedBackend, store: StoreId) -> Self {
        backend.begin_runs(store);
        Self { backend: SharedBackend::clone(backend), store }
    }
}

impl Drop for RunsGuard {
    fn drop(&mut self) {
        self.backend.end_runs(self.store);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_run_is_sorted_and_has_the_last_row_of_every_key(
            rows in proptest::collection::vec(("a?b{0,2}[\0-c]{0,12}", proptest::option::of("[x-z]{0,3}")), 0..80)
        ) {
            let (mut run, mut expected) = (Run::default(), BTreeMap::new());
            for (key, value) in &rows {
                run.push(key.as_bytes(), value.as_deref().map(str::as_bytes));
                expected.insert(key.as_bytes(), value.as_deref().map(str::as_bytes));
            }
            let sorted: Vec<_> = run.sorted().collect();
            prop_assert_eq!(sorted, expected.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_cleared_run_begins_anew() {
        let mut run = Run::default();
        run.push(b"key", Some(b"value"));
        assert!(run.bytes() >= 8 && !run.is_empty());
        run.clear();
        assert!(run.is_empty());
        assert_eq!(run.bytes(), 0);
        run.push(b"other", None);
        assert_eq!(run.sorted().collect::<Vec<_>>(), [(&b"other"[..], None)]);
    }
}
