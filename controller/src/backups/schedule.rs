//! Which backup is due, and which may go. Pure.

use std::time::Duration;

use feather_proto::ids::TenantName;
use time::OffsetDateTime;

use crate::store::backups::{BackupRow, Schedule};

/// Pause after the first try that failed; doubled each time, up to the longest.
const PAUSE: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(60 * 60);

/// When the tenant's next backup is begun: an interval after its last one began, and not too soon after a try that failed.
pub fn next(schedule: &Schedule, backups: &[BackupRow]) -> OffsetDateTime {
    let of_it = |row: &&BackupRow| row.tenant == schedule.tenant && row.repository == schedule.repository;
    // One that is damaged is none.
    let last = backups.iter().filter(of_it).filter(|row| row.damage.is_empty()).map(|row| row.taken).max();
    let regular = last.map_or(OffsetDateTime::UNIX_EPOCH, |last| last + schedule.every);
    match schedule.tried {
        Some(tried) if schedule.failures > 0 => regular.max(tried + pause(schedule)),
        _ => regular,
    }
}

fn pause(schedule: &Schedule) -> Duration {
    let doubled = PAUSE.saturating_mul(2_u32.saturating_pow(schedule.failures.saturating_sub(1)));
    doubled.min(PAUSE_MAX).min(schedule.every)
}

/// The one that has been due for longest.
pub fn due<'a>(schedules: &'a [Schedule], backups: &[BackupRow], now: OffsetDateTime) -> Option<&'a Schedule> {
    let times = schedules.iter().map(|schedule| (next(schedule, backups), schedule));
    times.filter(|(next, _)| *next <= now).min_by_key(|(next, schedule)| (*next, &schedule.tenant)).map(|(_, one)| one)
}

/// Nothing was backed up for this long although it should: longer than two intervals.
pub fn overdue(schedule: &Schedule, backups: &[BackupRow], now: OffsetDateTime) -> bool {
    let of_it = |row: &&BackupRow| row.tenant == schedule.tenant && row.repository == schedule.repository;
    let last = backups.iter().filter(of_it).filter(|row| row.damage.is_empty()).map(|row| row.taken).max();
    now - last.unwrap_or(schedule.since).max(schedule.since) > schedule.every * 2
}

/// Those whose time has passed, of one repository. A tenant's newest stays, and so does its newest that was read back.
pub fn expired(backups: &[BackupRow], now: OffsetDateTime) -> Vec<&BackupRow> {
    let newest = |tenant: &TenantName, counts: &dyn Fn(&BackupRow) -> bool| {
        backups.iter().filter(|row| row.tenant == *tenant && counts(row)).map(|row| (row.taken, &row.id)).max()
    };
    let stays = |row: &BackupRow| {
        let this = Some((row.taken, &row.id));
        newest(&row.tenant, &|_| true) == this || newest(&row.tenant, &|one| one.verified.is_some()) == this
    };
    backups.iter().filter(|row| row.keep_until.is_some_and(|until| until <= now) && !stays(row)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use time::OffsetDateTime;

    use super::{BackupRow, Schedule, due, expired, next, overdue};

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(hours: u32) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + HOUR * (1000 + hours)
    }

    fn schedule(tenant: &str) -> Schedule {
        Schedule {
            tenant: tenant.parse().unwrap(),
            repository: "/srv/b".into(),
            every: HOUR * 24,
            keep: Some(HOUR * 72),
            since: at(0),
            tried: None,
            failures: 0,
            problem: String::new(),
        }
    }

    fn backup(tenant: &str, hours: u32) -> BackupRow {
        BackupRow {
            id: format!("b{hours}"),
            tenant: tenant.parse().unwrap(),
            repository: "/srv/b".into(),
            server: "nyc".parse().unwrap(),
            taken: at(hours),
            live: false,
            bytes: 1,
            new_bytes: 1,
            keep_until: Some(at(hours) + HOUR * 72),
            verified: Some(at(hours)),
            damage: String::new(),
        }
    }

    #[test]
    fn a_new_schedule_is_due_at_once_and_then_by_its_interval() {
        let alice = [schedule("alice")];
        assert_eq!(due(&alice, &[], at(0)), Some(&alice[0]));
        let made = [backup("alice", 0)];
        assert_eq!(due(&alice, &made, at(23)), None);
        assert_eq!(due(&alice, &made, at(24)), Some(&alice[0]));
        let elsewhere = [BackupRow { repository: "/srv/other".into(), ..backup("alice", 0) }];
        assert!(due(&alice, &elsewhere, at(1)).is_some());
        let damaged = [BackupRow { damage: "gone".into(), ..backup("alice", 0) }];
        assert!(due(&alice, &damaged, at(1)).is_some());
    }

    #[test]
    fn who_has_waited_longest_comes_first() {
        let both = [schedule("alice"), schedule("bob")];
        let made = [backup("alice", 1), backup("bob", 0)];
        assert_eq!(due(&both, &made, at(30)).unwrap().tenant.as_str(), "bob");
    }

    #[test]
    fn a_try_that_failed_is_followed_by_pauses() {
        let failed = |failures| Schedule { tried: Some(at(30)), failures, ..schedule("alice") };
        let made = [backup("alice", 0)];
        assert_eq!(next(&failed(1), &made), at(30) + Duration::from_secs(60));
        assert_eq!(next(&failed(3), &made), at(30) + Duration::from_secs(240));
        assert_eq!(next(&failed(40), &made), at(31));
        let often = Schedule { every: Duration::from_secs(90), ..failed(40) };
        assert_eq!(next(&often, &made), at(30) + Duration::from_secs(90));
    }

    #[test]
    fn two_intervals_without_one_are_too_long() {
        assert!(!overdue(&schedule("alice"), &[], at(48)));
        assert!(overdue(&schedule("alice"), &[], at(49)));
        assert!(!overdue(&schedule("alice"), &[backup("alice", 24)], at(72)));
        assert!(overdue(&schedule("alice"), &[backup("alice", 24)], at(73)));
    }

    #[test]
    fn what_expires_goes_but_never_the_last_one() {
        let names = |rows: &[BackupRow], now| expired(rows, now).iter().map(|row| row.id.clone()).collect::<Vec<_>>();
        let rows = [backup("alice", 0), backup("alice", 24), backup("bob", 0)];
        assert!(names(&rows, at(71)).is_empty());
        assert_eq!(names(&rows, at(1000)), ["b0"], "bob's only one and alice's newest stay");
        let unread = [backup("alice", 0), BackupRow { verified: None, ..backup("alice", 24) }];
        assert!(names(&unread, at(1000)).is_empty(), "the newest that was read back stays too");
        let kept = [BackupRow { keep_until: None, ..backup("alice", 0) }, backup("alice", 24)];
        assert!(names(&kept, at(1000)).is_empty());
    }
}
