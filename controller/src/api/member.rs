//! `MemberService`: what is typed on a member server itself.

use std::sync::Arc;

use feather_proto::{
    error::{Error, reason},
    ids::{OperationId, ServerName},
    pb::controller::v1::{self as pb, member_service_server::MemberService},
    tls::{Principal, Role, calling, require},
};
use tonic::{Request, Response, Status};

use super::{operation, tenant::asked};
use crate::{
    enroll::Enroll,
    intent::{self, Home, Intent, Planned},
    world::World,
};

/// Changes tenants of one server for that server.
pub struct Members {
    world: Arc<World>,
    intent: Intent,
    enroll: Arc<Enroll>,
}

/// Who calls, and what it may change.
struct Caller {
    principal: Principal,
    server: ServerName,
    intent: Intent,
}

impl Members {
    /// Over this world.
    pub fn new(world: Arc<World>, intent: Intent, enroll: Arc<Enroll>) -> Self {
        Self { world, intent, enroll }
    }

    async fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Error> {
        let principal = require(request, &[Role::Agent])?;
        let server = self.enroll.require_member(&calling(request)).await?.name;
        Ok(Caller { intent: self.intent.within(server.clone()), principal, server })
    }
}

impl Caller {
    fn asks(&self, id: &str, tenant: &str) -> Result<intent::Request, Error> {
        asked(id, tenant, false, &self.principal)
    }
}

fn id(planned: Planned) -> Result<String, Error> {
    planned.operation.map(String::from).ok_or_else(|| Error::bug("a change began no operation"))
}

#[tonic::async_trait]
impl MemberService for Members {
    async fn add_member_tenant(
        &self,
        request: Request<pb::AddMemberTenantRequest>,
    ) -> Result<Response<pb::AddMemberTenantResponse>, Status> {
        let caller = self.caller(&request).await?;
        let asked = caller.asks(&request.get_ref().request_id, &request.get_ref().tenant)?;
        let operation = id(caller.intent.add(&asked, Home::on(Some(caller.server.clone()))).await?)?;
        Ok(Response::new(pb::AddMemberTenantResponse { operation }))
    }

    async fn remove_member_tenant(
        &self,
        request: Request<pb::RemoveMemberTenantRequest>,
    ) -> Result<Response<pb::RemoveMemberTenantResponse>, Status> {
        let caller = self.caller(&request).await?;
        let asked = caller.asks(&request.get_ref().request_id, &request.get_ref().tenant)?;
        let operation = id(caller.intent.remove(&asked).await?)?;
        Ok(Response::new(pb::RemoveMemberTenantResponse { operation }))
    }

    async fn start_member_tenant(
        &self,
        request: Request<pb::StartMemberTenantRequest>,
    ) -> Result<Response<pb::StartMemberTenantResponse>, Status> {
        let caller = self.caller(&request).await?;
        let asked = caller.asks(&request.get_ref().request_id, &request.get_ref().tenant)?;
        let operation = id(caller.intent.start(&asked).await?)?;
        Ok(Response::new(pb::StartMemberTenantResponse { operation }))
    }

    async fn stop_member_tenant(
        &self,
        request: Request<pb::StopMemberTenantRequest>,
    ) -> Result<Response<pb::StopMemberTenantResponse>, Status> {
        let caller = self.caller(&request).await?;
        let asked = caller.asks(&request.get_ref().request_id, &request.get_ref().tenant)?;
        let operation = id(caller.intent.stop(&asked).await?)?;
        Ok(Response::new(pb::StopMemberTenantResponse { operation }))
    }

    async fn restart_member_tenant(
        &self,
        request: Request<pb::RestartMemberTenantRequest>,
    ) -> Result<Response<pb::RestartMemberTenantResponse>, Status> {
        let caller = self.caller(&request).await?;
        let asked = caller.asks(&request.get_ref().request_id, &request.get_ref().tenant)?;
        let operation = id(caller.intent.restart(&asked).await?)?;
        Ok(Response::new(pb::RestartMemberTenantResponse { operation }))
    }

    async fn get_member_operation(
        &self,
        request: Request<pb::GetMemberOperationRequest>,
    ) -> Result<Response<pb::GetMemberOperationResponse>, Status> {
        let caller = self.caller(&request).await?;
        let id: OperationId = request.get_ref().id.parse()?;
        let view = operation::view(&self.world, &id).await?;
        if view.requested_by != caller.principal.to_string() {
            return Err(Error::not_found(
                reason::OPERATION_NOT_FOUND,
                format!("{} did not ask for an operation {id}", caller.server),
            )
            .into());
        }
        if view.ended.is_some() {
            // The server reads the password in its own ledger; nobody else comes for it.
            drop(self.world.volatile.take_password(&id));
        }
        let operation = Some(pb::Operation { log: Vec::new(), ..view });
        Ok(Response::new(pb::GetMemberOperationResponse { operation }))
    }
}
