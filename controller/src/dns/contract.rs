//! What every provider of a zone must do, whoever it is: run on the zone in memory and on a stand-in for the real one.

#![allow(clippy::missing_panics_doc, reason = "a panic is how a contract is broken")]

use super::zone::{Provider, ProviderError, Removed, Zone, ZoneRecord};

fn record(host: &str, kind: &str, value: &str) -> ZoneRecord {
    ZoneRecord { host: host.into(), kind: kind.into(), value: value.into(), extra: String::new() }
}

async fn read(provider: &dyn Provider) -> Zone {
    let zone = provider.read().await.expect("the zone can be read");
    assert!(zone.records.is_sorted(), "a zone's records are sorted");
    zone
}

/// The zone with these in it too.
fn with(zone: &Zone, records: &[ZoneRecord]) -> Zone {
    let mut all = [&zone.records[..], records].concat();
    all.sort();
    Zone { ttl: zone.ttl, records: all }
}

/// The whole contract. The zone must have a record at its apex and none below `contract`; it is afterwards as it was.
pub async fn all(provider: &dyn Provider) {
    assert!(!provider.zone().is_empty() && !provider.zone().ends_with('.'), "a zone's name has no dot at its end");
    let before = read(provider).await;
    assert_eq!(read(provider).await, before, "reading changes nothing");
    assert!(before.records.iter().any(|record| record.host.is_empty()), "the zone has a record at its apex");
    appends_and_removes(provider, &before).await;
    keeps_values(provider, &before).await;
    refuses(provider, &before).await;
    replaces(provider, &before).await;
    assert_eq!(read(provider).await, before, "the zone is as it was");
}

async fn appends_and_removes(provider: &dyn Provider, before: &Zone) {
    let records = [
        record("*.contract", "a", "192.0.2.1"),
        record("a.contract", "a", "192.0.2.2"),
        record("a.contract", "a", "192.0.2.3"),
        record("a.contract", "aaaa", "2001:db8::1"),
        record("_mark.contract", "txt", "heritage=feather"),
    ];
    provider.append(&records, before.ttl).await.expect("records can be added");
    assert_eq!(read(provider).await, with(before, &records), "exactly what was added is there too");
    let removed = provider.remove(&records[1..2]).await.expect("one of them can be removed");
    assert_eq!(removed, Removed { apex: 0, sub: 1 });
    let mut rest = records.to_vec();
    rest.remove(1);
    assert_eq!(read(provider).await, with(before, &rest), "of two values at one name only the one that was named goes");

    // What is not there cannot be removed: it is said so, in one way or another, and nothing else goes.
    match provider.remove(&records[1..2]).await {
        Ok(removed) => assert_eq!(removed, Removed::default()),
        Err(ProviderError::Refused(_)) => {}
        Err(other) => panic!("an absent record was removed: {other}"),
    }
    assert_eq!(read(provider).await, with(before, &rest));
    let apex = [record("", "txt", "contract=1")];
    provider.append(&apex, before.ttl).await.expect("a record can be added at the apex");
    assert_eq!(provider.remove(&apex).await, Ok(Removed { apex: 1, sub: 0 }));
    assert_eq!(provider.remove(&rest).await, Ok(Removed { apex: 0, sub: 4 }));
    assert_eq!(read(provider).await, *before, "nothing is left");
}

async fn keeps_values(provider: &dyn Provider, before: &Zone) {
    let long = "x".repeat(254);
    let values = [" spaces ", "a \"quoted\" word", "back\\slash", "semi;colon", "ü", &long, "V-_="];
    let records: Vec<_> =
        values.iter().enumerate().map(|(n, value)| record(&format!("v{n}.contract"), "txt", value)).collect();
    provider.append(&records, before.ttl).await.expect("texts can be added");
    assert_eq!(read(provider).await, with(before, &records), "texts are kept byte for byte");
    provider.remove(&records).await.expect("texts can be removed");
}

async fn refuses(provider: &dyn Provider, before: &Zone) {
    let twice = record("b.contract", "a", "192.0.2.1");
    for impossible in [
        vec![],
        vec![record("b.contract", "a", "192.0.2.256")],
        vec![record("b.contract", "A", "192.0.2.1")],
        vec![record("B.contract", "a", "192.0.2.1")],
        vec![record("b.contract", "txt", &"x".repeat(255))],
        vec![twice.clone(), twice.clone()],
        vec![twice, record("b.contract", "cname", "example.net")],
        (0..101).map(|n| record(&format!("n{n}.contract"), "a", "192.0.2.1")).collect(),
    ] {
        let refused = provider.append(&impossible, before.ttl).await;
        assert!(matches!(refused, Err(ProviderError::Refused(_))), "{impossible:?}: {refused:?}");
    }
    let refused = provider.remove(&[record("b.contract", "a", "")]).await;
    assert!(matches!(refused, Err(ProviderError::Refused(_))), "{refused:?}");
    let refused = provider.replace(&Zone { ttl: before.ttl, records: vec![] }).await;
    assert!(matches!(refused, Err(ProviderError::Refused(_))), "{refused:?}");
    assert_eq!(read(provider).await, *before, "what is refused changes nothing");
}

async fn replaces(provider: &dyn Provider, before: &Zone) {
    provider.append(&[record("d.contract", "a", "192.0.2.1")], before.ttl).await.expect("a record can be added");
    let other = with(&Zone { ttl: before.ttl + 60, ..before.clone() }, &[record("c.contract", "a", "192.0.2.1")]);
    provider.replace(&other).await.expect("a zone can be replaced");
    assert_eq!(read(provider).await, other, "exactly the new zone is there");
    provider.replace(before).await.expect("a zone can be restored");
}
