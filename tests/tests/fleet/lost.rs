//! A server that is dead: its tenants come back with what is left of their data, or stay down, and never two of anybody run.

use std::path::Path;

use feather_proto::{
    error::{Error, reason},
    pb::controller::v1::{self as pb, backup_service_client::BackupServiceClient, backup_volume_response},
};
use feather_tests::{Fleet, faults::Fault, fleet::request_id, wait::until};

use crate::fenced::until_out;

async fn back_up(fleet: &Fleet, name: &str, to: &Path) {
    let request =
        pb::BackupVolumeRequest { tenant: name.into(), repository: to.display().to_string(), ..Default::default() };
    let mut events = BackupServiceClient::new(fleet.admin()).backup_volume(request).await.unwrap().into_inner();
    while let Some(message) = events.message().await.unwrap() {
        if let Some(backup_volume_response::Event::Done(_)) = message.event {
            return;
        }
    }
    panic!("it ended without saying how");
}

fn request(server: &str) -> pb::LoseServerRequest {
    let server = server.to_owned();
    pb::LoseServerRequest { request_id: request_id(), confirm: server.clone(), server, ..Default::default() }
}

async fn lose(fleet: &Fleet, request: pb::LoseServerRequest) -> Result<pb::LoseServerResponse, Error> {
    Ok(fleet.server_service().lose_server(request).await?.into_inner())
}

