//! Tenants that stand still on a member, in a move that no operation goes on with: whether they become tenants of the fleet. Pure.
//!
//! The store was lost, and their server was not heard when it was learned again; so nobody runs them, and the store knows no such name. Such a
//! tenant is taken in where it stands, as one that is stopped: a person starts it. But the target of that move may have taken over from it. As
//! long as that is possible it is left alone, and a person is told.

use std::collections::BTreeMap;

use feather_proto::{
    forward::ForwardTarget,
    ids::ServerName,
    model::{Residence, TenantReport, VolumeState},
};

use super::{Names, lives};
use crate::{
    fleet::Observed,
    store::{ServerRow, TenantState},
};

/// Why a tenant that stands still is not simply taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Doubt {
    /// Somebody else may serve it. It is left alone, whoever asks.
    Served(String),
    /// Somebody knows of something newer: a person may choose this one.
    Disputed(String),
}

impl Doubt {
    pub(super) fn why(self) -> String {
        let (Doubt::Served(why) | Doubt::Disputed(why)) = self;
        why
    }
}

/// Was it stopped for a move?
pub(super) fn is_sealed(report: &TenantReport) -> bool {
    report.residence == Residence::Sealed
}

/// What makes it unclear whether one that stands still here, and that the store does not know, is the tenant.
pub(super) fn doubt(
    server: &ServerName,
    report: &TenantReport,
    observed: &BTreeMap<ServerName, Observed>,
    names: &Names,
) -> Option<Doubt> {
    let tenant = &report.tenant;
    let alive = |other: &ServerName| observed.get(other).and_then(Observed::alive);
    let others = || names.members().iter().filter(|row| row.name != *server);
    let here = || {
        let generation = report.generation;
        format!("stands still on {server} in a move that no operation goes on with (generation {generation})")
    };
    let silent: Vec<_> = others().filter(|row| alive(&row.name).is_none()).map(|row| row.name.as_str()).collect();
    if !silent.is_empty() {
        let (silent, first) = (silent.join(", "), silent[0]);
        return Some(Doubt::Served(format!(
            "it {}, and of those that do not answer ({silent}) one may serve it: nobody starts it before all of them have answered. \
             `featherctl server lost {first}` takes one that is dead out of the fleet",
            here()
        )));
    }
    others().find_map(|row| {
        let (other, there) = (&row.name, alive(&row.name)?.tenant(tenant)?);
        if lives(there) {
            return Some(Doubt::Served(format!(
                "it {}, and {other} serves it (generation {}): this one is left as it is. `featherctl server show {other}` says what can be done about \
                 that one",
                here(),
                there.generation
            )));
        }
        if there.incoming.is_some() {
            return Some(Doubt::Served(format!(
                "it {}; what came of it to {other} is given back first, by itself: try again then",
                here()
            )));
        }
        if is_sealed(there) {
            return Some(Doubt::Disputed(format!(
                "it {}, and on {other}, too (generation {}); `featherctl server adopt {server} --tenant {tenant}` takes this one",
                here(),
                there.generation
            )));
        }
        let forward = there.forward_to.as_ref().filter(|_| there.generation > report.generation)?;
        (leads_to(forward, names.members()) != Some(server)).then(|| {
            Doubt::Disputed(format!(
                "it {}, and {other} forwards to {forward} since then: it may run there, with newer data. If nobody serves it, `featherctl \
                 server adopt {server} --tenant {tenant}` takes this one",
                here()
            ))
        })
    })
}

/// The member that a forward leads to.
fn leads_to<'a>(forward: &str, members: &'a [ServerRow]) -> Option<&'a ServerName> {
    let target: ForwardTarget = forward.parse().ok()?;
    let is_there = |row: &&ServerRow| match &target.server {
        Some(identity) => row.identity == *identity,
        None => row.public_address == target.host(),
    };
    members.iter().find(is_there).map(|row| &row.name)
}

/// What has come to a member in a move that no operation goes on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Half {
    /// It is given back: the original is in sight.
    Unwanted,
    /// It stays, for this reason.
    Waits(String),
}

/// What becomes of it; none for what an operation uses, or where nothing has come. The names must be those of after the report: an operation that
/// brought it is among them then, unless it has ended, and one that begins later never uses what is there.
pub(super) fn half(
    server: &ServerName,
    report: &TenantReport,
    observed: &BTreeMap<ServerName, Observed>,
    names: &Names,
) -> Option<Half> {
    let (tenant, _) = (&report.tenant, report.incoming?);
    if names.is_held(tenant) {
        return None;
    }
    let row = names.row(tenant);
    let home = row.and_then(|row| row.server.as_ref());
    if home == Some(server) {
        // Somebody said that it lives here: the tenant is broken, and that is told.
        return None;
    }
    let kept = row.is_some_and(|row| row.state == TenantState::Removed);
    let has_original = |other: &ServerName| {
        let snapshot = observed.get(other).and_then(Observed::alive)?;
        let there = snapshot.tenant(tenant).filter(|there| there.incoming.is_none())?;
        let stays = lives(there) || is_sealed(there) || (kept && there.residence == Residence::Absent);
        let whole = snapshot.volume(tenant).is_some_and(|volume| volume.state == VolumeState::Complete);
        (stays && whole).then_some(())
    };
    let others = || names.members().iter().map(|row| &row.name).filter(|other| *other != server);
    let answers = |other: &ServerName| observed.get(other).and_then(Observed::alive).is_some();
    let found = match home {
        Some(home) => has_original(home).is_some(),
        // Whoever does not answer may have a newer one.
        None => others().all(answers) && others().any(|other| has_original(other).is_some()),
    };
    if found {
        return Some(Half::Unwanted);
    }
    let whom = home.map_or_else(|| "a server".to_owned(), ToString::to_string);
    Some(Half::Waits(format!(
        "a move to {server} had begun, and no operation goes on with it (generation {}); what came is given back when {whom} says that it has \
         the original. If that is lost, `podman volume export {}` in the birth container of {server} gives what came",
        report.generation,
        tenant.container()
    )))
}

#[cfg(test)]
mod tests;
