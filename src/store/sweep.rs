//! Removes the state of partitions that this instance no longer uses (EXACTLY-ONCE rule 4).
//!
//! A closed task keeps its data, in case it comes back. After half of the changelog's `delete.retention.ms` it may not be
//! trusted any more, and is only disk space.

use std::time::Duration;

use super::{Backend, Error, StorePartition};
use crate::ids::StoreId;

/// Wipes the partitions of `stores` whose position was last written more than `keep` before `now` (microseconds since the
/// epoch), and rows without a position, which a restore that was cut off has left. What is `in_use` stays. Returns what was
/// wiped.
///
/// A task in use renews its positions when it opens, and with the offsets that it commits at least every 6 hours.
pub fn sweep(
    backend: &dyn Backend,
    stores: &[StoreId],
    now: i64,
    keep: Duration,
    in_use: &dyn Fn(StorePartition) -> bool,
) -> Result<Vec<StorePartition>, Error> {
    let keep = i64::try_from(keep.as_micros()).unwrap_or(i64::MAX);
    let mut swept = Vec::new();
    for store in stores {
        for partition in backend.partitions(*store)? {
            let at = StorePartition { store: *store, partition };
            if in_use(at) {
                continue;
            }
            // A clock that went back makes nothing old.
            let expired = |position: super::ChangelogPosition| now.saturating_sub(position.written_at) > keep;
            if backend.changelog_position(at)?.is_none_or(expired) {
                backend.wipe(at)?;
                backend.reclaim(at)?;
                swept.push(at);
            }
        }
    }
    Ok(swept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Partition;
    use crate::store::contract::{at, keys, position, put, rows};
    use crate::store::memory::Memory;
    use crate::store::{ChangelogPosition, WriteBatch};

    const DAY: i64 = 86_400_000_000;

    fn backend() -> Memory {
        let backend = Memory::new();
        for (partition, written_at) in [(0, 0), (1, 2 * DAY), (2, 4 * DAY), (3, 9 * DAY)] {
            let position = ChangelogPosition { written_at, ..position(1) };
            backend
                .write(WriteBatch {
                    rows: rows([put(at(0, partition), b"k", b"v")]).rows,
                    positions: vec![(at(0, partition), position)],
                    inputs: Vec::new(),
                })
                .unwrap();
        }
        backend
    }

    fn sweep_at(backend: &Memory, now: i64) -> Vec<u32> {
        let keep = Duration::from_hours(72);
        let in_use = |at: StorePartition| at.partition == Partition(0);
        let swept = sweep(backend, &[StoreId(0), StoreId(1)], now, keep, &in_use).unwrap();
        swept.into_iter().map(|at| at.partition.0).collect()
    }

    #[test]
    fn what_is_unused_for_longer_than_allowed_goes_and_the_rest_stays() {
        let backend = backend();
        assert_eq!(sweep_at(&backend, 5 * DAY), [] as [u32; 0]);
        assert_eq!(sweep_at(&backend, 5 * DAY + 1), [1]);
        assert!(keys(&backend, at(0, 1)).is_empty());
        for partition in [0, 2, 3] {
            assert_eq!(keys(&backend, at(0, partition)).len(), 1);
        }
    }

    #[test]
    fn rows_of_a_cut_off_restore_go_unless_it_still_runs() {
        let backend = Memory::new();
        backend.write(rows([put(at(1, 0), b"running", b"v"), put(at(1, 6), b"cut off", b"v")])).unwrap();
        assert_eq!(sweep_at(&backend, 0), [6]);
        assert_eq!(keys(&backend, at(1, 0)).len(), 1);
    }
}
