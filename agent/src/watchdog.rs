//! Looks at whatever should answer, at intervals: tenants, the admin container, the router.
//!
//! Owns the asking. What the answers mean is decided in `watch.rs`, and containers are restarted by the reconciler alone, which
//! takes what is known here as one more fact. Only the router, which nobody else keeps, is restarted from here.

use std::{sync::Arc, time::Duration};

use feather_proto::{ids::TenantName, model::ContainerState};
use futures::{StreamExt as _, stream};
use tokio::time::Instant;

use crate::{
    agent::{Agent, Watched},
    events::Kind,
    ledger::Record,
    reconcile::Backoff,
    router,
};

/// One check takes no longer: whoever needs more does not serve.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Checks beside each other.
const CHECKS_AT_ONCE: usize = 8;

/// What is remembered of the router.
struct RouterWatch {
    failed: u32,
    backoff: Backoff,
    /// Why it could not be restarted, as it was logged last.
    logged: Option<String>,
}

/// Looks until the agent ends.
pub(crate) async fn run(agent: Arc<Agent>) {
    let mut router = RouterWatch { failed: 0, backoff: Backoff::new(Instant::now()), logged: None };
    loop {
        let look = async {
            tokio::time::sleep(agent.config.watchdog_interval).await;
            tokio::join!(look_at_containers(&agent), look_at_router(&agent, &mut router));
        };
        tokio::select! {
            () = agent.ended.cancelled() => return,
            () = look => {}
        }
    }
}

async fn look_at_containers(agent: &Agent) {
    let checks = subjects(agent).into_iter().map(|(subject, port)| async move {
        let healthy = agent.runtime.healthy(port, ANSWER_LIMIT).await;
        agent.note_check(&subject, healthy);
    });
    stream::iter(checks).buffer_unordered(CHECKS_AT_ONCE).collect::<()>().await;
}

/// Everything that should answer now. What a call is busy with is not asked: it may well be down for a reason.
fn subjects(agent: &Agent) -> Vec<(Watched, u16)> {
    let condition = agent.condition.borrow().containers.clone().unwrap_or_default();
    let runs = |tenant: &TenantName| condition.get(tenant) == Some(&ContainerState::Running);
    let records = agent.ledger.all().into_iter().filter(|record| is_watched(record) && runs(&record.tenant));
    let idle = records.filter(|record| agent.try_lock(&record.tenant).is_some());
    let tenants = idle.filter_map(|record| Some((Watched::Tenant(record.tenant), record.spec?.port)));
    tenants.chain(agent.watched_admin().map(|port| (Watched::Admin, port))).collect()
}

/// It serves, or should, and nothing is being changed about it.
pub(crate) fn is_watched(record: &Record) -> bool {
    record.should_run() && record.provisioning().is_none() && record.incoming.is_none()
}

async fn look_at_router(agent: &Agent, watch: &mut RouterWatch) {
    let looked = tokio::time::timeout(ANSWER_LIMIT, agent.router.observe()).await;
    // A router that answers with a refusal lives.
    if !matches!(looked, Err(_) | Ok(Err(router::Error::Unreachable { .. }))) {
        (watch.failed, watch.logged) = (0, None);
        return;
    }
    watch.failed += 1;
    if watch.failed < agent.config.watchdog_checks || !watch.backoff.admit(Instant::now()) {
        return;
    }
    match agent.router.restart().await {
        Ok(()) => {
            let message =
                format!("Caddy's admin API had not answered {} times in a row; Caddy was restarted", watch.failed);
            agent.note_event(Kind::RouterRestarted, None, message);
            watch.failed = 0;
            agent.wake.notify_one();
        }
        Err(error) => {
            let problem = error.to_string();
            if watch.logged.as_ref() != Some(&problem) {
                tracing::warn!(problem, "the router does not answer and cannot be restarted");
                watch.logged = Some(problem);
            }
        }
    }
}
