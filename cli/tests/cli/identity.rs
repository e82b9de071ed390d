//! Certificates of a fleet that exists for one test.

#![allow(clippy::disallowed_methods, reason = "certificates of a test must hold at the time of the test")]

use feather_proto::tls::{Identity, Principal, Role, sha256_hex};
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use time::{Duration, OffsetDateTime};

/// A certificate authority.
pub(crate) struct Fleet {
    issuer: Issuer<'static, KeyPair>,
    ca_pem: String,
}

impl Fleet {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), ca_pem }
    }

    /// A certificate that is valid now.
    pub(crate) fn issue(&self, principal: &Principal) -> Identity {
        let now = OffsetDateTime::now_utc();
        self.issue_for(principal, now - Duration::hours(1), now + Duration::hours(1))
    }

    pub(crate) fn issue_for(&self, principal: &Principal, from: OffsetDateTime, until: OffsetDateTime) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        (params.not_before, params.not_after) = (from, until);
        params.subject_alt_names = vec![
            SanType::DnsName(principal.dns_name().try_into().unwrap()),
            SanType::URI(principal.uri().try_into().unwrap()),
        ];
        let certificate_pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        Identity { certificate_pem, key_pem: key.serialize_pem(), ca_pem: self.ca_pem.clone() }
    }

    /// A certificate for somebody's own key, and the authority's.
    pub(crate) fn sign(&self, csr_pem: &str, principal: &Principal) -> (String, String) {
        let now = OffsetDateTime::now_utc();
        let mut request = CertificateSigningRequestParams::from_pem(csr_pem).unwrap();
        (request.params.not_before, request.params.not_after) = (now - Duration::hours(1), now + Duration::hours(1));
        request.params.subject_alt_names = vec![SanType::URI(principal.uri().try_into().unwrap())];
        (request.signed_by(&self.issuer).unwrap().pem(), self.ca_pem.clone())
    }

    /// What a token says of the authority.
    pub(crate) fn fingerprint(&self) -> String {
        sha256_hex(&CertificateDer::from_pem_slice(self.ca_pem.as_bytes()).unwrap())
    }

    /// The same certificates, but trusting another fleet's authority.
    pub(crate) fn impostor(&self, other: &Fleet, principal: &Principal) -> Identity {
        Identity { ca_pem: other.ca_pem.clone(), ..self.issue(principal) }
    }
}

pub(crate) fn admin() -> Principal {
    Principal { role: Role::Admin, name: "root".into() }
}

pub(crate) fn ada() -> Principal {
    Principal { role: Role::Operator, name: "ada".into() }
}
