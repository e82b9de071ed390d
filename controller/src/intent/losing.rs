//! Plans what becomes of a server that is declared lost, and of each tenant that lived on it.

use feather_proto::{
    error::{Error, reason},
    ids::{OperationId, ServerName, TenantName},
    model::invalid_field,
};
use serde_json::json;
use time::OffsetDateTime;

use super::{Asker, Intent, Planned, Proposal, Request, to_json};
use crate::{
    fleet::{self, Observed, Reachability},
    operations::{
        Kind, Subject,
        lost::{self, answers},
        recover,
    },
    placement::{
        self, Bounds, Decision, Verdict,
        several::{Seat, choose_all},
    },
    recovery::{self, Data, Wish, Without},
    rename,
    store::{TenantRow, TenantState},
};

/// Most recoveries at once, and how many without a wish.
const PARALLEL_MAX: u8 = 16;
const PARALLEL_DEFAULT: u8 = 2;
/// Operations of a tenant that are looked at for how old a copy is.
const OPERATIONS_MAX: u32 = 200;

/// How the tenants of a lost server are to be brought back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Losing {
    /// The server's name once more: whoever asks vouches that its machine is off.
    pub confirm: String,
    /// With which data.
    pub wish: Wish,
    /// Where those that come from a backup go, instead of wherever placement says.
    pub to: Option<ServerName>,
    /// Recoveries at once; 0 for the usual number.
    pub parallel: u8,
}

/// How one tenant is to be brought back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// With which data.
    pub wish: Wish,
    /// Where to, if it comes from a backup, instead of wherever placement says.
    pub to: Option<ServerName>,
    /// The operation that it is a part of.
    pub part_of: Option<OperationId>,
}

/// What would become of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fate {
    /// Who.
    pub tenant: TenantName,
    /// With which data, if there is any.
    pub data: Option<Data>,
    /// Where, if it fits there.
    pub target: Option<ServerName>,
    /// Why not, or that it is removed; empty otherwise.
    pub why: String,
    /// It was removed before, and its kept data goes with the server.
    pub removed: bool,
}

/// What would become of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// When it was heard of last by this controller.
    pub last_heard: Option<OffsetDateTime>,
    /// Of each tenant.
    pub fates: Vec<Fate>,
}

impl Intent {
    /// Declares a server lost: takes it out of the fleet, and brings its tenants back elsewhere with what is left of their data.
    ///
    /// # Errors
    /// No such server, its name was not confirmed, it answers, the controller has not looked for it long enough, or another operation
    /// empties or fills it.
    pub async fn lose(&self, request: &Asker, server: &ServerName, wanted: &Losing) -> Result<(Planned, Loss), Error> {
        let parallel = if wanted.parallel == 0 { PARALLEL_DEFAULT } else { wanted.parallel };
        if parallel > PARALLEL_MAX {
            return Err(invalid_field("parallel", "from 1 to 16, or 0 for 2"));
        }
        if wanted.to.as_ref() == Some(server) {
            return Err(invalid_field("to", "another server than the one that is lost"));
        }
        if !request.dry_run && wanted.confirm != server.as_str() {
            return Err(Error::refused(
                reason::NOT_CONFIRMED,
                format!(
                    "the name of the server was not confirmed; nothing was changed. Be sure that the machine of {server} is off and will not \
                     come back, then say its name once more (--confirm {server})"
                ),
            )
            .with("server", server));
        }
        let asked = json!({ "lost": server, "from": wanted.wish, "to": wanted.to, "parallel": parallel });
        let subject = Subject::Residents(server.clone());
        if let Some(known) = self.known_on(&subject, request, &asked).await? {
            return Ok((known, Loss { last_heard: None, fates: Vec::new() }));
        }
        self.member(server).await?;
        if let Some(to) = &wanted.to {
            self.member(to).await?;
        }
        let observed = self.world.fleet.observed(server);
        match &observed.reachability {
            Reachability::Alive => return Err(answers(server)),
            Reachability::Connecting => return Err(super::unreachable_now(server, "not looked for to the end yet")),
            Reachability::Silent(_) => {}
        }
        let rows = self.world.store.tenants().await?;
        let there: Vec<_> = rows.into_iter().filter(|row| row.server.as_ref() == Some(server)).collect();
        let fates = self.fates(server, &there, wanted.wish, wanted.to.as_ref()).await?;
        let living = there.iter().filter(|row| row.state == TenantState::Active);
        let plan = lost::Plan {
            server: server.clone(),
            tenants: living.map(|row| row.name.clone()).collect(),
            parallel,
            wish: wanted.wish,
            to: wanted.to.clone(),
            requested_by: request.requested_by.clone(),
        };
        let back = fates.iter().filter(|one| one.target.is_some()).count();
        let explanation =
            format!("{} tenants lived on {server}, {back} can be brought back as things stand", plan.tenants.len());
        let proposal = Proposal::on(Kind::Lost, asked, server.clone(), to_json(&plan)?, vec![explanation]);
        let planned = self.begin_on(subject, request, proposal).await?;
        Ok((planned, Loss { last_heard: observed.last_seen, fates }))
    }

