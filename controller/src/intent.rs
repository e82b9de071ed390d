//! Turns requests into planned operations.
//!
//! Reads the store and what was observed, decides with pure functions (placement), and begins an operation bound to the
//! version of the tenant that the plan was made on. A dry run stops before the beginning.

use std::sync::Arc;

use feather_proto::{
    error::{Code, Error, reason},
    ids::{Generation, OperationId, ServerName, TenantName},
    limits::{Change, Limits},
    model::{Residence, TenantReport, VolumeState},
    trace,
};
use serde_json::json;

use crate::{
    fleet::{self, Observed, Reachability},
    operations::{Kind, Subject, add, engine::Engine, migrate::Prediction, power, remove},
    placement::{self, Bounds, Candidate, Decision, Verdict},
    store::{Begin, NewOperation, TenantRow, TenantState, tenant_not_found},
    world::World,
};

mod bounds;
mod leftovers;
mod limits;
mod losing;
mod moving;
mod resettling;
mod swap;

pub use limits::Limited;
pub(crate) use losing::still_named;
pub use losing::{Fate, Losing, Loss, Recovery};
pub use moving::{Destination, Flow, Move, Part};
pub use resettling::{Foreseen, Resettling};

/// A request for a change.
#[derive(Debug, Clone)]
pub struct Request {
    /// Chosen by the caller.
    pub request_id: uuid::Uuid,
    /// Whose.
    pub tenant: TenantName,
    /// Who asks.
    pub requested_by: String,
    /// Only plan.
    pub dry_run: bool,
}

/// Where a tenant is to be added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Home {
    /// There; `None` for placement's choice.
    pub server: Option<ServerName>,
    /// What its server must be, now and whenever placement chooses again.
    pub bounds: Bounds,
    /// What it may use, as a change of what it was to have when it was here before.
    pub limits: Change,
}

impl Home {
    /// On this server, or wherever placement says.
    pub fn on(server: Option<ServerName>) -> Self {
        Self { server, ..Self::default() }
    }
}

/// A request without what it is about.
pub struct Asker {
    /// Chosen by the caller.
    pub request_id: uuid::Uuid,
    /// Who asks.
    pub requested_by: String,
    /// Only plan.
    pub dry_run: bool,
}

impl Request {
    fn asker(&self) -> Asker {
        Asker { request_id: self.request_id, requested_by: self.requested_by.clone(), dry_run: self.dry_run }
    }
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The operation, unless it was a dry run.
    pub operation: Option<OperationId>,
    /// Why so, one line per server or fact.
    pub explanation: Vec<String>,
    /// From where.
    pub source: Option<ServerName>,
    /// To where.
    pub target: Option<ServerName>,
    /// Bytes of the volume on disk.
    pub volume_bytes: u64,
    /// What a move will take, or why nobody can say; `None` for everything else.
    pub prediction: Option<Result<Prediction, String>>,
    /// What its target has left then.
    pub left: Option<Candidate>,
}

/// Plans and begins operations.
#[derive(Clone)]
pub struct Intent {
    pub(crate) world: Arc<World>,
    engine: Arc<Engine>,
    /// Only tenants that live there may be changed.
    within: Option<ServerName>,
}

pub(crate) struct Proposal {
    parent: Option<OperationId>,
    kind: Kind,
    request: serde_json::Value,
    source: Option<ServerName>,
    target: Option<ServerName>,
    plan: serde_json::Value,
    explanation: Vec<String>,
    expected: Option<TenantRow>,
    tenant_state: Option<TenantState>,
    bounds: Option<Bounds>,
    limits: Option<Limits>,
    volume_bytes: u64,
}

impl Intent {
    /// Over this world.
    pub fn new(world: Arc<World>, engine: Arc<Engine>) -> Self {
        Self { world, engine, within: None }
    }

    /// The same for whoever may only change tenants of one server.
    #[must_use]
    pub fn within(&self, server: ServerName) -> Self {
        Self { within: Some(server), ..self.clone() }
    }

