//! The real binary against a scripted controller, over mutual TLS on a loopback port. Every environment variable is cleared,
//! and what a person sees is written down here.

mod controller;
mod errors;
mod following;
mod help;
mod identity;
mod lists;
mod tenants;
mod volumes;
