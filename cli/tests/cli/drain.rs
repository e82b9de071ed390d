//! `server drain` and `server return`: what is asked, followed and said.

use feather_proto::{error::Error, pb::controller::v1 as pb};
use insta::assert_snapshot;

use crate::{
    controller::Controller,
    tenants::{ID, entry, says},
};

const CHILD: &str = "op-00000000-0000-0000-0000-000000000002";

fn drained(state: pb::OperationState, moves: Vec<pb::TenantMove>) -> pb::Operation {
    pb::Operation {
        id: ID.into(),
        kind: pb::OperationKind::Drain.into(),
        state: state.into(),
        source: "nyc".into(),
        moves,
        ..Default::default()
    }
}

fn of(tenant: &str, end: pb::MoveEnd, target: &str, why: &str) -> pb::TenantMove {
    pb::TenantMove {
        tenant: tenant.into(),
        end: end.into(),
        source: "nyc".into(),
        target: target.into(),
        operation: if target.is_empty() { String::new() } else { CHILD.into() },
        why: why.into(),
        outage_ms: if end == pb::MoveEnd::Moved { 740 } else { 0 },
    }
}

fn begun() -> pb::DrainServerResponse {
    pb::DrainServerResponse { operation: Some(drained(pb::OperationState::Running, vec![])), moves: vec![] }
}

