//! The store keeps its promises: one operation for each tenant, generations that only rise, logs without forks.

use feather_proto::{
    error::reason,
    ids::{Generation, OperationId, ServerName, TenantName},
};
use serde_json::json;
use time::OffsetDateTime;

use super::{
    Append, Begin, Begun, End, Error, Invitation, NewOperation, ServerRow, Store, TakeIn, TenantState, TenantUpdate,
    events::{NewEvent, Source, Wanted},
};
use crate::operations::{Event, Kind, State, Subject};

mod lead;
mod mirror;
mod postgres;
mod rename;
mod together;
mod ways;

/// Where a test keeps its store.
#[derive(Debug, Clone, Copy)]
pub(super) enum On {
    Sqlite,
    Postgres,
}

/// A place for a store that nobody else uses.
pub(super) struct Place {
    pub(super) url: String,
    _folder: tempfile::TempDir,
}

impl On {
    pub(super) async fn place(self) -> Place {
        let folder = tempfile::tempdir().unwrap();
        let url = match self {
            On::Sqlite => format!("sqlite://{}", folder.path().join("store.db").display()),
            On::Postgres => postgres::database().await,
        };
        Place { url, _folder: folder }
    }
}

/// Makes two tests of each of these: one for each kind of database.
macro_rules! on_both {
    ($($test:ident),* $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test] async fn $test() { super::$test(crate::store::tests::On::Sqlite).await; })*
        }
        mod on_postgres {
            $(#[tokio::test] async fn $test() { super::$test(crate::store::tests::On::Postgres).await; })*
        }
    };
}
pub(super) use on_both;

on_both!(
    a_request_id_begins_one_operation_whatever_happens_to_its_reply,
    a_tenant_has_one_operation_at_a_time_and_higher_generations_each_time,
    a_plan_made_on_an_older_world_is_refused_and_leaves_nothing,
    a_log_never_forks_and_a_refused_line_changes_nothing,
    a_stale_operation_cannot_move_a_tenant_back,
    what_was_committed_is_there_after_a_reopening,
    no_operation_begins_on_a_server_that_was_removed_since_its_plan,
    an_expired_join_token_lets_nobody_in,
    an_address_has_one_invitation_and_another_only_in_its_place,
    an_invitation_stands_as_long_as_its_addition_has_not_failed,
    a_tenant_that_is_taken_in_gets_generations_above_what_its_server_has_seen,
    only_a_name_without_a_home_is_given_and_never_under_an_operation,
    what_a_server_has_seen_is_never_issued_again,
    events_are_numbered_filtered_and_gone_when_they_are_old,
    what_a_server_told_is_taken_in_by_one_of_those_that_read_the_same,
);

struct Scratch {
    store: Store,
    _place: Place,
}

async fn scratch(on: On) -> Scratch {
    let place = on.place().await;
    let store = Store::open(&place.url).await.unwrap();
    join(&store, "nyc").await;
    Scratch { store, _place: place }
}

async fn join(store: &Store, server: &str) {
    let later = now() + time::Duration::hours(1);
    store.add_join_token(server, &server.parse().unwrap(), later, false).await.unwrap();
    let member = |name: ServerName| ServerRow {
        identity: name.clone(),
        name,
        address: format!("{server}:7443"),
        public_address: server.into(),
        key_fingerprint: server.into(),
        joined: now(),
        upkeep: crate::upkeep::Upkeep::default(),
    };
    store.join(server, member, now()).await.unwrap();
}

fn alice() -> TenantName {
    "alice".parse().unwrap()
}

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap()
}

fn add(number: u128, expected_version: Option<i64>) -> NewOperation {
    NewOperation {
        id: OperationId::from_uuid(uuid::Uuid::from_u128(number)),
        parent: None,
        request_id: uuid::Uuid::from_u128(number),
        request: json!({ "add": "alice" }),
        kind: Kind::Add,
        subject: Subject::Tenant(alice()),
        source: None,
        target: Some("nyc".parse().unwrap()),
        plan: json!({ "server": "nyc" }),
        requested_by: "admin/admin".into(),
        expected_version,
        tenant_state: Some(TenantState::Adding),
        bounds: None,
        limits: None,
        explanation: "because".into(),
        floor: Generation(0),
        trace: None,
        now: now(),
    }
}

