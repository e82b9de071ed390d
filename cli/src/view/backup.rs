//! Backups as they are shown.

use feather_proto::pb::controller::v1 as pb;
use serde::Serialize;

use super::{Moment, moment, set};
use crate::{
    output::{pairs, table},
    units,
};

#[derive(Debug, Clone, Serialize)]
pub(crate) struct BackupView {
    pub(crate) tenant: String,
    pub(crate) id: String,
    pub(crate) repository: String,
    pub(crate) taken: Option<Moment>,
    pub(crate) server: String,
    /// The tenant ran meanwhile.
    pub(crate) live: bool,
    pub(crate) bytes: u64,
    /// Of them: what the repository did not hold already.
    pub(crate) new_bytes: u64,
    pub(crate) keep_until: Option<Moment>,
    pub(crate) verified: Option<Moment>,
    pub(crate) damage: Option<String>,
}

impl From<pb::Backup> for BackupView {
    fn from(pb: pb::Backup) -> Self {
        Self {
            tenant: pb.tenant,
            id: pb.id,
            repository: pb.repository,
            taken: moment!(pb.taken),
            server: pb.server,
            live: pb.live,
            bytes: pb.bytes,
            new_bytes: pb.new_bytes,
            keep_until: moment!(pb.keep_until),
            verified: moment!(pb.verified),
            damage: set(pb.damage),
        }
    }
}

impl BackupView {
    fn standing(&self) -> String {
        match (&self.damage, self.verified) {
            (Some(_), _) => "damaged".to_owned(),
            (None, Some(verified)) => format!("verified {} ago", verified.age()),
            (None, None) => "not read back".to_owned(),
        }
    }

    /// Aligned names and values.
    pub(crate) fn details(&self) -> String {
        let of = if self.live { " (it ran meanwhile)" } else { "" };
        pairs(&[
            ("tenant", self.tenant.clone()),
            ("backup", self.id.clone()),
            ("in", self.repository.clone()),
            ("taken", self.taken.map(|taken| format!("{taken}{of}")).unwrap_or_default()),
            ("from", self.server.clone()),
            ("size", format!("{}, of which {} new", units::bytes(self.bytes), units::bytes(self.new_bytes))),
            ("kept until", self.keep_until.map_or_else(|| "deleted by hand".to_owned(), |until| until.to_string())),
            ("state", self.standing()),
            ("damage", self.damage.clone().unwrap_or_default()),
        ])
    }
}

pub(crate) fn list(backups: &[BackupView]) -> String {
    let row = |backup: &BackupView| {
        [
            backup.tenant.clone(),
            backup.id.clone(),
            backup.taken.map(Moment::age).unwrap_or_default(),
            units::bytes(backup.bytes),
            backup.standing(),
            backup.repository.clone(),
        ]
    };
    table(["TENANT", "BACKUP", "AGE", "SIZE", "STATE", "IN"], &backups.iter().map(row).collect::<Vec<_>>())
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct ScheduleView {
    pub(crate) tenant: String,
    pub(crate) repository: String,
    pub(crate) every_seconds: u64,
    pub(crate) keep_seconds: Option<u64>,
    pub(crate) next: Option<Moment>,
    pub(crate) problem: Option<String>,
}

impl From<pb::BackupSchedule> for ScheduleView {
    fn from(pb: pb::BackupSchedule) -> Self {
        Self {
            tenant: pb.tenant,
            repository: pb.repository,
            every_seconds: pb.every_seconds,
            keep_seconds: Some(pb.keep_seconds).filter(|keep| *keep > 0),
            next: moment!(pb.next),
            problem: set(pb.problem),
        }
    }
}

/// `90s`, `12h`, `7d`: as it is typed, in the largest unit that leaves no rest.
fn typed(seconds: u64) -> String {
    let (length, unit) = [(86_400, "d"), (3600, "h"), (60, "m")]
        .into_iter()
        .find(|(length, _)| seconds > 0 && seconds.is_multiple_of(*length))
        .unwrap_or((1, "s"));
    format!("{}{unit}", seconds / length)
}

pub(crate) fn schedules(rows: &[ScheduleView]) -> String {
    let row = |one: &ScheduleView| {
        [
            one.tenant.clone(),
            typed(one.every_seconds),
            one.keep_seconds.map_or_else(|| "for ever".to_owned(), typed),
            one.next.map(|next| next.to_string()).unwrap_or_default(),
            one.repository.clone(),
            one.problem.clone().unwrap_or_default(),
        ]
    };
    table(["TENANT", "EVERY", "KEPT", "NEXT", "IN", "PROBLEM"], &rows.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    #[test]
    fn intervals_are_shown_as_they_are_typed() {
        for (seconds, text) in [(0, "0s"), (90, "90s"), (120, "2m"), (5400, "90m"), (43_200, "12h"), (604_800, "7d")] {
            assert_eq!(super::typed(seconds), text);
        }
    }
}