#[tokio::test]
async fn a_drain_is_followed_tenant_by_tenant_and_ends_with_a_table() {
    let controller = Controller::start().await;
    controller.answers("DrainServer", begun());
    let waiting = of("bob", pb::MoveEnd::Waiting, "", "");
    let running = |alice, bob| says(drained(pb::OperationState::Running, vec![alice, bob]));
    let moved = |name: &str| of(name, pb::MoveEnd::Moved, "fra", "");
    let log = vec![entry(1, 5, "cordon", "done", "nyc takes no new tenants"), entry(2, 9, "moves", "done", "2 moved")];
    let done = drained(pb::OperationState::Succeeded, vec![moved("alice"), moved("bob")]);
    controller.answers(
        "WatchOperation",
        vec![
            running(of("alice", pb::MoveEnd::Moving, "fra", ""), waiting.clone()),
            running(of("alice", pb::MoveEnd::Moving, "fra", ""), waiting),
            running(moved("alice"), of("bob", pb::MoveEnd::Moving, "fra", "")),
            says(pb::Operation { log, ..done }),
        ],
    );
    assert_snapshot!(controller.run("server drain nyc --parallel 1 --deadline 30m").await, @r"
    --- stdout
    TENANT  FROM  TO   END    OUTAGE  WHY
    alice   nyc   fra  moved  740 ms  -
    bob     nyc   fra  moved  740 ms  -
    --- stderr
    operation op-00000000-0000-0000-0000-000000000001
      alice moves to fra
      alice moved to fra
      bob moves to fra
      bob moved to fra
      cordon     done: nyc takes no new tenants
      moves      done: 2 moved
    nobody lives on nyc, and it takes no new tenants; `featherctl server return nyc` brings everybody home
    --- exit 0
    ");
    assert_snapshot!(controller.calls(), @r#"
    DrainServer: DrainServerRequest { request_id: "id-0", server: "nyc", to: "", parallel: 1, deadline_seconds: 1800, partial: false, dry_run: false, bytes_per_second_max: 0, route: Direct }
    WatchOperation: WatchOperationRequest { id: "op-00000000-0000-0000-0000-000000000001" }
    "#);
}

#[tokio::test]
async fn a_drain_that_left_somebody_says_who_and_why() {
    let controller = Controller::start().await;
    controller.answers("DrainServer", begun());
    let moves = vec![
        of("alice", pb::MoveEnd::Moved, "fra", ""),
        of("bob", pb::MoveEnd::Left, "", "no server can take bob: fra: it is pinned to nyc"),
    ];
    let failed = pb::Operation {
        error: "1 of 2 were not moved; bob: no server can take bob: fra: it is pinned to nyc".into(),
        reason: "NOT_ALL_MOVED".into(),
        ..drained(pb::OperationState::Failed, moves)
    };
    controller.answers("WatchOperation", vec![says(failed)]);
    assert_snapshot!(controller.run("server drain nyc --partial").await, @r"
    --- stdout
    TENANT  FROM  TO   END    OUTAGE  WHY
    alice   nyc   fra  moved  740 ms  -
    bob     nyc   -    left   -       no server can take bob: fra: it is pinned to nyc
    --- stderr
    operation op-00000000-0000-0000-0000-000000000001
      alice moved to fra
      bob was not moved: no server can take bob: fra: it is pinned to nyc
    error: nyc was not emptied: 1 of 2 were not moved; bob: no server can take bob: fra: it is pinned to nyc
    Who was moved stays there; the same command again goes on.
    next: `featherctl operation show op-00000000-0000-0000-0000-000000000001` shows its log
    --- exit 1
    ");
}

#[tokio::test]
async fn a_drain_that_the_others_cannot_hold_is_refused_with_reasons() {
    let controller = Controller::start().await;
    let message = "1 of 2 could not be moved; nothing was changed (--partial moves the others all the same):\nbob: fra: no free port";
    controller.refuses("DrainServer", Error::refused("NO_ROOM", message));
    assert_snapshot!(controller.run("server drain nyc").await, @r"
    --- stderr
    error: 1 of 2 could not be moved; nothing was changed (--partial moves the others all the same):
    bob: fra: no free port
    next: `featherctl server list` shows what is free; `featherctl server invite NAME` adds a server
    --- exit 1
    ");
    let fits = |tenant: &str, target: &str, why: &str| pb::ForeseenMove {
        tenant: tenant.into(),
        source: "nyc".into(),
        target: target.into(),
        volume_bytes: 1_258_291,
        why: why.into(),
    };
    let moves = vec![fits("alice", "fra", ""), fits("bob", "", "fra: no free port")];
    controller.answers("DrainServer", pb::DrainServerResponse { operation: None, moves });
    assert_snapshot!(controller.run("server drain nyc --dry-run").await, @r"
    --- stdout
    TENANT  FROM  TO   DATA     WHY
    alice   nyc   fra  1.2 MiB  -
    bob     nyc   -    1.2 MiB  fra: no free port
    --- stderr
    error: 1 of 2 tenants could not be moved
    next: `featherctl server list` shows the room that there is; --partial moves the others all the same
    --- exit 1
    ");
}

#[tokio::test]
async fn a_return_says_that_everybody_is_home() {
    let controller = Controller::start().await;
    let home = |state| pb::Operation { kind: pb::OperationKind::Return.into(), ..drained(state, vec![]) };
    let operation = Some(home(pb::OperationState::Running));
    controller.answers("ReturnServer", pb::ReturnServerResponse { operation, moves: vec![] });
    let moves = vec![pb::TenantMove { source: "fra".into(), ..of("alice", pb::MoveEnd::Moved, "nyc", "") }];
    controller.answers("WatchOperation", vec![says(pb::Operation { moves, ..home(pb::OperationState::Succeeded) })]);
    assert_snapshot!(controller.run("server return nyc --output json").await, @r#"
    --- stdout
    {
      "operation": "op-00000000-0000-0000-0000-000000000001",
      "kind": "return",
      "state": "succeeded",
      "tenant": "",
      "server": "nyc",
      "source": "nyc",
      "target": null,
      "url": null,
      "password": null,
      "migration": null,
      "moves": [
        {
          "tenant": "alice",
          "end": "moved",
          "source": "fra",
          "target": "nyc",
          "operation": "op-00000000-0000-0000-0000-000000000002",
          "outage_ms": 740,
          "why": null
        }
      ]
    }
    --- stderr
    {"operation":"op-00000000-0000-0000-0000-000000000001"}
    --- exit 0
    "#);
}

#[tokio::test]
async fn a_server_is_retired_by_its_name_and_its_copies_are_named() {
    let controller = Controller::start().await;
    let copy = pb::KeptCopy { tenant: "alice".into(), lives_on: "fra".into(), keep_until: None };
    controller.answers("RetireServer", pb::RetireServerResponse { kept_copies: vec![copy] });
    assert_snapshot!(controller.run("server retire nyc --discard-kept-copies --dns-elsewhere --discard-waitlist --yes").await, @r"
    --- stdout
    COPY OF  LIVES ON  KEPT UNTIL
    alice    fra       -
    --- stderr
    nyc is out of the fleet; stop its birth, and what is on its disk can go
    --- exit 0
    ");
    assert_snapshot!(controller.run("server retire nyc").await, @r"
    --- stderr
    error: nobody can be asked to confirm this here, and --yes was not given
    next: add --yes if you mean it. This takes nyc out of the fleet for good, with the copies that it keeps.
    --- exit 2
    ");
    assert_snapshot!(controller.calls(), @r#"RetireServer: RetireServerRequest { server: "nyc", discard_kept_copies: true, dry_run: false, dns_elsewhere: true, discard_waitlist: true }"#);
}
