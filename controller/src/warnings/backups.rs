//! Backups that are late or damaged. Pure.

use super::conditions::{Condition, Kind, Scope, View};
use crate::backups::schedule;

/// Schedules that nothing came of for two intervals, and tenants whose newest backup in a repository was found damaged.
pub(super) fn conditions(view: &View<'_>) -> Vec<Condition> {
    let condition = |kind, tenant: &str, message| Condition {
        kind,
        about: tenant.to_owned(),
        subject: tenant.to_owned(),
        scope: Scope::Store,
        message,
    };
    let late = view.schedules.iter().filter(|one| schedule::overdue(one, view.backups, view.now)).map(|one| {
        let why = if one.problem.is_empty() { String::new() } else { format!(" ({})", one.problem) };
        let (tenant, repository) = (&one.tenant, &one.repository);
        let message = format!(
            "{tenant} was not backed up to {repository} for two intervals{why}; `featherctl volume backup {tenant} --to {repository}` tries now"
        );
        condition(Kind::BackupLate, tenant.as_str(), message)
    });
    let newest = |one: &&crate::store::backups::BackupRow| {
        let same = |other: &&crate::store::backups::BackupRow| {
            other.tenant == one.tenant && other.repository == one.repository && other.taken > one.taken
        };
        !view.backups.iter().any(|other| same(&other))
    };
    let damaged = view.backups.iter().filter(|one| !one.damage.is_empty()).filter(newest).map(|one| {
        let message = format!(
            "the newest backup of {} in {} is damaged; check what it lies on. `featherctl volume backup {} --to {}` writes all of it anew",
            one.tenant, one.repository, one.tenant, one.repository
        );
        condition(Kind::BackupDamaged, one.tenant.as_str(), message)
    });
    late.chain(damaged).collect()
}
