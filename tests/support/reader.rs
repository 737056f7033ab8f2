//! Reads the committed records of a topic as they come, whatever happens to its brokers meanwhile.

use std::time::Duration;

use sidestream::ids::{Offset, Partition, TopicName, TopicPartition};
use sidestream::log::{FetchSlot, Fetched, Fetcher, Log as _, Next};

use super::cluster::{Kafka, Row};

pub struct TopicReader {
    fetcher: Box<dyn Fetcher>,
    /// Per partition: the next offset.
    slots: Vec<(TopicPartition, Offset)>,
}

impl TopicReader {
    pub fn new(kafka: &Kafka, topic: &str, partitions: u32) -> Self {
        let mut fetcher = kafka.log.fetcher("test-topic-reader").unwrap();
        let partition = |number| TopicPartition::new(TopicName::new(topic), Partition(number));
        let slots: Vec<_> = (0..partitions).map(|number| (partition(number), Offset::ZERO)).collect();
        for (number, (partition, from)) in slots.iter().enumerate() {
            fetcher.assign(FetchSlot(number as u32), partition, *from).unwrap();
        }
        Self { fetcher, slots }
    }

    /// What has come since the last call; waits a moment for it.
    pub fn read(&mut self) -> Vec<Row> {
        let mut events = Vec::new();
        let fetched = self.fetcher.fetch(&mut events, 10_000, Duration::from_millis(20));
        assert!(fetched.as_ref().is_ok_and(|()| true) || fetched.is_err_and(|error| error.next() == Next::Retry));
        let mut rows = Vec::new();
        let mut failed = Vec::new();
        for event in events {
            match event {
                Fetched::Record(slot, record) => {
                    let next = &mut self.slots[slot.0 as usize].1;
                    if record.offset < *next {
                        continue;
                    }
                    *next = Offset(record.offset.0 + 1);
                    rows.push(Row::of(slot, &record));
                }
                Fetched::End(..) => {}
                Fetched::Failed(slot, error) => {
                    assert_eq!(error.next(), Next::Retry, "{:?}: {error}", self.slots[slot.0 as usize]);
                    failed.push(slot);
                }
            }
        }
        for slot in failed {
            let (partition, from) = &self.slots[slot.0 as usize];
            self.fetcher.assign(slot, partition, *from).unwrap();
        }
        rows
    }
}
