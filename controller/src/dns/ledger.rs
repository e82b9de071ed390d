//! What is ours in the zone, as the store keeps it, and the mark of it in the zone. Pure.
//!
//! A record is ours when the ledger says so *and* the zone holds the marker that the ledger expects: one TXT record under the
//! suffix that names the owner and the generation of the last change. Either without the other proves nothing, and then nothing
//! is touched. A marker is sent in the same call as the records it stands for, so that a marker in the zone proves that its call
//! was applied, however late.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    bag::{Bag, hex},
    change::Change,
    names::Names,
    zone::{Zone, ZoneRecord},
};

/// Calls that are remembered, so that what arrives late is known as ours.
const SENT_MAX: usize = 24;

/// What is ours in one zone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ledger {
    /// Who we are in markers; made once.
    pub owner: String,
    /// Highest generation that was ever issued.
    pub generation: u64,
    /// The marker that must be in the zone; none before the first change.
    pub marker: Option<ZoneRecord>,
    /// Our records, markers left aside.
    pub owned: Bag,
    /// A change that has begun and not ended.
    pub pending: Option<Change>,
    /// Calls that added something, the newest last.
    pub sent: Vec<Sent>,
    /// Records of others when the zone was last looked at by whoever may write.
    pub foreign_known: Option<usize>,
    /// Host to the time, in milliseconds since 1970, of its last change by us.
    pub since: BTreeMap<String, i64>,
    /// The last thing of others that changed between a look and a change of ours, in a sentence.
    pub noticed: Option<String>,
}

/// One call that added records, with the marker that came along.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Its marker.
    pub marker: ZoneRecord,
    /// What else it added.
    pub records: Vec<ZoneRecord>,
}

/// Whether the zone confirms the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// Nothing is ours, and no marker says otherwise.
    Fresh,
    /// The marker is the one that the ledger expects.
    Proven,
    /// The ledger expects no marker though something is ours: a change that was given up took it away.
    Unmarked,
    /// The marker that the ledger expects is not there.
    Missing,
    /// A marker of ours is newer than the ledger: the store was restored from an earlier time, or is another one.
    Newer(u64),
    /// Somebody else says that this suffix is theirs.
    Other(String),
}

impl Proof {
    /// May records of the ledger be touched?
    pub fn holds(&self) -> bool {
        matches!(self, Proof::Fresh | Proof::Proven | Proof::Unmarked)
    }
}

/// Whose is what in the zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Whether anything can be called ours.
    pub proof: Proof,
    /// Ours, markers left aside.
    pub ours: Bag,
    /// Our markers; more than one when a call arrived late.
    pub markers: Bag,
    /// Everything else. Never touched.
    pub foreign: Bag,
}

/// What a marker says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// Whose.
    pub owner: String,
    /// Of the change that it came with.
    pub generation: u64,
}

impl Marker {
    /// Reads a TXT value; none for a text that is no marker.
    pub fn parse(text: &str) -> Option<Self> {
        let mut facts: BTreeMap<&str, &str> = text.split(',').filter_map(|fact| fact.split_once('=')).collect();
        let ours = facts.remove("heritage") == Some("feather");
        let marker =
            Self { owner: facts.remove("owner")?.to_owned(), generation: facts.remove("generation")?.parse().ok()? };
        ours.then_some(marker)
    }
}

/// The marker of a change: the owner, its generation, and a digest of what is ours when it is done. Below 255 characters.
pub fn marker(names: &Names, owner: &str, generation: u64, after: &Bag) -> ZoneRecord {
    let lines: Vec<String> = after.listed().iter().map(ToString::to_string).collect();
    let digest = &hex(lines.join("\n").as_bytes())[..32];
    ZoneRecord {
        host: names.marker_host(),
        kind: "txt".into(),
        value: format!("heritage=feather,owner={owner},generation={generation},digest={digest}"),
        extra: String::new(),
    }
}

/// All markers in a zone, whoever wrote them.
pub fn markers<'a>(names: &Names, zone: &'a Bag) -> Vec<(&'a ZoneRecord, Marker)> {
    let host = names.marker_host();
    let texts = zone.records().filter(|record| record.host == host && record.kind == "txt");
    texts.filter_map(|record| Some((record, Marker::parse(&record.value)?))).collect()
}

/// Whose is what. Only for a ledger without a change under way.
pub fn attribute(names: &Names, ledger: &Ledger, zone: &Zone) -> Standing {
    let all = Bag::of(zone);
    let found = markers(names, &all);
    let proof = proof(ledger, &found);
    if !proof.holds() {
        return Standing { proof, ours: Bag::default(), markers: Bag::default(), foreign: all };
    }
    let (mut allowed, mut known) = (ledger.owned.clone(), Bag::default());
    for sent in &ledger.sent {
        let copies = all.count(&sent.marker);
        known.add(&sent.marker, copies);
        // The records of the marker in force are in the ledger; each further copy of a marker brought its records once more.
        let counted = u32::from(ledger.marker.as_ref() == Some(&sent.marker));
        let late = copies.saturating_sub(counted);
        sent.records.iter().for_each(|record| allowed.add(record, late));
    }
    if let Some(marker) = ledger.marker.as_ref().filter(|marker| known.count(marker) == 0) {
        known.add(marker, all.count(marker));
    }
    let ours = all.common(&allowed);
    let foreign = all.without(&ours).without(&known);
    Standing { proof, ours, markers: known, foreign }
}

/// Whether the zone confirms the ledger.
pub fn confirms(names: &Names, ledger: &Ledger, zone: &Zone) -> Proof {
    proof(ledger, &markers(names, &Bag::of(zone)))
}

