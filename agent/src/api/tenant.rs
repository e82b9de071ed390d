//! `feather.agent.v1.TenantService`.

use std::future::Future;

use feather_proto::{
    error::{Error, reason},
    forward::ForwardTarget,
    ids::TenantName,
    limits::Limits,
    model::{self, StartMode, TenantReport, VolumeExpectation},
    pb::{agent::v1 as pb, agent::v1::tenant_service_server::TenantService, types::v1 as types},
};
use futures::StreamExt as _;
use tonic::{Request, Response, Status};
use tracing::{Instrument as _, info_span};

use super::{Answers, Api, authorize, placement};
use crate::{
    agent::Started,
    ledger::Desired,
    transition::{AddRequest, ReserveRequest},
};

const LOG_LINES_DEFAULT: u32 = 100;
const LOG_LINES_MAX: u32 = 10_000;

impl Api {
    /// Runs a mutating call to its end, also when its caller leaves.
    async fn call<T: Send + 'static>(
        &self,
        name: &'static str,
        (tenant, generation): (String, u64),
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Status> {
        let span = info_span!("call", name, tenant, generation);
        let done = async {
            let done = self.agent.detached(work).await;
            match &done {
                Ok(_) => tracing::info!("call applied"),
                Err(error) => {
                    let cause = error.metadata.get("cause");
                    tracing::warn!(code = ?error.code, reason = error.reason, cause, "call failed");
                }
            }
            done
        };
        Ok(done.instrument(span).await?)
    }
}

fn never_heard_of(tenant: &TenantName) -> Error {
    Error::not_found(reason::TENANT_NOT_FOUND, format!("this server has never heard of {tenant}"))
        .with("tenant", tenant)
}

fn reported(report: TenantReport) -> Option<pb::Tenant> {
    Some(report.into())
}

/// Whole milliseconds; a start that took less than one still took some time.
fn milliseconds(started: &Started) -> u64 {
    match u64::try_from(started.healthy_after.as_millis()) {
        Ok(0) if started.healthy_after.is_zero() => 0,
        Ok(count) => count.max(1),
        Err(_) => u64::MAX,
    }
}

#[tonic::async_trait]
impl TenantService for Api {
    async fn add_tenant(
        &self,
        request: Request<pb::AddTenantRequest>,
    ) -> Result<Response<pb::AddTenantResponse>, Status> {
        authorize(&request)?;
        let request = request.into_inner();
        let (tenant, generation) = placement(&request.request_id, &request.tenant, request.generation)?;
        let volume = VolumeExpectation::try_from(request.volume)?;
        let image = if request.image.is_empty() { self.agent.config.work_image.clone() } else { request.image };
        let limits = Limits::decode(request.limits)?;
        let add = AddRequest { tenant, generation, image, volume, limits };
        let agent = self.agent.clone();
        let about = (request.tenant, request.generation);
        let added = self.call("add_tenant", about, async move { Box::pin(agent.add(&add)).await }).await?;
        Ok(Response::new(pb::AddTenantResponse {
            tenant: reported(added.report),
            password: added.password.expose().to_owned(),
            found_data: added.found_data,
        }))
    }

    async fn remove_tenant(
        &self,
        request: Request<pb::RemoveTenantRequest>,
    ) -> Result<Response<pb::RemoveTenantResponse>, Status> {
        authorize(&request)?;
        let request = request.into_inner();
        let (tenant, generation) = placement(&request.request_id, &request.tenant, request.generation)?;
        let agent = self.agent.clone();
        let about = (request.tenant, request.generation);
        let discard_new = request.discard_new_volume;
        let work = async move { Box::pin(agent.remove(&tenant, generation, discard_new)).await };
        let report = self.call("remove_tenant", about, work).await?;
        Ok(Response::new(pb::RemoveTenantResponse { tenant: reported(report) }))
    }

    async fn get_tenant(
        &self,
        request: Request<pb::GetTenantRequest>,
    ) -> Result<Response<pb::GetTenantResponse>, Status> {
        authorize(&request)?;
        let tenant = request.into_inner().tenant.parse()?;
        let report = self.agent.tenant_report(&tenant).await?.ok_or_else(|| never_heard_of(&tenant))?;
        Ok(Response::new(pb::GetTenantResponse { tenant: reported(report) }))
    }

    async fn list_tenants(
        &self,
        request: Request<pb::ListTenantsRequest>,
    ) -> Result<Response<pb::ListTenantsResponse>, Status> {
        authorize(&request)?;
        let reports = self.agent.tenant_reports().await;
        Ok(Response::new(pb::ListTenantsResponse { tenants: reports.into_iter().map(Into::into).collect() }))
    }