async fn begin(store: &Store, new: &NewOperation) -> Begun {
    match store.begin_operation(new).await.unwrap() {
        Begin::New(begun) => begun,
        Begin::Known(id) => panic!("{id} was there before"),
    }
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Refused(error)) => error.reason,
        other => panic!("not refused: {other:?}"),
    }
}

fn line<'a>(id: &'a OperationId, sequence: i64, event: Event, state: State) -> Append<'a> {
    Append {
        operation: id,
        sequence,
        step: "commit",
        event,
        message: "",
        state,
        facts: None,
        error: None,
        hint: None,
        tenant: None,
        end: None,
        now: now(),
    }
}

async fn a_request_id_begins_one_operation_whatever_happens_to_its_reply(on: On) {
    let Scratch { store, _place } = scratch(on).await;
    let begun = begin(&store, &add(1, None)).await;
    assert_eq!((begun.generation, begun.undo_generation), (Generation(1), Generation(2)));
    assert_eq!(store.begin_operation(&add(1, None)).await.unwrap(), Begin::Known(begun.id.clone()));
    let other = NewOperation { request: json!({ "add": "bob" }), ..add(1, None) };
    assert_eq!(refusal(store.begin_operation(&other).await), reason::REQUEST_ID_REUSED);
    assert_eq!(store.operations(None, 10).await.unwrap().len(), 1);
}

async fn a_tenant_has_one_operation_at_a_time_and_higher_generations_each_time(on: On) {
    let Scratch { store, _place } = scratch(on).await;
    let first = begin(&store, &add(1, None)).await;
    let version = store.tenant(&alice()).await.unwrap().unwrap().version;
    assert_eq!(refusal(store.begin_operation(&add(2, Some(version))).await), reason::OPERATION_RUNNING);
    store.append(Append { end: Some(End), ..line(&first.id, 1, Event::End, State::Failed) }).await.unwrap();
    let second = begin(&store, &add(2, Some(version))).await;
    assert_eq!((second.generation, second.undo_generation), (Generation(3), Generation(4)));
    assert!(store.operation(&first.id).await.unwrap().ended.is_some());
    assert_eq!(store.unfinished_operations().await.unwrap().len(), 1);
}

async fn a_plan_made_on_an_older_world_is_refused_and_leaves_nothing(on: On) {
    let Scratch { store, _place } = scratch(on).await;
    let first = begin(&store, &add(1, None)).await;
    store.append(Append { end: Some(End), ..line(&first.id, 1, Event::End, State::Failed) }).await.unwrap();
    for stale in [None, Some(99)] {
        assert_eq!(refusal(store.begin_operation(&add(2, stale)).await), reason::WORLD_CHANGED);
    }
    assert_eq!(store.operations(None, 10).await.unwrap().len(), 1);
    assert_eq!(store.unfinished_operations().await.unwrap().len(), 0);
}

async fn a_log_never_forks_and_a_refused_line_changes_nothing(on: On) {
    let Scratch { store, _place } = scratch(on).await;
    let begun = begin(&store, &add(1, None)).await;
    store.append(line(&begun.id, 1, Event::Begin, State::Running)).await.unwrap();
    let fork = Append {
        tenant: Some(TenantUpdate {
            state: Some(TenantState::Active),
            ..TenantUpdate::generation(alice(), begun.generation)
        }),
        ..line(&begun.id, 1, Event::Done, State::Succeeded)
    };
    assert_eq!(refusal(store.append(fork).await), reason::WORLD_CHANGED);
    let row = store.tenant(&alice()).await.unwrap().unwrap();
    assert_eq!((row.state, row.generation), (TenantState::Adding, Generation(0)));
    assert_eq!(store.operation(&begun.id).await.unwrap().state, State::Running);
}

