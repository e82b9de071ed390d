//! A server that the fleet has taken out runs none of its tenants: not after a boot, not by a command typed there, not later. Silence takes
//! nobody out.

#![allow(clippy::disallowed_methods, reason = "certificates of a test must hold at the time of the test")]

use feather_agent::local::client::{Name, Tenant, run};
use feather_proto::{
    error::{Error, reason},
    pb::controller::v1::{self as pb, enrollment_service_client::EnrollmentServiceClient},
    tls::{self, Identity, Principal, Role, Trust},
};
use feather_tests::{Fleet, wait::until};

const CONTAINER: &str = "feather-user-alice";

async fn typed(fleet: &Fleet, server: &str, command: Tenant) -> Result<String, String> {
    let mut out = Vec::new();
    match run(&fleet.local_socket(server), command, &mut out).await {
        Ok(()) => Ok(String::from_utf8(out).unwrap()),
        Err(error) => Err(format!("{error}")),
    }
}

pub(crate) async fn status(fleet: &Fleet, server: &str) -> Result<String, String> {
    typed(fleet, server, Tenant::Status).await
}

pub(crate) async fn until_out(fleet: &Fleet, server: &str) {
    until("it knows that it is out", async || match status(fleet, server).await {
        Ok(said) if said.contains("out of it; this server runs no tenant") => Ok(()),
        other => Err(other),
    })
    .await;
}

async fn until_runs(fleet: &Fleet, server: &str) {
    until("alice runs", async || match fleet.recorder.running(CONTAINER) {
        running if running == [server] => Ok(()),
        running => Err(running),
    })
    .await;
}

pub(crate) async fn until_nobody_runs(fleet: &Fleet) {
    until("nobody runs", async || match fleet.recorder.running(CONTAINER) {
        running if running.is_empty() => Ok(()),
        running => Err(running),
    })
    .await;
}

