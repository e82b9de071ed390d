//! The proxy in memory, faults on demand.
//!
//! Owns what a test needs to stand in for Caddy: it keeps the routes and answers requests by them, as far as a status code
//! and the name of who served. Fakes of several servers that share [`Peers`] forward to each other.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use feather_proto::ids::TenantName;
use tokio::{sync::Notify, time::Instant};

use super::{Error, HOP_MARK, HOPS_MAX, Link, Route, Router, UnderWay};
use crate::runtime;

/// A call that can be made to fail; named like the method of [`Router`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// To make the routes so.
    Ensure,
    /// To read them.
    Observe,
    /// To ask through the public port.
    Probe,
}

#[derive(Debug, thiserror::Error)]
#[error("injected fault")]
struct Injected;

fn unreachable() -> Error {
    Error::Unreachable { address: "fake".to_owned(), source: Box::new(Injected) }
}

/// A request as far as routing looks at it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// Value of the header that opens a probe route.
    pub probe: Option<String>,
    /// Value of the header that marks a forwarded request.
    pub forwarded_by: Option<String>,
}

impl Request {
    fn hops(&self) -> usize {
        self.forwarded_by.iter().flat_map(|marks| marks.chars()).filter(|char| *char == HOP_MARK).count()
    }
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Server whose container was asked, if the request came that far.
    pub served_by: Option<String>,
}

impl Answer {
    fn bare(status: u16) -> Self {
        Self { status, served_by: None }
    }
}

/// Public addresses, `host:port`, of the fakes of a fleet.
#[derive(Default)]
pub struct Peers(Mutex<BTreeMap<String, Weak<Fake>>>);

impl Peers {
    /// From now on the fake answers at this address.
    pub fn insert(&self, address: &str, fake: &Arc<Fake>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(address.to_owned(), Arc::downgrade(fake));
    }

    fn get(&self, address: &str) -> Option<Arc<Fake>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(address)?.upgrade()
    }
}

#[derive(Default)]
struct State {
    routes: BTreeMap<TenantName, Route>,
    /// Of tenants that are forwarded.
    asked: BTreeMap<TenantName, Instant>,
    admin: Option<u16>,
    restarts: u64,
    changes: u64,
    unreachable: bool,
    refusals: BTreeMap<Verb, u32>,
    lost_replies: BTreeMap<Verb, u32>,
    in_flight: BTreeMap<u16, VecDeque<UnderWay>>,
    looks: u64,
    applied: u64,
    held: Option<Arc<Held>>,
    link: Option<Link>,
    entrance: String,
}

/// A change of routes that a test lets go on.
#[derive(Debug, Default)]
pub struct Held {
    reached: Notify,
    go_on: Notify,
}

impl Held {
    /// Waits until somebody makes a change.
    pub async fn reached(&self) {
        self.reached.notified().await;
    }

    /// The change is made.
    pub fn go_on(&self) {
        self.go_on.notify_one();
    }
}

/// The fake proxy of one server.
#[derive(Default)]
pub struct Fake {
    server: String,
    runtime: Option<Arc<runtime::fake::Fake>>,
    peers: Arc<Peers>,
    state: Mutex<State>,
}

impl Fake {
    /// A proxy without routes, behind which every port answers.
    pub fn new() -> Self {
        Self::default()
    }

    /// The server's name, and the engine whose containers are behind the ports.
    #[must_use]
    pub fn in_front_of(mut self, server: &str, runtime: Arc<runtime::fake::Fake>) -> Self {
        server.clone_into(&mut self.server);
        self.runtime = Some(runtime);
        self
    }

    /// Where other servers' proxies are found.
    #[must_use]
    pub fn among(mut self, peers: Arc<Peers>) -> Self {
        self.peers = peers;
        self
    }

    /// The next `times` calls of the verb are refused and do nothing.
    pub fn fail_next(&self, verb: Verb, times: u32) {
        self.state().refusals.insert(verb, times);
    }

    /// The next call of the verb does its work, and its caller is told that the proxy does not answer.
    pub fn lose_reply_next(&self, verb: Verb) {
        *self.state().lost_replies.entry(verb).or_default() += 1;
    }

