//! The zone: what the fleet wants in it, and the reconciler that keeps it so.
//!
//! What is wanted is decided in [`plan`], purely; what has to change for that in [`propose`], purely; [`keeper`] acts. Nothing depends
//! on DNS being up to date: the ingress forwards whatever still arrives there.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use feather_proto::{
    error::{Error, reason},
    ids::ServerName,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    events,
    store::{Store, events::NewEvent},
    world::World,
};
use authority::Authorities;
use converge::Tracker;
use keeper::{Ask, Keeper, View};
use names::Names;
use propose::Cap;
use remarks::Remark;
use underway::Reconciler;
use zone::{Provider, ZoneRecord};

pub mod authority;
pub mod bag;
pub mod change;
pub mod contract;
pub mod converge;
pub mod dynadot;
pub mod keeper;
pub mod ledger;
pub mod memory;
pub mod names;
pub mod plan;
pub mod propose;
pub mod remarks;
pub mod ttls;
pub mod underway;
pub mod zone;

/// One address record under the suffix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Record {
    /// `*` for the wildcard, otherwise a tenant's name.
    pub name: String,
    /// A or AAAA.
    pub address: IpAddr,
}

/// Who changes the zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The reconciler, by itself.
    Auto,
    /// A person, who is told what is to do.
    Manual,
}

/// How the zone is kept.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Who changes it.
    pub mode: Mode,
    /// How many names may change at once.
    pub cap: Cap,
    /// A plan may be carried out so long after it was shown.
    pub plan_life: Duration,
    /// The provider may take so long to show what a call did, before it is made again.
    pub patience: Duration,
    /// One pass waits so long for that; a later one goes on.
    pub sight: Duration,
    /// Pause before the zone is read again; doubled each time, up to eightfold.
    pub look_again: Duration,
    /// Nobody else may write for so long after the last word of this controller. Longer than any call may take.
    pub lease: Duration,
    /// Time between looks at the zone when nothing happened.
    pub interval: Duration,
    /// Time between questions to the name servers while something is on its way to them.
    pub ask_again: Duration,
    /// So many snapshots are kept.
    pub snapshots: i64,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            mode: Mode::Auto,
            cap: Cap::default(),
            plan_life: Duration::from_secs(600),
            patience: Duration::from_secs(180),
            sight: Duration::from_secs(30),
            look_again: Duration::from_secs(2),
            lease: Duration::from_secs(120),
            interval: Duration::from_secs(300),
            ask_again: Duration::from_secs(5),
            snapshots: 200,
        }
    }
}

impl Rules {
    fn lease(&self) -> time::Duration {
        time::Duration::try_from(self.lease).unwrap_or(time::Duration::MINUTE)
    }
}

/// What is written to.
pub struct Managed {
    /// The zone.
    pub provider: Arc<dyn Provider>,
    /// What the store calls it: provider and zone.
    pub key: String,
    /// Who answers for it; nobody, for a zone that has no name servers.
    pub authorities: Option<Arc<dyn Authorities>>,
}

/// One look at the zone by the reconciler.
#[derive(Debug, Clone)]
pub struct Pass {
    /// When it ended.
    pub at: OffsetDateTime,
    /// A sentence about what was done, or why not.
    pub outcome: Result<String, Error>,
    /// What a person should know of what it saw.
    pub remarks: Vec<Remark>,
}

/// What reconciler and name servers say of the zone together.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The newest pass; none before the first has ended.
    pub pass: Option<Pass>,
    /// Whole names that the provider shows as wanted and some name server does not; none while that is not known.
    pub late: Option<Vec<String>>,
    /// Why name servers are not asked.
    pub authorities_problem: Option<String>,
    /// Somebody asks name servers, so that forwards end.
    pub forwards_end: bool,
}

/// All looks since the controller started.
#[derive(Debug, Clone, Default)]
pub struct Passes {
    begun: u64,
    ended: u64,
    /// When the newest began.
    since: Option<OffsetDateTime>,
    /// The newest that has ended.
    pub last: Option<Pass>,
}

/// The zone of this controller.
pub struct Dns {
    keeper: Option<Keeper>,
    authorities: Option<Arc<dyn Authorities>>,
    tracker: Tracker,
    passes: watch::Sender<Passes>,
}

