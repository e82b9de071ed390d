//! The fleet at a glance, and why things are as they are.

use feather_proto::pb::controller::v1 as pb;
use insta::assert_snapshot;
use time::OffsetDateTime;

use crate::controller::Controller;

const GIB: u64 = 1 << 30;

#[allow(clippy::disallowed_methods, reason = "ages are told by the clock of whoever reads them")]
fn ago(seconds: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds: OffsetDateTime::now_utc().unix_timestamp() - seconds, nanos: 0 })
}

fn server(name: &str, state: pb::ServerState, slots_free: u32) -> pb::Server {
    pb::Server {
        name: name.into(),
        state: state.into(),
        slots_total: 10,
        slots_free,
        tenants: 10 - slots_free,
        memory_total_bytes: 4 * GIB,
        memory_free_bytes: GIB,
        disk_total_bytes: 100 * GIB,
        disk_free_bytes: 40 * GIB,
        last_seen: ago(1),
        ..Default::default()
    }
}

fn status() -> pb::GetStatusResponse {
    let migrate = pb::Operation {
        id: "op-01a2137c-440f-74d4-a944-1bb9cdf9f333".into(),
        kind: pb::OperationKind::Migrate.into(),
        state: pb::OperationState::Running.into(),
        tenant: "alice".into(),
        source: "nyc".into(),
        target: "fra".into(),
        step: "transfer".into(),
        created: ago(125),
        ..Default::default()
    };
    let progress = pb::TransferProgress { bytes: 30, total_bytes: 120, ..Default::default() };
    pb::GetStatusResponse {
        now: ago(0),
        version: "1.2.3".into(),
        leader: String::new(),
        servers: vec![
            pb::Server { ingress: true, ..server("nyc", pb::ServerState::Ready, 3) },
            server("fra", pb::ServerState::Unreachable, 0),
        ],
        tenants: vec![
            pb::TenantCount { state: pb::TenantState::Running.into(), count: 6 },
            pb::TenantCount { state: pb::TenantState::CrashLoop.into(), count: 1 },
            pb::TenantCount { state: pb::TenantState::Removed.into(), count: 9 },
        ],
        operations: vec![pb::OperationUnderWay { operation: Some(migrate), progress: Some(progress) }],
        dns: Some(pb::DnsGlance {
            mode: "auto".into(),
            zone: "dynadot/example.com".into(),
            looked: ago(12),
            message: "up to date (records of the fleet: 2)".into(),
            on_their_way: 1,
            ..Default::default()
        }),
        certificate: Some(pb::CertificateGlance {
            names: vec!["*.users.example.com".into()],
            not_after: Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 0 }),
            ..Default::default()
        }),
        warnings: vec![pb::Warning {
            id: "unreachable/fra".into(),
            kind: "unreachable".into(),
            subject: "server/fra".into(),
            message: "fra does not answer".into(),
            since: ago(200),
            acknowledged: None,
        }],
        acknowledged: 2,
    }
}

