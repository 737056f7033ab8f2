//! What runs the tasks: workers, ownership, restorations, the supervisor that acts on errors, and the read-only view that
//! queries use.

pub mod view;

pub use view::View;
