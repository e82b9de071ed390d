//! Open connections of this machine, as the kernel lists them.

use std::{collections::BTreeSet, io, net::SocketAddr};

use procfs::net::{TcpNetEntry, TcpState};

use crate::router::Error;

/// Near ends of the connections that are open to a loopback port, whoever opened them. What is being closed does not count.
pub(super) fn to(port: u16) -> Result<BTreeSet<SocketAddr>, Error> {
    let unreadable =
        |error: procfs::ProcError| Error::Files { path: "/proc/net".into(), source: io::Error::other(error) };
    let mut all = procfs::net::tcp().map_err(unreadable)?;
    // A kernel without IPv6 has no such list.
    all.extend(procfs::net::tcp6().unwrap_or_default());
    Ok(near_ends(&all, port))
}

fn near_ends(all: &[TcpNetEntry], port: u16) -> BTreeSet<SocketAddr> {
    let leads_there = |entry: &&TcpNetEntry| {
        entry.remote_address.port() == port
            && entry.remote_address.ip().to_canonical().is_loopback()
            && entry.state == TcpState::Established
    };
    all.iter().filter(leads_there).map(|entry| entry.local_address).collect()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_connection_is_listed_from_its_opening_to_its_end() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            // Not every machine has IPv6.
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let port = listener.local_addr().unwrap().port();
            assert!(super::to(port).unwrap().is_empty());
            let first = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let second = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let ends = [&first, &second].map(|stream| stream.local_addr().unwrap());
            assert_eq!(super::to(port).unwrap(), ends.into());
            drop(first);
            assert_eq!(super::to(port).unwrap(), [ends[1]].into());
        }
    }
}
