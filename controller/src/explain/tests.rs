//! What is said of tenants and servers, in the states that people ask about.

use std::collections::BTreeMap;

use feather_proto::{
    error::{Error, reason},
    ids::{Generation, OperationId, ServerName},
    model::{ContainerState, IncomingStage, Residence, ServerSnapshot, TenantReport, VolumeReport, VolumeState},
};
use time::{Duration, OffsetDateTime};

use super::{Explanation, Leads, ServerView, TenantView, explain_server, explain_tenant};
use crate::{
    fleet::{Observed, Reachability},
    operations::{Kind, State, Subject},
    store::{OperationRow, ServerRow, TenantRow, TenantState},
};

fn name(text: &str) -> ServerName {
    text.parse().unwrap()
}

fn at(hour: i64) -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + Duration::hours(hour)
}

/// Alice, who was moved from nyc to fra.
fn alice() -> TenantRow {
    TenantRow {
        name: "alice".parse().unwrap(),
        state: TenantState::Active,
        server: Some(name("fra")),
        previous_server: Some(name("nyc")),
        generation: Generation(3),
        generation_issued: Generation(4),
        running: true,
        created: at(0),
        version: 1,
        bounds: Default::default(),
        limits: Default::default(),
    }
}

fn operation(number: u128, kind: Kind, state: State) -> OperationRow {
    OperationRow {
        id: OperationId::from_uuid(uuid::Uuid::from_u128(number)),
        kind,
        subject: Subject::Tenant("alice".parse().unwrap()),
        source: Some(name("nyc")),
        target: Some(name("fra")),
        state,
        plan: serde_json::Value::Null,
        facts: serde_json::Value::Null,
        requested_by: "admin/ann".into(),
        trace: None,
        error: (state != State::Succeeded)
            .then(|| Error::unavailable(reason::SERVER_UNREACHABLE, "fra does not answer")),
        hint: None,
        created: at(1),
        parent: None,
        ended: state.is_terminal().then(|| at(2)),
    }
}

fn report(residence: Residence, forward_to: Option<&str>) -> TenantReport {
    TenantReport {
        container: ContainerState::Running,
        forward_to: forward_to.map(ToOwned::to_owned),
        forward_idle: forward_to.map(|_| std::time::Duration::from_secs(150)),
        ..TenantReport::bare("alice".parse().unwrap(), Generation(3), residence)
    }
}

fn observed(server: &str, report: TenantReport, copy: bool) -> (ServerName, Observed) {
    let volume = VolumeReport {
        tenant: "alice".parse().unwrap(),
        state: VolumeState::Complete,
        generation: Generation(1),
        keep_until: Some(at(170)),
        last_summary: None,
    };
    let volumes = if copy { vec![volume] } else { vec![] };
    let snapshot = ServerSnapshot { tenants: vec![report], volumes, ..ServerSnapshot::empty(name(server)) };
    let seen = Observed { snapshot: Some(snapshot.into()), last_seen: Some(at(3)), reachability: Reachability::Alive };
    (name(server), seen)
}

fn servers() -> BTreeMap<ServerName, Observed> {
    BTreeMap::from([
        observed("fra", report(Residence::Running, None), false),
        observed("nyc", report(Residence::Departed, Some("192.0.2.2:80")), true),
    ])
}

fn explain(row: &TenantRow, operations: &[OperationRow], seen: &BTreeMap<ServerName, Observed>) -> Explanation {
    explain_tenant(&TenantView {
        row,
        lost: false,
        operations,
        plan: Some("fra: chosen (9 free slots); nyc: where it lives now".into()),
        observed: seen,
        ingress: Some(&name("ams")),
        name: Some(Leads {
            name: "alice.example.com".into(),
            own: Some("192.0.2.2".into()),
            arrived: None,
            asked: true,
        }),
        warnings: &[],
        url: "https://alice.example.com".into(),
    })
}

fn lines(explanation: &Explanation) -> Vec<String> {
    explanation.facts.iter().map(|fact| format!("{}: {}", fact.topic, fact.text)).collect()
}

