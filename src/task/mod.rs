//! One task: a sub-topology on one partition number. It takes fetched records in time order, runs the operators, keeps
//! their state in write-back tables, and says what a commit must write.
//!
//! What it is not: it does no network I/O of its own beyond handing records to a producer, never retries, never sleeps,
//! never decides when to commit. A worker (`runtime::worker`) drives it; a restoration (`task::restore`) prepares it.
//!
//! The life of a task
//! 1. *Opened* when its stores are restored: `Task::open` with the committed offsets.
//! 2. Fed with `offer`, run with `process`, until the worker decides to commit.
//! 3. `flush` emits what is due downstream and to the changelogs, and returns the [`Staged`] rows and offsets; after the
//!    transaction has been committed `committed` makes them the new base. Or `rollback` forgets everything since.
//! 4. Closed by dropping it. What was committed stays on disk.
//!
//! Invariants
//! - Between two commits nothing reaches the backend.
//! - `rollback` leaves the task as it was after its last commit: rows, time state and positions.

pub mod facts;
pub mod restore;

pub use facts::{Changelog, Facts};
