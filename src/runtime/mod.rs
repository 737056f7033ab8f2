//! What runs the tasks: workers, ownership, restorations, the supervisor that acts on errors, and the read-only view that
//! queries use.

pub mod group_map;
pub mod observer;
pub mod ownership;
pub mod topics;
pub mod view;

pub use ownership::Ownership;
pub use view::View;
pub mod worker;
