//! `feather.agent.v1.WorkService`.

use std::time::Duration;

use feather_proto::{
    model::request_id,
    pb::agent::v1::{self as pb, work_service_server::WorkService},
};
use tonic::{Request, Response, Status};

use super::{Api, authorize};

#[tonic::async_trait]
impl WorkService for Api {
    async fn try_swap(&self, request: Request<pb::TrySwapRequest>) -> Result<Response<pb::TrySwapResponse>, Status> {
        authorize(&request)?;
        let request = request.into_inner();
        let (id, agent) = (request_id(&request.request_id)?, self.agent.clone());
        let tried = self.agent.detached(async move { agent.try_swap(id, &request.image).await }).await?;
        Ok(Response::new(pb::TrySwapResponse {
            container: tried.instance.colour.container().into(),
            port: tried.instance.colour.port().into(),
            image_digest: tried.instance.image_digest,
            healthy_after_ms: milliseconds(tried.healthy_after),
        }))
    }

    async fn commit_swap(
        &self,
        request: Request<pb::CommitSwapRequest>,
    ) -> Result<Response<pb::CommitSwapResponse>, Status> {
        authorize(&request)?;
        let (id, agent) = (request_id(&request.get_ref().request_id)?, self.agent.clone());
        self.agent.detached(async move { agent.commit_swap(id).await }).await?;
        let admin = self.agent.admin_report().await.map(Into::into);
        Ok(Response::new(pb::CommitSwapResponse { admin }))
    }

    async fn abandon_swap(
        &self,
        request: Request<pb::AbandonSwapRequest>,
    ) -> Result<Response<pb::AbandonSwapResponse>, Status> {
        authorize(&request)?;
        let (id, agent) = (request_id(&request.get_ref().request_id)?, self.agent.clone());
        self.agent.detached(async move { agent.abandon_swap(id).await }).await?;
        Ok(Response::new(pb::AbandonSwapResponse {}))
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
