//! Takes a server that was drained out of the fleet.
//!
//! Owns what may stand in the way beside what the store knows: data on that server's disk that nobody could get at afterwards, names that
//! lead users to it, and who signed up there alone. What the store knows (tenants, kept data of removed ones, operations) is judged there,
//! in the transaction that removes the server.

use std::collections::BTreeMap;

use feather_proto::{
    error::{Error, reason},
    ids::{ServerName, TenantName},
    model::{Residence, ServerSnapshot, VolumeState},
};
use time::OffsetDateTime;

use crate::{
    dns, forwards,
    intent::nothing_began,
    store::{ServerRow, TenantRow, TenantState},
    waitlist::{self, OnlyThere},
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

/// Everything that would be lost with a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loss {
    /// Volumes of tenants that live elsewhere.
    pub copies: Vec<KeptCopy>,
    /// Names without a record of their own lead to it.
    pub ingress: bool,
    /// They did, and may still for some.
    pub former: bool,
    /// Tenants of the fleet whose requests it sends to where they live.
    pub forwards: Vec<TenantName>,
    /// Its waitlist.
    pub waitlist: OnlyThere,
}

/// What an admin said may be lost.
#[derive(Debug, Clone, Copy, Default)]
pub struct GivenUp {
    /// The copies.
    pub copies: bool,
    /// That names lead to it, because they are led elsewhere by other means.
    pub names: bool,
    /// Who signed up there alone.
    pub waitlist: bool,
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

/// Tenants that live elsewhere and whose requests a server still sends there, in the order of names.
fn forwards(server: &ServerName, snapshot: &ServerSnapshot, tenants: &[TenantRow]) -> Vec<TenantName> {
    let elsewhere =
        |row: &&TenantRow| row.state != TenantState::Removed && row.server.as_ref().is_some_and(|home| home != server);
    let forwarded = |row: &TenantRow| {
        let report = snapshot.tenant(&row.name);
        report.is_some_and(|report| report.residence == Residence::Departed && report.forward_to.is_some())
    };
    let mut names: Vec<_> =
        tenants.iter().filter(elsewhere).filter(|row| forwarded(row)).map(|row| row.name.clone()).collect();
    names.sort();
    names
}

/// Says why a server cannot be retired, if so.
///
/// # Errors
/// It takes new tenants, it has data that nobody else has, or something would be lost with it of which nobody said that it may.
pub fn judge(server: &ServerName, cordoned: bool, loss: &Loss, given_up: GivenUp) -> Result<(), Error> {
    let refuse = |message: String| Err(Error::refused(reason::WRONG_STATE, message).with("server", server));
    let copies = &loss.copies;
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
    if !given_up.names
        && let Some(message) = led_here(server, loss)
    {
        return refuse(message);
    }
    if !given_up.waitlist
        && let Some(message) = waiting(server, &loss.waitlist)
    {
        return refuse(message);
    }
    if copies.is_empty() || given_up.copies {
        return Ok(());
    }
    let named: Vec<_> = copies.iter().map(told).collect();
    refuse(format!(
        "{server} keeps copies that nobody can go back to once it is out of the fleet: {}; wait until they have expired, or give them up \
         with --discard-kept-copies",
        named.join(", ")
    ))
}

/// Whose users would be refused, and what to do first.
fn led_here(server: &ServerName, loss: &Loss) -> Option<String> {
    if loss.ingress {
        return Some(format!(
            "{server} is the ingress: names without a record of their own lead to it, and whoever comes by them would be refused. First \
             `featherctl dns ingress OTHER`; or say --dns-elsewhere if no name leads there"
        ));
    }
    if loss.former {
        return Some(format!(
            "{server} was the ingress before, and is not known to be left by everybody: whoever still comes to it would be refused. Wait until \
             every name server leads elsewhere (`featherctl dns status`); or say --dns-elsewhere if no name leads there, which nobody but you \
             can know where the fleet does not keep the zone"
        ));
    }
    if loss.forwards.is_empty() {
        return None;
    }
    let names: Vec<_> = loss.forwards.iter().map(TenantName::as_str).collect();
    Some(format!(
        "{server} still forwards for {}: whoever has their address from before the move comes to it, and would be refused. Wait until its \
         forwards end (`featherctl dns status` shows which name server lags); or say --dns-elsewhere if no name leads there, which nobody \
         but you can know where the fleet does not keep the zone",
        names.join(", ")
    ))
}

/// How many would be forgotten. Never who.
fn waiting(server: &ServerName, waitlist: &OnlyThere) -> Option<String> {
    let OnlyThere { count, problem } = waitlist;
    let next = "keep the list with `featherctl waitlist export`, then say --discard-waitlist";
    match problem {
        Some(problem) => Some(format!(
            "the waitlist of {server} cannot be read whole ({problem}), and goes with it; look at it there, {next}"
        )),
        None if *count > 0 => Some(format!(
            "{count} signed up on {server} and on no other server that answers, and were not invited: they would be forgotten. Invite them, or \
             {next}"
        )),
        None => None,
    }
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
pub async fn retire(
    world: &World,
    server: &ServerName,
    given_up: GivenUp,
    dry_run: bool,
) -> Result<Vec<KeptCopy>, Error> {
    let row = world.store.member(server).await?;
    world.store.check_server_removable(server).await?;
    // As its disk is now, not as it was told last.
    let snapshot = world.agent(server).await?.snapshot().await.map_err(nothing_began)?;
    let loss = loss(world, &row, &snapshot).await?;
    judge(server, row.upkeep.cordoned, &loss, given_up)?;
    if !dry_run {
        world.remove_server(server).await?;
    }
    Ok(loss.copies)
}

async fn loss(world: &World, row: &ServerRow, snapshot: &ServerSnapshot) -> Result<Loss, Error> {
    let (server, tenants) = (&row.name, world.store.tenants().await?);
    let others = world.store.servers().await?.len() > 1;
    let ingress = dns::wanted(world).await?.ingress;
    let former = forwards::dns_knows(world, &tenants).await?.former;
    Ok(Loss {
        copies: copies(snapshot, &tenants, world.clock.now()),
        // The last server of a fleet has nobody to hand over to, and nobody to forward for.
        ingress: others && ingress.as_ref() == Some(server),
        former: others && former.contains(server),
        forwards: forwards(server, snapshot, &tenants),
        waitlist: waitlist::only_on(world, server).await?,
    })
}

#[cfg(test)]
mod tests {
    use feather_proto::{
        ids::Generation,
        model::{Residence, ServerSnapshot, TenantReport, VolumeReport, VolumeState},
    };
    use time::{Duration, OffsetDateTime};

    use super::{GivenUp, KeptCopy, Loss, copies, forwards, judge};
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
            limits: Default::default(),
        }
    }

