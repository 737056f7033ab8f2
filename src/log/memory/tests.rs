//! What the contract suite cannot ask of a real broker: time, faults and killed processes, on one thread with a manual
//! clock.

mod faults;
mod group;
mod scene;
mod time;
mod transactions;
