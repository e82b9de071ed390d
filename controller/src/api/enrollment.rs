//! `EnrollmentService`.

use std::sync::Arc;

use feather_proto::{
    model::to_timestamp,
    pb::controller::v1::{self as pb, enrollment_service_server::EnrollmentService},
    tls::{Role, calling, require},
};
use tonic::{Request, Response, Status};

use super::admin;
use crate::enroll::{Enroll, Joining, Standing};

/// Lets servers in.
pub struct Enrollment {
    enroll: Arc<Enroll>,
}

impl Enrollment {
    /// By these rules.
    pub fn new(enroll: Arc<Enroll>) -> Self {
        Self { enroll }
    }
}

#[tonic::async_trait]
impl EnrollmentService for Enrollment {
    async fn create_join_token(
        &self,
        request: Request<pb::CreateJoinTokenRequest>,
    ) -> Result<Response<pb::CreateJoinTokenResponse>, Status> {
        admin(&request)?;
        let caller = calling(&request);
        let asked = request.into_inner();
        let server = asked.server.parse()?;
        let (token, expires) = self.enroll.invite(server, asked.ttl_seconds, asked.rejoin, &caller).await?;
        Ok(Response::new(pb::CreateJoinTokenResponse {
            token: token.to_string(),
            expires: Some(to_timestamp(expires)),
            domain_suffix: self.enroll.domain_suffix().to_owned(),
        }))
    }

    async fn join(&self, request: Request<pb::JoinRequest>) -> Result<Response<pb::JoinResponse>, Status> {
        let asked = request.into_inner();
        let joining = Joining { csr_pem: asked.csr_pem, address: asked.address, public_address: asked.public_address };
        let admitted = self.enroll.join(&asked.secret, &joining).await?;
        Ok(Response::new(pb::JoinResponse {
            server: admitted.server.to_string(),
            certificate_pem: admitted.certificate_pem,
            ca_pem: admitted.ca_pem,
            anew: admitted.anew,
        }))
    }

    async fn renew_certificate(
        &self,
        request: Request<pb::RenewCertificateRequest>,
    ) -> Result<Response<pb::RenewCertificateResponse>, Status> {
        require(&request, &[Role::Agent])?;
        let admitted = self.enroll.renew(&calling(&request), &request.get_ref().csr_pem).await?;
        Ok(Response::new(pb::RenewCertificateResponse {
            certificate_pem: admitted.certificate_pem,
            ca_pem: admitted.ca_pem,
        }))
    }

    async fn get_standing(
        &self,
        request: Request<pb::GetStandingRequest>,
    ) -> Result<Response<pb::GetStandingResponse>, Status> {
        let standing = match self.enroll.standing(&request.get_ref().certificate_pem).await? {
            Standing::Member => pb::Standing::Member,
            Standing::Revoked => pb::Standing::Revoked,
            Standing::Unknown => pb::Standing::Unknown,
        };
        Ok(Response::new(pb::GetStandingResponse { standing: standing.into() }))
    }
}
