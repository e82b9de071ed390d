//! The fleet's certificate authority: makes itself, and certificates for agents, people and the controller.
//!
//! Its key is a file that only root reads, in the controller's state folder; it is in no store and crosses no wire. Who may
//! have a certificate is decided in `enroll.rs`.

use std::path::{Path, PathBuf};

use feather_proto::tls::{Identity, IdentityError, Principal, Role, sha256_hex};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType,
};
use time::{Duration, OffsetDateTime};

/// Life of an agent's certificate; it renews itself at two thirds.
pub const AGENT_LIFE: Duration = Duration::hours(24);
/// Life of the controller's own certificate, made anew at each start and while it runs.
pub const CONTROLLER_LIFE: Duration = Duration::days(7);
/// Life of a person's certificate.
pub const PERSON_LIFE: Duration = Duration::days(365);
const CA_LIFE: Duration = Duration::days(3650);
/// Certificates are valid from a little before they are made: clocks of a fleet are never quite equal.
pub const BACKDATE: Duration = Duration::minutes(5);

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The CA's file cannot be used.
    #[error(transparent)]
    File(#[from] IdentityError),
    /// A CA is there already.
    #[error("{0} exists; a fleet has one CA for life. To begin a new fleet, choose another --state-dir")]
    Exists(PathBuf),
    /// There is no CA.
    #[error("there is no CA in {0}; run `feather-controller init` first")]
    Missing(PathBuf),
    /// A signing request does not parse or verify.
    #[error("the signing request does not verify")]
    Request(#[source] rcgen::Error),
    /// Signing failed.
    #[error("cannot sign a certificate")]
    Sign(#[from] rcgen::Error),
}

/// The authority.
pub struct Ca {
    issuer: rcgen::Issuer<'static, KeyPair>,
    ca_pem: String,
}

fn file(state_dir: &Path) -> PathBuf {
    state_dir.join("ca.identity")
}

impl Ca {
    /// Makes a new one and writes it down.
    pub fn create(state_dir: &Path, now: OffsetDateTime) -> Result<Self, Error> {
        let path = file(state_dir);
        if path.exists() {
            return Err(Error::Exists(path));
        }
        let key = KeyPair::generate()?;
        let mut params = named("feather fleet CA", now, CA_LIFE);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key_pem = key.serialize_pem();
        let ca_pem = params.self_signed(&key)?.pem();
        Identity { certificate_pem: ca_pem.clone(), key_pem, ca_pem }.save(&path)?;
        Self::load(state_dir)
    }

    /// Reads it back.
    pub fn load(state_dir: &Path) -> Result<Self, Error> {
        let path = file(state_dir);
        if !path.exists() {
            return Err(Error::Missing(state_dir.to_owned()));
        }
        let identity = Identity::load(&path)?;
        let key = KeyPair::from_pem(&identity.key_pem)?;
        let issuer = rcgen::Issuer::from_ca_cert_pem(&identity.ca_pem, key)?;
        Ok(Self { issuer, ca_pem: identity.ca_pem })
    }

    /// The CA's certificate, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// SHA-256 of the CA's certificate (DER), lower-case hexadecimal.
    pub fn fingerprint(&self) -> Result<String, Error> {
        let der = pem_to_der(&self.ca_pem)?;
        Ok(sha256_hex(&der))
    }

    /// A key and a certificate, made here: for the controller itself and for people.
    pub fn issue(&self, principal: &Principal, life: Duration, now: OffsetDateTime) -> Result<Identity, Error> {
        let key = KeyPair::generate()?;
        let certificate = params(principal, life, now)?.signed_by(&key, &self.issuer)?;
        Ok(Identity { certificate_pem: certificate.pem(), key_pem: key.serialize_pem(), ca_pem: self.ca_pem.clone() })
    }

    /// A certificate for somebody else's key. Whatever names the request asks for are ignored.
    pub fn sign(
        &self,
        csr_pem: &str,
        principal: &Principal,
        life: Duration,
        now: OffsetDateTime,
    ) -> Result<Signed, Error> {
        let mut request = CertificateSigningRequestParams::from_pem(csr_pem).map_err(Error::Request)?;
        request.params = params(principal, life, now)?;
        let key_fingerprint = sha256_hex(request.public_key.der_bytes());
        let certificate = request.signed_by(&self.issuer)?;
        Ok(Signed { certificate_pem: certificate.pem(), key_fingerprint })
    }
}

/// A signed request.
pub struct Signed {
    /// The certificate.
    pub certificate_pem: String,
    /// SHA-256 of the public key.
    pub key_fingerprint: String,
}

fn named(common_name: &str, now: OffsetDateTime, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = now - BACKDATE;
    params.not_after = now + life;
    params
}

fn params(principal: &Principal, life: Duration, now: OffsetDateTime) -> Result<CertificateParams, Error> {
    let mut params = named(&principal.name, now, life);
    params.subject_alt_names = vec![SanType::URI(principal.uri().try_into()?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if matches!(principal.role, Role::Agent | Role::Controller) {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        params.subject_alt_names.push(SanType::DnsName(principal.dns_name().try_into()?));
    }
    params.is_ca = IsCa::ExplicitNoCa;
    Ok(params)
}

fn pem_to_der(pem: &str) -> Result<Vec<u8>, Error> {
    use rustls_pki_types::{CertificateDer, pem::PemObject as _};
    let der = CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|_| IdentityError::Unusable("the CA's certificate does not parse".into()))?;
    Ok(der.to_vec())
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "certificates of a test must hold at the time of the test")]
mod tests {
    use feather_proto::tls::{Principal, Role, csr};
    use time::{Duration, OffsetDateTime};

    use super::{Ca, Error};

    #[test]
    fn a_certificate_carries_the_issuers_names_not_the_requests() {
        let folder = tempfile::tempdir().unwrap();
        let now = OffsetDateTime::now_utc();
        Ca::create(folder.path(), now).unwrap();
        let ca = Ca::load(folder.path()).unwrap();
        let (_, request) = csr("feather://admin/mallory").unwrap();
        let signed = ca.sign(&request, &Principal::agent("nyc"), Duration::hours(1), now).unwrap();
        let identity = feather_proto::tls::Identity {
            certificate_pem: signed.certificate_pem,
            key_pem: String::new(),
            ca_pem: ca.ca_pem().into(),
        };
        assert_eq!(identity.principal().unwrap(), Principal { role: Role::Agent, name: "nyc".into() });
        assert_eq!(ca.fingerprint().unwrap().len(), 64);
    }

    #[test]
    fn a_second_ca_in_the_same_folder_is_refused_and_a_missing_one_is_said_so() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Ca::load(folder.path()), Err(Error::Missing(_))));
        Ca::create(folder.path(), OffsetDateTime::now_utc()).unwrap();
        assert!(matches!(Ca::create(folder.path(), OffsetDateTime::now_utc()), Err(Error::Exists(_))));
    }

    #[test]
    fn garbage_is_no_signing_request() {
        let folder = tempfile::tempdir().unwrap();
        let now = OffsetDateTime::now_utc();
        Ca::create(folder.path(), now).unwrap();
        let ca = Ca::load(folder.path()).unwrap();
        assert!(matches!(ca.sign("hello", &Principal::agent("nyc"), Duration::hours(1), now), Err(Error::Request(_))));
    }
}
