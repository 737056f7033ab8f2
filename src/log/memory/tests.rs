//! What the contract suite cannot ask of a real broker: time, faults, killed processes.

mod compaction;
mod faults;
mod group;
mod scene;
mod threads;
mod transactions;
