//! Starts, stops and restarts a tenant where it lives.

use async_trait::async_trait;
use feather_proto::{
    error::{Error, reason},
    ids::{ServerName, TenantName},
    model::{StartMode, StopReason},
};
use serde::{Deserialize, Serialize};

use super::{Context, Outcome, Procedure, Step};
use crate::store::TenantUpdate;

/// What is decided beforehand.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Where it lives.
    pub server: ServerName,
    /// It should run already: a start that fails must not stop it.
    pub running: bool,
}

/// What the steps find out.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Facts {}

/// The steps of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartSteps {
    /// Starts it and waits for health. Before the commit: one that does not start stays stopped.
    Launch,
    /// From here on it should run.
    Commit,
}

/// The steps of a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartSteps {
    /// Makes its container anew and waits for health. Before the commit, because a tenant that was stopped stays so when it does not
    /// start; one that ran is tried on by its server.
    Relaunch,
    /// From here on it should run.
    Commit,
}

/// The steps of a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopSteps {
    /// From here on it should not run. First, so that nothing starts it again.
    Commit,
    /// Its process ends.
    Halt,
}

impl Step for StartSteps {
    const ALL: &'static [Self] = &[StartSteps::Launch, StartSteps::Commit];
    const POINT_OF_NO_RETURN: Self = StartSteps::Commit;

    fn name(self) -> &'static str {
        match self {
            StartSteps::Launch => "launch",
            StartSteps::Commit => "commit",
        }
    }
}

impl Step for RestartSteps {
    const ALL: &'static [Self] = &[RestartSteps::Relaunch, RestartSteps::Commit];
    const POINT_OF_NO_RETURN: Self = RestartSteps::Commit;

    fn name(self) -> &'static str {
        match self {
            RestartSteps::Relaunch => "relaunch",
            RestartSteps::Commit => "commit",
        }
    }
}

impl Step for StopSteps {
    const ALL: &'static [Self] = &[StopSteps::Commit, StopSteps::Halt];
    const POINT_OF_NO_RETURN: Self = StopSteps::Commit;

    fn name(self) -> &'static str {
        match self {
            StopSteps::Commit => "commit",
            StopSteps::Halt => "halt",
        }
    }
}

/// The kind that starts.
pub struct Start;
/// The kind that restarts.
pub struct Restart;
/// The kind that stops.
pub struct Stop;

fn running(context: &Context<'_, Plan>, running: bool) -> Option<TenantUpdate> {
    Some(TenantUpdate {
        running: Some(running),
        ..TenantUpdate::generation(context.tenant().clone(), context.fence.generation)
    })
}

/// The undo of whatever step may have started it.
async fn stopped_as_before(context: &Context<'_, Plan>, started_by: Option<&str>) -> Result<Outcome, Error> {
    if context.plan.running {
        return Ok(Outcome::note("should run as before"));
    }
    if let Some(step) = started_by {
        let agent = context.world.agent(&context.plan.server).await?;
        ended(agent.stop_tenant(&context.undo_call(step), StopReason::Operator).await)?;
    }
    Ok(Outcome::note("stopped as before"))
}

/// A server that knows nothing of a tenant (it lost its state and joined again) runs nothing of it: it has what a stop is for.
fn ended(stopped: Result<(), Error>) -> Result<(), Error> {
    match stopped {
        Err(error) if error.is(reason::TENANT_NOT_FOUND) => Ok(()),
        other => other,
    }
}

#[async_trait]
impl Procedure for Start {
    type Step = StartSteps;
    type Subject = TenantName;
    type Plan = Plan;
    type Facts = Facts;

    async fn act(step: StartSteps, context: &Context<'_, Plan>, _facts: &mut Facts) -> Result<Outcome, Error> {
        match step {
            StartSteps::Launch => {
                let agent = context.world.agent(&context.plan.server).await?;
                let ms = agent.start_tenant(&context.call("launch"), StartMode::Serve).await?;
                Ok(Outcome::note(format!("healthy after {ms} ms")))
            }
            StartSteps::Commit => Ok(Outcome { message: "running".into(), tenant: running(context, true) }),
        }
    }

    async fn undo(
        step: StartSteps,
        context: &Context<'_, Plan>,
        _facts: &mut Facts,
        _begun: &[StartSteps],
    ) -> Result<Outcome, Error> {
        stopped_as_before(context, (step == StartSteps::Launch).then_some("launch")).await
    }

    fn on_failure(context: &Context<'_, Plan>) -> Option<TenantUpdate> {
        Some(TenantUpdate::generation(context.tenant().clone(), context.fence.undo_generation))
    }

    fn hint(_step: StartSteps, _undoing: bool, context: &Context<'_, Plan>) -> String {
        format!("featherctl server show {}", context.plan.server)
    }
}

#[async_trait]
impl Procedure for Restart {
    type Step = RestartSteps;
    type Subject = TenantName;
    type Plan = Plan;
    type Facts = Facts;

    async fn act(step: RestartSteps, context: &Context<'_, Plan>, _facts: &mut Facts) -> Result<Outcome, Error> {
        match step {
            RestartSteps::Relaunch => {
                let agent = context.world.agent(&context.plan.server).await?;
                let ms = agent.restart_tenant(&context.call("relaunch")).await?;
                Ok(Outcome::note(format!("healthy after {ms} ms")))
            }
            RestartSteps::Commit => Ok(Outcome { message: "running".into(), tenant: running(context, true) }),
        }
    }

    async fn undo(
        step: RestartSteps,
        context: &Context<'_, Plan>,
        _facts: &mut Facts,
        _begun: &[RestartSteps],
    ) -> Result<Outcome, Error> {
        stopped_as_before(context, (step == RestartSteps::Relaunch).then_some("relaunch")).await
    }

    fn on_failure(context: &Context<'_, Plan>) -> Option<TenantUpdate> {
        Some(TenantUpdate::generation(context.tenant().clone(), context.fence.undo_generation))
    }

    fn hint(_step: RestartSteps, _undoing: bool, context: &Context<'_, Plan>) -> String {
        format!("featherctl server show {}", context.plan.server)
    }
}

#[async_trait]
impl Procedure for Stop {
    type Step = StopSteps;
    type Subject = TenantName;
    type Plan = Plan;
    type Facts = Facts;

    async fn act(step: StopSteps, context: &Context<'_, Plan>, _facts: &mut Facts) -> Result<Outcome, Error> {
        match step {
            StopSteps::Commit => Ok(Outcome { message: "should not run".into(), tenant: running(context, false) }),
            StopSteps::Halt => {
                let agent = context.world.agent(&context.plan.server).await?;
                ended(agent.stop_tenant(&context.call("halt"), StopReason::Operator).await)?;
                Ok(Outcome::note("its process has ended"))
            }
        }
    }

    async fn undo(
        _step: StopSteps,
        _context: &Context<'_, Plan>,
        _facts: &mut Facts,
        _begun: &[StopSteps],
    ) -> Result<Outcome, Error> {
        Ok(Outcome::default())
    }

    fn hint(_step: StopSteps, _undoing: bool, context: &Context<'_, Plan>) -> String {
        format!("featherctl server show {}", context.plan.server)
    }
}
