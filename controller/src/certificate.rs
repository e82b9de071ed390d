//! One certificate for all tenants' names: obtained, renewed, and handed to every server ahead of its need.
//!
//! Owns when that happens ([`schedule`], pure), what is kept of it (sealed, in the store), and two reconcilers: one obtains, the
//! other tells servers. How an authority is spoken to is in [`acme`], how records come into the zone in `dns`. Nothing depends
//! on this controller being up: servers serve with the last certificate that they were given.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use feather_proto::{
    error::{Error, reason},
    ids::ServerName,
    model::{HeldCertificate, rfc3339},
    tls::{CertificateFacts, PublicCertificate},
};
use instant_acme::Account;
use time::OffsetDateTime;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    dns::{self, authority::Authorities},
    events, pace,
    seal::Seal,
    store::{Store, dns::Wish},
    world::World,
};

pub mod acme;
pub mod schedule;

use acme::{Authority, Challenges, Failure};
use schedule::Attempts;

/// Name of the setting that holds what became of the last tries.
const ATTEMPTS: &str = "certificate_attempts";
/// A challenge's record goes by itself after so long, should nobody take it away.
const CHALLENGE_LIFE: time::Duration = time::Duration::hours(2);
/// The reconciler looks at the wall clock at least so often.
const LOOK_MAX: Duration = Duration::from_secs(600);

/// What a controller needs to obtain certificates.
#[derive(Debug)]
pub struct Options {
    /// Who issues.
    pub authority: Authority,
    /// Keeps its secrets.
    pub seal: Seal,
    /// So long the name servers may take to show a record.
    pub patience: Duration,
    /// Pause between two looks at them.
    pub look_again: Duration,
}

impl Options {
    /// The usual patience: providers were seen to take a quarter of an hour.
    pub fn new(authority: Authority, seal: Seal) -> Self {
        let (patience, look_again) = (Duration::from_secs(30 * 60), Duration::from_secs(10));
        Self { authority, seal, patience, look_again }
    }
}

/// A certificate and what is in it.
#[derive(Debug, Clone)]
pub struct Held {
    /// With its key.
    pub certificate: PublicCertificate,
    /// What it says.
    pub facts: CertificateFacts,
    /// The authority of today issued it.
    pub current: bool,
}

/// How it stands.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// The newest one.
    pub held: Option<Held>,
    /// What became of the last tries.
    pub attempts: Attempts,
    /// What is being done now, as a sentence.
    pub doing: Option<String>,
    /// When the next one is obtained.
    pub next: Option<OffsetDateTime>,
}

/// What concerns a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Why no new one is obtained.
    pub warning: Option<String>,
    /// From when to when the one in use holds.
    pub life: Option<(OffsetDateTime, OffsetDateTime)>,
    /// What an earlier process left has been read.
    pub loaded: bool,
}

/// The fleet's certificate.
#[derive(Debug)]
pub struct Certificates {
    options: Option<Options>,
    names: Vec<String>,
    state: watch::Sender<State>,
    /// Counts how often somebody asked for a new one now.
    asked: watch::Sender<u64>,
}

impl Certificates {
    /// For tenants under this suffix; without options there is no certificate.
    pub fn new(options: Option<Options>, domain_suffix: &str) -> Self {
        let suffix = domain_suffix.trim_end_matches('.').to_ascii_lowercase();
        Self {
            options,
            names: vec![suffix.clone(), format!("*.{suffix}")],
            state: watch::Sender::default(),
            asked: watch::Sender::new(0),
        }
    }

    /// Names that it is for.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The authority's directory; none when there is no certificate.
    pub fn directory(&self) -> Option<&str> {
        self.options.as_ref().map(|options| options.authority.directory())
    }

    /// How it stands now.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Asks for a new one now, whatever is due. It is obtained by the reconciler; [`Certificates::state`] shows how far that is.
    ///
    /// # Errors
    /// Refused when this controller obtains none.
    pub fn renew(&self) -> Result<(), Error> {
        if self.options.is_none() {
            let message = "this controller obtains no certificates; start it with --acme-directory and --dns dynadot";
            return Err(Error::refused(reason::NO_CERTIFICATES, message));
        }
        self.asked.send_modify(|count| *count += 1);
        Ok(())
    }

