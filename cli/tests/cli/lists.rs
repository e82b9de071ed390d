//! Tables and JSON of servers, tenants, volumes and operations.

use feather_proto::{
    model::to_timestamp,
    pb::{controller::v1 as pb, types::v1 as types_pb},
};
use insta::assert_snapshot;
use time::{Duration, OffsetDateTime, macros::datetime};

use crate::controller::Controller;

/// Long enough ago that a slow machine does not change what is shown.
fn ago(hours: i64) -> Option<prost_types::Timestamp> {
    Some(to_timestamp(OffsetDateTime::now_utc() - Duration::hours(hours) - Duration::minutes(20)))
}

fn nyc() -> pb::Server {
    pb::Server {
        name: "nyc".into(),
        state: pb::ServerState::Ready.into(),
        address: "10.77.0.11:7443".into(),
        public_address: "10.77.0.11".into(),
        joined: Some(to_timestamp(datetime!(2026-03-01 12:00:00.5 UTC))),
        last_seen: ago(1),
        agent_version: "0.1.0".into(),
        slots_total: 10,
        slots_free: 9,
        tenants: 1,
        memory_total_bytes: 2 << 30,
        memory_free_bytes: 1_610_612_736,
        disk_total_bytes: 100 << 30,
        disk_free_bytes: 40 << 30,
        images: vec![types_pb::Image {
            reference: "localhost/feather-work:latest".into(),
            digest: "sha256:5f3a".into(),
            size_bytes: 3 << 20,
        }],
        problems: vec![],
        ingress: true,
    }
}

fn fra() -> pb::Server {
    pb::Server {
        name: "fra".into(),
        state: pb::ServerState::Unreachable.into(),
        address: "10.77.0.12:7443".into(),
        last_seen: ago(3),
        slots_total: 10,
        slots_free: 10,
        ..Default::default()
    }
}