    /// Adds a tenant, to a server of the caller's or of placement's choice.
    pub async fn add(&self, request: &Request, wanted: Home) -> Result<Planned, Error> {
        let Home { server, bounds, limits: change } = wanted;
        let mut asked = json!({ "add": request.tenant, "server": server });
        if !bounds.is_empty() {
            asked["bounds"] = to_json(&bounds)?;
        }
        if !change.is_empty() {
            asked["limits"] = to_json(&Limits::default().changed(&change, 0))?;
        }
        if let Some(known) = self.known(request, &asked).await? {
            return Ok(known);
        }
        let row = self.world.store.tenant(&request.tenant).await?;
        if let Some(row) = row.as_ref().filter(|row| row.state == TenantState::Active) {
            return Err(add::exists(&request.tenant, row.server.as_ref()));
        }
        for server in server.iter().chain(&bounds.pin) {
            self.member(server).await?;
        }
        let before = row.as_ref().map(|row| row.limits).unwrap_or_default();
        let limits = before.changed(&change, self.seen_limits(&request.tenant)).check()?;
        if let Some(server) = row.as_ref().and_then(|row| row.server.as_ref())
            && self.is_lost(&request.tenant, server).await?
        {
            return Err(losing::kept_on_lost(&request.tenant, server));
        }
        let home = self.kept_data(&request.tenant, row.as_ref())?;
        let _placing = self.world.placing.lock().await;
        let (decision, mut explanation) = match &home {
            Some(home) => self.place_at_home(request, home, server.as_ref(), (&bounds, &limits)).await?,
            None => {
                let need = fleet::need(&self.world).of(&request.tenant, &limits);
                let need = placement::Need { only: server, bounds: bounds.clone(), ..need };
                let decision = placement::choose(self.candidates().await?, &need);
                let explanation = decision.explanation();
                (decision, explanation)
            }
        };
        let chosen = decision.chosen.clone().ok_or_else(|| no_room(&request.tenant, &decision))?;
        if let Some(home) = &home {
            explanation.insert(0, format!("{home} holds the data of {}", request.tenant));
            // Data is where it is; that somebody of the same group is there, too, is said.
            let kept = row.as_ref().map(|row| &row.bounds).filter(|_| bounds.is_empty());
            let there = self.candidates().await?.into_iter().find(|one| one.server == *home);
            let unmet = kept
                .zip(there)
                .map(|(kept, there)| kept.unmet(Some(&request.tenant), home, &there.labels, &there.groups));
            explanation.extend(unmet.into_iter().flatten());
        }
        // Only the store's word is certain enough to refuse an empty start; an observation may be out of date.
        let data_expected = row.as_ref().is_some_and(|row| row.server.is_some());
        let plan = add::Plan { server: chosen.clone(), data_expected, limits };
        // Who comes back to its data without a word keeps what it was added with before.
        let bounds = (home.is_none() || !bounds.is_empty()).then_some(bounds);
        self.begin(
            request,
            Proposal {
                parent: None,
                kind: Kind::Add,
                request: asked,
                source: None,
                target: Some(chosen),
                plan: to_json(&plan)?,
                explanation,
                expected: row,
                tenant_state: Some(TenantState::Adding),
                bounds,
                limits: (limits != before).then_some(limits),
                volume_bytes: 0,
            },
        )
        .await
    }

    /// Removes a tenant, keeping its volume.
    pub async fn remove(&self, request: &Request) -> Result<Planned, Error> {
        let asked = json!({ "remove": request.tenant });
        if let Some(known) = self.known(request, &asked).await? {
            return Ok(known);
        }
        if let Some(row) = self.given_up(&request.tenant).await? {
            return self.give_up(request, asked, row).await;
        }
        let (row, server) = self.living(&request.tenant).await?;
        self.reachable(&server)?;
        let explanation = vec![format!("container and route go, the volume stays on {server}")];
        let plan = to_json(&remove::Plan { server: server.clone(), lost: false })?;
        self.begin(request, Proposal::of(Kind::Remove, asked, server, plan, explanation, row)).await
    }

    /// The row of a tenant whose home, or whose kept data's home, is lost.
    async fn given_up(&self, tenant: &TenantName) -> Result<Option<TenantRow>, Error> {
        let row = self.world.store.require_tenant(tenant).await?;
        match &row.server {
            Some(server) if row.state != TenantState::Adding && self.is_lost(&row.name, server).await? => Ok(Some(row)),
            _ => Ok(None),
        }
    }

    /// Forgets where the data of a tenant was that is lost, so that its name is free.
    async fn give_up(&self, request: &Request, asked: serde_json::Value, row: TenantRow) -> Result<Planned, Error> {
        let Some(server) = row.server.clone() else { return Err(tenant_not_found(&request.tenant)) };
        let explanation =
            vec![format!("{server} is lost; the data of {} there is given up, and its name is free", request.tenant)];
        let plan = to_json(&remove::Plan { server: server.clone(), lost: true })?;
        let proposal = Proposal::of(Kind::Remove, asked, server, plan, explanation, row);
        // Operations are about members.
        self.begin(request, Proposal { source: None, ..proposal }).await
    }

    /// Starts a stopped tenant.
    pub async fn start(&self, request: &Request) -> Result<Planned, Error> {
        self.power(request, Kind::Start).await
    }

