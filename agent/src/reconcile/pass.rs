//! The loop: observe, compare, act, then the routes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use feather_proto::{error::Error, ids::TenantName};
use tokio::{sync::watch, time::Instant};
use tracing::Instrument as _;

use super::{Action, Observed, backoff::Backoff, diff};
use crate::{
    agent::{Agent, Condition, TenantLock, Watched, locked},
    fenced,
    ledger::{Record, Spec},
    watchdog::is_watched,
    work,
};

/// At the start, routes wait so long for containers; then they are applied to whatever runs.
const FIRST_STARTS_MAX: Duration = Duration::from_secs(10);
/// A change wakes the loop; changes within this time are taken together.
const COALESCE: Duration = Duration::from_millis(20);

/// What passes remember of each other.
#[derive(Default)]
struct Memory {
    backoffs: BTreeMap<TenantName, Backoff>,
    work: work::Memory,
    first_pass_done: bool,
    /// Why the last action on a tenant failed, until one succeeds or none is needed.
    failures: Arc<Mutex<BTreeMap<TenantName, String>>>,
    /// The last router trouble that was logged, so that it is logged once.
    logged: BTreeSet<String>,
}

impl Memory {
    /// A failure stays visible until its tenant needs nothing more.
    fn report_failures(&self, actions: &BTreeMap<TenantName, Action>, condition: &mut Condition) {
        let mut failures = locked(&self.failures);
        failures.retain(|tenant, _| actions.contains_key(tenant));
        for (tenant, failure) in failures.iter() {
            condition.tenants.entry(tenant.clone()).or_insert_with(|| failure.clone());
        }
    }
}

/// Keeps the server true until the agent ends.
pub(crate) async fn run(agent: Arc<Agent>) {
    let mut memory = Memory::default();
    // Before anything starts: what this server ran may run elsewhere by now.
    tokio::select! {
        () = fenced::settle(&agent) => {}
        () = agent.ended.cancelled() => return,
    }
    loop {
        let span = tracing::debug_span!("reconcile");
        tokio::select! {
            biased;
            () = agent.ended.cancelled() => return,
            () = pass(&agent, &mut memory).instrument(span) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(agent.config.reconcile_interval) => {}
            () = agent.wake.notified() => tokio::time::sleep(COALESCE).await,
            () = agent.ended.cancelled() => return,
        }
    }
}

async fn pass(agent: &Arc<Agent>, memory: &mut Memory) {
    let mut problems = [damaged_files(agent), agent.edge_problems()].concat();
    if let Some(problem) = agent.fence.problem() {
        problems.insert(0, problem);
        problems.extend(agent.relinquish().await);
    }
    let mut condition = Condition { problems, ..Condition::default() };
    match observe(agent).await {
        Ok(observed) => {
            let records = agent.records();
            let actions = diff(&records, &observed, agent.clock.now());
            for (tenant, action) in &actions {
                if let Action::Report(problem) = action {
                    condition.tenants.insert(tenant.clone(), problem.clone());
                    if !records.iter().any(|record| record.tenant == *tenant) {
                        condition.problems.push(problem.clone());
                    }
                }
            }
            memory.report_failures(&actions, &mut condition);
            condition.containers = Some(observed.containers);
            publish(agent, &condition);
            act(agent, memory, &records, actions).await;
        }
        Err(error) => condition.problems.push(error.to_string()),
    }
    work::reconcile(agent, &mut memory.work).await;
    if let Err(error) = agent.apply_routes().await {
        condition.problems.push(error.to_string());
    }
    let new: Vec<_> = condition.problems.iter().filter(|problem| !memory.logged.contains(*problem)).collect();
    for problem in new {
        tracing::warn!(problem, "something is wrong on this server");
    }
    memory.logged = condition.problems.iter().cloned().collect();
    publish(agent, &condition);
}

fn publish(agent: &Agent, condition: &Condition) {
    agent.condition.send_if_modified(|shown| {
        let changed = shown != condition;
        if changed {
            shown.clone_from(condition);
        }
        changed
    });
}

fn damaged_files(agent: &Agent) -> Vec<String> {
    let damaged = agent.ledger.damaged().iter();
    damaged
        .map(|(file, problem)| format!("the ledger file {file} is damaged ({problem}); its tenant is not started"))
        .collect()
}

async fn observe(agent: &Agent) -> Result<Observed, Error> {
    let containers = agent.runtime.containers("feather-user-").await?;
    let volumes = agent.runtime.volumes("feather-").await?;
    agent.clear_staging(&volumes).await?;
    let records = agent.ledger.all();
    let watched = |tenant: &TenantName| records.iter().any(|record| record.tenant == *tenant && is_watched(record));
    agent.forget_watches(watched);
    let unhealthy = records.iter().filter(|record| agent.is_unhealthy(&Watched::Tenant(record.tenant.clone())));
    let settled = records.iter().filter(|record| {
        let spec = record.spec.as_ref();
        spec.is_some_and(|spec| agent.is_settled(&record.tenant, spec))
    });
    Ok(Observed {
        containers: containers
            .into_iter()
            .filter_map(|container| Some((TenantName::from_container(&container.name)?, container.state)))
            // A damaged record says nothing about its container, not even that it is a stranger.
            .filter(|(tenant, _)| agent.ledger.get(tenant).is_ok())
            .collect(),
        volumes: volumes.iter().filter_map(|name| TenantName::from_container(name)).collect(),
        settled: settled.map(|record| record.tenant.clone()).collect(),
        unhealthy: unhealthy.map(|record| record.tenant.clone()).collect(),
    })
}

