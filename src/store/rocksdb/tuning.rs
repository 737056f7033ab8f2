//! How RocksDB is set up: one memory budget, few threads, few files, short logs.
//!
//! Memory: everything is charged to one block cache of `memory_bytes`: data blocks, index and filter blocks, and the write
//! buffers (memtables), whose manager books them there. Nothing else of RocksDB's grows with the data.
//!
//! The write buffers' limit is a third of the budget. Their manager starts flushing at two thirds of that limit, and
//! [`super::RocksDb`] lets no write begin above it. RocksDB's own way to hold writers (`allow_stall`) is off: with several
//! column families it can wait for a flush that nobody starts (facebook/rocksdb#11780, speedb-io/speedb#859).

use std::path::PathBuf;
use std::sync::Arc;

use ::rocksdb::{
    BlockBasedOptions, Cache, DBCompressionType, DataBlockIndexType, LogLevel, LruCacheOptions, Options,
    WriteBufferManager,
};

use crate::ids::StoreId;

/// What the caller decides.
#[derive(Clone, Debug)]
pub struct RocksDbSettings {
    /// The directory of the database; created if missing.
    pub path: PathBuf,
    /// Block cache and write buffers together; at least [`MINIMUM_MEMORY_BYTES`] is used.
    pub memory_bytes: u64,
    /// Threads for flushes and compactions, at least 2.
    pub background_threads: u32,
    /// Files that RocksDB keeps open at a time.
    pub max_open_files: u32,
    /// The stores of the plan that live here. Names last, ids are this process's.
    pub stores: Vec<(StoreId, Arc<str>)>,
}

impl RocksDbSettings {
    pub fn new(path: impl Into<PathBuf>, memory_bytes: u64) -> Self {
        Self { path: path.into(), memory_bytes, background_threads: 2, max_open_files: 512, stores: Vec::new() }
    }
}

pub const MINIMUM_MEMORY_BYTES: u64 = 4 * MIB;

/// How many files of a store lie unmerged before RocksDB merges them, slows writers down, stops them: while a restoration
/// adds file after file, and at all other times (RocksDB's defaults).
pub(super) const WHILE_RUNS_COME: [(&str, &str); 3] = [
    ("level0_file_num_compaction_trigger", "32"),
    ("level0_slowdown_writes_trigger", "64"),
    ("level0_stop_writes_trigger", "96"),
];
pub(super) const OTHERWISE: [(&str, &str); 3] = [
    ("level0_file_num_compaction_trigger", "4"),
    ("level0_slowdown_writes_trigger", "20"),
    ("level0_stop_writes_trigger", "36"),
];

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// The options of a database and of its column families, and the two objects that they share.
pub(super) struct Tuning {
    pub(super) database: Options,
    pub(super) family: Options,
    pub(super) cache: Cache,
    pub(super) write_buffers: WriteBufferManager,
    /// No write begins while the write buffers hold this many bytes.
    pub(super) write_buffer_limit: usize,
    /// What a restoration collects before it becomes a file.
    pub(super) run_bytes: usize,
}

impl Tuning {
    /// `families`: how many column families share the write buffers.
    pub(super) fn new(settings: &RocksDbSettings, families: usize) -> Self {
        let sizes = Sizes::new(settings.memory_bytes, families as u64);
        let mut cache_options = LruCacheOptions::default();
        cache_options.set_capacity(bytes(sizes.cache));
        cache_options.set_num_shard_bits(sizes.cache_shard_bits);
        let cache = Cache::new_lru_cache_opts(&cache_options);
        let write_buffers = WriteBufferManager::new_write_buffer_manager_with_cache(
            bytes(sizes.write_buffers_flush_at),
            false,
            cache.clone(),
        );

        let family = family_options(&sizes, &cache);
        let mut database = family.clone();
        database.create_if_missing(true);
        database.create_missing_column_families(true);
        database.set_write_buffer_manager(&write_buffers);
        database.set_max_total_wal_size(sizes.wal);
        let threads = i32::try_from(settings.background_threads.max(2)).unwrap_or(i32::MAX);
        database.set_max_background_jobs(threads);
        database.set_max_open_files(i32::try_from(settings.max_open_files).unwrap_or(i32::MAX));
        database.set_max_file_opening_threads(1);
        database.set_skip_stats_update_on_db_open(true);
        database.set_bytes_per_sync(MIB);
        database.set_avoid_unnecessary_blocking_io(true);
        // RocksDB's own text log and bookkeeping files stay small.
        database.set_log_level(LogLevel::Warn);
        database.set_max_log_file_size(bytes(MIB));
        database.set_keep_log_file_num(3);
        database.set_max_manifest_file_size(bytes(16 * MIB));
        database.set_manifest_preallocation_size(bytes(64 * KIB));
        database.set_stats_dump_period_sec(0);
        database.set_stats_persist_period_sec(0);
        let (write_buffer_limit, run_bytes) = (bytes(sizes.write_buffers), bytes(sizes.run));
        Self { database, family, cache, write_buffers, write_buffer_limit, run_bytes }
    }
}

