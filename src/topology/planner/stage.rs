//! What flows at one point of a step: where it comes from, its columns as expressions may name them, and its key.

use std::sync::Arc;

use super::draft::{Producer, Region};
use crate::expression::{Expression, Scope, ScopeColumn};
use crate::format::Format;
use crate::ids::{StoreId, TopicName};
use crate::schema::{Column, Schema};
use crate::topology::plan::{Emit, OperatorPlan, Partitioning, Shape, Ttl};

#[derive(Clone, Debug)]
pub struct Stage {
    /// Several in a union, all with the same slots.
    pub producers: Vec<Producer>,
    pub region: Region,
    pub slots: Vec<Slot>,
    /// Slots of the key columns.
    pub key: Vec<usize>,
    pub shape: Shape,
    /// How the rows are spread over partitions, if by their key.
    pub partitioning: Option<Partitioning>,
    /// A partition count that `key_by` asked for and that the next repartition topic gets.
    pub partitions: Option<u32>,
    /// The format of the record's key, as long as that still is the row's key.
    pub record_key: Option<Format>,
    /// Whether the record's headers are passed on.
    pub headers: bool,
    /// Whether `_timestamp` and the like mean anything.
    pub pseudo_columns: bool,
    /// Where late records go unless the step says it.
    pub late: Option<TopicName>,
    /// Of a table: when it passes on changes.
    pub emit: Emit,
    /// Of a table: whether its last key column is `window_start`.
    pub windowed: bool,
    /// Of a table.
    pub expiry: Expiry,
    /// Of a table: the store behind it and what is done to its rows.
    pub table: Option<TableOrigin>,
}

/// How rows whose `ttl` has run out leave a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// As deletions; or there is no ttl.
    Told,
    /// Those who read the table never hear of it (`downstream: keep`).
    Silent,
}

impl Expiry {
    pub fn of(ttl: Option<Ttl>) -> Self {
        if ttl.is_some_and(|ttl| !ttl.downstream) { Self::Silent } else { Self::Told }
    }
}

#[derive(Clone, Debug)]
pub struct TableOrigin {
    pub store: StoreId,
    pub view: Vec<OperatorPlan>,
}

#[derive(Clone, Debug)]
pub struct Slot {
    pub qualifier: Option<Arc<str>>,
    pub column: Column,
    pub kind: SlotKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotKind {
    Visible,
    /// The right side of a join's equality: named only with its qualifier, and not part of `*`.
    Equality,
    /// A key column that `select` dropped.
    Hidden,
}

impl Slot {
    pub fn visible(column: Column) -> Self {
        Self { qualifier: None, column, kind: SlotKind::Visible }
    }

    /// As people would name it.
    pub fn full_name(&self) -> String {
        match &self.qualifier {
            Some(qualifier) => format!("{qualifier}.{}", self.column.name),
            None => self.column.name.to_string(),
        }
    }
}

/// What a clause allows in its expressions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Now {
    Allowed,
    /// A value that must be the same on replay.
    Refused,
}

impl Stage {
    /// Whether it is a table whose readers never hear that a row has expired.
    pub fn expires_in_silence(&self) -> bool {
        self.shape == Shape::Table && self.expiry == Expiry::Silent
    }

    pub fn scope(&self, now: Now) -> Scope {
        let columns = self
            .slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.kind != SlotKind::Hidden)
            .map(|(index, slot)| ScopeColumn {
                qualifier: slot.qualifier.clone(),
                column: slot.column.clone(),
                slot: index,
                hidden: slot.kind == SlotKind::Equality,
            })
            .collect();
        Scope {
            columns,
            pseudo_columns: self.pseudo_columns,
            // A table's rows are computed again for deletes and queries.
            allow_now: now == Now::Allowed && self.shape == Shape::Stream,
            allow_random: false,
        }
    }

    pub fn columns(&self) -> Vec<Column> {
        self.slots.iter().map(|slot| slot.column.clone()).collect()
    }

    /// How many slots, from the first, a user sees; all of them where hidden ones stand between.
    pub fn visible(&self) -> usize {
        let visible = self.slots.iter().take_while(|slot| slot.kind == SlotKind::Visible).count();
        if self.slots[visible..].iter().all(|slot| slot.kind != SlotKind::Visible) { visible } else { self.slots.len() }
    }

    /// Whether the visible slots come first, and nothing is hidden but what the key needs.
    pub fn is_tidy(&self) -> bool {
        let visible = self.slots.iter().take_while(|slot| slot.kind == SlotKind::Visible).count();
        (visible..self.slots.len()).all(|slot| self.slots[slot].kind == SlotKind::Hidden && self.key.contains(&slot))
    }

    pub fn key_schema(&self) -> Schema {
        Schema::new(self.key.iter().map(|&slot| self.slots[slot].column.clone()))
    }

    pub fn column(&self, slot: usize) -> Expression {
        Expression::column(slot, &self.slots[slot].column)
    }

    /// The slots as expressions: what a projection starts from.
    pub fn identity(&self) -> Vec<Expression> {
        (0..self.slots.len()).map(|slot| self.column(slot)).collect()
    }

    pub fn visible_schema(&self) -> Schema {
        Schema::new(self.slots.iter().filter(|slot| slot.kind == SlotKind::Visible).map(|slot| slot.column.clone()))
    }
}

/// Whether two ways of spreading rows put equal keys into the same partition number.
pub fn same_partitioning(a: &Partitioning, b: &Partitioning) -> bool {
    let (left, right) = (a.key.columns(), b.key.columns());
    a.format == b.format
        && left.len() == right.len()
        && left.iter().zip(right).all(|(left, right)| {
            // A JSON object has its names in its bytes.
            left.ty == right.ty && (a.format != Format::Json || left.name == right.name)
        })
}
