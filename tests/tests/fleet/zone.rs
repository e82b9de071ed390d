//! A whole fleet in a zone at the stand-in for Dynadot: names follow tenants, forwards end, and a person has the last word.

use std::{sync::Arc, time::Duration};

use feather_controller::{
    dns::{
        Mode,
        authority::Network,
        zone::{Zone, ZoneRecord},
    },
    world::{Clock as _, Settings, SystemClock},
};
use feather_proto::{
    error::{Error, reason},
    pb::controller::v1::{
        self as pb, dns_service_client::DnsServiceClient, status_service_client::StatusServiceClient,
    },
    tls::Role,
};
use feather_tests::{
    Fleet,
    dynadot::{Answer, Apply, Config, Edit, FakeDynadot, Fault, On, Publication},
    fleet::{ZONE, settings},
    wait::until,
};

const SERVERS: &[(&str, &str)] = &[("ams", "192.0.2.1"), ("fra", "192.0.2.2"), ("nyc", "192.0.2.3")];

fn record(host: &str, kind: &str, value: &str) -> ZoneRecord {
    ZoneRecord { host: host.into(), kind: kind.into(), value: value.into(), extra: String::new() }
}

fn lived_in() -> Vec<ZoneRecord> {
    vec![record("", "a", "198.51.100.1"), record("", "txt", "v=spf1 -all"), record("www", "cname", "example.net")]
}

/// A zone with a short TTL and two name servers.
async fn zone(records: Vec<ZoneRecord>) -> FakeDynadot {
    let mut config = Config::new(ZONE, Zone { ttl: 1, records });
    config.name_servers.push(config.name_servers[0]);
    FakeDynadot::start(config).await.unwrap()
}

async fn fleet(zone: &FakeDynadot, settings: Settings) -> Fleet {
    let authorities = Arc::new(Network { fixed: zone.name_servers().to_vec() });
    Fleet::start_in((Arc::new(zone.client()), Some(authorities)), SERVERS, settings).await
}

/// The value at a host of the zone, as the provider has it.
async fn leads(zone: &FakeDynadot, host: &str, value: Option<&str>) {
    until(&format!("{host} leads to {value:?}"), async || {
        let records = zone.zone().records;
        let found: Vec<_> = records.iter().filter(|one| one.host == host).map(|one| one.value.as_str()).collect();
        if found == value.into_iter().collect::<Vec<_>>() { Ok(()) } else { Err(format!("{records:#?}")) }
    })
    .await;
}

async fn status(fleet: &Fleet) -> pb::GetDnsStatusResponse {
    fleet.zone().get_dns_status(pb::GetDnsStatusRequest {}).await.unwrap().into_inner()
}

