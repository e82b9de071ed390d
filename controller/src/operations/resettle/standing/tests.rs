use feather_proto::{error::Error, ids::OperationId};
use serde_json::json;
use time::OffsetDateTime;

use super::{End, Next, Now, Told, Way, next, so_far, verdict};
use crate::{
    operations::{Kind, State, Subject},
    store::OperationRow,
};

fn child(tenant: &str, state: State) -> OperationRow {
    let failed = state == State::Failed;
    OperationRow {
        id: OperationId::from_uuid(uuid::Uuid::from_u128(7)),
        kind: Kind::Migrate,
        subject: Subject::Tenant(tenant.parse().unwrap()),
        source: Some("nyc".parse().unwrap()),
        target: Some("fra".parse().unwrap()),
        state,
        plan: json!({}),
        facts: json!({}),
        requested_by: "operator/ann".into(),
        trace: None,
        error: failed.then(|| Error::full("NO_DISK", "fra is full")),
        hint: None,
        created: OffsetDateTime::UNIX_EPOCH,
        ended: None,
        parent: None,
    }
}

fn now() -> Now {
    Now {
        tenant: "alice".parse().unwrap(),
        home: Some("nyc".parse().unwrap()),
        lives: true,
        child: None,
        held: false,
        fleet_unknown: false,
        late: false,
        given_up: false,
    }
}

fn drain(now: &Now) -> Next {
    next(&"nyc".parse().unwrap(), Way::Drain, now)
}

fn end(next: Next) -> Option<End> {
    match next {
        Next::Tell(told) => Some(told.end),
        Next::Wait | Next::Begin => None,
    }
}

#[test]
fn who_lives_there_leaves_and_who_lives_elsewhere_comes_home() {
    let home = |now: &Now| next(&"nyc".parse().unwrap(), Way::Return, now);
    let away = Now { home: Some("fra".parse().unwrap()), ..now() };
    let removed = Now { lives: false, ..now() };
    assert_eq!((drain(&now()), home(&away)), (Next::Begin, Next::Begin));
    for elsewhere in [drain(&away), drain(&removed), home(&now()), home(&removed)] {
        assert_eq!(end(elsewhere), Some(End::Elsewhere));
    }
}

#[test]
fn what_holds_it_and_what_is_not_known_yet_are_waited_for_until_the_deadline() {
    let held = Now { held: true, lives: false, ..now() };
    assert_eq!(drain(&held), Next::Wait, "an add may make it one of ours");
    assert_eq!(drain(&Now { fleet_unknown: true, ..now() }), Next::Wait);
    for late in [Now { late: true, ..held }, Now { late: true, ..now() }] {
        assert_eq!(end(drain(&late)), Some(End::Left));
    }
}

#[test]
fn a_move_that_has_begun_is_never_begun_again_and_a_stuck_one_is_given_up_only_in_the_end() {
    for state in [State::Running, State::Undoing, State::Stuck] {
        assert_eq!(drain(&Now { child: Some(child("alice", state)), held: true, late: false, ..now() }), Next::Wait);
    }
    let running = Now { child: Some(child("alice", State::Running)), late: true, given_up: true, ..now() };
    assert_eq!(drain(&running), Next::Wait, "a deadline takes nothing back");
    let stuck = Now { child: Some(child("alice", State::Stuck)), given_up: true, ..now() };
    assert_eq!(end(drain(&stuck)), Some(End::Stuck));
    for (state, wanted) in [(State::Succeeded, End::Moved), (State::Failed, End::Left), (State::Cancelled, End::Left)] {
        assert_eq!(end(drain(&Now { child: Some(child("alice", state)), ..now() })), Some(wanted), "{state:?}");
    }
}

#[test]
fn the_verdict_names_who_was_left_and_why() {
    let moved = Told { end: End::Moved, ..Told::left("alice".parse().unwrap(), None, String::new()) };
    let elsewhere = Told { end: End::Elsewhere, ..moved.clone() };
    let bob = Told::left("bob".parse().unwrap(), None, "fra is full".into());
    assert_eq!(verdict(&[moved.clone(), elsewhere]).unwrap(), "1 moved");
    let error = verdict(&[moved, bob]).unwrap_err();
    assert_eq!(error.message, "1 of 2 were not moved; bob: fra is full");
}

#[test]
fn what_is_told_follows_the_plan_and_a_move_speaks_for_itself() {
    let name = |text: &str| text.parse().unwrap();
    let planned = vec![name("carol"), name("alice"), name("bob")];
    let told = vec![
        Told { end: End::Stuck, ..Told::left(name("alice"), None, "stuck".into()) },
        Told::left(name("bob"), None, "pinned".into()),
    ];
    let children = vec![child("alice", State::Succeeded), child("dave", State::Running)];
    let all: Vec<_> =
        so_far(planned, told, children).into_iter().map(|one| (one.tenant.to_string(), one.end)).collect();
    let wanted = [("carol", End::Waiting), ("alice", End::Moved), ("bob", End::Left), ("dave", End::Moving)];
    assert_eq!(all, wanted.map(|(name, end)| (name.to_owned(), end)));
}
