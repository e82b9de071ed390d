//! The identity bundle on disk, and the principal inside a certificate.

use std::{
    fmt, fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, RwLock},
};

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::{
    RootCertStore,
    client::ResolvesClientCert,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use serde::{Deserialize, Serialize};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};

use super::revoked::Revoked;

/// What a certificate entitles to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A person who may do everything.
    Admin,
    /// A person who may change tenants.
    Operator,
    /// A person who may look.
    Viewer,
    /// An agent; its name is its server's.
    Agent,
    /// The controller.
    Controller,
}

const ROLES: &[(Role, &str)] = &[
    (Role::Admin, "admin"),
    (Role::Operator, "operator"),
    (Role::Viewer, "viewer"),
    (Role::Agent, "agent"),
    (Role::Controller, "controller"),
];

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = ROLES.iter().find(|(role, _)| role == self).map_or("unknown", |(_, name)| name);
        formatter.pad(name)
    }
}

/// Who a certificate says its holder is: the URI name `feather://{role}/{name}` in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Principal {
    /// What it entitles to.
    pub role: Role,
    /// Server name for agents, login name for people.
    pub name: String,
}

impl fmt::Display for Principal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.role, self.name)
    }
}

impl Principal {
    /// As people call it: `the agent of nyc`, `the controller`, `ada's featherctl`.
    pub fn spoken(&self) -> String {
        match self.role {
            Role::Agent => format!("the agent of {}", self.name),
            Role::Controller => "the controller".to_owned(),
            Role::Admin | Role::Operator | Role::Viewer => format!("{}'s featherctl", self.name),
        }
    }

    /// An agent of a server.
    pub fn agent(server: impl fmt::Display) -> Self {
        Self { role: Role::Agent, name: server.to_string() }
    }

    /// The controller.
    pub fn controller() -> Self {
        Self { role: Role::Controller, name: "controller".into() }
    }

    /// URI name inside the certificate.
    pub fn uri(&self) -> String {
        format!("feather://{}/{}", self.role, self.name)
    }

    /// DNS name inside the certificate; connections are checked against it, wherever they lead.
    pub fn dns_name(&self) -> String {
        format!("{}.{}.feather.internal", self.name, self.role)
    }

    /// The principal in a certificate that was already verified.
    pub fn from_certificate(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let names = certificate.subject_alternative_name().ok()??;
        names.value.general_names.iter().find_map(|name| match name {
            GeneralName::URI(uri) => uri.parse().ok(),
            _ => None,
        })
    }
}

impl FromStr for Principal {
    type Err = ();

    fn from_str(uri: &str) -> Result<Self, ()> {
        let (role, name) = uri.strip_prefix("feather://").and_then(|rest| rest.split_once('/')).ok_or(())?;
        let (role, _) = ROLES.iter().find(|(_, known)| *known == role).ok_or(())?;
        if name.is_empty() || name.contains('/') {
            return Err(());
        }
        Ok(Self { role: *role, name: name.to_owned() })
    }
}

/// What is wrong with an identity bundle.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read or written.
    #[error("cannot use the identity file {path}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not a bundle.
    #[error(
        "{path} is not an identity file of Feather; use the one that `feather-controller init` or `feather-agent join` wrote"
    )]
    Format {
        /// Which file.
        path: PathBuf,
    },
    /// A certificate or key in it does not fit.
    #[error("the identity is unusable: {0}")]
    Unusable(String),
}

