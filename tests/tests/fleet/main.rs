//! The in-process ring: whole fleets on fakes, with every fault that can be thought of. Seconds, not minutes.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod access;
mod adopt;
mod audit;
mod backup;
mod backups;
mod bounds;
mod dns;
mod doctor;
mod drain;
mod dynadot;
mod events;
mod faults;
mod fenced;
mod hostile;
mod images;
mod latecomers;
mod layout;
mod leadership;
mod lifecycle;
mod limits;
mod local;
mod lost;
mod metrics;
mod migrate;
mod offers;
mod page;
mod rebuild;
mod refusals;
mod rename;
mod rounds;
mod soak;
mod status;
mod swap;
mod tenant_limits;
mod versions;
mod waitlist;
mod warnings;
mod zone;
