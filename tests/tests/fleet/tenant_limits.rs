//! What tenants may use: set while they run, kept wherever they go, and put right where a server has not got it.

use feather_agent::runtime::Capacity;
use feather_controller::agents::Call;
use feather_proto::{
    error::{Error, reason},
    ids::Generation,
    limits::Limits,
    pb::controller::v1 as pb,
};
use feather_tests::{
    Fleet,
    faults::Fault,
    fleet::{request_id, tenant},
    wait::until,
};

const MIB: u64 = 1 << 20;
const ALICE: &str = "feather-user-alice";

fn memory(mebibytes: u64) -> pb::LimitsChange {
    pb::LimitsChange { memory_bytes: Some(mebibytes * MIB), ..Default::default() }
}

async fn set(fleet: &Fleet, name: &str, change: pb::LimitsChange) -> Result<pb::LimitTenantResponse, Error> {
    let request = pb::LimitTenantRequest { tenant: name.into(), change: Some(change), dry_run: false };
    Ok(fleet.tenants().limit_tenant(request).await?.into_inner())
}

/// What the engine of a server lets a tenant use now.
fn has(fleet: &Fleet, server: &str, container: &str, limits: &Limits) -> bool {
    fleet.servers[server].runtime.used(container).is_some_and(|used| used.as_limited(limits))
}

