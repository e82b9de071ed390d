//! Whole agents over pipes in memory, with real mutual TLS, on the fakes of engine and router.

mod adopt;
mod certificate;
mod crash;
mod data;
mod harness;
mod identity;
mod leader;
mod living;
mod local;
mod moving;
mod refusals;
mod secrets;
mod swap;
mod waitlist;
mod watchdog;
mod work;

/// An identity that some CA has issued.
pub(crate) fn issue(principal: &feather_proto::tls::Principal) -> feather_proto::tls::Identity {
    harness::Ca::new().issue(principal)
}
