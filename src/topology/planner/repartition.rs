//! Through a repartition topic to another key, and so into another sub-topology.

use std::time::Duration;

use super::Planner;
use super::draft::{DraftReader, DraftRepartition, Producer};
use super::stage::{Slot, SlotKind, Stage};
use crate::expression::{Expression, PseudoColumns};
use crate::format::Format;
use crate::ids::TopicName;
use crate::schema::{Column, Schema};
use crate::topology::document::StepDef;
use crate::topology::plan::{
    Encoding, OnError, OperatorPlan, Partitioning, Reader, ReaderKind, RepartitionPlan, Shape, Start, WatermarkPlan,
};

/// The new key: an expression per column, each with its name.
pub struct NewKey {
    pub columns: Vec<(String, Expression)>,
    /// What the rows must lie beside; else the format follows from the columns.
    pub beside: Option<Partitioning>,
    /// `join` and the alias, for the topic's name.
    pub clause: Option<String>,
    pub partitions: Option<u32>,
}

impl Planner<'_> {
    /// By the key that `key_by` gave.
    pub(super) fn repartition_by_key(&mut self, def: &StepDef, stage: Stage) -> Stage {
        let columns =
            stage.key.iter().map(|&slot| (stage.slots[slot].column.name.to_string(), stage.column(slot))).collect();
        let partitions = stage.partitions;
        self.repartition(def, stage, NewKey { columns, beside: None, clause: None, partitions })
    }

    /// The same rows behind a repartition topic, keyed anew. Computed key columns become hidden slots.
    pub(super) fn repartition(&mut self, def: &StepDef, stage: Stage, new: NewKey) -> Stage {
        let mut expressions = stage.identity();
        let mut slots = stage.slots.clone();
        let mut key = Vec::new();
        for (name, expression) in new.columns {
            if let Some(slot) = expression.as_column() {
                key.push(slot);
                continue;
            }
            let column = Column::new(name, expression.ty.clone(), expression.nullable);
            key.push(slots.len());
            slots.push(Slot { qualifier: None, column, kind: SlotKind::Hidden });
            expressions.push(expression);
        }
        let mut stage = stage;
        if slots.len() > stage.slots.len() {
            stage = self.project(def, stage, expressions, slots, key);
        } else {
            stage.key = key;
        }
        let partitioning = new.beside.unwrap_or_else(|| {
            let key = stage.key_schema();
            Partitioning { format: Format::of_key(&key), key }
        });

        let clause = new.clause.map(|clause| format!("-{clause}")).unwrap_or_default();
        let name = format!("{}-{}{clause}-repartition", self.document.name.text, self.storage_name(&def.name.text));
        let topic = TopicName::new(name);
        let key_schema = Schema::new(
            partitioning.key.columns().iter().map(|column| Column::new(&column.name, column.ty.clone(), true)),
        );
        let plan = RepartitionPlan {
            topic: topic.clone(),
            key: stage.key.iter().map(|&slot| stage.column(slot)).collect(),
            key_schema,
            key_format: partitioning.format,
            input: stage.shape,
        };
        let written = self.add(def, stage.clone(), OperatorPlan::Repartition(plan));
        let writer = match written.producers.as_slice() {
            [Producer::Node(node)] => *node,
            _ => return stage,
        };

        let region = self.draft.new_region();
        let reader = self.draft.readers.len();
        let schema = Schema::new(stage.columns());
        self.draft.readers.push(DraftReader {
            topic: topic.clone(),
            reader: Reader {
                name: Self::arc(&def.name.text),
                encoding: Encoding::Internal,
                visible: stage.visible(),
                key: stage.key.clone(),
                used: vec![false; schema.len()],
                schema,
                pseudo: PseudoColumns::default(),
                timestamp: None,
                watermark: WatermarkPlan {
                    delay: Duration::ZERO,
                    idle_timeout: Duration::from_secs(30),
                    max_ahead: None,
                },
                on_error: OnError::DeadLetter,
                kind: match stage.shape {
                    Shape::Stream => ReaderKind::Stream,
                    Shape::Table => ReaderKind::TableChanges,
                },
                next: Vec::new(),
            },
            start: Start::Earliest,
            bootstrap: false,
            region,
            repartition: Some(writer),
            next: Vec::new(),
        });
        self.draft.repartitions.push(DraftRepartition { topic, partitions: new.partitions, writer, reader });
        stage.producers = vec![Producer::Reader(reader)];
        stage.region = region;
        stage.partitioning = Some(partitioning);
        stage.partitions = None;
        stage.record_key = None;
        stage.headers = false;
        stage.table = None;
        stage
    }
}