impl Dns {
    /// Keeps what is managed, or nothing. Says what is wrong with the suffix otherwise.
    pub fn new(
        managed: Option<Managed>,
        store: &Store,
        clock: &Arc<dyn crate::world::Clock>,
        suffix: &str,
        rules: &Rules,
    ) -> Result<Self, String> {
        let (keeper, authorities) = match managed {
            None => (None, None),
            Some(Managed { provider, key, authorities }) => {
                let names = Names::new(provider.zone(), suffix)?;
                let holder = uuid::Uuid::new_v4().to_string();
                let keeper = Keeper::new(store.clone(), provider, clock.clone(), names, rules.clone(), &key, &holder);
                (Some(keeper), authorities)
            }
        };
        Ok(Self { keeper, authorities, tracker: Tracker::default(), passes: watch::Sender::default() })
    }

    /// The zone's keeper, or how to get one.
    pub fn keeper(&self) -> Result<&Keeper, Error> {
        self.keeper.as_ref().ok_or_else(|| {
            let message = "this controller writes no DNS; start it with --dns and --dns-zone. `featherctl server list` and \
                           `featherctl tenant show NAME` say what has to lead where";
            Error::refused(reason::DNS_OFF, message)
        })
    }

    /// Who answers for the zone, if anybody does.
    pub fn authorities(&self) -> Option<&dyn Authorities> {
        self.authorities.as_deref()
    }

    /// What has arrived at the name servers.
    pub fn known(&self) -> converge::Known {
        self.tracker.known()
    }

    /// How it stands, without asking anybody; none when this controller writes no DNS.
    pub fn standing(&self) -> Option<Standing> {
        let keeper = self.keeper.as_ref()?;
        let known = self.tracker.known();
        let late = known.late(keeper.names()).filter(|_| self.authorities.is_some());
        Some(Standing {
            pass: self.last(),
            late,
            authorities_problem: known.problem().cloned(),
            forwards_end: self.authorities.is_some(),
        })
    }

    /// What a read shows is not as wanted, and is expected to be so soon without anybody's doing.
    pub fn is_on_its_way(&self, view: &View, rules: &Rules, now: OffsetDateTime) -> bool {
        let ms = |at: OffsetDateTime| i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX);
        let passes = self.passes.borrow();
        let well = passes.last.as_ref().is_none_or(|pass| pass.outcome.is_ok());
        let reconciler = match (rules.mode, passes.since.filter(|_| well && passes.begun > passes.ended)) {
            (Mode::Manual, _) => Reconciler::Absent,
            (Mode::Auto, Some(since)) => Reconciler::Looking(ms(since)),
            (Mode::Auto, None) => Reconciler::Resting,
        };
        let patience_ms = i64::try_from(rules.patience.as_millis()).unwrap_or(i64::MAX);
        let late = view.proposal.unsettled();
        underway::is_on_its_way(&late, &view.ledger.since, view.sent, reconciler, (ms(now), patience_ms))
    }

    /// The newest pass of the reconciler.
    pub fn last(&self) -> Option<Pass> {
        self.passes.borrow().last.clone()
    }
}

/// Everything wanted in the zone, the most important first: the wildcard, what is wanted for a while, tenants by name.
pub async fn terms(world: &World, names: &Names, wanted: &plan::Wanted) -> Result<Vec<ZoneRecord>, Error> {
    let (wildcard, own): (Vec<_>, Vec<_>) = wanted.records.iter().partition(|record| record.name == plan::WILDCARD);
    let wishes = world.store.dns_wishes(world.clock.now()).await?.into_iter().map(|wish| ZoneRecord {
        host: wish.host,
        kind: wish.kind,
        value: wish.value,
        extra: String::new(),
    });
    let fleet = |records: Vec<&Record>| records.into_iter().map(|record| names.record(record)).collect::<Vec<_>>();
    Ok(fleet(wildcard).into_iter().chain(wishes).chain(fleet(own)).collect())
}

/// What the fleet wants, and what the zone would become.
pub async fn view(world: &World, keeper: &Keeper) -> Result<(plan::Wanted, View), Error> {
    let wanted = wanted(world).await?;
    let terms = terms(world, keeper.names(), &wanted).await?;
    let view = keeper.view(&terms).await?;
    Ok((wanted, view))
}