    /// What is wrong, for whoever looks at the fleet.
    pub fn warning(&self) -> Option<String> {
        let state = self.state.borrow();
        let error = state.attempts.error.as_ref()?;
        let ends = state.held.as_ref().map_or_else(
            || "there is none".to_owned(),
            |held| format!("the one in use ends at {}", rfc3339(held.facts.not_after)),
        );
        Some(format!("no new certificate for {}: {error} ({ends}); `featherctl cert status`", self.names.join(", ")))
    }

    /// What concerns a person; none when this controller obtains no certificates.
    pub fn standing(&self) -> Option<Standing> {
        self.options.as_ref()?;
        let warning = self.warning();
        let state = self.state.borrow();
        let life = state.held.as_ref().map(|held| (held.facts.not_before, held.facts.not_after));
        Some(Standing { warning, life, loaded: state.next.is_some() })
    }

    /// With the authority in its name: what another one issued, perhaps to try, is no certificate of this one.
    fn kept_as(&self) -> String {
        let authority = self.options.as_ref().map_or("", |options| options.authority.directory());
        format!("{}/{authority}", self.kept_as_before())
    }

    /// Where releases before kept it, whoever had issued it.
    fn kept_as_before(&self) -> String {
        format!("certificate/{}", self.names[0])
    }

    async fn kept(&self, store: &Store, seal: &Seal, name: &str, current: bool) -> Result<Option<Held>, Error> {
        let Some(text) = store.sealed(name).await? else { return Ok(None) };
        let opened = seal.open(name, &text).map_err(|error| error.to_string());
        let read = opened.and_then(|bytes| {
            let certificate: PublicCertificate = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
            let facts = certificate.facts().map_err(|error| error.to_string())?;
            Ok(Held { certificate, facts, current })
        });
        Ok(read.inspect_err(|error| tracing::error!(error, "a kept certificate is lost; getting another")).ok())
    }

    /// What an earlier process left.
    async fn load(&self, store: &Store, seal: &Seal) -> Result<(), Error> {
        let attempts = store.setting(ATTEMPTS).await?;
        let attempts = attempts.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        let held = match self.kept(store, seal, &self.kept_as(), true).await? {
            Some(held) => Some(held),
            // Nobody knows who issued it. It is served on, since nothing else is there, until one is obtained.
            None => self.kept(store, seal, &self.kept_as_before(), false).await?,
        };
        self.state.send_modify(|state| (state.attempts, state.held) = (attempts, held));
        Ok(())
    }

    fn doing(&self, what: Option<&str>) {
        self.state.send_modify(|state| state.doing = what.map(ToOwned::to_owned));
    }
}

