//! The hands: makes one server match its ledger.
//!
//! Owns the containers, volumes and routes of the tenants of one server, and the gRPC services through which a controller
//! changes them. Knows no other server but the peer of a transfer, and needs no controller to bring its tenants back.

mod adoption;
mod agent;
mod api;
mod ask;
pub mod certificate;
pub mod clock;
pub mod config;
pub mod edge;
mod events;
mod failure;
mod fenced;
pub mod gate;
mod grant;
mod history;
pub mod image;
pub mod join;

mod leader;
pub mod ledger;
pub mod link;
pub mod local;
pub mod password;
mod peer;
mod reconcile;
pub mod renew;

mod revoked;
pub mod router;
pub mod runtime;
mod serve;
mod standing;
pub mod state;
mod transition;
pub mod volume;
pub mod waitlist;
mod watch;
mod watchdog;
mod work;

pub use agent::Seams;
pub use config::Config;
pub use serve::{Error, Local, serve};

#[cfg(test)]
mod tests;
