//! The hands: makes one server match its desired set.

pub mod router;
pub mod runtime;
pub mod volume;
