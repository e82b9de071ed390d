//! Whether what is wanted has arrived: the provider shows it, and every name server of the zone says it.
//!
//! Asks the name servers themselves, some at a time, and keeps since when each has said what is wanted. In memory only: a controller
//! that starts knows nothing and waits once more, which is the safe side. How long it has to wait is kept ([`ttls`](super::ttls)).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use feather_proto::error::Error;
use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::{Mode, names::Names, plan, ttls::Ttls, zone::ZoneRecord};
use crate::{
    dns::authority::Authorities,
    store::{Store, TenantRow, TenantState},
    world::World,
};

/// Questions at once.
const PARALLEL: usize = 8;
/// Questions in one pass.
const QUESTIONS_MAX: usize = 512;

/// What a name server should say of one kind of records at one name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question {
    /// Host of the zone.
    pub host: String,
    /// `a`, `aaaa` or `txt`.
    pub kind: String,
}

/// What one name server says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// What it said last.
    pub values: BTreeSet<String>,
    /// Why it did not answer.
    pub problem: Option<String>,
    /// Says what is wanted since then, in milliseconds since 1970.
    pub good_since_ms: Option<i64>,
    asked_ms: i64,
}

/// What name servers should say, all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanting {
    /// The values that each question should be answered with.
    pub answers: BTreeMap<Question, BTreeSet<String>>,
    /// Hosts without a record of their own: the wildcard answers for them.
    pub by_wildcard: BTreeSet<String>,
}

/// Everything known.
#[derive(Debug, Clone, Default)]
pub struct Known {
    servers: Vec<SocketAddr>,
    problem: Option<String>,
    wanted: BTreeMap<Question, BTreeSet<String>>,
    by_wildcard: BTreeSet<String>,
    answers: BTreeMap<(Question, SocketAddr), Answer>,
    /// Hosts at which the provider does not show what is wanted; none before the first look.
    unsettled: Option<BTreeSet<String>>,
    /// TTLs that the zone was seen with; none before the store was asked for them.
    ttls: Option<Ttls>,
}

/// What one look at the zone has shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shown {
    /// Hosts that are not as wanted.
    pub unsettled: BTreeSet<String>,
    /// Of the zone, in seconds.
    pub ttl: u32,
    /// When, in milliseconds since 1970.
    pub now_ms: i64,
}

/// Shared between the reconciler and whoever asks.
#[derive(Debug, Default)]
pub struct Tracker {
    known: Mutex<Known>,
    /// One look at a time says what it saw.
    seen: tokio::sync::Mutex<()>,
}

impl Tracker {
    /// All of it, now.
    pub fn known(&self) -> Known {
        self.lock().clone()
    }

