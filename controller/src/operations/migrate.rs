//! Moves a tenant with its data to another server.
//!
//! Before the commit every step can be taken back, in reverse order, and the tenant runs again where it was. After it the move
//! is only driven forward. At every moment at most one copy may run:
//!
//! - the target starts its copy only after the source said, durably, that its own is sealed and has ended;
//! - the source starts again only under a higher generation, and only after the target said that it runs nothing any more
//!   (or was never asked to start anything).
//!
//! At every moment at least one server has the data: what the target received is deleted only after the source has said that it
//! runs again (or is stopped as it was).

mod measured;
mod passes;
mod prediction;
mod rounds;

use async_trait::async_trait;
use feather_proto::{
    error::{Code, Error, reason},
    ids::{Generation, OperationId, ServerName, TenantName},
    model::{StartMode, StopReason, VolumeSummary},
};
use serde::{Deserialize, Serialize};
use time::Duration;

use super::{Context, Outcome, Procedure, Step};
use crate::store::{SentAway, TenantState, TenantUpdate};
pub use measured::Measured;
pub use prediction::{Ahead, Past, Prediction, predict};
pub use rounds::Round;

/// What is decided beforehand.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Where it lives.
    pub source: ServerName,
    /// Where it goes.
    pub target: ServerName,
    /// Image that it runs; the target must have it.
    pub image_digest: String,
    /// Generation of the placement that is to be sealed.
    pub source_generation: Generation,
    /// Bytes of its volume on disk when the plan was made.
    pub volume_bytes: u64,
    /// False: it is stopped by its operator, and stays so.
    pub running: bool,
    /// How long the source's copy is kept.
    pub keep_source_seconds: u64,
    /// What goes between both servers in a second at most, in every pass.
    #[serde(default)]
    pub bytes_per_second_max: Option<u64>,
    /// The controller stands between both agents.
    #[serde(default)]
    pub relayed: bool,
    /// What it will take, judged by moves before it.
    #[serde(default)]
    pub predicted: Option<Prediction>,
    /// The drain that sends it away, so that a return brings it home.
    #[serde(default)]
    pub sent_away_by: Option<OperationId>,
}

/// What the steps find out.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Facts {
    /// Port on the target.
    pub port: Option<u16>,
    /// When the stop began, in milliseconds since 1970.
    pub stopped_ms: Option<i64>,
    /// When both routes led to the target.
    pub released_ms: Option<i64>,
    /// When it ran again on the source, if the move was undone.
    #[serde(default)]
    pub restarted_ms: Option<i64>,
    /// How long the source held requests, as its gate measured it.
    #[serde(default)]
    pub held_ms: Option<u64>,
    /// Passes while the tenant ran.
    #[serde(default)]
    pub rounds: Vec<Round>,
    /// Why there were no more of them.
    #[serde(default)]
    pub rounds_ended: Option<String>,
    /// The pass behind the stop.
    #[serde(default)]
    pub last_pass: Option<Round>,
    /// The source's volume, read again after the stop.
    pub source: Option<VolumeSummary>,
    /// The target's volume, read again after the transfer.
    pub target: Option<VolumeSummary>,
}

/// The steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steps {
    /// Looks once more whether the plan still fits. First, because nothing has been touched yet.
    Plan,
    /// Holds port and disk on the target. Before the stop, because a target that refuses must not cost an outage.
    Reserve,
    /// Copies what there is while the tenant runs, so that little is left to copy while it does not. Behind the reservation,
    /// which has made room for it.
    Precopy,
    /// Seals the source: durable before its process ends, so that no reboot starts it again.
    Stop,
    /// Agent to agent. Behind the stop, so that what is copied no longer changes.
    Transfer,
    /// Both ends say what they found at their last look at everything on disk, and look again where anything can have happened
    /// since. Apart from the transfer, because it proves what lies on disk, not what went over the wire.
    Verify,
    /// The target's copy must run and answer before anyone depends on it; no public request reaches it yet.
    Start,
    /// The tenant lives on the target. Point of no return: one store transaction.
    Commit,
    /// First the target serves in public, then the source forwards: until then requests wait at the source's gate, and never
    /// reach the wrong copy.
    Release,
    /// The record follows the tenant. Behind the release, because forwarding covers stale DNS.
    Dns,
    /// The source's container goes; its volume stays as the undo copy.
    Retire,
}

impl Step for Steps {
    const ALL: &'static [Self] = &[
        Steps::Plan,
        Steps::Reserve,
        Steps::Precopy,
        Steps::Stop,
        Steps::Transfer,
        Steps::Verify,
        Steps::Start,
        Steps::Commit,
        Steps::Release,
        Steps::Dns,
        Steps::Retire,
    ];
    const POINT_OF_NO_RETURN: Self = Steps::Commit;

    fn name(self) -> &'static str {
        match self {
            Steps::Plan => "plan",
            Steps::Reserve => "reserve",
            Steps::Precopy => "pre-copy",
            Steps::Stop => "stop",
            Steps::Transfer => "transfer",
            Steps::Verify => "verify",
            Steps::Start => "start",
            Steps::Commit => "commit",
            Steps::Release => "release",
            Steps::Dns => "dns",
            Steps::Retire => "retire",
        }
    }
}

