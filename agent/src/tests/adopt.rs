//! A server that was run by hand until its agent came.

use std::{collections::BTreeMap, sync::Arc};

use feather_proto::{
    error::reason,
    ids::TenantName,
    pb::{agent::v1 as pb, types::v1 as types},
    tls::Principal,
};
use types::AdoptionAction;

use super::{
    crash::{Crashing, Cut},
    harness::{
        IMAGE, Server, World, activate, alice, captured_log, grant, hand_off, pull, pulled, refused, request_id,
        reserve, reset, seal, start, stop, trial, wait_until,
    },
    local::tenant_sh,
};
use crate::{
    ledger::Directory,
    router::{Route, Router as _},
    runtime::{ContainerSpec, Network, Reach, fake::ByHand},
};

const PASSWORD: &str = "x7k9m2-by-hand";

/// As `tenant.sh add` did it, route included.
fn by_hand(server: &Server, name: &str, port: u16, change: impl FnOnce(&mut ByHand)) {
    let tenant: TenantName = name.parse().unwrap();
    let spec = ContainerSpec {
        name: tenant.container(),
        image: IMAGE.into(),
        host_port: port,
        reach: Reach::Published,
        volume: tenant.container(),
        environment: BTreeMap::from([
            ("FEATHER_PASSWORD".into(), PASSWORD.into()),
            ("OPENAI_API_KEY".into(), "an-older-key".into()),
        ]),
        dns: vec!["8.8.8.8".into()],
        labels: BTreeMap::new(),
        limits: Default::default(),
    };
    let mut made = ByHand::as_the_script(&spec);
    change(&mut made);
    server.engine.run_by_hand(&spec, made);
    server.proxy.write_by_hand(&tenant, Route::Serve { port });
}

async fn plan(server: &Server) -> Vec<types::AdoptionFinding> {
    server.adoption().plan_adoption(pb::PlanAdoptionRequest {}).await.unwrap().into_inner().findings
}

fn adopting(names: &[&str]) -> pb::AdoptTenantsRequest {
    let tenants = names.iter().map(|name| (*name).to_owned()).collect();
    pb::AdoptTenantsRequest { request_id: request_id(), tenants }
}

async fn adopt(server: &Server, names: &[&str]) -> Vec<(String, AdoptionAction)> {
    let answer = server.adoption().adopt_tenants(adopting(names)).await.unwrap().into_inner();
    answer.findings.iter().map(|finding| (finding.name.clone(), finding.action())).collect()
}

/// Waits until the reconciler has looked at everything at least once more.
async fn at_rest(server: &Server) {
    wait_until("the server reports no problem", async || {
        let snapshot = server.snapshot().await;
        (snapshot.problems.is_empty(), snapshot.problems)
    })
    .await;
}

/// A server of the old script's, with alice.
async fn run_by_hand(world: &World) -> Server {
    let mut nyc = world.server("nyc");
    by_hand(&nyc, "alice", 9001, |_| {});
    nyc.start().await;
    nyc
}

/// Something happens behind a look at the records and before the routes are made what they say; and then routes are made once more.
async fn while_routes_are_applied(server: &Server, during: impl AsyncFnOnce()) {
    let held = server.proxy.hold_next_change();
    held.reached().await;
    let applied = server.proxy.applied();
    during().await;
    held.go_on();
    wait_until("the routes were applied, and once more", async || {
        let now = server.proxy.applied();
        (now >= applied + 2, now)
    })
    .await;
}

/// Both its record and the fact that its route had none are true, one after the other: nobody puts them together.
#[tokio::test]
async fn who_is_adopted_while_routes_are_being_applied_keeps_its_route() {
    let world = World::new();
    let nyc = run_by_hand(&world).await;
    while_routes_are_applied(&nyc, async || {
        assert_eq!(adopt(&nyc, &["alice"]).await, [("alice".to_owned(), AdoptionAction::Adopted)]);
    })
    .await;
    assert_eq!(nyc.proxy.changes(), 0, "nobody's connection ends by it");
}

