//! How this server becomes a member of the fleet.
//!
//! Owns the order that makes a lost reply harmless: the key is on disk before the controller hears of it, so that a repeated
//! join shows the same key. Knows nothing of tenants; a server may join long after its first tenant.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use feather_proto::{
    error::Error as CallError,
    ids::ServerName,
    join_token::JoinToken,
    pb::controller::v1::{self as pb, enrollment_service_client::EnrollmentServiceClient},
    tls::{self, Dial, Identity, IdentityError, Principal, Trust},
};
use serde::{Deserialize, Serialize};
use tokio::net::UdpSocket;

use crate::{config::Config, fenced, ledger::storage::write_atomically};

const CALL_MAX: Duration = Duration::from_secs(30);

/// Why joining did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The controller cannot be reached or refuses.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A certificate or key is unusable.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// There is an identity already.
    #[error(
        "this server is a member of the fleet already, as {principal}; to join anew, stop the agent and delete {path}"
    )]
    Member {
        /// Who it is.
        principal: String,
        /// Its identity.
        path: PathBuf,
    },
    /// The controller answered with somebody else's certificate.
    #[error("the controller answered with a certificate for {got}, and the token is for {wanted}; ask for a new token")]
    WrongName {
        /// In the certificate.
        got: String,
        /// In the token.
        wanted: String,
    },
    /// The controller is out of reach.
    #[error("there is no way to the controller at {controller}; check its name and this server's network")]
    NoWay {
        /// `host:port`.
        controller: String,
        /// Why.
        source: io::Error,
    },
    /// The state directory cannot be used.
    #[error("cannot use {path}; check the state directory and its disk")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Where the controller is; kept beside the identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// `host:port` of the controller.
    pub controller: String,
    /// Name of this server.
    pub server: ServerName,
    /// It has served its fleet: what is in the ledger was decided there. Who leaves a fleet for good deletes this file, and with it this.
    /// A file of an agent that did not write it yet is of one that served.
    #[serde(default = "yes")]
    pub served: bool,
}

fn yes() -> bool {
    true
}

impl Membership {
    /// Reads what a join wrote.
    ///
    /// # Errors
    /// [`Error::File`] when it is missing or damaged.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let file = |source| Error::File { path: path.to_owned(), source };
        serde_json::from_slice(&fs::read(path).map_err(file)?).map_err(|error| file(error.into()))
    }

    /// Of a server that joins now.
    pub fn new(controller: String, server: ServerName) -> Self {
        Self { controller, server, served: false }
    }

    /// Writes it down. `anew`: this server takes no member's place, so that whatever it ran for a fleet before is no more its to run; that is
    /// made sure of before it serves.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn begin(self, config: &Config, anew: bool) -> Result<(), Error> {
        let path = config.controller_file();
        let served = Self::load(&path).is_ok_and(|earlier| earlier.served);
        if anew && served {
            let file = |source| Error::File { path: config.fenced_file(), source };
            fenced::shut(config, &self.server).map_err(file)?;
        }
        Self { served, ..self }.save(&path)
    }

    /// From now on what is in the ledger is decided by the fleet. Not being able to write that down keeps nobody from serving.
    pub(crate) fn note_served(path: &Path) {
        let noted = match Self::load(path) {
            Ok(known) if !known.served => Self { served: true, ..known }.save(path),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = noted {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot write down that this server serves its fleet"
            );
        }
    }

    fn save(&self, path: &Path) -> Result<(), Error> {
        let file = |source| Error::File { path: path.to_owned(), source };
        let text = serde_json::to_vec_pretty(self).map_err(|error| file(error.into()))?;
        write_atomically(path, &text).map_err(file)
    }
}

/// How this server is reached, told to the controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// `host:port` of the agent's gRPC.
    pub agent: String,
    /// Host that the world reaches the router at.
    pub public: String,
}