/// The kind.
pub struct Migrate;

#[async_trait]
impl Procedure for Migrate {
    type Step = Steps;
    type Subject = TenantName;
    type Plan = Plan;
    type Facts = Facts;

    async fn act(step: Steps, context: &Context<'_, Plan>, facts: &mut Facts) -> Result<Outcome, Error> {
        let (world, plan) = (context.world, context.plan);
        match step {
            Steps::Plan => recheck(context).await,
            Steps::Reserve => {
                let target = world.agent(&plan.target).await?;
                let port = target.reserve(&context.call("reserve"), &plan.image_digest, plan.volume_bytes).await?;
                facts.port = Some(port);
                Ok(Outcome::note(format!("port {port} and {} bytes of disk on {}", plan.volume_bytes, plan.target)))
            }
            Steps::Precopy => passes::precopy(context, facts).await,
            Steps::Stop => stop(context, facts).await,
            Steps::Transfer => passes::transfer(context, facts).await,
            Steps::Verify => passes::verify(context, facts).await,
            Steps::Start => start(context).await,
            Steps::Commit => Ok(commit(context)),
            Steps::Release => release(context, facts).await,
            Steps::Dns => super::engine::settle_dns(world).await,
            Steps::Retire => retire(context).await,
        }
    }

    async fn undo(
        step: Steps,
        context: &Context<'_, Plan>,
        facts: &mut Facts,
        begun: &[Steps],
    ) -> Result<Outcome, Error> {
        match step {
            // The target must run nothing before the source may start again, if it was ever asked to start its copy. Its data
            // stays until the source has said that it runs: if the source has lost its own, this is the only one.
            Steps::Start => abandon(context, "start", true).await,
            Steps::Stop => restart_source(context, facts).await,
            // A lost source has no data any more: what has come over of it, whole or not, is not deleted by this.
            Steps::Reserve => {
                let keeps = world_without(context, &context.plan.source).await?;
                abandon(context, "reserve", keeps).await
            }
            // What was received goes with the reservation, behind the source's restart: its users must not wait for a target
            // that may be gone.
            Steps::Precopy | Steps::Transfer | Steps::Verify => {
                debug_assert!(begun.contains(&Steps::Reserve), "a transfer without a reservation");
                Ok(Outcome::default())
            }
            Steps::Plan | Steps::Commit | Steps::Release | Steps::Dns | Steps::Retire => Ok(Outcome::default()),
        }
    }

    fn on_failure(context: &Context<'_, Plan>) -> Option<TenantUpdate> {
        Some(TenantUpdate::generation(context.tenant().clone(), context.fence.undo_generation))
    }

    fn hint(step: Steps, undoing: bool, context: &Context<'_, Plan>) -> String {
        match (step, undoing) {
            (Steps::Stop | Steps::Retire, _) => format!("featherctl server show {}", context.plan.source),
            // It speaks to both, and either may be the one that does not answer.
            (Steps::Release, false) => "featherctl server list".to_owned(),
            _ => format!("featherctl server show {}", context.plan.target),
        }
    }
}

async fn recheck(context: &Context<'_, Plan>) -> Result<Outcome, Error> {
    let (world, plan) = (context.world, context.plan);
    let row = world.store.require_tenant(context.tenant()).await?;
    if row.server.as_ref() != Some(&plan.source) || row.running != plan.running {
        return Err(crate::store::world_changed(context.tenant()));
    }
    for server in [&plan.source, &plan.target] {
        world.agent(server).await?.snapshot().await?;
    }
    Ok(Outcome::note(format!("{} -> {}, both reachable", plan.source, plan.target)))
}

async fn stop(context: &Context<'_, Plan>, facts: &mut Facts) -> Result<Outcome, Error> {
    // A resumed stop keeps the first time: users have been waiting since then.
    facts.stopped_ms.get_or_insert_with(|| context.now_ms());
    // Sealed under its own generation: the attempt's generation belongs to the target alone. As it was when the move was planned,
    // so that a driver that lags behind the end of the move cannot seal what runs again.
    let call = crate::agents::Call { generation: context.plan.source_generation, ..context.call("stop") };
    context.world.agent(&context.plan.source).await?.stop_tenant(&call, StopReason::Move).await?;
    Ok(Outcome::note(format!("sealed on {}", context.plan.source)))
}

