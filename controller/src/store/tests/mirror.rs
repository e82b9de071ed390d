//! What is kept in memory of tenants and members is what the database says.

use std::time::Duration;

use super::{On, join, on_both, take_in};
use crate::store::Store;

on_both!(what_somebody_puts_right_by_hand_is_seen_within_a_minute);

async fn what_somebody_puts_right_by_hand_is_seen_within_a_minute(on: On) {
    let place = on.place().await;
    let store = Store::open(&place.url).await.unwrap();
    for server in ["fra", "nyc"] {
        join(&store, server).await;
    }
    assert!(store.take_in(&take_in(5)).await.unwrap());
    let seen = async || {
        let tenants = store.tenants().await.unwrap();
        let servers = store.servers().await.unwrap();
        (tenants[0].server.clone().unwrap().to_string(), servers[1].public_address.clone())
    };
    let before = seen().await;
    // As a runbook would have it: whoever writes rows by hand thinks of no revision.
    for text in ["UPDATE tenants SET server = 'fra'", "UPDATE servers SET public_address = '192.0.2.99'"] {
        sqlx::query(text).execute(&store.pool).await.unwrap();
    }
    assert_eq!(seen().await, before, "known, and nobody said that it changed");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(60)).await;
    tokio::time::resume();
    assert_eq!(seen().await, ("fra".to_owned(), "192.0.2.99".to_owned()));
}
