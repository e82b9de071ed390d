//! `server cordon`, `uncordon`, `label` and `tenant place`: what is asked and said.

use feather_proto::pb::{controller::v1 as pb, types::v1::Label};
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
    assert_snapshot!(controller.calls(), @r#"PlaceTenant: PlaceTenantRequest { tenant: "alice", on: [Label { name: "region", value: "eu" }], pin: "fra", dry_run: false }"#);
}
