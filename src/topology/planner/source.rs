//! A stream or table: its readers, and of a table its store.

use std::sync::Arc;

use super::Planner;
use super::draft::{DraftReader, Producer};
use super::stage::{Expiry, Now, Slot, SlotKind, Stage, TableOrigin};
use crate::expression::{self, PseudoColumns};
use crate::format::{self, Format};
use crate::ids::TopicName;
use crate::schema::{Column, Schema, Type};
use crate::topology::diagnostic::Code;
use crate::topology::document::{SourceDef, SourceKind};
use crate::topology::plan::{
    ChangelogPlan, Emit, Encoding, Partitioning, Reader, ReaderKind, Shape, StoreKind, TablePlan,
};

/// The key column of a source that declares none.
pub(super) const RECORD_KEY: &str = "_key";

impl Planner<'_> {
    pub(super) fn source(&mut self, def: &SourceDef) -> Option<Stage> {
        self.check_columns(def);
        let is_key =
            |name: &str| def.key.iter().flat_map(|key| &key.columns).any(|column| &*column.column.name == name);
        let value: Vec<Column> =
            def.columns.iter().map(|column| column.column.clone()).filter(|column| !is_key(&column.name)).collect();
        let key_format = def.key.as_ref().map_or(Format::Bytes, |key| key.format.value);
        let record_key = Column::new(RECORD_KEY, Type::Bytes, true);
        // Key columns come first; the key of a stream that declares none is not seen and comes last.
        let (columns, key, visible) = match (&def.key, def.kind) {
            (Some(declared), _) => {
                let mut columns: Vec<Column> = declared.columns.iter().map(|column| column.column.clone()).collect();
                let key: Vec<usize> = (0..columns.len()).collect();
                columns.extend(value.iter().cloned());
                let visible = columns.len();
                (columns, key, visible)
            }
            (None, SourceKind::Stream) => {
                let visible = value.len();
                let columns = value.iter().cloned().chain([record_key]).collect();
                (columns, vec![visible], visible)
            }
            (None, SourceKind::Table) => {
                let columns: Vec<Column> = [record_key].into_iter().chain(value.iter().cloned()).collect();
                let visible = columns.len();
                (columns, vec![0], visible)
            }
        };
        let slots = columns
            .iter()
            .enumerate()
            .map(|(index, column)| Slot {
                qualifier: None,
                column: column.clone(),
                kind: if index < visible { SlotKind::Visible } else { SlotKind::Hidden },
            })
            .collect();
        let shape = match def.kind {
            SourceKind::Stream => Shape::Stream,
            SourceKind::Table => Shape::Table,
        };
        let region = match def.topics.first() {
            Some(topic) => self.draft.topic_region(&TopicName::new(&topic.text)),
            None => return None,
        };
        let key_schema = Schema::new(key.iter().map(|&slot| columns[slot].clone()));
        let mut stage = Stage {
            producers: Vec::new(),
            region,
            slots,
            key: key.clone(),
            shape,
            partitioning: Some(Partitioning { format: key_format, key: key_schema.clone() }),
            partitions: None,
            record_key: Some(key_format),
            headers: shape == Shape::Stream,
            pseudo_columns: shape == Shape::Stream,
            late: def.late.as_ref().map(|topic| TopicName::new(&topic.text)),
            emit: Emit::Each,
            windowed: false,
            expiry: Expiry::Told,
            table: None,
        };
        let timestamp = def.timestamp.as_ref().and_then(|text| {
            let mut scope = stage.scope(Now::Refused);
            scope.pseudo_columns = true;
            let compiled = expression::compile(&text.text, &scope);
            let compiled = self.checked(text, compiled)?;
            if compiled.ty != Type::Timestamp {
                let message = format!("`timestamp` must be a TIMESTAMP; this is {}", compiled.ty);
                let help = "a TIMESTAMP column is read from RFC 3339 or from milliseconds since 1970";
                self.error(Code::BadType, &text.span, message, Some(help));
            }
            Some(compiled)
        });
        let schema = Schema::new(columns);
        let kind = match def.kind {
            SourceKind::Stream => ReaderKind::Stream,
            SourceKind::Table => {
                let topic = TopicName::new(&def.topics.first()?.text);
                let name = self.storage_name(&def.name.text);
                let rest = schema.columns()[key.len()..].iter().cloned();
                let own = self.changelog_topic(&name);
                // What `max_ahead` refuses depends on when it was read: the topic alone does not say what the table held.
                let changelog = if def.watermark.max_ahead.is_some() {
                    ChangelogPlan::Own(own)
                } else {
                    ChangelogPlan::SourceIfCompacted { source: topic, own }
                };
                let store = self.draft.add_store(
                    &name,
                    StoreKind::KeyValue,
                    key_schema.clone(),
                    Schema::new(rest),
                    changelog,
                    region,
                );
                stage.table = Some(TableOrigin { store, view: Vec::new() });
                self.tables.push(TablePlan {
                    name: Self::arc(&def.name.text),
                    store,
                    key: key_schema,
                    schema: schema.clone(),
                    view: Vec::new(),
                    queryable: def.query,
                    windowed: false,
                    partitioning: stage.partitioning.clone(),
                });
                ReaderKind::Table { store }
            }
        };
        for topic in &def.topics {
            let topic_name = TopicName::new(&topic.text);
            let topic_region = self.draft.topic_region(&topic_name);
            stage.region = self.draft.unite(stage.region, topic_region);
            self.check_same_start(def, &topic_name);
            stage.producers.push(Producer::Reader(self.draft.readers.len()));
            self.draft.readers.push(DraftReader {
                topic: topic_name,
                reader: Reader {
                    name: Arc::from(def.name.text.as_str()),
                    encoding: Encoding::Declared { key: key_format, value: def.format.value },
                    schema: schema.clone(),
                    visible,
                    key: key.clone(),
                    used: vec![false; schema.len()],
                    pseudo: PseudoColumns::default(),
                    timestamp: timestamp.clone(),
                    watermark: def.watermark,
                    on_error: def.on_error,
                    kind: kind.clone(),
                    next: Vec::new(),
                },
                start: def.start.value,
                bootstrap: def.bootstrap && def.kind == SourceKind::Table,
                region: stage.region,
                repartition: None,
                next: Vec::new(),
            });
        }
        Some(stage)
    }

    fn check_columns(&mut self, def: &SourceDef) {
        let value = Schema::new(def.columns.iter().map(|column| column.column.clone()));
        if let Err(reason) = format::supports(def.format.value, &value)
            && !value.is_empty()
        {
            self.error(Code::BadType, &def.format.span, reason, Some("`json` holds any columns"));
        }
        let Some(key) = &def.key else { return };
        let schema = Schema::new(key.columns.iter().map(|column| column.column.clone()));
        if let Err(reason) = format::supports(key.format.value, &schema) {
            let help = "a key of several columns, or of another type, is `{columns: {...}, format: json}`";
            self.error(Code::BadType, &key.format.span, reason, Some(help));
        }
        for column in &def.columns {
            if schema.column(&column.column.name).is_some() {
                let message = format!("column `{}` is the key's already", column.column.name);
                let help = "the key's columns are columns of the record: leave it out of `columns`";
                self.error(Code::DuplicateName, &column.span, message, Some(help));
            }
        }
    }

    /// One topic has one position: streams over it begin at the same place.
    fn check_same_start(&mut self, def: &SourceDef, topic: &TopicName) {
        let other = self.draft.readers.iter().find(|reader| reader.topic == *topic);
        if let Some(other) = other.filter(|other| other.start != def.start.value) {
            let name = other.reader.name.clone();
            let message = format!("`{}` and `{name}` read the topic `{topic}` from different starts", def.name.text);
            self.error(Code::Clause, &def.start.span, message, None);
        }
    }
}
