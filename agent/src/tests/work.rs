//! The admin container: found or made, kept, swapped, and a crash at every write of a swap.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use feather_proto::{
    error::{Error, reason},
    pb::{agent::v1 as pb, types::v1 as types},
};
use uuid::Uuid;

use super::{
    crash::{Crashing, Cut},
    harness::{IMAGE, Server, World, alice, refused, wait_until},
};
use crate::{
    config::AdminSettings,
    ledger::Directory,
    router::{self, Router as _},
    runtime::{
        ContainerSpec, Reach, Runtime as _,
        fake::{Behaviour, ByHand, Verb},
    },
};

pub(super) const BLUE: &str = "feather-work-blue";
pub(super) const GREEN: &str = "feather-work-green";
pub(super) const NEW: &str = "localhost/feather-work:new";
const SECRET: &str = "key-of-the-admin-container";

/// A server that shall have an admin container; its agent is not started yet.
pub(super) fn server(world: &World) -> Server {
    let mut server = world.server("nyc");
    let environment = BTreeMap::from([("FEATHER_PASSWORD".to_owned(), SECRET.to_owned())]);
    server.config.admin = Some(AdminSettings { home: "feather-work".into(), environment });
    server.config.drain_limit = Duration::from_millis(20);
    server.engine.add_image(NEW, "new", Behaviour::Healthy);
    server
}

/// What somebody gets who asks for no tenant, and the container that runs behind it.
pub(super) fn stranger(server: &Server) -> u16 {
    server.proxy.request(&alice(), &router::fake::Request::default()).status
}

pub(super) async fn admin(server: &Server) -> types::AdminContainer {
    server.snapshot().await.admin.unwrap()
}

pub(super) async fn serves(server: &Server, container: &str) {
    wait_until(&format!("{container} serves alone"), async || {
        let (admin, status) = (admin(server).await, stranger(server));
        let others = server.engine.containers("feather-work-").await.unwrap().len();
        let so = admin.container == container && admin.running && status == 200 && others == 1;
        (so, (admin, status, others))
    })
    .await;
}

pub(super) async fn started(world: &World) -> Server {
    let mut server = server(world);
    server.start().await;
    serves(&server, BLUE).await;
    server
}

#[tokio::test]
async fn a_missing_image_is_told_and_not_asked_for_without_a_pause() {
    let world = World::new();
    let mut nyc = server(&world);
    nyc.config.work_image = "localhost/feather-work:missing".into();
    nyc.config.reconcile_interval = Duration::from_secs(3600);
    nyc.start().await;
    let told = async || {
        let admin = admin(&nyc).await;
        (admin.problem.contains("localhost/feather-work:missing is not in this server's storage"), admin)
    };
    wait_until("the problem is told", told).await;
    // Woken for other reasons it may look once more; woken by its own failure it would never end.
    let asked = nyc.engine.calls(Verb::Image) + 2;
    let again = wait_until("it is asked for again", async || (nyc.engine.calls(Verb::Image) > asked, ()));
    tokio::time::timeout(Duration::from_millis(200), again).await.unwrap_err();
}

pub(super) async fn try_swap(server: &Server, id: Uuid, image: &str) -> Result<pb::TrySwapResponse, Error> {
    let request = pb::TrySwapRequest { request_id: id.to_string(), image: image.into() };
    server.work().try_swap(request).await.map(tonic::Response::into_inner).map_err(Error::from)
}

pub(super) async fn commit(server: &Server, id: Uuid) -> Result<(), Error> {
    let request = pb::CommitSwapRequest { request_id: id.to_string() };
    server.work().commit_swap(request).await.map(drop).map_err(Error::from)
}

pub(super) async fn abandon(server: &Server, id: Uuid) -> Result<(), Error> {
    let request = pb::AbandonSwapRequest { request_id: id.to_string() };
    server.work().abandon_swap(request).await.map(drop).map_err(Error::from)
}

async fn swap(server: &Server, id: Uuid) -> Result<(), Error> {
    try_swap(server, id, NEW).await?;
    commit(server, id).await
}

