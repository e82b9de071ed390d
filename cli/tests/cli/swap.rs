//! `server swap`: what is asked, followed and said.

use feather_proto::pb::controller::v1 as pb;
use insta::assert_snapshot;

use crate::{
    controller::Controller,
    tenants::{ID, entry, says},
};

fn swap(state: pb::OperationState) -> pb::Operation {
    pb::Operation {
        id: ID.into(),
        kind: pb::OperationKind::Swap.into(),
        state: state.into(),
        source: "nyc".into(),
        ..Default::default()
    }
}

fn taken() -> pb::SwapAdminResponse {
    pb::SwapAdminResponse {
        operation: Some(swap(pb::OperationState::Running)),
        explanation: vec!["a new admin container of localhost/feather-work:new (sha256:2, another image than now) on nyc in place of feather-work-blue".into()],
        image_digest: "sha256:2".into(),
    }
}

#[tokio::test]
async fn a_swap_is_followed_to_its_end() {
    let controller = Controller::start().await;
    controller.answers("SwapAdmin", taken());
    let log = vec![
        entry(1, 5, "start", "done", "feather-work-green is healthy on port 8081 after 310 ms"),
        entry(2, 6, "switch", "done", "requests go to feather-work-green, the old one has ended"),
    ];
    controller.answers("WatchOperation", vec![says(pb::Operation { log, ..swap(pb::OperationState::Succeeded) })]);
    assert_snapshot!(controller.run("server swap nyc --image feather-work:new").await, @r"
    --- stderr
    operation op-00000000-0000-0000-0000-000000000001
      start      done: feather-work-green is healthy on port 8081 after 310 ms
      switch     done: requests go to feather-work-green, the old one has ended
    nyc has another admin container; `featherctl server show nyc` shows it
    --- exit 0
    ");
}

#[tokio::test]
async fn a_swap_that_failed_says_who_serves() {
    let controller = Controller::start().await;
    controller.answers("SwapAdmin", taken());
    let failed = pb::Operation {
        error: "feather-work-green did not answer its health check within 120 s; it wrote nothing".into(),
        reason: "NEVER_HEALTHY".into(),
        ..swap(pb::OperationState::Failed)
    };
    controller.answers("WatchOperation", vec![says(failed)]);
    assert_snapshot!(controller.run("server swap nyc").await, @r"
    --- stderr
    operation op-00000000-0000-0000-0000-000000000001
    error: the admin container of nyc was not swapped: feather-work-green did not answer its health check within 120 s; it wrote nothing
    Everything is as before: the old one serves.
    next: `featherctl operation show op-00000000-0000-0000-0000-000000000001` shows its log
    --- exit 1
    ");
}

#[tokio::test]
async fn a_dry_run_only_says_what_would_happen() {
    let controller = Controller::start().await;
    controller.answers("SwapAdmin", pb::SwapAdminResponse { operation: None, ..taken() });
    assert_snapshot!(controller.run("server swap nyc --dry-run").await, @r"
    --- stdout
    would swap the admin container of nyc
      a new admin container of localhost/feather-work:new (sha256:2, another image than now) on nyc in place of feather-work-blue
    --- exit 0
    ");
    controller.answers("SwapAdmin", pb::SwapAdminResponse { operation: None, ..taken() });
    assert_snapshot!(controller.run("server swap nyc --dry-run --output json").await, @r#"
    --- stdout
    {
      "dry_run": true,
      "server": "nyc",
      "image_digest": "sha256:2",
      "explanation": [
        "a new admin container of localhost/feather-work:new (sha256:2, another image than now) on nyc in place of feather-work-blue"
      ]
    }
    --- exit 0
    "#);
}
