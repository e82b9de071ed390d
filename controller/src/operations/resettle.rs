//! Moves everybody away from a server, or brings home those that were sent away: a drain and a return.
//!
//! Each tenant's move is an operation of its own, with its own undo and point of no return; this one begins them, some at once, waits
//! for them, and says at its end what became of each. What is next for a tenant is decided by [`next`], a pure function of what the
//! store says. A move's request id follows from this operation's id and the tenant, and the store begins it only as long as this
//! operation runs: one that is resumed finds what it began, and one that is cancelled begins nothing behind its own back.
//!
//! Cancelled, it takes back what is under way and gives the server the cordon it had; what was moved stays where it is. One that could not
//! move everybody fails, and leaves the cordon as it set it: whoever repeats it goes on.

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;
use feather_proto::{
    error::{Error, reason},
    ids::{ServerName, TenantName},
};
use futures::{FutureExt as _, future::join_all};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::{
    Context, Kind, Outcome, Procedure, State, Step,
    each::{self, LOOK_AGAIN, Seen},
};
use crate::{
    intent::{Destination, Flow, Move, Part, Request},
    store::{OperationRow, TenantState},
    upkeep::{self, Edit},
};

mod standing;

pub use standing::{End, Next, Told, Way, next};
pub(super) use standing::{ended, so_far as told_so_far};

/// How long a move that is stuck is waited for when all others have ended and no deadline was given.
const STUCK_PATIENCE: Duration = Duration::from_secs(600);
/// What is decided beforehand.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// The server that is emptied, or whose tenants come home.
    pub server: ServerName,
    /// Which of the two.
    pub way: Way,
    /// Who, in the order in which they are moved.
    pub tenants: Vec<TenantName>,
    /// Where to, instead of wherever placement says. Only for a drain.
    pub to: Option<ServerName>,
    /// Moves at once.
    pub parallel: u8,
    /// The way that the data of each takes.
    #[serde(default)]
    pub flow: Flow,
    /// From then on no more moves begin, in milliseconds since 1970.
    pub deadline_ms: Option<i64>,
    /// Was it cordoned before?
    pub cordoned_before: bool,
    /// Who asked.
    pub requested_by: String,
}

/// What the steps find out.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Facts {
    /// What became of each, once all were dealt with.
    pub told: Vec<Told>,
    /// All were dealt with, whatever became of them.
    pub dealt_with: bool,
}

/// The steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steps {
    /// A drain closes the server for new tenants, a return opens it: first, so that nobody comes in while others go out, and so that
    /// those who come home may come in.
    Cordon,
    /// The moves, all of them operations of their own.
    Moves,
    /// Everybody is where they should be.
    Tell,
}

impl Step for Steps {
    const ALL: &'static [Self] = &[Steps::Cordon, Steps::Moves, Steps::Tell];
    const POINT_OF_NO_RETURN: Self = Steps::Tell;

    fn name(self) -> &'static str {
        match self {
            Steps::Cordon => "cordon",
            Steps::Moves => "moves",
            Steps::Tell => "tell",
        }
    }
}

/// The kind.
pub struct Resettle;

type About<'a> = Context<'a, Plan, ServerName>;

#[async_trait]
impl Procedure for Resettle {
    type Step = Steps;
    type Subject = ServerName;
    type Plan = Plan;
    type Facts = Facts;

    async fn act(step: Steps, context: &About<'_>, facts: &mut Facts) -> Result<Outcome, Error> {
        let server = &context.plan.server;
        match step {
            Steps::Cordon => {
                let drained = context.plan.way == Way::Drain;
                set_cordon(context, drained).await?;
                let takes = if drained { "takes no new tenants" } else { "takes new tenants" };
                Ok(Outcome::note(format!("{server} {takes}")))
            }
            Steps::Moves => {
                facts.told = move_all(context).await?;
                facts.dealt_with = true;
                standing::verdict(&facts.told).map(Outcome::note)
            }
            Steps::Tell => Ok(Outcome::note(match context.plan.way {
                Way::Drain => format!("nobody lives on {server}"),
                Way::Return => format!("everybody who was sent away from {server} is home"),
            })),
        }
    }

    async fn undo(step: Steps, context: &About<'_>, facts: &mut Facts, _begun: &[Steps]) -> Result<Outcome, Error> {
        match step {
            Steps::Moves if !facts.dealt_with => {
                facts.told = take_back(context).await?;
                Ok(Outcome::note("no more moves begin, those under way were taken back where they could be"))
            }
            Steps::Cordon if !facts.dealt_with => {
                set_cordon(context, context.plan.cordoned_before).await?;
                let takes = if context.plan.cordoned_before { "takes no new tenants" } else { "takes new tenants" };
                Ok(Outcome::note(format!("{} {takes}, as before", context.plan.server)))
            }
            Steps::Cordon | Steps::Moves | Steps::Tell => Ok(Outcome::default()),
        }
    }

    fn hint(_step: Steps, _undoing: bool, context: &About<'_>) -> String {
        format!("featherctl server show {}", context.plan.server)
    }
}

async fn set_cordon(context: &About<'_>, cordoned: bool) -> Result<(), Error> {
    loop {
        match upkeep::edit(context.world, &context.plan.server, &Edit::Cordon(cordoned), false).await {
            // Somebody set a label at the same moment.
            Err(error) if error.is(reason::WORLD_CHANGED) => {}
            other => return other.map(drop),
        }
    }
}