    /// Brings back one tenant whose server is lost, with what is left of its data.
    ///
    /// # Errors
    /// It does not live on a lost server, there is no data (`DATA_MISSING`), the newest cannot be had now, or it fits nowhere.
    pub async fn recover(&self, request: &Request, wanted: &Recovery) -> Result<Planned, Error> {
        let asked = json!({ "recover": request.tenant, "from": wanted.wish, "to": wanted.to });
        if let Some(known) = self.known(request, &asked).await? {
            return Ok(known);
        }
        let row = self.world.store.require_tenant(&request.tenant).await?;
        let lost = match (row.state, row.server.clone()) {
            (TenantState::Active, Some(server)) if self.is_lost(&request.tenant, &server).await? => server,
            (TenantState::Active, Some(server)) => {
                let message = format!("{} lives on {server}, which is a member: nothing is lost", request.tenant);
                return Err(Error::refused(reason::WRONG_STATE, message).with("tenant", &request.tenant));
            }
            _ => {
                let message = format!(
                    "{} does not live anywhere; only who lived on a lost server is brought back",
                    request.tenant
                );
                return Err(Error::refused(reason::WRONG_STATE, message).with("tenant", &request.tenant));
            }
        };
        if let Some(to) = &wanted.to {
            self.member(to).await?;
        }
        let _placing = self.world.placing.lock().await;
        let fates = self.fates(&lost, std::slice::from_ref(&row), wanted.wish, wanted.to.as_ref()).await?;
        let fate = fates.into_iter().next().ok_or_else(|| Error::bug("a tenant without a fate"))?;
        let refuse = |reason, why: &str| Err(Error::refused(reason, why.to_owned()).with("tenant", &request.tenant));
        let (data, target) = match (fate.data, fate.target) {
            (Some(data), Some(target)) => (data, target),
            (None, _) if fate.why == nothing_left(&request.tenant) => return refuse(reason::DATA_MISSING, &fate.why),
            (None, _) => return refuse(reason::SERVER_UNREACHABLE, &fate.why),
            (Some(_), None) => return refuse(reason::NO_ROOM, &fate.why),
        };
        let explanation = vec![format!("{lost} is lost; {target} takes {}", data.told(Some(self.world.clock.now())))];
        let plan = recover::Plan { server: target.clone(), lost, data, running: row.running, limits: row.limits };
        let proposal = Proposal {
            parent: wanted.part_of.clone(),
            kind: Kind::Recover,
            request: asked,
            source: None,
            target: Some(target),
            plan: to_json(&plan)?,
            explanation,
            expected: Some(row),
            tenant_state: None,
            bounds: None,
            limits: None,
            volume_bytes: 0,
        };
        self.begin(request, proposal).await
    }

