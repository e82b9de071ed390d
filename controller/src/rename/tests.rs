//! What stands in the way of a new name, what follows it, and what names of an earlier time mean.

use feather_proto::{
    error::reason,
    ids::{Generation, OperationId, ServerName, TenantName},
};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use super::{Change, Facts, Renaming, called_now, not_found, plan, today, warning};
use crate::{
    operations::{Kind, State, Subject},
    placement::Bounds,
    store::{OperationRow, ServerRow, TenantRow, TenantState},
    upkeep::Upkeep,
    warnings::{Kind as Condition, conditions::is_about_servers},
};

fn name(text: &str) -> ServerName {
    text.parse().unwrap()
}

fn at(second: i64) -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + Duration::seconds(second)
}

fn member(called: &str, identity: &str) -> ServerRow {
    ServerRow {
        name: name(called),
        identity: name(identity),
        address: format!("{identity}:7443"),
        public_address: identity.into(),
        key_fingerprint: String::new(),
        joined: at(0),
        upkeep: Upkeep::default(),
    }
}

fn tenant(called: &str, server: Option<&str>, state: TenantState) -> TenantRow {
    TenantRow {
        name: called.parse().unwrap(),
        state,
        server: server.map(name),
        previous_server: None,
        generation: Generation(1),
        generation_issued: Generation(2),
        running: true,
        created: at(0),
        version: 1,
        bounds: Bounds::default(),
        limits: Default::default(),
    }
}

fn pinned(row: TenantRow, to: &str) -> TenantRow {
    TenantRow { bounds: Bounds { pin: Some(name(to)), ..row.bounds }, ..row }
}

fn operation(subject: &str, plan: Value) -> OperationRow {
    OperationRow {
        id: OperationId::from_uuid(uuid::Uuid::from_u128(1)),
        kind: Kind::Drain,
        subject: subject.parse::<Subject>().unwrap(),
        source: None,
        target: None,
        state: State::Running,
        plan,
        facts: json!({}),
        requested_by: "admin/admin".into(),
        trace: None,
        error: None,
        hint: None,
        created: at(0),
        ended: None,
        parent: None,
    }
}

fn facts() -> Facts {
    let alice = TenantRow { previous_server: Some(name("fra")), ..tenant("alice", Some("nyc"), TenantState::Active) };
    let bob = TenantRow { previous_server: Some(name("nyc")), ..tenant("bob", Some("fra"), TenantState::Active) };
    let tenants = vec![
        alice,
        bob,
        pinned(tenant("carol", Some("nyc"), TenantState::Active), "nyc"),
        pinned(tenant("dora", Some("fra"), TenantState::Active), "fra"),
        tenant("eve", Some("nyc"), TenantState::Removed),
        tenant("frank", None, TenantState::Removed),
    ];
    Facts {
        members: vec![member("nyc", "nyc"), member("fra", "fra"), member("lhr", "lon")],
        tenants,
        ingress: Some("nyc".into()),
        former_ingresses: [name("fra")].into(),
        sent_away: vec!["bob".parse().unwrap()],
        ..Facts::default()
    }
}

fn names(of: &[&str]) -> Vec<TenantName> {
    of.iter().map(|one| one.parse().unwrap()).collect()
}

fn renaming(old: &str, new: &str, second: i64) -> Renaming {
    Renaming { old: name(old), new: name(new), at: at(second) }
}

#[test]
fn a_plan_names_everything_that_follows() {
    let change = plan(&name("nyc"), &name("ewr"), &facts()).unwrap();
    let wanted = Change {
        already: false,
        identity: "nyc".into(),
        tenants: names(&["alice", "carol"]),
        kept: names(&["eve"]),
        pinned: names(&["carol"]),
        moved_away: names(&["bob"]),
        sent_away: names(&["bob"]),
        ingress: true,
        former_ingress: false,
        version: 2,
    };
    assert_eq!(change, wanted);
    // Its own old name is free for it, and for nobody else.
    assert!(plan(&name("lhr"), &name("lon"), &facts()).is_ok());
}

