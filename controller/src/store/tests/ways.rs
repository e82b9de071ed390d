//! Who was sent away, parts of operations, and stores from before either.

use serde_json::json;

use super::{On, Scratch, add, alice, begin, join, line, on_both, refusal, scratch};
use crate::{
    operations::{Event, Kind, State, Subject},
    store::{Append, Begun, End, NewOperation, SentAway, Store, TenantState, TenantUpdate},
};
use feather_proto::{error::reason, ids::OperationId, limits::Limits};

on_both!(
    a_part_begins_only_while_its_whole_runs,
    two_drains_of_one_server_exclude_each_other_and_a_swap_does_not_matter,
    whoever_comes_home_has_left_the_refuges_on_the_way_and_whoever_is_removed_is_nowhere,
    a_store_from_before_cordons_and_bounds_opens_with_none,
);

fn drain() -> NewOperation {
    NewOperation {
        kind: Kind::Drain,
        subject: Subject::Residents("nyc".parse().unwrap()),
        source: Some("nyc".parse().unwrap()),
        target: None,
        tenant_state: None,
        request: json!({ "drain": "nyc" }),
        ..add(7, None)
    }
}

fn part(number: u128, whole: &Begun) -> NewOperation {
    NewOperation { parent: Some(whole.id.clone()), ..add(number, None) }
}

async fn a_part_begins_only_while_its_whole_runs(on: On) {
    let Scratch { store, _place } = scratch(on).await;
    let whole = begin(&store, &drain()).await;
    let begun = begin(&store, &part(1, &whole)).await;
    let children = store.children(&whole.id).await.unwrap();
    assert_eq!(
        children.iter().map(|one| (&one.id, one.parent.as_ref())).collect::<Vec<_>>(),
        [(&begun.id, Some(&whole.id))]
    );
    store.append(Append { end: Some(End), ..line(&begun.id, 1, Event::End, State::Failed) }).await.unwrap();
    let version = store.tenant(&alice()).await.unwrap().unwrap().version;
    store.append(line(&whole.id, 1, Event::CancelRequested, State::Undoing)).await.unwrap();
    let late = NewOperation { parent: Some(whole.id.clone()), ..add(2, Some(version)) };
    assert_eq!(refusal(store.begin_operation(&late).await), reason::CANCELLED);
    assert_eq!(store.children(&whole.id).await.unwrap().len(), 1);
}

async fn two_drains_of_one_server_exclude_each_other_and_a_swap_does_not_matter(on: On) {
    let Scratch { store, _place } = scratch(on).await;
    begin(&store, &drain()).await;
    let second = NewOperation { request: json!({ "return": "nyc" }), kind: Kind::Return, ..drain() };
    let second = NewOperation {
        id: OperationId::from_uuid(uuid::Uuid::from_u128(8)),
        request_id: uuid::Uuid::from_u128(8),
        ..second
    };
    assert_eq!(refusal(store.begin_operation(&second).await), reason::OPERATION_RUNNING);
    let swap = NewOperation { kind: Kind::Swap, subject: Subject::Server("nyc".parse().unwrap()), ..second };
    begin(&store, &swap).await;
}

/// Alice lives there from now on; sent away from her home by a drain, if one is named.
async fn lives(store: &Store, begun: &Begun, sequence: i64, server: &str, away: Option<(&str, i64)>) {
    let sent_away =
        away.map(|(home, at_ms)| SentAway { home: home.parse().unwrap(), operation: begun.id.clone(), at_ms });
    let tenant = TenantUpdate {
        state: Some(TenantState::Active),
        server: Some(server.parse().unwrap()),
        sent_away,
        ..TenantUpdate::generation(alice(), begun.generation)
    };
    let append = Append { tenant: Some(tenant), ..line(&begun.id, sequence, Event::Done, State::Running) };
    store.append(append).await.unwrap();
}

async fn away_from(store: &Store, server: &str) -> usize {
    store.sent_away(&server.parse().unwrap()).await.unwrap().len()
}

