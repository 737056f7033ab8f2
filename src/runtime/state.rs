//! The state of an instance on this machine: opens directory and database, and refuses a plan that would misread them.
//!
//! Invariant: nothing is opened for writing before the plan has been found to fit.

use std::path::Path;
use std::sync::Arc;

use crate::expression::parse_type;
use crate::schema::{Column, Schema};
use crate::store::directory::{Identity, LayoutColumn, RowLayout, StateDirectory};
use crate::store::memory::Memory;
use crate::store::mixed::Mixed;
use crate::store::rocksdb::{RocksDb, RocksDbSettings};
use crate::store::row::{RowCodec, layout_hash};
use crate::store::{self, SharedBackend};
use crate::topology::Plan;
use crate::topology::plan::{BackendKind, Misreading, StoreKind};

/// An opened state directory with what runs on it. Dropping it releases the directory's lock: keep it until the end.
#[derive(Debug)]
pub struct State {
    pub directory: StateDirectory,
    pub backend: SharedBackend,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(
        "the state in {path} was written by another version of this topology and would be misread:\n{}",
        .changes.iter().map(|change| format!("  {}", change.message)).collect::<Vec<_>>().join("\n")
    )]
    Misfit { path: String, changes: Vec<Misreading> },
}

impl Error {
    /// What the user can do about it.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.help().map(str::to_owned),
            Self::Misfit { changes, .. } => {
                let mut stores: Vec<&str> = changes.iter().filter_map(|change| change.store.as_deref()).collect();
                stores.dedup();
                let resets: Vec<String> =
                    stores.iter().map(|store| format!("`sidestream reset --step {store}`")).collect();
                Some(if resets.is_empty() {
                    "undo the change, or let the application begin anew with `sidestream reset`".to_owned()
                } else {
                    format!(
                        "give the changed step a new name, undo the change, or clear its state with {}",
                        resets.join(" and ")
                    )
                })
            }
        }
    }
}

/// Opens the state directory for a plan. `rocksdb_bytes` is RocksDB's share of the memory budget.
///
/// A database that is corrupt is discarded and restored from the changelogs (EXACTLY-ONCE rule 19); every other error
/// leaves the files untouched.
pub fn open(path: &Path, plan: &Plan, rocksdb_bytes: u64) -> Result<State, Error> {
    let mut directory = StateDirectory::open(path, &plan.name)?;
    let changes = misreadings(directory.identity(), plan);
    if !changes.is_empty() {
        return Err(Error::Misfit { path: path.display().to_string(), changes });
    }
    let backend = open_backend(&mut directory, plan, rocksdb_bytes)?;
    keep(&mut directory, plan)?;
    Ok(State { directory, backend })
}

fn open_backend(
    directory: &mut StateDirectory,
    plan: &Plan,
    rocksdb_bytes: u64,
) -> Result<SharedBackend, store::Error> {
    let (on_disk, in_memory): (Vec<_>, Vec<_>) =
        plan.stores.iter().partition(|store| store.backend == BackendKind::RocksDb);
    if on_disk.is_empty() {
        return Ok(Arc::new(Memory::new()));
    }
    let mut settings = RocksDbSettings::new(directory.database_path(), rocksdb_bytes);
    settings.stores = on_disk.iter().map(|store| (store.id, Arc::clone(&store.name))).collect();
    let database = match RocksDb::open(&settings) {
        Ok(database) => database,
        Err(store::Error::Corrupt { reason }) => {
            tracing::error!(reason, "the local state is corrupt: it is discarded and restored from the changelogs");
            directory.discard_database()?;
            RocksDb::open(&settings)?
        }
        Err(error) => return Err(error),
    };
    if in_memory.is_empty() {
        return Ok(Arc::new(database));
    }
    Ok(Arc::new(Mixed::new(database, in_memory.iter().map(|store| store.id).collect())))
}

