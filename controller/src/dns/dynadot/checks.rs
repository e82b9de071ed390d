//! Requests that cannot be fulfilled, found before they are sent. Pure.
//!
//! The provider would refuse most of them too, but some it answers with success and does something else. What is in the zone
//! already is not looked at here: that is the plan's part.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::super::zone::{Zone, ZoneRecord};

/// Records at the apex in one request, and in a zone.
pub const APEX_MAX: usize = 20;
/// Records below the apex in one request, and in a zone.
pub const SUB_MAX: usize = 100;

const APEX_KINDS: &[&str] = &["a", "aaaa", "cname", "aname", "txt", "caa", "mx", "forward", "stealth", "email"];
const SUB_KINDS: &[&str] = &["a", "aaaa", "cname", "txt", "caa", "mx", "forward", "stealth", "email", "srv", "ns"];

/// What cannot stand beside what at the apex; each pair once.
const APEX_CONFLICTS: &[(&str, &[&str])] = &[
    ("cname", &["a", "aaaa", "aname", "caa", "forward", "stealth", "email", "mx", "txt"]),
    ("aname", &["a", "aaaa", "forward", "stealth"]),
    ("forward", &["a", "aaaa", "stealth"]),
    ("stealth", &["a", "aaaa"]),
    ("email", &["mx"]),
];
/// The same below the apex.
const SUB_CONFLICTS: &[(&str, &[&str])] = &[
    ("cname", &["a", "aaaa", "caa", "forward", "mx", "srv", "txt"]),
    ("forward", &["a", "aaaa"]),
    ("ns", &["a", "aaaa", "caa", "cname", "forward", "mx", "srv", "txt"]),
];

/// May two records of these types stand at one name? `host` is empty for the apex.
pub fn conflict(host: &str, one: &str, other: &str) -> bool {
    let table = if host.is_empty() { APEX_CONFLICTS } else { SUB_CONFLICTS };
    table
        .iter()
        .any(|(kind, others)| (*kind == one && others.contains(&other)) || (*kind == other && others.contains(&one)))
}

/// Can these be added to the zone in one request?
pub(in crate::dns) fn append(zone: &str, records: &[ZoneRecord], ttl: u32) -> Result<(), String> {
    count(records)?;
    lifetime(ttl)?;
    let mut seen = BTreeSet::new();
    if let Some(twice) = records.iter().find(|record| !seen.insert(*record)) {
        return Err(format!("{twice} is there twice"));
    }
    fit(zone, records)
}

/// Can these be removed in one request? A removal names what was read, so its values are the provider's own.
pub(in crate::dns) fn remove(records: &[ZoneRecord]) -> Result<(), String> {
    count(records)?;
    // A removal without a value may take all records of the type.
    match records.iter().find(|record| record.value.is_empty() || record.kind.is_empty()) {
        Some(record) => Err(format!("{record} has no type or no value")),
        None => Ok(()),
    }
}

/// Can this be the whole zone? The provider may hold a record twice, so a copy of its zone may.
pub(in crate::dns) fn replace(zone: &str, whole: &Zone) -> Result<(), String> {
    count(&whole.records)?;
    lifetime(whole.ttl)?;
    fit(zone, &whole.records)
}

fn count(records: &[ZoneRecord]) -> Result<(), String> {
    let apex = records.iter().filter(|record| record.host.is_empty()).count();
    let sub = records.len() - apex;
    match (apex, sub) {
        (0, 0) => Err("there is no record in it".into()),
        _ if apex > APEX_MAX => Err(format!("it has {apex} records at the apex, and {APEX_MAX} is the most")),
        _ if sub > SUB_MAX => Err(format!("it has {sub} records below the apex, and {SUB_MAX} is the most")),
        _ => Ok(()),
    }
}

fn lifetime(ttl: u32) -> Result<(), String> {
    if (1..=i32::MAX as u32).contains(&ttl) { Ok(()) } else { Err(format!("{ttl} s is no TTL")) }
}

fn fit(zone: &str, records: &[ZoneRecord]) -> Result<(), String> {
    let mut kinds: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for record in records {
        host(zone, &record.host).map_err(|why| format!("{record}: {why}"))?;
        value(record).map_err(|why| format!("{record}: {why}"))?;
        let there = kinds.entry(&record.host).or_default();
        if let Some(other) = there.iter().find(|other| conflict(&record.host, &record.kind, other)) {
            return Err(format!("{record}: a record of type {other} cannot stand beside it"));
        }
        there.insert(&record.kind);
    }
    Ok(())
}