fn proof(ledger: &Ledger, found: &[(&ZoneRecord, Marker)]) -> Proof {
    if let Some((_, other)) = found.iter().find(|(_, marker)| marker.owner != ledger.owner) {
        return Proof::Other(other.owner.clone());
    }
    if let Some((_, newer)) = found.iter().find(|(_, marker)| marker.generation > ledger.generation) {
        return Proof::Newer(newer.generation);
    }
    match &ledger.marker {
        Some(expected) if found.iter().any(|(record, _)| *record == expected) => Proof::Proven,
        Some(_) => Proof::Missing,
        None if ledger.owned.is_empty() => Proof::Fresh,
        None => Proof::Unmarked,
    }
}

impl Ledger {
    /// Remembers a call that added something.
    pub fn remember(&mut self, sent: Sent) {
        self.sent.retain(|one| one.marker != sent.marker);
        self.sent.push(sent);
        let surplus = self.sent.len().saturating_sub(SENT_MAX);
        self.sent.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use super::{Bag, Ledger, Marker, Names, Proof, Sent, Zone, ZoneRecord, attribute, marker};

    fn a(host: &str, value: &str) -> ZoneRecord {
        ZoneRecord { host: host.into(), kind: "a".into(), value: value.into(), extra: String::new() }
    }

    fn names() -> Names {
        Names::new("example.com", "users.example.com").unwrap()
    }

    fn ledger(owned: &[ZoneRecord]) -> Ledger {
        let owned: Bag = owned.iter().collect();
        let marker = marker(&names(), "us", 3, &owned);
        let sent = vec![Sent { marker: marker.clone(), records: owned.listed() }];
        Ledger { owner: "us".into(), generation: 3, marker: Some(marker), owned, sent, ..Ledger::default() }
    }

    fn zone(records: &[ZoneRecord]) -> Zone {
        Zone { ttl: 300, records: records.to_vec() }
    }

    #[test]
    fn ours_needs_the_ledger_and_the_marker() {
        let (ours, theirs) = (a("alice.users", "192.0.2.1"), a("www", "192.0.2.9"));
        let ledger = ledger(std::slice::from_ref(&ours));
        let mark = ledger.marker.clone().unwrap();
        let standing = attribute(&names(), &ledger, &zone(&[ours.clone(), theirs.clone(), mark.clone()]));
        assert_eq!(standing.proof, Proof::Proven);
        assert_eq!((standing.ours.listed(), standing.foreign.listed()), (vec![ours.clone()], vec![theirs.clone()]));
        // Without the marker, without the ledger, or with those of others: all is foreign.
        let unproven = attribute(&names(), &ledger, &zone(&[ours.clone(), theirs.clone()]));
        assert_eq!((unproven.proof, unproven.foreign.len()), (Proof::Missing, 2));
        let lost = Ledger { owner: "us".into(), ..Ledger::default() };
        let forgotten = attribute(&names(), &lost, &zone(&[ours.clone(), mark.clone()]));
        assert_eq!((forgotten.proof, forgotten.foreign.len()), (Proof::Newer(3), 2));
        let stranger = Ledger { owner: "others".into(), ..Ledger::default() };
        assert_eq!(attribute(&names(), &stranger, &zone(&[mark])).proof, Proof::Other("us".into()));
        assert_eq!(attribute(&names(), &lost, &zone(&[theirs])).proof, Proof::Fresh);
    }

    #[test]
    fn a_second_copy_is_foreign_unless_a_second_marker_came_with_it() {
        let ours = a("alice.users", "192.0.2.1");
        let ledger = ledger(std::slice::from_ref(&ours));
        let mark = ledger.marker.clone().unwrap();
        let by_hand = attribute(&names(), &ledger, &zone(&[ours.clone(), ours.clone(), mark.clone()]));
        assert_eq!((by_hand.ours.len(), by_hand.foreign.len()), (1, 1));
        let late = attribute(&names(), &ledger, &zone(&[ours.clone(), ours, mark.clone(), mark]));
        assert_eq!((late.ours.len(), late.markers.len(), late.foreign.len()), (2, 2, 0));
    }

    #[test]
    fn what_a_call_of_before_brings_late_is_ours() {
        let (alice, bob) = (a("alice.users", "192.0.2.1"), a("bob.users", "192.0.2.2"));
        let mut ledger = ledger(std::slice::from_ref(&alice));
        let stray = marker(&names(), "us", 2, &Bag::default());
        ledger.remember(Sent { marker: stray.clone(), records: vec![bob.clone()] });
        let mark = ledger.marker.clone().unwrap();
        let standing = attribute(&names(), &ledger, &zone(&[alice.clone(), bob.clone(), mark.clone(), stray]));
        assert_eq!((standing.ours.len(), standing.markers.len(), standing.foreign.len()), (2, 2, 0));
        // The same record without that marker was made by somebody else.
        let standing = attribute(&names(), &ledger, &zone(&[alice, bob, mark]));
        assert_eq!((standing.ours.len(), standing.foreign.len()), (1, 1));
    }

    #[test]
    fn markers_read_back_and_fit() {
        let mark = marker(&names(), &"o".repeat(64), u64::MAX, &Bag::default());
        assert!(mark.value.len() < 255, "{}", mark.value.len());
        let read = Marker::parse(&mark.value).unwrap();
        assert_eq!((read.owner.len(), read.generation), (64, u64::MAX));
        for text in ["v=spf1 -all", "heritage=external-dns,owner=x,generation=1", "heritage=feather,owner=x", ""] {
            assert_eq!(Marker::parse(text), None, "{text}");
        }
    }
}