#[test]
fn a_tenant_that_was_moved_says_by_whom_why_and_what_is_left_of_the_move() {
    let moved = operation(1, Kind::Migrate, State::Succeeded);
    let told = explain(&alice(), std::slice::from_ref(&moved), &servers());
    assert_eq!(
        lines(&told),
        [
            "now: alice lives on fra and runs, at https://alice.example.com".to_owned(),
            format!("placed: admin/ann moved it from nyc to fra ({})", moved.id),
            "why: fra: chosen (9 free slots)".into(),
            "why: nyc: where it lives now".into(),
            "before: it lived on nyc".into(),
            "forward: nyc forwards its requests to 192.0.2.2:80: until every name server has led elsewhere, and nobody has come here, for \
             twice the zone's TTL; the last came 2m ago"
                .into(),
            "copy: nyc keeps a copy of its data from before the move, to move back quickly".into(),
            "dns: alice.example.com leads to 192.0.2.2 by a record of its own; not every name server says so yet".into(),
        ]
    );
    assert_eq!((told.facts[1].at, told.facts[6].at), (Some(at(2)), Some(at(170))));
    assert_eq!(
        told.next,
        [
            "`featherctl tenant migrate alice --undo` moves it back to nyc",
            "`featherctl dns status` shows which name server lags"
        ]
    );
}

#[test]
fn what_is_under_way_or_ended_badly_is_told_with_what_to_type() {
    let added = OperationRow { source: None, ..operation(1, Kind::Add, State::Succeeded) };
    for (state, text, next) in [
        (State::Running, "operation: migrate is under way", "`featherctl operation watch op-"),
        (State::Stuck, "operation: migrate is stuck", "`featherctl operation retry op-"),
        (
            State::Failed,
            "operation: the last change, migrate, failed and left all as it was: fra does not answer",
            "`featherctl operation show op-",
        ),
    ] {
        let told = explain(&alice(), &[operation(2, Kind::Migrate, state), added.clone()], &servers());
        assert!(lines(&told).iter().any(|line| line.starts_with(text)), "{told:?}");
        assert!(told.next.iter().any(|line| line.starts_with(next)), "{told:?}");
        assert!(lines(&told)[1].starts_with("placed: admin/ann added it on fra"), "{told:?}");
    }
}

#[test]
fn who_stands_still_in_a_move_that_nobody_remembers_can_be_started() {
    let mut arriving = report(Residence::Absent, None);
    arriving.incoming = Some(IncomingStage::Received);
    let seen = [observed("fra", report(Residence::Sealed, None), true), observed("nyc", arriving, true)].into();
    let told = explain(&alice(), &[], &seen);
    let lines = lines(&told);
    let now = "now: alice lives on fra and is broken: it stands still there in a move that no operation goes on with";
    assert!(lines[0].starts_with(now), "{lines:?}");
    assert!(
        lines.contains(&"copy: nyc holds what came of a move that no operation goes on with".to_owned()),
        "{lines:?}"
    );
    assert!(told.next[0].starts_with("`featherctl tenant start alice` starts it"), "{told:?}");
}

#[test]
fn silence_and_removal_are_no_absence() {
    let mut seen = servers();
    seen.get_mut(&name("fra")).unwrap().reachability = Reachability::Silent("timed out".into());
    let told = explain(&alice(), &[], &seen);
    assert_eq!(lines(&told)[0], "now: alice lives on fra, which does not answer; it may well be running there");
    assert_eq!(lines(&told)[1], "placed: alice was taken in where it lived");
    let removed = TenantRow { state: TenantState::Removed, ..alice() };
    let told = explain(&removed, &[], &servers());
    assert_eq!(lines(&told)[0], "now: alice is removed; its data is kept on fra");
    assert!(told.next[0].contains("`featherctl tenant add alice`"));
}

#[test]
fn a_server_says_who_lives_there_and_what_it_holds_for_others() {
    let row = ServerRow {
        name: name("nyc"),
        identity: name("nyc"),
        address: "nyc:7443".into(),
        public_address: "192.0.2.1".into(),
        key_fingerprint: String::new(),
        joined: at(0),
        upkeep: Default::default(),
    };
    let seen = servers();
    let told = explain_server(&ServerView {
        row: &row,
        seen: &seen[&name("nyc")],
        room: vec!["nyc: chosen (10 free slots)".into()],
        ingress: false,
        tenants: &[alice()],
        running: &[operation(2, Kind::Migrate, State::Running)],
        warnings: &[],
    });
    let lines = lines(&told);
    for wanted in [
        "now: nyc at nyc:7443 answers",
        "slots: for a new tenant: nyc: chosen (10 free slots)",
        "tenants: nobody lives here",
        "operation: migrate of alice is under way (op-",
        "forward: it forwards for those that left it: alice",
        "copy: it keeps copies of those that left it, the last of them until then: alice",
    ] {
        assert!(lines.iter().any(|line| line.starts_with(wanted)), "{wanted}: {lines:#?}");
    }
    assert!(told.next.last().unwrap().contains("`featherctl server show nyc`"));
}
