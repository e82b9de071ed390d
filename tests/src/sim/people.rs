//! Whoever calls the controller of a simulation.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use feather_controller::ca::{self, Ca};
use feather_proto::{
    pb::controller::v1::{
        self as pb, enrollment_service_client::EnrollmentServiceClient,
        operation_service_client::OperationServiceClient, server_service_client::ServerServiceClient,
        tenant_service_client::TenantServiceClient,
    },
    tls::{self, Channel, Principal, Role, Rotating, Tcp, Trust},
};
use tokio::time::Instant;

use super::count;
use crate::fleet::request_id;

/// A list of ten thousand tenants is some MiB.
const MESSAGE_MAX_BYTES: usize = 64 << 20;
/// Between two looks at a whole fleet.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Connections; each carries a bounded number of calls at once.
const CONNECTIONS: usize = 4;

/// An administrator with several connections.
pub(super) struct People {
    channels: Vec<Channel>,
    next: std::sync::atomic::AtomicUsize,
}

impl People {
    pub(super) fn new(ca: &Ca, controller: &str) -> anyhow::Result<Self> {
        let principal = Principal { role: Role::Admin, name: "sim".into() };
        let identity = ca.issue(&principal, ca::PERSON_LIFE, time::OffsetDateTime::now_utc())?;
        let trust = Trust::Mutual(Rotating::new(identity)?);
        let channel = || tls::channel(Arc::new(Tcp), controller, &Principal::controller(), &trust);
        let channels = (0..CONNECTIONS).map(|_| channel()).collect::<Result<_, _>>()?;
        Ok(Self { channels, next: std::sync::atomic::AtomicUsize::new(0) })
    }

    fn channel(&self) -> Channel {
        let turn = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.channels[turn % self.channels.len()].clone()
    }

    fn tenants(&self) -> TenantServiceClient<Channel> {
        TenantServiceClient::new(self.channel()).max_decoding_message_size(MESSAGE_MAX_BYTES)
    }

    /// The secret of an invitation.
    pub(super) async fn invite(&self, server: &str) -> anyhow::Result<String> {
        let request = pb::CreateJoinTokenRequest { server: server.into(), ttl_seconds: 0, rejoin: false };
        let made = EnrollmentServiceClient::new(self.channel()).create_join_token(request).await?;
        let token: feather_proto::join_token::JoinToken = made.into_inner().token.parse()?;
        Ok(token.secret)
    }

    /// Adds a tenant wherever there is room, and tells how long that took to its end.
    pub(super) async fn add(&self, name: &str) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let request = pb::AddTenantRequest { request_id: request_id(), tenant: name.into(), ..Default::default() };
        let reply = self.tenants().add_tenant(request).await.with_context(|| format!("{name} cannot be added"))?;
        self.ended(&reply.into_inner().operation.context("no operation")?.id).await?;
        Ok(began.elapsed())
    }

    /// The same; `None` for one whose data is on one of these servers.
    pub(super) async fn add_apart_from(&self, name: &str, servers: &[String]) -> anyhow::Result<Option<Duration>> {
        let request = pb::GetTenantRequest { tenant: name.into() };
        let found = self.tenants().get_tenant(request).await?.into_inner().tenant.context("no tenant")?;
        if servers.contains(&found.server) { Ok(None) } else { self.add(name).await.map(Some) }
    }

    /// What an add would do. A refusal is an answer too.
    pub(super) async fn plan(&self, name: &str) -> anyhow::Result<()> {
        let request = pb::AddTenantRequest { tenant: name.into(), dry_run: true, ..Default::default() };
        match self.tenants().add_tenant(request).await {
            Err(status) if status.code() != tonic::Code::ResourceExhausted => Err(status.into()),
            _ => Ok(()),
        }
    }

    pub(super) async fn remove(&self, name: &str) -> anyhow::Result<()> {
        let request = pb::RemoveTenantRequest { request_id: request_id(), tenant: name.into(), ..Default::default() };
        let reply = self.tenants().remove_tenant(request).await?.into_inner();
        self.ended(&reply.operation.context("no operation")?.id).await
    }

    async fn ended(&self, id: &str) -> anyhow::Result<()> {
        let mut operations = OperationServiceClient::new(self.channel());
        let mut seen = operations.watch_operation(pb::WatchOperationRequest { id: id.into() }).await?.into_inner();
        while let Some(message) = seen.message().await? {
            let Some(operation) = message.operation else { continue };
            if operation.ended.is_none() {
                continue;
            }
            if operation.state() != pb::OperationState::Succeeded {
                bail!("{id} ended as {:?}: {}", operation.state(), operation.error);
            }
            return Ok(());
        }
        bail!("{id} was not followed to its end")
    }

    pub(super) async fn list(&self) -> anyhow::Result<Vec<pb::Tenant>> {
        let reply = self.tenants().list_tenants(pb::ListTenantsRequest::default()).await?;
        Ok(reply.into_inner().tenants)
    }

    /// How many tenants run.
    pub(super) async fn running(&self) -> anyhow::Result<usize> {
        Ok(self.list().await?.iter().filter(|tenant| tenant.state() == pb::TenantState::Running).count())
    }

    async fn servers(&self) -> anyhow::Result<Vec<pb::Server>> {
        let client = ServerServiceClient::new(self.channel()).max_decoding_message_size(MESSAGE_MAX_BYTES);
        Ok({ client }.list_servers(pb::ListServersRequest {}).await?.into_inner().servers)
    }

    pub(super) async fn all_ready(&self, servers: usize, limit: Duration) -> anyhow::Result<()> {
        self.look_until(limit, "ready", async || Ok(count(&self.servers().await?, pb::ServerState::Ready) >= servers))
            .await
    }

    /// At least so many servers are told to be unreachable.
    pub(super) async fn unreachable(&self, servers: usize, limit: Duration) -> anyhow::Result<()> {
        let so = async || Ok(count(&self.servers().await?, pb::ServerState::Unreachable) >= servers);
        self.look_until(limit, "unreachable", so).await
    }

    pub(super) async fn all_running(&self, tenants: usize, limit: Duration) -> anyhow::Result<()> {
        self.look_until(limit, "running", async || Ok(self.running().await? >= tenants)).await
    }

    async fn look_until(
        &self,
        limit: Duration,
        what: &str,
        look: impl AsyncFn() -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        while !look().await? {
            anyhow::ensure!(began.elapsed() < limit, "not all are {what} after {} s", limit.as_secs());
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }
}