    /// Does a tenant's row name a server that is no member? Only one that was declared lost leaves that behind.
    pub(super) async fn is_lost(&self, tenant: &TenantName, server: &ServerName) -> Result<bool, Error> {
        if self.world.store.server(server).await?.is_some() {
            return Ok(false);
        }
        // Or it has got another name since the row was read; then the row has it, too.
        let row = self.world.store.tenant(tenant).await?;
        Ok(row.is_some_and(|row| row.server.as_ref() == Some(server)))
    }

    /// What would become of each of these, who are or were on the lost server.
    async fn fates(
        &self,
        lost: &ServerName,
        rows: &[TenantRow],
        wish: Wish,
        to: Option<&ServerName>,
    ) -> Result<Vec<Fate>, Error> {
        let store = &self.world.store;
        let (members, mut observed) = loop {
            let names = self.world.fleet.settled().await;
            let read = (store.servers().await?, self.world.fleet.all());
            if self.world.fleet.holds(names) {
                break read;
            }
        };
        observed.remove(lost);
        observed.retain(|name, _| members.iter().any(|row| row.name == *name));
        let known = |name: &ServerName| observed.get(name).is_some_and(|one| one.snapshot.is_some());
        let unheard: Vec<_> =
            members.iter().map(|row| row.name.clone()).filter(|name| name != lost && !known(name)).collect();
        let holders = |tenant: &TenantName| {
            let holds = |one: &Observed| one.snapshot.as_ref().is_some_and(|one| one.volume(tenant).is_some());
            let holders = observed.iter().filter(|(_, one)| holds(one));
            holders.map(|(server, _)| server.clone()).collect::<Vec<_>>()
        };
        let (mut fates, renamings) = (Vec::new(), store.renamings().await?);
        for row in rows {
            let (operations, backups) =
                (store.operations(Some(&row.name), OPERATIONS_MAX).await?, store.backups(Some(&row.name)).await?);
            // Copies are where they were, whatever that is called by now.
            let operations: Vec<_> = operations.into_iter().map(|one| rename::today(one, &renamings)).collect();
            let copies = recovery::copies(&row.name, &observed, &operations, self.world.clock.now());
            let chosen = recovery::choose(wish, to, &copies, &recovery::own(backups, &operations));
            let chosen = match recovery::unheard(wish, to, &chosen, &unheard) {
                Some(why) => Err(Without::NotNow(why)),
                None => chosen,
            };
            fates.push(match chosen {
                _ if row.state != TenantState::Active => gone(row, lost),
                Ok(data) => Fate {
                    tenant: row.name.clone(),
                    data: Some(data),
                    target: None,
                    why: String::new(),
                    removed: false,
                },
                Err(Without::None) => without(row, nothing_left(&row.name)),
                Err(Without::NotNow(why)) => without(row, why),
            });
        }
        let needs = fates.iter().zip(rows).filter_map(|(fate, row)| {
            let is_member = |name: &ServerName| members.iter().any(|member| member.name == *name);
            let need = self.need_for(fate.data.as_ref()?, row, to, is_member);
            let except = holders(&row.name).into_iter().next().filter(|_| need.only.is_none());
            Some((fate.tenant.clone(), placement::Need { except, ..need }))
        });
        let mut candidates = self.candidates().await?;
        candidates.retain(|one| one.server != *lost);
        for seat in choose_all(&candidates, needs.collect()) {
            if let Some(fate) = fates.iter_mut().find(|fate| fate.tenant == seat.tenant) {
                (fate.target, fate.why) = (seat.decision.chosen.clone(), no_place(&seat));
                spare(fate, &holders(&seat.tenant), seat.need.only.as_ref());
            }
        }
        Ok(fates)
    }

    /// A copy is where it is, whatever its tenant was bound to; a backup goes where its tenant may go.
    fn need_for(
        &self,
        data: &Data,
        row: &TenantRow,
        to: Option<&ServerName>,
        is_member: impl Fn(&ServerName) -> bool,
    ) -> placement::Need {
        let need = fleet::need(&self.world).of(&row.name, &row.limits);
        match data {
            Data::Copy { server, .. } => placement::Need { only: Some(server.clone()), disk_headroom_bytes: 0, ..need },
            Data::Backup { bytes, .. } => placement::Need {
                volume_bytes: *bytes,
                only: to.cloned(),
                bounds: Bounds { pin: row.bounds.pin.clone().filter(|pin| is_member(pin)), ..row.bounds.clone() },
                ..need
            },
        }
    }
}