async fn a_stale_operation_cannot_move_a_tenant_back(on: On) {
    let Scratch { store, _place } = scratch(on).await;
    let begun = begin(&store, &add(1, None)).await;
    let place = |sequence, generation| Append {
        tenant: Some(TenantUpdate {
            server: Some("nyc".parse().unwrap()),
            ..TenantUpdate::generation(alice(), generation)
        }),
        ..line(&begun.id, sequence, Event::Done, State::Running)
    };
    store.append(place(1, begun.undo_generation)).await.unwrap();
    assert_eq!(refusal(store.append(place(2, begun.generation)).await), reason::STALE_GENERATION);
    assert_eq!(refusal(store.append(place(2, Generation(9))).await), reason::STALE_GENERATION, "never issued");
    assert_eq!(store.operation_log(&begun.id).await.unwrap().len(), 2);
}

async fn what_was_committed_is_there_after_a_reopening(on: On) {
    let place = on.place().await;
    let store = Store::open(&place.url).await.unwrap();
    join(&store, "nyc").await;
    let begun = begin(&store, &add(1, None)).await;
    store.set_setting("ingress", "nyc").await.unwrap();
    store.set_setting("ingress", "fra").await.unwrap();
    drop(store);
    let store = Store::open(&place.url).await.unwrap();
    assert_eq!(store.unfinished_operations().await.unwrap()[0].id, begun.id);
    assert_eq!(store.setting("ingress").await.unwrap().as_deref(), Some("fra"));
}

#[tokio::test]
async fn a_store_that_cannot_be_opened_says_what_to_do() {
    for (url, expected) in [
        ("sqlite:///nowhere/at/all/store.db", "does its folder exist"),
        ("postgres://me:hush@127.0.0.1:1/fleet", "is it running"),
        (&postgres::nowhere(), "createdb"),
        ("mysql://me:hush@db/fleet", "postgres://USER@HOST"),
        ("postgres://me:hush@127.0.0.1:x/fleet", "is not understood"),
    ] {
        let error = Store::open(url).await.err().expect("it opened");
        assert!(error.to_string().contains(expected), "{url}: {error}");
        let whole = format!("{error:?} {:?}", std::error::Error::source(&error));
        assert!(!whole.contains("hush"), "{whole}");
    }
}

async fn no_operation_begins_on_a_server_that_was_removed_since_its_plan(on: On) {
    let Scratch { store, _place } = scratch(on).await;
    store.remove_server(&"nyc".parse().unwrap(), now()).await.unwrap();
    assert_eq!(refusal(store.begin_operation(&add(1, None)).await), reason::SERVER_NOT_FOUND);
    assert!(store.operations(None, 10).await.unwrap().is_empty());
    join(&store, "nyc").await;
    begin(&store, &add(1, None)).await;
    let refused = refusal(store.remove_server(&"nyc".parse().unwrap(), now()).await);
    assert_eq!(refused, reason::OPERATION_RUNNING);
}

async fn an_expired_join_token_lets_nobody_in(on: On) {
    let Scratch { store, _place } = scratch(on).await;
    let member = |name: ServerName| ServerRow {
        identity: name.clone(),
        name,
        address: "ams:7443".into(),
        public_address: "ams".into(),
        key_fingerprint: "key".into(),
        joined: now(),
        upkeep: crate::upkeep::Upkeep::default(),
    };
    store.add_join_token("hash", &"ams".parse().unwrap(), now(), false).await.unwrap();
    let late = store.join("hash", member, now()).await;
    assert_eq!(refusal(late), reason::JOIN_TOKEN);
    assert_eq!(store.server(&"ams".parse().unwrap()).await.unwrap(), None);
    let in_time = store.join("hash", member, now() - time::Duration::seconds(1)).await.unwrap();
    assert_eq!(in_time.name.as_str(), "ams");
}

