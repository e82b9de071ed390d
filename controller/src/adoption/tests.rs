use std::collections::{BTreeMap, BTreeSet};

use feather_proto::{
    adoption::{Action, Finding},
    ids::{Generation, ServerName},
    model::{ContainerState, Residence, ServerSnapshot, TenantReport},
};
use time::OffsetDateTime;

use super::{Claim, Names, conflicts, judge, of_ledger, unknown};
use crate::{
    fleet::{Observed, Reachability},
    store::{TenantRow, TenantState},
};

fn server(name: &str) -> ServerName {
    name.parse().unwrap()
}

fn row(state: TenantState, home: Option<&str>) -> TenantRow {
    TenantRow {
        name: "alice".parse().unwrap(),
        state,
        server: home.map(server),
        previous_server: None,
        generation: Generation(7),
        generation_issued: Generation(8),
        running: true,
        created: OffsetDateTime::UNIX_EPOCH,
        version: 1,
        bounds: crate::placement::Bounds::default(),
        limits: Default::default(),
    }
}

fn report(residence: Residence) -> TenantReport {
    TenantReport {
        container: ContainerState::Running,
        port: Some(9001),
        ..TenantReport::bare("alice".parse().unwrap(), Generation(1), residence)
    }
}

fn snapshot(name: &str, tenants: Vec<TenantReport>) -> ServerSnapshot {
    ServerSnapshot { tenants, ..ServerSnapshot::empty(server(name)) }
}

fn observed(residences: &[(&str, Residence)]) -> BTreeMap<ServerName, Observed> {
    let one = |(name, residence): &(&str, Residence)| {
        let snapshot = Some(snapshot(name, vec![report(*residence)]).into());
        (server(name), Observed { snapshot, last_seen: None, reachability: Reachability::Alive })
    };
    residences.iter().map(one).collect()
}

/// Whom nyc's alice is to the fleet, by the store's row and whether an operation holds her.
fn table() -> Vec<(Option<TenantRow>, bool, &'static str)> {
    vec![
        (None, false, "free"),
        (Some(row(TenantState::Removed, None)), false, "free"),
        (Some(row(TenantState::Removed, None)), true, "busy"),
        (Some(row(TenantState::Adding, None)), true, "busy"),
        (Some(row(TenantState::Adding, Some("fra"))), true, "busy"),
        (Some(row(TenantState::Active, Some("nyc"))), false, "known"),
        (Some(row(TenantState::Active, Some("nyc"))), true, "known"),
        (
            Some(row(TenantState::Active, Some("fra"))),
            false,
            "taken: the name belongs to a tenant on fra (generation 7)",
        ),
        (Some(row(TenantState::Removed, Some("nyc"))), false, "taken: it was removed from the fleet (generation 7)"),
        (
            Some(row(TenantState::Removed, Some("fra"))),
            false,
            "taken: the name belongs to a removed tenant whose data is kept on fra",
        ),
    ]
}

#[test]
fn a_name_that_ever_had_a_home_is_never_given_away() {
    for (row, held, wanted) in table() {
        let alice = "alice".parse().unwrap();
        let names = Names::new(row.iter().cloned().collect(), held.then(|| "alice".parse().unwrap()), &[]);
        let claim = names.claim(&server("nyc"), &alice);
        let told = match &claim {
            Claim::Known => "known".to_owned(),
            Claim::Free => "free".to_owned(),
            Claim::Busy => "busy".to_owned(),
            Claim::Taken(why) => format!("taken: {why}"),
        };
        assert!(told.starts_with(wanted), "{row:?}: {told}");
        for residence in [Residence::Running, Residence::Stopped] {
            let observed = observed(&[("nyc", residence)]);
            assert_eq!(unknown(&observed, &names).len(), usize::from(wanted == "free"), "{row:?}");
            let sentences = conflicts(&server("nyc"), &observed, &names);
            assert_eq!(sentences.len(), usize::from(wanted.starts_with("taken")), "{row:?}");
        }
        for residence in [Residence::Absent, Residence::Departed] {
            assert!(unknown(&observed(&[("nyc", residence)]), &names).is_empty());
        }
    }
}

#[test]
fn two_members_with_one_unknown_name_are_for_a_person_to_judge() {
    let both = observed(&[("nyc", Residence::Running), ("fra", Residence::Stopped)]);
    let names = Names::default();
    assert!(unknown(&both, &names).is_empty());
    let told = conflicts(&server("nyc"), &both, &names);
    assert!(
        told.len() == 1 && told[0].contains("nyc and fra both") && told[0].contains("server adopt nyc"),
        "{told:?}"
    );
    let mut one_silent = both;
    one_silent.get_mut(&server("fra")).unwrap().reachability = Reachability::Silent("gone".into());
    assert_eq!(unknown(&one_silent, &names).len(), 1);
}

fn found(action: Action) -> Finding {
    Finding { action, listed: true, ..of_ledger(&report(Residence::Running)) }
}

#[test]
fn what_an_agent_found_is_adopted_only_under_a_free_name() {
    for (row, held, wanted) in table() {
        let names = Names::new(row.into_iter().collect(), held.then(|| "alice".parse().unwrap()), &[]);
        let (empty, nobody) = (snapshot("nyc", vec![]), BTreeMap::new());
        let judged = judge(&server("nyc"), vec![found(Action::Adopt)], &empty, &nobody, &names, &BTreeSet::new());
        let fits = matches!(wanted, "free" | "known");
        assert_eq!(judged[0].action, if fits { Action::Adopt } else { Action::Misfit }, "{wanted}");
        assert_eq!(judged[0].why.is_none(), fits);

        let holds = snapshot("nyc", vec![report(Residence::Running)]);
        let ledger = judge(&server("nyc"), vec![found(Action::Known)], &holds, &nobody, &names, &BTreeSet::new());
        let unlisted = judge(&server("nyc"), vec![], &holds, &nobody, &names, &BTreeSet::new());
        let action = match wanted {
            "free" => Action::Adopt,
            "known" => Action::Known,
            _ => Action::Misfit,
        };
        assert_eq!(ledger[0].action, action, "{wanted}");
        let wanted_actions = if wanted == "known" { vec![] } else { vec![action] };
        assert_eq!(unlisted.iter().map(|one| one.action).collect::<Vec<_>>(), wanted_actions);
    }
    for action in [Action::Keep, Action::Misfit] {
        let names = Names::default();
        assert_eq!(
            judge(
                &server("nyc"),
                vec![found(action)],
                &snapshot("nyc", vec![]),
                &BTreeMap::new(),
                &names,
                &BTreeSet::new()
            ),
            [found(action)]
        );
    }
}