/// The address from which this server reaches the controller. Nothing is sent for that.
///
/// # Errors
/// [`Error::NoWay`] when there is no route to it, or its name is not known.
pub async fn own_address(token: &JoinToken) -> Result<IpAddr, Error> {
    let no_way = |source| Error::NoWay { controller: token.controller.clone(), source };
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    let mut found = Vec::new();
    for address in token.controller.split(',') {
        match tokio::net::lookup_host(address.trim()).await {
            Ok(addresses) => found.extend(addresses),
            Err(error) => last = error,
        }
    }
    for controller in found {
        let any = if controller.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        let way = async {
            let socket = UdpSocket::bind((any, 0)).await?;
            socket.connect(controller).await?;
            socket.local_addr()
        };
        match way.await {
            Ok(own) => return Ok(own.ip()),
            Err(error) => last = error,
        }
    }
    Err(no_way(last))
}

/// A key whose certificate may be on its way.
#[derive(Serialize, Deserialize)]
struct PendingKey {
    key_pem: String,
    csr_pem: String,
}

/// Asks the controller for a certificate and writes the identity.
///
/// # Errors
/// See [`Error`]. Every failure may be tried again with the same token.
pub async fn join(
    config: &Config,
    dial: Arc<dyn Dial>,
    token: &JoinToken,
    addresses: &Addresses,
) -> Result<Identity, Error> {
    let path = config.identity_file();
    if path.exists() {
        let principal = Identity::load(&path)?.principal()?.to_string();
        return Err(Error::Member { principal, path });
    }
    let key_path = config.state_dir.join("join.key");
    let pending = pending_key(&key_path, &token.server)?;
    let ca_pem = tls::fetch_ca(&*dial, &token.controller, &token.ca_fingerprint).await?;
    let response = call(dial, token, addresses, &pending, &ca_pem).await?;
    let identity =
        Identity { certificate_pem: response.certificate_pem, key_pem: pending.key_pem, ca_pem: response.ca_pem };
    let wanted = Principal::agent(&token.server);
    let got = identity.principal()?;
    if got != wanted {
        return Err(Error::WrongName { got: got.to_string(), wanted: wanted.to_string() });
    }
    // What led before is of the membership that ended; a store that began anew may count from lower.
    let leader = config.leader_file();
    match fs::remove_file(&leader) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(Error::File { path: leader, source }),
        _ => {}
    }
    Membership::new(token.controller.clone(), token.server.clone()).begin(config, response.anew)?;
    // Last, because an identity on disk means that this server has joined.
    identity.save(&path)?;
    if let Err(error) = fs::remove_file(&key_path) {
        tracing::warn!(%error, path = %key_path.display(), "cannot delete the key file of the join");
    }
    Ok(identity)
}

async fn call(
    dial: Arc<dyn Dial>,
    token: &JoinToken,
    addresses: &Addresses,
    pending: &PendingKey,
    ca_pem: &str,
) -> Result<pb::JoinResponse, Error> {
    let trust = Trust::CaOnly(ca_pem.to_owned());
    let channel = tls::channel(dial, &token.controller, &Principal::controller(), &trust)?;
    let mut request = tonic::Request::new(pb::JoinRequest {
        secret: token.secret.clone(),
        csr_pem: pending.csr_pem.clone(),
        address: addresses.agent.clone(),
        public_address: addresses.public.clone(),
        agent_version: env!("CARGO_PKG_VERSION").into(),
    });
    request.set_timeout(CALL_MAX);
    let response = EnrollmentServiceClient::new(channel).join(request).await.map_err(CallError::from)?;
    Ok(response.into_inner())
}

/// The key of an earlier attempt, or a new one that is on disk when this returns.
fn pending_key(path: &Path, server: &ServerName) -> Result<PendingKey, Error> {
    let file = |source| Error::File { path: path.to_owned(), source };
    match fs::read(path) {
        Ok(text) => {
            if let Ok(pending) = serde_json::from_slice(&text) {
                return Ok(pending);
            }
            tracing::warn!(path = %path.display(), "the key file of an earlier join is damaged; making a new key");
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(file(error)),
    }
    let (key_pem, csr_pem) = tls::csr(server.as_str())?;
    let pending = PendingKey { key_pem, csr_pem };
    let text = serde_json::to_vec(&pending).map_err(|error| file(error.into()))?;
    write_atomically(path, &text).map_err(file)?;
    Ok(pending)
}
