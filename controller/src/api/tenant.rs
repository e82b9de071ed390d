//! `TenantService`.

use std::sync::Arc;

use feather_proto::{
    error::{Error, reason},
    ids::{ServerName, TenantName},
    labels::Labels,
    limits::Change,
    model::{invalid_field, request_id, to_timestamp},
    pb::{
        controller::v1::{self as pb, tenant_service_server::TenantService},
        types::v1::LogLine,
    },
    tls::Principal,
};
use futures::{StreamExt as _, stream::BoxStream};
use tonic::{Request, Response, Status};

use super::{change_id, losing, operation, operator, optional, reader, resettling};
use crate::{
    agents::Call,
    fleet::{self, Standing},
    intent::{self, Destination, Home, Intent, Move, Planned},
    placement::{Bounds, Need, Promise},
    store::{OperationRow, TenantRow, TenantState},
    world::World,
};

/// Adds, lists, moves tenants.
pub struct Tenants {
    world: Arc<World>,
    intent: Intent,
}

const LOG_LINES_DEFAULT: u32 = 100;
const LOG_LINES_MAX: u32 = 10_000;

pub(super) fn asked(id: &str, tenant: &str, dry_run: bool, caller: &Principal) -> Result<intent::Request, Error> {
    Ok(intent::Request {
        request_id: change_id(id, dry_run)?,
        tenant: tenant.parse()?,
        requested_by: caller.to_string(),
        dry_run,
    })
}

impl Tenants {
    /// Over this world.
    pub fn new(world: Arc<World>, intent: Intent) -> Self {
        Self { world, intent }
    }

    async fn operation(&self, planned: &Planned) -> Result<Option<pb::Operation>, Error> {
        match &planned.operation {
            Some(id) => operation::view(&self.world, id).await.map(Some),
            None => Ok(None),
        }
    }

    pub(super) async fn views(&self, rows: Vec<TenantRow>) -> Result<Vec<pb::Tenant>, Error> {
        let (store, fleet) = (&self.world.store, &self.world.fleet);
        loop {
            let names = fleet.settled().await;
            // Who lives on a server that has another name since a row was read would look lost.
            let all = store.all_tenants().await?;
            let now = |row: &TenantRow| all.binary_search_by(|one| one.name.cmp(&row.name)).map(|at| all[at].clone());
            let views = self.seen(rows.iter().map(|row| now(row).unwrap_or_else(|_| row.clone())).collect()).await?;
            if fleet.holds(names) {
                return Ok(views);
            }
        }
    }

    async fn seen(&self, rows: Vec<TenantRow>) -> Result<Vec<pb::Tenant>, Error> {
        let running = self.world.store.unfinished_operations().await?;
        let wanted = crate::dns::wanted(&self.world).await?;
        let members = self.world.store.servers().await?;
        let is_lost = |row: &TenantRow| fleet::is_lost(row, |server| members.iter().any(|one| one.name == *server));
        let backed_up = self.world.store.verified_backups().await?;
        let dns_address = |name: &str| {
            let own = wanted.records.iter().find(|record| record.name == name);
            let record = own.or_else(|| wanted.records.iter().find(|record| record.name == crate::dns::plan::WILDCARD));
            record.map(|record| record.address.to_string()).unwrap_or_default()
        };
        Ok(rows
            .into_iter()
            .map(|row| {
                let address =
                    if row.state == TenantState::Active { dns_address(row.name.as_str()) } else { String::new() };
                let operation = running.iter().find(|one| one.subject.tenant() == Some(&row.name));
                let last_verified_backup = backed_up.get(&row.name).copied().map(to_timestamp);
                let view = pb::Tenant { last_verified_backup, ..self.encode(&row, operation, address) };
                if is_lost(&row) && operation.is_none() { lost(view) } else { view }
            })
            .collect())
    }

