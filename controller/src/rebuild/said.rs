//! What whoever rebuilds a store says: which servers there are, and what only a person can know. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    str::FromStr,
};

use feather_proto::ids::{ServerName, TenantName};

/// A server, and how it is reached. The store knew that, and nobody else does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its name; the certificate at the other end must carry it, so a later one does not do.
    pub name: ServerName,
    /// `host:port` of its agent.
    pub address: String,
    /// Where the world reaches its Caddy, if that was said.
    pub public: Option<String>,
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no agent: write NAME=HOST:PORT, or NAME=HOST:PORT,PUBLIC-ADDRESS");
        let (name, rest) = text.trim().split_once('=').ok_or_else(bad)?;
        let (address, public) = rest.split_once(',').map_or((rest, None), |(address, public)| (address, Some(public)));
        let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']');
        let is_host = |host: &str| !host.is_empty() && host.len() <= 253 && host.bytes().all(plain);
        let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
        if !is_port || !is_host(host) || public.is_some_and(|public| !is_host(public)) {
            return Err(bad());
        }
        let name = name.parse().map_err(|error| format!("{text:?}: {error}"))?;
        Ok(Self { name, address: address.to_owned(), public: public.map(ToOwned::to_owned) })
    }
}

impl Named {
    /// The host that the agent is reached at.
    pub(super) fn host(&self) -> &str {
        let host = self.address.rsplit_once(':').map_or("", |(host, _)| host);
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }
}

/// Agents from a file: one on each line, empty lines and those that begin with `#` left out.
///
/// # Errors
/// The line that is none, with its number.
pub fn read_agents(text: &str) -> Result<Vec<Named>, String> {
    let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line.trim()));
    let wanted = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    wanted.map(|(number, line)| line.parse().map_err(|error| format!("line {number}: {error}"))).collect()
}

/// Who has a tenant, of several that hold it as theirs or may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned {
    /// Whose home.
    pub tenant: TenantName,
    /// Where it is.
    pub server: ServerName,
}

impl FromStr for Assigned {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (tenant, server) =
            text.split_once('=').ok_or_else(|| format!("{text:?} assigns nobody: write TENANT=SERVER"))?;
        let bad = |error: feather_proto::error::Error| format!("{text:?}: {error}");
        Ok(Self { tenant: tenant.parse().map_err(bad)?, server: server.parse().map_err(bad)? })
    }
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// Every server.
    pub agents: Vec<Named>,
    /// What may be missing: names of servers that do not answer, and forwards that lead to none of these servers, as they were shown.
    pub without: BTreeSet<String>,
    /// Homes of tenants that several servers hold as theirs, or may.
    pub assigned: BTreeMap<TenantName, ServerName>,
    /// The server that the wildcard leads to.
    pub ingress: Option<ServerName>,
}

impl Said {
    /// Puts together what was said.
    ///
    /// # Errors
    /// It contradicts itself, in a sentence.
    pub fn new(
        agents: Vec<Named>,
        without: impl IntoIterator<Item = String>,
        assigned: impl IntoIterator<Item = Assigned>,
        ingress: Option<ServerName>,
    ) -> Result<Self, String> {
        if agents.is_empty() {
            return Err("name at least one server: --agent NAME=HOST:PORT, once for each, or --agents FILE".into());
        }
        let (mut names, mut addresses) = (BTreeSet::new(), BTreeMap::new());
        for one in &agents {
            if !names.insert(one.name.clone()) {
                return Err(format!("{} is named twice; each server has one name and one address", one.name));
            }
            if let Some(other) = addresses.insert(one.address.clone(), &one.name) {
                return Err(format!("{other} and {} cannot both be at {}", one.name, one.address));
            }
        }
        let unknown = |server: &ServerName, what: &str| {
            format!("{what} {server}, which is none of the servers that were named with --agent")
        };
        let mut homes = BTreeMap::new();
        for Assigned { tenant, server } in assigned {
            if !names.contains(&server) {
                return Err(unknown(&server, &format!("--assign {tenant}: there is no")));
            }
            if homes.insert(tenant.clone(), server).is_some() {
                return Err(format!("--assign gives {tenant} two homes; it has one"));
            }
        }
        if let Some(ingress) = ingress.as_ref().filter(|ingress| !names.contains(*ingress)) {
            return Err(unknown(ingress, "--ingress:"));
        }
        Ok(Self { agents, without: without.into_iter().collect(), assigned: homes, ingress })
    }
}

#[cfg(test)]
mod tests {
    use super::{Assigned, Named, Said, read_agents};

    #[test]
    fn agents_are_read_and_what_is_none_is_said_with_its_line() {
        let one: Named = "nyc=10.0.0.5:7443,203.0.113.5".parse().unwrap();
        assert_eq!((one.host(), one.public.as_deref()), ("10.0.0.5", Some("203.0.113.5")));
        assert_eq!("fra=[2001:db8::1]:7443".parse::<Named>().unwrap().host(), "2001:db8::1");
        assert_eq!(read_agents("# all\n\n nyc=nyc:7443 \nfra=fra:7443\n").unwrap().len(), 2);
        for bad in ["", "nyc", "nyc=nyc", "nyc=:7443", "nyc=nyc:0", "nyc=n c:7443", "Nyc=nyc:7443", "nyc=nyc:7443,"] {
            assert!(bad.parse::<Named>().is_err(), "{bad:?} was accepted");
        }
        assert!(read_agents("nyc=nyc:7443\nfra").unwrap_err().starts_with("line 2: "));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let agents = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Named>>();
        let assigned = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Assigned>>();
        let both = ["nyc=nyc:7443", "fra=fra:7443"];
        let said = Said::new(agents(&both), [], assigned(&["alice=nyc"]), Some("fra".parse().unwrap())).unwrap();
        assert_eq!(said.assigned.len(), 1);
        for (named, homes, ingress, told) in [
            (&[][..], &[][..], None, "at least one"),
            (&["nyc=a:1", "nyc=b:1"], &[], None, "twice"),
            (&["nyc=a:1", "fra=a:1"], &[], None, "both be at a:1"),
            (&both, &["alice=ams"], None, "no ams"),
            (&both, &["alice=nyc", "alice=fra"], None, "two homes"),
            (&both, &[], Some("ams"), "--ingress: ams"),
        ] {
            let ingress = ingress.map(|name: &str| name.parse().unwrap());
            let error = Said::new(agents(named), [], assigned(homes), ingress).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }
}