/// Certificate, private key and the CA they are checked against. `Debug` never shows the key.
#[derive(Clone, Serialize, Deserialize)]
pub struct Identity {
    /// Certificate chain, leaf first.
    pub certificate_pem: String,
    /// Private key, PKCS#8.
    pub key_pem: String,
    /// The fleet's CA.
    pub ca_pem: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Identity").field("principal", &self.principal().ok()).finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads a bundle.
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        let file = |source| IdentityError::File { path: path.to_owned(), source };
        let text = fs::read(path).map_err(file)?;
        serde_json::from_slice(&text).map_err(|_| IdentityError::Format { path: path.to_owned() })
    }

    /// Writes a bundle so that a crash leaves the old or the new one, readable by its owner only.
    pub fn save(&self, path: &Path) -> Result<(), IdentityError> {
        let file = |source| IdentityError::File { path: path.to_owned(), source };
        let text = serde_json::to_vec_pretty(self).map_err(|error| IdentityError::Unusable(error.to_string()))?;
        let new = path.with_extension("new");
        let write = || -> io::Result<()> {
            let mut handle = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
            handle.write_all(&text)?;
            handle.sync_all()?;
            fs::rename(&new, path)?;
            path.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
        };
        write().map_err(file)
    }

    /// Who this is.
    pub fn principal(&self) -> Result<Principal, IdentityError> {
        let chain = self.chain()?;
        Principal::from_certificate(&chain[0])
            .ok_or_else(|| IdentityError::Unusable("the certificate names no role of the fleet".into()))
    }

    /// From when until when the certificate is valid, in seconds since 1970.
    pub fn validity(&self) -> Result<(i64, i64), IdentityError> {
        let chain = self.chain()?;
        let (_, certificate) =
            X509Certificate::from_der(&chain[0]).map_err(|error| IdentityError::Unusable(error.to_string()))?;
        let validity = certificate.validity();
        Ok((validity.not_before.timestamp(), validity.not_after.timestamp()))
    }

    pub(super) fn chain(&self) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
        certificates(&self.certificate_pem)
    }

    pub(super) fn certified_key(&self) -> Result<CertifiedKey, IdentityError> {
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())
            .map_err(|_| IdentityError::Unusable("the private key does not parse".into()))?;
        let mut chain = self.chain()?;
        // The CA goes along, so that a joining agent can find the one whose fingerprint its token carries.
        chain.extend(certificates(&self.ca_pem)?);
        CertifiedKey::from_der(chain, key, &provider()).map_err(|error| IdentityError::Unusable(error.to_string()))
    }

    pub(super) fn roots(&self) -> Result<RootCertStore, IdentityError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.ca_pem)? {
            roots.add(certificate).map_err(|error| IdentityError::Unusable(error.to_string()))?;
        }
        Ok(roots)
    }
}

/// From when until when a certificate that was already verified is valid, in seconds since 1970.
pub(super) fn validity(der: &[u8]) -> Option<(i64, i64)> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let validity = certificate.validity();
    Some((validity.not_before.timestamp(), validity.not_after.timestamp()))
}

pub(super) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| IdentityError::Unusable("a certificate does not parse".into()))?;
    if all.is_empty() {
        return Err(IdentityError::Unusable("a certificate is missing".into()));
    }
    Ok(all)
}

pub(super) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// An identity that may be replaced while connections are open: new handshakes use the new one. With it goes the list of those
/// whom its holder does not listen to any more.
#[derive(Debug, Clone)]
pub struct Rotating {
    revoked: Revoked,
    current: Arc<RwLock<(Identity, Arc<CertifiedKey>)>>,
}

impl Rotating {
    /// Begins with this identity.
    pub fn new(identity: Identity) -> Result<Self, IdentityError> {
        let key = Arc::new(identity.certified_key()?);
        Ok(Self { revoked: Revoked::default(), current: Arc::new(RwLock::new((identity, key))) })
    }

    /// Uses another identity from now on.
    pub fn replace(&self, identity: Identity) -> Result<(), IdentityError> {
        let key = Arc::new(identity.certified_key()?);
        *self.current.write().unwrap_or_else(std::sync::PoisonError::into_inner) = (identity, key);
        Ok(())
    }

    /// The identity in use.
    pub fn identity(&self) -> Identity {
        self.current.read().unwrap_or_else(std::sync::PoisonError::into_inner).0.clone()
    }

    /// Whose certificates are not accepted any more, by connections in either direction.
    pub fn revoked(&self) -> &Revoked {
        &self.revoked
    }

    fn key(&self) -> Arc<CertifiedKey> {
        self.current.read().unwrap_or_else(std::sync::PoisonError::into_inner).1.clone()
    }
}

impl ResolvesServerCert for Rotating {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.key())
    }
}

impl ResolvesClientCert for Rotating {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.key())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A new private key and a signing request for it, both PEM. The issuer decides the names; the request's own are ignored.
pub fn csr(common_name: &str) -> Result<(String, String), IdentityError> {
    let broken = |error: rcgen::Error| IdentityError::Unusable(error.to_string());
    let key = KeyPair::generate().map_err(broken)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let request = params.serialize_request(&key).and_then(|request| request.pem()).map_err(broken)?;
    Ok((key.serialize_pem(), request))
}
