//! The plan of a change: what would be created, removed and left alone, and what stands against it. Pure.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{
    bag::{self, Bag, hex},
    change::{Change, Order},
    ledger::{Ledger, Proof, Standing, marker},
    names::Names,
    zone::{Zone, ZoneRecord},
};

/// The one provider with limits sets them for all.
pub use super::dynadot::checks::{APEX_MAX as APEX_RECORDS_MAX, SUB_MAX as SUB_RECORDS_MAX};

/// How many names may change at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cap {
    /// So many.
    Count(usize),
    /// That share of the records that are ours, and at least five.
    Percent(usize),
}

impl Default for Cap {
    fn default() -> Self {
        Cap::Percent(30)
    }
}

impl Cap {
    /// Names that may change when so many records are ours.
    pub fn of(self, owned: usize) -> usize {
        match self {
            Cap::Count(count) => count,
            Cap::Percent(percent) => (owned * percent / 100).max(5),
        }
    }
}

impl std::str::FromStr for Cap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no limit: write a number of names, or a share as 30%");
        match text.strip_suffix('%') {
            Some(percent) => percent.parse().ok().filter(|percent| *percent <= 100).map(Cap::Percent).ok_or_else(wrong),
            None => text.parse().map(Cap::Count).map_err(|_| wrong()),
        }
    }
}

/// Why a wanted name cannot be what it should, or a record of ours cannot go.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Conflict {
    /// The wanted record is there, and was made by somebody else.
    Identical(ZoneRecord),
    /// Somebody else's record stands at the name and excludes the wanted one.
    Occupied {
        /// Wanted.
        wanted: ZoneRecord,
        /// In its way.
        by: ZoneRecord,
    },
    /// Ours, no longer wanted, and somebody made the very same record once more: removing one might remove both.
    Shared(ZoneRecord),
}

impl Conflict {
    /// The name that it is about.
    pub fn host(&self) -> &str {
        match self {
            Conflict::Identical(record) | Conflict::Shared(record) => &record.host,
            Conflict::Occupied { wanted, .. } => &wanted.host,
        }
    }
}

/// A plan, made on one read of the zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// Of the zone that it was made on.
    pub zone_hash: String,
    /// Seconds, as read; sent as it is.
    pub ttl: u32,
    /// Missing.
    pub create: Vec<ZoneRecord>,
    /// Ours and no longer wanted.
    pub remove: Vec<ZoneRecord>,
    /// Ours and as wanted.
    pub kept: usize,
    /// Of others: never touched.
    pub foreign: usize,
    /// What stands against it, name by name.
    pub conflicts: Vec<Conflict>,
    /// Wanted, and the zone has no slot for it.
    pub no_slot: Vec<ZoneRecord>,
    /// Slots in use below the apex, before and after.
    pub slots: (usize, usize),
    /// Slots in use at the apex.
    pub apex_slots: usize,
    /// Nothing may be done, and why.
    pub refusal: Option<Refusal>,
    /// A marker has to be written or tidied up even if no record changes.
    pub marks: bool,
}

/// Why nothing may be done at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The zone does not confirm the ledger.
    Unproven(Proof),
    /// Far fewer records of others than there were.
    Shrunk {
        /// There were so many.
        known: usize,
        /// There are so many.
        found: usize,
    },
}

impl Proposal {
    /// Names that would change.
    pub fn names_changed(&self) -> usize {
        self.create.iter().chain(&self.remove).map(|record| &record.host).collect::<BTreeSet<_>>().len()
    }

    /// Hosts at which the zone is not as wanted. What somebody else made just so is as wanted.
    pub fn unsettled(&self) -> BTreeSet<String> {
        let records = self.create.iter().chain(&self.remove).chain(&self.no_slot).map(|record| record.host.clone());
        let conflicts = self.conflicts.iter().filter(|conflict| !matches!(conflict, Conflict::Identical(_)));
        records.chain(conflicts.map(|conflict| conflict.host().to_owned())).collect()
    }

    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        self.create.is_empty() && self.remove.is_empty() && !self.marks
    }

    /// The same for the same plan on the same zone.
    pub fn digest(&self) -> String {
        let lines = |records: &[ZoneRecord]| records.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        let text = format!("{}\n+{}\n-{}", self.zone_hash, lines(&self.create), lines(&self.remove));
        hex(text.as_bytes())[..16].to_owned()
    }
}

