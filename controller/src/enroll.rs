//! Who gets in: join tokens and certificates of agents.
//!
//! A token is good for one key until it expires: the same key may repeat its call, because the reply may have been lost. Only
//! the hash of its secret is kept.

use std::{net::SocketAddr, sync::Arc};

use feather_proto::{
    error::{Error, reason},
    ids::ServerName,
    join_token::JoinToken,
    model::invalid_field,
    tls::{self, Peer, Principal, Role, sha256_hex},
};
use rand::{TryRng as _, rngs::SysRng};
use time::{Duration, OffsetDateTime};

use crate::{
    ca::{self, AGENT_LIFE, BACKDATE, Ca},
    store::ServerRow,
    upkeep::Upkeep,
    world::World,
};

/// Shortest and longest life of a token, and what it is when nobody says.
const TTL_SECONDS: std::ops::RangeInclusive<u32> = 60..=604_800;
const TTL_DEFAULT_SECONDS: u32 = 10_800;

/// Lets agents in.
pub struct Enroll {
    world: Arc<World>,
    ca: Arc<Ca>,
    /// What joining servers are told to dial.
    advertise: String,
}

/// What a joining agent says of itself.
#[derive(Debug, Clone)]
pub struct Joining {
    /// Signing request, PEM.
    pub csr_pem: String,
    /// `host:port` of its gRPC.
    pub address: String,
    /// Where its Caddy is reached.
    pub public_address: String,
}

/// What a certificate of an agent is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its holder is a member by it.
    Member,
    /// It was revoked.
    Revoked,
    /// Nobody here knows it, and nobody revoked it.
    Unknown,
}

/// A certificate for an agent.
pub struct Admitted {
    /// Its name.
    pub server: ServerName,
    /// Its certificate.
    pub certificate_pem: String,
    /// The CA's.
    pub ca_pem: String,
    /// It was no member before: whatever it ran as one is not its any more.
    pub anew: bool,
}

impl Enroll {
    /// With this CA, for servers that dial `advertise`.
    pub fn new(world: Arc<World>, ca: Arc<Ca>, advertise: String) -> Self {
        Self { world, ca, advertise }
    }

    /// Behind the names of tenants.
    pub fn domain_suffix(&self) -> &str {
        &self.world.settings.domain_suffix
    }

    /// A token for a server that is not a member yet, or (`rejoin`) for the member of that name.
    pub async fn invite(
        &self,
        server: ServerName,
        ttl_seconds: u32,
        rejoin: bool,
        caller: &Peer,
    ) -> Result<(JoinToken, OffsetDateTime), Error> {
        let ttl_seconds = if ttl_seconds == 0 { TTL_DEFAULT_SECONDS } else { ttl_seconds };
        if !TTL_SECONDS.contains(&ttl_seconds) {
            return Err(invalid_field("ttl_seconds", "from 60 (a minute) to 604800 (a week)"));
        }
        // Nobody is renamed between the look and the invitation.
        let _turn = self.world.access.turn_of(caller).await?;
        let holder = self.world.store.server_of(&Principal::agent(&server)).await?;
        if let Some(holder) = holder.filter(|holder| holder.name != server) {
            return Err(crate::rename::in_a_certificate(&server, &holder.name));
        }
        let member = match rejoin {
            true => Some(self.world.store.member(&server).await?),
            false => self.world.store.server(&server).await?,
        };
        if member.is_none() {
            let stranded = self.world.store.stranded(&server).await?;
            if !stranded.is_empty() {
                return Err(crate::intent::still_named(&server, &stranded));
            }
        }
        if member.is_some() && !rejoin {
            return Err(Error::exists(
                reason::SERVER_EXISTS,
                format!(
                    "a server {server} is a member already; if it lost its identity let it rejoin with `featherctl server invite {server} \
                     --rejoin`, otherwise choose another name"
                ),
            ));
        }
        let secret = new_secret();
        let expires = self.world.clock.now() + Duration::seconds(i64::from(ttl_seconds));
        self.world.store.add_join_token(&sha256_hex(secret.as_bytes()), &server, expires, rejoin).await?;
        let ca_fingerprint = self.ca.fingerprint().map_err(bug)?;
        Ok((JoinToken { controller: self.advertise.clone(), ca_fingerprint, server, secret }, expires))
    }

    /// Makes a server a member, if its token is good.
    pub async fn join(&self, secret: &str, joining: &Joining) -> Result<Admitted, Error> {
        check_address(&joining.address)?;
        check_host(&joining.public_address)?;
        // Signed first, with a name to be thrown away, to learn the key: the token decides on the name.
        let probe = self.sign(&joining.csr_pem, &Principal::agent("joining"), self.world.clock.now())?;
        // A removal before this takes the token, one behind it refuses what is handed out.
        let _turn = self.world.access.turn().await;
        let now = self.world.clock.now();
        let row = self
            .world
            .store
            .join(
                &sha256_hex(secret.as_bytes()),
                |name| ServerRow {
                    identity: name.clone(),
                    name,
                    address: joining.address.clone(),
                    public_address: joining.public_address.clone(),
                    key_fingerprint: probe.key_fingerprint.clone(),
                    joined: now,
                    upkeep: Upkeep::default(),
                },
                now,
            )
            .await?;
        // Whoever had the place before is refused from now on.
        self.world.access.load(&self.world.store).await?;
        let signed = self.issue(&joining.csr_pem, &row.principal()).await?;
        self.world.ring_desired();
        tracing::info!(server = %row.name, address = %row.address, "server joined");
        let anew = !self.world.store.takes_a_place(&sha256_hex(secret.as_bytes())).await?;
        Ok(Admitted {
            server: row.name,
            certificate_pem: signed.certificate_pem,
            ca_pem: self.ca.ca_pem().to_owned(),
            anew,
        })
    }