async fn start(context: &Context<'_, Plan>) -> Result<Outcome, Error> {
    if !context.plan.running {
        return Ok(Outcome::note("stopped by its operator, and stays so"));
    }
    let target = context.world.agent(&context.plan.target).await?;
    let ms = target.start_tenant(&context.call("start"), StartMode::Trial).await?;
    Ok(Outcome::note(format!("healthy on {} after {ms} ms, by its port and by its host name", context.plan.target)))
}

fn commit(context: &Context<'_, Plan>) -> Outcome {
    Outcome {
        message: format!("{} lives on {}", context.tenant(), context.plan.target),
        tenant: Some(TenantUpdate {
            tenant: context.tenant().clone(),
            generation: context.fence.generation,
            state: Some(TenantState::Active),
            server: Some(context.plan.target.clone()),
            previous_server: Some(context.plan.source.clone()),
            running: None,
            sent_away: context.plan.sent_away_by.clone().map(|operation| SentAway {
                home: context.plan.source.clone(),
                operation,
                at_ms: context.now_ms(),
            }),
            homeless: false,
        }),
    }
}

async fn release(context: &Context<'_, Plan>, facts: &mut Facts) -> Result<Outcome, Error> {
    let (world, plan) = (context.world, context.plan);
    let forward_to = match activate(context).await {
        Ok(forward_to) => forward_to,
        // Declared lost behind the commit. What the source holds is the newest that is left: it becomes the undo copy as ever, for whoever
        // brings the tenant back.
        Err(error) if error.is(reason::SERVER_NOT_FOUND) => {
            world.agent(&plan.source).await?.hand_off(&context.call("hand-off"), None).await?;
            return Ok(Outcome::note(format!("{} is lost; the copy on {} stays", plan.target, plan.source)));
        }
        Err(error) => return Err(error),
    };
    let source = world.agent(&plan.source).await?;
    facts.held_ms = source.hand_off(&context.call("hand-off"), Some(&forward_to)).await?.or(facts.held_ms);
    facts.released_ms.get_or_insert_with(|| context.now_ms());
    Ok(Outcome::note(format!("{} serves, {} forwards to {forward_to}", plan.target, plan.source)))
}

/// The target serves it. Returns where requests for it are forwarded to.
async fn activate(context: &Context<'_, Plan>) -> Result<String, Error> {
    let (world, target) = (context.world, &context.plan.target);
    world.agent(target).await?.activate(&context.call("activate"), context.plan.running).await?;
    world.forward_target(target).await?.ok_or_else(|| {
        let message = format!("{target} has not told yet how it takes forwarded requests");
        Error::unavailable(reason::SERVER_UNREACHABLE, message)
    })
}

async fn retire(context: &Context<'_, Plan>) -> Result<Outcome, Error> {
    let keep = Duration::seconds(i64::try_from(context.plan.keep_source_seconds).unwrap_or(i64::MAX));
    let keep_until = context.world.clock.now().checked_add(keep).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let source = context.world.agent(&context.plan.source).await?;
    source.retire(&context.call("retire"), keep_until).await?;
    Ok(Outcome::note(format!("the copy on {} is kept until {}", context.plan.source, keep_until.date())))
}

async fn abandon(context: &Context<'_, Plan>, step: &str, keep_data: bool) -> Result<Outcome, Error> {
    let target = context.world.agent(&context.plan.target).await?;
    // Under the attempt's own generation: it names what is to be given back.
    target.abandon(&context.call(&format!("abandon-{step}")), keep_data).await?;
    let left = if keep_data { "runs nothing of it" } else { "holds nothing of it" };
    Ok(Outcome::note(format!("{} {left}", context.plan.target)))
}

/// Was this server declared lost?
async fn world_without(context: &Context<'_, Plan>, server: &ServerName) -> Result<bool, Error> {
    Ok(context.world.store.server(server).await?.is_none())
}

async fn restart_source(context: &Context<'_, Plan>, facts: &mut Facts) -> Result<Outcome, Error> {
    let source = context.world.agent(&context.plan.source).await?;
    let call = context.undo_call("stop");
    if context.plan.running {
        source.start_tenant(&call, StartMode::Serve).await.map_err(|error| match error.code {
            // It was healthy before the move. Whatever ails it now, going on with the undo would only hide it.
            Code::Refused => {
                error.context(format!("{} does not start again on {}", context.tenant(), context.plan.source))
            }
            // It lost its state. Going on would delete what may be the only copy.
            Code::NotFound => error.context(format!(
                "{} no longer knows {}; what {} received stays there while this move waits for the state of {} to be restored",
                context.plan.source,
                context.tenant(),
                context.plan.target,
                context.plan.source
            )),
            _ => error,
        })?;
        facts.restarted_ms.get_or_insert_with(|| context.now_ms());
        return Ok(Outcome::note(format!("runs again on {}", context.plan.source)));
    }
    source.stop_tenant(&call, StopReason::Operator).await?;
    Ok(Outcome::note(format!("stopped on {} as before", context.plan.source)))
}
