//! Brings back a tenant whose server is lost, with data that is left of it elsewhere, and never without.
//!
//! Which data, and where, was decided when it was planned. Nobody asks the lost server anything: it is out of the fleet, so that its agent
//! starts nobody when it comes back.

use async_trait::async_trait;
use feather_proto::{
    error::Error,
    ids::{ServerName, TenantName},
    limits::Limits,
    model::{StopReason, VolumeExpectation},
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{Context, Outcome, Procedure, Step};
use crate::{
    backups::{self, Named, Progress},
    recovery::Data,
    store::{TenantState, TenantUpdate},
};

/// What is decided beforehand.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Where it will live.
    pub server: ServerName,
    /// Where it lived.
    pub lost: ServerName,
    /// With what.
    pub data: Data,
    /// False: stopped by its operator, and stays so.
    pub running: bool,
    /// What it may use.
    #[serde(default)]
    pub limits: Limits,
}

/// What the steps find out.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Facts {
    /// Loopback port.
    pub port: Option<u16>,
}

/// The steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steps {
    /// The data is the tenant's on its new server: the copy that is there, or a backup's. First, because nothing starts without.
    Data,
    /// Container, health, route: on that data, or not at all.
    Provision,
    /// Who was stopped is stopped again, before anybody is told that it lives there.
    Rest,
    /// From here on the tenant lives there. Behind the provisioning, because data that nobody can serve from is not a tenant yet.
    Commit,
    /// The record follows the tenant.
    Dns,
}

impl Step for Steps {
    const ALL: &'static [Self] = &[Steps::Data, Steps::Provision, Steps::Rest, Steps::Commit, Steps::Dns];
    const POINT_OF_NO_RETURN: Self = Steps::Commit;

    fn name(self) -> &'static str {
        match self {
            Steps::Data => "data",
            Steps::Provision => "provision",
            Steps::Rest => "rest",
            Steps::Commit => "commit",
            Steps::Dns => "dns",
        }
    }
}

/// The kind.
pub struct Recover;

#[async_trait]
impl Procedure for Recover {
    type Step = Steps;
    type Subject = TenantName;
    type Plan = Plan;
    type Facts = Facts;

    async fn act(step: Steps, context: &Context<'_, Plan>, facts: &mut Facts) -> Result<Outcome, Error> {
        let plan = context.plan;
        match step {
            Steps::Data => data(context).await,
            Steps::Provision => {
                let agent = context.world.agent(&plan.server).await?;
                let added = agent.add_tenant(&context.call("provision"), VolumeExpectation::Kept, plan.limits).await?;
                facts.port = added.tenant.port;
                context.world.volatile.keep_password(context.id, added.password);
                Ok(Outcome::note(format!(
                    "healthy on {}, port {}, with {}",
                    plan.server,
                    facts.port.unwrap_or_default(),
                    plan.data.told(None)
                )))
            }
            Steps::Rest if plan.running => Ok(Outcome::default()),
            Steps::Rest => {
                let agent = context.world.agent(&plan.server).await?;
                agent.stop_tenant(&context.call("rest"), StopReason::Operator).await?;
                Ok(Outcome::note("stopped by its operator before, and again"))
            }
            Steps::Commit => Ok(Outcome {
                message: format!("{} lives on {}", context.tenant(), plan.server),
                tenant: Some(TenantUpdate {
                    state: Some(TenantState::Active),
                    server: Some(plan.server.clone()),
                    running: Some(plan.running),
                    ..TenantUpdate::generation(context.tenant().clone(), context.fence.generation)
                }),
            }),
            Steps::Dns => super::engine::settle_dns(context.world).await,
        }
    }

    async fn undo(
        step: Steps,
        context: &Context<'_, Plan>,
        _facts: &mut Facts,
        _begun: &[Steps],
    ) -> Result<Outcome, Error> {
        match step {
            Steps::Provision => {
                let call = context.undo_call("provision");
                context.world.agent(&context.plan.server).await?.remove_tenant(&call, true).await?;
                let note =
                    format!("nothing of {} runs on {}; the data stays there", context.tenant(), context.plan.server);
                Ok(Outcome::note(note))
            }
            // Data that was made the tenant's stays: nobody lives on it, and it goes no more by itself.
            Steps::Data | Steps::Rest | Steps::Commit | Steps::Dns => Ok(Outcome::default()),
        }
    }

    fn on_failure(context: &Context<'_, Plan>) -> Option<TenantUpdate> {
        Some(TenantUpdate::generation(context.tenant().clone(), context.fence.undo_generation))
    }

    fn hint(_step: Steps, _undoing: bool, context: &Context<'_, Plan>) -> String {
        format!("featherctl server show {}", context.plan.server)
    }
}

async fn data(context: &Context<'_, Plan>) -> Result<Outcome, Error> {
    let (world, plan) = (context.world, context.plan);
    let agent = world.agent(&plan.server).await?;
    let copy = matches!(plan.data, Data::Copy { .. });
    agent.reclaim(&context.call("reclaim"), copy).await?;
    if let Data::Backup { repository, id, .. } = &plan.data {
        let named = Named { tenant: context.tenant().clone(), place: Some(repository.parse()?), id: Some(id.clone()) };
        backups::restore_on(world, &named, &plan.server, &watch::Sender::new(Progress::default())).await?;
    }
    Ok(Outcome::note(format!("{} on {}", plan.data.told(Some(world.clock.now())), plan.server)))
}
