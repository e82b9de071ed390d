//! The zone: planned, applied, adopted, restored; what is shown of it.

use feather_proto::{
    error::{Error, reason},
    pb::controller::v1 as pb,
};
use insta::assert_snapshot;
use time::macros::datetime;

use crate::controller::Controller;

fn stamp(at: time::OffsetDateTime) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds: at.unix_timestamp(), nanos: 0 })
}

fn a(name: &str, value: &str, owned: bool) -> pb::DnsRecord {
    pb::DnsRecord {
        name: format!("{name}.users.example.com"),
        kind: "a".into(),
        value: value.into(),
        extra: String::new(),
        owned,
    }
}

fn plan() -> pb::DnsPlan {
    pb::DnsPlan {
        plan: "1795000000000-0011223344556677".into(),
        expires: stamp(datetime!(2026-11-28 12:10:00 UTC)),
        zone: "dynadot/example.com".into(),
        ttl_seconds: 300,
        create: vec![a("alice", "192.0.2.2", false)],
        remove: vec![a("alice", "192.0.2.1", false)],
        kept: 3,
        foreign: 7,
        conflicts: vec![pb::DnsConflict {
            kind: pb::DnsConflictKind::Occupied.into(),
            wanted: Some(a("*", "192.0.2.1", false)),
            present: Some(a("*", "198.51.100.9", false)),
            explanation: "*.users.example.com leads to 198.51.100.9 and is not ours; `featherctl dns adopt '*'` lets the fleet change it"
                .into(),
        }],
        slots_used: 9,
        slots_after: 9,
        slots_max: 100,
        apex_used: 3,
        apex_max: 20,
        changes: 1,
        changes_max: 5,
        ingress: "nyc".into(),
        forwarded: vec!["zoe".into()],
        ..Default::default()
    }
}

fn planned(plan: pb::DnsPlan) -> pb::PlanDnsResponse {
    pb::PlanDnsResponse { plan: Some(plan) }
}

