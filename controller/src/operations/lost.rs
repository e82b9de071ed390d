//! A server that is dead and will not come back: it is taken out of the fleet with everybody who lived on it, and each of them is brought
//! back elsewhere with what is left of its data.
//!
//! Each tenant's recovery is an operation of its own ([`super::recover`]); this one begins them, some at once, waits for them, and says at
//! its end what became of each. Past its first step there is no way back, as there is none for the server; one tenant that cannot be
//! brought back keeps nobody. What is next for a tenant is decided by `next`, pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use async_trait::async_trait;
use feather_proto::{
    error::{Error, reason},
    ids::{ServerName, TenantName},
};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::{
    Context, Outcome, Procedure, Step,
    each::{self, Seen},
    recover,
    resettle::{self, End, Next, Told},
};
use crate::{
    fleet::Reachability,
    intent::{Recovery, Request},
    recovery::Wish,
    store::{OperationRow, TenantState},
};

/// How long an operation from before that holds a tenant is waited for.
const HELD_PATIENCE: Duration = Duration::from_secs(600);
/// What is decided beforehand.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// The server.
    pub server: ServerName,
    /// Who lived there, in the order in which they are brought back.
    pub tenants: Vec<TenantName>,
    /// Recoveries at once.
    pub parallel: u8,
    /// With which data.
    pub wish: Wish,
    /// Where those that come from a backup go, instead of wherever placement says.
    pub to: Option<ServerName>,
    /// Who asked.
    pub requested_by: String,
}

/// What the steps find out.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Facts {
    /// What became of each, once all were dealt with.
    pub told: Vec<Told>,
}

/// The steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steps {
    /// Out of the fleet: certificates refused, generations higher. First, so that nothing is started elsewhere before; and the point of no
    /// return, because its agent stops everybody when it hears of it.
    Fence,
    /// The recoveries, all of them operations of their own.
    Recover,
}

impl Step for Steps {
    const ALL: &'static [Self] = &[Steps::Fence, Steps::Recover];
    const POINT_OF_NO_RETURN: Self = Steps::Fence;

    fn name(self) -> &'static str {
        match self {
            Steps::Fence => "fence",
            Steps::Recover => "recover",
        }
    }
}

/// The kind.
pub struct Lose;

type About<'a> = Context<'a, Plan, ServerName>;

#[async_trait]
impl Procedure for Lose {
    type Step = Steps;
    type Subject = ServerName;
    type Plan = Plan;
    type Facts = Facts;

    async fn act(step: Steps, context: &About<'_>, facts: &mut Facts) -> Result<Outcome, Error> {
        let server = &context.plan.server;
        match step {
            Steps::Fence => {
                if context.world.fleet.observed(server).reachability == Reachability::Alive {
                    return Err(answers(server));
                }
                context.world.lose_server(server).await?;
                Ok(Outcome::note(format!("{server} is out of the fleet: its agent starts nobody when it comes back")))
            }
            Steps::Recover => {
                facts.told = recover_all(context).await?;
                Ok(Outcome::note(verdict(&facts.told)))
            }
        }
    }

    async fn undo(_step: Steps, _context: &About<'_>, _facts: &mut Facts, _begun: &[Steps]) -> Result<Outcome, Error> {
        Ok(Outcome::default())
    }

    fn hint(_step: Steps, _undoing: bool, _context: &About<'_>) -> String {
        "featherctl server list".to_owned()
    }
}

/// The error for a server that is not dead.
pub fn answers(server: &ServerName) -> Error {
    Error::refused(
        reason::WRONG_STATE,
        format!(
            "{server} answers, so it is not lost: empty it with `featherctl server drain {server}`, then `featherctl server retire {server}`"
        ),
    )
    .with("server", server)
}

fn verdict(told: &[Told]) -> String {
    let count = |end| told.iter().filter(|one| one.end == end).count();
    let (recovered, lost, left) = (count(End::Recovered), count(End::Lost), count(End::Left));
    format!("{recovered} brought back, {lost} without any data left, {left} not brought back yet")
}

/// Deals with everybody, some at once; also those that come to live there meanwhile by operations from before.
async fn recover_all(context: &About<'_>) -> Result<Vec<Told>, Error> {
    let (turn, patience) = (Mutex::new(()), tokio::time::Instant::now() + HELD_PATIENCE);
    let first = concerned(context, BTreeSet::new()).await?;
    let deal = |tenant| deal_with(context, &turn, tenant, patience);
    let told = each::deal_with_all(context.plan.parallel, first, deal, |told| concerned(context, told)).await?;
    Ok(told.into_values().collect())
}

/// Who lived there, and who was on the way from there or to there and may live there at the end of that; without those dealt with.
async fn concerned(context: &About<'_>, told: BTreeSet<TenantName>) -> Result<Vec<TenantName>, Error> {
    let (server, store) = (&context.plan.server, &context.world.store);
    let rows = store.tenants().await?;
    let lived = rows.iter().filter(|row| row.state == TenantState::Active && row.server.as_ref() == Some(server));
    let running = store.unfinished_operations().await?;
    let about = running.iter().filter(|one| one.source.as_ref() == Some(server) || one.target.as_ref() == Some(server));
    let moving = about.filter_map(|one| one.subject.tenant());
    let mut all: Vec<_> =
        context.plan.tenants.iter().chain(lived.map(|row| &row.name)).chain(moving).cloned().collect();
    let mut seen = BTreeSet::new();
    all.retain(|name| !told.contains(name) && seen.insert(name.clone()));
    Ok(all)
}

