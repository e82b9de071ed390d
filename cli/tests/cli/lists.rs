//! Tables and JSON of servers, tenants, volumes and operations.

#![allow(clippy::disallowed_methods, reason = "ages are told by the machine's clock")]

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
        protocol_oldest: 1,
        protocol_newest: 2,
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
        admin: Some(types_pb::AdminContainer {
            container: "feather-work-blue".into(),
            port: 8080,
            image: "localhost/feather-work:latest".into(),
            image_digest: "sha256:5f3a".into(),
            running: true,
            restarts: 2,
            ..Default::default()
        }),
        events: vec![types_pb::Event {
            sequence: 7,
            at: Some(to_timestamp(datetime!(2026-03-01 13:00:00 UTC))),
            kind: "restarted".into(),
            tenant: String::new(),
            message: "feather-work-blue was started again: its process had ended".into(),
        }],
        ..Default::default()
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
    controller.answers("ListServers", pb::ListServersResponse { servers: vec![nyc(), fra()], ..Default::default() });
    assert_snapshot!(controller.run("server list").await, @r"
    --- stdout
    NAME  STATE        SLOTS       TENANTS  MEMORY            DISK                 ADDRESS          SEEN
    nyc   ready        9/10 free   1        1.5/2.0 GiB free  40.0/100.0 GiB free  10.77.0.11:7443  1h ago
    fra   unreachable  10/10 free  0        -                 -                    10.77.0.12:7443  3h ago
    --- stderr
    fra does not answer; its tenants may well be running. Check the machine, its network and its agent.
    --- exit 0
    ");
}

