//! Names: from the fleet's words to hosts of the zone and back. Pure.

use std::net::IpAddr;

use super::{Record, plan::WILDCARD, zone::ZoneRecord};

/// Where the fleet's names are in a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    zone: String,
    /// `users` for users.example.com in example.com; empty when suffix and zone are the same.
    under: String,
}

impl Names {
    /// Tenants are served under the suffix, which must be the zone or lie in it. Says what is wrong otherwise.
    pub fn new(zone: &str, suffix: &str) -> Result<Self, String> {
        let (zone, suffix) = (plain(zone), plain(suffix));
        if zone.is_empty() {
            return Err("the zone has no name; say which one with --dns-zone".to_owned());
        }
        if suffix == zone {
            return Ok(Self { zone, under: String::new() });
        }
        match suffix.strip_suffix(&format!(".{zone}")) {
            Some(under) if !under.is_empty() => Ok(Self { under: under.to_owned(), zone }),
            _ => Err(format!(
                "tenants are served under {suffix}, which does not lie in the zone {zone}; set --dns-zone to the registered domain \
                 that --domain-suffix lies in"
            )),
        }
    }

    /// The zone, lower case, without a trailing dot.
    pub fn zone(&self) -> &str {
        &self.zone
    }

    /// A name under the suffix as a host of the zone: `alice` is `alice.users`; the empty name is the suffix itself.
    pub fn host(&self, name: &str) -> String {
        match (name.is_empty(), self.under.is_empty()) {
            (true, _) => self.under.clone(),
            (false, true) => name.to_owned(),
            (false, false) => format!("{name}.{}", self.under),
        }
    }

    /// Where the one marker is. No tenant can have this name.
    pub fn marker_host(&self) -> String {
        self.host("_feather")
    }

    /// Does a host lie under the suffix? Nothing else is ever adopted.
    pub fn covers(&self, host: &str) -> bool {
        self.under.is_empty() || host == self.under || host.ends_with(&format!(".{}", self.under))
    }

    /// The whole name of a host of the zone, without a trailing dot.
    pub fn full(&self, host: &str) -> String {
        if host.is_empty() { self.zone.clone() } else { format!("{host}.{}", self.zone) }
    }

    /// What a person types for a name, as a host: `alice`, `*`, `*.users` or `alice.users.example.com`.
    pub fn typed(&self, text: &str) -> String {
        let text = plain(text);
        if let Some(host) = text.strip_suffix(&format!(".{}", self.zone)) {
            return host.to_owned();
        }
        if !self.under.is_empty() && self.covers(&text) { text } else { self.host(&text) }
    }

    /// The tenant (or `*`) that a host stands for; none for other names.
    pub fn tenant<'a>(&self, host: &'a str) -> Option<&'a str> {
        let label = if self.under.is_empty() { host } else { host.strip_suffix(&format!(".{}", self.under))? };
        (label == WILDCARD || !label.is_empty() && !label.starts_with('_') && !label.contains('.')).then_some(label)
    }

    /// The tenant at whose name, or below it, a host is.
    pub fn above<'a>(&self, host: &'a str) -> Option<&'a str> {
        let labels = if self.under.is_empty() { host } else { host.strip_suffix(&format!(".{}", self.under))? };
        let label = labels.rsplit('.').next().unwrap_or(labels);
        (!label.is_empty() && label != WILDCARD && !label.starts_with('_')).then_some(label)
    }

    /// An address record of the fleet as a record of the zone.
    pub fn record(&self, record: &Record) -> ZoneRecord {
        let kind = if matches!(record.address, IpAddr::V4(_)) { "a" } else { "aaaa" };
        ZoneRecord {
            host: self.host(&record.name),
            kind: kind.into(),
            value: record.address.to_string(),
            extra: String::new(),
        }
    }
}

fn plain(name: &str) -> String {
    name.trim().trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::Names;

    #[test]
    fn hosts_are_relative_to_the_zone() {
        let names = Names::new("Example.com.", "users.example.com").unwrap();
        assert_eq!((names.host("alice").as_str(), names.host("").as_str()), ("alice.users", "users"));
        assert_eq!(
            (names.marker_host().as_str(), names.full("*.users").as_str()),
            ("_feather.users", "*.users.example.com")
        );
        for typed in ["alice", "alice.users", "Alice.users.example.com."] {
            assert_eq!(names.typed(typed), "alice.users", "{typed}");
        }
        assert_eq!((names.typed("*"), names.typed("users")), ("*.users".into(), "users".into()));
        assert!(names.covers("a.users") && names.covers("users") && !names.covers("www") && !names.covers("xusers"));
        assert_eq!(
            (names.tenant("*.users"), names.tenant("al.users"), names.tenant("www")),
            (Some("*"), Some("al"), None)
        );
        let above = ["bob.users", "a.b.bob.users", "*.bob.users", "*.users", "_feather.users", "users", "www"];
        let bob = Some("bob");
        assert_eq!(above.map(|host| names.above(host)), [bob, bob, bob, None, None, None, None]);
        assert_eq!(
            (names.tenant("_feather.users"), names.tenant("a.b.users"), names.tenant("users")),
            (None, None, None)
        );
    }

    #[test]
    fn the_suffix_may_be_the_zone_and_must_lie_in_it() {
        let names = Names::new("example.com", "example.com").unwrap();
        assert_eq!((names.host("alice").as_str(), names.typed("*").as_str()), ("alice", "*"));
        for (zone, suffix) in [("example.com", "users.example.org"), ("example.com", "myexample.com"), ("", "a.b")] {
            assert!(Names::new(zone, suffix).is_err(), "{zone} {suffix}");
        }
    }
}