/// What the store says of a tenant.
#[derive(Debug, Clone)]
struct Now {
    tenant: TenantName,
    /// It lives on the lost server.
    lost: bool,
    /// Its recovery, if it has begun.
    child: Option<OperationRow>,
    /// An operation from before holds it.
    held: bool,
    /// That is not waited for any longer.
    given_up: bool,
    /// Of some server nobody knows yet how it is: the controller has just started.
    fleet_unknown: bool,
}

/// What is next for a tenant.
fn next(now: &Now) -> Next {
    let told = |end, why: &str| Told { end, ..Told::left(now.tenant.clone(), None, why.to_owned()) };
    if let Some(child) = &now.child {
        return ended(child.clone()).map_or(Next::Wait, Next::Tell);
    }
    match () {
        () if now.held && now.given_up => Next::Tell(told(End::Left, "another operation holds it")),
        () if now.held => Next::Wait,
        () if !now.lost => Next::Tell(told(End::Elsewhere, "")),
        () if now.fleet_unknown => Next::Wait,
        () => Next::Begin,
    }
}

/// What became of a recovery, if it has come to an end or is stuck.
fn ended(child: OperationRow) -> Option<Told> {
    let plan: Option<recover::Plan> = serde_json::from_value(child.plan.clone()).ok();
    let told = resettle::ended(child)?;
    let data = plan.map(|plan| plan.data.told(None)).unwrap_or_default();
    let (end, why) = match told.end {
        End::Moved => (End::Recovered, data),
        end => (end, told.why),
    };
    Some(Told { end, why, ..told })
}

async fn deal_with(
    context: &About<'_>,
    turn: &Mutex<()>,
    tenant: TenantName,
    patience: tokio::time::Instant,
) -> Result<Told, Error> {
    let look = || look(context, &tenant, patience);
    match each::until_told(context.world, look, || begin(context, turn, &tenant)).await? {
        Ok(told) => Ok(told),
        Err(error) => {
            let end = if error.is(reason::DATA_MISSING) { End::Lost } else { End::Left };
            Ok(Told { end, ..Told::left(tenant, Some(context.plan.server.clone()), error.message) })
        }
    }
}

async fn look(context: &About<'_>, tenant: &TenantName, patience: tokio::time::Instant) -> Result<Next, Error> {
    let Seen { row, child, held, fleet_unknown } = each::see(context, tenant).await?;
    let lost =
        row.is_some_and(|row| row.state == TenantState::Active && row.server.as_ref() == Some(&context.plan.server));
    let given_up = tokio::time::Instant::now() >= patience;
    Ok(next(&Now { tenant: tenant.clone(), lost, child, held, given_up, fleet_unknown }))
}

/// Begins the recovery of one tenant. Repeated, it begins nothing twice.
async fn begin(context: &About<'_>, turn: &Mutex<()>, tenant: &TenantName) -> Result<(), Error> {
    // One after the other: the next one is placed when the room of this one is known to be taken.
    let _turn = turn.lock().await;
    let plan = context.plan;
    let request = Request {
        request_id: context.request_id(&format!("recover/{tenant}")),
        tenant: tenant.clone(),
        requested_by: plan.requested_by.clone(),
        dry_run: false,
    };
    let wanted = Recovery { wish: plan.wish, to: plan.to.clone(), part_of: Some(context.id.clone()) };
    context.intent().recover(&request, &wanted).await.map(drop)
}

/// What became of each so far: what the facts say, and of the others what their recoveries do.
pub fn so_far(row: &OperationRow, children: Vec<OperationRow>) -> Vec<Told> {
    let plan: Option<Plan> = serde_json::from_value(row.plan.clone()).ok();
    let facts: Facts = serde_json::from_value(row.facts.clone()).unwrap_or_default();
    let planned = plan.map(|plan| plan.tenants).unwrap_or_default();
    let recovered: BTreeMap<_, _> =
        children.iter().filter_map(|one| ended(one.clone())).map(|one| (one.tenant.clone(), one)).collect();
    let so_far = resettle::told_so_far(planned, facts.told, children);
    so_far.into_iter().map(|one| recovered.get(&one.tenant).cloned().unwrap_or(one)).collect()
}

#[cfg(test)]
mod tests {
    use super::{End, Next, Now, next, verdict};
    use crate::operations::resettle::Told;

    fn now() -> Now {
        Now {
            tenant: "alice".parse().unwrap(),
            lost: true,
            child: None,
            held: false,
            given_up: false,
            fleet_unknown: false,
        }
    }

    #[test]
    fn a_tenant_is_brought_back_once_nothing_else_holds_it_and_the_fleet_is_known() {
        assert_eq!(next(&now()), Next::Begin);
        assert_eq!(next(&Now { fleet_unknown: true, ..now() }), Next::Wait, "a copy may be where nobody has looked");
        assert_eq!(next(&Now { held: true, ..now() }), Next::Wait);
        let told = |now| match next(&now) {
            Next::Tell(told) => told.end,
            other => panic!("{other:?}"),
        };
        assert_eq!(told(Now { held: true, given_up: true, ..now() }), End::Left);
        assert_eq!(told(Now { lost: false, ..now() }), End::Elsewhere);
    }

    #[test]
    fn the_end_counts_who_is_back_and_who_is_not() {
        let one = |end| Told { end, ..Told::left("alice".parse().unwrap(), None, String::new()) };
        let told = [one(End::Recovered), one(End::Recovered), one(End::Lost), one(End::Left), one(End::Elsewhere)];
        assert_eq!(verdict(&told), "2 brought back, 1 without any data left, 1 not brought back yet");
    }
}
