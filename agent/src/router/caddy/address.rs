//! Where Caddy's admin API is: at a socket, or at a TCP port. Pure.
//!
//! Owns how that is written, which is Caddy's own way, so that one setting tells Caddy where to listen and the agent where to ask.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use reqwest::{
    Client, ClientBuilder,
    header::{HOST, HeaderMap, HeaderValue},
};

/// Where a birth's Caddy listens: in a folder that only root may enter, since an older Caddy leaves the socket's own mode to chance.
pub const ADMIN_SOCKET: &str = "/run/feather/caddy/admin.sock";

/// Longest path of a socket that Linux takes, in bytes.
const SOCKET_MAX: usize = 107;

/// Where Caddy's admin API is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminAddress {
    /// A socket, by its absolute path. Who may reach it is the business of the folder that it is in.
    Socket(PathBuf),
    /// `HOST:PORT`. Everybody on a loopback interface reads the configuration there, and may change it.
    Tcp(String),
}

/// A text that is no such address. Says what would be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; write unix/{ADMIN_SOCKET} for a socket, or http://127.0.0.1:2020 for a port")]
pub struct BadAddress(String);

impl AdminAddress {
    /// Where a birth container's Caddy listens unless it is told otherwise.
    pub fn of_a_birth() -> Self {
        Self::Socket(ADMIN_SOCKET.into())
    }

    /// The same in Caddy's configuration.
    pub(super) fn listen(&self) -> String {
        match self {
            Self::Socket(path) => format!("unix/{}", path.display()),
            Self::Tcp(address) => address.clone(),
        }
    }

    /// What the paths of requests are appended to.
    pub(super) fn url(&self) -> String {
        match self {
            // It needs one, and nobody looks at it.
            Self::Socket(_) => "http://caddy".to_owned(),
            Self::Tcp(address) => format!("http://{address}"),
        }
    }

    /// A client of this address alone.
    pub(super) fn client(&self, builder: ClientBuilder) -> reqwest::Result<Client> {
        match self {
            Self::Socket(path) => {
                // Caddy until 2.6 wants no name from whoever comes by a socket; later ones do not look.
                let nobody = HeaderMap::from_iter([(HOST, HeaderValue::from_static(""))]);
                builder.unix_socket(path.clone()).default_headers(nobody).build()
            }
            Self::Tcp(_) => builder.build(),
        }
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(formatter, "unix/{}", path.display()),
            Self::Tcp(address) => write!(formatter, "http://{address}"),
        }
    }
}

impl FromStr for AdminAddress {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let bad = |why: &str| BadAddress(format!("{text:?} {why}"));
        if let Some(path) = text.strip_prefix("unix/") {
            return socket(path).map(Self::Socket).map_err(bad);
        }
        let Some(address) = text.strip_prefix("http://") else {
            return Err(bad("is no address of Caddy's admin API"));
        };
        let address = address.strip_suffix('/').unwrap_or(address);
        let (host, port) = address.rsplit_once(':').ok_or_else(|| bad("has no port"))?;
        let plain = |character: char| character.is_ascii_alphanumeric() || ".-:[]".contains(character);
        if host.is_empty() || !host.chars().all(plain) {
            return Err(bad("has no host that can be asked"));
        }
        match port.parse::<u16>() {
            Ok(1..) => Ok(Self::Tcp(address.to_owned())),
            _ => Err(bad("has no port from 1 to 65535")),
        }
    }
}

fn socket(path: &str) -> Result<PathBuf, &'static str> {
    if !path.starts_with('/') || path.ends_with('/') {
        return Err("is not unix/ and the absolute path of a socket");
    }
    // Caddy takes the first for the beginning of a mode, the second for that of a placeholder.
    if path.contains(['|', '{']) {
        return Err("has a | or a { in it, which mean something to Caddy");
    }
    if path.len() > SOCKET_MAX {
        return Err("is longer than the path of a socket may be, which is 107 bytes");
    }
    Ok(Path::new(path).to_owned())
}

#[cfg(test)]
mod tests {
    use super::{ADMIN_SOCKET, AdminAddress};

    #[test]
    fn what_is_told_to_the_agent_is_told_to_caddy() {
        for (text, listen, url) in [
            ("unix//run/feather/caddy/admin.sock", "unix//run/feather/caddy/admin.sock", "http://caddy"),
            ("http://127.0.0.1:2020", "127.0.0.1:2020", "http://127.0.0.1:2020"),
            ("http://localhost:2019/", "localhost:2019", "http://localhost:2019"),
            ("http://[::1]:2019", "[::1]:2019", "http://[::1]:2019"),
        ] {
            let address: AdminAddress = text.parse().unwrap();
            assert_eq!((address.listen().as_str(), address.url().as_str()), (listen, url));
            assert_eq!(address.to_string(), text.trim_end_matches('/'));
            assert_eq!(address.to_string().parse(), Ok(address));
        }
        assert_eq!(format!("unix/{ADMIN_SOCKET}").parse(), Ok(AdminAddress::of_a_birth()));
    }

    #[test]
    fn what_is_no_address_is_told_what_would_be() {
        let long = format!("unix//{}", "a".repeat(200));
        for (bad, why) in [
            ("", "no address"),
            ("/run/feather/caddy/admin.sock", "no address"),
            ("127.0.0.1:2020", "no address"),
            ("https://127.0.0.1:2020", "no address"),
            ("unix/run/caddy.sock", "absolute path"),
            ("unix//", "absolute path"),
            ("unix//run/caddy.sock|0222", "mean something to Caddy"),
            (&long, "107 bytes"),
            ("http://127.0.0.1", "no port"),
            ("http://127.0.0.1:0", "no port"),
            ("http://127.0.0.1:2020/config", "no port"),
            ("http://:2020", "no host"),
            ("http://user@127.0.0.1:2020", "no host"),
        ] {
            let said = bad.parse::<AdminAddress>().unwrap_err().to_string();
            assert!(said.contains(why) && said.contains("write unix//run/"), "{bad:?}: {said}");
        }
    }
}
