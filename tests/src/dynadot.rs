//! A stand-in for Dynadot: its HTTP API with all its peculiarities, and the name servers of one zone.
//!
//! What is known of the provider is done as it does it; what is uncertain is a switch ([`Switches`]), and whoever relies on it must
//! work under both settings. A test can let anything go wrong ([`Fault`]), look at what was asked, and ask whether a record
//! of somebody else was ever changed, be it for a moment.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use feather_controller::{
    dns::{
        dynadot::{Credentials, Dynadot, DynadotOptions, Pace},
        zone::{Zone, ZoneRecord},
    },
    https::Limits,
};
use tokio::{net::TcpListener, task::JoinSet, time::Instant};

mod account;
mod commands;
mod door;
mod faults;
mod legacy;
mod lookup;
mod names;
mod switches;
mod values;
mod witness;

pub use account::{Logged, Signature};
pub use commands::{Domain, Standing};
pub use faults::{Answer, Apply, Edit, Fault, On};
pub use names::Publication;
pub use switches::Switches;

use account::{Account, Key, Rules};

/// A key that is good for tests only.
pub const KEY: &str = "fake-key-of-the-account";
/// Its secret.
pub const SECRET: &str = "fake-secret-of-the-account";

/// How a fake begins.
#[derive(Debug, Clone)]
pub struct Config {
    /// The registered domain that it knows.
    pub zone: String,
    /// What is in the zone. All of it is a stranger's unless `protected` says otherwise.
    pub initial: Zone,
    /// Records that no request may ever change; none: all of `initial`.
    pub protected: Option<Vec<ZoneRecord>>,
    /// What nobody is sure of.
    pub switches: Switches,
    /// Address of the HTTP API; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Addresses of the name servers (UDP and TCP), and when each has a change.
    pub name_servers: Vec<(SocketAddr, Publication)>,
    /// The API's key and secret.
    pub key: (String, String),
    /// From the start, so long the key is not accepted.
    pub warm_up: Duration,
    /// Addresses that may call the API; all when it is empty.
    pub allowed: Vec<IpAddr>,
    /// Requests in a minute, at most; none: no limit, for tests that do not wait.
    pub per_minute: Option<usize>,
}

impl Config {
    /// One name server that has everything at once, no limit but one request at a time, on free ports of this machine.
    pub fn new(zone: &str, initial: Zone) -> Self {
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            zone: zone.to_owned(),
            initial,
            protected: None,
            switches: Switches::default(),
            listen: free,
            name_servers: vec![(free, Publication::Immediate)],
            key: (KEY.to_owned(), SECRET.to_owned()),
            warm_up: Duration::ZERO,
            allowed: Vec::new(),
            per_minute: None,
        }
    }
}

/// A running fake; it ends when it is dropped.
pub struct FakeDynadot {
    account: Arc<Account>,
    zone: String,
    key: (String, String),
    url: String,
    name_servers: Vec<SocketAddr>,
    _tasks: JoinSet<()>,
}

