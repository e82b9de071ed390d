//! The zone's name servers, asked themselves: no cache between.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use async_trait::async_trait;
use hickory_resolver::{
    Resolver, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::{RData, RecordType},
};

/// A name server has this long to answer one question.
const PATIENCE: Duration = Duration::from_secs(3);
const PORT: u16 = 53;

/// Who answers for a zone, and what.
#[async_trait]
pub trait Authorities: Send + Sync {
    /// The addresses of all name servers of a zone, in their order; why they are not known.
    async fn servers(&self, zone: &str) -> Result<Vec<SocketAddr>, String>;
    /// What one of them says: the values of a name (whole, without a trailing dot) of kind `a`, `aaaa` or `txt`; none at all for a name
    /// or kind that it does not have. An error when it does not answer.
    async fn ask(&self, server: SocketAddr, name: &str, kind: &str) -> Result<BTreeSet<String>, String>;
}

/// Over the network.
#[derive(Debug, Default)]
pub struct Network {
    /// Asked instead of those that the zone names.
    pub fixed: Vec<SocketAddr>,
}

#[async_trait]
impl Authorities for Network {
    async fn servers(&self, zone: &str) -> Result<Vec<SocketAddr>, String> {
        if !self.fixed.is_empty() {
            return Ok(self.fixed.clone());
        }
        let told = |error: NetError| format!("the name servers of {zone} cannot be found: {error}");
        let system = Resolver::builder_tokio().and_then(|builder| builder.build()).map_err(told)?;
        let named = system.lookup(whole(zone), RecordType::NS).await.map_err(told)?;
        let mut found = BTreeSet::new();
        for record in named.answers() {
            let RData::NS(server) = &record.data else { continue };
            match system.lookup_ip(server.0.clone()).await {
                Ok(addresses) => {
                    found.extend(addresses.iter().map(|address| SocketAddr::new(address, PORT)).filter(is_routed));
                }
                // One that has no address answers nobody; the others are enough to ask.
                Err(error) if error.is_no_records_found() => {}
                // Without one that may be late, everything would seem to have arrived.
                Err(error) => {
                    return Err(format!(
                        "the address of {}, a name server of {zone}, cannot be found: {error}",
                        server.0
                    ));
                }
            }
        }
        if found.is_empty() {
            Err(format!("no name server of {zone} has an address that this machine has a route to"))
        } else {
            Ok(found.into_iter().collect())
        }
    }

    async fn ask(&self, server: SocketAddr, name: &str, kind: &str) -> Result<BTreeSet<String>, String> {
        let kind = match kind {
            "a" => RecordType::A,
            "aaaa" => RecordType::AAAA,
            "txt" => RecordType::TXT,
            other => return Err(format!("nobody asks for records of type {other}")),
        };
        let resolver = only(server).map_err(|error| error.to_string())?;
        match resolver.lookup(whole(name), kind).await {
            Ok(found) => Ok(found.answers().iter().filter_map(|record| value(&record.data)).collect()),
            Err(error) if error.is_no_records_found() => Ok(BTreeSet::new()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Whether this machine has a route there: without IPv6, half of the addresses of most name servers answer nobody here, and a name
/// would never have arrived. Nothing is sent.
fn is_routed(server: &SocketAddr) -> bool {
    let own: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    UdpSocket::bind(own).and_then(|socket| socket.connect(server)).is_ok()
}

/// Asks that server and nobody else, and remembers nothing.
fn only(server: SocketAddr) -> Result<TokioResolver, NetError> {
    let mut config = NameServerConfig::udp_and_tcp(server.ip());
    config.connections.iter_mut().for_each(|connection: &mut ConnectionConfig| connection.port = server.port());
    let mut options = ResolverOpts::default();
    options.timeout = PATIENCE;
    options.attempts = 2;
    options.cache_size = 0;
    options.recursion_desired = false;
    options.use_hosts_file = ResolveHosts::Never;
    Resolver::builder_with_config(ResolverConfig::from_name_servers(vec![config]), TokioRuntimeProvider::default())
        .with_options(options)
        .build()
}

/// With the dot that keeps search lists away.
fn whole(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.'))
}

fn value(data: &RData) -> Option<String> {
    match data {
        RData::A(address) => Some(address.0.to_string()),
        RData::AAAA(address) => Some(address.0.to_string()),
        RData::TXT(text) => {
            let bytes: Vec<u8> = text.txt_data.iter().flat_map(|part| part.iter().copied()).collect();
            String::from_utf8(bytes).ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::is_routed;

    #[test]
    fn an_address_of_this_machine_is_routed_and_one_that_cannot_be_reached_at_all_is_not() {
        assert!(is_routed(&"127.0.0.1:53".parse().unwrap()));
        assert!(!is_routed(&"255.255.255.255:53".parse().unwrap()), "nobody may send there without asking for it");
    }
}