#[tokio::test]
async fn server_show_lists_everything() {
    let controller = Controller::start().await;
    controller.answers("GetServer", pb::GetServerResponse { server: Some(nearly_full()) });
    assert_snapshot!(controller.run("server show nyc").await, @r"
    --- stdout
    name             nyc
    state            ready
    agent address    10.77.0.11:7443
    public address   10.77.0.11
    ingress          yes, the wildcard DNS record points here
    tenants          1
    slots            9/10 free
    memory           1.5/2.0 GiB free
    disk             40.0/100.0 GiB free
    agent version    0.1.0
    protocol         1-2
    joined           2026-03-01T12:00:00.5Z
    last seen        2026-03-01T13:00:00Z
    admin container  feather-work-blue on port 8080, running
    admin image      localhost/feather-work:latest sha256:5f3a
    admin restarts   2
    image            localhost/feather-work:latest sha256:5f3a (3.0 MiB)
    problem          disk is nearly full
    event            2026-03-01T13:00:00Z restarted: feather-work-blue was started again: its process had ended
    --- exit 0
    ");
}

fn nearly_full() -> pb::Server {
    let last_seen = Some(to_timestamp(datetime!(2026-03-01 13:00 UTC)));
    pb::Server { problems: vec!["disk is nearly full".into()], last_seen, ..nyc() }
}

#[tokio::test]
async fn server_show_has_the_same_in_json() {
    let controller = Controller::start().await;
    controller.answers("GetServer", pb::GetServerResponse { server: Some(nearly_full()) });
    assert_snapshot!(controller.run("server show nyc --output json").await, @r#"
    --- stdout
    {
      "name": "nyc",
      "state": "ready",
      "address": "10.77.0.11:7443",
      "public_address": "10.77.0.11",
      "ingress": true,
      "joined": "2026-03-01T12:00:00.5Z",
      "last_seen": "2026-03-01T13:00:00Z",
      "agent_version": "0.1.0",
      "slots_total": 10,
      "slots_free": 9,
      "tenants": 1,
      "memory_total_bytes": 2147483648,
      "memory_free_bytes": 1610612736,
      "disk_total_bytes": 107374182400,
      "disk_free_bytes": 42949672960,
      "images": [
        {
          "reference": "localhost/feather-work:latest",
          "digest": "sha256:5f3a",
          "size_bytes": 3145728
        }
      ],
      "problems": [
        "disk is nearly full"
      ],
      "admin": {
        "container": "feather-work-blue",
        "port": 8080,
        "image": "localhost/feather-work:latest",
        "image_digest": "sha256:5f3a",
        "running": true,
        "restarts": 2,
        "last_restart": null,
        "crash_loop": false,
        "problem": null,
        "candidate": null
      },
      "events": [
        {
          "sequence": 7,
          "at": "2026-03-01T13:00:00Z",
          "kind": "restarted",
          "tenant": null,
          "message": "feather-work-blue was started again: its process had ended"
        }
      ],
      "cordoned": false,
      "labels": {},
      "version": 0,
      "identity": null,
      "protocol": "1-2"
    }
    --- exit 0
    "#);
}

#[tokio::test]
async fn empty_lists_say_what_to_type() {
    let controller = Controller::start().await;
    controller.answers("ListServers", pb::ListServersResponse::default());
    controller.answers("ListTenants", pb::ListTenantsResponse::default());
    controller.answers("ListTenants", pb::ListTenantsResponse::default());
    controller.answers("ListOperations", pb::ListOperationsResponse::default());
    assert_snapshot!(controller.run("server list").await, @r"
    --- stderr
    The fleet has no servers yet; `featherctl server invite NAME` lets one join.
    --- exit 0
    ");
    assert_snapshot!(controller.run("tenant list --server fra").await, @r"
    --- stderr
    There are no tenants on fra; `featherctl tenant add NAME` adds one.
    --- exit 0
    ");
    assert_snapshot!(controller.run("operation list").await, @r"
    --- stderr
    There are no operations yet; `featherctl tenant add NAME` begins one.
    --- exit 0
    ");
    assert_snapshot!(controller.run("tenant list --output json").await, @r"
    --- stdout
    []
    --- exit 0
    ");
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
    assert_snapshot!(controller.run("tenant list --all").await, @r"
    --- stdout
    USERNAME  SERVER  PORT  STATE     AGE  URL
    alice     nyc     9001  running   3d   https://alice.users.inceptel.ai
    bob       fra     9001  unknown   2h   https://bob.users.inceptel.ai
    carol     nyc     -     broken    2d   -
    dave      -       -     changing  -    -
    --- stderr
    bob: fra does not answer; bob may well be running there
    carol: data expected but missing on nyc
    dave is being changed: `featherctl operation watch op-00000000-0000-0000-0000-000000000007` follows it
    --- exit 0
    ");
    assert_snapshot!(controller.calls(), @r#"ListTenants: ListTenantsRequest { include_removed: true, server: "" }"#);
}

#[tokio::test]
async fn wide_lists_have_what_the_others_leave_out() {
    let controller = Controller::start().await;
    let label = types_pb::Label { name: "region".into(), value: "eu".into() };
    let alice = pb::Tenant {
        created: ago(75),
        image_digest: "sha256:5f3a00000000000000".into(),
        last_verified_backup: ago(30),
        on: vec![label.clone()],
        pin: "nyc".into(),
        restarts: 2,
        limits: Some(types_pb::TenantLimits { memory_bytes: 3 << 29, cpu_millis: 1500, pids: 0, revision: 2 }),
        ..alice()
    };
    let bob = pb::Tenant { name: "bob".into(), state: pb::TenantState::Changing.into(), ..Default::default() };
    controller.answers("ListTenants", pb::ListTenantsResponse { tenants: vec![alice, bob] });
    let ran = controller.run("tenant list --output wide").await;
    let columns = |line: &str| -> Vec<String> {
        line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
    };
    let lines: Vec<_> = ran.stdout.lines().map(columns).collect();
    let told: Vec<_> = lines[0].iter().zip(&lines[1]).map(|(head, cell)| format!("{head}={cell}")).collect();
    for cell in ["GENERATION=3", "RESTARTS=2", "MEMORY=1536 MiB", "CPUS=1.5", "PIDS=-", "BOUND TO=nyc, region=eu"] {
        assert!(told.contains(&cell.to_owned()), "{told:?}");
    }
    assert!(told.contains(&"LAST VERIFIED BACKUP=1d ago".to_owned()), "{told:?}");
    assert!(told.contains(&"IMAGE=5f3a00000000".to_owned()), "{told:?}");
    assert_eq!(lines[2].len(), lines[0].len(), "an empty cell is shown as a dash: {ran}");
    let nyc = pb::Server { labels: vec![label], joined: ago(50), ..nyc() };
    controller.answers("ListServers", pb::ListServersResponse { servers: vec![nyc, fra()], ..Default::default() });
    assert_snapshot!(controller.run("server list --output wide").await, @r"
    --- stdout
    NAME  STATE        SLOTS       TENANTS  MEMORY            DISK                 ADDRESS          PUBLIC      SEEN    AGE  AGENT  PROTOCOL  INGRESS  LABELS
    nyc   ready        9/10 free   1        1.5/2.0 GiB free  40.0/100.0 GiB free  10.77.0.11:7443  10.77.0.11  1h ago  2d   0.1.0  1-2       yes      region=eu
    fra   unreachable  10/10 free  0        -                 -                    10.77.0.12:7443  -           3h ago  -    -      -         -        -
    --- stderr
    fra does not answer; its tenants may well be running. Check the machine, its network and its agent.
    --- exit 0
    ");
    controller.answers("GetTenant", pb::GetTenantResponse { tenant: Some(self::alice()) });
    let wide = controller.run("tenant show alice --output wide").await;
    assert!(wide.stdout.starts_with("name "), "what has no more to show is shown as ever: {wide}");
}

#[tokio::test]
async fn a_crash_loop_is_seen_and_says_what_to_look_at() {
    let controller = Controller::start().await;
    let looping = pb::Tenant { state: pb::TenantState::CrashLoop.into(), restarts: 7, created: ago(30), ..alice() };
    controller.answers("ListTenants", pb::ListTenantsResponse { tenants: vec![looping] });
    let ran = controller.run("tenant list").await;
    assert!(ran.stdout.contains("crash-loop"), "{ran}");
    assert!(
        ran.stderr.contains("alice had to be restarted 7 times") && ran.stderr.contains("featherctl tenant logs alice"),
        "{ran}"
    );
}

#[tokio::test]
async fn tenant_show_lists_everything() {
    let controller = Controller::start().await;
    for _ in 0..2 {
        controller.answers("GetTenant", pb::GetTenantResponse { tenant: Some(alice()) });
    }
    assert_snapshot!(controller.run("tenant show alice").await, @r"
    --- stdout
    name         alice
    state        running
    server       nyc
    port         9001
    url          https://alice.users.inceptel.ai
    dns address  10.77.0.11
    created      2026-03-01T12:00:00Z
    moved from   fra
    generation   3
    image        sha256:5f3a
    --- exit 0
    ");
    assert_snapshot!(controller.run("tenant show alice --output json").await, @r#"
    --- stdout
    {
      "name": "alice",
      "state": "running",
      "server": "nyc",
      "port": 9001,
      "url": "https://alice.users.inceptel.ai",
      "generation": 3,
      "created": "2026-03-01T12:00:00Z",
      "operation": null,
      "problem": null,
      "image_digest": "sha256:5f3a",
      "previous_server": "fra",
      "dns_address": "10.77.0.11",
      "restarts": 0,
      "last_restart": null,
      "on": {},
      "pin": null,
      "last_verified_backup": null,
      "limits": {
        "memory_bytes": null,
        "cpu_millis": null,
        "pids": null
      },
      "limits_applied": true,
      "spread": null
    }
    --- exit 0
    "#);
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
    assert_snapshot!(controller.run("volume list").await, @r"
    --- stdout
    USERNAME  SERVER  ROLE       SIZE     FILES  KEPT UNTIL
    alice     fra     live       1.2 MiB  34     -
    alice     nyc     undo-copy  -        -      2026-03-08T12:00:00Z
    --- stderr
    ams does not answer: its volumes are missing from this list
    --- exit 0
    ");
    assert_snapshot!(controller.run("volume list --output json").await, @r#"
    --- stdout
    {
      "volumes": [
        {
          "tenant": "alice",
          "server": "fra",
          "name": "feather-user-alice",
          "role": "live",
          "keep_until": null,
          "last_summary": {
            "bytes": 1258291,
            "files": 34,
            "directories": 5,
            "entries": 41,
            "skipped_sockets": 0,
            "root_digest": "5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a"
          }
        },
        {
          "tenant": "alice",
          "server": "nyc",
          "name": "feather-user-alice",
          "role": "undo-copy",
          "keep_until": "2026-03-08T12:00:00Z",
          "last_summary": null
        }
      ],
      "unreachable_servers": [
        "ams"
      ]
    }
    --- exit 0
    "#);
}

pub(crate) fn operation() -> pb::Operation {
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
    assert_snapshot!(controller.run(&format!("operation show {id}")).await, @r"
    --- stdout
    operation     op-00000000-0000-0000-0000-000000000001
    kind          migrate
    state         failed
    tenant        alice
    from          nyc
    to            fra
    requested by  admin/root
    began         2026-03-01T12:00:00Z
    ended         2026-03-01T12:00:03.5Z
    took          3.500 s
    error         fra has not enough disk

    TIME      STEP     EVENT   MESSAGE
    +0.005 s  plan     begin   -
    +0.009 s  plan     done    1.2 MiB from nyc to fra
    +0.010 s  reserve  begin   -
    +3.400 s  reserve  failed  fra has not enough disk
    --- exit 0
    ");
    let absolute = controller.run(&format!("operation show {id} --times absolute")).await;
    assert!(absolute.stdout.contains("2026-03-01T12:00:00.009Z  plan     done"), "{absolute}");
    assert_snapshot!(controller.run(&format!("operation show {id} --output json")).await, @r#"
    --- stdout
    {
      "id": "op-00000000-0000-0000-0000-000000000001",
      "kind": "migrate",
      "state": "failed",
      "tenant": "alice",
      "source": "nyc",
      "target": "fra",
      "created": "2026-03-01T12:00:00Z",
      "ended": "2026-03-01T12:00:03.5Z",
      "step": null,
      "error": "fra has not enough disk",
      "reason": "NO_DISK",
      "hint": null,
      "requested_by": "admin/root",
      "migration": null,
      "moves": [],
      "parent": null,
      "log": [
        {
          "sequence": 1,
          "at": "2026-03-01T12:00:00.005Z",
          "step": "plan",
          "event": "begin",
          "message": ""
        },
        {
          "sequence": 2,
          "at": "2026-03-01T12:00:00.009Z",
          "step": "plan",
          "event": "done",
          "message": "1.2 MiB from nyc to fra"
        },
        {
          "sequence": 3,
          "at": "2026-03-01T12:00:00.01Z",
          "step": "reserve",
          "event": "begin",
          "message": ""
        },
        {
          "sequence": 4,
          "at": "2026-03-01T12:00:03.4Z",
          "step": "reserve",
          "event": "failed",
          "message": "fra has not enough disk"
        }
      ]
    }
    --- exit 0
    "#);
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
    assert_snapshot!(controller.run("operation list --tenant bob -n 5").await, @r"
    --- stdout
    ID                                       KIND     USERNAME  SERVER      STATE   AGE  STEP OR ERROR
    op-00000000-0000-0000-0000-000000000002  add      bob       nyc         stuck   1h   provision
    op-00000000-0000-0000-0000-000000000001  migrate  alice     nyc -> fra  failed  2h   fra has not enough disk
    --- stderr
    op-00000000-0000-0000-0000-000000000002 is stuck; `featherctl operation show op-00000000-0000-0000-0000-000000000002` says what to do
    --- exit 0
    ");
    assert_snapshot!(controller.calls(), @r#"ListOperations: ListOperationsRequest { tenant: "bob", limit: 5 }"#);
}