async fn ingress(fleet: &Fleet, server: &str, dry_run: bool) -> pb::SetIngressResponse {
    let request = pb::SetIngressRequest { server: server.into(), dry_run };
    fleet.zone().set_ingress(request).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_follows_its_tenant_and_the_forward_ends_when_every_name_server_has_heard_of_it_and_nobody_comes() {
    let zone = zone(lived_in()).await;
    let fleet = fleet(&zone, settings()).await;
    ingress(&fleet, "ams", false).await;
    leads(&zone, "*.users", Some("192.0.2.1")).await;
    fleet.add("alice", "nyc").await;
    leads(&zone, "alice.users", Some("192.0.2.3")).await;
    // One name server is late.
    zone.set_publication(1, Publication::Held);
    fleet.migrate("alice", "fra").await;
    leads(&zone, "alice.users", Some("192.0.2.2")).await;
    until("one name server says so, and the other does not yet", async || {
        let status = status(&fleet).await;
        let alice = status.names.into_iter().find(|one| one.name == "alice.users.inceptel.ai").ok_or("no alice")?;
        let good: Vec<_> = alice.answers.iter().map(|answer| answer.as_wanted).collect();
        if good == [true, false] && alice.in_zone && !alice.converged { Ok(()) } else { Err(format!("{alice:?}")) }
    })
    .await;
    assert_eq!(fleet.request("nyc", "alice").served_by.as_deref(), Some("fra"));
    zone.set_publication(1, Publication::Immediate);
    zone.release(1);
    // Twice the TTL of a second, and passes of the reconciler for as long: somebody who keeps the old address is forwarded all along.
    until("every name server has said so for four seconds", async || {
        let answer = fleet.request("nyc", "alice");
        assert_eq!(answer.served_by.as_deref(), Some("fra"), "{answer:?}");
        let status = status(&fleet).await;
        let alice = status.names.into_iter().find(|one| one.name == "alice.users.inceptel.ai").ok_or("no alice")?;
        let since = alice.answers.iter().map(|answer| answer.since.map_or(i64::MAX, |since| since.seconds)).max();
        let now = SystemClock.now().unix_timestamp();
        if since.is_some_and(|since| now.saturating_sub(since) > 4) { Ok(()) } else { Err(format!("{alice:?}")) }
    })
    .await;
    until("nyc forwards no more once nobody comes", async || {
        let snapshot = fleet.agent_under(fleet.lead(), "nyc").snapshot().await.unwrap();
        let report = snapshot.tenant(&"alice".parse().unwrap()).unwrap().clone();
        if report.forward_to.is_none() { Ok(()) } else { Err(report) }
    })
    .await;
    // The ledger says so before the proxy does.
    until("nyc serves it no more", async || {
        let answer = fleet.request("nyc", "alice");
        if answer.served_by.is_none() { Ok(()) } else { Err(answer) }
    })
    .await;
    assert!(status(&fleet).await.names.iter().all(|one| one.converged));
    // The ingress forwards as ever.
    assert_eq!(fleet.request("ams", "alice").served_by.as_deref(), Some("fra"));
    assert_eq!(zone.violations(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forward_outlives_a_ttl_that_was_lowered_also_when_the_controller_was_restarted_meanwhile() {
    let zone = zone(lived_in()).await;
    zone.edit(&Edit::Ttl(600));
    let mut fleet = fleet(&zone, settings()).await;
    ingress(&fleet, "ams", false).await;
    fleet.add("alice", "nyc").await;
    leads(&zone, "alice.users", Some("192.0.2.3")).await;
    // Whoever asked just now goes by nyc's address for ten minutes.
    fleet.stop_controller().await;
    zone.edit(&Edit::Ttl(1));
    fleet.start_controller().await;
    fleet.all_ready().await;
    fleet.migrate("alice", "fra").await;
    leads(&zone, "alice.users", Some("192.0.2.2")).await;
    let forwards = async || {
        let snapshot = fleet.agent_under(fleet.lead(), "nyc").snapshot().await.unwrap();
        snapshot.tenant(&"alice".parse().unwrap()).unwrap().forward_to.is_some()
    };
    // By the new TTL two seconds would do.
    until("every name server has said so for four seconds", async || {
        assert!(forwards().await, "{:?}", status(&fleet).await);
        let status = status(&fleet).await;
        let alice = status.names.into_iter().find(|one| one.name == "alice.users.inceptel.ai").ok_or("no alice")?;
        let since = alice.answers.iter().map(|answer| answer.since.map_or(i64::MAX, |since| since.seconds)).max();
        let now = SystemClock.now().unix_timestamp();
        if since.is_some_and(|since| now.saturating_sub(since) > 4) { Ok(()) } else { Err(format!("{alice:?}")) }
    })
    .await;
    assert!(forwards().await && status(&fleet).await.names.iter().all(|one| one.converged));
    assert_eq!(fleet.request("nyc", "alice").served_by.as_deref(), Some("fra"));
    assert_eq!(zone.violations(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_ingress_is_planned_like_everything_else_and_the_former_one_goes_on_forwarding() {
    let zone = zone(lived_in()).await;
    let fleet = fleet(&zone, settings()).await;
    ingress(&fleet, "ams", false).await;
    fleet.add("alice", "nyc").await;
    leads(&zone, "*.users", Some("192.0.2.1")).await;
    zone.set_publication(0, Publication::Held);
    let planned = ingress(&fleet, "fra", true).await;
    let plan = planned.plan.unwrap();
    assert_eq!(
        (planned.before.as_str(), plan.create[0].value.as_str(), plan.remove[0].value.as_str()),
        ("ams", "192.0.2.2", "192.0.2.1")
    );
    leads(&zone, "*.users", Some("192.0.2.1")).await;
    ingress(&fleet, "fra", false).await;
    leads(&zone, "*.users", Some("192.0.2.2")).await;
    // Added after the change: whoever still asks the former ingress gets there.
    fleet.add("bob", "nyc").await;
    for server in ["ams", "fra"] {
        until(&format!("{server} forwards to bob"), async || {
            let answer = fleet.request(server, "bob");
            if answer.served_by.as_deref() == Some("nyc") { Ok(()) } else { Err(answer) }
        })
        .await;
    }
    assert_eq!(zone.violations(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_manual_mode_a_person_applies_what_was_shown() {
    let zone = zone([lived_in(), vec![record("*.users", "a", "203.0.113.9")]].concat()).await;
    let mut settings = settings();
    settings.dns.mode = Mode::Manual;
    let fleet = fleet(&zone, settings).await;
    ingress(&fleet, "ams", false).await;
    let outcome = fleet.add("alice", "nyc").await;
    let dns = outcome.operation.log.iter().find(|line| line.step == "dns" && line.event == "done").unwrap();
    assert!(dns.message.contains("`featherctl dns apply`"), "{}", dns.message);
    let plan = async || fleet.zone().plan_dns(pb::PlanDnsRequest {}).await.unwrap().into_inner().plan.unwrap();
    let before = zone.zone();
    let shown = plan().await;
    assert_eq!((shown.create.len(), shown.foreign, shown.conflicts.len()), (1, 4, 1), "{shown:?}");
    assert!(shown.conflicts[0].explanation.contains("`featherctl dns adopt '*'`"), "{shown:?}");
    let apply = |plan: &pb::DnsPlan| pb::ApplyDnsRequest { plan: plan.plan.clone(), ..Default::default() };
    let viewer = DnsServiceClient::new(fleet.channel(fleet.identity(Role::Operator, "olga")));
    let denied = Error::from(viewer.clone().apply_dns(apply(&shown)).await.unwrap_err());
    assert_eq!(denied.reason, reason::ROLE);
    // The fleet changed since: what was shown is not what would be done.
    fleet.add("bob", "fra").await;
    let stale = Error::from(fleet.zone().apply_dns(apply(&shown)).await.unwrap_err());
    assert_eq!((stale.reason.as_str(), zone.zone()), (reason::WORLD_CHANGED, before));
    let done = fleet.zone().apply_dns(apply(&plan().await)).await.unwrap().into_inner();
    assert_eq!((done.created, done.removed), (2, 0));
    leads(&zone, "bob.users", Some("192.0.2.2")).await;
    let adopt = pb::AdoptDnsRecordsRequest { names: vec!["*".into()], ..Default::default() };
    fleet.zone().adopt_dns_records(adopt).await.unwrap();
    leads(&zone, "*.users", Some("203.0.113.9")).await;
    let done = fleet.zone().apply_dns(apply(&plan().await)).await.unwrap().into_inner();
    assert_eq!((done.created, done.removed), (1, 1));
    leads(&zone, "*.users", Some("192.0.2.1")).await;
    let snapshots =
        fleet.zone().list_dns_snapshots(pb::ListDnsSnapshotsRequest {}).await.unwrap().into_inner().snapshots;
    assert_eq!(snapshots.iter().map(|one| one.id).collect::<Vec<_>>(), [3, 2, 1]);
    // The adopted one is ours, and was a stranger's for the stand-in: that is the one change it has to complain of.
    let violations: Vec<_> = zone.violations().into_iter().filter(|one| !one.contains("203.0.113.9")).collect();
    assert_eq!(violations, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_its_way_behind_a_move_is_no_warning_of_the_doctor() {
    let zone = zone(lived_in()).await;
    let mut settings = settings();
    // The provider may take longer than this test to show what it took.
    (settings.dns.patience, settings.dns.sight) = (Duration::from_secs(600), Duration::from_millis(50));
    let fleet = fleet(&zone, settings).await;
    ingress(&fleet, "ams", false).await;
    fleet.add("alice", "nyc").await;
    leads(&zone, "alice.users", Some("192.0.2.3")).await;
    let says = async |words: &str| {
        until(&format!("the doctor says that the zone {words}"), async || {
            let mut status = StatusServiceClient::new(fleet.admin());
            let checks =
                status.diagnose(pb::DiagnoseRequest {}).await.map_err(|error| error.to_string())?.into_inner().checks;
            let check = checks.into_iter().find(|one| one.check == "provider").ok_or("it says nothing of it")?;
            assert_eq!(check.verdict(), pb::CheckVerdict::Ok, "at no time: {check:?}");
            if check.message.contains(words) { Ok(()) } else { Err(check.message) }
        })
        .await;
    };
    says("is as wanted").await;
    zone.fail(Fault::on(On::Change, Apply::Late(100_000), Answer::True));
    fleet.migrate("alice", "fra").await;
    says("is being changed").await;
    zone.settle();
    says("is as wanted").await;
    leads(&zone, "alice.users", Some("192.0.2.2")).await;
}