async fn until_silent(fleet: &Fleet, server: &str) {
    until("it is known to be silent", async || {
        let request = pb::GetServerRequest { server: server.into() };
        let found = fleet.server_service().get_server(request).await.map_err(|status| status.to_string())?;
        match found.into_inner().server.unwrap().state() {
            pb::ServerState::Unreachable => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

async fn recover(fleet: &Fleet, name: &str) -> Result<pb::OperationState, Error> {
    let request = pb::RecoverTenantRequest { request_id: request_id(), tenant: name.into(), ..Default::default() };
    let begun = fleet.tenants().recover_tenant(request).await?.into_inner().operation.unwrap();
    Ok(fleet.outcome(&begun.id).await.state())
}

async fn stop(fleet: &Fleet, name: &str) {
    let request = pb::StopTenantRequest { request_id: request_id(), tenant: name.into() };
    let begun = fleet.tenants().stop_tenant(request).await.unwrap().into_inner().operation.unwrap();
    assert_eq!(fleet.outcome(&begun.id).await.state(), pb::OperationState::Succeeded);
}

fn diary(fleet: &Fleet, server: &str, name: &str) -> std::path::PathBuf {
    fleet.volume(server, name).join("diary")
}

fn read(fleet: &Fleet, server: &str, name: &str) -> String {
    std::fs::read_to_string(diary(fleet, server, name)).unwrap_or_else(|error| format!("({error})"))
}

fn write(fleet: &Fleet, server: &str, name: &str, text: &str) {
    std::fs::write(diary(fleet, server, name), text).unwrap();
}

fn running(fleet: &Fleet, name: &str) -> Vec<String> {
    fleet.recorder.running(&format!("feather-user-{name}"))
}

fn ends(moves: &[pb::TenantMove]) -> Vec<(String, String, pb::MoveEnd)> {
    let mut ends: Vec<_> = moves.iter().map(|one| (one.tenant.clone(), one.target.clone(), one.end())).collect();
    ends.sort();
    ends
}

fn end(tenant: &str, target: &str, end: pb::MoveEnd) -> (String, String, pb::MoveEnd) {
    (tenant.into(), target.into(), end)
}

/// Alice has a copy on fra, bob a backup, carol nothing, and dave, who is stopped, a copy on lon. All live on nyc.
async fn four(place: &Path) -> Fleet {
    let fleet = Fleet::start(&["fra", "lon", "nyc"]).await;
    fleet.add("alice", "fra").await;
    write(&fleet, "fra", "alice", "monday");
    fleet.migrate("alice", "nyc").await;
    write(&fleet, "nyc", "alice", "tuesday");
    fleet.add("bob", "nyc").await;
    write(&fleet, "nyc", "bob", "backed up");
    back_up(&fleet, "bob", place).await;
    fleet.add("carol", "nyc").await;
    fleet.add("dave", "lon").await;
    stop(&fleet, "dave").await;
    fleet.migrate("dave", "nyc").await;
    fleet
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_comes_back_with_the_newest_that_is_left_and_nobody_without() {
    let place = tempfile::tempdir().unwrap();
    let mut fleet = four(&place.path().join("backups")).await;
    let answers = lose(&fleet, request("nyc")).await.unwrap_err();
    assert!(answers.is(reason::WRONG_STATE) && answers.message.contains("server drain nyc"), "{answers}");
    fleet.power_off("nyc");
    until_silent(&fleet, "nyc").await;
    let unconfirmed =
        lose(&fleet, pb::LoseServerRequest { confirm: "nyx".into(), ..request("nyc") }).await.unwrap_err();
    assert!(unconfirmed.is(reason::NOT_CONFIRMED), "{unconfirmed}");

    let plan = pb::LoseServerRequest { dry_run: true, confirm: String::new(), ..request("nyc") };
    let planned = lose(&fleet, plan).await.unwrap();
    assert!(planned.operation.is_none() && planned.last_heard.is_some());
    let of = |name: &str| planned.tenants.iter().find(|one| one.tenant == name).unwrap();
    assert!(of("alice").data.contains("the copy on fra of") && of("alice").target == "fra", "{:?}", of("alice"));
    assert!(of("bob").data.contains("the backup") && !of("bob").target.is_empty(), "{:?}", of("bob"));
    assert!(of("carol").why.contains("never started empty") && of("carol").target.is_empty(), "{:?}", of("carol"));
    assert_eq!(fleet.show("alice").await.state(), pb::TenantState::Unknown, "a plan changes nothing");

    let wanted = request("nyc");
    let begun = lose(&fleet, wanted.clone()).await.unwrap().operation.unwrap();
    let again = lose(&fleet, wanted).await.unwrap().operation.unwrap();
    assert_eq!(begun.id, again.id, "the same request is the same operation");
    let outcome = fleet.outcome(&begun.id).await;
    assert_eq!(outcome.state(), pb::OperationState::Succeeded, "{:#?}", outcome.operation);
    let bob = outcome.operation.moves.iter().find(|one| one.tenant == "bob").unwrap().target.clone();
    let (recovered, lost) = (pb::MoveEnd::Recovered, pb::MoveEnd::Lost);
    let wanted = [
        end("alice", "fra", recovered),
        end("bob", &bob, recovered),
        end("carol", "", lost),
        end("dave", "lon", recovered),
    ];
    assert_eq!(ends(&outcome.operation.moves), wanted);
    assert_eq!((read(&fleet, "fra", "alice"), read(&fleet, &bob, "bob")), ("monday".into(), "backed up".into()));
    assert_eq!((running(&fleet, "alice"), running(&fleet, "bob")), (vec!["fra".to_owned()], vec![bob]));
    assert_eq!(running(&fleet, "dave"), [""; 0], "who was stopped stays so");
    assert_eq!(fleet.show("dave").await.state(), pb::TenantState::Stopped);
    let listed = fleet.server_service().list_servers(pb::ListServersRequest {}).await.unwrap().into_inner().servers;
    assert!(listed.iter().all(|server| server.name != "nyc"));

    // Carol is down, and nothing that anybody types starts her empty.
    let carol = fleet.show("carol").await;
    assert_eq!(carol.state(), pb::TenantState::Lost);
    assert!(carol.problem.contains("featherctl tenant recover carol"), "{}", carol.problem);
    assert!(recover(&fleet, "carol").await.unwrap_err().is(reason::DATA_MISSING));
    let start = pb::StartTenantRequest { request_id: request_id(), tenant: "carol".into() };
    let refused = Error::from(fleet.tenants().start_tenant(start).await.unwrap_err());
    assert!(refused.message.contains("nyc, which is lost"), "{refused}");
    assert!(fleet.try_add("carol", "fra").await.unwrap_err().is(reason::TENANT_EXISTS));
    let refused = fleet.begin_migrate("carol", "fra").await.unwrap_err();
    assert!(refused.message.contains("nyc, which is lost"), "{refused}");

    // The machine comes back behind everybody's back.
    fleet.start_agent("nyc");
    until_out(&fleet, "nyc").await;
    assert_eq!((running(&fleet, "alice"), running(&fleet, "carol")), (vec!["fra".to_owned()], vec![]));
    assert_eq!(fleet.recorder.violations(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dead_machine_itself_may_bring_its_data_back_under_another_name() {
    let mut fleet = Fleet::start(&["fra", "nyc"]).await;
    fleet.add("carol", "nyc").await;
    write(&fleet, "nyc", "carol", "all of it");
    fleet.power_off("nyc");
    until_silent(&fleet, "nyc").await;
    let begun = lose(&fleet, request("nyc")).await.unwrap().operation.unwrap();
    assert_eq!(ends(&fleet.outcome(&begun.id).await.operation.moves), [end("carol", "", pb::MoveEnd::Lost)]);
    let invite = |server: &str| pb::CreateJoinTokenRequest { server: server.into(), ..Default::default() };
    let refused = Error::from(fleet.enrollment().create_join_token(invite("nyc")).await.err().unwrap());
    assert!(refused.message.contains("carol lived there"), "{refused}");

    // Its disk was fine after all. (Its name in these tests stays nyc; in the fleet it is ams.)
    fleet.start_agent("nyc");
    until_out(&fleet, "nyc").await;
    fleet.kill_agent("nyc");
    fleet.rename("nyc", "ams").await;
    fleet.start_agent("ams");
    until("carol's copy is seen", async || {
        let list =
            fleet.volumes().list_volumes(pb::ListVolumesRequest {}).await.map_err(|status| status.to_string())?;
        let volumes = list.into_inner().volumes;
        let copy = volumes.iter().find(|one| one.tenant == "carol" && one.server == "ams");
        copy.map(drop).ok_or_else(|| format!("{volumes:?}"))
    })
    .await;
    assert_eq!(running(&fleet, "carol"), [""; 0], "nothing starts by itself");
    assert_eq!(recover(&fleet, "carol").await.unwrap(), pb::OperationState::Succeeded);
    assert_eq!((fleet.show("carol").await.server, read(&fleet, "ams", "carol")), ("ams".into(), "all of it".into()));
    assert_eq!(fleet.show("carol").await.state(), pb::TenantState::Running);
    fleet.power_off("ams");
    fleet.start_agent("ams");
    until("she runs after a reboot as well", async || match running(&fleet, "carol") {
        running if running.len() == 1 => Ok(()),
        running => Err(running),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_given_up_begins_anew_and_then_the_name_of_the_server_is_free() {
    let mut fleet = Fleet::start(&["fra", "nyc"]).await;
    fleet.add("carol", "nyc").await;
    fleet.add("zoe", "nyc").await;
    fleet.remove("zoe").await;
    fleet.power_off("nyc");
    until_silent(&fleet, "nyc").await;
    let begun = lose(&fleet, request("nyc")).await.unwrap().operation.unwrap();
    fleet.outcome(&begun.id).await;
    // Zoe was removed, and her kept data is lost: she does not come back empty either, unless somebody says so.
    assert!(fleet.try_add("zoe", "fra").await.unwrap_err().is(reason::DATA_MISSING));
    for name in ["carol", "zoe"] {
        assert_eq!(fleet.remove(name).await.state(), pb::OperationState::Succeeded, "{name}");
    }
    fleet.add("carol", "fra").await;
    assert_eq!(fleet.starts("fra", "carol").len(), 1, "a new beginning");
    // Nobody told the machine that it was out, and it joins anew with all that it ran then.
    std::fs::remove_file(fleet.servers["nyc"].state_dir.join("agent.identity")).unwrap();
    fleet.enter("nyc").await;
    fleet.start_agent("nyc");
    fleet.all_ready().await;
    fleet.add("bob", "nyc").await;
    assert_eq!(running(&fleet, "carol"), ["fra"]);
    assert_eq!(fleet.recorder.violations(), Vec::<String>::new());
}

/// Alice lives on nyc, and has a copy on fra.
async fn alice() -> Fleet {
    let fleet = Fleet::start(&["fra", "nyc"]).await;
    fleet.add("alice", "fra").await;
    write(&fleet, "fra", "alice", "monday");
    fleet.migrate("alice", "nyc").await;
    fleet
}

async fn alice_without_nyc() -> Fleet {
    let mut fleet = alice().await;
    fleet.power_off("nyc");
    until_silent(&fleet, "nyc").await;
    fleet.faults.clear();
    fleet
}

fn check(fleet: &Fleet, what: &str) {
    assert_eq!(
        (running(fleet, "alice"), read(fleet, "fra", "alice")),
        (vec!["fra".to_owned()], "monday".into()),
        "{what}"
    );
    assert_eq!(fleet.recorder.violations(), Vec::<String>::new(), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_controller_may_die_behind_every_write_of_it() {
    for writes in 1.. {
        let mut fleet = alice_without_nyc().await;
        fleet.crash_after_writes(writes);
        let wanted = request("nyc");
        let (fleet_ref, first) = (&fleet, wanted.clone());
        let whole = async {
            let begun = lose(fleet_ref, first).await.unwrap().operation.unwrap();
            fleet_ref.outcome(&begun.id).await
        };
        let ended = fleet.crash_or(whole).await;
        let what = format!("crash behind write {writes}");
        if ended.is_none() {
            fleet.kill_controller();
            fleet.start_controller().await;
            // Whoever asked does not know how far it came, and says the same again.
            let begun = until("the controller answers", async || {
                lose(&fleet, wanted.clone()).await.map_err(|error| error.to_string())
            })
            .await;
            fleet.outcome(&begun.operation.unwrap().id).await;
        }
        until("alice is back", async || match fleet.show("alice").await.state() {
            pb::TenantState::Running => Ok(()),
            other => Err(other),
        })
        .await;
        check(&fleet, &what);
        if ended.is_some() {
            assert!(writes > 10, "it writes its log: only {writes} writes seen");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_of_it_may_be_refused_lost_or_repeated() {
    let fleet = alice_without_nyc().await;
    let begun = lose(&fleet, request("nyc")).await.unwrap().operation.unwrap();
    fleet.outcome(&begun.id).await;
    check(&fleet, "without a fault");
    let calls = fleet.faults.made();
    for verb in ["reclaim", "add_tenant"] {
        assert!(calls.contains(&("fra".to_owned(), verb)), "{calls:?}");
        for fault in Fault::ALL {
            let what = format!("{fault:?} at {verb}");
            let fleet = alice_without_nyc().await;
            fleet.faults.once("fra", verb, fault);
            let begun = lose(&fleet, request("nyc")).await.unwrap().operation.unwrap();
            let outcome = fleet.outcome(&begun.id).await;
            assert_eq!(outcome.state(), pb::OperationState::Succeeded, "{what}: {:#?}", outcome.operation);
            if outcome.operation.moves[0].end() != pb::MoveEnd::Recovered {
                assert_eq!(fault, Fault::Refuse, "{what}: {:#?}", outcome.operation.moves);
                assert_eq!(fleet.show("alice").await.state(), pb::TenantState::Lost, "{what}");
                assert_eq!(running(&fleet, "alice"), [""; 0], "{what}");
                assert_eq!(recover(&fleet, "alice").await.unwrap(), pb::OperationState::Succeeded, "{what}");
            }
            check(&fleet, &what);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_from_the_dead_server_ends_wherever_it_was_and_nobody_is_left_between_two() {
    nyc_dies_at_every_call_of_a_move("alice", "fra").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_to_the_dead_server_ends_wherever_it_was_and_what_the_source_has_comes_back() {
    nyc_dies_at_every_call_of_a_move("bob", "nyc").await;
}

/// Alice, who lives on nyc, and bob, who lives on fra.
async fn alice_and_bob() -> Fleet {
    let fleet = alice().await;
    fleet.add("bob", "fra").await;
    write(&fleet, "fra", "bob", "tuesday");
    fleet.faults.clear();
    fleet
}

async fn nyc_dies_at_every_call_of_a_move(mover: &str, to: &str) {
    let calls = {
        let fleet = alice_and_bob().await;
        assert_eq!(fleet.migrate(mover, to).await.state(), pb::OperationState::Succeeded);
        fleet.faults.made()
    };
    for (number, made) in calls.iter().enumerate() {
        let what = format!("nyc dies before call {number}, {made:?}");
        let mut fleet = alice_and_bob().await;
        let reached = std::sync::Arc::new(tokio::sync::Notify::new());
        let hook = reached.clone();
        fleet.faults.on_call(std::sync::Arc::new(move |_, at| {
            if at == number {
                hook.notify_one();
            }
        }));
        let moving = fleet.begin_migrate(mover, to).await.unwrap();
        reached.notified().await;
        fleet.power_off("nyc");
        until_silent(&fleet, "nyc").await;
        let begun = lose(&fleet, request("nyc")).await.unwrap().operation.unwrap();
        let outcome = fleet.outcome(&begun.id).await;
        assert_eq!(outcome.state(), pb::OperationState::Succeeded, "{what}: {:#?}", outcome.operation);
        let moved = fleet.outcome(&moving.id).await;
        assert!(moved.operation.ended.is_some(), "{what}");
        // Either the move had come far enough, or a copy was left, or what was there was made the base of the move and is not whole.
        let alice = fleet.show("alice").await;
        match alice.state() {
            pb::TenantState::Running => assert_eq!(running(&fleet, "alice"), ["fra"], "{what}"),
            pb::TenantState::Lost => assert_eq!(running(&fleet, "alice"), [""; 0], "{what}"),
            other => panic!("{what}: {other:?} {}", alice.problem),
        }
        fleet.start_agent("nyc");
        until_out(&fleet, "nyc").await;
        // Bob's data was on fra all the time.
        assert_eq!(
            (running(&fleet, "bob"), read(&fleet, "fra", "bob")),
            (vec!["fra".to_owned()], "tuesday".into()),
            "{what}"
        );
        assert!(running(&fleet, "alice").len() <= 1, "{what}");
        assert_eq!(fleet.recorder.violations(), Vec::<String>::new(), "{what}");
    }
}
