//! One leads, and whoever led before changes nothing any more.

use std::time::Duration;

use feather_proto::error::reason;

use super::{On, add, begin, event, join, line, now, on_both, postgres, refusal};
use crate::{
    operations::{Event, State},
    store::{Stood, Store},
};

on_both!(
    one_leads_and_the_others_learn_where,
    an_old_leader_changes_nothing_and_a_new_one_goes_on,
    whoever_has_a_store_alone_leads_at_once_under_a_higher_number,
);

const LONG: Duration = Duration::from_secs(3600);

async fn stand(store: &Store, holder: &str) -> Stood {
    store.stand(holder, &format!("{holder}:7400"), LONG).await.unwrap()
}

fn leads(stood: Stood) -> i64 {
    match stood {
        Stood::Leads(epoch) => epoch,
        Stood::Follows { leader, .. } => panic!("{leader} leads"),
    }
}

async fn one_leads_and_the_others_learn_where(on: On) {
    let place = on.place().await;
    let (one, two) = (Store::open(&place.url).await.unwrap(), Store::open(&place.url).await.unwrap());
    let first = leads(stand(&one, "one").await);
    assert!(first > now().unix_timestamp(), "by the clock: that of a store which was lost since is lower");
    match stand(&two, "two").await {
        Stood::Follows { leader, left } => assert!(leader == "one:7400" && left <= LONG && left > LONG / 2, "{left:?}"),
        Stood::Leads(epoch) => panic!("two lead, under {epoch}"),
    }
    assert!(one.go_on_leading(first, LONG).await.unwrap());
    one.stop_leading(first).await.unwrap();
    let second = leads(stand(&two, "two").await);
    assert!(second > first, "it was given back");
    assert!(!one.go_on_leading(first, LONG).await.unwrap());
    one.stop_leading(first).await.unwrap();
    assert!(two.go_on_leading(second, LONG).await.unwrap(), "only one's own lead is given back");
}

async fn an_old_leader_changes_nothing_and_a_new_one_goes_on(on: On) {
    let place = on.place().await;
    let (old, new) = (Store::open(&place.url).await.unwrap(), Store::open(&place.url).await.unwrap());
    // Its time is over as soon as it begins, and it does not know that yet.
    let first = leads(old.stand("old", "old:7400", Duration::ZERO).await.unwrap());
    join(&old, "nyc").await;
    let begun = begin(&old, &add(1, None)).await;
    old.append(line(&begun.id, 1, Event::Begin, State::Running)).await.unwrap();
    assert!(leads(stand(&new, "new").await) > first);

    let before = new.operation_log(&begun.id).await.unwrap();
    for refused in [
        old.append(line(&begun.id, 2, Event::Done, State::Running)).await,
        old.begin_operation(&add(2, None)).await.map(drop),
        old.remove_server(&"nyc".parse().unwrap(), now()).await,
        old.set_setting("ingress", "nyc").await,
        old.record(&event("alice", 1)).await,
        old.clone().keep_sealed("key", "text").await,
    ] {
        assert_eq!(refusal(refused), reason::NOT_LEADER);
    }
    assert!(!old.go_on_leading(first, LONG).await.unwrap());
    assert_eq!(new.operation_log(&begun.id).await.unwrap(), before);
    assert_eq!(new.setting("ingress").await.unwrap(), None);
    new.append(line(&begun.id, 2, Event::Done, State::Running)).await.unwrap();
    assert_eq!(old.operation_log(&begun.id).await.unwrap().len(), before.len() + 1, "it may look");
}

async fn whoever_has_a_store_alone_leads_at_once_under_a_higher_number(on: On) {
    let place = on.place().await;
    let (old, new) = (Store::open(&place.url).await.unwrap(), Store::open(&place.url).await.unwrap());
    let first = old.lead_alone().await.unwrap();
    let second = new.lead_alone().await.unwrap();
    assert!(second > first && first > now().unix_timestamp());
    assert_eq!((old.epoch().get(), new.epoch().get()), (Some(first), Some(second)));
    assert_eq!(refusal(old.set_setting("ingress", "nyc").await), reason::NOT_LEADER);
    new.set_setting("ingress", "fra").await.unwrap();
}

#[tokio::test]
async fn a_schema_is_not_changed_under_a_controller_that_leads() {
    let url = postgres::database().await;
    let old = Store::open(&url).await.unwrap();
    let epoch = leads(stand(&old, "old").await);
    // As if this version had one more change of the schema than the one that leads.
    let newest = "DELETE FROM _sqlx_migrations WHERE version = (SELECT MAX(version) FROM _sqlx_migrations)";
    sqlx::query(newest).execute(&old.pool).await.unwrap();
    let mut opening = std::pin::pin!(Store::open(&url));
    assert!(tokio::time::timeout(Duration::from_secs(1), &mut opening).await.is_err(), "it waits");
    old.stop_leading(epoch).await.unwrap();
    // That change is there already, so it fails; what counts is that it was tried.
    assert!(opening.await.is_err());
}