#[test]
fn who_has_the_name_in_any_way_keeps_it() {
    type Spoil = fn(&mut Facts);
    let cases: [(&str, Spoil, &str, &str); 9] = [
        ("fra", |_| (), reason::SERVER_EXISTS, "a member already"),
        ("lon", |_| (), reason::SERVER_EXISTS, "is called lhr now"),
        ("ewr", |facts| facts.invited_until = Some(at(60)), reason::WRONG_STATE, "invited to join as ewr"),
        (
            "ewr",
            |facts| facts.tenants.push(tenant("zoe", Some("ewr"), TenantState::Active)),
            reason::WRONG_STATE,
            "zoe lived there",
        ),
        (
            "ewr",
            |facts| facts.tenants.push(pinned(tenant("zoe", Some("fra"), TenantState::Active), "ewr")),
            reason::WRONG_STATE,
            "tenant place zoe --anywhere",
        ),
        (
            "ewr",
            |facts| facts.running.push(operation("residents/nyc", json!({}))),
            reason::OPERATION_RUNNING,
            "operation watch",
        ),
        (
            "ewr",
            |facts| facts.running.push(operation("alice", json!({}))),
            reason::OPERATION_RUNNING,
            "drain of alice has not ended",
        ),
        (
            "ewr",
            |facts| facts.running.push(operation("residents/fra", json!({ "to": ["x", { "y": "nyc" }] }))),
            reason::OPERATION_RUNNING,
            "names nyc or ewr",
        ),
        (
            "ewr",
            |facts| facts.running.push(OperationRow { target: Some(name("ewr")), ..operation("bob", json!({})) }),
            reason::OPERATION_RUNNING,
            "names nyc or ewr",
        ),
    ];
    for (new, spoil, reason, words) in cases {
        let mut facts = facts();
        spoil(&mut facts);
        let error = plan(&name("nyc"), &name(new), &facts).unwrap_err();
        assert!(error.is(reason) && error.message.contains(words), "{new} {words}: {error:?}");
    }
    // One that is about others alone is in nobody's way.
    let mut facts = facts();
    facts.running.push(operation("residents/fra", json!({ "server": "fra", "told": "nycx" })));
    assert!(plan(&name("nyc"), &name("ewr"), &facts).is_ok());
}

#[test]
fn what_was_done_is_not_done_again_and_what_never_was_is_not_taken_for_it() {
    let mut facts = facts();
    facts.members[0] = member("ewr", "nyc");
    let again = |facts: &Facts| plan(&name("nyc"), &name("ewr"), facts);
    assert!(again(&facts).unwrap_err().is(reason::SERVER_NOT_FOUND), "nobody renamed it");
    facts.renamings = vec![renaming("nyc", "ewr", 1)];
    let change = again(&facts).unwrap();
    assert_eq!(change, Change { already: true, identity: "nyc".into(), version: 1, ..Change::default() });
    assert!(plan(&name("ewr"), &name("ewr"), &facts).unwrap().already);
    facts.renamings.push(renaming("ewr", "nyc", 2));
    assert!(again(&facts).unwrap_err().is(reason::SERVER_NOT_FOUND), "since then it was called otherwise");
}

#[test]
fn a_name_of_an_earlier_time_is_followed_to_what_it_is_now() {
    let renamings = [renaming("nyc", "ewr", 10), renaming("fra", "nyc", 20), renaming("ewr", "lhr", 30)];
    let cases = [
        ("nyc", 5, Some("lhr")),
        // It was another machine, and no member any more when fra became nyc.
        ("nyc", 15, None),
        ("nyc", 25, Some("nyc")),
        ("fra", 5, Some("nyc")),
        ("ewr", 15, Some("lhr")),
        ("ewr", 35, Some("ewr")),
        ("lhr", 5, None),
    ];
    for (called, then, now) in cases {
        assert_eq!(called_now(&name(called), at(then), &renamings), now.map(name), "{called} at {then}");
    }
    let row = OperationRow { source: Some(name("nyc")), created: at(5), ..operation("alice", json!({})) };
    let row = today(row, &renamings);
    assert_eq!((row.source, row.target), (Some(name("lhr")), None));
    let gone = OperationRow { source: Some(name("nyc")), created: at(15), ..operation("alice", json!({})) };
    assert_eq!(today(gone, &renamings).source, None, "what it left behind is not on the server of that name");
}

