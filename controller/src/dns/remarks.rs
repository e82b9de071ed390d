//! What a person should know of the zone, in sentences that end in what to type. Pure. One source for whoever asks how DNS stands and
//! for the warnings of the fleet.

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
    remarks.extend(wanted.unaddressable.iter().map(|server| Remark {
        kind: Kind::DnsAddress,
        about: server.to_string(),
        message: format!("no record can lead to {server}: the public address is no IP address"),
    }));
    remarks
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
