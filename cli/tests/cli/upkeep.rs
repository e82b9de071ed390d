//! `server cordon`, `uncordon`, `label` and `tenant place`: what is asked and said.

use feather_proto::pb::{
    controller::v1 as pb,
    types::v1::{self as types_pb, Label},
};
use insta::assert_snapshot;

use crate::controller::Controller;

fn label(name: &str, value: &str) -> Label {
    Label { name: name.into(), value: value.into() }
}

#[tokio::test]
async fn a_cordon_says_how_it_is_lifted() {
    let controller = Controller::start().await;
    controller.answers("CordonServer", pb::CordonServerResponse { cordoned: true, changed: true, version: 2 });
    controller.answers("CordonServer", pb::CordonServerResponse { cordoned: false, changed: false, version: 2 });
    assert_snapshot!(controller.run("server cordon nyc").await, @r"
    --- stderr
    nyc takes no new tenants; `featherctl server uncordon nyc` lifts that
    --- exit 0
    ");
    assert_snapshot!(controller.run("server uncordon nyc --dry-run --output json").await, @r#"
    --- stdout
    {
      "server": "nyc",
      "dry_run": true,
      "cordoned": false,
      "changed": false,
      "version": 2
    }
    --- exit 0
    "#);
    assert_snapshot!(controller.calls(), @r#"
    CordonServer: CordonServerRequest { server: "nyc", cordoned: true, dry_run: false }
    CordonServer: CordonServerRequest { server: "nyc", cordoned: false, dry_run: true }
    "#);
}

#[tokio::test]
async fn labels_are_set_and_removed_and_shown() {
    let controller = Controller::start().await;
    let labels = vec![label("disk", "ssd"), label("region", "eu")];
    controller.answers("LabelServer", pb::LabelServerResponse { labels: labels.clone(), changed: true, version: 3 });
    assert_snapshot!(controller.run("server label nyc region=eu --remove rack").await, @r"
    --- stdout
    disk=ssd
    region=eu
    --- stderr
    nyc has these labels now; tenants stay where they are
    --- exit 0
    ");
    let server = pb::Server {
        name: "nyc".into(),
        state: pb::ServerState::Ready.into(),
        cordoned: true,
        labels,
        ..Default::default()
    };
    controller.answers("ListServers", pb::ListServersResponse { servers: vec![server], ..Default::default() });
    assert_snapshot!(controller.run("server list").await, @r"
    --- stdout
    NAME  STATE            SLOTS     TENANTS  MEMORY  DISK  ADDRESS  SEEN  LABELS
    nyc   ready, cordoned  0/0 free  0        -       -     -        -     disk=ssd, region=eu
    --- exit 0
    ");
    assert_snapshot!(controller.run("server label nyc Region=eu").await, @r#"
    --- stderr
    error: invalid value 'Region=eu' for '[NAME=VALUE]...': "Region" is not the name of a label: use 1 to 32 of a-z, 0-9, '.', '_' and '-', beginning with a letter and ending in a letter or digit

    For more information, try '--help'.
    --- exit 2
    "#);
}

#[tokio::test]
async fn a_renaming_says_what_follows_and_what_does_not() {
    let controller = Controller::start().await;
    let planned = pb::RenameServerResponse {
        changed: true,
        version: 3,
        identity: "nyc".into(),
        tenants: vec!["alice".into(), "carol".into()],
        pinned: vec!["carol".into()],
        ingress: true,
        ..Default::default()
    };
    for response in [planned.clone(), planned.clone()] {
        controller.answers("RenameServer", response);
    }
    assert_snapshot!(controller.run("server rename nyc ewr --dry-run").await, @r"
    --- stdout
    WHAT FOLLOWS    TENANTS
    lives there     alice, carol
    pinned to it    carol
    is the ingress  -
    --- stderr
    nothing else names nyc: no kept data, nobody who lived there before, nobody who returns there, it was not the ingress before
    nyc would be called ewr; its certificate would go on saying nyc
    --- exit 0
    ");
    assert_snapshot!(controller.run("server rename nyc ewr --output json").await, @r#"
    --- stdout
    {
      "server": "nyc",
      "name": "ewr",
      "dry_run": false,
      "changed": true,
      "version": 3,
      "identity": "nyc",
      "tenants": [
        "alice",
        "carol"
      ],
      "kept": [],
      "pinned": [
        "carol"
      ],
      "moved_away": [],
      "sent_away": [],
      "ingress": true,
      "former_ingress": false
    }
    --- exit 0
    "#);
    controller
        .answers("RenameServer", pb::RenameServerResponse { version: 3, identity: "nyc".into(), ..Default::default() });
    assert_snapshot!(controller.run("server rename nyc ewr --yes").await, @r"
    --- stderr
    nyc is called ewr already
    --- exit 0
    ");
    let server = pb::Server { name: "ewr".into(), identity: "nyc".into(), ..Default::default() };
    controller.answers("GetServer", pb::GetServerResponse { server: Some(server) });
    let shown = controller.run("server show ewr").await;
    assert!(shown.stdout.contains("nyc, the name in its certificate"), "{shown}");
    assert_snapshot!(controller.calls(), @r#"
    RenameServer: RenameServerRequest { server: "nyc", name: "ewr", dry_run: true, request_id: "id-0" }
    RenameServer: RenameServerRequest { server: "nyc", name: "ewr", dry_run: false, request_id: "id-1" }
    RenameServer: RenameServerRequest { server: "nyc", name: "ewr", dry_run: false, request_id: "id-2" }
    GetServer: GetServerRequest { server: "ewr" }
    "#);
    assert_snapshot!(controller.run("server rename nyc Ewr").await, @r#"
    --- stderr
    error: invalid value 'Ewr' for '<NEW>': "Ewr" is not a server name: use 1 to 32 of a-z, 0-9 and '-', beginning with a letter and not ending in '-'

    For more information, try '--help'.
    --- exit 2
    "#);
}

#[tokio::test]
async fn bounds_of_a_tenant_are_said_and_what_does_not_hold() {
    let controller = Controller::start().await;
    let unmet = vec!["region is us, not eu".to_owned()];
    controller.answers("PlaceTenant", pb::PlaceTenantResponse { changed: true, unmet });
    assert_snapshot!(controller.run("tenant place alice --on region=eu --pin fra").await, @r"
    --- stderr
    alice is bound to fra, if it has region=eu
    where it lives now that does not hold: region is us, not eu. It stays there until `featherctl tenant migrate alice`.
    --- exit 0
    ");
    assert_snapshot!(controller.calls(), @r#"PlaceTenant: PlaceTenantRequest { tenant: "alice", on: [Label { name: "region", value: "eu" }], pin: "fra", dry_run: false, spread: "" }"#);
    controller.answers("PlaceTenant", pb::PlaceTenantResponse { changed: true, ..Default::default() });
    assert_snapshot!(controller.run("tenant place alice --spread db").await, @r"
    --- stderr
    alice is bound to no server in particular, and away from others of the group db
    --- exit 0
    ");
}

#[tokio::test]
async fn limits_of_a_tenant_are_typed_shown_and_told_when_they_wait() {
    let controller = Controller::start().await;
    let limits = types_pb::TenantLimits { memory_bytes: 4 << 30, cpu_millis: 1500, pids: 0, revision: 3 };
    let done = pb::LimitTenantResponse {
        changed: true,
        limits: Some(limits),
        applied: true,
        server: "nyc".into(),
        ..Default::default()
    };
    let waiting = pb::LimitTenantResponse { applied: false, problem: "nyc: gone".into(), ..done.clone() };
    let dry = pb::LimitTenantResponse { applied: false, ..done.clone() };
    for answer in [done, waiting, dry] {
        controller.answers("LimitTenant", answer);
    }
    assert_snapshot!(controller.run("tenant set alice --memory 4g --cpus 1.5 --pids none").await, @r"
    --- stderr
    alice has 4 GiB of memory, 1.5 cores from now on
    --- exit 0
    ");
    assert_snapshot!(controller.run("tenant set alice --memory 4g").await, @r"
    --- stderr
    alice has 4 GiB of memory, 1.5 cores from now on
    nyc has not applied that yet (nyc: gone). The controller goes on trying; `featherctl tenant show alice` shows when it is done.
    --- exit 0
    ");
    assert_snapshot!(controller.run("tenant set alice --memory 4g --dry-run --output json").await, @r#"
    --- stdout
    {
      "tenant": "alice",
      "server": "nyc",
      "dry_run": true,
      "changed": true,
      "limits": {
        "memory_bytes": 4294967296,
        "cpu_millis": 1500,
        "pids": null
      },
      "applied": false,
      "problem": null
    }
    --- exit 0
    "#);
    assert_snapshot!(controller.calls(), @r#"
    LimitTenant: LimitTenantRequest { tenant: "alice", change: Some(LimitsChange { memory_bytes: Some(4294967296), cpu_millis: Some(1500), pids: Some(0) }), dry_run: false }
    LimitTenant: LimitTenantRequest { tenant: "alice", change: Some(LimitsChange { memory_bytes: Some(4294967296), cpu_millis: None, pids: None }), dry_run: false }
    LimitTenant: LimitTenantRequest { tenant: "alice", change: Some(LimitsChange { memory_bytes: Some(4294967296), cpu_millis: None, pids: None }), dry_run: true }
    "#);
    for wrong in
        ["tenant set alice", "tenant set alice --memory 4", "tenant set alice --cpus 0", "tenant set alice --pids 3"]
    {
        let ran = controller.run(wrong).await;
        assert!(ran.to_string().contains("exit 2"), "{wrong}: {ran}");
    }
}
