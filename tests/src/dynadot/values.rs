//! What the provider takes as a record, and in which words it refuses the rest. Pure, and written from the provider's papers:
//! it shares nothing with the checks of the client.

use std::net::{Ipv4Addr, Ipv6Addr};

use feather_controller::dns::zone::ZoneRecord;

type Refused = Result<(), String>;

/// May this record stand in a zone?
pub(super) fn check(record: &ZoneRecord) -> Refused {
    let ZoneRecord { host, kind, value, extra } = record;
    let apex = host.is_empty();
    if !apex && host.parse::<std::net::IpAddr>().is_ok() {
        return Err("The subhost must not be an IP.".into());
    }
    if !apex && !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.*".contains(&byte)) {
        return Err(format!("The subhost {host} must be valid characters."));
    }
    match kind.as_str() {
        "a" => value.parse::<Ipv4Addr>().map(drop).map_err(|_| "The IPv4 address is not valid.".into()),
        "aaaa" => value.parse::<Ipv6Addr>().map(drop).map_err(|_| "The IPv6 address is not valid.".into()),
        "cname" => target(value),
        "aname" if apex => target(value),
        "ns" if !apex => target(value),
        "mx" => {
            target(value)?;
            extra.parse::<u16>().map(drop).map_err(|_| "MX distance must be a positive integer or zero.".into())
        }
        "txt" if apex && value.len() > 1000 => Err("The txt record is too long.".into()),
        "txt" if !apex && value.len() >= 255 => Err("The txt record must be less than 255 characters long.".into()),
        "txt" => Ok(()),
        "caa" => caa(value),
        "srv" if !apex => srv(value),
        "forward" => forward(value, extra),
        "stealth" | "email" if extra.is_empty() => {
            Err(format!("If record_type is {kind}, record_value2 must be entered"))
        }
        "stealth" => url(value),
        "email" => Ok(()),
        _ => Err(format!("The record_type {kind} is not supported.")),
    }
}

fn target(host: &str) -> Refused {
    let name = host.strip_suffix('.').unwrap_or(host);
    if name.parse::<Ipv4Addr>().is_ok() || name.parse::<Ipv6Addr>().is_ok() {
        Err("The target host must not be an IP.".into())
    } else if !name.contains('.') || name.split('.').any(str::is_empty) {
        Err("The target host must be fully qualified.".into())
    } else if name.len() >= 255 {
        Err("The target host must be less than 255 characters long.".into())
    } else {
        Ok(())
    }
}

fn caa(value: &str) -> Refused {
    let mut words = value.split_whitespace();
    let flags = words.next().is_some_and(|word| word.parse::<u8>().is_ok());
    let tag = words.next().is_some_and(|word| matches!(word, "issue" | "issuewild" | "iodef"));
    if flags && tag && words.next().is_some() { Ok(()) } else { Err("The caa record is not valid.".into()) }
}

fn srv(value: &str) -> Refused {
    let words: Vec<_> = value.split_whitespace().collect();
    let numbers = words.iter().take(3).all(|word| word.parse::<u16>().is_ok());
    if words.len() == 4 && numbers { target(words[3]) } else { Err("The srv record is not valid.".into()) }
}

fn url(value: &str) -> Refused {
    let rest = value.strip_prefix("https://").or_else(|| value.strip_prefix("http://"));
    if rest.is_some_and(|rest| !rest.is_empty()) { Ok(()) } else { Err("The URL is not valid.".into()) }
}

fn forward(value: &str, extra: &str) -> Refused {
    url(value)?;
    match extra {
        "301" | "302" => Ok(()),
        "" => Err("If record_type is forward, record_value2 must be entered".into()),
        _ => Err("The forward type is not valid.".into()),
    }
}

