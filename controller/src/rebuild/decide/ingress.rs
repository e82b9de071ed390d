//! Which server the wildcard leads to, and to which it led before. Pure.

use std::collections::{BTreeMap, BTreeSet};

use feather_proto::{ids::ServerName, model::ServerSnapshot};

use super::{Findings, Said};
use crate::{
    dns::plan,
    store::{ServerRow, TenantRow, TenantState},
};

/// Where the wildcard leads.
pub(super) struct Led {
    pub(super) ingress: Option<ServerName>,
    /// Other servers that forward everybody.
    pub(super) former: BTreeSet<ServerName>,
}

/// Can it be the ingress, which forwards everybody who lives elsewhere?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Candidate {
    /// It does so, as former ones do.
    Forwards,
    /// Nobody lives elsewhere.
    Idle,
    /// It did not answer.
    Silent,
    /// Somebody lives elsewhere whom it does not forward.
    No,
}

fn candidate(server: &ServerName, snapshot: Option<&ServerSnapshot>, tenants: &[TenantRow]) -> Candidate {
    let Some(snapshot) = snapshot else { return Candidate::Silent };
    let active = tenants.iter().filter(|row| row.state == TenantState::Active);
    let elsewhere: Vec<_> = active.filter(|row| row.server.as_ref() != Some(server)).collect();
    let forwards = |row: &&TenantRow| snapshot.tenant(&row.name).is_some_and(|report| report.forward_to.is_some());
    match elsewhere.is_empty() {
        true => Candidate::Idle,
        false if elsewhere.iter().all(forwards) => Candidate::Forwards,
        false => Candidate::No,
    }
}

/// The only server that can be the ingress, if forwards leave only one, or the one that a person names.
pub(super) fn led(
    said: &Said,
    members: &[ServerRow],
    tenants: &[TenantRow],
    heard: &BTreeMap<&ServerName, &ServerSnapshot>,
    findings: &mut Findings,
) -> Led {
    let candidates: Vec<(&ServerName, Candidate)> = members
        .iter()
        .map(|row| (&row.name, candidate(&row.name, heard.get(&row.name).copied(), tenants)))
        .filter(|(_, candidate)| *candidate != Candidate::No)
        .collect();
    let named = said.ingress.as_ref().filter(|ingress| members.iter().any(|row| row.name == **ingress));
    let ingress = match (named, candidates.as_slice()) {
        (Some(named), _) => Some(named),
        (None, [(one, how)]) => {
            if *how == Candidate::Silent {
                findings.say(
                    &"ingress",
                    format!(
                        "only {one}, which does not answer, can be where the wildcard leads to; --ingress names another"
                    ),
                );
            }
            Some(*one)
        }
        (None, _) => None,
    };
    // Where nothing is settled the controller takes this one.
    let chosen = ingress.cloned().or_else(|| plan::ingress(None, members, tenants));
    if let (None, Some(chosen)) = (ingress, &chosen) {
        let can = candidates.iter().map(|(server, _)| server.as_str()).collect::<Vec<_>>().join(" or ");
        let can = if can.is_empty() { "none forwards everybody".to_owned() } else { format!("it may be {can}") };
        findings.say(
            &"ingress",
            format!("forwards do not show which server the wildcard leads to ({can}); it would be {chosen}, unless --ingress names another"),
        );
    }
    let forwards = candidates.iter().filter(|(_, how)| *how == Candidate::Forwards).map(|(server, _)| *server);
    let former = forwards.filter(|server| Some(*server) != chosen.as_ref()).cloned().collect();
    Led { ingress: ingress.cloned(), former }
}
