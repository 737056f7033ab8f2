//! Reads committed records of assigned partitions.

use std::sync::Arc;
use std::time::Duration;

use super::faults::{self, Client, Fault, Step};
use super::fetched;
use super::state::{Shared, State};
use super::topic::PartitionIndex;
use crate::ids::{Offset, TopicPartition};
use crate::log::{Error, FetchSlot, Fetched, Fetcher};

#[derive(Debug)]
pub(super) struct MemoryFetcher {
    shared: Arc<Shared>,
    client: Arc<Client>,
    name: String,
    /// Ordered by slot.
    slots: Vec<Slot>,
    /// Where the next fetch begins: every slot comes first in its turn.
    turn: usize,
}

#[derive(Debug)]
struct Slot {
    slot: FetchSlot,
    partition: TopicPartition,
    /// `None` where there was no such topic when the slot was assigned.
    index: Option<PartitionIndex>,
    position: Offset,
    state: Reading,
    /// The end that was reported last, since the slot was positioned.
    reported_end: Option<Offset>,
    faults: SlotFaults,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reading {
    Active,
    Paused,
    /// Has failed, and says no more until it is assigned again.
    Failed,
}

/// What befalls a slot in the fetch under way.
#[derive(Clone, Copy, Debug, Default)]
struct SlotFaults {
    most: Option<usize>,
    again: usize,
}

impl MemoryFetcher {
    pub fn new(shared: &Arc<Shared>, client: &Arc<Client>, name: &str) -> Self {
        Self {
            shared: Arc::clone(shared),
            client: Arc::clone(client),
            name: name.to_owned(),
            slots: Vec::new(),
            turn: 0,
        }
    }

    fn find(&self, slot: FetchSlot) -> Result<usize, usize> {
        self.slots.binary_search_by_key(&slot, |assigned| assigned.slot)
    }

    fn draw_faults(&mut self) {
        for slot in &mut self.slots {
            if slot.state != Reading::Active {
                continue;
            }
            let step = Step::Fetch { fetcher: &self.name, partition: &slot.partition };
            slot.faults = match self.shared.fault(&self.client, step) {
                Fault::Unreachable | Fault::Delay => SlotFaults { most: Some(0), again: 0 },
                Fault::Short(most) => SlotFaults { most: Some(most), again: 0 },
                Fault::Duplicate(again) => SlotFaults { most: None, again },
                _ => SlotFaults::default(),
            };
        }
    }
}

impl Fetcher for MemoryFetcher {
    fn assign(&mut self, slot: FetchSlot, partition: &TopicPartition, from: Offset) -> Result<(), Error> {
        let index = self.shared.with(|state, _| {
            let topic = state.topics.index(&partition.topic).ok()?;
            state.topics.partition(partition).ok()?;
            Some(PartitionIndex { topic, partition: partition.partition })
        });
        let place = self.find(slot);
        // A paused slot that is repositioned stays paused.
        let state = match place {
            Ok(found) if self.slots[found].state == Reading::Paused => Reading::Paused,
            _ => Reading::Active,
        };
        let assigned = Slot {
            slot,
            partition: partition.clone(),
            index,
            position: from,
            state,
            reported_end: None,
            faults: SlotFaults::default(),
        };
        match place {
            Ok(found) => self.slots[found] = assigned,
            Err(place) => self.slots.insert(place, assigned),
        }
        Ok(())
    }

    fn unassign(&mut self, slot: FetchSlot) -> Result<(), Error> {
        if let Ok(found) = self.find(slot) {
            self.slots.remove(found);
        }
        Ok(())
    }

    fn pause(&mut self, slot: FetchSlot) -> Result<(), Error> {
        if let Ok(found) = self.find(slot)
            && self.slots[found].state == Reading::Active
        {
            self.slots[found].state = Reading::Paused;
        }
        Ok(())
    }

    fn resume(&mut self, slot: FetchSlot) -> Result<(), Error> {
        if let Ok(found) = self.find(slot)
            && self.slots[found].state == Reading::Paused
        {
            self.slots[found].state = Reading::Active;
        }
        Ok(())
    }

    fn fetch(&mut self, into: &mut Vec<Fetched>, limit: usize, wait: Duration) -> Result<(), Error> {
        if self.client.is_killed() {
            return Err(faults::unreachable(&self.client));
        }
        if self.shared.has_faults() {
            self.draw_faults();
        }
        let before = into.len();
        let count = self.slots.len();
        self.turn = if count == 0 { 0 } else { (self.turn + 1) % count };
        let (turn, slots) = (self.turn, &mut self.slots);
        let shared = &self.shared;
        shared.wait_for(wait, |state, _| {
            for place in 0..count {
                let room = (before + limit).saturating_sub(into.len());
                if room == 0 {
                    break;
                }
                slots[(turn + place) % count].read(state, into, room);
            }
            (into.len() > before || limit == 0).then_some(())
        });
        for slot in slots {
            slot.faults = SlotFaults::default();
        }
        Ok(())
    }
}

impl Slot {
    fn read(&mut self, state: &State, into: &mut Vec<Fetched>, room: usize) {
        if self.state != Reading::Active || self.faults.most == Some(0) {
            return;
        }
        let topic = self.index.and_then(|index| state.topics.get(index.topic));
        let Some(log) = topic.and_then(|topic| topic.partition(self.partition.partition)) else {
            self.state = Reading::Failed;
            into.push(Fetched::Failed(self.slot, Error::TopicMissing { topic: self.partition.topic.clone() }));
            return;
        };
        if self.position < log.start() || self.position > log.end() {
            self.state = Reading::Failed;
            let (partition, offset) = (self.partition.clone(), self.position);
            into.push(Fetched::Failed(self.slot, Error::OffsetOutOfRange { partition, offset }));
            return;
        }
        let before = into.len();
        let again = std::mem::take(&mut self.faults.again).min(room);
        if again > 0 {
            let repeated = log.committed_before(self.position, again);
            into.extend(repeated.map(|record| Fetched::Record(self.slot, fetched(record))));
        }
        let most = self.faults.most.unwrap_or(usize::MAX).min(room - (into.len() - before));
        let mut taken = 0;
        for record in log.committed_from(self.position).take(most) {
            self.position = record.offset.next();
            into.push(Fetched::Record(self.slot, fetched(record)));
            taken += 1;
        }
        if taken > 0 && self.faults.most.is_some() {
            // A wait that goes on must not read more of it.
            self.faults.most = Some(0);
        }
        let stable = log.last_stable();
        let caught_up = taken < most && self.position <= stable;
        if caught_up && into.len() - before < room && self.reported_end != Some(stable) {
            self.position = stable;
            self.reported_end = Some(stable);
            into.push(Fetched::End(self.slot, stable));
        }
    }
}
