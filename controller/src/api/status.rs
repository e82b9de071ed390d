//! `StatusService`.

use std::{collections::BTreeMap, sync::Arc};

use feather_proto::{
    error::Error,
    ids::{ServerName, TenantName},
    model::to_timestamp,
    pb::controller::v1::{self as pb, status_service_server::StatusService},
};
use tonic::{Request, Response, Status};

use super::{operation, reader, server::Servers, tenant::Tenants, warning};
use crate::{
    dns::Mode,
    doctor::{self, Finding, Verdict},
    explain::{self, Explanation},
    leadership::Following,
    store::TenantRow,
    warnings,
    world::World,
};

/// Shows everything at a glance.
pub struct StatusApi {
    world: Arc<World>,
    servers: Servers,
    tenants: Tenants,
}

impl StatusApi {
    /// Over this world, through the eyes of the services that show its parts.
    pub fn new(world: Arc<World>, servers: Servers, tenants: Tenants) -> Self {
        Self { world, servers, tenants }
    }

    /// What is known now, without asking anybody.
    pub(crate) async fn glance(&self) -> Result<pb::GetStatusResponse, Error> {
        let raised = warnings::look(&self.world).await?.into_iter().filter(|row| row.raised.is_some());
        let (known, new): (Vec<_>, Vec<_>) = raised.partition(|row| row.acknowledged.is_some());
        let servers = self.servers.views().await?.into_iter();
        Ok(pb::GetStatusResponse {
            now: Some(to_timestamp(self.world.clock.now())),
            version: env!("CARGO_PKG_VERSION").into(),
            servers: servers.map(|one| pb::Server { images: Vec::new(), events: Vec::new(), ..one }).collect(),
            tenants: self.tenant_counts().await?,
            operations: self.under_way().await?,
            dns: self.dns(),
            certificate: self.certificate(),
            warnings: new.into_iter().map(warning::encode).collect(),
            leader: self.world.following.as_ref().map(Following::leader).unwrap_or_default(),
            acknowledged: u32::try_from(known.len()).unwrap_or(u32::MAX),
        })
    }

    /// These tenants, as they are shown anywhere.
    pub(crate) async fn tenants(&self, rows: Vec<TenantRow>) -> Result<Vec<pb::Tenant>, Error> {
        self.tenants.views(rows).await
    }

    async fn tenant_counts(&self) -> Result<Vec<pb::TenantCount>, Error> {
        let rows = self.world.store.tenants().await?;
        let mut counts = BTreeMap::<i32, u32>::new();
        for tenant in self.tenants.views(rows).await? {
            *counts.entry(tenant.state).or_default() += 1;
        }
        Ok(counts.into_iter().map(|(state, count)| pb::TenantCount { state, count }).collect())
    }

    async fn under_way(&self) -> Result<Vec<pb::OperationUnderWay>, Error> {
        let mut operations = Vec::new();
        for row in self.world.store.unfinished_operations().await? {
            let view = operation::view(&self.world, &row.id).await?;
            let progress = self.world.volatile.progress(&row.id).map(operation::progress);
            let operation = Some(pb::Operation { log: Vec::new(), ..view });
            operations.push(pb::OperationUnderWay { operation, progress });
        }
        Ok(operations)
    }

    fn dns(&self) -> Option<pb::DnsGlance> {
        let standing = self.world.dns.standing()?;
        let keeper = self.world.dns.keeper().ok()?;
        let mode = if self.world.settings.dns.mode == Mode::Auto { "auto" } else { "manual" };
        let looked = standing.pass.as_ref().map(|pass| to_timestamp(pass.at));
        let (message, problem) = match standing.pass.map(|pass| pass.outcome) {
            Some(Ok(message)) => (message, String::new()),
            Some(Err(error)) => (String::new(), error.message),
            None => Default::default(),
        };
        let on_their_way = u32::try_from(standing.late.map_or(0, |late| late.len())).unwrap_or(u32::MAX);
        Some(pb::DnsGlance { mode: mode.into(), zone: keeper.key().into(), looked, message, problem, on_their_way })
    }

    fn certificate(&self) -> Option<pb::CertificateGlance> {
        let certificates = &self.world.certificates;
        certificates.directory()?;
        let state = certificates.state();
        Some(pb::CertificateGlance {
            names: certificates.names().to_vec(),
            not_after: state.held.map(|held| to_timestamp(held.facts.not_after)),
            next_renewal: state.next.map(to_timestamp),
            problem: state.attempts.error.unwrap_or_default(),
        })
    }
}

fn encode(explanation: Explanation) -> pb::Explanation {
    let fact =
        |fact: explain::Fact| pb::Fact { topic: fact.topic.to_owned(), text: fact.text, at: fact.at.map(to_timestamp) };
    pb::Explanation { facts: explanation.facts.into_iter().map(fact).collect(), next: explanation.next }
}

fn check(finding: Finding) -> pb::Check {
    let verdict = match finding.verdict {
        Verdict::Ok => pb::CheckVerdict::Ok,
        Verdict::Warn => pb::CheckVerdict::Warn,
        Verdict::Fail => pb::CheckVerdict::Fail,
    };
    pb::Check {
        verdict: verdict.into(),
        subject: finding.subject,
        check: finding.check.to_owned(),
        message: finding.message,
        next: finding.next,
    }
}

#[tonic::async_trait]
impl StatusService for StatusApi {
    async fn get_status(
        &self,
        request: Request<pb::GetStatusRequest>,
    ) -> Result<Response<pb::GetStatusResponse>, Status> {
        reader(&request)?;
        Ok(Response::new(self.glance().await?))
    }

    async fn diagnose(&self, request: Request<pb::DiagnoseRequest>) -> Result<Response<pb::DiagnoseResponse>, Status> {
        reader(&request)?;
        let answers = doctor::ask(&self.world).await;
        // Of a store that does not answer the answers tell already.
        let warnings = warnings::look(&self.world).await.unwrap_or_default();
        let checks = doctor::findings::findings(&answers, &warnings).into_iter().map(check);
        Ok(Response::new(pb::DiagnoseResponse { checks: checks.collect() }))
    }

    async fn explain_tenant(
        &self,
        request: Request<pb::ExplainTenantRequest>,
    ) -> Result<Response<pb::ExplainTenantResponse>, Status> {
        reader(&request)?;
        let tenant: TenantName = request.get_ref().tenant.parse()?;
        let explanation = Some(encode(explain::tenant(&self.world, &tenant).await?));
        Ok(Response::new(pb::ExplainTenantResponse { explanation }))
    }

    async fn explain_server(
        &self,
        request: Request<pb::ExplainServerRequest>,
    ) -> Result<Response<pb::ExplainServerResponse>, Status> {
        reader(&request)?;
        let server: ServerName = request.get_ref().server.parse()?;
        let explanation = Some(encode(explain::server(&self.world, &server).await?));
        Ok(Response::new(pb::ExplainServerResponse { explanation }))
    }
}
