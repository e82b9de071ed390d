//! What Prometheus reads.

use feather_proto::pb::controller::v1 as pb;
use feather_tests::Fleet;

#[tokio::test(flavor = "multi_thread")]
async fn what_prometheus_reads_tells_of_tenants_servers_calls_and_moves() {
    let fleet = Fleet::start(&["nyc", "fra"]).await;
    fleet.add("alice", "nyc").await;
    fleet.add("bob", "nyc").await;
    assert_eq!(fleet.migrate("alice", "fra").await.state(), pb::OperationState::Succeeded);
    let address = fleet.http_address();
    let answer = reqwest::get(format!("http://{address}/metrics")).await.unwrap();
    assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    let text = answer.text().await.unwrap();
    for line in [
        "feather_tenants{state=\"running\"} 2",
        "feather_tenants{state=\"broken\"} 0",
        "feather_server_reachable{server=\"fra\"} 1",
        "feather_operations_total{kind=\"add\",outcome=\"succeeded\"} 2",
        "feather_operations_total{kind=\"migrate\",outcome=\"succeeded\"} 1",
        "feather_outage_seconds_count 1",
        "feather_calls_total{service=\"TenantService\",method=\"AddTenant\",code=\"Ok\"} 2",
        "# EOF",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    // A refusal counts by its code.
    assert!(fleet.begin_migrate("zoe", "fra").await.is_err());
    let text = reqwest::get(format!("http://{address}/metrics")).await.unwrap().text().await.unwrap();
    let line = "feather_calls_total{service=\"TenantService\",method=\"MigrateTenant\",code=\"NotFound\"} 1";
    assert!(text.lines().any(|found| found == line), "{text}");
    assert!(!text.contains("alice"), "thousands of tenants would be as many series");
    assert_eq!(reqwest::get(format!("http://{address}/tenants")).await.unwrap().status(), 404);
}