async fn an_address_has_one_invitation_and_another_only_in_its_place(on: On) {
    let scratch = scratch(on).await;
    let store = &scratch.store;
    let invitation = |id: u128, tenant: &str| Invitation {
        address: "ada@example.org".into(),
        tenant: tenant.parse().unwrap(),
        request_id: uuid::Uuid::from_u128(id),
        at: now(),
        operation: None,
    };
    store.note_invitation(&invitation(1, "ada"), None).await.unwrap();
    for not_it in [None, Some(uuid::Uuid::from_u128(7))] {
        let refused = store.note_invitation(&invitation(2, "ada2"), not_it).await;
        assert_eq!(refusal(refused), reason::WORLD_CHANGED);
    }
    store.note_invitation(&invitation(2, "ada2"), Some(uuid::Uuid::from_u128(1))).await.unwrap();
    let kept = store.invitation("ada@example.org").await.unwrap().unwrap();
    assert_eq!((kept.tenant.as_str(), kept.stands()), ("ada2", false));
    store.forget_invitation("ada@example.org", Some(uuid::Uuid::from_u128(1))).await.unwrap();
    assert_eq!(store.invitations().await.unwrap().len(), 1, "that was another one");
    store.forget_invitation("ada@example.org", None).await.unwrap();
    assert!(store.invitation("ada@example.org").await.unwrap().is_none());
}

async fn an_invitation_stands_as_long_as_its_addition_has_not_failed(on: On) {
    let scratch = scratch(on).await;
    let store = &scratch.store;
    let begun = begin(store, &add(1, None)).await;
    let note = Invitation {
        address: "ada@example.org".into(),
        tenant: alice(),
        request_id: uuid::Uuid::from_u128(1),
        at: now(),
        operation: None,
    };
    store.note_invitation(&note, None).await.unwrap();
    let kept = store.invitation("ada@example.org").await.unwrap().unwrap();
    assert_eq!((kept.stands(), kept.operation), (true, Some((begun.id, State::Running))));
}

fn take_in(generation: u64) -> TakeIn {
    TakeIn {
        tenant: alice(),
        server: "nyc".parse().unwrap(),
        generation: Generation(generation),
        running: false,
        created: now(),
        event: crate::events::of("alice", "tenant-taken-in", "alice was taken in on nyc".into(), now()),
    }
}

async fn a_tenant_that_is_taken_in_gets_generations_above_what_its_server_has_seen(on: On) {
    let Scratch { store, _place } = scratch(on).await;
    assert!(store.take_in(&take_in(5)).await.unwrap());
    assert!(!store.take_in(&take_in(9)).await.unwrap(), "it has the name already");
    let row = store.tenant(&alice()).await.unwrap().unwrap();
    assert_eq!((row.state, row.generation, row.generation_issued), (TenantState::Active, Generation(5), Generation(5)));
    assert_eq!((row.server.as_ref().map(|one| one.as_str()), row.running), (Some("nyc"), false));
    let begun =
        begin(&store, &NewOperation { kind: Kind::Start, tenant_state: None, ..add(1, Some(row.version)) }).await;
    assert_eq!(begun.generation, Generation(6));
    let unknown = TakeIn { server: "ber".parse().unwrap(), ..take_in(5) };
    assert_eq!(refusal(store.take_in(&unknown).await), reason::SERVER_NOT_FOUND);
}

async fn only_a_name_without_a_home_is_given_and_never_under_an_operation(on: On) {
    let Scratch { store, _place } = scratch(on).await;
    let begun = begin(&store, &add(1, None)).await;
    assert!(!store.take_in(&take_in(1)).await.unwrap(), "an add holds the name");
    let failed =
        TenantUpdate { state: Some(TenantState::Removed), ..TenantUpdate::generation(alice(), begun.undo_generation) };
    store
        .append(Append { tenant: Some(failed), end: Some(End), ..line(&begun.id, 1, Event::Done, State::Failed) })
        .await
        .unwrap();
    assert!(store.take_in(&take_in(1)).await.unwrap(), "the add failed, nobody has the name");
    let row = store.tenant(&alice()).await.unwrap().unwrap();
    assert_eq!((row.generation, row.generation_issued), (Generation(2), Generation(2)), "generations only rise");
}

