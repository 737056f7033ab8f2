//! How the process's `--memory` is shared out, and what the container allows.
//!
//! ```text
//! part             with RocksDB   without   most per worker   what it holds
//! RocksDB                  30 %         -                 -   block cache, with the write buffers booked in it
//! row caches               25 %      40 %                 -   rows as they are in the store: in use, and packed
//! changed rows             10 %      10 %                 -   rows changed since the last commit, and what they were then
//! producer queues          15 %      20 %            64 MiB   records not yet acknowledged
//! fetch queues             15 %      20 %            64 MiB   fetched records not yet taken
//! spare                     5 %      10 %                 -   HTTP, logs, what nobody counts
//! ```
//! `--row-cache` sets the row caches' share; RocksDB gives or gets the difference. What the caps leave over goes to RocksDB,
//! or to the row caches where there is none. A commit is cut when the changed rows of a worker reach their share (EXACTLY-ONCE
//! rule 15c).
//!
//! State in the memory backend is not in here: it is as large as it is.

use std::path::Path;

const MIB: u64 = 1024 * 1024;

/// Used where neither `--memory` nor the container says anything.
pub const DEFAULT_MEMORY_BYTES: u64 = 512 * MIB;

const MINIMUM_BYTES: u64 = 32 * MIB;
const MINIMUM_BYTES_PER_WORKER: u64 = 16 * MIB;
const MOST_BYTES_PER_QUEUE: u64 = 64 * MIB;
/// Percent.
const CHANGED_ROWS: u64 = 10;

/// Whether any store of the plan lives in RocksDB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateOnDisk {
    RocksDb,
    None,
}

/// Bytes. Those named "per worker" are for one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryBudget {
    /// For `RocksDbSettings::memory_bytes`.
    pub rocksdb: u64,
    pub row_cache_per_worker: u64,
    /// What may be dirty before a commit is cut.
    pub dirty_rows_per_worker: u64,
    pub producer_queue_per_worker: u64,
    pub fetch_queue_per_worker: u64,
}

/// The user must act: more memory or fewer workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} MiB of memory are too few for {workers} workers, which need {}: raise --memory or lower --workers",
    given / MIB,
    needed / MIB
)]
pub struct TooLittleMemory {
    pub given: u64,
    pub needed: u64,
    pub workers: u32,
}

/// The user must act: a smaller row cache, or more memory. Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a row cache of {given} bytes does not fit: at most {most} of the memory can be for it; lower --row-cache or raise --memory"
)]
pub struct RowCacheTooLarge {
    pub given: u64,
    pub most: u64,
}

impl MemoryBudget {
    /// Shares out `total` bytes.
    pub fn split(total: u64, workers: u32, state: StateOnDisk) -> Result<Self, TooLittleMemory> {
        let workers = workers.max(1);
        let needed = MINIMUM_BYTES + MINIMUM_BYTES_PER_WORKER * u64::from(workers);
        if total < needed {
            return Err(TooLittleMemory { given: total, needed, workers });
        }
        let (rocksdb, row_caches, queue) = match state {
            StateOnDisk::RocksDb => (30, 25, 15),
            StateOnDisk::None => (0, 40, 20),
        };
        let percent = |share: u64| total / 100 * share;
        let count = u64::from(workers);
        let queue_per_worker = (percent(queue) / count).min(MOST_BYTES_PER_QUEUE);
        let left_over = 2 * (percent(queue) - queue_per_worker * count);
        let (rocksdb, row_caches) = match state {
            StateOnDisk::RocksDb => (percent(rocksdb) + left_over, percent(row_caches)),
            StateOnDisk::None => (0, percent(row_caches) + left_over),
        };
        Ok(Self {
            rocksdb,
            row_cache_per_worker: row_caches / count,
            dirty_rows_per_worker: percent(CHANGED_ROWS) / count,
            producer_queue_per_worker: queue_per_worker,
            fetch_queue_per_worker: queue_per_worker,
        })
    }

    /// The same with so many bytes for the row caches of all workers together. RocksDB keeps half of its share.
    pub fn with_row_cache(self, bytes: u64, workers: u32) -> Result<Self, RowCacheTooLarge> {
        let count = u64::from(workers.max(1));
        let both = self.rocksdb + self.row_cache_per_worker * count;
        let most = both - self.rocksdb / 2;
        if bytes > most {
            return Err(RowCacheTooLarge { given: bytes, most });
        }
        let row_cache_per_worker = bytes / count;
        let rocksdb = if self.rocksdb == 0 { 0 } else { both - row_cache_per_worker * count };
        Ok(Self { rocksdb, row_cache_per_worker, ..self })
    }