/// Obtains and renews until shutdown.
pub async fn keep(world: Arc<World>, shutdown: CancellationToken) {
    let certificates = &world.certificates;
    let Some(options) = &certificates.options else { return };
    while let Err(error) = certificates.load(&world.store, &options.seal).await {
        tracing::warn!(%error, "the kept certificate cannot be read yet; trying again");
        tokio::select! {
            () = tokio::time::sleep(world.settings.reconcile) => {}
            () = shutdown.cancelled() => return,
        }
    }
    let mut asked = certificates.asked.subscribe();
    let mut forced = false;
    loop {
        let now = world.clock.now();
        let State { held, attempts, .. } = certificates.state();
        let lasting = held.as_ref().filter(|held| held.current).map(|held| &held.facts);
        let due = schedule::due(lasting, &certificates.names, &attempts, now);
        certificates.state.send_modify(|state| state.next = Some(due));
        let asked_now = std::mem::take(&mut forced);
        if due <= now || asked_now {
            let obtained = shutdown.run_until_cancelled(obtain(&world, options)).await;
            certificates.doing(None);
            let Some(obtained) = obtained else { return };
            note(&world, obtained).await;
            continue;
        }
        let pause = Duration::try_from(due - now).unwrap_or(LOOK_MAX).min(LOOK_MAX);
        tokio::select! {
            _ = asked.changed() => forced = true,
            () = tokio::time::sleep(pause) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Keeps what became of a try, for this process and the next.
async fn note(world: &World, obtained: Result<Held, Failure>) {
    let certificates = &world.certificates;
    let event;
    let attempts = match obtained {
        Ok(held) => {
            tracing::info!(not_after = %held.facts.not_after, issuer = held.facts.issuer, "certificate obtained");
            let until = rfc3339(held.facts.not_after);
            let message = format!("a certificate for {} until {until}", certificates.names.join(", "));
            certificates.state.send_modify(|state| state.held = Some(held));
            event = events::of("certificate", "certificate-obtained", message, world.clock.now());
            Attempts { ended: Some(world.clock.now()), ..Attempts::default() }
        }
        Err(failure) => {
            let limited = matches!(failure, Failure::Limited(_));
            let before = certificates.state().attempts;
            let attempts = before.failed(failure.to_string(), limited, world.clock.now());
            tracing::warn!(error = %failure, next = ?attempts.next, "no certificate; trying again");
            let message = format!("no certificate for {}: {failure}", certificates.names.join(", "));
            event = events::of("certificate", "certificate-failed", message, world.clock.now());
            attempts
        }
    };
    let text = serde_json::to_string(&attempts).unwrap_or_default();
    if let Err(error) = world.store.set_setting_telling(ATTEMPTS, &text, Some(&event)).await {
        tracing::warn!(%error, "a restart will not know of this try for a certificate");
    }
    certificates.state.send_modify(|state| state.attempts = attempts);
}

/// One try, from the account to the store. Whatever becomes of it, the records of its challenges are wanted no more afterwards.
async fn obtain(world: &World, options: &Options) -> Result<Held, Failure> {
    let certificates = &world.certificates;
    certificates.doing(Some("asking the certificate authority"));
    let account_name = format!("acme/{}", options.authority.directory());
    let known = account(world, options, &account_name).await?;
    let challenges = Zone { world, options };
    let mut issued = options.authority.issue(&known, &certificates.names, &challenges).await;
    if let Err(Failure::Account(why)) = &issued {
        // It was deactivated, or the authority has lost it. Once: a new one that is refused too is a failure.
        tracing::warn!(why, "registering anew with the certificate authority");
        world.store.forget_sealed(&account_name).await.map_err(other)?;
        let fresh = account(world, options, &account_name).await?;
        issued = options.authority.issue(&fresh, &certificates.names, &challenges).await;
    }
    challenges.withdraw().await;
    let certificate = issued?;
    let facts = certificate.facts().map_err(other)?;
    if let Some(missing) = certificates.names.iter().find(|name| !facts.covers(name)) {
        return Err(Failure::Other(format!("the certificate that was issued is not for {missing}")));
    }
    let name = certificates.kept_as();
    let text = serde_json::to_vec(&certificate).map_err(other)?;
    let sealed = options.seal.seal(&name, &text).map_err(other)?;
    world.store.keep_sealed(&name, &sealed).await.map_err(other)?;
    // It is not looked at any more, whether it goes or not.
    if let Err(error) = world.store.forget_sealed(&certificates.kept_as_before()).await {
        tracing::warn!(%error, "the certificate of an earlier release stays in the store");
    }
    Ok(Held { certificate, facts, current: true })
}

/// The account of earlier, or a new one, which is kept before it is used.
async fn account(world: &World, options: &Options, name: &str) -> Result<Account, Failure> {
    let kept = world.store.sealed(name).await.map_err(other)?;
    let opened =
        kept.and_then(|text| options.seal.open(name, &text).ok()).and_then(|text| String::from_utf8(text).ok());
    if let Some(credentials) = opened {
        match options.authority.restore(&credentials).await {
            Err(Failure::Account(why)) => tracing::warn!(why, "registering anew with the certificate authority"),
            restored => return restored,
        }
    }
    let (account, credentials) = options.authority.register().await?;
    let sealed = options.seal.seal(name, credentials.as_bytes()).map_err(other)?;
    world.store.keep_sealed(name, &sealed).await.map_err(other)?;
    Ok(account)
}

fn other(error: impl std::fmt::Display) -> Failure {
    Failure::Other(error.to_string())
}

/// Challenges by records of the zone: wanted for a while, like any other record of ours.
struct Zone<'a> {
    world: &'a World,
    options: &'a Options,
}

impl Zone<'_> {
    fn host(&self) -> Result<(String, String), String> {
        let keeper = self.world.dns.keeper().map_err(|error| error.message)?;
        let host = keeper.names().host("_acme-challenge");
        let full = keeper.names().full(&host);
        Ok((host, full))
    }

    /// Nobody being able to is no failure: they go by themselves.
    async fn withdraw(&self) {
        let Ok((host, _)) = self.host() else { return };
        let (store, now) = (&self.world.store, self.world.clock.now());
        let taken = async {
            for wish in store.dns_wishes(now).await?.iter().filter(|wish| wish.host == host && wish.kind == "txt") {
                store.remove_dns_wish(&wish.host, &wish.kind, &wish.value).await?;
            }
            Ok::<_, crate::store::Error>(())
        };
        if let Err(error) = taken.await {
            tracing::warn!(%error, "the records of a challenge stay for a while");
        }
        self.world.ring_desired();
    }

    /// Whether every server shows all of them; what is missing otherwise.
    async fn look(&self, authorities: &dyn Authorities, name: &str, values: &[String]) -> Result<(), String> {
        let zone = self.world.dns.keeper().map_err(|error| error.message)?.names().zone();
        let servers = authorities.servers(zone).await?;
        let looks = servers.into_iter().map(|server| async move {
            match authorities.ask(server, name, "txt").await {
                Ok(shown) if values.iter().all(|value| shown.contains(value)) => Ok(()),
                Ok(_) => Err(format!("{server} does not show them yet")),
                Err(why) => Err(format!("{server} does not answer: {why}")),
            }
        });
        futures::future::try_join_all(looks).await.map(drop)
    }
}

#[async_trait]
impl Challenges for Zone<'_> {
    async fn show(&self, name: &str, values: &[String]) -> Result<(), String> {
        let (host, full) = self.host()?;
        let authorities = self.world.dns.authorities().ok_or("the zone has no name servers that could be asked")?;
        if full != format!("_acme-challenge.{name}") {
            return Err(format!("the certificate authority asks for a record of {name}, which is not ours to make"));
        }
        let until = self.world.clock.now() + CHALLENGE_LIFE;
        for value in values {
            let wish = Wish { host: host.clone(), kind: "txt".into(), value: value.clone(), until };
            self.world.store.add_dns_wish(&wish).await.map_err(|error| error.to_string())?;
        }
        self.world.certificates.doing(Some("waiting for the records in DNS"));
        let begun = Instant::now();
        let told = dns::settle(self.world, self.options.patience).await;
        loop {
            match self.look(authorities, &full, values).await {
                Ok(()) => break,
                Err(why) if begun.elapsed() >= self.options.patience => {
                    return Err(format!(
                        "the records of the challenge at {full} did not come into DNS within {} min: {why}; DNS: {told}",
                        self.options.patience.as_secs().div_ceil(60)
                    ));
                }
                Err(_) => tokio::time::sleep(self.options.look_again).await,
            }
        }
        self.world.certificates.doing(Some("waiting for the certificate authority"));
        Ok(())
    }
}

