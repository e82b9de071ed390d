//! The warning inbox: conditions that need a person, until they are cured.
//!
//! What holds is computed anew at each look ([`conditions`], pure) from what is stored and observed, so that a cured condition is gone
//! by itself. The store keeps since when each holds and who has taken note of it; what follows from both is decided in [`inbox`],
//! pure. This file looks and writes.

use std::{sync::Arc, time::Duration};

use feather_proto::error::{Error, reason};
use time::OffsetDateTime;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{dns, store::warnings::WarningRow, world::World};

mod backups;
pub mod conditions;
pub mod inbox;

pub use conditions::{Condition, Judgement, Kind, Scope};

/// A remark on a warning is at most so many characters long.
pub const NOTE_MAX: usize = 500;

/// How long conditions may last before they are shown: most of them come and go with a restart or a change under way.
#[derive(Debug, Clone)]
pub struct Patience {
    /// What a running change may cause for a moment.
    pub moment: Duration,
    /// A server that does not answer.
    pub unreachable: Duration,
    /// A DNS provider or its name servers that cannot be asked, and a certificate that is not obtained: both are tried again.
    pub outside: Duration,
    /// A name on its way to the name servers.
    pub arrival: Duration,
    /// Servers of several versions: an upgrade goes from one to the next.
    pub versions: Duration,
    /// A forward that outlives its move.
    pub forward: Duration,
    /// Time between two looks.
    pub look: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            moment: Duration::from_secs(30),
            unreachable: Duration::from_secs(60),
            outside: Duration::from_secs(15 * 60),
            arrival: Duration::from_secs(30 * 60),
            versions: Duration::from_secs(60 * 60),
            forward: Duration::from_secs(24 * 60 * 60),
            look: Duration::from_secs(10),
        }
    }
}

impl Patience {
    /// Of this kind.
    pub fn of(&self, kind: Kind) -> Duration {
        match kind {
            Kind::Unreachable => self.unreachable,
            Kind::DnsProvider | Kind::DnsAuthority | Kind::Certificate => self.outside,
            Kind::DnsName => self.arrival,
            Kind::Version | Kind::Protocol => self.versions,
            Kind::Forward => self.forward,
            Kind::Problem | Kind::Disk | Kind::Memory | Kind::Clock | Kind::Broken | Kind::DnsByHand => self.moment,
            Kind::ServerCertificate
            | Kind::Stuck
            | Kind::CrashLoop
            | Kind::Lost
            | Kind::CertificateEnd
            | Kind::DnsConflict
            | Kind::DnsForwarded
            | Kind::DnsRefused
            | Kind::DnsNoticed
            | Kind::DnsAddress
            | Kind::DomainSuffix
            | Kind::BackupLate
            | Kind::BackupDamaged => Duration::ZERO,
        }
    }
}

/// Lets one look at a time compare and write.
#[derive(Debug, Default)]
pub struct Turn(Mutex<()>);

impl Turn {
    /// Nobody looks while this is held.
    pub(crate) async fn taken(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.0.lock().await
    }
}

/// Looks at everything, and keeps what follows. All conditions that hold, the oldest first, also those not shown yet.
pub async fn look(world: &World) -> Result<Vec<WarningRow>, Error> {
    let _turn = world.warnings.0.lock().await;
    let kept = world.store.warnings().await?;
    if world.following.is_some() {
        // Whoever leads judges.
        return Ok(kept);
    }
    let judgement = judge(world, &kept).await?;
    let now = world.clock.now();
    let news = inbox::compare(&kept, &judgement, &world.settings.patience, now);
    if news.is_empty() {
        return Ok(kept);
    }
    for row in &news.raised {
        tracing::warn!(warning = row.id, message = row.message, "something needs a person");
    }
    for row in &news.cured {
        tracing::info!(warning = row.id, "cured");
    }
    world.store.change_warnings(&news, now).await?;
    Ok(world.store.warnings().await?)
}

/// Everything that is asked for a judgement.
async fn judge(world: &World, kept: &[WarningRow]) -> Result<Judgement, Error> {
    let store = &world.store;
    let (members, tenants, running) =
        (store.servers().await?, store.tenants().await?, store.unfinished_operations().await?);
    let former = dns::former_ingresses(store).await?;
    let ingress = dns::wanted(world).await?.ingress;
    let (schedules, backups) = (store.backup_schedules().await?, store.backups(None).await?);
    let (zone, certificate) = (world.dns.standing(), world.certificates.standing());
    let view = |observed: &_| {
        let view = conditions::View {
            now: world.clock.now(),
            version: env!("CARGO_PKG_VERSION"),
            domain_suffix: &world.settings.domain_suffix,
            members: &members,
            tenants: &tenants,
            running: &running,
            observed,
            ingress: ingress.as_ref(),
            former: &former,
            zone: zone.as_ref(),
            certificate: certificate.as_ref(),
            disk_headroom_bytes: world.settings.disk_headroom_bytes,
            tenant_memory_bytes: world.settings.tenant_memory_bytes,
            schedules: &schedules,
            backups: &backups,
            kept,
        };
        conditions::judge(&view)
    };
    Ok(world.fleet.with(view))
}

/// What is shown: raised, and taken note of by nobody.
pub async fn open(world: &World) -> Result<usize, Error> {
    Ok(look(world).await?.iter().filter(|row| row.raised.is_some() && row.acknowledged.is_none()).count())
}

/// Somebody takes note. Again changes who, when and the remark; a condition that was cured and comes back is not noted any more.
///
/// # Errors
/// Not found: no such condition holds.
pub async fn acknowledge(world: &World, id: &str, who: &str, note: &str) -> Result<WarningRow, Error> {
    let holds = look(world).await?;
    let _turn = world.warnings.0.lock().await;
    let known = holds.iter().any(|row| row.id == id && row.raised.is_some());
    let row = if known { world.store.acknowledge_warning(id, who, note, world.clock.now()).await? } else { None };
    row.ok_or_else(|| {
        let message = format!("there is no warning {id}; it may be cured");
        Error::not_found(reason::WARNING_NOT_FOUND, message).with("warning", id)
    })
}

/// The same moment, or none.
fn since(now: OffsetDateTime, then: OffsetDateTime) -> Duration {
    Duration::try_from(now - then).unwrap_or_default()
}

/// Looks at intervals until shutdown.
pub async fn keep(world: Arc<World>, shutdown: CancellationToken) {
    loop {
        if let Err(error) = look(&world).await {
            tracing::warn!(%error, "nobody looked for what needs a person; trying again");
        }
        tokio::select! {
            () = tokio::time::sleep(world.settings.patience.look) => {}
            () = shutdown.cancelled() => return,
        }
    }
}