    fn encode(&self, row: &TenantRow, operation: Option<&OperationRow>, dns_address: String) -> pb::Tenant {
        // While it is being added, the server is the one it is added to.
        let server = row.server.clone().or_else(|| operation.and_then(|one| one.target.clone()));
        let observed = server.as_ref().map(|server| self.world.fleet.observed(server));
        let report = observed.as_ref().and_then(|one| one.alive()).and_then(|snapshot| snapshot.tenant(&row.name));
        let standing = observed.as_ref().map(|one| fleet::standing(row, operation.is_some(), one));
        let state = match standing {
            Some(Standing::Running) => pb::TenantState::Running,
            Some(Standing::Stopped) => pb::TenantState::Stopped,
            Some(Standing::Starting) => pb::TenantState::Starting,
            Some(Standing::Changing) => pb::TenantState::Changing,
            Some(Standing::Unknown) => pb::TenantState::Unknown,
            Some(Standing::Broken) => pb::TenantState::Broken,
            Some(Standing::CrashLoop) => pb::TenantState::CrashLoop,
            Some(Standing::Removed) | None => pb::TenantState::Removed,
        };
        let problem = match (state, report) {
            (pb::TenantState::Broken, report) => fleet::trouble(report),
            (_, report) => report.and_then(|report| report.problem.clone()),
        };
        pb::Tenant {
            name: row.name.to_string(),
            state: state.into(),
            server: optional(server),
            port: report.and_then(|one| one.port).map_or(0, u32::from),
            url: self.world.url(&row.name),
            generation: row.generation.0,
            created: Some(to_timestamp(row.created)),
            operation: optional(operation.map(|one| &one.id)),
            problem: problem.unwrap_or_default(),
            image_digest: optional(report.and_then(|one| one.image_digest.clone())),
            previous_server: optional(row.previous_server.as_ref()),
            dns_address,
            restarts: report.map_or(0, |one| one.watch.restarts),
            last_restart: report.and_then(|one| one.watch.last_restart).map(to_timestamp),
            on: row.bounds.on.encode(),
            pin: optional(row.bounds.pin.as_ref()),
            spread: optional(row.bounds.spread.as_ref()),
            last_verified_backup: None,
            limits: row.limits.encode(),
            limits_pending: !crate::limits::applied(row, report),
        }
    }

    /// Where a living tenant is, for calls that go straight to its agent.
    async fn home(&self, tenant: &TenantName) -> Result<(TenantRow, ServerName), Error> {
        let row = self.world.store.require_tenant(tenant).await?;
        let server = row.server.clone().filter(|_| row.state == TenantState::Active).ok_or_else(|| {
            Error::refused(
                reason::WRONG_STATE,
                format!("{tenant} does not live anywhere now; add it with `featherctl tenant add {tenant}`"),
            )
        })?;
        Ok((row, server))
    }
}

/// A tenant whose server was declared lost.
fn lost(view: pb::Tenant) -> pb::Tenant {
    let problem = fleet::told_lost(&view.name, &view.server);
    pb::Tenant { state: pb::TenantState::Lost.into(), problem, ..view }
}

fn bounds(on: Vec<feather_proto::pb::types::v1::Label>, pin: &str, spread: &str) -> Result<Bounds, Error> {
    let spread = super::given(spread).map_err(|error: Error| error.context("a group is called like a label"))?;
    Ok(Bounds { on: Labels::decode(on)?, pin: super::given(pin)?, spread })
}

/// What is to be otherwise; 0 takes a limit away.
fn change(pb: Option<pb::LimitsChange>) -> Change {
    let pb = pb.unwrap_or_default();
    Change {
        memory_bytes: pb.memory_bytes.map(|bytes| Some(bytes).filter(|bytes| *bytes > 0)),
        cpu_millis: pb.cpu_millis.map(|millis| Some(millis).filter(|millis| *millis > 0)),
        pids: pb.pids.map(|pids| Some(pids).filter(|pids| *pids > 0)),
    }
}

/// More at once than a fleet has.
const PLANNED_BEFORE_MAX: usize = 1000;

/// Moves that a dry run has planned before this one, with the room that each takes.
fn promises(message: &pb::MigrateTenantRequest, rows: &[TenantRow], least: &Need) -> Result<Vec<Promise>, Error> {
    let planned = &message.planned_before;
    if planned.len() > PLANNED_BEFORE_MAX || (!message.dry_run && !planned.is_empty()) {
        return Err(invalid_field("planned_before", "at most 1000 moves, and only for a dry run"));
    }
    let promise = |one: &pb::PlannedMove| {
        let tenant: TenantName = one.tenant.parse()?;
        let row = rows.iter().find(|row| row.name == tenant);
        let (limits, bounds) = row.map(|row| (row.limits, row.bounds.clone())).unwrap_or_default();
        let need = Need { bounds, volume_bytes: one.volume_bytes, ..least.clone().of(&tenant, &limits) };
        Ok(need.promise(one.target.parse()?))
    };
    planned.iter().map(promise).collect()
}

#[tonic::async_trait]
impl TenantService for Tenants {
    async fn add_tenant(
        &self,
        request: Request<pb::AddTenantRequest>,
    ) -> Result<Response<pb::AddTenantResponse>, Status> {
        let caller = operator(&request)?;
        let message = request.into_inner();
        let asked = asked(&message.request_id, &message.tenant, message.dry_run, &caller)?;
        let (server, bounds) = (super::given(&message.server)?, bounds(message.on, &message.pin, &message.spread)?);
        let home = match (server, &bounds.pin) {
            (Some(server), Some(pin)) if server != *pin => {
                return Err(invalid_field("pin", "the same server as `server`, or empty").into());
            }
            (server, pin) => Home { server: server.or_else(|| pin.clone()), bounds, limits: change(message.limits) },
        };
        let planned = self.intent.add(&asked, home).await?;
        Ok(Response::new(pb::AddTenantResponse {
            operation: self.operation(&planned).await?,
            explanation: planned.explanation,
            url: self.world.url(&asked.tenant),
            server: optional(planned.target),
        }))
    }