#[tokio::test]
async fn the_fleet_is_on_one_screen() {
    let controller = Controller::start().await;
    controller.answers("GetStatus", status());
    assert_snapshot!(controller.run("status").await, @r"
    --- stdout
    controller   1.2.3
    servers      1 of 2 ready, 3 of 20 slots free
    tenants      6 running, 1 crash-loop
    operations   1 under way
    dns          dynadot/example.com (auto), 12s ago: up to date (records of the fleet: 2); 1 name on the way to name servers
    certificate  *.users.example.com: until 2027-01-15
    warnings     1, and 2 that somebody knows of

    SERVER  STATE        FREE SLOTS  TENANTS  FREE MEMORY  FREE DISK  SEEN
    fra     unreachable  0/10        10       1.0 GiB      40.0 GiB   1s
    nyc *   ready        3/10        7        1.0 GiB      40.0 GiB   1s

    SUBJECT  KIND     SERVERS     STEP          AGE  OPERATION
    alice    migrate  nyc -> fra  transfer 25%  2m   op-01a2137c-440f-74d4-a944-1bb9cdf9f333

    warnings
    unreachable/fra  for 3m
      fra does not answer
    --- exit 0
    ");
    controller.answers("GetStatus", status());
    let json: serde_json::Value = serde_json::from_str(&controller.run("status --output json").await.stdout).unwrap();
    assert_eq!(json["operations"][0]["bytes_total"], 120);
    assert_eq!(json["tenants"][1]["state"], "crash-loop");
    assert_eq!(json["warnings"][0]["id"], "unreachable/fra");
}

#[tokio::test]
async fn fifty_servers_fit_on_a_screen_and_those_in_need_come_first() {
    let controller = Controller::start().await;
    let mut servers: Vec<_> =
        (0..50).map(|number| server(&format!("server-{number:02}"), pb::ServerState::Ready, 1 + number % 9)).collect();
    servers[33].state = pb::ServerState::Degraded.into();
    for all in [false, true] {
        controller.answers("GetStatus", pb::GetStatusResponse { servers: servers.clone(), ..status() });
        let ran = controller.run(if all { "status --all" } else { "status" }).await;
        let lines: Vec<_> = ran.stdout.lines().collect();
        let first = lines.iter().position(|line| line.starts_with("SERVER ")).unwrap() + 1;
        assert!(lines[first].starts_with("server-33  degraded"), "{ran}");
        assert!(lines[first..].iter().filter(|line| line.starts_with("server-")).all(|line| line.len() <= 80), "{ran}");
        assert_eq!(lines.len() > 50, all, "{ran}");
        assert_eq!(ran.stdout.contains("and 34 more: `featherctl status --all`"), !all, "{ran}");
    }
}

#[tokio::test]
async fn an_explanation_ends_in_what_to_type() {
    let controller = Controller::start().await;
    let fact = |topic: &str, text: &str, seconds: Option<i64>| pb::Fact {
        topic: topic.into(),
        text: text.into(),
        at: seconds.map(|seconds| prost_types::Timestamp { seconds, nanos: 0 }),
    };
    let explanation = pb::Explanation {
        facts: vec![
            fact("now", "alice lives on fra and runs", None),
            fact("why", "fra: chosen (9 free slots)", None),
            fact("why", "nyc: where it lives now", None),
            fact("copy", "nyc keeps a copy of its data", Some(1_800_000_000)),
        ],
        next: vec!["`featherctl tenant migrate alice --undo` moves it back to nyc".into()],
    };
    controller.answers("ExplainTenant", pb::ExplainTenantResponse { explanation: Some(explanation.clone()) });
    assert_snapshot!(controller.run("explain alice").await, @r"
    --- stdout
    now   alice lives on fra and runs
    why   fra: chosen (9 free slots)
          nyc: where it lives now
    copy  nyc keeps a copy of its data (2027-01-15T08:00:00Z)
    next  `featherctl tenant migrate alice --undo` moves it back to nyc
    --- exit 0
    ");
    controller.answers("ExplainServer", pb::ExplainServerResponse { explanation: Some(explanation) });
    let ran = controller.run("explain --server fra --output json").await;
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((json["subject"].as_str(), json["facts"][1]["topic"].as_str()), (Some("fra"), Some("why")));
    assert_eq!(controller.run("explain").await.code, Some(2));
    assert_eq!(controller.run("explain alice --server fra").await.code, Some(2));
}

#[tokio::test]
async fn top_wants_a_terminal_and_says_what_does_not() {
    let controller = Controller::start().await;
    for command in ["top", "top --output json"] {
        let ran = controller.run(command).await;
        assert!(ran.code == Some(2) && ran.stderr.contains("`featherctl status`") && ran.stdout.is_empty(), "{ran}");
    }
    assert_eq!(controller.calls(), "", "nobody is asked for what cannot be shown");
}