/// Servers that should be told: those that answer and hold another one, or none. Pure.
fn behind(held: &[(ServerName, Option<HeldCertificate>)], current: &CertificateFacts) -> Vec<ServerName> {
    let differs =
        |held: &Option<HeldCertificate>| held.as_ref().is_none_or(|held| held.fingerprint != current.fingerprint);
    held.iter().filter(|(_, held)| differs(held)).map(|(server, _)| server.clone()).collect()
}

/// Hands the newest certificate to every server until it holds it, until shutdown.
pub async fn spread(world: Arc<World>, shutdown: CancellationToken) {
    if world.certificates.options.is_none() {
        return;
    }
    let mut certificates = world.certificates.state.subscribe();
    let mut observed = world.fleet.subscribe();
    loop {
        let began = tokio::time::Instant::now();
        let current = certificates.borrow_and_update().held.clone();
        if let Some(current) = current {
            let alive: Vec<_> = world
                .fleet
                .all()
                .into_iter()
                .filter_map(|(server, seen)| seen.alive().map(|snapshot| (server, snapshot.certificate.clone())))
                .collect();
            for server in behind(&alive, &current.facts) {
                tell(&world, &server, &current).await;
            }
        }
        shutdown.run_until_cancelled(pace::rest_since(began)).await;
        tokio::select! {
            _ = certificates.changed() => {}
            _ = observed.changed() => {}
            () = tokio::time::sleep(world.settings.reconcile) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

async fn tell(world: &World, server: &ServerName, current: &Held) {
    let told = async { world.agent(server).await?.set_certificate(&current.certificate).await }.await;
    match told {
        Ok(held) if held.fingerprint == current.facts.fingerprint => {
            tracing::info!(%server, not_after = %current.facts.not_after, "certificate handed over");
            world.look_again(server).await;
        }
        Ok(held) => tracing::warn!(%server, not_after = %held.not_after, "a server keeps a newer certificate"),
        Err(error) => tracing::warn!(%server, %error, "a server did not take the certificate; trying again"),
    }
}

#[cfg(test)]
mod tests {
    use feather_proto::{
        model::HeldCertificate,
        tls::{CertificateFacts, Principal, PublicCertificate},
    };
    use time::OffsetDateTime;

    use super::{Certificates, Options, acme::Authority, behind};
    use crate::{ca::Ca, seal::Seal, store::Store};

    #[test]
    fn servers_without_the_newest_are_told() {
        let facts = CertificateFacts {
            names: vec!["*.users.example.com".into()],
            issuer: String::new(),
            serial: String::new(),
            not_before: OffsetDateTime::UNIX_EPOCH,
            not_after: OffsetDateTime::UNIX_EPOCH,
            fingerprint: "new".into(),
        };
        let held = |fingerprint: &str| {
            Some(HeldCertificate { fingerprint: fingerprint.into(), not_after: OffsetDateTime::UNIX_EPOCH })
        };
        let servers = [("fra", held("new")), ("lax", None), ("nyc", held("old"))]
            .map(|(name, held)| (name.parse().unwrap(), held));
        let told: Vec<_> = behind(&servers, &facts).iter().map(ToString::to_string).collect();
        assert_eq!(told, ["lax", "nyc"]);
    }

    #[tokio::test]
    async fn what_a_release_before_kept_is_served_until_another_is_obtained() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite://{}", folder.path().join("store.db").display())).await.unwrap();
        let certificates = || {
            let authority = Authority::new("https://ca.example/directory", None, None).unwrap();
            let options = Options::new(authority, Seal::load_or_create(folder.path()).unwrap());
            Certificates::new(Some(options), "users.example.com")
        };
        let made = certificates();
        let ca = Ca::create(folder.path(), OffsetDateTime::UNIX_EPOCH).unwrap();
        let seal = &made.options.as_ref().unwrap().seal;
        let keep = async |name: String| {
            let made = ca.issue(&Principal::controller(), time::Duration::DAY, OffsetDateTime::UNIX_EPOCH).unwrap();
            let certificate = PublicCertificate { chain_pem: made.certificate_pem, key_pem: made.key_pem };
            let sealed = seal.seal(&name, &serde_json::to_vec(&certificate).unwrap()).unwrap();
            store.keep_sealed(&name, &sealed).await.unwrap();
            certificate.facts().unwrap().fingerprint
        };
        let loaded = async || {
            let later = certificates();
            later.load(&store, seal).await.unwrap();
            let held = later.state().held;
            held.map(|held| (held.facts.fingerprint, held.current))
        };
        assert_eq!(loaded().await, None);
        let before = keep(made.kept_as_before()).await;
        assert_eq!(loaded().await, Some((before, false)), "nobody is left without, and another is due");
        let of_this_authority = keep(made.kept_as()).await;
        assert_eq!(loaded().await, Some((of_this_authority, true)));
    }

    #[test]
    fn without_an_authority_there_is_nothing_to_renew() {
        let none = Certificates::new(None, "Users.example.com.");
        assert_eq!(none.names(), ["users.example.com", "*.users.example.com"]);
        assert!(none.renew().unwrap_err().message.contains("--acme-directory"));
        assert_eq!((none.directory(), none.warning()), (None, None));
    }
}
