//! A new name reaches every row that goes on naming the server, in one transaction, and none that tells of the past.

use feather_proto::{error::reason, ids::ServerName, tls::Principal};
use time::Duration;

use super::{
    Append, End, NewOperation, On, Scratch, TenantState, TenantUpdate, add, alice, begin, join, now, on_both, refusal,
    scratch,
};
use crate::{
    operations::{Event, State, Subject},
    placement::Bounds,
    rename::Asked,
    store::{
        SentAway, Store,
        events::{Source, Wanted},
    },
    warnings::inbox::News,
};

on_both!(
    everything_that_names_the_server_follows_and_history_does_not,
    a_name_in_a_certificate_is_nobody_elses_until_the_machine_joins_anew,
    a_dry_run_and_a_refusal_change_nothing,
    a_copy_of_a_request_changes_nothing_however_late_it_comes,
);

const ADA: Asked<'static> = Asked { by: "admin/ada", request: None };

fn name(text: &str) -> ServerName {
    text.parse().unwrap()
}

/// Alice lives on nyc, where she is pinned, and came from there once before.
async fn settled(store: &Store) {
    let begun = begin(store, &add(1, None)).await;
    let update = TenantUpdate {
        state: Some(TenantState::Active),
        server: Some(name("nyc")),
        previous_server: Some(name("nyc")),
        sent_away: Some(SentAway { home: name("nyc"), operation: begun.id.clone(), at_ms: 7 }),
        ..TenantUpdate::generation(alice(), begun.generation)
    };
    let end = Append {
        operation: &begun.id,
        sequence: 1,
        step: "end",
        event: Event::End,
        message: "",
        state: State::Succeeded,
        facts: None,
        error: None,
        hint: None,
        tenant: Some(update),
        end: Some(End),
        now: now(),
    };
    store.append(end).await.unwrap();
    let row = store.require_tenant(&alice()).await.unwrap();
    let bounds = Bounds { pin: Some(name("nyc")), ..Bounds::default() };
    store.set_bounds(&alice(), row.version, &bounds).await.unwrap();
    store.set_ingress(&name("nyc"), None, false).await.unwrap();
}