    /// While so, every call fails and does nothing, and requests find nobody.
    pub fn unreachable(&self, unreachable: bool) {
        self.state().unreachable = unreachable;
    }

    /// What is found under way to the port, look after look; the last of them stays.
    pub fn under_way(&self, port: u16, looks: impl IntoIterator<Item = UnderWay>) {
        self.state().in_flight.insert(port, looks.into_iter().collect());
    }

    /// How often somebody looked at what is under way.
    pub fn looks(&self) -> u64 {
        self.state().looks
    }

    /// The next change of routes is not made before the test says so.
    pub fn hold_next_change(&self) -> Arc<Held> {
        let held = Arc::new(Held::default());
        self.state().held = Some(held.clone());
        held
    }

    /// How often somebody said what the routes must be, whether that changed any or not.
    pub fn applied(&self) -> u64 {
        self.state().applied
    }

    /// Somebody writes a route by hand.
    pub fn write_by_hand(&self, tenant: &TenantName, route: Route) {
        self.state().routes.insert(tenant.clone(), route);
    }

    /// Where the proxy is to be found from inside of its server.
    pub fn enter_at(&self, address: &str) {
        address.clone_into(&mut self.state().entrance);
    }

    /// How other servers are recognised.
    pub fn link(&self) -> Option<Link> {
        self.state().link.clone()
    }

    /// The proxy was restarted with its base configuration.
    pub fn lose_routes(&self) {
        let mut state = self.state();
        state.routes.clear();
        state.admin = None;
    }

    /// How often the process was restarted by [`Router::restart`].
    pub fn restarts(&self) -> u64 {
        self.state().restarts
    }

    /// How often the configuration was changed: each change costs somebody a connection.
    pub fn changes(&self) -> u64 {
        self.state().changes
    }

    /// What a request to `/health` under the tenant's host name gets.
    pub fn request(&self, tenant: &TenantName, request: &Request) -> Answer {
        let (route, admin) = {
            let mut state = self.state();
            if state.unreachable {
                return Answer::bare(502);
            }
            state.asked.entry(tenant.clone()).and_modify(|last| *last = Instant::now());
            (state.routes.get(tenant).cloned(), state.admin)
        };
        match (self.answer(tenant, route.as_ref(), request), admin) {
            (Some(answer), _) => answer,
            (None, Some(port)) => self.serve(port),
            (None, None) => Answer::bare(404),
        }
    }

    /// Nothing for a request that no route of the tenant takes.
    fn answer(&self, tenant: &TenantName, route: Option<&Route>, request: &Request) -> Option<Answer> {
        Some(match route? {
            // Nobody can wait in here: what a held request gets when it waited too long.
            Route::Unavailable | Route::Hold { .. } => Answer::bare(503),
            // Nobody knows what somebody else's does; it leads somewhere.
            Route::Foreign => Answer::bare(200),
            Route::Serve { port } => self.serve(*port),
            Route::Probe { port, token, .. } if request.probe.as_ref() == Some(token) => self.serve(*port),
            Route::Probe { otherwise, .. } => self.answer(tenant, otherwise.as_deref(), request)?,
            Route::Forward { .. } if request.hops() >= HOPS_MAX => Answer::bare(508),
            Route::Forward { to } => {
                let before = request.forwarded_by.as_deref().unwrap_or_default();
                let hop =
                    Request { forwarded_by: Some(format!("{before}{}{HOP_MARK}", self.server)), ..request.clone() };
                self.peers.get(to).map_or(Answer::bare(502), |peer| peer.request(tenant, &hop))
            }
        })
    }