pub(super) fn kinds(snapshot: &pb::ServerSnapshot) -> Vec<&str> {
    snapshot.events.iter().map(|event| event.kind.as_str()).collect()
}

#[tokio::test]
async fn a_server_has_an_admin_container_that_comes_back_by_itself() {
    let world = World::new();
    let mut nyc = started(&world).await;
    let spec = nyc.engine.spec(BLUE).unwrap();
    assert_eq!((spec.reach, spec.host_port, spec.volume.as_str()), (Reach::Host, 8080, "feather-work"));
    assert_eq!(
        spec.variables(),
        BTreeMap::from([("FEATHER_PASSWORD".to_owned(), SECRET.to_owned()), ("PORT".to_owned(), "8080".to_owned()),])
    );
    nyc.crash().await;
    nyc.engine.reboot();
    nyc.proxy.lose_routes();
    assert_eq!(stranger(&nyc), 404);
    nyc.start().await;
    serves(&nyc, BLUE).await;
    assert!(kinds(&nyc.snapshot().await).is_empty(), "a reboot is no event");
    // Lost while the agent runs.
    nyc.proxy.lose_routes();
    nyc.engine.crash(BLUE);
    serves(&nyc, BLUE).await;
    let snapshot = nyc.snapshot().await;
    assert_eq!(kinds(&snapshot), ["restarted"]);
    assert_eq!(snapshot.admin.unwrap().restarts, 1);
    // Not wanted any more.
    nyc.stop().await;
    nyc.config.admin = None;
    nyc.start().await;
    wait_until("it is gone", async || {
        let left = nyc.engine.containers("feather-work-").await.unwrap();
        (left.is_empty() && stranger(&nyc) == 404, left)
    })
    .await;
    assert!(nyc.engine.volume("feather-work").await.unwrap().is_some(), "its data is kept");
    nyc.stop().await;
}

#[tokio::test]
async fn without_its_image_there_is_a_problem_and_then_there_is_the_image() {
    let world = World::new();
    let mut nyc = server(&world);
    nyc.engine.remove_image(IMAGE);
    nyc.start().await;
    wait_until("the problem is told", async || {
        let admin = admin(&nyc).await;
        (admin.problem.contains("is not in this server's storage"), admin)
    })
    .await;
    assert!(nyc.snapshot().await.problems.is_empty(), "tenants may well be placed here");
    nyc.engine.add_image(IMAGE, "work", Behaviour::Healthy);
    serves(&nyc, BLUE).await;
    assert_eq!(admin(&nyc).await.problem, "");
    nyc.stop().await;
}

#[tokio::test]
async fn one_of_the_time_before_is_kept_as_it_is() {
    let world = World::new();
    let mut nyc = server(&world);
    let spec = ContainerSpec {
        name: GREEN.into(),
        image: IMAGE.into(),
        host_port: 8081,
        reach: Reach::Host,
        volume: "old-home".into(),
        environment: BTreeMap::new(),
        dns: Vec::new(),
        labels: BTreeMap::new(),
        limits: Default::default(),
    };
    nyc.engine.run_by_hand(&spec, ByHand::as_the_script(&spec));
    nyc.start().await;
    serves(&nyc, GREEN).await;
    assert_eq!(kinds(&nyc.snapshot().await), ["adopted"]);
    assert_eq!(nyc.engine.spec(GREEN).unwrap(), spec, "it was not made anew");
    swap(&nyc, Uuid::new_v4()).await.unwrap();
    serves(&nyc, BLUE).await;
    nyc.stop().await;
}

#[tokio::test]
async fn a_swap_changes_places_and_the_next_one_changes_them_back() {
    let world = World::new();
    let mut nyc = started(&world).await;
    for (container, port) in [(GREEN, 8081), (BLUE, 8080)] {
        let id = Uuid::new_v4();
        let before = admin(&nyc).await.container;
        let tried = try_swap(&nyc, id, NEW).await.unwrap();
        assert_eq!((tried.container.as_str(), tried.port), (container, port));
        let trying = admin(&nyc).await;
        assert_eq!((trying.container, trying.candidate.as_str()), (before, container), "it does not serve yet");
        assert_eq!(nyc.proxy.observe_admin().await.unwrap(), Some(if port == 8080 { 8081 } else { 8080 }));
        commit(&nyc, id).await.unwrap();
        serves(&nyc, container).await;
        // Repeated calls change nothing.
        let starts = nyc.engine.calls(Verb::Start);
        swap(&nyc, id).await.unwrap();
        assert_eq!(abandon(&nyc, id).await.unwrap_err().reason, reason::NOT_CANCELLABLE);
        assert_eq!(nyc.engine.calls(Verb::Start), starts);
    }
    assert_eq!(kinds(&nyc.snapshot().await), ["swapped", "swapped"]);
    nyc.stop().await;
}

