//! What an authoritative name server says of a zone: wildcards, names that only have names below them, delegations. Pure.

use feather_controller::dns::zone::{Zone, ZoneRecord};
use hickory_server::proto::{
    op::ResponseCode,
    rr::{
        Name, RData, Record, RecordType,
        rdata::{NS, SOA, TXT},
    },
};

/// Seconds for which nobody asks again for what is not there.
const NEGATIVE_TTL: u32 = 60;
/// Names that lead to names, at most.
const CHAIN_MAX: usize = 8;

/// A zone as a name server has it.
#[derive(Debug, Clone)]
pub(super) struct Published {
    /// Its name.
    pub(super) origin: Name,
    /// Counts its states.
    pub(super) serial: u32,
    pub(super) zone: Zone,
    /// Names of its servers.
    pub(super) servers: Vec<Name>,
}

/// An answer.
#[derive(Debug, PartialEq)]
pub(super) struct Found {
    pub(super) code: ResponseCode,
    /// False when others are responsible.
    pub(super) authoritative: bool,
    pub(super) answers: Vec<Record>,
    /// The start of authority, or who is responsible.
    pub(super) authority: Vec<Record>,
}

impl Published {
    /// What is at this name.
    pub(super) fn find(&self, name: &Name, kind: RecordType) -> Found {
        let mut found =
            Found { code: ResponseCode::NoError, authoritative: true, answers: Vec::new(), authority: Vec::new() };
        let mut wanted = name.clone();
        for _ in 0..CHAIN_MAX {
            let Some(host) = self.host(&wanted) else {
                if found.answers.is_empty() {
                    found.code = ResponseCode::Refused;
                    found.authoritative = false;
                }
                return found;
            };
            if let Some(servers) = self.delegation(&host) {
                found.authoritative = !found.answers.is_empty();
                found.authority = servers;
                return found;
            }
            let here = self.at(&host);
            let Some(here) = here else {
                found.code = ResponseCode::NXDomain;
                found.authority = vec![self.start()];
                return found;
            };
            let answers: Vec<_> = here.iter().filter_map(|record| self.record(&wanted, record)).collect();
            let direct: Vec<_> = answers.iter().filter(|record| matches(record.record_type(), kind)).cloned().collect();
            if !direct.is_empty() {
                found.answers.extend(direct);
                return found;
            }
            if host.is_empty() && matches(RecordType::SOA, kind) {
                found.answers.push(self.start());
                return found;
            }
            if host.is_empty() && matches(RecordType::NS, kind) {
                found.answers.extend(self.ns());
                return found;
            }
            let Some(alias) = answers.into_iter().find(|record| record.record_type() == RecordType::CNAME) else {
                found.authority = vec![self.start()];
                return found;
            };
            let RData::CNAME(target) = &alias.data else { return found };
            wanted = target.0.clone();
            found.answers.push(alias);
        }
        found
    }

    /// The name relative to the zone, as records have it; none when it is not in the zone.
    fn host(&self, name: &Name) -> Option<String> {
        let (name, origin) = (name.to_ascii().to_ascii_lowercase(), self.origin.to_ascii().to_ascii_lowercase());
        if name == origin {
            return Some(String::new());
        }
        name.strip_suffix(&origin)?.strip_suffix('.').map(ToOwned::to_owned)
    }

    fn exactly(&self, host: &str) -> Vec<&ZoneRecord> {
        self.zone.records.iter().filter(|record| record.host == host).collect()
    }

    /// Is there such a name, be it only for names below it?
    fn exists(&self, host: &str) -> bool {
        host.is_empty()
            || self.zone.records.iter().any(|record| {
                record.host == host || record.host.strip_suffix(host).is_some_and(|front| front.ends_with('.'))
            })
    }