/// Types that stand beside no other of a list at one name, row by row as in the provider's table.
fn excluded(apex: bool, kind: &str) -> &'static [&'static str] {
    match (apex, kind) {
        (true, "a" | "aaaa") => &["aname", "cname", "forward", "stealth"],
        (true, "cname") => &["a", "aaaa", "aname", "caa", "forward", "stealth", "email", "mx", "txt"],
        (true, "aname") => &["a", "aaaa", "cname", "forward", "stealth"],
        (_, "txt" | "caa" | "srv") | (false, "mx") => &["cname", "ns"],
        (true, "mx") => &["cname", "email"],
        (true, "forward") => &["a", "aaaa", "aname", "cname", "stealth"],
        (true, "stealth") => &["a", "aaaa", "aname", "cname", "forward"],
        (true, "email") => &["cname", "mx"],
        (false, "a" | "aaaa") => &["cname", "forward", "ns"],
        (false, "cname") => &["a", "aaaa", "caa", "forward", "mx", "ns", "srv", "txt"],
        (false, "forward") => &["a", "aaaa", "cname", "ns"],
        (false, "ns") => &["a", "aaaa", "caa", "cname", "forward", "mx", "srv", "txt"],
        _ => &[],
    }
}

/// May these stand together?
pub(super) fn together(records: &[ZoneRecord]) -> Refused {
    for (at, one) in records.iter().enumerate() {
        for other in records[at + 1..].iter().filter(|other| other.host == one.host) {
            if excluded(one.host.is_empty(), &one.kind).contains(&other.kind.as_str()) {
                return Err(format!("Cannot set {} and {} together.", one.kind, other.kind));
            }
            if one.kind == "cname" && other.kind == "cname" {
                return Err("The same sub host cannot be entered twice and must be unique.".into());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use feather_controller::dns::{dynadot::checks, zone::ZoneRecord};

    use super::{check, together};

    fn record(host: &str, kind: &str, value: &str, extra: &str) -> ZoneRecord {
        ZoneRecord { host: host.into(), kind: kind.into(), value: value.into(), extra: extra.into() }
    }

    #[test]
    fn refusals_are_in_the_providers_words() {
        for (host, kind, value, extra, words) in [
            ("www", "a", "192.0.2.999", "", "IPv4"),
            ("www", "aaaa", "::g", "", "IPv6"),
            ("www", "cname", "localhost", "", "fully qualified"),
            ("www", "cname", "192.0.2.1", "", "must not be an IP"),
            ("", "mx", "mx.example.net", "-1", "MX distance"),
            ("", "forward", "https://example.net", "", "record_value2 must be entered"),
            ("", "forward", "example.net", "301", "URL"),
            ("", "srv", "1 2 3 a.example.com", "", "not supported"),
            ("www", "aname", "a.example.com", "", "not supported"),
            ("192.0.2.1", "a", "192.0.2.1", "", "subhost must not"),
        ] {
            let said = check(&record(host, kind, value, extra)).unwrap_err();
            assert!(said.contains(words), "{kind} {value}: {said}");
        }
        assert!(check(&record("www", "txt", &"x".repeat(255), "")).unwrap_err().contains("less than 255"));
        assert_eq!(check(&record("www", "txt", &"x".repeat(254), "")), Ok(()));
    }

    #[test]
    fn two_readings_of_the_table_of_conflicts_agree() {
        const KINDS: &[&str] =
            &["a", "aaaa", "cname", "aname", "txt", "caa", "mx", "forward", "stealth", "email", "srv", "ns"];
        let mut conflicts = 0;
        for host in ["", "www"] {
            // What does not exist at a place cannot be in conflict there.
            let kinds = || {
                KINDS
                    .iter()
                    .filter(|kind| if host.is_empty() { !["srv", "ns"].contains(kind) } else { **kind != "aname" })
            };
            for one in kinds() {
                for other in kinds().filter(|other| *other != one) {
                    let ours = checks::conflict(host, one, other);
                    let pair = [record(host, one, "x", ""), record(host, other, "x", "")];
                    assert_eq!(together(&pair).is_err(), ours, "{one} and {other} at {host:?}");
                    conflicts += usize::from(ours);
                }
            }
        }
        assert!(conflicts > 30, "{conflicts}");
    }
}
