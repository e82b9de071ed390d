//! `feather.agent.v1.LocalService`.

use std::{future::Future, sync::Arc};

use feather_proto::{
    error::{Error, reason},
    ids::TenantName,
    pb::{agent::v1 as pb, agent::v1::local_service_server::LocalService},
};
use tonic::{Request, Response, Status, transport::server::UdsConnectInfo};
use tracing::{Instrument as _, info_span};
use uuid::Uuid;

use crate::{
    agent::Agent,
    local::{
        alone,
        member::{self, Wish},
    },
    standing::{self, Right, Standing},
    work::{Colour, Swapped},
};

/// What the service holds.
#[derive(Clone)]
pub(super) struct Api {
    pub(super) agent: Arc<Agent>,
}

/// The caller must be root. (Or the agent's own user: whoever that is can do to the agent what it likes.)
fn authorize<T>(request: &Request<T>) -> Result<(), Error> {
    let peer = request.extensions().get::<UdsConnectInfo>().and_then(|peer| peer.peer_cred);
    admit(peer.map(|peer| peer.uid()), rustix::process::geteuid().as_raw())
}

fn admit(caller: Option<u32>, own: u32) -> Result<(), Error> {
    match caller {
        Some(caller) if caller == 0 || caller == own => Ok(()),
        _ => Err(Error::denied(
            reason::ROLE,
            "only root may ask the agent for anything over its local socket; run the command as root in the birth container",
        )),
    }
}

fn gone_again(tenant: &TenantName) -> Error {
    Error::stale(reason::WORLD_CHANGED, format!("{tenant} was added, and removed or moved away again since"))
}

fn log<T>(done: &Result<T, Error>) {
    match done {
        Ok(_) => tracing::info!("call applied"),
        Err(error) => {
            let cause = error.metadata.get("cause");
            tracing::warn!(code = ?error.code, reason = error.reason, cause, "call failed");
        }
    }
}

impl Api {
    /// Does what was decided here. Until that is done, the server joins no fleet.
    async fn by_itself<T: Send + 'static>(
        &self,
        right: Right,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let bound = async move {
            let _right = right;
            work.await
        };
        self.agent.detached(Box::pin(bound)).await
    }

    fn nobody_decides(&self, standing: &Standing) -> Error {
        match standing {
            Standing::Lost => self.agent.authority.lost(),
            Standing::Fenced => self.agent.fence.refusal(),
            Standing::Joining | Standing::Alone | Standing::Member(_) => standing::joining(),
        }
    }

    /// Makes a change: by itself, or by its controller. Goes on when its caller leaves.
    async fn change<W>(
        &self,
        wish: Wish,
        tenant: &str,
        alone: impl FnOnce(Arc<Agent>, TenantName) -> W,
    ) -> Result<TenantName, Status>
    where
        W: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let tenant: TenantName = tenant.parse()?;
        let span = info_span!("local call", name = wish.name(), %tenant);
        let done = async {
            let done = match self.agent.authority.decide() {
                Ok(right) => self.by_itself(right, alone(self.agent.clone(), tenant.clone())).await,
                Err(Standing::Member(member)) => Box::pin(member::change(&self.agent, &member, wish, &tenant)).await,
                Err(standing) => Err(self.nobody_decides(&standing)),
            };
            log(&done);
            done
        };
        done.instrument(span).await?;
        Ok(tenant)
    }
}

#[tonic::async_trait]
impl LocalService for Api {
    async fn add_local_tenant(
        &self,
        request: Request<pb::AddLocalTenantRequest>,
    ) -> Result<Response<pb::AddLocalTenantResponse>, Status> {
        authorize(&request)?;
        let tenant = self.change(Wish::Add, &request.get_ref().tenant, alone::add).await?;
        // Whoever decided: the password is in the ledger here, and comes over no other wire.
        let spec = self.agent.ledger.get(&tenant).map_err(Error::from)?.and_then(|record| record.spec);
        let spec = spec.ok_or_else(|| gone_again(&tenant))?;
        Ok(Response::new(pb::AddLocalTenantResponse {
            url: self.agent.url(&tenant),
            password: spec.password.expose().to_owned(),
            found_data: spec.found_data,
        }))
    }

    async fn remove_local_tenant(
        &self,
        request: Request<pb::RemoveLocalTenantRequest>,
    ) -> Result<Response<pb::RemoveLocalTenantResponse>, Status> {
        authorize(&request)?;
        self.change(Wish::Remove, &request.get_ref().tenant, alone::remove).await?;
        Ok(Response::new(pb::RemoveLocalTenantResponse {}))
    }

