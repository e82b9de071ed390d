//! The certificate of all tenants' names, from an authority that validates for real: Pebble, which asks the name servers of the
//! stand-in for Dynadot.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::Duration,
};

use feather_controller::{
    certificate::{Options, acme},
    dns::{
        authority::Network,
        zone::{Zone, ZoneRecord},
    },
    seal::Seal,
    store::Store,
};
use feather_proto::pb::controller::v1::{self as pb, cert_service_client::CertServiceClient};
use feather_tests::{
    Fleet,
    dynadot::{Config, FakeDynadot, KEY, Publication, SECRET},
    fleet::settings,
    real::{Authority, CADDY, Real},
    wait::{until, within},
};

use crate::tls::curl;

const ZONE: &str = "inceptel.ai";

fn record(host: &str, kind: &str, value: &str) -> ZoneRecord {
    ZoneRecord { host: host.into(), kind: kind.into(), value: value.into(), extra: String::new() }
}

/// What others have in the zone.
fn foreign() -> Zone {
    let mut records =
        vec![record("", "a", "192.0.2.80"), record("", "txt", "v=spf1 -all"), record("www", "a", "192.0.2.80")];
    records.sort();
    Zone { ttl: 300, records }
}

struct World {
    fleet: Fleet,
    dynadot: FakeDynadot,
    authority: Authority,
    /// How long the next controller waits for DNS.
    patience: Arc<Mutex<Duration>>,
    _folder: tempfile::TempDir,
}

impl World {
    /// A fleet of these servers whose zone is the stand-in's and whose controller will obtain certificates from its next start on.
    async fn new(servers: &[&str]) -> Self {
        let dynadot = FakeDynadot::start(Config::new(ZONE, foreign())).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let names = dynadot.name_servers().to_vec();
        let authority = Authority::that_asks(folder.path(), Ipv4Addr::LOCALHOST, names[0]).await;
        let authorities = Arc::new(Network { fixed: names });
        let servers: Vec<_> = servers.iter().map(|name| (*name, *name)).collect();
        let mut fleet = Fleet::start_in((Arc::new(dynadot.client()), Some(authorities)), &servers, settings()).await;
        let (directory, root) = (authority.directory().to_owned(), authority.own_root());
        let patience = Arc::new(Mutex::new(PATIENCE));
        let patience_for = patience.clone();
        fleet.certificates = Some(Arc::new(move |state_dir| {
            let patience = *patience_for.lock().unwrap();
            let authority = acme::Authority::new(&directory, Some(&root), Some("ops@inceptel.ai")).unwrap();
            let seal = Seal::load_or_create(state_dir).unwrap();
            let look_again = Duration::from_millis(20);
            Options { patience, look_again, ..Options::new(authority, seal) }
        }));
        Self { fleet, dynadot, authority, patience, _folder: folder }
    }

    async fn restart_controller(&mut self) {
        self.fleet.kill_controller();
        self.fleet.start_controller().await;
    }

    fn certs(&self) -> CertServiceClient<feather_proto::tls::Channel> {
        CertServiceClient::new(self.fleet.admin())
    }

    async fn status(&self) -> Result<pb::GetCertStatusResponse, tonic::Status> {
        Ok(self.certs().get_cert_status(pb::GetCertStatusRequest {}).await?.into_inner())
    }

    async fn renew(&self) {
        self.certs().renew_cert(pb::RenewCertRequest {}).await.unwrap();
    }

    /// Waits until the status is as it should be.
    async fn becomes(
        &self,
        what: &str,
        fits: impl Fn(&pb::GetCertStatusResponse) -> bool,
    ) -> pb::GetCertStatusResponse {
        until(what, async || {
            let status = self.status().await.map_err(|error| error.to_string())?;
            if fits(&status) { Ok(status) } else { Err(format!("{status:?}; {}", self.authority.log())) }
        })
        .await
    }

    /// Waits until every server holds a certificate with another serial than this.
    async fn everybody_holds(&self, other_than: &str) -> pb::Certificate {
        let status = self
            .becomes("every server holds the certificate", |status| {
                let fresh = status.certificate.as_ref().is_some_and(|one| one.serial != other_than);
                fresh && status.servers.iter().all(|server| server.current)
            })
            .await;
        assert_eq!(status.names, ["users.inceptel.ai", "*.users.inceptel.ai"]);
        assert_eq!(status.last_error, "");
        status.certificate.unwrap()
    }

