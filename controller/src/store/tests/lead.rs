//! One leads, and whoever led before changes nothing any more.

use std::time::Duration;

use feather_proto::error::reason;

use super::{On, add, begin, event, join, line, now, on_both, refusal};
use crate::{
    operations::{Event, State},
    store::{Stood, Store},
};

on_both!(one_leads_and_the_others_learn_where, an_old_leader_changes_nothing_and_a_new_one_goes_on,);

const LONG: Duration = Duration::from_secs(3600);

async fn stand(store: &Store, holder: &str) -> Stood {
    store.stand(holder, &format!("{holder}:7400"), LONG).await.unwrap()
}

async fn one_leads_and_the_others_learn_where(on: On) {
    let place = on.place().await;
    let (one, two) = (Store::open(&place.url).await.unwrap(), Store::open(&place.url).await.unwrap());
    assert_eq!(stand(&one, "one").await, Stood::Leads(1));
    match stand(&two, "two").await {
        Stood::Follows { leader, left } => assert!(leader == "one:7400" && left <= LONG && left > LONG / 2, "{left:?}"),
        Stood::Leads(epoch) => panic!("two lead, under {epoch}"),
    }
    assert!(one.go_on_leading(1, LONG).await.unwrap());
    one.stop_leading(1).await.unwrap();
    assert_eq!(stand(&two, "two").await, Stood::Leads(2), "it was given back");
    assert!(!one.go_on_leading(1, LONG).await.unwrap());
    one.stop_leading(1).await.unwrap();
    assert!(two.go_on_leading(2, LONG).await.unwrap(), "only one's own lead is given back");
}

async fn an_old_leader_changes_nothing_and_a_new_one_goes_on(on: On) {
    let place = on.place().await;
    let (old, new) = (Store::open(&place.url).await.unwrap(), Store::open(&place.url).await.unwrap());
    // Its time is over as soon as it begins, and it does not know that yet.
    assert_eq!(old.stand("old", "old:7400", Duration::ZERO).await.unwrap(), Stood::Leads(1));
    join(&old, "nyc").await;
    let begun = begin(&old, &add(1, None)).await;
    old.append(line(&begun.id, 1, Event::Begin, State::Running)).await.unwrap();
    assert_eq!(stand(&new, "new").await, Stood::Leads(2));

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
    assert!(!old.go_on_leading(1, LONG).await.unwrap());
    assert_eq!(new.operation_log(&begun.id).await.unwrap(), before);
    assert_eq!(new.setting("ingress").await.unwrap(), None);
    new.append(line(&begun.id, 2, Event::Done, State::Running)).await.unwrap();
    assert_eq!(old.operation_log(&begun.id).await.unwrap().len(), before.len() + 1, "it may look");
}