    async fn start_local_tenant(
        &self,
        request: Request<pb::StartLocalTenantRequest>,
    ) -> Result<Response<pb::StartLocalTenantResponse>, Status> {
        authorize(&request)?;
        self.change(Wish::Start, &request.get_ref().tenant, alone::start).await?;
        Ok(Response::new(pb::StartLocalTenantResponse {}))
    }

    async fn stop_local_tenant(
        &self,
        request: Request<pb::StopLocalTenantRequest>,
    ) -> Result<Response<pb::StopLocalTenantResponse>, Status> {
        authorize(&request)?;
        self.change(Wish::Stop, &request.get_ref().tenant, alone::stop).await?;
        Ok(Response::new(pb::StopLocalTenantResponse {}))
    }

    async fn restart_local_tenant(
        &self,
        request: Request<pb::RestartLocalTenantRequest>,
    ) -> Result<Response<pb::RestartLocalTenantResponse>, Status> {
        authorize(&request)?;
        self.change(Wish::Restart, &request.get_ref().tenant, alone::restart).await?;
        Ok(Response::new(pb::RestartLocalTenantResponse {}))
    }

    async fn adopt_local_tenants(
        &self,
        request: Request<pb::AdoptLocalTenantsRequest>,
    ) -> Result<Response<pb::AdoptLocalTenantsResponse>, Status> {
        authorize(&request)?;
        let pb::AdoptLocalTenantsRequest { dry_run, start } = request.into_inner();
        let span = info_span!("local call", name = "adopt", dry_run);
        let done = async {
            let done = match self.agent.authority.decide() {
                Ok(right) => self.by_itself(right, alone::adopt(self.agent.clone(), dry_run, start)).await,
                Err(Standing::Member(member)) => Err(member::adopts_by_its_fleet(&member)),
                Err(standing) => Err(self.nobody_decides(&standing)),
            };
            log(&done);
            done
        };
        let (findings, problems) = done.instrument(span).await?;
        let findings = findings.into_iter().map(Into::into).collect();
        Ok(Response::new(pb::AdoptLocalTenantsResponse { findings, problems }))
    }

    async fn list_local_tenants(
        &self,
        request: Request<pb::ListLocalTenantsRequest>,
    ) -> Result<Response<pb::ListLocalTenantsResponse>, Status> {
        authorize(&request)?;
        let tenants = self.agent.inhabitants().await.into_iter().map(|one| pb::LocalTenant {
            tenant: Some(one.report.into()),
            url: one.url,
            being_added: one.being_added,
        });
        let fenced = self.agent.fence.problem().unwrap_or_default();
        Ok(Response::new(pb::ListLocalTenantsResponse { tenants: tenants.collect(), fenced }))
    }

    async fn swap_local_admin(
        &self,
        request: Request<pb::SwapLocalAdminRequest>,
    ) -> Result<Response<pb::SwapLocalAdminResponse>, Status> {
        authorize(&request)?;
        let (id, agent, image) = (Uuid::new_v4(), self.agent.clone(), request.into_inner().image);
        let span = info_span!("local call", name = "swap", %id);
        let done = self.agent.detached(async move { agent.swap(id, &image).await }).instrument(span.clone()).await;
        span.in_scope(|| log(&done));
        let Swapped { instance, replaced } = done?;
        Ok(Response::new(pb::SwapLocalAdminResponse {
            container: instance.colour.container().into(),
            port: instance.colour.port().into(),
            image_digest: instance.image_digest,
            replaced: replaced.map(Colour::container).unwrap_or_default().into(),
        }))
    }

    async fn get_status(
        &self,
        request: Request<pb::GetStatusRequest>,
    ) -> Result<Response<pb::GetStatusResponse>, Status> {
        authorize(&request)?;
        let status = self.agent.status().await;
        let member = if let Standing::Member(member) = &status.standing { Some(member.clone()) } else { None };
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Ok(Response::new(pb::GetStatusResponse {
            server: member.as_ref().map(|member| member.server.to_string()).unwrap_or_default(),
            controller: member.and_then(|member| member.controller).unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").into(),
            slots_total: count(status.slots_total),
            slots_used: count(status.slots_used),
            work_image: status.work_image,
            work_image_digest: status.work_image_digest.unwrap_or_default(),
            problems: status.problems,
            joining: status.standing == Standing::Joining,
            fenced: status.standing == Standing::Fenced,
            admin: self.agent.admin_report().await.map(Into::into),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::admit;

    #[test]
    fn only_root_and_the_agents_own_user_are_let_in() {
        for (caller, own, admitted) in
            [(Some(0), 0, true), (Some(0), 7, true), (Some(7), 7, true), (Some(7), 0, false), (None, 0, false)]
        {
            assert_eq!(admit(caller, own).is_ok(), admitted, "{caller:?} {own}");
        }
    }
}
