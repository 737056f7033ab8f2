//! librdkafka's list of topic partitions, owned.

use std::ffi::c_void;
use std::ptr::NonNull;

use rdkafka_sys::bindings as sys;

use super::code::text;
use super::{Client, Code, NativeError, c_string};
use crate::ids::{Partition, TopicPartition};
use crate::log::OffsetCommit;

/// One entry of a list that was read.
#[derive(Clone, Debug)]
pub struct Entry {
    pub partition: TopicPartition,
    /// Negative where there is none.
    pub offset: i64,
    pub metadata: Vec<u8>,
    pub code: Code,
}

#[derive(Debug)]
pub struct PartitionList {
    raw: NonNull<sys::rd_kafka_topic_partition_list_t>,
}

impl Drop for PartitionList {
    fn drop(&mut self) {
        // SAFETY: ours alone.
        unsafe { sys::rd_kafka_topic_partition_list_destroy(self.raw.as_ptr()) };
    }
}

impl PartitionList {
    fn with_capacity(capacity: usize) -> Self {
        // SAFETY: any size is fine, the list grows; librdkafka aborts rather than return null.
        let raw = unsafe { sys::rd_kafka_topic_partition_list_new(i32::try_from(capacity).unwrap_or(0)) };
        Self { raw: NonNull::new(raw).unwrap_or(NonNull::dangling()) }
    }

    pub fn new<'a>(
        partitions: impl IntoIterator<Item = &'a TopicPartition>,
        offset: impl Fn(usize) -> Option<i64>,
    ) -> Result<Self, NativeError> {
        let mut list = Self::with_capacity(0);
        for (index, partition) in partitions.into_iter().enumerate() {
            list.add(partition.topic.as_str(), partition.partition.as_i32(), offset(index))?;
        }
        Ok(list)
    }

    /// A subscription: topics without partition numbers.
    pub fn topics<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, NativeError> {
        let mut list = Self::with_capacity(0);
        for name in names {
            list.add(name, -1, None)?;
        }
        Ok(list)
    }

    /// The offsets of a commit, with their metadata.
    pub fn commit(client: &Client, offsets: &[OffsetCommit]) -> Result<Self, NativeError> {
        let mut list = Self::with_capacity(offsets.len());
        for commit in offsets {
            let topic = commit.partition.topic.as_str();
            let entry = list.add(topic, commit.partition.partition.as_i32(), Some(commit.offset.0))?;
            let metadata = commit.metadata.as_bytes();
            if metadata.is_empty() {
                continue;
            }
            // SAFETY: the entry is alive until the next addition. Its metadata must come from librdkafka's allocator,
            // since the list frees it; as many bytes are copied as were allocated.
            unsafe {
                let copy = sys::rd_kafka_mem_malloc(client.raw(), metadata.len());
                std::ptr::copy_nonoverlapping(metadata.as_ptr(), copy.cast::<u8>(), metadata.len());
                (*entry).metadata = copy.cast::<c_void>();
                (*entry).metadata_size = metadata.len();
            }
        }
        Ok(list)
    }

    fn add(
        &mut self,
        topic: &str,
        partition: i32,
        offset: Option<i64>,
    ) -> Result<*mut sys::rd_kafka_topic_partition_t, NativeError> {
        let topic = c_string(topic)?;
        // SAFETY: the list is ours, the name is copied; the entry returned is alive until the next addition.
        unsafe {
            let entry = sys::rd_kafka_topic_partition_list_add(self.raw.as_ptr(), topic.as_ptr(), partition);
            if let Some(offset) = offset {
                (*entry).offset = offset;
            }
            Ok(entry)
        }
    }

    pub(super) fn raw(&self) -> *mut sys::rd_kafka_topic_partition_list_t {
        self.raw.as_ptr()
    }

    pub fn entries(&self) -> Vec<Entry> {
        // SAFETY: the list is alive and not changed during the call.
        unsafe { read(self.raw.as_ptr()) }
    }
}

/// Copies a list that librdkafka owns.
///
/// # Safety
/// `list` is null or a live list that nobody changes meanwhile.
pub unsafe fn read(list: *const sys::rd_kafka_topic_partition_list_t) -> Vec<Entry> {
    if list.is_null() {
        return Vec::new();
    }
    // SAFETY: a live list has `cnt` live entries from `elems` on.
    unsafe {
        let count = usize::try_from((*list).cnt).unwrap_or(0);
        (0..count).map(|index| read_entry((*list).elems.add(index))).collect()
    }
}

/// Copies one entry.
///
/// # Safety
/// `entry` is a live entry that nobody changes meanwhile.
pub unsafe fn read_entry(entry: *const sys::rd_kafka_topic_partition_t) -> Entry {
    // SAFETY: the caller's promise. Metadata is `metadata_size` bytes where it is not null. The error field is read as
    // an integer (see `code`).
    unsafe {
        let metadata = if (*entry).metadata.is_null() {
            Vec::new()
        } else {
            std::slice::from_raw_parts((*entry).metadata.cast::<u8>(), (*entry).metadata_size).to_vec()
        };
        Entry {
            partition: TopicPartition::new(
                text((*entry).topic).as_str(),
                Partition(u32::try_from((*entry).partition).unwrap_or(0)),
            ),
            offset: (*entry).offset,
            metadata,
            code: Code((&raw const (*entry).err).cast::<i32>().read()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::PartitionList;
    use crate::ids::{Partition, TopicPartition};

    #[test]
    fn a_list_reads_back_what_was_put_in() {
        let partitions = [TopicPartition::new("a", Partition(0)), TopicPartition::new("b", Partition(7))];
        let list = PartitionList::new(&partitions, |index| i64::try_from(index).ok().map(|index| index + 40)).unwrap();
        let entries = list.entries();
        assert_eq!(entries.iter().map(|entry| entry.partition.clone()).collect::<Vec<_>>(), partitions);
        assert_eq!(entries.iter().map(|entry| entry.offset).collect::<Vec<_>>(), [40, 41]);
        assert!(entries.iter().all(|entry| !entry.code.is_error() && entry.metadata.is_empty()));
    }

    #[test]
    fn a_topic_name_with_a_nul_byte_is_refused() {
        assert!(PartitionList::topics(["a\0b"]).is_err());
    }
}