    /// Makes a tenant's container anew.
    pub async fn restart(&self, request: &Request) -> Result<Planned, Error> {
        self.power(request, Kind::Restart).await
    }

    /// Stops a tenant.
    pub async fn stop(&self, request: &Request) -> Result<Planned, Error> {
        self.power(request, Kind::Stop).await
    }

    async fn power(&self, request: &Request, kind: Kind) -> Result<Planned, Error> {
        let asked = json!({ kind.name(): request.tenant });
        if let Some(known) = self.known(request, &asked).await? {
            return Ok(known);
        }
        let (row, server) = self.living(&request.tenant).await?;
        self.reachable(&server)?;
        if kind != Kind::Stop {
            self.may_run(&request.tenant, &server).await?;
        }
        let plan = to_json(&power::Plan { server: server.clone(), running: row.running })?;
        let explanation = vec![format!("{} on {server}", kind.name())];
        self.begin(request, Proposal::of(kind, asked, server, plan, explanation, row)).await
    }

    async fn begin(&self, request: &Request, proposal: Proposal) -> Result<Planned, Error> {
        self.begin_on(Subject::Tenant(request.tenant.clone()), &request.asker(), proposal).await
    }

    pub(crate) async fn begin_on(
        &self,
        subject: Subject,
        request: &Asker,
        proposal: Proposal,
    ) -> Result<Planned, Error> {
        let mut planned = Planned {
            operation: None,
            explanation: proposal.explanation,
            source: proposal.source.clone(),
            target: proposal.target.clone(),
            volume_bytes: proposal.volume_bytes,
            prediction: None,
            left: None,
        };
        if let (Some(tenant), Some(target)) = (subject.tenant(), &planned.target) {
            self.nothing_came(tenant, target).await?;
        }
        if request.dry_run {
            return Ok(planned);
        }
        let floor = subject.tenant().map_or_else(Generation::default, |tenant| self.seen(tenant));
        let new = NewOperation {
            id: OperationId::from_uuid(uuid::Uuid::now_v7()),
            parent: proposal.parent,
            request_id: request.request_id,
            request: proposal.request,
            kind: proposal.kind,
            subject,
            source: proposal.source,
            target: proposal.target,
            plan: proposal.plan,
            requested_by: request.requested_by.clone(),
            expected_version: proposal.expected.map(|row| row.version),
            tenant_state: proposal.tenant_state,
            bounds: proposal.bounds,
            limits: proposal.limits,
            explanation: planned.explanation.join("; "),
            floor,
            trace: trace::current(),
            now: self.world.clock.now(),
        };
        planned.operation = Some(self.write_and_drive(new).await?);
        Ok(planned)
    }

    /// In a task of its own: a caller that goes away between the two would leave an operation that nobody drives.
    async fn write_and_drive(&self, new: NewOperation) -> Result<OperationId, Error> {
        let (world, engine) = (self.world.clone(), self.engine.clone());
        let begun = tokio::spawn(async move {
            Ok::<_, Error>(match world.store.begin_operation(&new).await? {
                Begin::New(begun) => {
                    tracing::info!(operation = %begun.id, subject = %new.subject, kind = new.kind.name(), by = %new.requested_by, "operation begins");
                    engine.drive(begun.id.clone(), new.kind);
                    world.volatile.ring(&begun.id);
                    begun.id
                }
                Begin::Known(id) => id,
            })
        });
        begun.await.map_err(|panic| Error::bug(format!("the task of a call ended: {panic}")))?
    }

    /// Highest generation that any server reports of a tenant: one that decided by itself once may be ahead of the store.
    fn seen(&self, tenant: &TenantName) -> Generation {
        let all = self.world.fleet.all();
        let seen = all.values().filter_map(|observed| Some(observed.snapshot.as_ref()?.tenant(tenant)?.generation));
        seen.max().unwrap_or_default()
    }

    /// Highest revision of a tenant's limits that any server reports.
    fn seen_limits(&self, tenant: &TenantName) -> u64 {
        self.world.fleet.with(|all| {
            let reports = all.values().filter_map(|observed| observed.snapshot.as_ref()?.tenant(tenant));
            reports.map(|report| report.limits.revision).max().unwrap_or_default()
        })
    }

    /// The operation that this request began before, if it did. A new request is refused while another operation holds the tenant.
    async fn known(&self, request: &Request, asked: &serde_json::Value) -> Result<Option<Planned>, Error> {
        self.known_on(&Subject::Tenant(request.tenant.clone()), &request.asker(), asked).await
    }

