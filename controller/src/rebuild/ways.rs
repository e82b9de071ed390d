//! Where the world reaches each server, as far as forwards tell, and which server a forward leads to. Pure.

use std::collections::{BTreeMap, BTreeSet};

use feather_proto::{forward::ForwardTarget, ids::ServerName};

use super::{
    decide::{Seen, Sighting},
    said::Said,
};

/// Public addresses, by server.
pub(super) struct Ways<'a> {
    hosts: BTreeMap<&'a ServerName, String>,
    /// Servers for which forwards name several, and which.
    pub(super) unclear: BTreeMap<&'a ServerName, BTreeSet<String>>,
}

impl<'a> Ways<'a> {
    /// What was said counts; then what forwards tell; then the host that the agent is reached at.
    pub(super) fn learn(said: &'a Said, seen: &Seen<'_>) -> Self {
        let assumed: BTreeMap<_, _> =
            said.agents.iter().map(|one| (&one.name, one.public.as_deref().unwrap_or(one.host()))).collect();
        let mut told: BTreeMap<&ServerName, BTreeSet<String>> = BTreeMap::new();
        for sighting in seen.values().flatten() {
            let Some(target) = sighting.forward() else { continue };
            let host = target.host();
            let whose = match &target.server {
                Some(server) => Some(server),
                // The address of another server that is known: a forward from before a move.
                None if assumed.values().any(|known| *known == host) => None,
                None => seen.get(&sighting.report.tenant).and_then(|all| only_home(all, sighting)),
            };
            let whose = whose.and_then(|server| assumed.get_key_value(server)).map(|(server, _)| *server);
            if let Some(server) = whose {
                told.entry(server).or_default().insert(host.to_owned());
            }
        }
        let mut ways = Self { hosts: BTreeMap::new(), unclear: BTreeMap::new() };
        for one in &said.agents {
            let told = told.remove(&one.name).unwrap_or_default();
            let host = match (&one.public, told.len()) {
                (None, 1) => told.into_iter().next(),
                (None, 2..) => {
                    ways.unclear.insert(&one.name, told);
                    None
                }
                _ => None,
            };
            ways.hosts.insert(&one.name, host.unwrap_or_else(|| assumed[&one.name].to_owned()));
        }
        ways
    }

    /// Where the world reaches this server.
    pub(super) fn host(&self, server: &ServerName) -> String {
        self.hosts.get(server).cloned().unwrap_or_default()
    }

    /// The server that a forward leads to, if it is one of those that were named.
    pub(super) fn leads_to(&self, forward: &str) -> Option<&'a ServerName> {
        let target: ForwardTarget = forward.parse().ok()?;
        let (server, _) = match &target.server {
            Some(server) => self.hosts.get_key_value(server)?,
            None => self.hosts.iter().find(|(_, host)| **host == target.host())?,
        };
        Some(*server)
    }
}

/// The server that alone has the tenant as its own, unless a forward knows of something newer.
fn only_home<'a>(all: &[Sighting<'a>], forwards: &Sighting<'_>) -> Option<&'a ServerName> {
    let mut homes = all.iter().filter(|one| one.lives());
    let home = homes.next().filter(|home| home.report.generation >= forwards.report.generation)?;
    homes.next().is_none().then_some(home.server)
}
