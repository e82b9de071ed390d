//! Removes a tenant and keeps its data.
//!
//! Forward only: the first step says in the store that the tenant is no more, the others make it so, however long a server
//! takes to answer.

use async_trait::async_trait;
use feather_proto::{
    error::Error,
    ids::{ServerName, TenantName},
};
use serde::{Deserialize, Serialize};

use super::{Context, Outcome, Procedure, Step};
use crate::store::{TenantState, TenantUpdate};

/// What is decided beforehand.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Where it lives.
    pub server: ServerName,
    /// That server is lost, and the data with it: its name shall be free.
    #[serde(default)]
    pub lost: bool,
}

/// What the steps find out.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Facts {}

/// The steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steps {
    /// From here on nobody wants it to run. First, because a half-removed tenant that is still wanted would be restarted.
    Commit,
    /// Container and route go, the volume stays.
    Withdraw,
    /// Its own record goes.
    Dns,
}

impl Step for Steps {
    const ALL: &'static [Self] = &[Steps::Commit, Steps::Withdraw, Steps::Dns];
    const POINT_OF_NO_RETURN: Self = Steps::Commit;

    fn name(self) -> &'static str {
        match self {
            Steps::Commit => "commit",
            Steps::Withdraw => "withdraw",
            Steps::Dns => "dns",
        }
    }
}

/// The kind.
pub struct Remove;

#[async_trait]
impl Procedure for Remove {
    type Step = Steps;
    type Subject = TenantName;
    type Plan = Plan;
    type Facts = Facts;

    async fn act(step: Steps, context: &Context<'_, Plan>, _facts: &mut Facts) -> Result<Outcome, Error> {
        match step {
            Steps::Commit => Ok(Outcome {
                message: "no longer wanted".into(),
                tenant: Some(TenantUpdate {
                    state: Some(TenantState::Removed),
                    homeless: context.plan.lost,
                    ..TenantUpdate::generation(context.tenant().clone(), context.fence.generation)
                }),
            }),
            Steps::Withdraw if context.plan.lost => {
                Ok(Outcome::note(format!("{} is lost: nothing is left to be taken away", context.plan.server)))
            }
            Steps::Withdraw => {
                let agent = context.world.agent(&context.plan.server).await?;
                agent.remove_tenant(&context.call("withdraw"), false).await?;
                Ok(Outcome::note(format!("container and route are gone, the volume stays on {}", context.plan.server)))
            }
            Steps::Dns => super::engine::settle_dns(context.world).await,
        }
    }

    async fn undo(
        _step: Steps,
        _context: &Context<'_, Plan>,
        _facts: &mut Facts,
        _begun: &[Steps],
    ) -> Result<Outcome, Error> {
        Ok(Outcome::default())
    }

    fn hint(_step: Steps, _undoing: bool, context: &Context<'_, Plan>) -> String {
        format!("featherctl server show {}", context.plan.server)
    }
}
