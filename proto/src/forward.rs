//! Where a server takes requests that another one forwards to it.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use crate::{error::Error, ids::ServerName, model::invalid_field, tls::Principal};

/// `HOST:PORT` for plain HTTP, `SERVER@HOST:PORT` for TLS, in which that member of the fleet shows its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardTarget {
    /// `host:port`.
    pub address: String,
    /// Who must be there; `None` for plain HTTP.
    pub server: Option<ServerName>,
}

impl ForwardTarget {
    /// A server's address as others reach it; an IPv6 address gets its brackets.
    pub fn new(host: &str, port: u16, server: Option<ServerName>) -> Self {
        let address = match host.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]:{port}"),
            Err(_) => format!("{host}:{port}"),
        };
        Self { address, server }
    }

    /// The host of the address, without brackets.
    pub fn host(&self) -> &str {
        let host = self.address.rsplit_once(':').map_or("", |(host, _)| host);
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    /// Name that the certificate at the other end must have; `None` for plain HTTP.
    pub fn tls_name(&self) -> Option<String> {
        self.server.as_ref().map(|server| Principal::agent(server).dns_name())
    }
}

impl fmt::Display for ForwardTarget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(server) = &self.server {
            write!(formatter, "{server}@")?;
        }
        formatter.write_str(&self.address)
    }
}

impl FromStr for ForwardTarget {
    type Err = Error;

    /// It becomes part of a router's configuration, so it is held to what an address looks like.
    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || invalid_field("forward_to", "empty, `host:port` or `server@host:port`");
        let (server, address) = match text.split_once('@') {
            Some((server, address)) => (Some(server.parse().map_err(|_| bad())?), address),
            None => (None, text),
        };
        let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
        let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let host_ok = match inner {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte)),
        };
        let port_ok = port.parse::<u16>().is_ok_and(|port| port > 0);
        if host_ok && port_ok { Ok(Self { address: address.to_owned(), server }) } else { Err(bad()) }
    }
}

#[cfg(test)]
mod tests {
    use super::ForwardTarget;

    #[test]
    fn targets_are_read_back_as_they_are_written() {
        for text in
            ["192.0.2.7:80", "fra.example.com:8080", "[2001:db8::1]:80", "fra@192.0.2.7:443", "fra@[2001:db8::1]:443"]
        {
            let target: ForwardTarget = text.parse().unwrap();
            assert_eq!(target.to_string(), text);
            assert_eq!(target.tls_name().is_some(), text.contains('@'));
            assert!(["192.0.2.7", "fra.example.com", "2001:db8::1"].contains(&target.host()), "{}", target.host());
        }
        let fra = || Some("fra".parse().unwrap());
        assert_eq!(ForwardTarget::new("2001:db8::1", 443, fra()).to_string(), "fra@[2001:db8::1]:443");
        assert_eq!(ForwardTarget::new("fra.example.com", 80, None).to_string(), "fra.example.com:80");
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for bad in [
            "",
            "fra",
            "fra:",
            ":80",
            "fra:0",
            "fra:70000",
            "http://fra:80",
            "a b:80",
            "2001:db8::1:80",
            "{x}:80",
            "@fra:443",
            "Fra@fra:443",
            "a@b@fra:443",
            "fra@",
            "fra@:443",
        ] {
            assert!(bad.parse::<ForwardTarget>().is_err(), "{bad} was accepted");
        }
    }
}
