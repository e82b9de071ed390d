//! What a person does with a fleet: identities to call with, operations to their end, a look from outside.

use std::path::{Path, PathBuf};

use feather_agent::{
    router::fake::{Answer, Request as HttpRequest},
    runtime::fake::STARTS_FILE,
};
use feather_proto::{
    error::Error,
    pb::controller::v1::{
        self as pb, dns_service_client::DnsServiceClient, enrollment_service_client::EnrollmentServiceClient,
        operation_service_client::OperationServiceClient, server_service_client::ServerServiceClient,
        tenant_service_client::TenantServiceClient, volume_service_client::VolumeServiceClient,
        waitlist_service_client::WaitlistServiceClient,
    },
    tls::{self, Channel, Identity, Principal, Role, Rotating, Trust},
};
use futures::StreamExt as _;

use super::{CONTROLLER, Fleet, Outcome, WAITING, agent_address, request_id, tenant};
use crate::wait::{until, within};

/// Longest that an operation may take in a test.
const OPERATION: std::time::Duration = std::time::Duration::from_secs(60);

impl Fleet {
    /// A channel to the controller with an identity.
    pub fn channel(&self, identity: Identity) -> Channel {
        self.channel_to(CONTROLLER, identity)
    }

    /// A channel to those of several controllers that answer, the one that waits first.
    pub fn channel_to_all(&self, identity: Identity) -> Channel {
        self.channel_to(&format!("{WAITING},{CONTROLLER}"), identity)
    }

    /// A channel to the controller that waits to lead.
    pub fn channel_to_waiting(&self, identity: Identity) -> Channel {
        self.channel_to(WAITING, identity)
    }

    fn channel_to(&self, addresses: &str, identity: Identity) -> Channel {
        let trust = Trust::Mutual(Rotating::new(identity).expect("a usable identity"));
        tls::channel(self.network.from("person"), addresses, &Principal::controller(), &trust).expect("a channel")
    }

    /// A channel to an agent with an identity.
    pub fn agent_channel(&self, name: &str, identity: Identity) -> Channel {
        let trust = Trust::Mutual(Rotating::new(identity).expect("a usable identity"));
        tls::channel(self.network.from("person"), &agent_address(name), &Principal::agent(name), &trust)
            .expect("a channel")
    }

    /// A channel to the controller for somebody without a certificate.
    pub fn stranger(&self) -> Channel {
        let trust = Trust::CaOnly(self.ca().ca_pem().to_owned());
        tls::channel(self.network.from("person"), CONTROLLER, &Principal::controller(), &trust).expect("a channel")
    }

    /// A channel to the controller for somebody who may do everything.
    pub fn admin(&self) -> Channel {
        self.channel(self.identity(Role::Admin, "admin"))
    }

    /// Client of the enrollment service.
    pub fn enrollment(&self) -> EnrollmentServiceClient<Channel> {
        EnrollmentServiceClient::new(self.admin())
    }

    /// Client of the DNS service.
    pub fn zone(&self) -> DnsServiceClient<Channel> {
        DnsServiceClient::new(self.admin())
    }

    /// Client of the tenant service.
    pub fn tenants(&self) -> TenantServiceClient<Channel> {
        TenantServiceClient::new(self.admin())
    }

    /// Client of the server service.
    pub fn server_service(&self) -> ServerServiceClient<Channel> {
        ServerServiceClient::new(self.admin())
    }

    /// Client of the operation service.
    pub fn operations(&self) -> OperationServiceClient<Channel> {
        OperationServiceClient::new(self.admin())
    }

    /// Client of the volume service.
    pub fn volumes(&self) -> VolumeServiceClient<Channel> {
        VolumeServiceClient::new(self.admin())
    }

    /// Client of the waitlist service.
    pub fn waitlist(&self) -> WaitlistServiceClient<Channel> {
        WaitlistServiceClient::new(self.admin())
    }