async fn what_a_server_has_seen_is_never_issued_again(on: On) {
    let Scratch { store, _place } = scratch(on).await;
    let new = begin(&store, &NewOperation { floor: Generation(7), ..add(1, None) }).await;
    assert_eq!((new.generation, new.undo_generation), (Generation(8), Generation(9)));
}

fn event(subject: &str, hour: i64) -> NewEvent {
    NewEvent {
        at: now() + time::Duration::hours(hour),
        kind: "restarted".into(),
        subject: subject.into(),
        server: Some("nyc".parse().unwrap()),
        message: format!("{subject} at {hour}"),
        operation: None,
        who: None,
    }
}

async fn told(store: &Store, wanted: Wanted) -> Vec<String> {
    let rows = store.events(&wanted, 100).await.unwrap();
    rows.into_iter().filter(|row| row.event.kind == "restarted").map(|row| row.event.message).collect()
}

async fn events_are_numbered_filtered_and_gone_when_they_are_old(on: On) {
    let Scratch { store, _place } = scratch(on).await;
    for (subject, hour) in [("alice", 1), ("bob", 2), ("server/nyc", 3), ("alice", 4)] {
        store.record(&event(subject, hour)).await.unwrap();
    }
    let of = |subject: &str| Wanted { subject: subject.into(), ..Wanted::default() };
    assert_eq!(told(&store, of("alice")).await, ["alice at 1", "alice at 4"]);
    // A server is what it is about, and what it told.
    assert_eq!(told(&store, of("nyc")).await.len(), 4);
    assert_eq!(told(&store, of("server/nyc")).await, ["server/nyc at 3"]);
    let since = Some(now() + time::Duration::hours(3));
    assert_eq!(told(&store, Wanted { since, ..Wanted::default() }).await, ["server/nyc at 3", "alice at 4"]);
    let all = store.events(&Wanted::default(), 100).await.unwrap();
    // The first is nyc's joining.
    assert_eq!(all.iter().map(|row| row.id).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert_eq!(told(&store, Wanted { after: 3, ..Wanted::default() }).await.len(), 2);
    assert_eq!(store.event_before_newest(&of("alice"), 1).await.unwrap(), 4);
    assert_eq!(store.event_before_newest(&of("carol"), 1).await.unwrap(), 0);
    store.sweep_events(now() + super::events::KEPT_FOR + time::Duration::minutes(150)).await.unwrap();
    assert_eq!(told(&store, Wanted::default()).await.len(), 2);
    for (after, kept) in [(1, false), (2, false), (3, true), (5, true), (6, false)] {
        let read = store.events(&Wanted { after, ..Wanted::default() }, 1).await;
        assert_eq!(read.is_ok(), kept, "{after}");
        if let Err(error) = read {
            assert!(matches!(&error, Error::Refused(error) if error.is(reason::EVENTS_GONE)), "{error}");
        }
    }
}

async fn what_a_server_told_is_taken_in_by_one_of_those_that_read_the_same(on: On) {
    let Scratch { store, _place } = scratch(on).await;
    let nyc = "nyc".parse().unwrap();
    let first = Source { reachable: true, taken: vec![(1, 10)] };
    let second = Source { reachable: true, taken: vec![(1, 10), (2, 20)] };
    for _ in 0..2 {
        store.take_in_events(&nyc, None, &first, &[event("alice", 1)]).await.unwrap();
    }
    for _ in 0..2 {
        store.take_in_events(&nyc, Some(&first), &second, &[event("alice", 2)]).await.unwrap();
    }
    assert_eq!(told(&store, Wanted::default()).await, ["alice at 1", "alice at 2"]);
    assert_eq!(store.event_sources().await.unwrap()[&nyc], second);
}
