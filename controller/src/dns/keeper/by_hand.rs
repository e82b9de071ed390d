//! What only a person asks for: adopting records, restoring a snapshot.

use std::collections::BTreeSet;

use feather_proto::error::{Error, reason};

use super::{Keeper, Kept, judge};
use crate::dns::{
    bag::{Bag, hash},
    change::{Change, Order},
    ledger::{Ledger, Standing, attribute, marker, markers},
    names::Names,
    propose::{SUB_RECORDS_MAX, clashing},
    zone::{Zone, ZoneRecord},
};
use crate::store::dns::SnapshotRow;

/// Kinds that can be adopted: what the fleet would put in their place.
const ADOPTABLE: &[&str] = &["a", "aaaa", "cname"];

/// What is adopted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adoption {
    /// Become ours as they are.
    pub records: Vec<ZoneRecord>,
}

/// What restoring a snapshot comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restoration {
    /// Come back.
    pub create: Vec<ZoneRecord>,
    /// Go.
    pub remove: Vec<ZoneRecord>,
    /// Stay.
    pub kept: usize,
    /// TTL of the zone now, and then; seconds.
    pub ttl: (u32, u32),
    /// Of the zone as it is now.
    pub zone_hash: String,
}

impl Keeper {
    /// Takes records at these hosts over as ours, without touching them. Without hosts: those that the ledger calls ours, when the
    /// zone does not confirm it. `take_over`: whatever markers are there give way.
    pub async fn adopt(&self, hosts: &[String], take_over: bool, dry_run: bool) -> Result<Adoption, Error> {
        let _turn = self.turn.lock().await;
        let (ledger, version) = self.ledger().await?;
        if ledger.pending.is_some() {
            return Err(under_way());
        }
        let zone = self.read().await?;
        let standing = attribute(&self.names, &ledger, &zone);
        let change = plan_adoption(&self.names, &ledger, &standing, &zone, hosts, take_over)?;
        let adoption = Adoption { records: change.adopting.records().cloned().collect() };
        if dry_run {
            return Ok(adoption);
        }
        let mut writer = self.write_on(ledger, version).await?;
        let done = async {
            self.keep_snapshot(&zone, &standing, &super::told(&change)).await?;
            self.begin(&mut writer, change);
            self.drive(&mut writer, Some(zone), false).await
        }
        .await;
        self.hand_back(writer).await;
        done.map(|_| adoption)
    }

    /// Brings the records of others back as a snapshot has them; ours stay as they are. `confirmed`: the hash of the zone for which
    /// that was shown; none for a dry run.
    pub async fn restore(&self, snapshot: i64, confirmed: Option<&str>) -> Result<Restoration, Error> {
        let _turn = self.turn.lock().await;
        let kept = self.snapshot(snapshot).await?.1;
        let (mut ledger, version) = self.ledger().await?;
        let zone = self.read().await?;
        if let Some(change) = ledger.pending.take() {
            // What went wrong in the middle of a change is a reason to restore; it ends here with what is there.
            ledger = crate::dns::change::settle(&ledger, &change, &zone, self.now_ms());
        }
        let change = plan_restoration(&self.names, &ledger, &zone, &kept);
        let target = change.replace.clone().unwrap_or_default();
        let (now, then) = (Bag::of(&zone), Bag::of(&target));
        let shown = |bag: &Bag| bag.without(&change.markers).without(&[&change.marker].into_iter().collect()).listed();
        let restoration = Restoration {
            create: shown(&then.without(&now)),
            remove: shown(&now.without(&then)),
            kept: now.common(&then).len(),
            ttl: (zone.ttl, target.ttl),
            zone_hash: hash(&zone),
        };
        if let Some(why) = self.provider.objection(&target) {
            let message = format!("the provider does not take the zone as snapshot {snapshot} has it: {why}");
            return Err(Error::refused(reason::DNS, message));
        }
        let Some(confirmed) = confirmed else { return Ok(restoration) };
        if confirmed != restoration.zone_hash {
            let message = "the zone has changed since this was shown; nothing was changed. Look again with `featherctl dns restore --dry-run`";
            return Err(Error::stale(reason::WORLD_CHANGED, message));
        }
        let mut writer = self.write_on(ledger, version).await?;
        let done = async {
            let standing = attribute(&self.names, &writer.ledger, &zone);
            self.keep_snapshot(&zone, &standing, &format!("restore of {snapshot}")).await?;
            self.begin(&mut writer, change);
            self.drive(&mut writer, Some(zone), true).await
        }
        .await;
        self.hand_back(writer).await;
        done.map(|_| restoration)
    }

    /// One snapshot, with when and why it was taken.
    pub async fn snapshot(&self, id: i64) -> Result<(SnapshotRow, Kept), Error> {
        let rows = self.store.dns_snapshots(&self.key).await?;
        let row = rows.into_iter().find(|row| row.id == id).ok_or_else(|| {
            let message = format!("there is no snapshot {id}; `featherctl dns snapshots` shows them");
            Error::not_found(reason::DNS_NOT_FOUND, message)
        })?;
        let kept = read_kept(&row)?;
        Ok((row, kept))
    }