    /// Waits until every server is ready.
    pub async fn all_ready(&self) {
        until("all servers ready", async || {
            let reply =
                self.server_service().list_servers(pb::ListServersRequest {}).await.map_err(|e| e.to_string())?;
            let servers = reply.into_inner().servers;
            let unready: Vec<_> = servers.iter().filter(|one| one.state() != pb::ServerState::Ready).cloned().collect();
            if unready.is_empty() && servers.len() == self.servers.len() { Ok(()) } else { Err(format!("{unready:?}")) }
        })
        .await;
    }

    /// Follows an operation to its end, through restarts of the controller.
    pub async fn outcome(&self, id: &str) -> Outcome {
        within(OPERATION, "the operation ends", async || {
            let request = pb::WatchOperationRequest { id: id.to_owned() };
            let mut last = String::new();
            let mut stream =
                self.operations().watch_operation(request).await.map_err(|status| status.to_string())?.into_inner();
            while let Some(Ok(message)) = stream.next().await {
                let operation = message.operation.expect("an operation");
                last = format!("{:?} {} {}", operation.state(), operation.step, operation.error);
                if operation.ended.is_some() {
                    return Ok(Outcome { operation, password: message.password });
                }
            }
            Err(last)
        })
        .await
    }

    /// Adds a tenant to a server and waits; panics unless it succeeds.
    pub async fn add(&self, name: &str, server: &str) -> Outcome {
        let outcome = self.try_add(name, server).await.expect("the add begins");
        assert_eq!(outcome.state(), pb::OperationState::Succeeded, "{:#?}", outcome.operation);
        outcome
    }

    /// Adds a tenant and waits for the end, whatever it is.
    pub async fn try_add(&self, name: &str, server: &str) -> Result<Outcome, Error> {
        let request = pb::AddTenantRequest {
            request_id: request_id(),
            tenant: name.into(),
            server: server.into(),
            ..Default::default()
        };
        let reply = self.tenants().add_tenant(request).await.map_err(Error::from)?.into_inner();
        Ok(self.outcome(&reply.operation.expect("an operation").id).await)
    }

    /// Begins a move.
    pub async fn begin_migrate(&self, name: &str, to: &str) -> Result<pb::Operation, Error> {
        let request = pb::MigrateTenantRequest {
            request_id: request_id(),
            tenant: name.into(),
            server: to.into(),
            ..Default::default()
        };
        let reply = self.tenants().migrate_tenant(request).await.map_err(Error::from)?.into_inner();
        Ok(reply.operation.expect("an operation"))
    }

    /// Moves a tenant and waits for the end, whatever it is.
    pub async fn migrate(&self, name: &str, to: &str) -> Outcome {
        let operation = self.begin_migrate(name, to).await.expect("the move begins");
        self.outcome(&operation.id).await
    }

    /// Removes a tenant and waits.
    pub async fn remove(&self, name: &str) -> Outcome {
        let request = pb::RemoveTenantRequest { request_id: request_id(), tenant: name.into(), dry_run: false };
        let reply = self.tenants().remove_tenant(request).await.expect("the removal begins").into_inner();
        self.outcome(&reply.operation.expect("an operation").id).await
    }

    /// A tenant as the controller shows it.
    pub async fn show(&self, name: &str) -> pb::Tenant {
        let request = pb::GetTenantRequest { tenant: name.into() };
        self.tenants().get_tenant(request).await.expect("a tenant").into_inner().tenant.expect("a tenant")
    }

    /// Directory of a tenant's volume on a server.
    pub fn volume(&self, server: &str, name: &str) -> PathBuf {
        self.servers[server].runtime.volume_path(&tenant(name).container())
    }

    /// Lines that the tenant's process left in its volume on a server, one for each start.
    pub fn starts(&self, server: &str, name: &str) -> Vec<String> {
        lines(&self.volume(server, name).join(STARTS_FILE))
    }

    /// What a request by host name through a server's public port gets.
    pub fn request(&self, server: &str, name: &str) -> Answer {
        self.servers[server].router.request(&tenant(name), &HttpRequest::default())
    }
}

fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).map(|text| text.lines().map(ToOwned::to_owned).collect()).unwrap_or_default()
}