/// Makes the zone what the fleet wants, within what is asked; `who` asked for it.
pub async fn apply(world: &World, ask: &Ask, who: &str) -> Result<keeper::Done, Error> {
    apply_wanted(world, ask, &wanted(world).await?, Some(who)).await
}

async fn apply_wanted(
    world: &World,
    ask: &Ask,
    wanted: &plan::Wanted,
    who: Option<&str>,
) -> Result<keeper::Done, Error> {
    let keeper = world.dns.keeper()?;
    let done = keeper.apply(&terms(world, keeper.names(), wanted).await?, ask).await?;
    shown(world, keeper, done.unsettled.clone(), done.ttl).await?;
    if done.created + done.removed > 0 {
        let over_budget = wanted.over_budget.len();
        tracing::info!(created = done.created, removed = done.removed, over_budget, "dns changed");
        let message = format!("{}: records created: {}, removed: {}", keeper.key(), done.created, done.removed);
        let who = who.map(ToOwned::to_owned);
        world.store.record(&NewEvent { who, ..events::of("dns", "dns-changed", message, world.clock.now()) }).await?;
    }
    Ok(done)
}

/// What the zone has shown, for whoever asks whether it has arrived.
async fn shown(world: &World, keeper: &Keeper, unsettled: BTreeSet<String>, ttl: u32) -> Result<(), Error> {
    let shown = converge::Shown { unsettled, ttl, now_ms: now_ms(world) };
    world.dns.tracker.provider_shows(&world.store, keeper.key(), shown).await
}