/// Acts on all tenants beside each other. Only the first pass waits, so that routes come up with containers behind them.
async fn act(agent: &Arc<Agent>, memory: &mut Memory, records: &[Record], actions: BTreeMap<TenantName, Action>) {
    let now = Instant::now();
    let mut begun = Vec::new();
    for (tenant, action) in actions {
        let Some(record) = records.iter().find(|record| record.tenant == tenant) else { continue };
        if matches!(action, Action::Report(_)) {
            continue;
        }
        // A tenant that is being changed is not ours to touch; the change wakes the loop again.
        let Some(lock) = agent.try_lock(&tenant) else { continue };
        if !agent.still_counts(record) {
            continue;
        }
        let waits = is_paced(&action);
        let backoff = memory.backoffs.entry(tenant.clone()).or_insert_with(|| Backoff::new(now));
        if waits && !backoff.admit(now) {
            continue;
        }
        let long = action == Action::Provision;
        let work = apply(agent.clone(), record.clone(), action, lock, memory.failures.clone());
        let task = agent.tasks.spawn(work.in_current_span());
        if !long {
            begun.push(task);
        }
    }
    if !memory.first_pass_done {
        memory.first_pass_done = true;
        drop(tokio::time::timeout(FIRST_STARTS_MAX, futures::future::join_all(begun)).await);
    }
}

/// Is it tried again with growing pauses only?
fn is_paced(action: &Action) -> bool {
    matches!(action, Action::Run | Action::Restart | Action::Provision)
}

async fn apply(
    agent: Arc<Agent>,
    record: Record,
    action: Action,
    lock: TenantLock,
    failures: Arc<Mutex<BTreeMap<TenantName, String>>>,
) {
    let tenant = record.tenant.clone();
    let ended = agent.ended.clone();
    let name = format!("{action:?}");
    let paced = is_paced(&action);
    let work = async {
        match action {
            Action::Run | Action::Restart => match &record.spec {
                Some(spec) => start_again(&agent, &tenant, spec, action == Action::Restart).await,
                None => Err(Error::bug(format!("the record of {tenant} has no spec"))),
            },
            Action::Provision => agent.provision(record).await.map(drop),
            Action::Stop => agent.stop_container(&tenant).await,
            Action::Remove => agent.remove_container(&tenant).await,
            Action::Collect => agent.collect(record).await,
            Action::Report(_) => Ok(()),
        }
    };
    let done = tokio::select! {
        biased;
        () = ended.cancelled() => return,
        done = work => done,
    };
    drop(lock);
    match done {
        Ok(()) => {
            tracing::info!(%tenant, action = name, "reconciled");
            locked(&failures).remove(&tenant);
        }
        Err(error) => {
            let cause = error.metadata.get("cause");
            tracing::warn!(%tenant, action = name, %error, cause, "cannot reconcile");
            locked(&failures).insert(tenant, error.to_string());
            // What nothing paces waits for the next pass: woken by its own failure, the loop would do nothing else.
            if !paced {
                return;
            }
        }
    }
    agent.wake.notify_one();
}

/// Starts what should run. An event when it ran before.
async fn start_again(agent: &Agent, tenant: &TenantName, spec: &Spec, hangs: bool) -> Result<(), Error> {
    // Made sure of by this process: then it was not a reboot that ended it.
    let ran = agent.is_settled(tenant, spec);
    if hangs {
        agent.stop_container(tenant).await?;
    }
    let started = agent.start_container(tenant, spec).await?;
    if started && ran {
        let why = if hangs { "it did not answer its health check" } else { "its process had ended" };
        agent.note_restart(&Watched::Tenant(tenant.clone()), &tenant.container(), why);
    }
    Ok(())
}

/// Woken by everything that a snapshot shows.
pub(crate) struct Changes {
    ledger: watch::Receiver<u64>,
    condition: watch::Receiver<Condition>,
    others: watch::Receiver<u64>,
}

impl Changes {
    pub(crate) fn of(agent: &Agent) -> Self {
        Self {
            ledger: agent.ledger.changes(),
            condition: agent.condition.subscribe(),
            others: agent.changes.subscribe(),
        }
    }

    /// Waits for the next change. Several that come close together count as one.
    pub(crate) async fn next(&mut self) {
        let changed = tokio::select! {
            changed = self.ledger.changed() => changed,
            changed = self.condition.changed() => changed,
            changed = self.others.changed() => changed,
        };
        if changed.is_err() {
            // The agent is ending; its streams end with it.
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(COALESCE).await;
        self.ledger.mark_unchanged();
        self.condition.mark_unchanged();
        self.others.mark_unchanged();
    }
}
