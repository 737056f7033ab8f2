//! From the records of a source topic that serves as changelog to the stored rows of its table (EXACTLY-ONCE rule 21).
//!
//! What it is: what processing the record would have left in the store, without processing it.
//! What it is not: it rejects nothing. A record that is no row was dealt with when it was processed, and left no trace in
//! the store.

use super::layout;
use super::reader::{RowReader, Rows};
use super::restore::SourceChange;
use super::{Error, input};
use crate::ids::{Partition, StoreId, SubTopologyId};
use crate::log::Record;
use crate::row::{Origin, Row};
use crate::schema::Schema;
use crate::store::key;
use crate::store::row::RowCodec;
use crate::topology::Plan;
use crate::topology::plan::ReaderKind;
use crate::value::Value;

/// Reads one table's rows.
#[derive(Debug)]
pub struct SourceRows {
    reader: RowReader,
    key_slots: Vec<usize>,
    key: Schema,
    codec: RowCodec,
    origin: Origin,
}

impl SourceRows {
    /// `None` where no source of the sub-topology fills the store.
    pub fn of(
        plan: &Plan,
        sub_topology: SubTopologyId,
        store: StoreId,
        partition: Partition,
    ) -> Result<Option<Self>, Error> {
        let sub = &plan.sub_topologies[sub_topology.0 as usize];
        let filling = sub.sources.iter().find_map(|source| {
            let reader = source.readers.iter().find(|reader| fills(&reader.kind, store))?;
            Some((source, reader))
        });
        let Some((source, reader)) = filling else { return Ok(None) };
        let store = &plan.stores[store.index()];
        let (codec, _) = layout::codec(store, "", &sub.nodes, None)?;
        Ok(Some(Self {
            reader: RowReader::new(reader, Vec::new()),
            key_slots: reader.key.clone(),
            key: store.key.clone(),
            codec,
            origin: input::no_origin(&source.topic, partition),
        }))
    }

    /// What a record does to the store; `None` where it is no row.
    pub fn change(&mut self, record: &Record) -> Option<SourceChange> {
        self.origin.offset = record.offset;
        self.origin.time = record.timestamp;
        let time = self.reader.read(record, &mut self.origin);
        let row = self.reader.row();
        let is_row = match self.reader.outcome() {
            Ok(Rows::One) => true,
            Ok(Rows::Deletion) => false,
            Ok(Rows::Tombstone | Rows::Change { .. } | Rows::Retimed { .. } | Rows::Watermark) | Err(_) => return None,
        };
        if let [slot] = self.key_slots[..]
            && row[slot].is_null()
        {
            return None;
        }
        let keys: Row = self.key_slots.iter().map(|&slot| row[slot].clone()).collect();
        let mut key_bytes = Vec::new();
        key::encode_key(&keys, &self.key, &mut key_bytes).ok()?;
        let value = if !is_row {
            None
        } else {
            let rest: Vec<Value> = row
                .iter()
                .enumerate()
                .filter(|(slot, _)| !self.key_slots.contains(slot))
                .map(|(_, value)| value.clone())
                .collect();
            let mut bytes = Vec::new();
            self.codec.encode(&rest, Some(time), &mut bytes).ok()?;
            Some(bytes.into_boxed_slice())
        };
        Some(SourceChange { key: key_bytes.into_boxed_slice(), value })
    }
}

fn fills(kind: &ReaderKind, store: StoreId) -> bool {
    match kind {
        ReaderKind::Table { store: filled } => *filled == store,
        ReaderKind::Stream | ReaderKind::TableChanges => false,
    }
}
