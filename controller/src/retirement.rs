//! Takes a server that was drained out of the fleet.
//!
//! Owns what may stand in the way beside what the store knows: data on that server's disk that nobody could get at afterwards. What the
//! store knows (tenants, kept data of removed ones, operations) is judged there, in the transaction that removes the server.

use std::collections::BTreeMap;

use feather_proto::{
    error::{Error, reason},
    ids::{ServerName, TenantName},
    model::{ServerSnapshot, VolumeState},
};
use time::OffsetDateTime;

use crate::{
    intent::nothing_began,
    store::{TenantRow, TenantState, server_not_found},
    world::World,
};

/// A volume on a server where its tenant does not live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptCopy {
    /// Whose.
    pub tenant: TenantName,
    /// Where the tenant lives; `None` when nobody of the fleet is called so.
    pub lives_on: Option<ServerName>,
    /// When the copy goes by itself; `None` for one that stays.
    pub keep_until: Option<OffsetDateTime>,
}

/// Whole copies on a server, in the order of names: copies that their time has passed are as good as gone.
pub fn copies(snapshot: &ServerSnapshot, tenants: &[TenantRow], now: OffsetDateTime) -> Vec<KeptCopy> {
    let living = tenants.iter().filter(|row| row.state != TenantState::Removed);
    let homes: BTreeMap<_, _> = living.filter_map(|row| Some((&row.name, row.server.as_ref()?))).collect();
    let whole = snapshot.volumes.iter().filter(|one| one.state == VolumeState::Complete);
    let kept = whole.filter(|one| one.keep_until.is_none_or(|until| until > now));
    let mut copies: Vec<_> = kept
        .map(|one| KeptCopy {
            tenant: one.tenant.clone(),
            lives_on: homes.get(&one.tenant).map(|home| (*home).clone()),
            keep_until: one.keep_until,
        })
        .collect();
    copies.sort_by(|left, right| left.tenant.cmp(&right.tenant));
    copies
}

/// Says why a server cannot be retired, if so.
///
/// # Errors
/// It takes new tenants, it has data that nobody else has, or it keeps copies and nobody said that they may go.
pub fn judge(server: &ServerName, cordoned: bool, copies: &[KeptCopy], discard: bool) -> Result<(), Error> {
    let refuse = |message: String| Err(Error::refused(reason::WRONG_STATE, message).with("server", server));
    if !cordoned {
        return refuse(format!("{server} takes new tenants; empty it first with `featherctl server drain {server}`"));
    }
    let only: Vec<_> = copies.iter().filter(|one| one.lives_on.is_none()).map(|one| one.tenant.to_string()).collect();
    if !only.is_empty() {
        return refuse(format!(
            "{server} holds volumes of {}, who live nowhere in the fleet: this may be all there is of their data. Look with `featherctl \
             volume list`, and bring them in with `featherctl server adopt {server}`, or remove the volumes there",
            only.join(", ")
        ));
    }
    if copies.is_empty() || discard {
        return Ok(());
    }
    let named: Vec<_> = copies.iter().map(told).collect();
    refuse(format!(
        "{server} keeps copies that nobody can go back to once it is out of the fleet: {}; wait until they have expired, or give them up \
         with --discard-kept-copies",
        named.join(", ")
    ))
}

fn told(copy: &KeptCopy) -> String {
    let until = copy.keep_until.map(|until| format!(" until {}", until.date())).unwrap_or_default();
    let home = copy.lives_on.as_ref().map(|home| format!(" (lives on {home})")).unwrap_or_default();
    format!("{}{until}{home}", copy.tenant)
}

/// Takes a server out of the fleet when nothing stands in the way. Returns the copies that stay on its disk. The machine itself is
/// left as it is.
///
/// # Errors
/// As for [`judge`]; no such server, it cannot be reached, a tenant's data is there, or an operation runs there.
pub async fn retire(world: &World, server: &ServerName, discard: bool, dry_run: bool) -> Result<Vec<KeptCopy>, Error> {
    let row = world.store.server(server).await?.ok_or_else(|| server_not_found(server))?;
    world.store.check_server_removable(server).await?;
    // As its disk is now, not as it was told last.
    let snapshot = world.agent(server).await?.snapshot().await.map_err(nothing_began)?;
    let copies = copies(&snapshot, &world.store.tenants().await?, world.clock.now());
    judge(server, row.upkeep.cordoned, &copies, discard)?;
    if !dry_run {
        world.store.remove_server(server, world.clock.now()).await?;
        world.access.load(&world.store).await?;
        world.ring_desired();
    }
    Ok(copies)
}

#[cfg(test)]
mod tests {
    use feather_proto::{
        ids::Generation,
        model::{ServerSnapshot, VolumeReport, VolumeState},
    };
    use time::{Duration, OffsetDateTime};

    use super::{KeptCopy, copies, judge};
    use crate::store::{TenantRow, TenantState};

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn volume(tenant: &str, state: VolumeState, keep: Option<i64>) -> VolumeReport {
        VolumeReport {
            tenant: tenant.parse().unwrap(),
            state,
            generation: Generation(1),
            keep_until: keep.map(|hours| NOW + Duration::hours(hours)),
            last_summary: None,
        }
    }

    fn row(name: &str, server: Option<&str>, state: TenantState) -> TenantRow {
        TenantRow {
            name: name.parse().unwrap(),
            state,
            server: server.map(|server| server.parse().unwrap()),
            previous_server: None,
            generation: Generation(1),
            generation_issued: Generation(2),
            running: true,
            created: NOW,
            version: 1,
            bounds: Default::default(),
        }
    }

    fn there(volumes: Vec<VolumeReport>) -> Vec<KeptCopy> {
        let snapshot = ServerSnapshot { volumes, ..ServerSnapshot::empty("nyc".parse().unwrap()) };
        let rows = [row("alice", Some("fra"), TenantState::Active), row("zoe", None, TenantState::Removed)];
        copies(&snapshot, &rows, NOW)
    }

    fn said(cordoned: bool, copies: &[KeptCopy], discard: bool) -> String {
        judge(&"nyc".parse().unwrap(), cordoned, copies, discard).map_or_else(|error| error.message, |()| String::new())
    }

    #[test]
    fn halves_and_what_has_expired_are_no_copies() {
        let complete = VolumeState::Complete;
        let all = vec![volume("alice", VolumeState::Incomplete, None), volume("alice", complete, Some(-1))];
        assert_eq!(there(all), vec![]);
        assert_eq!(there(vec![volume("alice", complete, Some(1))])[0].lives_on, Some("fra".parse().unwrap()));
        assert_eq!(there(vec![volume("zoe", complete, None)])[0].lives_on, None);
    }

    #[test]
    fn copies_are_named_and_given_up_only_by_word_and_the_only_ones_not_at_all() {
        let copy = there(vec![volume("alice", VolumeState::Complete, Some(48))]);
        assert_eq!(said(true, &[], false), "");
        assert!(said(false, &[], true).contains("featherctl server drain nyc"));
        assert!(
            said(true, &copy, false).contains("alice until 1970-01-03 (lives on fra)"),
            "{}",
            said(true, &copy, false)
        );
        assert_eq!(said(true, &copy, true), "");
        let only = there(vec![volume("zoe", VolumeState::Complete, None)]);
        assert!(said(true, &only, true).contains("zoe, who live nowhere"));
    }
}