async fn everything_that_names_the_server_follows_and_history_does_not(on: On) {
    let Scratch { store, _place } = scratch(on).await;
    settled(&store).await;
    let source = Source { reachable: true, taken: vec![(1, 2)] };
    store.take_in_events(&name("nyc"), None, &source, &[]).await.unwrap();
    let warning = crate::store::warnings::WarningRow {
        id: "disk/nyc".into(),
        kind: "disk".into(),
        subject: "server/nyc".into(),
        scope: "server/nyc".into(),
        message: "little disk".into(),
        since: now(),
        raised: Some(now()),
        acknowledged: None,
    };
    store.change_warnings(&News { put: vec![warning], ..News::default() }, now()).await.unwrap();
    store.acknowledge_warning("disk/nyc", "admin/ada", "ordered", now()).await.unwrap().unwrap();
    let before = store.require_tenant(&alice()).await.unwrap();
    // As a reconciler that has read everything already.
    assert_eq!(store.tenants().await.unwrap(), std::slice::from_ref(&before));

    let later = now() + Duration::seconds(5);
    let change = store.rename_server(&name("nyc"), &name("ewr"), ADA, later).await.unwrap();
    assert_eq!((change.tenants.as_slice(), change.ingress, change.version), (&[alice()][..], true, 2));
    let members = store.servers().await.unwrap();
    let row = members.iter().find(|row| row.name == name("ewr")).unwrap();
    assert_eq!((row.identity.as_str(), row.upkeep.version, row.joined), ("nyc", 2, now()));
    assert_eq!(store.server_of(&Principal::agent("nyc")).await.unwrap().as_ref(), Some(row));
    let tenants = store.tenants().await.unwrap();
    let after = &tenants[0];
    assert_eq!((after.server.clone(), after.previous_server.clone()), (Some(name("ewr")), Some(name("ewr"))));
    assert_eq!((after.bounds.pin.clone(), after.generation), (Some(name("ewr")), before.generation));
    assert!(after.version > before.version, "a plan that was made by the old name is refused");
    assert_eq!(store.setting("ingress").await.unwrap().as_deref(), Some("ewr"));
    assert_eq!(store.sent_away(&name("ewr")).await.unwrap(), [alice()]);
    assert!(store.sent_away(&name("nyc")).await.unwrap().is_empty());
    let sources = store.event_sources().await.unwrap();
    assert_eq!((sources.get(&name("ewr")), sources.get(&name("nyc"))), (Some(&source), None));
    // Whoever looked before takes in nothing by the old name.
    store.take_in_events(&name("nyc"), None, &source, &[]).await.unwrap();
    assert!(!store.event_sources().await.unwrap().contains_key(&name("nyc")));
    let warnings = store.warnings().await.unwrap();
    assert_eq!((warnings[0].id.as_str(), warnings[0].scope.as_str()), ("disk/ewr", "server/ewr"));
    assert_eq!(warnings[0].acknowledged.as_ref().unwrap().note, "ordered");
    let told = store.events(&Wanted { subject: "ewr".into(), ..Wanted::default() }, 10).await.unwrap();
    let told: Vec<_> = told.into_iter().map(|row| (row.event.kind, row.event.who)).collect();
    assert_eq!(told, [("server-renamed".to_owned(), Some("admin/ada".to_owned()))]);
    let operations = store.operations(Some(&alice()), 10).await.unwrap();
    assert_eq!(operations[0].target, Some(name("nyc")), "it has ended");
    let again = store.rename_server(&name("nyc"), &name("ewr"), ADA, later).await.unwrap();
    assert!(again.already && store.renamings().await.unwrap().len() == 1);
}

async fn a_name_in_a_certificate_is_nobody_elses_until_the_machine_joins_anew(on: On) {
    let Scratch { store, _place } = scratch(on).await;
    store.add_join_token("unused", &name("nyc"), now() + Duration::hours(1), true).await.unwrap();
    store.rename_server(&name("nyc"), &name("ewr"), ADA, now()).await.unwrap();
    let as_member = |name: ServerName| crate::store::ServerRow {
        identity: name.clone(),
        name,
        address: "x:7443".into(),
        public_address: "x".into(),
        key_fingerprint: "another".into(),
        joined: now() + Duration::seconds(9),
        upkeep: Default::default(),
    };
    let late = store.join("unused", as_member, now()).await;
    assert_eq!(refusal(late), reason::JOIN_TOKEN, "an invitation by the old name is void");
    store.add_join_token("fresh", &name("nyc"), now() + Duration::hours(1), false).await.unwrap();
    assert_eq!(refusal(store.join("fresh", as_member, now()).await), reason::SERVER_EXISTS);
    let taken = store.rename_server(&name("ams"), &name("nyc"), ADA, now()).await;
    assert_eq!(refusal(taken), reason::SERVER_NOT_FOUND, "there is no ams");
    // It joins anew by the name that it is called by: certificates with the old one are refused.
    store.add_join_token("rejoin", &name("ewr"), now() + Duration::hours(1), true).await.unwrap();
    store.join("rejoin", as_member, now()).await.unwrap();
    let row = store.server(&name("ewr")).await.unwrap().unwrap();
    assert_eq!(row.identity, name("ewr"));
    let valid_from = (now() - crate::ca::BACKDATE).unix_timestamp();
    assert!(store.revocations().await.unwrap().refuses(&Principal::agent("nyc"), Some(valid_from)));
    store.join("fresh", as_member, now()).await.unwrap();
    assert_eq!(store.server_of(&Principal::agent("nyc")).await.unwrap().unwrap().name, name("nyc"));
    // By its name of now, whatever is in its certificate.
    store.rename_server(&name("nyc"), &name("lga"), ADA, now()).await.unwrap();
    store.remove_server(&name("lga"), now() + Duration::seconds(20)).await.unwrap();
    let later = (now() + Duration::seconds(15) - crate::ca::BACKDATE).unix_timestamp();
    let list = store.revocations().await.unwrap();
    assert!(
        list.refuses(&Principal::agent("nyc"), Some(later)) && !list.refuses(&Principal::agent("lga"), Some(later))
    );
    let told = store.events(&Wanted { subject: "lga".into(), ..Wanted::default() }, 10).await.unwrap();
    assert_eq!(told.last().unwrap().event.kind, "server-removed");
}