fn alice() -> pb::Tenant {
    pb::Tenant {
        name: "alice".into(),
        state: pb::TenantState::Running.into(),
        server: "nyc".into(),
        port: 9001,
        url: "https://alice.users.inceptel.ai".into(),
        generation: 3,
        created: Some(to_timestamp(datetime!(2026-03-01 12:00 UTC))),
        image_digest: "sha256:5f3a".into(),
        previous_server: "fra".into(),
        dns_address: "10.77.0.11".into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn server_list_shows_room_and_warns_of_silence() {
    let controller = Controller::start().await;
    controller.answers("ListServers", pb::ListServersResponse { servers: vec![nyc(), fra()] });
    assert_snapshot!(controller.run("server list").await, @"");
}

#[tokio::test]
async fn server_show_lists_everything() {
    let controller = Controller::start().await;
    let last_seen = Some(to_timestamp(datetime!(2026-03-01 13:00 UTC)));
    let server = pb::Server { problems: vec!["disk is nearly full".into()], last_seen, ..nyc() };
    for _ in 0..2 {
        controller.answers("GetServer", pb::GetServerResponse { server: Some(server.clone()) });
    }
    assert_snapshot!(controller.run("server show nyc").await, @"");
    assert_snapshot!(controller.run("server show nyc --output json").await, @"");
}

#[tokio::test]
async fn empty_lists_say_what_to_type() {
    let controller = Controller::start().await;
    controller.answers("ListServers", pb::ListServersResponse::default());
    controller.answers("ListTenants", pb::ListTenantsResponse::default());
    controller.answers("ListTenants", pb::ListTenantsResponse::default());
    controller.answers("ListOperations", pb::ListOperationsResponse::default());
    assert_snapshot!(controller.run("server list").await, @"");
    assert_snapshot!(controller.run("tenant list --server fra").await, @"");
    assert_snapshot!(controller.run("operation list").await, @"");
    assert_snapshot!(controller.run("tenant list --output json").await, @"");
}

#[tokio::test]
async fn tenant_list_shows_where_each_lives_and_what_needs_a_person() {
    let controller = Controller::start().await;
    let bob = pb::Tenant {
        name: "bob".into(),
        state: pb::TenantState::Unknown.into(),
        server: "fra".into(),
        port: 9001,
        url: "https://bob.users.inceptel.ai".into(),
        created: ago(2),
        ..Default::default()
    };
    let carol = pb::Tenant {
        name: "carol".into(),
        state: pb::TenantState::Broken.into(),
        server: "nyc".into(),
        problem: "data expected but missing on nyc".into(),
        created: ago(50),
        ..Default::default()
    };
    let moving = pb::Tenant {
        name: "dave".into(),
        state: pb::TenantState::Changing.into(),
        operation: "op-00000000-0000-0000-0000-000000000007".into(),
        ..Default::default()
    };
    let alice = pb::Tenant { created: ago(75), ..alice() };
    controller.answers("ListTenants", pb::ListTenantsResponse { tenants: vec![alice, bob, carol, moving] });
    assert_snapshot!(controller.run("tenant list --all").await, @"");
    assert_snapshot!(controller.calls(), @"");
}

#[tokio::test]
async fn tenant_show_lists_everything() {
    let controller = Controller::start().await;
    for _ in 0..2 {
        controller.answers("GetTenant", pb::GetTenantResponse { tenant: Some(alice()) });
    }
    assert_snapshot!(controller.run("tenant show alice").await, @"");
    assert_snapshot!(controller.run("tenant show alice --output json").await, @"");
}

#[tokio::test]
async fn volume_list_says_why_each_volume_is_there_and_what_it_could_not_see() {
    let controller = Controller::start().await;
    let summary = types_pb::VolumeSummary {
        files: 34,
        directories: 5,
        entries: 41,
        bytes: 1_258_291,
        data_bytes: 1_258_291,
        skipped_sockets: 0,
        root_digest: "5f3a".repeat(16),
    };
    let live = pb::Volume {
        tenant: "alice".into(),
        server: "fra".into(),
        name: "feather-user-alice".into(),
        role: pb::VolumeRole::Live.into(),
        keep_until: None,
        last_summary: Some(summary),
    };
    let copy = pb::Volume {
        server: "nyc".into(),
        role: pb::VolumeRole::UndoCopy.into(),
        keep_until: Some(to_timestamp(datetime!(2026-03-08 12:00 UTC))),
        last_summary: None,
        ..live.clone()
    };
    let response = pb::ListVolumesResponse { volumes: vec![live, copy], unreachable_servers: vec!["ams".into()] };
    controller.answers("ListVolumes", response.clone()).answers("ListVolumes", response);
    assert_snapshot!(controller.run("volume list").await, @"");
    assert_snapshot!(controller.run("volume list --output json").await, @"");
}

fn operation() -> pb::Operation {
    let at = |milliseconds| Some(to_timestamp(datetime!(2026-03-01 12:00 UTC) + Duration::milliseconds(milliseconds)));
    let entry = |sequence, milliseconds, step: &str, event: &str, message: &str| pb::OperationLogEntry {
        sequence,
        at: at(milliseconds),
        step: step.into(),
        event: event.into(),
        message: message.into(),
    };
    pb::Operation {
        id: "op-00000000-0000-0000-0000-000000000001".into(),
        kind: pb::OperationKind::Migrate.into(),
        state: pb::OperationState::Failed.into(),
        tenant: "alice".into(),
        source: "nyc".into(),
        target: "fra".into(),
        created: at(0),
        ended: at(3500),
        error: "fra has not enough disk".into(),
        reason: "NO_DISK".into(),
        requested_by: "admin/root".into(),
        log: vec![
            entry(1, 5, "plan", "begin", ""),
            entry(2, 9, "plan", "done", "1.2 MiB from nyc to fra"),
            entry(3, 10, "reserve", "begin", ""),
            entry(4, 3400, "reserve", "failed", "fra has not enough disk"),
        ],
        ..Default::default()
    }
}

#[tokio::test]
async fn operation_show_tells_the_story_from_its_beginning() {
    let controller = Controller::start().await;
    for _ in 0..3 {
        controller.answers("GetOperation", pb::GetOperationResponse { operation: Some(operation()) });
    }
    let id = operation().id;
    assert_snapshot!(controller.run(&format!("operation show {id}")).await, @"");
    let absolute = controller.run(&format!("operation show {id} --times absolute")).await;
    assert!(absolute.stdout.contains("2026-03-01T12:00:00.009Z  plan     done"), "{absolute}");
    assert_snapshot!(controller.run(&format!("operation show {id} --output json")).await, @"");
}

#[tokio::test]
async fn operation_list_puts_each_on_a_line() {
    let controller = Controller::start().await;
    let failed = pb::Operation { created: ago(2), log: vec![], ..operation() };
    let stuck = pb::Operation {
        id: "op-00000000-0000-0000-0000-000000000002".into(),
        kind: pb::OperationKind::Add.into(),
        state: pb::OperationState::Stuck.into(),
        tenant: "bob".into(),
        target: "nyc".into(),
        created: ago(1),
        step: "provision".into(),
        ..Default::default()
    };
    controller.answers("ListOperations", pb::ListOperationsResponse { operations: vec![stuck, failed] });
    assert_snapshot!(controller.run("operation list --tenant bob -n 5").await, @"");
    assert_snapshot!(controller.calls(), @"");
}
