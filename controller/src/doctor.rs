//! Looks for real: every server is asked, servers ask each other, provider and name servers are asked, now.
//!
//! Owns what is asked and for how long; what the answers mean is decided in [`findings`], pure. Changes nothing.

use std::{collections::BTreeMap, time::Duration};

use feather_proto::{error::Error, ids::ServerName, version::Range};
use futures::StreamExt as _;
use tokio::time::Instant;

use crate::{
    agents::{Peer, Probed},
    dns,
    store::ServerRow,
    world::World,
};

pub mod findings;

pub use findings::{Finding, Verdict};

/// Servers that are asked at once.
const PARALLEL: usize = 16;
/// Other servers that one is asked to reach.
const PEERS_MAX: usize = 64;
/// Provider and name servers have this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a server said, and how its clock compares.
#[derive(Debug, Clone)]
pub struct Answer {
    /// What it found.
    pub probed: Probed,
    /// What its agent speaks.
    pub protocol: Range,
    /// Until it answered.
    pub took: Duration,
    /// Its clock, less the controller's in the middle of the call.
    pub ahead: time::Duration,
}

/// Everything that was asked.
#[derive(Debug, Clone)]
pub struct Answers {
    /// The store answered.
    pub store: Result<(), Error>,
    /// Each member's answer.
    pub servers: BTreeMap<ServerName, Result<Answer, Error>>,
    /// What the zone shows; none when no zone is kept.
    pub zone: Option<Zone>,
}

/// Each name server by its address, and whether it answers for the zone; or why they are not known.
pub type NameServers = Result<Vec<(String, Result<(), String>)>, String>;

/// What would be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsettled {
    /// Records to make.
    pub create: usize,
    /// Records to remove.
    pub remove: usize,
    /// It is being changed, and was not to be done before now.
    pub pending: bool,
}

/// What provider and name servers said.
#[derive(Debug, Clone)]
pub struct Zone {
    /// Provider and zone.
    pub key: String,
    /// What would be changed at the provider, none when all is as wanted; or why it cannot be read.
    pub provider: Result<Option<Unsettled>, Error>,
    /// None when they are not asked.
    pub name_servers: Option<NameServers>,
}

/// Asks everybody, for a bounded time.
pub async fn ask(world: &World) -> Answers {
    let members = world.store.servers().await;
    let rows = members.as_ref().cloned().unwrap_or_default();
    let (servers, zone) = tokio::join!(ask_servers(world, &rows), ask_zone(world));
    Answers { store: members.map(drop).map_err(Error::from), servers, zone }
}

async fn ask_servers(world: &World, rows: &[ServerRow]) -> BTreeMap<ServerName, Result<Answer, Error>> {
    futures::stream::iter(rows.to_vec())
        .map(|row| async move {
            let answer = ask_server(world, &row, rows).await;
            (row.name, answer)
        })
        .buffer_unordered(PARALLEL)
        .collect()
        .await
}

async fn ask_server(world: &World, row: &ServerRow, rows: &[ServerRow]) -> Result<Answer, Error> {
    let agent = world.agents.agent(&row.name, &row.principal(), &row.address)?;
    let others = rows.iter().filter(|other| other.name != row.name).take(PEERS_MAX);
    let peers: Vec<_> =
        others.map(|other| Peer { server: other.principal(), address: other.address.clone() }).collect();
    // The clock is asked by itself: reaching others may take seconds.
    let (before, begun) = (world.clock.now(), Instant::now());
    let snapshot = agent.snapshot().await?;
    let took = begun.elapsed();
    let ahead = snapshot.now - (before + took / 2);
    let mut probed = agent.probe(&peers).await?;
    for reached in &mut probed.peers {
        // Agents know each other by their certificates.
        if let Some(other) = rows.iter().find(|other| other.identity == reached.server) {
            reached.server = other.name.clone();
        }
    }
    Ok(Answer { probed, protocol: snapshot.protocol, took, ahead })
}

async fn ask_zone(world: &World) -> Option<Zone> {
    let keeper = world.dns.keeper().ok()?;
    let late = || Error::timeout(feather_proto::error::reason::DNS, "the DNS provider gave no answer in time");
    let read = async {
        let (_, view) = dns::view(world, keeper).await?;
        if let Some(refused) = dns::keeper::refusal(&view) {
            return Err(refused);
        }
        let (create, remove) = (view.proposal.create.len(), view.proposal.remove.len());
        let pending = world.dns.is_on_its_way(&view, &world.settings.dns, world.clock.now());
        Ok((create + remove > 0).then_some(Unsettled { create, remove, pending }))
    };
    let provider = tokio::time::timeout(PATIENCE, read).await.unwrap_or_else(|_| Err(late()));
    let name_servers = match world.dns.authorities() {
        Some(authorities) => Some(ask_name_servers(authorities, keeper.names()).await),
        None => None,
    };
    Some(Zone { key: keeper.key().to_owned(), provider, name_servers })
}

async fn ask_name_servers(authorities: &dyn dns::authority::Authorities, names: &dns::names::Names) -> NameServers {
    let name = names.full(&names.host(dns::plan::WILDCARD));
    let asked = async {
        let servers = authorities.servers(names.zone()).await?;
        let asked = servers.into_iter().map(|server| {
            let name = name.clone();
            async move { (server.to_string(), authorities.ask(server, &name, "a").await.map(drop)) }
        });
        Ok(futures::future::join_all(asked).await)
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err("they gave no answer in time".to_owned()))
}