    /// Records at a name, its own or those of the wildcard beside its nearest existing ancestor; none when there is neither.
    fn at(&self, host: &str) -> Option<Vec<&ZoneRecord>> {
        if self.exists(host) {
            return Some(self.exactly(host));
        }
        let mut ancestor = host;
        while !self.exists(ancestor) {
            ancestor = ancestor.split_once('.').map_or("", |(_, rest)| rest);
        }
        let wildcard = if ancestor.is_empty() { "*".to_owned() } else { format!("*.{ancestor}") };
        Some(self.exactly(&wildcard)).filter(|records| !records.is_empty())
    }

    /// The servers of a part of the zone that was given away.
    fn delegation(&self, host: &str) -> Option<Vec<Record>> {
        let mut part = host;
        while !part.is_empty() {
            let servers: Vec<_> = self.exactly(part).into_iter().filter(|record| record.kind == "ns").collect();
            if !servers.is_empty() {
                let name = Name::from_ascii(part).ok()?.append_name(&self.origin).ok()?;
                return Some(servers.into_iter().filter_map(|record| self.record(&name, record)).collect());
            }
            part = part.split_once('.').map_or("", |(_, rest)| rest);
        }
        None
    }

    fn record(&self, name: &Name, record: &ZoneRecord) -> Option<Record> {
        let absolute = |host: &str| if host.ends_with('.') { host.to_owned() } else { format!("{host}.") };
        let data = match record.kind.as_str() {
            "a" => RData::A(record.value.parse().ok()?),
            "aaaa" => RData::AAAA(record.value.parse().ok()?),
            "cname" => RData::try_from_str(RecordType::CNAME, &absolute(&record.value)).ok()?,
            "ns" => RData::try_from_str(RecordType::NS, &absolute(&record.value)).ok()?,
            "mx" => {
                RData::try_from_str(RecordType::MX, &format!("{} {}", record.extra, absolute(&record.value))).ok()?
            }
            "srv" => RData::try_from_str(RecordType::SRV, &absolute(&record.value)).ok()?,
            "caa" => RData::try_from_str(RecordType::CAA, &record.value).ok()?,
            "txt" => {
                let parts: Vec<_> = record.value.as_bytes().chunks(255).collect();
                RData::TXT(TXT::from_bytes(parts))
            }
            // Answered by the provider's own web servers.
            "forward" | "stealth" => RData::A(std::net::Ipv4Addr::new(192, 0, 2, 80).into()),
            _ => return None,
        };
        Some(Record::from_rdata(name.clone(), self.zone.ttl, data))
    }

    fn start(&self) -> Record {
        let first = self.servers.first().cloned().unwrap_or_else(|| self.origin.clone());
        let soa = SOA::new(first, self.origin.clone(), self.serial, 7200, 900, 604_800, NEGATIVE_TTL);
        Record::from_rdata(self.origin.clone(), NEGATIVE_TTL, RData::SOA(soa))
    }

    fn ns(&self) -> Vec<Record> {
        let one = |server: &Name| Record::from_rdata(self.origin.clone(), self.zone.ttl, RData::NS(NS(server.clone())));
        self.servers.iter().map(one).collect()
    }
}

fn matches(there: RecordType, asked: RecordType) -> bool {
    there == asked || asked == RecordType::ANY
}

#[cfg(test)]
mod tests {
    use feather_controller::dns::zone::{Zone, ZoneRecord};
    use hickory_server::proto::{
        op::ResponseCode,
        rr::{Name, RecordType},
    };

    use super::Published;

    fn published() -> Published {
        let lines = [
            "@ a 192.0.2.1",
            "@ mx mx.example.net|10",
            "@ caa 0 issue \"ca.example.net\"",
            "*.users a 192.0.2.2",
            "alice.users a 192.0.2.3",
            "www cname example.com",
            "out cname elsewhere.example.net.",
            "child ns ns1.example.net",
            "a.b.c txt deep",
            "_acme-challenge.users txt token",
        ];
        let records = lines
            .map(|line| {
                let mut words = line.splitn(3, ' ');
                let mut next = || words.next().unwrap().to_owned();
                let (host, kind, rest) = (next(), next(), next());
                let (value, extra) = rest.split_once('|').unwrap_or((&rest, ""));
                ZoneRecord { host: host.trim_matches('@').into(), kind, value: value.into(), extra: extra.into() }
            })
            .into();
        let name = |text: &str| Name::from_ascii(text).unwrap();
        Published {
            origin: name("example.com."),
            serial: 7,
            zone: Zone { ttl: 300, records },
            servers: vec![name("ns1.fake-dynadot.test.")],
        }
    }