/// Deals with everybody, some at once; those that come to live there meanwhile by operations from before the cordon too.
async fn move_all(context: &About<'_>) -> Result<Vec<Told>, Error> {
    let turn = Mutex::new(());
    let deal = |tenant| deal_with(context, &turn, tenant, Patience::UntilStuck);
    let (first, more) = (context.plan.tenants.clone(), |told| newcomers(context, told));
    let mut told = each::deal_with_all(context.plan.parallel, first, deal, more).await?;
    // One that is stuck keeps nobody, but has its time to come unstuck.
    let patience = Patience::Until(tokio::time::Instant::now() + STUCK_PATIENCE);
    let stuck: Vec<_> = told.values().filter(|one| one.end == End::Stuck).map(|one| one.tenant.clone()).collect();
    let moves: Vec<_> = stuck.into_iter().map(|tenant| deal_with(context, &turn, tenant, patience).boxed()).collect();
    for one in join_all(moves).await {
        let one = one?;
        told.insert(one.tenant.clone(), one);
    }
    Ok(told.into_values().collect())
}

/// Who lives there, or is on the way there, and was not dealt with.
async fn newcomers(context: &About<'_>, told: BTreeSet<TenantName>) -> Result<Vec<TenantName>, Error> {
    if context.plan.way == Way::Return {
        return Ok(Vec::new());
    }
    let (server, store) = (&context.plan.server, &context.world.store);
    let rows = store.tenants().await?;
    let living = rows.iter().filter(|row| row.state == TenantState::Active && row.server.as_ref() == Some(server));
    let running = store.unfinished_operations().await?;
    let coming =
        running.iter().filter(|one| one.target.as_ref() == Some(server)).filter_map(|one| one.subject.tenant());
    let mut all: Vec<_> =
        living.map(|row| &row.name).chain(coming).filter(|name| !told.contains(*name)).cloned().collect();
    all.sort();
    all.dedup();
    Ok(all)
}

/// How long a stuck move is waited for.
#[derive(Debug, Clone, Copy)]
enum Patience {
    UntilStuck,
    Until(tokio::time::Instant),
}

impl Patience {
    fn is_over(self) -> bool {
        match self {
            Patience::UntilStuck => true,
            Patience::Until(end) => tokio::time::Instant::now() >= end,
        }
    }
}

/// Moves one tenant, as [`next`] says.
async fn deal_with(
    context: &About<'_>,
    turn: &Mutex<()>,
    tenant: TenantName,
    patience: Patience,
) -> Result<Told, Error> {
    let look = || look(context, &tenant, patience);
    match each::until_told(context.world, look, || begin(context, turn, &tenant)).await? {
        Ok(told) => Ok(told),
        Err(error) => {
            let home = context.world.store.tenant(&tenant).await?.and_then(|row| row.server);
            Ok(Told::left(tenant, home, error.message))
        }
    }
}

async fn look(context: &About<'_>, tenant: &TenantName, patience: Patience) -> Result<Next, Error> {
    let Seen { row, child, held, fleet_unknown } = each::see(context, tenant).await?;
    let late = context.plan.deadline_ms.is_some_and(|deadline| context.now() >= deadline);
    let now = standing::Now {
        tenant: tenant.clone(),
        home: row.as_ref().and_then(|row| row.server.clone()),
        lives: row.is_some_and(|row| row.state == TenantState::Active),
        child,
        held,
        fleet_unknown,
        late,
        given_up: late || patience.is_over(),
    };
    Ok(next(&context.plan.server, context.plan.way, &now))
}

/// Begins the move of one tenant. Repeated, it begins nothing twice.
async fn begin(context: &About<'_>, turn: &Mutex<()>, tenant: &TenantName) -> Result<(), Error> {
    // One after the other: the next one is placed when the room of this one is known to be taken.
    let _turn = turn.lock().await;
    let plan = context.plan;
    let request = Request {
        request_id: context.request_id(&format!("move/{tenant}")),
        tenant: tenant.clone(),
        requested_by: plan.requested_by.clone(),
        dry_run: false,
    };
    let to = match (plan.way, &plan.to) {
        (Way::Drain, None) => Destination::Placement,
        (Way::Drain, Some(server)) => Destination::IfAllowed(server.clone()),
        (Way::Return, _) => Destination::Server(plan.server.clone()),
    };
    let part = Part { operation: context.id.clone(), sends_away: plan.way == Way::Drain };
    context.intent().migrate(&request, &Move { part: Some(part), flow: plan.flow, ..Move::to(to) }).await.map(drop)
}

/// Takes back what is under way, as far as it can be, and waits for its end.
async fn take_back(context: &About<'_>) -> Result<Vec<Told>, Error> {
    let mut operations = context.world.volatile.subscribe();
    loop {
        operations.mark_unchanged();
        let children = context.world.store.children(context.id).await?;
        let mut going_on = false;
        for child in children.iter().filter(|one| matches!(one.state, State::Running | State::Undoing)) {
            going_on = true;
            if child.state == State::Running {
                // Past its point of no return it says no, and is waited for.
                drop(context.engine.cancel(&child.id).await);
            }
        }
        if !going_on {
            return Ok(children.into_iter().filter_map(standing::ended).collect());
        }
        tokio::select! {
            _ = operations.changed() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}

/// What became of each so far: what the facts say, and of the others what their moves do.
pub fn so_far(row: &OperationRow, children: Vec<OperationRow>) -> Vec<Told> {
    if !matches!(row.kind, Kind::Drain | Kind::Return) {
        return Vec::new();
    }
    let plan: Option<Plan> = serde_json::from_value(row.plan.clone()).ok();
    let facts: Facts = serde_json::from_value(row.facts.clone()).unwrap_or_default();
    let planned = plan.map(|plan| plan.tenants).unwrap_or_default();
    standing::so_far(planned, facts.told, children)
}

impl About<'_> {
    fn now(&self) -> i64 {
        i64::try_from(self.world.clock.now().unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
    }
}