/// A name relative to the zone, in the form that everything compares.
fn host(zone: &str, host: &str) -> Result<(), String> {
    if host.is_empty() {
        return Ok(());
    }
    if host.parse::<IpAddr>().is_ok() {
        return Err("the host is an address".into());
    }
    if host.len() + 1 + zone.len() > 253 {
        return Err("the name is longer than 253 characters".into());
    }
    let mut labels = host.split('.').enumerate();
    match labels.find(|(at, label)| !(is_label(label) || (*at == 0 && *label == "*"))) {
        Some((_, label)) => Err(format!(
            "{label:?} is no part of a host: small letters of ASCII (other scripts as punycode), digits, - and _"
        )),
        None => Ok(()),
    }
}

fn is_label(label: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    (1..=63).contains(&label.len()) && label.bytes().all(fits) && !label.starts_with('-') && !label.ends_with('-')
}

fn value(record: &ZoneRecord) -> Result<(), String> {
    let ZoneRecord { host, kind, value, extra } = record;
    let kinds = if host.is_empty() { APEX_KINDS } else { SUB_KINDS };
    if !kinds.contains(&kind.as_str()) {
        let place = if host.is_empty() { "at the apex" } else { "below the apex" };
        return Err(format!("there is no type {kind:?} {place}"));
    }
    if value.is_empty() {
        return Err("it has no value".into());
    }
    match kind.as_str() {
        "a" if value.parse::<Ipv4Addr>().is_err() => Err("it is no IPv4 address".into()),
        "aaaa" if value.parse::<Ipv6Addr>().is_err() => Err("it is no IPv6 address".into()),
        "cname" | "aname" | "mx" | "ns" => target(value),
        "srv" => service(value),
        "caa" => issuer(value),
        "txt" if !host.is_empty() && value.len() > 254 => Err("a text below the apex has at most 254 bytes".into()),
        _ => Ok(()),
    }?;
    match kind.as_str() {
        "mx" if extra.parse::<u16>().is_err() => Err("its priority must be from 0 to 65535".into()),
        "forward" if extra != "301" && extra != "302" => Err("its second value must be 301 or 302".into()),
        "stealth" | "email" if extra.is_empty() => Err("its second value is missing".into()),
        "mx" | "forward" | "stealth" | "email" => Ok(()),
        _ if !extra.is_empty() => Err("this type has no second value".into()),
        _ => Ok(()),
    }
}

/// A fully qualified host; its case and a dot at its end are as somebody wrote them.
fn target(value: &str) -> Result<(), String> {
    let name = value.strip_suffix('.').unwrap_or(value).to_ascii_lowercase();
    let whole = name.len() < 255 && name.contains('.') && name.split('.').all(is_label);
    if whole && name.parse::<IpAddr>().is_err() {
        Ok(())
    } else {
        Err("the target must be a whole host name, no address".into())
    }
}

/// `10 60 5060 sip.example.com`
fn service(value: &str) -> Result<(), String> {
    let parts: Vec<_> = value.split(' ').collect();
    match parts.as_slice() {
        [priority, weight, port, host] if [priority, weight, port].iter().all(|part| part.parse::<u16>().is_ok()) => {
            target(host)
        }
        _ => Err("it must be PRIORITY WEIGHT PORT HOST".into()),
    }
}

/// `0 issue "ca.example.com"`
fn issuer(value: &str) -> Result<(), String> {
    let mut parts = value.splitn(3, ' ');
    let flags = parts.next().is_some_and(|flags| flags.parse::<u8>().is_ok());
    let tag = parts.next().is_some_and(|tag| ["issue", "issuewild", "iodef"].contains(&tag));
    let quoted = parts.next().is_some_and(|value| value.len() > 1 && value.starts_with('"') && value.ends_with('"'));
    if flags && tag && quoted { Ok(()) } else { Err("it must be like 0 issue \"ca.example.com\"".into()) }
}

#[cfg(test)]
mod tests {
    use super::{Zone, ZoneRecord, append, conflict, remove, replace};

    fn record(line: &str) -> ZoneRecord {
        let mut parts = line.splitn(3, ' ');
        let mut next = || parts.next().unwrap_or_default().to_owned();
        let (host, kind, rest) = (next(), next(), next());
        let (value, extra) = rest.split_once('|').unwrap_or((&rest, ""));
        ZoneRecord { host: host.trim_matches('@').into(), kind, value: value.into(), extra: extra.into() }
    }

    fn check(lines: &[&str]) -> Result<(), String> {
        append("example.com", &lines.iter().map(|line| record(line)).collect::<Vec<_>>(), 300)
    }

