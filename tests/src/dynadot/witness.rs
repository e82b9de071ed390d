//! Who changed what: the proof that nobody's records are touched. Pure.

use std::collections::BTreeMap;

use feather_controller::dns::zone::ZoneRecord;

use super::faults::Edit;

type Counts = BTreeMap<ZoneRecord, usize>;

fn counts(records: &[ZoneRecord]) -> Counts {
    let mut found = Counts::new();
    for record in records {
        *found.entry(record.clone()).or_default() += 1;
    }
    found
}

/// Compares the zone after every change that a request made with what strangers have in it.
#[derive(Debug, Default)]
pub(super) struct Witness {
    /// Records that no request may change, and how often each is there.
    protected: Counts,
    /// Records that requests took away, ever.
    destroyed: usize,
    violations: Vec<String>,
    /// What strangers lost by the provider's own disorder.
    disorder: Vec<String>,
    ttl_changes: Vec<(u32, u32)>,
}

impl Witness {
    pub(super) fn new(protected: &[ZoneRecord]) -> Self {
        Self { protected: counts(protected), ..Self::default() }
    }

    pub(super) fn destroyed(&self) -> usize {
        self.destroyed
    }

    pub(super) fn violations(&self) -> &[String] {
        &self.violations
    }

    pub(super) fn disorder(&self) -> &[String] {
        &self.disorder
    }

    pub(super) fn ttl_changes(&self) -> &[(u32, u32)] {
        &self.ttl_changes
    }

    /// A request changed the zone. Returns how many records it destroyed.
    pub(super) fn requested(&mut self, what: &str, before: (&[ZoneRecord], u32), after: (&[ZoneRecord], u32)) -> usize {
        let (old, new) = (counts(before.0), counts(after.0));
        let lost = old.iter().map(|(record, count)| count.saturating_sub(new.get(record).copied().unwrap_or(0))).sum();
        self.destroyed += lost;
        for (record, wanted) in &self.protected {
            let (was, is) = (old.get(record).copied().unwrap_or(0), new.get(record).copied().unwrap_or(0));
            if is != *wanted && is != was {
                self.violations.push(format!("{what}: {record} is there {is} times instead of {wanted}"));
            }
        }
        if before.1 != after.1 {
            self.ttl_changes.push((before.1, after.1));
        }
        lost
    }

    /// The provider wrote an old state over a newer one: what strangers had in it is gone, by nobody's request.
    pub(super) fn disordered(&mut self, after: &[ZoneRecord]) {
        let new = counts(after);
        let lost = self.protected.iter().filter(|(record, wanted)| new.get(*record) != Some(wanted));
        self.disorder.extend(lost.map(|(record, wanted)| format!("{record}, {wanted} times")));
        self.protected.retain(|record, wanted| new.get(record) == Some(wanted));
    }

    /// A person changed the zone: what they added is theirs.
    pub(super) fn edited(&mut self, edit: &Edit) {
        match edit {
            Edit::Add(record) => *self.protected.entry(record.clone()).or_default() += 1,
            Edit::Remove(record) => {
                if let Some(count) = self.protected.get_mut(record) {
                    *count -= 1;
                    if *count == 0 {
                        self.protected.remove(record);
                    }
                }
            }
            Edit::Ttl(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::faults::Edit, Witness, ZoneRecord};

    fn record(host: &str) -> ZoneRecord {
        ZoneRecord { host: host.into(), kind: "a".into(), value: "192.0.2.1".into(), extra: String::new() }
    }

    #[test]
    fn strangers_records_are_watched_and_what_is_added_by_hand_is_a_strangers() {
        let (ours, theirs, hand) = (record("ours"), record("theirs"), record("hand"));
        let mut witness = Witness::new(std::slice::from_ref(&theirs));
        let both = [theirs.clone(), ours.clone()];
        assert_eq!(witness.requested("add", (&both[..1], 60), (&both, 60)), 0);
        assert_eq!(witness.requested("remove", (&both, 60), (&both[..1], 60)), 1);
        assert!(witness.violations().is_empty());

        witness.edited(&Edit::Add(hand.clone()));
        let three = [theirs.clone(), hand.clone()];
        witness.requested("wipe", (&three, 60), (std::slice::from_ref(&theirs), 300));
        assert_eq!(witness.violations().len(), 1, "{:?}", witness.violations());
        assert!(witness.violations()[0].contains("hand"));
        witness.requested("double", (std::slice::from_ref(&theirs), 300), (&[theirs.clone(), theirs.clone()], 300));
        assert_eq!(witness.violations().len(), 2, "a copy of a stranger's record is a change too");
        assert_eq!((witness.destroyed(), witness.ttl_changes()), (2, &[(60, 300)][..]));

        let mut witness = Witness::new(&[theirs.clone(), hand.clone()]);
        witness.edited(&Edit::Remove(hand.clone()));
        witness.requested("nothing", (&three, 60), (std::slice::from_ref(&theirs), 60));
        assert!(witness.violations().is_empty());
        witness.disordered(&[]);
        assert_eq!(witness.disorder().len(), 1);
    }
}
