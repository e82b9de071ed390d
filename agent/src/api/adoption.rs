//! `feather.agent.v1.AdoptionService`.

use std::collections::BTreeSet;

use feather_proto::{
    adoption::Finding,
    error::Error,
    ids::TenantName,
    model::{self, invalid_field},
    pb::agent::v1::{self as pb, adoption_service_server::AdoptionService},
};
use tonic::{Request, Response, Status};

use super::{Api, authorize};
use crate::{adoption::Wish, agent::Agent};

/// What was found, as it is told.
pub(super) async fn plan(agent: &Agent) -> Result<pb::PlanAdoptionResponse, Error> {
    let (findings, problems) = agent.plan_adoption(Wish::default()).await?;
    Ok(pb::PlanAdoptionResponse { findings: findings.into_iter().map(Into::into).collect(), problems })
}

/// The names of a request to adopt.
pub(super) fn names(request: &pb::AdoptTenantsRequest) -> Result<BTreeSet<TenantName>, Error> {
    model::request_id(&request.request_id)?;
    if request.tenants.is_empty() {
        return Err(invalid_field("tenants", "at least one name"));
    }
    request.tenants.iter().map(|name| name.parse()).collect()
}

/// What became of them, as it is told.
pub(super) fn adopted(findings: Vec<Finding>) -> pb::AdoptTenantsResponse {
    pb::AdoptTenantsResponse { findings: findings.into_iter().map(Into::into).collect() }
}

#[tonic::async_trait]
impl AdoptionService for Api {
    async fn plan_adoption(
        &self,
        request: Request<pb::PlanAdoptionRequest>,
    ) -> Result<Response<pb::PlanAdoptionResponse>, Status> {
        authorize(&request)?;
        Ok(Response::new(plan(&self.agent).await?))
    }

    async fn adopt_tenants(
        &self,
        request: Request<pb::AdoptTenantsRequest>,
    ) -> Result<Response<pb::AdoptTenantsResponse>, Status> {
        authorize(&request)?;
        let names = names(request.get_ref())?;
        let agent = self.agent.clone();
        let findings = self.agent.detached(async move { agent.adopt(&names, Wish::default()).await }).await?;
        Ok(Response::new(adopted(findings)))
    }
}
