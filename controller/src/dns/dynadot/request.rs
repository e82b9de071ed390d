//! Bodies of requests. Pure.
//!
//! The one difference between adding to a zone and replacing it is a flag whose absence means *replace*. It is therefore written
//! in exactly two places of this file, once each way.

use bytes::Bytes;
use serde::Serialize;

use super::super::zone::{Zone, ZoneRecord};

/// One record as it is sent.
#[derive(Serialize)]
struct Item<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    sub_host: &'a str,
    record_type: &'a str,
    record_value1: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    record_value2: &'a str,
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dns_main_list: Vec<Item<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dns_sub_list: Vec<Item<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    add_dns_to_current_setting: Option<bool>,
}

impl<'a> Body<'a> {
    fn of(records: &'a [ZoneRecord]) -> Self {
        let item = |record: &'a ZoneRecord| Item {
            sub_host: &record.host,
            record_type: &record.kind,
            record_value1: &record.value,
            record_value2: &record.extra,
        };
        let (apex, sub): (Vec<_>, Vec<_>) = records.iter().partition(|record| record.host.is_empty());
        Self {
            dns_main_list: apex.into_iter().map(item).collect(),
            dns_sub_list: sub.into_iter().map(item).collect(),
            ttl: None,
            add_dns_to_current_setting: None,
        }
    }

    fn bytes(&self) -> Bytes {
        serde_json::to_vec(self).expect("strings and numbers become JSON").into()
    }
}

/// Adds the records to what is there, and keeps the TTL that was read: it is one for the whole zone.
pub(super) fn append(records: &[ZoneRecord], ttl: u32) -> Bytes {
    Body { ttl: Some(ttl), add_dns_to_current_setting: Some(true), ..Body::of(records) }.bytes()
}

/// Removes the records, named by all they have.
pub(super) fn remove(records: &[ZoneRecord]) -> Bytes {
    Body::of(records).bytes()
}

/// Replaces the whole zone.
pub(super) fn replace(zone: &Zone) -> Bytes {
    Body { ttl: Some(zone.ttl), add_dns_to_current_setting: Some(false), ..Body::of(&zone.records) }.bytes()
}

#[cfg(test)]
mod tests {
    use super::{Zone, ZoneRecord, append, remove, replace};

    fn record(host: &str, kind: &str, value: &str, extra: &str) -> ZoneRecord {
        ZoneRecord { host: host.into(), kind: kind.into(), value: value.into(), extra: extra.into() }
    }

    #[test]
    fn bodies_are_what_the_provider_reads() {
        let records = [record("", "mx", "mx.example.net", "10"), record("*.users", "a", "192.0.2.1", "")];
        let lists = r#""dns_main_list":[{"record_type":"mx","record_value1":"mx.example.net","record_value2":"10"}],"dns_sub_list":[{"sub_host":"*.users","record_type":"a","record_value1":"192.0.2.1"}]"#;
        assert_eq!(append(&records, 300), format!(r#"{{{lists},"ttl":300,"add_dns_to_current_setting":true}}"#));
        assert_eq!(remove(&records), format!("{{{lists}}}"));
        let zone = Zone { ttl: 60, records: records.into() };
        assert_eq!(replace(&zone), format!(r#"{{{lists},"ttl":60,"add_dns_to_current_setting":false}}"#));
    }

    #[test]
    fn a_list_without_records_is_not_sent() {
        let body = append(&[record("_acme-challenge", "txt", "V", "")], 60);
        assert!(!body.windows(8).any(|part| part == b"dns_main"), "{body:?}");
    }
}