/// The old script goes on until somebody takes over.
#[tokio::test]
async fn a_route_that_is_written_by_hand_while_routes_are_being_applied_stays() {
    let world = World::new();
    let nyc = run_by_hand(&world).await;
    while_routes_are_applied(&nyc, async || by_hand(&nyc, "bob", 9002, |_| {})).await;
    let routes = nyc.proxy.observe().await.unwrap();
    assert_eq!(routes.into_keys().map(|tenant| tenant.to_string()).collect::<Vec<_>>(), ["alice", "bob"]);
    assert_eq!(nyc.proxy.changes(), 0);
}

async fn adopted(world: &World) -> Server {
    let nyc = run_by_hand(world).await;
    assert_eq!(adopt(&nyc, &["alice"]).await, [("alice".to_owned(), AdoptionAction::Adopted)]);
    at_rest(&nyc).await;
    nyc
}

#[tokio::test]
async fn an_adopted_tenant_runs_on_as_it_was_under_its_port_and_route() {
    let world = World::new();
    let mut nyc = world.server("nyc");
    std::fs::create_dir_all(nyc.config.old_tenants_file.parent().unwrap()).unwrap();
    std::fs::write(&nyc.config.old_tenants_file, r#"{"alice":{"port":9001},"bob":{"port":9500},"ghost":9009}"#)
        .unwrap();
    by_hand(&nyc, "alice", 9001, |_| {});
    by_hand(&nyc, "bob", 9500, |made| made.network = Network::Host);
    by_hand(&nyc, "carol", 9003, |made| made.home = None);
    let routes = nyc.proxy.observe().await.unwrap();
    nyc.start().await;

    let found = plan(&nyc).await;
    let seen: Vec<_> = found.iter().map(|one| (one.name.as_str(), one.action(), one.port)).collect();
    let wanted = [
        ("alice", AdoptionAction::Adopt, 9001),
        ("bob", AdoptionAction::Adopt, 9500),
        ("carol", AdoptionAction::Misfit, 9003),
        ("ghost", AdoptionAction::Misfit, 0),
    ];
    assert_eq!(seen, wanted);
    assert!(found[1].host_network && found[1].listed && found[1].routed && !found[2].listed);
    assert_eq!(nyc.snapshot().await.tenants, [], "a plan changes nothing");

    let all = ["alice", "bob", "carol", "ghost"];
    let done = adopt(&nyc, &all).await.into_iter().map(|(_, action)| action).collect::<Vec<_>>();
    assert_eq!(
        done,
        [AdoptionAction::Adopted, AdoptionAction::Adopted, AdoptionAction::Misfit, AdoptionAction::Misfit]
    );
    let again = adopt(&nyc, &all).await.into_iter().map(|(_, action)| action).collect::<Vec<_>>();
    assert_eq!(again, [AdoptionAction::Known, AdoptionAction::Known, AdoptionAction::Misfit, AdoptionAction::Misfit]);

    let settled = |snapshot: &pb::ServerSnapshot| {
        let running = |one: &pb::Tenant| one.residence() == pb::Residence::Running && one.problem.is_empty();
        snapshot.tenants.len() == 2 && snapshot.tenants.iter().all(running) && snapshot.problems.len() == 1
    };
    wait_until("alice and bob are the ledger's, carol is not", async || {
        let snapshot = nyc.snapshot().await;
        (settled(&snapshot), snapshot)
    })
    .await;
    let snapshot = nyc.snapshot().await;
    assert!(snapshot.problems[0].contains("feather-user-carol") && snapshot.problems[0].contains("adopt"));
    assert_eq!(snapshot.ports_used, [9001, 9500]);
    // The agent dies and comes back, and again nothing is touched.
    nyc.crash().await;
    nyc.start().await;
    wait_until("the agent is back", async || {
        let snapshot = nyc.snapshot().await;
        (settled(&snapshot), snapshot)
    })
    .await;
    for name in ["alice", "bob", "carol"] {
        assert_eq!(world.recorder.starts(&format!("feather-user-{name}")).len(), 1, "{name} was never started again");
    }
    assert_eq!((nyc.proxy.changes(), nyc.proxy.observe().await.unwrap()), (0, routes));
    let log = captured_log();
    assert!(log.contains("adopted") && !log.contains(PASSWORD) && !log.contains("an-older-key"));
}

#[tokio::test]
async fn routes_by_hand_stay_while_podman_is_silent() {
    let world = World::new();
    let mut nyc = world.server("nyc");
    by_hand(&nyc, "alice", 9001, |_| {});
    nyc.engine.unreachable(true);
    nyc.start().await;
    wait_until("a pass was made", async || {
        let problems = nyc.snapshot().await.problems;
        (!problems.is_empty(), problems)
    })
    .await;
    nyc.proxy.unreachable(true);
    wait_until("a whole pass was made", async || {
        let problems = nyc.snapshot().await.problems;
        (problems.len() > 1, problems)
    })
    .await;
    nyc.proxy.unreachable(false);
    assert_eq!((nyc.public(), nyc.proxy.changes()), ((200, Some("nyc".into())), 0));
    let error = refused(nyc.adoption().plan_adoption(pb::PlanAdoptionRequest {}).await);
    assert_eq!(error.reason, reason::RUNTIME);
}

/// What its next start gives it.
fn is_made_anew(nyc: &Server, password: &str) {
    let spec = nyc.engine.spec("feather-user-alice").unwrap();
    assert_eq!((spec.environment["FEATHER_PASSWORD"].as_str(), spec.host_port), (password, 9001));
    assert_eq!(spec.environment["OPENAI_API_KEY"], "key-of-the-birth");
    assert_eq!(spec.labels["feather.tenant"], "alice");
    assert!(nyc.volume().join("starts.log").exists());
}

#[tokio::test]
async fn one_that_ended_comes_back_as_ours_with_its_password_port_and_data() {
    let world = World::new();
    let nyc = adopted(&world).await;
    nyc.engine.crash("feather-user-alice");
    wait_until("alice runs again", async || {
        let public = nyc.public();
        (public.0 == 200, public)
    })
    .await;
    is_made_anew(&nyc, PASSWORD);
    assert_eq!(world.recorder.starts("feather-user-alice").len(), 2);
}

#[tokio::test]
async fn a_stop_and_a_start_make_it_ours() {
    let world = World::new();
    let nyc = adopted(&world).await;
    nyc.tenants().stop_tenant(stop(2)).await.unwrap();
    assert_eq!(nyc.public().0, 503);
    nyc.tenants().start_tenant(start(2)).await.unwrap();
    is_made_anew(&nyc, PASSWORD);
}

#[tokio::test]
async fn a_new_password_makes_it_ours_also_when_the_agent_dies_in_the_middle() {
    let world = World::new();
    let mut nyc = adopted(&world).await;
    nyc.engine.fail_next(crate::runtime::fake::Verb::Stop, 1);
    assert!(nyc.tenants().reset_password(reset(2)).await.is_err());
    nyc.crash().await;
    nyc.start().await;
    wait_until("the container has another password", async || {
        let spec = nyc.engine.spec("feather-user-alice").unwrap();
        (spec.environment["FEATHER_PASSWORD"] != PASSWORD, spec)
    })
    .await;
    let password = nyc.engine.spec("feather-user-alice").unwrap().environment["FEATHER_PASSWORD"].clone();
    is_made_anew(&nyc, &password);
}

#[tokio::test]
async fn an_adopted_tenant_moves_like_any_other() {
    let world = World::new();
    let (nyc, fra) = (adopted(&world).await, world.started("fra").await);
    std::fs::write(nyc.volume().join("note"), "kept").unwrap();
    fra.tenants().reserve_tenant(reserve(2, &fra)).await.unwrap();
    nyc.tenants().stop_tenant(seal(1)).await.unwrap();
    nyc.volumes().grant_transfer(grant(2, "fra")).await.unwrap();
    pulled(&fra, pull(2, &nyc)).await.unwrap();
    fra.tenants().start_tenant(trial(2)).await.unwrap();
    fra.tenants().activate_tenant(activate(2)).await.unwrap();
    nyc.tenants().hand_off_tenant(hand_off(2, "fra:80")).await.unwrap();
    assert_eq!(nyc.public(), (200, Some("fra".into())));
    assert_eq!(std::fs::read_to_string(fra.volume().join("note")).unwrap(), "kept");
    assert_eq!(fra.engine.spec("feather-user-alice").unwrap().environment["FEATHER_PASSWORD"], PASSWORD);
    world.assert_never_two();
}

#[tokio::test]
async fn only_what_this_server_has_no_record_of_is_adopted() {
    let world = World::new();
    let nyc = world.started("nyc").await;
    nyc.tenants().hand_off_tenant(hand_off(7, "fra:80")).await.unwrap();
    by_hand(&nyc, "alice", 9001, |_| {});
    let found = plan(&nyc).await;
    // The reconciler may have ended it already: it has moved away, whoever starts it here.
    if let Some(alice) = found.first() {
        assert_eq!(alice.action(), AdoptionAction::Misfit, "{alice:?}");
    }
    adopt(&nyc, &["alice"]).await;
    let alice = nyc.get().await;
    assert_eq!((alice.residence(), alice.generation), (pb::Residence::Departed, 7));
    for (request, wanted) in [
        (pb::AdoptTenantsRequest { tenants: vec![], ..adopting(&[]) }, reason::INVALID_FIELD),
        (adopting(&["Not A Name"]), reason::INVALID_NAME),
        (pb::AdoptTenantsRequest { request_id: "7".into(), ..adopting(&["alice"]) }, reason::INVALID_ID),
    ] {
        assert_eq!(refused(nyc.adoption().adopt_tenants(request).await).reason, wanted);
    }
}

#[tokio::test]
async fn a_crash_at_any_write_of_an_adoption_is_finished_by_its_repetition() {
    for cut in [Cut::BeforeTheWrite, Cut::AfterTheWrite] {
        for writes in 0..2 {
            let world = World::new();
            let mut nyc = world.server("nyc");
            by_hand(&nyc, "alice", 9001, |_| {});
            by_hand(&nyc, "bob", 9002, |_| {});
            let directory = Directory::new(nyc.config.ledger_dir()).unwrap();
            nyc.start_on(Arc::new(Crashing::after(writes, cut, directory))).await;
            let error = refused(nyc.adoption().adopt_tenants(adopting(&["alice", "bob"])).await);
            assert_eq!(error.reason, reason::STORAGE);
            nyc.crash().await;
            nyc.start().await;
            let done = adopt(&nyc, &["alice", "bob"]).await;
            let fine = |action: &AdoptionAction| matches!(action, AdoptionAction::Adopted | AdoptionAction::Known);
            assert!(done.len() == 2 && done.iter().all(|(_, action)| fine(action)), "{done:?}");
            at_rest(&nyc).await;
            assert_eq!(nyc.proxy.changes(), 0);
            for name in ["alice", "bob"] {
                assert_eq!(world.recorder.starts(&format!("feather-user-{name}")).len(), 1);
            }
            assert_eq!(alice().container(), "feather-user-alice");
        }
    }
}

#[tokio::test]
async fn a_server_by_itself_takes_over_what_runs_there_with_one_command() {
    let world = World::new();
    let mut nyc = world.server("nyc");
    by_hand(&nyc, "alice", 9001, |_| {});
    by_hand(&nyc, "carol", 9003, |made| made.home = None);
    nyc.start_alone().await;
    let (said, code) = tenant_sh(&nyc, &["add", "alice"]).await.unwrap_err();
    assert!(code == 1 && said.contains("`tenant.sh adopt`"), "{said}");

    let would = tenant_sh(&nyc, &["adopt", "--dry-run"]).await.unwrap();
    assert!(would.contains("alice     container volume route  9001  running    adopt\n"), "{would}");
    assert!(would.contains("carol: nothing is mounted at /home/user"), "{would}");
    assert!(would.ends_with("\n`tenant.sh adopt` would adopt 1 in place; 1 left as found, see above\n"), "{would}");
    assert_eq!(tenant_sh(&nyc, &["list"]).await.unwrap(), "USERNAME  PORT  URL  CONTAINER\n", "nothing was changed");

    let done = tenant_sh(&nyc, &["adopt"]).await.unwrap();
    assert!(done.ends_with("\n1 adopted, nothing was restarted; 1 left as found, see above\n"), "{done}");
    assert!(!done.contains(PASSWORD));
    let again = tenant_sh(&nyc, &["adopt"]).await.unwrap();
    assert!(again.contains("running    known\n") && again.contains("nothing was adopted"), "{again}");
    wait_until("alice is listed", async || {
        let list = tenant_sh(&nyc, &["list"]).await.unwrap();
        (list.contains("alice     9001  https://alice.users.inceptel.ai  running\n"), list)
    })
    .await;
    assert_eq!(world.recorder.starts("feather-user-alice").len(), 1, "she was never started again");
    tenant_sh(&nyc, &["restart", "alice"]).await.unwrap();
    is_made_anew(&nyc, PASSWORD);
}

/// Everything of the old container but its storage is gone, its file of tenants too.
async fn in_a_new_birth(world: &World) -> Server {
    let mut nyc = world.server("nyc");
    by_hand(&nyc, "alice", 9001, |_| {});
    by_hand(&nyc, "bob", 9002, |made| made.network = Network::Host);
    nyc.engine.reboot();
    nyc.proxy.lose_routes();
    nyc.start_alone().await;
    nyc
}

#[tokio::test]
async fn a_new_birth_on_the_old_storage_adopts_and_starts_what_ended_with_the_old_one() {
    let world = World::new();
    let nyc = in_a_new_birth(&world).await;
    let would = tenant_sh(&nyc, &["adopt", "--start", "--dry-run"]).await.unwrap();
    assert!(would.contains("alice     container volume  9001  stopped    adopt\n"), "{would}");
    assert!(would.contains("alice: is stopped, and started now\n"), "{would}");
    assert!(would.ends_with("\n`tenant.sh adopt --start` would adopt 2 in place\n"), "{would}");
    let done = tenant_sh(&nyc, &["adopt", "--start"]).await.unwrap();
    assert!(done.ends_with("\n2 adopted, stopped until now and being started: 2 (`tenant.sh list`)\n"), "{done}");
    wait_until("both serve", async || {
        let list = tenant_sh(&nyc, &["list"]).await.unwrap();
        (list.matches("  running\n").count() == 2 && nyc.public().0 == 200, list)
    })
    .await;
    is_made_anew(&nyc, PASSWORD);
    let bob = nyc.engine.spec("feather-user-bob").unwrap();
    assert_eq!(bob.environment["FEATHER_PASSWORD"], PASSWORD);
}

#[tokio::test]
async fn what_ended_with_the_old_birth_stays_stopped_unless_it_is_asked_for() {
    let world = World::new();
    let nyc = in_a_new_birth(&world).await;
    let done = tenant_sh(&nyc, &["adopt"]).await.unwrap();
    assert!(done.contains("alice: is stopped and stays so until `tenant.sh start alice`\n"), "{done}");
    assert!(done.ends_with("\n2 adopted, stopped and staying so: 2\n"), "{done}");
    tenant_sh(&nyc, &["start", "alice"]).await.unwrap();
    is_made_anew(&nyc, PASSWORD);
    assert_eq!(nyc.public().0, 200);
}

#[tokio::test]
async fn a_member_is_adopted_by_its_fleet() {
    let world = World::new();
    let mut nyc = world.server("nyc");
    by_hand(&nyc, "alice", 9001, |_| {});
    nyc.start_alone().await;
    world.ca.issue(&Principal::agent("nyc")).save(&nyc.config.identity_file()).unwrap();
    nyc.join_fleet();
    wait_until("it is a member", async || {
        let status = tenant_sh(&nyc, &["status"]).await.unwrap();
        (status.starts_with("fleet       member nyc"), status)
    })
    .await;
    for words in [["adopt", "--dry-run"], ["adopt", "--start"]] {
        let (said, code) = tenant_sh(&nyc, &words).await.unwrap_err();
        assert!(code == 1 && said.contains("`featherctl server adopt nyc`"), "{said}");
    }
    assert_eq!(nyc.snapshot().await.tenants, []);
}