    fn there(volumes: Vec<VolumeReport>) -> Vec<KeptCopy> {
        let snapshot = ServerSnapshot { volumes, ..ServerSnapshot::empty("nyc".parse().unwrap()) };
        let rows = [row("alice", Some("fra"), TenantState::Active), row("zoe", None, TenantState::Removed)];
        copies(&snapshot, &rows, NOW)
    }

    fn said(cordoned: bool, copies: &[KeptCopy], discard: bool) -> String {
        let loss = Loss { copies: copies.to_vec(), ..Loss::default() };
        refused(cordoned, &loss, GivenUp { copies: discard, ..GivenUp::default() })
    }

    fn refused(cordoned: bool, loss: &Loss, given_up: GivenUp) -> String {
        judge(&"nyc".parse().unwrap(), cordoned, loss, given_up).map_or_else(|error| error.message, |()| String::new())
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

    #[test]
    fn whoever_is_led_there_would_be_refused_unless_somebody_says_that_nobody_is() {
        let names = GivenUp { names: true, copies: true, waitlist: true };
        let rest = GivenUp { names: false, ..names };
        let bare = Loss::default();
        for (loss, next) in [
            (Loss { ingress: true, ..bare.clone() }, "First `featherctl dns ingress OTHER`"),
            (Loss { former: true, ..bare.clone() }, "Wait until every name server leads elsewhere"),
            (Loss { forwards: vec!["alice".parse().unwrap()], ..bare.clone() }, "still forwards for alice"),
        ] {
            let said = refused(true, &loss, rest);
            assert!(said.contains(next) && said.contains("--dns-elsewhere"), "{loss:?}: {said}");
            assert_eq!(refused(true, &loss, names), "", "{loss:?}");
        }
        assert_eq!(refused(true, &bare, GivenUp::default()), "");
    }

    #[test]
    fn who_signed_up_there_alone_is_counted_and_not_named() {
        let waitlist = |count, problem: Option<&str>| Loss {
            waitlist: super::OnlyThere { count, problem: problem.map(Into::into) },
            ..Loss::default()
        };
        let all_but = GivenUp { copies: true, names: true, waitlist: false };
        let said = refused(true, &waitlist(3, None), all_but);
        assert!(said.starts_with("3 signed up on nyc") && said.contains("`featherctl waitlist export`"), "{said}");
        assert!(refused(true, &waitlist(0, Some("line 3 is damaged")), all_but).contains("line 3 is damaged"));
        assert_eq!(refused(true, &waitlist(0, None), all_but), "");
        assert_eq!(refused(true, &waitlist(3, None), GivenUp { waitlist: true, ..all_but }), "");
    }

    #[test]
    fn only_forwards_for_somebody_who_lives_elsewhere_count() {
        let report = |tenant: &str, residence, forward: Option<&str>| TenantReport {
            forward_to: forward.map(Into::into),
            ..TenantReport::bare(tenant.parse().unwrap(), Generation(1), residence)
        };
        let there = |tenants| {
            let snapshot = ServerSnapshot { tenants, ..ServerSnapshot::empty("nyc".parse().unwrap()) };
            let rows = [row("alice", Some("fra"), TenantState::Active), row("zoe", None, TenantState::Removed)];
            let names = forwards(&"nyc".parse().unwrap(), &snapshot, &rows);
            names.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let departed = Residence::Departed;
        assert_eq!(there(vec![report("alice", departed, Some("fra:8080"))]), ["alice"]);
        assert_eq!(there(vec![report("alice", departed, None), report("zoe", departed, Some("fra:8080"))]), [""; 0]);
    }
}