    /// What a fetching client may hold of records' bytes: half of a worker's fetch queue. What the client keeps beside every
    /// record, and what restorations fetch, takes the rest and more where records are small.
    pub fn fetch_client_queue(&self) -> u64 {
        self.fetch_queue_per_worker / 2
    }

    /// What all parts come to; below the total given by the spare.
    pub fn sum(&self, workers: u32) -> u64 {
        let rows = self.row_cache_per_worker + self.dirty_rows_per_worker;
        let queues = self.producer_queue_per_worker + self.fetch_queue_per_worker;
        self.rocksdb + (rows + queues) * u64::from(workers.max(1))
    }
}

/// The memory to use where none was set: half of the container's limit, since the program, its stacks, the allocator and the
/// page cache need the rest; else [`DEFAULT_MEMORY_BYTES`].
pub fn default_memory(container_limit: Option<u64>) -> u64 {
    container_limit.map_or(DEFAULT_MEMORY_BYTES, |limit| limit / 2)
}

/// The memory limit of this process's control group; `None` where there is none.
pub fn container_limit() -> Option<u64> {
    // A file that cannot be read says nothing.
    limit_from(&|path| std::fs::read_to_string(path).ok())
}

const CGROUP_ROOT: &str = "/sys/fs/cgroup";
const V1_ROOT: &str = "/sys/fs/cgroup/memory";

/// As [`container_limit`], over the contents of files. Control groups nest, and the smallest limit on the way to the root
/// counts. Inside a container the root of the tree is usually the container's own group, whatever `/proc/self/cgroup` says.
fn limit_from(read: &dyn Fn(&Path) -> Option<String>) -> Option<u64> {
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let mut limits = Vec::new();
    // Version 2: "0::/path". Version 1: "9:memory:/path".
    for line in groups.lines().chain(["0::/", "0:memory:/"]) {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { continue };
        let (root, file) = match controllers {
            "" => (CGROUP_ROOT, "memory.max"),
            list if list.split(',').any(|name| name == "memory") => (V1_ROOT, "memory.limit_in_bytes"),
            _ => continue,
        };
        let group = Path::new(group.trim_start_matches('/'));
        for ancestor in group.ancestors() {
            let limit = read(&Path::new(root).join(ancestor).join(file));
            limits.extend(limit.as_deref().and_then(parse_limit));
        }
    }
    limits.into_iter().min()
}

