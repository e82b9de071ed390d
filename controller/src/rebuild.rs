//! A store that is lost is learned again from the agents, which have known all along what lives where.
//!
//! Owns the order: ask everybody, judge ([`decide`], pure), and only on request take the lead, ask once more under it, give back
//! moves that nobody will end, and write everything in one transaction. Starts and stops nobody, and deletes no data.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use feather_proto::{
    error::Error as WireError,
    ids::{ServerName, TenantName},
    tls::Principal,
};
use futures::{StreamExt as _, stream};
use serde_json::json;

use crate::{
    agents::{Agents, Call},
    audit::Entry,
    events,
    store::{self, Learned, ServerRow, Stood, Store},
    world::Clock,
};

pub mod decide;
mod said;
mod show;
mod ways;

pub use decide::{Answer, Finding, Half, Member, Plan};
pub use said::{Assigned, Named, Said, read_agents};
pub use show::{json, text};

/// Agents that are asked beside each other.
const PARALLEL: usize = 32;
/// Nobody else leads on a shared store for so long.
const LEAD: Duration = Duration::from_secs(120);
/// What the audit log calls it.
const CALLED: &str = "feather-controller rebuild";

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is something in it.
    #[error(
        "the store holds a fleet, and a rebuild never overwrites one; `feather-controller serve` goes on with it, `feather-controller restore` \
         puts a backup in its place, and another --store is empty"
    )]
    NotBlank,
    /// A person has to settle something first.
    #[error("nothing was written: settle first what is marked with `!`")]
    Unsettled(Box<Plan>),
    /// Another controller works with this store.
    #[error("a controller at {0} leads on this store; stop it first")]
    Led(String),
    /// What had come of a move cannot be given back.
    #[error(
        "nothing was written: the move of {tenant} to {server} could not be given back; run the same command again"
    )]
    Half {
        /// Where.
        server: ServerName,
        /// Whose.
        tenant: TenantName,
        /// What its agent says.
        source: Box<WireError>,
    },
    /// The store does not do it.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// What a rebuild acts on.
pub struct Seams {
    /// Ways to agents, under the lead of the store that is to be filled.
    pub agents: Arc<dyn Agents>,
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
}

/// Asks everybody and judges. Changes nothing anywhere.
pub async fn plan(seams: &Seams, said: &Said) -> Plan {
    let ask = said.agents.iter().map(|named| async move { (named.name.clone(), ask(seams, named).await) });
    let answers: BTreeMap<ServerName, Answer> = stream::iter(ask).buffer_unordered(PARALLEL).collect().await;
    decide::decide(said, &answers, seams.clock.now())
}

async fn ask(seams: &Seams, named: &Named) -> Answer {
    let asked = async {
        let agent = seams.agents.agent(&named.name, &Principal::agent(&named.name), &named.address)?;
        let snapshot = agent.snapshot().await?;
        match agent.heeded().await {
            Ok(heeded) => Ok((snapshot, Some(heeded))),
            // It may know the answer and be away by now; one of another version says that it does not know the question.
            Err(error) if error.code.retryable() => Err(error),
            Err(_) => Ok((snapshot, None)),
        }
    };
    match asked.await {
        Ok((snapshot, heeded)) => Answer::Heard(Box::new(snapshot), heeded),
        Err(error) => Answer::Silent(error.message),
    }
}

/// Is there nothing in this store that would be overwritten?
///
/// # Errors
/// [`Error::NotBlank`].
pub async fn require_blank(store: &Store) -> Result<(), Error> {
    if store.is_blank().await? { Ok(()) } else { Err(Error::NotBlank) }
}

fn settled(plan: Plan) -> Result<Plan, Error> {
    if plan.stops().next().is_some() {
        return Err(Error::Unsettled(Box::new(plan)));
    }
    Ok(plan)
}

/// Fills an empty store with what is so now. Cut off anywhere it may be done again; until its last step nothing is in the store.
///
/// # Errors
/// See [`Error`]. Nothing was written then.
pub async fn apply(seams: &Seams, store: &Store, said: &Said) -> Result<Plan, Error> {
    require_blank(store).await?;
    let first = settled(plan(seams, said).await)?;
    lead(store, first.lead).await?;
    // Under the lead: whatever a controller of before still does has ended at every server before that one answers now.
    let plan = settled(plan(seams, said).await)?;
    for half in &plan.halves {
        give_back(seams, said, half).await?;
    }
    write(store, &plan, seams.clock.now()).await?;
    Ok(plan)
}

/// Takes the lead of the store, above all that agents have met.
async fn lead(store: &Store, met: i64) -> Result<(), Error> {
    match store.lead_above(met, CALLED, LEAD).await? {
        Stood::Leads(lead) => tracing::info!(lead, "a rebuild leads"),
        Stood::Follows { leader, .. } => return Err(Error::Led(leader)),
    }
    Ok(())
}

/// What had come to a server goes, but for its data: the original is where the tenant lives.
async fn give_back(seams: &Seams, said: &Said, half: &Half) -> Result<(), Error> {
    let failed =
        |source| Error::Half { server: half.server.clone(), tenant: half.tenant.clone(), source: Box::new(source) };
    let named = said.agents.iter().find(|named| named.name == half.server);
    let Some(named) = named else { return Ok(()) };
    let call = Call { request_id: uuid::Uuid::new_v4(), tenant: half.tenant.clone(), generation: half.generation };
    let agent = seams.agents.agent(&named.name, &Principal::agent(&named.name), &named.address).map_err(failed)?;
    agent.abandon(&call, true).await.map_err(failed)
}

async fn write(store: &Store, plan: &Plan, now: time::OffsetDateTime) -> Result<(), Error> {
    let members: Vec<ServerRow> = plan.members.iter().map(|member| member.row.clone()).collect();
    let names: Vec<&str> = members.iter().map(|row| row.name.as_str()).collect();
    let entry = Entry {
        at: now,
        caller: Principal::controller().to_string(),
        address: String::new(),
        rpc: CALLED.to_owned(),
        arguments: json!({ "servers": names, "tenants": plan.tenants.len() }).to_string(),
        code: "OK".to_owned(),
        reason: String::new(),
        operation: String::new(),
    };
    let message =
        format!("the store was learned again from {} servers; it holds {} tenants", names.len(), plan.tenants.len());
    let event = events::of("store", "store-rebuilt", message, now);
    let learned = Learned {
        members: &members,
        tenants: &plan.tenants,
        refused: &plan.refused,
        ingress: plan.ingress.as_ref(),
        former: &plan.former,
        entry: &entry,
        event: &event,
    };
    Ok(store.learn_anew(&learned).await?)
}