#[tokio::test]
async fn a_new_one_that_is_no_good_leaves_the_old_one_serving() {
    let world = World::new();
    let mut nyc = started(&world).await;
    for behaviour in [Behaviour::NeverHealthy, Behaviour::Exits] {
        nyc.engine.add_image(NEW, "bad", behaviour);
        let id = Uuid::new_v4();
        let error = try_swap(&nyc, id, NEW).await.unwrap_err();
        assert_eq!(error.reason, reason::NEVER_HEALTHY);
        assert!(error.message.contains("listening on 8080") && error.message.contains(BLUE), "{}", error.message);
        assert_eq!(try_swap(&nyc, id, NEW).await.unwrap_err().reason, reason::NEVER_HEALTHY, "asked again");
        assert_eq!(commit(&nyc, id).await.unwrap_err().reason, reason::NEVER_HEALTHY);
        abandon(&nyc, id).await.unwrap();
        serves(&nyc, BLUE).await;
    }
    // Somebody else has its port, and even says that all is well.
    nyc.engine.add_image(NEW, "new", Behaviour::Healthy);
    nyc.engine.occupy(8081, true);
    let error = try_swap(&nyc, Uuid::new_v4(), NEW).await.unwrap_err();
    assert!(error.message.contains("port 8081 is taken"), "{}", error.message);
    nyc.engine.occupy(8081, false);
    let missing = try_swap(&nyc, Uuid::new_v4(), "localhost/feather-absent:latest").await.unwrap_err();
    assert_eq!(missing.reason, reason::IMAGE_MISSING);
    serves(&nyc, BLUE).await;
    assert_eq!(kinds(&nyc.snapshot().await), ["swap-failed"; 3]);
    swap(&nyc, Uuid::new_v4()).await.unwrap();
    serves(&nyc, GREEN).await;
    nyc.stop().await;
}

#[tokio::test]
async fn a_swap_is_cancelled_at_once_while_its_health_is_awaited() {
    let world = World::new();
    let mut nyc = server(&world);
    nyc.config.health_timeout = Duration::from_secs(60);
    nyc.start().await;
    serves(&nyc, BLUE).await;
    nyc.engine.add_image(NEW, "bad", Behaviour::NeverHealthy);
    let id = Uuid::new_v4();
    let (tried, ()) = tokio::join!(try_swap(&nyc, id, NEW), async {
        wait_until("the new one is being tried", async || {
            let running = nyc.engine.spec(GREEN).is_some();
            (running && nyc.engine.calls(Verb::Healthy) > 20, running)
        })
        .await;
        let other = try_swap(&nyc, Uuid::new_v4(), NEW).await.unwrap_err();
        assert_eq!(other.reason, reason::OPERATION_RUNNING, "it does not wait for the other's end");
        abandon(&nyc, id).await.unwrap();
    });
    assert_eq!(tried.unwrap_err().reason, reason::CANCELLED);
    serves(&nyc, BLUE).await;
    nyc.stop().await;
}

#[tokio::test]
async fn only_the_controller_and_admins_swap() {
    let world = World::new();
    let mut nyc = started(&world).await;
    let operator = nyc.as_role(&world, feather_proto::tls::Role::Operator, "ada");
    let mut client = pb::work_service_client::WorkServiceClient::new(operator);
    let request = pb::TrySwapRequest { request_id: Uuid::new_v4().to_string(), image: String::new() };
    assert_eq!(refused(client.try_swap(request).await).reason, reason::ROLE);
    let bad = pb::TrySwapRequest { request_id: "1".into(), image: String::new() };
    assert_eq!(refused(nyc.work().try_swap(bad).await).reason, reason::INVALID_ID);
    nyc.stop().await;
}

