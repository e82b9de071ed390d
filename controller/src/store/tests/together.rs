//! Several controllers write to one store at the same time, and each of them decides on what is still true when its write is.

use std::future::Future;

use feather_proto::{
    error::reason,
    ids::{Generation, OperationId, ServerName, TenantName},
};
use futures::future::join_all;
use time::Duration;

use super::{On, add, alice, join, now, on_both, take_in};
use crate::{
    operations::Subject,
    store::{Begin, Error, NewOperation, Store, TakeIn, TenantState},
};

on_both!(
    one_request_id_begins_one_operation_wherever_it_arrives,
    one_of_many_takes_hold_of_a_tenant_and_the_others_are_told_who,
    those_that_have_nothing_to_do_with_each_other_all_get_through,
    a_server_is_removed_or_used_and_never_both,
    a_tenant_is_taken_in_once,
    one_of_many_gets_the_right_to_change_a_zone,
    snapshots_of_a_zone_have_a_number_each,
    events_have_numbers_without_gaps_that_rise_as_they_become_visible,
);

const CONTROLLERS: usize = 3;
const CALLS: u128 = 12;

/// Calls on several handles at once, each with its number.
async fn all<T, F: Future<Output = T>>(stores: &[Store], call: impl Fn(Store, u128) -> F) -> Vec<T> {
    let handles = stores.iter().cloned().cycle();
    join_all((1..=CALLS).zip(handles).map(|(number, store)| call(store, number))).await
}

async fn controllers(on: On) -> (Vec<Store>, super::Place) {
    let place = on.place().await;
    // At the same time: they bring the schema up to date one after the other.
    let stores: Vec<_> = match on {
        On::Postgres => join_all((0..CONTROLLERS).map(|_| Store::open(&place.url))).await,
        // One file has one controller; here only its writes are of interest.
        On::Sqlite => {
            let mut stores = Vec::new();
            for _ in 0..CONTROLLERS {
                stores.push(Store::open(&place.url).await);
            }
            stores
        }
    };
    let stores: Vec<_> = stores.into_iter().map(Result::unwrap).collect();
    join(&stores[0], "nyc").await;
    (stores, place)
}

fn reasons<T: std::fmt::Debug>(results: Vec<Result<T, Error>>) -> (Vec<T>, Vec<String>) {
    let (mut done, mut refused) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(value) => done.push(value),
            Err(Error::Refused(error)) => refused.push(error.reason),
            Err(other) => panic!("neither done nor refused: {other:?}"),
        }
    }
    (done, refused)
}

async fn one_request_id_begins_one_operation_wherever_it_arrives(on: On) {
    let (stores, _place) = controllers(on).await;
    // The same request with an id of its own each time: whoever plans does not know yet that it was planned before.
    let begin = async |store: Store, number: u128| {
        let id = OperationId::from_uuid(uuid::Uuid::from_u128(number));
        store.begin_operation(&NewOperation { id, ..add(1, None) }).await
    };
    let (done, refused) = reasons(all(&stores, begin).await);
    assert_eq!(refused, [] as [&str; 0]);
    let new = done.iter().filter(|one| matches!(one, Begin::New(_))).count();
    assert_eq!(new, 1, "{done:?}");
    assert_eq!(stores[0].operations(None, 100).await.unwrap().len(), 1);
}

async fn one_of_many_takes_hold_of_a_tenant_and_the_others_are_told_who(on: On) {
    let (stores, _place) = controllers(on).await;
    let begin = async |store: Store, number: u128| store.begin_operation(&add(number, None)).await;
    let (done, refused) = reasons(all(&stores, begin).await);
    assert_eq!(done.len(), 1, "{done:?}");
    assert!(refused.iter().all(|reason| reason == reason::OPERATION_RUNNING), "{refused:?}");
    assert_eq!(stores[0].unfinished_operations().await.unwrap().len(), 1);
}

