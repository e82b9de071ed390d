//! One operation about many tenants: each is dealt with by an operation of its own, some at once, until nobody is left.
//!
//! Decides nothing: what is next for a tenant its callers say, by pure functions of what is seen here.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use feather_proto::{
    error::{Error, reason},
    ids::{ServerName, TenantName},
};
use futures::{FutureExt as _, StreamExt as _, stream};

use super::{
    Context,
    resettle::{Next, Told},
};
use crate::{
    fleet::Reachability,
    store::{OperationRow, TenantRow},
    world::World,
};

/// What happens unseen (a deadline, a tenant of another controller's operation) is looked for this often.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What the store and the fleet say of one of them.
pub(super) struct Seen {
    pub(super) row: Option<TenantRow>,
    /// Its own operation, if that has begun.
    pub(super) child: Option<OperationRow>,
    /// An operation holds it, that one or another.
    pub(super) held: bool,
    /// Of some server nobody knows yet how it is: the controller has just started.
    pub(super) fleet_unknown: bool,
}

pub(super) async fn see<P>(context: &Context<'_, P, ServerName>, tenant: &TenantName) -> Result<Seen, Error> {
    let store = &context.world.store;
    let child = store.children(context.id).await?.into_iter().find(|one| one.subject.tenant() == Some(tenant));
    let row = store.tenant(tenant).await?;
    let held = store.unfinished_operations().await?.iter().any(|one| one.subject.tenant() == Some(tenant));
    let members = store.servers().await?;
    let unknown = |name| context.world.fleet.observed(name).reachability == Reachability::Connecting;
    Ok(Seen { row, child, held, fleet_unknown: members.iter().any(|row| unknown(&row.name)) })
}

/// Deals with everybody, so many at once; then with those who came in meanwhile, until there are none.
pub(super) async fn deal_with_all<D, M>(
    parallel: u8,
    mut waiting: Vec<TenantName>,
    deal: impl Fn(TenantName) -> D,
    newcomers: impl Fn(BTreeSet<TenantName>) -> M,
) -> Result<BTreeMap<TenantName, Told>, Error>
where
    D: Future<Output = Result<Told, Error>> + Send,
    M: Future<Output = Result<Vec<TenantName>, Error>> + Send,
{
    let mut told: BTreeMap<TenantName, Told> = BTreeMap::new();
    while !waiting.is_empty() {
        let work: Vec<_> = waiting.into_iter().map(|tenant| deal(tenant).boxed()).collect();
        let dealt: Vec<_> = stream::iter(work).buffer_unordered(usize::from(parallel)).collect().await;
        for one in dealt {
            let one = one?;
            told.insert(one.tenant.clone(), one);
        }
        waiting = newcomers(told.keys().cloned().collect()).await?;
    }
    Ok(told)
}

/// Looks, and begins the tenant's operation when that is next, until there is something to tell. The inner error says why it cannot be begun.
pub(super) async fn until_told<L, B>(
    world: &World,
    look: impl Fn() -> L,
    begin: impl Fn() -> B,
) -> Result<Result<Told, Error>, Error>
where
    L: Future<Output = Result<Next, Error>> + Send,
    B: Future<Output = Result<(), Error>> + Send,
{
    let (mut operations, mut seen) = (world.volatile.subscribe(), world.fleet.subscribe());
    let mut tries = 0;
    loop {
        // Marked before the look, so that whatever happens behind it wakes us.
        operations.mark_unchanged();
        seen.mark_unchanged();
        match look().await? {
            Next::Tell(told) => return Ok(Ok(told)),
            Next::Wait => {}
            Next::Begin => match begin().await {
                Ok(()) => continue,
                // Whatever it was is gone or in the store at the next look.
                Err(error) if error.is(reason::OPERATION_RUNNING) || error.is(reason::WORLD_CHANGED) => {}
                Err(error) if error.code.retryable() && tries < world.settings.attempts => tries += 1,
                Err(error) => return Ok(Err(error)),
            },
        }
        tokio::select! {
            _ = operations.changed() => {}
            _ = seen.changed() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}