    /// What the provider shows: hosts that are not as wanted, and the zone's TTL. That is kept before anything follows from it.
    ///
    /// # Errors
    /// The store does not answer; nothing is known to be as wanted on account of this look, then.
    pub async fn provider_shows(&self, store: &Store, zone: &str, shown: Shown) -> Result<(), Error> {
        let _turn = self.seen.lock().await;
        let known = self.lock().ttls.clone();
        let before = match known {
            Some(known) => known,
            None => match store.dns_ttls(zone).await? {
                Some(text) => serde_json::from_str(&text).map_err(|error| Error::bug(format!("dns ttls: {error}")))?,
                None => Ttls::default(),
            },
        };
        let now = before.with(shown.ttl, shown.now_ms);
        if now != before {
            let text = serde_json::to_string(&now).map_err(|error| Error::bug(error.to_string()))?;
            store.set_dns_ttls(zone, &text).await?;
        }
        let mut known = self.lock();
        (known.unsettled, known.ttls) = (Some(shown.unsettled), Some(now));
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// What is wanted from now on. Answers to what is no longer wanted so are forgotten.
    pub fn want(&mut self, wanted: Wanting, servers: Result<Vec<SocketAddr>, String>) {
        match servers {
            Ok(servers) => (self.servers, self.problem) = (servers, None),
            Err(problem) => self.problem = Some(problem),
        }
        self.by_wildcard = wanted.by_wildcard;
        let before = std::mem::replace(&mut self.wanted, wanted.answers);
        let (wanted, servers) = (&self.wanted, &self.servers);
        self.answers.retain(|(question, server), _| {
            servers.contains(server) && wanted.contains_key(question) && wanted.get(question) == before.get(question)
        });
    }

    /// Whom to ask what: whatever is not as wanted, and what was asked longer ago than that.
    pub fn due(&self, now_ms: i64, again_ms: i64) -> Vec<(Question, SocketAddr)> {
        let pairs = self.wanted.keys().flat_map(|question| self.servers.iter().map(move |server| (question, *server)));
        let mut due: Vec<_> = pairs
            .filter_map(|(question, server)| {
                let pair = (question.clone(), server);
                match self.answers.get(&pair) {
                    Some(answer) if answer.good_since_ms.is_some() && now_ms < answer.asked_ms + again_ms => None,
                    Some(answer) => Some((answer.asked_ms, pair)),
                    None => Some((i64::MIN, pair)),
                }
            })
            .collect();
        // Who waited longest comes first, so that everybody's turn comes.
        due.sort();
        due.into_iter().map(|(_, pair)| pair).take(QUESTIONS_MAX).collect()
    }

    /// A name server answered, or did not.
    pub fn heard(&mut self, pair: (Question, SocketAddr), said: Result<BTreeSet<String>, String>, now_ms: i64) {
        let Some(wanted) = self.wanted.get(&pair.0) else { return };
        let answer = self.answers.entry(pair).or_default();
        answer.asked_ms = now_ms;
        match said {
            Ok(values) => {
                let good = values == *wanted;
                answer.good_since_ms = good.then(|| answer.good_since_ms.unwrap_or(now_ms));
                (answer.values, answer.problem) = (values, None);
            }
            // What it said before is the best that is known, but nobody can rely on it.
            Err(problem) => (answer.problem, answer.good_since_ms) = (Some(problem), None),
        }
    }

    /// Since when a name is as wanted, at the provider and at every name server; in milliseconds since 1970.
    pub fn converged_ms(&self, names: &Names, host: &str) -> Option<i64> {
        let unsettled = self.unsettled.as_ref()?;
        if self.servers.is_empty() || self.problem.is_some() || unsettled.contains(host) {
            return None;
        }
        if self.by_wildcard.contains(host) && unsettled.contains(&names.host(plan::WILDCARD)) {
            return None;
        }
        let questions: Vec<_> = self.wanted.keys().filter(|question| question.host == host).collect();
        if questions.is_empty() {
            return None;
        }
        let since = |question: &Question, server| self.answers.get(&(question.clone(), server))?.good_since_ms;
        let all = questions.iter().flat_map(|question| self.servers.iter().map(move |server| since(question, *server)));
        all.reduce(|one, other| Some(one?.max(other?))).flatten()
    }

    /// Whole names that the provider shows as wanted and that have not arrived everywhere; none before anybody was asked.
    pub fn late(&self, names: &Names) -> Option<Vec<String>> {
        let unsettled = self.unsettled.as_ref()?;
        if self.servers.is_empty() || self.problem.is_some() {
            return None;
        }
        let wildcard = unsettled.contains(&names.host(plan::WILDCARD));
        let hidden = |host: &String| unsettled.contains(host) || wildcard && self.by_wildcard.contains(host);
        let hosts: BTreeSet<&String> = self.wanted.keys().map(|question| &question.host).collect();
        let late = hosts.into_iter().filter(|host| !hidden(host) && self.converged_ms(names, host).is_none());
        Some(late.map(|host| names.full(host)).collect())
    }

    /// Answers for a name, one for each name server: good only if all kinds are.
    pub fn answers_for(&self, host: &str) -> Vec<(SocketAddr, Answer)> {
        let of = |server: &SocketAddr| {
            let mut whole: Option<Answer> = None;
            for question in self.wanted.keys().filter(|question| question.host == host) {
                let answer = self.answers.get(&(question.clone(), *server)).cloned().unwrap_or_default();
                whole = Some(match whole {
                    None => answer,
                    Some(one) => Answer {
                        values: one.values.into_iter().chain(answer.values).collect(),
                        problem: one.problem.or(answer.problem),
                        good_since_ms: one.good_since_ms.zip(answer.good_since_ms).map(|(one, other)| one.max(other)),
                        asked_ms: one.asked_ms.max(answer.asked_ms),
                    },
                });
            }
            whole.map(|answer| (*server, answer))
        };
        self.servers.iter().filter_map(of).collect()
    }

    /// Why name servers are not asked.
    pub fn problem(&self) -> Option<&String> {
        self.problem.as_ref()
    }

    /// Is nobody led by an old address to this host any more? What was never asked for follows the wildcard. `now` is what should be said
    /// now: what was found when something else was wanted says nothing.
    pub fn is_left(&self, names: &Names, host: &str, now: &Wanting, now_ms: i64) -> bool {
        let of = |wanted: &BTreeMap<Question, BTreeSet<String>>, host: &str| -> Vec<(Question, BTreeSet<String>)> {
            let first = Question { host: host.to_owned(), kind: String::new() };
            let of_host = wanted.range(first..).take_while(|(question, _)| question.host == host);
            of_host.map(|(question, values)| (question.clone(), values.clone())).collect()
        };
        let same = |host: &str| of(&self.wanted, host) == of(&now.answers, host);
        if !same(host) || !same(&names.host(plan::WILDCARD)) {
            return false;
        }
        let asked = self.wanted.keys().any(|question| question.host == host);
        let wildcard = names.host(plan::WILDCARD);
        self.is_settled(names, if asked { host } else { &wildcard }, now_ms)
    }

    /// How long a name must have been as wanted, and nobody have come by an older address: twice the longest TTL that anybody may
    /// have been given.
    pub fn quiet(&self, now_ms: i64) -> Duration {
        Duration::from_millis(u64::try_from(self.quiet_ms(now_ms)).unwrap_or_default())
    }

    fn quiet_ms(&self, now_ms: i64) -> i64 {
        self.ttls.as_ref().map_or(0, |ttls| ttls.quiet_ms(now_ms))
    }

    /// A forward is no longer needed: it has been as wanted for the longest TTL that anybody may have been given, and as long again. One that
    /// counted when the last name server turned counts to its end.
    pub fn is_settled(&self, names: &Names, host: &str, now_ms: i64) -> bool {
        let quiet_ms = |since| self.quiet_ms(now_ms).max(self.quiet_ms(since));
        self.converged_ms(names, host).is_some_and(|since| now_ms >= since.saturating_add(quiet_ms(since)))
    }
}

/// What name servers should say: of every record that is wanted, and of every tenant that ever moved. Both kinds of addresses are
/// asked for, so that an old one beside a new one is noticed.
pub fn questions(names: &Names, terms: &[ZoneRecord], tenants: &[TenantRow]) -> Wanting {
    let mut wanted = Wanting::default();
    let wildcard = names.host(plan::WILDCARD);
    let at = |host: &str, kind: &str| -> BTreeSet<String> {
        terms.iter().filter(|one| one.host == host && one.kind == kind).map(|one| one.value.clone()).collect()
    };
    let mut ask = |host: &str, from: &str, kind: &str| {
        wanted.answers.insert(Question { host: host.to_owned(), kind: kind.to_owned() }, at(from, kind));
        if host != from {
            wanted.by_wildcard.insert(host.to_owned());
        }
    };
    for record in terms {
        let kinds: &[&str] = if record.kind == "txt" { &["txt"] } else { &["a", "aaaa"] };
        kinds.iter().for_each(|kind| ask(&record.host, &record.host, kind));
    }
    let moved = tenants.iter().filter(|row| row.state == TenantState::Active && row.previous_server.is_some());
    for host in moved.map(|row| names.host(row.name.as_str())) {
        let own = terms.iter().any(|one| one.host == host);
        ["a", "aaaa"].iter().for_each(|kind| ask(&host, if own { &host } else { &wildcard }, kind));
    }
    wanted
}

/// One round of questions. True when everything is as wanted.
async fn round(world: &World, authorities: &dyn Authorities) -> Result<bool, Error> {
    let keeper = world.dns.keeper()?;
    let names = keeper.names();
    let wanted = super::wanted(world).await?;
    let terms = super::terms(world, names, &wanted).await?;
    let questions = questions(names, &terms, &world.store.tenants().await?);
    let servers = authorities.servers(names.zone()).await;
    let now_ms = || super::now_ms(world);
    let again_ms = i64::try_from(world.settings.dns.interval.as_millis()).unwrap_or(i64::MAX);
    let tracker = &world.dns.tracker;
    let due = {
        let mut known = tracker.lock();
        known.want(questions, servers);
        known.due(now_ms(), again_ms)
    };
    let mut asked = futures::stream::iter(due)
        .map(|(question, server)| async move {
            let said = authorities.ask(server, &names.full(&question.host), &question.kind).await;
            ((question, server), said)
        })
        .buffer_unordered(PARALLEL);
    while let Some((pair, said)) = asked.next().await {
        tracker.lock().heard(pair, said, now_ms());
    }
    let known = tracker.lock();
    let all = known.wanted.keys().all(|question| known.converged_ms(names, &question.host).is_some());
    Ok(all)
}

/// Asks until shutdown: often while something is on its way, seldom otherwise.
pub async fn keep(world: std::sync::Arc<World>, shutdown: CancellationToken) {
    let Some(authorities) = world.dns.authorities.clone().filter(|_| world.dns.keeper().is_ok()) else { return };
    let mut passes = world.dns.passes.subscribe();
    loop {
        passes.mark_unchanged();
        let arrived = shutdown.run_until_cancelled(round(&world, &*authorities)).await;
        let pause = match arrived {
            None => return,
            Some(Ok(true)) => world.settings.dns.interval,
            Some(Ok(false)) => world.settings.dns.ask_again,
            Some(Err(error)) => {
                tracing::warn!(%error, "name servers were not asked; trying again");
                world.settings.dns.ask_again
            }
        };
        // What a person has to apply first does not arrive by asking.
        let pause = if world.settings.dns.mode == Mode::Manual { pause.max(Duration::from_secs(1)) } else { pause };
        tokio::select! {
            _ = passes.changed() => {}
            () = tokio::time::sleep(pause) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use super::{Known, Names, Question, Shown, Store, Tracker, Ttls, Wanting, ZoneRecord, questions};

    fn a(host: &str, value: &str) -> ZoneRecord {
        ZoneRecord { host: host.into(), kind: "a".into(), value: value.into(), extra: String::new() }
    }

    fn names() -> Names {
        Names::new("example.com", "users.example.com").unwrap()
    }

    fn values(of: &[&str]) -> BTreeSet<String> {
        of.iter().map(ToString::to_string).collect()
    }

    fn wanting(address: &str) -> Wanting {
        questions(&names(), &[a("alice.users", address)], &[])
    }

    /// Asks for everything that is due and hears these addresses of each server.
    fn hear(known: &mut Known, said: &[(&str, &str)], now_ms: i64) {
        for (question, server) in known.due(now_ms, 1_000) {
            let of = said.iter().find(|(of, _)| server.to_string() == *of).unwrap().1;
            let said = if question.kind == "a" { values(&[of]) } else { values(&[]) };
            known.heard((question, server), Ok(said), now_ms);
        }
    }

    #[test]
    fn a_name_has_arrived_when_the_provider_and_all_name_servers_say_so() {
        let (one, two) = ("192.0.2.53:53", "198.51.100.53:53");
        let tracker = Tracker::default();
        let mut known = tracker.known();
        let servers = || Ok(vec![one.parse().unwrap(), two.parse().unwrap()]);
        known.want(wanting("203.0.113.1"), servers());
        hear(&mut known, &[(one, "203.0.113.1"), (two, "203.0.113.9")], 10);
        known.unsettled = Some(BTreeSet::new());
        assert_eq!(known.converged_ms(&names(), "alice.users"), None);
        assert_eq!(known.late(&names()), Some(vec!["alice.users.example.com".to_owned()]));
        hear(&mut known, &[(one, "203.0.113.1"), (two, "203.0.113.1")], 20);
        assert_eq!(known.converged_ms(&names(), "alice.users"), Some(20));
        known.unsettled = Some(BTreeSet::from(["alice.users".to_owned()]));
        assert_eq!(known.converged_ms(&names(), "alice.users"), None);
        // What the provider does not show is no fault of a name server.
        assert_eq!(known.late(&names()), Some(vec![]));
        known.unsettled = Some(BTreeSet::new());
        // Silence proves nothing, and nobody asked is nobody asked.
        known.heard(
            (Question { host: "alice.users".into(), kind: "a".into() }, two.parse().unwrap()),
            Err("timed out".into()),
            30,
        );
        assert_eq!(known.converged_ms(&names(), "alice.users"), None);
        assert_eq!(known.converged_ms(&names(), "bob.users"), None);
        // Another address is another question.
        known.want(wanting("203.0.113.2"), servers());
        assert_eq!(known.due(30, 1_000).len(), 2, "{:?}", known.due(30, 1_000));
    }

    #[test]
    fn what_is_good_is_asked_again_later_and_its_time_counts_from_the_first() {
        let one = "192.0.2.53:53";
        let ttls = Some(Ttls::default().with(3, 0));
        let mut known = Known { unsettled: Some(BTreeSet::new()), ttls, ..Known::default() };
        known.want(wanting("203.0.113.1"), Ok(vec![one.parse().unwrap()]));
        hear(&mut known, &[(one, "203.0.113.1")], 5);
        assert_eq!(known.due(1_004, 1_000), []);
        hear(&mut known, &[(one, "203.0.113.1")], 1_005);
        assert_eq!(known.converged_ms(&names(), "alice.users"), Some(5));
        assert!(!known.is_settled(&names(), "alice.users", 6_004) && known.is_settled(&names(), "alice.users", 6_005));
        known.want(wanting("203.0.113.1"), Err("the name servers cannot be found".into()));
        assert!(!known.is_settled(&names(), "alice.users", 9_999));
    }

    #[tokio::test]
    async fn a_controller_that_starts_knows_the_ttls_that_the_one_before_it_saw() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite://{}", folder.path().join("store.db").display())).await.unwrap();
        let one = Tracker::default();
        one.provider_shows(&store, "memory/a", Shown { ttl: 600, now_ms: 1_000, ..Shown::default() }).await.unwrap();
        let next = Tracker::default();
        assert_eq!(next.known().quiet(2_000), Duration::ZERO);
        next.provider_shows(&store, "memory/a", Shown { ttl: 1, now_ms: 2_000, ..Shown::default() }).await.unwrap();
        assert_eq!(next.known().quiet(2_000), Duration::from_secs(1_200));
        assert_eq!(next.known().quiet(1_202_000), Duration::from_secs(2));
        let other = Tracker::default();
        other.provider_shows(&store, "memory/b", Shown { ttl: 1, now_ms: 2_000, ..Shown::default() }).await.unwrap();
        assert_eq!(other.known().quiet(2_000), Duration::from_secs(2));
        // What cannot be kept is not known.
        store.close().await;
        let shown = Shown { ttl: 1, ..Shown::default() };
        assert!(Tracker::default().provider_shows(&store, "memory/a", shown).await.is_err());
    }
}
