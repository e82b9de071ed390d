//! Servers that are emptied and filled again, with everything that can go wrong on the way.

use std::{collections::BTreeMap, sync::Arc};

use feather_controller::dns::memory::Memory;
use feather_proto::{
    error::{Error, reason},
    pb::controller::v1 as pb,
};
use feather_tests::{
    Fleet, Outcome,
    faults::Fault,
    fleet::{ZONE, request_id, settings},
    wait::until,
};

fn asked(server: &str) -> pb::DrainServerRequest {
    pb::DrainServerRequest { request_id: request_id(), server: server.into(), ..Default::default() }
}

async fn begin(fleet: &Fleet, request: pb::DrainServerRequest) -> Result<pb::Operation, Error> {
    let reply = fleet.server_service().drain_server(request).await.map_err(Error::from)?;
    Ok(reply.into_inner().operation.unwrap())
}

async fn drain(fleet: &Fleet, request: pb::DrainServerRequest) -> Outcome {
    let operation = begin(fleet, request).await.unwrap();
    fleet.outcome(&operation.id).await
}

async fn bring_home(fleet: &Fleet, server: &str) -> Outcome {
    let request = pb::ReturnServerRequest { request_id: request_id(), server: server.into(), ..Default::default() };
    let reply = fleet.server_service().return_server(request).await.unwrap().into_inner();
    fleet.outcome(&reply.operation.unwrap().id).await
}

async fn cordoned(fleet: &Fleet, server: &str) -> bool {
    let request = pb::GetServerRequest { server: server.into() };
    fleet.server_service().get_server(request).await.unwrap().into_inner().server.unwrap().cordoned
}

fn ends(outcome: &Outcome) -> BTreeMap<String, pb::MoveEnd> {
    outcome.operation.moves.iter().map(|one| (one.tenant.clone(), one.end())).collect()
}

fn all(end: pb::MoveEnd, names: &[&str]) -> BTreeMap<String, pb::MoveEnd> {
    names.iter().map(|name| ((*name).to_owned(), end)).collect()
}

async fn power(fleet: &Fleet, name: &str) -> pb::Operation {
    let request = pb::StopTenantRequest { request_id: request_id(), tenant: name.into() };
    fleet.tenants().stop_tenant(request).await.unwrap().into_inner().operation.unwrap()
}

async fn fleet_with(servers: &[&str], names: &[&str]) -> Fleet {
    let fleet = Fleet::start(servers).await;
    for name in names {
        fleet.add(name, "nyc").await;
        std::fs::write(fleet.volume("nyc", name).join("data"), format!("what {name} has")).unwrap();
    }
    fleet.faults.clear();
    fleet
}

/// One running copy, with its data; returns where.
async fn home(fleet: &Fleet, name: &str) -> String {
    let tenant = until(&format!("{name} runs"), async || {
        let tenant = fleet.show(name).await;
        if tenant.state() == pb::TenantState::Running { Ok(tenant) } else { Err(tenant) }
    })
    .await;
    assert_eq!(fleet.recorder.violations(), Vec::<String>::new());
    assert_eq!(fleet.recorder.running(&format!("feather-user-{name}")), std::slice::from_ref(&tenant.server));
    let data = std::fs::read_to_string(fleet.volume(&tenant.server, name).join("data"));
    assert_eq!(data.ok(), Some(format!("what {name} has")));
    tenant.server
}

