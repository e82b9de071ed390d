//! Records with how often each is there. Pure.
//!
//! A provider may hold the same record twice, so that whoever compares zones has to count.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::zone::{Zone, ZoneRecord};

/// A multiset of records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(ZoneRecord, u32)>", into = "Vec<(ZoneRecord, u32)>")]
pub struct Bag(BTreeMap<ZoneRecord, u32>);

impl From<Vec<(ZoneRecord, u32)>> for Bag {
    fn from(counted: Vec<(ZoneRecord, u32)>) -> Self {
        let mut bag = Self::default();
        counted.into_iter().for_each(|(record, copies)| bag.add(&record, copies));
        bag
    }
}

impl From<Bag> for Vec<(ZoneRecord, u32)> {
    fn from(bag: Bag) -> Self {
        bag.0.into_iter().collect()
    }
}

impl<'a> FromIterator<&'a ZoneRecord> for Bag {
    fn from_iter<I: IntoIterator<Item = &'a ZoneRecord>>(records: I) -> Self {
        let mut bag = Self::default();
        records.into_iter().for_each(|record| bag.add(record, 1));
        bag
    }
}

impl Bag {
    /// All records of a zone.
    pub fn of(zone: &Zone) -> Self {
        zone.records.iter().collect()
    }

    /// Copies of a record.
    pub fn count(&self, record: &ZoneRecord) -> u32 {
        self.0.get(record).copied().unwrap_or_default()
    }

    /// Puts copies in.
    pub fn add(&mut self, record: &ZoneRecord, copies: u32) {
        if copies > 0 {
            *self.0.entry(record.clone()).or_default() += copies;
        }
    }

    /// What is here beyond what is there.
    #[must_use]
    pub fn without(&self, other: &Bag) -> Bag {
        let left = self.iter().map(|(record, copies)| (record.clone(), copies.saturating_sub(other.count(record))));
        Bag(left.filter(|(_, copies)| *copies > 0).collect())
    }

    /// Both together.
    #[must_use]
    pub fn with(&self, other: &Bag) -> Bag {
        let mut both = self.clone();
        other.iter().for_each(|(record, copies)| both.add(record, copies));
        both
    }

    /// What is in both.
    #[must_use]
    pub fn common(&self, other: &Bag) -> Bag {
        let shared = self.iter().map(|(record, copies)| (record.clone(), copies.min(other.count(record))));
        Bag(shared.filter(|(_, copies)| *copies > 0).collect())
    }

    /// All copies.
    pub fn len(&self) -> usize {
        self.0.values().map(|copies| *copies as usize).sum()
    }

    /// Nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each record once, with its copies.
    pub fn iter(&self) -> impl Iterator<Item = (&ZoneRecord, u32)> {
        self.0.iter().map(|(record, copies)| (record, *copies))
    }

    /// Each record once.
    pub fn records(&self) -> impl Iterator<Item = &ZoneRecord> {
        self.0.keys()
    }

    /// Each record at a name once.
    pub fn at<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a ZoneRecord> {
        self.records().filter(move |record| record.host == host)
    }

    /// As a zone lists them: sorted, each copy.
    pub fn listed(&self) -> Vec<ZoneRecord> {
        self.iter().flat_map(|(record, copies)| (0..copies).map(move |_| record.clone())).collect()
    }
}

/// The same for the same records with the same TTL, in whatever order they were read: 64 hexadecimal digits.
pub fn hash(zone: &Zone) -> String {
    let mut text = format!("{}\n", zone.ttl);
    for record in Bag::of(zone).listed() {
        // Lengths first, so that no value can pretend to be two.
        for part in [&record.host, &record.kind, &record.value, &record.extra] {
            text.push_str(&format!("{} {part}\n", part.len()));
        }
    }
    hex(text.as_bytes())
}

/// SHA-256 in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::{Bag, hash};
    use crate::dns::zone::{Zone, ZoneRecord};

    fn a(host: &str, value: &str) -> ZoneRecord {
        ZoneRecord { host: host.into(), kind: "a".into(), value: value.into(), extra: String::new() }
    }

    #[test]
    fn copies_count() {
        let two: Bag = [&a("x", "1"), &a("x", "1"), &a("y", "2")].into_iter().collect();
        let one: Bag = [&a("x", "1")].into_iter().collect();
        assert_eq!((two.len(), two.count(&a("x", "1"))), (3, 2));
        assert_eq!(two.without(&one).listed(), [a("x", "1"), a("y", "2")]);
        assert_eq!(two.common(&one), one);
        assert_eq!(one.without(&two), Bag::default());
        let text = serde_json::to_string(&two).unwrap();
        assert_eq!(serde_json::from_str::<Bag>(&text).unwrap(), two);
    }

    #[test]
    fn the_hash_knows_records_copies_and_ttl_but_no_order() {
        let zone = |records: &[ZoneRecord], ttl| hash(&Zone { ttl, records: records.to_vec() });
        let (x, y) = (a("x", "1"), a("y", "2"));
        let base = zone(&[x.clone(), y.clone()], 300);
        assert_eq!(zone(&[y.clone(), x.clone()], 300), base);
        for other in [
            zone(&[x.clone(), y.clone()], 60),
            zone(&[x.clone(), y.clone(), y.clone()], 300),
            zone(&[x, a("y", "3")], 300),
            zone(&[a("xy", "12")], 300),
        ] {
            assert_ne!(other, base);
        }
    }
}
