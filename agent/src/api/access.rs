//! `feather.agent.v1.AccessService`.

use feather_proto::{
    error::Error,
    pb::agent::v1::{self as pb, access_service_server::AccessService},
    tls::Revocation,
};
use tonic::{Request, Response, Status};

use super::{Api, authorize};
use crate::revoked;

#[tonic::async_trait]
impl AccessService for Api {
    async fn set_revocations(
        &self,
        request: Request<pb::SetRevocationsRequest>,
    ) -> Result<Response<pb::SetRevocationsResponse>, Status> {
        authorize(&request)?;
        let lines: Result<Vec<Revocation>, Error> =
            request.into_inner().revocations.into_iter().map(TryInto::try_into).collect();
        let (lines, agent, list) = (lines?, self.agent.clone(), self.peers.identity.revoked().clone());
        let digest = self
            .agent
            .detached(async move {
                let digest = revoked::replace(&list, &agent.config.revoked_file(), lines)?;
                agent.changed();
                Ok(digest)
            })
            .await?;
        Ok(Response::new(pb::SetRevocationsResponse { digest }))
    }

    async fn get_access(
        &self,
        request: Request<pb::GetAccessRequest>,
    ) -> Result<Response<pb::GetAccessResponse>, Status> {
        authorize(&request)?;
        let list = self.peers.identity.revoked().list();
        let revocations = list.lines().into_iter().map(Into::into).collect();
        Ok(Response::new(pb::GetAccessResponse { revocations, lead: self.agent.leader.newest() }))
    }
}