fn identity_file(fleet: &Fleet, server: &str) -> std::path::PathBuf {
    fleet.servers[server].state_dir.join("agent.identity")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_taken_out_while_it_was_off_starts_nobody_and_says_so() {
    let mut fleet = Fleet::start(&["nyc"]).await;
    fleet.add("alice", "nyc").await;
    let starts = fleet.starts("nyc", "alice").len();
    fleet.power_off("nyc");
    fleet.replace_elsewhere("nyc").await;
    fleet.start_agent("nyc");
    until_out(&fleet, "nyc").await;
    assert!(fleet.recorder.running(CONTAINER).is_empty());
    until("whoever comes is told to come back later", async || match fleet.request("nyc", "alice") {
        answer if answer.status == 503 => Ok(()),
        answer => Err(answer),
    })
    .await;
    let listed = typed(&fleet, "nyc", Tenant::List).await.unwrap();
    assert!(!listed.contains("alice") && listed.contains("their data is kept"), "{listed}");
    let name = Name::new("alice").unwrap();
    let refused = typed(&fleet, "nyc", Tenant::Start(name)).await.unwrap_err();
    assert!(refused.contains("nothing was changed") && refused.contains("server invite nyc"), "{refused}");

    // Nobody need tell it twice, and deleting what it knows of its fleet makes it no master of old copies.
    fleet.kill_controller();
    fleet.power_off("nyc");
    let state_dir = fleet.servers["nyc"].state_dir.clone();
    for file in ["agent.identity", "controller.json"] {
        std::fs::rename(state_dir.join(file), state_dir.join(format!("{file}.away"))).unwrap();
    }
    fleet.start_agent("nyc");
    until_out(&fleet, "nyc").await;
    let name = Name::new("alice").unwrap();
    typed(&fleet, "nyc", Tenant::Start(name)).await.unwrap_err();
    assert_eq!(fleet.starts("nyc", "alice").len(), starts, "it was never started again");
    assert!(fleet.servers["nyc"].runtime.volume_path(CONTAINER).exists(), "the data is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_hears_of_it_while_it_runs_stops_everybody() {
    let fleet = Fleet::start(&["nyc"]).await;
    fleet.add("alice", "nyc").await;
    fleet.replace_elsewhere("nyc").await;
    until_out(&fleet, "nyc").await;
    until_nobody_runs(&fleet).await;
    let reports = fleet.recorder.violations();
    assert!(reports.is_empty(), "{reports:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_takes_nobody_out() {
    let mut fleet = Fleet::start(&["nyc"]).await;
    fleet.add("alice", "nyc").await;
    // No controller at all.
    fleet.kill_controller();
    fleet.power_off("nyc");
    fleet.start_agent("nyc");
    until_runs(&fleet, "nyc").await;
    // One that is there and cannot be reached, although it would say that this server is out.
    fleet.start_controller().await;
    fleet.all_ready().await;
    fleet.power_off("nyc");
    fleet.replace_elsewhere("nyc").await;
    fleet.network.cut("nyc", "controller:7400");
    fleet.start_agent("nyc");
    until_runs(&fleet, "nyc").await;
    // Until it hears of it.
    fleet.network.heal("nyc", "controller:7400");
    until_out(&fleet, "nyc").await;
    until_nobody_runs(&fleet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_has_ended_is_no_way_around_it_and_none_into_it() {
    let mut fleet = Fleet::start(&["nyc", "fra"]).await;
    fleet.add("alice", "nyc").await;
    let long_ago = time::OffsetDateTime::now_utc() - time::Duration::days(2);
    let ended = |fleet: &Fleet, server: &str| {
        let life = time::Duration::days(1);
        fleet.ca().issue(&Principal::agent(server), life, long_ago).unwrap()
    };
    // Of a member that was off for too long, and that nobody took out: its tenants are served.
    fleet.power_off("nyc");
    let own = Identity::load(&identity_file(&fleet, "nyc")).unwrap();
    ended(&fleet, "nyc").save(&identity_file(&fleet, "nyc")).unwrap();
    fleet.start_agent("nyc");
    until_runs(&fleet, "nyc").await;
    assert!(status(&fleet, "nyc").await.unwrap().contains("member nyc"));
    // Of one that was taken out meanwhile.
    fleet.power_off("nyc");
    fleet.replace_elsewhere("nyc").await;
    fleet.start_agent("nyc");
    until_out(&fleet, "nyc").await;
    assert!(fleet.recorder.running(CONTAINER).is_empty());

    let trust = Trust::CaOnly(fleet.ca().ca_pem().to_owned());
    let channel = tls::channel(fleet.network.from("nyc"), "controller:7400", &Principal::controller(), &trust).unwrap();
    let asked = async |certificate_pem: String| {
        let request = pb::GetStandingRequest { certificate_pem };
        let answer = EnrollmentServiceClient::new(channel.clone()).get_standing(request).await;
        answer.map(|answer| answer.into_inner().standing()).map_err(Error::from)
    };
    let of = async |server: &str| {
        let identity = Identity::load(&identity_file(&fleet, server)).unwrap();
        asked(identity.certificate_pem).await.unwrap()
    };
    assert_eq!(of("fra").await, pb::Standing::Member);
    assert_eq!(of("nyc").await, pb::Standing::Revoked);
    assert_eq!(asked(own.certificate_pem).await.unwrap(), pb::Standing::Revoked);
    assert_eq!(asked(ended(&fleet, "lon").certificate_pem).await.unwrap(), pb::Standing::Unknown);
    let person = fleet.identity(Role::Admin, "admin").certificate_pem;
    for certificate in [String::new(), "nonsense".into(), person, own.ca_pem.clone()] {
        assert!(asked(certificate).await.unwrap_err().is(reason::INVALID_FIELD));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn joined_anew_it_serves_again_and_what_it_kept_starts_by_nothing() {
    let mut fleet = Fleet::start(&["nyc", "fra"]).await;
    fleet.add("alice", "nyc").await;
    let starts = fleet.starts("nyc", "alice").len();
    fleet.power_off("nyc");
    fleet.replace_elsewhere("nyc").await;
    fleet.start_agent("nyc");
    until_out(&fleet, "nyc").await;
    fleet.kill_agent("nyc");
    fleet.rejoin("nyc").await;
    fleet.all_ready().await;
    assert!(status(&fleet, "nyc").await.unwrap().contains("member nyc"));
    fleet.add("bob", "nyc").await;
    assert_eq!(fleet.starts("nyc", "alice").len(), starts);
    let volumes = fleet.volumes().list_volumes(pb::ListVolumesRequest::default()).await.unwrap().into_inner().volumes;
    let kept = volumes.iter().find(|volume| volume.tenant == "alice").unwrap();
    assert!(kept.keep_until.is_none(), "a copy without an end: {kept:?}");
    // Nor after a reboot.
    fleet.power_off("nyc");
    fleet.start_agent("nyc");
    fleet.all_ready().await;
    until("bob runs again", async || match fleet.recorder.running("feather-user-bob") {
        running if running == ["nyc"] => Ok(()),
        running => Err(running),
    })
    .await;
    assert!(fleet.recorder.running(CONTAINER).is_empty());
    assert_eq!(fleet.recorder.violations(), Vec::<String>::new());
}
