//! `EnrollmentService`.

use std::sync::Arc;

use feather_proto::{
    error::{Error, reason},
    model::to_timestamp,
    pb::controller::v1::{self as pb, enrollment_service_server::EnrollmentService},
    tls::{Role, calling, require},
};
use tonic::{Request, Response, Status};

use super::admin;
use crate::enroll::{Enroll, Joining};

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
        }))
    }

    async fn renew_certificate(
        &self,
        request: Request<pb::RenewCertificateRequest>,
    ) -> Result<Response<pb::RenewCertificateResponse>, Status> {
        let caller = require(&request, &[Role::Agent])?;
        let server = caller
            .name
            .parse()
            .map_err(|_: Error| Error::denied(reason::ROLE, format!("{caller} is not the name of a server")))?;
        let admitted = self.enroll.renew(&server, &calling(&request), &request.get_ref().csr_pem).await?;
        Ok(Response::new(pb::RenewCertificateResponse {
            certificate_pem: admitted.certificate_pem,
            ca_pem: admitted.ca_pem,
        }))
    }
}