async fn add(fleet: &Fleet, name: &str, server: &str, change: pb::LimitsChange) -> Result<(), Error> {
    let request = pb::AddTenantRequest {
        request_id: request_id(),
        tenant: name.into(),
        server: server.into(),
        limits: Some(change),
        ..Default::default()
    };
    let operation = fleet.tenants().add_tenant(request).await?.into_inner().operation.unwrap();
    assert_eq!(fleet.outcome(&operation.id).await.state(), pb::OperationState::Succeeded);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_take_hold_without_a_restart_and_go_where_the_tenant_goes() {
    let mut fleet = Fleet::start(&["nyc", "fra"]).await;
    fleet.add("alice", "nyc").await;
    assert_eq!(fleet.show("alice").await.limits, None, "nobody has said anything");
    let starts = fleet.starts("nyc", "alice").len();
    let change = pb::LimitsChange { cpu_millis: Some(1500), pids: Some(500), ..memory(512) };
    let dry = pb::LimitTenantRequest { tenant: "alice".into(), change: Some(change), dry_run: true };
    let dry = fleet.tenants().limit_tenant(dry).await.unwrap().into_inner();
    assert!(dry.changed && !dry.applied && fleet.show("alice").await.limits.is_none(), "{dry:?}");
    let done = set(&fleet, "alice", change).await.unwrap();
    assert!(done.changed && done.applied && done.problem.is_empty(), "{done:?}");
    let limits = Limits::from(done.limits.unwrap());
    assert_eq!(limits, Limits { memory_bytes: Some(512 * MIB), cpu_millis: Some(1500), pids: Some(500), revision: 1 });
    assert!(has(&fleet, "nyc", ALICE, &limits));
    assert!(!set(&fleet, "alice", change).await.unwrap().changed, "the same again is no change");
    // One of them alone; the others stay.
    let less = set(&fleet, "alice", memory(256)).await.unwrap();
    let limits = Limits { memory_bytes: Some(256 * MIB), revision: 2, ..limits };
    assert_eq!(Limits::from(less.limits.unwrap()), limits);
    assert!(has(&fleet, "nyc", ALICE, &limits));
    assert_eq!(fleet.starts("nyc", "alice").len(), starts, "its process never ended");
    let shown = fleet.show("alice").await;
    assert_eq!((shown.limits.map(Limits::from), shown.limits_pending), (Some(limits), false));

    assert_eq!(fleet.migrate("alice", "fra").await.state(), pb::OperationState::Succeeded);
    assert!(has(&fleet, "fra", ALICE, &limits), "{:?}", fleet.servers["fra"].runtime.used(ALICE));
    fleet.power_off("fra");
    fleet.start_agent("fra");
    until("alice runs with her limits after a reboot", async || {
        let used = fleet.servers["fra"].runtime.used(ALICE);
        let running = fleet.recorder.running(ALICE) == ["fra"];
        if running && has(&fleet, "fra", ALICE, &limits) { Ok(()) } else { Err(format!("{running} {used:?}")) }
    })
    .await;
    fleet.all_ready().await;
    let request = pb::RestartTenantRequest { request_id: request_id(), tenant: "alice".into() };
    let restart = fleet.tenants().restart_tenant(request).await.unwrap().into_inner().operation.unwrap();
    assert_eq!(fleet.outcome(&restart.id).await.state(), pb::OperationState::Succeeded);
    assert!(has(&fleet, "fra", ALICE, &limits));
    // Who comes back has what it had, but for what is said now.
    fleet.remove("alice").await;
    let only = pb::LimitsChange { pids: Some(0), ..Default::default() };
    add(&fleet, "alice", "", only).await.unwrap();
    let limits = Limits { pids: None, revision: 3, ..limits };
    assert!(has(&fleet, "fra", ALICE, &limits), "{:?}", fleet.servers["fra"].runtime.used(ALICE));
    // A crash of its process: the engine forgets what it was told, and the agent does not.
    set(&fleet, "alice", memory(300)).await.unwrap();
    fleet.servers["fra"].runtime.crash(ALICE);
    until("alice runs again with her limits", async || {
        let limits = Limits { memory_bytes: Some(300 * MIB), ..limits };
        let running = fleet.recorder.running(ALICE) == ["fra"];
        if running && has(&fleet, "fra", ALICE, &limits) { Ok(()) } else { Err(format!("{running}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_and_nothing_is_kept() {
    let fleet = Fleet::start(&["nyc", "fra"]).await;
    for server in ["nyc", "fra"] {
        let runtime = &fleet.servers[server].runtime;
        runtime.set_capacity(Capacity {
            memory_total_bytes: 2048 * MIB,
            memory_free_bytes: 1800 * MIB,
            disk_total_bytes: 1 << 40,
            disk_free_bytes: 1 << 39,
            cores: 2,
        });
    }
    until("the controller has seen it", async || {
        let request = pb::ListServersRequest {};
        let servers = fleet.server_service().list_servers(request).await.unwrap().into_inner().servers;
        let seen = servers.iter().all(|server| server.memory_total_bytes == 2048 * MIB);
        if seen { Ok(()) } else { Err(format!("{servers:?}")) }
    })
    .await;
    fleet.add("alice", "nyc").await;
    add(&fleet, "bob", "nyc", memory(1024)).await.unwrap();
    fleet.servers["nyc"].runtime.set_use(ALICE, 300 * MIB, 40);
    let cases = [
        (memory(299), reason::LIMIT_BELOW_USE, "would be killed"),
        (pb::LimitsChange { pids: Some(39), ..Default::default() }, reason::LIMIT_BELOW_USE, "40 processes"),
        (memory(3000), reason::NO_ROOM, "2048 MiB of memory in all"),
        (memory(1025), reason::NO_ROOM, "limits of other tenants take 1024 MiB"),
        (pb::LimitsChange { cpu_millis: Some(2500), ..Default::default() }, reason::NO_ROOM, "2 processor cores"),
        (memory(63), reason::INVALID_FIELD, "from 64 MiB"),
        (pb::LimitsChange::default(), reason::INVALID_FIELD, "at least one limit"),
    ];
    for (change, reason, told) in cases {
        let refused = set(&fleet, "alice", change).await.unwrap_err();
        assert!(refused.is(reason) && refused.message.contains(told), "{change:?}: {refused:?}");
    }
    assert_eq!(fleet.show("alice").await.limits, None);
    let nobody = set(&fleet, "carol", memory(100)).await.unwrap_err();
    assert!(nobody.is(reason::TENANT_NOT_FOUND), "{nobody:?}");
    // What bob may use is not there for others, whether he uses it or not.
    set(&fleet, "alice", memory(1024)).await.unwrap();
    let full = add(&fleet, "dora", "nyc", memory(64)).await.unwrap_err();
    assert!(full.is(reason::NO_ROOM) && full.message.contains("nyc: only 0 MiB memory free"), "{full:?}");
    add(&fleet, "dora", "", memory(1200)).await.unwrap();
    assert_eq!(fleet.show("dora").await.server, "fra");
    let request = pb::MigrateTenantRequest { tenant: "bob".into(), dry_run: true, ..Default::default() };
    let stays = Error::from(fleet.tenants().migrate_tenant(request).await.unwrap_err());
    assert!(stays.is(reason::NO_ROOM) && stays.message.contains("fra: only 848 MiB memory free"), "{stays:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_looked_at_and_a_server_that_was_away_gets_what_it_missed() {
    let mut fleet = Fleet::start(&["nyc"]).await;
    fleet.add("alice", "nyc").await;
    fleet.faults.always("nyc", "limit_tenant", Fault::LoseReply);
    let done = set(&fleet, "alice", memory(256)).await.unwrap();
    assert!(done.applied, "its server has it, whatever became of the answer: {done:?}");
    // Its agent never hears of the next one, and the controller dies behind the store's word.
    fleet.faults.always("nyc", "limit_tenant", Fault::LoseRequest);
    let kept = set(&fleet, "alice", memory(512)).await.unwrap();
    assert!(kept.changed && !kept.applied && kept.problem.contains("nyc"), "{kept:?}");
    let shown = fleet.show("alice").await;
    assert!(shown.limits_pending && shown.limits.unwrap().memory_bytes == 512 * MIB, "{shown:?}");
    let before = Limits { memory_bytes: Some(256 * MIB), revision: 1, ..Limits::default() };
    assert!(has(&fleet, "nyc", ALICE, &before));
    fleet.kill_controller();
    fleet.faults.clear();
    fleet.start_controller().await;
    fleet.all_ready().await;
    let wanted = Limits { memory_bytes: Some(512 * MIB), revision: 2, ..Limits::default() };
    until("alice has her limits", async || {
        let shown = fleet.show("alice").await;
        if has(&fleet, "nyc", ALICE, &wanted) && !shown.limits_pending { Ok(()) } else { Err(format!("{shown:?}")) }
    })
    .await;
    // An engine that does not take them: they are noted, and applied when it does.
    fleet.servers["nyc"].runtime.fail_next(feather_agent::runtime::fake::Verb::EnsureLimits, 1);
    let noted = set(&fleet, "alice", memory(300)).await.unwrap();
    assert!(noted.changed, "{noted:?}");
    until("the agent has tried again", async || {
        let shown = fleet.show("alice").await;
        let wanted = Limits { memory_bytes: Some(300 * MIB), ..Limits::default() };
        if has(&fleet, "nyc", ALICE, &wanted) && !shown.limits_pending { Ok(()) } else { Err(format!("{shown:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_brought_back_says_that_a_server_knows_better_and_can_be_heard_again() {
    let fleet = Fleet::start(&["nyc"]).await;
    fleet.add("alice", "nyc").await;
    let limits = Limits::from(set(&fleet, "alice", memory(512)).await.unwrap().limits.unwrap());
    // Said after the backup from which this store came.
    let later = Limits { memory_bytes: Some(256 * MIB), revision: limits.revision + 4, ..limits };
    let generation = Generation(fleet.show("alice").await.generation);
    let call = Call { request_id: uuid::Uuid::new_v4(), tenant: tenant("alice"), generation };
    fleet.agent_under(fleet.lead(), "nyc").limit_tenant(&call, later, false).await.unwrap();
    until("it is seen that they differ", async || {
        let shown = fleet.show("alice").await;
        if shown.limits_pending { Ok(()) } else { Err(shown) }
    })
    .await;
    let done = set(&fleet, "alice", memory(512)).await.unwrap();
    let again = Limits::from(done.limits.unwrap());
    assert!(done.changed && done.applied && again.allows_as(&limits) && again.revision > later.revision, "{done:?}");
    assert!(has(&fleet, "nyc", ALICE, &again));
}