    /// All snapshots, the newest first.
    pub async fn snapshots(&self) -> Result<Vec<(SnapshotRow, Kept)>, Error> {
        let rows = self.store.dns_snapshots(&self.key).await?;
        rows.into_iter().map(|row| read_kept(&row).map(|kept| (row, kept))).collect()
    }
}

pub(super) fn read_kept(row: &SnapshotRow) -> Result<Kept, Error> {
    serde_json::from_str(&row.content).map_err(|error| Error::bug(format!("snapshot {}: {error}", row.id)))
}

fn under_way() -> Error {
    let message = "a change of the zone is under way; `featherctl dns status` shows how far it is";
    Error::refused(reason::OPERATION_RUNNING, message)
}

fn plan_adoption(
    names: &Names,
    ledger: &Ledger,
    standing: &Standing,
    zone: &Zone,
    hosts: &[String],
    take_over: bool,
) -> Result<Change, Error> {
    if !standing.proof.holds() && !take_over {
        return Err(judge::unproven(&standing.proof));
    }
    let outside: Vec<_> = hosts.iter().filter(|host| !names.covers(host)).map(|host| names.full(host)).collect();
    if !outside.is_empty() {
        let message = format!("{} is not under the fleet's suffix, so it can never be ours", outside.join(", "));
        return Err(Error::invalid(reason::INVALID_FIELD, message));
    }
    if hosts.is_empty() && (!take_over || standing.proof.holds()) {
        let message =
            "say which names: `featherctl dns plan` shows those that stand in the way, with the command to adopt them";
        return Err(Error::invalid(reason::INVALID_FIELD, message));
    }
    let foreign = &standing.foreign;
    let mut adopting = if hosts.is_empty() { foreign.common(&ledger.owned) } else { Bag::default() };
    for host in hosts {
        let before = adopting.len();
        let found =
            foreign.iter().filter(|(record, _)| record.host == *host && ADOPTABLE.contains(&record.kind.as_str()));
        found.for_each(|(record, copies)| adopting.add(record, copies));
        if adopting.len() == before {
            let message = format!(
                "{} has no address or alias that is not ours already; `featherctl dns records` shows the zone",
                names.full(host)
            );
            return Err(Error::not_found(reason::DNS_NOT_FOUND, message));
        }
    }
    let all = Bag::of(zone);
    let found = markers(names, &all);
    let newest = found.iter().filter(|(_, one)| one.owner == ledger.owner).map(|(_, one)| one.generation).max();
    let generation = ledger.generation.max(newest.unwrap_or_default()) + 1;
    let replaced: Bag = if standing.proof.holds() {
        standing.markers.clone()
    } else {
        Bag::from(found.iter().map(|(record, _)| ((*record).clone(), all.count(record))).collect::<Vec<_>>())
    };
    let after = standing.ours.with(&adopting);
    let sub = zone.records.iter().filter(|record| !record.host.is_empty()).count();
    let full = sub >= SUB_RECORDS_MAX;
    Ok(Change {
        generation,
        order: if full { Order::RemoveFirst } else { Order::AppendFirst },
        marker: marker(names, &ledger.owner, generation, &after),
        append: Vec::new(),
        remove: replaced.records().cloned().collect(),
        previous: ledger.marker.clone(),
        owned: standing.ours.clone(),
        foreign: foreign.without(&adopting).without(&replaced),
        markers: replaced,
        adopting,
        after,
        ttl: zone.ttl,
        replace: None,
        unproven: !standing.proof.holds(),
        appends: 0,
        removes: 0,
        sent_ms: 0,
    })
}

/// Theirs as they were, ours as they are. A zone that lost our records too gets those of the ledger.
fn plan_restoration(names: &Names, ledger: &Ledger, zone: &Zone, kept: &Kept) -> Change {
    let generation = ledger.generation + 1;
    // What was adopted since the snapshot is ours now, and must not come twice.
    let foreign = Bag::of(&kept.zone).without(&kept.ours).without(&ledger.owned);
    let marker = marker(names, &ledger.owner, generation, &ledger.owned);
    let standing = attribute(names, ledger, zone);
    let mut target = foreign.with(&ledger.owned).listed();
    target.push(marker.clone());
    target.sort();
    // A record of others at a name that is ours by now excludes it; what is ours stays.
    let taken: BTreeSet<&str> = ledger.owned.records().map(|record| record.host.as_str()).collect();
    let excluded = |record: &ZoneRecord| {
        taken.contains(record.host.as_str())
            && ledger.owned.count(record) == 0
            && clashing(record, &ledger.owned).is_some()
    };
    target.retain(|record| !excluded(record));
    let theirs = Bag::of(&Zone { ttl: 0, records: target.clone() })
        .without(&ledger.owned)
        .without(&[&marker].into_iter().collect());
    Change {
        generation,
        order: Order::Replace,
        marker,
        append: Vec::new(),
        remove: Vec::new(),
        previous: ledger.marker.clone(),
        owned: standing.ours.clone(),
        markers: standing.markers.clone(),
        adopting: Bag::default(),
        after: ledger.owned.clone(),
        foreign: theirs,
        ttl: kept.zone.ttl,
        replace: Some(Zone { ttl: kept.zone.ttl, records: target }),
        unproven: !standing.proof.holds(),
        appends: 0,
        removes: 0,
        sent_ms: 0,
    }
}
