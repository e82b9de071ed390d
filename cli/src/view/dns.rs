//! The zone as it is shown.

use feather_proto::pb::controller::v1 as pb;
use serde::Serialize;

use super::{Moment, moment, set};
use crate::{
    output::{pairs, table},
    units,
};

#[derive(Debug, Clone, Serialize)]
pub(crate) struct RecordView {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) value: String,
    pub(crate) extra: Option<String>,
    pub(crate) owned: bool,
}

impl From<pb::DnsRecord> for RecordView {
    fn from(pb: pb::DnsRecord) -> Self {
        Self { name: pb.name, kind: pb.kind, value: pb.value, extra: set(pb.extra), owned: pb.owned }
    }
}

impl RecordView {
    fn line(&self) -> String {
        let extra = self.extra.as_ref().map(|extra| format!(" {extra}")).unwrap_or_default();
        format!("{} {} {}{extra}", self.name, self.kind.to_uppercase(), self.value)
    }
}

fn all(records: Vec<pb::DnsRecord>) -> Vec<RecordView> {
    records.into_iter().map(RecordView::from).collect()
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct RecordsView {
    pub(crate) ttl_seconds: u32,
    pub(crate) records: Vec<RecordView>,
}

impl From<pb::ListDnsRecordsResponse> for RecordsView {
    fn from(pb: pb::ListDnsRecordsResponse) -> Self {
        Self { ttl_seconds: pb.ttl_seconds, records: all(pb.records) }
    }
}

/// All records, with whose they are.
pub(crate) fn records(records: &[RecordView]) -> String {
    if records.is_empty() {
        return String::new();
    }
    let rows: Vec<_> = records
        .iter()
        .map(|one| {
            let owner = if one.owned { "fleet" } else { "others" };
            let value = one.extra.as_ref().map_or_else(|| one.value.clone(), |extra| format!("{} {extra}", one.value));
            [one.name.clone(), one.kind.to_uppercase(), owner.to_owned(), value]
        })
        .collect();
    table(["NAME", "TYPE", "OWNER", "VALUE"], &rows)
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct ConflictView {
    pub(crate) kind: &'static str,
    pub(crate) wanted: Option<RecordView>,
    pub(crate) present: Option<RecordView>,
    pub(crate) explanation: String,
}

impl From<pb::DnsConflict> for ConflictView {
    fn from(pb: pb::DnsConflict) -> Self {
        let kind = match pb.kind() {
            pb::DnsConflictKind::Unspecified => "unknown",
            pb::DnsConflictKind::Identical => "identical",
            pb::DnsConflictKind::Occupied => "occupied",
            pb::DnsConflictKind::Shared => "shared",
        };
        let (wanted, present) = (pb.wanted.map(RecordView::from), pb.present.map(RecordView::from));
        Self { kind, wanted, present, explanation: pb.explanation }
    }
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct PlanView {
    pub(crate) plan: String,
    pub(crate) expires: Option<Moment>,
    pub(crate) zone: String,
    pub(crate) ttl_seconds: u32,
    pub(crate) create: Vec<RecordView>,
    pub(crate) remove: Vec<RecordView>,
    pub(crate) kept: u32,
    pub(crate) foreign: u32,
    pub(crate) conflicts: Vec<ConflictView>,
    pub(crate) no_slot: Vec<RecordView>,
    pub(crate) slots_used: u32,
    pub(crate) slots_after: u32,
    pub(crate) slots_max: u32,
    pub(crate) apex_used: u32,
    pub(crate) apex_max: u32,
    pub(crate) changes: u32,
    pub(crate) changes_max: u32,
    pub(crate) refusal: Option<String>,
    pub(crate) ingress: Option<String>,
    pub(crate) forwarded: Vec<String>,
    pub(crate) unaddressable_servers: Vec<String>,
    pub(crate) pending: bool,
}

impl From<pb::DnsPlan> for PlanView {
    fn from(pb: pb::DnsPlan) -> Self {
        Self {
            plan: pb.plan,
            expires: moment!(pb.expires),
            zone: pb.zone,
            ttl_seconds: pb.ttl_seconds,
            create: all(pb.create),
            remove: all(pb.remove),
            kept: pb.kept,
            foreign: pb.foreign,
            conflicts: pb.conflicts.into_iter().map(ConflictView::from).collect(),
            no_slot: all(pb.no_slot),
            slots_used: pb.slots_used,
            slots_after: pb.slots_after,
            slots_max: pb.slots_max,
            apex_used: pb.apex_used,
            apex_max: pb.apex_max,
            changes: pb.changes,
            changes_max: pb.changes_max,
            refusal: set(pb.refusal),
            ingress: set(pb.ingress),
            forwarded: pb.forwarded,
            unaddressable_servers: pb.unaddressable_servers,
            pending: pb.pending,
        }
    }
}

impl PlanView {
    /// Nothing to do.
    pub(crate) fn is_done(&self) -> bool {
        self.create.is_empty() && self.remove.is_empty() && !self.pending && self.refusal.is_none()
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for (sign, records) in [("+", &self.create), ("-", &self.remove)] {
            records.iter().for_each(|one| text.push_str(&format!("{sign} {}\n", one.line())));
        }
        self.conflicts.iter().for_each(|one| text.push_str(&format!("! {}\n", one.explanation)));
        self.no_slot.iter().for_each(|one| text.push_str(&format!("! no room for {}\n", one.line())));
        let foreign = units::counted(u64::from(self.foreign), "record");
        let records = format!("{} of {} now, {} then", self.slots_used, self.slots_max, self.slots_after);
        text.push_str(&pairs(&[
            ("zone", self.zone.clone()),
            ("untouched", format!("{} of the fleet, {foreign} of others", self.kept)),
            ("ttl", format!("{} s, as it is", self.ttl_seconds)),
            ("records", format!("{records}; {} of {} at the domain itself", self.apex_used, self.apex_max)),
            ("names changed", format!("{}, {} at once without --max-changes", self.changes, self.changes_max)),
            ("ingress", self.ingress.clone().unwrap_or_default()),
            ("forwarded by it", self.forwarded.join(", ")),
            ("plan", format!("{}, until {}", self.plan, self.expires.map(|at| at.to_string()).unwrap_or_default())),
        ]));
        text
    }

    /// What a person should know besides.
    pub(crate) fn remarks(&self) -> Vec<String> {
        let mut remarks: Vec<String> = self.refusal.iter().cloned().collect();
        if !self.unaddressable_servers.is_empty() {
            let servers = self.unaddressable_servers.join(", ");
            remarks.push(format!("no record can lead to {servers}: the public address is no IP address"));
        }
        if self.pending {
            remarks.push("a change is under way; this is what remains after it".to_owned());
        }
        if self.is_done() && self.conflicts.is_empty() {
            remarks.push("The zone is as wanted.".to_owned());
        } else if !self.is_done() && self.refusal.is_none() {
            remarks.push("`featherctl dns apply` does this.".to_owned());
        }
        remarks
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct AppliedView {
    pub(crate) created: u32,
    pub(crate) removed: u32,
    pub(crate) owned: u32,
    pub(crate) snapshot: Option<i64>,
    pub(crate) noticed: Option<String>,
}

impl From<pb::ApplyDnsResponse> for AppliedView {
    fn from(pb: pb::ApplyDnsResponse) -> Self {
        let snapshot = Some(pb.snapshot).filter(|id| *id != 0);
        Self { created: pb.created, removed: pb.removed, owned: pb.owned, snapshot, noticed: set(pb.noticed) }
    }
}

impl AppliedView {
    /// The zone was as wanted.
    pub(crate) fn nothing(plan: &PlanView) -> Self {
        Self { created: 0, removed: 0, owned: plan.kept, snapshot: None, noticed: None }
    }

    pub(crate) fn told(&self) -> String {
        let snapshot = self.snapshot.map(|id| format!("; the zone of before is snapshot {id}")).unwrap_or_default();
        let owned = units::counted(u64::from(self.owned), "record");
        format!("{} created, {} removed, read back; {owned} of the fleet{snapshot}", self.created, self.removed)
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct AnswerView {
    pub(crate) server: String,
    pub(crate) values: Vec<String>,
    pub(crate) as_wanted: bool,
    pub(crate) since: Option<Moment>,
    pub(crate) problem: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct NameView {
    pub(crate) name: String,
    pub(crate) wanted: Vec<String>,
    pub(crate) in_zone: bool,
    pub(crate) changed: Option<Moment>,
    pub(crate) answers: Vec<AnswerView>,
    pub(crate) converged: bool,
    pub(crate) converged_since: Option<Moment>,
}

impl From<pb::DnsName> for NameView {
    fn from(pb: pb::DnsName) -> Self {
        let answer = |pb: pb::DnsAnswer| AnswerView {
            server: pb.server,
            values: pb.values,
            as_wanted: pb.as_wanted,
            since: moment!(pb.since),
            problem: set(pb.problem),
        };
        Self {
            name: pb.name,
            wanted: pb.wanted,
            in_zone: pb.in_zone,
            changed: moment!(pb.changed),
            answers: pb.answers.into_iter().map(answer).collect(),
            converged: pb.converged,
            converged_since: moment!(pb.converged_since),
        }
    }
}

impl NameView {
    fn row(&self) -> [String; 4] {
        // What is not in the zone did not change yet.
        let since = self.converged_since.or(self.changed).filter(|_| self.in_zone);
        [
            self.name.clone(),
            self.wanted.join(" "),
            self.state(),
            since.map(|at| format!("{} ago", at.age())).unwrap_or_default(),
        ]
    }

    /// How far it is, and who lags.
    fn state(&self) -> String {
        let good = self.answers.iter().filter(|answer| answer.as_wanted).count();
        match self.answers.iter().find(|answer| !answer.as_wanted) {
            _ if !self.in_zone => "not in the zone yet".to_owned(),
            _ if self.converged => "arrived".to_owned(),
            _ if self.answers.is_empty() => "in the zone".to_owned(),
            // All of them say so, and what they say of the wildcard may not be so yet.
            None => format!("in the zone, at {good} of {} name servers", self.answers.len()),
            Some(late) => {
                let server = &late.server;
                let says = match (&late.problem, late.values.is_empty()) {
                    (Some(problem), _) => format!("{server} does not answer: {problem}"),
                    (None, true) => format!("{server} does not know it yet"),
                    (None, false) => format!("{server} still says {}", late.values.join(" ")),
                };
                format!("in the zone, at {good} of {} name servers; {says}", self.answers.len())
            }
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct StatusView {
    pub(crate) mode: String,
    pub(crate) zone: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) problem: Option<String>,
    pub(crate) looked: Option<Moment>,
    pub(crate) names: Vec<NameView>,
    pub(crate) plan: Option<PlanView>,
    pub(crate) warnings: Vec<String>,
}

impl From<pb::GetDnsStatusResponse> for StatusView {
    fn from(pb: pb::GetDnsStatusResponse) -> Self {
        Self {
            mode: pb.mode,
            zone: set(pb.zone),
            message: set(pb.message),
            problem: set(pb.problem),
            looked: moment!(pb.looked),
            names: pb.names.into_iter().map(NameView::from).collect(),
            plan: pb.plan.map(PlanView::from),
            warnings: pb.warnings,
        }
    }
}

impl StatusView {
    pub(crate) fn text(&self) -> String {
        let records = self.plan.as_ref().map(|plan| format!("{} of {} in use", plan.slots_used, plan.slots_max));
        let mode = match self.mode.as_str() {
            "auto" => "auto: the controller changes the zone by itself".to_owned(),
            "manual" => "manual: the zone is changed by `featherctl dns apply` alone".to_owned(),
            other => other.to_owned(),
        };
        let unknown = self.zone.is_some() && self.problem.is_none();
        let state =
            self.message.clone().or_else(|| unknown.then(|| "not known: no look at the zone has ended".to_owned()));
        let mut text = pairs(&[
            ("mode", mode),
            ("zone", self.zone.clone().unwrap_or_default()),
            ("looked", self.looked.map(|at| format!("{} ago", at.age())).unwrap_or_default()),
            ("state", state.unwrap_or_default()),
            ("problem", self.problem.clone().unwrap_or_default()),
            ("records", records.unwrap_or_default()),
            ("ingress", self.plan.as_ref().and_then(|plan| plan.ingress.clone()).unwrap_or_default()),
        ]);
        if !self.names.is_empty() {
            let rows: Vec<_> = self.names.iter().map(NameView::row).collect();
            text.push('\n');
            text.push_str(&table(["NAME", "SHOULD LEAD TO", "STATE", "SINCE"], &rows));
        }
        text
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct SnapshotView {
    pub(crate) id: i64,
    pub(crate) taken: Option<Moment>,
    pub(crate) reason: String,
    pub(crate) records: u32,
    pub(crate) owned: u32,
    pub(crate) ttl_seconds: u32,
}

impl From<pb::DnsSnapshot> for SnapshotView {
    fn from(pb: pb::DnsSnapshot) -> Self {
        Self {
            id: pb.id,
            taken: moment!(pb.taken),
            reason: pb.reason,
            records: pb.records,
            owned: pb.owned,
            ttl_seconds: pb.ttl_seconds,
        }
    }
}

pub(crate) fn snapshots(snapshots: &[SnapshotView]) -> String {
    let row = |one: &SnapshotView| {
        let taken = one.taken.map(|at| at.to_string()).unwrap_or_default();
        let others = one.records.saturating_sub(one.owned);
        [
            one.id.to_string(),
            taken,
            one.owned.to_string(),
            others.to_string(),
            one.ttl_seconds.to_string(),
            one.reason.clone(),
        ]
    };
    let rows: Vec<_> = snapshots.iter().map(row).collect();
    table(["SNAPSHOT", "TAKEN", "FLEET", "OTHERS", "TTL", "BEFORE"], &rows)
}

#[derive(Debug, Serialize)]
pub(crate) struct RestoreView {
    pub(crate) snapshot: i64,
    pub(crate) dry_run: bool,
    pub(crate) create: Vec<RecordView>,
    pub(crate) remove: Vec<RecordView>,
    pub(crate) kept: u32,
    pub(crate) ttl_seconds_before: u32,
    pub(crate) ttl_seconds_after: u32,
}

impl RestoreView {
    pub(crate) fn new(snapshot: i64, dry_run: bool, pb: pb::RestoreDnsSnapshotResponse) -> Self {
        Self {
            snapshot,
            dry_run,
            create: all(pb.create),
            remove: all(pb.remove),
            kept: pb.kept,
            ttl_seconds_before: pb.ttl_seconds_before,
            ttl_seconds_after: pb.ttl_seconds_after,
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.create.is_empty() && self.remove.is_empty() && self.ttl_seconds_before == self.ttl_seconds_after
    }

    /// What has to be typed: `+7-1`.
    pub(crate) fn counts(&self) -> String {
        format!("+{}-{}", self.create.len(), self.remove.len())
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for (sign, records) in [("+", &self.create), ("-", &self.remove)] {
            records.iter().for_each(|one| text.push_str(&format!("{sign} {}\n", one.line())));
        }
        text.push_str(&pairs(&[
            ("untouched", units::counted(u64::from(self.kept), "record")),
            ("ttl", format!("{} s now, {} s then", self.ttl_seconds_before, self.ttl_seconds_after)),
        ]));
        text
    }
}
