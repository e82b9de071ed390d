//! The proof: whole fleets in one process.
//!
//! Owns a real controller and real agents, joined over pipes in memory with real mutual TLS, on fakes of Podman and Caddy and
//! real directories as volumes. Every process has a runtime of its own, so that killing one is what a crash is: everything
//! stops between two instructions and nothing is tidied up.

pub mod dynadot;
pub mod faults;
pub mod fleet;
pub mod network;
pub mod process;
pub mod real;
pub mod recorded;
pub mod sim;
pub mod wait;

pub use fleet::{Fleet, Outcome};