    async fn start_tenant(
        &self,
        request: Request<pb::StartTenantRequest>,
    ) -> Result<Response<pb::StartTenantResponse>, Status> {
        authorize(&request)?;
        let request = request.into_inner();
        let (tenant, generation) = placement(&request.request_id, &request.tenant, request.generation)?;
        let mode = StartMode::try_from(request.mode)?;
        let agent = self.agent.clone();
        let work = async move {
            match mode {
                StartMode::Serve => Box::pin(agent.start(&tenant, generation)).await,
                StartMode::Trial => Box::pin(agent.trial(&tenant, generation)).await,
            }
        };
        let started = self.call("start_tenant", (request.tenant, request.generation), work).await?;
        let healthy_after_ms = milliseconds(&started);
        Ok(Response::new(pb::StartTenantResponse { tenant: reported(started.report), healthy_after_ms }))
    }

    async fn stop_tenant(
        &self,
        request: Request<pb::StopTenantRequest>,
    ) -> Result<Response<pb::StopTenantResponse>, Status> {
        authorize(&request)?;
        let request = request.into_inner();
        let (tenant, generation) = placement(&request.request_id, &request.tenant, request.generation)?;
        let why = request.reason.try_into()?;
        let agent = self.agent.clone();
        let about = (request.tenant, request.generation);
        let report = self
            .call("stop_tenant", about, async move { Box::pin(agent.stop(&tenant, generation, why)).await })
            .await?;
        Ok(Response::new(pb::StopTenantResponse { tenant: reported(report) }))
    }

    async fn restart_tenant(
        &self,
        request: Request<pb::RestartTenantRequest>,
    ) -> Result<Response<pb::RestartTenantResponse>, Status> {
        authorize(&request)?;
        let request = request.into_inner();
        let (tenant, generation) = placement(&request.request_id, &request.tenant, request.generation)?;
        let agent = self.agent.clone();
        let about = (request.tenant, request.generation);
        let work = async move { Box::pin(agent.restart(&tenant, generation)).await };
        let started = self.call("restart_tenant", about, work).await?;
        let healthy_after_ms = milliseconds(&started);
        Ok(Response::new(pb::RestartTenantResponse { tenant: reported(started.report), healthy_after_ms }))
    }

    async fn reset_password(
        &self,
        request: Request<pb::ResetPasswordRequest>,
    ) -> Result<Response<pb::ResetPasswordResponse>, Status> {
        authorize(&request)?;
        let request = request.into_inner();
        let (tenant, generation) = placement(&request.request_id, &request.tenant, request.generation)?;
        let id = model::request_id(&request.request_id)?;
        let agent = self.agent.clone();
        let work = async move { Box::pin(agent.reset_password(&tenant, generation, id)).await };
        let password = self.call("reset_password", (request.tenant, request.generation), work).await?;
        Ok(Response::new(pb::ResetPasswordResponse { password: password.expose().to_owned() }))
    }

    async fn limit_tenant(
        &self,
        request: Request<pb::LimitTenantRequest>,
    ) -> Result<Response<pb::LimitTenantResponse>, Status> {
        authorize(&request)?;
        let request = request.into_inner();
        let (tenant, generation) = placement(&request.request_id, &request.tenant, request.generation)?;
        let limits = Limits::decode(Some(model::required(request.limits, "limits")?))?;
        if !limits.is_said() {
            return Err(model::invalid_field("limits.revision", "at least 1").into());
        }
        let (agent, check_only) = (self.agent.clone(), request.check_only);
        let work = async move { Box::pin(agent.limit(&tenant, generation, limits, check_only)).await };
        let report = self.call("limit_tenant", (request.tenant, request.generation), work).await?;
        Ok(Response::new(pb::LimitTenantResponse { tenant: reported(report) }))
    }

    type TailLogsStream = Answers<pb::TailLogsResponse>;

    async fn tail_logs(&self, request: Request<pb::TailLogsRequest>) -> Result<Response<Self::TailLogsStream>, Status> {
        authorize(&request)?;
        let request = request.into_inner();
        let tenant: TenantName = request.tenant.parse()?;
        let lines = match request.lines {
            0 => LOG_LINES_DEFAULT,
            lines if lines <= LOG_LINES_MAX => lines,
            _ => return Err(model::invalid_field("lines", "at most 10000").into()),
        };
        if self.agent.ledger.get(&tenant).map_err(Error::from)?.is_none() {
            return Err(never_heard_of(&tenant).into());
        }
        let logs = self.agent.runtime.logs(&tenant.container(), lines, request.follow).await.map_err(Error::from)?;
        let answers = logs.map(|line| {
            let line = line.map_err(Error::from)?;
            Ok(pb::TailLogsResponse { line: Some(types::LogLine { text: line.text, stderr: line.stderr }) })
        });
        Ok(Response::new(Box::pin(answers.take_until(self.agent.closing.clone().cancelled_owned()))))
    }

