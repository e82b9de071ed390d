//! A certificate for the public, with its key: what a server shows to browsers. It has nothing to do with the fleet's own.

use std::fmt;

use rustls::{
    pki_types::{PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};

use super::identity::{IdentityError, certificates, provider};

/// A chain and its key. `Debug` never shows the key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicCertificate {
    /// Leaf first, PEM.
    pub chain_pem: String,
    /// PKCS#8, PEM.
    pub key_pem: String,
}

impl fmt::Debug for PublicCertificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PublicCertificate").field("facts", &self.facts().ok()).finish_non_exhaustive()
    }
}

/// What is in a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Host names that it is for, as written in it.
    pub names: Vec<String>,
    /// Who issued it.
    pub issuer: String,
    /// Hexadecimal, in pairs.
    pub serial: String,
    /// From when it is valid.
    pub not_before: OffsetDateTime,
    /// Until when.
    pub not_after: OffsetDateTime,
    /// SHA-256 of the leaf (DER), lower-case hexadecimal: which certificate it is.
    pub fingerprint: String,
}

impl CertificateFacts {
    /// Is it for this host name? A wildcard stands for one label.
    pub fn covers(&self, host: &str) -> bool {
        let parent = host.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        let same = |name: &String| {
            name.eq_ignore_ascii_case(host)
                || parent.as_ref().is_some_and(|parent| !host.starts_with("*.") && name.eq_ignore_ascii_case(parent))
        };
        self.names.iter().any(same)
    }
}

impl PublicCertificate {
    /// What is in it, and that the key is its key.
    ///
    /// # Errors
    /// [`IdentityError::Unusable`] when chain or key do not parse, or do not belong together.
    pub fn facts(&self) -> Result<CertificateFacts, IdentityError> {
        let unusable = |what: &str| IdentityError::Unusable(what.to_owned());
        let chain = certificates(&self.chain_pem)?;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())
            .map_err(|_| unusable("the private key does not parse"))?;
        // Compares the public keys.
        CertifiedKey::from_der(chain.clone(), key, &provider())
            .map_err(|_| unusable("the private key is not that of the certificate"))?;
        let (_, leaf) = X509Certificate::from_der(&chain[0]).map_err(|_| unusable("the certificate does not parse"))?;
        let names = leaf.subject_alternative_name().map_err(|_| unusable("the certificate's names do not parse"))?;
        let names = names.map(|names| names.value.general_names.clone()).unwrap_or_default();
        let time = |seconds| {
            OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| unusable("the certificate's times are none"))
        };
        Ok(CertificateFacts {
            names: names
                .into_iter()
                .filter_map(|name| match name {
                    GeneralName::DNSName(name) => Some(name.to_owned()),
                    _ => None,
                })
                .collect(),
            issuer: leaf.issuer().to_string(),
            serial: leaf.raw_serial_as_string(),
            not_before: time(leaf.validity().not_before.timestamp())?,
            not_after: time(leaf.validity().not_after.timestamp())?,
            fingerprint: super::sha256_hex(&chain[0]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::PublicCertificate;

    fn made(names: &[&str]) -> PublicCertificate {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        PublicCertificate { chain_pem: made.cert.pem(), key_pem: made.signing_key.serialize_pem() }
    }

    #[test]
    fn a_wildcard_covers_one_label() {
        let facts = made(&["users.example.com", "*.users.example.com"]).facts().unwrap();
        assert_eq!(facts.names, ["users.example.com", "*.users.example.com"]);
        for (host, covered) in [
            ("users.example.com", true),
            ("Alice.users.example.com", true),
            ("*.users.example.com", true),
            ("a.b.users.example.com", false),
            ("example.com", false),
            ("evilusers.example.com", false),
        ] {
            assert_eq!(facts.covers(host), covered, "{host}");
        }
        assert!(!made(&["alice.users.example.com"]).facts().unwrap().covers("*.users.example.com"));
        assert!(facts.not_before < facts.not_after && facts.fingerprint.len() == 64);
    }

    #[test]
    fn a_key_must_be_the_certificates_own_and_is_never_shown() {
        let (one, other) = (made(&["a.example.com"]), made(&["a.example.com"]));
        let mixed = PublicCertificate { key_pem: other.key_pem.clone(), ..one.clone() };
        assert!(mixed.facts().unwrap_err().to_string().contains("not that of the certificate"));
        let none = PublicCertificate { chain_pem: String::new(), ..one.clone() };
        assert!(none.facts().is_err());
        let shown = format!("{one:?} {mixed:?}");
        assert!(shown.contains("a.example.com") && !shown.contains("PRIVATE"), "{shown}");
        assert!(!shown.contains(&one.key_pem[40..80]));
    }
}
