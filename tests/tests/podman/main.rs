//! The real ring: births with Podman and Caddy, a controller process, featherctl as it is typed. Minutes, not seconds.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod adopt;
mod birth;
mod certificate;
mod configuration;
mod contracts;
mod data;
mod faults;
mod images;
mod lifecycle;
mod limits;
mod local;
mod lost;
mod migrate;
mod refusals;
mod soak;
mod streams;
mod swap;
mod tls;
mod waitlist;
mod watchdog;