impl FakeDynadot {
    /// Binds its sockets and serves on the current runtime.
    ///
    /// # Errors
    /// When an address cannot be had, or the zone has no name.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let Config { zone, initial, protected, switches, listen, name_servers, key, warm_up, allowed, per_minute } =
            config;
        let domain =
            Domain { glue: "DNS".into(), ttl: initial.ttl, records: initial.records.clone(), ..Domain::default() };
        let publications: Vec<_> = name_servers.iter().map(|(_, publication)| *publication).collect();
        let publications = names::Publications::new(&zone, &domain, &publications).map_err(anyhow::Error::msg)?;
        let valid_from = (!warm_up.is_zero()).then(|| Instant::now() + warm_up);
        let keys = vec![Key { key: key.0.clone(), secret: key.1.clone(), valid_from }];
        let rules = Rules { keys, allowed, per_minute, concurrent: 1, zone: zone.clone() };
        let protected = protected.unwrap_or(initial.records);
        let domains = BTreeMap::from([(zone.clone(), domain)]);
        let account = Arc::new(Account::new(rules, switches, domains, &protected, publications));
        let mut tasks = JoinSet::new();
        let mut addresses = Vec::new();
        for (at, (listen, _)) in name_servers.into_iter().enumerate() {
            let bound = account.publications.serve(at, listen).await;
            let (address, mut server) = bound.with_context(|| format!("cannot listen on {listen} for DNS"))?;
            addresses.push(address);
            tasks.spawn(async move { drop(server.block_until_done().await) });
        }
        let listener =
            TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen} for HTTP"))?;
        let url = format!("http://{}", listener.local_addr()?);
        tasks.spawn(door::serve(listener, account.clone()));
        Ok(Self { account, zone, key, url, name_servers: addresses, _tasks: tasks })
    }

    /// Where its API is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where its name servers are, UDP and TCP.
    pub fn name_servers(&self) -> &[SocketAddr] {
        &self.name_servers
    }

    /// Options for a client that waits for nothing.
    ///
    /// # Panics
    /// When the key is none that a client takes.
    pub fn options(&self) -> DynadotOptions {
        let credentials = Credentials::new(&self.key.0, &self.key.1).expect("the key is good");
        DynadotOptions {
            url: self.url.clone(),
            pace: Pace::UNBOUNDED,
            limits: Limits { connect: Duration::from_secs(5), total: Duration::from_secs(10) },
            ..DynadotOptions::new(&self.zone, credentials)
        }
    }

    /// A client that waits for nothing.
    ///
    /// # Panics
    /// When the zone is none that a client takes.
    pub fn client(&self) -> Dynadot {
        Dynadot::new(self.options()).expect("the options are good")
    }

    /// The zone as the API has it, whoever asks.
    pub fn zone(&self) -> Zone {
        self.account.zone()
    }

    /// Changes a domain of the account by hand, silently: for domains that are elsewhere or refuse. Another name adds one.
    pub fn set_domain(&self, name: &str, domain: Domain) {
        self.account.lock().domains.insert(name.to_owned(), domain);
    }

    /// A change of the zone on the provider's page.
    pub fn edit(&self, edit: &Edit) {
        self.account.edit(edit);
    }

    /// Other settings from now on.
    pub fn set_switches(&self, switches: Switches) {
        self.account.lock().switches = switches;
    }

    /// Lets the next request of its kind go wrong; faults are taken in their order.
    pub fn fail(&self, fault: Fault) {
        self.account.lock().faults.push(fault);
    }

    /// From now on so many of a hundred requests go wrong, as the seed has it.
    pub fn fail_by_plan(&self, seed: u64, percent: u32) {
        self.account.lock().faults.plan(seed, percent);
    }

    /// Nothing goes wrong any more, and what was to be done late is done.
    pub fn calm(&self) {
        self.account.lock().faults.clear();
        self.account.settle();
    }

    /// Have all single faults happened?
    pub fn is_calm(&self) -> bool {
        self.account.lock().faults.is_empty()
    }

    /// Makes the changes that were to be made late.
    pub fn settle(&self) {
        self.account.settle();
    }

    /// A name server shows everything now.
    pub fn release(&self, name_server: usize) {
        self.account.publications.release(name_server);
    }

    /// When a name server has later changes. Those that were held back it has now, unless it goes on holding back.
    pub fn set_publication(&self, name_server: usize, publication: Publication) {
        self.account.publications.set(name_server, publication);
    }

    /// All requests so far.
    pub fn log(&self) -> Vec<Logged> {
        self.account.lock().log.clone()
    }

    /// Records that requests took away, ever.
    pub fn destroyed(&self) -> usize {
        self.account.lock().witness.destroyed()
    }

    /// Every change that a request ever made to a record of somebody else; those on the provider's page are no violation.
    pub fn violations(&self) -> Vec<String> {
        self.account.lock().witness.violations().to_vec()
    }

    /// What others lost because the provider wrote an old zone over a newer one: no client can prevent it.
    pub fn disorder(&self) -> Vec<String> {
        self.account.lock().witness.disorder().to_vec()
    }

    /// Changes of the zone's TTL by requests, from and to, in seconds.
    pub fn ttl_changes(&self) -> Vec<(u32, u32)> {
        self.account.lock().witness.ttl_changes().to_vec()
    }
}