async fn operation(fleet: &Fleet, id: &str) -> pb::Operation {
    let request = pb::GetOperationRequest { id: id.to_owned() };
    fleet.operations().get_operation(request).await.unwrap().into_inner().operation.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_server_is_empty_and_a_return_brings_home_who_was_sent_away() {
    let fleet = fleet_with(&["nyc", "fra", "ams"], &["alice", "bob", "carol", "dave", "erin"]).await;
    fleet.outcome(&power(&fleet, "bob").await.id).await;
    // Moved by name: none of the drain's, also not when all come home.
    assert_eq!(fleet.migrate("erin", "ams").await.state(), pb::OperationState::Succeeded);
    let dry = fleet.server_service().drain_server(pb::DrainServerRequest { dry_run: true, ..asked("nyc") }).await;
    let dry = dry.unwrap().into_inner();
    assert_eq!((dry.moves.len(), dry.operation), (4, None), "{:?}", dry.moves);
    assert!(!cordoned(&fleet, "nyc").await, "a dry run changes nothing");
    let id = request_id();
    let operation = begin(&fleet, pb::DrainServerRequest { request_id: id.clone(), ..asked("nyc") }).await.unwrap();
    let again = begin(&fleet, pb::DrainServerRequest { request_id: id, ..asked("nyc") }).await.unwrap();
    assert_eq!(again.id, operation.id, "the same request");
    let second = begin(&fleet, asked("nyc")).await.unwrap_err();
    assert!(second.is(reason::OPERATION_RUNNING), "one at a time: {second:?}");
    let outcome = fleet.outcome(&operation.id).await;
    assert_eq!(outcome.state(), pb::OperationState::Succeeded, "{:#?}", outcome.operation);
    assert_eq!(ends(&outcome), all(pb::MoveEnd::Moved, &["alice", "bob", "carol", "dave"]));
    assert!(cordoned(&fleet, "nyc").await);
    for name in ["alice", "carol", "dave"] {
        assert_ne!(home(&fleet, name).await, "nyc");
    }
    let bob = fleet.show("bob").await;
    assert!(bob.state() == pb::TenantState::Stopped && bob.server != "nyc", "moved, and stopped as before: {bob:?}");
    let child =
        fleet.operations().list_operations(pb::ListOperationsRequest { tenant: "alice".into(), limit: 1 }).await;
    assert_eq!(child.unwrap().into_inner().operations[0].parent, operation.id);
    // Two find another way: one is removed, one is brought home by hand.
    fleet.remove("carol").await;
    let open = pb::CordonServerRequest { server: "nyc".into(), ..Default::default() };
    fleet.server_service().cordon_server(open).await.unwrap();
    assert_eq!(fleet.migrate("dave", "nyc").await.state(), pb::OperationState::Succeeded);
    let back = bring_home(&fleet, "nyc").await;
    assert_eq!(back.state(), pb::OperationState::Succeeded, "{:#?}", back.operation);
    assert_eq!(ends(&back), all(pb::MoveEnd::Moved, &["alice", "bob"]));
    assert_eq!((home(&fleet, "alice").await, home(&fleet, "erin").await), ("nyc".to_owned(), "ams".to_owned()));
    assert!(!cordoned(&fleet, "nyc").await);
    assert_eq!(bring_home(&fleet, "nyc").await.operation.moves, vec![], "everybody is home");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_begins_when_the_others_cannot_hold_everybody_unless_a_part_will_do() {
    let fleet = fleet_with(&["nyc", "fra"], &["alice", "bob", "carol"]).await;
    let pin = pb::PlaceTenantRequest { tenant: "bob".into(), pin: "nyc".into(), ..Default::default() };
    fleet.tenants().place_tenant(pin).await.unwrap();
    let refused = begin(&fleet, asked("nyc")).await.unwrap_err();
    assert!(refused.is(reason::NO_ROOM), "{refused:?}");
    assert!(refused.message.contains("bob: fra: it is pinned to nyc"), "{refused:?}");
    assert!(!cordoned(&fleet, "nyc").await, "nothing was changed");
    let part = drain(&fleet, pb::DrainServerRequest { partial: true, ..asked("nyc") }).await;
    assert_eq!((part.state(), part.operation.reason.as_str()), (pb::OperationState::Failed, reason::NOT_ALL_MOVED));
    let told = ends(&part);
    assert_eq!(
        (told["alice"], told["bob"], told["carol"]),
        (pb::MoveEnd::Moved, pb::MoveEnd::Left, pb::MoveEnd::Moved)
    );
    assert!(cordoned(&fleet, "nyc").await, "whoever repeats it goes on");
    assert_eq!(home(&fleet, "bob").await, "nyc");
    // By its destination too: a drain is no person who names a server for one tenant.
    let there = pb::DrainServerRequest { to: "fra".into(), ..asked("nyc") };
    assert!(begin(&fleet, there).await.unwrap_err().is(reason::NO_ROOM));
    let free = pb::PlaceTenantRequest { tenant: "bob".into(), ..Default::default() };
    fleet.tenants().place_tenant(free).await.unwrap();
    assert_eq!(drain(&fleet, asked("nyc")).await.state(), pb::OperationState::Succeeded);
    assert_eq!(bring_home(&fleet, "nyc").await.operation.moves.len(), 3, "those of both drains");
}

#[tokio::test(flavor = "multi_thread")]
async fn everybodys_data_takes_the_way_that_was_asked_for() {
    let fleet = fleet_with(&["nyc", "fra"], &["alice", "bob"]).await;
    let slow = pb::DrainServerRequest { bytes_per_second_max: 1000, ..asked("nyc") };
    assert!(begin(&fleet, slow).await.unwrap_err().is(reason::INVALID_FIELD));
    let relayed = pb::DrainServerRequest { route: pb::TransferRoute::Controller.into(), ..asked("nyc") };
    let outcome = drain(&fleet, relayed.clone()).await;
    assert_eq!(ends(&outcome), all(pb::MoveEnd::Moved, &["alice", "bob"]));
    let by_controller = async |outcome: &Outcome| {
        let mut relayed = Vec::new();
        for one in &outcome.operation.moves {
            let measured = fleet.outcome(&one.operation).await.operation.migration.unwrap();
            relayed.push(measured.relayed);
        }
        relayed
    };
    assert_eq!(by_controller(&outcome).await, [true, true]);
    // Another way is another request.
    let direct = pb::DrainServerRequest { route: pb::TransferRoute::Direct.into(), ..relayed };
    assert!(begin(&fleet, direct).await.unwrap_err().is(reason::REQUEST_ID_REUSED));
    let home = bring_home(&fleet, "nyc").await;
    assert_eq!(by_controller(&home).await, [false, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_fails_does_not_keep_the_others() {
    let fleet = fleet_with(&["nyc", "fra", "ams"], &["alice", "bob", "carol", "dave"]).await;
    fleet.faults.always("ams", "verify_volume", Fault::Refuse);
    let outcome = drain(&fleet, pb::DrainServerRequest { parallel: 4, ..asked("nyc") }).await;
    assert_eq!(outcome.state(), pb::OperationState::Failed, "{:#?}", outcome.operation);
    for one in &outcome.operation.moves {
        let failed = one.target == "ams";
        assert_eq!(one.end(), if failed { pb::MoveEnd::Left } else { pb::MoveEnd::Moved }, "{one:?}");
        assert_eq!(one.why.contains("ams says no"), failed, "{one:?}");
        assert_eq!(home(&fleet, &one.tenant).await, if failed { "nyc" } else { "fra" });
    }
    assert!(outcome.operation.moves.iter().any(|one| one.target == "ams"), "{:?}", outcome.operation.moves);
    fleet.faults.clear();
    assert_eq!(drain(&fleet, asked("nyc")).await.state(), pb::OperationState::Succeeded, "the same again goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_controller_may_die_behind_every_write_of_a_drain() {
    for writes in 1.. {
        let what = format!("crash behind write {writes}");
        let mut fleet = fleet_with(&["nyc", "fra"], &["alice", "bob"]).await;
        fleet.crash_after_writes(writes);
        let (request, fleet_ref) = (asked("nyc"), &fleet);
        let whole = fleet.crash_or(async { drain(fleet_ref, request.clone()).await }).await;
        if whole.is_none() {
            fleet.kill_controller();
            fleet.start_controller().await;
            fleet.all_ready().await;
        }
        // The caller repeats its call, as one whose reply was lost does.
        let outcome = match &whole {
            Some(outcome) => outcome.clone(),
            None => drain(&fleet, request).await,
        };
        assert_eq!(outcome.state(), pb::OperationState::Succeeded, "{what}: {:#?}", outcome.operation);
        assert_eq!(ends(&outcome), all(pb::MoveEnd::Moved, &["alice", "bob"]), "{what}");
        for name in ["alice", "bob"] {
            assert_eq!(home(&fleet, name).await, "fra", "{what}");
            let request = pb::ListOperationsRequest { tenant: name.into(), limit: 0 };
            let listed = fleet.operations().list_operations(request).await.unwrap().into_inner().operations;
            let moves = listed.iter().filter(|one| one.kind() == pb::OperationKind::Migrate).count();
            assert_eq!(moves, 1, "{what}: no move is begun twice");
        }
        let dry = pb::ReturnServerRequest { server: "nyc".into(), dry_run: true, ..Default::default() };
        let back = fleet.server_service().return_server(dry).await.unwrap().into_inner().moves;
        assert_eq!(back.len(), 2, "{what}: a return knows of both");
        if whole.is_some() {
            assert!(writes > 40, "a drain and its moves write their logs: only {writes} writes seen");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_can_be_cancelled_before_every_call() {
    let clean = fleet_with(&["nyc", "fra"], &["alice", "bob"]).await;
    assert_eq!(drain(&clean, asked("nyc")).await.state(), pb::OperationState::Succeeded);
    let calls = clean.faults.made();
    assert!(calls.len() >= 20, "{calls:?}");
    for (number, made) in calls.iter().enumerate() {
        let what = format!("cancelled at call {number}, {made:?}");
        let fleet = fleet_with(&["nyc", "fra"], &["alice", "bob"]).await;
        let reached = Arc::new(tokio::sync::Notify::new());
        let hook = reached.clone();
        fleet.faults.on_call(Arc::new(move |_, at| {
            if at == number {
                hook.notify_one();
            }
        }));
        let operation = begin(&fleet, pb::DrainServerRequest { parallel: 1, ..asked("nyc") }).await.unwrap();
        reached.notified().await;
        let cancel = pb::CancelOperationRequest { id: operation.id.clone() };
        let cancelled = fleet.operations().cancel_operation(cancel).await;
        let outcome = fleet.outcome(&operation.id).await;
        let wanted = if cancelled.is_ok() { pb::OperationState::Cancelled } else { pb::OperationState::Succeeded };
        assert_eq!(outcome.state(), wanted, "{what}: {cancelled:?} {:#?}", outcome.operation);
        assert_eq!(cordoned(&fleet, "nyc").await, cancelled.is_err(), "{what}: the cordon is as it was");
        let mut away = 0;
        for name in ["alice", "bob"] {
            away += usize::from(home(&fleet, name).await == "fra");
        }
        let dry = pb::ReturnServerRequest { server: "nyc".into(), dry_run: true, ..Default::default() };
        let back = fleet.server_service().return_server(dry).await.unwrap().into_inner().moves;
        assert_eq!(back.len(), away, "{what}: a return knows of those that were moved, and of no others");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_on_a_tenant_already_is_waited_for() {
    let fleet = fleet_with(&["nyc", "fra"], &["alice"]).await;
    fleet.faults.always("nyc", "stop_tenant", Fault::LoseRequest);
    let stop = power(&fleet, "alice").await;
    until("the stop is stuck", async || {
        let state = operation(&fleet, &stop.id).await.state();
        if state == pb::OperationState::Stuck { Ok(()) } else { Err(state) }
    })
    .await;
    let drained = begin(&fleet, asked("nyc")).await.unwrap();
    until("the drain waits for it", async || {
        let drained = operation(&fleet, &drained.id).await;
        let waits = drained.moves.iter().all(|one| one.end() == pb::MoveEnd::Waiting);
        if waits && drained.step == "moves" { Ok(()) } else { Err(drained) }
    })
    .await;
    fleet.faults.never("nyc", "stop_tenant");
    let outcome = fleet.outcome(&drained.id).await;
    assert_eq!(outcome.state(), pb::OperationState::Succeeded, "{:#?}", outcome.operation);
    let alice = fleet.show("alice").await;
    assert_eq!((alice.state(), alice.server.as_str()), (pb::TenantState::Stopped, "fra"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_move_is_named_at_the_deadline_and_goes_on_by_itself() {
    let fleet = fleet_with(&["nyc", "fra"], &["alice", "bob"]).await;
    fleet.faults.always("nyc", "hand_off", Fault::LoseRequest);
    let outcome = drain(&fleet, pb::DrainServerRequest { deadline_seconds: 2, ..asked("nyc") }).await;
    assert_eq!(outcome.state(), pb::OperationState::Failed, "{:#?}", outcome.operation);
    assert_eq!(ends(&outcome), all(pb::MoveEnd::Stuck, &["alice", "bob"]));
    fleet.faults.clear();
    until("both moves came unstuck", async || {
        let moves = operation(&fleet, &outcome.operation.id).await.moves;
        if moves.iter().all(|one| one.end() == pb::MoveEnd::Moved) { Ok(()) } else { Err(moves) }
    })
    .await;
    assert_eq!((home(&fleet, "alice").await, home(&fleet, "bob").await), ("fra".into(), "fra".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_reached_is_not_drained() {
    let mut fleet = fleet_with(&["nyc", "fra"], &["alice"]).await;
    fleet.kill_agent("nyc");
    until("the silence is noticed", async || {
        let dry = pb::DrainServerRequest { dry_run: true, ..asked("nyc") };
        match fleet.server_service().drain_server(dry).await.map_err(Error::from) {
            Err(error) if error.is(reason::SERVER_UNREACHABLE) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert!(begin(&fleet, asked("fra")).await.is_ok(), "nobody lives there; nothing is to be moved");
}

fn retire(server: &str) -> pb::RetireServerRequest {
    pb::RetireServerRequest { server: server.into(), ..Default::default() }
}

async fn not_retired(fleet: &Fleet, request: pb::RetireServerRequest) -> Error {
    Error::from(fleet.server_service().retire_server(request).await.unwrap_err())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_server_is_retired_with_its_copies_only_by_word() {
    // The first to join is the ingress: that is another test.
    let fleet = fleet_with(&["fra", "nyc"], &["alice", "bob"]).await;
    let gone = pb::RetireServerRequest { discard_kept_copies: true, dns_elsewhere: true, ..retire("nyc") };
    let full = not_retired(&fleet, gone.clone()).await;
    assert!(full.message.contains("holds the data of alice, bob"), "{full:?}");
    assert!(full.message.contains("`featherctl server drain nyc`") && !full.message.contains("migrate"), "{full:?}");
    assert_eq!(drain(&fleet, asked("nyc")).await.state(), pb::OperationState::Succeeded);
    let led = pb::RetireServerRequest { discard_kept_copies: true, ..retire("nyc") };
    let led = not_retired(&fleet, led).await;
    assert!(led.message.contains("forwards for alice, bob") && led.message.contains("--dns-elsewhere"), "{led:?}");
    let kept = not_retired(&fleet, pb::RetireServerRequest { dns_elsewhere: true, ..retire("nyc") }).await;
    assert!(kept.message.contains("(lives on fra)") && kept.message.contains("--discard-kept-copies"), "{kept:?}");
    let dry = pb::RetireServerRequest { dry_run: true, ..gone.clone() };
    let dry = fleet.server_service().retire_server(dry).await.unwrap().into_inner();
    let names: Vec<_> = dry.kept_copies.iter().map(|one| one.tenant.as_str()).collect();
    assert_eq!(names, ["alice", "bob"]);
    fleet.server_service().retire_server(gone).await.unwrap();
    let listed = fleet.server_service().list_servers(pb::ListServersRequest {}).await.unwrap().into_inner().servers;
    assert_eq!(listed.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["fra"]);
    assert_eq!((home(&fleet, "alice").await, home(&fleet, "bob").await), ("fra".into(), "fra".into()));
    let taking = not_retired(&fleet, retire("fra")).await;
    assert!(taking.is(reason::WRONG_STATE), "{taking:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ingress_is_not_retired_before_another_one_is_and_names_have_left_it() {
    let zone = Arc::new(Memory::new(ZONE));
    let fleet = Fleet::start_in((zone, None), &[("nyc", "192.0.2.1"), ("fra", "192.0.2.2")], settings()).await;
    let ingress = async |server: &str| {
        let request = pb::SetIngressRequest { server: server.into(), dry_run: false };
        fleet.zone().set_ingress(request).await.unwrap();
    };
    ingress("nyc").await;
    assert_eq!(drain(&fleet, asked("nyc")).await.state(), pb::OperationState::Succeeded);
    let is = not_retired(&fleet, retire("nyc")).await;
    assert!(is.is(reason::WRONG_STATE) && is.message.contains("`featherctl dns ingress OTHER`"), "{is:?}");
    ingress("fra").await;
    let was = not_retired(&fleet, retire("nyc")).await;
    assert!(was.message.contains("was the ingress before"), "{was:?}");
    let sure = pb::RetireServerRequest { dns_elsewhere: true, ..retire("nyc") };
    fleet.server_service().retire_server(sure).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_full_takes_as_many_as_it_has_slots() {
    let fleet = fleet_with(&["nyc", "fra"], &["alice", "bob"]).await;
    for number in 1..10 {
        fleet.add(&format!("t{number}"), "fra").await;
    }
    let refused = begin(&fleet, asked("nyc")).await.unwrap_err();
    assert!(refused.message.contains("1 of 2 could not be moved"), "{refused:?}");
    assert!(refused.message.contains("bob: fra: no free port"), "{refused:?}");
    let part = drain(&fleet, pb::DrainServerRequest { partial: true, ..asked("nyc") }).await;
    assert_eq!(part.state(), pb::OperationState::Failed, "{:#?}", part.operation);
    let ends = ends(&part);
    let count = |end| ends.values().filter(|one| **one == end).count();
    assert_eq!((count(pb::MoveEnd::Moved), count(pb::MoveEnd::Left)), (1, 1), "{ends:?}");
    let left = part.operation.moves.iter().find(|one| one.end() == pb::MoveEnd::Left).unwrap();
    assert!(left.why.contains("fra: no free port"), "{left:?}");
    assert_eq!(home(&fleet, &left.tenant).await, "nyc");
}