#[tokio::test]
async fn a_plan_says_what_changes_and_what_stands_in_the_way() {
    let controller = Controller::start().await;
    controller.answers("PlanDns", planned(plan()));
    assert_snapshot!(controller.run("dns plan").await, @r"
    --- stdout
    + alice.users.example.com A 192.0.2.2
    - alice.users.example.com A 192.0.2.1
    ! *.users.example.com leads to 198.51.100.9 and is not ours; `featherctl dns adopt '*'` lets the fleet change it
    zone             dynadot/example.com
    untouched        3 of the fleet, 7 records of others
    ttl              300 s, as it is
    records          9 of 100 now, 9 then; 3 of 20 at the domain itself
    names changed    1, 5 at once without --max-changes
    ingress          nyc
    forwarded by it  zoe
    plan             1795000000000-0011223344556677, until 2026-11-28T12:10:00Z
    --- stderr
    `featherctl dns apply` does this.
    --- exit 0
    ");
    let refusal = "the marker that says which records are ours is gone from the zone".to_owned();
    controller.answers("PlanDns", planned(pb::DnsPlan { refusal, create: vec![], remove: vec![], ..plan() }));
    assert_snapshot!(controller.run("dns plan --output json").await, @r#"
    --- stdout
    {
      "plan": "1795000000000-0011223344556677",
      "expires": "2026-11-28T12:10:00Z",
      "zone": "dynadot/example.com",
      "ttl_seconds": 300,
      "create": [],
      "remove": [],
      "kept": 3,
      "foreign": 7,
      "conflicts": [
        {
          "kind": "occupied",
          "wanted": {
            "name": "*.users.example.com",
            "kind": "a",
            "value": "192.0.2.1",
            "extra": null,
            "owned": false
          },
          "present": {
            "name": "*.users.example.com",
            "kind": "a",
            "value": "198.51.100.9",
            "extra": null,
            "owned": false
          },
          "explanation": "*.users.example.com leads to 198.51.100.9 and is not ours; `featherctl dns adopt '*'` lets the fleet change it"
        }
      ],
      "no_slot": [],
      "slots_used": 9,
      "slots_after": 9,
      "slots_max": 100,
      "apex_used": 3,
      "apex_max": 20,
      "changes": 1,
      "changes_max": 5,
      "refusal": "the marker that says which records are ours is gone from the zone",
      "ingress": "nyc",
      "forwarded": [
        "zoe"
      ],
      "unaddressable_servers": [],
      "pending": false
    }
    --- exit 0
    "#);
    controller.refuses("PlanDns", Error::refused(reason::DNS_OFF, "this controller writes no DNS"));
    assert_snapshot!(controller.run("dns plan").await, @r"
    --- stderr
    error: this controller writes no DNS
    next: start the controller with --dns and --dns-zone (docs/operations.md says how), or point the names there by hand
    --- exit 1
    ");
}

#[tokio::test]
async fn applying_is_bound_to_what_was_shown() {
    let controller = Controller::start().await;
    let applied = pb::ApplyDnsResponse { created: 1, removed: 1, owned: 4, snapshot: 12, noticed: String::new() };
    controller.answers("PlanDns", planned(plan()));
    assert_snapshot!(controller.run("dns apply").await, @r"
    --- stderr
    + alice.users.example.com A 192.0.2.2
    - alice.users.example.com A 192.0.2.1
    ! *.users.example.com leads to 198.51.100.9 and is not ours; `featherctl dns adopt '*'` lets the fleet change it
    zone             dynadot/example.com
    untouched        3 of the fleet, 7 records of others
    ttl              300 s, as it is
    records          9 of 100 now, 9 then; 3 of 20 at the domain itself
    names changed    1, 5 at once without --max-changes
    ingress          nyc
    forwarded by it  zoe
    plan             1795000000000-0011223344556677, until 2026-11-28T12:10:00Z
    error: nobody can be asked to confirm this here, and --yes was not given
    next: add --yes if you mean it. This changes 1 name in dynadot/example.com.
    --- exit 2
    ");
    assert!(!controller.calls().contains("ApplyDns"));
    controller.answers("PlanDns", planned(plan()));
    controller.answers("ApplyDns", applied.clone());
    assert_snapshot!(controller.run("dns apply --yes --max-changes 50%").await, @r"
    --- stderr
    1 created, 1 removed, read back; 4 records of the fleet; the zone of before is snapshot 12
    --- exit 0
    ");
    assert_snapshot!(controller.calls(), @r#"
    PlanDns: PlanDnsRequest
    PlanDns: PlanDnsRequest
    ApplyDns: ApplyDnsRequest { plan: "1795000000000-0011223344556677", max_changes: "50%", accept_fewer: false }
    "#);
    let cap = "8 names would change at once, and 5 may (10 records are ours); nothing was changed. `featherctl dns plan` shows them, \
               `featherctl dns apply --max-changes 8` allows it this once";
    controller.answers("PlanDns", planned(plan()));
    controller.refuses("ApplyDns", Error::refused(reason::DNS_CAP, cap));
    assert_snapshot!(controller.run("dns apply --yes").await, @r"
    --- stderr
    error: 8 names would change at once, and 5 may (10 records are ours); nothing was changed. `featherctl dns plan` shows them, `featherctl dns apply --max-changes 8` allows it this once
    --- exit 1
    ");
    let nothing = pb::DnsPlan { create: vec![], remove: vec![], ..plan() };
    controller.answers("PlanDns", planned(nothing));
    assert_snapshot!(controller.run("dns apply --yes --output json").await, @r#"
    --- stdout
    {
      "created": 0,
      "removed": 0,
      "owned": 3,
      "snapshot": null,
      "noticed": null
    }
    --- exit 0
    "#);
}

#[tokio::test]
async fn status_shows_each_name_and_every_warning() {
    let controller = Controller::start().await;
    let (one, two) = ("198.51.100.53:53", "203.0.113.53:53");
    let answer = |server: &str, value: &str| pb::DnsAnswer {
        server: server.into(),
        values: value.split_whitespace().map(ToOwned::to_owned).collect(),
        as_wanted: value == "192.0.2.2",
        ..Default::default()
    };
    let silent = pb::DnsAnswer { problem: "timed out".into(), ..answer(one, "192.0.2.9") };
    let name = |tenant: &str, answers: Vec<pb::DnsAnswer>| pb::DnsName {
        name: format!("{tenant}.users.example.com"),
        wanted: vec!["192.0.2.2".into()],
        in_zone: tenant != "carol",
        converged: tenant == "bob",
        answers,
        ..Default::default()
    };
    let names = vec![
        name("alice", vec![answer(one, "192.0.2.2"), answer(two, "192.0.2.9")]),
        name("bob", vec![answer(one, "192.0.2.2"), answer(two, "192.0.2.2")]),
        name("carol", vec![answer(one, "192.0.2.9"), answer(two, "192.0.2.9")]),
        name("dave", vec![answer(one, ""), answer(two, "")]),
        name("erin", vec![silent]),
        name("frank", vec![]),
    ];
    let status = pb::GetDnsStatusResponse {
        mode: "auto".into(),
        zone: "dynadot/example.com".into(),
        message: "up to date (records of the fleet: 4)".into(),
        names,
        plan: Some(plan()),
        warnings: vec!["tenants that the ingress nyc forwards, for want of a record of their own: 1".into()],
        ..Default::default()
    };
    controller.answers("GetDnsStatus", status);
    assert_snapshot!(controller.run("dns status").await, @r"
    --- stdout
    mode     auto: the controller changes the zone by itself
    zone     dynadot/example.com
    state    up to date (records of the fleet: 4)
    records  9 of 100 in use
    ingress  nyc

    NAME                     SHOULD LEAD TO  STATE                                                                             SINCE
    alice.users.example.com  192.0.2.2       in the zone, at 1 of 2 name servers; 203.0.113.53:53 still says 192.0.2.9         -
    bob.users.example.com    192.0.2.2       arrived                                                                           -
    carol.users.example.com  192.0.2.2       not in the zone yet                                                               -
    dave.users.example.com   192.0.2.2       in the zone, at 0 of 2 name servers; 198.51.100.53:53 does not know it yet        -
    erin.users.example.com   192.0.2.2       in the zone, at 0 of 1 name servers; 198.51.100.53:53 does not answer: timed out  -
    frank.users.example.com  192.0.2.2       in the zone                                                                       -
    --- stderr
    tenants that the ingress nyc forwards, for want of a record of their own: 1
    --- exit 0
    ");
    let none = pb::GetDnsStatusResponse {
        mode: "none".into(),
        message: "this controller writes no DNS (--dns none)".into(),
        ..Default::default()
    };
    controller.answers("GetDnsStatus", none);
    assert_snapshot!(controller.run("dns status").await, @r"
    --- stdout
    mode   none
    state  this controller writes no DNS (--dns none)
    --- exit 0
    ");
}

#[tokio::test]
async fn records_and_snapshots_are_listed() {
    let controller = Controller::start().await;
    let mail = pb::DnsRecord {
        name: "example.com".into(),
        kind: "mx".into(),
        value: "mx.example.net".into(),
        extra: "10".into(),
        owned: false,
    };
    let records = vec![mail, a("alice", "192.0.2.2", true)];
    controller.answers("ListDnsRecords", pb::ListDnsRecordsResponse { ttl_seconds: 300, records });
    assert_snapshot!(controller.run("dns records").await, @r"
    --- stdout
    NAME                     TYPE  OWNER   VALUE
    example.com              MX    others  mx.example.net 10
    alice.users.example.com  A     fleet   192.0.2.2
    --- exit 0
    ");
    let snapshot = pb::DnsSnapshot {
        id: 12,
        taken: stamp(datetime!(2026-11-28 12:00:00 UTC)),
        reason: "1 to create, 1 to remove".into(),
        records: 9,
        owned: 4,
        ttl_seconds: 300,
    };
    controller.answers("ListDnsSnapshots", pb::ListDnsSnapshotsResponse { snapshots: vec![snapshot] });
    assert_snapshot!(controller.run("dns snapshots").await, @r"
    --- stdout
    SNAPSHOT  TAKEN                 FLEET  OTHERS  TTL  BEFORE
    12        2026-11-28T12:00:00Z  4      5       300  1 to create, 1 to remove
    --- exit 0
    ");
}

#[tokio::test]
async fn restoring_shows_first_and_asks_for_the_counts() {
    let controller = Controller::start().await;
    let shown = pb::RestoreDnsSnapshotResponse {
        create: vec![a("www", "198.51.100.1", false)],
        remove: vec![],
        kept: 8,
        ttl_seconds_before: 60,
        ttl_seconds_after: 300,
        zone_hash: "abc".into(),
    };
    controller.answers("RestoreDnsSnapshot", shown.clone());
    assert_snapshot!(controller.run("dns restore 12 --dry-run").await, @r"
    --- stdout
    + www.users.example.com A 198.51.100.1
    untouched  8 records
    ttl        60 s now, 300 s then
    --- exit 0
    ");
    controller.answers("RestoreDnsSnapshot", shown.clone());
    assert_snapshot!(controller.run("dns restore 12").await, @r"
    --- stderr
    + www.users.example.com A 198.51.100.1
    untouched  8 records
    ttl        60 s now, 300 s then
    error: nobody can be asked to confirm this here, and --yes was not given
    next: add --yes if you mean it. This writes the whole zone anew: +1-0 are records that come and go.
    --- exit 2
    ");
    controller.answers("RestoreDnsSnapshot", shown.clone());
    controller.answers("RestoreDnsSnapshot", shown);
    assert_snapshot!(controller.run("dns restore 12 --yes").await, @r"
    --- stderr
    + www.users.example.com A 198.51.100.1
    untouched  8 records
    ttl        60 s now, 300 s then
    The zone is as in snapshot 12 again, with the fleet's records of now.
    --- exit 0
    ");
    assert_snapshot!(controller.calls(), @r#"
    RestoreDnsSnapshot: RestoreDnsSnapshotRequest { id: 12, dry_run: true, zone_hash: "" }
    RestoreDnsSnapshot: RestoreDnsSnapshotRequest { id: 12, dry_run: true, zone_hash: "" }
    RestoreDnsSnapshot: RestoreDnsSnapshotRequest { id: 12, dry_run: true, zone_hash: "" }
    RestoreDnsSnapshot: RestoreDnsSnapshotRequest { id: 12, dry_run: false, zone_hash: "abc" }
    "#);
}

#[tokio::test]
async fn adopting_and_the_ingress_say_what_follows() {
    let controller = Controller::start().await;
    let records = vec![a("*", "198.51.100.9", false)];
    controller.answers("AdoptDnsRecords", pb::AdoptDnsRecordsResponse { records: records.clone() });
    controller.answers("AdoptDnsRecords", pb::AdoptDnsRecordsResponse { records });
    assert_snapshot!(controller.run("dns adopt * --yes").await, @r"
    --- stderr
    1 record adopted; `featherctl dns plan` shows what the fleet makes of that
    --- exit 0
    ");
    assert_snapshot!(controller.run("dns adopt").await, @r"
    --- stderr
    error: the following required arguments were not provided:
      <NAME>...

    Usage: featherctl dns adopt --controller <HOST:PORT> <NAME>...

    For more information, try '--help'.
    --- exit 2
    ");
    controller.answers("SetIngress", pb::SetIngressResponse { before: "nyc".into(), plan: Some(plan()) });
    assert_snapshot!(controller.run("dns ingress fra --dry-run").await, @r"
    --- stdout
    + alice.users.example.com A 192.0.2.2
    - alice.users.example.com A 192.0.2.1
    ! *.users.example.com leads to 198.51.100.9 and is not ours; `featherctl dns adopt '*'` lets the fleet change it
    zone             dynadot/example.com
    untouched        3 of the fleet, 7 records of others
    ttl              300 s, as it is
    records          9 of 100 now, 9 then; 3 of 20 at the domain itself
    names changed    1, 5 at once without --max-changes
    ingress          nyc
    forwarded by it  zoe
    plan             1795000000000-0011223344556677, until 2026-11-28T12:10:00Z
    --- stderr
    fra would be the ingress instead of nyc
    --- exit 0
    ");
    controller.answers("SetIngress", pb::SetIngressResponse { before: "nyc".into(), plan: None });
    assert_snapshot!(controller.run("dns ingress fra").await, @r"
    --- stderr
    fra is the ingress instead of nyc; this controller writes no DNS, so point the wildcard record there by hand
    --- exit 0
    ");
}