    /// Code, answers and who speaks, in one line.
    fn ask(name: &str, kind: RecordType) -> String {
        let found = published().find(&Name::from_ascii(name).unwrap(), kind);
        let answers: Vec<_> = found.answers.iter().map(|record| format!("{} {}", record.name, record.data)).collect();
        let authority: Vec<_> = found.authority.iter().map(|record| record.record_type().to_string()).collect();
        let code = if found.code == ResponseCode::NoError { String::new() } else { format!("{:?} ", found.code) };
        format!(
            "{code}[{}] {}{}",
            answers.join(", "),
            authority.join(","),
            if found.authoritative { "" } else { " (not ours)" }
        )
    }

    #[test]
    fn a_wildcard_stands_for_what_does_not_exist_and_for_nothing_else() {
        assert_eq!(ask("bob.users.example.com.", RecordType::A), "[bob.users.example.com. 192.0.2.2] ");
        assert_eq!(ask("x.bob.users.example.com.", RecordType::A), "[x.bob.users.example.com. 192.0.2.2] ");
        assert_eq!(ask("alice.users.example.com.", RecordType::A), "[alice.users.example.com. 192.0.2.3] ");
        // Alice has no AAAA, and the wildcard is none of hers; below alice there is nothing.
        assert_eq!(ask("alice.users.example.com.", RecordType::AAAA), "[] SOA");
        assert_eq!(ask("x.alice.users.example.com.", RecordType::A), "NXDomain [] SOA");
        assert_eq!(ask("bob.users.example.com.", RecordType::AAAA), "[] SOA");
        assert_eq!(ask("_acme-challenge.users.example.com.", RecordType::A), "[] SOA");
        assert_eq!(
            ask("_acme-challenge.users.example.com.", RecordType::TXT),
            "[_acme-challenge.users.example.com. token] "
        );
        assert_eq!(ask("*.users.example.com.", RecordType::A), "[*.users.example.com. 192.0.2.2] ");
    }

    #[test]
    fn a_name_with_names_below_it_exists() {
        assert_eq!(ask("users.example.com.", RecordType::A), "[] SOA");
        assert_eq!(ask("b.c.example.com.", RecordType::TXT), "[] SOA");
        assert_eq!(ask("nobody.example.com.", RecordType::A), "NXDomain [] SOA");
    }

    #[test]
    fn aliases_are_followed_and_parts_are_given_away() {
        assert_eq!(ask("WWW.example.com.", RecordType::A), "[WWW.example.com. example.com., example.com. 192.0.2.1] ");
        assert_eq!(ask("out.example.com.", RecordType::A), "[out.example.com. elsewhere.example.net.] ");
        assert_eq!(ask("x.child.example.com.", RecordType::A), "[] NS (not ours)");
        assert_eq!(ask("example.org.", RecordType::A), "Refused []  (not ours)");
        assert_eq!(ask("badexample.com.", RecordType::A), "Refused []  (not ours)");
    }

    #[test]
    fn the_apex_has_its_servers_and_its_start() {
        assert_eq!(ask("example.com.", RecordType::NS), "[example.com. ns1.fake-dynadot.test.] ");
        assert!(ask("example.com.", RecordType::SOA).contains(" 7 "));
        assert_eq!(ask("example.com.", RecordType::MX), "[example.com. 10 mx.example.net.] ");
        assert!(ask("example.com.", RecordType::CAA).contains("0 issue"));
        assert_eq!(ask("example.com.", RecordType::TXT), "[] SOA");
    }
}
