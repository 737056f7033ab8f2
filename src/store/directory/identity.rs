//! The `identity` file of a state directory: JSON, versioned, replaced as a whole.
//!
//! ```json
//! {
//!   "format": 1,
//!   "application": "fraud",
//!   "cluster_id": "5L6g3nShT-eMCtK--X86sw",
//!   "instance_id": "0b54b0a3-6b5f-4b0a-9a53-0a5c9c2c6d0e",
//!   "workers": [0, 1],
//!   "plan": ["store per_card key-value ..."],
//!   "stores": {"per_card": [{"version": 1, "columns": [{"name": "total", "type": "BIGINT", "nullable": true}]}]}
//! }
//! ```
//! Invariant: a version of a store's row layout keeps its columns for ever. Versions come from the caller, never from here:
//! rows travel in changelogs to other instances, so the number of a layout must be the same on all of them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::schema::Schema;

/// Of the directory's layout and of the identity file.
pub(super) const FORMAT: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    format: u32,
    /// The topology's name.
    pub application: String,
    /// Kafka's id of the cluster whose offsets and changelogs the state reflects; `None` before first contact.
    pub cluster_id: Option<String>,
    /// A UUID, made once: part of the transactional ids where no instance id is set.
    pub instance_id: String,
    /// Every worker number that ever had a transactional id from this directory (EXACTLY-ONCE rule 2b).
    pub workers: BTreeSet<u32>,
    /// The fingerprint of the plan that last ran.
    pub plan: Vec<String>,
    /// The row layouts that each store has had, by store name, oldest first.
    pub stores: BTreeMap<String, Vec<RowLayout>>,
}

/// The columns of stored rows, under the number that every such row carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowLayout {
    pub version: u32,
    pub columns: Vec<LayoutColumn>,
}

/// A column in words, so that a type that this program no longer has still reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutColumn {
    pub name: String,
    /// As LANGUAGE spells it: `DECIMAL(10,2)`.
    #[serde(rename = "type")]
    pub ty: String,
    pub nullable: bool,
}

impl LayoutColumn {
    pub fn all_of(schema: &Schema) -> Vec<Self> {
        let columns = schema.columns().iter();
        columns
            .map(|column| Self { name: column.name.to_string(), ty: column.ty.to_string(), nullable: column.nullable })
            .collect()
    }
}

impl Identity {
    pub(super) fn new(application: &str) -> Self {
        Self {
            format: FORMAT,
            application: application.to_owned(),
            cluster_id: None,
            instance_id: uuid::Uuid::new_v4().to_string(),
            workers: BTreeSet::new(),
            plan: Vec::new(),
            stores: BTreeMap::new(),
        }
    }

    /// The layouts that a store's rows may have, oldest first.
    pub fn layouts(&self, store: &str) -> &[RowLayout] {
        self.stores.get(store).map_or(&[], Vec::as_slice)
    }

    /// Adds a layout, or tells which columns its version has already.
    pub(super) fn add_layout(&mut self, store: &str, layout: RowLayout) -> Result<(), Vec<LayoutColumn>> {
        let layouts = self.stores.entry(store.to_owned()).or_default();
        match layouts.iter().find(|known| known.version == layout.version) {
            Some(known) if known.columns == layout.columns => {}
            Some(known) => return Err(known.columns.clone()),
            None => layouts.push(layout),
        }
        Ok(())
    }

    pub(super) fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }

    pub(super) fn from_json(text: &str) -> Result<Self, Unreadable> {
        #[derive(Deserialize)]
        struct Versioned {
            format: u32,
        }
        let broken = |error: serde_json::Error| Unreadable::Broken { reason: error.to_string() };
        let Versioned { format } = serde_json::from_str(text).map_err(broken)?;
        if format != FORMAT {
            return Err(Unreadable::OtherFormat { format });
        }
        serde_json::from_str(text).map_err(broken)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    OtherFormat { format: u32 },
    Broken { reason: String },
}
