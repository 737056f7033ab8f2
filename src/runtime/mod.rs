//! What runs the tasks: workers, ownership, restorations, the supervisor that acts on errors, and the read-only view that
//! queries use.

pub mod coordinator;
pub mod crew;
pub mod group_map;
pub mod instance;
pub mod observer;
pub mod ownership;
pub mod reposition;
pub mod reset;
pub mod restorer;
pub mod state;
pub mod topics;
pub mod view;
pub mod worker;

pub use instance::{ExitReport, Instance, InstanceSettings, Lifetime, Shutdown, run};
pub use ownership::Ownership;
pub use view::View;

#[cfg(test)]
mod tests;