/// Kinds that exclude an address at the same name, of whoever.
const EXCLUDE_ADDRESSES: &[&str] = &["a", "aaaa", "cname", "aname", "forward", "stealth", "ns"];
/// Kinds that exclude a text at the same name.
const EXCLUDE_TEXTS: &[&str] = &["cname", "ns"];

/// A record of others that excludes this one. Addresses of others do, though DNS would allow both: half of the requests would go
/// to somebody else.
pub fn clashing<'a>(wanted: &ZoneRecord, foreign: &'a Bag) -> Option<&'a ZoneRecord> {
    let excluding = if wanted.kind == "txt" { EXCLUDE_TEXTS } else { EXCLUDE_ADDRESSES };
    foreign.records().find(|record| record.host == wanted.host && excluding.contains(&record.kind.as_str()))
}

/// Far fewer than there were: less than half, and three at least. A zone that reads empty is always that, if it never was.
pub fn has_shrunk(known: Option<usize>, found: usize) -> bool {
    known.is_some_and(|known| (found == 0 && known > 0) || (found * 2 < known && found + 3 <= known))
}

/// Of one tenant, and nobody else is led by it.
fn is_an_address_of_its_own(record: &ZoneRecord) -> bool {
    matches!(record.kind.as_str(), "a" | "aaaa") && !record.host.starts_with('*')
}

/// Somebody's record stands at this name or below it, so that no wildcard answers for it.
fn exists_otherwise(host: &str, foreign: &Bag) -> bool {
    let below = format!(".{host}");
    foreign.records().any(|record| record.host == host || record.host.ends_with(&below))
}

/// The plan. `wanted` in the order of importance: what comes first gets a slot first.
pub fn propose(ledger: &Ledger, standing: &Standing, zone: &Zone, wanted: &[ZoneRecord]) -> Proposal {
    let (ours, foreign) = (&standing.ours, &standing.foreign);
    let mut conflicts = BTreeSet::new();
    let mut create = Vec::new();
    for record in wanted.iter().filter(|record| ours.count(record) == 0) {
        match (foreign.count(record), clashing(record, foreign)) {
            (0, None) => create.push(record.clone()),
            (0, Some(by)) => drop(conflicts.insert(Conflict::Occupied { wanted: record.clone(), by: by.clone() })),
            _ => drop(conflicts.insert(Conflict::Identical(record.clone()))),
        }
    }
    // What a call that was repeated brought twice costs a slot and works. It goes in the one way there is, so not at the wildcard,
    // which many depend on and which would be away for a moment.
    let twice: Vec<_> = wanted
        .iter()
        .filter(|record| ours.count(record) > 1 && foreign.count(record) == 0 && !record.host.starts_with('*'))
        .cloned()
        .collect();
    create.splice(0..0, twice.iter().cloned());
    let blocked: BTreeSet<String> = conflicts.iter().map(|conflict| conflict.host().to_owned()).collect();
    let mut remove = twice.clone();
    for record in ours.records().filter(|record| !wanted.contains(record)) {
        // A name whose new record cannot come keeps the old one: it leads to a server that forwards.
        if foreign.count(record) > 0 {
            conflicts.insert(Conflict::Shared(record.clone()));
        } else if !blocked.contains(&record.host) {
            remove.push(record.clone());
        }
    }
    let (apex, sub): (Vec<_>, Vec<_>) = zone.records.iter().partition(|record| record.host.is_empty());
    let removed: usize = remove.iter().map(|record| ours.count(record) as usize).sum();
    let settled = standing.markers.len().min(1);
    let room = (SUB_RECORDS_MAX + removed + standing.markers.len()).saturating_sub(sub.len() + 1);
    let mut no_slot = create.split_off(room.min(create.len()));
    // What many depend on, or what is there for an hour, takes the slots of tenants: the ingress forwards those.
    let waiting = no_slot.iter().filter(|record| !is_an_address_of_its_own(record)).count();
    let led = wanted.iter().any(|record| record.host.starts_with('*') && ours.with(foreign).count(record) > 0);
    let gives_way = |record: &&ZoneRecord| {
        let ours = ours.count(record) == 1 && foreign.count(record) == 0;
        let led = led && !exists_otherwise(&record.host, foreign);
        ours && led && is_an_address_of_its_own(record) && !blocked.contains(&record.host) && !twice.contains(record)
    };
    let displaced: Vec<_> = wanted.iter().rev().filter(gives_way).take(waiting).cloned().collect();
    create.extend(no_slot.drain(..displaced.len()));
    let removed = removed + displaced.len();
    remove.extend(displaced.iter().cloned());
    no_slot.extend(displaced);
    let marks = standing.proof == Proof::Unmarked || standing.markers.len() > settled;
    let after = (sub.len() + create.len()).saturating_sub(removed);
    let marker_more = usize::from(settled == 0 && !create.is_empty());
    let refusal = if !standing.proof.holds() {
        Some(Refusal::Unproven(standing.proof.clone()))
    } else if has_shrunk(ledger.foreign_known, foreign.len()) {
        Some(Refusal::Shrunk { known: ledger.foreign_known.unwrap_or_default(), found: foreign.len() })
    } else {
        None
    };
    Proposal {
        zone_hash: bag::hash(zone),
        ttl: zone.ttl,
        kept: ours.len() - removed,
        foreign: foreign.len(),
        create,
        remove,
        conflicts: conflicts.into_iter().collect(),
        no_slot,
        slots: (sub.len(), after + marker_more),
        apex_slots: apex.len(),
        refusal,
        marks,
    }
}

