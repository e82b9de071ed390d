//! The record engine against the stand-in for Dynadot: histories from a seed, in which the fleet changes, everything goes wrong that can,
//! and controllers die behind any of their writes. Nobody's records are ever touched, and in the end the zone is as wanted.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use feather_controller::{
    dns::{
        Rules,
        bag::Bag,
        keeper::{Ask, Keeper},
        names::Names,
        propose::Cap,
        zone::{Zone, ZoneRecord},
    },
    store::{AfterCommit, Store},
    world::{Clock, SystemClock},
};
use feather_tests::{
    dynadot::{Answer, Apply, Config, Edit, FakeDynadot, Fault, On, Switches},
    wait::until,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use tokio::sync::Notify;

const KEY: &str = "dynadot/example.com";

fn record(host: &str, kind: &str, value: &str, extra: &str) -> ZoneRecord {
    ZoneRecord { host: host.into(), kind: kind.into(), value: value.into(), extra: extra.into() }
}

/// A domain with mail and a site, and something of others under the fleet's suffix.
fn foreign() -> Vec<ZoneRecord> {
    let mut records = vec![
        record("", "a", "192.0.2.80", ""),
        record("", "mx", "mail.example.net", "10"),
        record("", "txt", "v=spf1 include:mail.example.net ~all", ""),
        record("_dmarc", "txt", "v=DMARC1; p=none", ""),
        record("_sip._tcp", "srv", "10 60 5060 sip.example.net", ""),
        record("old", "forward", "https://example.net/", "301"),
        record("www", "cname", "example.net", ""),
        record("docs.users", "a", "198.51.100.7", ""),
        record("t3.users", "a", "198.51.100.8", ""),
        record("t4.users", "txt", "a note", ""),
    ];
    records.sort();
    records
}

/// The machine's clock, some time later each time that a controller is given up.
struct Later(AtomicI64);

impl Clock for Later {
    fn now(&self) -> time::OffsetDateTime {
        SystemClock.now() + time::Duration::milliseconds(self.0.load(Ordering::SeqCst))
    }
}

/// What outlives a controller.
struct Bench {
    fake: FakeDynadot,
    store: Store,
    clock: Arc<Later>,
    writes: Arc<AtomicI64>,
    died: Arc<Notify>,
    lives: AtomicI64,
    _folder: tempfile::TempDir,
}

fn rules() -> Rules {
    Rules {
        patience: Duration::from_millis(15),
        sight: Duration::from_millis(25),
        look_again: Duration::from_millis(1),
        lease: Duration::from_secs(60),
        snapshots: 20,
        ..Rules::default()
    }
}

impl Bench {
    async fn start(switches: Switches) -> Self {
        let initial = Zone { ttl: 300, records: foreign() };
        let fake = FakeDynadot::start(Config { switches, ..Config::new("example.com", initial) }).await.unwrap();
        let (writes, died) = (Arc::new(AtomicI64::new(-1)), Arc::new(Notify::new()));
        let hook: AfterCommit = {
            let (writes, died) = (writes.clone(), died.clone());
            Arc::new(move |_| {
                let (writes, died) = (writes.clone(), died.clone());
                Box::pin(async move {
                    if writes.load(Ordering::SeqCst) >= 0 && writes.fetch_sub(1, Ordering::SeqCst) == 1 {
                        died.notify_one();
                        std::future::pending::<()>().await;
                    }
                })
            })
        };
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("store.db").display());
        let store = Store::open_watched(&url, hook).await.unwrap();
        let clock = Arc::new(Later(AtomicI64::new(0)));
        Self { fake, store, clock, writes, died, lives: AtomicI64::new(0), _folder: folder }
    }

    /// A new controller.
    fn keeper(&self) -> Keeper {
        let names = Names::new("example.com", "users.example.com").unwrap();
        let holder = format!("life {}", self.lives.fetch_add(1, Ordering::SeqCst));
        let provider = Arc::new(self.fake.client());
        Keeper::new(self.store.clone(), provider, self.clock.clone(), names, rules(), KEY, &holder)
    }

    /// One pass, which dies behind the write with that number; false if it died.
    async fn pass(&self, keeper: &Keeper, wanted: &[ZoneRecord], dies_after: i64) -> bool {
        self.writes.store(dies_after, Ordering::SeqCst);
        let ask = Ask { cap: Cap::Count(100), ..Ask::default() };
        let lived = tokio::select! {
            () = self.died.notified() => false,
            // Refusals and silence are what this is about.
            done = keeper.apply(wanted, &ask) => { drop(done); true }
        };
        self.writes.store(-1, Ordering::SeqCst);
        if !lived {
            self.clock.0.fetch_add(61_000, Ordering::SeqCst);
        }
        lived
    }

    /// The zone without what strangers have in it: `theirs` and what was typed on the page.
    fn ours(&self, theirs: &[ZoneRecord]) -> (Vec<ZoneRecord>, usize) {
        let rest = Bag::of(&self.fake.zone()).without(&theirs.iter().collect());
        let (markers, ours): (Vec<_>, Vec<_>) = rest
            .listed()
            .into_iter()
            .filter(|one| !one.host.starts_with("by-hand"))
            .partition(|one| one.host == "_feather.users");
        (ours, markers.len())
    }

    async fn converges(&self, keeper: &Keeper, wanted: &[ZoneRecord], theirs: &[ZoneRecord], told: &str) {
        let mut expected: Vec<_> = wanted.iter().filter(|one| one.host != "t3.users").cloned().collect();
        expected.sort();
        until(&format!("the zone is as wanted, {told}"), || async {
            let ask = Ask { cap: Cap::Count(100), ..Ask::default() };
            let done = keeper.apply(wanted, &ask).await;
            let (mut ours, markers) = self.ours(theirs);
            // Nobody takes the wildcard away for a moment, only because it is there twice.
            ours.dedup_by(|one, other| one == other && one.host.starts_with('*'));
            if ours == expected && (1..=1).contains(&markers) { Ok(()) } else { Err((done, ours, markers)) }
        })
        .await;
        assert_eq!(self.fake.violations(), [""; 0], "{told}");
        assert_eq!(self.fake.ttl_changes(), [], "{told}");
    }
}

