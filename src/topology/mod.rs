//! A topology file, checked and planned: YAML -> document -> plan, with every mistake reported at once.

pub mod plan;

pub use plan::Plan;