    /// No record of a challenge is left, and nobody's record was ever touched.
    async fn tidy(&self) {
        until("the challenge's records are gone", async || {
            let left: Vec<_> =
                self.dynadot.zone().records.into_iter().filter(|one| one.host.starts_with("_acme-challenge")).collect();
            if left.is_empty() { Ok(()) } else { Err(left) }
        })
        .await;
        assert_eq!(self.dynadot.violations(), [""; 0]);
        assert!(foreign().records.iter().all(|one| self.dynadot.zone().records.contains(one)));
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn one_certificate_is_obtained_handed_to_every_server_kept_and_renewed() {
    let mut world = World::new(&["nyc", "fra"]).await;
    world.restart_controller().await;
    let first = world.everybody_holds("").await;
    assert!(first.issuer.contains("Pebble"), "{first:?}");
    assert_eq!(world.authority.orders(), 1);
    world.tidy().await;

    // A server that joins later holds it too, and a controller that starts anew asks nobody.
    world.fleet.join("lax").await;
    world.restart_controller().await;
    assert_eq!(world.everybody_holds("").await, first);
    assert_eq!(world.status().await.unwrap().servers.len(), 3);
    assert_eq!(world.authority.orders(), 1);

    // A server that was away takes it when it is back, also after a crash of its own.
    world.fleet.kill_agent("nyc");
    world.renew().await;
    world
        .becomes("the others hold another one", |status| {
            let others = status.servers.iter().filter(|server| server.server != "nyc");
            status.certificate.as_ref().is_some_and(|one| one.serial != first.serial)
                && others.clone().all(|one| one.current)
        })
        .await;
    world.fleet.start_agent("nyc");
    let second = world.everybody_holds(&first.serial).await;
    assert_eq!(world.authority.orders(), 2);
    assert_ne!(second.fingerprint, first.fingerprint);
    world.tidy().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_the_authority_has_lost_is_made_anew() {
    let mut world = World::new(&["nyc"]).await;
    world.restart_controller().await;
    let first = world.everybody_holds("").await;
    world.authority.forget_everything().await;
    world.renew().await;
    world.everybody_holds(&first.serial).await;
    world.tidy().await;
}

/// Whoever is refused before has none to show.
struct NoRecords;

#[async_trait::async_trait]
impl acme::Challenges for NoRecords {
    async fn show(&self, name: &str, _values: &[String]) -> Result<(), String> {
        Err(format!("the authority asks {name} for records"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_was_revoked_is_replaced_by_a_new_one() {
    let mut world = World::new(&["nyc"]).await;
    world.restart_controller().await;
    let first = world.everybody_holds("").await;
    let name = format!("acme/{}", world.authority.directory());
    let store = Store::open(&world.fleet.store_url()).await.unwrap();
    let seal = Seal::load_or_create(&world.fleet.state_dir()).unwrap();
    let kept = store.sealed(&name).await.unwrap().unwrap();
    let credentials = String::from_utf8(seal.open(&name, &kept).unwrap()).unwrap();
    let (directory, root) = (world.authority.directory().to_owned(), world.authority.own_root());
    let authority = acme::Authority::new(&directory, Some(&root), None).unwrap();
    authority.restore(&credentials).await.unwrap().deactivate().await.unwrap();
    // It is refused from now on, by the authority itself.
    let account = authority.restore(&credentials).await.unwrap();
    let refused = authority.issue(&account, &["users.inceptel.ai".to_owned()], &NoRecords).await.unwrap_err();
    assert!(matches!(refused, acme::Failure::Account(_)), "{refused:?}");

    world.renew().await;
    world.everybody_holds(&first.serial).await;
    assert_ne!(store.sealed(&name).await.unwrap().unwrap(), kept, "the new one is kept in the place of the old one");
    world.tidy().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_that_does_not_converge_is_told_and_can_be_tried_again() {
    let mut world = World::new(&["nyc"]).await;
    *world.patience.lock().unwrap() = Duration::from_millis(600);
    world.dynadot.set_publication(0, Publication::Held);
    world.restart_controller().await;
    let failed = world.becomes("it is told", |status| !status.last_error.is_empty()).await;
    assert!(failed.last_error.contains("did not come into DNS"), "{failed:?}");
    assert!(failed.warnings[0].contains("featherctl cert status"), "{failed:?}");
    let (last, next) = (failed.last_try.unwrap().seconds, failed.next_renewal.unwrap().seconds);
    assert_eq!(next - last, 600, "{failed:?}");
    assert_eq!(failed.certificate, None);
    world.tidy().await;

    // A restart does not ask more often, a person may.
    *world.patience.lock().unwrap() = PATIENCE;
    world.restart_controller().await;
    let again = world.becomes("the controller is back", |status| status.failures == 1).await;
    assert_eq!(again.next_renewal.unwrap().seconds, next);
    world.dynadot.set_publication(0, Publication::Immediate);
    world.renew().await;
    world.everybody_holds("").await;
    world.tidy().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_order_and_certificate_costs_one_more_order() {
    let mut world = World::new(&["nyc"]).await;
    world.dynadot.set_publication(0, Publication::Held);
    world.restart_controller().await;
    world.becomes("it waits for DNS", |status| status.doing.contains("waiting for the records")).await;
    world.fleet.kill_controller();
    world.dynadot.set_publication(0, Publication::Immediate);
    world.fleet.start_controller().await;
    world.everybody_holds("").await;
    assert_eq!(world.authority.orders(), 2, "{}", world.authority.log());
    world.tidy().await;
}

/// Serial of the certificate that a server shows for a name.
async fn shown(fleet: &Real, server: &str, host: &str) -> String {
    let connect = format!("{}:443", fleet.address(server));
    let script =
        "openssl s_client -connect \"$0\" -servername \"$1\" </dev/null 2>/dev/null | openssl x509 -noout -serial";
    let ran = fleet.run("sh", &["-c", script, &connect, host]).await.ok();
    ran.trim().trim_start_matches("serial=").to_lowercase()
}

/// Serial of the certificate that all servers hold, as the controller says it.
async fn held_by_all(fleet: &Real, other_than: &str) -> String {
    let held = async || {
        let status = fleet.featherctl_json(&["cert", "status"]).await;
        let all = status["servers"].as_array().unwrap().iter().all(|server| server["current"] == true);
        let serial = status["serial"].as_str().unwrap_or_default().replace(':', "").to_lowercase();
        if all && !serial.is_empty() && serial != other_than { Ok(serial) } else { Err(status) }
    };
    within(Duration::from_secs(180), "all servers hold the certificate", held).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_moved_is_served_with_the_fleets_certificate_at_once() {
    let dynadot = FakeDynadot::start(Config::new(ZONE, foreign())).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let names = dynadot.name_servers()[0];
    let authority = Authority::that_asks(folder.path(), Ipv4Addr::LOCALHOST, names).await;
    let own = folder.path().join("own.pem");
    std::fs::write(&own, authority.own_root()).unwrap();
    let settings = [
        ("FEATHER_CONTROLLER_DNS", "dynadot"),
        ("FEATHER_CONTROLLER_DNS_AUTHORITY", &names.to_string()),
        ("FEATHER_CONTROLLER_DYNADOT_URL", dynadot.url()),
        ("FEATHER_DYNADOT_KEY", KEY),
        ("FEATHER_DYNADOT_SECRET", SECRET),
        ("FEATHER_CONTROLLER_ACME_DIRECTORY", authority.directory()),
        ("FEATHER_CONTROLLER_ACME_ROOT", own.to_str().unwrap()),
    ];
    let mut fleet = Real::start(&[], &settings).await;
    for server in ["nyc", "fra"] {
        fleet.join_with(server, &[("DOMAIN", ZONE)], &[]).await;
    }
    let alice = fleet.add("alice", &["--server", "nyc"]).await;
    let first = held_by_all(&fleet, "").await;
    curl(&fleet, &authority, "nyc", &alice.host, "/health", &["--fail"]).await.ok();
    assert_eq!(shown(&fleet, "nyc", &alice.host).await, first);

    // The same second, before any name leads there, and no other certificate was asked for.
    fleet.migrate("alice", "fra").await;
    curl(&fleet, &authority, "fra", &alice.host, "/health", &["--fail"]).await.ok();
    assert_eq!(shown(&fleet, "fra", &alice.host).await, first);
    assert_eq!(authority.orders(), 1, "{}", authority.log());

    // Renewed from one handshake to the next, without a change of Caddy's configuration.
    let config = async || {
        let answer = fleet.inside("fra", &format!("{CADDY}caddy GET /config/")).await.ok();
        let (_, config) = answer.split_once("\r\n\r\n").unwrap();
        assert!(config.contains("get_certificate"), "{answer}");
        config.to_owned()
    };
    let before = config().await;
    fleet.featherctl(&["cert", "renew"]).await.ok();
    let second = held_by_all(&fleet, &first).await;
    assert_eq!(shown(&fleet, "fra", &alice.host).await, second);
    assert_eq!(config().await, before);

    // The key is for root alone, and nobody else gets it by the way that Caddy takes.
    let mode = "stat --format %a /var/lib/feather/agent/certificate/served.pem";
    assert_eq!(fleet.inside("fra", mode).await.ok().trim(), "600");
    let url = format!("http://{}/feather-certificate?server_name={}", fleet.address("fra"), alice.host);
    let secret = fleet.inside("fra", "cat /var/lib/feather/agent/certificate.secret").await.ok();
    let user = format!("caddy:{}", secret.trim());
    for arguments in [
        vec![],
        vec!["--user", "caddy:wrong"],
        vec!["--user", &user],
        vec!["--user", &user, "--header", "Host: 127.0.0.1"],
    ] {
        let ran = fleet.run("curl", &[&["--silent", "--noproxy", "*"], &arguments[..], &[&url]].concat()).await;
        assert!(!ran.stdout.contains("PRIVATE KEY"), "{arguments:?}");
    }

    // Without a controller, and after a reboot.
    fleet.kill_controller().await;
    fleet.kill_birth("fra").await;
    fleet.start_birth("fra").await;
    until("alice answers after the reboot", async || {
        let ran = curl(&fleet, &authority, "fra", &alice.host, "/health", &["--fail"]).await;
        if ran.code == 0 { Ok(()) } else { Err(ran) }
    })
    .await;
    assert_eq!(shown(&fleet, "fra", &alice.host).await, second);
    assert_eq!(dynadot.violations(), [""; 0]);
    fleet.bring_up().await;
    fleet.finish().await;
}