    fn serve(&self, port: u16) -> Answer {
        if self.runtime.as_ref().is_none_or(|runtime| runtime.listening(port)) {
            return Answer { status: 200, served_by: Some(self.server.clone()) };
        }
        Answer::bare(502)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic under the lock is a failed test already.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a call in; true means that its reply gets lost.
    fn enter(&self, verb: Verb) -> Result<(MutexGuard<'_, State>, bool), Error> {
        let mut state = self.state();
        if state.unreachable {
            return Err(unreachable());
        }
        if take(&mut state.refusals, verb) {
            return Err(Error::Refused("injected fault".to_owned()));
        }
        let lost = take(&mut state.lost_replies, verb);
        Ok((state, lost))
    }
}

fn take(counts: &mut BTreeMap<Verb, u32>, verb: Verb) -> bool {
    match counts.get_mut(&verb) {
        Some(left) if *left > 0 => {
            *left -= 1;
            true
        }
        _ => false,
    }
}

fn deliver<T>(value: T, lost: bool) -> Result<T, Error> {
    if lost { Err(unreachable()) } else { Ok(value) }
}

#[async_trait]
impl Router for Fake {
    async fn ensure_among(
        &self,
        routes: &BTreeMap<TenantName, Route>,
        known: Option<&BTreeSet<TenantName>>,
    ) -> Result<bool, Error> {
        let held = self.state().held.take();
        if let Some(held) = held {
            held.reached.notify_one();
            held.go_on.notified().await;
        }
        let (mut state, lost) = self.enter(Verb::Ensure)?;
        state.applied += 1;
        let strangers = state.routes.iter().filter(|(tenant, _)| known.is_some_and(|known| !known.contains(tenant)));
        let mut wanted: BTreeMap<TenantName, Route> =
            strangers.map(|(tenant, route)| (tenant.clone(), route.clone())).collect();
        let asked: Vec<_> = routes
            .iter()
            .filter_map(|(tenant, route)| match route {
                Route::Foreign => Some((tenant.clone(), state.routes.get(tenant)?.clone())),
                route => Some((tenant.clone(), route.clone())),
            })
            .collect();
        wanted.extend(asked);
        let differs = state.routes != wanted;
        if differs {
            state.routes = wanted;
            state.changes += 1;
        }
        let forwarded: BTreeSet<TenantName> = routes
            .iter()
            .filter(|(_, route)| matches!(route, Route::Forward { .. }))
            .map(|one| one.0.clone())
            .collect();
        state.asked.retain(|tenant, _| forwarded.contains(tenant));
        for tenant in forwarded {
            state.asked.entry(tenant).or_insert_with(Instant::now);
        }
        deliver(differs, lost)
    }

    async fn observe(&self) -> Result<BTreeMap<TenantName, Route>, Error> {
        let (state, lost) = self.enter(Verb::Observe)?;
        deliver(state.routes.clone(), lost)
    }

    async fn ensure_link(&self, link: &Link) -> Result<bool, Error> {
        let mut state = self.state();
        if state.unreachable {
            return Err(unreachable());
        }
        let differs = state.link.as_ref() != Some(link);
        state.link = Some(link.clone());
        Ok(differs)
    }

    fn entrance(&self) -> String {
        self.state().entrance.clone()
    }

    fn last_asked(&self, tenant: &TenantName) -> Option<Instant> {
        self.state().asked.get(tenant).copied()
    }

    async fn in_flight(&self, port: u16) -> Result<UnderWay, Error> {
        let (mut state, lost) = self.enter(Verb::Observe)?;
        state.looks += 1;
        let looks = state.in_flight.entry(port).or_default();
        let found = if looks.len() > 1 { looks.pop_front() } else { looks.front().cloned() };
        deliver(found.unwrap_or_default(), lost)
    }

    async fn probe(&self, tenant: &TenantName, token: Option<&str>, _limit: Duration) -> Result<u16, Error> {
        let (state, lost) = self.enter(Verb::Probe)?;
        drop(state);
        let request = Request { probe: token.map(str::to_owned), forwarded_by: None };
        deliver(self.request(tenant, &request).status, lost)
    }

    async fn ensure_admin(&self, port: Option<u16>) -> Result<bool, Error> {
        let (mut state, lost) = self.enter(Verb::Ensure)?;
        let differs = state.admin != port;
        if differs {
            state.admin = port;
            state.changes += 1;
        }
        deliver(differs, lost)
    }

    async fn observe_admin(&self) -> Result<Option<u16>, Error> {
        let (state, lost) = self.enter(Verb::Observe)?;
        deliver(state.admin, lost)
    }

    async fn restart(&self) -> Result<(), Error> {
        let mut state = self.state();
        state.restarts += 1;
        state.unreachable = false;
        state.routes.clear();
        state.admin = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