    pub(crate) async fn known_on(
        &self,
        subject: &Subject,
        request: &Asker,
        asked: &serde_json::Value,
    ) -> Result<Option<Planned>, Error> {
        let Some(id) = self.world.store.known_request(request.request_id, asked).await? else {
            self.world.free(subject).await?;
            return Ok(None);
        };
        let row = self.world.store.operation(&id).await?;
        Ok(Some(Planned {
            operation: Some(id),
            explanation: vec!["this request was made before".into()],
            source: row.source,
            target: row.target,
            volume_bytes: 0,
            prediction: None,
            left: None,
        }))
    }

    async fn candidates(&self) -> Result<Vec<placement::Candidate>, Error> {
        let store = &self.world.store;
        loop {
            let names = self.world.fleet.settled().await;
            let (members, running) = (store.all_servers().await?, store.unfinished_operations().await?);
            let (tenants, observed) = (store.all_tenants().await?, self.world.fleet.all());
            if self.world.fleet.holds(names) {
                return Ok(fleet::candidates(&members, &observed, &tenants, &running));
            }
        }
    }

    pub(crate) async fn member(&self, server: &ServerName) -> Result<(), Error> {
        self.world.store.member(server).await?;
        Ok(())
    }

    /// A tenant that lives somewhere.
    async fn living(&self, tenant: &TenantName) -> Result<(TenantRow, ServerName), Error> {
        let row = self.world.store.require_tenant(tenant).await?;
        match (row.state, row.server.clone()) {
            (TenantState::Active, Some(server)) if self.is_lost(tenant, &server).await? => {
                Err(losing::lives_on_lost(tenant, &server))
            }
            (TenantState::Active, Some(server)) => match &self.within {
                Some(within) if *within != server => Err(lives_elsewhere(tenant, &server)),
                _ => Ok((row, server)),
            },
            (TenantState::Removed, Some(server)) => Err(Error::refused(
                reason::WRONG_STATE,
                format!(
                    "{tenant} was removed (its data is kept on {server}); bring it back with `featherctl tenant add {tenant}`"
                ),
            )),
            (TenantState::Adding, _) => Err(Error::refused(
                reason::OPERATION_RUNNING,
                format!("{tenant} is still being added; follow it with `featherctl operation list`"),
            )),
            _ => Err(tenant_not_found(tenant)),
        }
    }

    pub(crate) fn reachable(&self, server: &ServerName) -> Result<Observed, Error> {
        let observed = self.world.fleet.observed(server);
        match &observed.reachability {
            Reachability::Alive => Ok(observed),
            Reachability::Connecting => Err(unreachable_now(server, "not connected yet")),
            Reachability::Silent(why) => Err(unreachable_now(server, why)),
        }
    }

    /// The tenant as its server reports it now, if it can be moved away.
    async fn movable(&self, tenant: &TenantName, source: &ServerName) -> Result<TenantReport, Error> {
        let snapshot = self.world.look(source).await.map_err(nothing_began)?;
        match snapshot.tenant(tenant).cloned() {
            Some(report) if matches!(report.residence, Residence::Running | Residence::Stopped) => Ok(report),
            _ => Err(Error::refused(
                reason::WRONG_STATE,
                format!("{source} does not say that {tenant} lives there; look with `featherctl tenant show {tenant}`"),
            )),
        }
    }

    /// The server that keeps the tenant's data: the store's word, otherwise what a server reports.
    fn kept_data(&self, tenant: &TenantName, row: Option<&TenantRow>) -> Result<Option<ServerName>, Error> {
        if let Some(server) = row.and_then(|row| row.server.clone()) {
            self.reachable(&server).map_err(|error| {
                error.context(format!(
                    "the data of {tenant} is kept on {server}, and a tenant never starts empty in place of its data"
                ))
            })?;
            return Ok(Some(server));
        }
        let all = self.world.fleet.all();
        let mut holders = all.iter().filter(|(_, observed)| {
            let alive = observed.alive();
            // What came in a move that never ended is nobody's data.
            let comes = alive.and_then(|one| one.tenant(tenant)).is_some_and(|report| report.incoming.is_some());
            let volume = alive.and_then(|snapshot| snapshot.volume(tenant)).filter(|_| !comes);
            volume.is_some_and(|volume| volume.state == VolumeState::Complete && volume.keep_until.is_none())
        });
        let first = holders.next().map(|(name, _)| name.clone());
        if let (Some(first), Some((second, _))) = (&first, holders.next()) {
            return Err(Error::refused(
                reason::WRONG_STATE,
                format!(
                    "both {first} and {second} hold a volume of {tenant}, and nothing says which is the newer; remove one of them"
                ),
            ));
        }
        Ok(first)
    }