async fn a_dry_run_and_a_refusal_change_nothing(on: On) {
    let Scratch { store, _place } = scratch(on).await;
    settled(&store).await;
    join(&store, "fra").await;
    let world = async || {
        let rows = (store.servers().await.unwrap(), store.tenants().await.unwrap());
        (rows, store.event_before_newest(&Wanted::default(), 0).await.unwrap(), store.renamings().await.unwrap())
    };
    let before = world().await;
    let planned = store.plan_rename(&name("nyc"), &name("ewr"), now()).await.unwrap();
    assert_eq!((planned.pinned, planned.sent_away), (vec![alice()], vec![alice()]));
    store.add_join_token("open", &name("lhr"), now() + Duration::hours(1), false).await.unwrap();
    for (new, why) in [("fra", reason::SERVER_EXISTS), ("lhr", reason::WRONG_STATE)] {
        assert_eq!(refusal(store.rename_server(&name("nyc"), &name(new), ADA, now()).await), why);
    }
    assert_eq!(world().await, before);
    // When the invitation has ended, the name is free.
    let later = now() + Duration::hours(2);
    store.rename_server(&name("nyc"), &name("lhr"), ADA, later).await.unwrap();
    // A plan that was made on the old name is to be made anew; one on a server that is gone has nobody to go to.
    let planned = |target: &str| NewOperation {
        subject: Subject::Tenant("zoe".parse().unwrap()),
        target: Some(name(target)),
        ..add(9, None)
    };
    assert_eq!(refusal(store.begin_operation(&planned("nyc")).await), reason::WORLD_CHANGED);
    assert_eq!(refusal(store.begin_operation(&planned("gone")).await), reason::SERVER_NOT_FOUND);
}

async fn a_copy_of_a_request_changes_nothing_however_late_it_comes(on: On) {
    let Scratch { store, _place } = scratch(on).await;
    let asked = |number| Asked { request: Some(uuid::Uuid::from_u128(number)), ..ADA };
    let called = async || store.servers().await.unwrap()[0].name.clone();
    assert!(!store.rename_server(&name("nyc"), &name("ewr"), asked(1), now()).await.unwrap().already);
    assert!(store.rename_server(&name("nyc"), &name("ewr"), asked(1), now()).await.unwrap().already);
    store.rename_server(&name("ewr"), &name("nyc"), asked(2), now()).await.unwrap();
    let late = store.rename_server(&name("nyc"), &name("ewr"), asked(1), now()).await.unwrap();
    assert_eq!((late.already, late.version, late.identity.as_str()), (true, 3, "nyc"));
    assert_eq!((called().await, store.renamings().await.unwrap().len()), (name("nyc"), 2));
    let reused = store.rename_server(&name("nyc"), &name("lga"), asked(1), now()).await;
    assert_eq!(refusal(reused), reason::REQUEST_ID_REUSED);
    // Who has no request id is taken at their word, as ever.
    store.rename_server(&name("nyc"), &name("ewr"), ADA, now()).await.unwrap();
    assert_eq!(called().await, name("ewr"));
    store.remove_server(&name("ewr"), now()).await.unwrap();
    let gone = store.rename_server(&name("ewr"), &name("nyc"), asked(2), now()).await;
    assert_eq!(refusal(gone), reason::SERVER_NOT_FOUND);
}
