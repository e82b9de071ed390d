//! Adds a tenant: provisions it on the server that the plan chose, then says so in the store.

use async_trait::async_trait;
use feather_proto::{
    error::{Error, reason},
    ids::{ServerName, TenantName},
    limits::Limits,
    model::VolumeExpectation,
};
use serde::{Deserialize, Serialize};

use super::{Context, Outcome, Procedure, Step};
use crate::{
    agents::{Agent, Call},
    store::{TenantState, TenantUpdate},
};

/// What is decided beforehand.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Where to.
    pub server: ServerName,
    /// Its data was kept there and must be found.
    pub data_expected: bool,
    /// What it may use.
    #[serde(default)]
    pub limits: Limits,
}

/// What the steps find out.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Facts {
    /// A kept volume was found.
    pub found_data: bool,
    /// Loopback port.
    pub port: Option<u16>,
}

/// The steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steps {
    /// Volume, container, health, route: one call, because the agent takes it all back itself when the container never gets
    /// healthy, with the log lines that say why.
    Provision,
    /// From here on the tenant lives there. Behind the provisioning, because a tenant that never ran was never added.
    Commit,
    /// The record of a tenant away from the ingress. Behind the commit, because it follows from the store.
    Dns,
}

impl Step for Steps {
    const ALL: &'static [Self] = &[Steps::Provision, Steps::Commit, Steps::Dns];
    const POINT_OF_NO_RETURN: Self = Steps::Commit;

    fn name(self) -> &'static str {
        match self {
            Steps::Provision => "provision",
            Steps::Commit => "commit",
            Steps::Dns => "dns",
        }
    }
}

/// The kind.
pub struct Add;

#[async_trait]
impl Procedure for Add {
    type Step = Steps;
    type Subject = TenantName;
    type Plan = Plan;
    type Facts = Facts;

    async fn act(step: Steps, context: &Context<'_, Plan>, facts: &mut Facts) -> Result<Outcome, Error> {
        match step {
            Steps::Provision => provision(context, facts).await,
            Steps::Commit => Ok(Outcome {
                message: format!("{} lives on {}", context.tenant(), context.plan.server),
                tenant: Some(TenantUpdate {
                    tenant: context.tenant().clone(),
                    generation: context.fence.generation,
                    state: Some(TenantState::Active),
                    server: Some(context.plan.server.clone()),
                    previous_server: None,
                    running: Some(true),
                    sent_away: None,
                    homeless: false,
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
                // Higher than the attempt's generation, so that a late copy of the attempt is refused.
                let call = context.undo_call("provision");
                context.world.agent(&context.plan.server).await?.remove_tenant(&call, true).await?;
                Ok(Outcome::note(format!("nothing of {} is left on {}", context.tenant(), context.plan.server)))
            }
            Steps::Commit | Steps::Dns => Ok(Outcome::default()),
        }
    }

    fn on_failure(context: &Context<'_, Plan>) -> Option<TenantUpdate> {
        Some(TenantUpdate {
            state: Some(TenantState::Removed),
            ..TenantUpdate::generation(context.tenant().clone(), context.fence.undo_generation)
        })
    }

    fn hint(_step: Steps, _undoing: bool, context: &Context<'_, Plan>) -> String {
        format!("featherctl server show {}", context.plan.server)
    }
}

/// Its server may still forward what came for it while it lived elsewhere. A reconciler ends that by and by, but for an agent it means that
/// newer data is elsewhere, and whoever adds it knows that this is over.
async fn no_forward(context: &Context<'_, Plan>, agent: &dyn Agent) -> Result<(), Error> {
    let (world, tenant) = (context.world, context.tenant());
    let report = world.fleet.tenant(&context.plan.server, tenant);
    if report.is_none_or(|report| report.forward_to.is_none()) {
        return Ok(());
    }
    // As the reconciler does it: under the placement in force.
    let generation = world.store.require_tenant(tenant).await?.generation;
    let call = Call { generation, ..context.call("forward") };
    agent.hand_off(&call, None).await.map(drop)
}

async fn provision(context: &Context<'_, Plan>, facts: &mut Facts) -> Result<Outcome, Error> {
    let plan = context.plan;
    let expectation = if plan.data_expected { VolumeExpectation::Kept } else { VolumeExpectation::Any };
    let agent = context.world.agent(&plan.server).await?;
    no_forward(context, &*agent).await?;
    let added = agent.add_tenant(&context.call("provision"), expectation, plan.limits).await?;
    facts.found_data = added.found_data;
    facts.port = added.tenant.port;
    context.world.volatile.keep_password(context.id, added.password);
    let data = if added.found_data { "with the data it had before" } else { "with a new volume" };
    Ok(Outcome::note(format!("healthy on {}, port {}, {data}", plan.server, facts.port.unwrap_or_default())))
}

/// The error for a tenant that exists.
pub fn exists(tenant: &TenantName, server: Option<&ServerName>) -> Error {
    let place = server.map_or_else(String::new, |server| format!(" on {server}"));
    Error::exists(
        reason::TENANT_EXISTS,
        format!(
            "{tenant} exists already{place}; choose another name, or look at it with `featherctl tenant show {tenant}`"
        ),
    )
    .with("tenant", tenant)
}