    async fn remove_tenant(
        &self,
        request: Request<pb::RemoveTenantRequest>,
    ) -> Result<Response<pb::RemoveTenantResponse>, Status> {
        let caller = operator(&request)?;
        let message = request.into_inner();
        let asked = asked(&message.request_id, &message.tenant, message.dry_run, &caller)?;
        let planned = self.intent.remove(&asked).await?;
        let operation = self.operation(&planned).await?;
        Ok(Response::new(pb::RemoveTenantResponse { operation, explanation: planned.explanation }))
    }

    async fn recover_tenant(
        &self,
        request: Request<pb::RecoverTenantRequest>,
    ) -> Result<Response<pb::RecoverTenantResponse>, Status> {
        let caller = operator(&request)?;
        let message = request.into_inner();
        let asked = asked(&message.request_id, &message.tenant, message.dry_run, &caller)?;
        let planned = self.intent.recover(&asked, &losing::recovery(&message)?).await?;
        Ok(Response::new(pb::RecoverTenantResponse {
            operation: self.operation(&planned).await?,
            explanation: planned.explanation,
            target: optional(planned.target),
        }))
    }

    async fn get_tenant(
        &self,
        request: Request<pb::GetTenantRequest>,
    ) -> Result<Response<pb::GetTenantResponse>, Status> {
        reader(&request)?;
        let row = self.world.store.require_tenant(&request.get_ref().tenant.parse()?).await.map_err(Error::from)?;
        let tenant = self.views(vec![row]).await?.pop();
        Ok(Response::new(pb::GetTenantResponse { tenant }))
    }

    async fn list_tenants(
        &self,
        request: Request<pb::ListTenantsRequest>,
    ) -> Result<Response<pb::ListTenantsResponse>, Status> {
        reader(&request)?;
        let message = request.into_inner();
        let server: Option<ServerName> = super::given(&message.server)?;
        if let Some(server) = &server {
            self.world.store.member(server).await.map_err(Error::from)?;
        }
        let mut rows = self.world.store.tenants().await.map_err(Error::from)?;
        rows.retain(|row| match row.state {
            TenantState::Active | TenantState::Adding => true,
            // One whose first add failed has no data anywhere; its row is kept for its generation only.
            TenantState::Removed => message.include_removed && row.server.is_some(),
        });
        rows.retain(|row| server.is_none() || row.server == server);
        Ok(Response::new(pb::ListTenantsResponse { tenants: self.views(rows).await? }))
    }

    async fn migrate_tenant(
        &self,
        request: Request<pb::MigrateTenantRequest>,
    ) -> Result<Response<pb::MigrateTenantResponse>, Status> {
        let caller = operator(&request)?;
        let message = request.into_inner();
        let asked = asked(&message.request_id, &message.tenant, message.dry_run, &caller)?;
        let to = match (super::given(&message.server)?, message.undo) {
            (Some(_), true) => {
                return Err(Error::invalid(
                    reason::INVALID_FIELD,
                    "a move back goes where the tenant came from; leave out either the server or the undo",
                )
                .into());
            }
            (Some(server), false) => Destination::Server(server),
            (None, true) => Destination::Back,
            (None, false) => Destination::Placement,
        };
        let rows = match message.planned_before.is_empty() {
            true => Vec::new(),
            false => self.world.store.tenants().await.map_err(Error::from)?,
        };
        let planned_before = promises(&message, &rows, &fleet::need(&self.world))?;
        let wanted = Move {
            to,
            keep_source_seconds: message.keep_source_seconds,
            flow: resettling::flow(message.bytes_per_second_max, message.route()),
            on: Labels::decode(message.on.clone())?,
            planned_before,
            part: None,
        };
        let planned = self.intent.migrate(&asked, &wanted).await?;
        let (prediction, not_predicted) = match planned.prediction.clone().filter(|_| asked.dry_run) {
            Some(Ok(prediction)) => (Some(operation::prediction(prediction)), String::new()),
            Some(Err(why)) => (None, why),
            None => (None, String::new()),
        };
        Ok(Response::new(pb::MigrateTenantResponse {
            operation: self.operation(&planned).await?,
            explanation: planned.explanation,
            source: optional(planned.source),
            target: optional(planned.target),
            volume_bytes: planned.volume_bytes,
            prediction,
            not_predicted,
            target_after: planned.left.filter(|_| asked.dry_run).map(|left| pb::RoomLeft {
                slots_free: left.slots_free,
                memory_free_bytes: left.memory_free_bytes,
                disk_free_bytes: left.disk_free_bytes,
            }),
        }))
    }