    /// A fresh certificate for a member that shows one from this membership, valid from then: a machine that was removed, or whose
    /// place another one took, still has one of that name for a while.
    pub async fn renew(&self, caller: &Peer, csr_pem: &str) -> Result<Admitted, Error> {
        let _turn = self.world.access.turn_of(caller).await?;
        let row = self.require_member(caller).await?;
        let (server, principal) = (row.name.clone(), row.principal());
        self.world.access.may_renew(&principal, self.world.clock.now())?;
        let signed = self.issue(csr_pem, &principal).await?;
        self.world.store.set_server_key(&server, &signed.key_fingerprint).await?;
        tracing::info!(%server, %principal, "certificate renewed");
        Ok(Admitted {
            server: row.identity,
            certificate_pem: signed.certificate_pem,
            ca_pem: self.ca.ca_pem().to_owned(),
            anew: false,
        })
    }

    /// Which member a caller is, whatever it is called by now. Refuses whoever shows a certificate that is not from this membership.
    pub async fn require_member(&self, caller: &Peer) -> Result<ServerRow, Error> {
        let unnamed = || Error::denied(reason::ROLE, "only a server's certificate says which member this is");
        let principal = caller.principal.as_ref().ok_or_else(unnamed)?;
        let member = self.world.store.server_of(principal).await?;
        let issued = caller.valid_from.map(|seconds| seconds + BACKDATE.whole_seconds());
        let since = |row: &ServerRow| issued.is_some_and(|issued| issued >= row.joined.unix_timestamp());
        member.filter(since).ok_or_else(|| {
            let name = &principal.name;
            Error::denied(
                reason::ROLE,
                format!("{name} is no member of the fleet by this certificate any more; invite it again with `featherctl server invite {name}`"),
            )
        })
    }

    /// What a certificate is good for now, whoever shows it. One that has ended was revoked or was not, all the same: a machine that was
    /// declared lost may come back after that.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: this fleet's CA did not issue it, or not for a server.
    pub async fn standing(&self, certificate_pem: &str) -> Result<Standing, Error> {
        let unknown = || invalid_field("certificate_pem", "the PEM certificate of an agent of this fleet");
        let (principal, valid_from) = tls::issued(certificate_pem, self.ca.ca_pem()).ok_or_else(unknown)?;
        if principal.role != Role::Agent {
            return Err(unknown());
        }
        if self.world.access.revoked.list().refuses(&principal, Some(valid_from)) {
            return Ok(Standing::Revoked);
        }
        let holder = Peer { principal: Some(principal), valid_from: Some(valid_from), ..Peer::default() };
        match self.require_member(&holder).await {
            Ok(_) => Ok(Standing::Member),
            Err(error) if error.is(reason::ROLE) => Ok(Standing::Unknown),
            Err(error) => Err(error),
        }
    }

    /// By whoever has the turn.
    async fn issue(&self, csr_pem: &str, principal: &Principal) -> Result<ca::Signed, Error> {
        let at = self.world.issue(principal).await?;
        self.sign(csr_pem, principal, at)
    }

    fn sign(&self, csr_pem: &str, principal: &Principal, at: OffsetDateTime) -> Result<ca::Signed, Error> {
        self.ca.sign(csr_pem, principal, AGENT_LIFE, at).map_err(|error| match error {
            ca::Error::Request(_) => {
                invalid_field("csr_pem", "a PEM certificate signing request, signed by its own key")
            }
            other => bug(other),
        })
    }
}

fn bug(error: ca::Error) -> Error {
    Error::bug(error.to_string())
}

fn check_address(address: &str) -> Result<(), Error> {
    let host_and_port =
        address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if address.parse::<SocketAddr>().is_ok() || host_and_port {
        return Ok(());
    }
    Err(invalid_field("address", "host:port where the controller and other servers reach the agent"))
}

fn check_host(host: &str) -> Result<(), Error> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':');
    if !host.is_empty() && host.len() <= 253 && host.bytes().all(plain) {
        return Ok(());
    }
    Err(invalid_field("public_address", "an IP address or a host name, without a port"))
}

/// 256 bits from the operating system, in hexadecimal: for join secrets and transfer tickets.
pub fn new_secret() -> String {
    let mut bytes = [0_u8; 32];
    // Without randomness nothing here may go on; the kernel's generator does not fail once it is seeded.
    SysRng.try_fill_bytes(&mut bytes).expect("the operating system's random generator answers");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