fn without(row: &TenantRow, why: String) -> Fate {
    Fate { tenant: row.name.clone(), data: None, target: None, why, removed: false }
}

fn gone(row: &TenantRow, lost: &ServerName) -> Fate {
    let why = format!("was removed before; the data that was kept of it is on {lost} and goes with it");
    Fate { removed: true, ..without(row, why) }
}

/// A backup takes the place of nothing that may be somebody's data, unless a person named the server.
fn spare(fate: &mut Fate, holders: &[ServerName], only: Option<&ServerName>) {
    let onto = fate.target.as_ref().is_some_and(|target| holders.contains(target) && only != Some(target));
    if only.is_some() || holders.is_empty() || (fate.target.is_some() && !onto) {
        return;
    }
    let names: Vec<_> = holders.iter().map(ServerName::as_str).collect();
    fate.target = None;
    fate.why = format!(
        "{}{} holds other data of {}, which a backup would take the place of: --to SERVER gives that up",
        if fate.why.is_empty() { String::new() } else { format!("{}; ", fate.why) },
        names.join(", "),
        fate.tenant
    );
}

/// That there is no data of a tenant.
fn nothing_left(tenant: &TenantName) -> String {
    format!(
        "there is no copy of {tenant} on any server and no backup that is known of: {tenant} stays down as lost, and is never started empty. When \
         data turns up, `featherctl tenant recover {tenant}`; to give it up, `featherctl tenant remove {tenant}`"
    )
}

/// Why it fits nowhere, if so.
fn no_place(seat: &Seat) -> String {
    let Decision { chosen, verdicts, .. } = &seat.decision;
    if chosen.is_some() {
        return String::new();
    }
    let against = seat.decision.explanation();
    let telling =
        verdicts.iter().zip(against).filter(|((_, verdict), _)| !matches!(verdict, Verdict::NotWanted | Verdict::Left));
    let why: Vec<_> = telling.map(|(_, line)| line).collect();
    if why.is_empty() { "there is no server that it could go to".to_owned() } else { why.join(", ") }
}

/// The error for a change of somebody who lives on a server that is lost.
pub(super) fn lives_on_lost(tenant: &TenantName, server: &ServerName) -> Error {
    Error::refused(
        reason::WRONG_STATE,
        format!(
            "{tenant} lived on {server}, which is lost; bring it back with what is left of its data: `featherctl tenant recover {tenant}`, or give \
             the data up with `featherctl tenant remove {tenant}`"
        ),
    )
    .with("tenant", tenant)
    .with("server", server)
}

/// The error for an add of somebody whose kept data is lost.
pub(super) fn kept_on_lost(tenant: &TenantName, server: &ServerName) -> Error {
    Error::refused(
        reason::DATA_MISSING,
        format!(
            "the data of {tenant} was kept on {server}, which is lost, and a tenant never starts empty in place of its data; to give the data up,              and begin anew, `featherctl tenant remove {tenant}` first"
        ),
    )
    .with("tenant", tenant)
    .with("server", server)
}

/// The error for an invitation by a name that is still somebody's lost home.
pub(crate) fn still_named(server: &ServerName, tenants: &[TenantName]) -> Error {
    let names: Vec<_> = tenants.iter().map(TenantName::as_str).collect();
    Error::refused(
        reason::WRONG_STATE,
        format!(
            "{server} was declared lost, and {} lived there and must not be taken for tenants of another machine of that name: bring them back \
             (`featherctl tenant recover NAME`) or give them up (`featherctl tenant remove NAME`) first, or use another name",
            names.join(", ")
        ),
    )
    .with("server", server)
}