/// Version 2 writes `max` for no limit, version 1 the largest multiple of the page size.
fn parse_limit(text: &str) -> Option<u64> {
    const NO_LIMIT_FROM: u64 = 1 << 60;
    text.trim().parse().ok().filter(|limit| (1..NO_LIMIT_FROM).contains(limit))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn limit(files: &[(&str, &str)]) -> Option<u64> {
        let files: HashMap<_, _> = files.iter().copied().collect();
        limit_from(&|path| files.get(path.to_str().unwrap()).map(|text| (*text).to_owned()))
    }

    #[test]
    fn the_shares_are_those_of_the_table() {
        let budget = MemoryBudget::split(200 * MIB, 2, StateOnDisk::RocksDb).unwrap();
        assert_eq!(
            [
                budget.rocksdb,
                budget.row_cache_per_worker,
                budget.dirty_rows_per_worker,
                budget.producer_queue_per_worker,
                budget.fetch_queue_per_worker
            ],
            [60 * MIB, 25 * MIB, 10 * MIB, 15 * MIB, 15 * MIB]
        );
        let budget = MemoryBudget::split(200 * MIB, 2, StateOnDisk::None).unwrap();
        assert_eq!(
            [
                budget.rocksdb,
                budget.row_cache_per_worker,
                budget.dirty_rows_per_worker,
                budget.producer_queue_per_worker,
                budget.fetch_queue_per_worker
            ],
            [0, 40 * MIB, 10 * MIB, 20 * MIB, 20 * MIB]
        );
    }

    #[test]
    fn queues_stop_growing_and_the_rest_goes_to_state() {
        let total = 16 * 1024 * MIB;
        let budget = MemoryBudget::split(total, 1, StateOnDisk::RocksDb).unwrap();
        assert_eq!(budget.producer_queue_per_worker, 64 * MIB);
        assert!(budget.rocksdb > total / 100 * 55, "{budget:?}");
        let budget = MemoryBudget::split(total, 1, StateOnDisk::None).unwrap();
        assert!(budget.row_cache_per_worker > total / 100 * 75, "{budget:?}");
    }

    #[test]
    fn the_parts_never_exceed_the_whole_and_leave_a_spare() {
        for state in [StateOnDisk::RocksDb, StateOnDisk::None] {
            for workers in [0, 1, 2, 3, 7, 64] {
                for total in [64, 100, 333, 512, 4096, 100_000].map(|mib| mib * MIB + 12_345) {
                    let Ok(budget) = MemoryBudget::split(total, workers, state) else { continue };
                    assert!(budget.sum(workers) <= total / 100 * 95, "{workers} {total} {budget:?}");
                    assert!(budget.sum(workers) >= total / 100 * 88, "{workers} {total} {budget:?}");
                    assert!(budget.fetch_queue_per_worker >= MIB, "{workers} {total} {budget:?}");
                }
            }
        }
    }

    #[test]
    fn too_little_memory_is_an_error_that_says_how_much_is_needed() {
        let error = MemoryBudget::split(40 * MIB, 2, StateOnDisk::RocksDb).unwrap_err();
        assert_eq!(error.needed, 64 * MIB);
        let text = "40 MiB of memory are too few for 2 workers, which need 64: raise --memory or lower --workers";
        assert_eq!(error.to_string(), text);
        assert!(MemoryBudget::split(64 * MIB, 2, StateOnDisk::RocksDb).is_ok());
    }

    #[test]
    fn what_a_row_cache_does_not_take_is_rocksdbs() {
        let budget = MemoryBudget::split(200 * MIB, 2, StateOnDisk::RocksDb).unwrap();
        let smaller = budget.with_row_cache(10 * MIB, 2).unwrap();
        assert_eq!((smaller.row_cache_per_worker, smaller.dirty_rows_per_worker), (5 * MIB, 10 * MIB));
        assert_eq!(smaller.sum(2), budget.sum(2));
        let error = budget.with_row_cache(81 * MIB, 2).unwrap_err();
        assert_eq!(error, RowCacheTooLarge { given: 81 * MIB, most: 80 * MIB });
        assert!(budget.with_row_cache(80 * MIB, 2).is_ok());
        let in_memory = MemoryBudget::split(200 * MIB, 2, StateOnDisk::None).unwrap();
        assert_eq!(in_memory.with_row_cache(10 * MIB, 2).unwrap().rocksdb, 0);
    }

    #[test]
    fn half_of_the_containers_limit_is_the_default() {
        assert_eq!(default_memory(Some(1024 * MIB)), 512 * MIB);
        assert_eq!(default_memory(None), DEFAULT_MEMORY_BYTES);
    }

    #[test]
    fn version_2_in_a_container_is_read_at_the_root() {
        let files = [("/proc/self/cgroup", "0::/\n"), ("/sys/fs/cgroup/memory.max", "536870912\n")];
        assert_eq!(limit(&files), Some(536_870_912));
    }

    #[test]
    fn version_2_on_a_host_takes_the_smallest_limit_up_to_the_root() {
        let files = [
            ("/proc/self/cgroup", "0::/user.slice/app.service\n"),
            ("/sys/fs/cgroup/user.slice/app.service/memory.max", "max\n"),
            ("/sys/fs/cgroup/user.slice/memory.max", "1000000\n"),
        ];
        assert_eq!(limit(&files), Some(1_000_000));
    }

    #[test]
    fn version_1_is_read_in_a_container_and_on_a_host() {
        let groups = ("/proc/self/cgroup", "12:cpu,cpuacct:/docker/ab\n9:hugetlb,memory:/docker/ab\n");
        let host = [groups, ("/sys/fs/cgroup/memory/docker/ab/memory.limit_in_bytes", "2000000\n")];
        assert_eq!(limit(&host), Some(2_000_000));
        let container = [groups, ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "3000000\n")];
        assert_eq!(limit(&container), Some(3_000_000));
    }

    #[test]
    fn no_limit_is_no_number() {
        assert_eq!(limit(&[]), None);
        assert_eq!(limit(&[("/proc/self/cgroup", "0::/\n"), ("/sys/fs/cgroup/memory.max", "max\n")]), None);
        assert_eq!(limit(&[("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")]), None);
        assert_eq!(limit(&[("/sys/fs/cgroup/memory.max", "many\n")]), None);
    }
}
