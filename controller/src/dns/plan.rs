//! What the zone should hold. Pure.
//!
//! One wildcard leads to the *ingress*; a tenant elsewhere gets a record of its own while the budget lasts. Tenants are taken
//! in the order of their names, so that the same fleet always gives the same zone; one that has a record keeps it only while
//! the budget reaches it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use feather_proto::ids::{ServerName, TenantName};

use super::Record;
use crate::store::{ServerRow, TenantRow, TenantState};

/// Name of the wildcard's record.
pub const WILDCARD: &str = "*";

/// What the zone should hold, and what it cannot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Server that the wildcard leads to.
    pub ingress: Option<ServerName>,
    /// All our records.
    pub records: BTreeSet<Record>,
    /// Tenants away from the ingress without a record of their own; the ingress forwards them.
    pub over_budget: Vec<TenantName>,
    /// Tenants at the ingress: the wildcard leads to them.
    pub at_ingress: BTreeSet<TenantName>,
    /// Servers whose public address is no IP address, so that no record can lead to them.
    pub unaddressable: Vec<ServerName>,
}

/// The ingress: the settled one while it is a member, otherwise the server that holds most tenants, of those that a record can lead to
/// if there is one.
pub fn ingress(settled: Option<&str>, members: &[ServerRow], tenants: &[TenantRow]) -> Option<ServerName> {
    if let Some(row) = members.iter().find(|row| Some(row.name.as_str()) == settled) {
        return Some(row.name.clone());
    }
    let count = |server: &ServerName| active(tenants).filter(|(_, at)| *at == server).count();
    // Of equals the first by name: `max_by_key` would take the last.
    let reachable = |row: &ServerRow| row.public_address.parse::<IpAddr>().is_ok();
    members.iter().rev().max_by_key(|row| (reachable(row), count(&row.name))).map(|row| row.name.clone())
}

fn active(tenants: &[TenantRow]) -> impl Iterator<Item = (&TenantName, &ServerName)> {
    tenants
        .iter()
        .filter(|row| row.state == TenantState::Active)
        .filter_map(|row| row.server.as_ref().map(|server| (&row.name, server)))
}

/// Everything wanted.
pub fn wanted(ingress: Option<ServerName>, members: &[ServerRow], tenants: &[TenantRow], budget: usize) -> Wanted {
    let addresses: BTreeMap<&ServerName, IpAddr> =
        members.iter().filter_map(|row| Some((&row.name, row.public_address.parse().ok()?))).collect();
    let unaddressable =
        members.iter().filter(|row| !addresses.contains_key(&row.name)).map(|row| row.name.clone()).collect();
    let mut wanted = Wanted { unaddressable, ..Wanted::default() };
    if let Some(address) = ingress.as_ref().and_then(|name| addresses.get(name)) {
        wanted.records.insert(Record { name: WILDCARD.into(), address: *address });
    }
    let mut own = 0;
    for (tenant, server) in active(tenants) {
        match addresses.get(server) {
            _ if Some(server) == ingress.as_ref() => drop(wanted.at_ingress.insert(tenant.clone())),
            Some(address) if own < budget => {
                own += 1;
                wanted.records.insert(Record { name: tenant.to_string(), address: *address });
            }
            // Its server was declared lost: its name leads to nobody, whatever its record says.
            None if !members.iter().any(|row| row.name == *server) => {}
            _ => wanted.over_budget.push(tenant.clone()),
        }
    }
    wanted.ingress = ingress;
    wanted
}

#[cfg(test)]
mod tests {
    use feather_proto::ids::Generation;
    use time::OffsetDateTime;

    use super::{ingress, wanted};
    use crate::store::{ServerRow, TenantRow, TenantState};

    fn server(name: &str, address: &str) -> ServerRow {
        ServerRow {
            name: name.parse().unwrap(),
            identity: name.parse().unwrap(),
            address: format!("{address}:7443"),
            public_address: address.into(),
            key_fingerprint: String::new(),
            joined: OffsetDateTime::UNIX_EPOCH,
            upkeep: crate::upkeep::Upkeep::default(),
        }
    }

    fn tenant(name: &str, server: &str, state: TenantState) -> TenantRow {
        TenantRow {
            name: name.parse().unwrap(),
            state,
            server: Some(server.parse().unwrap()),
            previous_server: None,
            generation: Generation(1),
            generation_issued: Generation(2),
            running: true,
            created: OffsetDateTime::UNIX_EPOCH,
            version: 1,
            bounds: crate::placement::Bounds::default(),
            limits: Default::default(),
        }
    }

    fn lines(wanted: &super::Wanted) -> Vec<String> {
        wanted.records.iter().map(|record| format!("{} {}", record.name, record.address)).collect()
    }

    #[test]
    fn a_tenant_away_from_the_ingress_gets_its_own_record() {
        let members = [server("fra", "192.0.2.2"), server("nyc", "192.0.2.1")];
        let tenants = [
            tenant("alice", "nyc", TenantState::Active),
            tenant("bob", "nyc", TenantState::Active),
            tenant("carol", "fra", TenantState::Active),
            tenant("dave", "fra", TenantState::Removed),
        ];
        let chosen = ingress(None, &members, &tenants);
        assert_eq!(chosen.as_ref().unwrap().as_str(), "nyc");
        assert_eq!(lines(&wanted(chosen, &members, &tenants, 60)), ["* 192.0.2.1", "carol 192.0.2.2"]);
    }

    #[test]
    fn the_ingress_is_sticky_while_it_is_a_member() {
        let members = [server("fra", "192.0.2.2"), server("nyc", "192.0.2.1")];
        let tenants = [tenant("alice", "fra", TenantState::Active)];
        assert_eq!(ingress(Some("nyc"), &members, &tenants).unwrap().as_str(), "nyc");
        assert_eq!(ingress(Some("gone"), &members, &tenants).unwrap().as_str(), "fra");
        assert_eq!(ingress(None, &members, &[]).unwrap().as_str(), "fra");
        assert_eq!(ingress(None, &[], &tenants), None);
    }

    #[test]
    fn the_budget_bounds_own_records() {
        let members = [server("fra", "2001:db8::2"), server("nyc", "192.0.2.1")];
        let tenants: Vec<_> = ["a", "b", "c"].map(|name| tenant(name, "fra", TenantState::Active)).into();
        let wanted = wanted(Some("nyc".parse().unwrap()), &members, &tenants, 2);
        assert_eq!(lines(&wanted), ["* 192.0.2.1", "a 2001:db8::2", "b 2001:db8::2"]);
        assert_eq!(wanted.over_budget.iter().map(ToString::to_string).collect::<Vec<_>>(), ["c"]);
    }

    #[test]
    fn a_server_without_an_ip_address_is_said_so() {
        // Nobody is made the ingress whom no record can lead to, however many live there.
        let both = [server("fra", "192.0.2.2"), server("nyc", "nyc.example.com")];
        let there = [tenant("alice", "nyc", TenantState::Active)];
        assert_eq!(super::ingress(None, &both, &there), Some("fra".parse().unwrap()));
        assert_eq!(super::ingress(Some("gone"), &both[1..], &there), Some("nyc".parse().unwrap()));
        let members = [server("nyc", "nyc.example.com")];
        let wanted = wanted(Some("nyc".parse().unwrap()), &members, &[], 2);
        assert!(wanted.records.is_empty());
        assert_eq!(wanted.unaddressable.len(), 1);
    }
}