async fn those_that_have_nothing_to_do_with_each_other_all_get_through(on: On) {
    let (stores, _place) = controllers(on).await;
    let begin = async |store: Store, number: u128| {
        let subject = Subject::Tenant(format!("tenant{number}").parse().unwrap());
        store.begin_operation(&NewOperation { subject, ..add(number, None) }).await
    };
    let (done, refused) = reasons(all(&stores, begin).await);
    assert_eq!((done.len(), refused.len()), (CALLS.try_into().unwrap(), 0), "{refused:?}");
}

async fn a_server_is_removed_or_used_and_never_both(on: On) {
    let (stores, _place) = controllers(on).await;
    for round in 0..4_u128 {
        let server: ServerName = format!("s{round}").parse().unwrap();
        join(&stores[0], server.as_str()).await;
        let tenant: TenantName = format!("t{round}").parse().unwrap();
        let new = NewOperation {
            target: Some(server.clone()),
            subject: Subject::Tenant(tenant.clone()),
            ..add(100 + round, None)
        };
        let (begun, removed) = futures::join!(stores[0].begin_operation(&new), stores[1].remove_server(&server, now()));
        assert!(begun.is_ok() != removed.is_ok(), "{begun:?} {removed:?}");
        assert_eq!(stores[2].server(&server).await.unwrap().is_some(), begun.is_ok());
        assert_eq!(stores[2].tenant(&tenant).await.unwrap().is_some(), begun.is_ok());
    }
}

async fn a_tenant_is_taken_in_once(on: On) {
    let (stores, _place) = controllers(on).await;
    let take = async |store: Store, number: u128| {
        store.take_in(&TakeIn { generation: Generation(u64::try_from(number).unwrap()), ..take_in(1) }).await
    };
    let (done, refused) = reasons(all(&stores, take).await);
    assert_eq!((done.iter().filter(|taken| **taken).count(), refused.len()), (1, 0));
    let row = stores[0].tenant(&alice()).await.unwrap().unwrap();
    assert_eq!((row.state, row.version), (TenantState::Active, 1));
}

async fn one_of_many_gets_the_right_to_change_a_zone(on: On) {
    let (stores, _place) = controllers(on).await;
    let lease = async |store: Store, number: u128| {
        store.lease_dns("memory/example.com", &format!("holder-{number}"), now(), Duration::minutes(2)).await
    };
    let (done, refused) = reasons(all(&stores, lease).await);
    assert_eq!(done.iter().map(|lease| lease.epoch).collect::<Vec<_>>(), [1]);
    assert!(refused.iter().all(|reason| reason == reason::DNS_LEASE), "{refused:?}");
}

async fn snapshots_of_a_zone_have_a_number_each(on: On) {
    let (stores, _place) = controllers(on).await;
    let keep = async |store: Store, _| store.add_dns_snapshot("memory/example.com", now(), "change", "[]", 100).await;
    let (mut done, refused) = reasons(all(&stores, keep).await);
    done.sort_unstable();
    assert_eq!(refused, [] as [&str; 0]);
    assert_eq!(done, (1..=i64::try_from(CALLS).unwrap()).collect::<Vec<_>>());
}

async fn events_have_numbers_without_gaps_that_rise_as_they_become_visible(on: On) {
    let (stores, _place) = controllers(on).await;
    let reader = stores[0].clone();
    let write = async |store: Store, number: u128| {
        store.record(&super::event("alice", i64::try_from(number).unwrap())).await.unwrap();
        // Whatever is visible now has nothing missing before it.
        let seen = reader.events(&super::Wanted::default(), 100).await.unwrap();
        let ids: Vec<i64> = seen.iter().map(|row| row.id).collect();
        assert_eq!(ids, (1..=i64::try_from(ids.len()).unwrap()).collect::<Vec<_>>());
        ids.len()
    };
    let seen = all(&stores, write).await;
    // And the first one is nyc's joining.
    assert_eq!(seen.into_iter().max(), Some(usize::try_from(CALLS).unwrap() + 1));
}