/// What this plan would misread of the state that a directory holds.
fn misreadings(identity: &Identity, plan: &Plan) -> Vec<Misreading> {
    let mut found = plan.fingerprint.misreadings(identity.plan.iter().map(String::as_str));
    for store in plan.stores.iter().filter(|store| store.kind != StoreKind::Meta) {
        for layout in identity.layouts(&store.name) {
            // A type that this version of Sidestream does not know: whatever it is, the rows cannot be read.
            let misread = match columns_of(layout) {
                Ok(stored) => {
                    RowCodec::new(vec![(1, stored)], store.value.clone()).err().map(|error| error.to_string())
                }
                Err(problem) => Some(problem),
            };
            if let Some(reason) = misread {
                let message = format!("step `{}`: {reason}", store.name);
                let store = Some(store.name.to_string());
                found.push(Misreading { store, message });
            }
        }
    }
    found.dedup();
    found
}

fn columns_of(layout: &RowLayout) -> Result<Schema, String> {
    let column = |column: &LayoutColumn| match parse_type(&column.ty) {
        Ok((ty, _)) => Ok(Column::new(&column.name, ty, column.nullable)),
        Err(_) => Err(format!("column `{}` is stored as {}, which is no type", column.name, column.ty)),
    };
    layout.columns.iter().map(column).collect::<Result<Vec<_>, _>>().map(Schema::new)
}

/// Notes what the plan's rows will look like, before the first is written.
fn keep(directory: &mut StateDirectory, plan: &Plan) -> Result<(), store::Error> {
    let lines = plan.fingerprint.on_top_of(directory.identity().plan.iter().map(String::as_str));
    directory.keep_plan(&lines)?;
    for store in plan.stores.iter().filter(|store| store.kind != StoreKind::Meta) {
        let columns = LayoutColumn::all_of(&store.value);
        let known = directory.identity().layouts(&store.name).iter().any(|layout| layout.columns == columns);
        if !known {
            directory.keep_layout(&store.name, RowLayout { version: layout_hash(&store.value), columns })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Error, open};
    use crate::topology;

    /// Opens a directory for a topology whose step `totals` has these aggregates, and closes it again.
    fn run(path: &Path, aggregates: &str) -> Result<(), String> {
        let text = format!(
            "version: 1\nname: shop\nstreams:\n  orders: {{topic: orders, key: {{name: customer, type: STRING}}, columns: \
             {{amount: DOUBLE, small: INT, big: BIGINT, city: STRING}}}}\nsteps:\n  totals: {{from: orders, group_by: \
             customer, aggregate: {{{aggregates}}}, ttl: none}}\n"
        );
        let plan = topology::load_text("shop.yaml", &text, None, &|_| None).unwrap().plan;
        open(path, &plan, 64 << 20).map(drop).map_err(|error| match &error {
            Error::Misfit { .. } => format!("{error}\nhelp: {}", error.help().unwrap()),
            Error::Store(error) => panic!("{error}"),
        })
    }

    #[test]
    fn a_retyped_column_is_refused_with_both_types_and_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        run(directory.path(), "x: SUM(amount)").unwrap();
        let error = run(directory.path(), "x: MAX(city)").unwrap_err();
        for part in [
            "step `totals`: column `x` is stored as DOUBLE and cannot be read as STRING",
            "step `totals`: column `x` holds a SUM and would be read as a MAX",
            "sidestream reset --step totals",
        ] {
            assert!(error.contains(part), "{part} in {error}");
        }
        run(directory.path(), "x: SUM(amount)").unwrap();
    }

    #[test]
    fn another_aggregate_of_the_same_type_is_refused_also_after_it_was_gone_for_a_while() {
        let directory = tempfile::tempdir().unwrap();
        run(directory.path(), "n: COUNT(*), x: SUM(big)").unwrap();
        let error = run(directory.path(), "n: COUNT(*), x: MAX(big)").unwrap_err();
        assert!(error.contains("column `x` holds a SUM and would be read as a MAX"), "{error}");
        run(directory.path(), "n: COUNT(*)").unwrap();
        assert!(run(directory.path(), "n: COUNT(*), x: MAX(big)").is_err());
    }

    #[test]
    fn columns_may_come_and_go_and_be_widened() {
        let directory = tempfile::tempdir().unwrap();
        run(directory.path(), "x: MAX(small)").unwrap();
        run(directory.path(), "x: MAX(big), y: MAX(city)").unwrap();
        run(directory.path(), "x: MAX(big)").unwrap();
        assert!(run(directory.path(), "x: MAX(small)").unwrap_err().contains("BIGINT"));
    }
}
