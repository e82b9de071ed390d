//! What a person should know of the zone, in sentences that end in what to type. Pure. One source for whoever asks how DNS stands and
//! for the warnings of the fleet.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    names::Names,
    plan::{self, Wanted},
    propose::Conflict,
    zone::ZoneRecord,
};
use crate::warnings::Kind;

/// Something a person should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// What kind of warning it is.
    pub kind: Kind,
    /// Which name or server it is about; empty for the zone.
    pub about: String,
    /// The sentence.
    pub message: String,
}

/// What one pass over the zone found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Something of others that changed while ours did, in a sentence.
    pub noticed: Option<String>,
    /// What stands in the way.
    pub conflicts: Vec<Conflict>,
    /// Wanted, and the zone has no slot for it.
    pub no_slot: Vec<ZoneRecord>,
    /// Of others, under the suffix.
    pub among_ours: Vec<ZoneRecord>,
}

/// Everything that one pass found, for a person.
pub fn remarks(names: &Names, wanted: &Wanted, found: &Found) -> Vec<Remark> {
    let zone = |kind, message| Remark { kind, about: String::new(), message };
    let mut remarks: Vec<_> = found.noticed.clone().into_iter().map(|text| zone(Kind::DnsNoticed, text)).collect();
    remarks.extend(found.conflicts.iter().map(|conflict| Remark {
        kind: Kind::DnsConflict,
        about: names.full(conflict.host()),
        message: explain(names, conflict),
    }));
    let forwarded = forwarded(names, wanted, &found.no_slot).len();
    if forwarded > 0 {
        let ingress = wanted.ingress.as_ref().map(ToString::to_string).unwrap_or_default();
        let message =
            format!("tenants that the ingress {ingress} forwards, for want of a record of their own: {forwarded}");
        remarks.push(zone(Kind::DnsForwarded, message));
    }
    let no_room =
        found.no_slot.iter().filter(|record| names.tenant(&record.host).is_none_or(|name| name == plan::WILDCARD));
    remarks.extend(no_room.map(|record| Remark {
        kind: Kind::DnsConflict,
        about: names.full(&record.host),
        message: format!(
            "{} cannot be made: the zone is full. `featherctl dns records` shows what is in it; remove what is not needed \
             any more where it was made",
            names.full(&record.host)
        ),
    }));
    remarks.extend(hidden(names, wanted, found));
    remarks.extend(wanted.unaddressable.iter().map(|server| Remark {
        kind: Kind::DnsAddress,
        about: server.to_string(),
        message: format!("no record can lead to {server}: the public address is no IP address"),
    }));
    remarks
}

/// A wildcard answers for no name that exists, whatever the type of its record, nor for one that only names below it make exist.
fn hidden<'a>(names: &'a Names, wanted: &'a Wanted, found: &'a Found) -> impl Iterator<Item = Remark> + 'a {
    let without: BTreeSet<String> = forwarded(names, wanted, &found.no_slot).into_iter().collect();
    let by_wildcard =
        move |tenant: &str| without.contains(tenant) || wanted.at_ingress.iter().any(|one| one.as_str() == tenant);
    let told: BTreeSet<&str> = found.conflicts.iter().map(Conflict::host).collect();
    let hiding = found.among_ours.iter().filter_map(|record| Some((names.above(&record.host)?, record)));
    let hiding: BTreeMap<&str, &ZoneRecord> = hiding.collect();
    let hiding = hiding.into_iter().filter(move |(tenant, _)| by_wildcard(tenant));
    hiding.filter(move |(tenant, _)| !told.contains(names.host(tenant).as_str())).map(|(tenant, record)| {
        let (name, by) = (names.full(&names.host(tenant)), names.full(&record.host));
        Remark {
            kind: Kind::DnsConflict,
            about: name.clone(),
            message: format!(
                "{name} is not led to {tenant} by the wildcard: somebody made a record of type {} at {by}, and a name that exists has \
                 none of what the wildcard says; remove it where it was made",
                record.kind
            ),
        }
    })
}

/// Tenants that only the ingress leads to.
pub fn forwarded(names: &Names, wanted: &Wanted, no_slot: &[ZoneRecord]) -> Vec<String> {
    let without_slot = no_slot.iter().filter_map(|record| names.tenant(&record.host)).map(ToOwned::to_owned);
    wanted.over_budget.iter().map(ToString::to_string).chain(without_slot).collect()
}

/// A conflict, and what to do about it.
pub fn explain(names: &Names, conflict: &Conflict) -> String {
    let name = names.full(conflict.host());
    let typed = names.tenant(conflict.host()).map_or_else(|| name.clone(), shell);
    let adopt = format!("`featherctl dns adopt {typed}`");
    match conflict {
        Conflict::Identical(_) => {
            format!("{name} is as wanted and was made by somebody else; {adopt} lets the fleet change it later")
        }
        Conflict::Occupied { by, .. } => match by.kind.as_str() {
            "a" | "aaaa" | "cname" => {
                format!("{name} leads to {} and is not ours; {adopt} lets the fleet change it", by.value)
            }
            kind => format!("{name} has a record of type {kind} that is not ours; remove it where it was made"),
        },
        Conflict::Shared(_) => format!(
            "{name} is no longer wanted, and somebody made the same record once more: removing ours might remove theirs; remove it \
             where it was made, or let the fleet do it after {adopt}"
        ),
    }
}

/// A wildcard is quoted, so that a shell passes it on.
fn shell(name: &str) -> String {
    if name == plan::WILDCARD { format!("'{name}'") } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::{Found, Kind, Names, Wanted, ZoneRecord, remarks};

    #[test]
    fn whom_the_wildcard_does_not_lead_to_is_named() {
        let names = Names::new("example.com", "users.example.com").unwrap();
        let theirs = |host: &str| ZoneRecord {
            host: host.into(),
            kind: "txt".into(),
            value: "hello".into(),
            extra: String::new(),
        };
        let wanted = Wanted {
            at_ingress: ["alice", "bob"].map(|name| name.parse().unwrap()).into(),
            over_budget: vec!["carol".parse().unwrap()],
            ..Wanted::default()
        };
        // Dave has a record of his own, or is not there at all.
        let among_ours =
            ["_x.bob.users", "carol.users", "dave.users", "users", "*.users", "_feather.users"].map(theirs);
        let found = Found { among_ours: among_ours.into(), ..Found::default() };
        let remarks = remarks(&names, &wanted, &found);
        let hidden: Vec<_> = remarks.iter().filter(|remark| remark.kind == Kind::DnsConflict).collect();
        let about: Vec<_> = hidden.iter().map(|remark| remark.about.as_str()).collect();
        assert_eq!(about, ["bob.users.example.com", "carol.users.example.com"]);
        assert!(hidden[0].message.contains("type txt at _x.bob.users.example.com"), "{}", hidden[0].message);
    }

    #[test]
    fn what_has_no_slot_and_nobody_forwards_is_named() {
        let names = Names::new("example.com", "users.example.com").unwrap();
        let record = |host: &str, kind: &str| ZoneRecord {
            host: host.into(),
            kind: kind.into(),
            value: "192.0.2.1".into(),
            extra: String::new(),
        };
        let no_slot = vec![record("_acme-challenge.users", "txt"), record("alice.users", "a"), record("*.users", "a")];
        let remarks = remarks(&names, &Wanted::default(), &Found { no_slot, ..Found::default() });
        let about: Vec<_> =
            remarks.iter().filter(|one| one.kind == Kind::DnsConflict).map(|one| one.about.as_str()).collect();
        assert_eq!(about, ["_acme-challenge.users.example.com", "*.users.example.com"]);
    }
}