    async fn place_tenant(
        &self,
        request: Request<pb::PlaceTenantRequest>,
    ) -> Result<Response<pb::PlaceTenantResponse>, Status> {
        let caller = operator(&request)?;
        let message = request.into_inner();
        let (tenant, bounds): (TenantName, _) =
            (message.tenant.parse()?, bounds(message.on, &message.pin, &message.spread)?);
        let (changed, unmet) = self.intent.bind(&tenant, &bounds, message.dry_run).await?;
        if changed && !message.dry_run {
            tracing::info!(%tenant, by = %caller, "tenant bound");
        }
        Ok(Response::new(pb::PlaceTenantResponse { changed, unmet }))
    }

    async fn limit_tenant(
        &self,
        request: Request<pb::LimitTenantRequest>,
    ) -> Result<Response<pb::LimitTenantResponse>, Status> {
        let caller = operator(&request)?;
        let message = request.into_inner();
        let (tenant, change): (TenantName, _) = (message.tenant.parse()?, change(message.change));
        if change.is_empty() {
            return Err(invalid_field("change", "at least one limit").into());
        }
        let done = self.intent.limit(&tenant, &change, message.dry_run).await?;
        if done.changed && !message.dry_run {
            tracing::info!(%tenant, by = %caller, revision = done.limits.revision, "limits of a tenant set");
        }
        Ok(Response::new(pb::LimitTenantResponse {
            changed: done.changed,
            limits: Some(done.limits.into()),
            applied: done.applied,
            problem: done.problem.unwrap_or_default(),
            server: done.server.to_string(),
        }))
    }

    async fn start_tenant(
        &self,
        request: Request<pb::StartTenantRequest>,
    ) -> Result<Response<pb::StartTenantResponse>, Status> {
        let caller = operator(&request)?;
        let message = request.into_inner();
        let planned = self.intent.start(&asked(&message.request_id, &message.tenant, false, &caller)?).await?;
        Ok(Response::new(pb::StartTenantResponse { operation: self.operation(&planned).await? }))
    }

    async fn stop_tenant(
        &self,
        request: Request<pb::StopTenantRequest>,
    ) -> Result<Response<pb::StopTenantResponse>, Status> {
        let caller = operator(&request)?;
        let message = request.into_inner();
        let planned = self.intent.stop(&asked(&message.request_id, &message.tenant, false, &caller)?).await?;
        Ok(Response::new(pb::StopTenantResponse { operation: self.operation(&planned).await? }))
    }

    async fn restart_tenant(
        &self,
        request: Request<pb::RestartTenantRequest>,
    ) -> Result<Response<pb::RestartTenantResponse>, Status> {
        let caller = operator(&request)?;
        let message = request.into_inner();
        let planned = self.intent.restart(&asked(&message.request_id, &message.tenant, false, &caller)?).await?;
        Ok(Response::new(pb::RestartTenantResponse { operation: self.operation(&planned).await? }))
    }

    async fn reset_password(
        &self,
        request: Request<pb::ResetPasswordRequest>,
    ) -> Result<Response<pb::ResetPasswordResponse>, Status> {
        let caller = operator(&request)?;
        let message = request.into_inner();
        let tenant: TenantName = message.tenant.parse()?;
        let (row, server) = self.home(&tenant).await?;
        self.world.not_held(&tenant).await?;
        let call =
            Call { request_id: request_id(&message.request_id)?, tenant: tenant.clone(), generation: row.generation };
        let password = self.world.agent(&server).await?.reset_password(&call).await?;
        tracing::info!(%tenant, by = %caller, "password reset");
        Ok(Response::new(pb::ResetPasswordResponse { password: password.0, url: self.world.url(&tenant) }))
    }

    type TailLogsStream = BoxStream<'static, Result<pb::TailLogsResponse, Status>>;

    async fn tail_logs(&self, request: Request<pb::TailLogsRequest>) -> Result<Response<Self::TailLogsStream>, Status> {
        // A tenant's output is its own business: looking needs more than the right to list.
        operator(&request)?;
        let message = request.into_inner();
        let tenant: TenantName = message.tenant.parse()?;
        if message.lines > LOG_LINES_MAX {
            return Err(feather_proto::model::invalid_field("lines", "at most 10000").into());
        }
        let lines = if message.lines == 0 { LOG_LINES_DEFAULT } else { message.lines };
        let (_, server) = self.home(&tenant).await?;
        let stream = self.world.agent(&server).await?.tail_logs(&tenant, lines, message.follow).await?;
        let stream = stream.map(|line| match line {
            Ok(line) => Ok(pb::TailLogsResponse { line: Some(LogLine { text: line.text, stderr: line.stderr }) }),
            Err(error) => Err(Status::from(error)),
        });
        Ok(Response::new(stream.boxed()))
    }
}