    /// A tenant with kept data goes where the data is, or nowhere.
    async fn place_at_home(
        &self,
        request: &Request,
        home: &ServerName,
        wanted: Option<&ServerName>,
        (bounds, limits): (&Bounds, &Limits),
    ) -> Result<(Decision, Vec<String>), Error> {
        if let Some(wanted) = wanted.filter(|wanted| *wanted != home) {
            return Err(Error::refused(
                reason::WRONG_STATE,
                format!(
                    "the data of {0} is kept on {home}, not on {wanted}; add it there and move it: `featherctl tenant add {0}`, then \
                     `featherctl tenant migrate {0} --to {wanted}`",
                    request.tenant
                ),
            ));
        }
        let need = placement::Need {
            only: Some(home.clone()),
            disk_headroom_bytes: 0,
            bounds: bounds.clone(),
            ..fleet::need(&self.world).of(&request.tenant, limits)
        };
        let decision = placement::choose(self.candidates().await?, &need);
        let explanation = decision.explanation();
        Ok((decision, explanation))
    }
}

impl Proposal {
    /// About something on one server.
    pub(crate) fn on(
        kind: Kind,
        request: serde_json::Value,
        server: ServerName,
        plan: serde_json::Value,
        explanation: Vec<String>,
    ) -> Self {
        Self {
            parent: None,
            kind,
            request,
            source: Some(server),
            target: None,
            plan,
            explanation,
            expected: None,
            tenant_state: None,
            bounds: None,
            limits: None,
            volume_bytes: 0,
        }
    }

    fn of(
        kind: Kind,
        request: serde_json::Value,
        source: ServerName,
        plan: serde_json::Value,
        explanation: Vec<String>,
        row: TenantRow,
    ) -> Self {
        Self { expected: Some(row), ..Self::on(kind, request, source, plan, explanation) }
    }
}

pub(crate) fn to_json(plan: &impl serde::Serialize) -> Result<serde_json::Value, Error> {
    serde_json::to_value(plan).map_err(|error| Error::bug(error.to_string()))
}

fn lives_elsewhere(tenant: &TenantName, server: &ServerName) -> Error {
    Error::refused(
        reason::WRONG_STATE,
        format!("{tenant} lives on {server}; type the command there, or use `featherctl tenant`"),
    )
    .with("tenant", tenant)
    .with("server", server)
}

fn unreachable_now(server: &ServerName, why: &str) -> Error {
    Error::refused(
        reason::SERVER_UNREACHABLE,
        format!("{server} cannot be reached ({why}); `featherctl server show {server}` shows when it was last seen"),
    )
    .with("server", server)
}

/// While a plan is made, an agent that does not answer leaves nothing unknown: the change is refused before it began.
pub(crate) fn nothing_began(error: Error) -> Error {
    if error.code.retryable() { Error { code: Code::Refused, ..error } } else { error }
}

/// The error for a tenant that fits nowhere: names the filter that emptied the list, server by server.
fn no_room(tenant: &TenantName, decision: &Decision) -> Error {
    if decision.verdicts.is_empty() {
        return Error::refused(
            reason::NO_ROOM,
            "the fleet has no server yet; invite one with `featherctl server invite NAME`",
        );
    }
    let wanted: Vec<_> = decision
        .verdicts
        .iter()
        .filter(|(_, verdict)| !matches!(verdict, Verdict::NotWanted | Verdict::Left))
        .collect();
    let message = if wanted.is_empty() {
        format!("there is no other server that {tenant} could go to; invite one with `featherctl server invite NAME`")
    } else {
        format!("no server can take {tenant}: {}", decision.explanation().join("; "))
    };
    let by_word = |verdict: &Verdict| matches!(verdict, Verdict::OutOfBounds | Verdict::Cordoned);
    let only_by_word = !wanted.is_empty() && wanted.iter().all(|(_, verdict)| by_word(verdict));
    let only_images = !wanted.is_empty() && wanted.iter().all(|(_, verdict)| *verdict == Verdict::NoImage);
    let only_unready = !wanted.is_empty() && wanted.iter().all(|(_, verdict)| *verdict == Verdict::NotReady);
    match () {
        () if only_images => {
            Error::refused(reason::IMAGE_MISSING, format!("{message}; `featherctl image sync` copies it there"))
        }
        () if only_unready => Error::refused(reason::SERVER_UNREACHABLE, message),
        // Room is no matter where nobody may go.
        () if only_by_word => Error::refused(reason::NO_ROOM, message),
        () => Error::full(reason::NO_ROOM, message),
    }
}
