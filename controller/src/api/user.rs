//! `UserService`.

use feather_proto::{
    model::to_timestamp,
    pb::controller::v1::{self as pb, user_service_server::UserService},
    tls::calling,
};
use time::OffsetDateTime;
use tonic::{Request, Response, Status};

use super::{admin, optional, reader};
use crate::{
    store::UserRow,
    users::{Adding, Users, person_role},
};

/// People and their certificates.
pub struct UserApi {
    users: Users,
}

impl UserApi {
    /// By these rules.
    pub fn new(users: Users) -> Self {
        Self { users }
    }
}

fn encode((row, web_until): (UserRow, Option<OffsetDateTime>)) -> pb::User {
    pb::User {
        name: row.principal.name,
        role: row.principal.role.to_string(),
        added: Some(to_timestamp(row.added)),
        added_by: row.added_by.unwrap_or_default(),
        valid_until: row.valid_until.map(to_timestamp),
        last_seen: row.seen.map(to_timestamp),
        revoked: row.revoked.map(to_timestamp),
        revoked_by: row.revoked_by.unwrap_or_default(),
        web_until: web_until.map(to_timestamp),
    }
}

#[tonic::async_trait]
impl UserService for UserApi {
    async fn add_user(&self, request: Request<pb::AddUserRequest>) -> Result<Response<pb::AddUserResponse>, Status> {
        admin(&request)?;
        let caller = calling(&request);
        let pb::AddUserRequest { name, role, life_seconds, ttl_seconds, again } = request.into_inner();
        let adding = Adding { name, role: person_role(&role)?, life_seconds, ttl_seconds, again };
        let (token, expires) = self.users.add(&adding, &caller).await?;
        Ok(Response::new(pb::AddUserResponse { token: token.to_string(), expires: Some(to_timestamp(expires)) }))
    }

    async fn list_users(
        &self,
        request: Request<pb::ListUsersRequest>,
    ) -> Result<Response<pb::ListUsersResponse>, Status> {
        reader(&request)?;
        let users = self.users.list().await?.into_iter().map(encode).collect();
        Ok(Response::new(pb::ListUsersResponse { users }))
    }

    async fn revoke_user(
        &self,
        request: Request<pb::RevokeUserRequest>,
    ) -> Result<Response<pb::RevokeUserResponse>, Status> {
        admin(&request)?;
        let caller = calling(&request);
        let pb::RevokeUserRequest { name, unseen } = request.into_inner();
        self.users.revoke(&name, unseen, &caller).await?;
        Ok(Response::new(pb::RevokeUserResponse {}))
    }

    async fn login(&self, request: Request<pb::LoginRequest>) -> Result<Response<pb::LoginResponse>, Status> {
        let pb::LoginRequest { secret, csr_pem } = request.into_inner();
        let admitted = self.users.log_in(&secret, &csr_pem).await?;
        Ok(Response::new(pb::LoginResponse {
            name: admitted.principal.name,
            role: admitted.principal.role.to_string(),
            certificate_pem: admitted.certificate_pem,
            ca_pem: admitted.ca_pem,
        }))
    }

    async fn renew_login(
        &self,
        request: Request<pb::RenewLoginRequest>,
    ) -> Result<Response<pb::RenewLoginResponse>, Status> {
        reader(&request)?;
        let admitted = self.users.renew(&calling(&request), &request.get_ref().csr_pem).await?;
        Ok(Response::new(pb::RenewLoginResponse { certificate_pem: admitted.certificate_pem, ca_pem: admitted.ca_pem }))
    }

    async fn create_web_token(
        &self,
        request: Request<pb::CreateWebTokenRequest>,
    ) -> Result<Response<pb::CreateWebTokenResponse>, Status> {
        reader(&request)?;
        let caller = calling(&request);
        let pb::CreateWebTokenRequest { name, ttl_seconds } = request.into_inner();
        let made = self.users.web_token(&name, ttl_seconds, &caller).await?;
        Ok(Response::new(pb::CreateWebTokenResponse {
            token: made.token,
            expires: Some(to_timestamp(made.viewer.expires)),
            name: made.viewer.name,
            page: optional(made.page),
        }))
    }
}
