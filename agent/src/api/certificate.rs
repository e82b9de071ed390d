//! `feather.agent.v1.CertificateService`.

use feather_proto::{
    pb::agent::v1::{self as pb, certificate_service_server::CertificateService},
    tls::PublicCertificate,
};
use tonic::{Request, Response, Status};

use super::{Api, authorize};

#[tonic::async_trait]
impl CertificateService for Api {
    async fn set_certificate(
        &self,
        request: Request<pb::SetCertificateRequest>,
    ) -> Result<Response<pb::SetCertificateResponse>, Status> {
        authorize(&request)?;
        let pb::SetCertificateRequest { chain_pem, key_pem } = request.into_inner();
        let agent = self.agent.clone();
        let held = self
            .agent
            .detached(async move {
                let new = PublicCertificate { chain_pem, key_pem };
                let held = agent.certificates.take(&new, &agent.config.domain_suffix, agent.clock.now())?;
                agent.changed();
                Ok(held)
            })
            .await?;
        Ok(Response::new(pb::SetCertificateResponse { held: Some(held.into()) }))
    }
}
