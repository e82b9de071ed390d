//! A server gets another name while it serves: nobody is restarted, everything that can be done with it can be done by the new name, and the
//! name in its certificate is nobody else's.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use feather_controller::dns::memory::Memory;
use feather_proto::{
    error::{Error, reason},
    pb::controller::v1::{
        self as pb, audit_service_client::AuditServiceClient, enrollment_service_client::EnrollmentServiceClient,
        event_service_client::EventServiceClient, image_service_client::ImageServiceClient,
        status_service_client::StatusServiceClient,
    },
    tls::{self, Identity, Principal},
};
use feather_tests::{
    Fleet,
    fleet::{ZONE, request_id, settings},
    wait::until,
};
use futures::StreamExt as _;

use crate::fenced::{until_nobody_runs, until_out};

fn asked(server: &str, name: &str) -> pb::RenameServerRequest {
    pb::RenameServerRequest { server: server.into(), name: name.into(), dry_run: false, request_id: request_id() }
}

async fn rename(fleet: &Fleet, request: pb::RenameServerRequest) -> Result<pb::RenameServerResponse, Error> {
    Ok(fleet.server_service().rename_server(request).await?.into_inner())
}

async fn refusal(fleet: &Fleet, server: &str, name: &str) -> Error {
    rename(fleet, asked(server, name)).await.unwrap_err()
}

async fn listed(fleet: &Fleet) -> Vec<pb::Server> {
    fleet.server_service().list_servers(pb::ListServersRequest {}).await.unwrap().into_inner().servers
}

fn called(servers: &[pb::Server]) -> Vec<&str> {
    servers.iter().map(|one| one.name.as_str()).collect()
}

async fn settled(fleet: &Fleet, operation: Option<pb::Operation>) {
    let outcome = fleet.outcome(&operation.unwrap().id).await;
    assert_eq!(outcome.state(), pb::OperationState::Succeeded, "{:#?}", outcome.operation);
}

async fn ingress(fleet: &Fleet, server: &str) {
    fleet.zone().set_ingress(pb::SetIngressRequest { server: server.into(), ..Default::default() }).await.unwrap();
}

async fn undo(fleet: &Fleet, name: &str) {
    let back =
        pb::MigrateTenantRequest { tenant: name.into(), undo: true, request_id: request_id(), ..Default::default() };
    settled(fleet, fleet.tenants().migrate_tenant(back).await.unwrap().into_inner().operation).await;
}

fn starts(fleet: &Fleet) -> Vec<usize> {
    [("nyc", "alice"), ("fra", "bob"), ("nyc", "carol")].map(|(at, name)| fleet.starts(at, name).len()).to_vec()
}

/// Alice and carol, who is pinned, live on nyc; bob lives on fra and came from nyc, which forwards for him. Nyc is the ingress.
async fn three() -> Fleet {
    let servers = [("nyc", "192.0.2.1"), ("fra", "192.0.2.2"), ("ams", "192.0.2.3")];
    let fleet = Fleet::start_in((Arc::new(Memory::new(ZONE)), None), &servers, settings()).await;
    for name in ["alice", "bob", "carol"] {
        fleet.add(name, "nyc").await;
        std::fs::write(fleet.volume("nyc", name).join("data"), format!("what {name} has")).unwrap();
    }
    let pin = pb::PlaceTenantRequest { tenant: "carol".into(), pin: "nyc".into(), ..Default::default() };
    fleet.tenants().place_tenant(pin).await.unwrap();
    ingress(&fleet, "nyc").await;
    assert_eq!(fleet.migrate("bob", "fra").await.state(), pb::OperationState::Succeeded);
    until_served(&fleet).await;
    fleet
}

/// By the ingress everybody is served.
async fn until_served(fleet: &Fleet) {
    until("everybody is served by the ingress", async || {
        let answers = ["alice", "bob", "carol"].map(|name| fleet.request("nyc", name));
        if answers.iter().all(|answer| answer.status == 200) { Ok(()) } else { Err(format!("{answers:?}")) }
    })
    .await;
}

