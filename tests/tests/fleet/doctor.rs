//! Asking for real: who answers whom.

use feather_proto::{
    pb::controller::v1::{self as pb, status_service_client::StatusServiceClient},
    tls::Role,
};
use feather_tests::Fleet;

async fn diagnose(fleet: &Fleet) -> Vec<pb::Check> {
    let channel = fleet.channel(fleet.identity(Role::Viewer, "vera"));
    StatusServiceClient::new(channel).diagnose(pb::DiagnoseRequest {}).await.unwrap().into_inner().checks
}

fn verdict(checks: &[pb::Check], subject: &str, check: &str) -> Vec<pb::CheckVerdict> {
    checks.iter().filter(|one| one.subject == subject && one.check == check).map(pb::Check::verdict).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_are_asked_and_ask_each_other() {
    use pb::CheckVerdict::{Fail, Ok};
    let mut fleet = Fleet::start(&["ams", "fra", "nyc"]).await;
    let checks = diagnose(&fleet).await;
    for server in ["ams", "fra", "nyc"] {
        for check in ["agent", "clock", "proxy", "reach"] {
            assert_eq!(verdict(&checks, server, check), [Ok], "{server} {check}: {checks:#?}");
        }
    }
    assert_eq!((verdict(&checks, "store", "store"), verdict(&checks, "dns", "provider")), (vec![Ok], vec![Ok]));
    assert!(checks.iter().all(|one| one.verdict() != Fail), "{checks:#?}");

    fleet.kill_agent("fra");
    let checks = diagnose(&fleet).await;
    assert_eq!(verdict(&checks, "fra", "agent"), [Fail], "{checks:#?}");
    // One line for what is not reached, one for what is.
    assert_eq!(verdict(&checks, "ams", "reach"), [Fail, Ok], "{checks:#?}");
    let told = checks.iter().find(|one| one.subject == "ams" && one.verdict() == Fail).unwrap();
    assert!(told.message.starts_with("it does not reach fra") && told.next.contains("port 7443 of fra"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_does_not_answer_is_found_by_asking() {
    let fleet = Fleet::start(&["nyc"]).await;
    fleet.servers["nyc"].router.unreachable(true);
    let checks = diagnose(&fleet).await;
    assert_eq!(verdict(&checks, "nyc", "proxy"), [pb::CheckVerdict::Fail], "{checks:#?}");
    fleet.servers["nyc"].router.unreachable(false);
    assert_eq!(verdict(&diagnose(&fleet).await, "nyc", "proxy"), [pb::CheckVerdict::Ok]);
}