    async fn reserve_tenant(
        &self,
        request: Request<pb::ReserveTenantRequest>,
    ) -> Result<Response<pb::ReserveTenantResponse>, Status> {
        authorize(&request)?;
        let request = request.into_inner();
        let (tenant, generation) = placement(&request.request_id, &request.tenant, request.generation)?;
        if request.image_digest.is_empty() {
            return Err(model::invalid_field("image_digest", "the digest of an image").into());
        }
        let volume_bytes = request.volume_bytes;
        let reserve = ReserveRequest { tenant, generation, image_digest: request.image_digest, volume_bytes };
        let agent = self.agent.clone();
        let about = (request.tenant, request.generation);
        let port = self.call("reserve_tenant", about, async move { Box::pin(agent.reserve(&reserve)).await }).await?;
        Ok(Response::new(pb::ReserveTenantResponse { port: port.into() }))
    }

    async fn abandon_tenant(
        &self,
        request: Request<pb::AbandonTenantRequest>,
    ) -> Result<Response<pb::AbandonTenantResponse>, Status> {
        authorize(&request)?;
        let request = request.into_inner();
        let (tenant, generation) = placement(&request.request_id, &request.tenant, request.generation)?;
        let agent = self.agent.clone();
        let (about, keep_data) = ((request.tenant, request.generation), request.keep_data);
        let abandoned = async move { Box::pin(agent.abandon(&tenant, generation, keep_data)).await };
        self.call("abandon_tenant", about, abandoned).await?;
        Ok(Response::new(pb::AbandonTenantResponse {}))
    }

    async fn activate_tenant(
        &self,
        request: Request<pb::ActivateTenantRequest>,
    ) -> Result<Response<pb::ActivateTenantResponse>, Status> {
        authorize(&request)?;
        let request = request.into_inner();
        let (tenant, generation) = placement(&request.request_id, &request.tenant, request.generation)?;
        let agent = self.agent.clone();
        let about = (request.tenant, request.generation);
        let desired = if request.stopped { Desired::Stop } else { Desired::Run };
        let work = async move { Box::pin(agent.activate(&tenant, generation, desired)).await };
        let report = self.call("activate_tenant", about, work).await?;
        Ok(Response::new(pb::ActivateTenantResponse { tenant: reported(report) }))
    }

    async fn hand_off_tenant(
        &self,
        request: Request<pb::HandOffTenantRequest>,
    ) -> Result<Response<pb::HandOffTenantResponse>, Status> {
        authorize(&request)?;
        let request = request.into_inner();
        let (tenant, generation) = placement(&request.request_id, &request.tenant, request.generation)?;
        let forward_to = forward_target(request.forward_to)?;
        let agent = self.agent.clone();
        let work = async move { agent.hand_off(&tenant, generation, forward_to).await };
        let (report, held_ms) = self.call("hand_off_tenant", (request.tenant, request.generation), work).await?;
        Ok(Response::new(pb::HandOffTenantResponse { tenant: reported(report), held_ms: held_ms.unwrap_or(0) }))
    }

    async fn retire_tenant(
        &self,
        request: Request<pb::RetireTenantRequest>,
    ) -> Result<Response<pb::RetireTenantResponse>, Status> {
        authorize(&request)?;
        let request = request.into_inner();
        let (tenant, generation) = placement(&request.request_id, &request.tenant, request.generation)?;
        let keep_until = model::from_timestamp(&model::required(request.keep_until, "keep_until")?)?;
        let agent = self.agent.clone();
        let work = async move { Box::pin(agent.retire(&tenant, generation, keep_until)).await };
        let report = self.call("retire_tenant", (request.tenant, request.generation), work).await?;
        Ok(Response::new(pb::RetireTenantResponse { tenant: reported(report) }))
    }

    async fn reclaim_tenant(
        &self,
        request: Request<pb::ReclaimTenantRequest>,
    ) -> Result<Response<pb::ReclaimTenantResponse>, Status> {
        authorize(&request)?;
        let request = request.into_inner();
        let (tenant, generation) = placement(&request.request_id, &request.tenant, request.generation)?;
        let (agent, needs_data) = (self.agent.clone(), request.needs_data);
        let work = async move { Box::pin(agent.reclaim(&tenant, generation, needs_data)).await };
        let report = self.call("reclaim_tenant", (request.tenant, request.generation), work).await?;
        Ok(Response::new(pb::ReclaimTenantResponse { tenant: reported(report) }))
    }
}

/// A target for forwarded requests, or nothing.
fn forward_target(text: String) -> Result<Option<String>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse::<ForwardTarget>().map(|target| Some(target.to_string()))
}
