//! The zone's name servers: what each of them has of the zone, and when.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use feather_controller::dns::zone::Zone;
use hickory_server::{
    Server,
    net::runtime::Time,
    proto::{
        op::{Header, HeaderCounts, Metadata, OpCode, ResponseCode},
        rr::Name,
    },
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
    zone_handler::MessageResponseBuilder,
};
use tokio::{
    net::{TcpListener, UdpSocket},
    time::Instant,
};

use super::{commands::Domain, lookup::Published};

/// When a name server has a change that the API has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publication {
    /// At once.
    Immediate,
    /// So long after it.
    After(Duration),
    /// When the test says so.
    Held,
}

/// One name server's states of the zone.
struct Copies {
    publication: Publication,
    shown: Arc<Published>,
    /// With the time at which they are shown; none: when the test says so.
    coming: Vec<(Option<Instant>, Arc<Published>)>,
}

impl Copies {
    fn now(&mut self) -> Arc<Published> {
        let now = Instant::now();
        let due = |at: &Option<Instant>| at.is_some_and(|at| at <= now);
        while self.coming.first().is_some_and(|(at, _)| due(at)) {
            self.shown = self.coming.remove(0).1;
        }
        self.shown.clone()
    }
}

/// What all name servers have.
pub(super) struct Publications {
    servers: Vec<Arc<Mutex<Copies>>>,
    origin: Name,
    names: Vec<Name>,
    serial: Mutex<u32>,
}

fn locked<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Publications {
    /// All begin with this zone.
    pub(super) fn new(zone: &str, domain: &Domain, servers: &[Publication]) -> Result<Self, String> {
        let name = |text: String| Name::from_ascii(&text).map_err(|error| format!("{text}: {error}"));
        let origin = name(format!("{zone}."))?;
        let names =
            (1..=servers.len()).map(|n| name(format!("ns{n}.fake-dynadot.test."))).collect::<Result<Vec<_>, _>>()?;
        let mut all = Self { servers: Vec::new(), origin, names, serial: Mutex::new(0) };
        let shown = all.state(domain);
        let copies = |publication: &Publication| {
            Arc::new(Mutex::new(Copies { publication: *publication, shown: shown.clone(), coming: Vec::new() }))
        };
        all.servers = servers.iter().map(copies).collect();
        Ok(all)
    }

    fn state(&self, domain: &Domain) -> Arc<Published> {
        let mut serial = locked(&self.serial);
        *serial += 1;
        let zone = Zone { ttl: domain.ttl, records: domain.records.clone() };
        Arc::new(Published { origin: self.origin.clone(), serial: *serial, zone, servers: self.names.clone() })
    }

    /// The zone has changed.
    pub(super) fn publish(&self, domain: &Domain) {
        let state = self.state(domain);
        for server in &self.servers {
            let mut copies = locked(server);
            let now = Instant::now();
            let at = match copies.publication {
                Publication::Immediate => Some(now),
                Publication::After(pause) => Some(now + pause),
                Publication::Held => None,
            };
            copies.coming.push((at, state.clone()));
        }
    }

    /// A name server has everything now.
    pub(super) fn release(&self, server: usize) {
        let mut copies = locked(&self.servers[server]);
        if let Some((_, newest)) = copies.coming.pop() {
            copies.coming.clear();
            copies.shown = newest;
        }
    }

    /// A name server does so from now on. What it held back it has now, unless it goes on holding back.
    pub(super) fn set(&self, server: usize, publication: Publication) {
        if publication != Publication::Held {
            self.release(server);
        }
        locked(&self.servers[server]).publication = publication;
    }

    /// Binds UDP and TCP at the same address.
    pub(super) async fn serve(&self, server: usize, listen: SocketAddr) -> io::Result<(SocketAddr, Server<Answers>)> {
        let (udp, tcp) = bind(listen).await?;
        let address = tcp.local_addr()?;
        let mut dns = Server::new(Answers(self.servers[server].clone()));
        dns.register_socket(udp);
        dns.register_listener(tcp, Duration::from_secs(5), 16);
        Ok((address, dns))
    }
}

async fn bind(listen: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    // A free port of one kind may be taken in the other.
    let mut attempts = if listen.port() == 0 { 20 } else { 1 };
    loop {
        attempts -= 1;
        let tcp = TcpListener::bind(listen).await?;
        match UdpSocket::bind(tcp.local_addr()?).await {
            Ok(udp) => return Ok((udp, tcp)),
            Err(error) if attempts == 0 => return Err(error),
            Err(_) => {}
        }
    }
}

/// Answers for one name server.
pub(super) struct Answers(Arc<Mutex<Copies>>);

#[async_trait]
impl RequestHandler for Answers {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut handle: R) -> ResponseInfo {
        let published = locked(&self.0).now();
        let mut metadata = Metadata::response_from_request(&request.metadata);
        let builder = MessageResponseBuilder::from_message_request(request);
        let query = request.request_info().ok().filter(|_| request.metadata.op_code == OpCode::Query);
        let sent = match query {
            None => handle.send_response(builder.error_msg(&request.metadata, ResponseCode::NotImp)).await,
            Some(info) => {
                let query = info.query.original();
                let found = published.find(query.name(), query.query_type());
                metadata.authoritative = found.authoritative;
                metadata.response_code = found.code;
                let response = builder.build(metadata, &found.answers, &found.authority, [], []);
                handle.send_response(response).await
            }
        };
        sent.unwrap_or_else(|_| {
            metadata.response_code = ResponseCode::ServFail;
            ResponseInfo::from(Header { metadata, counts: HeaderCounts::default() })
        })
    }
}