fn family_options(sizes: &Sizes, cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_block_size(bytes(4 * KIB));
    table.set_format_version(6);
    table.set_bloom_filter(10.0, false);
    table.set_optimize_filters_for_memory(true);
    // Index and filters lie in the cache, so that they are inside the budget. In one piece per file: files are small beside
    // the cache, so that no piece is large, and a look-up is spared the search for the right one.
    table.set_cache_index_and_filter_blocks(true);
    table.set_cache_index_and_filter_blocks_with_high_priority(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    // Point look-ups inside a block by hash.
    table.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
    table.set_data_block_hash_ratio(0.75);

    let mut family = Options::default();
    family.set_block_based_table_factory(&table);
    // State of up to some ten files is not compressed: a look-up that misses the cache would mostly decompress. What large
    // state has beyond that lies in the levels below.
    let (none, lz4) = (DBCompressionType::None, DBCompressionType::Lz4);
    family.set_compression_per_level(&[none, none, none, lz4]);
    family.set_write_buffer_size(bytes(sizes.write_buffer));
    family.set_max_write_buffer_number(4);
    family.set_arena_block_size(bytes(sizes.arena_block));
    // A first sight of a key need not search the write buffer.
    family.set_memtable_whole_key_filtering(true);
    family.set_memtable_prefix_bloom_ratio(sizes.memtable_bloom_ratio);
    family.set_level_compaction_dynamic_level_bytes(true);
    family.set_target_file_size_base(sizes.file);
    family.set_max_bytes_for_level_base(4 * sizes.file);
    family
}

/// The arithmetic, in bytes.
#[derive(Clone, Debug, PartialEq)]
struct Sizes {
    cache: u64,
    cache_shard_bits: i32,
    write_buffers: u64,
    write_buffers_flush_at: u64,
    /// Of one column family.
    write_buffer: u64,
    arena_block: u64,
    memtable_bloom_ratio: f64,
    file: u64,
    run: u64,
    wal: u64,
}

impl Sizes {
    fn new(memory_bytes: u64, families: u64) -> Self {
        let cache = memory_bytes.max(MINIMUM_MEMORY_BYTES);
        let write_buffers = cache / 3;
        let write_buffer = (write_buffers / 2).clamp(256 * KIB, 64 * MIB);
        let families = families.max(1);
        Self {
            cache,
            // Shards of at least 16 MiB: a shard must hold its largest block many times over.
            cache_shard_bits: i32::try_from((cache / (16 * MIB)).max(1).ilog2()).unwrap_or(0).min(6),
            write_buffers,
            write_buffers_flush_at: write_buffers / 3 * 2,
            write_buffer,
            // A column family with one row holds one arena block: idle families together stay below a sixteenth.
            arena_block: (write_buffers / 16 / families).clamp(4 * KIB, MIB),
            // Allocated up front per family: together below a tenth of the write buffers.
            memtable_bloom_ratio: (0.2 / families as f64).min(0.02),
            file: write_buffer.clamp(4 * MIB, 64 * MIB),
            // A few of them at a time, beside everything else.
            run: (cache / 16).clamp(256 * KIB, 16 * MIB),
            // What a start has to replay at most.
            wal: (write_buffers * 2).clamp(16 * MIB, 512 * MIB),
        }
    }
}

fn bytes(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_buffers_of_all_families_fit_their_share_however_many_there_are() {
        for memory in [1, 8 * MIB, 64 * MIB, 512 * MIB, 64 * 1024 * MIB] {
            for families in [0, 1, 2, 30, 400] {
                let sizes = Sizes::new(memory, families);
                assert!(sizes.write_buffers <= sizes.cache / 3, "{sizes:?}");
                assert!(sizes.write_buffers_flush_at < sizes.write_buffers, "{sizes:?}");
                assert!(sizes.write_buffer <= sizes.write_buffers_flush_at, "{sizes:?}");
                let blooms = sizes.memtable_bloom_ratio * sizes.write_buffer as f64 * families as f64;
                assert!(blooms <= sizes.write_buffers as f64 / 9.0, "{sizes:?}");
            }
        }
    }
}
