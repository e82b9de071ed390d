//! The waitlist: shown, exported, invited from, forgotten.

use feather_proto::{
    error::{Error, reason},
    pb::controller::v1 as pb,
};
use insta::assert_snapshot;
use time::macros::datetime;

use crate::controller::{Act, Controller};

fn stamp(at: time::OffsetDateTime) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds: at.unix_timestamp(), nanos: 0 })
}

fn entry(email: &str, server: &str, tenant: &str) -> pb::WaitlistEntry {
    pb::WaitlistEntry {
        email: email.into(),
        server: server.into(),
        signed_up: stamp(datetime!(2026-11-20 08:15:00 UTC)),
        invited: (!tenant.is_empty()).then(|| stamp(datetime!(2026-11-25 10:00:00 UTC))).flatten(),
        tenant: tenant.into(),
    }
}

fn pages(unreachable: &[&str], problems: &[&str]) -> Vec<Act<pb::ListEntriesResponse>> {
    let first = pb::ListEntriesResponse {
        entries: vec![],
        unreachable_servers: unreachable.iter().map(ToString::to_string).collect(),
        problems: problems.iter().map(ToString::to_string).collect(),
    };
    let page = |entry| Act::Send(pb::ListEntriesResponse { entries: vec![entry], ..Default::default() });
    vec![Act::Send(first), page(entry("ada@example.org", "nyc", "ada")), page(entry("zoe@example.org", "fra", ""))]
}