    #[test]
    fn what_can_be_done_passes() {
        for line in [
            "@ a 192.0.2.1",
            "@ aaaa 2001:db8::1",
            "@ txt v=spf1 include:mail.example.net ~all",
            "@ mx mx.example.net|10",
            "@ caa 0 issue \"ca.example.com\"",
            "@ aname example.net.",
            "@ forward https://example.net/|301",
            "@ stealth https://example.net/|A title",
            "@ email me@example.net|me",
            "*.users a 192.0.2.1",
            "_acme-challenge.users txt ADw2sEd82DUgXcQ9hNBZThJs7zVJkR5v9JeSbAb9mZY",
            "_sip._tcp srv 10 60 5060 sip.example.com",
            "xn--bcher-kva cname Example.COM",
            "child ns ns1.example.net",
        ] {
            assert_eq!(check(&[line]), Ok(()), "{line}");
        }
        assert_eq!(check(&["www a 192.0.2.1", "www a 192.0.2.2", "www txt x", "www mx mx.example.net|0"]), Ok(()));
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_its_reason() {
        for (lines, word) in [
            (&["www a 192.0.2.256"][..], "IPv4"),
            (&["www aaaa 192.0.2.1"], "IPv6"),
            (&["www A 192.0.2.1"], "no type"),
            (&["@ srv 10 60 5060 sip.example.com"], "at the apex"),
            (&["@ ns ns1.example.net"], "at the apex"),
            (&["www aname example.net"], "below the apex"),
            (&["www ptr example.net"], "no type"),
            (&["www cname localhost"], "target"),
            (&["www cname 192.0.2.1"], "target"),
            (&["www mx mx.example.net"], "priority"),
            (&["www mx mx.example.net|65536"], "priority"),
            (&["www txt x|y"], "no second value"),
            (&["www forward https://example.net/|303"], "301"),
            (&["www stealth https://example.net/"], "second value"),
            (&["www srv 10 60 sip.example.com"], "PORT"),
            (&["www caa 0 issue ca.example.com"], "0 issue"),
            (&["www a "], "no value"),
            (&["WWW a 192.0.2.1"], "small letters"),
            (&["bücher a 192.0.2.1"], "punycode"),
            (&["a..b a 192.0.2.1"], "small letters"),
            (&["users.* a 192.0.2.1"], "small letters"),
            (&["192.0.2.1 a 192.0.2.1"], "address"),
            (&["www a 192.0.2.1", "www a 192.0.2.1"], "twice"),
            (&["www a 192.0.2.1", "www cname example.net"], "beside"),
            (&["www ns ns1.example.net", "www txt x"], "beside"),
            (&[], "no record"),
        ] {
            let refused = check(lines).unwrap_err();
            assert!(refused.contains(word), "{lines:?}: {refused}");
        }
        let long = format!("{} a 192.0.2.1", vec!["a"; 125].join("."));
        assert!(check(&[&long]).unwrap_err().contains("253"));
        assert_eq!(check(&[&format!("www txt {}", "x".repeat(254))]), Ok(()));
        assert!(check(&[&format!("www txt {}", "x".repeat(255))]).unwrap_err().contains("254"));
        assert!(append("example.com", &[record("www a 192.0.2.1")], 0).unwrap_err().contains("TTL"));
    }

    #[test]
    fn a_request_has_at_most_twenty_and_a_hundred() {
        let many =
            |host: &str, count: usize| (0..count).map(|n| record(&format!("{host} txt {n}"))).collect::<Vec<_>>();
        for (host, limit) in [("@", 20), ("www", 100)] {
            assert_eq!(append("example.com", &many(host, limit), 60), Ok(()));
            assert!(append("example.com", &many(host, limit + 1), 60).unwrap_err().contains("the most"));
            assert!(remove(&many(host, limit + 1)).unwrap_err().contains("the most"));
        }
    }

    #[test]
    fn a_removal_names_its_value_whatever_that_is() {
        assert_eq!(remove(&[record("odd wonder x|y")]), Ok(()));
        assert!(remove(&[record("www a ")]).unwrap_err().contains("no value"));
        assert!(remove(&[]).is_err());
    }

    #[test]
    fn a_whole_zone_may_hold_a_record_twice_but_not_nothing() {
        let twice = vec![record("www a 192.0.2.1"), record("www a 192.0.2.1")];
        assert_eq!(replace("example.com", &Zone { ttl: 60, records: twice }), Ok(()));
        assert!(replace("example.com", &Zone { ttl: 60, records: vec![] }).is_err());
    }

    #[test]
    fn conflicts_are_symmetrical_and_differ_by_place() {
        assert!(conflict("", "cname", "txt") && conflict("", "txt", "cname"));
        assert!(conflict("", "aname", "a") && conflict("", "mx", "email") && conflict("", "stealth", "a"));
        assert!(!conflict("www", "stealth", "a") && conflict("www", "ns", "mx") && conflict("www", "a", "forward"));
        assert!(!conflict("www", "a", "a") && !conflict("www", "cname", "cname"));
    }
}