async fn whoever_comes_home_has_left_the_refuges_on_the_way_and_whoever_is_removed_is_nowhere(on: On) {
    let Scratch { store, _place } = scratch(on).await;
    for server in ["fra", "ams"] {
        join(&store, server).await;
    }
    let begun = begin(&store, &add(1, None)).await;
    lives(&store, &begun, 1, "fra", Some(("nyc", 10))).await;
    lives(&store, &begun, 2, "ams", Some(("fra", 20))).await;
    assert_eq!((away_from(&store, "nyc").await, away_from(&store, "fra").await), (1, 1));
    // Back at the refuge: home is still where it was.
    lives(&store, &begun, 3, "fra", None).await;
    assert_eq!((away_from(&store, "nyc").await, away_from(&store, "fra").await), (1, 0));
    lives(&store, &begun, 4, "ams", Some(("fra", 30))).await;
    lives(&store, &begun, 5, "nyc", None).await;
    assert_eq!((away_from(&store, "nyc").await, away_from(&store, "fra").await), (0, 0));
    lives(&store, &begun, 6, "fra", Some(("nyc", 40))).await;
    let removed =
        TenantUpdate { state: Some(TenantState::Removed), ..TenantUpdate::generation(alice(), begun.generation) };
    store.append(Append { tenant: Some(removed), ..line(&begun.id, 7, Event::Done, State::Running) }).await.unwrap();
    assert_eq!(away_from(&store, "nyc").await, 0);
}

async fn a_store_from_before_cordons_and_bounds_opens_with_none(on: On) {
    let place = on.place().await;
    sqlx::any::install_default_drivers();
    let url = match on {
        On::Sqlite => format!("{}?mode=rwc", place.url),
        On::Postgres => place.url.clone(),
    };
    let pool = sqlx::AnyPool::connect(&url).await.unwrap();
    let all = sqlx::migrate!("./migrations");
    let before = all.iter().filter(|one| one.version < 60).cloned().collect::<Vec<_>>();
    sqlx::migrate::Migrator::with_migrations(before).run(&pool).await.unwrap();
    for row in [
        "INSERT INTO servers (name, address, public_address, key_fingerprint, joined_ms) VALUES ('nyc', 'nyc:7443', 'nyc', 'k', 1)",
        "INSERT INTO tenants (name, state, server, generation, generation_issued, running, created_ms, version) \
         VALUES ('alice', 'active', 'nyc', 1, 2, 1, 1, 3)",
        "INSERT INTO operations (id, request_id, request, kind, subject, state, plan, facts, requested_by, created_ms) \
         VALUES ('op-00000000-0000-0000-0000-000000000001', '1', '{}', 'add', 'alice', 'running', '{}', '{}', 'admin/ann', 1)",
    ] {
        sqlx::query(row).execute(&pool).await.unwrap();
    }
    pool.close().await;
    let store = Store::open(&place.url).await.unwrap();
    let server = store.server(&"nyc".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(server.upkeep, crate::upkeep::Upkeep::default());
    let row = store.tenant(&alice()).await.unwrap().unwrap();
    assert!(row.bounds.is_empty() && !row.limits.is_said() && row.version == 3, "{row:?}");
    let limits = Limits { memory_bytes: Some(1 << 30), revision: 1, ..Limits::default() };
    store.set_limits(&alice(), 3, &limits).await.unwrap();
    assert_eq!(refusal(store.set_limits(&alice(), 3, &limits).await), reason::WORLD_CHANGED);
    assert_eq!(store.limited_tenants().await.unwrap().iter().map(|row| row.limits).collect::<Vec<_>>(), [limits]);
    assert_eq!(store.unfinished_operations().await.unwrap()[0].parent, None);
    let edited = crate::upkeep::Upkeep { cordoned: true, version: 2, ..server.upkeep };
    store.set_upkeep(&"nyc".parse().unwrap(), 1, &edited).await.unwrap();
    assert_eq!(refusal(store.set_upkeep(&"nyc".parse().unwrap(), 1, &edited).await), reason::WORLD_CHANGED);
}