/// What a fleet wants: a wildcard, and tenants on three servers.
struct Wishes {
    ingress: u8,
    tenants: BTreeMap<u8, u8>,
}

impl Wishes {
    fn change(&mut self, random: &mut StdRng) {
        let tenant = random.random_range(0..12_u8);
        match random.random_range(0..8) {
            0 => self.ingress = random.random_range(1..4),
            1 | 2 => drop(self.tenants.remove(&tenant)),
            _ => drop(self.tenants.insert(tenant, random.random_range(1..4))),
        }
    }

    fn records(&self) -> Vec<ZoneRecord> {
        let address = |server: u8| {
            if server == 3 { ("aaaa", "2001:db8::3".into()) } else { ("a", format!("203.0.113.{server}")) }
        };
        let at = |host: String, server| {
            let (kind, value): (_, String) = address(server);
            record(&host, kind, &value, "")
        };
        let wildcard = at("*.users".into(), self.ingress);
        std::iter::once(wildcard)
            .chain(self.tenants.iter().map(|(tenant, server)| at(format!("t{tenant}.users"), *server)))
            .collect()
    }
}

#[allow(clippy::print_stdout, reason = "shown when a history fails")]
async fn history(seed: u64, switches: (&'static str, Switches), rounds: usize) {
    let told = format!("seed {seed}, switch {}", switches.0);
    let mut random = StdRng::seed_from_u64(seed);
    let bench = Bench::start(switches.1).await;
    let mut keeper = bench.keeper();
    let mut wishes = Wishes { ingress: 1, tenants: BTreeMap::from([(0, 1), (1, 2), (5, 3)]) };
    bench.fake.fail_by_plan(seed, 30);
    let mut deaths = 0;
    for _ in 0..rounds {
        (0..random.random_range(1..4)).for_each(|_| wishes.change(&mut random));
        let dies_after = if random.random_bool(0.3) { random.random_range(1..9) } else { -1 };
        if !bench.pass(&keeper, &wishes.records(), dies_after).await {
            deaths += 1;
            keeper = bench.keeper();
        }
        assert_eq!(bench.fake.violations(), [""; 0], "{told}");
    }
    bench.fake.calm();
    bench.converges(&keeper, &wishes.records(), &foreign(), &told).await;
    println!("{told}: {deaths} deaths, {} requests", bench.fake.log().len());
}

#[tokio::test]
async fn whatever_goes_wrong_nobodys_records_change_and_the_zone_becomes_as_wanted() {
    let settings = Switches::settings();
    let start: u64 = std::env::var("FEATHER_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    for seed in start..start + 12 {
        let mut random = StdRng::seed_from_u64(seed ^ 0x5eed);
        let switches = *settings.choose(&mut random).unwrap();
        println!("seed {seed}, switch {}", switches.0);
        history(seed, switches, 25).await;
    }
}

#[tokio::test]
async fn a_controller_may_die_behind_every_write() {
    let bench = Bench::start(Switches::default()).await;
    let mut wishes = Wishes { ingress: 1, tenants: BTreeMap::from([(0, 1)]) };
    let mut keeper = bench.keeper();
    let mut most = 0;
    // Until a pass has no write of that number any more.
    for write in 1..40 {
        wishes.ingress = 1 + (wishes.ingress % 2);
        wishes.tenants.insert(0, wishes.ingress);
        wishes.tenants.insert(u8::try_from(5 + write % 5).unwrap(), 2);
        if bench.pass(&keeper, &wishes.records(), write).await {
            break;
        }
        most = write;
        keeper = bench.keeper();
        bench.converges(&keeper, &wishes.records(), &foreign(), &format!("death behind write {write}")).await;
    }
    assert!(most >= 5, "a change is at least five writes, not {most}");
}

#[tokio::test]
async fn a_lost_reply_is_looked_after_and_never_repeated_blindly() {
    for (fault, appends) in [(Fault::lost_before(), 2), (Fault::lost_after(), 1)] {
        let bench = Bench::start(Switches::default()).await;
        let wishes = Wishes { ingress: 1, tenants: BTreeMap::from([(0, 2)]) };
        bench.fake.fail(fault.clone());
        bench.converges(&bench.keeper(), &wishes.records(), &foreign(), &format!("{fault:?}")).await;
        let posts = bench.fake.log().iter().filter(|request| request.method == "POST").count();
        assert_eq!(posts, appends, "{fault:?}");
    }
}

#[tokio::test]
async fn an_addition_that_arrives_long_after_it_was_given_up_is_known_as_ours() {
    let bench = Bench::start(Switches::default()).await;
    let keeper = bench.keeper();
    let first = Wishes { ingress: 1, tenants: BTreeMap::from([(0, 1), (1, 1)]) };
    bench.converges(&keeper, &first.records(), &foreign(), "first").await;
    // The reply is lost and the change arrives forty requests later, when it has been sent again and is out of date.
    let late = Fault::on(On::Change, Apply::Late(40), Answer::Lost);
    bench.fake.fail(late);
    let second = Wishes { ingress: 1, tenants: BTreeMap::from([(0, 2), (1, 1), (2, 2)]) };
    bench.converges(&keeper, &second.records(), &foreign(), "second").await;
    let third = Wishes { ingress: 1, tenants: BTreeMap::from([(1, 1)]) };
    bench.converges(&keeper, &third.records(), &foreign(), "third").await;
    bench.fake.settle();
    let arrived = bench.ours(&foreign()).0;
    bench.converges(&keeper, &third.records(), &foreign(), &format!("after the late arrival of {arrived:?}")).await;
}

#[tokio::test]
async fn what_somebody_types_in_the_middle_of_a_change_stays_and_is_said() {
    let bench = Bench::start(Switches::default()).await;
    let typed = record("shop", "a", "198.51.100.99", "");
    bench.fake.fail(Fault::edit_before_change(Edit::Add(typed.clone())));
    let keeper = bench.keeper();
    let wishes = Wishes { ingress: 1, tenants: BTreeMap::from([(0, 2)]) };
    let done = keeper.apply(&wishes.records(), &Ask::default()).await.unwrap();
    let noticed = done.noticed.unwrap();
    assert!(noticed.contains("shop a \"198.51.100.99\""), "{noticed}");
    let theirs: Vec<_> = foreign().into_iter().chain([typed]).collect();
    bench.converges(&keeper, &wishes.records(), &theirs, "typed").await;
}