/// The first change of a plan: all of it if the zone has the slots for that, otherwise as much as fits. None when nothing is to do.
pub fn first_change(
    names: &Names,
    ledger: &Ledger,
    standing: &Standing,
    proposal: &Proposal,
    zone: &Zone,
) -> Option<Change> {
    if proposal.is_empty() {
        return None;
    }
    let sub = zone.records.iter().filter(|record| !record.host.is_empty()).count();
    let (order, append, gone) = part(proposal, standing, SUB_RECORDS_MAX.saturating_sub(sub));
    let generation = ledger.generation + 1;
    let gone_bag: Bag = gone.iter().collect();
    let kept: Vec<(ZoneRecord, u32)> =
        standing.ours.iter().filter(|(record, _)| gone_bag.count(record) == 0).map(|(r, n)| (r.clone(), n)).collect();
    let after = Bag::from(kept).with(&append.iter().collect());
    Some(Change {
        generation,
        order,
        marker: marker(names, &ledger.owner, generation, &after),
        append,
        remove: gone.into_iter().chain(standing.markers.records().cloned()).collect(),
        previous: ledger.marker.clone(),
        owned: standing.ours.clone(),
        markers: standing.markers.clone(),
        adopting: Bag::default(),
        after,
        foreign: standing.foreign.clone(),
        ttl: zone.ttl,
        replace: None,
        unproven: false,
        appends: 0,
        removes: 0,
        sent_ms: 0,
    })
}

/// What of a plan is done first, with this many free slots.
fn part(proposal: &Proposal, standing: &Standing, free: usize) -> (Order, Vec<ZoneRecord>, Vec<ZoneRecord>) {
    // A CNAME of ours, once adopted, and an address exclude each other: name by name, the old one first.
    // So do two copies of one record.
    let excluded =
        proposal.create.iter().find(|record| clashing_kind(record, &standing.ours) || proposal.remove.contains(record));
    if let Some(record) = excluded {
        return (Order::RemoveFirst, at(&proposal.create, &record.host), at(&proposal.remove, &record.host));
    }
    if proposal.create.len() < free {
        return (Order::AppendFirst, proposal.create.clone(), proposal.remove.clone());
    }
    let replaced = |record: &ZoneRecord| proposal.create.iter().any(|one| one.host == record.host);
    let only_removed: Vec<_> = proposal.remove.iter().filter(|record| !replaced(record)).cloned().collect();
    if !only_removed.is_empty() {
        let order = if free > 0 { Order::AppendFirst } else { Order::RemoveFirst };
        return (order, Vec::new(), only_removed);
    }
    if free >= 2 {
        let some: Vec<_> = proposal.create.iter().take(free - 1).cloned().collect();
        let theirs =
            proposal.remove.iter().filter(|record| some.iter().any(|one| one.host == record.host)).cloned().collect();
        return (Order::AppendFirst, some, theirs);
    }
    let host = proposal
        .create
        .iter()
        .find(|record| !at(&proposal.remove, &record.host).is_empty())
        .map(|one| one.host.clone());
    let host = host.or_else(|| proposal.create.first().map(|one| one.host.clone())).unwrap_or_default();
    (Order::RemoveFirst, at(&proposal.create, &host), at(&proposal.remove, &host))
}

fn at(records: &[ZoneRecord], host: &str) -> Vec<ZoneRecord> {
    records.iter().filter(|record| record.host == host).cloned().collect()
}

fn clashing_kind(wanted: &ZoneRecord, ours: &Bag) -> bool {
    ours.at(&wanted.host).any(|record| (record.kind == "cname") != (wanted.kind == "cname"))
}
