//! Which field of an object a name is, learnt from the records themselves.
//!
//! The records of a topic come from few writers, so the name after `id` is nearly always the one that followed `id` in
//! the record before. Each known name keeps its last successor; where the bytes agree, one comparison both finds the end
//! of the name and says what to do with it. Elsewhere the name is looked up.
//!
//! Invariants
//! - Names are compared as written, escapes included; what a spelling means is worked out once, when it is first seen.
//! - Memory is bounded: names beyond [`MAX_KNOWN`] are looked up each time and not remembered.

use rustc_hash::FxHashMap;

/// A topic whose objects are used as maps has names without end.
const MAX_KNOWN: usize = 512;
const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct Names {
    known: Vec<Known>,
    /// By the bytes between the quotes.
    index: FxHashMap<Box<str>, u32>,
    /// The name that last came first.
    first: u32,
}

#[derive(Debug)]
struct Known {
    /// With both quotes and the colon.
    quoted: Box<[u8]>,
    /// The field that it names, if any.
    field: Option<usize>,
    /// The name that last followed.
    next: u32,
}

/// Where in an object we are: after which name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place(u32);

impl Place {
    pub const START: Self = Self(NONE);
}

impl Names {
    pub fn new() -> Self {
        Self { known: Vec::new(), index: FxHashMap::default(), first: NONE }
    }

    /// The name that is likely to come at `place`: its bytes with quotes and colon, its field, and the place after it.
    #[inline]
    pub fn likely(&self, place: Place) -> Option<(&[u8], Option<usize>, Place)> {
        let next = match self.known.get(place.0 as usize) {
            Some(known) => known.next,
            None if place.0 == NONE => self.first,
            None => NONE,
        };
        self.known.get(next as usize).map(|known| (&*known.quoted, known.field, Place(next)))
    }

    /// The field of a name that was not the likely one at `place`, and the place after it. `resolve` says what a name that
    /// is seen for the first time means.
    pub fn find(
        &mut self,
        place: Place,
        raw: &str,
        resolve: impl FnOnce(&str) -> Option<usize>,
    ) -> (Option<usize>, Place) {
        let id = match self.index.get(raw) {
            Some(&id) => id,
            None if self.known.len() >= MAX_KNOWN => return (resolve(raw), place),
            None => self.learn(raw, resolve(raw)),
        };
        match self.known.get_mut(place.0 as usize) {
            Some(before) => before.next = id,
            None => self.first = id,
        }
        (self.known.get(id as usize).and_then(|known| known.field), Place(id))
    }

    fn learn(&mut self, raw: &str, field: Option<usize>) -> u32 {
        let id = u32::try_from(self.known.len()).unwrap_or(NONE);
        let quoted = [b"\"", raw.as_bytes(), b"\":"].concat().into_boxed_slice();
        self.known.push(Known { quoted, field, next: NONE });
        self.index.insert(raw.into(), id);
        id
    }
}