/// Whoever runs does so once and where the store says (`machines`: what this harness calls the servers).
fn at_home(fleet: &Fleet, name: &str, machine: &str) {
    assert_eq!(fleet.recorder.running(&format!("feather-user-{name}")), [machine]);
    let data = std::fs::read_to_string(fleet.volume(machine, name).join("data")).unwrap();
    assert_eq!(data, format!("what {name} has"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_restarted_and_nobody_refused_and_everything_follows() {
    let fleet = three().await;
    let started = starts(&fleet);
    let dry = rename(&fleet, pb::RenameServerRequest { dry_run: true, ..asked("nyc", "ewr") }).await.unwrap();
    assert_eq!((dry.tenants.as_slice(), dry.ingress), (&["alice".to_owned(), "carol".to_owned()][..], true));
    assert_eq!((dry.pinned, dry.moved_away, dry.changed), (vec!["carol".to_owned()], vec!["bob".to_owned()], true));
    assert_eq!(called(&listed(&fleet).await), ["ams", "fra", "nyc"], "a dry run changes nothing");

    // Requests go on all the while.
    let stop = Arc::new(AtomicBool::new(false));
    let router = fleet.servers["nyc"].router.clone();
    let (ended, asking) = (stop.clone(), router);
    let asker = tokio::spawn(async move {
        let (mut asked, mut refused) = (0, Vec::new());
        while !ended.load(Ordering::SeqCst) {
            for name in ["alice", "bob", "carol"] {
                let answer = asking.request(&feather_tests::fleet::tenant(name), &Default::default());
                asked += 1;
                if answer.status != 200 {
                    refused.push(format!("{name}: {answer:?}"));
                }
            }
            tokio::task::yield_now().await;
        }
        (asked, refused)
    });
    fleet.faults.clear();
    let done = rename(&fleet, asked("nyc", "ewr")).await.unwrap();
    assert_eq!((done.changed, done.identity.as_str()), (true, "nyc"));
    let servers = listed(&fleet).await;
    assert_eq!(called(&servers), ["ams", "ewr", "fra"]);
    let ewr = &servers[1];
    assert_eq!((ewr.state(), ewr.tenants, ewr.ingress), (pb::ServerState::Ready, 2, true), "at once: {ewr:?}");
    assert_eq!((ewr.identity.as_str(), ewr.version), ("nyc", done.version));
    let carol = fleet.show("carol").await;
    assert_eq!((carol.server.as_str(), carol.state()), ("ewr", pb::TenantState::Running));
    let again = rename(&fleet, asked("nyc", "ewr")).await.unwrap();
    assert_eq!((again.changed, again.version), (false, done.version), "it is called so already");
    // Reconcilers look once more at everything, and find something to do where there is something new alone.
    ingress(&fleet, "fra").await;
    until("another one is the ingress", async || {
        let answers = ["alice", "carol"].map(|name| fleet.request("fra", name));
        if answers.iter().all(|answer| answer.status == 200) { Ok(()) } else { Err(format!("{answers:?}")) }
    })
    .await;
    let made = fleet.faults.made();
    assert!(!made.iter().any(|(server, _)| ["nyc", "ewr"].contains(&server.as_str())), "{made:?}");
    stop.store(true, Ordering::SeqCst);
    let (asked_for, refused) = asker.await.unwrap();
    assert!(asked_for > 0 && refused.is_empty(), "{asked_for}: {refused:?}");
    assert_eq!(starts(&fleet), started);

    let events = EventServiceClient::new(fleet.admin());
    let told = { events }.watch_events(pb::WatchEventsRequest { subject: "ewr".into(), ..Default::default() }).await;
    let told: Vec<_> = told.unwrap().into_inner().filter_map(async |one| one.unwrap().event).collect().await;
    let kinds: Vec<_> = told.iter().map(|one| (one.kind.as_str(), one.who.as_str())).collect();
    assert_eq!(kinds, [("server-renamed", "admin/admin")], "nothing of its own is told twice");
    let audit = AuditServiceClient::new(fleet.admin()).list_audit(pb::ListAuditRequest::default()).await.unwrap();
    let entries = audit.into_inner().entries;
    assert_eq!(entries.iter().filter(|one| one.rpc.ends_with("/RenameServer")).count(), 2, "and none for a dry run");
}

#[tokio::test(flavor = "multi_thread")]
async fn moves_undos_drains_and_reboots_go_by_the_new_name() {
    let mut fleet = three().await;
    rename(&fleet, asked("nyc", "ewr")).await.unwrap();
    // There, with a ticket for a peer that has another name in its certificate than in the fleet; from there; back; through the controller.
    undo(&fleet, "bob").await;
    assert_eq!(fleet.show("bob").await.server, "ewr");
    at_home(&fleet, "bob", "nyc");
    assert_eq!(fleet.migrate("alice", "ams").await.state(), pb::OperationState::Succeeded);
    at_home(&fleet, "alice", "ams");
    let relayed = pb::MigrateTenantRequest {
        request_id: request_id(),
        tenant: "alice".into(),
        server: "ewr".into(),
        route: pb::TransferRoute::Controller.into(),
        ..Default::default()
    };
    settled(&fleet, fleet.tenants().migrate_tenant(relayed).await.unwrap().into_inner().operation).await;
    at_home(&fleet, "alice", "nyc");
    until_served(&fleet).await;

    let drain =
        pb::DrainServerRequest { request_id: request_id(), server: "ewr".into(), partial: true, ..Default::default() };
    let begun = fleet.server_service().drain_server(drain).await.unwrap().into_inner().operation.unwrap();
    let left = fleet.outcome(&begun.id).await.operation;
    assert_eq!(left.reason, reason::NOT_ALL_MOVED, "carol is pinned to it by its new name: {left:?}");
    assert_eq!(fleet.show("carol").await.server, "ewr");
    // A name that changes between the drain and the return.
    rename(&fleet, asked("ewr", "lga")).await.unwrap();
    let back = pb::ReturnServerRequest { request_id: request_id(), server: "lga".into(), ..Default::default() };
    settled(&fleet, fleet.server_service().return_server(back).await.unwrap().into_inner().operation).await;
    for name in ["alice", "bob", "carol"] {
        assert_eq!(fleet.show(name).await.server, "lga");
        at_home(&fleet, name, "nyc");
    }

    fleet.power_off("nyc");
    fleet.start_agent("nyc");
    fleet.all_ready().await;
    until_served(&fleet).await;
    let diagnosed =
        StatusServiceClient::new(fleet.admin()).diagnose(pb::DiagnoseRequest {}).await.unwrap().into_inner();
    let said: Vec<_> = diagnosed.checks.iter().map(|one| format!("{} {}", one.subject, one.message)).collect();
    assert!(!said.iter().any(|one| one.contains("nyc")) && said.iter().any(|one| one.starts_with("lga")), "{said:#?}");
    assert_eq!(fleet.recorder.violations(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_dies_behind_the_commit_knows_it_by_the_new_name() {
    let mut fleet = three().await;
    let started = starts(&fleet);
    fleet.crash_behind("rename server");
    let cut_off = fleet.crash_or(rename(&fleet, asked("nyc", "ewr"))).await;
    assert!(cut_off.is_none(), "it died first: {cut_off:?}");
    fleet.kill_controller();
    fleet.start_controller().await;
    fleet.all_ready().await;
    let servers = listed(&fleet).await;
    assert_eq!(called(&servers), ["ams", "ewr", "fra"]);
    assert!(servers[1].ingress && servers[1].tenants == 2, "{:?}", servers[1]);
    assert!(!rename(&fleet, asked("nyc", "ewr")).await.unwrap().changed, "the same call again");
    until_served(&fleet).await;
    assert_eq!(fleet.migrate("carol", "fra").await.state(), pb::OperationState::Succeeded);
    undo(&fleet, "carol").await;
    at_home(&fleet, "carol", "nyc");
    assert_eq!(starts(&fleet)[..2], started[..2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_arrives_when_the_server_was_renamed_back_changes_nothing() {
    let mut fleet = Fleet::start(&["nyc", "fra"]).await;
    let first = asked("nyc", "ewr");
    let done = rename(&fleet, first.clone()).await.unwrap();
    let again = rename(&fleet, first.clone()).await.unwrap();
    assert_eq!((done.changed, again.changed, again.version), (true, false, done.version));
    let back = rename(&fleet, asked("ewr", "nyc")).await.unwrap();
    // Also one that another controller hears, minutes later.
    for _ in 0..2 {
        let late = rename(&fleet, first.clone()).await.unwrap();
        assert_eq!((late.changed, late.version), (false, back.version));
        assert_eq!(called(&listed(&fleet).await), ["fra", "nyc"]);
        fleet.stop_controller().await;
        fleet.start_controller().await;
    }
    let reused = rename(&fleet, pb::RenameServerRequest { name: "lga".into(), ..first }).await.unwrap_err();
    assert!(reused.is(reason::REQUEST_ID_REUSED), "{reused}");
    let bad = pb::RenameServerRequest { request_id: "1".into(), ..asked("nyc", "lga") };
    assert!(rename(&fleet, bad).await.unwrap_err().is(reason::INVALID_ID));
    // A featherctl of the version before sends none, and is served as before.
    let older = pb::RenameServerRequest { request_id: String::new(), ..asked("nyc", "ewr") };
    assert!(rename(&fleet, older.clone()).await.unwrap().changed);
    assert!(!rename(&fleet, older).await.unwrap().changed, "it is called so already");
    assert_eq!(called(&listed(&fleet).await), ["ewr", "fra"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_looks_while_names_change_sees_one_world() {
    let fleet = three().await;
    fleet.faults.clear();
    let stop = AtomicBool::new(false);
    let renaming = async {
        for turn in 0..60 {
            let names = if turn % 2 == 0 { ("nyc", "ewr") } else { ("ewr", "nyc") };
            assert!(rename(&fleet, asked(names.0, names.1)).await.unwrap().changed);
        }
        stop.store(true, Ordering::SeqCst);
    };
    let looking = async {
        let mut looked = 0;
        while !stop.load(Ordering::SeqCst) {
            let servers = listed(&fleet).await;
            let ingress: Vec<_> = servers.iter().filter(|one| one.ingress).map(|one| one.identity.as_str()).collect();
            assert_eq!(ingress, ["nyc"], "{servers:#?}");
            assert!(servers.iter().all(|one| one.state() == pb::ServerState::Ready), "{servers:#?}");
            assert_eq!(servers.iter().map(|one| one.tenants).sum::<u32>(), 3, "{servers:#?}");
            let carol = fleet.show("carol").await;
            assert_eq!(carol.state(), pb::TenantState::Running, "{carol:?}");
            let dry = pb::MigrateTenantRequest { tenant: "alice".into(), dry_run: true, ..Default::default() };
            if let Err(error) = fleet.tenants().migrate_tenant(dry).await {
                let error = Error::from(error);
                assert!(!error.message.contains("lost"), "{error}");
            }
            looked += 1;
        }
        looked
    };
    let ((), looked) = tokio::join!(renaming, looking);
    assert!(looked > 0);
    assert_eq!(fleet.faults.made(), [], "no reconciler found anything to do");
    until_served(&fleet).await;
    assert_eq!(called(&listed(&fleet).await), ["ams", "fra", "nyc"]);
    assert_eq!(fleet.recorder.violations(), Vec::<String>::new());
}

async fn renewed(fleet: &Fleet, identity: Identity) -> Result<Identity, Error> {
    let (key_pem, csr_pem) = tls::csr("nyc").unwrap();
    let mut client = EnrollmentServiceClient::new(fleet.channel(identity.clone()));
    let fresh = client.renew_certificate(pb::RenewCertificateRequest { csr_pem }).await?.into_inner();
    Ok(Identity { certificate_pem: fresh.certificate_pem, key_pem, ca_pem: identity.ca_pem })
}

fn own(fleet: &Fleet, machine: &str) -> Identity {
    Identity::load(&fleet.servers[machine].state_dir.join("agent.identity")).unwrap()
}

fn invitation(server: &str, rejoin: bool) -> pb::CreateJoinTokenRequest {
    pb::CreateJoinTokenRequest { server: server.into(), ttl_seconds: 600, rejoin }
}

#[tokio::test(flavor = "multi_thread")]
async fn its_certificate_is_renewed_by_its_old_name_until_it_joins_anew() {
    let mut fleet = three().await;
    let started = starts(&fleet);
    rename(&fleet, asked("nyc", "ewr")).await.unwrap();
    let before = own(&fleet, "nyc");
    let fresh = renewed(&fleet, before.clone()).await.unwrap();
    assert_eq!(fresh.principal().unwrap(), Principal::agent("nyc"));
    // Nobody gets that name meanwhile, in any way.
    let invited = fleet.enrollment().create_join_token(invitation("nyc", false)).await;
    let refused = Error::from(invited.err().unwrap());
    assert!(refused.is(reason::SERVER_EXISTS) && refused.message.contains("is called ewr now"), "{refused}");
    let refused = refusal(&fleet, "fra", "nyc").await;
    assert!(refused.is(reason::SERVER_EXISTS) && refused.message.contains("server invite ewr --rejoin"), "{refused}");

    // It loses its identity, and joins anew by the name that it has in the fleet.
    fleet.kill_agent("nyc");
    fleet.rejoin_as("nyc", "ewr").await;
    fleet.all_ready().await;
    assert_eq!(own(&fleet, "nyc").principal().unwrap(), Principal::agent("ewr"));
    assert_eq!(listed(&fleet).await[1].identity, "ewr");
    assert!(renewed(&fleet, fresh).await.unwrap_err().is(reason::REVOKED), "what says the old name is void");
    until_served(&fleet).await;
    assert_eq!(starts(&fleet), started);
    assert_eq!(fleet.migrate("alice", "ams").await.state(), pb::OperationState::Succeeded);
    undo(&fleet, "alice").await;
    // And then the old name is free, for a machine that is another one.
    fleet.provide("nyc2");
    drop(fleet.enrollment().create_join_token(invitation("nyc", false)).await.unwrap());
    assert_eq!(fleet.recorder.violations(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_lost_by_its_new_name_is_fenced_by_what_is_in_its_certificate() {
    let mut fleet = Fleet::start(&["nyc", "fra"]).await;
    fleet.add("alice", "fra").await;
    std::fs::write(fleet.volume("fra", "alice").join("data"), "monday").unwrap();
    assert_eq!(fleet.migrate("alice", "nyc").await.state(), pb::OperationState::Succeeded);
    rename(&fleet, asked("nyc", "ewr")).await.unwrap();
    rename(&fleet, asked("fra", "muc")).await.unwrap();
    fleet.power_off("nyc");
    until("it is known to be silent", async || {
        let servers = listed(&fleet).await;
        let ewr = servers.iter().find(|one| one.name == "ewr").unwrap();
        if ewr.state() == pb::ServerState::Unreachable { Ok(()) } else { Err(format!("{ewr:?}")) }
    })
    .await;
    let lose = pb::LoseServerRequest {
        request_id: request_id(),
        server: "ewr".into(),
        confirm: "ewr".into(),
        ..Default::default()
    };
    let dry = pb::LoseServerRequest { dry_run: true, ..lose.clone() };
    let planned = fleet.server_service().lose_server(dry).await.unwrap().into_inner();
    // How old the copy is, is known by an operation that names the server as it was called then.
    assert_eq!(planned.tenants.len(), 1, "{:?}", fleet.show("alice").await);
    assert!(planned.tenants[0].data.contains("the copy on muc of"), "{:?}", planned.tenants);
    settled(&fleet, fleet.server_service().lose_server(lose).await.unwrap().into_inner().operation).await;
    assert_eq!(fleet.show("alice").await.server, "muc");
    assert_eq!(fleet.recorder.running("feather-user-alice"), ["fra"]);
    fleet.start_agent("nyc");
    until_out(&fleet, "nyc").await;
    assert_eq!(fleet.recorder.running("feather-user-alice"), ["fra"], "it starts nobody");
    assert_eq!(fleet.recorder.violations(), Vec::<String>::new());
    fleet.remove("alice").await;
    until_nobody_runs(&fleet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_the_way_says_what_to_do_and_leaves_all_as_it_is() {
    let fleet = three().await;
    let unknown = refusal(&fleet, "lhr", "ewr").await;
    assert!(unknown.is(reason::SERVER_NOT_FOUND), "{unknown}");
    let taken = refusal(&fleet, "nyc", "fra").await;
    assert!(taken.is(reason::SERVER_EXISTS), "{taken}");
    let bad = refusal(&fleet, "nyc", "New York").await;
    assert_eq!(bad.code, feather_proto::error::Code::Invalid, "{bad}");
    drop(fleet.enrollment().create_join_token(invitation("ewr", false)).await.unwrap());
    let invited = refusal(&fleet, "nyc", "ewr").await;
    assert!(invited.is(reason::WRONG_STATE) && invited.message.contains("invited"), "{invited}");

    // An operation holds it: the transfer never ends.
    fleet.network.cut("ams", "nyc:7443");
    let begun = fleet.begin_migrate("alice", "ams").await.unwrap();
    for (server, name) in [("nyc", "lga"), ("ams", "lga")] {
        let held = refusal(&fleet, server, name).await;
        assert!(held.is(reason::OPERATION_RUNNING) && held.message.contains(&begun.id), "{held}");
    }
    assert!(rename(&fleet, asked("fra", "muc")).await.unwrap().changed, "a server that it does not name");
    fleet.network.heal("ams", "nyc:7443");
    drop(fleet.outcome(&begun.id).await);
    assert_eq!(called(&listed(&fleet).await), ["ams", "muc", "nyc"]);
    assert_eq!(fleet.show("bob").await.server, "muc");
    until_served(&fleet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_goes_on_typing_the_old_name_is_told_the_new_one() {
    let fleet = Fleet::start(&["nyc", "fra"]).await;
    fleet.add("alice", "fra").await;
    rename(&fleet, asked("nyc", "ewr")).await.unwrap();
    let (mut servers, mut tenants) = (fleet.server_service(), fleet.tenants());
    let (server, nyc) = ("nyc".to_owned(), || "nyc".to_owned());
    let images =
        ImageServiceClient::new(fleet.admin()).list_images(pb::ListImagesRequest { server: nyc() }).await.err();
    let signed_up = fleet.waitlist().list_entries(pb::ListEntriesRequest { server: nyc() }).await.err();
    let explained =
        StatusServiceClient::new(fleet.admin()).explain_server(pb::ExplainServerRequest { server: nyc() }).await.err();
    let add =
        pb::AddTenantRequest { request_id: request_id(), tenant: "bob".into(), server: nyc(), ..Default::default() };
    let migrate = pb::MigrateTenantRequest {
        request_id: request_id(),
        tenant: "alice".into(),
        server: nyc(),
        ..Default::default()
    };
    let list = pb::ListTenantsRequest { server: nyc(), ..Default::default() };
    let place = pb::PlaceTenantRequest { tenant: "alice".into(), pin: nyc(), ..Default::default() };
    let cordon = pb::CordonServerRequest { server: nyc(), cordoned: true, ..Default::default() };
    let drain = pb::DrainServerRequest { request_id: request_id(), server: nyc(), ..Default::default() };
    let retire = pb::RetireServerRequest { server: nyc(), dry_run: true, ..Default::default() };
    let lose = pb::LoseServerRequest { server: nyc(), dry_run: true, ..Default::default() };
    let answers = [
        ("server show", servers.get_server(pb::GetServerRequest { server: server.clone() }).await.err()),
        ("server rename", servers.rename_server(asked("nyc", "lga")).await.err()),
        ("server cordon", servers.cordon_server(cordon).await.err()),
        ("server drain", servers.drain_server(drain).await.err()),
        ("server retire", servers.retire_server(retire).await.err()),
        ("server lost", servers.lose_server(lose).await.err()),
        (
            "server remove",
            servers.remove_server(pb::RemoveServerRequest { server: nyc(), ..Default::default() }).await.err(),
        ),
        ("tenant add", tenants.add_tenant(add).await.err()),
        ("tenant migrate", tenants.migrate_tenant(migrate).await.err()),
        ("tenant list", tenants.list_tenants(list).await.err()),
        ("tenant place", tenants.place_tenant(place).await.err()),
        ("image list", images),
        ("waitlist list", signed_up),
        ("explain", explained),
    ];
    for (command, answer) in answers {
        let error = Error::from(answer.expect(command));
        assert!(error.is(reason::SERVER_NOT_FOUND), "{command}: {error:?}");
        assert_eq!(error.metadata["called"], "ewr", "{command}: {error}");
        assert!(error.message.contains("there is no server nyc: it is called ewr now"), "{command}: {error}");
    }
}
