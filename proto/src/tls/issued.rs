//! A certificate that somebody names instead of showing it.
//!
//! Owns the one look at a certificate outside of a handshake: who issued it, to whom, from when. It proves nothing about who names it.

use std::{sync::Arc, time::Duration};

use rustls::{
    pki_types::UnixTime,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};

use super::identity::{Identity, Principal, certificates, provider, validity};

/// Whose certificate it is, and from which second it is valid, if this CA issued it. Whether it has ended is not asked.
pub fn issued(certificate_pem: &str, ca_pem: &str) -> Option<(Principal, i64)> {
    let leaf = certificates(certificate_pem).ok()?.into_iter().next()?;
    let (valid_from, _) = validity(&leaf)?;
    let only_ca = Identity { certificate_pem: String::new(), key_pem: String::new(), ca_pem: ca_pem.to_owned() };
    let roots = Arc::new(only_ca.roots().ok()?);
    let verifier: Arc<dyn ClientCertVerifier> =
        WebPkiClientVerifier::builder_with_provider(roots, provider()).build().ok()?;
    // As on its first day.
    let then = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(valid_from).ok()?));
    verifier.verify_client_cert(&leaf, &[], then).ok()?;
    Some((Principal::from_certificate(&leaf)?, valid_from))
}