#[tokio::test]
async fn the_list_says_who_where_and_what_became_of_them() {
    let controller = Controller::start().await;
    controller.answers("ListEntries", pages(&["sin"], &["fra: the waitlist cannot listen on 127.0.0.1:9099"]));
    assert_snapshot!(controller.run("waitlist list").await, @r"
    --- stdout
    EMAIL            SIGNED UP             SERVER  INVITED               USERNAME
    ada@example.org  2026-11-20T08:15:00Z  nyc     2026-11-25T10:00:00Z  ada
    zoe@example.org  2026-11-20T08:15:00Z  fra     -                     -
    --- stderr
    sin does not answer: who signed up there is missing from this list
    fra: the waitlist cannot listen on 127.0.0.1:9099
    --- exit 0
    ");
    controller.answers("ListEntries", pages(&["sin"], &[]));
    assert_snapshot!(controller.run("waitlist list --server nyc --output json").await, @r#"
    --- stdout
    {
      "entries": [
        {
          "email": "ada@example.org",
          "server": "nyc",
          "signed_up": "2026-11-20T08:15:00Z",
          "invited": "2026-11-25T10:00:00Z",
          "tenant": "ada"
        },
        {
          "email": "zoe@example.org",
          "server": "fra",
          "signed_up": "2026-11-20T08:15:00Z",
          "invited": null,
          "tenant": null
        }
      ],
      "unreachable_servers": [
        "sin"
      ],
      "problems": []
    }
    --- exit 0
    "#);
    controller.answers("ListEntries", vec![Act::Send(pb::ListEntriesResponse::default())]);
    assert_snapshot!(controller.run("waitlist list").await, @r"
    --- stderr
    Nobody is on the waitlist.
    --- exit 0
    ");
}

#[tokio::test]
async fn a_list_that_breaks_off_is_not_shown_as_whole() {
    let controller = Controller::start().await;
    let mut broken = pages(&[], &[]);
    broken.push(Act::Break);
    controller.answers("ListEntries", broken);
    let ran = controller.run("waitlist export --file waitlist.csv").await;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(3), ""));
    assert!(!controller.file("waitlist.csv").exists());
}

#[tokio::test]
async fn the_export_is_csv_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let controller = Controller::start().await;
    controller.answers("ListEntries", pages(&[], &["fra: the waitlist cannot listen on 127.0.0.1:9099"]));
    for _ in 0..2 {
        controller.answers("ListEntries", pages(&["sin"], &[]));
    }
    assert_snapshot!(controller.run("waitlist export").await, @r"
    --- stdout
    email,signed_up,server
    ada@example.org,2026-11-20T08:15:00Z,nyc
    zoe@example.org,2026-11-20T08:15:00Z,fra
    --- stderr
    fra: the waitlist cannot listen on 127.0.0.1:9099
    --- exit 0
    ");
    assert_snapshot!(controller.run("waitlist export --file waitlist.csv").await, @r"
    --- stderr
    exported 2 addresses to waitlist.csv
    unreachable: who signed up on sin is missing from the export: no answer from there
    next: `featherctl server list` shows which servers answer; then export again
    --- exit 3
    ");
    let file = controller.file("waitlist.csv");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 3);
    assert_snapshot!(controller.run("waitlist export --file waitlist.csv").await, @r"
    --- stderr
    error: waitlist.csv exists
    next: choose another file, or replace it with --yes
    --- exit 2
    ");
    assert_eq!(controller.run("waitlist export --file waitlist.csv --yes").await.code, Some(3));
}

#[tokio::test]
async fn an_invitation_ends_as_an_addition_does() {
    let controller = Controller::start().await;
    let operation = |state: pb::OperationState| pb::Operation {
        id: "op-00000000-0000-7000-8000-000000000001".into(),
        kind: pb::OperationKind::Add.into(),
        state: state.into(),
        tenant: "ada".into(),
        target: "nyc".into(),
        ..Default::default()
    };
    controller.answers(
        "Invite",
        pb::InviteResponse {
            operation: Some(operation(pb::OperationState::Running)),
            tenant: "ada".into(),
            url: "https://ada.users.inceptel.ai".into(),
            server: "nyc".into(),
            explanation: vec![],
        },
    );
    let end = pb::WatchOperationResponse {
        operation: Some(operation(pb::OperationState::Succeeded)),
        password: "x7k9m2".into(),
        ..Default::default()
    };
    controller.answers("WatchOperation", vec![Act::Send(end)]);
    assert_snapshot!(controller.run("waitlist invite Ada@Example.org --name ada --server nyc").await, @r"
    --- stdout
    https://ada.users.inceptel.ai | password: x7k9m2
    --- stderr
    operation op-00000000-0000-7000-8000-000000000001
    --- exit 0
    ");
    assert!(
        controller.calls().contains(r#"Invite: request_id: "id-0", Ada@example.org as "ada" on "nyc", dry run: false"#)
    );
}

#[tokio::test]
async fn a_plan_of_an_invitation_names_the_tenant_to_be() {
    let controller = Controller::start().await;
    let plan = pb::InviteResponse {
        tenant: "ada2".into(),
        url: "https://ada2.users.inceptel.ai".into(),
        server: "nyc".into(),
        explanation: vec!["nyc: chosen, 9 slots free".into()],
        ..Default::default()
    };
    controller.answers("Invite", plan.clone()).answers("Invite", plan);
    assert_snapshot!(controller.run("waitlist invite ada@example.org --dry-run").await, @r"
    --- stdout
    would add ada2 for ada@example.org on nyc, at https://ada2.users.inceptel.ai
      nyc: chosen, 9 slots free
    --- exit 0
    ");
    assert_snapshot!(controller.run("waitlist invite ada@example.org --dry-run --output json").await, @r#"
    --- stdout
    {
      "dry_run": true,
      "email": "ada@example.org",
      "tenant": "ada2",
      "server": "nyc",
      "url": "https://ada2.users.inceptel.ai",
      "explanation": [
        "nyc: chosen, 9 slots free"
      ]
    }
    --- exit 0
    "#);
}

#[tokio::test]
async fn nobody_is_invited_twice_or_by_mistake() {
    let controller = Controller::start().await;
    let before = Error::exists(
        reason::ALREADY_INVITED,
        "the address was invited on 2026-11-25 and became the tenant ada; `featherctl tenant show ada` shows it",
    );
    controller.refuses("Invite", before.with("tenant", "ada"));
    assert_snapshot!(controller.run("waitlist invite ada@example.org").await, @r"
    --- stderr
    error: the address was invited on 2026-11-25 and became the tenant ada; `featherctl tenant show ada` shows it
    --- exit 1
    ");
    assert_snapshot!(controller.run("waitlist invite ada").await, @r"
    --- stderr
    error: invalid value 'ada' for '<EMAIL>': this is not an e-mail address (it has no @); write it like ada@example.org

    For more information, try '--help'.
    --- exit 2
    ");
}

#[tokio::test]
async fn removing_asks_and_says_what_stays() {
    let controller = Controller::start().await;
    assert_snapshot!(controller.run("waitlist remove ada@example.org").await, @r"
    --- stderr
    error: nobody can be asked to confirm this here, and --yes was not given
    next: add --yes if you mean it. This deletes ada@example.org from the waitlist of every server, for good.
    --- exit 2
    ");
    for _ in 0..2 {
        let removed = pb::RemoveEntryResponse { servers: vec!["nyc".into()], tenant: "ada".into() };
        controller.answers("RemoveEntry", removed);
    }
    assert_snapshot!(controller.run("waitlist remove ada@example.org --yes").await, @r"
    --- stderr
    ada@example.org is not on the waitlist any more; the tenant ada stays
    --- exit 0
    ");
    assert_snapshot!(controller.run("waitlist remove ada@example.org --yes --output json").await, @r#"
    --- stdout
    {
      "email": "ada@example.org",
      "servers": [
        "nyc"
      ],
      "tenant": "ada"
    }
    --- exit 0
    "#);
}