/// Now, in milliseconds since 1970.
pub(crate) fn now_ms(world: &World) -> i64 {
    i64::try_from(world.clock.now().unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

/// Looks, and in the mode [`Mode::Auto`] applies; returns a sentence about what was done, and what a person should know. No argument
/// but the world.
async fn reconcile(world: &World) -> Result<(String, Vec<Remark>), Error> {
    let Ok(keeper) = world.dns.keeper() else {
        return Ok(("not written by this controller (--dns none)".to_owned(), Vec::new()));
    };
    if world.settings.dns.mode == Mode::Auto {
        let wanted = wanted(world).await?;
        let done = apply_wanted(world, &Ask { cap: world.settings.dns.cap, ..Ask::default() }, &wanted, None).await?;
        let message = match (done.created, done.removed) {
            (0, 0) => as_wanted(done.owned, &done.found),
            (created, removed) => format!("just changed (records created: {created}, removed: {removed})"),
        };
        return Ok((message, remarks::remarks(keeper.names(), &wanted, &done.found)));
    }
    keeper.resume().await?;
    let (wanted, view) = view(world, keeper).await?;
    shown(world, keeper, view.proposal.unsettled(), view.zone.ttl).await?;
    if let Some(refused) = keeper::refusal(&view) {
        return Err(refused);
    }
    let mut remarks = remarks::remarks(keeper.names(), &wanted, &view.found(keeper.names()));
    if view.proposal.is_empty() {
        return Ok((as_wanted(view.standing.ours.len(), &view.found(keeper.names())), remarks));
    }
    let (create, remove) = (view.proposal.create.len(), view.proposal.remove.len());
    tracing::warn!(create, remove, "the zone is not as wanted, and is changed by hand");
    let message = format!("records to create: {create}, to remove: {remove}; `featherctl dns apply` does it");
    remarks.push(Remark {
        kind: crate::warnings::Kind::DnsByHand,
        about: String::new(),
        message: format!("the zone is not as wanted, and is changed by hand; {message}"),
    });
    Ok((format!("waits for you: {message}"), remarks))
}

fn as_wanted(records: usize, found: &remarks::Found) -> String {
    match found.no_slot.len() {
        0 => format!("up to date (records of the fleet: {records})"),
        without => {
            format!("up to date as far as the zone has room (records of the fleet: {records}, without room: {without})")
        }
    }
}

/// What the zone should hold, from the store alone. Settles the ingress once and keeps it.
pub async fn wanted(world: &World) -> Result<plan::Wanted, Error> {
    let (members, tenants, settled) = loop {
        let names = world.fleet.settled().await;
        let (members, tenants) = (world.store.servers().await?, world.store.tenants().await?);
        let settled = world.store.setting(INGRESS).await?;
        // An ingress that has another name meanwhile is not one that is gone.
        if world.fleet.holds(names) {
            break (members, tenants, settled);
        }
    };
    let ingress = plan::ingress(settled.as_deref(), &members, &tenants);
    if let Some(ingress) = &ingress
        && settled.as_deref() != Some(ingress.as_str())
    {
        world.store.set_ingress(ingress, None, false).await?;
    }
    Ok(plan::wanted(ingress, &members, &tenants, world.settings.dns_budget))
}

/// What it should hold if that server were the ingress.
pub async fn wanted_with(world: &World, ingress: &ServerName) -> Result<plan::Wanted, Error> {
    let (members, tenants) = (world.store.servers().await?, world.store.tenants().await?);
    Ok(plan::wanted(Some(ingress.clone()), &members, &tenants, world.settings.dns_budget))
}

/// Name of the setting that holds the ingress.
pub const INGRESS: &str = "ingress";

/// Name of the setting that holds those before it, with commas between them.
pub const FORMER_INGRESS: &str = "former-ingress";

/// Servers that were the ingress, to which names may still lead while that has not arrived everywhere.
pub async fn former_ingresses(store: &Store) -> Result<BTreeSet<ServerName>, Error> {
    listed(&store.setting(FORMER_INGRESS).await?.unwrap_or_default())
}

/// Servers in a setting.
pub fn listed(text: &str) -> Result<BTreeSet<ServerName>, Error> {
    text.split(',').filter(|name| !name.is_empty()).map(str::parse).collect()
}

/// The setting that holds these servers.
pub fn list(servers: &BTreeSet<ServerName>) -> String {
    servers.iter().map(ServerName::as_str).collect::<Vec<_>>().join(",")
}

/// Asks the reconciler for a pass on what is wanted now, and waits for its end for a bounded time. Not being able to is no failure: the
/// reconciler keeps at it, and the ingress forwards meanwhile.
pub async fn settle(world: &World, patience: Duration) -> String {
    let mut passes = world.dns.passes.subscribe();
    let begun = passes.borrow().begun;
    world.ring_desired();
    let ended = tokio::time::timeout(patience, passes.wait_for(|passes| passes.ended > begun)).await;
    let last = ended.ok().and_then(Result::ok).and_then(|passes| passes.last.clone());
    match last.map(|pass| pass.outcome) {
        Some(Ok(message)) => message,
        Some(Err(error)) => format!("not up to date yet ({error}); the controller keeps at it"),
        None => "under way; `featherctl dns status` shows how far it is".to_owned(),
    }
}

/// Keeps the zone as wanted until shutdown.
pub async fn keep(world: Arc<World>, shutdown: CancellationToken) {
    let mut desired = world.desired.subscribe();
    let mut failures = 0;
    loop {
        desired.mark_unchanged();
        let now = world.clock.now();
        world.dns.passes.send_modify(|passes| (passes.begun, passes.since) = (passes.begun + 1, Some(now)));
        let outcome = reconcile(&world).await;
        let pause = pause(&world, &outcome, &mut failures);
        if let Err(error) = &outcome {
            tracing::warn!(%error, "dns is not as wanted; trying again");
        }
        let (outcome, remarks) = match outcome {
            Ok((message, remarks)) => (Ok(message), remarks),
            Err(error) => (Err(error), Vec::new()),
        };
        let pass = Pass { at: world.clock.now(), outcome, remarks };
        world.dns.passes.send_modify(|passes| {
            passes.ended = passes.begun;
            passes.last = Some(pass);
        });
        tokio::select! {
            _ = desired.changed() => {}
            () = tokio::time::sleep(pause) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Until the next look: what the provider asked for, or longer with each failure in a row.
fn pause<T>(world: &World, outcome: &Result<T, Error>, failures: &mut u32) -> Duration {
    let Err(error) = outcome else {
        *failures = 0;
        return world.settings.dns.interval;
    };
    let longer = world.settings.reconcile * 2_u32.saturating_pow((*failures).min(6));
    *failures += 1;
    let asked = error.metadata.get(keeper::PAUSE).and_then(|pause| pause.parse().ok()).map(Duration::from_millis);
    longer.max(asked.unwrap_or_default()).min(world.settings.dns.interval.max(asked.unwrap_or_default()))
}
