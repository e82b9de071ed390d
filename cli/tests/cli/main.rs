//! The real binary against a scripted controller, over mutual TLS on a loopback port. Every environment variable is cleared,
//! and what a person sees is written down here.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod adopt;
mod audit;
mod backups;
mod cert;
mod controller;
mod dns;
mod doctor;
mod drain;
mod errors;
mod events;
mod following;
mod help;
mod identity;
mod images;
mod lists;
mod lost;
mod moves;
mod operations;
mod status;
mod swap;
mod tenants;
mod upkeep;
mod users;
mod volumes;
mod waitlist;
mod warnings;