#[derive(Clone, Copy, Debug)]
enum Step {
    First,
    Try,
    Commit,
}

async fn act(step: Step, server: &Server, id: Uuid) -> Result<(), Error> {
    match step {
        Step::First => first_serves(server).await,
        Step::Try => try_swap(server, id, NEW).await.map(drop),
        Step::Commit => commit(server, id).await,
    }
}

/// An error when it cannot even be written down that there shall be one.
async fn first_serves(server: &Server) -> Result<(), Error> {
    let mut problem = String::new();
    wait_until("the first one serves, or cannot be", async || {
        let admin = admin(server).await;
        problem.clone_from(&admin.problem);
        (admin.container == BLUE && admin.running || problem.contains("cannot be written"), admin)
    })
    .await;
    if problem.is_empty() { Ok(()) } else { Err(Error::bug(problem)) }
}

/// Runs a swap with a crash of everything at a write of its record; true when the crash happened.
async fn crashed_swap(crash_after: usize, cut: Cut) -> bool {
    let world = World::new();
    let mut nyc = server(&world);
    let ledger = Arc::new(Directory::new(nyc.config.ledger_dir()).unwrap());
    let work = Crashing::after(crash_after, cut, Directory::new(nyc.config.work_dir()).unwrap());
    nyc.start_with(ledger, Arc::new(work)).await;
    let (id, mut crashed) = (Uuid::new_v4(), false);
    for step in [Step::First, Step::Try, Step::Commit] {
        let Err(error) = act(step, &nyc, id).await else { continue };
        let what = format!("{step:?} at write {crash_after} ({cut:?})");
        assert!(!crashed, "{what} failed after the crash: {error}");
        crashed = true;
        nyc.crash().await;
        nyc.engine.reboot();
        nyc.proxy.lose_routes();
        nyc.start().await;
        act(step, &nyc, id).await.unwrap_or_else(|error| panic!("{what}, repeated: {error}"));
    }
    serves(&nyc, GREEN).await;
    assert_eq!(admin(&nyc).await.candidate, "");
    nyc.stop().await;
    crashed
}

#[tokio::test]
async fn a_crash_at_any_write_of_a_swap_leaves_a_server_on_which_it_goes_on() {
    for cut in [Cut::BeforeTheWrite, Cut::AfterTheWrite] {
        let mut crash_after = 0;
        while crashed_swap(crash_after, cut).await {
            crash_after += 1;
        }
        assert!(crash_after >= 4, "only {crash_after} writes");
    }
}

#[tokio::test]
async fn a_swap_that_was_committed_ends_by_itself_and_one_without_a_driver_is_given_up() {
    let world = World::new();
    let mut nyc = started(&world).await;
    let id = Uuid::new_v4();
    try_swap(&nyc, id, NEW).await.unwrap();
    // Until it is told otherwise: the reconciler asks as well, and must not use up what the commit is to meet.
    nyc.proxy.fail_next(router::fake::Verb::Ensure, u32::MAX);
    assert!(commit(&nyc, id).await.is_err());
    nyc.proxy.fail_next(router::fake::Verb::Ensure, 0);
    serves(&nyc, GREEN).await;
    commit(&nyc, id).await.unwrap();

    let id = Uuid::new_v4();
    try_swap(&nyc, id, NEW).await.unwrap();
    nyc.crash().await;
    let file = nyc.config.work_dir().join("admin.json");
    let record = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, record.replace("\"by\": \"caller\"", "\"by\": \"agent\"")).unwrap();
    nyc.start().await;
    serves(&nyc, GREEN).await;
    wait_until("the swap without a driver is given up", async || {
        let snapshot = nyc.snapshot().await;
        let seen = kinds(&snapshot).join(" ");
        // The swap before it may have been told already when the agent died, or not.
        (seen.ends_with("swap-failed"), seen)
    })
    .await;
    assert_eq!(commit(&nyc, id).await.unwrap_err().reason, reason::CANCELLED);
    nyc.stop().await;
}