#[test]
fn a_request_that_was_carried_out_is_over_whatever_came_after_it() {
    let renamings = vec![renaming("nyc", "ewr", 10), renaming("ewr", "nyc", 10), renaming("nyc", "lga", 10)];
    let after = |done, called: &str| {
        let members = vec![member(called, "nyc")];
        plan(&name("nyc"), &name("ewr"), &Facts { members, renamings: renamings.clone(), done, ..Facts::default() })
    };
    assert_eq!(
        after(Some(0), "lga").unwrap(),
        Change { already: true, identity: "nyc".into(), version: 1, ..Change::default() }
    );
    // Another machine has the name by now.
    assert!(after(Some(0), "nyc").unwrap_err().is(reason::SERVER_NOT_FOUND));
    assert!(after(Some(2), "lga").unwrap_err().is(reason::REQUEST_ID_REUSED));
    assert!(!after(None, "nyc").unwrap().already);
}

#[test]
fn who_types_a_former_name_is_told_what_its_server_is_called_now() {
    let said = |typed: &str, members: &[(&str, i64)], renamings: &[Renaming]| {
        let member = |(called, joined): &(&str, i64)| ServerRow { joined: at(*joined), ..member(called, called) };
        let members: Vec<_> = members.iter().map(member).collect();
        let error = not_found(&name(typed), &members, renamings);
        assert!(error.is(reason::SERVER_NOT_FOUND) && error.metadata["server"] == typed, "{error:?}");
        assert!(
            error
                .metadata
                .get("called")
                .is_none_or(|called| error.message.ends_with(&format!("is called {called} now")))
        );
        error.metadata.get("called").cloned()
    };
    let some = |called: &str| Some(called.to_owned());
    let twice = [renaming("nyc", "ewr", 10), renaming("ewr", "lhr", 20)];
    assert_eq!(said("nyc", &[("lhr", 5)], &twice), some("lhr"));
    assert_eq!(said("ewr", &[("lhr", 5)], &twice), some("lhr"));
    assert_eq!(said("ams", &[("lhr", 5)], &twice), None, "nobody was called so");
    assert_eq!(said("nyc", &[], &twice), None, "it is out of the fleet");
    assert_eq!(said("nyc", &[("lhr", 30)], &twice), None, "another one joined as lhr since");
    // Two had the name: the second one is meant, and it is gone.
    let two = [renaming("nyc", "ewr", 10), renaming("fra", "nyc", 20), renaming("nyc", "muc", 20)];
    assert_eq!(said("nyc", &[("ewr", 5), ("muc", 5)], &two), some("muc"));
    assert_eq!(said("nyc", &[("ewr", 5)], &two), None);
    // It got its first name back.
    let back = [renaming("nyc", "ewr", 10), renaming("ewr", "nyc", 20)];
    assert_eq!((said("ewr", &[("nyc", 5)], &back), said("nyc", &[], &back)), (some("nyc"), None));
}

#[test]
fn warnings_about_the_server_follow_and_those_about_a_tenant_of_its_name_do_not() {
    let moved = |id: &str, subject: &str, scope: &str| {
        let about = is_about_servers(id.split('/').next().unwrap());
        warning((id, subject, scope), about, &name("nyc"), &name("ewr"))
    };
    let some = |id: &str, subject: &str, scope: &str| Some((id.to_owned(), subject.to_owned(), scope.to_owned()));
    assert_eq!(moved("disk/nyc", "server/nyc", "server/nyc"), some("disk/ewr", "server/ewr", "server/ewr"));
    assert_eq!(
        moved("problem/nyc/ab12", "server/nyc", "server/nyc"),
        some("problem/ewr/ab12", "server/ewr", "server/ewr")
    );
    assert_eq!(moved("forward/nyc/nyc", "nyc", "server/nyc"), some("forward/ewr/nyc", "nyc", "server/ewr"));
    assert_eq!(moved("broken/nyc", "nyc", "server/nyc"), some("broken/nyc", "nyc", "server/ewr"));
    assert_eq!(moved("broken/nyc", "nyc", "server/fra"), None);
    assert_eq!(moved("dns-address/nyc", "dns", "zone"), some("dns-address/ewr", "dns", "zone"));
    assert_eq!(moved("dns-name/nyc", "nyc", "authorities"), None);
    assert!(is_about_servers(Condition::Clock.word()) && !is_about_servers(Condition::Stuck.word()));
}
